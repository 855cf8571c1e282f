"""Every kind of damage is reported with the shard's name; intact files have no problems."""

import hashlib
import json
import os
from dataclasses import replace

import numpy as np
import pytest

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.files import temporary_name
from saliency_pipeline.shards.manifest import Manifest
from saliency_pipeline.shards.shard import Shard
from saliency_pipeline.shards.verify import Problem, verify
from saliency_pipeline.shards.writer import ShardWriter
from tests.shards.examples import MAPS, RESIDUALS, folder, header, jpeg, rows, with_residuals, write


@pytest.fixture
def sound(tmp_path):
    return folder(tmp_path / "f")


def found(path, **options) -> list[str]:
    return [str(problem) for problem in verify(path, **options).problems]


def overwrite(path, name, row, value):
    """Change one stored row in place."""
    offset, column = Shard(path).layout.places[name]
    data = np.memmap(path, column.dtype, "r+", offset, column.shape)
    data[row] = value
    data.flush()


def rehash(path):
    """Make the manifest agree with the bytes of the shards, as a defect of the writer would."""
    manifest = path / "manifest.json"
    data = json.loads(manifest.read_text())
    for entry in data["shards"]:
        entry["sha256"] = hashlib.sha256((path / entry["name"]).read_bytes()).hexdigest()
    manifest.write_text(json.dumps(data))


@pytest.mark.parametrize("encoding", ["raw", "jpeg"])
@pytest.mark.parametrize("deep", [False, True])
def test_a_sound_folder_has_no_problems(tmp_path, encoding, deep):
    path = folder(tmp_path / "f", (4, 0, 5), encoding)
    before = {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in path.iterdir()}
    calls = []
    report = verify(path, deep=deep, progress=lambda done, total: calls.append((done, total)))
    assert (report.shards, report.images, report.deep, report.problems) == (3, 9, deep, ())
    assert calls == [(1, 3), (2, 3), (3, 3)]
    assert {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in path.iterdir()} == before


def test_a_single_shard_is_checked_by_itself(sound):
    report = verify(sound / "shard-00002.h5", deep=True)
    assert (report.shards, report.images, report.problems) == (1, 5, ())
    overwrite(sound / "shard-00002.h5", "saliency/gradcam/scale", (1, 0), np.nan)
    for deep in (False, True):
        assert found(sound / "shard-00002.h5", deep=deep) == [
            "shard-00002.h5: saliency/gradcam/scale of image 1 is nan, outside [0, 3.40282e+38]"
        ]


def test_missing_truncated_and_foreign_shards_are_all_named(sound):
    (sound / "shard-00000.h5").unlink()
    second = (sound / "shard-00001.h5").read_bytes()
    (sound / "shard-00001.h5").write_bytes(second[:-1000])
    write(sound / "shard-00002.h5", header(plan="another"), rows(5, first=7))
    report = verify(sound)
    assert report.damaged == ("shard-00000.h5", "shard-00001.h5", "shard-00002.h5")
    assert report.problems[0] == Problem("shard-00000.h5", "missing")
    assert report.problems[1].message.startswith("not a readable shard (")
    assert report.problems[2].message == f"{len(second) - 1000} bytes but {len(second)} in manifest.json"
    assert any(p.message == "not of this plan: plan differ from manifest.json" for p in report.problems[3:])


def test_appended_bytes_are_noticed(sound):
    with open(sound / "shard-00001.h5", "ab") as file:
        file.write(b"more")
    assert len(found(sound)) == 1
    assert "bytes but" in found(sound)[0]


def test_wrong_counts_are_named(sound):
    write(sound / "shard-00001.h5", header(), rows(2, first=4))
    assert "shard-00001.h5: 2 images but 3 in manifest.json" in found(sound)


@pytest.mark.parametrize("where", [0.1, 0.5, 0.9])
def test_a_flipped_bit_in_the_data_is_found_deep(sound, where):
    path = sound / "shard-00000.h5"
    offset, column = Shard(path).layout.places["image"]
    with open(path, "r+b") as file:
        file.seek(offset + int(column.nbytes * where))
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 4]))
    assert found(sound) == []
    assert found(sound, deep=True) == [
        "shard-00000.h5: its SHA-256 is not the one in manifest.json: bytes have changed"
    ]


def test_swapped_shards_are_found_deep(sound):
    first, third = sound / "shard-00000.h5", sound / "shard-00002.h5"
    one, three = first.read_bytes(), third.read_bytes()
    first.write_bytes(three)
    third.write_bytes(one)
    assert {problem.split(":")[0] for problem in found(sound, deep=True)} == {"shard-00000.h5", "shard-00002.h5"}


