"""Predictions of a trained network: class probabilities of stored images, and their columns in tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import softmax

from saliency_pipeline.devices import find_device
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.evaluation import BATCH
from saliency_pipeline.generation.provenance import Provenance
from saliency_pipeline.models.trained.trained import OpenedRun, Trained
from saliency_pipeline.progress import Progress
from saliency_pipeline.saliency.methods.registry import is_given
from saliency_pipeline.shards.methods import is_signed
from saliency_pipeline.shards.reader import ShardFolder
from saliency_pipeline.statistics.metrics import TOP
from saliency_pipeline.text import one_line
from saliency_pipeline.training.config import SELF, TrainConfig
from saliency_pipeline.training.data.batches import PairDataset, Prefetcher
from saliency_pipeline.training.data.inputs import Inputs
from saliency_pipeline.training.data.order import epoch_batches
from saliency_pipeline.training.data.self_maps import BaselineRun, computed_method
from saliency_pipeline.training.data.sources import MapSource
from saliency_pipeline.training.setup import map_source, transform_of, unmarked_note

Positions = npt.NDArray[np.int64]
Probabilities = npt.NDArray[np.float64]

# rows that are sorted together
_ROWS = 1024


def recorded_config(trained: Trained | OpenedRun) -> TrainConfig:
    """The resolved options that a network was trained with.

    Raises:
        SalpipeError: its file does not record them.
    """
    try:
        return TrainConfig.restored(trained.about["config"])
    except (KeyError, TypeError, ValueError, AttributeError, SalpipeError) as error:
        raise SalpipeError(
            f"{trained.path}: has no valid record of its options ({one_line(error)}); give a run that 'salpipe train' "
            "made"
        ) from error


def needs_maps(trained: Trained) -> bool:
    """Return whether a network needs maps of new images."""
    return recorded_config(trained).maps_at_test


def reads_signed_maps(trained: Trained) -> bool:
    """Return whether the maps that a network was trained with are of a method with signed values."""
    shards, config = trained.about.get("shards"), recorded_config(trained)
    if config.maps == SELF:
        return computed_method(config.method).signed
    method = config.method
    provenance = shards.get("provenance") if isinstance(shards, dict) else None
    if not isinstance(provenance, dict) or method is None or not needs_maps(trained):
        return False
    return is_signed(provenance, method)


def recorded_baseline(trained: Trained | OpenedRun, place: str | None = None) -> BaselineRun:
    """The run whose network makes the maps of a network that was trained with `--maps self`.

    Args:
        trained: the network.
        place: the run's folder, if it was moved.

    Raises:
        SalpipeError: it is not there, or its network has changed.
    """
    path, maps = place or recorded_config(trained).from_baseline, trained.about.get("maps")
    expected = maps.get("sha256") if isinstance(maps, dict) else None
    try:
        run = BaselineRun.open(str(path))
    except SalpipeError as error:
        raise SalpipeError(
            f"{trained.path}: its maps are made by the network of a baseline, which cannot be read ({error}); put that "
            "run back, or name its new folder ('salpipe predict --weights RUN')"
        ) from error
    if run.sha256 != expected:
        raise SalpipeError(
            f"{trained.path}: its maps are made by the network of {path} with SHA-256 {str(expected)[:12]}…, and that "
            f"run has another one now ({run.sha256[:12]}…); put the run back"
        )
    return run


def _stored_self_maps(trained: Trained, pairs: ShardFolder) -> str | None:
    """The method of the shards whose maps are those of a run's own baseline; None if there is none."""
    maps, method = trained.about.get("maps"), recorded_config(trained).method
    if not isinstance(maps, dict) or maps.get("sha256") != pairs.source.get("weights_sha256"):
        return None
    same = maps.get("size") == pairs.header.size and Provenance.from_json(pairs.provenance).target == "predicted"
    return method if same and method in pairs.methods else None


def _maps_of(
    trained: Trained, pairs: ShardFolder, config: TrainConfig, baseline: str | None
) -> tuple[str | None, MapSource | None]:
    """The stored method, or else the source, of the maps that a network reads; None twice if it reads none.

    Raises:
        SalpipeError: there are no maps of the run's method, or the source cannot be used.
    """
    if not config.maps_at_test:
        return None, None
    if config.maps == SELF:
        if (stored := _stored_self_maps(trained, pairs)) is not None:
            return stored, None
        config = replace(config, from_baseline=str(recorded_baseline(trained, baseline).folder))
    if (source := map_source(config, pairs)) is not None:
        return None, source
    method = config.method
    if method is not None and method not in pairs.methods:
        option = "--maps-from FOLDER" if is_given(method) else f"--method {method}"
        raise SalpipeError(
            f"{pairs.path} holds no maps of '{method}', which {trained.path} was trained with (it holds "
            f"{', '.join(pairs.methods) or 'none'}); make them with 'salpipe generate {option}'"
        )
    return method, None


