"""Sentences of the verdict: they claim what was measured, and nothing more."""

from typing import Any

import pytest

from tests.comparison.examples import BUDGETS, primary, results

LARGE = {"half": 0.08}
HELPED = "where the maps point helped"


def sentence(**options: Any) -> str:
    return str(results(**options)["verdict"]["sentence"])


def test_it_reads_like_an_abstract():
    assert sentence(effects={"half": -0.05}).startswith(
        "half: −5.1 points vs. baseline (95 % CI −8.6 to −1.6), p = 0.009: ended worse on this data set"
    )


def test_three_points_more_at_every_epoch_are_no_faster_convergence():
    """A constant shift earned "converged faster" by its area under the first epochs."""
    for options in ({"effects": {"half": 0.03}, "noise": 0.002}, {"effects": {"half": 0.08}}):
        comparison = results(**options)
        text = " ".join([comparison["verdict"]["sentence"], *comparison["verdict"]["details"]])
        assert "converged faster" not in text
        assert "higher over the first 10 epochs" in comparison["verdict"]["sentence"]
        speed = comparison["settings"][0]["contrasts"][0]["speed"]
        assert speed["verdict"] == "undecided"


def test_faster_convergence_is_claimed_by_the_time_to_its_own_final_accuracy_alone():
    comparison = results(paces={"half": 1.0}, noise=0.003, plan={"primary": primary(measure="speed")})
    assert comparison["verdict"]["word"] == "faster"
    assert "reached 95 % of its own final accuracy" in comparison["verdict"]["sentence"]
    assert "epochs earlier (95 % CI" in comparison["verdict"]["sentence"]
    assert "converged faster on this data set" in comparison["verdict"]["sentence"]
    speed = comparison["settings"][0]["contrasts"][0]["speed"]["statistics"]
    assert speed["mean"] < 0
    slower = results(paces={"half": 6.0}, noise=0.003, plan={"primary": primary(measure="speed")})
    assert slower["verdict"]["word"] == "slower"
    assert "epochs later" in slower["verdict"]["sentence"]


def test_faster_convergence_beside_an_undecided_end_is_a_clause_of_its_own():
    text = sentence(paces={"half": 1.0}, noise=0.003)
    assert "; converged faster (reached 95 % of its own final accuracy" in text
    assert "after Holm)" in text


def test_where_the_maps_point_helped_takes_all_own_controls():
    assert HELPED in sentence(effects=LARGE)
    text = sentence(effects=LARGE | {"half-mismatched": 0.08})
    assert HELPED not in text
    assert "not shown to be better than its control half-mismatched" in text
    text = sentence(effects=LARGE | {"half-mismatched": 0.08, "half-center-prior": 0.08})
    assert "not shown to be better than its controls half-mismatched and half-center-prior" in text


def test_nor_is_it_claimed_without_controls_or_without_mismatched_maps():
    assert "without a control it may be the extra branch rather than the maps" in sentence(
        names=("baseline", "half"), effects=LARGE
    )
    text = sentence(names=("baseline", "half", "half-center-prior"), effects=LARGE)
    assert HELPED not in text
    assert "without a control that reads maps of other images" in text


def test_it_is_never_claimed_for_learned_which_reads_no_maps():
    for names in (("baseline", "learned"), ("baseline", "learned", "half", "half-mismatched", "half-center-prior")):
        text = sentence(names=names, effects={"learned": 0.08})
        assert "learned: " in text
        assert "ended better" in text
        assert HELPED not in text
        assert "learned reads no maps" in text


def test_controls_of_another_candidate_do_not_count():
    text = sentence(names=("baseline", "input", "half", "half-mismatched"), effects={"input": 0.08})
    assert HELPED not in text
    assert "without a control" in text


def test_other_differences_of_the_two_arms_are_named():
    assert "full and baseline also differ in --init and --from" in sentence(names=("baseline", "full"))
    assert "also differ" not in sentence(names=("baseline", "baseline-full", "full"))
    assert "also differ" not in sentence(names=("baseline", "neutral"))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"effects": LARGE},
        {"effects": {"half": -0.08}},
        {"noise": 0.002},
        {"noise": 0.0},
        {"folds": 2, "repeats": 1},
        {"folds": 0, "repeats": 1},
        {"folds": 0, "repeats": 1, "predicted": False},
        {"folds": 0, "repeats": 7},
        {"plan": {"repeats": 5}},
        {"leaks": ["The maps are of the image's own label."]},
        {"plan": {"primary": primary(measure="area")}},
        {"plan": {"primary": primary(measure="speed")}},
        {"settings": BUDGETS[-2:]},
    ],
)
def test_every_verdict_is_about_this_data_set_and_says_so_once(options):
    text = sentence(**options)
    assert text.count("this data set") == 1
    assert text.endswith(".")
    assert ".." not in text
    assert "pairs" not in text or "pairs of runs" in text


def test_an_undecided_difference_is_stated_with_the_detectable_one():
    comparison = results()
    detected = comparison["settings"][0]["contrasts"][0]["final"]["detectable"]
    assert (
        f"a true difference of {100 * detected:.1f} points would have been found in 80 % of such comparisons"
        in (comparison["verdict"]["sentence"])
    )


def test_a_region_of_equivalence_that_the_plan_fixes_is_the_one_that_is_named():
    comparison = results(noise=0.002, plan={"rope": 2.0})
    assert comparison["rope"] == 0.02
    assert "equivalent on this data set, within ±2.0 points" in comparison["verdict"]["sentence"]


def test_details_have_one_line_per_contrast_with_a_verdict_and_measure():
    comparison = results(settings=BUDGETS[-2:], effects=LARGE)
    details = comparison["verdict"]["details"]
    assert len(details) == 2 * 3 * 3
    assert all(line.startswith(BUDGETS[-2:]) for line in details)
    assert sum("after Holm" in line for line in details) == 17
    assert all("P(half" in line for line in details)


def test_a_single_pair_is_about_two_networks():
    text = sentence(folds=0, repeats=1)
    assert "shows nothing about training again" in text
    assert "McNemar p" in text
