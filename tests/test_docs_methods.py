"""The pages on methods: every method has a section, a picture and a row, with the parameters and costs of the code."""

import re
from pathlib import Path

import pytest
from PIL import Image

from saliency_pipeline.saliency.methods.cam import LINEAR_HEAD
from saliency_pipeline.saliency.methods.listing import MethodInfo, list_methods

DOCS = Path(__file__).parents[1] / "docs"
FAMILIES = ("cam", "gradient", "attention", "backward", "perturbation", "image")
PAGES = tuple(f"methods-{family}" for family in FAMILIES)
METHODS = list_methods()


def sections() -> dict[str, tuple[str, str]]:
    """Page and text of each section by heading."""
    texts = {}
    for page in PAGES:
        _, *parts = re.split(r"^## ", (DOCS / f"{page}.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
        texts.update({part.partition("\n")[0]: (page, part) for part in parts})
    return texts


SECTIONS = sections()


def row(method: MethodInfo) -> str:
    """A method's row of the table in docs/methods.md."""
    equals = method.equals.replace(f", {LINEAR_HEAD}", " (linear head)").replace(f" {LINEAR_HEAD}", " (linear head)")
    cells = (
        f"[{method.name}]({SECTIONS[method.name][0]}.md#{method.name})",
        method.level,
        f"{method.cost:g}",
        "yes" if method.class_specific else "no",
        "yes" if method.signed else "no",
        equals,
    )
    return f"| {' | '.join(cells)} |".replace("|  |", "| |")


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_each_method_has_a_section_that_agrees_with_the_code(method: MethodInfo) -> None:
    _, text = SECTIONS[method.name]
    for name, parameter in method.parameters.items():
        default = str(parameter.default).lower() if parameter.type == "bool" else parameter.default
        assert f"`{name}{'' if default is None else f'={default}'}`" in text
    assert re.search(rf"\*\*Cost:\*\* {method.cost:g}\b", text)
    assert "**Use it**" in text
    arxiv, colon, number = method.paper.rpartition("arXiv:")
    doi = method.paper.rpartition("doi:")[2]
    if colon and not arxiv:
        assert f"(https://arxiv.org/abs/{number})" in text
    elif "doi:" in method.paper:
        assert f"(https://doi.org/{doi})" in text


def test_the_overview_is_that_of_the_code() -> None:
    table = [line for line in (DOCS / "methods.md").read_text(encoding="utf-8").splitlines() if line.startswith("| [")]
    assert table == [row(method) for method in METHODS], "the rows should be:\n" + "\n".join(map(row, METHODS))


@pytest.mark.parametrize("name", [*(method.name for method in METHODS), "captum"])
def test_each_section_shows_a_small_picture(name: str) -> None:
    (picture,) = re.findall(r"!\[[^\]]+\]\((images/[^)]+)\)", SECTIONS[name][1])
    file = DOCS / picture
    assert file.stem == name
    assert file.stat().st_size < 30_000
    with Image.open(file) as image:
        assert image.height > 168
