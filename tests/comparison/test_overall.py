"""Results over several data sets: what counts, what is left out, and what the sentence claims."""

import copy
import dataclasses
import json
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy import stats

from saliency_pipeline.comparison.overall import Finished, estimate_of, overall, why_left_out
from saliency_pipeline.comparison.results import ContrastResult, Results
from saliency_pipeline.serialization import from_json, to_json
from saliency_pipeline.statistics.hierarchy import Estimate, hierarchy
from saliency_pipeline.statistics.power import standard_error
from tests.comparison.several import LOOK, finished, over, results

EFFECTS = (0.03, 0.04, 0.035)


def words(content: dict[str, Any]) -> list[Any]:
    return [question["verdict"] for question in content["questions"]]


@pytest.mark.parametrize(
    ("effects", "word", "sentence"),
    [
        (
            EFFECTS,
            "better",
            r"Across 3 data sets half: \+3\.\d points \(95 % credible interval \+\d\.\d to \+\d\.\d\) "
            r"vs. baseline: better\.",
        ),
        (
            tuple(-effect for effect in EFFECTS),
            "worse",
            r"Across 3 data sets half: −3\.\d points \(95 % credible interval −\d\.\d to −\d\.\d\) "
            r"vs. baseline: worse\.",
        ),
        ((0.06, -0.02, 0.0), "undecided", r"Across 3 .*: undecided\."),
        ((0.0,) * 12, "equivalent", r"Across 12 .*: equivalent within ±1\.0 points\."),
        (
            EFFECTS[:2],
            "too few data sets",
            r"2 data sets allow no general verdict, which takes 3 or more; half vs. baseline: "
            r"a \+\d\.\d points, b \+\d\.\d points\.",
        ),
    ],
)
def test_the_sentence_says_what_was_measured(effects, word, sentence):
    content = over(*effects)
    assert content["verdict"]["word"] == word == words(content)[0]
    assert re.fullmatch(sentence, content["verdict"]["sentence"]), content["verdict"]["sentence"]


def test_two_data_sets_carry_no_general_claim_however_clear_they_are():
    content = over(0.2, 0.2)
    assert content["questions"][0]["posterior"] is None
    assert "better" not in content["verdict"]["sentence"]


def test_only_the_primary_question_has_a_verdict():
    content = over(*EFFECTS)
    assert [(question["arm"], question["against"]) for question in content["questions"]] == [
        ("half", "baseline"),
        ("half", "half-mismatched"),
    ]
    assert words(content) == ["better", None]
    assert any("half vs. half-mismatched" in line and "no verdict" in line for line in content["verdict"]["details"])


def test_the_primary_question_comes_first_whatever_the_order_of_contrasts():
    each = [changed(one, lambda content: content["settings"][0]["contrasts"].reverse()) for one in finished(EFFECTS)]
    content = to_json(overall(each))
    assert (content["questions"][0]["against"], content["verdict"]["word"]) == ("baseline", "better")


def test_estimates_are_those_of_the_comparisons():
    one = results(0.02, seed=3)
    contrast = one["settings"][0]["contrasts"][0]
    values = [each["value"] for each in contrast["final"]["differences"]]
    error = standard_error(float(np.std(values, ddof=1)), len(values), 0.25)
    estimate = estimate_of(from_json(ContrastResult, contrast), "final", own_split=False)
    assert isinstance(estimate, Estimate)
    assert (estimate.mean, estimate.error, estimate.freedom) == pytest.approx((np.mean(values), error, 9))
    # the posterior is that of exactly these
    content = over(*EFFECTS)
    rows = content["questions"][0]["estimates"]
    again = hierarchy([Estimate(row["mean"], row["error"], row["freedom"]) for row in rows], rope=0.01)
    assert content["questions"][0]["posterior"]["low"] == again.low
    assert [row["shrunken"] for row in rows] == list(again.shrunken)


def test_on_the_shards_own_split_images_count_as_well():
    contrast = results(0.02, own_split=True)["settings"][0]["contrasts"][0]
    estimate = estimate_of(from_json(ContrastResult, contrast), "final", own_split=True)
    assert isinstance(estimate, Estimate)
    assert estimate.error == pytest.approx(0.03 / stats.t.ppf(0.975, 9))
    # an interval that was cut at 1 keeps its length on the other side
    contrast["final"]["crossed"]["high"] = contrast["final"]["crossed"]["mean"] + 0.001
    cut = from_json(ContrastResult, contrast)
    assert estimate_of(cut, "final", own_split=True) == estimate
    assert "no standard error that counts images" in str(estimate_of(cut, "area", own_split=True))


