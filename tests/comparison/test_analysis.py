"""Results of a comparison: curves that ended early, thresholds, summaries, and what restricts them."""

import json
from typing import Any

import numpy as np
import pytest

from saliency_pipeline.comparison.costs import Costs
from saliency_pipeline.comparison.report import write_report
from saliency_pipeline.comparison.results import Results
from saliency_pipeline.serialization import from_json
from tests.comparison.examples import CLASSES, IMAGES, analyzed, arms, primary, results, rules, runs
from tests.gallery.test_page import Page


def only(comparison: dict[str, Any]) -> dict[str, Any]:
    (setting,) = comparison["settings"]
    return dict(setting)


def test_the_format_is_the_second_and_is_json():
    comparison = results(effects={"half": 0.04})
    assert (comparison["format"], comparison["format_version"]) == ("salpipe-comparison", 2)
    assert json.loads(json.dumps(comparison, allow_nan=False)) == comparison
    assert [arm["of"] for arm in comparison["arms"]] == ["", "", "half", "half"]
    assert comparison["looks"]["made"][0]["level"] == 0.05


def test_curves_that_patience_stopped_are_carried_forward():
    """Runs that stop early left the mean curve, so that a band rose or fell when they did."""
    stopped = only(results(stops={"half": 6}, epochs=12))
    half = stopped["arms"]["half"]
    assert {run["epochs_trained"] for run in half["runs"]} == {6}
    for run in half["runs"]:
        assert len(run["curve"]) == 12
        assert set(run["curve"][6:]) == {run["final"]}
    band = half["curves"]["validation_top1"]
    assert len(band["mean"]) == 12
    assert band["mean"][5:] == [pytest.approx(half["final"]["mean"])] * 7
    assert len(stopped["arms"]["baseline"]["curves"]["validation_top1"]["mean"]) == 12


def test_the_area_of_a_stopped_run_is_over_as_many_epochs_as_that_of_another():
    compared = arms(("baseline", "half"))
    stopped = only(results(names=("baseline", "half"), stops={"half": 5}, epochs=12, noise=0.0))
    run = stopped["arms"]["half"]["runs"][0]
    curve = next(r for r in runs(compared, stops={"half": 5}, noise=0.0) if r.arm == "half").curves["validation_top1"]
    whole = np.concatenate([curve, np.full(5, curve[-1])])
    assert run["area"] == pytest.approx(np.trapezoid(whole) / 9)
    # the area of the five epochs alone lacks the time at the top
    assert run["area"] > np.trapezoid(curve) / 4


def test_a_mean_curve_keeps_every_run_where_only_some_stopped():
    compared = arms(("baseline", "half"))
    made = runs(compared, folds=2, repeats=3)
    for number, run in enumerate(made):
        if run.arm == "half" and number % 4 == 1:
            for name in run.curves:
                run.curves[name] = run.curves[name][:4]
    comparison = only(analyzed(made, compared, rules=rules(folds=2, repeats=3)))
    half = comparison["arms"]["half"]
    table = np.array([run["curve"] for run in half["runs"]])
    assert table.shape == (6, 12)
    assert half["curves"]["validation_top1"]["mean"] == pytest.approx(table.mean(axis=0))


def test_the_threshold_is_fixed_beforehand_or_descriptive():
    assert only(results(plan={"threshold": 0.5}))["threshold"] == {"value": 0.5, "fixed": True}
    comparison = only(results())
    finals = [run["final"] for run in comparison["arms"]["baseline"]["runs"]]
    assert comparison["threshold"] == {"value": pytest.approx(0.95 * np.median(finals)), "fixed": False}


def test_arms_have_an_interquartile_mean_and_times_to_their_own_level():
    comparison = only(results(paces={"half": 1.0}))
    half, baseline = comparison["arms"]["half"], comparison["arms"]["baseline"]
    assert half["interquartile"]["low"] <= half["interquartile"]["value"] <= half["interquartile"]["high"]
    assert half["own_level"] == pytest.approx(0.95 * half["final"]["mean"])
    assert half["time"]["mean"] < baseline["time"]["mean"]


