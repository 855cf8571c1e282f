"""Counts of `inspect`, compared with counts over single images."""

import json
from dataclasses import replace

import numpy as np
import pytest

from saliency_pipeline.errors import IntegrityError, SalpipeError
from saliency_pipeline.shards.reader import ShardFolder
from saliency_pipeline.shards.schema import SEEN, SINGLE_COLOR
from saliency_pipeline.shards.summary import Range, inspect
from saliency_pipeline.shards.verify import verify
from tests.shards.examples import MAPS, RESIDUALS, folder, header, of_methods, rows, write


def test_counts_agree_with_the_images_one_by_one(tmp_path):
    path = folder(tmp_path / "f", (40, 0, 30, 25))
    pairs = list(ShardFolder(path))
    summary = inspect(path)
    assert (summary.images, summary.shards, summary.size, summary.encoding) == (95, 4, 24, "raw")
    assert summary.bytes == sum(file.stat().st_size for file in path.glob("*.h5"))
    names = {-1: "none", 0: "train", 1: "validation", 2: "test"}
    for label, entry in enumerate(summary.classes):
        assert entry.name == header().classes[label]
        assert entry.images == sum(pair.label == label for pair in pairs)
        for split, name in names.items():
            expected = sum(pair.label == label and pair.split == split for pair in pairs)
            assert entry.splits.get(name, 0) == expected
    assert summary.unlabeled == sum(pair.label == -1 for pair in pairs) > 0
    assert summary.splits == {name: sum(pair.split == split for pair in pairs) for split, name in names.items()}
    heights = [pair.source_size[0] for pair in pairs]
    assert summary.source_height == Range(min(heights), float(np.median(heights)), max(heights))
    scores = [pair.prediction_score[0] for pair in pairs]
    assert summary.score == Range(float(min(scores)), float(np.median(scores)), float(max(scores)))
    assert summary.rejects == {"truncated": 2}
    first = [int(pair.prediction_class[0]) for pair in pairs]
    assert [entry.images for entry in summary.predicted] == sorted(map(first.count, set(first)), reverse=True)[:10]
    assert all(entry.images == first.count(entry.index) for entry in summary.predicted)
    assert all(entry.name == f"source {entry.index}" for entry in summary.predicted)
    for method, shape in MAPS.items():
        peaks = np.array([np.abs(pair.maps[method]).max(axis=(1, 2)) for pair in pairs])
        statistics = summary.maps[method]
        assert statistics.shape == shape
        np.testing.assert_allclose(
            [statistics.scale.min, statistics.scale.median, statistics.scale.max],
            [peaks.min(), np.median(peaks), peaks.max()],
            1e-6,
        )
        assert (statistics.all_zero, statistics.constant, statistics.non_finite) == (0, 0, 0)


def test_shares_of_odd_maps(tmp_path):
    whole = rows(8)
    whole.maps["gradcam"][0:2] = 0
    whole.maps["gradcam"][2] = 5
    whole.maps["gradcam"][3, 0, 0, 0] = np.nan
    whole.maps["gradcam"][4] = np.nan
    statistics = inspect(write(tmp_path / "a.h5", header(), whole)).maps["gradcam"]
    assert (statistics.all_zero, statistics.constant, statistics.non_finite) == (3 / 8, 1 / 8, 2 / 8)


def test_images_of_one_color_are_flagged_and_counted(tmp_path):
    marked = replace(rows(5), single_color=np.array([False, True, False, True, True]))
    path = write(tmp_path / "shard-00000.h5", header(), marked)
    for method in MAPS:
        flags = ShardFolder(path).shards[0].flags(method)
        assert (flags & SINGLE_COLOR != 0).tolist() == [[one] * flags.shape[1] for one in marked.single_color.tolist()]
    assert inspect(path).single_color == 3
    assert "one color  3 images, with nothing on it to explain" in inspect(path).as_text()
    assert verify(path, deep=True).problems == ()
    plain = inspect(write(tmp_path / "shard-00001.h5", header(), rows(5)))
    assert plain.single_color == 0
    assert "one color" not in plain.as_text()


