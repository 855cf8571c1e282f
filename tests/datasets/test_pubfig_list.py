"""PubFig's lists: three versions, and damaged copies."""

import hashlib
import tracemalloc
from pathlib import Path

import pytest

from saliency_pipeline.datasets import pubfig_list
from saliency_pipeline.datasets.files.notes import Notes
from saliency_pipeline.datasets.pubfig_list import (
    ListedFace,
    duplicates_in_list,
    is_list,
    of_people,
    person_name,
    read_list,
    read_people,
)
from saliency_pipeline.errors import SalpipeError

TITLE = "# PubFig Dataset v1.2 - dev_urls.txt - http://www.cs.columbia.edu/CAVE/databases/pubfig/\n"
HEADER = TITLE + "#\tperson\timagenum\turl\trect\tmd5sum\n"
MD5 = hashlib.md5(b"").hexdigest()
ROW = f"person one\t1\thttp://host/1.jpg\t10,20,30,40\t{MD5}"


def read(path: Path, text: str | bytes) -> tuple[tuple[ListedFace, ...], tuple[str, ...]]:
    """Rows and notes of a list that holds this text."""
    path = path / "dev_urls.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    notes = Notes()
    return read_list(path, notes), notes.lines()


@pytest.mark.parametrize(
    ("text", "md5", "line"),
    [
        (HEADER + ROW, MD5, 3),
        (HEADER.replace("v1.2", "v1.1").replace("\tmd5sum", "") + ROW.removesuffix("\t" + MD5), None, 3),
        (TITLE.replace("v1.2", "v1.0") + ROW.removesuffix("\t" + MD5), None, 2),
        (ROW.upper().replace("PERSON ONE", "person one").replace("HTTP://HOST/1.JPG", "http://host/1.jpg"), MD5, 1),
        ((HEADER + ROW).replace("\n", "\r\n") + "\r\n", MD5, 3),
        ("\ufeff" + HEADER + "\n\n" + ROW + "\n", MD5, 5),
    ],
    ids=["v1.2", "v1.1", "v1.0", "no comments", "CRLF", "BOM"],
)
def test_every_version_is_read(tmp_path, text, md5, line):
    rows, notes = read(tmp_path, text)
    assert rows == (ListedFace("person one", 1, "http://host/1.jpg", (10, 20, 30, 40), md5, line),)
    assert notes == ()


def test_names_have_any_number_of_words(tmp_path):
    names = ["Shakira", "Sarah Michelle Gellar", "Beyonc\u00e9  Knowles ", "Robert_De_Niro", "Jean-Luc d'Arc Jr."]
    rows, _ = read(tmp_path, HEADER + "\n".join(ROW.replace("person one", name) for name in names))
    assert [row.person for row in rows] == [
        "Shakira",
        "Sarah Michelle Gellar",
        "Beyonc\u00e9 Knowles",
        "Robert De Niro",
        "Jean-Luc d'Arc Jr.",
    ]


def test_letters_of_other_encodings_and_spellings_are_one_name(tmp_path):
    latin, decomposed = ROW.replace("person one", "Beyonc\u00e9").encode("latin-1"), "Beyonce\u0301"
    rows, _ = read(tmp_path, latin + b"\n" + ROW.replace("person one", decomposed).replace("\t1\t", "\t2\t").encode())
    assert [(row.person, row.number) for row in rows] == [("Beyonc\u00e9", 1), ("Beyonc\u00e9", 2)]
    assert person_name(decomposed) == "Beyonc\u00e9"


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (ROW.replace("\t", " "), "not 5 columns separated by tabs"),
        (ROW.removesuffix("\t" + MD5), "not 5 columns separated by tabs"),
        (ROW + "\tmore", "not 5 columns separated by tabs"),
        (ROW[:-12], "no md5 of 32 hexadecimal digits"),
        (ROW.removesuffix(MD5), "no md5 of 32 hexadecimal digits"),
        (ROW.removesuffix(MD5) + "g" * 32, "no md5 of 32 hexadecimal digits"),
        (ROW.replace("\t1\t", "\tone\t"), "no image number"),
        (ROW.replace("\t1\t", "\t-1\t"), "no image number"),
        (ROW.replace("\t1\t", "\t\u0663\t"), "no image number"),
        (ROW.replace("\t1\t", "\t" + "9" * 5000 + "\t"), "no image number"),
        (ROW.replace("http://host/1.jpg", " "), "no URL"),
        (ROW.replace("http://host/1.jpg", "http://host/\x00"), "no URL"),
        (ROW.replace("10,20,30,40", "10,20,30"), "no rect of four corners"),
        (ROW.replace("10,20,30,40", "10,20,30,4e1"), "no rect of four corners"),
        (ROW.replace("10,20,30,40", "10,20,30," + "9" * 5000), "no rect of four corners"),
        (ROW.replace("person one", ""), "no name that a folder could have"),
        (ROW.replace("person one", "__"), "no name that a folder could have"),
        (ROW.replace("person one", "../one"), "no name that a folder could have"),
        (ROW.replace("person one", ".."), "no name that a folder could have"),
        (ROW.replace("person one", "one\x07"), "no name that a folder could have"),
        (ROW.replace("person one", "\u00e9" * 101), "no name that a folder could have"),
        (ROW, "this person's image of this number is listed before"),
        (ROW.replace("\t1\t", "\t01\t"), "this person's image of this number is listed before"),
    ],
)
def test_a_bad_row_is_named_by_its_line_and_the_rest_is_used(tmp_path, bad, reason):
    last = ROW.replace("\t1\t", "\t7\t")
    rows, notes = read(tmp_path, f"{HEADER}{ROW}\n{bad}\n{last}\n")
    assert [(row.number, row.line) for row in rows] == [(1, 3), (7, 5)]
    assert notes == (f"dev_urls.txt:4: {reason}",)


