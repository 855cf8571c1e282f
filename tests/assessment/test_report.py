"""The page of an assessment: complete, self-contained, escaped, the same every time, and readable on a telephone."""

import itertools
import json
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from saliency_pipeline.assessment import report
from saliency_pipeline.assessment.figures import curve_panels, quality_and_cost
from saliency_pipeline.assessment.measured import Measured
from saliency_pipeline.assessment.report import write_report
from saliency_pipeline.assessment.results import Results, write_results
from saliency_pipeline.assessment.summary import summarize
from saliency_pipeline.figures.pictures import jpeg
from saliency_pipeline.figures.plotting import BLUE
from saliency_pipeline.serialization import from_json
from tests.assessment.made_up import METHODS, Deletion, assessed, measured, random_assessment
from tests.comparison.test_report import MEASURE
from tests.gallery.test_page import Page
from tests.gallery.test_show import CHROMIUM

HOSTILE = '<script>alert("x")</script>'
PHOTO = jpeg(np.full((8, 8, 3), 99, np.uint8))


def pictures(key: str, method: str) -> tuple[bytes, bytes] | None:
    return None if method == "given" else (PHOTO, PHOTO)


def hostile() -> Measured:
    """An assessment with markup in every name, and a method that is no better than center-prior."""
    source = random_assessment((*METHODS, HOSTILE), notes=(f"infidelity: {HOSTILE}",), classes=("<b>cat</b>", "dog"))
    values = {name: dict(own) for name, own in source.values.items()}
    values[HOSTILE]["srg"] = values["center-prior"]["srg"] + np.linspace(-0.01, 0.01, 60)
    values["layercam"]["srg"] = values["gradcam:relu=true"]["srg"] + np.linspace(-0.011, 0.01, 60)
    methods = tuple(replace(each, cost=None) if each.name == "given" else each for each in source.methods)
    keys = [f"{HOSTILE}/{key}" for key in source.keys]
    return replace(
        source, values=values, keys=keys, methods=methods, about={"facts": [["Network", HOSTILE], ["Layer", "layer4"]]}
    )


@pytest.fixture(scope="module")
def results() -> Results:
    return summarize(hostile())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("report")


@pytest.fixture(scope="module")
def page(folder: Path, results: Results) -> Page:
    return Page(write_report(folder, results, pictures))


def without_figures(folder: Path, results: Results, monkeypatch: pytest.MonkeyPatch) -> Page:
    """The page alone, which takes a tenth of the time."""
    monkeypatch.setattr(report, "curve_panels", lambda *_: None)
    monkeypatch.setattr(report, "quality_and_cost", lambda *_: None)
    return Page(write_report(folder, results, pictures))


def test_the_verdict_is_first_and_every_part_follows_in_order(page: Page, folder: Path, results: Results) -> None:
    words, place = page.text, 0
    for title in (
        results.verdict,
        "Notes",
        "Ranking by SRG",
        "Further columns",
        "Quality against cost",
        "Without a known cost: given.",
        "Deletion",
        "Best and worst images",
        "Pairwise comparisons",
        "Metrics",
        "pointing:tolerance=15",
        "How to read this",
        "Provenance",
    ):
        assert title in words[place:], title
        place = words.index(title, place)
    names = {path.name for path in (folder / "figures").iterdir()}
    assert names == {f"{name}.{ending}" for name in ("quality-and-cost", "deletion-curve") for ending in ("png", "svg")}


def test_a_method_that_does_not_beat_center_prior_is_said_not_to(page: Page, results: Results) -> None:
    assert results.verdict.startswith("gradcam ranks first in SRG (")
    assert "; layercam cannot be distinguished from it; " in results.verdict
    assert results.verdict.endswith(f"; {HOSTILE} does not beat center-prior.")
    (row,) = re.findall(r"<tr[^>]*><td>\d*</td><th[^>]*><bdi>&lt;script.*?</tr>", page.source, re.DOTALL)
    assert "†" in row.split("</td>")[1]


def test_floors_are_always_in_the_table_and_apart(page: Page, results: Results) -> None:
    ranking = page.source.split("Further columns")[0]
    rows = re.findall(r'<tr class="floor">.*?</tr>', ranking, re.DOTALL)
    assert [re.findall(r"<bdi>(.*?)</bdi>", row)[0] for row in rows] == [
        each.method for each in results.ranking if results.method(each.method).floor
    ]
    assert len(rows) == 3
    assert all('<span class="tag">floor</span>' in row and "†" not in row for row in rows)


def test_the_table_has_the_values_and_marks_the_leading_methods(page: Page, results: Results) -> None:
    ranking = page.source.split("Further columns")[0]
    leading = re.findall(r'<tr class="leading"><td>(\d)</td>', ranking)
    assert leading == ["1", "2"]
    estimate = results.method("gradcam:relu=true").columns["srg"]
    assert estimate.low is not None
    assert estimate.high is not None
    shown = f"{estimate.mean:.3f}<small>{estimate.low:.3f} to {estimate.high:.3f}</small>"
    assert f'<td class="headline lead">{shown}</td>' in ranking.replace("\n", "")
    assert "SRG&nbsp;↑" in ranking
    assert "Deletion&nbsp;↓" in ranking
    pointing = results.method("given").columns["pointing"]
    assert f"classes {pointing.class_mean:.3f}" in page.text
    first = results.contrasts["srg"][0]
    assert f"{first.wins} / {first.losses} / {first.ties}" in page.text


