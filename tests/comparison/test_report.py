"""The page of a comparison: complete, self-contained, escaped, the same every time, and readable on a telephone."""

import csv
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from saliency_pipeline.comparison.costs import Costs
from saliency_pipeline.comparison.figures import FIGURES
from saliency_pipeline.comparison.report import write_report
from saliency_pipeline.comparison.results import Results
from saliency_pipeline.serialization import from_json
from tests.comparison.pages import ARMS, CLASSES, results, without_figures, written
from tests.gallery.test_page import Page
from tests.gallery.test_show import CHROMIUM

EFFECT = {"half": 0.04}
TUNING = {
    "lrs": [0.0001, 0.0005],
    "runs": 120,
    "chosen": {"all images": {arm: {"0.0001": 3, "0.0005": 7} for arm, *_ in ARMS}},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("report")


@pytest.fixture(scope="module")
def page(folder: Path) -> Page:
    """The page of one setting; its files are in `folder`."""
    return written(folder, results(effects=EFFECT))


@pytest.fixture(scope="module")
def budgets(tmp_path_factory: pytest.TempPathFactory) -> tuple[Page, Path]:
    """The page of two settings with all optional parts, and its folder."""
    place = tmp_path_factory.mktemp("budgets")
    looks = {
        "planned": 4,
        "made": [
            {"repeats": 1, "pairs": 5, "fraction": 0.625, "level": 0.0021, "p": 0.2, "decided": False},
            {"repeats": 2, "pairs": 10, "fraction": 0.811, "level": 0.0244, "p": 0.012, "decided": True},
        ],
    }
    changes: dict[str, Any] = {
        "settings": ("5 per class", "all images"),
        "looks": looks,
        "tuning": TUNING | {"diverged": 2},
        "maps": [
            {"class": CLASSES[2], "images": 80, "zero": 0.125, "constant": 0.25},
            {"class": CLASSES[0], "images": 80, "zero": 0.0, "constant": 0.0},
            {"class": CLASSES[1], "images": 0, "zero": None, "constant": None},
        ],
        "duplicates": {"searched": True, "images": 12, "groups": 1, "by": "level"},
        "runs": {"finished": 118, "planned": 120},
    }
    return written(place, results(effects=EFFECT, **changes), tuned=True), place


def test_the_verdict_is_first_and_every_part_follows_in_order(page: Page, folder: Path) -> None:
    values = results(effects=EFFECT)
    words, place = page.text, 0
    for title in (
        values["verdict"]["sentence"],
        values["verdict"]["details"][0],
        "Warnings",
        "Primary question, fixed in the plan: final accuracy of half vs. baseline, all images",
        "Learning curves",
        "First epochs",
        "Paired differences",
        "Differences with 95 % intervals",
        "Contrasts",
        "Candidates vs. the reference",
        "Candidates vs. their own controls",
        "Descriptive, without a verdict",
        "Initial networks",
        "Maps and duplicates",
        "Learning rates",
        "Arms in detail",
        "Final accuracies",
        "Epochs to the threshold",
        "Over-fitting",
        "Per class",
        "Confusion",
        "Costs",
        "Where the arms disagree",
        "How to read this",
        "Provenance",
    ):
        assert title in words[place:], title
        place = words.index(title, place)
    assert {path.name for path in (folder / "figures").iterdir()} == {
        f"{name}.{ending}" for name in FIGURES for ending in ("png", "svg")
    }
    for contrast in values["settings"][0]["contrasts"]:
        assert f"{contrast['arm']} − {contrast['against']}" in words


def test_contrasts_are_grouped_by_role_and_descriptive_ones_have_no_verdict(page: Page) -> None:
    words = page.text
    reference, rest = words.split("Candidates vs. the reference", 1)[1].split("Candidates vs. their own controls", 1)
    own, rest = rest.split("Descriptive, without a verdict", 1)
    descriptive = rest.split("Are the arms comparable?", 1)[0]
    assert "half − baseline" in reference
    assert "half − half-mismatched" in own
    assert "neutral − half-mismatched" not in words
    assert "half-mismatched − baseline" in descriptive
    for column in ("level used", "adjusted p", "verdict", "detectable", "pairs needed"):
        assert column in reference
        assert column in own
        assert column not in descriptive.split("measure", 1)[1]
    assert reference.count("primary question") == 1
    for name in ("P(A > B)", "95 % CI", "worse / same / better"):
        assert name in reference
        assert name in descriptive


def test_the_family_is_counted_and_the_measures_have_their_units(page: Page) -> None:
    # five contrasts with a verdict x three measures, less the primary question
    assert "Holm's over the family of 14 secondary tests" in page.text
    assert "within ±1.0 points, for the time within ±1 epoch" in page.text
    speed = results(effects=EFFECT)["settings"][0]["contrasts"][0]["speed"]["statistics"]
    row = page.source.split("<td>time to 95 %</td>")[1].split("</tr>")[0]
    assert f"<td>{speed['mean']:+.2f}</td>".replace("-", "−") in row


def test_looks_starts_maps_duplicates_and_tuning_are_shown(budgets: tuple[Page, Path]) -> None:
    words = budgets[0].text
    assert "4 looks are planned, 2 made" in words
    assert "1 of 4 1 5 62.5 % 0.0021 0.200 no 2 of 4 2 10 81.1 % 0.0244 0.012 yes" in words
    assert "118 of 120 runs required for this look are finished" in words
    assert "half 0.62 0.50 0.56 0.43 neutral 0 0 0 0" in words
    assert "1 of 3 classes have maps that are all zero or constant" in words
    assert "<b>shirt</b> 80 12.5 % 25.0 %" in words
    assert "12 images in 1 group are kept in the same fold" in words
    assert "kept together by group: level" in words
    assert "120 runs were used for tuning, 2 of which diverged" in words
    assert "half 3 7" in words
    assert "tuning, all its runs" in words
    assert "1.0 min" not in words
    assert "60.0 s (6 runs)" in words


def test_without_a_search_the_page_says_that_folds_may_share_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    duplicates = {"searched": False, "images": 0, "groups": 0, "by": None}
    words = without_figures(tmp_path, results(duplicates=duplicates), monkeypatch).text
    assert "Near duplicates were not searched for: folds may share images." in words
    assert "None of the 300 maps is all zero or constant." in words


def test_a_leak_is_a_banner_above_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reasons = ["the maps were made for the label of each image.", "<i>31</i> images trained the source network."]
    values = results(leaks=reasons)
    for contrast in values["settings"][0]["contrasts"]:
        for measure in ("final", "area", "speed"):
            contrast[measure]["verdict"] = "leak"
    page = without_figures(tmp_path, values, monkeypatch)
    (banner,) = page.all("section", role="alert")
    assert banner["class"] == "leak"
    words = page.text
    for reason in reasons:
        assert words.index(f"No verdict: {reason}") < words.index(values["verdict"]["sentence"])
    assert "none: leak" in words
    assert not page.all("i")


def test_the_quality_of_the_maps_is_shown_beside_their_floor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = {"title": "SRG", "images": 100, "low": 0.21, "high": 0.25, "floor": 0.05}
    quality = [
        {"method": "<i>cam", **own, "mean": 0.2345, "beats": True},
        {"method": "edges", **own, "mean": None, "low": None, "high": None, "images": 0, "beats": None},
    ]
    page = without_figures(tmp_path, results(quality=quality), monkeypatch)
    assert "The maps themselves" in page.text
    assert "<i>cam SRG 100 0.234 0.210 to 0.250 0.050 yes" in " ".join(page.text.split())
    assert "edges SRG 0 – – 0.050 –" in " ".join(page.text.split())
    assert "The maps themselves" not in without_figures(tmp_path, results(), monkeypatch).text


def test_the_shards_own_split_is_named_in_every_verdict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = results(folds=0, repeats=8)
    page = without_figures(tmp_path, values, monkeypatch)
    assert "every verdict holds on this split only" in page.text
    assert "undecided on this split" in page.text
    assert "8 seeds × 60 images" in page.text
    # the interval of images x seeds, not that of the seeds alone
    row = page.source.split("<td>final accuracy</td>")[1]
    assert row.index("−2.0 to +3.0") < row.index("</tr>")


def test_unfinished_runs_withhold_the_verdict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = results()
    values["settings"][0]["completed"] = False
    values["settings"][0]["contrasts"][0]["final"] |= {"verdict": "withheld", "p_adjusted": None}
    words = without_figures(tmp_path, values, monkeypatch).text
    assert "Not all planned runs are finished: verdicts that need them are withheld." in words
    assert "withheld primary question" in words


def test_runs_without_a_plan_have_no_planned_question(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = without_figures(tmp_path, results(about={"runs": ["a", "b"]}), monkeypatch).text
    assert "Primary question: final accuracy of half" in words
    assert "fixed in the plan" not in words


@pytest.mark.usefixtures("page")
def test_the_same_results_give_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    values = results(effects=EFFECT)
    written(tmp_path, json.loads(json.dumps(values)))
    files = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*.*"))
    assert len(files) == 2 + 2 * len(FIGURES)
    for name in files:
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes(), name


@pytest.mark.usefixtures("page")
def test_the_table_has_a_line_per_run(folder: Path) -> None:
    arms = results(effects=EFFECT)["settings"][0]["arms"]
    with open(folder / "results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    runs = [(name, run) for name, arm in arms.items() for run in arm["runs"]]
    assert len(rows) == len(runs) == 60
    for row, (name, run) in zip(rows, runs, strict=True):
        assert (row["arm"], int(row["seed"]), int(row["fold"])) == (name, run["seed"], run["fold"])
        assert int(row["epochs_trained"]) == 12
        for column in ("final", "time", "area"):
            assert float(row[column]) == pytest.approx(run[column], rel=1e-5)


def test_names_are_text_wherever_they_are(page: Page) -> None:
    for tag in ("b", "i", "u"):
        assert not page.all(tag)
    assert "<b>shirt</b>" in page.text
    assert "<u>2 images</u> are copies" in page.text
    assert "<i>efficientnet</i>" in page.text


def test_nothing_is_requested_from_the_network(budgets: tuple[Page, Path]) -> None:
    page, folder = budgets
    for tag, attribute in (("img", "src"), ("link", "href")):
        assert all((element[attribute] or "").startswith("data:") for element in page.all(tag))
    assert not page.all("script")
    assert not re.findall(r"url\((?!#)", page.source)
    assert "Accuracy by data budget" in page.text
    assert (folder / "figures" / "final-by-setting.svg").exists()
    assert (folder / "figures" / "forest-5-per-class.png").exists()


@pytest.mark.parametrize(
    "options",
    [
        {"folds": 0, "repeats": 1},
        pytest.param({"arms": ARMS[:2]}, marks=pytest.mark.slow),
        {"epochs": 1, "primary": None, "maps": None, "duplicates": None, "starts": {}},
    ],
)
def test_what_is_missing_is_left_out(tmp_path: Path, options: dict[str, Any]) -> None:
    values = results(**options)
    values["settings"][0] |= {"confusion": None, "disagreements": []}
    page = Page(write_report(tmp_path, from_json(Results, values), Costs({}), lambda key: None))
    assert values["verdict"]["sentence"] in page.text
    assert "Costs" not in page.text
    assert ("McNemar" in page.text) == (options == {"folds": 0, "repeats": 1})
    assert "Confusion" not in page.text
    assert ("do not record how far their initial networks are" in page.text) == ("starts" in options)


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


def test_one_run_has_no_standard_deviation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = results(folds=0, repeats=1)
    arm = values["settings"][0]["arms"]["baseline"]
    assert arm["final"]["sd"] is None
    assert (
        f"<td>{100 * arm['final']['mean']:.1f} %</td><td>–</td>"
        in without_figures(tmp_path, values, monkeypatch).source
    )


def test_names_that_utf8_cannot_hold_or_that_turn_the_direction_are_isolated(tmp_path: Path) -> None:
    values = results(effects=EFFECT)
    values["settings"][0]["disagreements"][0] |= {
        "label": "\ud800",
        "key": "\u202egpj.exe",
        "predicted_arm": "'><script>",
    }
    written(tmp_path, values)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    for name in ("?", "\u202egpj.exe", "&#39;&gt;&lt;script&gt;"):
        assert re.search(rf"<bdi[^>]*>{re.escape(name)}</bdi>", text)


def test_a_setting_of_any_name_stays_in_the_folder(tmp_path: Path) -> None:
    written(tmp_path / "out", results(settings=("../../odd", "all images"), folds=2, repeats=1))
    assert {path.name for path in tmp_path.iterdir()} == {"out"}
    assert (tmp_path / "out" / "figures" / "forest-..-..-odd.png").exists()
