"""Conversions: selection, resuming, determinism, refusals, the command."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from saliency_pipeline.cli.main import salpipe
from saliency_pipeline.conversion import convert as module
from saliency_pipeline.conversion.convert import convert
from saliency_pipeline.conversion.names import safe_name, unique_names
from saliency_pipeline.errors import PlanMismatchError, SalpipeError
from tests.conversion.examples import KEYS, tree
from tests.shards import examples


def test_split_class_and_method_select(shards, tmp_path):
    result = convert(shards.path, tmp_path / "a", splits=("train",), methods=("smoothgrad",))
    assert result.splits == {"train": 3}
    assert result.methods == ("smoothgrad:noise=0.15,samples=25,seed=0,stat=mean",)
    result = convert(shards.path, tmp_path / "b", classes=("..", "cat"))
    assert result.images == int(sum(shards.labels == 0) + sum(shards.labels == 2))
    with pytest.raises(SalpipeError, match="no class 'dog'"):
        convert(shards.path, tmp_path / "c", classes=("dog",))
    with pytest.raises(SalpipeError, match="holds no maps of 'rise'; it holds edges"):
        convert(shards.path, tmp_path / "c", methods=("rise",))
    assert not (tmp_path / "c").exists()


def test_a_selection_without_images_is_an_error(tmp_path):
    path = examples.of_methods(tmp_path / "shard-00000.h5", {"gradcam": {}})
    whole = examples.rows(6)
    head = examples.header()
    whole.labels[:], whole.splits[:] = 0, 0
    examples.write(path, head, whole)
    with pytest.raises(SalpipeError, match="holds no images of test; choose another --split or --class"):
        convert(path, tmp_path / "out", splits=("test",))


@pytest.mark.parametrize("to", ["webdataset", "parquet", "png"])
def test_an_interrupted_conversion_resumes_to_the_same_bytes(shards, exports, tmp_path, monkeypatch, to):
    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return read(*arguments)

    calls, read = [], module.read_samples
    monkeypatch.setattr(module, "read_samples", interrupted)
    with pytest.raises(KeyboardInterrupt):
        convert(shards.path, tmp_path / to, to=to)
    assert not (tmp_path / to / "export.json").exists()
    assert not list((tmp_path / to).rglob("tmp.*"))
    result = convert(shards.path, tmp_path / to, to=to)
    assert (result.shards, result.written) == (3, 2)
    assert tree(tmp_path / to) == tree(exports[to])
    # a finished one writes nothing, a damaged file again
    assert convert(shards.path, tmp_path / to, to=to).written == 0
    damaged = next(path for path in sorted((tmp_path / to).rglob("*")) if path.suffix in (".tar", ".parquet", ".npy"))
    damaged.write_bytes(b"x" * damaged.stat().st_size)
    assert convert(shards.path, tmp_path / to, to=to).written == 1
    assert tree(tmp_path / to) == tree(exports[to])


def test_other_options_and_other_files_are_refused(shards, exports, tmp_path):
    folder = shutil.copytree(exports["webdataset"], tmp_path / "tars")
    with pytest.raises(PlanMismatchError, match="holds the export of other shards, or with other options"):
        convert(shards.path, folder, splits=("train",))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/train-00000.tar").write_bytes(b"mine")
    with pytest.raises(SalpipeError, match=r"mine: holds other files \(train-00000.tar\); choose an empty folder"):
        convert(shards.path, tmp_path / "mine")
    with pytest.raises(SalpipeError, match="holds shards; choose another output folder"):
        convert(shards.path, shards.path)
    assert tree(Path(folder)) == tree(exports["webdataset"])


def test_links_in_the_output_are_not_followed(shards, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out/.receipts").mkdir(parents=True)
    convert(shards.path, tmp_path / "out", to="png", methods=("edges",))
    shutil.rmtree(tmp_path / "out/images")
    (tmp_path / "out/images").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SalpipeError, match="a symbolic link inside the output folder is not followed"):
        convert(shards.path, tmp_path / "out", to="png", methods=("edges",))
    assert not list((tmp_path / "elsewhere").iterdir())


def test_names_are_safe():
    names = unique_names(KEYS)
    assert len({name.casefold() for name in names}) == len(KEYS)
    for name in [*names, safe_name("\0"), safe_name("\ud800"), safe_name(".")]:
        assert name not in ("", ".", "..")
        assert not set(name) & set("/\\\0\n\x1b")
        assert len(name.encode()) <= 90


def test_the_command(shards, tmp_path):
    arguments = ["convert", str(shards.path), "-o", str(tmp_path / "tars"), "--method", "edges", "--class", "cat"]
    result = CliRunner().invoke(salpipe, [*arguments, "--json"])
    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout)
    assert printed["to"] == "webdataset"
    assert printed["images"] == sum(printed["splits"].values()) > 0
    result = CliRunner().invoke(salpipe, arguments)
    assert "(0 exported now)" in result.output
    assert "maps: edges" in result.output


@pytest.mark.slow
def test_a_killed_conversion_leaves_only_whole_files(tmp_path):
    """SIGKILL at any moment: final names hold final bytes, and the same command finishes the export."""
    shards = examples.folder(tmp_path / "shards", [64] * 6)
    whole = tree(Path(convert(shards, tmp_path / "whole").folder))
    command = [sys.executable, "-m", "saliency_pipeline.cli", "convert", str(shards), "-o", str(tmp_path / "killed")]
    for limit in (1, 3, 5):
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        while process.poll() is None and len(list((tmp_path / "killed").glob("*.tar"))) < 4 * limit - 2:
            time.sleep(0.001)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        left = {name: data for name, data in tree(tmp_path / "killed").items() if "tmp." not in name}
        assert all(whole[name] == data for name, data in left.items())
    assert subprocess.run(command, stdout=subprocess.DEVNULL).returncode == 0
    assert tree(tmp_path / "killed") == whole
