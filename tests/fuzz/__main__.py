"""Mutates valid files of every kind, reads them with salpipe's own readers, and prints what failed."""

import argparse
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.fuzz.fuzzer import Fuzzer


def main(arguments: Sequence[str] | None = None) -> int:
    """1 where a file broke something."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=2.0, help="how long; the kinds share the time")
    parser.add_argument("--files", type=int, metavar="N", help="so many files of each kind instead")
    parser.add_argument("--kind", action="append", default=[], metavar="NAME", help="only this kind; may be repeated")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same files")
    parser.add_argument(
        "--only", type=int, action="append", default=[], metavar="NUMBER", help="only this file of a kind"
    )
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="worker processes")
    parser.add_argument("--keep", type=Path, default=Path(".cache/fuzz"), help="folder for files that broke something")
    parser.add_argument("--json", action="store_true", help="print the table as JSON")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # read by processes that are started: workers share the cores, and locks of libraries end with the server
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore:resource_tracker"}
    fuzzer = Fuzzer(names=options.kind, seed=options.seed, keep=options.keep, jobs=options.jobs)
    try:
        minutes = None if options.files or options.only else options.minutes
        fuzzer.run(minutes=minutes, files=options.files, only=options.only)
    finally:
        fuzzer.close()
    print(json.dumps(fuzzer.as_dict(), indent=1) if options.json else fuzzer.as_text())
    return int(fuzzer.failed > 0)


if __name__ == "__main__":
    sys.exit(main())
