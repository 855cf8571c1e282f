"""Costs of a comparison in wall-clock time, for `costs.json`; they differ between machines and affect no verdict."""

from __future__ import annotations

import glob
import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from saliency_pipeline.comparison.plan import PRETRAINING, Task
from saliency_pipeline.comparison.runs import Run, is_finished, logged
from saliency_pipeline.datasets.folder import read_folder
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.generation.config import GenerateConfig
from saliency_pipeline.generation.provenance import Provenance
from saliency_pipeline.generation.run import generate
from saliency_pipeline.shards.reader import ShardFolder
from saliency_pipeline.training.config import SELF, STORED, TrainConfig
from saliency_pipeline.training.data.self_maps import MAPS, computed_method, made_maps
from saliency_pipeline.training.setup import chosen_method

logger = logging.getLogger(__name__)

FRAMES = 64
"""Number of images whose maps are made to measure their cost."""


@dataclass(frozen=True)
class Spent:
    """Number of runs, and the training seconds of all of them."""

    runs: int
    seconds: float


@dataclass(frozen=True)
class ArmCosts:
    """The runs of an arm under a data budget: their number, mean seconds per run and per epoch.

    `reads_maps` is true if they read maps that have to be made first; `tuning` are the runs that chose the learning
    rates, None for an arm that was not tuned. `self_maps` are the mean seconds to train the baseline of a run and to
    make its maps with that, None for an arm with other maps.
    """

    runs: int
    seconds: float
    seconds_per_epoch: float
    reads_maps: bool
    tuning: Spent | None = None
    self_maps: float | None = None


@dataclass(frozen=True)
class MapCosts:
    """Number of images, and the seconds to make the maps of all of them."""

    images: int
    seconds: float


@dataclass(frozen=True)
class Costs:
    """costs.json: by setting and arm; of the maps, None if unknown; path of the shards."""

    settings: Mapping[str, Mapping[str, ArmCosts]]
    maps: MapCosts | None = None
    shards: str | None = None


@dataclass(frozen=True)
class PlannedCosts(Costs):
    """costs.json of a planned comparison, which may have pretraining runs."""

    pretraining: Spent | None = None


def measure_costs(
    runs: Sequence[Run],
    pairs: ShardFolder | None,
    config: TrainConfig,
    maps: MapCosts | None,
    *,
    tuning: Sequence[Run] = (),
) -> Costs:
    """Wall-clock time of every arm's runs, of choosing its learning rate, and of making the maps that arms read.

    Args:
        runs: finished runs of the comparison.
        pairs: their shards, None where they no longer exist.
        config: names the method whose maps are read.
        maps: an earlier measurement; None measures the cost of the maps.
        tuning: finished runs that chose the learning rates; they may belong to arms and settings without other runs.
    """
    settings: dict[str, dict[str, ArmCosts]] = {}
    for setting, arm in dict.fromkeys((run.setting, run.arm) for run in runs):
        own = _of(runs, setting, arm)
        seconds = [_seconds(run) for run in own]
        epochs = sum(len(run.curves["seconds"]) for run in own)
        tuned = _of(tuning, setting, arm)
        settings.setdefault(setting, {})[arm] = ArmCosts(
            len(own),
            float(np.mean(seconds)),
            sum(seconds) / epochs,
            own[0].config.reads_maps and own[0].config.maps in STORED,
            Spent(len(tuned), sum(map(_seconds, tuned))) if tuned else None,
            _self_maps(own),
        )
    if maps is None and pairs is not None and pairs.methods:
        each = maps_seconds(pairs, config)
        maps = None if each is None else MapCosts(len(pairs), each * len(pairs))
    return Costs(settings, maps, None if pairs is None else pairs.origin)


def pretraining_costs(tasks: Sequence[Task], folder: Path) -> Spent | None:
    """Number and training seconds of the finished pretraining runs, or None."""
    runs = [
        folder / task.folder
        for task in tasks
        if task.purpose == PRETRAINING and is_finished(folder / task.folder, task.config)
    ]
    return Spent(len(runs), sum(logged(run, "seconds") for run in runs)) if runs else None


def _of(runs: Sequence[Run], setting: str, arm: str) -> list[Run]:
    return [run for run in runs if (run.setting, run.arm) == (setting, arm)]


def _seconds(run: Run) -> float:
    return float(run.curves["seconds"].sum())


def _self_maps(runs: Sequence[Run]) -> float | None:
    """Mean seconds of the baselines of some runs and of their maps; None for other maps, or where a run is gone."""
    seconds = []
    for run in runs:
        if run.config.maps != SELF or not run.config.reads_maps:
            return None
        baseline = Path(str(run.config.from_baseline))
        try:
            spent = logged(baseline, "seconds")
        except (SalpipeError, OSError):
            return None
        own = glob.escape(computed_method(run.config.method).canonical)
        seconds.append(spent + sum(made_maps(folder)[1] for folder in (baseline / MAPS).glob(f"{own}-*")))
    return float(np.mean(seconds)) if seconds else None


def maps_seconds(pairs: ShardFolder, config: TrainConfig) -> float | None:
    """Seconds to make the map of one image, measured on some of the images; None if the source model is not available.

    Reading, decoding and writing are included, start-up is not.
    """
    provenance, method = Provenance.from_json(pairs.provenance), chosen_method(replace(config, arch="modulated"), pairs)
    settings = provenance.settings
    if settings is None or settings.weights not in ("embedded", "default"):
        return None
    layers, size = provenance.layers_for(str(method)), pairs.header.size
    rows = np.linspace(0, len(pairs) - 1, min(FRAMES, len(pairs))).astype(np.int64)
    try:
        with tempfile.TemporaryDirectory(prefix="salpipe-") as temporary:
            images = Path(temporary, "images")
            images.mkdir()
            for row in rows.tolist():
                Image.fromarray(pairs[row].image).save(images / f"{row}.jpg", quality=95)
            own = GenerateConfig(model=settings.model, layers=layers, methods=(str(method),), size=size)
            report = generate(read_folder(images, label_level=0), Path(temporary, "shards"), own)
    except SalpipeError as error:
        logger.info("the cost of the maps could not be measured: %s", error)
        return None
    return 1 / report.images_per_second if report.images_per_second else None