def test_every_contrast_has_the_probability_of_superiority():
    final = only(results(effects={"half": 0.1}))["contrasts"][0]["final"]
    assert final["superiority"]["probability"] == 1
    assert final["superiority"]["word"] == "significant and meaningful"
    speed = only(results(paces={"half": 1.0}, noise=0.002))["contrasts"][0]["speed"]
    assert speed["superiority"]["probability"] == 1
    assert speed["statistics"]["mean"] < 0


def test_a_missing_search_is_a_warning():
    def content(searched: bool) -> bool:
        duplicates = {"searched": searched, "images": 0, "groups": 0, "by": None}
        return any("near duplicates were not searched" in w for w in results(duplicates=duplicates)["warnings"])

    assert content(searched=False)
    assert not content(searched=True)


def test_classes_of_maps_without_content_are_a_warning():
    maps = [
        {"class": "dress", "images": 40, "zero": 0.0, "constant": 0.05},
        {"class": "hat", "images": 40, "zero": 0.4, "constant": 0.45},
    ]
    comparison = results(maps=maps)
    assert comparison["maps"] == maps
    assert any(
        "most in hat: 40% of its maps are all zero, 45% constant" in warning for warning in comparison["warnings"]
    )
    assert not any("hat" in warning for warning in results(maps=maps[:1])["warnings"])


def test_a_start_that_is_not_the_baselines_is_a_warning():
    starts = {
        "baseline": None,
        "half": {"features": {"eval": 0.66, "train": 0.5}, "logits": {"eval": 0.3, "train": 0.2}},
        "neutral": {"features": {"eval": 0.0, "train": 1e-7}, "logits": {"eval": 0.0, "train": 0.0}},
    }
    comparison = results(names=("baseline", "half", "neutral"), starts=starts)
    (warning,) = [warning for warning in comparison["warnings"] if "starts with features" in warning]
    assert warning.startswith("half starts with features 0.66 away from the baseline's")
    assert comparison["starts"] == starts


def test_mixed_precisions_unequal_runs_and_few_pairs_are_warnings():
    assert any("bf16 and fp32" in w for w in results(precision={"half": "bf16"})["warnings"])
    assert any("too few for a verdict" in w for w in results(folds=2, repeats=1)["warnings"])
    assert any("a single pair" in w for w in results(folds=0, repeats=1)["warnings"])
    assert results()["warnings"] == ["<u>2 images</u> are copies"]


def test_the_tuning_and_the_primary_question_are_kept():
    tuning = {"lrs": [1e-4, 5e-4], "runs": 40, "diverged": 0, "chosen": {"all images": {"half": {"0.0001": 10}}}}
    comparison = results(tuning=tuning, plan={"primary": primary(measure="area")})
    assert comparison["tuning"] == tuning
    assert comparison["primary"]["measure"] == "area"


def test_the_examples_are_of_the_primary_questions_arms():
    comparison = only(results(names=("baseline", "half", "neutral"), plan={"primary": primary("neutral")}))
    assert {example["arm"] for example in comparison["disagreements"]} == {"neutral"}
    assert comparison["confusion"]["arm"] == "neutral"


def test_of_many_classes_the_results_hold_only_the_pairs_that_occur():
    classes = (*CLASSES, *(f"class {number}" for number in range(400)))
    compared = arms(("baseline", "half"))
    options = {"folds": 2, "repeats": 1}
    confusion = only(analyzed(runs(compared, **options), compared, classes=classes, rules=rules(**options)))[
        "confusion"
    ]
    assert set(confusion["matrix"]) == {"true", "answered", "images"}
    assert sum(confusion["matrix"]["images"]) == IMAGES
    assert len(json.dumps(confusion)) < 500


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"folds": 0, "repeats": 3},
        {"effects": {"half": 0.08}},
        {"folds": 0, "repeats": 1},
        {"plan": {"repeats": 3}},
        {"plan": {"repeats": 4, "looks": 2}},
        {"leaks": ["The maps are of the image's own label."]},
        {"predicted": False},
    ],
)
def test_the_page_shows_results_in_every_state(tmp_path, options):
    comparison = json.loads(json.dumps(results(**options)))
    page = Page(write_report(tmp_path, from_json(Results, comparison), Costs({}), lambda key: None))
    assert comparison["verdict"]["sentence"] in page.text
    assert "None" not in page.text
