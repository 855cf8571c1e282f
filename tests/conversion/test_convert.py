"""Conversions: selection, resuming, determinism, refusals, the command."""

import errno
import gc
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from saliency_pipeline.cli.main import salpipe
from saliency_pipeline.conversion import convert as module
from saliency_pipeline.conversion import output as output_module
from saliency_pipeline.conversion.convert import convert
from saliency_pipeline.conversion.fiftyone import field_names
from saliency_pipeline.conversion.names import safe_name, unique_names
from saliency_pipeline.conversion.output import OutputFiles
from saliency_pipeline.conversion.png import map_folders
from saliency_pipeline.errors import PlanMismatchError, SalpipeError
from saliency_pipeline.shards.schema import MapShape
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


def test_names_differ_from_those_that_get_a_position():
    assert unique_names(["a/b", "A:b", "a_b-0"]) == ["a_b-0-0", "A_b-1", "a_b-0"]
    assert unique_names(["x-1", "x", "X-1", "x"]) == ["x-1-0", "x-1-1", "X-1-2", "x-3"]


@pytest.mark.parametrize("name", ["CON", "nul.txt", "Com1", "lpt9.tar.gz", "aux .png"])
def test_names_of_windows_devices_are_avoided(name):
    assert safe_name(name) == f"_{name}"
    assert safe_name(f"{name[:3]}x") == f"{name[:3]}x"


def test_folders_and_fields_of_maps_differ(tmp_path):
    methods = {"gradcam": {}, "gradcam-1": {}, "gradcam_target_2": {}}
    maps = {method: MapShape(2 if method == "gradcam" else 1, 4, 4) for method in methods}
    head = examples.header()
    head = replace(head, maps=maps, provenance={**head.provenance, "methods": methods})
    folders = [name for names in map_folders(head, "npy").values() for name in names]
    assert len(set(folders)) == len(folders) == 4
    data = SimpleNamespace(methods=tuple(maps), header=head)
    fields = [name for names in field_names(data).values() for name in names]
    assert len(set(fields)) == len(fields) == 4
    assert all(name.isidentifier() for name in fields)


def test_small_files_are_whole_before_they_get_their_names(tmp_path, monkeypatch):
    def seen(source, target):
        sizes.append(os.path.getsize(source))
        move(source, target)

    sizes, move = [], os.replace
    monkeypatch.setattr(os, "replace", seen)
    with OutputFiles(tmp_path) as output:
        output.write("images/a.png", b"abc", images=1)
        (entry,) = output.publish()
    assert sizes == [3]
    assert (entry.name, entry.images, entry.sha256) == ("images/a.png", 1, hashlib.sha256(b"abc").hexdigest())
    (tmp_path / "images/b.png").symlink_to(tmp_path / "elsewhere")
    with OutputFiles(tmp_path) as output, pytest.raises(SalpipeError, match="a symbolic link inside the output folder"):
        output.write("images/b.png", b"abc")


class FullDisk(io.FileIO):
    """A file on a disk that has room for some bytes only."""

    room = 0

    def write(self, data):
        size = memoryview(data).nbytes
        if self.tell() + size > self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(data)


@pytest.mark.parametrize("room", [10, 3000, 20_000])
@pytest.mark.parametrize("to", ["webdataset", "parquet"])
def test_a_full_disk_is_one_line(shards, tmp_path, monkeypatch, to, room):
    def full(path, mode, opener):
        return FullDisk(path, mode, opener=opener)

    monkeypatch.setattr(output_module, "open", full, raising=False)
    monkeypatch.setattr(FullDisk, "room", room)
    with pytest.raises(SalpipeError, match=r"disk full while writing .*/\w+-00000\."):
        convert(shards.path, tmp_path / "out", to=to)
    # a writer that is freed prints an error if it is still open
    gc.collect()
    assert not [path for path in (tmp_path / "out").iterdir() if path.suffix in (".tar", ".parquet")]
    assert not list((tmp_path / "out").glob("tmp.*"))


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
