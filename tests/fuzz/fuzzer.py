"""The fuzzer: distributes the time over kinds of files and several workers, and tabulates the results."""

import importlib
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

from tests.fuzz.cases import Case, build, clear
from tests.fuzz.watch import ACCEPTED, FAILED, REFUSED, Limits, Result, Worker

TABLE = "tests.fuzz.targets"
KEPT_PER_CAUSE = 3
LARGEST_KEPT = 2**26


@dataclass
class Tally:
    """What came of the cases of one kind."""

    verdicts: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    longest: float = 0.0
    memory: int = 0
    warnings: Counter[str] = field(default_factory=Counter)
    causes: dict[str, list[Result]] = field(default_factory=lambda: defaultdict(list))

    def add(self, result: Result) -> None:
        self.verdicts[result.verdict] += 1
        self.longest, self.memory = max(self.longest, result.seconds), max(self.memory, result.memory)
        self.warnings.update(result.notes)
        if result.verdict == FAILED:
            self.causes[result.cause].append(result)

    @property
    def files(self) -> int:
        return sum(self.verdicts.values())


class Fuzzer:
    """Reads cases with several workers until time or files are used up.

    Args:
        table: module that has the kinds.
        names: of the kinds to read; all where there are none.
        seed: of all mutations.
        limits: what a file may take.
        keep: folder for files that broke something; None to keep none.
    """

    def __init__(
        self,
        table: str = TABLE,
        names: Sequence[str] = (),
        *,
        seed: int = 0,
        limits: Limits | None = None,
        keep: Path | None = None,
        jobs: int = 1,
    ) -> None:
        self.table, self.seed, self.limits, self.keep, self.jobs = table, seed, limits or Limits(), keep, jobs
        self.context: ForkServerContext = get_context("forkserver")
        self.context.set_forkserver_preload([table])
        self.corpus = Path(tempfile.mkdtemp(prefix="salpipe-fuzz-seeds-"))
        kinds = self._in_process(_kinds, table)
        if unknown := set(names) - set(kinds):
            raise SystemExit(f"no kind {', '.join(sorted(unknown))}; there are {', '.join(kinds)}")
        self.names = [name for name in kinds if name in names or not names]
        self.valid = kinds
        self._in_process(_build, table, self.names, self.corpus)
        self.tallies = {name: Tally() for name in self.names}
        self._lock = threading.Lock()

    def close(self) -> None:
        """Remove the seeds."""
        clear(self.corpus)

    def run(self, *, minutes: float | None = None, files: int | None = None, only: Sequence[int] = ()) -> None:
        """Read: `only` these numbers of each kind, or the first `files` of each, or for some minutes."""
        self._waiting = self._cases(files, only)
        self._end = time.monotonic() + 60 * minutes if minutes is not None else float("inf")
        threads = [threading.Thread(target=self._read_all) for _ in range(self.jobs)]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                thread.join()
        except KeyboardInterrupt:  # what was read so far counts
            self._end = 0.0
            for thread in threads:
                thread.join()

    def _cases(self, files: int | None, only: Sequence[int]) -> Iterator[Case]:
        """The kind that had the least time so far comes next; so all have some, and quick ones many files."""
        numbers = {name: iter(only) if only else iter(range(files)) if files else _count() for name in self.names}
        while numbers:
            name = min(numbers, key=lambda name: self.tallies[name].seconds)
            number = next(numbers[name], None)
            if number is None:
                del numbers[name]
            else:
                self.tallies[name].seconds += 1e-4  # two workers do not take the same kind only because it is new
                yield Case(name, self.seed, number)

    def _read_all(self) -> None:
        with Worker(self.context, self.table, self.corpus, self.limits) as worker:
            while time.monotonic() < self._end:
                with self._lock:
                    case = next(self._waiting, None)
                if case is None:
                    return
                begun = time.monotonic()
                result = worker.read(case)
                if result.verdict == REFUSED and self.valid[case.kind] and result.edits == "whole":
                    result.verdict, result.cause = FAILED, "a valid file is refused"
                with self._lock:
                    tally = self.tallies[case.kind]
                    tally.seconds += time.monotonic() - begun
                    tally.add(result)
                    if result.verdict == FAILED and len(tally.causes[result.cause]) <= KEPT_PER_CAUSE:
                        self._keep(result, worker.scratch / "work")

    def _keep(self, result: Result, work: Path) -> None:
        """The file, with what belongs to it, and how it failed."""
        case = result.case
        print(f"\n{case.command}\n  {result.cause}: {result.reason}\n  ({result.edits})", file=sys.stderr, flush=True)
        if self.keep is None:
            return
        folder = self.keep / f"{case.kind}-{case.seed}-{case.number}"
        clear(folder)
        folder.mkdir(parents=True)
        lines = (case.command, f"{result.cause}: {result.reason}", result.edits, "", result.trace)
        (folder / "failure.txt").write_text("\n".join(lines), encoding="utf-8", errors="replace")
        for path in sorted(work.rglob("*")):
            if path.is_file() and not path.is_symlink() and path.stat().st_size <= LARGEST_KEPT:
                target = folder / path.relative_to(work)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)

    def _in_process(self, function: Any, *arguments: Any) -> Any:
        """A function's answer from a process of its own: this one stays small and imports no library."""
        here, there = self.context.Pipe(duplex=False)
        process = self.context.Process(target=function, args=(there, *arguments))
        process.start()
        there.close()
        try:
            return here.recv()
        except EOFError:
            raise SystemExit("the seeds could not be made; see above") from None
        finally:
            process.join()

    @property
    def failed(self) -> int:
        """How many files broke something."""
        return sum(tally.verdicts[FAILED] for tally in self.tallies.values())

    def as_dict(self) -> dict[str, Any]:
        """The table as JSON can hold it."""
        return {
            name: {
                "files": tally.files,
                **{verdict: tally.verdicts[verdict] for verdict in (ACCEPTED, REFUSED, FAILED)},
                "seconds": round(tally.seconds, 3),
                "longest": round(tally.longest, 3),
                "memory": tally.memory,
                "warnings": dict(tally.warnings),
                "failures": [
                    {
                        "cause": cause,
                        "count": len(failed),
                        "reason": failed[0].reason,
                        "command": failed[0].case.command,
                    }
                    for cause, failed in tally.causes.items()
                ],
            }
            for name, tally in self.tallies.items()
        }

    def as_text(self) -> str:
        """A line per kind, a line per cause of failures, and the sum."""
        heads = f"{'files':>8}{'accepted':>10}{'refused':>9}{'failed':>8}{'longest s':>11}{'memory MB':>11}"
        lines = [f"{'kind':<14}{heads}{'warnings':>10}"]
        for name, tally in self.tallies.items():
            counts = f"{tally.files:>8,}{tally.verdicts[ACCEPTED]:>10,}{tally.verdicts[REFUSED]:>9,}"
            most = f"{tally.longest:>11.2f}{tally.memory / 1e6:>11.0f}{sum(tally.warnings.values()):>10,}"
            lines.append(f"{name:<14}{counts}{tally.verdicts[FAILED]:>8,}{most}")
        for tally in self.tallies.values():
            for cause, failed in tally.causes.items():
                lines.append(f"{len(failed):,} x {cause}: {failed[0].reason[:160]}")
                lines.append(f"    {failed[0].case.command}")
        files = sum(tally.files for tally in self.tallies.values())
        return "\n".join([*lines, f"{files:,} files of {len(self.names)} kinds, {self.failed:,} failed"])


def _count() -> Iterator[int]:
    number = 0
    while True:
        yield number
        number += 1


def _kinds(connection: Any, table: str) -> None:
    connection.send({kind.name: kind.valid for kind in importlib.import_module(table).KINDS})


def _build(connection: Any, table: str, names: Sequence[str], corpus: Path) -> None:
    build(table, names, corpus)
    connection.send(True)
