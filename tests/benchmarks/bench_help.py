"""`salpipe --help` compared with `python -c "import click"`: medians of whole processes that alternate, and ratio."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time

RUNS = 15


def seconds(command: list[str]) -> float:
    """How long one whole process takes."""
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    """Print both medians in seconds and their ratio, as JSON."""
    commands = {
        "help": [sys.executable, "-m", "saliency_pipeline.cli", "--help"],
        "click": [sys.executable, "-c", "import click"],
    }
    turns = [{name: seconds(command) for name, command in commands.items()} for _ in range(RUNS)]
    taken = {name: [turn[name] for turn in turns] for name in commands}
    medians = {name: round(statistics.median(times), 4) for name, times in taken.items()}
    print(json.dumps({**medians, "ratio": round(medians["help"] / medians["click"], 2)}))


if __name__ == "__main__":
    main()
