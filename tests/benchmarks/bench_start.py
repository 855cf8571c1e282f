"""Time until a command starts working: the first time, with an empty cache, and from the second time on.

    first    `generate` of a few photographs with an empty cache folder
    again    the same into another folder
    predict  one image with a run trained on them, the source model prepared
    explain  one image, the source model prepared

Printed are the processor and, for each, the shortest wall time of several processes, in seconds and as a multiple of
the time of `import torch`, which is a lower bound for every command that computes.

    python -m tests.benchmarks.bench_start -n 3
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

from saliency_pipeline.devices import device_name
from tests.generation.examples import photographs


def seconds(arguments: list[object], cache: Path) -> float:
    """Wall time of a Python process with these arguments."""
    begun = time.perf_counter()
    subprocess.run(
        [sys.executable, *map(str, arguments)],
        env={**os.environ, "XDG_CACHE_HOME": str(cache)},
        check=True,
        capture_output=True,
    )
    return time.perf_counter() - begun


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", type=int, default=3, help="times each is run")
    count = parser.parse_args().n
    salpipe = ["-m", "saliency_pipeline.cli"]
    times: dict[str, list[float]] = {"import torch": [], "first": [], "again": [], "predict": [], "explain": []}
    with tempfile.TemporaryDirectory(prefix="start-") as folder:
        root = Path(folder)
        names = [f"{split}/{kind}/{n}.jpg" for split in ("train", "validation") for kind in "ab" for n in range(2)]
        images = photographs(root / "images", names)
        for number in range(count):
            cache, shards = root / f"cache-{number}", root / f"shards-{number}"
            times["import torch"].append(seconds(["-c", "import torch"], cache))
            times["first"].append(seconds([*salpipe, "generate", images, "-o", shards], cache))
            times["again"].append(seconds([*salpipe, "generate", images, "-o", root / f"again-{number}"], cache))
        options = ["--epochs", 1, "--batch-size", 4, "--precision", "fp32"]
        seconds([*salpipe, "train", shards, "-o", root / "run", *options], cache)
        for number in range(count + 1):
            one = [*salpipe, "predict", images / names[0], "--run", root / "run"]
            took = seconds([*one, "-o", root / f"predicted-{number}"], cache)
            times["predict"] += [took] if number else []
            took = seconds([*salpipe, "explain", images / names[0], "-o", root / "explained.png"], cache)
            times["explain"] += [took] if number else []
    best = {name: min(each) for name, each in times.items()}
    results = {name: {"seconds": round(b, 2), "times": round(b / best["import torch"], 2)} for name, b in best.items()}
    print(device_name("cpu"))
    for name, value in results.items():
        print(f"{name:14} {value['seconds']:6.2f} s  {value['times']:5.2f} x import torch")
    print(json.dumps(results))


if __name__ == "__main__":
    main()
