"""WordNet ids and class names: ImageNet's own, those of lists, and damaged lists."""

import json
import re

import pytest

from saliency_pipeline.datasets.files.lines import MAX_LINE_BYTES, Lines
from saliency_pipeline.datasets.imagenet.synsets import (
    imagenet_names,
    is_wnid,
    read_labels,
    read_wnids,
    read_words,
    readable,
)
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.models.source.source import load_source


def test_imagenets_classes_are_the_networks_in_order():
    names = imagenet_names()
    assert len(names) == len({wnid for wnid, _ in names}) == len({name for _, name in names}) == 1000
    source = load_source()
    assert tuple(wnid for wnid, _ in names) == source.wnids
    firsts = [name.split(",")[0] for name in source.classes]
    assert firsts == [name.split(" (n")[0] for _, name in names]


def test_names_that_two_classes_share_have_ids():
    doubled = [name for _, name in imagenet_names() if re.search(r" \(n[0-9]{8}\)$", name)]
    assert doubled == ["crane (n02012849)", "crane (n03126707)", "maillot (n03710637)", "maillot (n03710721)"]
    assert readable(["n02012849", "n01440764"]) == ("crane", "tench")


def test_the_data_sets_own_names_go_before_timms_and_the_id_after_both():
    own = {"n01440764": "doctor_fish, tench", "n02012849": " , "}
    assert readable(["n01440764", "n02012849", "n99999999"], own) == ("doctor fish", "crane", "n99999999")


def test_classes_outside_the_thousand_have_names():
    assert "n00004475" not in dict(imagenet_names())
    assert readable(["n00004475"]) == ("organism",)


def test_names_stay_unique_whatever_a_list_says():
    own = {"n00000001": "crane", "n00000002": "crane", "n00000003": "crane (n00000001)", "n00000004": "\x1b[31m"}
    names = readable(list(own), own)
    assert len(set(names)) == 4
    assert names[3].startswith("n00000004")


@pytest.mark.parametrize("name", ["n1440764", "n014407640", "n01440764\n", "N01440764", "n٠١٤٤٠٧٦٤", "a01440764", ""])
def test_what_only_looks_like_an_id_is_none(name):
    assert is_wnid("n01440764")
    assert not is_wnid(name)


def lines(tmp_path, data):
    path = tmp_path / "list.txt"
    path.write_bytes(data)
    return Lines(path)


def test_ids_keep_the_order_of_their_list(tmp_path):
    assert read_wnids(lines(tmp_path, b"\xef\xbb\xbfn02124075\r\nn01443537\r\n\r\n")) == ("n02124075", "n01443537")


def test_names_are_read_with_tabs_and_with_spaces(tmp_path):
    data = b"n00001740\tentity\nn01440764 tench, Tinca tinca\nn01443537\n"
    wanted = {"n01440764", "n01443537"}
    assert read_words(lines(tmp_path, data), wanted) == {"n01440764": "tench, Tinca tinca"}


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"n01440764\nn01443537 7\n", r"list\.txt:2: n01443537 7 is no WordNet id such as n01440764$"),
        (b"n01440764\n\nn01440764\n", r"list\.txt:3: n01440764 is also in line 1$"),
        (b"n01440764\n\xff\n", r"list\.txt:2: not UTF-8; save the file as UTF-8 text$"),
        (b"n01440764\n" + b"x" * (MAX_LINE_BYTES + 1), r"list\.txt:2: longer than 65,536 bytes; "),
    ],
)
def test_damaged_lists_are_named_by_line(tmp_path, data, reason):
    with pytest.raises(SalpipeError, match=reason):
        read_wnids(lines(tmp_path, data))


def test_a_list_of_names_without_ids_is_named_by_line(tmp_path):
    with pytest.raises(SalpipeError, match=r"list\.txt:1: does not begin with a WordNet id such as n01440764$"):
        read_words(lines(tmp_path, b"tench\n"), {"n01440764"})


@pytest.mark.parametrize("limit", ["MAX_LINES", "MAX_LIST_BYTES"])
def test_a_list_without_end_is_not_read_to_it(tmp_path, monkeypatch, limit):
    monkeypatch.setattr(f"saliency_pipeline.datasets.files.lines.{limit}", 3 if limit == "MAX_LINES" else 30)
    assert len(read_wnids(lines(tmp_path, b"n01440764\nn01440765\nn01440766\n"))) == 3
    with pytest.raises(SalpipeError, match=r"list\.txt:4: longer than any list of this kind; download it again$"):
        read_wnids(lines(tmp_path, b"n01440764\nn01440765\nn01440766\nn01440767\n"))


def test_a_missing_list_is_named(tmp_path):
    with pytest.raises(SalpipeError, match=r"none\.txt: No such file or directory; check the path$"):
        read_wnids(Lines(tmp_path / "none.txt"))


def test_names_of_a_json_file(tmp_path):
    path = tmp_path / "Labels.json"
    path.write_text(json.dumps({"n02869837": "bonnet, poke bonnet"}))
    assert readable(["n02869837"], read_labels(path)) == ("bonnet",)


@pytest.mark.parametrize("text", ["{", "[]", '{"bonnet": "n02869837"}', '{"n02869837": 1}', "[" * 100_000, "1" * 5000])
def test_a_json_file_of_another_form_is_named(tmp_path, text):
    path = tmp_path / "Labels.json"
    path.write_text(text)
    with pytest.raises(SalpipeError, match=r"Labels\.json: not the JSON of names by WordNet id"):
        read_labels(path)


def test_rows_of_a_table_are_found_by_the_names_of_their_columns(tmp_path):
    table = lines(tmp_path, b'\xef\xbb\xbf,b, a\n0,"x, y",1\n1,z\n')
    rows = iter(table.rows("b"))
    assert next(rows) == (2, {"": "0", "b": "x, y", "a": "1"})
    assert next(rows) == (3, {"": "1", "b": "z"})
    with pytest.raises(SalpipeError, match=r"list\.txt:1: no column c; its first line must name the columns"):
        next(iter(table.rows("c")))
    with pytest.raises(SalpipeError, match=r"list\.txt:3: 2 columns, not 3"):
        list(table.rows("a"))
    with pytest.raises(SalpipeError, match=r"list\.txt:2: not a row of a CSV file"):
        list(lines(tmp_path, b'a\n"x\n').rows("a"))
