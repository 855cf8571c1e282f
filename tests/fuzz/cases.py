"""Fuzz cases: the file and its mutation by kind, seed and number."""

import importlib
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Protocol

from tests.fuzz.mutations import BYTES, SPECIAL, Mutator
from tests.odd_files import make_odd


class Mutable(Protocol):
    """The parts of a kind that a case needs; see `targets.Kind`."""

    @property
    def name(self) -> str: ...
    @property
    def mutators(self) -> Sequence[Mutator]: ...


@dataclass(frozen=True)
class Case:
    """A mutated file; the first numbers of a kind are its seeds as they are, then kinds of file that are no file."""

    kind: str
    seed: int
    number: int

    def __str__(self) -> str:
        return f"{self.kind} {self.seed} {self.number}"

    @property
    def command(self) -> str:
        """What reads this one case again."""
        return f"python -m tests.fuzz --kind {self.kind} --seed {self.seed} --only {self.number}"


def build(table: str, names: Sequence[str], corpus: Path) -> None:
    """Fill a folder with the seeds of some kinds, and a list of the files that are to be mutated."""
    for kind in importlib.import_module(table).KINDS:
        if kind.name in names:
            root = corpus / kind.name
            root.mkdir(parents=True)
            seeds = [path.relative_to(root).as_posix() for path in kind.seeds(root)]
            assert seeds, f"{kind.name} has no seeds"
            (root / ".files").write_text("\n".join(seeds))


def seed_count(kind: str, corpus: Path) -> int:
    """How many of the first cases are whole files."""
    return len(_files(kind, corpus))


def prepare(case: Case, kind: Mutable, corpus: Path, work: Path) -> tuple[Path, str]:
    """Put the mutated file, with the files that belong to it, into a folder of its own.

    Returns:
        The file, and the names of what was done to it.
    """
    random, files, root = Random(str(case)), _files(case.kind, corpus), corpus / case.kind
    number = case.number
    name = files[number % len(files)] if number < len(files) + len(SPECIAL) else random.choice(files)
    clear(work)
    # links: only the mutated file is another, and readers replace files rather than write into them
    top = name.partition("/")[0]
    shutil.copytree(root / top, work / top, copy_function=os.link)
    path = work / name
    if number < len(files):
        return path, "whole"
    data = path.read_bytes()
    path.unlink()
    if number < len(files) + len(SPECIAL):
        special = SPECIAL[number - len(files)]
        make_odd(path, special)
        return path, special
    others = [(root / other).read_bytes() for other in random.sample(files, min(2, len(files)))]
    mutated, edits = mutate(data, kind.mutators, random, others)
    path.write_bytes(mutated)
    return path, edits


def mutate(data: bytes, mutators: Sequence[Mutator], random: Random, others: Sequence[bytes]) -> tuple[bytes, str]:
    """One to three edits. Those that know the format come first, since after others they could not parse it."""
    chosen = [random.choice(mutators) for _ in range(random.choice((0, 1, 1, 1, 2)))] if mutators else []
    if not chosen or random.random() < 0.25:
        chosen += [random.choice(BYTES) for _ in range(random.choice((1, 1, 2)))]
    edits = []
    for mutator in chosen:
        try:
            data = mutator(data, random, others)
            edits.append(mutator.__name__)
        except Exception:
            data = BYTES[0](data, random, others)
            edits.append(BYTES[0].__name__)
    return data, "+".join(edits)


def clear(folder: Path) -> None:
    """Remove a folder with its content."""
    shutil.rmtree(folder, ignore_errors=True)


def _files(kind: str, corpus: Path) -> list[str]:
    return (corpus / kind / ".files").read_text().split("\n")
