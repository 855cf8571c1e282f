"""The frame of all pages: one base template and style sheet, escaped values, nothing from outside."""

import re
from pathlib import Path

import pytest
from jinja2 import UndefinedError

import saliency_pipeline
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.figures import pages
from tests.gallery.test_page import EVIL, Page

PACKAGE = Path(saliency_pipeline.__file__).parent
BASE = PACKAGE / "figures" / "base.html"
TEMPLATES = sorted(path for path in PACKAGE.rglob("*.html") if path != BASE)


def write(path: Path, **values: object) -> Page:
    return Page(pages.write_page(path, pages.environment("saliency_pipeline.gallery"), "base.html", **values))


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_every_page_extends_the_base(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    parent = re.match(r'{% extends "(.*)" %}\n', source)
    assert parent
    assert (path.parent / parent[1]) in TEMPLATES or parent[1] == BASE.name
    assert "<head" not in source
    assert "<body" not in source


@pytest.mark.parametrize("path", [BASE, *TEMPLATES, *PACKAGE.rglob("*.css")], ids=lambda path: path.name)
def test_no_template_refers_to_anything_outside(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert not re.search(r"https?:|//[a-z]|@import|url\((?!\{\{ \w+\.photo \}\})|fetch\(|XMLHttpRequest", source)
    assert set(re.findall(r'src="([^"]*)"', source)) <= set(re.findall(r'src="({{[^"]*}})"', source))


def test_the_base_forbids_scripts_and_requests(tmp_path: Path) -> None:
    page = write(tmp_path / "page.html", title="photos", facts=[("Images", "12")])
    (policy,) = [meta["content"] for meta in page.all("meta") if meta.get("http-equiv")]
    assert policy == (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
    )
    assert "photos Images 12" in page.text
    assert "prefers-color-scheme: dark" in page.source


@pytest.mark.parametrize("name", EVIL)
def test_values_are_escaped(tmp_path: Path, name: str) -> None:
    page = write(tmp_path / "page.html", title=name, facts=[(name, name)])
    assert page.text.count(" ".join(name.split())) == 3
    assert not page.all("script")
    assert not page.all("img")


def test_what_utf8_cannot_encode_is_replaced(tmp_path: Path) -> None:
    assert "a?b" in write(tmp_path / "page.html", title="a\ud800b", facts=[]).text


def test_a_missing_value_is_an_error_and_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(UndefinedError, match="facts"):
        write(tmp_path / "page.html", title="photos")
    assert list(tmp_path.iterdir()) == []


def test_a_page_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(SalpipeError, match=r"cannot write .*no/page\.html"):
        write(tmp_path / "no" / "page.html", title="photos", facts=[])


def test_counts_have_filters() -> None:
    template = pages.environment("saliency_pipeline.gallery", {"twice": lambda text: 2 * text}).from_string(
        '{{ 1 | plural("group") }}, {{ 1200 | plural("group") }}, {{ 1200 | thousands }}, {{ "a" | twice }}'
    )
    assert template.render() == "1 group, 1,200 groups, 1,200, aa"
