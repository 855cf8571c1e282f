"""`salpipe evaluate`: how good a trained network is on a part of a data set, as numbers, tables and pictures."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from saliency_pipeline.datasets.nesting import refuse_among_images
from saliency_pipeline.devices import threads_within_cores
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.evaluation import BATCH, metrics
from saliency_pipeline.evaluation.confusion import excerpt, from_json
from saliency_pipeline.evaluation.figures import plot_confusion, plot_reliability
from saliency_pipeline.evaluation.predictions import (
    Positions,
    Probabilities,
    answer,
    highest,
    others,
    others_header,
    recorded_config,
)
from saliency_pipeline.files import write_atomically
from saliency_pipeline.folders import make_output, make_subfolder
from saliency_pipeline.memory import keep_large_blocks
from saliency_pipeline.models.trained.trained import Trained, load_trained
from saliency_pipeline.models.trained.training_images import DIGEST, TrainingImages
from saliency_pipeline.progress import Progress
from saliency_pipeline.recognition import refuse_shards
from saliency_pipeline.shards.reader import ShardFolder
from saliency_pipeline.tables import write_table
from saliency_pipeline.training.config import TrainConfig
from saliency_pipeline.training.data.groups import check_same_groups, find_groups
from saliency_pipeline.training.data.split import evaluation_rows
from saliency_pipeline.training.leaks import LeakCheck
from saliency_pipeline.training.parts import labels_and_splits, split_of

EVALUATION = "evaluation.json"
PER_CLASS = "per-class.csv"
COLUMNS = (
    *("class", "precision", "recall", "f1", "support"),
    *("precision_low", "precision_high", "recall_low", "recall_high"),
)
"""Columns of `per-class.csv`."""
PREDICTIONS = "predictions.csv"
CONFUSION = "confusion.png"
RELIABILITY = "reliability.png"


@dataclass(frozen=True)
class Evaluation:
    """How a trained network did.

    Attributes:
        folder: what was written.
        split: the images that were asked for.
        metrics: everything that `evaluation.json` holds: what `metrics.evaluate` returns, which network, images and
            maps it is about, and `caveats`: sentences on what limits the figures.
    """

    folder: Path
    split: str
    metrics: dict[str, Any]

    def worst(self, count: int = 3) -> list[dict[str, Any]]:
        """The classes of the lowest F1 below 1, the worst first, as `metrics.per_class` has them."""
        wrong = [row for row in self.metrics["per_class"] if row["f1"] is not None and row["f1"] < 1]
        return sorted(wrong, key=lambda row: float(row["f1"]))[:count]


@threads_within_cores()
def evaluate(
    run: Path | str,
    shards: Path | str,
    split: str = "validation",
    output: Path | str | None = None,
    *,
    batch_size: int = BATCH,
    device: str = "auto",
    progress: Progress | None = None,
) -> Evaluation:
    """Evaluate a trained network on the labeled images of one part of a data set, in fp32.

    The best epoch was chosen by its validation images, so that figures of `validation` are optimistic, which the
    caveats say; `test` is held out. A network that was trained in bf16 may differ from its own `metrics.csv` by
    rounding.

    Args:
        run: a folder of `salpipe train`, whose best network is taken, or the file of a network.
        shards: the images; with the run's classes, and with maps of its method where it needs maps. Frames of
            another size than in training are noted and taken, as far as the network runs on them.
        split: `train` and `validation` as the run had them, with its own fold where it was trained with `--folds`;
            `test`, or `all`.
        output: where `evaluation.json`, `per-class.csv`, `predictions.csv`, `confusion.png` and `reliability.png` go,
            replacing what is there. By default `evaluation-SPLIT` in the run, or for other shards than those of
            training `evaluation-SPLIT-NAME` by the name of theirs; the file of a network has no such place.
        batch_size: images at a time.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        progress: is told how far it is, and what is to be kept in mind about the figures.

    Raises:
        SalpipeError: no such network, shards that do not fit it, an empty split or a full disk.
        IntegrityError: a shard is damaged.
    """
    progress = progress or Progress()
    keep_large_blocks()
    trained, pairs = load_trained(run), ShardFolder(shards)
    if output is None and not Path(run).is_dir():
        raise SalpipeError(f"{run}: a network outside a run; say with -o where its evaluation goes")
    other = _part(trained.about, "shards").get("plan") != pairs.header.plan
    own = f"evaluation-{split}" + (f"-{pairs.path.resolve().name}" if other else "")
    folder = Path(run) / own if output is None else Path(output)
    refuse_among_images(folder, run, shards)
    refuse_shards(folder)
    config = recorded_config(trained)
    _check_classes(trained, pairs)
    labels, splits = labels_and_splits(pairs)
    groups = find_groups(config, pairs, progress) if config.folds and split in ("train", "validation") else None
    if groups and not other:
        check_same_groups(Path(run), trained.about.get("groups"), groups.record(config), "use --split test")
    if config.inner_split and split in ("train", "validation"):
        inner = split_of(config, pairs)
        rows = inner.train if split == "train" else inner.validation
    else:
        rows = evaluation_rows(
            labels,
            splits,
            split,
            classes=pairs.classes,
            **(groups.kept_together() if groups else {}),
            folds=config.folds,
            fold=config.fold,
            seed=config.seed,
        )
    caveats = list(_caveats(trained, config, pairs, rows))
    for note in caveats:
        progress.note(note)
    probabilities = answer(trained, pairs, rows, batch_size=batch_size, device=device, progress=progress)
    if output is None:
        make_subfolder(folder)
    make_output(folder)
    about = {
        "run": str(run),
        "network_sha256": trained.sha256,
        "arch": config.arch,
        "backbone": config.backbone,
        "epoch": _part(trained.about, "scores").get("epoch"),
        "shards": str(shards),
        "plan": pairs.header.plan,
        "split": split,
        "fold": f"{config.fold}/{config.folds}" if config.folds and split in ("train", "validation") else None,
        "method": config.method if trained.spec.needs_maps else None,
        "size": pairs.header.size,
        "caveats": caveats,
    }
    found = about | metrics.evaluate(labels[rows], probabilities, pairs.classes)
    _write(folder, found, pairs, rows, labels[rows], probabilities)
    return Evaluation(folder, split, found)


def _check_classes(trained: Trained, pairs: ShardFolder) -> None:
    """Refuse shards whose labels mean something else than the network's outputs.

    Raises:
        SalpipeError: naming the first class that differs.
    """
    own, given = trained.spec.classes, pairs.classes
    for number, (a, b) in enumerate(zip_longest(own, given)):
        if a != b:
            have, want = ("no such class" if name is None else repr(name) for name in (b, a))
            raise SalpipeError(
                f"{pairs.path}: class {number + 1} is {have}, of the run {want} ({len(given)} and {len(own)} classes); "
                "evaluate shards of the classes that the run was trained on"
            )


def _caveats(trained: Trained, config: TrainConfig, pairs: ShardFolder, rows: Positions) -> Iterator[str]:
    """What is to be kept in mind about the figures."""
    shards = _part(trained.about, "shards")
    same = shards.get("plan") == pairs.header.plan
    images = _trained_on(trained, config, pairs, shards)
    if seen := int(images.contains(_sha256(pairs, rows)).sum()):
        which = "these images" if seen == len(rows) else f"{seen:,} of these {len(rows):,} images"
        yield f"the network was trained on {which}: the figures say what it remembers, not what it has learned"
    validation = _validated_on(config, pairs, shards)
    if chosen := 0 if validation is None else int(validation.contains(_sha256(pairs, rows)).sum()):
        which = "these images" if chosen == len(rows) else f"{chosen:,} of these {len(rows):,} images"
        yield f"the best epoch was chosen by {which}: the figures are optimistic; use --split test for held-out images"
    if validation is None:
        yield "the shards of the run are not there any more: some of these images may have chosen the best epoch"
    if not images.complete:
        yield "the run does not record all images it was trained on: some of these images may be among them"
    check = LeakCheck(pairs, "evaluated images")
    for leak in (check.label_maps(config), check.source_images(config, lambda: rows)):
        if leak is not None:
            yield f"{leak.problem}: the figures do not hold for new images"
    if pairs.header.size != trained.spec.size:
        yield f"frames of {pairs.header.size} pixels, but the network was trained on {trained.spec.size}"
    if not same and trained.spec.needs_maps:
        there, here = (_origin(p) for p in (_part(shards, "provenance"), pairs.provenance))
        if differing := [f"{name} {there[name]} -> {here[name]}" for name in there if there[name] != here[name]]:
            yield f"maps from elsewhere than in training: {'; '.join(differing)}"


def _trained_on(trained: Trained, config: TrainConfig, pairs: ShardFolder, shards: dict[str, Any]) -> TrainingImages:
    """The images that the network was trained on: as its file records them, else as far as its shards are there."""
    images = trained.training_images
    if len(images) or images.complete:
        return images
    with suppress(SalpipeError):
        if (own := _own_shards(pairs, shards)) is not None:
            return TrainingImages.of(_sha256(own, split_of(config, own).train), complete=config.start is None)
    return images


def _validated_on(config: TrainConfig, pairs: ShardFolder, shards: dict[str, Any]) -> TrainingImages | None:
    """The validation images of the run, by which its best epoch was chosen; None where its shards are gone."""
    with suppress(SalpipeError):
        if (own := _own_shards(pairs, shards)) is not None:
            return TrainingImages.of(_sha256(own, split_of(config, own).validation))
    return None


def _own_shards(pairs: ShardFolder, shards: dict[str, Any]) -> ShardFolder | None:
    """The shards that the run was trained on; None where others are in their place.

    Raises:
        SalpipeError: they are not there.
    """
    own = pairs if pairs.header.plan == shards.get("plan") else ShardFolder(str(shards.get("path")))
    return own if own.header.plan == shards.get("plan") else None


def _sha256(pairs: ShardFolder, rows: Positions) -> npt.NDArray[np.uint8]:
    """SHA-256 of the files of some images, uint8 (n, 32): copies have the same one whatever they are called."""
    found = np.empty((len(rows), DIGEST), np.uint8)
    for shard, places, there in pairs.group(rows):
        found[places] = shard.source_sha256[there]
    return found


def _origin(provenance: dict[str, Any]) -> dict[str, str]:
    """What decides what a map shows, from the provenance of shards."""
    source = _part(provenance, "source")
    return {
        "model": str(source.get("model")),
        "weights": str(source.get("weights_sha256"))[:8],
        "layer": str(source.get("layer")),
        "target": str(provenance.get("target")),
    }


def _part(told: dict[str, Any], name: str) -> dict[str, Any]:
    """An entry of what a file tells; an empty one where it tells nothing of the kind."""
    found = told.get(name)
    return found if isinstance(found, dict) else {}


def _write(
    folder: Path,
    found: dict[str, Any],
    pairs: ShardFolder,
    rows: Positions,
    labels: Positions,
    probabilities: Probabilities,
) -> None:
    """Write the tables and pictures, and the numbers last."""
    classes = pairs.classes
    write_table(
        folder / PER_CLASS,
        COLUMNS,
        [[row[name] for name in COLUMNS] for row in found["per_class"]],
    )
    best, scores = highest(probabilities)
    write_table(
        folder / PREDICTIONS,
        ("key", "label", "predicted", "score", "label_score", "correct", *others_header(best.shape[1])),
        (
            (
                key,
                classes[label],
                classes[top[0]],
                score[0],
                label_score,
                int(top[0] == label),
                *others(top, score, classes),
            )
            for key, label, label_score, top, score in zip(
                pairs.keys_at(rows),
                labels.tolist(),
                np.take_along_axis(probabilities, labels[:, None], axis=1)[:, 0].tolist(),
                best.tolist(),
                scores.tolist(),
                strict=True,
            )
        ),
    )
    shown = excerpt(from_json(found["confusion"]), len(classes))
    names = [classes[index] for index in shown.classes.tolist()]
    plot_confusion(shown.matrix, names, folder / CONFUSION, images=shown.images, of=len(classes))
    calibration = found["calibration"]
    plot_reliability(calibration["bins"], calibration["ece"], folder / RELIABILITY)
    write_atomically(folder / EVALUATION, json.dumps(found, indent=2) + "\n")
