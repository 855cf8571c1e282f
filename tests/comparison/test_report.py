"""The page of a comparison: complete, self-contained, escaped, the same every time, and fit for a telephone."""

import csv
import dataclasses
import io
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from saliency_pipeline.comparison.analysis import analyse
from saliency_pipeline.comparison.arms import choose_arms
from saliency_pipeline.comparison.figures import FIGURES, confusion
from saliency_pipeline.comparison.report import write_report
from tests.comparison.examples import CLASSES, IMAGES, results, runs
from tests.gallery.test_page import Page
from tests.gallery.test_show import CHROMIUM

EFFECT = {"half": 0.04}


def picture(key: str) -> tuple[bytes, bytes] | None:
    file = io.BytesIO()
    Image.new("RGB", (32, 32), (90, 120, 160)).save(file, "JPEG")
    return file.getvalue(), file.getvalue()


def costs(told: dict[str, Any]) -> dict[str, Any]:
    paid = {
        arm["name"]: {"runs": 10, "seconds": 24.0, "seconds_per_epoch": 2.0, "reads_maps": arm["name"] != "baseline"}
        for arm in told["arms"]
    }
    return {"settings": {s["name"]: paid for s in told["settings"]}, "maps": {"images": 300, "seconds": 3.0}}


def written(folder: Path, told: dict[str, Any]) -> Page:
    return Page(write_report(folder, told, costs(told), picture))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("report")


@pytest.fixture(scope="module")
def page(folder: Path) -> Page:
    """The page of one setting, and beside it in `folder` what belongs to it."""
    return written(folder, results(effects=EFFECT))


@pytest.fixture(scope="module")
def budgets(tmp_path_factory: pytest.TempPathFactory) -> tuple[Page, Path]:
    """The page of two settings, and its folder."""
    place = tmp_path_factory.mktemp("budgets")
    return written(place, results(effects=EFFECT, settings=("5 per class", "all images"))), place


def test_the_verdict_comes_first_and_every_part_is_there(page: Page, folder: Path) -> None:
    told = results(effects=EFFECT)
    words = page.text
    assert words.index(told["verdict"]["sentence"]) < words.index("Learning curves")
    for title in (
        "To be kept in mind",
        "The first epochs",
        "Paired differences",
        "95 % intervals",
        "Contrasts",
        "Final accuracies",
        "Epochs to the threshold",
        "Over-fitting",
        "Per class",
        "Confusion",
        "What it cost",
        "Where the arms disagree",
        "How to read this",
        "Provenance",
    ):
        assert title in words, title
    assert {path.name for path in (folder / "figures").iterdir()} == {
        f"{name}.{ending}" for name in FIGURES for ending in ("png", "svg")
    }
    for contrast in told["settings"][0]["contrasts"]:
        assert f"{contrast['arm']} − {contrast['against']}" in words


def test_a_difference_that_is_there_is_found_and_one_that_is_not_is_not() -> None:
    assert results(effects=EFFECT)["verdict"]["word"] == "better"
    assert "where the maps point did help" in results(effects=EFFECT)["verdict"]["sentence"]
    both = results(effects={"half": 0.04, "half-mismatched": 0.04, "half-center-prior": 0.04})["verdict"]
    assert both["word"] == "better"
    assert "may not be where the maps point that helped" in both["sentence"]
    assert results()["verdict"]["word"] in ("undecided", "equivalent")
    assert results(effects={"half": -0.05})["verdict"]["word"] == "worse"


@pytest.mark.usefixtures("page")
def test_the_same_results_give_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    told = results(effects=EFFECT)
    write_report(tmp_path, json.loads(json.dumps(told)), costs(told), picture)
    files = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*.*"))
    assert len(files) == 2 + 2 * len(FIGURES)
    for name in files:
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes(), name


