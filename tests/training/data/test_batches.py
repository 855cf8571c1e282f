"""Pairs from shards: rows are as stored, in any worker; batches come in order, prefetched and complete."""

import io
import pickle
import signal
import threading
import time
import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from saliency_pipeline.errors import IntegrityError, SalpipeError
from saliency_pipeline.shards import reader
from saliency_pipeline.shards.reader import ShardFolder
from saliency_pipeline.shards.shard import Shard
from saliency_pipeline.training.config import AUGMENTATIONS
from saliency_pipeline.training.data.augment import augment
from saliency_pipeline.training.data.batches import PairDataset, Prefetcher, Transform
from saliency_pipeline.training.data.maps import normalize, upsample
from saliency_pipeline.training.data.order import epoch_batches, epoch_order
from tests.shards import examples as shards
from tests.training.examples import CLASSES, SIZE, TEST, TRAIN, VALIDATION, labeled

ENCODINGS = ["raw", "jpeg"]


@pytest.fixture(params=ENCODINGS)
def folder(tmp_path, request):
    return ShardFolder(labeled(tmp_path / request.param, 30, 4, encoding=request.param, unlabeled=2))


def test_the_labeled_folder_is_what_it_says(tmp_path):
    pairs = ShardFolder(labeled(tmp_path / "f", 96, classes=4))
    splits = np.array([pair.split for pair in pairs])
    for label, name in enumerate(CLASSES):
        own = np.array([pair.label == label for pair in pairs])
        assert [int((own & (splits == split)).sum()) for split in (TRAIN, VALIDATION, TEST)] == [12, 6, 6]
        assert {pairs[i].class_name for i in np.flatnonzero(own)} == {name}


@pytest.mark.parametrize(("method", "target"), [(None, 0), ("gradcam", 0), ("gradient-simonyan", 1)])
def test_what_is_gathered_is_what_is_stored(folder, method, target):
    rows = np.random.default_rng(0).integers(0, len(folder), 50)
    dataset = PairDataset(folder, rows, method, target)
    assert len(dataset) == 50
    for indices in ([3], [49, 0, 3, 3, 17], np.arange(50), np.arange(50)[::-1], []):
        result = dataset.__getitems__(indices)
        expected = [folder[int(row)] for row in rows[indices]] if len(indices) else []
        assert result.positions.tolist() == [rows[index] for index in indices]
        assert (result.images.dtype, result.images.shape[1:]) == (np.uint8, (SIZE, SIZE, 3))
        assert result.labels.dtype == np.int64
        for i, pair in enumerate(expected):
            np.testing.assert_array_equal(result.images[i], pair.image)
            assert result.labels[i] == pair.label
            if method is not None:
                assert result.maps.dtype == np.float32
                np.testing.assert_array_equal(result.maps[i], pair.maps[method][target])
        assert (result.maps is None) == (method is None)
    image, one, label = dataset[7]
    np.testing.assert_array_equal(image, folder[int(rows[7])].image)
    assert (one is None) == (method is None)
    assert label == dataset.labels[7] == folder[int(rows[7])].label
    assert dataset[-1][2] == dataset.labels[49]
    with pytest.raises(IndexError):
        dataset[50]


def test_what_is_gathered_belongs_to_the_caller(folder):
    dataset = PairDataset(folder, np.arange(len(folder)), "gradcam")
    first = dataset.__getitems__([1, 2])
    kept = first.images.copy(), first.maps.copy(), first.labels.copy()
    for array in (first.images, first.maps, first.labels, first.positions):
        array[...] = 0
    again = dataset.__getitems__([1, 2])
    for result, expected in zip((again.images, again.maps, again.labels), kept, strict=True):
        np.testing.assert_array_equal(result, expected)


def test_shards_may_be_empty_and_more_than_stay_open(tmp_path, monkeypatch):
    monkeypatch.setattr(reader, "_OPEN_SHARDS", 2)
    pairs = ShardFolder(shards.folder(tmp_path / "f", [3, 0, 2, 1, 0, 4]))
    result = PairDataset(pairs, np.arange(10)[::-1], "gradcam").__getitems__(range(10))
    np.testing.assert_array_equal(result.images, [pairs[i].image for i in range(9, -1, -1)])
    assert sum(shard.is_open for shard in pairs.shards) <= 2