@pytest.mark.parametrize(
    ("name", "row", "value", "message"),
    [
        ("label", 1, 3, "label of image 1 is 3, outside [-1, 2]"),
        ("label", 0, -2, "label of image 0 is -2, outside [-1, 2]"),
        ("split", 2, 3, "split of image 2 is 3, outside [-1, 2]"),
        ("source/size", (0, 1), 0, "source/size of image 0 is 0, outside [1, inf]"),
        ("prediction/class", (3, 4), 20, "prediction/class of image 3 is 20, outside [-1, 19]"),
        ("prediction/score", (3, 0), np.nan, "prediction/score of image 3 is nan"),
        ("prediction/score", (3, 0), 1.5, "prediction/score of image 3 is 1.5"),
        (
            "saliency/gradcam/map",
            (2, 0, 6, 4),
            1.001,
            "saliency/gradcam/map of image 2 is 1.0009765625, outside [-1, 1]",
        ),
        ("saliency/gradcam/map", (2, 0, 0, 0), np.inf, "saliency/gradcam/map of image 2 is inf"),
        ("saliency/gradient-simonyan/map", (3, 1, 9, 9), np.nan, "map of image 3 is nan"),
        ("saliency/gradcam/scale", (1, 0), -1, "scale of image 1 is -1"),
        ("saliency/gradcam/scale", (1, 0), 0, "flags of all-zero maps do not agree with the scales"),
        ("saliency/gradcam/target", (1, 0), 20, "target of image 1 is 20, outside [-1, 19]"),
        ("saliency/gradcam/flag", (1, 0), 32, "flag of image 1 is 32, outside [0, 31]"),
        ("key", 1, b"", "a key is empty"),
        ("key", 1, b"\xff", "a key is not UTF-8"),
    ],
)
def test_values_out_of_range_are_named(sound, name, row, value, message):
    overwrite(sound / "shard-00000.h5", name, row, value)
    rehash(sound)
    (problem,) = found(sound, deep=True)
    assert problem.startswith("shard-00000.h5: ")
    assert message in problem
    # keys and maps take reading them all
    assert found(sound) == ([] if name == "key" or name.endswith("/map") else [problem])


def test_infinite_residuals_are_named_and_missing_ones_are_not(tmp_path):
    head, whole = with_residuals(2, [[0, 1], [np.nan, 3]])
    path = write(tmp_path / "a.h5", head, whole)
    assert found(path) == []
    overwrite(path, f"saliency/{RESIDUALS}/residual", (1, 1), np.inf)
    (problem,) = found(path)
    assert f"saliency/{RESIDUALS}/residual of image 1 is inf" in problem


def test_negative_standard_errors_are_named_and_missing_ones_are_not(tmp_path):
    whole = rows(2)
    whole.standard_errors = {"gradcam": np.array([[0.1], [np.nan]], np.float32)}
    path = write(
        tmp_path / "a.h5", header(maps=MAPS | {"gradcam": replace(MAPS["gradcam"], standard_error=True)}), whole
    )
    assert found(path) == []
    overwrite(path, "saliency/gradcam/standard_error", (0, 0), -1)
    (problem,) = found(path)
    assert "saliency/gradcam/standard_error of image 0 is -1" in problem


def test_keys_are_unique_across_shards(sound):
    key = Shard(sound / "shard-00000.h5").keys[2]
    overwrite(sound / "shard-00001.h5", "key", 1, key.encode())
    rehash(sound)
    assert found(sound, deep=True) == [f"shard-00001.h5: key '{key}' is in shard-00000.h5 too"]


def test_damaged_jpegs_are_named(tmp_path):
    path = folder(tmp_path / "f", (3,), "jpeg")
    shard = path / "shard-00000.h5"
    start = int(Shard(shard).read("image_offset")[1])
    overwrite(shard, "image_bytes", slice(start, start + 20), 0)
    rehash(path)
    assert found(path) == []
    (problem,) = found(path, deep=True)
    assert "the image of 'klasse 1/日本/long1.jpg' cannot be decoded" in problem
    assert "run '" not in problem
    overwrite(shard, "image_offset", 1, 10**9)
    rehash(path)
    assert "image_offset does not run from 0 to the end of image_bytes" in found(path, deep=True)[0]


def test_a_jpeg_of_another_size_is_named(tmp_path):
    whole = rows(2, "jpeg")
    whole.images[1] = jpeg(np.zeros((8, 8, 3), np.uint8))
    path = write(tmp_path / "a.h5", header("jpeg"), whole)
    assert "it measures 8×8" in found(path, deep=True)[0]


def test_an_unfinished_shard_is_named(sound):
    import h5py

    with h5py.File(sound / "shard-00001.h5", "r+") as file:
        file.attrs.modify("complete", np.uint8(0))
    assert "shard-00001.h5: unfinished: it was never completed" in found(sound)


