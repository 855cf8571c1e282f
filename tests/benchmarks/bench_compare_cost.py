"""Duration of a comparison with scarce training data, in this tree and in an earlier one.

Ten classes, each a photograph that scikit-image ships and of which every image is a crop of its own in other light; 15
training images per class and about four validation images for each of them, EfficientNet-Lite0 at 160 pixels, the arms
`baseline` and `half` on two folds. Each tree runs `salpipe compare` in a process of its own, in turns, so that other
work on the machine disturbs both alike. Printed is one JSON document: seconds on the clock and of processor time per
round, their ratios, the verdicts of both, and the largest difference between final accuracies.

    git worktree add /tmp/base v0.1
    python -m tests.benchmarks.bench_compare_cost --base /tmp/base
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt

ROOT = Path(__file__).parents[2]
PHOTOS = ("astronaut", "brick", "camera", "cat", "coffee", "coins", "grass", "immunohistochemistry", "moon", "rocket")
PER_CLASS = 15
FOLDS = 2


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, required=True, help="tree of the earlier version")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--images", type=int, default=1200, help="of which half validate in each fold")
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--backbone", default="efficientnet_lite0")
    parser.add_argument("--weights", default="default")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--now", nargs="*", default=[], help="further options in this tree: --now validate=curve=10")
    options = parser.parse_args()
    trees = {"base": options.base.resolve(), "now": ROOT}
    times: dict[str, list[dict[str, float]]] = {name: [] for name in trees}
    with tempfile.TemporaryDirectory(prefix="cost-") as folder:
        shards = write_shards(Path(folder, "shards"), options.images, options.size)
        for number in range(options.rounds):
            for name, tree in trees.items():
                more = [f"--{option}" for option in options.now] if name == "now" else []
                output = Path(folder, f"{name}-{number}")
                # measured speeds are cached; both trees measure anew in their first round
                cache = Path(folder, f"cache-{name}")
                times[name].append(compared(tree, shards, output, cache, options, more))
                print(f"round {number + 1} {name}: {times[name][-1]}", file=sys.stderr)
        results = {name: json.loads(Path(folder, f"{name}-0", "results.json").read_text()) for name in trees}
    ratios = {
        unit: statistics.median(
            before[unit] / after[unit] for before, after in zip(times["base"], times["now"], strict=True)
        )
        for unit in ("wall", "processor")
    }
    finals = [final_accuracies(result) for result in results.values()]
    document = {
        "seconds": times,
        "ratios": ratios,
        "verdicts": {name: verdicts(result) for name, result in results.items()},
        "precision": {name: result["about"]["plan"]["shared"]["precision"] for name, result in results.items()},
        "final_accuracies": finals,
        "largest_difference": max(abs(a - b) for a, b in zip(*finals, strict=True)),
    }
    print(json.dumps(document, indent=1))


def compared(
    tree: Path, shards: Path, output: Path, cache: Path, options: argparse.Namespace, more: list[str]
) -> dict[str, float]:
    """Seconds that `salpipe compare` of a tree takes: on the clock, and of the processor."""
    command = [
        *(sys.executable, "-m", "saliency_pipeline.cli", "compare", str(shards), "-o", str(output), "--quiet"),
        *("--arm", "baseline", "--arm", "half", "--control", "none", "--folds", str(FOLDS), "--repeats", "1"),
        *("--epochs", str(options.epochs), "--per-class", str(PER_CLASS), "--jobs", str(options.jobs)),
        *("--backbone", options.backbone, "--weights", options.weights, "--precision", options.precision),
        *("--optimizer", "adamw", "--lr", "0.0005", "--schedule", "cosine", "--assess-images", "0", "--device", "cpu"),
        *more,
    ]
    environment = {**os.environ, "PYTHONPATH": str(tree), "XDG_CACHE_HOME": str(cache)}
    begun, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, env=environment, cwd=tree, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"wall": time.perf_counter() - begun, "processor": processor}


def verdicts(results: dict) -> dict[str, str]:
    """The word of every contrast and measure."""
    return {
        f"{contrast['arm']} vs. {contrast['against']}: {measure}": contrast[measure]["verdict"]
        for part in results["settings"]
        for contrast in part["contrasts"]
        for measure in ("final", "area", "speed")
        if contrast[measure]
    }


def final_accuracies(results: dict) -> list[float]:
    """Final accuracy of every run."""
    return [run["final"] for part in results["settings"] for arm in part["arms"].values() for run in arm["runs"]]


def write_shards(folder: Path, count: int, size: int) -> Path:
    """Crops of the photographs with maps of 7 × 7 cells."""
    from saliency_pipeline.shards.schema import MapShape, ShardHeader, ShardRows
    from tests.training.examples import PROVENANCE, store

    random = np.random.default_rng(0)
    photos = [photograph(name) for name in PHOTOS]
    labels = np.arange(count) % len(PHOTOS)
    rows = ShardRows(
        keys=[f"{PHOTOS[label]}/{number:05}.png" for number, label in enumerate(labels)],
        labels=labels,
        splits=np.full(count, -1, np.int8),
        images=np.stack([crop(photos[label], size, random) for label in labels]),
        sha256=random.integers(0, 256, (count, 32), dtype=np.uint8),
        source_size=np.full((count, 2), size, np.int32),
        prediction_class=np.tile(np.arange(5, dtype=np.int32), (count, 1)),
        prediction_score=np.zeros((count, 5), np.float32),
        maps={"gradcam": random.random((count, 1, 7, 7), dtype=np.float32)},
        targets={"gradcam": np.zeros((count, 1), np.int32)},
    )
    return store(folder, ShardHeader("bench", PROVENANCE, PHOTOS, size, "raw", {"gradcam": MapShape(1, 7, 7)}), rows, 2)


def photograph(name: str) -> npt.NDArray[np.uint8]:
    """A photograph that scikit-image ships, uint8 (H, W, 3)."""
    from skimage import data

    image = np.asarray(getattr(data, name)(), np.uint8)
    return np.repeat(image[..., None], 3, 2) if image.ndim == 2 else image[..., :3]


def crop(photo: npt.NDArray[np.uint8], size: int, random: np.random.Generator) -> npt.NDArray[np.uint8]:
    """A small crop at a random place, in random light and with noise, uint8 (size, size, 3)."""
    from PIL import Image

    side = int(random.integers(24, 64))
    top, left = (int(random.integers(0, length - side)) for length in photo.shape[:2])
    part = Image.fromarray(photo[top : top + side, left : left + side]).resize((size, size), Image.Resampling.BILINEAR)
    light, noise = random.uniform(0.5, 1.5, 3), random.normal(0, 40, (size, size, 3))
    return np.clip(np.asarray(part) * light + noise, 0, 255).astype(np.uint8)


if __name__ == "__main__":
    main()
