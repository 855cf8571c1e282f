"""The writer: the same bytes for any batches, and no readable file unless it is finished."""

import dataclasses
import os
import resource
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.files import sha256_of
from saliency_pipeline.shards import writer as writer_module
from saliency_pipeline.shards.layout import read_layout
from saliency_pipeline.shards.schema import MapShape, ShardHeader, ShardRows, columns, decode_maps, encode_maps
from saliency_pipeline.shards.shard import Shard
from saliency_pipeline.shards.verify import verify
from saliency_pipeline.shards.writer import ShardWriter
from saliency_pipeline.temporaries import temporary_name
from tests.shards.examples import MAPS, RESIDUALS, SIZE, header, part, rows, with_residuals, write

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("encoding", ["raw", "jpeg"])
@pytest.mark.parametrize("count", [0, 1, 13])
def test_what_was_written_is_read(tmp_path, encoding, count):
    whole = rows(count, encoding)
    shard = Shard(write(tmp_path / "a.h5", header(encoding), whole))
    assert len(shard) == count
    assert shard.header == header(encoding)
    assert shard.keys == whole.keys
    np.testing.assert_array_equal(shard.labels, whole.labels)
    np.testing.assert_array_equal(shard.splits, whole.splits)
    np.testing.assert_array_equal(shard.source_sha256, whole.sha256)
    np.testing.assert_array_equal(shard.source_sizes, whole.source_size)
    np.testing.assert_array_equal(shard.predictions[0], whole.prediction_class)
    np.testing.assert_array_equal(shard.predictions[1], whole.prediction_score)
    for method in MAPS:
        stored, scale, flag = encode_maps(whole.maps[method])
        np.testing.assert_array_equal(shard.maps(method), decode_maps(stored, scale))
        np.testing.assert_array_equal(shard.scales(method), scale)
        np.testing.assert_array_equal(shard.flags(method), flag)
        np.testing.assert_array_equal(shard.targets(method), whole.targets[method])
    if encoding == "raw":
        np.testing.assert_array_equal(shard.images(), whole.images)
    else:
        assert [shard.jpeg(row) for row in range(count)] == whole.images
        assert shard.images().shape == (count, SIZE, SIZE, 3)


def test_other_hdf5_readers_find_format_1(tmp_path):
    whole = rows(3)
    path = write(tmp_path / "a.h5", header(), whole)
    with h5py.File(path) as file:
        assert file.attrs["format"] == b"salpipe-shard"
        assert file.attrs["format_version"] == b"1.1"
        assert file.attrs["complete"] == 1
        assert list(file["key"].asstr()) == whole.keys
        for name, column in columns(header(), 3).items():
            assert (file[name].dtype, file[name].shape) == (column.dtype, column.shape)
        np.testing.assert_array_equal(file["image"], whole.images)
        assert file["image"].chunks is None
        mapped = np.memmap(path, np.uint8, "r", file["image"].id.get_offset(), (3, SIZE, SIZE, 3))
        np.testing.assert_array_equal(mapped, whole.images)
    path = write(tmp_path / "b.h5", header("jpeg"), rows(3, "jpeg"))
    with h5py.File(path) as file:
        start, stop = file["image_offset"][1:3]
        assert file["image_bytes"][start:stop].tobytes() == rows(3, "jpeg").images[1]


def test_bytes_depend_on_the_rows_alone(tmp_path):
    stored = {encoding: (rows(29, encoding), header(encoding)) for encoding in ("raw", "jpeg")}
    expected = {name: write(tmp_path / "a.h5", head, whole).read_bytes() for name, (whole, head) in stored.items()}
    time.sleep(1.1)
    for name, (whole, head) in stored.items():
        for batches in ([1] * 29, [7, 0, 21, 1], [28, 1]):
            for capacity in (29, 30, 500):
                written = write(tmp_path / "b.h5", head, whole, batches, capacity)
                assert written.read_bytes() == expected[name]
    assert sorted(os.listdir(tmp_path)) == ["a.h5", "b.h5"]


