"""Tables: every name survives writing and reading, and none is a formula."""

import csv
import io
from pathlib import Path

import pytest

from saliency_pipeline.tables import read_table, write_table


def test_a_table_holds_any_name(tmp_path: Path) -> None:
    names = ["a,b", 'say "no"', "two\nlines", "=1+1", "@x", "Vögel", ""]
    write_table(tmp_path / "t.csv", ("name", "number", "none"), [(name, 1 / 3, None) for name in names])
    rows = list(csv.reader(io.StringIO((tmp_path / "t.csv").read_text(encoding="utf-8"), newline="")))
    safe = {"=1+1": "'=1+1", "@x": "'@x"}
    assert rows == [["name", "number", "none"], *([safe.get(name, name), "0.333333", ""] for name in names)]
    write_table(tmp_path / "t.csv", ("name",), [("\ud800",)])
    assert (tmp_path / "t.csv").read_bytes() == b"name\n?\n"


HOSTILE = ["=1+1", "+1+1", "-1+1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "\uff1d1", "=", "-", "--1", "+-1", "-1.5.2"]
PLAIN = ["", "a", "a=b", "cat-dog", "-1", "+1", "-1.5", "+2e-05", "-inf", "'", "'quoted'", "it's", '"a","b"', "a\nb"]
PLAIN += ["a\rb", "a\r\n=b", "1"]


def test_no_cell_is_a_formula_and_all_come_back(tmp_path):
    texts = [*HOSTILE, *PLAIN, *(f"'{text}" for text in HOSTILE), *(f"''{text}" for text in HOSTILE), "'-1"]
    write_table(tmp_path / "t.csv", ("key", "score"), [(text, -0.5) for text in texts])
    with open(tmp_path / "t.csv", newline="", encoding="utf-8") as file:
        cells = [row["key"] for row in csv.DictReader(file)]
    for text, cell in zip(texts, cells, strict=True):
        assert cell == (f"'{text}" if text not in PLAIN else text)
        assert cell[:1] not in {*"=+-@\t\r\n\uff1d"} or text in PLAIN
    assert read_table(tmp_path / "t.csv", ("key", "score")) == [(text, "-0.5") for text in texts]


def test_a_table_that_is_none_is_a_value_error(tmp_path):
    for data in (b"", b"\xff\xfe", b'key\n"' + b"x" * 200_000):
        (tmp_path / "t.csv").write_bytes(data)
        with pytest.raises(ValueError, match=r"."):
            read_table(tmp_path / "t.csv", ("key",))


@pytest.mark.parametrize("separator", [";", "\t", "\r"])
def test_what_separates_cells_elsewhere_is_quoted(tmp_path: Path, separator: str) -> None:
    name = f"x{separator}=1+1"
    write_table(tmp_path / "t.csv", ("key", "score"), [(name, 0.5)])
    assert (tmp_path / "t.csv").read_bytes() == f'key,score\n"{name}","0.5"\n'.encode()
    assert read_table(tmp_path / "t.csv", ("key",)) == [(name,)]
