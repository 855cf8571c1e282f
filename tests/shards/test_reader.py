"""Reading shards: every access path returns the same values, in any process; damage is one line."""

import io
import multiprocessing
import os
import pickle
import warnings

import numpy as np
import pytest
from PIL import Image

from saliency_pipeline.errors import IntegrityError, SalpipeError
from saliency_pipeline.shards import reader
from saliency_pipeline.shards.manifest import Manifest
from saliency_pipeline.shards.reader import ShardFolder
from saliency_pipeline.shards.schema import NON_FINITE, decode_maps, encode_maps
from saliency_pipeline.shards.shard import Shard
from saliency_pipeline.shards.verify import verify
from saliency_pipeline.temporaries import temporary_name
from tests.shards.examples import MAPS, SIZE, folder, header, jpeg, rows, write


def test_rows_can_be_chosen(tmp_path):
    whole = rows(11)
    shard = Shard(write(tmp_path / "a.h5", header(), whole))
    for chosen in ([3, 0, 3], np.array([10, 1]), slice(2, 9, 3), slice(3, 3), np.arange(11), np.array([], dtype=int)):
        np.testing.assert_array_equal(shard.images(chosen), whole.images[chosen])
        np.testing.assert_array_equal(shard.maps("gradcam", chosen), shard.maps("gradcam")[chosen])
        np.testing.assert_array_equal(shard.targets("gradcam", chosen), whole.targets["gradcam"][chosen])
    with pytest.raises(IndexError):
        shard.images([11])


def test_rows_of_jpegs_can_be_chosen(tmp_path):
    shard = Shard(write(tmp_path / "a.h5", header("jpeg"), rows(5, "jpeg")))
    every = shard.images()
    np.testing.assert_array_equal(shard.images([4, 1]), every[[4, 1]])
    np.testing.assert_array_equal(shard.images(slice(1, 4)), every[1:4])
    expected = [np.asarray(Image.open(io.BytesIO(shard.jpeg(row)))) for row in range(5)]
    np.testing.assert_array_equal(every, expected)


def test_what_is_returned_belongs_to_the_caller(tmp_path):
    path = write(tmp_path / "a.h5", header(), rows(3))
    before = path.read_bytes()
    shard = Shard(path)
    for array in (shard.images(), shard.images(slice(0, 2)), shard.labels, shard.maps("gradcam"), shard[1].image):
        array[...] = 0
    assert path.read_bytes() == before
    np.testing.assert_array_equal(shard.images(), rows(3).images)


def test_a_method_the_shard_lacks_is_answered_with_those_it_has(tmp_path):
    shard = Shard(write(tmp_path / "a.h5", header(), rows(1)))
    with pytest.raises(SalpipeError, match=r"holds no maps of 'lime'; it holds gradcam, gradient-simonyan"):
        shard.maps("lime")


@pytest.mark.parametrize("encoding", ["raw", "jpeg"])
def test_a_folder_is_one_sequence(tmp_path, encoding):
    path = folder(tmp_path / "f", (4, 0, 3, 5), encoding)
    pairs = ShardFolder(path)
    assert (len(pairs), pairs.classes, pairs.methods) == (12, header().classes, tuple(sorted(MAPS)))
    assert pairs.provenance == header().provenance
    position = 0
    for number, count in enumerate((4, 0, 3, 5)):
        whole = rows(count, encoding, first=position)
        for row in range(count):
            pair = pairs[position]
            assert pairs.locate(position) == (number, row)
            assert pair.key == whole.keys[row] == pairs.keys()[position]
            assert pairs.find(pair.key) == position
            assert pair.label == whole.labels[row]
            assert pair.class_name == (header().classes[pair.label] if pair.label >= 0 else None)
            assert pair.split == whole.splits[row]
            assert pair.source_size == tuple(whole.source_size[row])
            np.testing.assert_array_equal(pair.prediction_class, whole.prediction_class[row])
            np.testing.assert_array_equal(pair.prediction_score, whole.prediction_score[row])
            assert (pair.image.shape, pair.image.dtype) == ((SIZE, SIZE, 3), np.uint8)
            if encoding == "raw":
                np.testing.assert_array_equal(pair.image, whole.images[row])
            for method in MAPS:
                stored, scale, _ = encode_maps(whole.maps[method])
                np.testing.assert_array_equal(pair.maps[method], decode_maps(stored, scale)[row])
                np.testing.assert_array_equal(pair.targets[method], whole.targets[method][row])
            position += 1
    assert [pair.key for pair in pairs] == pairs.keys()
    assert pairs[-1].key == pairs[11].key
    for outside in (12, -13):
        with pytest.raises(IndexError):
            pairs[outside]
    with pytest.raises(SalpipeError, match="holds no image called 'nobody'"):
        pairs.find("nobody")


