"""Maps of a run's own baseline: made once by its network, resumed, shared by runs, and checked when they are read."""

import pickle
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from saliency_pipeline.errors import IntegrityError, OptionError, SalpipeError
from saliency_pipeline.folders import FolderLock
from saliency_pipeline.shards.reader import ShardFolder
from saliency_pipeline.training.data import self_maps
from saliency_pipeline.training.data.batches import PairDataset
from saliency_pipeline.training.data.self_maps import BaselineRun, SelfMaps, computed_method
from saliency_pipeline.training.run import train
from tests.evaluation.runs import Notes
from tests.training.examples import SIZE, Interrupting, disable_plots, labeled
from tests.training.test_leaks import QUICK

pytestmark = pytest.mark.usefixtures("without_plots")

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return labeled(tmp_path_factory.mktemp("shards") / "labeled", 48)


@pytest.fixture(scope="module")
def trained(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A baseline; tests copy its folder."""
    folder = tmp_path_factory.mktemp("baseline") / "run"
    with pytest.MonkeyPatch.context() as patch:
        disable_plots(patch)
        train(shards, folder, replace(QUICK, arch="baseline"))
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "best.safetensors").write_bytes((trained / "best.safetensors").read_bytes())
    return folder


def maps_of(run: Path, shards: Path, method: str | None = None) -> SelfMaps:
    return SelfMaps(ShardFolder(shards), BaselineRun.open(run), computed_method(method))


def files(maps: SelfMaps) -> list[Path]:
    return sorted(maps.folder.glob("part-*.npy"))


def test_maps_do_not_depend_on_what_is_made_together(
    run: Path, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = maps_of(run, shards)
    source.prepare(np.arange(48), CPU, Notes())
    whole = source.at(np.arange(48))
    assert (whole.dtype, whole.shape[0]) == (np.float32, 48)
    assert whole.any()
    monkeypatch.setattr(self_maps, "PART", 7)
    other = tmp_path / "other"
    other.mkdir()
    (other / "best.safetensors").write_bytes((run / "best.safetensors").read_bytes())
    pieces = maps_of(other, shards)
    for rows in (np.array([40, 3, 3]), np.arange(0, 48, 5), np.arange(48)):
        pieces.prepare(rows, CPU, Notes())
        np.testing.assert_array_equal(pieces.at(rows), whole[rows])
    assert len(files(pieces)) == 9
    order = np.random.default_rng(0).permutation(48)
    np.testing.assert_array_equal(pieces.at(order), whole[order])


def test_an_interrupted_making_resumes(run: Path, shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(self_maps, "PART", 16)
    source = maps_of(run, shards)
    with pytest.raises(KeyboardInterrupt):
        source.prepare(np.arange(48), CPU, Interrupting(20))
    assert len(files(source)) == 2
    before = [path.stat().st_mtime_ns for path in files(source)]
    source.prepare(np.arange(48), CPU, Notes())
    assert [path.stat().st_mtime_ns for path in files(source)][:2] == before
    assert len(files(source)) == 3


def test_others_read_the_same_files(run: Path, shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    maps_of(run, shards).prepare(np.arange(48), CPU, Notes())
    monkeypatch.setattr(self_maps, "_make", None)
    again = maps_of(run, shards)
    again.prepare(np.arange(48), CPU, Notes())
    dataset = PairDataset(ShardFolder(shards), np.arange(40)[::-1], None, maps="self", source=again)
    copied = pickle.loads(pickle.dumps(dataset))
    np.testing.assert_array_equal(copied.__getitems__([3, 7]).maps, again.at(np.array([36, 32])))


def test_a_run_waits_while_another_makes_the_maps(run: Path, shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(self_maps, "_POLL", 0.01)
    source, notes = maps_of(run, shards), Notes()
    source.folder.mkdir(parents=True)
    with FolderLock(source.folder):
        thread = threading.Thread(target=source.prepare, args=(np.arange(8), CPU, notes))
        thread.start()
        while not notes.notes:
            assert thread.is_alive()
    thread.join()
    assert notes.notes[0] == f"{source.folder}: another run makes these maps; waiting for it"
    assert source.at(np.arange(8)).any()


@pytest.mark.parametrize("damage", [b"", b"\x93NUMPY", None])
def test_a_damaged_file_is_made_again(run: Path, shards: Path, damage: bytes | None) -> None:
    source = maps_of(run, shards)
    source.prepare(np.arange(8), CPU, Notes())
    before, (path,) = source.at(np.arange(8)), files(source)
    path.write_bytes(path.read_bytes()[:-9] if damage is None else damage)
    with pytest.raises(IntegrityError, match="lacks maps of 8 images; run the same command again"):
        maps_of(run, shards).at(np.arange(8))
    again = maps_of(run, shards)
    again.prepare(np.arange(8), CPU, Notes())
    np.testing.assert_array_equal(again.at(np.arange(8)), before)


@pytest.mark.parametrize("field", ["map", "scale"])
def test_values_that_are_not_finite_are_an_error_that_names_the_file(run: Path, shards: Path, field: str) -> None:
    source = maps_of(run, shards)
    source.prepare(np.arange(8), CPU, Notes())
    (path,) = files(source)
    part = np.load(path)
    part[field][3] = np.nan
    np.save(path, part)
    with pytest.raises(IntegrityError) as error:
        maps_of(run, shards).at(np.arange(8))
    assert str(error.value) == f"{path}: holds values that are not finite; remove it and run the same command again"


def test_another_network_method_or_folder_of_shards_has_other_files(run: Path, shards: Path, tmp_path: Path) -> None:
    base = maps_of(run, shards)
    assert base.folder.parent == run / "maps"
    assert maps_of(run, shards, "gradcam").folder == base.folder
    assert maps_of(run, shards, "xgradcam").folder != base.folder
    other = replace(BaselineRun.open(run), sha256="0" * 64)
    assert SelfMaps(ShardFolder(shards), other, computed_method(None)).folder != base.folder


def test_signed_methods_of_pixels_are_stored_as_they_are(
    run: Path, shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(self_maps, "_IN_MEMORY", 0)
    source = maps_of(run, shards, "input-x-gradient")
    source.prepare(np.arange(8), CPU, Notes())
    maps = maps_of(run, shards, "input-x-gradient").at(np.arange(8))
    assert maps.shape == (8, SIZE, SIZE)
    assert source.signed
    assert maps.min() < 0 < maps.max()


def test_frames_are_resized_to_those_of_the_network(shards: Path, tmp_path: Path) -> None:
    train(shards, tmp_path / "small", replace(QUICK, arch="baseline", size=24))
    source = maps_of(tmp_path / "small", shards, "gradient")
    source.prepare(np.arange(4), CPU, Notes())
    assert source.at(np.arange(4)).shape == (4, 24, 24)


def test_runs_that_cannot_make_maps_are_refused_in_one_line(shards: Path, run: Path, tmp_path: Path) -> None:
    train(shards, tmp_path / "modulated", QUICK)
    train(shards, tmp_path / "zoom", replace(QUICK, arch="baseline", use="zoom"))
    for path, reason in (
        (tmp_path / "modulated", "a run of --arch modulated; maps are made by a run of --arch baseline that uses no"),
        (tmp_path / "zoom", "a run of --use zoom:.*; maps are made by a run of --arch baseline that uses no maps"),
        (tmp_path / "missing", "no such file or folder"),
        (shards, "holds no trained network"),
        (run / "best.safetensors", "the file of a network; give the folder of its run"),
    ):
        with pytest.raises(SalpipeError, match=reason) as error:
            BaselineRun.open(path)
        assert "\n" not in str(error.value)
    for method, reason in (("expected-gradients", "compares images with others"), ("given", "given")):
        with pytest.raises(OptionError, match=reason):
            computed_method(method)


def test_a_network_that_was_replaced_is_noticed(run: Path, shards: Path, trained: Path) -> None:
    source = SelfMaps(ShardFolder(shards), replace(BaselineRun.open(run), sha256="0" * 64), computed_method(None))
    with pytest.raises(SalpipeError, match="its network was replaced; run the same command again"):
        source.prepare(np.arange(4), CPU, Notes())
