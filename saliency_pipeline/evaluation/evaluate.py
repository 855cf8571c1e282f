"""`salpipe evaluate`: metrics of a trained network on a part of a data set, as numbers, tables and figures."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from saliency_pipeline.datasets.nesting import refuse_among_images
from saliency_pipeline.devices import threads_within_cores
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.evaluation import BATCH
from saliency_pipeline.evaluation.figures import plot_confusion, plot_reliability
from saliency_pipeline.evaluation.predictions import (
    Positions,
    Probabilities,
    highest,
    needs_maps,
    others,
    others_header,
    predict_probabilities,
    recorded_baseline,
    recorded_config,
)
from saliency_pipeline.files import write_atomically
from saliency_pipeline.folders import make_output, make_subfolder
from saliency_pipeline.generation.provenance import Provenance
from saliency_pipeline.memory import keep_large_blocks
from saliency_pipeline.models.trained.trained import Trained, load_trained
from saliency_pipeline.models.trained.training_images import TrainingImages
from saliency_pipeline.progress import Progress
from saliency_pipeline.recognition import refuse_shards
from saliency_pipeline.shards.reader import ShardFolder
from saliency_pipeline.statistics import metrics
from saliency_pipeline.statistics.confusion import excerpt
from saliency_pipeline.statistics.metrics import Metrics
from saliency_pipeline.storage.mirror import recorded_folder
from saliency_pipeline.tables import write_table
from saliency_pipeline.training.config import ORACLE, SELF, TrainConfig
from saliency_pipeline.training.data.groups import check_same_groups, find_groups
from saliency_pipeline.training.data.split import Together, evaluation_rows
from saliency_pipeline.training.leaks import LeakCheck
from saliency_pipeline.training.setup import split_of

EVALUATION = "evaluation.json"
PER_CLASS = "per-class.csv"
PREDICTIONS = "predictions.csv"
CONFUSION = "confusion.png"
RELIABILITY = "reliability.png"

# parts of the data set that depend on the folds of training
_OF_TRAINING = ("train", "validation")


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Result of an evaluation; all but the folder is stored in `evaluation.json`.

    Attributes:
        folder: folder of the tables and figures.
        epoch: epoch of the network; None if its file does not record it.
        split: part of the data set that was evaluated.
        fold: fold and number of folds, as `1/5`; None if the split does not depend on folds.
        method: saliency method of the maps; None for a network without maps.
        size: height and width of the frames in pixels.
        caveats: sentences on the limits of the figures.
    """

    folder: Path
    run: str
    network_sha256: str
    arch: str
    backbone: str
    epoch: int | None
    shards: str
    plan: str
    split: str
    fold: str | None
    method: str | None
    size: int
    caveats: list[str]
    metrics: Metrics

    def to_json(self) -> dict[str, Any]:
        """The content of `evaluation.json`."""
        own = {name: value for name, value in vars(self).items() if name not in ("folder", "metrics")}
        return own | self.metrics.to_json()


