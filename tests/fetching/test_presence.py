"""Comparison of a tree with its list, counted by hand."""

import hashlib
from dataclasses import asdict
from pathlib import Path

import pytest

from saliency_pipeline.datasets.pubfig_list import ListedFace
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.fetching.presence import check_list, presence
from tests.broken_images import encode, photo

FIRST, SECOND = encode(photo(), "JPEG"), encode(photo(seed=1), "JPEG")


def row(person: str, number: int, data: bytes | None) -> ListedFace:
    md5 = hashlib.md5(data).hexdigest() if data is not None else None
    return ListedFace(person, number, "http://host/", (0, 0, 9, 9), md5, 1)


def write(root: Path, **images: bytes) -> Path:
    """`a_1=data` goes to `person a/1.jpg`."""
    for name, data in images.items():
        path = root / f"person {name[0]}" / f"{name[2:]}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


def test_every_row_is_in_one_state(tmp_path):
    write(tmp_path, a_1=FIRST, a_2=FIRST, a_3=SECOND, a_4=FIRST[:700], a_5=b"", b_1=FIRST, b_7=SECOND)
    rows = [row("person a", number, FIRST) for number in range(1, 7)] + [row("person b", 1, FIRST)]
    report = presence([*rows, row("person c", 1, FIRST)], tmp_path, few_below=2)
    assert asdict(report) == {
        "listed": 8,
        "present": 3,  # a1, a2, b1
        "wrong_md5": 1,  # a3
        "damaged": 2,  # a4, a5
        "missing": 2,  # a6, c1
        "duplicated": 2,  # a2 and b1 are a1
        "unlisted": 1,  # b7
        "people": 3,
        "few_below": 2,
        "few": {"person b": 1, "person c": 0},
        "notes": (),
    }
    assert report.as_text() == (
        "8 listed: 3 present (2 duplicated), 1 wrong md5, 2 damaged, 2 missing\n"
        "2 of 3 people have fewer than 2 images: person b 1, person c 0"
    )


def test_without_md5_every_image_that_decodes_is_present(tmp_path):
    write(tmp_path, a_1=FIRST, a_2=SECOND, a_3=FIRST[:700], a_4=SECOND)
    report = presence([row("person a", number, None) for number in range(1, 6)], tmp_path, few_below=1)
    assert (report.present, report.wrong_md5, report.damaged, report.missing) == (3, 0, 1, 1)
    assert report.duplicated == 1
    assert report.as_text().count("\n") == 0


def test_originals_are_believed_by_their_md5(tmp_path):
    text = b"no image, but what the list says"
    write(tmp_path, a_1=text)
    assert presence([row("person a", 1, text)], tmp_path).present == 1


def test_many_people_with_few_images_are_counted(tmp_path):
    (tmp_path / "tree").mkdir()
    report = presence([row(f"person {number}", 1, FIRST) for number in range(20)], tmp_path / "tree")
    assert report.as_text().endswith("person 10 0, person 11 0 and 8 more")
    assert list(report.few) == [f"person {number}" for number in range(20)]


def test_a_list_is_checked_from_its_file(tmp_path):
    tree = write(tmp_path / "tree", a_1=FIRST)
    listed = tmp_path / "dev_urls.txt"
    digest = hashlib.md5(FIRST).hexdigest()
    listed.write_text(
        f"person a\t1\thttp://host/\t1,2,3,4\t{digest}\nperson b\t1\thttp://host/\t1,2,3,4\t{digest}\nbad"
    )
    report = check_list(listed, tree, people=["person a"])
    assert (report.listed, report.present) == (1, 1)
    assert report.notes == ("dev_urls.txt:3: not 5 columns separated by tabs",)
    with pytest.raises(SalpipeError, match="none: no such folder; check the path"):
        check_list(listed, tmp_path / "none")
