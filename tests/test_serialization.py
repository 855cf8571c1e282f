"""Dataclasses as JSON and back: every type of a field, and values of other types."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from saliency_pipeline.comparison.results import Results
from saliency_pipeline.serialization import MismatchError, from_json, to_json
from tests.comparison import pages


@dataclass(frozen=True)
class Inner:
    class_: str
    share: float | None = None


@dataclass(frozen=True)
class Outer:
    inner: Inner
    span: tuple[int, int]
    many: tuple[Inner, ...]
    table: Mapping[str, int]
    matrix: list[list[int]] | dict[str, list[int]]
    anything: Any
    flag: bool = False


VALUE = {
    "inner": {"class": "a", "share": 0.5},
    "span": [1, 2],
    "many": [{"class": "b", "share": None}],
    "table": {"x": 3},
    "matrix": {"true": [0]},
    "anything": [{"y": None}],
    "flag": True,
}


def test_json_comes_back_as_it_was_in_the_order_of_the_fields() -> None:
    outer = from_json(Outer, VALUE)
    assert outer == Outer(Inner("a", 0.5), (1, 2), (Inner("b"),), {"x": 3}, {"true": [0]}, [{"y": None}], True)
    assert json.dumps(to_json(outer)) == json.dumps(VALUE)
    assert from_json(Outer, {**VALUE, "matrix": [[1]]}).matrix == [[1]]
    assert from_json(Outer, {name: VALUE[name] for name in VALUE if name != "flag"} | {"other": 1}).flag is False


@pytest.mark.parametrize("settings", [("all images",), ("5 per class", "all images")])
def test_results_come_back_to_the_byte(settings: tuple[str, ...]) -> None:
    text = json.dumps(to_json(from_json(Results, pages.results(settings=settings))), indent=1)
    assert json.dumps(to_json(from_json(Results, json.loads(text))), indent=1) == text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inner": None}, "inner: not an object"),
        ({"inner": {}}, r"inner\.class: missing"),
        ({"inner": {"class": 1}}, r"inner\.class: not a text"),
        ({"inner": {"class": "a", "share": float("nan")}}, r"inner\.share: not finite"),
        ({"inner": {"class": "a", "share": 10**400}}, r"inner\.share: not finite"),
        ({"inner": {"class": "a", "share": True}}, r"inner\.share: not a number"),
        ({"span": [1]}, "span: not 2 items"),
        ({"span": [1, 2.0]}, r"span\[1\]: not a whole number"),
        ({"span": [1, True]}, r"span\[1\]: not a whole number"),
        ({"many": {}}, "many: not a list"),
        ({"many": [VALUE["inner"], 3]}, r"many\[1\]: not an object"),
        ({"table": {"x": "3"}}, r"table\.x: not a whole number"),
        ({"matrix": [["1"]]}, "matrix: not an object"),
        ({"flag": 1}, "flag: not true or false"),
    ],
)
def test_values_of_another_type_are_refused_with_their_place(change: dict[str, Any], message: str) -> None:
    with pytest.raises(MismatchError, match=f"^{message}$"):
        from_json(Outer, VALUE | change)
    with pytest.raises(MismatchError, match=r"^document: not an object$"):
        from_json(Outer, [VALUE])
