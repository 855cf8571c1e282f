"""Files in the folder of a comparison: results, costs and page; and the page rebuilt from the other two."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from jinja2 import UndefinedError

from saliency_pipeline.comparison.costs import Costs, MapCosts
from saliency_pipeline.comparison.overall_results import FORMAT as OVERALL_FORMAT
from saliency_pipeline.comparison.overall_results import FORMAT_VERSION as OVERALL_VERSION
from saliency_pipeline.comparison.overall_results import OverallResults
from saliency_pipeline.comparison.report import Pictures, write_report
from saliency_pipeline.comparison.results import FORMAT, FORMAT_VERSION, Results
from saliency_pipeline.datasets.nesting import refuse_among_images
from saliency_pipeline.documents import read_object
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.figures.pictures import jpeg
from saliency_pipeline.files import write_atomically
from saliency_pipeline.recognition import refuse_shards
from saliency_pipeline.saliency.render import overlay
from saliency_pipeline.serialization import MismatchError, from_json, to_json
from saliency_pipeline.shards.reader import ShardFolder
from saliency_pipeline.storage.mirror import recorded_folder
from saliency_pipeline.storage.store import is_url
from saliency_pipeline.training.config import TrainConfig

RESULTS, COSTS = "results.json", "costs.json"
AnyResults = TypeVar("AnyResults", Results, OverallResults)

_FORMATS: dict[type, tuple[str, int]] = {
    Results: (FORMAT, FORMAT_VERSION),
    OverallResults: (OVERALL_FORMAT, OVERALL_VERSION),
}


@dataclass(frozen=True)
class Comparison:
    """A finished comparison with its page and the numbers of runs that are finished, and that could not be trained."""

    folder: Path
    page: Path
    runs: int
    failed: int
    results: Results | OverallResults


def refuse_output(folder: Path, *inputs: Path | str, over_datasets: bool = False) -> None:
    """Refuse a folder to which a comparison must not be written.

    Raises:
        SalpipeError: it is among images or shards, or holds a comparison of the other kind.
    """
    refuse_among_images(folder, *inputs)
    refuse_shards(folder)
    if (folder / RESULTS).exists() and is_overall(folder) != over_datasets:
        other = "another comparison" if over_datasets else "a comparison over several data sets"
        raise SalpipeError(f"{folder}: holds {other}; choose another output folder")


def is_overall(folder: Path | str) -> bool:
    """True if a folder holds results over several data sets."""
    path = Path(folder) / RESULTS
    return path.exists() and read_object(path, "salpipe compare").get("format") == OVERALL_FORMAT


def rebuild(output: Path | str, shards: Path | str | None = None) -> Comparison:
    """Rebuild the report of a comparison from its `results.json` and `costs.json`.

    Args:
        output: a folder of `compare`.
        shards: the pairs, for the pictures of single images; by default those that the comparison was made from.

    Raises:
        SalpipeError: it holds no results, or they are of another format version or damaged.
    """
    folder = Path(output)
    if not (folder / RESULTS).exists():
        raise SalpipeError(f"{folder}: holds no {RESULTS}; make one with 'salpipe compare SHARDS -o {folder}'")
    results = read_results(folder, Results)
    costs = read_object(folder / COSTS, "salpipe compare")
    with damage_refused(folder / COSTS):
        spent = from_json(Costs, costs)
    with damage_refused(folder / RESULTS):
        place = shards or spent.shards
        pairs = shards_of(place) if is_url(place) else ShardFolder(place) if place and Path(place).exists() else None
        config = replace(TrainConfig(), method=results.about.get("method"))
        page = write_report(folder, results, spent, pictures_of(pairs, config))
    runs = sum(len(arm.runs) for setting in results.settings for arm in setting.arms.values())
    return Comparison(folder, page, runs, 0, results)


@contextmanager
def damage_refused(place: Path | str) -> Iterator[None]:
    """Raise SalpipeError for errors that damaged results cause."""
    try:
        yield
    except (
        LookupError,
        TypeError,
        ValueError,
        AttributeError,
        ArithmeticError,
        StopIteration,
        UndefinedError,
    ) as error:
        reason = f"{error}" if isinstance(error, MismatchError) else f"{error!r}"
        raise SalpipeError(f"{place}: damaged ({reason:.200}); run the same 'salpipe compare' again") from error


def read_results(folder: Path, kind: type[AnyResults]) -> AnyResults:
    """The results of a comparison's folder.

    Raises:
        SalpipeError: they are damaged, of another format version or not of this kind.
    """
    path, (own, supported) = folder / RESULTS, _FORMATS[kind]
    document = read_object(path, "salpipe compare")
    name, version = document.get("format", own), document.get("format_version", supported)
    if name != own:
        raise SalpipeError(f"{path}: format {name!r:.40}, not {own}; give another folder")
    if version != supported:
        raise SalpipeError(
            f"{path}: format version {version!r:.40}, but this version of salpipe reads {supported}; run the same "
            "'salpipe compare' with another output folder"
        )
    with damage_refused(path):
        return from_json(kind, document)


def known_map_costs(folder: Path) -> MapCosts | None:
    """An earlier measurement of the cost of the maps."""
    if not (folder / COSTS).exists():
        return None
    try:
        return from_json(MapCosts, read_object(folder / COSTS, "salpipe compare").get("maps"))
    except MismatchError:
        return None


def shards_of(place: object) -> ShardFolder | None:
    """The shards of a comparison by their stored path; None where they no longer exist."""
    try:
        if isinstance(place, str):
            place = recorded_folder(place)
        return ShardFolder(place) if isinstance(place, Path | str) else None
    except SalpipeError:
        return None


def pictures_of(pairs: ShardFolder | None, config: TrainConfig) -> Pictures:
    """A function that returns photo and overlay of an image by its key, as JPEG files."""

    def pictures(key: str) -> tuple[bytes, bytes] | None:
        if pairs is None:
            return None
        try:
            pair = pairs[pairs.find(key)]
        except SalpipeError:
            return None
        maps = pair.maps.get(config.method or next(iter(pair.maps), ""))
        if maps is None or config.map_target >= len(maps):
            return None
        return jpeg(pair.image), jpeg(overlay(pair.image, maps[config.map_target]))

    return pictures


def write_comparison(folder: Path, results: Results, costs: Costs, pictures: Pictures) -> Path:
    """Write results, costs and the page of a comparison; return the page."""
    write_results(folder, results)
    write_atomically(folder / COSTS, json.dumps(to_json(costs), indent=1) + "\n")
    return write_report(folder, results, costs, pictures)


def write_results(folder: Path, results: Results | OverallResults) -> None:
    """Write results.json."""
    write_atomically(folder / RESULTS, json.dumps(to_json(results), indent=1, allow_nan=False) + "\n")