def test_images_that_the_source_model_was_trained_on_are_flagged_and_counted(tmp_path):
    marked = replace(rows(5), seen=np.array([True, False, True, False, False]), single_color=np.ones(5, bool))
    path = write(tmp_path / "shard-00000.h5", header(), marked)
    for method in MAPS:
        flags = ShardFolder(path).shards[0].flags(method)
        assert (flags & SEEN != 0).tolist() == [[one] * flags.shape[1] for one in marked.seen.tolist()]
        assert (flags & SINGLE_COLOR != 0).all()
    assert inspect(path).seen == 2
    assert "seen       2 images on which the source model was trained" in inspect(path).as_text()
    assert verify(path, deep=True).problems == ()
    plain = write(tmp_path / "shard-00001.h5", header(), rows(5))
    assert inspect(plain).seen == 0
    assert "source model was trained" not in inspect(plain).as_text()
    none = write(tmp_path / "shard-00002.h5", header(), replace(rows(5), seen=np.zeros(5, bool)))
    assert none.read_bytes() == plain.read_bytes()


def test_images_with_boxes_and_known_duplicates_are_counted(tmp_path):
    whole = replace(
        rows(4), boxes=[((1, 2, 3, 4),), (), ((0, 0, 5, 5), (1, 1, 2, 2)), ()], groups=np.array([-1, 0, 0, -1])
    )
    summary = inspect(write(tmp_path / "a.h5", header(boxes=True, groups=True), whole))
    assert (summary.boxed, summary.duplicates) == (2, 2)
    assert "boxes      objects of 2 images" in summary.as_text()
    assert "duplicates 2 images, kept together" in summary.as_text()
    without = inspect(write(tmp_path / "b.h5", header(), rows(4)))
    assert (without.boxed, without.duplicates) == (0, 0)
    assert "duplicates" not in without.as_text()


def test_as_dict_is_json(tmp_path):
    data = json.loads(json.dumps(inspect(folder(tmp_path / "f", encoding="jpeg")).as_dict(), allow_nan=False))
    assert data["images"] == 12
    assert data["maps"]["gradcam"]["shape"] == {"targets": 1, "height": 7, "width": 5} | dict.fromkeys(
        ("residual", "standard_error"), False
    )
    assert data["provenance"] == header().provenance
    assert set(data["score"]) == {"min", "median", "max"}


def test_methods_are_described_by_what_is_recorded_of_them(tmp_path):
    recorded = {
        "eigencam": {"class_agnostic": True},
        RESIDUALS: {"signed": True, "complete": True, "parameters": {"baseline": "mean", "nodes": 20}},
    }
    path = of_methods(tmp_path / "a.h5", recorded, targets=2)
    summary = inspect(path)
    eigen, integrated = (summary.as_dict()["maps"][method] for method in recorded)
    assert (eigen["class_agnostic"], eigen["signed"], eigen["parameters"], eigen["residual"]) == (True, False, {}, None)
    assert (integrated["class_agnostic"], integrated["signed"]) == (False, True)
    assert integrated["parameters"] == {"baseline": "mean", "nodes": 20}
    residuals = np.abs(ShardFolder(path).shards[0].residuals(RESIDUALS))
    assert integrated["residual"]["median"] == pytest.approx(np.median(residuals))
    assert integrated["residual"]["max"] == pytest.approx(residuals.max())
    text = summary.as_text()
    assert "maps of eigencam: 7×7, explain no class\n" in text
    assert f"maps of {RESIDUALS}: 7×7, 2 targets per image, signed\n" in text
    assert f"residual of the sum: median {np.median(residuals):.4g}, largest {residuals.max():.4g}" in text
    assert text.count("residual of") == 1


def test_standard_errors_are_summarized(tmp_path):
    path = of_methods(tmp_path / "a.h5", {"rise": {"sampled": True}, "gradcam": {}})
    summary, errors = inspect(path), ShardFolder(path).shards[0].standard_errors("rise")
    assert summary.as_dict()["maps"]["rise"]["standard_error"]["max"] == pytest.approx(errors.max())
    assert summary.as_dict()["maps"]["gradcam"]["standard_error"] is None
    line = f"  standard error: median {np.median(errors):.2%}, largest {errors.max():.2%} of a map's range"
    assert line in summary.as_text().splitlines()
    assert summary.as_text().count("standard error") == 1