def test_nothing_is_opened_before_it_is_needed(folder):
    dataset = PairDataset(folder, np.arange(len(folder)), "gradcam")
    assert not any(shard.is_open for shard in folder.shards)
    assert dataset[0][2] == dataset.labels[0]
    assert len(pickle.dumps(dataset)) < 1500


@pytest.mark.parametrize(
    ("rows", "method", "target", "message"),
    [
        ([0], "lime", 0, r"holds no maps of 'lime'; it holds gradcam, gradient-simonyan"),
        ([0], "gradcam", 1, r"holds 1 maps of 'gradcam' per image; use a target from 0 to 0, not 1"),
        ([0], "gradient-simonyan", -1, r"use a target from 0 to 1, not -1"),
        ([0, 96], "gradcam", 0, r"holds 96 images, not those from 0 to 96"),
        ([-1], None, 0, r"holds 96 images, not those from -1 to -1"),
    ],
)
def test_errors_list_the_contents_of_the_shards(tmp_path, rows, method, target, message):
    pairs = ShardFolder(labeled(tmp_path / "f"))
    with pytest.raises(SalpipeError, match=message):
        PairDataset(pairs, np.array(rows), method, target)


@pytest.fixture
def children_die_unheard():
    """A DataLoader with workers leaves a handler of SIGCHLD, which the death of any later child would run."""
    before = signal.getsignal(signal.SIGCHLD)
    yield
    signal.signal(signal.SIGCHLD, before)


@pytest.mark.parametrize("context", [None, "fork", pytest.param("spawn", marks=pytest.mark.slow)])
@pytest.mark.usefixtures("children_die_unheard")
def test_every_worker_gives_the_same(folder, context):
    dataset = PairDataset(folder, np.arange(len(folder))[::-1], "gradcam")
    # in use before it is handed on
    expected = dataset.__getitems__(np.arange(len(folder)))
    loader = DataLoader(
        dataset, 4, num_workers=2 if context else 0, collate_fn=PairDataset.collate, multiprocessing_context=context
    )
    with warnings.catch_warnings():
        # newer Pythons warn of a fork beside threads
        warnings.simplefilter("ignore", DeprecationWarning)
        batches = list(loader)
    for name in ("images", "maps", "labels", "positions"):
        np.testing.assert_array_equal(torch.cat([batch[name] for batch in batches]), getattr(expected, name))
    assert "maps" not in next(
        iter(DataLoader(PairDataset(folder, dataset.rows, None), 4, collate_fn=PairDataset.collate))
    )


def test_batches_are_the_rows_prepared(folder):
    dataset = PairDataset(folder, np.arange(3, 29), "gradcam")
    chosen = epoch_batches(epoch_order(26, 0, 0), 8)
    result = list(Prefetcher(dataset, Transform("p99")).run(chosen, 0))
    assert len(result) == 4
    for batch, indices in zip(result, chosen, strict=True):
        rows = dataset.__getitems__(indices)
        assert (batch.images.shape[1:], batch.images.dtype) == ((3, SIZE, SIZE), torch.uint8)
        assert batch.images.is_contiguous(memory_format=torch.channels_last)
        np.testing.assert_array_equal(batch.images.permute(0, 2, 3, 1), rows.images)
        assert torch.equal(batch.maps, normalize(upsample(torch.from_numpy(rows.maps), SIZE), "p99"))
        np.testing.assert_array_equal(batch.labels, rows.labels)
        np.testing.assert_array_equal(batch.positions, indices + 3)
    assert next(Prefetcher(PairDataset(folder, dataset.rows, None), Transform()).run(chosen, 0)).maps is None


