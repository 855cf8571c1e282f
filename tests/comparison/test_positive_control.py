"""Positive and negative control: a comparison on images whose class only the maps show."""

import dataclasses
from pathlib import Path

import pytest

from saliency_pipeline.comparison.arms import Arm
from saliency_pipeline.comparison.compare import compare
from tests.comparison.examples import settings
from tests.comparison.marked import marked
from tests.comparison.test_compare import ARMS, MODULATED, QUICK

pytestmark = pytest.mark.usefixtures("without_plots")

NEUTRAL = Arm("neutral", {**MODULATED.options, "fusion": "neutral"})
MISMATCHED = Arm("neutral-mismatched", {**NEUTRAL.options, "maps": "mismatched"}, "control", of="neutral")
BLIND = tuple(Arm(f"{arm.name}-blind", {**arm.options, "method": "nothing"}) for arm in (MODULATED, NEUTRAL))
"""Their maps mark one of the four patches, whichever the class."""


@pytest.mark.slow
def test_maps_that_mark_the_evidence_help_and_others_do_not(tmp_path: Path) -> None:
    """Only the maps of `truth` show which of four patches has the color of the class."""
    shared = dataclasses.replace(
        QUICK, backbone="test_resnet", epochs=6, optimizer="adamw", lr=5e-3, augment=(), method="truth"
    )
    comparison = compare(
        marked(tmp_path / "shards", 240),
        tmp_path / "out",
        (*ARMS, NEUTRAL, MISMATCHED, *BLIND),
        shared,
        **settings(folds=3, repeats=2, jobs=1),
    )
    words = {(c.arm, c.against): c.final.verdict for c in comparison.results.settings[0].contrasts}
    for arm in ("half", "neutral"):
        assert words[arm, "baseline"] == words[arm, f"{arm}-mismatched"] == "better"
        assert words[f"{arm}-blind", "baseline"] in ("undecided", "equivalent", "underpowered", "worse")
    assert "where the maps point helped" in comparison.results.verdict.sentence
