"""Exports read again by salpipe: the same keys, labels, splits, pixels and maps."""

import json
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from saliency_pipeline.conversion.convert import convert
from saliency_pipeline.datasets import exported_maps
from saliency_pipeline.datasets.export_file import KINDS, is_export
from saliency_pipeline.datasets.exported import LAYOUTS
from saliency_pipeline.datasets.exported_maps import raw_maps
from saliency_pipeline.datasets.map_files import maps_digest, with_maps
from saliency_pipeline.datasets.open import read_images
from saliency_pipeline.errors import BadImageError, SalpipeError
from saliency_pipeline.generation.annotated import given_maps, made_by_source
from saliency_pipeline.generation.config import GenerateConfig
from saliency_pipeline.generation.run import generate
from saliency_pipeline.images.decode import decode_frame
from saliency_pipeline.images.fit import boxes_in_frame
from saliency_pipeline.progress import Progress
from saliency_pipeline.shards import schema
from saliency_pipeline.shards.reader import ShardFolder
from tests.conversion.examples import KEYS, MAPS, SMOOTHGRAD
from tests.generation.examples import OPTIONS
from tests.shards.examples import SIZE, header


@pytest.fixture(params=KINDS)
def export(exports, request) -> Path:
    return exports[request.param]


def test_an_export_is_recognized_and_read_like_the_shards(shards, export):
    notes: list[str] = []
    catalogue = read_images(export, note=notes.append)
    assert catalogue == read_images(export, "export")
    assert catalogue.layout == LAYOUTS[0].name
    assert catalogue.classes == shards.classes
    assert any("maps in the export, which are stored only with --maps-from" in note for note in notes)
    records = {record.key: record for record in catalogue.records}
    assert sorted(records) == sorted(KEYS)
    for position, pair in enumerate(shards):
        record, (number, row) = records[pair.key], shards.locate(position)
        assert (record.label, int(record.split)) == (pair.label, pair.split)
        boxes = boxes_in_frame(shards.shard(number).boxes(row), pair.source_size, SIZE, "pad")
        np.testing.assert_allclose(np.array(record.boxes).reshape(-1, 4), boxes, atol=0.5)
        frame, _ = decode_frame(record.read(), SIZE)
        np.testing.assert_array_equal(frame, pair.image)
        raw = record.maps.read()
        assert list(raw.maps) == list(MAPS)
        for method, maps in pair.maps.items():
            np.testing.assert_array_equal(raw.maps[method], maps)
            np.testing.assert_array_equal(raw.targets[method], pair.targets[method])


def test_frames_of_jpeg_shards_are_the_same(jpeg_shards, tmp_path):
    for to in KINDS:
        folder = convert(jpeg_shards.path, tmp_path / to, to=to, methods=("edges",)).folder
        frames = {each.key: decode_frame(each.read(), SIZE)[0] for each in read_images(folder).records}
        for pair in jpeg_shards:
            np.testing.assert_array_equal(frames[pair.key], pair.image)


def test_maps_as_png_come_back_within_their_error(shards, tmp_path):
    options = {"to": "png", "maps_as": "png", "methods": ("gradcam",)}
    records = {each.key: each for each in read_images(convert(shards.path, tmp_path / "a", **options).folder).records}
    for pair in shards:
        maps = records[pair.key].maps.read().maps["gradcam"]
        for values, stored in zip(maps, pair.maps["gradcam"], strict=True):
            np.testing.assert_allclose(values, stored, atol=stored.max() / 131_000)


def test_generate_stores_the_pixels_labels_and_raw_maps_of_an_export(shards, export, tmp_path):
    options = {**OPTIONS, "size": SIZE, "methods": ("edges",)}
    generate(export, tmp_path / "again", maps_from=export, **options)
    again = ShardFolder(tmp_path / "again")
    assert again.methods == ("edges", "given:edges", "given:gradcam", f"given:{SMOOTHGRAD}")
    assert again.classes == shards.classes
    described = again.provenance["methods"][f"given:{SMOOTHGRAD}"]
    assert described == {"signed": True, "complete": True, "method": SMOOTHGRAD, "target": "predicted"}
    assert again.provenance["data"]["maps"]["provenance"] == shards.provenance
    for pair in shards:
        other = again[again.find(pair.key)]
        np.testing.assert_array_equal(other.image, pair.image)
        assert (other.class_name, other.split) == (pair.class_name, pair.split)
        for method in MAPS:
            np.testing.assert_array_equal(other.maps[f"given:{method}"], pair.maps[method])
            # of another source model, whose classes are others
            assert (other.targets[f"given:{method}"] == -1).all()