def test_names_are_text_wherever_they_are(page: Page) -> None:
    assert not page.all("script")
    assert not page.all("b")
    assert f"infidelity: {HOSTILE}" in page.text
    assert "<b>cat</b>" in page.text
    assert "0 < p <= 1" in page.text


def test_nothing_is_requested_from_the_network(page: Page) -> None:
    for tag, attribute in (("img", "src"), ("link", "href")):
        assert all((element[attribute] or "").startswith("data:") for element in page.all(tag))
    assert not re.findall(r"url\((?!#)", page.source)


def test_best_and_worst_images_have_pictures_where_there_are_any(page: Page) -> None:
    photos = [image for image in page.all("img") if (image["alt"] or "").startswith("photo ")]
    assert len(photos) == 5 * 4
    assert len(page.all("div", class_="example")) == 6 * 4


@pytest.mark.usefixtures("page")
def test_results_that_are_read_back_give_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    source = hostile()
    write_results(tmp_path, summarize(source), source)
    stored = json.loads((tmp_path / "assess.json").read_text())
    (tmp_path / "assess.json").unlink()
    (tmp_path / "per-image.csv").unlink()
    write_report(tmp_path, from_json(Results, stored), pictures)
    files = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*.*"))
    assert len(files) == 5
    for name in files:
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes(), name


def test_one_image_and_a_method_without_values(tmp_path: Path) -> None:
    values = {name: {"srg": [0.5], "pointing": [1.0]} for name in ("gradcam", "none", "center-prior")}
    values["none"] = {"srg": [np.nan]}
    curves = {name: {"deletion-curve": np.full((1, 11), np.nan if name == "none" else 0.1)} for name in values}
    source = measured(values, curves=curves, labels=np.array([-1]))
    page = Page(write_report(tmp_path, summarize(source), lambda *_: None))
    assert "gradcam is the only method that can be ranked by SRG (0.500 [" in page.text
    assert "1 image is too few to show any difference" in page.text
    assert len(page.all("img")) == 2


def test_without_a_direction_there_is_no_ranking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = without_figures(tmp_path, summarize(measured({"gradcam": {"sparseness": [0.5, 0.6]}})), monkeypatch)
    assert "No method can be ranked" in page.text
    assert "Best and worst images" not in page.text
    assert not page.all("img")


def test_figures_plot_the_results(results: Results) -> None:
    figure = quality_and_cost(results)
    assert figure is not None
    (axes,) = figure.axes
    plotted = {tuple(np.ravel(line.get_xydata()).tolist()) for line in axes.lines if line.get_marker() == "o"}
    assert (3.0, results.method("layercam").columns["srg"].mean) in plotted
    assert len(plotted) == 5
    metric = results.metrics[2]
    figure = curve_panels(results, metric, metric.curves[0])
    assert figure is not None
    first = figure.axes[0]
    (line,) = (line for line in first.lines if line.get_color() == BLUE)
    assert line.get_ydata() == pytest.approx(results.method("gradcam:relu=true").curves["deletion-curve"].mean)
    assert [axes.get_title(loc="left") for axes in figure.axes[:3]] == ["gradcam", "layercam", "smoothgrad\nnoise=0.15"]
    assert quality_and_cost(replace(results, headline=None)) is None


def test_labels_of_many_methods_do_not_cover_each_other() -> None:
    names = [f"a-method-with-a-long-name-{number}" for number in range(14)]
    random = np.random.default_rng(0)
    values = {name: {"deletion": 0.5 + 0.02 * random.random() + 0.01 * random.random(30)} for name in names}
    methods = tuple(replace(assessed(name), cost=3.0 if i < 10 else 5.0) for i, name in enumerate(names))
    figure = quality_and_cost(summarize(measured(values, metrics=(Deletion(),), methods=methods)))
    assert figure is not None
    FigureCanvasAgg(figure).draw()
    assert len(figure.axes[0].texts) == 14
    for one, other in itertools.combinations(figure.axes[0].texts, 2):
        # without the lines to their points
        first, second = (Text.get_window_extent(text) for text in (one, other))
        assert not first.overlaps(second), (one.get_text(), other.get_text())


if CHROMIUM:  # pages are checked by parsing them in any case

    @pytest.mark.parametrize("width", [1280, 400])
    def test_it_fits_the_window_and_the_console_is_silent(page: Page, tmp_path: Path, width: int) -> None:
        source = page.source.replace("style-src", "script-src 'unsafe-inline'; style-src")
        # a window is never as narrow as a telephone
        source = source.replace("<style>", f"<style>html {{ width: {width}px }}")
        acted = tmp_path / "acted.html"
        acted.write_text(source.replace("</body>", MEASURE.replace("WIDTH", str(width))), encoding="utf-8")
        command = [
            *(str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
            *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
            *("--disable-dev-shm-usage", f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},1000"),
            *("--enable-logging=stderr", "--dump-dom", acted.as_uri()),
        ]
        result = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=120)
        assert result.returncode == 0, result.stderr
        assert "CONSOLE" not in result.stderr
        dom = tmp_path / "dom.html"
        dom.write_text(result.stdout, encoding="utf-8")
        (body,) = Page(dom).all("body")
        seen = json.loads(body["data-seen"] or "{}")
        assert seen == {"title": "Are the maps any good? · salpipe assessment", "outside": [], "broken": 0}