def replaced(effect: float, seed: int, **entries: Any) -> Finished:
    return Finished("odd", "odd/report.html", from_json(Results, results(effect, seed, **entries)))


def changed(one: Finished, change: Callable[[dict[str, Any]], object]) -> Finished:
    """A comparison with changed results.json."""
    content = to_json(one.results)
    change(content)
    return dataclasses.replace(one, results=from_json(Results, content))


def withheld() -> Finished:
    def change(content: dict[str, Any]) -> None:
        content["settings"][0]["contrasts"][0]["final"]["verdict"] = "withheld"

    return changed(replaced(0.2, 7), change)


@pytest.mark.parametrize(
    ("odd", "reason"),
    [
        (replaced(0.2, 7, leaks=["maps show the image's own label."]), "leaks were accepted: maps show"),
        (withheld(), "its verdict is withheld: the planned runs are not finished"),
        (replaced(0.2, 7, pairs=1), "fewer than two pairs of runs"),
    ],
)
def test_a_comparison_without_a_verdict_of_its_own_is_left_out_with_the_reason(odd, reason):
    content = to_json(overall([*finished(EFFECTS), odd]))
    assert reason in (why_left_out(odd.results) or "")
    assert [each["name"] for each in content["datasets"]] == ["a", "b", "c"]
    assert reason in content["left_out"][0]["reason"]
    assert any(warning.startswith("odd is left out: ") for warning in content["warnings"])
    alone = over(*EFFECTS)
    assert content["verdict"] == alone["verdict"]
    assert content["interquartile"] == alone["interquartile"]
    # with two others there is none
    assert overall([*finished(EFFECTS[:2]), odd]).verdict.word == "too few data sets"


def test_nothing_is_left_when_all_are_left_out():
    content = over(*EFFECTS, leaks=["maps show the label."])
    assert content["verdict"]["sentence"] == "0 data sets allow no general verdict, which takes 3 or more."
    assert content["interquartile"] == []


def test_times_are_better_where_they_are_lower_and_never_equivalent():
    primary = {"arm": "half", "against": "baseline", "measure": "speed", "setting": "all images"}
    faster = over(*EFFECTS, primary=primary)
    assert faster["verdict"]["word"] == "faster"
    assert faster["verdict"]["sentence"].startswith("Across 3 data sets half: −")
    assert " epochs (95 % credible interval −" in faster["verdict"]["sentence"]
    assert over(*(-effect for effect in EFFECTS), primary=primary)["verdict"]["word"] == "slower"
    assert over(*(0.0,) * 12, primary=primary)["verdict"]["word"] == "undecided"


def test_the_interquartile_mean_is_over_the_runs_of_all_data_sets():
    content = over(*EFFECTS)
    rows = {row["name"]: row for row in content["interquartile"]}
    assert list(rows) == ["baseline", "half", "half-mismatched"]
    finals = [run.final for each in finished(EFFECTS) for run in each.results.settings[0].arms["half"].runs]
    assert rows["half"]["runs"] == 30
    assert rows["half"]["value"] == pytest.approx(stats.trim_mean(finals, 0.25))
    assert rows["half"]["low"] < rows["half"]["value"] < rows["half"]["high"]


def test_early_stops_and_other_options_are_warned_about():
    each = finished(EFFECTS)

    def options(content: dict[str, Any]) -> None:
        content["about"]["plan"]["shared"]["epochs"] = 20
        content["about"]["plan"]["repeats"] = 5

    made = [LOOK | {"pairs": 10, "fraction": 0.33}]
    each[1] = changed(each[1], lambda content: content["looks"].update(planned=3, made=made))
    each[2] = changed(each[2], options)
    warnings = overall(each).warnings
    assert any("b stopped at look 1 of 3" in warning and "overestimated" in warning for warning in warnings)
    assert "training options differ between data sets: epochs, repeats" in warnings


def test_the_same_comparisons_give_the_same_results():
    each = finished(EFFECTS)
    first = json.dumps(to_json(overall(copy.deepcopy(each))), allow_nan=False)
    assert first == json.dumps(to_json(overall(each)), allow_nan=False)


def test_a_comparison_between_two_looks_does_not_count():
    """Combining after each look would have an error rate above 5 %."""
    between = {"planned": 5, "made": [LOOK | {"repeats": 1, "pairs": 5, "fraction": 0.64, "decided": False}]}
    comparison = over(0.03, 0.031, 0.032, looks=between)
    assert comparison["verdict"]["word"] == "too few data sets"
    assert "look 1 of 5 and not decided" in comparison["left_out"][0]["reason"]