def test_a_single_shard_opens_like_a_folder(tmp_path):
    pairs = ShardFolder(folder(tmp_path / "f") / "shard-00001.h5")
    assert (len(pairs), pairs[0].key) == (3, rows(3, first=4).keys[0])


def test_what_cannot_be_opened_is_named(tmp_path):
    with pytest.raises(SalpipeError, match="no such file or folder"):
        ShardFolder(tmp_path / "gone")
    with pytest.raises(SalpipeError, match="an empty folder, holds no shards"):
        ShardFolder(tmp_path)
    path = folder(tmp_path / "f")
    (path / "shard-00001.h5").unlink()
    pairs = ShardFolder(path)
    assert pairs[0].key
    with pytest.raises(IntegrityError, match=r"shard-00001\.h5: missing; run 'salpipe verify'"):
        pairs[5]


def test_a_shard_of_another_plan_is_refused(tmp_path):
    path = folder(tmp_path / "f")
    write(path / "shard-00001.h5", header(plan="other"), rows(3))
    write(path / "shard-00002.h5", header(), rows(4))
    for index in (4, 7):
        with pytest.raises(IntegrityError, match="not the one the manifest describes"):
            ShardFolder(path)[index]


def test_a_shard_replaced_under_an_open_reader_is_noticed(tmp_path):
    path = write(tmp_path / "a.h5", header(), rows(3))
    shard = Shard(path)
    first = shard.images()
    tmp = write(temporary_name(path), header(), rows(3, seed=1))
    os.replace(tmp, path)
    np.testing.assert_array_equal(shard.images(), first)
    shard.close()
    with pytest.raises(IntegrityError, match="replaced while it was being read"):
        shard.images()
    path.unlink()
    with pytest.raises(IntegrityError, match="No such file"):
        shard.images()


def test_only_so_many_shards_stay_open(tmp_path, monkeypatch):
    monkeypatch.setattr(reader, "_OPEN_SHARDS", 2)
    pairs = ShardFolder(folder(tmp_path / "f", [1] * 6))
    expected = pairs.keys()
    for index in (0, 5, 3, 1, 0, 2, 4, 4, 0):
        assert pairs[index].key == expected[index]
        assert sum(shard.is_open for shard in pairs.shards) <= 2


def _checksums(pairs: ShardFolder, order: list[int]) -> list[tuple]:
    return [(pairs[i].key, int(pairs[i].image.sum()), float(pairs[i].maps["gradcam"].sum())) for i in order]


def _report(pairs, order, queue):
    queue.put(_checksums(pairs, order))


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.parametrize("encoding", ["raw", "jpeg"])
def test_a_folder_in_use_can_be_handed_to_workers(tmp_path, method, encoding):
    pairs = ShardFolder(folder(tmp_path / "f", (6, 7), encoding))
    forwards = list(range(13))
    expected = _checksums(pairs, forwards)
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    orders = [forwards, forwards[::-1]]
    workers = [context.Process(target=_report, args=(pairs, order, queue)) for order in orders]
    with warnings.catch_warnings():
        # newer Pythons warn of a fork beside threads
        warnings.simplefilter("ignore", DeprecationWarning)
        for worker in workers:
            worker.start()
    # read on while the workers read: a shared file position would show
    for _ in range(20):
        assert _checksums(pairs, forwards) == expected
    for _ in workers:
        assert sorted(queue.get(timeout=60)) == sorted(expected)
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    queue.close()
    queue.join_thread()


def test_pickles_hold_the_path_alone(tmp_path):
    pairs = ShardFolder(folder(tmp_path / "f"))
    pairs.find(pairs.keys()[0])
    pairs.shard(0).images()
    assert len(pickle.dumps(pairs)) < 300
    assert len(pickle.dumps(pairs.shard(0))) < 300
    assert pickle.loads(pickle.dumps(pairs)).keys() == pairs.keys()
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(pairs.shard(0))).images(), pairs.shard(0).images())


