"""The page on the quality of maps: a row and a source for every metric, as the code has them."""

import re
from pathlib import Path

import pytest

from saliency_pipeline.assessment.metrics.metric import Cost, Metric
from saliency_pipeline.assessment.metrics.registry import METRICS

PAGE = (Path(__file__).parents[1] / "docs" / "quality.md").read_text(encoding="utf-8")
NEEDS = {Cost.MAPS: "", Cost.SCORES: "scores", Cost.EXPLANATIONS: "maps", Cost.RANDOMIZED: "random networks"}


def row(metric: type[Metric]) -> str:
    """A metric's row of the overview."""
    words = {True: "higher", False: "lower", None: "–"}
    columns = ", ".join(f"`{column.name}` {words[column.higher]}" for column in metric.columns)
    needs = ", ".join(part for part in (NEEDS[metric.cost], "boxes" if metric.needs_boxes else "") if part)
    return f"| `{metric.name}` | {columns} | {needs} |"


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_has_a_row(name: str) -> None:
    assert row(METRICS[name]) in PAGE.splitlines()


@pytest.mark.parametrize("name", METRICS)
def test_every_source_is_named(name: str) -> None:
    papers = re.findall(r"\d{4}\.\d{4,5}", METRICS[name].paper)
    assert bool(papers) != (name == "mass"), "mass alone is of no paper"
    assert all(f"arXiv {paper}" in PAGE for paper in papers)
