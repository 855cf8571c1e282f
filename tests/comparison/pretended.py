"""Runs that are written instead of trained, with scores of a function: comparisons of many runs in a moment."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import pytest

from saliency_pipeline.errors import DivergedError
from saliency_pipeline.evaluation.evaluate import EVALUATION
from saliency_pipeline.shards.reader import ShardFolder
from saliency_pipeline.training.checkpoint import COLUMNS, EpochMetrics
from saliency_pipeline.training.config import TrainConfig
from saliency_pipeline.training.run import RunReport
from saliency_pipeline.training.runlog import METRICS, PROVENANCE, SUMMARY, write_json

Score = Callable[[TrainConfig], float]
START = {"features": {"eval": 0.85, "train": 0.66}, "logits": {"eval": 0.9, "train": 0.7}}


def _pretend_evaluation(run: Path, shards: str, part: str, folder: Path, **_: object) -> None:
    (folder / EVALUATION).write_text("{}")


class Pretended:
    """Replaces `train` in `comparison.jobs`.

    Attributes:
        trained: folders of runs that were trained, in order, with their options.
    """

    def __init__(self, patch: pytest.MonkeyPatch, score: Score) -> None:
        self.trained: list[tuple[str, TrainConfig]] = []
        self.score = score
        patch.setattr("saliency_pipeline.comparison.jobs.train", self.train)
        patch.setattr("saliency_pipeline.comparison.jobs.evaluate", _pretend_evaluation)
        # the page takes longer than all else
        patch.setattr("saliency_pipeline.comparison.output.write_report", lambda folder, *_: folder / "report.html")

    def train(self, shards: Path | str, run: Path, config: TrainConfig, log: Sequence[str] = ()) -> RunReport:
        """A run whose final validation top-1 is that of the function; a score of NaN is a run that diverges."""
        self.trained.append((str(run), config))
        final = self.score(config)
        if final != final:
            raise DivergedError("the loss is not finite; use a lower --lr")
        row = EpochMetrics(**dict.fromkeys(COLUMNS, 0.5) | {"validation_top1": final, "epoch": config.epochs})
        report = RunReport(str(run), config.epochs, False, row, row, 2.0, "fp32", "")
        config.write(run)
        (run / METRICS).write_text(json.dumps(vars(row)) + "\n")
        write_json(
            run / PROVENANCE,
            {
                "images": {"train": 60, "validation": 40, "pool": 160},
                "shards": {"sha256": ShardFolder(shards).identity, "path": str(shards)},
                "initialization": {"sha256": "0"},
                "start": START if config.arch == "modulated" else None,
            },
        )
        write_json(run / SUMMARY, asdict(report))
        return report