@pytest.mark.parametrize("method", [None, "gradient-simonyan"])
def test_augmentation_depends_on_seed_epoch_and_position(folder, method):
    """A pair is the same whatever the batch and the subset of rows it comes in."""
    dataset = PairDataset(folder, np.arange(30), method)
    preparation = Transform("max", AUGMENTATIONS, seed=4)
    (whole,) = Prefetcher(dataset, preparation).run([np.arange(30)], 6)
    plain = Prefetcher(dataset, Transform("max")).prepare(np.arange(30), 6)
    images, maps = augment(plain.images, plain.maps, AUGMENTATIONS, [(4, 6, position) for position in range(30)])
    assert torch.equal(whole.images, images)
    some = PairDataset(folder, np.array([20, 5, 11]), method)
    (part,) = Prefetcher(some, preparation).run([np.array([2, 0])], 6)
    assert torch.equal(part.images, images[[11, 20]])
    if method is not None:
        assert torch.equal(whole.maps, maps)
        assert torch.equal(part.maps, maps[[11, 20]])
    (later,) = Prefetcher(dataset, preparation).run([np.arange(30)], 7)
    assert not torch.equal(later.images, images)


def _same(one, other) -> bool:
    return (
        torch.equal(one.images, other.images)
        and torch.equal(one.maps, other.maps)
        and torch.equal(one.labels, other.labels)
        and one.positions.tolist() == other.positions.tolist()
    )


@pytest.mark.parametrize("cores", [1, 8])
def test_batches_do_not_depend_on_how_many_are_ahead(folder, monkeypatch, cores):
    monkeypatch.setattr("saliency_pipeline.training.data.batches.usable_cores", lambda: cores)
    dataset = PairDataset(folder, np.arange(30), "gradcam")
    chosen = epoch_batches(epoch_order(30, 0, 0), 4)
    preparation = Transform(augment=AUGMENTATIONS)
    expected = [Prefetcher(dataset, preparation).prepare(indices, 1) for indices in chosen]
    for ahead in (1, 2, 3, 20):
        result = list(Prefetcher(dataset, preparation, ahead).run(chosen, 1))
        assert len(result) == len(expected)
        assert all(map(_same, result, expected))
    assert list(Prefetcher(dataset, preparation).run([], 0)) == []


def _ours() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith(("batches", "decode"))]


def test_leaving_early_ends_the_threads(folder):
    dataset = PairDataset(folder, np.arange(30), "gradcam")
    before = torch.get_num_threads()
    running = Prefetcher(dataset, Transform(), 3).run([np.arange(30)] * 100, 0)
    next(running)
    assert _ours()
    assert torch.get_num_threads() == before
    running.close()
    assert not _ours()
    for _ in Prefetcher(dataset, Transform()).run([np.arange(30)] * 100, 0):
        break
    assert not _ours()
    assert torch.get_num_threads() == before


def test_threads_compute_on_one_core_and_leave_the_number_to_others(folder, monkeypatch):
    seen = []
    prepare = Prefetcher.prepare

    def noting(self, indices, epoch):
        seen.append(torch.get_num_threads())
        return prepare(self, indices, epoch)

    monkeypatch.setattr(Prefetcher, "prepare", noting)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        for _ in Prefetcher(PairDataset(folder, np.arange(30), "gradcam"), Transform()).run([np.arange(9)] * 5, 0):
            thread = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
            thread.start()
            thread.join()
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert sorted(seen) == [1] * 5 + [3] * 5


def test_an_error_comes_to_the_consumer_at_its_batch(tmp_path):
    path = labeled(tmp_path / "f", 40, 2)
    (path / "shard-00001.h5").write_bytes(b"not a shard")
    dataset = PairDataset(ShardFolder(path), np.arange(20), "gradcam")
    assert len(list(Prefetcher(dataset, Transform()).run([np.arange(10)], 0))) == 1
    running = Prefetcher(PairDataset(ShardFolder(path), np.arange(40), None), Transform()).run([np.arange(30)], 0)
    with pytest.raises(IntegrityError, match=r"shard-00001\.h5"):
        next(running)
    assert not _ours()


