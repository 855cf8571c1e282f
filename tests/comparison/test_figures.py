"""Figures of a comparison: which measures and rows they show, and where their texts are."""

from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from saliency_pipeline.comparison import report
from saliency_pipeline.comparison.figures import FIGURES, ReportFigure
from saliency_pipeline.comparison.results import Results
from saliency_pipeline.figures.plotting import new_figure
from saliency_pipeline.serialization import from_json
from tests.comparison.pages import ARMS, CLASSES, results, without_figures, written

EFFECT = {"half": 0.04}


def plotted(name: str, values: dict[str, Any]) -> Figure | None:
    """A figure of the first setting of some results."""
    content = from_json(Results, values)
    return FIGURES[name].plot(content, content.settings[0])


@pytest.mark.parametrize(
    ("threshold", "label"),
    [
        ({"value": 0.66, "fixed": True}, "threshold chosen as an option"),
        ({"value": 0.66, "fixed": False}, "descriptive threshold (95 % of the reference's median)"),
    ],
)
def test_the_threshold_is_called_fixed_or_descriptive_beside_the_curves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threshold: dict[str, Any], label: str
) -> None:
    values = results()
    values["settings"][0]["threshold"] = threshold
    figure = plotted("first-epochs", values)
    assert figure is not None
    (axes,) = figure.axes
    (text,) = axes.texts
    assert " ".join(text.get_text().split()) == label.replace(" (", " 66.0 % (") + (
        " 66.0 %" if threshold["fixed"] else ""
    )
    figure.draw_without_rendering()
    # it would cross the curves within the panel, and be cut off beyond the figure
    panel, place = axes.get_window_extent(), text.get_window_extent()
    assert place.x0 >= panel.x1
    assert place.x1 <= figure.bbox.x1
    assert label in without_figures(tmp_path, values, monkeypatch).text


@pytest.mark.parametrize("name", ["paired-differences", "forest"])
def test_differences_have_three_measures_in_rows_by_role(name: str) -> None:
    values = results(effects=EFFECT)
    figure = plotted(name, values)
    assert figure is not None
    assert [axes.get_title(loc="left") for axes in figure.axes] == [
        "final accuracy, points",
        "first epochs, points",
        "time to 95 % of its own\nfinal accuracy, epochs",
    ]
    rows = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert rows[0] == "half\n− baseline"
    assert rows[-1] == "neutral-mismatched\n− baseline"
    assert len(rows) == 8


def test_of_many_classes_the_figure_shows_some(tmp_path: Path) -> None:
    classes = (*CLASSES, *(f"class {number}" for number in range(400)))
    values = results(classes=classes, folds=2, repeats=1)
    figure = plotted("confusion", values)
    assert figure is not None
    assert figure.axes[0].get_title(loc="left") == "80 of 403 classes: those confused most"


def test_long_names_keep_their_end_in_figures() -> None:
    name = "a-candidate-with-a-name-of-many-letters"
    arms = (
        ARMS[0],
        (name, "candidate", ""),
        (f"{name}-mismatched", "control", name),
        (f"{name}-uniform", "control", name),
    )
    values = results(arms=arms)
    figure = plotted("final-accuracies", values)
    assert figure is not None
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert len(set(labels)) == 4
    assert all(len(label) <= 28 for label in labels)
    assert labels[2].endswith("-mismatched")


@pytest.mark.parametrize("detail", [False, True])
def test_an_entry_in_the_list_is_all_that_a_figure_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, detail: bool
) -> None:
    def plot(results: Any, setting: Any) -> Figure:
        figure = new_figure(2, 2)
        figure.suptitle("<evil>")
        return figure

    entries = {
        "mine": ReportFigure(plot, "My <title>", "Of {{ setting.name }}, {{ threshold }}.", detail, "square"),
        "nothing": ReportFigure(lambda results, setting: None, "No figure", "{{ no.such.value }}"),
    }
    monkeypatch.setattr(report, "FIGURES", entries)
    page = written(tmp_path, results())
    assert [image["alt"] for image in page.all("img") if image["alt"] == "My <title>"] == ["My <title>"]
    assert len(page.all("figure", class_="square")) == 1
    assert "My <title> Of all images, descriptive threshold (95 % of the reference's median)." in page.text
    assert (page.text.index("My <title>") > page.text.index("Arms in detail")) is detail
    assert "No figure" not in page.text
    assert sorted(path.name for path in (tmp_path / "figures").iterdir()) == ["mine.png", "mine.svg"]


def test_captions_escape_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = ReportFigure(lambda results, setting: new_figure(2, 2), "Mine", "Of {{ setting.name }}.")
    monkeypatch.setattr(report, "FIGURES", {"mine": entry})
    values = results()
    values["settings"][0]["name"] = "<b>&"
    page = written(tmp_path, values)
    assert "Mine Of <b>&." in page.text
    assert not page.all("b")
