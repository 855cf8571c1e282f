"""How good the maps are that the arms read, in results and report."""

from pathlib import Path

import pytest

from saliency_pipeline.comparison.arms import Arm
from saliency_pipeline.comparison.compare import compare
from saliency_pipeline.comparison.output import read_results
from saliency_pipeline.comparison.quality import map_quality
from saliency_pipeline.comparison.results import Results
from saliency_pipeline.shards.reader import ShardFolder
from tests.comparison.examples import settings
from tests.evaluation.runs import TINY, Notes
from tests.generation.examples import photographs, run
from tests.training.examples import labeled

METHODS = ("gradcam",)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs of two classes with boxes and maps. Not to be changed."""
    root = tmp_path_factory.mktemp("photos")
    names = [f"{'cat' if number % 2 else 'dog'}/{number}.png" for number in range(16)]
    photographs(root / "images", names)
    rows = ["file,xmin,ymin,xmax,ymax", *(f"{name},0,0,49,49" for name in names)]
    (root / "boxes.csv").write_text("\n".join(rows))
    run(root / "images", root / "shards", methods=METHODS, boxes=root / "boxes.csv")
    return root / "shards"


@pytest.mark.usefixtures("without_plots")
def test_the_report_says_how_good_the_maps_are(shards: Path, tmp_path: Path) -> None:
    arms = (
        Arm("baseline", {"arch": "baseline", "init": "scratch"}, "reference"),
        Arm("half", {"arch": "modulated", "init": "scratch"}),
    )
    compare(shards, tmp_path / "out", arms, TINY, **settings(folds=2, repeats=1, jobs=1))
    quality = read_results(tmp_path / "out", Results).quality
    assert quality is not None
    assert [row.title for row in quality] == ["Pointing game", "SRG"]
    assert all(row.images == 16 and row.mean is not None and row.floor is not None for row in quality)
    page = (tmp_path / "out" / "report.html").read_text()
    assert "The maps themselves" in page
    assert (tmp_path / "out" / "assessment" / "report.html").is_file()


def test_nothing_is_measured_without_maps_or_images(shards: Path, tmp_path: Path) -> None:
    pairs = ShardFolder(shards)
    assert map_quality(pairs, tmp_path, None, 100, Notes()) is None
    assert map_quality(pairs, tmp_path, "gradcam", 0, Notes()) is None
    assert list(tmp_path.iterdir()) == []


def test_shards_of_unknown_origin_are_noted(tmp_path: Path) -> None:
    notes, pairs = Notes(), ShardFolder(labeled(tmp_path / "shards"))
    assert map_quality(pairs, tmp_path / "out", pairs.methods[0], 10, notes) is None
    assert "does not record how its maps were made" in notes.find("the maps themselves are not measured")
