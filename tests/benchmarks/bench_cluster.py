"""Shards on a dask cluster of this machine, compared with worker processes; and what a large data set costs a cluster.

overhead   the same photographs with --jobs 2 and with --engine dask --jobs 2, alternating; the best round counts
records    1.28 million records: time and size of the catalogue's file, bytes that a task is sent, calls in flight,
           and memory of the scheduler and of the command while 1,251 shards are pretended

python tests/benchmarks/bench_cluster.py overhead --images FOLDER -n 3000 --rounds 2
python tests/benchmarks/bench_cluster.py records
"""

from __future__ import annotations

import argparse
import json
import pickle
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.benchmarks.bench_generate import linked, photographs


def overhead(source: Path | None, count: int, rounds: int) -> dict[str, Any]:
    """Seconds of whole commands, and their ratio."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        images = linked(source, work / "images", count) if source else photographs(work / "images", count)
        seconds: dict[str, list[float]] = {"loky": [], "dask": []}
        for number in range(rounds):
            for engine, measured in seconds.items():
                output = work / f"{engine}-{number}"
                command = [sys.executable, "-m", "saliency_pipeline.cli", "generate", str(images), "-o", str(output)]
                start = time.perf_counter()
                subprocess.run([*command, "--engine", engine, "--jobs", "2", "--shard-size", "128", "-q"], check=True)
                measured.append(round(time.perf_counter() - start, 2))
    return {"seconds": seconds, "ratio": round(min(seconds["dask"]) / min(seconds["loky"]), 3)}


def pretend(shared: Any, plan: str, index: int, lines: Any) -> int:
    """What a worker does before it explains: read the records of its shard."""
    from saliency_pipeline.generation.catalogue_file import read_records

    return len(read_records(Path(shared.catalogue), lines))


def memory() -> float:
    """Resident memory of this process in MB, which has the scheduler as well."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return round(pages * 4096 / 1e6, 1)


def records(count: int) -> dict[str, Any]:
    """Figures of a run over `count` images that do not exist."""
    from saliency_pipeline.execution.config import Workers
    from saliency_pipeline.execution.engines import open_engine
    from saliency_pipeline.generation.config import GenerateConfig
    from saliency_pipeline.generation.fan_out import share
    from saliency_pipeline.generation.receipt import RECEIPTS
    from saliency_pipeline.images.record import Catalogue, ImageRecord

    listed = [
        ImageRecord(f"n{i % 1000:08d}/n{i % 1000:08d}_{i}.JPEG", f"/imagenet/train/n{i % 1000:08d}_{i}.JPEG", i % 1000)
        for i in range(count)
    ]
    names = tuple(f"n{i:08d}" for i in range(1000))
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / RECEIPTS).mkdir()
        start = time.perf_counter()
        shared, lines = share(Path(folder), GenerateConfig(), Catalogue("/imagenet", listed, names), 1)
        written = time.perf_counter() - start
        size = Path(shared.catalogue).stat().st_size
        with open_engine(Workers("dask"), 2, 1) as engine:
            before, most, done = memory(), 0.0, 0
            start = time.perf_counter()
            for number in engine(pretend, ((shared, "0" * 64, i, each) for i, each in enumerate(lines))):
                done += number
                most = max(most, memory())
    return {
        "records": done,
        "shards": len(lines),
        "catalogue": {"seconds": round(written, 1), "megabytes": round(size / 1e6)},
        "bytes per task": len(pickle.dumps((shared, "0" * 64, 0, lines[0]))),
        "milliseconds per task": round(1000 * (time.perf_counter() - start) / len(lines), 1),
        "megabytes before, at most": [before, most],
    }


def main() -> None:
    """Run one of the measurements and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=("overhead", "records"), default="overhead")
    parser.add_argument("--images", type=Path, help="folder of JPEG files")
    parser.add_argument("-n", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--records", type=int, default=1_281_167)
    options = parser.parse_args()
    measured = (
        overhead(options.images, options.n, options.rounds) if options.what == "overhead" else records(options.records)
    )
    print(json.dumps(measured, indent=1))


if __name__ == "__main__":
    main()
