"""Finished training runs: arm, seed and fold, curves, predictions, first weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from saliency_pipeline.comparison.results import Start
from saliency_pipeline.documents import parse_json, read_object, read_regular
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.evaluation.evaluate import PREDICTIONS
from saliency_pipeline.recognition import RUN, recognize
from saliency_pipeline.serialization import from_json
from saliency_pipeline.tables import read_table
from saliency_pipeline.training.checkpoint import COLUMNS, TOP5, VALIDATED
from saliency_pipeline.training.config import TrainConfig
from saliency_pipeline.training.runlog import METRICS, PROVENANCE, SUMMARY, VALIDATION

TEST = "evaluation-test"
"""Folder of a run's evaluation on the held-out test split."""

Pair = tuple[int, int | None]
"""Seed and fold, which two runs of a pair share."""


@dataclass(frozen=True, eq=False)
class Predictions:
    """Predictions of a network for some images.

    Attributes:
        keys: (N,) names of the images.
        labels: (N,) their classes.
        predicted: (N,) the classes that the network predicted.
    """

    keys: tuple[str, ...]
    labels: tuple[str, ...]
    predicted: tuple[str, ...]

    @property
    def right(self) -> npt.NDArray[np.bool_]:
        """Which of the images are classified correctly, bool (N,)."""
        return np.array([a == b for a, b in zip(self.labels, self.predicted, strict=True)], np.bool_)


@dataclass(frozen=True, eq=False)
class FirstWeights:
    """The weights that a run started with.

    Attributes:
        origin: a backbone and its weights, or a checkpoint; empty if nothing was loaded.
        loaded: names of the tensors that were loaded from there.
        random: names of the tensors that were initialized at random, at least in part.
        tensors: dtype, shape and digest of every tensor by name, see `models.source.weights.tensor_digests`; empty for
            a run of an earlier version, which recorded none.
    """

    origin: str = ""
    loaded: frozenset[str] = frozenset()
    random: frozenset[str] = frozenset()
    tensors: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Run:
    """A finished training run.

    Attributes:
        arm: name of its arm.
        setting: its data budget, such as `15 per class`.
        folder: its folder.
        config: its options.
        curves: float64 (E,) by the name of a metric, such as `validation_top1`, NaN where an epoch was not validated;
            top-5 accuracy is left out where it is not defined.
        images: how many images trained (`train`), validated (`validation`), and training was sampled from (`pool`).
        shards_sha256: `ShardFolder.identity` of its shards.
        shards: folder of the shards.
        initial_sha256: of the first weights.
        validation: predictions of the last epoch; None for a run that kept none.
        test: predictions of the best epoch for the held-out test split; None where there is none.
        first: first weights.
        start: distance of its first network from plain transfer; None if the run did not record it.
    """

    arm: str
    setting: str
    folder: Path
    config: TrainConfig
    curves: dict[str, npt.NDArray[np.float64]]
    images: dict[str, int]
    shards_sha256: str
    shards: Path
    initial_sha256: str
    validation: Predictions | None
    test: Predictions | None
    first: FirstWeights = FirstWeights()
    start: Start | None = None

    @property
    def pair(self) -> Pair:
        """Seed and fold."""
        return self.config.seed, self.config.fold

    @property
    def final(self) -> float:
        """Validation top-1 after the last epoch that was trained, even if `patience` ended the run."""
        return float(self.curves["validation_top1"][-1])


