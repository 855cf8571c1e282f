"""Errors of impossible selections."""

import pytest

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.images.record import Catalogue, Split
from saliency_pipeline.subsets.select import select
from saliency_pipeline.subsets.selection import Selection
from tests.subsets.test_select import animals, catalogue, sizes


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"num_classes": 0}, "--num-classes 0: use a number from 1 to"),
        ({"per_class": 0}, "--per-class 0: use a number from 1 to"),
        ({"min_per_class": -1}, "--min-per-class -1: use a number from 1 to"),
        ({"seed": 2**32}, "--seed 4294967296: use a number from 0 to"),
        ({"splits": (1, 2, 3, 4)}, "--split 1/2/3/4: give two numbers"),
        ({"splits": (30, 10), "per_class": 5}, "--per-class 5: --split 30/10 sets the number"),
        ({"splits": (30, 10), "stable": True}, "--stable-split: needs fractions; add --split 72/18/10"),
        ({"stable": True}, "--stable-split: needs fractions; add --split 72/18/10"),
    ],
)
def test_contradictions_are_refused_at_once(options, reason):
    with pytest.raises(SalpipeError, match=reason):
        Selection(**options)


@pytest.mark.parametrize(
    ("selection", "reason"),
    [
        (Selection(classes=("bees",)), "--classes: no class 'bees'; did you mean 'bee'"),
        (Selection(num_classes=5), "--num-classes 5: only 4 classes to sample from; use 4 or less"),
        (
            Selection(classes=("cat",), min_per_class=99),
            "--min-per-class 99: the largest of the classes has 20 images; use a smaller number",
        ),
        (Selection(splits=(2, 1)), "--split 2/1: 3 images for 4 classes; ask for more, or .* with --num-classes 3"),
        (Selection(("cat",), per_class=3, splits=(72, 18, 10)), "--split 72/18/10: none of 3 images is left for test"),
        (
            Selection(splits=(50, 40)),
            "4 of 4 classes have too few images: .*; there are 80 images in all: ask for fewer with --split",
        ),
    ],
)
def test_what_cannot_be_had_is_named(selection, reason):
    with pytest.raises(SalpipeError, match=reason) as caught:
        select(animals(), selection)
    assert str(caught.value).isprintable()


def test_classes_without_images_cannot_be_chosen():
    with pytest.raises(SalpipeError, match="/data: the largest of the classes has 0 images; choose other classes"):
        select(catalogue({"bee": 0, "cat": 3}), Selection(classes=("bee",)))
    with pytest.raises(SalpipeError, match="/data: no image is left"):
        select(catalogue({"bee": 0}, unlabeled=3), Selection(per_class=2))


@pytest.mark.parametrize("option", ["min_per_class", "num_classes", "per_class"])
def test_what_needs_classes_says_so(option):
    with pytest.raises(SalpipeError, match=f"--{option.replace('_', '-')}: the images of /data have no classes"):
        select(Catalogue("/data", animals().records), Selection(**{option: 2}))


def test_more_images_than_there_are_without_classes():
    with pytest.raises(SalpipeError, match="--split 300/1: 301 images are wanted, there are 7; ask for fewer"):
        select(Catalogue("/data", catalogue({}, unlabeled=7).records), Selection(splits=(300, 1)))


def test_a_shortfall_names_the_classes_and_a_way_out_that_works():
    # 44 images of 4 classes are 11 of each
    short = catalogue({"bee": 10, "cat": 30, "dog": 3, "two\nlines": 30})
    with pytest.raises(SalpipeError) as caught:
        select(short, Selection(splits=(40, 4)))
    assert str(caught.value) == (
        "--split 40/4: 2 of 4 classes have too few images: bee 10 of 11, dog 3 of 11; "
        "leave them out with --min-per-class 30, which keeps 2, or --classes '!NAME'"
    )
    assert sizes(select(short, Selection(min_per_class=30, splits=(40, 4)))) == {"cat": 22, "two\nlines": 22}


def test_a_shortfall_of_sampled_classes_has_a_remedy_among_the_others():
    short = catalogue({name: 10 if name < "e" else 30 for name in "abcdefgh"})
    drawn = {"num_classes": 3, "splits": (40, 20)}
    with pytest.raises(SalpipeError, match=r"; sample among larger ones with --min-per-class 20$"):
        select(short, Selection(**drawn))
    assert set(sizes(select(short, Selection(min_per_class=20, **drawn))).values()) == {20}
    with pytest.raises(SalpipeError, match=r"; sample among larger ones with --min-per-class 30 and --num-classes 4$"):
        select(short, Selection(num_classes=6, splits=(100, 20)))
    assert len(select(short, Selection(num_classes=4, min_per_class=30, splits=(100, 20))).classes) == 4


def test_a_recipe_is_not_answered_with_an_option_that_it_refuses():
    few = catalogue({"bee": 100, "cat": 100})
    with pytest.raises(SalpipeError, match="there are 200 images in all: leave the recipe out and ask for fewer with"):
        select(few, Selection(recipe="article-pubfig"))
    with pytest.raises(SalpipeError, match="--stable-split: needs fractions; leave it out"):
        Selection(recipe="article-pubfig", stable=True)


def test_a_long_shortfall_is_cut_short():
    many = catalogue({f"class {number}": 2 for number in range(30)} | {"large": 500})
    with pytest.raises(
        SalpipeError, match=r": 30 of 31 classes .*: class 0 2 of 1[01], .*, class 9 2 of 1[01] and 20 m"
    ):
        select(many, Selection(splits=(300, 20)))


def test_the_images_of_all_splits_count_towards_a_shortfall():
    both = animals(8, splits=(Split.TRAIN, Split.VALIDATION))
    assert len(select(both, Selection(splits=(50, 14)))) == 64
    with pytest.raises(SalpipeError, match="16 of 17"):
        select(both, Selection(splits=(50, 15)))