def test_a_missing_manifest_is_a_problem_and_shards_are_checked_all_the_same(sound):
    (sound / "manifest.json").unlink()
    (sound / "shard-00001.h5").write_bytes(b"nothing")
    report = verify(sound, deep=True)
    assert report.damaged == ("manifest.json", "shard-00001.h5")
    assert report.problems[0].message == "missing: the folder is not finished; run 'salpipe generate' again"
    assert (report.shards, report.images) == (3, 9)


def test_a_damaged_manifest_is_a_problem(sound):
    (sound / "manifest.json").write_text('{"format": "salpipe-manifest"')
    (problem,) = found(sound)
    assert problem.startswith("manifest.json: damaged (")


def test_a_newer_manifest_is_no_damage(sound):
    manifest = sound / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"format_version": "1.1"', '"format_version": "3.0"'))
    with pytest.raises(SalpipeError, match="upgrade salpipe"):
        verify(sound)


def test_shards_that_no_manifest_lists_are_named(sound):
    write(sound / "shard-00009.h5", header(), rows(1))
    (sound / "tmp.host.1.0.shard-00003.h5").write_bytes(b"")
    (sound / "notes.txt").write_text("mine")
    assert found(sound) == ["shard-00009.h5: not listed in manifest.json; move it away"]


def test_unlisted_shards_of_another_plan_are_distinguished_from_those_of_this_one(sound):
    write(sound / "shard-00009.h5", header(plan="another"), rows(1))
    write(sound / "shard-00001 (copy).h5", header(), rows(1))
    (sound / "mine.h5").write_bytes(b"no shard")
    assert found(sound) == [
        "shard-00001 (copy).h5: not listed in manifest.json; move it away",
        "shard-00009.h5: not listed in manifest.json and of another plan; move it away",
    ]


def test_reversed_boxes_are_named(tmp_path):
    whole = rows(2)
    whole.boxes = [[(1, 2, 30, 40)], [(5, 9, 8, 9)]]
    path = write(tmp_path / "a.h5", header(boxes=True), whole)
    assert found(path) == ["a.h5: source/box has a box whose corners are reversed (5, 9, 8, 9)"]


def test_a_folder_may_be_verified_while_it_is_written(tmp_path):
    (tmp_path / "f").mkdir()
    with ShardWriter(temporary_name(tmp_path / "f" / "shard-00001.h5"), header(), 4) as writer:
        writer.append(rows(4))
        write(tmp_path / "f" / "shard-00000.h5", header(), rows(2))
        (problem,) = found(tmp_path / "f", deep=True)
        assert problem.startswith("manifest.json: missing: the folder is not finished")


def test_rejects_must_agree_with_the_manifest(sound):
    (sound / "rejects.jsonl").write_text("{}\n")
    assert found(sound) == ["rejects.jsonl: 1 lines but 2 rejected images in manifest.json"]
    (sound / "rejects.jsonl").unlink()
    assert found(sound) == ["rejects.jsonl: 0 lines but 2 rejected images in manifest.json"]
    (sound / "rejects.jsonl").mkdir()
    assert found(sound) == ["rejects.jsonl: not readable (Is a directory)"]


def test_other_entries_where_shards_should_be(sound):
    (sound / "shard-00000.h5").unlink()
    (sound / "shard-00000.h5").mkdir()
    (sound / "shard-00001.h5").unlink()
    os.mkfifo(sound / "shard-00001.h5")
    (sound / "shard-00002.h5").unlink()
    (sound / "shard-00002.h5").symlink_to("shard-00002.h5")
    report = verify(sound, deep=True)
    assert report.damaged == ("shard-00000.h5", "shard-00001.h5", "shard-00002.h5")


def test_what_holds_no_shards_is_an_error(tmp_path):
    with pytest.raises(SalpipeError, match="no such file or folder"):
        verify(tmp_path / "gone")
    with pytest.raises(SalpipeError, match="an empty folder, holds no shards; give a folder that"):
        verify(tmp_path)


def test_a_finished_folder_without_images_is_sound(tmp_path):
    path = folder(tmp_path / "f", ())
    report = verify(path, deep=True)
    assert (report.shards, report.images, report.problems) == (0, 0, ())
    assert Manifest.read(path).images == 0


def test_random_damage_is_always_reported_and_never_raised(sound):
    """Bytes overwritten anywhere in a shard: deep verification sees it, shallow at least survives it."""
    path = sound / "shard-00001.h5"
    content, random = path.read_bytes(), np.random.default_rng(3)
    for _ in range(120):
        damaged = bytearray(content)
        start = int(random.integers(len(content)))
        for position in range(start, min(len(content), start + int(random.choice([1, 8, 64])))):
            damaged[position] = random.choice([0, 127, 255])
        if damaged == content:
            continue
        path.write_bytes(damaged)
        verify(sound)
        assert verify(sound, deep=True).damaged == ("shard-00001.h5",)
