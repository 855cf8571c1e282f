"""`salpipe compare` over several data sets: one comparison per folder of shards, or finished comparisons together."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from saliency_pipeline.comparison.arms import Arm
from saliency_pipeline.comparison.compare import compare
from saliency_pipeline.comparison.config import ComparisonConfig, Execution
from saliency_pipeline.comparison.datasets_page import write_page
from saliency_pipeline.comparison.output import (
    COSTS,
    RESULTS,
    Comparison,
    damage_refused,
    is_overall,
    read_results,
    refuse_output,
    shards_of,
    write_results,
)
from saliency_pipeline.comparison.overall import Finished, overall
from saliency_pipeline.comparison.overall_results import OverallResults
from saliency_pipeline.comparison.report import PAGE, TABLE
from saliency_pipeline.comparison.results import Results
from saliency_pipeline.documents import read_object
from saliency_pipeline.errors import OptionError, SalpipeError
from saliency_pipeline.figures.plotting import PICTURES
from saliency_pipeline.folders import FolderLock, make_output, make_subfolder
from saliency_pipeline.progress import Progress
from saliency_pipeline.recognition import COMPARISON, SHARDS, is_shards, recognize
from saliency_pipeline.serialization import to_json
from saliency_pipeline.shards.reader import ShardFolder
from saliency_pipeline.training.config import TrainConfig

_SAME = 0.5


def kind_of(inputs: Sequence[Path]) -> str | None:
    """Kind of several inputs: `recognition.SHARDS`, `recognition.COMPARISON`, or None for anything else.

    Raises:
        OptionError: folders of shards or comparisons among others.
    """
    kinds = [SHARDS if is_shards(path) else recognize(path) for path in inputs]
    for kind in (SHARDS, COMPARISON):
        if kind in kinds and len(set(kinds)) > 1:
            place, other = next((path, each) for path, each in zip(inputs, kinds, strict=True) if each != kind)
            raise OptionError(
                f"{place}: {other}, beside {kind}; give several folders of shards, several comparisons or several runs"
            )
    return kinds[0] if kinds[0] in (SHARDS, COMPARISON) else None


def name_inputs(inputs: Sequence[Path]) -> dict[str, Path]:
    """Inputs by the name of their data set: that of the folder, with the folder above it where two have the same.

    Raises:
        SalpipeError: two have the same names even so, or one that the output keeps for itself.
    """
    places = [path.resolve() for path in inputs]
    names = [path.stem if path.is_file() else path.name for path in places]
    names = [
        f"{place.parent.name}-{name}" if names.count(name) > 1 else name
        for name, place in zip(names, places, strict=True)
    ]
    for name, path in zip(names, inputs, strict=True):
        if names.count(name) > 1:
            raise SalpipeError(f"{path}: a second data set called '{name}'; give each folder once, or rename one")
        if name in (RESULTS, PAGE, TABLE, PICTURES):
            raise SalpipeError(f"{path}: the output has its own {name}; rename the folder")
    return dict(zip(names, inputs, strict=True))


def compare_datasets(
    shards: Sequence[Path],
    output: Path | str,
    arms: Sequence[Arm],
    shared: TrainConfig | None = None,
    config: ComparisonConfig | None = None,
    execution: Execution | None = None,
    *,
    progress: Progress | None = None,
) -> Comparison:
    """The same comparison on each of several data sets, then over all of them.

    The same call resumes where an interrupted one stopped. Arguments as of `compare.compare`, with one folder of shards
    per data set; the comparison on each goes into a folder of its name in `output`, results over all beside them.

    Raises:
        SalpipeError: a data set twice, or whatever `compare.compare` raises. Finished runs stay.
    """
    folder, progress, named = Path(output), progress or Progress(), name_inputs(shards)
    opened = {name: ShardFolder(path) for name, path in named.items()}
    _refuse_same({name: {pairs.identity} for name, pairs in opened.items()})
    _shared_images(opened)
    refuse_output(folder, *shards, over_datasets=True)
    _refuse_others(folder, set(named))
    make_output(folder)
    for number, (name, path) in enumerate(named.items(), 1):
        progress.note(f"data set {name} ({number} of {len(named)})")
        make_subfolder(folder / name)
        compare(path, folder / name, arms, shared, config, execution, progress=progress)
    return combine([folder / name for name in named], folder, progress=progress)


def combine(comparisons: Sequence[Path], output: Path | str, *, progress: Progress | None = None) -> Comparison:
    """Results over several data sets from a finished comparison on each.

    Args:
        comparisons: folders of `compare.compare`.
        output: where results.json, results.csv, report.html and figures/ go.
        progress: receives notes.

    Raises:
        SalpipeError: no comparison of this version, other arms, options, margins or primary question than the first's,
            a data set twice, or a full disk.
    """
    folder, named = Path(output), name_inputs(comparisons)
    read = {name: _read(path) for name, path in named.items()}
    with damage_refused(f"{', '.join(map(str, comparisons))}: {RESULTS}"):
        _refuse_other(named, read)
        _refuse_same({name: _hashes(named[name], results) for name, results in read.items()})
        costs = {name: path / COSTS for name, path in named.items() if (path / COSTS).exists()}
        places = {name: read_object(path, "salpipe compare").get("shards") for name, path in costs.items()}
        opened = {name: pairs for name, place in places.items() if (pairs := shards_of(place)) is not None}
        warnings = _shared_images(opened)
        here = folder.resolve()
        results = overall(
            [
                Finished(name, Path(os.path.relpath(path.resolve() / PAGE, here)).as_posix(), read[name])
                for name, path in named.items()
            ],
            warnings,
        )
    refuse_output(folder, *comparisons, over_datasets=True)
    _refuse_others(folder, set(named))
    make_output(folder)
    with FolderLock(folder, note=(progress or Progress()).note):
        write_results(folder, results)
        page = write_page(folder, results)
    return Comparison(folder, page, sum(row.runs for row in results.interquartile), 0, results)


def _refuse_others(folder: Path, names: set[str]) -> None:
    """Refuse data sets other than those of the stored results: they are fixed before looking.

    Raises:
        SalpipeError: a data set was added or left out.
    """
    if not (folder / RESULTS).exists():
        return
    stored = read_results(folder, OverallResults)
    before = {each.name for each in stored.datasets} | {each.name for each in stored.left_out}
    if before != names:
        raise SalpipeError(
            f"{folder}: other data sets were analyzed here ({', '.join(sorted(before))}); adding or "
            "leaving out data sets after looking raises the error rate above 5 %; choose another output folder"
        )


def rebuild_overall(output: Path | str) -> Comparison:
    """Write the page over several data sets again, from its `results.json`.

    Raises:
        SalpipeError: the results are damaged or of another version.
    """
    folder = Path(output)
    results = read_results(folder, OverallResults)
    with damage_refused(folder / RESULTS):
        page = write_page(folder, results)
    return Comparison(folder, page, sum(row.runs for row in results.interquartile), 0, results)


def _read(path: Path) -> Results:
    if is_overall(path):
        raise SalpipeError(f"{path}: results over several data sets; give the comparisons that it combines")
    read = read_results(path, Results)
    if read.primary is None:
        raise SalpipeError(f"{path}: has no primary question; compare with a candidate arm")
    return read


def _refuse_other(named: Mapping[str, Path], read: Mapping[str, Results]) -> None:
    """Raise SalpipeError where a comparison has other arms, options or rules than the first."""
    first, *others = named
    for name in others:
        old, new = read[first], read[name]
        differing = [
            f"{key} {_short(getattr(old, key))} and {_short(getattr(new, key))}"
            for key in ("primary", "rope")
            if getattr(old, key) != getattr(new, key)
        ]
        arms, own = ({arm.name: arm for arm in results.arms} for results in (old, new))
        for arm in sorted(arms.keys() | own.keys()):
            if arm not in arms or arm not in own:
                differing.append(f"arm {arm} in {first if arm in arms else name} only")
                continue
            differing += [
                f"{key} of arm {arm} {_short(getattr(arms[arm], key))} and {_short(getattr(own[arm], key))}"
                for key in ("kind", "of", "reference", "options")
                if getattr(arms[arm], key) != getattr(own[arm], key)
            ]
        if differing:
            raise SalpipeError(
                f"{named[name]}: differs from {named[first]} ({'; '.join(differing)}); compare with the same arms and "
                "options on each data set"
            )


def _short(value: Any) -> str:
    return json.dumps(to_json(value), sort_keys=True)


def _refuse_same(hashes: Mapping[str, set[str]]) -> None:
    """Raise SalpipeError where two data sets are the same shards."""
    for first, second in combinations(hashes, 2):
        if hashes[first] & hashes[second]:
            raise SalpipeError(
                f"{second}: the same shards as {first}, which are not independent data sets; give each once"
            )


def _hashes(path: Path, results: Results) -> set[str]:
    """`ShardFolder.identity` of the shards that a comparison was trained on."""
    plan = results.about.get("plan", {})
    hashes = {plan["hash"]} if "hash" in plan else set(results.about.get("shards", ()))
    if not hashes or not all(isinstance(each, str) for each in hashes):
        raise SalpipeError(f"{path / RESULTS}: does not name its shards; run its 'salpipe compare' again")
    return hashes


def _shared_images(opened: Mapping[str, ShardFolder]) -> list[str]:
    """A warning for each two data sets with images in common, by the SHA-256 of their files.

    Raises:
        SalpipeError: half of the images of one are in the other: the same data set under two plans.
    """
    files = {
        name: {row.tobytes() for shard in pairs.shards for row in np.asarray(shard.source_sha256)}
        for name, pairs in opened.items()
    }
    warnings = []
    for first, second in combinations(files, 2):
        both, fewest = len(files[first] & files[second]), min(len(files[first]), len(files[second]))
        if both and both >= _SAME * fewest:
            raise SalpipeError(
                f"{second}: {both} of its images are also in {first}, so that they are not independent data sets; give "
                "one of them"
            )
        if both:
            warnings.append(f"{both} images are both in {first} and {second}, which are not quite independent")
    return warnings
