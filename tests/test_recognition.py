"""Arguments of the wrong kind are recognized and named."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from saliency_pipeline.assessment.results import RESULTS as ASSESSMENT
from saliency_pipeline.comparison.output import RESULTS
from saliency_pipeline.comparison.runs import read_run
from saliency_pipeline.datasets.export_file import EXPORT
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.evaluation.evaluate import EVALUATION
from saliency_pipeline.evaluation.predict import DOCUMENT
from saliency_pipeline.gallery.page import PAGE
from saliency_pipeline.generation.plan import PLAN
from saliency_pipeline.models.trained.trained import BEST, load_trained
from saliency_pipeline.recognition import _MARKS, EMPTY, IMAGES, ODD, SHARD, SHARDS, recognize, refuse_shards
from saliency_pipeline.shards.manifest import MANIFEST
from saliency_pipeline.shards.reader import ShardFolder
from saliency_pipeline.shards.summary import inspect
from saliency_pipeline.shards.verify import verify
from saliency_pipeline.training.checkpoint import LAST
from saliency_pipeline.training.runlog import PROVENANCE
from tests.shards import examples


def photos(path: Path) -> None:
    (path / "train" / "cat").mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(path / "train" / "cat" / "1.JPG")


def holding(*names: str) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        path.mkdir()
        for name in names:
            (path / name).write_bytes(b"{}")

    return make


def file(path: Path) -> None:
    path.write_bytes(b"something")


CASES: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "my photos": (photos, IMAGES, "not of shards; run \"salpipe generate 'my photos' -o shards\" first"),
    "tars": (holding("a-0001.tar"), "a folder of archives", "run 'salpipe generate tars -o shards' first"),
    "tables": (holding("a.parquet"), "a folder of Parquet files", "run 'salpipe generate tables -o shards' first"),
    "a.parquet": (file, "a Parquet file", "not shards; run 'salpipe generate a.parquet -o shards' first"),
    "a.tar": (file, "an archive", "run 'salpipe generate a.tar -o shards' first"),
    "a.webp": (file, "a single image", "give a folder that 'salpipe generate' wrote"),
    "a.txt": (file, "some other file", "give a folder that 'salpipe generate' wrote"),
    "a.safetensors": (file, "the weights of a network", "give the shards that it was trained on"),
    "run": (holding(BEST, "config.toml"), "a run of 'salpipe train'", "give the shards that it was trained on"),
    "begun": (holding(PROVENANCE, LAST), "a run of 'salpipe train'", "give the shards that it was trained on"),
    "comparison": (holding(RESULTS), "a comparison", "give the shards that it was trained on"),
    "planned": (holding(RESULTS, PLAN), "a comparison", "give the shards that it was trained on"),
    "evaluated": (holding(EVALUATION), "an evaluation", "give a folder that 'salpipe generate' wrote"),
    "empty": (holding(), EMPTY, "give a folder that 'salpipe generate' wrote"),
    "notes": (holding("a.txt"), "a folder of other files", "give a folder that 'salpipe generate' wrote"),
    "pipe": (os.mkfifo, ODD, "give a folder that 'salpipe generate' wrote"),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_given_for_shards_is_named(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make, kind, remedy = CASES[name]
    make(Path(name))
    assert recognize(name) == kind
    for use in (ShardFolder, inspect, verify):
        with pytest.raises(SalpipeError) as raised:
            use(name)
        assert str(raised.value).startswith(f"{name}: {kind}, ")
        assert remedy in str(raised.value)
        assert raised.value.exit_code == 1


def test_shards_are_no_run(tmp_path: Path) -> None:
    shards = examples.folder(tmp_path / "shards")
    assert (recognize(shards), recognize(shards / "shard-00000.h5")) == (SHARDS, SHARD)
    with pytest.raises(SalpipeError, match=r"a finished folder of shards, holds no trained network; .* 'salpipe train"):
        load_trained(shards)
    with pytest.raises(SalpipeError, match="a finished folder of shards, not a finished run; give runs"):
        read_run(shards, "", "")
    with pytest.raises(SalpipeError, match=r"a\.txt: no such file or folder, holds no trained network"):
        load_trained(tmp_path / "a.txt")


@pytest.mark.parametrize("name", ["my photos", "comparison", "empty", "begun", "a.webp", "pipe"])
def test_what_is_given_for_a_run_is_named(name: str, tmp_path: Path) -> None:
    make, kind, _ = CASES[name]
    make(tmp_path / name)
    with pytest.raises(SalpipeError, match="an unfinished run" if name == "begun" else kind):
        load_trained(tmp_path / name)
    with pytest.raises(SalpipeError, match="not a finished run"):
        read_run(tmp_path / name, "", "")


def test_half_a_folder_of_shards_is_to_be_finished(tmp_path: Path) -> None:
    shards = examples.folder(tmp_path / "shards")
    (shards / MANIFEST).unlink()
    with pytest.raises(SalpipeError, match="run 'salpipe generate' again to finish it"):
        ShardFolder(shards)
    holding(PLAN)(tmp_path / "begun")
    with pytest.raises(SalpipeError, match="run 'salpipe generate' again to finish it"):
        verify(tmp_path / "begun")


def test_the_marks_are_the_names_that_are_written() -> None:
    written = {MANIFEST, PLAN, RESULTS, ASSESSMENT, BEST, LAST, PROVENANCE, EVALUATION, DOCUMENT, PAGE, EXPORT}
    assert set(_MARKS) == written


@pytest.mark.parametrize("name", ["manifest.json", "shard-00000.h5"])
def test_results_do_not_belong_among_shards(tmp_path: Path, name: str) -> None:
    for other in ("plan.json", "provenance.json", "notes.h5"):  # a comparison has a plan too
        (tmp_path / other).touch()
    refuse_shards(tmp_path)
    refuse_shards(tmp_path / "missing")
    (tmp_path / name).touch()
    with pytest.raises(SalpipeError, match="holds shards; choose another output folder"):
        refuse_shards(tmp_path)
