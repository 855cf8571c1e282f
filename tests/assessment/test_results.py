"""Statistics of an assessment: cases by hand, verdicts in words, what is undefined, and the files."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from saliency_pipeline.assessment.results import Contrast, Results, write_results
from saliency_pipeline.assessment.summary import summarize
from saliency_pipeline.serialization import from_json
from tests.assessment.made_up import METRICS, Deletion, Energy, Gain, Pointing, Sparseness, measured, random_assessment

NAN = float("nan")
CENTER = [0.1 * image for image in range(10)]
# better than center-prior on every image
FIRST = [value + 0.3 + 0.01 * image for image, value in enumerate(CENTER)]
# 3 wins, 6 losses and a tie against the first; 7 wins and 3 losses against center-prior
SECOND = [
    *(value + 0.01 for value in FIRST[:3]),
    *(value - 0.5 for value in FIRST[3:6]),
    *(value - 0.05 for value in FIRST[6:9]),
    FIRST[9],
]


@pytest.fixture(scope="module")
def results() -> Results:
    values = {"first": {"srg": FIRST}, "second": {"srg": SECOND}, "center-prior": {"srg": CENTER}}
    return summarize(measured(values, metrics=(Gain(),)))


def contrast(results: Results, column: str, method: str, against: str) -> Contrast:
    (each,) = (each for each in results.contrasts[column] if (each.method, each.against) == (method, against))
    return each


def test_wins_p_and_holm_by_hand(results: Results) -> None:
    pairs = [(each.method, each.against) for each in results.contrasts["srg"]]
    assert pairs == [("second", "first"), ("first", "center-prior"), ("second", "center-prior")]
    best, first, second = results.contrasts["srg"]
    assert (best.wins, best.losses, best.ties) == (3, 6, 1)
    assert (first.wins, first.losses, first.ties) == (10, 0, 0)
    assert (second.wins, second.losses, second.ties) == (7, 3, 0)
    assert [each.p for each in (best, first, second)] == pytest.approx([260 / 512, 2 / 1024, 352 / 1024])
    assert [each.p_holm for each in (best, first, second)] == pytest.approx([704 / 1024, 6 / 1024, 704 / 1024])
    assert [each.verdict for each in (best, first, second)] == ["undecided", "better", "undecided"]
    assert first.mean == pytest.approx(0.345)
    assert best.mean == pytest.approx((3 * 0.01 - 3 * 0.5 - 3 * 0.05) / 10)
    assert best.low is not None
    assert best.high is not None
    assert best.low < best.mean < best.high


def test_means_have_intervals_and_errors(results: Results) -> None:
    estimate = results.method("first").columns["srg"]
    assert estimate.mean == pytest.approx(np.mean(FIRST))
    assert estimate.error == pytest.approx(np.std(FIRST, ddof=1) / np.sqrt(10))
    assert estimate.low is not None
    assert estimate.error is not None
    assert estimate.low == pytest.approx(np.mean(FIRST) - 1.96 * estimate.error, abs=0.03)
    assert estimate.images == 10
    missing = results.method("first").columns["steepness"]
    assert (missing.mean, missing.low, missing.error, missing.images) == (None, None, None, 0)


def test_the_ranking_in_words(results: Results) -> None:
    own = results.method("first").columns["srg"]
    assert results.headline == "srg"
    assert [(each.method, each.place, each.leading) for each in results.ranking] == [
        ("first", 1, True),
        ("second", 2, True),
        ("center-prior", None, False),
    ]
    assert [each.beats["srg"] for each in results.ranking] == [True, False, None]
    assert results.verdict == (
        f"first ranks first in SRG ({own.mean:.3f} [{own.low:.3f}, {own.high:.3f}]); "
        "second cannot be distinguished from it; second does not beat center-prior."
    )


def test_where_lower_is_better_the_lowest_is_first() -> None:
    values = {"high": {"deletion": [0.5 + v / 100 for v in range(10)]}, "low": {"deletion": [0.2] * 10}}
    values["center-prior"] = {"deletion": [0.6] * 10}
    results = summarize(measured(values, metrics=(Deletion(),)))
    assert [each.method for each in results.ranking] == ["low", "high", "center-prior"]
    assert contrast(results, "deletion", "high", "low").verdict == "worse"
    assert contrast(results, "deletion", "low", "center-prior").verdict == "better"
    assert contrast(results, "deletion", "high", "center-prior").wins == 10
    assert "; all methods beat center-prior." in results.verdict


def test_every_method_is_compared_with_the_best_and_with_each_floor() -> None:
    results = summarize(random_assessment())
    assert set(results.contrasts) == {"pointing", "deletion", "srg"}
    for contrasts in results.contrasts.values():
        assert len(contrasts) == 4 + 5 * 3
        assert {each.method for each in contrasts}.isdisjoint({"random", "center-prior", "edges"})
    assert "every method vs. the best one" in results.contrasts_shown


@pytest.mark.parametrize(
    ("metrics", "values", "headline"),
    [
        (METRICS, {"pointing": [1.0], "deletion": [0.5], "srg": [0.3]}, "srg"),
        (METRICS, {"pointing": [1.0], "deletion": [0.5], "srg": [NAN]}, "pointing"),
        (METRICS, {"pointing": [NAN], "deletion": [0.5]}, "deletion"),
        ((Energy(), Pointing()), {"energy": [0.5], "energy-gain": [1.2], "pointing": [1.0]}, "energy-gain"),
        ((Sparseness(),), {"sparseness": [0.5]}, None),
    ],
)
def test_the_headline_is_the_first_column_with_values(
    metrics: tuple[Gain, ...], values: dict[str, list[float]], headline: str | None
) -> None:
    results = summarize(measured({"one": values, "center-prior": values}, metrics=metrics))
    assert results.headline == headline
    assert headline is None or [each.against for each in results.contrasts[headline]] == ["center-prior"]
    if headline is None:
        assert results.verdict == "No method can be ranked: none has values of a metric with a direction."


def test_the_mean_over_classes_is_that_of_the_class_means() -> None:
    values = {"one": {"pointing": [1.0, 0.0, 1.0, 1.0, NAN]}}
    labels = np.array([0, 1, 0, -1, 1])
    estimate = summarize(measured(values, metrics=(Pointing(),), labels=labels)).method("one").columns["pointing"]
    assert estimate.mean == 0.75
    assert estimate.class_mean == 0.5


def test_one_image_constants_and_missing_values_are_defined() -> None:
    values = {
        "zero": {"srg": [0.0], "pointing": [0.0], "deletion": [0.1]},
        "none": {"srg": [NAN], "pointing": [NAN]},
        "center-prior": {"srg": [0.0], "pointing": [0.0], "deletion": [0.1]},
    }
    curves = {name: {"deletion-curve": np.full((1, 11), NAN if name == "none" else 0.1)} for name in values}
    results = summarize(measured(values, curves=curves))
    estimate = results.method("zero").columns["pointing"]
    # of one image little is certain: Wilson's interval for 0 of 1
    assert (estimate.mean, estimate.low, estimate.error) == (0.0, 0.0, None)
    assert estimate.high == pytest.approx(0.793, abs=1e-3)
    assert [(each.method, each.place) for each in results.ranking] == [
        ("zero", 1),
        ("center-prior", None),
        ("none", None),
    ]
    assert contrast(results, "srg", "none", "center-prior") == Contrast(
        "none", "center-prior", 0, None, None, None, 0, 0, 0, 1.0, 1.0, "undecided"
    )
    assert results.verdict.startswith("zero is the only method that can be ranked by SRG (0.000 [")
    assert results.verdict.endswith("; it does not beat center-prior; 1 image is too few to show any difference.")
    assert results.method("none").curves["deletion-curve"].mean == (None,) * 11
    assert results.method("zero").curves["deletion-curve"].low == (0.1,) * 11


def test_differences_within_rounding_are_ties() -> None:
    values = {"one": {"srg": [0.3 + 1e-9] * 8}, "center-prior": {"srg": [0.3] * 8}}
    each = contrast(summarize(measured(values, metrics=(Gain(),))), "srg", "one", "center-prior")
    assert (each.wins, each.losses, each.ties, each.mean, each.p) == (0, 0, 8, 0.0, 1.0)


def test_best_and_worst_images_do_not_overlap() -> None:
    results = summarize(measured({"one": {"srg": [0.5, NAN, 0.9, 0.1]}}, metrics=(Gain(),)))
    method = results.method("one")
    assert [(each.key, each.class_) for each in method.best] == [("002.jpg", "cat"), ("000.jpg", "cat")]
    assert [each.key for each in method.worst] == ["003.jpg"]
    lower = summarize(measured({"one": {"deletion": [0.5, 0.9, 0.1]}}, metrics=(Deletion(),))).method("one")
    assert lower.best[0].key == "002.jpg"


def test_assess_json_can_be_read_back_and_has_the_same_bytes(tmp_path: Path) -> None:
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        source = random_assessment(notes=("infidelity: left out",))
        results = summarize(source)
        write_results(folder, results, source)
    for name in ("assess.json", "per-image.csv"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    text = (tmp_path / "a" / "assess.json").read_text()
    assert from_json(Results, json.loads(text)) == results
    assert list(json.loads(text)) == sorted(json.loads(text))


def test_the_table_has_a_line_per_image_and_method_and_empty_cells(tmp_path: Path) -> None:
    source = random_assessment(images=5, sampled=2)
    source = replace(source, labels=np.array([0, 1, -1, 0, 1]), keys=["=1+1", *source.keys[1:]])
    write_results(tmp_path, summarize(source), source)
    with open(tmp_path / "per-image.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 5 * 8
    assert list(rows[0]) == ["key", "class", "method", "pointing", "sparseness", "deletion", "srg", "steepness"]
    assert rows[0]["key"] == "'=1+1"
    assert [row["class"] for row in rows[::8]] == ["cat", "dog", "", "cat", "dog"]
    for number, row in enumerate(rows):
        value = source.values[row["method"]]["srg"][number // 8]
        assert row["srg"] == ("" if np.isnan(value) else f"{value:.6g}")
    assert sum(row["srg"] == "" for row in rows) == 3 * 8
