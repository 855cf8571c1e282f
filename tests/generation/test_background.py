"""The background of methods that compare images: which images it has, and that every part of a run has the same."""

from pathlib import Path

import numpy as np
import pytest

from saliency_pipeline.errors import BadImageError, PlanMismatchError, SalpipeError
from saliency_pipeline.generation.background import (
    IMAGES,
    background_candidates,
    background_of,
    describe_background,
    sample_background,
)
from saliency_pipeline.images.record import Catalogue, ImageRecord, Split
from saliency_pipeline.saliency.methods import registry
from saliency_pipeline.shards.reader import ShardFolder
from tests.generation.compared import Compared
from tests.generation.conftest import NAMES
from tests.generation.examples import flat, kept, run


@pytest.fixture(autouse=True)
def compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """`Compared` is a method of salpipe."""
    monkeypatch.setitem(registry.METHODS, "compared", Compared)


def record(number: int, split: int = -1) -> ImageRecord:
    return ImageRecord(f"{number}.jpg", f"/{number}.jpg", split=split)


def decode(record: ImageRecord) -> np.ndarray:
    """A frame that tells the number of an image; every third one is no image."""
    number = int(record.key.split(".")[0])
    if number % 3 == 0:
        raise BadImageError("not an image")
    return np.full((2, 2, 3), number, np.uint8)


def sampled(records: list[ImageRecord]) -> list[int]:
    return [
        int(frame[0, 0, 0])
        for frame in sample_background(background_candidates(Catalogue("/", records), len(records)), decode)
    ]


def test_the_sample_is_of_usable_images_and_depends_on_their_keys_alone() -> None:
    records = [record(number) for number in range(200)]
    numbers = sampled(records)
    assert len(numbers) == len(set(numbers)) == IMAGES
    assert all(number % 3 for number in numbers)
    assert sampled(records[::-1]) == numbers
    fewer = sampled([each for each in records if int(each.key[:-4]) % 2])
    assert fewer[: sum(number % 2 for number in numbers)] == [number for number in numbers if number % 2]
    assert sampled([record(0), record(3)]) == []


def test_images_for_validation_and_test_are_in_no_sample() -> None:
    records = [record(number, (Split.TRAIN, Split.VALIDATION, Split.TEST)[number % 3]) for number in range(1, 40)]
    every = [record(number, number % 2) for number in range(1, 40)]
    assert sampled(records) == []
    assert sorted(sampled(every)) == [number for number in range(1, 40) if number % 2 == 0 and number % 3]
    assert len(sampled([record(number, Split.TEST) for number in range(1, 40)])) == 26


@pytest.mark.parametrize("frames", [np.zeros((2, 32, 32, 3), np.uint8), np.zeros((2, 64, 64, 3))])
def test_other_frames_than_those_of_the_run_are_refused(images: Path, tmp_path: Path, frames: np.ndarray) -> None:
    with pytest.raises(SalpipeError, match=r"background: .* is not uint8 \(M, 64, 64, 3\); use frames of that shape"):
        run(images, tmp_path / "shards", methods=("compared",), background=frames)


@pytest.mark.parametrize("encoding", ["raw", "jpeg"])
def test_maps_are_made_with_the_stored_training_images(images: Path, tmp_path: Path, encoding: str) -> None:
    run(images, tmp_path / "shards", methods=("compared", "gradcam"), target="top:2", encoding=encoding)
    pairs = ShardFolder(tmp_path / "shards")
    frames = background_of(pairs)
    assert len(frames) == sum(name.startswith("train") for name in NAMES)
    assert pairs.provenance["background"] == describe_background(frames)
    shape = pairs.header.maps["compared"]
    assert (shape.targets, shape.height, shape.residual) == (1, 64, True)
    pair = pairs[0]
    mean = frames.mean(0, dtype=np.float64)
    expected = np.abs(pair.image - mean).sum(2)
    stored = pair.maps["compared"][0].astype(np.float64)
    # the source model scales all channels alike
    np.testing.assert_allclose(stored / stored.max(), expected / expected.max(), atol=2e-3)
    assert pair.targets["compared"].tolist() == [-1]
    residuals = pairs.shard(0).residuals("compared")
    assert residuals is not None
    assert residuals[0, 0] == pytest.approx(stored.sum(), rel=1e-3)
    assert pairs.shard(0).residuals("gradcam") is None


def test_every_part_and_every_repair_has_the_same(images: Path, tmp_path: Path) -> None:
    run(images, tmp_path / "whole", methods=("compared",))
    for part in ((2, 2), (1, 2)):
        run(images, tmp_path / "parts", methods=("compared",), part=part)
    assert kept(tmp_path / "parts") == kept(tmp_path / "whole")
    (tmp_path / "parts" / "shard-00000.h5").unlink()
    run(images, tmp_path / "parts", methods=("compared",))
    assert kept(tmp_path / "parts") == kept(tmp_path / "whole")


def test_another_background_is_another_plan(tmp_path: Path) -> None:
    images, shards = flat(tmp_path / "images", 3), tmp_path / "shards"
    gray = np.full((2, 64, 64, 3), 128, np.uint8)
    assert run(images, shards, methods=("compared",), background=gray).complete
    assert run(images, shards, methods=("compared",), background=gray).written == 0
    with pytest.raises(PlanMismatchError, match=r"\(background\.images 2 -> 3; background\.sha256 \w{8} -> \w{8}\)"):
        run(images, shards, methods=("compared",))


def test_methods_that_compare_nothing_have_none(finished: Path) -> None:
    assert "background" not in ShardFolder(finished).provenance


def test_a_data_set_without_a_usable_image_has_none(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.jpg").write_bytes(b"no image")
    with pytest.raises(SalpipeError, match="none of its images can be used"):
        run(tmp_path / "images", tmp_path / "shards", methods=("compared",))