@torch.inference_mode()
def predict_probabilities(
    trained: Trained,
    pairs: ShardFolder,
    rows: Positions,
    *,
    batch_size: int = BATCH,
    device: str = "auto",
    baseline: str | None = None,
    progress: Progress | None = None,
) -> Probabilities:
    """Predict class probabilities of stored images in fp32, without augmentation.

    Maps are chosen and normalized as in training. Whatever the precision of training, probabilities differ between runs
    and batch sizes by rounding alone.

    Args:
        trained: the network; it is moved to the device.
        pairs: the images and maps. The size of the frames may differ from training if the network runs on it.
        rows: (N,) positions in `pairs`.
        batch_size: images per batch.
        device: see `find_device`.
        baseline: the run that makes the maps (`--maps self`), if it was moved.
        progress: receives progress.

    Returns:
        (N, C) float64, each row a distribution over the classes.

    Raises:
        SalpipeError: the shards hold no maps of the run's method, the network cannot run, or its output is not finite.
    """
    progress, chosen, config = progress or Progress(), find_device(device), recorded_config(trained)
    method, source = _maps_of(trained, pairs, config, baseline)
    if source is not None:
        source.prepare(rows, chosen, progress)
    dataset = PairDataset(pairs, rows, method, config.map_target, config.maps, config.run_seed, source)
    if note := unmarked_note(config, dataset.unmarked, len(rows)):
        progress.note(note)
    transform = transform_of(config, trained.spec, reads_signed_maps(trained))
    network = trained.network.to(chosen, memory_format=torch.channels_last)  # type: ignore[call-overload]
    inputs = Inputs(trained.preprocessing, chosen)
    # never all logits at once as well: with many classes this array takes most of the memory
    probabilities = np.empty((len(rows), len(trained.spec.classes)), np.float64)
    wrong: list[int] = []
    parts = epoch_batches(np.arange(len(rows)), batch_size)
    progress.start(len(rows), "image", "classifying")
    try:
        for part, batch in zip(parts, Prefetcher(dataset, transform).run(parts, 0), strict=True):
            images, maps, _ = inputs(batch)
            logits = batch.average(network(images, maps).float()).cpu().numpy()
            if not (finite := np.isfinite(logits).all(axis=1)).all():
                wrong += part[~finite].tolist()
            else:
                probabilities[part] = softmax(logits.astype(np.float64), axis=1)
            progress.advance(len(part))
    except RuntimeError as error:
        size, own = pairs.header.size, trained.spec.size
        remedy = f"it was trained on {own}x{own}" if size != own else "use a smaller --batch-size or --device cpu"
        raise SalpipeError(
            f"{trained.path}: cannot run on frames of {size}x{size} ({one_line(error)}); {remedy}"
        ) from error
    finally:
        progress.stop()
    if wrong:
        key = pairs[int(rows[wrong[0]])].key
        raise SalpipeError(
            f"{trained.path}: its output for {len(wrong)} of {len(rows)} images, first {key!r}, is not finite; "
            "train again with a lower --lr"
        )
    return probabilities


def highest(probabilities: Probabilities, count: int = TOP) -> tuple[npt.NDArray[np.int64], Probabilities]:
    """The most probable classes of every image and their probabilities; ties in order of the classes.

    Args:
        probabilities: (N, C).
        count: K.

    Returns:
        Classes int64 and probabilities, both (N, min(K, C)).

    >>> highest(np.array([[0.2, 0.4, 0.4]]), 2)[0].tolist()
    [[1, 2]]
    """
    parts = [probabilities[start : start + _ROWS] for start in range(0, max(len(probabilities), 1), _ROWS)]
    classes = np.concatenate([np.argsort(-part, axis=1, kind="stable")[:, :count] for part in parts])
    return classes, np.take_along_axis(probabilities, classes, axis=1)


def others_header(count: int) -> list[str]:
    """Column names of `others` for the highest `count` classes: class_2, score_2, class_3 and so on."""
    return [f"{name}_{place}" for place in range(2, count + 1) for name in ("class", "score")]


def others(top: Sequence[int], scores: Sequence[float], classes: Sequence[str]) -> list[object]:
    """Names and scores of the highest classes of an image after the first, alternating."""
    return [value for index, score in zip(top[1:], scores[1:], strict=True) for value in (classes[index], score)]