def test_a_truncated_list_ends_with_a_bad_row(tmp_path):
    whole = HEADER + "\n".join(ROW.replace("\t1\t", f"\t{number}\t") for number in range(1, 4))
    for cut in range(1, len(ROW)):
        rows, notes = read(tmp_path, whole[:-cut])
        assert [row.number for row in rows] == [1, 2]
        assert len(notes) == 1
        assert notes[0].startswith("dev_urls.txt:5: no")


@pytest.mark.parametrize(
    ("rect", "box", "reason"),
    [
        ("-2,-8,280,419", (-2, -8, 280, 419), None),
        (" 1, 2 ,3,4 ", (1, 2, 3, 4), None),
        ("30,20,10,40", (10, 20, 30, 40), "its rect's corners are in the wrong order, which was put right"),
        ("30,40,10,20", (10, 20, 30, 40), "its rect's corners are in the wrong order, which was put right"),
        ("10,20,10,40", None, "its rect has no area within the image, which is taken whole"),
        ("0,0,0,0", None, "its rect has no area within the image, which is taken whole"),
        ("-30,5,0,40", None, "its rect has no area within the image, which is taken whole"),
        ("5,-30,40,-1", None, "its rect has no area within the image, which is taken whole"),
    ],
)
def test_rects_in_every_position(tmp_path, rect, box, reason):
    (row,), notes = read(tmp_path, ROW.replace("10,20,30,40", rect))
    assert row.box == box
    assert notes == ((f"dev_urls.txt:1: {reason}",) if reason else ())


def test_repeated_md5_are_grouped(tmp_path):
    def row(person: str, number: int, content: str) -> str:
        return f"{person}\t{number}\thttp://host/{number}\t1,2,3,4\t{hashlib.md5(content.encode()).hexdigest()}"

    table = [("a", 1, "x"), ("a", 2, "y"), ("b", 1, "x"), ("b", 2, "z"), ("a", 3, "x"), ("b", 3, "z")]
    rows, _ = read(tmp_path, "\n".join(row(*each) for each in table))
    groups = duplicates_in_list(rows)
    assert [[(row.person, row.number) for row in group] for group in groups] == [
        [("a", 1), ("b", 1), ("a", 3)],
        [("b", 2), ("b", 3)],
    ]
    without, _ = read(tmp_path, "\n".join(row(*each).rpartition("\t")[0] for each in table))
    assert duplicates_in_list(without) == ()


def test_what_is_no_list_is_named(tmp_path, monkeypatch):
    with pytest.raises(SalpipeError, match=r"dev_urls\.txt: no row of a PubFig list in it; rows are person, imagenum"):
        read(tmp_path, HEADER)
    with pytest.raises(SalpipeError, match=r"nothing: No such file or directory; check the path"):
        read_list(tmp_path / "nothing", Notes())
    with pytest.raises(SalpipeError, match="Is a directory; give a regular file"):
        read_list(tmp_path, Notes())
    monkeypatch.setattr(pubfig_list, "MAX_LIST_BYTES", 50)
    with pytest.raises(SalpipeError, match="more than 64 MB or 524,288 lines; give a list of PubFig"):
        read(tmp_path, HEADER + ROW)


def test_lines_without_end_are_not_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(pubfig_list, "MAX_LIST_BYTES", 2**17)
    text = ROW + "\n" + "ab\n" * 20_000
    tracemalloc.start()
    rows, notes = read(tmp_path, text)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (len(rows), notes[-1]) == (1, "and 19,980 more: not 5 columns separated by tabs")
    assert peak < 2**19
    monkeypatch.setattr(pubfig_list, "MAX_LINES", 100)
    with pytest.raises(SalpipeError, match=r"dev_urls\.txt: more than 64 MB or 100 lines; give a list of PubFig"):
        read(tmp_path, text)


def test_lists_are_recognized(tmp_path):
    def is_one(data: bytes) -> bool:
        (tmp_path / "file").write_bytes(data)
        return is_list(tmp_path / "file")

    assert is_one((HEADER + "damaged\n" + ROW).encode())
    assert is_one(ROW.removesuffix("\t" + MD5).encode())
    assert not is_one(HEADER.encode())
    assert not is_one(b"n01440764\t0\ta\tb\nurl\t1\thttp://host\t1,2,3\n")
    assert not is_one(b"\xff\xd8\xff" + bytes(range(256)) * 9)
    assert not is_list(tmp_path)
    assert not is_list(tmp_path / "nothing")


def test_people_files_are_read(tmp_path):
    path = tmp_path / "dev_people.txt"
    path.write_bytes(b"\xef\xbb\xbf# PubFig\n#\tperson\nAlex Rodriguez\r\n\nShakira\nAlex_Rodriguez\n../x")
    assert read_people(path) == ("Alex Rodriguez", "Shakira")
    path.write_text("#\n")
    with pytest.raises(SalpipeError, match="no names in it; a file of people has one name per line"):
        read_people(path)


def test_rows_of_some_people(tmp_path):
    rows, _ = read(tmp_path, ROW + "\n" + ROW.replace("one", "two"))
    assert of_people(rows, [], "list") == rows
    assert [row.person for row in of_people(rows, ["person_two"], "list")] == ["person two"]
    with pytest.raises(SalpipeError, match=r"^list: no person called 'zzz' in it; use a name of the list$"):
        of_people(rows, ["person one", "zzz"], "list")
