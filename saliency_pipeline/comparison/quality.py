"""How good the maps are that the arms read, to distinguish bad maps from maps that do not help."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from saliency_pipeline.assessment.config import AssessConfig
from saliency_pipeline.assessment.ranking import REFERENCE
from saliency_pipeline.assessment.results import Results as Assessed
from saliency_pipeline.assessment.run import assess
from saliency_pipeline.comparison.arms import Arm, reads_maps
from saliency_pipeline.comparison.map_results import MapQuality
from saliency_pipeline.comparison.use_arms import maps_of
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.progress import Progress
from saliency_pipeline.shards.reader import ShardFolder
from saliency_pipeline.training.config import STORED, TrainConfig

FOLDER = "assessment"
_METRICS = {"pointing-game": "pointing", "srg": "srg"}
"""Metrics and their columns: where the map points, and whether the network uses what it marks."""


def map_quality(
    pairs: ShardFolder, folder: Path, arms: Sequence[Arm], shared: TrainConfig, images: int, progress: Progress
) -> tuple[MapQuality, ...] | None:
    """Pointing game and SRG of the maps that the arms read; None where neither can be measured, or no arm reads any.

    Args:
        pairs: the pairs.
        folder: folder of the comparison, in which the assessment gets a folder of its own.
        arms: all arms.
        shared: options of every run: the device, and the method whose maps an arm reads that names none.
        images: number of images that SRG is measured on; 0 for no measurement.
        progress: receives notes.
    """
    reading = [arm.options for arm in arms if reads_maps(arm) and maps_of(arm.options) in STORED]
    read = [options.get("method") or shared.method for options in reading]
    methods = tuple(dict.fromkeys(str(name) for name in read if name is not None))
    if not methods or not images:
        return None
    metrics = tuple(name for name in _METRICS if name != "pointing-game" or pairs.header.boxes)
    config = AssessConfig(methods=methods, metrics=metrics, images=images)
    try:
        # a number of images may be changed between two calls, which runs do not depend on
        device = shared.device
        results = assess(pairs.path, folder / FOLDER, config, device=device, progress=progress, renew=True).results
    except SalpipeError as error:
        # its remedies are options of that command
        progress.note(f"the maps themselves are not measured, as 'salpipe assess' can do: {error}")
        return None
    return tuple(_quality(results, method, _METRICS[metric]) for method in methods for metric in metrics)


def _quality(results: Assessed, method: str, column: str) -> MapQuality:
    whole = results.method(method)
    own = whole.columns[column]
    floor = next(each for each in results.methods if each.name.partition(":")[0] == REFERENCE)
    beats = next(each for each in results.ranking if each.method == method).beats
    title, reference = results.column(column).title, floor.columns[column].mean
    return MapQuality(whole.label, title, own.images, own.mean, own.low, own.high, reference, beats.get(column))
