"""Contents of exports, read with other libraries: pixels, labels, maps and numbers are those of the shards."""

import csv
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from saliency_pipeline.conversion.config import ConvertConfig
from saliency_pipeline.conversion.convert import convert
from saliency_pipeline.datasets.exported_maps import LEVELS
from saliency_pipeline.errors import OptionError, SalpipeError
from tests.conversion.examples import KEYS, MAPS, SMOOTHGRAD

SPLITS = {-1: "", 0: "train", 1: "validation", 2: "test"}


def members(folder: Path) -> dict[str, dict[str, bytes]]:
    """The files of each sample of all tars, by suffix, with the name of its tar."""
    samples: dict[str, dict[str, bytes]] = {}
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                assert (member.mtime, member.uid, member.gid, member.uname, member.gname) == (0, 0, 0, "", "")
                name, _, suffix = member.name.partition(".")
                samples.setdefault(name, {"tar": path.name.encode()})[suffix] = tar.extractfile(member).read()
    return samples


def check_facts(pair, facts):
    assert facts["key"] == pair.key
    assert (facts["label"], facts["class"]) == (pair.label, pair.class_name or "")
    assert facts["split"] == SPLITS[pair.split]
    np.testing.assert_array_equal(np.float32(facts["prediction"]["score"]), pair.prediction_score)
    assert facts["prediction"]["class"] == pair.prediction_class.tolist()
    for method in MAPS:
        assert facts["saliency"][method]["target"] == pair.targets[method].tolist()


def test_tars_hold_everything(shards, exports):
    samples = members(exports["webdataset"])
    assert len(samples) == len(shards) == len(KEYS)
    for position, pair in enumerate(shards):
        sample = samples[f"{position:08d}"]
        number, row = shards.locate(position)
        assert sample["tar"].decode() == f"{SPLITS[pair.split] or 'shard'}-{number:05d}.tar"
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(sample["png"]))), pair.image)
        assert int(sample["cls"]) == pair.label
        facts = json.loads(sample["json"])
        check_facts(pair, facts)
        shard = shards.shard(number)
        assert facts["source"]["box"] == shard.boxes(row).tolist()
        assert facts["source"]["group"] == shard.groups[row]
        assert facts["source"]["sha256"] == shard.source_sha256[row].tobytes().hex()
        errors = facts["saliency"]["gradcam"]["standard_error"]
        np.testing.assert_array_equal(np.float32(errors), shard.standard_errors("gradcam", [row])[0])
        residuals = np.array(facts["saliency"][SMOOTHGRAD]["residual"], np.float32)  # None becomes NaN
        np.testing.assert_array_equal(residuals, shard.residuals(SMOOTHGRAD, [row])[0])
        for method in MAPS:
            stored = np.load(io.BytesIO(sample[f"{method}.npy"]), allow_pickle=False)
            assert stored.dtype == np.float32
            np.testing.assert_array_equal(stored, pair.maps[method])


def test_stored_jpeg_files_stay_as_they_are(jpeg_shards, tmp_path):
    samples = members(Path(convert(jpeg_shards.path, tmp_path / "tars", methods=("edges",)).folder))
    folders = convert(jpeg_shards.path, tmp_path / "folders", to="png", methods=("edges",)).folder
    with open(Path(folders) / "manifest.csv", newline="") as file:
        names = [row["file"] for row in csv.DictReader(file)]
    for position, name in enumerate(names):
        number, row = jpeg_shards.locate(position)
        stored = jpeg_shards.shard(number).jpeg(row)
        assert samples[f"{position:08d}"]["jpg"] == (Path(folders) / name).read_bytes() == stored


def test_provenance_and_classes_are_beside_the_tars(shards, exports):
    for folder in exports.values():
        described = json.loads((folder / "export.json").read_bytes())
        assert described["provenance"] == shards.provenance
        assert described["classes"] == list(shards.classes)
        assert described["images"] == len(shards)
        assert (folder / "classes.txt").read_text().splitlines() == list(shards.classes)


