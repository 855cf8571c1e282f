"""Arms of finished runs: their names, their kinds, and what each is compared with."""

from pathlib import Path

import pytest

from saliency_pipeline.comparison.arms import Arm
from saliency_pipeline.comparison.arms_of_runs import grouped, other_differences
from saliency_pipeline.comparison.rules import Primary, choose_primary
from saliency_pipeline.errors import SalpipeError
from tests.comparison.examples import runs

BASELINE, HALF = {"arch": "baseline"}, {"arch": "modulated"}
FULL = {"init": "full"}


def arms_of(*options: dict, reference: str | None = None) -> dict[str, tuple[str, str, str]]:
    """Kind, candidate and reference of every arm by its name."""
    made = runs([Arm(str(number), own) for number, own in enumerate(options)], repeats=1, folds=2)
    _, arms = grouped(made, reference)
    return {arm.name: (arm.kind, arm.of, arm.reference) for arm in arms}


def test_a_network_trained_before_is_compared_with_the_baseline_that_was_too() -> None:
    full, plain = {**HALF, **FULL, "start": "runs/two-branch"}, {**BASELINE, **FULL, "start": "runs/plain"}
    assert arms_of(plain, full, BASELINE, reference="baseline") == {
        "baseline": ("reference", "", ""),
        "baseline-full": ("reference", "", ""),
        "full": ("candidate", "", "baseline-full"),
    }
    assert arms_of(full, plain) == {"full": ("candidate", "", ""), "baseline-full": ("reference", "", "")}
    # with another learning rate it would be no twin
    faster = {**plain, "lr": 0.1}
    assert arms_of(BASELINE, faster, full)["full,lr=0.0001"] == ("candidate", "", "")


def test_maps_of_another_method_or_network_name_the_arm() -> None:
    simonyan, gradcam = {**HALF, "method": "gradient-simonyan"}, {**HALF, "method": "gradcam"}
    assert list(arms_of(BASELINE, simonyan, gradcam)) == [
        "baseline",
        "half,method=gradient-simonyan",
        "half,method=gradcam",
    ]
    assert list(arms_of(BASELINE, gradcam, {"arch": "learned"})) == ["baseline", "half", "learned"]


def test_parameters_of_methods_name_arms_only_where_these_differ_in_nothing_else() -> None:
    smooth, square = (f"smoothgrad:noise=0.15,samples=25,seed=0,stat={stat}" for stat in ("mean", "square"))
    own, other, third = ({**HALF, "method": method} for method in (smooth, square, "captum:DeepLift"))
    assert list(arms_of(BASELINE, own, third)) == ["baseline", "half,method=smoothgrad", "half,method=captum:DeepLift"]
    names = ["baseline", f"half,method={smooth}", f"half,method={square}"]
    assert list(arms_of(BASELINE, own, other)) == names
    made = runs([Arm(str(number), options) for number, options in enumerate((BASELINE, own, other))], repeats=1)
    _, arms = grouped(made, None)
    for text in (names[2], f"{names[2]}:final"):
        assert choose_primary(text, arms, ["all images"]) == Primary(names[2], "final", "all images")
    with pytest.raises(SalpipeError, match="no measure 'lightness'"):
        choose_primary(f"{names[2]}:lightness", arms, ["all images"])
    with pytest.raises(SalpipeError, match="nothing is not a candidate"):
        choose_primary("nothing:final", arms, ["all images"])


def test_a_control_without_its_candidate_belongs_to_none() -> None:
    prior, other = {**HALF, "maps": "center-prior"}, {**HALF, "alpha": 2.0}
    assert arms_of(BASELINE, other, prior) == {
        "baseline,alpha=1.0": ("reference", "", ""),
        "half,alpha=2.0": ("candidate", "", ""),
        "half,alpha=1.0-center-prior": ("control", "", ""),
    }
    assert arms_of(BASELINE, HALF, prior)["half-center-prior"] == ("control", "half", "")


def test_what_accepts_a_leak_or_rounds_otherwise_is_no_arm() -> None:
    leaking = {**HALF, "allow_leaks": ("label-maps",), "precision": "bf16", "search_duplicates": False}
    assert list(arms_of(BASELINE, leaking)) == ["baseline", "half"]


def test_other_differences_than_of_the_networks_are_warned_of() -> None:
    made = runs([Arm("a", BASELINE), Arm("b", {**HALF, "fusion": "add"})], repeats=1)
    assert other_differences(*grouped(made, None)) == []
    made = runs([Arm("a", BASELINE), Arm("b", {**HALF, "lr": 0.1, "augment": ()})], repeats=1)
    (warning,) = other_differences(*grouped(made, None))
    assert "in --augment none instead of crop+flip, --lr 0.1 instead of 0.0001 as well" in warning


def test_two_runs_of_one_arm_and_fold_are_refused() -> None:
    made = runs([Arm("a", BASELINE), Arm("b", HALF)], repeats=1, folds=2)
    with pytest.raises(SalpipeError, match="arm half has two runs of seed 0 and fold 2; give one of them"):
        grouped([*made, made[-1]], None)
    assert made[0].folder == Path("runs")
