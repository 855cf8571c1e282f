"""Quality of the maps that the arms of a comparison read."""

from pathlib import Path

import pytest

from saliency_pipeline.comparison.arms import Arm
from saliency_pipeline.comparison.quality import FOLDER, map_quality
from saliency_pipeline.shards.reader import ShardFolder
from saliency_pipeline.training.config import TrainConfig
from tests.evaluation.runs import Notes
from tests.generation.examples import photographs, run
from tests.training.examples import labeled

BASELINE, HALF = Arm("baseline", {"arch": "baseline"}, "reference"), Arm("half", {"arch": "modulated"})
OTHER = Arm("other", {"arch": "modulated", "method": "hirescam"})

SHARED = TrainConfig(method="gradcam", device="cpu")


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four photographs with maps of two methods. Not to be changed."""
    root = tmp_path_factory.mktemp("quality")
    photographs(root / "images", [f"{number}.png" for number in range(4)])
    run(root / "images", root / "shards", methods=("gradcam", "hirescam"))
    return root / "shards"


def test_the_maps_of_every_arm_are_measured(shards: Path, tmp_path: Path) -> None:
    pairs, notes = ShardFolder(shards), Notes()
    quality = map_quality(pairs, tmp_path, (BASELINE, HALF, OTHER), SHARED, 3, notes)
    assert quality is not None
    assert [(row.method, row.title, row.images) for row in quality] == [("gradcam", "SRG", 3), ("hirescam", "SRG", 3)]
    page = tmp_path / FOLDER / "report.html"
    before = page.read_bytes()
    assert map_quality(pairs, tmp_path, (BASELINE, HALF, OTHER), SHARED, 3, notes) == quality
    assert page.read_bytes() == before
    # of another number of images they are measured anew
    again = map_quality(pairs, tmp_path, (BASELINE, HALF), SHARED, 2, notes)
    assert again is not None
    assert [row.images for row in again] == [2]


def test_nothing_is_measured_where_nothing_is_read_or_requested(shards: Path, tmp_path: Path) -> None:
    pairs = ShardFolder(shards)
    assert map_quality(pairs, tmp_path, (BASELINE,), SHARED, 3, Notes()) is None
    assert map_quality(pairs, tmp_path, (BASELINE, HALF), SHARED, 0, Notes()) is None
    control = Arm("self-zoom-center-prior", {"use": "zoom", "maps": "center-prior"}, "control")
    assert map_quality(pairs, tmp_path, (BASELINE, control), SHARED, 3, Notes()) is None
    assert not (tmp_path / FOLDER).exists()


def test_shards_without_provenance_have_a_note(tmp_path: Path) -> None:
    pairs, notes = ShardFolder(labeled(tmp_path / "shards", 12)), Notes()
    assert map_quality(pairs, tmp_path / "out", (BASELINE, HALF), SHARED, 3, notes) is None
    assert "does not record how its maps were made" in notes.find("the maps themselves are not measured")
