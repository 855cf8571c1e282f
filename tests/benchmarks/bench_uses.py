"""Cost of a training step of every use of maps against the baseline, taken in turn in one process.

A step is what `salpipe train` does: the batch is prepared by its background threads while the network trains on the one
before. Rounds take turns; the fastest of each arm counts. Values are times relative to the baseline's.

    python -m tests.benchmarks.bench_uses
    python -m tests.benchmarks.bench_uses --backbone resnet50 --size 160 --steps 5
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from saliency_pipeline.memory import keep_large_blocks
from saliency_pipeline.progress import Progress
from saliency_pipeline.shards.reader import ShardFolder
from saliency_pipeline.training.config import TrainConfig
from saliency_pipeline.training.data.batches import Batch
from saliency_pipeline.training.processes import connect
from saliency_pipeline.training.setup import set_up
from saliency_pipeline.training.shuffle import ANY_ORDER
from saliency_pipeline.training.trainer import Trainer
from saliency_pipeline.uses.registry import USES
from tests.benchmarks.bench_train import write_shards


class Arm:
    """A trainer with endless batches."""

    def __init__(self, shards: ShardFolder, folder: Path, options: argparse.Namespace, use: str | None) -> None:
        own: dict[str, Any] = {"arch": "baseline"} if use is None else {"use": use}
        config = TrainConfig(
            backbone=options.backbone, init="scratch", batch_size=options.batch, precision=options.precision, **own
        )
        processes = connect("auto", Progress())
        setup = set_up(config, shards, processes.device)
        self.trainer = Trainer(setup, processes, folder, shuffle=ANY_ORDER, save_seconds=1e9, progress=Progress())
        parts = [np.arange(options.batch) + options.batch * i for i in range(options.steps)]
        self.numbered = cycle(parts)
        self.batches = self._endless(parts)

    def _endless(self, parts: list[np.ndarray]) -> Iterator[Batch]:
        epoch = 0
        while True:
            yield from self.trainer.train.run(parts, epoch)
            epoch += 1

    def seconds(self, steps: int) -> float:
        """Mean duration of a step, after one that lets the background threads of the arm before end."""
        self.step()
        start = time.perf_counter()
        for _ in range(steps):
            self.step()
        return (time.perf_counter() - start) / steps

    def step(self) -> None:
        """Take one step."""
        self.trainer.step(next(self.batches), next(self.numbered))


def main() -> None:
    """Measure all uses and print their ratios as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="efficientnet_lite0")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--steps", type=int, default=5, help="steps per arm and round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision", default="fp32")
    options = parser.parse_args()
    keep_large_blocks()
    with tempfile.TemporaryDirectory() as folder:
        write_shards(Path(folder) / "shards", options)
        shards = ShardFolder(Path(folder) / "shards")
        arms = {use or "baseline": Arm(shards, Path(folder), options, use) for use in (None, *USES)}
        best = dict.fromkeys(arms, float("inf"))
        for number in range(options.rounds + 1):
            for name, arm in arms.items():
                seconds = arm.seconds(options.steps)
                if number:  # the first round warms up
                    best[name] = min(best[name], seconds)
    print(json.dumps({"baseline_seconds": best["baseline"]}))
    print(json.dumps({name: round(seconds / best["baseline"], 3) for name, seconds in best.items()}))


if __name__ == "__main__":
    main()