def test_tables_hold_everything(shards, exports):
    from pyarrow import parquet

    rows = {}
    for path in exports["parquet"].glob("*.parquet"):
        table = parquet.read_table(path)
        assert json.loads(table.schema.metadata[b"salpipe"])["provenance"] == shards.provenance
        rows |= {row["key"]: {"file": path.name, **row} for row in table.to_pylist()}
    assert len(rows) == len(shards)
    for position, pair in enumerate(shards):
        row, (number, place) = rows[pair.key], shards.locate(position)
        assert row["file"] == f"{SPLITS[pair.split] or 'shard'}-{number:05d}.parquet"
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(row["image"]["bytes"]))), pair.image)
        assert (row["label"], row["class"], row["split"]) == (pair.label, pair.class_name or "", SPLITS[pair.split])
        assert row["source/box"] == shards.shard(number).boxes(place).tolist()
        assert row["source/group"] == shards.shard(number).groups[place]
        for method in MAPS:
            np.testing.assert_array_equal(np.float32(row[f"saliency/{method}/map"]), pair.maps[method])
            assert row[f"saliency/{method}/target"] == pair.targets[method].tolist()
        assert np.isnan(np.float32(row[f"saliency/{SMOOTHGRAD}/residual"])).any() == (place == 0)


def test_folders_hold_everything_and_nothing_leaves_them(shards, exports):
    folder = exports["png"]
    assert not (folder.parent / "outside.png").exists()
    lines = [
        json.loads(line) for path in sorted(folder.glob("samples/*.jsonl")) for line in path.read_text().splitlines()
    ]
    # '..', 'a/b' and 'A/b' as folders, also where case does not count
    classes = {"cat": "cat", "a/b": "a_b-1", "..": "_", "A/b": "A_b-3", "": "unlabeled"}
    assert [line["key"] for line in lines] == list(KEYS)
    for pair, line in zip(shards, lines, strict=True):
        check_facts(pair, line)
        split, name, file = line["file"].split("/")[1:]
        assert (split, name) == (SPLITS[pair.split] or "none", classes[pair.class_name or ""])
        assert (folder / line["file"]).resolve().is_relative_to(folder.resolve())
        np.testing.assert_array_equal(np.asarray(Image.open(folder / line["file"])), pair.image)
        stem = f"{split}/{name}/{Path(file).stem}"
        np.testing.assert_array_equal(np.load(folder / "maps/edges" / f"{stem}.npy"), pair.maps["edges"][0])
        for target in (1, 2):
            stored = np.load(folder / f"maps/gradcam-{target}" / f"{stem}.npy")
            np.testing.assert_array_equal(stored, pair.maps["gradcam"][target - 1])


def test_maps_as_png_state_their_error(shards, tmp_path):
    options = {"to": "png", "maps_as": "png", "methods": ("gradcam", "edges")}
    folder = Path(convert(shards.path, tmp_path / "folders", **options).folder)
    for pair, line in zip(shards, map(json.loads, read_lines(folder)), strict=True):
        for target, scale in enumerate(line["saliency"]["gradcam"]["scale"]):
            name = line["file"].replace("images/", f"maps/gradcam-{target + 1}/", 1)
            levels = np.asarray(Image.open(folder / name))
            assert levels.dtype == np.uint16
            values = levels * (scale / LEVELS)
            np.testing.assert_allclose(values, pair.maps["gradcam"][target], atol=scale / (2 * LEVELS) * 1.001)


def read_lines(folder):
    return [line for path in sorted(folder.glob("samples/*.jsonl")) for line in path.read_text().splitlines()]


def test_maps_with_negative_values_are_no_gray_png(shards, tmp_path):
    with pytest.raises(SalpipeError, match=r"--maps-as png: maps of smoothgrad.* have negative values"):
        convert(shards.path, tmp_path / "folders", to="png", maps_as="png")


def test_maps_as_needs_png():
    with pytest.raises(OptionError, match="--maps-as png: needs --to png; leave it out"):
        ConvertConfig(to="parquet", maps_as="png")
