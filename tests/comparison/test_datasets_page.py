"""The page over data sets: complete, self-contained, escaped, and linked to each comparison's own."""

import csv
import re
from pathlib import Path

import pytest

from saliency_pipeline.comparison.datasets_page import forest, write_page
from saliency_pipeline.comparison.overall import Finished, overall
from saliency_pipeline.comparison.overall_results import OverallResults
from saliency_pipeline.comparison.results import Results
from saliency_pipeline.serialization import from_json
from tests.comparison.several import finished, over, results
from tests.gallery.test_page import EVIL, Page

EFFECTS = (0.03, 0.04, 0.035)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("page")
    write_page(place, overall([*finished(EFFECTS), left_out()], ["2 images are both in a and b"]))
    return place


@pytest.fixture(scope="module")
def page(folder: Path) -> Page:
    return Page(folder / "report.html")


def left_out() -> Finished:
    return Finished(
        "d", "../d/report.html", from_json(Results, results(0.0, 3, leaks=["maps show the image's own label."]))
    )


def test_the_verdict_comes_first_and_every_part_is_there(page: Page) -> None:
    words = page.text
    assert words.index("Across 3 data sets half: +3") < words.index("Warnings") < words.index("Data sets")
    for text in (
        "2 images are both in a and b",
        "Left out: d , leaks were accepted: maps show the image's own label.",
        "half vs. half-mismatched",
        "Contrasts over data sets",
        "Interquartile mean of the final accuracy",
        "How to read this",
        "half vs. baseline on <i>0</i>: undecided.",
    ):
        assert text in words, text


def test_each_data_set_links_to_its_own_report(page: Page) -> None:
    assert [link["href"] for link in page.all("a")] == [f"../{name}/report.html" for name in "abcd"]


def test_nothing_is_asked_of_the_network(page: Page) -> None:
    for tag, attribute in (("img", "src"), ("link", "href")):
        assert all((element[attribute] or "").startswith("data:") for element in page.all(tag))
    assert not page.all("script")
    assert not re.findall(r"url\((?!#)", page.source)
    (policy,) = [meta["content"] for meta in page.all("meta") if meta.get("http-equiv")]
    assert policy is not None
    assert policy.startswith("default-src 'none'")


@pytest.mark.parametrize("name", EVIL)
def test_names_are_text_wherever_they_stand(tmp_path: Path, name: str) -> None:
    each = [Finished(name, f"{name}/report.html", finished(EFFECTS)[0].results), *finished(EFFECTS)[1:]]
    page = Page(write_page(tmp_path, overall(each, [name])))
    assert not page.all("script")
    assert not page.all("i")
    assert not any("onerror" in attributes for _, attributes in page.elements)
    for link in page.all("a"):
        assert ":" not in (link["href"] or "")
    assert " ".join(name.split()) in page.text


def test_the_table_has_a_row_per_contrast_and_data_set(folder: Path) -> None:
    with open(folder / "results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["against"], row["dataset"]) for row in rows] == [
        (against, name) for against in ("baseline", "half-mismatched") for name in "abc"
    ]
    document = over(*EFFECTS)["questions"][0]["estimates"][1]
    for column in ("mean", "low", "high", "error", "shrunken"):
        assert float(rows[1][column]) == pytest.approx(document[column], rel=1e-5)


def test_the_forest_has_a_row_per_data_set_and_one_for_the_mean() -> None:
    def rows(document: dict[str, object]) -> list[str]:
        (axes,) = forest(from_json(OverallResults, document)).axes
        return [label.get_text() for label in axes.get_yticklabels()]

    assert rows(over(*EFFECTS)) == ["a", "b", "c", "mean over data sets"]
    assert rows(over(*EFFECTS[:2])) == ["a", "b"]
    (axes,) = forest(from_json(OverallResults, over(*EFFECTS))).axes
    low, high = axes.get_xlim()
    assert all(
        low < each[end] < high for each in over(*EFFECTS)["questions"][0]["estimates"] for end in ("low", "high")
    )


@pytest.mark.parametrize(
    "document",
    [
        over(*EFFECTS[:1]),
        over(*EFFECTS, leaks=["maps show the label."]),
        over(*EFFECTS, primary={"arm": "half", "against": "baseline", "measure": "speed", "setting": "all images"}),
        over(*EFFECTS, own_split=True),
    ],
    ids=["one", "none", "times", "own split"],
)
def test_other_results_have_a_page_as_well(tmp_path: Path, document: dict[str, object]) -> None:
    page = Page(write_page(tmp_path, from_json(OverallResults, document)))
    assert document["verdict"]["sentence"] in page.text  # type: ignore[index]
    assert not re.search(r"\bnan\b|\bNone\b|Undefined", page.text)