@dataclass(frozen=True)
class _TrainingShards:
    """Shards of training as the file of a network records them; anything may be missing."""

    path: str
    identity: object
    provenance: Mapping[str, Any]

    @classmethod
    def of(cls, trained: Trained) -> _TrainingShards:
        shards = _table(trained.about, "shards")
        return cls(str(shards.get("path")), shards.get("sha256"), _table(shards, "provenance"))

    def open(self, pairs: ShardFolder) -> ShardFolder | None:
        """The shards of training, which may be `pairs`; None if they are gone or others have replaced them."""
        if pairs.identity == self.identity:
            return pairs
        with suppress(SalpipeError):
            own = ShardFolder(recorded_folder(self.path))
            return own if own.identity == self.identity else None
        return None


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

    The best epoch was chosen by the validation images, so that figures of `validation` are optimistic, which a caveat
    states; `test` is held out. A network that was trained in bf16 may differ from its own `metrics.csv` by rounding.

    Args:
        run: a folder of `salpipe train`, for its best network, or the file of a network.
        shards: images of the run's classes, with maps of its method if it needs maps. The size of the frames may differ
            from training if the network runs on it.
        split: `train` or `validation` as in the run, with its own fold if it was trained with `--folds`; `test`, or
            `all`.
        output: folder of `evaluation.json`, `per-class.csv`, `predictions.csv`, `confusion.png` and `reliability.png`,
            which are replaced. By default `evaluation-SPLIT` in the run, or for other shards than those of training
            `evaluation-SPLIT-NAME` with their name; required for the file of a network.
        batch_size: images per batch.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        progress: receives progress and the caveats.

    Raises:
        SalpipeError: no such network, shards that do not fit it, an empty split or a full disk.
        IntegrityError: a shard is damaged.
    """
    progress = progress or Progress()
    keep_large_blocks()
    trained, pairs = load_trained(run), ShardFolder(shards)
    pairs.load(progress)
    if output is None and not Path(run).is_dir():
        raise SalpipeError(f"{run}: a network outside a run; name the folder of its evaluation with -o")
    recorded = _TrainingShards.of(trained)
    same = recorded.identity == pairs.identity
    name = f"evaluation-{split}" + ("" if same else f"-{pairs.path.resolve().name}")
    folder = Path(run) / name if output is None else Path(output)
    refuse_among_images(folder, run, pairs.path)
    refuse_shards(folder)
    config = recorded_config(trained)
    _check_classes(trained, pairs)
    rows = _rows(Path(run), trained, config, pairs, split, same, progress)
    caveats = list(_caveats(trained, config, pairs, rows, recorded))
    for note in caveats:
        progress.note(note)
    probabilities = predict_probabilities(trained, pairs, rows, batch_size=batch_size, device=device, progress=progress)
    if output is None:
        make_subfolder(folder)
    make_output(folder)
    epoch = _table(trained.about, "scores").get("epoch")
    evaluation = Evaluation(
        folder,
        run=str(run),
        network_sha256=trained.sha256,
        arch=config.arch,
        backbone=config.backbone,
        epoch=epoch if isinstance(epoch, int) else None,
        shards=str(shards),
        plan=pairs.header.plan,
        split=split,
        fold=f"{config.fold}/{config.folds}" if config.folds and split in _OF_TRAINING else None,
        method=config.method if needs_maps(trained) else None,
        size=pairs.header.size,
        caveats=caveats,
        metrics=metrics.evaluate(pairs.labels[rows], probabilities, pairs.classes),
    )
    _write(evaluation, pairs, rows, probabilities)
    return evaluation


def _rows(
    run: Path,
    trained: Trained,
    config: TrainConfig,
    pairs: ShardFolder,
    split: str,
    same: bool,
    progress: Progress,
) -> Positions:
    """Positions of the evaluated images, int64 (n,).

    Raises:
        SalpipeError: an unknown or empty split.
        PlanMismatchError: the folds of training cannot be made again, since groups differ.
    """
    groups = find_groups(config, pairs, progress) if config.folds and split in _OF_TRAINING else None
    if groups and same:
        check_same_groups(run, trained.about.get("groups"), groups.record(config), "use --split test")
    if config.inner_split and split in _OF_TRAINING:
        inner = split_of(config, pairs, groups)
        return inner.train if split == "train" else inner.validation
    return evaluation_rows(
        pairs.labels,
        pairs.splits,
        split,
        classes=pairs.classes,
        together=groups.together if groups else Together(),
        folds=config.folds,
        fold=config.fold,
        seed=config.seed,
    )


def _check_classes(trained: Trained, pairs: ShardFolder) -> None:
    """Check that the classes of the shards are those of the network.

    Raises:
        SalpipeError: naming the first class that differs.
    """
    own, others = trained.spec.classes, pairs.classes
    for number, (a, b) in enumerate(zip_longest(own, others)):
        if a != b:
            have, want = ("no such class" if name is None else repr(name) for name in (b, a))
            raise SalpipeError(
                f"{pairs.path}: class {number + 1} is {have}, in the run {want} ({len(others)} and {len(own)} "
                "classes); evaluate shards of the classes that the run was trained on"
            )


def _caveats(
    trained: Trained, config: TrainConfig, pairs: ShardFolder, rows: Positions, recorded: _TrainingShards
) -> Iterator[str]:
    """Sentences on the limits of the figures."""
    digests, own = pairs.source_sha256[rows], recorded.open(pairs)
    validation: TrainingImages | None = None
    images = trained.training_images
    with suppress(SalpipeError):
        if own is not None:
            parts = split_of(config, own)
            validation = TrainingImages.of(own.source_sha256[parts.validation])
            if not len(images) and not images.complete:
                images = TrainingImages.of(own.source_sha256[parts.train], complete=config.start is None)
    if seen := int(images.contains(digests).sum()):
        which = "these images" if seen == len(rows) else f"{seen:,} of these {len(rows):,} images"
        yield f"the network was trained on {which}: the figures do not hold for new ones"
    if chosen := 0 if validation is None else int(validation.contains(digests).sum()):
        which = "these images" if chosen == len(rows) else f"{chosen:,} of these {len(rows):,} images"
        yield f"the best epoch was chosen by {which}: the figures are optimistic; use --split test for held-out images"
    if validation is None:
        yield "the shards of the run are not there any more: some of these images may have chosen the best epoch"
    if not images.complete:
        yield "the run does not record all images it was trained on: some of these images may be among them"
    check = LeakCheck(pairs, "evaluated images")
    baseline: TrainingImages | None = None
    with suppress(SalpipeError):
        baseline = recorded_baseline(trained).training_images() if config.maps == SELF else None
    for leak in (check.label_maps(config), check.source_images(config, lambda: rows, baseline)):
        if leak is not None:
            yield f"{leak.problem}: the figures do not hold for new images"
    stored = Provenance.from_json(recorded.provenance).source.get("size", pairs.header.size)
    trained_on = trained.spec.size if config.size is None else stored
    if pairs.header.size != trained_on:
        yield f"frames of {pairs.header.size} pixels, but the network was trained on {trained_on}"
    if recorded.identity != pairs.identity and needs_maps(trained) and config.maps not in (ORACLE, SELF):
        there, here = _origin(recorded.provenance), _origin(pairs.provenance)
        if differing := [f"{name} {there[name]} -> {here[name]}" for name in there if there[name] != here[name]]:
            yield f"maps from elsewhere than in training: {'; '.join(differing)}"


def _origin(stored: Mapping[str, Any]) -> dict[str, str]:
    """The entries of a provenance that decide the content of maps."""
    provenance = Provenance.from_json(stored)
    return {
        "model": str(provenance.source.get("model")),
        "weights": str(provenance.source.get("weights_sha256"))[:8],
        "layer": ", ".join(provenance.layers),
        "target": str(provenance.target),
    }


def _table(record: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """An entry of a record from a file that is a table; an empty one if it is missing or of another kind."""
    entry = record.get(name)
    return entry if isinstance(entry, dict) else {}


def _write(evaluation: Evaluation, pairs: ShardFolder, rows: Positions, probabilities: Probabilities) -> None:
    """Write the tables and figures, and the numbers last."""
    folder, measured, classes = evaluation.folder, evaluation.metrics, pairs.classes
    rows_per_class = [row.to_json() for row in measured.per_class]
    write_table(folder / PER_CLASS, tuple(rows_per_class[0]), [list(row.values()) for row in rows_per_class])
    best, scores = highest(probabilities)
    labels = pairs.labels[rows]
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
    shown = excerpt(measured.confusion, len(classes))
    names = [classes[index] for index in shown.classes.tolist()]
    plot_confusion(shown.matrix, names, folder / CONFUSION, images=shown.images, of=len(classes))
    bins = [asdict(b) for b in measured.calibration.bins]
    plot_reliability(bins, measured.calibration.ece, folder / RELIABILITY)
    write_atomically(folder / EVALUATION, json.dumps(evaluation.to_json(), indent=2) + "\n")