def test_as_text_shows_what_a_reader_asks_first(tmp_path):
    text = inspect(folder(tmp_path / "f", (60, 3))).as_text()
    assert "63 images in 2 shards" in text
    assert "24×24, raw" in text
    lines = text.splitlines()
    table = lines[lines.index(next(line for line in lines if line.startswith("class"))) :]
    assert table[0].split() == ["class", "images", "none", "train", "validation", "test"]
    assert [line.split()[0] for line in table[1:5]] == ["cat", "dog", "Vögel", "(unlabeled)"]
    assert "        2  truncated" in lines
    assert "maps of gradient-simonyan: 24×24, 2 targets per image" in lines
    assert "    model: tiny" in lines
    assert "    classes: 20 entries" in lines
    assert all(line == line.rstrip() for line in lines)


def test_many_classes_are_cut_in_the_text_alone(tmp_path):
    path = write(tmp_path / "a.h5", header(classes=tuple(f"c{i}" for i in range(900))), rows(4))
    assert len(inspect(path).classes) == 900
    assert "and 860 more classes (all of them with --json)" in inspect(path).as_text()


def test_control_characters_do_not_reach_the_terminal(tmp_path):
    path = write(tmp_path / "a.h5", header(classes=("\x1b[2J", "b\nc", "d")), rows(4))
    text = inspect(path).as_text()
    assert "\x1b" not in text
    assert "\\x1b[2J" in text
    assert "b\\nc" in text


def test_a_single_shard_and_one_without_images(tmp_path):
    summary = inspect(write(tmp_path / "a.h5", header(provenance={}), rows(0)))
    assert (summary.images, summary.rejects, summary.predicted) == (0, None, [])
    assert summary.score == Range(None, None, None)
    assert "no values" in summary.as_text()
    assert "rejects" not in summary.as_text()
    unnamed = inspect(write(tmp_path / "b.h5", header(provenance={}), rows(3)))
    assert all(entry.name == f"class {entry.index}" for entry in unnamed.predicted)
    empty = inspect(folder(tmp_path / "f", ()))
    assert (empty.images, empty.shards) == (0, 0)
    assert "0 images in 0 shards" in empty.as_text()


def test_rejects_are_grouped_by_reason(tmp_path):
    path = folder(tmp_path / "f", rejects=0)
    lines = ['{"key": "a", "reason": "empty"}', '{"key": "b", "reason": "truncated"}', "{", '{"key": "c"}', "3"]
    (path / "rejects.jsonl").write_text("\n".join([*lines, '{"key": "d", "reason": "truncated"}']) + "\n")
    rejects = {"unreadable line of rejects.jsonl": 3, "truncated": 2, "empty": 1}
    assert inspect(path).rejects == rejects
    assert list(inspect(path).rejects) == list(rejects)
    (path / "rejects.jsonl").unlink()
    assert inspect(path).rejects == {}


def test_unlisted_shards_are_mentioned(tmp_path):
    path = folder(tmp_path / "f")
    assert inspect(path).unlisted == {}
    write(path / "shard-00009.h5", header(plan="another"), rows(1))
    write(path / "shard-00010.h5", header(), rows(1))
    summary = inspect(path)
    assert (summary.images, summary.unlisted) == (12, {"shard-00009.h5": False, "shard-00010.h5": True})
    lines = summary.as_text().splitlines()
    at = lines.index("ignored    2 shards not listed in manifest.json; move away:")
    assert lines[at + 1 : at + 3] == ["  shard-00009.h5 (of another plan)", "  shard-00010.h5"]


def test_an_unfinished_folder_says_how_to_finish_it(tmp_path):
    path = folder(tmp_path / "f")
    (path / "manifest.json").unlink()
    with pytest.raises(SalpipeError, match="run 'salpipe generate' again to finish it"):
        inspect(path)


def test_damage_ends_in_one_line(tmp_path):
    path = folder(tmp_path / "f")
    (path / "shard-00001.h5").write_bytes(b"nothing")
    with pytest.raises(IntegrityError, match=r"shard-00001\.h5: not a readable shard .* run 'salpipe verify'"):
        inspect(path)