def test_explained_classes_are_kept_if_the_source_model_is_the_same(exports):
    record = read_images(exports["webdataset"]).records[0]
    raw = record.maps.read()
    for same in (True, False):
        own = given_maps(replace(record, map_path=record.path), (SIZE, SIZE), header(), GenerateConfig(), same)
        for method, targets in raw.targets.items():
            expected = targets if same else np.full_like(targets, -1)
            np.testing.assert_array_equal(own.targets[f"given:{method}"], expected)


@pytest.mark.parametrize(("weights", "same"), [("5" * 64, True), ("6" * 64, False), (None, False)])
def test_the_source_model_is_recognized_by_its_weights(shards, weights, same):
    def run(data):
        return replace(
            header(), provenance={**header().provenance, "source": {"weights_sha256": weights}, "data": data}
        )

    assert made_by_source(run({"maps": {"provenance": shards.provenance}})) == same
    assert not made_by_source(run({}))
    assert not made_by_source(run({"maps": {"images": 1}}))


def test_the_mark_of_seen_images_is_that_of_shards():
    assert exported_maps.SEEN == schema.SEEN


def test_maps_of_images_that_their_network_was_trained_on_stay_marked():
    facts = {"saliency": {"edges": {"target": [-1], "flag": [schema.SEEN | schema.CONSTANT]}}}
    assert raw_maps({"edges": np.ones((1, 4, 6), np.float32)}, facts, {"edges": (1, 4, 6)}).seen
    facts["saliency"]["edges"]["flag"] = [schema.ALL_FLAGS & ~schema.SEEN]
    assert not raw_maps({"edges": np.ones((1, 4, 6), np.float32)}, facts, {"edges": (1, 4, 6)}).seen


def test_without_maps_from_only_new_maps_are_stored(exports, tmp_path):
    options = {**OPTIONS, "size": SIZE, "methods": ("edges",)}
    generate(exports["webdataset"], tmp_path / "again", **options)
    assert ShardFolder(tmp_path / "again").methods == ("edges",)


def test_maps_of_one_folder_are_read_as_maps_from_elsewhere(shards, exports):
    top = exports["png"]
    notes: list[str] = []
    catalogue = with_maps(read_images(top / "images"), top / "maps/edges", notes.append)
    assert all(record.map_path for record in catalogue.records)
    # those without a split are not read as images of a data set that has splits
    assert len(catalogue) == sum(shards.splits >= 0) < len(KEYS)
    assert notes[0].startswith(f"{top / 'maps/edges'}: maps of {len(catalogue)} images, each of the whole image")
    with pytest.raises(SalpipeError, match="maps of an export are stored only with its own images"):
        with_maps(read_images(top / "images"), exports["webdataset"], notes.append)


def test_maps_of_another_folder_replace_those_of_an_export(export, tmp_path):
    (tmp_path / "masks/d").mkdir(parents=True)
    levels = np.linspace(0, 1, SIZE**2, dtype=np.float32).reshape(SIZE, SIZE)
    np.save(tmp_path / "masks/d/same.npy", levels)
    catalogue = with_maps(read_images(export), tmp_path / "masks", [].append)
    assert [record.key for record in catalogue.records if record.map_path] == ["d/same.jpg"]
    digest = maps_digest(catalogue.records, Progress())
    assert (digest["images"], "methods" in digest) == (1, False)
    generate(
        export, tmp_path / "again", maps_from=tmp_path / "masks", **{**OPTIONS, "size": SIZE, "methods": ("edges",)}
    )
    again = ShardFolder(tmp_path / "again")
    assert again.methods == ("edges", "given")
    for pair in again:
        assert pair.maps["given"].any() == (pair.key == "d/same.jpg")


def test_row_groups_of_several_tables_stay_in_memory(exports, monkeypatch):
    def counted(*arguments):
        calls.append(arguments)
        return read(*arguments)

    calls, read = [], exported_maps.read_columns
    monkeypatch.setattr(exported_maps, "read_columns", counted)
    monkeypatch.setattr(exported_maps, "_thread", threading.local())
    first = {each.path: each for each in read_images(exports["parquet"]).records}
    three, other = list(first.values())[:3], list(first.values())[3]
    for record in three * 3:
        record.maps.read()
    assert len(calls) == 3
    # the one that was used longest ago is dropped
    for record in (other, three[1], three[2], other, three[0]):
        record.maps.read()
    assert len(calls) == 5