@pytest.mark.usefixtures("page")
def test_the_table_holds_every_run(folder: Path) -> None:
    told = results(effects=EFFECT)
    with open(folder / "results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    runs = [(name, run) for name, arm in told["settings"][0]["arms"].items() for run in arm["runs"]]
    assert len(rows) == len(runs) == 40
    for row, (name, run) in zip(rows, runs, strict=True):
        assert (row["arm"], int(row["seed"]), int(row["fold"])) == (name, run["seed"], run["fold"])
        assert float(row["final"]) == pytest.approx(run["final"], rel=1e-5)


def test_names_are_text_wherever_they_stand(page: Page) -> None:
    assert not page.all("b")
    assert not page.all("i")
    assert not page.all("u")
    assert "<b>shirt</b>" in page.text
    assert "<u>2 images</u> are copies" in page.text
    assert "<i>efficientnet</i>" in page.text


def test_nothing_is_asked_of_the_network(budgets: tuple[Page, Path]) -> None:
    page, folder = budgets
    for tag, attribute in (("img", "src"), ("link", "href")):
        assert all((element[attribute] or "").startswith("data:") for element in page.all(tag))
    assert not page.all("script")
    assert not re.findall(r"url\((?!#)", page.source)
    assert "Accuracy by data budget" in page.text
    assert (folder / "figures" / "final-by-setting.svg").exists()
    assert (folder / "figures" / "forest-5-a-class.png").exists()


@pytest.mark.parametrize(
    "options",
    [
        {"folds": 0, "repeats": 1},
        pytest.param({"folds": 2, "repeats": 1}, marks=pytest.mark.slow),
        pytest.param({"answered": False}, marks=pytest.mark.slow),
        pytest.param({"names": ("baseline", "half")}, marks=pytest.mark.slow),
        pytest.param({"names": ("half", "input")}, marks=pytest.mark.slow),
        {"epochs": 1},
    ],
)
def test_what_is_not_known_is_left_out(tmp_path: Path, options: dict[str, Any]) -> None:
    told = results(**options)
    page = Page(write_report(tmp_path, told, {"settings": {}, "maps": None}, lambda key: None))
    assert told["verdict"]["sentence"] in page.text
    assert "What it cost" not in page.text
    assert ("McNemar" in page.text) == (options == {"folds": 0, "repeats": 1})
    assert ("Confusion" in page.text) == ("answered" not in options)


MEASURE = """<script>
const outside = [...document.querySelectorAll("body *")].filter(element =>
  element.getBoundingClientRect().right > WIDTH + 1 && !element.closest(".scroll, figure, pre"));
document.body.dataset.seen = JSON.stringify(
  {title: document.title, outside: outside.map(element => element.outerHTML.slice(0, 80)),
   broken: [...document.images].filter(image => !image.naturalWidth).length});
</script></body>"""


if CHROMIUM:  # pages are checked by parsing them in any case

    @pytest.mark.parametrize("width", [1280, 400])
    def test_it_fits_the_window_and_the_console_is_silent(
        budgets: tuple[Page, Path], tmp_path: Path, width: int
    ) -> None:
        source = budgets[0].source.replace("style-src", "script-src 'unsafe-inline'; style-src")
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
        assert seen == {"title": "Did saliency help? · salpipe comparison", "outside": [], "broken": 0}


def test_of_many_classes_the_results_hold_pairs_and_the_figure_shows_some(tmp_path: Path) -> None:
    classes = (*CLASSES, *(f"class {number}" for number in range(400)))
    arms = choose_arms(())
    told = analyse(runs(arms, folds=2, repeats=1), arms, ("all images",), classes, about={})
    setting = told["settings"][0]
    matrix = setting["confusion"]["matrix"]
    assert set(matrix) == {"true", "answered", "images"}
    assert sum(matrix["images"]) == IMAGES
    assert len(json.dumps(setting["confusion"])) < 500
    figure = confusion(told, setting)
    assert figure is not None
    assert figure.axes[0].get_title(loc="left") == "80 of 403 classes: those confused most"
    assert {label.get_text() for label in figure.axes[0].get_yticklabels()} >= {"dress", "hat"}


def test_one_run_has_no_standard_deviation(tmp_path: Path) -> None:
    told = results(folds=0, repeats=1)
    arm = told["settings"][0]["arms"]["baseline"]
    assert arm["final"]["sd"] is None
    page = write_report(tmp_path, told, costs(told), picture).read_text(encoding="utf-8")
    assert f"<td>{arm['final']['mean']:.1%}</td><td>–</td>" in page


def test_runs_that_are_all_alike_still_have_intervals() -> None:
    arms = choose_arms(())
    first = runs(arms[:1], folds=5, repeats=2)
    alike = [dataclasses.replace(run, arm=arms[1].name) for run in first]
    told = analyse([*first, *alike], arms[:2], ("all images",), CLASSES, about={})["settings"][0]["contrasts"][0]
    for measure in ("final", "area"):
        found = told[measure]["statistics"]
        assert (found["mean"], found["p"]) == (0, 1)
        assert found["low"] < 0 < found["high"]
        assert told[measure]["verdict"] == "no difference"


def test_names_that_utf8_cannot_hold_or_that_turn_the_direction_stay_by_themselves(tmp_path: Path) -> None:
    told = results(effects=EFFECT)
    told["settings"][0]["disagreements"][0] |= {"label": "\ud800", "key": "\u202egpj.exe", "said_arm": "'><script>"}
    text = write_report(tmp_path, told, costs(told), picture).read_text(encoding="utf-8")
    for name in ("?", "\u202egpj.exe", "&#39;&gt;&lt;script&gt;"):
        assert re.search(rf"<bdi[^>]*>{re.escape(name)}</bdi>", text)
