"""Recipes: sizes of the article's splits in data sets of real proportions."""

from collections import Counter

import pytest

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.images.record import Catalogue, ImageRecord, Split
from saliency_pipeline.subsets.recipes import RECIPES
from saliency_pipeline.subsets.select import select
from saliency_pipeline.subsets.selection import Selection


def imagenet(images: int = 18, validation: int = 2) -> Catalogue:
    """1,000 classes with given numbers of training and validation images, and test images without labels."""
    ids = tuple(f"n{number:08d}" for number in range(1000))
    records = [
        ImageRecord(f"{wnid}/{wnid}_{number}.JPEG", "/train.tar", label, Split.TRAIN)
        for label, wnid in enumerate(ids)
        for number in range(images)
    ]
    for number in range(validation * len(ids)):
        key = f"val/ILSVRC2012_val_{number:08d}.JPEG"
        records.append(ImageRecord(key, "/val.tar", number % 1000, Split.VALIDATION))
    records += [ImageRecord(f"test/{number}.JPEG", "/test.tar", -1, Split.TEST) for number in range(5000)]
    return Catalogue("/imagenet", records, tuple(f"class {wnid}" for wnid in ids), ids)


def pubfig(people: int, least: int) -> Catalogue:
    """People with ever more images, as there are few of some and many of others."""
    names = tuple(f"Person {number}" for number in range(people))
    records = [
        ImageRecord(f"{name}/{number}.jpg", "/pubfig", label)
        for label, name in enumerate(names)
        for number in range(least + 3 * label)
    ]
    return Catalogue("/pubfig", records, names)


def splits(selected: Catalogue) -> list[int]:
    counts = Counter(record.split for record in selected.records)
    return [counts[split] for split in Split]


def test_article_imagenet_has_its_counts_evenly_from_all_classes_and_splits():
    selected = select(imagenet(), Selection(recipe="article-imagenet"))
    assert splits(selected) == [0, 8828, 2057, 1143]
    images = Counter(record.label for record in selected.records)
    assert Counter(images.values()) == {12: 972, 13: 28}  # 12,028 images
    tested = Counter(record.label for record in selected.records if record.split is Split.TEST)
    assert set(tested.values()) == {1, 2}  # 1,143 of 1,000 classes
    assert {record.path for record in selected.records} == {"/train.tar", "/val.tar"}
    assert selected.notes == ("5,000 images: left out, they have no label",)


@pytest.mark.parametrize(("people", "least"), [(60, 60), (200, 20)])
def test_article_pubfig_has_its_counts(people, least):
    selected = select(pubfig(people, least), Selection(seed=1, recipe="article-pubfig"))
    assert splits(selected) == [0, 2218, 555, 309]
    images = Counter(record.label for record in selected.records)
    assert len(images) == people
    assert max(images.values()) - min(images.values()) == 1


def test_a_seed_draws_other_images_and_the_same_seed_the_same():
    drawn = [
        {record.key for record in select(pubfig(60, 60), Selection(seed=seed, recipe="article-pubfig")).records}
        for seed in (0, 0, 1)
    ]
    assert drawn[0] == drawn[1] != drawn[2]


def test_people_with_too_few_images_are_named_and_can_be_left_out():
    # 3,082 images of 60 people are 51 or 52 each; the first 7 have 30 to 48.
    # 49 people have 63 or more, which is 3,082 / 49, rounded up; 50 have 60 or more, which is not enough
    few = pubfig(60, 30)
    with pytest.raises(
        SalpipeError,
        match=r"^--recipe article-pubfig: 7 of 60 .*: Person 0 30 of 5[12], .*--min-per-class 63, which keeps 49",
    ):
        select(few, Selection(recipe="article-pubfig"))
    selected = select(few, Selection(min_per_class=63, recipe="article-pubfig"))
    assert splits(selected) == [0, 2218, 555, 309]
    assert len(selected.classes) == 49


def test_classes_chosen_besides_a_recipe_are_those_it_draws_from():
    selected = select(imagenet(images=150), Selection(num_classes=100, recipe="article-imagenet"))
    assert splits(selected) == [0, 8828, 2057, 1143]
    assert len(selected.classes) == 100
    selected = select(pubfig(60, 2000), Selection(classes=("Person 1?",), recipe="article-pubfig"))
    assert len(selected.classes) == 10


@pytest.mark.parametrize(
    ("options", "flag"),
    [({"splits": (72, 18, 10)}, "--split"), ({"per_class": 3}, "--per-class")],
)
def test_what_contradicts_a_recipe_is_refused(options, flag):
    with pytest.raises(SalpipeError, match=f"--recipe article-pubfig is 2218/555/309 images.*; leave {flag} out"):
        Selection(**options, recipe="article-pubfig")


def test_an_unknown_recipe_is_answered_with_those_there_are():
    with pytest.raises(SalpipeError, match="--recipe cake: choose from article-imagenet, article-pubfig"):
        Selection(recipe="cake")


def test_recipes_are_those_of_the_article():
    assert sum(RECIPES["article-imagenet"]) == 12_028
    assert sum(RECIPES["article-pubfig"]) == 3_082