def _overwrite(path, name, row, value):
    """Change stored values in place, as damage would; of one row or of several."""
    shard = Shard(path)
    offset, column = shard.layout.places[name]
    assert (row.stop if isinstance(row, slice) else row + 1) <= column.shape[0]
    data = np.memmap(path, column.dtype, "r+", offset, column.shape)
    data[row] = value
    data.flush()


def test_labels_and_splits_out_of_range_are_never_handed_on(tmp_path):
    path = write(tmp_path / "a.h5", header(), rows(3))
    _overwrite(path, "label", 1, 3)
    with pytest.raises(IntegrityError, match="outside the 3 classes"):
        Shard(path).labels  # noqa: B018
    with pytest.raises(IntegrityError, match="has label 3 of 3 classes"):
        Shard(path)[1]
    _overwrite(path, "split", 0, 9)
    with pytest.raises(IntegrityError, match="a split is none of"):
        Shard(path).splits  # noqa: B018
    _overwrite(path, "key", 2, b"\xff\xfe")
    with pytest.raises(IntegrityError, match="a key is not UTF-8"):
        Shard(path).keys  # noqa: B018


@pytest.mark.parametrize("value", [np.nan, np.inf, -1])
def test_scales_that_cannot_be_are_named(tmp_path, value):
    path = write(tmp_path / "a.h5", header(), rows(3))
    _overwrite(path, "saliency/gradcam/scale", 1, value)
    for read in (lambda: Shard(path).maps("gradcam"), lambda: Shard(path)[1]):
        with pytest.raises(IntegrityError, match=r"a\.h5: a scale of gradcam is negative or not finite; run 'salpipe"):
            read()
    assert Shard(path).maps("gradcam", [0, 2]).shape == (2, 1, 7, 5)


def test_values_that_were_not_finite_are_zeros_and_no_damage(tmp_path):
    whole = rows(3)
    whole.maps["gradcam"][1, 0, 2, 2] = np.nan
    whole.maps["gradcam"][2] = np.inf
    shard = Shard(write(tmp_path / "a.h5", header(), whole))
    assert (shard.flags("gradcam")[:, 0] & NON_FINITE != 0).tolist() == [False, True, True]
    maps = shard.maps("gradcam")
    assert np.isfinite(maps).all()
    assert (maps[1, 0, 2, 2], maps[2].any()) == (0, False)
    assert verify(shard.path, deep=True).problems == ()


@pytest.mark.parametrize("start", [0, 5, 300])
def test_a_damaged_jpeg_is_named_by_its_key(tmp_path, start):
    path = write(tmp_path / "a.h5", header("jpeg"), rows(3, "jpeg"))
    begin, end = Shard(path).read("image_offset")[1:3].tolist()
    _overwrite(path, "image_bytes", slice(begin + start, min(end, begin + start + 400)), 0)
    with pytest.raises(IntegrityError, match=r"image of 'klasse 1/日本/long1\.jpg' cannot be decoded"):
        Shard(path).images()
    assert Shard(path).images([0, 2]).shape == (2, SIZE, SIZE, 3)


def test_a_jpeg_of_another_size_is_not_decoded(tmp_path):
    whole = rows(2, "jpeg")
    whole.images[1] = jpeg(np.zeros((SIZE, SIZE * 2, 3), np.uint8))
    path = write(tmp_path / "a.h5", header("jpeg"), whole)
    with pytest.raises(IntegrityError, match="it measures 48×24"):
        Shard(path)[1]


def test_damaged_offsets_are_refused(tmp_path):
    path = write(tmp_path / "a.h5", header("jpeg"), rows(2, "jpeg"))
    for value in (2**63, 10**6):
        _overwrite(path, "image_offset", 1, value)
        with pytest.raises(IntegrityError, match="image_offset does not fit image_bytes"):
            Shard(path).images()


def test_a_folder_without_shards(tmp_path):
    path = folder(tmp_path / "f", ())
    pairs = ShardFolder(path)
    assert (len(pairs), pairs.keys(), Manifest.read(path).images) == (0, [], 0)