def test_a_missing_column_is_the_reason(exports):
    path = str(next(exports["parquet"].glob("*.parquet")))
    with pytest.raises(OSError, match="no column saliency/rise/map"):
        exported_maps.read_columns(path, 0, ["key", "saliency/rise/map"], 2**20, 1)


def changed(export: Path, tmp_path: Path, **changes: object) -> Path:
    """A copy of an export with other entries in `export.json`."""
    folder = Path(shutil.copytree(export, tmp_path / "copy"))
    described = json.loads((folder / "export.json").read_bytes())
    (folder / "export.json").write_text(json.dumps({**described, **changes}))
    return folder


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"format": "other"}, "format is 'other'"),
        ({"format_version": "2.0"}, "newer than this salpipe can read"),
        ({"kind": "zip"}, "its kind, size or provenance is impossible"),
        ({"classes": [1]}, "classes is not a list of names"),
        ({"classes": ["cat", "cat"]}, "two classes have the same name"),
        ({"maps": {"edges": {"targets": 1, "height": 10**9, "width": 1}}}, "the shape of the maps of 'edges'"),
        ({"map_folders": {"edges": ["../.."], "gradcam": ["a", "b"], SMOOTHGRAD: ["a", "b"]}}, "the folders of the"),
        ({"map_folders": {"edges": ["a\0"], "gradcam": ["a", "b"], SMOOTHGRAD: ["a", "b"]}}, "the folders of the"),
        ({"map_folders": {"edges": ["\ud800"], "gradcam": ["a", "b"], SMOOTHGRAD: ["a", "b"]}}, "the folders of the"),
        ({"images": -1}, "its number of images is impossible"),
        ({"classes": ["cat"]}, "its label is none of the 1 class"),
    ],
)
def test_a_damaged_description_is_one_line(exports, tmp_path, changes, reason):
    with pytest.raises(SalpipeError, match=reason):
        read_images(changed(exports["png"], tmp_path, **changes), "export")


@pytest.mark.parametrize(("to", "name"), [("webdataset", "*.tar"), ("parquet", "*.parquet"), ("png", "samples/*")])
def test_a_missing_file_is_one_line(exports, tmp_path, to, name):
    folder = changed(exports[to], tmp_path)
    sorted(folder.glob(name))[0].unlink()
    with pytest.raises(SalpipeError, match=r"copy: \d+ images? instead of 12, because files are missing"):
        read_images(folder)


def test_a_file_of_that_name_by_another_tool_is_ignored(exports, tmp_path):
    (tmp_path / "photos/cat").mkdir(parents=True)
    shutil.copy(next(exports["png"].rglob("*.png")), tmp_path / "photos/cat/1.png")
    (tmp_path / "photos/export.json").write_text('{"format": "COCO", "version": 2}')
    assert read_images(tmp_path / "photos").layout == "folders"
    # the name of the format across two blocks that are read
    (tmp_path / "photos/export.json").write_text(" " * (2**20 - 5) + '"salpipe-export"')
    assert is_export(tmp_path / "photos")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"key": ""}, "its key is missing or impossible"),
        ({"key": "\ud800"}, "its key is missing or impossible"),
        ({"label": 99}, "its label is none of the 4 classes"),
        ({"split": "dev"}, "its split is unknown"),
        ({"file": "../../../etc/passwd"}, "leads out of the export"),
        ({"file": "/etc/passwd"}, "leads out of the export"),
    ],
)
def test_a_damaged_sample_is_one_line(exports, tmp_path, changes, reason):
    folder = changed(exports["png"], tmp_path)
    path = folder / "samples/shard-00000.jsonl"
    first, *rest = path.read_text().splitlines()
    path.write_text("\n".join([json.dumps({**json.loads(first), **changes}), *rest]) + "\n")
    with pytest.raises(SalpipeError, match=reason):
        read_images(folder)


def test_damaged_maps_are_reasons(exports, tmp_path):
    folder = changed(exports["png"], tmp_path)
    catalogue = read_images(folder)
    for path in (folder / "maps/edges").rglob("*.npy"):
        path.write_bytes(path.read_bytes()[:-4])
    for record in catalogue.records:
        with pytest.raises(BadImageError, match=r"instead of float32 \(4, 6\), or damaged"):
            record.maps.read()