def read_run(folder: Path, arm: str, setting: str) -> Run:
    """Read a finished run.

    Raises:
        SalpipeError: it is not finished, or damaged.
    """
    config = TrainConfig.read(folder) if folder.is_dir() else None
    if config is None and (kind := recognize(folder)) != RUN:
        raise SalpipeError(f"{folder}: {kind}, not a finished run; give runs that 'salpipe train' finished")
    if config is None or not (folder / SUMMARY).is_file():
        raise SalpipeError(f"{folder}: not a finished run; finish it with the same 'salpipe train'")
    provenance = read_object(folder / PROVENANCE)
    try:
        rows = [parse_json(line) for line in read_regular(folder / METRICS).splitlines()]
        curves = _curves(rows)
        images = {name: int(count) for name, count in provenance["images"].items()}
        return Run(
            arm,
            setting,
            folder,
            config,
            curves,
            {"pool": images["train"], **images},
            str(provenance["shards"]["sha256"]),
            Path(provenance["shards"]["path"]),
            str(provenance["initialization"]["sha256"]),
            _read_predictions(folder / VALIDATION),
            _read_predictions(folder / TEST / PREDICTIONS),
            _first_weights(provenance["initialization"]),
            None if provenance.get("start") is None else from_json(Start, provenance["start"]),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise SalpipeError(f"{folder}: damaged ({error!s:.200}); train it again in another folder") from error


def _curves(rows: Sequence[Any]) -> dict[str, npt.NDArray[np.float64]]:
    """Every metric of a run over its epochs, NaN where an epoch was not validated.

    Raises:
        ValueError, KeyError, TypeError: a row is damaged, or the last one not validated.
    """
    validated = np.array([row["validation_top1"] is not None for row in rows], np.bool_)
    undefined = {"epoch", *(TOP5 for row in rows if row["validation_top1"] is not None and row[TOP5] is None)}
    curves = {}
    for name in (name for name in COLUMNS if name not in undefined):
        present = validated if name in VALIDATED else np.ones_like(validated)
        values = [float(row[name]) if own else math.nan for row, own in zip(rows, present, strict=True)]
        curves[name] = np.array(values, np.float64)
    if not rows or not validated[-1] or not np.isfinite(curves["validation_top1"][validated]).all():
        raise ValueError("its accuracy is not finite")
    return curves


def is_finished(folder: Path, config: TrainConfig) -> bool:
    """True if a folder holds a run that has all requested epochs, or stopped early."""
    stored = TrainConfig.read(folder)
    if stored is None or not (folder / SUMMARY).is_file():
        return False
    summary = read_object(folder / SUMMARY)
    ended = summary.get("epochs") == config.epochs or bool(summary.get("stopped_early"))
    return ended and stored.epochs == config.epochs


def logged(run: Path, *keys: str) -> float:
    """A number in the summary of a finished run, by its keys from the outside in.

    Raises:
        SalpipeError: the summary is damaged.
    """
    value: Any = read_object(run / SUMMARY)
    try:
        for key in keys:
            value = value[key]
        return float(value)
    except (KeyError, TypeError, ValueError) as error:
        raise SalpipeError(f"{run / SUMMARY}: damaged; remove {run} and run the same command again") from error


def shared_keys(first: Predictions, second: Predictions) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Positions of the images that both have, in each, int64 (n,) twice, in the order of the first."""
    places = {key: place for place, key in enumerate(second.keys)}
    both = np.array([(own, places[key]) for own, key in enumerate(first.keys) if key in places], np.int64)
    both = both.reshape(-1, 2)
    return both[:, 0], both[:, 1]


def recalls(predictions: Sequence[Predictions], classes: Sequence[str]) -> list[float | None]:
    """Recall of each class over all predictions; None for a class without images."""
    counts: dict[str, list[int]] = {name: [0, 0] for name in classes}
    for own in predictions:
        for label, right in zip(own.labels, own.right.tolist(), strict=True):
            counts[label][0] += 1
            counts[label][1] += right
    return [right / images if images else None for images, right in counts.values()]


def _first_weights(record: Mapping[str, Any]) -> FirstWeights:
    """The first weights from `initialization` of a run's provenance.

    Raises:
        ValueError, AttributeError, TypeError: it is damaged.
    """
    loaded, random = (frozenset(map(str, record.get(name, ()))) for name in ("loaded", "xavier"))
    tensors = {str(name): str(digest) for name, digest in record.get("tensors", {}).items()}
    if any(digest.count(" ") != 2 for digest in tensors.values()) or (tensors and not loaded | random <= set(tensors)):
        raise ValueError("the digests of its first weights are not those of its tensors")
    return FirstWeights(str(record.get("origin", "")), loaded, random, tensors)


def _read_predictions(path: Path) -> Predictions | None:
    try:
        rows = read_table(path, ("key", "label", "predicted"))
    except FileNotFoundError:
        return None
    keys, labels, predicted = zip(*rows, strict=True) if rows else ((), (), ())
    return Predictions(keys, labels, predicted)
