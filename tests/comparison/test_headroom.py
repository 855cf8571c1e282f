"""Headroom: gains with true boxes as maps, the share that other maps recover, and the sentences on it."""

from pathlib import Path
from typing import Any

import pytest

from saliency_pipeline.comparison import report
from saliency_pipeline.comparison.costs import Costs
from saliency_pipeline.comparison.headroom_figure import COLORS, headroom
from saliency_pipeline.comparison.report import write_report
from saliency_pipeline.comparison.results import Results
from saliency_pipeline.serialization import from_json
from tests.comparison.examples import BUDGETS, primary, results
from tests.gallery.test_page import Page

ARMS = ("baseline", "zoom", "self-zoom", "oracle-zoom", "mask", "oracle-mask", "zoom-mismatched", "zoom-center-prior")
EFFECTS = {"oracle-zoom": 0.2, "zoom": 0.06, "self-zoom": 0.1, "zoom-center-prior": 0.02}


def compared(names: tuple[str, ...] = ARMS, effects: dict[str, float] = EFFECTS, **options: Any) -> dict[str, Any]:
    return results(names, effects=effects, **{"noise": 0.003, "epochs": 2, **options})


@pytest.fixture(scope="module")
def example() -> dict[str, Any]:
    return compared()


def test_every_use_with_an_oracle_has_a_row_and_shares(example: dict[str, Any]) -> None:
    zoom, mask = example["headroom"]
    assert (zoom["use"], zoom["word"], zoom["oracle"]["arm"], zoom["against"]) == (
        "zoom",
        "headroom",
        "oracle-zoom",
        "baseline",
    )
    assert (zoom["pairs"], zoom["setting"]) == (10, "all images")
    assert [(gain["arm"], gain["maps"]) for gain in zoom["others"]] == [
        ("zoom-center-prior", "center-prior"),
        ("zoom", "own"),
        ("self-zoom", "self"),
    ]
    for gain, share in zip(zoom["others"], (0.1, 0.3, 0.5), strict=True):
        assert gain["share"] == pytest.approx(gain["mean"] / zoom["oracle"]["mean"])
        assert gain["share"] == pytest.approx(share, abs=0.03)
        assert gain["share_low"] < gain["share"] < gain["share_high"]
    # the same numbers as those of the contrasts
    contrasts = {(each["arm"], each["against"]): each["final"] for each in example["settings"][0]["contrasts"]}
    for gain in (zoom["oracle"], *zoom["others"]):
        statistics = contrasts[gain["arm"], "baseline"]["statistics"]
        assert [gain[name] for name in ("mean", "low", "high")] == [
            statistics[name] for name in ("mean", "low", "high")
        ]
    assert mask["word"] == "no headroom"
    assert mask["others"][0]["share"] is None


def test_the_verdict_has_the_headroom_of_its_use(example: dict[str, Any]) -> None:
    text, (zoom, mask) = example["verdict"]["sentence"], example["headroom"]
    assert "; true boxes or masks as maps gain +19." in text
    assert ", of which zoom recovers 30 % (95 % CI " in text
    assert zoom["sentence"].startswith("headroom of zoom over baseline: true boxes or masks as maps gain +19.")
    assert "; self maps +10.0, 51 % (95 % CI " in zoom["sentence"]
    assert "headroom of mask over baseline: none; even true boxes or masks as maps gain nothing" in mask["sentence"]


def test_without_headroom_better_maps_would_not_help() -> None:
    example = compared(("baseline", "mask", "oracle-mask"))
    assert "no headroom: even true boxes or masks as maps gain nothing (" in example["verdict"]["sentence"]
    assert "), so better maps would not help" in example["verdict"]["sentence"]
    # an oracle that may gain much is no evidence of that
    example = compared(("baseline", "mask", "oracle-mask"), noise=0.06)
    assert example["headroom"][0]["word"] == "not shown"
    assert "headroom is not shown: true boxes or masks as maps gain" in example["verdict"]["sentence"]


def test_the_oracle_as_primary_arm_is_compared_with_its_use() -> None:
    own = primary("oracle-zoom")
    text = compared(plan={"primary": own})["verdict"]["sentence"]
    assert "of which zoom recovers 30 %" in text
    assert "recovers" not in compared(plan={"primary": primary("zoom", "area")})["verdict"]["sentence"]
    alone = compared(("baseline", "oracle-zoom"))
    assert alone["headroom"][0]["use"] == "zoom"
    assert alone["headroom"][0]["others"] == []


def test_it_is_about_the_data_budget_of_the_primary_question() -> None:
    assert [row["setting"] for row in compared(settings=BUDGETS[-2:])["headroom"]] == [BUDGETS[-1]] * 2


@pytest.mark.parametrize(
    ("options", "word", "sentence"),
    [
        ({"folds": 3, "repeats": 1}, "underpowered", "underpowered, with 3 pairs of runs; true boxes"),
        ({"folds": 0, "repeats": 1}, "underpowered", "underpowered, with 1 pair of runs; true boxes"),
        ({"leaks": ["They leak."]}, "leak", "none is stated, because of a leak"),
        ({"plan": {"repeats": 5}}, "withheld", "withheld, since not all planned runs are finished"),
    ],
)
def test_where_there_is_no_verdict_there_is_no_headroom(options: dict[str, Any], word: str, sentence: str) -> None:
    example = compared(**options)
    row = example["headroom"][0]
    assert row["word"] == word
    assert sentence in row["sentence"]
    assert "of which zoom recovers" not in example["verdict"]["sentence"]


def test_on_the_shards_own_split_it_covers_images_and_seeds() -> None:
    example = compared(folds=0, repeats=7, noise=0.01)
    zoom = example["headroom"][0]
    contrasts = {(each["arm"], each["against"]): each["final"] for each in example["settings"][0]["contrasts"]}
    crossed = contrasts["oracle-zoom", "baseline"]["crossed"]
    assert (zoom["oracle"]["low"], zoom["oracle"]["high"]) == (crossed["low"], crossed["high"])


def test_without_an_oracle_there_is_no_headroom_and_no_figure() -> None:
    example = compared(("baseline", "zoom"))
    assert example["headroom"] == []
    assert headroom(from_json(Results, example)) is None
    # results of earlier versions have no entry for it
    del example["headroom"]
    assert from_json(Results, example).headroom == ()


def test_the_figure_has_a_bar_per_arm(example: dict[str, Any]) -> None:
    figure = headroom(from_json(Results, example))
    assert figure is not None
    (axes,) = figure.axes
    rows = [gain for row in example["headroom"] for gain in (*row["others"], row["oracle"])]
    assert [bar.get_width() for bar in axes.patches] == [gain["mean"] for gain in rows]
    assert [label.get_text() for label in axes.get_yticklabels()] == [gain["arm"] for gain in rows]
    assert len(COLORS) == 4


def test_the_page_shows_gains_and_shares(
    example: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "FIGURES", {})
    page = Page(write_report(tmp_path, from_json(Results, example), Costs({}), lambda key: None))
    words = " ".join(page.text.split())
    assert "Headroom: how much better maps could gain" in words
    assert "zoom vs. baseline: headroom 10 pairs" in words
    assert "mask vs. baseline: no headroom 10 pairs" in words
    assert f"{example['headroom'][1]['sentence']}." in words
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {"headroom.png", "headroom.svg"}