def test_bytes_do_not_depend_on_the_process(tmp_path):
    expected = write(tmp_path / "a.h5", header(), rows(5), [2, 3]).read_bytes()
    script = """
        from pathlib import Path
        from tests.shards.examples import header, rows, write
        for name in ("b.h5", "c.h5"):
            write(Path(name), header(), rows(5), [4, 1], 6)
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], cwd=tmp_path, env=environment, check=True)
    assert (tmp_path / "b.h5").read_bytes() == (tmp_path / "c.h5").read_bytes() == expected


@pytest.mark.parametrize("encoding", ["raw", "jpeg"])
def test_a_shard_all_of_whose_images_were_rejected(tmp_path, encoding):
    expected = write(tmp_path / "a.h5", header(encoding), rows(0, encoding), [])
    path = write(tmp_path / "b.h5", header(encoding), rows(0, encoding), [0], capacity=9)
    assert path.read_bytes() == expected.read_bytes()
    shard = Shard(path)
    assert (len(shard), shard.keys, shard.images().shape) == (0, [], (0, SIZE, SIZE, 3))
    assert shard.maps("gradcam").shape == (0, 1, 7, 5)


def test_large_provenance_and_many_methods(tmp_path):
    maps = {f"m{number}": MapShape(1, 1, 1) for number in range(30)}
    head = header(provenance={"names": ["é" * 50] * 2000}, classes=("c",) * 30_000, maps=maps)
    whole = rows(2)
    whole.maps = {name: np.full((2, 1, 1, 1), number, np.float32) for number, name in enumerate(maps)}
    whole.targets = {name: np.zeros((2, 1), np.int32) for name in maps}
    path = write(tmp_path / "a.h5", head, whole)
    assert Shard(path).header == head
    assert Shard(path).maps("m7").tolist() == [[[[7.0]]]] * 2
    assert write(tmp_path / "b.h5", head, whole, [1, 1], 3).read_bytes() == path.read_bytes()


def test_bytes_without_residuals_are_those_of_format_1_1(tmp_path):
    maps = {"gradcam": MapShape(1, 1, 2), "gradient": MapShape(2, 2, 2)}
    whole = ShardRows(
        keys=["cat/1.jpg"],
        labels=np.array([0]),
        splits=np.array([-1], np.int8),
        images=np.full((1, 2, 2, 3), 9, np.uint8),
        sha256=np.zeros((1, 32), np.uint8),
        source_size=np.array([[480, 640]], np.int32),
        prediction_class=np.array([[4, 3, 2, 1, 0]], np.int32),
        prediction_score=np.array([[0.5, 0.25, 0.125, 0, 0]], np.float32),
        maps={"gradcam": np.full((1, 1, 1, 2), 3, np.float32), "gradient": np.full((1, 2, 2, 2), -1, np.float32)},
        targets={"gradcam": np.array([[4]], np.int32), "gradient": np.array([[4, 3]], np.int32)},
    )
    path = write(tmp_path / "a.h5", ShardHeader("plan", {}, ("cat", "dog"), 2, "raw", maps), whole)
    # written before there were residuals
    assert sha256_of(path) == "28fe19917e1395861511293d5253ca133a0863ae76f7a938a2707d8521545627"


def test_residuals_are_stored_beside_their_maps(tmp_path):
    head, whole = with_residuals(5, [[0, 1.5], [-2, np.inf], [np.nan, 0], [1e-30, 3], [4, 5]])
    path = write(tmp_path / "a.h5", head, whole, [2, 3])
    shard = Shard(path)
    assert shard.header == head
    expected = np.where(np.isinf(whole.residuals[RESIDUALS]), np.nan, whole.residuals[RESIDUALS])
    np.testing.assert_array_equal(shard.residuals(RESIDUALS), expected)
    np.testing.assert_array_equal(shard.residuals(RESIDUALS, [3, 1]), expected[[3, 1]])
    assert shard.residuals("gradcam") is None
    with h5py.File(path) as file:
        assert file.attrs["format_version"] == b"1.2"
        assert file[f"saliency/{RESIDUALS}/residual"].dtype == "<f4"
    assert write(tmp_path / "b.h5", head, whole, [1] * 5, capacity=9).read_bytes() == path.read_bytes()
    assert verify(path, deep=True).problems == ()


def test_residuals_have_to_fit_the_header(tmp_path):
    head, whole = with_residuals(2, [[0, 1], [2, 3]])
    with ShardWriter(tmp_path / "a.h5", head, 2) as writer:
        for residuals in ({}, {RESIDUALS: np.zeros((2, 1), np.float32)}, {RESIDUALS: np.zeros((2, 2))}):
            with pytest.raises(ValueError, match="residual"):
                writer.append(dataclasses.replace(whole, residuals=residuals))
    with ShardWriter(tmp_path / "a.h5", header(), 2) as writer, pytest.raises(ValueError, match="residuals of"):
        writer.append(dataclasses.replace(rows(2), residuals=whole.residuals))


def test_standard_errors_are_stored_beside_their_maps(tmp_path):
    whole = rows(3)
    whole.standard_errors = {"gradcam": np.array([[0.5], [np.inf], [0.25]], np.float32)}
    head = header(maps=MAPS | {"gradcam": dataclasses.replace(MAPS["gradcam"], standard_error=True)})
    path = write(tmp_path / "a.h5", head, whole, [2, 1])
    shard = Shard(path)
    assert shard.header == head
    np.testing.assert_array_equal(shard.standard_errors("gradcam"), [[0.5], [np.nan], [0.25]])
    np.testing.assert_array_equal(shard.standard_errors("gradcam", [2]), [[0.25]])
    assert shard.residuals("gradcam") is shard.standard_errors("gradient-simonyan") is None
    with h5py.File(path) as file:
        assert file.attrs["format_version"] == b"1.3"
        assert file["saliency/gradcam/standard_error"].dtype == "<f4"
    assert verify(path, deep=True).problems == ()
    with ShardWriter(tmp_path / "b.h5", head, 3) as writer, pytest.raises(ValueError, match="standard errors of"):
        writer.append(dataclasses.replace(whole, standard_errors={}))


def test_compaction_takes_bounded_steps(tmp_path, monkeypatch):
    monkeypatch.setattr(writer_module, "_COPY_BYTES", 5 * SIZE * SIZE * 3)
    taken = []
    get = writer_module._File.get

    def count(self, *where):
        rows = get(self, *where)
        taken.append(rows.nbytes)
        return rows

    monkeypatch.setattr(writer_module._File, "get", count)
    path = write(tmp_path / "a.h5", header(), rows(33), capacity=40)
    assert len(taken) > 10
    assert max(taken) <= 5 * SIZE * SIZE * 3
    np.testing.assert_array_equal(Shard(path).images(), rows(33).images)


def test_leaving_the_block_without_finish_leaves_nothing(tmp_path):
    with ShardWriter(tmp_path / "a.h5", header(), 4) as writer:
        writer.append(rows(4))
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="do not fit"), ShardWriter(tmp_path / "a.h5", header(), 4) as writer:
        writer.append(rows(5))
    assert not list(tmp_path.iterdir())


def test_rows_that_do_not_fit_are_refused_whole(tmp_path):
    def changed(**changes):
        whole = rows(2)
        for name, value in changes.items():
            setattr(whole, name, value)
        return whole

    wrong = [
        rows(5),
        rows(2, "jpeg"),
        changed(labels=np.zeros(1, np.int64)),
        changed(labels=np.zeros(2, np.float32)),
        changed(prediction_class=np.zeros((2, 1), np.int32)),
        changed(images=np.zeros((2, SIZE, SIZE + 1, 3), np.uint8)),
        changed(images=np.zeros((2, SIZE, SIZE, 3), np.float32)),
        changed(maps={}),
        changed(targets={"gradcam": np.zeros((2, 1), np.int32)}),
        changed(maps={**rows(2).maps, "gradcam": np.zeros((2, 1, 7, 6), np.float32)}),
        changed(keys=["a", ""]),
        changed(keys=["a", "b\0c"]),
        changed(keys=["a", "\udc80"]),
    ]
    with ShardWriter(tmp_path / "a.h5", header(), 4) as writer:
        for bad in wrong:
            with pytest.raises(ValueError, match=r"."):
                writer.append(bad)
        writer.append(rows(3))
        assert writer.finish() == 3
        with pytest.raises(ValueError, match="closed"):
            writer.append(rows(1))
    assert (tmp_path / "a.h5").read_bytes() == write(tmp_path / "b.h5", header(), rows(3)).read_bytes()


@pytest.mark.parametrize("capacity", [6, 8])
def test_killed_at_any_write_it_never_reads_as_complete(tmp_path, monkeypatch, capacity):
    """The file as a kill in the middle of any write would leave it: Python holds nothing back from the system."""
    path, left = tmp_path / "a.h5", tmp_path / "left.h5"
    finished, writes = write(tmp_path / "b.h5", header(), rows(6)).read_bytes(), []

    class Interrupted(writer_module._Disk):
        def write(self, data):
            view = memoryview(data).cast("B")
            half = super().write(view[: view.nbytes // 2])
            left.write_bytes(path.read_bytes())
            # in the very last writes nothing changes any more
            writes.append(read_layout(left)[1] or left.read_bytes() == finished)
            return half + super().write(view[half:])

    monkeypatch.setattr(writer_module, "_Disk", Interrupted)
    write(path, header(), rows(6), [2, 4], capacity)
    assert path.read_bytes() == finished
    assert not read_layout(path)[1]
    assert len(writes) > 20
    assert all(writes), f"killed in write {[bool(well) for well in writes].index(False)}, it reads as complete"


def test_a_failing_disk_is_one_line_at_whatever_write(tmp_path, monkeypatch):
    """Every write in turn is the first to fail; each time the writer raises once and leaves nothing."""
    state, seen = {"left": 0}, set()

    class FullDisk(writer_module._Disk):
        def write(self, data):
            if state["left"] <= 0:
                self.error = self.error or OSError(28, "No space left on device")
            state["left"] -= 1
            return super().write(data)

    monkeypatch.setattr(writer_module, "_Disk", FullDisk)
    final = tmp_path / "shard-00000.h5"
    message = f"disk full while writing {final}; free space and run the same command again"
    for left in range(1000):
        state["left"] = left
        tmp = temporary_name(final)
        try:
            write(tmp, header("jpeg"), rows(6, "jpeg"), [2, 4], capacity=8)
            break
        except SalpipeError as error:
            seen.add(str(error))
            assert not list(tmp_path.iterdir())
    assert seen == {message}
    assert left > 20
    assert read_layout(tmp)[1] == []


@pytest.mark.parametrize("limit", [100, 5000, 40_000, 200_000])
def test_file_size_limit_ends_in_one_line_and_no_crash(tmp_path, limit):
    script = f"""
        import resource
        from pathlib import Path
        from saliency_pipeline.errors import SalpipeError
        from saliency_pipeline.temporaries import temporary_name
        from tests.shards.examples import header, rows, write
        resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, resource.RLIM_INFINITY))
        for attempt in range(2):
            try:
                write(temporary_name(Path("shard-00003.h5")), header(), rows(300), [100] * 3)
            except SalpipeError as error:
                print(error)
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    line = "file size limit reached while writing shard-00003.h5; raise it (ulimit -f) and run the same command again\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, line * 2, "")
    assert not list(tmp_path.iterdir())
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


def test_an_interrupt_inside_a_write_is_raised(tmp_path, monkeypatch):
    class Interrupted(writer_module._Disk):
        def write(self, data):
            if memoryview(data).nbytes > 1000:
                self.error = KeyboardInterrupt()
            return super().write(data)

    monkeypatch.setattr(writer_module, "_Disk", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "a.h5", header(), rows(6))
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(SalpipeError, match=r"cannot write .*gone/a\.h5: No such file"):
        write(tmp_path / "gone" / "a.h5", header(), rows(1))


def test_an_open_shard_does_not_hinder_other_readers(tmp_path):
    path = write(tmp_path / "a.h5", header(), part(rows(4), 0, 2))
    with h5py.File(path):
        assert len(Shard(path)) == 2
