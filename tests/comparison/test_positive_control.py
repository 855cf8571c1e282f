"""Positive control: a comparison on images whose class only the maps show."""

import dataclasses
from pathlib import Path

import pytest

from saliency_pipeline.comparison.arms import Arm
from saliency_pipeline.comparison.compare import compare
from tests.comparison.examples import settings
from tests.comparison.marked import marked
from tests.comparison.test_compare import ARMS, MODULATED, QUICK

pytestmark = pytest.mark.usefixtures("without_plots")


@pytest.mark.slow
@pytest.mark.parametrize(("method", "helps"), [("truth", True), ("nothing", False)])
def test_maps_that_mark_the_evidence_help_and_others_do_not(tmp_path: Path, method: str, helps: bool) -> None:
    """The positive control: only the map shows which of four patches has the color of the class."""
    shared = dataclasses.replace(
        QUICK, backbone="test_resnet", epochs=6, optimizer="adamw", lr=5e-3, augment=(), method=method
    )
    neutral = Arm("neutral", {**MODULATED.options, "fusion": "neutral"})
    control = Arm("neutral-mismatched", {**neutral.options, "maps": "mismatched"}, "control", of="neutral")
    arms = (*ARMS, neutral, control)
    comparison = compare(
        marked(tmp_path / "shards", 240), tmp_path / "out", arms, shared, **settings(folds=3, repeats=2, jobs=1)
    )
    words = {(c.arm, c.against): c.final.verdict for c in comparison.results.settings[0].contrasts}
    if helps:
        for arm in ("half", "neutral"):
            assert words[arm, "baseline"] == words[arm, f"{arm}-mismatched"] == "better"
        assert "where the maps point helped" in comparison.results.verdict.sentence
    else:
        assert "better" not in words.values()
