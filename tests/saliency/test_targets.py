"""The explained classes: predicted, top:K, label, index and name; ties; errors in one line."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.models.source.source import SourceModel
from saliency_pipeline.saliency.targets import Target, parse_target, top_classes
from tests.saliency.networks import Tiny, own_source

WNIDS = ("n01440764", "n01443537")


def named_source(classes: tuple[str, ...], wnids: tuple[str, ...] = ()) -> SourceModel:
    return replace(own_source(Tiny(), 8, 3), classes=classes, wnids=wnids)


LOGITS = torch.tensor([[0.1, 3.0, 2.0], [5.0, 5.0, 1.0]])
NAMES = ("cat", "dog", "tea pot")


def index_of(name: str) -> int:
    if name.isdecimal() and int(name) < len(NAMES):
        return int(name)
    if name in NAMES:
        return NAMES.index(name)
    raise SalpipeError(f"class {name!r}: not one of 3")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("predicted", Target("predicted", 1)),
        ("top:1", Target("predicted", 1)),
        ("top:3", Target("predicted", 3)),
        ("2", Target("fixed", index=2)),
        ("tea pot", Target("fixed", index=2)),
        ("label", Target("label", label_index=(1, 0))),
    ],
)
def test_targets_are_read(text: str, wanted: Target) -> None:
    assert parse_target(text, 3, index_of, data_classes=("dog", "cat")) == wanted


@pytest.mark.parametrize(
    ("target", "classes"),
    [
        (Target("predicted"), [[1], [0]]),
        (Target("predicted", 3), [[1, 2, 0], [0, 1, 2]]),
        (Target("fixed", index=2), [[2], [2]]),
        (Target("label", label_index=(2, 1)), [[1], [2]]),
    ],
)
def test_the_explained_classes(target: Target, classes: list[list[int]]) -> None:
    explained = target.classes(LOGITS, torch.tensor([1, 0]))
    assert explained.tolist() == classes
    assert explained.dtype == torch.int64


def test_among_many_equal_logits_the_lowest_classes_come_first() -> None:
    assert Target("predicted", 5).classes(torch.zeros(2, 1000)).tolist() == [[0, 1, 2, 3, 4]] * 2


@given(st.lists(st.sampled_from([-1.0, 0.0, 0.5, 2.0, float("inf"), float("nan")]), min_size=1, max_size=9), st.data())
def test_top_classes_are_those_of_a_stable_sort(values: list[float], data: st.DataObject) -> None:
    logits = torch.tensor([values, values[::-1]])
    count = data.draw(st.integers(1, len(values)))
    wanted = logits.sort(dim=1, descending=True, stable=True).indices[:, :count]
    assert torch.equal(top_classes(logits, count), wanted)


def test_top_classes_of_different_logits() -> None:
    logits = torch.randn(16, 1000, generator=torch.Generator().manual_seed(0))
    wanted = logits.sort(dim=1, descending=True, stable=True).indices[:, :5]
    assert torch.equal(top_classes(logits, 5), wanted)


@pytest.mark.parametrize(
    ("text", "options", "words"),
    [
        ("top:0", {}, ["top:1 to top:3"]),
        ("top:4", {}, ["3 classes", "top:1 to top:3"]),
        ("3", {"data_classes": NAMES}, ["class '3'"]),
        ("bird", {}, ["class 'bird'"]),
        ("top:", {}, ["class 'top:'"]),
        ("label", {}, ["no labels", "--target predicted"]),
        ("label", {"data_classes": NAMES, "unlabeled": 4}, ["4 images have no label", "--target predicted"]),
        ("label", {"data_classes": ("cat", "bird")}, ["not the source model's", "'bird'", "--target predicted"]),
    ],
)
def test_what_cannot_be_explained_is_refused_in_one_line(text: str, options: dict, words: list[str]) -> None:
    with pytest.raises(SalpipeError) as caught:
        parse_target(text, 3, index_of, **options)
    assert "\n" not in str(caught.value)
    assert all(word in str(caught.value) for word in words)


def test_labels_are_needed_for_label() -> None:
    with pytest.raises(SalpipeError, match="needs the images' labels"):
        Target("label", label_index=(0,)).classes(LOGITS)


def test_a_source_model_resolves_names(tmp_path: Path) -> None:
    source = own_source(Tiny(), 8, 7)
    assert parse_target("class_3", 7, source.class_index) == Target("fixed", index=3)
    with pytest.raises(SalpipeError, match="class 7"):
        parse_target("7", 7, source.class_index)


@pytest.mark.parametrize(("names", "wanted"), [(("cat", "dog"), (0, 1)), (("n01443537", "Goldfish"), (1, 1))])
def test_labels_are_resolved_by_names(names: tuple[str, ...], wanted: tuple[int, ...]) -> None:
    source = named_source(("cat", "dog", "2")) if "cat" in names else named_source(("tench", "goldfish"), WNIDS)
    parsed = parse_target("label", len(source.classes), source.class_index, names, 0, source.class_named)
    assert parsed.label_index == wanted


@pytest.mark.parametrize(
    "names", [("1", "2", "3"), ("0", "1"), ("01", "02"), ("cat", "7"), ("-1", "0"), ("\u0661", "1")]
)
def test_numbers_are_no_names_of_classes_and_the_error_has_their_meaning(names: tuple[str, ...]) -> None:
    source = named_source(("cat", "dog", "emu", "owl"))
    with pytest.raises(SalpipeError, match="a number is no name, and not taken for an index") as caught:
        parse_target("label", 4, source.class_index, names, 0, source.class_named)
    assert "--target predicted" in str(caught.value)
    assert ("which would be 'dog'" in str(caught.value)) == (names[0] in ("1", "01", "\u0661"))


def test_a_sources_own_numbers_are_names() -> None:
    source = named_source(("1", "2", "10"))
    assert parse_target("label", 3, source.class_index, ("10", "1"), 0, source.class_named).label_index == (2, 0)
    assert parse_target("10", 3, source.class_index) == Target("fixed", index=2)
    assert parse_target("0", 3, source.class_index) == Target("fixed", index=0)
    with pytest.raises(SalpipeError, match="class 1: class 0 is called so, and class 1 is called '2'"):
        parse_target("1", 3, source.class_index)


def test_placeholders_are_no_names() -> None:
    source = own_source(Tiny(), 8, 3)
    with pytest.raises(SalpipeError, match="3 classes have indices and no names"):
        parse_target("label", 3, source.class_index, ("class_1", "class_2"), 0, source.class_named)


def test_names_are_found_in_whichever_unicode_form() -> None:
    source = named_source(("cafe\u0301", "dog"))
    assert source.class_named("CAF\u00c9") == source.class_index("caf\u00e9") == 0