def test_a_damaged_jpeg_among_many_is_named(tmp_path):
    path = labeled(tmp_path / "f", 12, 1, encoding="jpeg")
    shard = Shard(path / "shard-00000.h5")
    begin, end = shard.read("image_offset")[5:7].tolist()
    offset, column = shard.layout.places["image_bytes"]
    stream = np.memmap(shard.path, column.dtype, "r+", offset, column.shape)
    stream[begin + (end - begin) // 2 : end] = 0
    stream.flush()
    dataset = PairDataset(ShardFolder(path), np.arange(12), None)
    with pytest.raises(IntegrityError, match=r"image of 'stripe/0005\.jpg' cannot be decoded"):
        dataset.__getitems__(range(12))
    assert not _ours()
    assert len(dataset.__getitems__([4, 6]).images) == 2


@pytest.mark.parametrize(
    ("name", "row", "value"),
    [
        ("scale", (5, 0), np.nan),
        ("scale", (5, 0), np.inf),
        ("scale", (5, 0), -1),
        ("map", (5, 0, 3, 3), np.nan),
        ("map", (5, 0, 3, 3), -np.inf),
    ],
)
def test_maps_that_cannot_be_are_damage_of_their_shard(tmp_path, name, row, value):
    """Otherwise the error would blame the learning rate for a loss that is not finite."""
    path = labeled(tmp_path / "f", 24, 2)
    shard = Shard(path / "shard-00001.h5")
    offset, column = shard.layout.places[f"saliency/gradcam/{name}"]
    data = np.memmap(shard.path, column.dtype, "r+", offset, column.shape)
    data[row] = value
    data.flush()
    dataset = PairDataset(ShardFolder(path), np.arange(24), "gradcam")
    with pytest.raises(
        IntegrityError, match=rf"shard-00001\.h5: a {name} of gradcam .*not finite; run 'salpipe verify"
    ):
        dataset.__getitems__(range(24))
    if name == "map":  # scales are all read with the first batch
        assert len(dataset.__getitems__([16, 18]).images) == 2
    assert len(PairDataset(ShardFolder(path), np.arange(24), None).__getitems__(range(24)).images) == 24


def test_waiting_is_the_consumers_alone(folder, monkeypatch):
    prepare = Prefetcher.prepare

    def slowly(self, indices, epoch):
        time.sleep(0.05)
        return prepare(self, indices, epoch)

    monkeypatch.setattr(Prefetcher, "prepare", slowly)
    monkeypatch.setattr("saliency_pipeline.training.data.batches.usable_cores", lambda: 2)
    batches = Prefetcher(PairDataset(folder, np.arange(30), None), Transform())
    for _ in batches.run([np.arange(3)] * 6, 0):
        pass
    assert batches.waited > 0.25
    running = batches.run([np.arange(3)] * 4, 0)
    next(running)
    batches.waited = 0.0
    time.sleep(0.6)
    next(running)
    next(running)
    assert batches.waited < 0.05
    running.close()


def test_the_number_of_batches_ahead_is_checked():
    with pytest.raises(SalpipeError, match="0 batches ahead"):
        Prefetcher(None, Transform(), 0)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_pixels_of_both_encodings_are_those_of_the_file(tmp_path, encoding):
    """JPEG shards give what Pillow decodes of them, raw shards what was written."""
    path = shards.folder(tmp_path / "f", [9], encoding)
    whole = shards.rows(9, encoding)
    result = PairDataset(ShardFolder(path), np.arange(9), None).__getitems__(np.arange(9)).images
    if encoding == "raw":
        np.testing.assert_array_equal(result, whole.images)
    else:
        np.testing.assert_array_equal(result, [Image.open(io.BytesIO(file)) for file in whole.images])


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGB"])
def test_a_strangers_jpeg_gives_what_pillow_gives(tmp_path, mode):
    whole = shards.rows(3, "jpeg")
    file = io.BytesIO()
    frame = np.tile(np.arange(shards.SIZE, dtype=np.uint8) * 9, (shards.SIZE, 1))
    Image.merge("RGB", [Image.fromarray(channel) for channel in (frame, frame.T.copy(), 255 - frame)]).convert(
        mode
    ).save(file, "JPEG", progressive=True)
    whole.images[1] = file.getvalue()
    path = shards.write(tmp_path / "a.h5", shards.header("jpeg"), whole)
    result = PairDataset(ShardFolder(path), np.array([1]), None)[0][0]
    np.testing.assert_array_equal(result, Image.open(file).convert("RGB"))
