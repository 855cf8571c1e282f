"""The page of a comparison rebuilt from its results and costs, and results that cannot be."""

import json
from pathlib import Path

import pytest

from saliency_pipeline.comparison.output import is_overall, rebuild
from saliency_pipeline.comparison.plan_file import stored_plan
from saliency_pipeline.errors import SalpipeError
from tests.comparison.pages import costs, results
from tests.gallery.test_page import Page


def test_the_page_is_rebuilt_from_results_and_costs(tmp_path: Path) -> None:
    values = results(folds=2, repeats=1)
    (tmp_path / "results.json").write_text(json.dumps(values))
    (tmp_path / "costs.json").write_text(json.dumps(costs(values)))
    comparison = rebuild(tmp_path)
    assert comparison.runs == 12
    assert values["verdict"]["sentence"] in Page(comparison.page).text


@pytest.mark.parametrize(
    ("version", "message"),
    [
        (1, r"results\.json: format version 1, .*; run the same 'salpipe compare' with another output folder"),
        (3, r"results\.json: format version 3, but this version of salpipe reads 2"),
        ("x" * 999, r"format version 'x{30,40}"),
        ([], r"format version \[\]"),
    ],
)
def test_results_of_another_format_version_are_refused_in_one_line(
    tmp_path: Path, version: object, message: str
) -> None:
    (tmp_path / "results.json").write_text(json.dumps({"format_version": version, "settings": []}))
    (tmp_path / "costs.json").write_text("{}")
    with pytest.raises(SalpipeError, match=message) as error:
        rebuild(tmp_path)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"format": ["x"], "format_version": 2}', r"format \['x'\], not salpipe-comparison; give another folder"),
        ('{"format_version": 2}', r"damaged \(format: missing\); run the same 'salpipe compare' again"),
        ("[]", r"damaged \(not an object\); run the same 'salpipe compare' again"),
        ("{", r"damaged \(.*\); run the same 'salpipe compare' again"),
    ],
)
def test_errors_of_damaged_results_name_the_command_that_writes_them(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "results.json").write_text(text)
    (tmp_path / "costs.json").write_text("{}")
    with pytest.raises(SalpipeError, match=rf"results\.json: {message}$"):
        rebuild(tmp_path)
    if not text.startswith("{"):
        with pytest.raises(SalpipeError, match=rf"results\.json: {message}$"):
            is_overall(tmp_path)


@pytest.mark.parametrize("text", ["[]", "{", "{}"])
def test_a_damaged_plan_has_a_remedy_that_works(tmp_path: Path, text: str) -> None:
    (tmp_path / "plan.json").write_text(text)
    with pytest.raises(SalpipeError, match=r"plan\.json: damaged.*; choose another output folder$"):
        stored_plan(tmp_path)


def test_damaged_costs_are_named(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(json.dumps(results()))
    (tmp_path / "costs.json").write_text('{"settings": {"all images": {"half": {"runs": true}}}}')
    with pytest.raises(
        SalpipeError, match=r"costs\.json: damaged \(settings\.all images\.half\.runs: not a whole number\)"
    ):
        rebuild(tmp_path)
