"""The page and the table of duplicates: complete, in order, bounded, escaped, self-contained."""

import csv
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from saliency_pipeline.datasets.folder import read_folder
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.gallery import pairs
from saliency_pipeline.gallery.audit import audit, audit_list
from saliency_pipeline.gallery.pairs import Group, Member, write_pairs
from saliency_pipeline.images.record import Catalogue, ImageRecord, Split
from tests.gallery.test_page import EVIL, Page, picture


@pytest.fixture
def photo(tmp_path: Path) -> str:
    Image.linear_gradient("L").resize((60, 30)).save(tmp_path / "photo.png")
    return str(tmp_path / "photo.png")


def member(key: str, path: str, label: str | None, split: Split = Split.NONE, kind: str = "near") -> Member:
    number = -1 if label is None else int.from_bytes(label.encode("utf-8", "replace")[:7])
    return Member(ImageRecord(key, path, number, split), label, kind, 0.0021 if kind == "near" else 0.0)


def pair(name: str, path: str, labels: tuple[str | None, str | None], *splits: Split) -> Group:
    first, second = splits or (Split.NONE, Split.NONE)
    return Group((member(f"{name}/1", path, labels[0], first, "first"), member(f"{name}/2", path, labels[1], second)))


def rows(table: Path) -> list[list[str]]:
    with open(table, encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def test_conflicts_come_first_then_leaks_then_the_rest(tmp_path: Path, photo: str) -> None:
    groups = [
        pair("plain", photo, ("cat", "cat")),
        pair("leak", photo, ("cat", None), Split.TRAIN, Split.TEST),
        pair("conflict", photo, ("cat", "dog"), Split.TRAIN, Split.TRAIN),
        pair("both", photo, ("cat", "dog"), Split.TRAIN, Split.VALIDATION),
    ]
    page, table = write_pairs(tmp_path, "photos", [("Images", "1,234")], groups, ["bad.jpg: cannot be read"])
    document = Page(page)
    keys = re.findall(r"(?:plain|leak|conflict|both)/[12]", document.text)
    assert keys == [f"{name}/{n}" for name in ("conflict", "both", "leak", "plain") for n in (1, 2)]
    assert len(document.all("img")) == 8
    assert "Images 1,234" in document.text
    assert "Different labels 2 groups" in document.text
    assert "Across splits 1 group" in document.text
    assert "near · 0.0021" in document.text
    # the split stands below a name, which has the width of its card
    assert "cat train · first leak/1 " in document.text
    assert "unlabeled test · near · 0.0021 leak/2 " in document.text
    assert "bad.jpg: cannot be read" in document.text
    assert len(document.all("span", class_="tag conflict")) == len(document.all("span", class_="tag leak")) == 2
    assert rows(table)[:4] == [
        ["group", "kind", "distance", "key", "label", "split"],
        ["1", "first", "0", "plain/1", "cat", ""],
        ["1", "near", "0.0021", "plain/2", "cat", ""],
        ["2", "first", "0", "leak/1", "cat", "train"],
    ]
    assert len(rows(table)) == 9


def test_names_are_text_and_the_page_needs_nothing_else(tmp_path: Path, photo: str) -> None:
    groups = [
        Group((member(name, photo, name, Split.TRAIN, "first"), member(f"{name}2", photo, "\ud800"))) for name in EVIL
    ]
    page, table = write_pairs(tmp_path, EVIL[0], [(EVIL[1], EVIL[2])], groups, EVIL)
    document = Page(page)
    assert document.all("script") == []
    assert {tag for tag, attributes in document.elements if any(name.startswith("on") for name in attributes)} == set()
    assert all(str(each["src"]).startswith("data:image/jpeg;base64,") for each in document.all("img"))
    assert [each["href"] for each in document.all("link")] == ["data:,"]
    assert "://" not in document.source
    for name in EVIL:
        assert " ".join(name.split()) in document.text
    assert [row[3] for row in rows(table)[1::2]] == EVIL


def test_a_page_is_bounded_and_the_table_is_not(tmp_path: Path, photo: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairs, "SHOWN_GROUPS", 3)
    groups = [pair(f"leak-{n}", photo, (None, None), Split.TRAIN, Split.TEST) for n in range(2)]
    groups += [pair(f"plain-{n}", photo, (None, None)) for n in range(4)]
    page, table = write_pairs(tmp_path, "photos", [], groups)
    document = Page(page)
    assert len(document.all("article")) == 3
    assert "Other duplicates 4 groups" in document.text
    assert "3 more groups in duplicates.csv" in document.text
    assert len(rows(table)) == 13
    monkeypatch.setattr(pairs, "SHOWN_IMAGES", 3)
    assert len(Page(write_pairs(tmp_path, "photos", [], groups)[0]).all("article")) == 2


def test_of_a_large_group_each_label_and_split_is_shown(tmp_path: Path, photo: str) -> None:
    members = [
        member(f"{n:02d}", photo, "dog" if n == 40 else "cat", Split.TEST if n == 30 else Split.TRAIN)
        for n in range(50)
    ]
    page, _ = write_pairs(tmp_path, "photos", [], [Group(tuple(members))])
    document = Page(page)
    assert len(document.all("article", class_="card group many")) == 1
    assert [each["alt"] for each in document.all("img")] == [*(f"{n:02d}" for n in range(10)), "30", "40"]
    assert "and 38 more" in document.text


def test_pictures_keep_their_proportions_and_lost_ones_are_named(tmp_path: Path, photo: str) -> None:
    group = Group((member("a", photo, None, kind="first"), member("b", str(tmp_path / "gone.jpg"), None)))
    page, _ = write_pairs(tmp_path, "photos", [], [group])
    (image,) = Page(page).all("img")
    assert picture(image).shape == (96, 192, 3)
    assert "cannot be read" in Page(page).text


# the whole audit


def copies(folder: Path) -> Catalogue:
    """Two photographs of noise in training, a rescaled and a byte copy of the first elsewhere, a damaged file."""
    random = np.random.default_rng(0)
    noise = [Image.fromarray(random.integers(0, 256, (8, 8), np.uint8)).resize((160, 160)) for _ in range(2)]
    for split, name in (("train", "cat"), ("train", "dog"), ("val", "cat"), ("test", "dog")):
        (folder / split / name).mkdir(parents=True)
    noise[0].save(folder / "train/cat/1.png")
    noise[1].save(folder / "train/dog/2.png")
    noise[0].save(folder / "val/cat/3.png")
    noise[0].resize((90, 90)).save(folder / "test/dog/4.jpg")
    (folder / "train/cat/bad.jpg").write_bytes(b"no image")
    return read_folder(folder)


def test_an_audit_counts(tmp_path: Path) -> None:
    report = audit(copies(tmp_path / "photos"), tmp_path / "deep" / "audit")
    assert (report.images, report.unreadable, report.exact, report.near) == (5, 1, 1, 1)
    assert (report.groups, report.largest, report.conflicts, report.leaks, report.leaked) == (1, 3, 1, 1, 2)
    assert report.across == {"train-validation": 1, "train-test": 1, "validation-test": 1}
    assert rows(report.table)[1:] == [
        ["1", "first", "0", "test/dog/4.jpg", "dog", "test"],
        ["1", "near", rows(report.table)[2][2], "train/cat/1.png", "cat", "train"],
        ["1", "exact", "0", "val/cat/3.png", "cat", "validation"],
    ]
    assert 0 < float(rows(report.table)[2][2]) < 0.005
    page = Page(report.page)
    assert "photos" in page.text
    assert "train/cat/bad.jpg (not an image that can be read" in page.text
    assert "Seen in training 2" in page.text


def test_bytes_alone_find_exact_duplicates(tmp_path: Path) -> None:
    report = audit(copies(tmp_path / "photos"), tmp_path / "audit", exact_only=True)
    assert (report.exact, report.near, report.unreadable, report.leaked) == (1, None, 0, 1)
    assert sorted(path.name for path in (tmp_path / "audit").iterdir()) == ["duplicates.csv", "duplicates.html"]
    page = Page(report.page)
    assert "Near duplicates not searched for" in page.text
    assert "Exact duplicates are the same bytes. duplicates.csv names" in page.text


def test_a_page_is_not_written_among_images_or_shards(tmp_path: Path) -> None:
    catalogue = copies(tmp_path / "photos")
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "shard-00000.h5").touch()
    (tmp_path / "urls.txt").write_text(LIST)
    before = sorted(tmp_path.rglob("*"))
    for output in (tmp_path / "photos", tmp_path / "photos" / "deep" / "audit"):
        with pytest.raises(SalpipeError, match="lies inside the image folder"):
            audit(catalogue, output)
    with pytest.raises(SalpipeError, match="shards: holds shards; choose another output folder"):
        audit(catalogue, tmp_path / "shards")
    with pytest.raises(SalpipeError, match="shards: holds shards; choose another output folder"):
        audit_list(tmp_path / "urls.txt", tmp_path / "shards")
    assert sorted(tmp_path.rglob("*")) == before


