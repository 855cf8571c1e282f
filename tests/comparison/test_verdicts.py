"""Verdicts: one primary question, one family for everything else, looks that spend alpha, and when there is none."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from saliency_pipeline.comparison import verdicts
from saliency_pipeline.comparison.arms import CANDIDATE, REFERENCE, Arm
from saliency_pipeline.comparison.looks import Looks, make_looks
from saliency_pipeline.comparison.results import (
    ContrastResult,
    Images,
    Look,
    MeasureResult,
    SettingResult,
    ThresholdPairs,
)
from saliency_pipeline.comparison.rules import MEASURES, Primary, Rules
from saliency_pipeline.statistics.contrast import evaluate
from saliency_pipeline.statistics.multiplicity import holm
from saliency_pipeline.statistics.power import detectable
from saliency_pipeline.statistics.sequential import levels
from tests.comparison.examples import BUDGETS, analyzed, arms, primary, results, rules, runs
from tests.statistics.simulation import correlated

RIGHT = ("better", "faster")


def every(comparison: dict[str, Any]) -> list[tuple[str, str, str, str, dict[str, Any]]]:
    """Setting, arm, against, measure and result of every measure of every contrast."""
    return [
        (setting["name"], contrast["arm"], contrast["against"], measure, contrast[measure])
        for setting in comparison["settings"]
        for contrast in setting["contrasts"]
        for measure in MEASURES
    ]


def result_of(comparison: dict[str, Any], arm: str, against: str, measure: str = "final") -> dict[str, Any]:
    return next(each[4] for each in every(comparison) if each[1:4] == (arm, against, measure))


def test_the_primary_question_keeps_its_own_level_and_all_else_is_one_family():
    comparison = results(settings=("15 per class", "all images"), effects={"half": 0.04})
    assert comparison["primary"] == {
        "arm": "half",
        "measure": "final",
        "setting": "all images",
        "against": "baseline",
    }
    first = [each for each in every(comparison) if each[4]["family"] == "primary"]
    others = [each for each in every(comparison) if each[4]["family"] == "secondary"]
    assert [each[:4] for each in first] == [("all images", "half", "baseline", "final")]
    assert first[0][4]["p_adjusted"] == first[0][4]["statistics"]["p"]
    # 2 budgets x 3 contrasts with a verdict x 3 measures, less the primary
    assert len(others) == 17
    smallest = min(others, key=lambda each: each[4]["statistics"]["p"])[4]
    assert smallest["p_adjusted"] == pytest.approx(17 * smallest["statistics"]["p"])


def test_five_budgets_are_not_five_chances():
    """Holm within each budget and measure called three or more of them better."""
    comparison = results(names=("baseline", "half"), settings=BUDGETS, effects={"half": 0.012})
    secondary = [each[4] for each in every(comparison) if each[4]["family"] == "secondary"]
    assert len(secondary) == 14
    assert sum(each["statistics"]["p"] < 0.05 for each in secondary) >= 3
    assert {each["verdict"] for each in secondary} == {"undecided"}


def family_errors(simulations: int, budgets: int, monkeypatch: pytest.MonkeyPatch) -> tuple[float, float]:
    """Share of simulated comparisons without a difference in which any secondary verdict is significant.

    Returns:
        With one family for all, and with one per budget and measure.
    """
    monkeypatch.setattr(verdicts, "power_of", lambda *_: (0.0, None))
    random, wrong, separate = np.random.default_rng(0), 0, 0
    looks = Looks((10,), 0.25, (Look(2, 10, 1.0, 0.05, 0.5, False),), 2, 10)
    for _ in range(simulations):
        parts = []
        for number in range(budgets):
            reference = [correlated(random, 10, 0.25) for _ in MEASURES]
            contrasts = tuple(
                ContrastResult(
                    f"arm {arm}",
                    "baseline",
                    "reference",
                    10,
                    *(
                        MeasureResult((), 0.01, evaluate(reference[m], correlated(random, 10, 0.25), 0.25, rope=1e-9))
                        for m in range(len(MEASURES))
                    ),
                    ThresholdPairs(0, 0, 10),
                    None,
                    None,
                )
                for arm in range(3)
            )
            images = Images((48, 48), (12, 12), (48, 48))
            parts.append(SettingResult(str(number), images, 0.25, 12, 10, None, False, True, {}, contrasts, None, ()))
        decided = verdicts.decide(parts, Primary("arm 0", "final", "0"), looks, leaking=False)
        words = [c[m].verdict for part in decided for c in part.contrasts for m in MEASURES]
        wrong += any(word in ("better", "worse", "faster", "slower") for word in words[1:])
        each = [[c[m].statistics.p for c in part.contrasts] for part in decided for m in MEASURES]
        separate += any(min(holm(ps)) < 0.05 for ps in each)
    return wrong / simulations, separate / simulations


def test_the_family_over_arms_measures_and_budgets_errs_in_at_most_5_percent(monkeypatch):
    # three standard errors of a share of 0.05 in 250
    wrong, separate = family_errors(250, 3, monkeypatch)
    assert wrong <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 250)
    assert separate > 0.15


@pytest.mark.slow
def test_so_it_does_over_five_budgets_in_2000_simulations(monkeypatch):
    assert family_errors(2000, 5, monkeypatch)[0] <= 0.065


def test_controls_are_described_against_the_reference_without_a_verdict():
    comparison = results(effects={"half-mismatched": 0.1})
    result = result_of(comparison, "half-mismatched", "baseline")
    assert result["statistics"]["p"] < 0.01
    assert [result[name] for name in ("family", "verdict", "p_adjusted", "level", "detectable")] == [None] * 5
    assert not any("half-mismatched vs." in line for line in comparison["verdict"]["details"])


def test_no_candidate_is_compared_with_the_control_of_another():
    comparison = results(names=("baseline", "half", "input", "half-mismatched", "input-mismatched"))
    pairs = {(arm, against) for _, arm, against, *_ in every(comparison)}
    assert ("half", "half-mismatched") in pairs
    assert ("input", "input-mismatched") in pairs
    assert not pairs & {("half", "input-mismatched"), ("input", "half-mismatched")}


def test_what_is_detectable_is_at_the_level_that_is_used():
    comparison = results()
    first, other = result_of(comparison, "half", "baseline"), result_of(comparison, "half", "half-mismatched")
    assert first["detectable"] == pytest.approx(detectable(first["statistics"]["sd"], 10, 0.25, alpha=0.05))
    # 3 contrasts x 3 measures, less the primary
    assert other["detectable"] == pytest.approx(detectable(other["statistics"]["sd"], 10, 0.25, alpha=0.05 / 8))
    assert detectable(other["statistics"]["sd"], 10, 0.25, alpha=0.05) < other["detectable"]


def test_no_p_is_zero_where_six_differences_are_equal():
    compared = arms(("baseline", "half"))
    first = runs(compared[:1], folds=6, repeats=1)
    higher = {run.pair: run.curves["validation_top1"] + 0.1 for run in first}
    second = [
        dataclasses.replace(run, arm="half", curves=run.curves | {"validation_top1": higher[run.pair]}) for run in first
    ]
    comparison = analyzed([*first, *second], compared, rules=rules(folds=6, repeats=1))
    # the exact sign test's p of six equal signs, 2 / 2**6, is the least that six pairs can show
    for measure in ("final", "area"):
        assert result_of(comparison, "half", "baseline", measure)["statistics"]["p"] == pytest.approx(
            2 / 2**6, rel=0.05
        )
    assert "p < 0.001" not in comparison["verdict"]["sentence"]


def test_runs_that_are_exactly_alike_still_have_intervals():
    compared = arms(("baseline", "half"))
    first = runs(compared[:1])
    alike = [dataclasses.replace(run, arm="half") for run in first]
    comparison = analyzed([*first, *alike], compared, rules=rules())
    for measure in MEASURES:
        result = result_of(comparison, "half", "baseline", measure)
        assert (result["statistics"]["mean"], result["statistics"]["p"]) == (0, 1)
        assert result["statistics"]["low"] < 0 < result["statistics"]["high"]
        assert result["verdict"] == "no difference"


def test_the_verdict_is_withheld_until_all_planned_runs_are_finished():
    comparison = results(effects={"half": 0.04}, plan={"repeats": 3})
    assert comparison["verdict"]["word"] == "withheld"
    assert "40 of 60 planned runs are finished; the verdict waits for the rest" in comparison["verdict"]["sentence"]
    assert {each[4]["verdict"] for each in every(comparison) if each[4]["family"]} == {"withheld"}
    assert comparison["looks"] == {"planned": 1, "made": []}
    assert not comparison["settings"][0]["completed"]


def test_one_arm_that_is_not_finished_withholds_its_own_verdicts_and_still_counts_in_the_family():
    compared = arms()
    finished = [run for run in runs(compared, effects={"half": 0.08}) if run.arm != "half-mismatched"]
    comparison = analyzed(finished, compared, rules=rules())
    assert comparison["verdict"]["word"] == "better"
    assert result_of(comparison, "half", "half-mismatched")["verdict"] == "withheld"
    complete = results(effects={"half": 0.08})
    for measure in ("area", "speed"):
        assert result_of(comparison, "half", "baseline", measure)["detectable"] == pytest.approx(
            result_of(complete, "half", "baseline", measure)["detectable"]
        )
    assert "half-mismatched is withheld" in comparison["verdict"]["sentence"]


def test_looks_have_the_levels_that_spend_alpha_and_use_the_runs_of_their_repeats():
    comparison = results(repeats=6, effects={"half": 0.008}, plan={"looks": 3}, names=("baseline", "half"))
    made = comparison["looks"]["made"]
    assert comparison["looks"]["planned"] == 3
    expected = levels([10, 20, 30], 0.25)
    for number, look in enumerate(made):
        assert (look["repeats"], look["pairs"]) == (2 * number + 2, 10 * number + 10)
        assert look["level"] == pytest.approx(expected[number])
    assert all(look["p"] >= look["level"] for look in made[:-1])
    early = results(repeats=2, effects={"half": 0.008}, plan={"looks": 3, "repeats": 6}, names=("baseline", "half"))
    assert early["looks"]["made"] == made[:1]


def test_a_look_after_the_decision_is_not_used():
    options: dict[str, Any] = {"effects": {"half": 0.06}, "names": ("baseline", "half")}
    comparison = results(repeats=4, plan={"looks": 2}, **options)
    assert [look["decided"] for look in comparison["looks"]["made"]] == [True]
    assert comparison["settings"][0]["contrasts"][0]["pairs"] == 10
    assert comparison["verdict"]["word"] == "better"
    assert "at look 1 of 2" in comparison["verdict"]["sentence"]
    assert any("20 runs of later repeats are not used" in warning for warning in comparison["warnings"])
    assert any("tends to be overestimated" in warning for warning in comparison["warnings"])


def test_a_look_that_does_not_decide_concludes_no_equivalence():
    options: dict[str, Any] = {"noise": 0.001, "names": ("baseline", "half")}
    last = results(repeats=4, plan={"looks": 2}, **options)
    first = results(repeats=2, plan={"looks": 2, "repeats": 4}, **options)
    assert result_of(first, "half", "baseline")["statistics"]["same"] > 0.95
    assert first["verdict"]["word"] == "undecided"
    assert "further looks are planned" in first["verdict"]["sentence"]
    assert last["verdict"]["word"] == "equivalent"


def test_a_look_that_ends_the_comparison_early_concludes_no_equivalence_either():
    """A difference that is certain and within a wide region ends it; equivalence has no share of the level there."""
    early = results(repeats=2, effects={"half": 0.06}, plan={"looks": 5, "repeats": 5, "rope": 20.0})
    assert early["looks"]["made"][-1]["decided"]
    assert result_of(early, "half", "baseline")["statistics"]["same"] > 0.95
    assert early["verdict"]["word"] == "better"
    assert "equivalent" not in {each[4]["verdict"] for each in every(early)}


def test_the_family_spends_its_level_over_the_looks_as_well():
    planned = (10, 20, 30)
    early = Looks(planned, 0.25, (Look(2, 10, 0.9, 0.02, 0.5, False),), 2, 10)
    assert early.family_level(8) <= levels(planned, 0.25)[0]
    assert early.family_level(8) / 8 <= levels(planned, 0.25, alpha=0.05 / 8)[0] + 1e-12
    assert Looks((10,), 0.25, (Look(2, 10, 1.0, 0.05, 0.5, False),), 2, 10).family_level(8) == 0.05


def test_runs_without_a_plan_all_count_whatever_their_seeds():
    compared = arms(("baseline", "half"))
    finished = runs(compared, effects={"half": 0.04})
    moved = [
        dataclasses.replace(run, config=dataclasses.replace(run.config, seed=100 * run.config.seed + 7))
        for run in finished
    ]
    looks = make_looks(moved, Rules(primary(), planned=False), None, "baseline")
    assert (looks.repeats, looks.expected) == (None, None)
    comparison = analyzed(moved, compared, rules=Rules(None, planned=False))
    assert comparison["verdict"]["word"] == "better"
    assert comparison["settings"][0]["contrasts"][0]["pairs"] == 10


def test_with_a_leak_there_is_no_verdict_anywhere():
    reason = "The maps of the validation images are of their own labels."
    comparison = results(effects={"half": 0.1}, leaks=[reason])
    assert comparison["verdict"]["word"] == "leak"
    assert comparison["verdict"]["sentence"].startswith(
        "No verdict on this data set: The maps of the validation images"
    )
    assert {each[4]["verdict"] for each in every(comparison) if each[4]["family"]} == {"leak"}
    assert not any("better" in line for line in comparison["verdict"]["details"])


def test_with_a_leak_no_look_decides():
    comparison = results(repeats=4, effects={"half": 0.1}, plan={"looks": 2}, leaks=["A leak."])
    assert [look["decided"] for look in comparison["looks"]["made"]] == [False, False]
    assert not any("ended at look" in warning for warning in comparison["warnings"])


def test_on_the_shards_own_split_images_and_seeds_decide():
    """Eight seeds agree on three points that 60 images cannot show: the test over seeds alone called it better."""
    comparison = results(folds=0, repeats=8, effects={"half": 0.1})
    result = result_of(comparison, "half", "baseline")
    assert result["statistics"]["p"] < 0.001
    assert result["p_adjusted"] == result["crossed"]["p"] > 0.05
    assert (result["crossed"]["seeds"], result["crossed"]["images"]) == (8, 60)
    assert comparison["verdict"]["word"] == "undecided"
    assert "on this split of this data set" in comparison["verdict"]["sentence"]
    assert comparison["settings"][0]["own_split"]
    assert comparison["settings"][0]["ratio"] == 0


def test_on_the_shards_own_split_area_and_speed_have_no_verdict():
    comparison = results(folds=0, repeats=8, plan={"primary": primary(measure="speed")})
    for measure in ("area", "speed"):
        result = result_of(comparison, "half", "baseline", measure)
        assert (result["family"], result["verdict"], result["crossed"]) == (None, None, None)
    assert comparison["verdict"]["word"] == "withheld"
    assert "no test over images without folds" in comparison["verdict"]["sentence"]
    assert any("area and speed" in warning for warning in comparison["warnings"])


def test_a_large_difference_on_the_shards_own_split_is_found():
    comparison = results(folds=0, repeats=8, effects={"half": 0.25}, names=("baseline", "half"))
    assert comparison["verdict"]["word"] == "better"
    assert "ended better on this split of this data set" in comparison["verdict"]["sentence"]


def test_without_predictions_the_shards_own_split_has_no_verdict():
    comparison = results(folds=0, repeats=8, effects={"half": 0.25}, predicted=False)
    assert comparison["verdict"]["word"] == "underpowered"


def test_a_candidate_with_a_reference_of_its_own_is_compared_with_that():
    comparison = results(names=("baseline", "half", "baseline-full", "full"))
    pairs = {(arm, against) for _, arm, against, *_ in every(comparison)}
    assert pairs == {("half", "baseline"), ("full", "baseline-full")}


def test_without_a_candidate_there_is_no_primary_question():
    compared = (Arm("baseline", {"arch": "baseline"}, REFERENCE), arms()[2])
    comparison = analyzed(runs(compared), compared, rules=rules())
    assert comparison["primary"] is None
    assert comparison["verdict"]["word"] == "withheld"
    assert compared[1].kind != CANDIDATE


def test_a_primary_question_about_an_arm_that_is_missing_has_no_verdict():
    comparison = results(plan={"primary": primary("input")}, effects={"half": 0.1})
    assert comparison["primary"] is None
    assert comparison["verdict"]["word"] == "withheld"
    assert "not among these" in comparison["verdict"]["sentence"]
    assert {each[4]["verdict"] for each in every(comparison) if each[4]["family"]} == {"withheld"}
