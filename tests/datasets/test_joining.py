"""Names in files from elsewhere, and the images that they mean."""

import unicodedata

import pytest

from saliency_pipeline.datasets.joining import join_names, unmatched
from saliency_pipeline.errors import SalpipeError

KEYS = ["cat/1.jpg", "cat/2.jpg", "dog/1.jpg", "dog/3.x.JPG"]


def joined(*names, keys=KEYS, stems=False):
    matches = join_names({name: f"list:{number}" for number, name in enumerate(names, 1)}, keys, stems=stems)
    return {name: keys[place] for name, place in matches.items()}


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("cat/1.jpg", "cat/1.jpg"),
        ("2.jpg", "cat/2.jpg"),
        ("./cat/2.jpg", "cat/2.jpg"),
        ("/home/me/photos/dog/1.jpg", "dog/1.jpg"),
        (r"dog\1.jpg", "dog/1.jpg"),
        ("bird/2.jpg", None),
        ("CAT/2.jpg", None),
        ("2.JPG", None),
        ("at/2.jpg", None),
        ("", None),
        ("/", None),
    ],
)
def test_a_name_is_a_key_or_the_end_of_one(name, key):
    assert joined(name).get(name) == key


@pytest.mark.parametrize("name", ["3.x", "dog/3.x", "3.x.JPG", "masks/dog/3.x"])
def test_suffixes_do_not_count_between_files_of_different_kinds(name):
    assert joined(name, stems=True) == {name: "dog/3.x.JPG"}
    assert joined("dog/3", stems=True) == {}


def test_both_unicode_forms_are_one_name():
    decomposed = unicodedata.normalize("NFD", "Café/1.jpg")
    assert joined("Café/1.jpg", keys=[decomposed]) == {"Café/1.jpg": decomposed}
    assert joined(decomposed, "Café/1.jpg", keys=["Café/1.jpg", decomposed]) == {
        decomposed: decomposed,
        "Café/1.jpg": "Café/1.jpg",
    }


def test_a_name_of_several_images_is_an_error_that_names_them():
    with pytest.raises(SalpipeError, match=r"^list:2: 1.jpg is the name of 2 images \(cat/1.jpg, dog/1.jpg\); give"):
        joined("2.jpg", "1.jpg")
    with pytest.raises(SalpipeError, match="1 is the name of 2 images"):
        joined("1", keys=["1.jpg", "1.png"], stems=True)


def test_two_names_of_one_image_are_an_error_unless_one_is_its_key():
    with pytest.raises(SalpipeError, match=r"list:2: b/1.jpg and a/1.jpg are names of one image, 1.jpg; leave one out"):
        joined("a/1.jpg", "b/1.jpg", keys=["1.jpg"])
    assert joined("old/cat/1.jpg", "cat/1.jpg") == {"cat/1.jpg": "cat/1.jpg"}


def test_names_of_no_image_are_shown_with_one_that_looks_like_it():
    assert unmatched(["Cat/2.JPG", "b", "c", "d"], KEYS) == "Cat/2.JPG (cat/2.jpg?), b, c, ..."
    assert unmatched(["x\n"], KEYS) == r"'x\n'"
