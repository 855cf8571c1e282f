"""How good the maps are that the arms read, to distinguish bad maps from maps that do not help."""

from __future__ import annotations

from pathlib import Path

from saliency_pipeline.assessment.config import AssessConfig
from saliency_pipeline.assessment.ranking import REFERENCE
from saliency_pipeline.assessment.results import Results as Assessed
from saliency_pipeline.assessment.run import assess
from saliency_pipeline.comparison.results import MapQuality
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.progress import Progress
from saliency_pipeline.shards.reader import ShardFolder

FOLDER = "assessment"
_METRICS = {"pointing-game": "pointing", "srg": "srg"}
"""Metrics and their columns: where the map points, and whether the network uses what it marks."""


def map_quality(
    pairs: ShardFolder, folder: Path, method: str | None, images: int, progress: Progress
) -> tuple[MapQuality, ...] | None:
    """Pointing game and SRG of the maps of a method; None where neither can be measured.

    Args:
        pairs: the pairs.
        folder: folder of the comparison, in which the assessment gets a folder of its own.
        method: the method whose maps the arms read; None if no arm reads any.
        images: number of images that SRG is measured on; 0 for no measurement.
        progress: receives notes.
    """
    if method is None or not images:
        return None
    metrics = tuple(name for name in _METRICS if name != "pointing-game" or pairs.header.boxes)
    config = AssessConfig(methods=(method,), metrics=metrics, images=images)
    try:
        results = assess(pairs.path, folder / FOLDER, config, progress=progress).results
    except SalpipeError as error:
        progress.note(f"the maps themselves are not measured: {error}")
        return None
    return tuple(_quality(results, method, _METRICS[metric]) for metric in metrics)


def _quality(results: Assessed, method: str, column: str) -> MapQuality:
    own = results.method(method).columns[column]
    floor = next(each for each in results.methods if each.name.partition(":")[0] == REFERENCE)
    beats = next(each for each in results.ranking if each.method == method).beats
    title = results.column(column).title
    return MapQuality(title, own.images, own.mean, own.low, own.high, floor.columns[column].mean, beats.get(column))
