"""Images that the source model was trained on are flagged, and shards record how many are known."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from saliency_pipeline.images.record import Split
from saliency_pipeline.models.trained.trained import load_trained, write_trained
from saliency_pipeline.models.trained.training_images import ENTRY, TrainingImages
from saliency_pipeline.progress import Progress
from saliency_pipeline.shards.reader import ShardFolder
from saliency_pipeline.shards.schema import SEEN
from saliency_pipeline.shards.summary import inspect
from tests.evaluation.runs import PHOTOGRAPHS, run_on
from tests.generation.examples import photographs, run

OWN: dict[str, Any] = {"weights": "default", "size": None}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return photographs(tmp_path_factory.mktemp("seen") / "images", PHOTOGRAPHS)


@pytest.fixture(scope="module")
def source(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A baseline trained on the eight images of the training split."""
    folder = tmp_path_factory.mktemp("source")
    run(images, folder / "shards")
    return run_on(folder / "shards", folder / "run", arch="baseline")


def flagged(shards: ShardFolder) -> list[bool]:
    return np.concatenate([shard.flags("gradcam")[:, 0] & SEEN != 0 for shard in shards.shards]).tolist()


@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_maps_of_images_of_training_are_flagged(images: Path, source: Path, tmp_path: Path, jobs: int) -> None:
    notes: list[str] = []
    progress = Progress()
    progress.note = notes.append  # type: ignore[method-assign]
    report = run(images, tmp_path / "shards", model=str(source), progress=progress, jobs=jobs, **OWN)
    shards = ShardFolder(tmp_path / "shards")
    assert flagged(shards) == [pair.split == Split.TRAIN for pair in shards]
    assert report.seen == inspect(tmp_path / "shards").seen == 8
    assert shards.provenance["source"][ENTRY] == 8
    (note,) = [note for note in notes if "was trained on" in note]
    assert f"{source} was trained on 8 of these 12 images" in note
    # a run that finds everything done still counts them
    assert run(images, tmp_path / "shards", model=str(source), **OWN).seen == 8


def test_the_file_of_a_run_that_is_given_as_weights_is_recognized(images: Path, source: Path, tmp_path: Path) -> None:
    run(images, tmp_path / "shards", weights=str(source / "best.safetensors"))
    shards = ShardFolder(tmp_path / "shards")
    assert shards.provenance["source"][ENTRY] == 8
    assert sum(flagged(shards)) == 8


@pytest.mark.parametrize("recorded", [None, 3])
def test_a_source_without_a_complete_record_is_unknown(
    images: Path, source: Path, tmp_path: Path, recorded: int | None
) -> None:
    trained, partly = load_trained(source), None
    if recorded is not None:
        partly = TrainingImages.of(trained.training_images.digests[:recorded], complete=False)
    (tmp_path / "old").mkdir()
    write_trained(tmp_path / "old" / "best.safetensors", trained.network, trained.spec, trained.about, partly)
    notes: list[str] = []
    progress = Progress()
    progress.note = notes.append  # type: ignore[method-assign]
    run(images, tmp_path / "shards", model=str(tmp_path / "old"), progress=progress, **OWN)
    shards = ShardFolder(tmp_path / "shards")
    assert shards.provenance["source"][ENTRY] is None
    assert sum(flagged(shards)) == (recorded or 0)
    assert sum("does not record all images it was trained on" in note for note in notes) == 1


def test_ordinary_sources_have_no_entry_and_no_flag(images: Path, tmp_path: Path) -> None:
    assert run(images, tmp_path / "shards").seen == 0
    shards = ShardFolder(tmp_path / "shards")
    assert ENTRY not in shards.provenance["source"]
    assert not any(flagged(shards))
