"""`salpipe convert` and `show --to coco`: images and megabytes per second of every format, from raw shards.

python -m tests.benchmarks.bench_convert -n 2048
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
import time
from pathlib import Path

import numpy as np

from saliency_pipeline.conversion.annotate import annotate
from saliency_pipeline.conversion.convert import convert
from saliency_pipeline.datasets.export_file import KINDS
from saliency_pipeline.shards.schema import MapShape, ShardRows
from tests.shards.examples import header, write

SIZE, GRID = 224, 7


def shard(path: Path, count: int) -> Path:
    """A shard of frames about as smooth as photographs, with Grad-CAM maps."""
    random = np.random.default_rng(0)
    head = dataclasses.replace(header(), size=SIZE, maps={"gradcam": MapShape(1, GRID, GRID)})
    rows, columns = np.mgrid[:SIZE, :SIZE] / SIZE
    waves = random.random((count, 3, 2)) * 12
    frames = np.empty((count, SIZE, SIZE, 3), np.uint8)
    for frame, wave in zip(frames, waves, strict=True):
        noise = random.normal(0, 4, (SIZE, SIZE, 3))
        pattern = np.sin(rows[..., None] * wave[:, 0] + columns[..., None] * wave[:, 1])
        frame[:] = np.clip(128 + 100 * pattern + noise, 0, 255)
    return write(
        path,
        head,
        ShardRows(
            keys=[f"{number}.jpg" for number in range(count)],
            labels=np.arange(count) % 3,
            splits=np.zeros(count, np.int8),
            images=frames,
            sha256=np.zeros((count, 32), np.uint8),
            source_size=np.full((count, 2), SIZE, np.int32),
            prediction_class=np.zeros((count, 5), np.int32),
            prediction_score=np.zeros((count, 5), np.float32),
            maps={"gradcam": random.random((count, 1, GRID, GRID), np.float32)},
            targets={"gradcam": np.zeros((count, 1), np.int32)},
        ),
    )


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("-n", type=int, default=1024)
    count = parser.parse_args().n
    figures = {}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        path = shard(root / "shard-00000.h5", count)
        for to in (*KINDS, "coco"):
            start = time.perf_counter()
            if to == "coco":
                annotate(path, root / to, to)
            else:
                convert(path, root / to, to=to)
            seconds = time.perf_counter() - start
            size = sum(each.stat().st_size for each in (root / to).rglob("*") if each.is_file())
            figures[to] = {"images/s": round(count / seconds), "MB/s": round(size / 1e6 / seconds, 1)}
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