LIST = """# PubFig Dataset v1.2 - urls.txt
#\tperson\timagenum\turl\trect\tmd5sum
person two\t1\thttp://host/a.jpg\t1,2,30,40\t{0}
person two\t3\thttp://host/b.jpg\t1,2,30,40\t{1}
person one\t2\thttp://other/a.jpg\t5,6,70,80\t{0}
person two\t4\thttp://host/c.jpg\t1,2,30,40\t{1}
person two\t5\thttp://host/d.jpg\t1,2,30,40\t{2}
person two\t6\thttp://host/e.jpg\t1,2,30,40\t{1}
a bad row
""".format("a" * 32, "b" * 32, "c" * 32)


def test_a_list_needs_no_images(tmp_path: Path) -> None:
    (tmp_path / "urls.txt").write_text(LIST)
    report = audit_list(tmp_path / "urls.txt", tmp_path / "audit")
    assert (report.images, report.exact, report.near, report.unreadable) == (6, 3, None, 0)
    assert (report.groups, report.largest, report.conflicts, report.leaks) == (2, 3, 1, 0)
    assert rows(report.table)[1:3] == [
        ["1", "first", "0", "person two/1", "person two", ""],
        ["1", "exact", "0", "person one/2", "person one", ""],
    ]
    page = Page(report.page)
    assert page.all("img") == []
    assert "Rows with the same md5 are the same image" in page.text
    assert "Near duplicates" not in page.text
    assert "Across splits" not in page.text
    assert "urls.txt:9" in page.text
    assert "region 5, 6, 70, 80" in page.text


def test_a_list_without_md5_is_refused(tmp_path: Path) -> None:
    (tmp_path / "urls.txt").write_text("person one\t1\thttp://host/a.jpg\t1,2,30,40\n")
    with pytest.raises(SalpipeError, match=r"urls\.txt: lists no md5; give a list of PubFig v1\.2, or a folder"):
        audit_list(tmp_path / "urls.txt", tmp_path / "audit")
