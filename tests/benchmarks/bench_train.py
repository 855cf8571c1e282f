"""A training step compared with a plain PyTorch loop, and a two-branch step with the baseline's; bench_train.py.

Every arm runs in a process of its own, as the allocator's thresholds hold for a whole process; arms take turns, and
each gives the best of its rounds. The plain loop is what a tutorial shows: float32, NCHW, SGD with momentum, and its
images in memory, already normalized. The others are `salpipe train` on shards, from disk to optimizer, with
augmentation, as they report it themselves in `metrics.jsonl`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ARMS = ("plain", "baseline", "modulated")
CLASSES = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def main() -> None:
    """Measure and print a table with the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="efficientnet_lite0")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument(
        "--steps", type=int, default=12, help="steps an arm and round, after as many as a warm-up needs"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--arm", choices=ARMS, help=argparse.SUPPRESS)
    parser.add_argument("--shards", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.arm:
        print(json.dumps(plain(options) if options.arm == "plain" else salpipe(options)))
        return
    with tempfile.TemporaryDirectory() as folder:
        write_shards(Path(folder) / "shards", options)
        best: dict[str, dict[str, float]] = {}
        for round_ in range(options.rounds):
            for arm in ARMS:
                command = [sys.executable, __file__, *sys.argv[1:], "--arm", arm, "--shards", f"{folder}/shards"]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                result = json.loads(done.stdout.splitlines()[-1])
                print(f"round {round_ + 1} {arm:10} {result['rate']:7.2f} images/s", file=sys.stderr)
                if arm not in best or result["rate"] > best[arm]["rate"]:
                    best[arm] = result
    print(f"{options.backbone}, batch {options.batch}, {options.size} pixels, {os.cpu_count()} cores")
    for arm in ARMS:
        extra = (
            "" if arm == "plain" else f"  waits for data {best[arm]['wait']:.2%} of the time, {best[arm]['precision']}"
        )
        print(f"  {arm:10} {best[arm]['rate']:7.2f} images/s{extra}")
    print(f"  baseline / plain: {best['baseline']['rate'] / best['plain']['rate']:.2f}")
    print(f"  step of modulated / step of baseline: {best['baseline']['rate'] / best['modulated']['rate']:.3f}")


def plain(options: argparse.Namespace) -> dict[str, float]:
    """The loop of a tutorial."""
    import torch
    from torch import nn

    from saliency_pipeline.devices import find_device
    from saliency_pipeline.models.source.build import untrained_with
    from saliency_pipeline.models.source.registry import find_source

    torch.manual_seed(0)
    device = find_device("auto")
    network = untrained_with(*find_source(options.backbone), len(CLASSES)).train().to(device)
    images = torch.randn(options.batch, 3, options.size, options.size).to(device)
    labels = (torch.arange(options.batch) % len(CLASSES)).to(device)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-4, momentum=0.9)
    criterion = nn.CrossEntropyLoss()
    seconds = 0.0
    for step in range(options.steps + 2):
        start = time.perf_counter()
        optimizer.zero_grad()
        criterion(network(images), labels).backward()
        optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds += time.perf_counter() - start if step >= 2 else 0
    return {"rate": options.batch * options.steps / seconds}


def salpipe(options: argparse.Namespace) -> dict[str, float | str]:
    """`salpipe train` for two epochs, the second of which counts."""
    from saliency_pipeline.training.config import TrainConfig
    from saliency_pipeline.training.run import train

    config = TrainConfig(
        arch=options.arm,
        backbone=options.backbone,
        init="scratch",
        epochs=2,
        batch_size=options.batch,
        precision=options.precision,
    )
    with tempfile.TemporaryDirectory() as folder:
        report = train(options.shards, folder, config)
    return {
        "rate": report.last["images_per_second"],
        "wait": report.last["wait_share"],
        "precision": report.precision,
    }


def write_shards(folder: Path, options: argparse.Namespace) -> None:
    """Noise with maps of 7 x 7: what is in the images does not change the speed."""
    from saliency_pipeline.files import sha256_of
    from saliency_pipeline.shards.manifest import Manifest, ShardEntry
    from saliency_pipeline.shards.schema import MapShape, ShardHeader, ShardRows
    from saliency_pipeline.shards.writer import ShardWriter

    random, train = np.random.default_rng(0), options.batch * options.steps
    count = train + options.batch
    header = ShardHeader("bench", {}, CLASSES, options.size, "raw", {"gradcam": MapShape(1, 7, 7)})
    rows = ShardRows(
        keys=[f"{i}.png" for i in range(count)],
        labels=np.arange(count) % len(CLASSES),
        splits=np.array([0] * train + [1] * options.batch, np.int8),
        images=random.integers(0, 256, (count, options.size, options.size, 3), dtype=np.uint8),
        sha256=np.zeros((count, 32), np.uint8),
        source_size=np.full((count, 2), options.size, np.int32),
        prediction_class=np.zeros((count, 5), np.int32),
        prediction_score=np.zeros((count, 5), np.float32),
        maps={"gradcam": random.random((count, 1, 7, 7), dtype=np.float32)},
        targets={"gradcam": np.zeros((count, 1), np.int32)},
    )
    folder.mkdir()
    path = folder / "shard-00000.h5"
    with ShardWriter(path, header, capacity=count) as writer:
        writer.append(rows)
        writer.finish()
    entry = ShardEntry(path.name, count, path.stat().st_size, sha256_of(path))
    (folder / "rejects.jsonl").write_text("")
    Manifest(header, 0, (entry,)).write(folder)


if __name__ == "__main__":
    main()
