"""The table of uses of maps: a row for every use, with formula, papers and need of maps as the code has them."""

import re
from pathlib import Path

from saliency_pipeline.uses import choices
from saliency_pipeline.uses.registry import USES
from saliency_pipeline.uses.use import Use

PAGE = (Path(__file__).parents[1] / "docs" / "training.md").read_text(encoding="utf-8")
SECTION = re.split(r"^## ", PAGE, flags=re.MULTILINE)
(TABLE,) = (part for part in SECTION if part.startswith("Uses of maps\n"))


def row(use: type[Use]) -> str:
    """The row of a use without its cost."""
    papers = [f"[arXiv {paper}](https://arxiv.org/abs/{paper})" for paper in re.findall(r"\d{4}\.\d{4,5}", use.paper)]
    formula, needs = use.formula.replace("*", r"\*"), "yes" if use.at_test else "no"
    return f"| `{use.name}` | {formula} | {', '.join(papers) or '–'} | {needs} |"


def test_the_table_has_the_uses_of_the_registry_in_order() -> None:
    rows = [line for line in TABLE.splitlines() if line.startswith("| `")][1:]
    assert [line.rpartition(" | ")[0] + " |" for line in rows] == [row(use) for use in USES.values()]
    assert all(re.fullmatch(r"\d\.\d\d? \|", line.rpartition(" | ")[2]) for line in rows)


def test_every_use_has_a_line_of_help_and_a_paragraph() -> None:
    assert list(USES) == list(choices.USES)
    for name in USES:
        assert re.search(rf"^- (`[a-z-]+` and )?`{name}`", TABLE, re.MULTILINE)
