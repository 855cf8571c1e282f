"""Records of training images: contents, round trip, and forged records."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.models.source.build import from_file
from saliency_pipeline.models.source.source import load_source
from saliency_pipeline.models.trained.initialize import initialize
from saliency_pipeline.models.trained.trained import load_trained, open_trained, recorded_images, write_trained
from saliency_pipeline.models.trained.training_images import DIGEST, TENSOR, UNKNOWN, TrainingImages
from saliency_pipeline.models.trained.two_branch import NetworkSpec, build_network

SPEC = NetworkSpec("test_resnet", ("cat", "dog"), 64, "baseline")


def digests(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, DIGEST), dtype=np.uint8)


def written(path: Path, images: TrainingImages | None) -> Path:
    network = build_network(SPEC)
    initialize(network, SPEC, "scratch", seed=1)
    write_trained(path, network, SPEC, {}, images)
    return path


def test_membership_agrees_with_sets_and_every_digest_is_kept_once() -> None:
    own, other = digests(500), digests(300, seed=1)
    # digests that differ in their last byte alone, and one of zeros at its end
    close = own[:50].copy()
    close[:, -1] ^= 1
    own[7, 16:] = 0
    images = TrainingImages.of(np.concatenate([own, own[::3]]))
    assert len(images) == 500
    assert images.digests.tolist() == sorted(own.tolist())
    asked = np.concatenate([other, own[::2], close, own[7:8]])
    expected = {bytes(digest) for digest in own}
    assert images.contains(asked).tolist() == [bytes(digest) in expected for digest in asked]
    assert not images.contains(asked[:0]).size
    assert not TrainingImages.of(own[:0]).contains(asked).any()


def test_a_million_images_are_searched_as_arrays() -> None:
    own = digests(1_000_000)
    images = TrainingImages.of(own)
    assert images.digests.nbytes == 32_000_000
    assert images.contains(own[::10]).all()
    assert not images.contains(digests(100_000, seed=1)).any()


def test_the_union_is_complete_where_both_are() -> None:
    a, b = TrainingImages.of(digests(4)), TrainingImages.of(digests(6, seed=1))
    assert (len(a | b), (a | b).complete) == (10, True)
    assert (len(a | UNKNOWN), (a | UNKNOWN).complete) == (4, False)
    with pytest.raises(ValueError, match="not uint8"):
        TrainingImages.of(digests(4).astype(np.int64))
    with pytest.raises(ValueError, match=r"uint8 \(4, 16\)"):
        TrainingImages.of(digests(4)[:, :16])


@pytest.mark.parametrize("complete", [True, False])
def test_the_record_comes_back_and_is_no_part_of_the_network(tmp_path: Path, complete: bool) -> None:
    images = TrainingImages.of(digests(20), complete)
    path = written(tmp_path / "best.safetensors", images)
    trained = load_trained(path)
    assert trained.training_images.digests.tolist() == images.digests.tolist()
    assert trained.training_images.complete is complete
    assert TENSOR not in trained.network.state_dict()
    assert TENSOR not in open_trained(path).state
    assert path.read_bytes() == written(tmp_path / "again.safetensors", images).read_bytes()
    recorded = recorded_images(path)
    assert recorded is not None
    assert recorded.digests.tolist() == images.digests.tolist()


def test_opening_a_file_reads_no_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "best.safetensors", TrainingImages.of(digests(20)))
    monkeypatch.setattr(
        "saliency_pipeline.models.trained.training_images.read_state", lambda *_: pytest.fail("it was read")
    )
    assert open_trained(path).spec == SPEC


def test_files_of_earlier_versions_and_of_others_record_nothing(tmp_path: Path) -> None:
    old = load_trained(written(tmp_path / "old.safetensors", None)).training_images
    assert (len(old), old.complete) == (0, False)
    save_file(load_source("test_resnet", "none").module.state_dict(), tmp_path / "plain.safetensors")
    assert recorded_images(tmp_path / "plain.safetensors") is None
    assert recorded_images(tmp_path / "none.safetensors") is None


def test_the_record_stays_with_a_file_that_is_given_as_weights(tmp_path: Path) -> None:
    path = written(tmp_path / "best.safetensors", TrainingImages.of(digests(20)))
    network, _ = from_file("test_resnet", "timm", "test_resnet", path)
    assert torch.equal(next(network.parameters()), next(load_trained(path).network.parameters()))
    images = load_source("test_resnet", str(path)).training_images()
    assert images is not None
    assert (len(images), images.complete) == (20, True)
    assert load_source("test_resnet", "none").training_images() is None
    assert load_source().training_images() is None


def forged(path: Path, dtype: str, shape: list[int], values: int) -> Path:
    """A network's file whose record is of another type or shape."""
    data = written(path, None).read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    header[TENSOR] = {"dtype": dtype, "shape": shape, "data_offsets": [len(body), len(body) + values]}
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + body + bytes(values))
    return path


@pytest.mark.parametrize(
    ("dtype", "shape", "values"),
    [("U8", [2, 31], 62), ("U8", [64], 64), ("U8", [1, 2, 32], 64), ("F32", [2, 32], 256), ("I8", [2, 32], 64)],
)
def test_forged_records_are_damage(tmp_path: Path, dtype: str, shape: list[int], values: int) -> None:
    path = forged(tmp_path / "best.safetensors", dtype, shape, values)
    for reader in (load_trained, recorded_images, lambda file: open_trained(file).training_images()):
        with pytest.raises(SalpipeError, match=f"damaged .*{TENSOR} is of") as error:
            reader(path)
        assert "\n" not in str(error.value)


def test_a_record_without_its_entry_is_not_complete(tmp_path: Path) -> None:
    path = forged(tmp_path / "best.safetensors", "U8", [2, 32], 64)
    images = load_trained(path).training_images
    assert (len(images), images.complete) == (1, False)
