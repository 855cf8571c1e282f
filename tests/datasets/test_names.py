"""Class names that look alike, and folders that seem to be no classes."""

import unicodedata
from pathlib import Path

import pytest

from saliency_pipeline.datasets.confusable_names import folded, lookalikes
from saliency_pipeline.datasets.folder import read_folder
from saliency_pipeline.datasets.open import read_images
from saliency_pipeline.subsets.classes import classes_meant
from tests.datasets.archives import write_tar
from tests.datasets.files.test_notes import make

CAFE = "Caf\N{LATIN SMALL LETTER E WITH ACUTE}"
DECOMPOSED = unicodedata.normalize("NFD", CAFE)


def test_names_in_two_unicode_forms_are_one_class_and_two_keys(tmp_path: Path) -> None:
    make(tmp_path, f"train/{CAFE}/1.jpg", f"train/{DECOMPOSED}/1.jpg", f"val/{DECOMPOSED}/1.jpg", "val/dog/1.jpg")
    catalogue = read_images(tmp_path)
    assert catalogue.classes == (CAFE, "dog")
    assert [record.label for record in catalogue.records].count(0) == 3
    assert len({record.key for record in catalogue.records}) == 4
    assert (
        f"{CAFE}: written in two Unicode forms (composed and decomposed letters), taken as one class" in catalogue.notes
    )


def test_class_names_of_packed_data_sets_are_composed(tmp_path: Path) -> None:
    write_tar(tmp_path / "x-0.tar", {"a.jpg": b"1", "a.cls": b"0", "b.jpg": b"2", "b.cls": b"1"})
    (tmp_path / "classnames.txt").write_text(f"{DECOMPOSED}\ndog\n")
    assert read_images(tmp_path).classes == (CAFE, "dog")


@pytest.mark.parametrize(
    "word", [CAFE, DECOMPOSED, f"{DECOMPOSED[:-2]}*", unicodedata.normalize("NFD", "CAFÉ"), "ＣＡＦÉ"]
)
def test_classes_are_found_in_whatever_form_they_are_asked_for(word: str) -> None:
    assert classes_meant([word], [CAFE, "dog"]) == (0,)


def test_patterns_in_decomposed_letters_match() -> None:
    assert classes_meant([unicodedata.normalize("NFD", "*é*")], [CAFE, "dog"]) == (0,)


@pytest.mark.parametrize(
    "other",
    [
        "dog",
        "Dog ",
        "D\N{ZERO WIDTH SPACE}og",
        "Ｄｏｇ",
        "D\N{CYRILLIC SMALL LETTER O}g",
        "Dog\N{VARIATION SELECTOR-16}",
    ],
)
def test_names_that_look_alike_stay_two_classes_and_are_noted(tmp_path: Path, other: str) -> None:
    catalogue = read_images(make(tmp_path, "train/Dog/1.jpg", f"val/{other}/1.jpg"))
    assert len(catalogue.classes) == 2
    difference = "differ by case only" if other == "dog" else "look alike"
    assert sum(f"names of 2 classes that {difference}" in note for note in catalogue.notes) == 1
    assert all(note.isprintable() for note in catalogue.notes)


@pytest.mark.parametrize(
    "names", [("cat", "dog"), ("1", "11", "10"), ("crane (n02012849)", "crane (n03126707)"), ("é", "e")]
)
def test_different_names_are_not_noted(names: tuple[str, ...]) -> None:
    assert list(lookalikes(names)) == []


def test_leading_zeros_and_underscores_are_seen_through() -> None:
    assert folded("class_01") == folded("class 1") != folded("class 10")


def test_thousands_that_look_alike_are_noted_in_few_lines() -> None:
    lines = list(lookalikes([f"{letter}{number}" for number in range(1000) for letter in "aA"]))
    assert len(lines) == 21
    assert lines[-1] == "and 980 more groups of classes whose names look alike"


# folders that seem to be no classes

DEEPER = "all images lie deeper than the folders that name the classes; --label-level 2 takes deeper ones"


@pytest.mark.parametrize(
    ("names", "note"),
    [
        (
            ("cat/train/1.jpg", "cat/test/1.jpg", "dog/train/1.jpg"),
            "cat/train: a part within a class is no split: arrange the folders as train/cat, val/cat",
        ),
        (
            ("data/train/cat/1.jpg", "data/val/cat/1.jpg"),
            "data/train: a part within a class is no split: arrange the folders as train/cat, val/cat; give that "
            "folder itself if it is the data set",
        ),
        (
            ("cat/images/1.jpg", "dog/images/1.jpg", "owl/1.jpg"),
            "images (2 of 3): lies in several classes and is read as part of each; --label-level 2 makes it a class",
        ),
        (
            ("animals/cat/1.jpg", "animals/dog/1.jpg", "things/pot/1.jpg"),
            f"animals/cat: {DEEPER}",
        ),
        (
            ("train/animals/cat/1.jpg", "val/animals/cat/1.jpg"),
            f"animals/cat: {DEEPER}",
        ),
    ],
)
def test_classes_that_seem_to_be_other_folders_are_noted(tmp_path: Path, names: tuple[str, ...], note: str) -> None:
    catalogue = read_folder(make(tmp_path, *names))
    assert note in catalogue.notes
    assert catalogue.passed_over == {}


@pytest.mark.parametrize(
    "names", [("cat/1.jpg", "cat/kitten/1.jpg", "dog/1.jpg"), ("1.jpg",), ("train/1.jpg", "test/1.jpg")]
)
def test_usual_folders_are_not_noted(tmp_path: Path, names: tuple[str, ...]) -> None:
    assert read_folder(make(tmp_path, *names)).notes == ()
    assert read_folder(tmp_path, label_level=0).notes == ()


def test_class_names_of_tables_are_composed(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    from tests.datasets.test_parquet import write

    for number, name in enumerate((CAFE, DECOMPOSED)):
        write(tmp_path / f"train-{number}.parquet", [("a.jpg", 0)], [name, "dog"])
    assert read_images(tmp_path).classes == (CAFE, "dog")
