"""What changes under an open shard, or the disk that fails, is an error that names the shard; nothing is mapped."""

import errno
import gc
import os
import resource
import shutil
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from saliency_pipeline.errors import IntegrityError
from saliency_pipeline.shards.file import ShardFile
from saliency_pipeline.shards.reader import ShardFolder, _most_open
from saliency_pipeline.shards.shard import Shard
from saliency_pipeline.training.data.batches import PairDataset, Prefetcher, Transform
from tests.shards.examples import folder, header, rows, write


@pytest.fixture
def path(tmp_path):
    return write(tmp_path / "a.h5", header(), rows(6))


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def opened_shards(root) -> int:
    links = [f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd")]
    return sum(os.readlink(link).startswith(str(root)) for link in links if os.path.islink(link))


def test_rows_are_gathered_into_their_places(path):
    whole = rows(6)
    shard = Shard(path)
    for order in ([4, 0, 1, 2, 2, 5], [0, 1, 2, 3], [3], [5, 4, 3], []):
        for places in (np.arange(len(order)), np.arange(len(order))[::-1]):
            images = np.zeros((len(order), *whole.images.shape[1:]), np.uint8)
            shard.gather("image", np.array(order, int), images, places)
            np.testing.assert_array_equal(images[places], whole.images[order])


def test_adjacent_rows_take_one_call(path, monkeypatch):
    shard, calls, preadv = Shard(path), [], os.preadv
    shard.images([0])
    monkeypatch.setattr(os, "preadv", lambda *arguments: calls.append(1) or preadv(*arguments))
    np.testing.assert_array_equal(shard.images([1, 2, 3, 5]), rows(6).images[[1, 2, 3, 5]])
    assert len(calls) == 2


def test_reads_that_come_in_pieces_are_put_together(path, monkeypatch):
    preadv = os.preadv
    monkeypatch.setattr(os, "preadv", lambda file, buffers, offset: preadv(file, [buffers[0][:777]], offset))
    shard = Shard(path)
    np.testing.assert_array_equal(shard.images(), rows(6).images)
    np.testing.assert_array_equal(shard.images([5, 0]), rows(6).images[[5, 0]])


@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE])
def test_a_disk_that_fails_is_an_error_of_the_shard(path, monkeypatch, code):
    shard = Shard(path)
    shard.images([0])

    def fail(*arguments):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "preadv", fail)
    for read in (lambda: shard.images([1]), lambda: shard.labels, lambda: shard[0]):
        with pytest.raises(
            IntegrityError, match=rf"a\.h5: cannot be read \({os.strerror(code)}\); run 'salpipe verify'"
        ):
            read()


@pytest.mark.parametrize("encoding", ["raw", "jpeg"])
def test_a_shard_truncated_under_its_reader_is_named(tmp_path, encoding):
    path = folder(tmp_path / "f", (4, 3, 5), encoding)
    dataset = PairDataset(ShardFolder(path), np.arange(12), "gradcam")
    dataset.__getitems__(range(12))
    os.truncate(path / "shard-00001.h5", 3000)
    with pytest.raises(IntegrityError, match=r"shard-00001\.h5: was (truncated|replaced) while it was being read"):
        dataset.__getitems__(range(12))
    with pytest.raises(IntegrityError, match=r"shard-00001\.h5: was"):
        list(Prefetcher(dataset, Transform()).run([np.arange(12)] * 3, 0))
    assert len(dataset.__getitems__([0, 11]).images) == 2


def test_a_shard_overwritten_in_place_is_noticed_though_its_size_stays(tmp_path, path):
    shard = Shard(path)
    shard.images([0])
    other = write(tmp_path / "b.h5", header(), rows(6, seed=1))
    assert other.stat().st_size == path.stat().st_size
    shutil.copyfile(other, path)
    os.utime(path, ns=(0, 0))
    for read in (lambda: shard.images([1]), lambda: shard.labels):
        with pytest.raises(IntegrityError, match="was replaced while it was being read; run 'salpipe verify --deep'"):
            read()


def test_a_shard_that_shrank_between_its_header_and_its_rows_is_noticed(path):
    shard = Shard(path)
    assert len(shard) == 6
    os.truncate(path, 3000)
    with pytest.raises(IntegrityError, match=r"a\.h5: was replaced"):
        shard.images([0])
    os.unlink(path)
    os.mkfifo(path)
    with pytest.raises(IntegrityError, match=r"a\.h5: cannot be read \(Not a regular file\)"):
        shard.images([0])


def test_files_are_closed_with_those_who_hold_them(tmp_path):
    path = folder(tmp_path / "f", [1] * 6)
    before = descriptors()
    pairs = ShardFolder(path)
    assert len([pair.key for pair in pairs]) == 6
    assert opened_shards(path) == 6
    pairs.shards[2].close()
    assert opened_shards(path) == 5
    assert not pairs.shards[2].is_open
    del pairs
    gc.collect()
    assert descriptors() == before


def test_a_file_is_not_closed_while_a_thread_reads_from_it(path, monkeypatch):
    shard, other = Shard(path), threading.Event()
    shard.images([0])
    preadv, reading = os.preadv, threading.Event()

    def slowly(*arguments):
        reading.set()
        assert other.wait(10)
        return preadv(*arguments)

    monkeypatch.setattr(os, "preadv", slowly)
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(shard.images, [3])
        assert reading.wait(10)
        shard.close()
        other.set()
        np.testing.assert_array_equal(future.result(), rows(6).images[[3]])


def test_many_threads_may_read_more_shards_than_stay_open(tmp_path, monkeypatch):
    monkeypatch.setattr("saliency_pipeline.shards.reader._OPEN_SHARDS", 2)
    path = folder(tmp_path / "f", [2] * 8)
    dataset = PairDataset(ShardFolder(path), np.arange(16), "gradient-simonyan", 1)
    expected = dataset.__getitems__(range(16))
    orders = [np.random.default_rng(seed).permutation(16) for seed in range(40)]
    with ThreadPoolExecutor(8) as pool:
        for order, loaded in zip(orders, pool.map(dataset.__getitems__, orders), strict=True):
            np.testing.assert_array_equal(loaded.images, expected.images[order])
            np.testing.assert_array_equal(loaded.maps, expected.maps[order])
    assert opened_shards(path) <= 2


def test_open_files_are_a_quarter_of_what_a_process_may_have(monkeypatch):
    for limit, most in ((1024, 256), (64, 16), (3, 1), (10**6, 256), (resource.RLIM_INFINITY, 256)):
        monkeypatch.setattr(resource, "getrlimit", lambda _, limit=limit: (limit, limit))
        assert _most_open() == most


def test_too_many_open_files_are_no_damage(path, monkeypatch):
    shard = Shard(path)
    assert len(shard) == 6

    def full(*arguments):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(os, "open", full)
    with pytest.raises(IntegrityError, match=r"Too many open files\); allow more open files \(ulimit -n\)"):
        shard.images([0])


def test_the_deque_holds_the_files(path):
    kept: deque[ShardFile] = deque(maxlen=1)
    first, second = Shard(path, kept), Shard(path, kept)
    first.images([0])
    assert first.is_open
    second.images([0])
    assert (first.is_open, second.is_open, len(kept)) == (False, True, 1)


def test_no_shard_is_mapped(tmp_path):
    path = folder(tmp_path / "f", (4, 3))
    pairs = ShardFolder(path)
    PairDataset(pairs, np.arange(7), "gradcam").__getitems__(range(7))
    assert str(path) not in Path("/proc/self/maps").read_text()
