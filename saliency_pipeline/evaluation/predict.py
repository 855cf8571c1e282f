"""`salpipe predict`: predictions of a trained network for plain images, with maps like those of training."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from saliency_pipeline.datasets.layout import ReadOptions
from saliency_pipeline.datasets.nesting import refuse_among_images
from saliency_pipeline.datasets.open import read_images
from saliency_pipeline.devices import find_device, threads_within_cores
from saliency_pipeline.errors import OptionError, SalpipeError
from saliency_pipeline.evaluation import BATCH
from saliency_pipeline.evaluation.predictions import (
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
from saliency_pipeline.gallery import COUNT
from saliency_pipeline.gallery.page import show
from saliency_pipeline.generation.background import Frames, background_of, describe_background
from saliency_pipeline.generation.config import GenerateConfig
from saliency_pipeline.generation.provenance import Provenance
from saliency_pipeline.generation.recorded import recorded_placement, recorded_source
from saliency_pipeline.generation.run import generate
from saliency_pipeline.models.trained.trained import Trained, load_trained
from saliency_pipeline.progress import Progress
from saliency_pipeline.saliency.methods.registry import find_methods, is_given
from saliency_pipeline.shards.reader import ShardFolder
from saliency_pipeline.storage.mirror import recorded_folder
from saliency_pipeline.tables import write_table
from saliency_pipeline.training.config import ORACLE, SELF
from saliency_pipeline.training.leaks import reads_stored_maps

SHARDS = "shards"
TABLE = "predictions.csv"
DOCUMENT = "predictions.json"


@dataclass(frozen=True)
class Predicted:
    """Summary of the predictions for a folder of images.

    Attributes:
        folder: output folder.
        images: number of images that were classified.
        rejects: number of images that could not be read; `rejects.jsonl` beside the shards gives the reasons.
        classes: number of images per predicted class, the most frequent class first.
        predictions: path of the table.
        page: path of the gallery.
        passed_over: number of files and other things that were skipped, by kind and reason.
    """

    folder: Path
    images: int
    rejects: int
    classes: dict[str, int]
    predictions: Path
    page: Path
    passed_over: dict[str, int]


@threads_within_cores()
def predict(
    images: Path | str,
    run: Path | str,
    output: Path | str,
    *,
    weights: str | None = None,
    target: str | None = None,
    count: int = COUNT,
    batch_size: int = BATCH,
    device: str = "auto",
    progress: Progress | None = None,
) -> Predicted:
    """Classify plain images. The same call resumes an interrupted one.

    The maps are made as for training: by the source model, method, layer and target that the run recorded, on frames of
    the recorded size and fit. A network without maps is its own source model, and the overlays show its saliency.
    Names of folders are no labels.

    Args:
        images: a folder of images, at any depth, or one image.
        run: a folder of `salpipe train`, for its best network, or the file of a network.
        output: folder of `predictions.csv`, `predictions.json`, `gallery.html`, `contact-sheet.png` and the shards;
            outside the image folder.
        weights: file of the source model's weights, if they came from a file; or the run, if the source model was one,
            or the baseline that makes the maps (`--maps self`), if it was moved.
        target: `predicted` to explain the predicted class for a run that was trained on maps of the images' own
            labels, which new images do not have; such a run is refused without it.
        count: maximum number of images in the gallery.
        batch_size: images per batch of the trained network.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        progress: receives progress and differences from training.

    Raises:
        SalpipeError: no such run, one without a record of its maps, another source model, a run that was trained on
            maps of labels, no image that can be used, other images in the output, or a full disk.
    """
    progress, folder, trained = progress or Progress(), Path(output), load_trained(run)
    refuse_among_images(folder, run, images)
    config = _maps_config(trained, str(run), weights, target, str(find_device(device)), progress)
    make_output(folder)
    make_subfolder(folder / SHARDS)
    catalogue = read_images(images, "folders", ReadOptions(label_level=0), progress.note)
    background = _background(trained, config, progress)
    report = generate(catalogue, folder / SHARDS, config, background=background, progress=progress)
    pairs = ShardFolder(folder / SHARDS)
    if not len(pairs):
        raise SalpipeError(
            f"{images}: none of its {report.rejects:,} images can be used; see rejects.jsonl in {pairs.path}"
        )
    rows = np.arange(len(pairs))
    probabilities = predict_probabilities(
        trained, pairs, rows, batch_size=batch_size, device=device, baseline=weights, progress=progress
    )
    best, scores = highest(probabilities)
    classes = trained.spec.classes

    def top(position: int) -> tuple[tuple[str, float], ...]:
        row = zip(best[position].tolist(), scores[position].tolist(), strict=True)
        return tuple((classes[index], score) for index, score in row)

    names = [Path(place).resolve().name for place in (images, run)]
    title = f"{names[0]}, classified by {names[1]}"
    if target is not None:
        title += f" with maps of the {target} class (it was trained on maps of the labels)"
    gallery = show(pairs.path, folder, count=count, predictions=top, title=title)
    targets = {"target": target, "target_of_training": "label"} if target is not None else {}
    _write(folder, trained, str(run), targets, pairs, report.rejects, probabilities)
    counts = Counter(classes[index] for index in best[:, 0].tolist())
    return Predicted(
        folder,
        len(pairs),
        report.rejects,
        dict(counts.most_common()),
        folder / TABLE,
        gallery.page,
        report.passed_over,
    )


def _maps_config(
    trained: Trained, run: str, weights: str | None, target: str | None, device: str, progress: Progress
) -> GenerateConfig:
    """The configuration of frames and maps like those of training."""
    if needs_maps(trained) and is_given(recorded_config(trained).method or ""):
        raise SalpipeError(
            f"{run}: was trained on maps from elsewhere, which no method computes for new images; make shards "
            "of them with 'salpipe generate --maps-from FOLDER' and use 'salpipe evaluate'"
        )
    if needs_maps(trained) and recorded_config(trained).maps == ORACLE:
        raise SalpipeError(
            f"{run}: was trained on maps of the true boxes (--maps oracle), which new images do not have; make shards "
            "of images with boxes by 'salpipe generate --boxes FILE' and use 'salpipe evaluate'"
        )
    provenance, recorded = _recorded(trained)
    # frames as they were stored: `--size` of training may be smaller
    size = recorded.size if recorded_config(trained).size else trained.spec.size
    settings = replace(recorded, size=size, device=device)
    if not needs_maps(trained):
        if weights is not None:
            raise SalpipeError(f"{run}: needs no maps, so there is no source model; leave out --weights")
        if target is not None:
            raise OptionError(f"--target {target}: {run} needs no maps; leave it out")
        own = GenerateConfig(model=run, backend="torch", precision="fp32")
        return _with_maps_of(settings, own)
    method = str(recorded_config(trained).method)
    if recorded_config(trained).maps == SELF:
        if target is not None:
            raise OptionError(f"--target {target}: is for runs trained on maps of the labels; leave it out")
        model = str(recorded_baseline(trained, weights).folder)
        own = GenerateConfig(model=model, methods=(method,), backend="torch", precision="fp32")
        return _with_maps_of(settings, own)
    _, model, weights = recorded_source(provenance, settings, str(trained.path), weights, progress.note)
    backend, precision = recorded_placement(provenance, recorded, device, progress.note)
    return replace(
        settings,
        model=model,
        weights=weights,
        layers=provenance.layers_for(method),
        methods=(method,),
        target=_target(trained, run, settings.target, target, progress),
        backend=backend,
        precision=precision,
    )


def _with_maps_of(settings: GenerateConfig, own: GenerateConfig) -> GenerateConfig:
    """The frames of some settings with the maps of others."""
    names = ("model", "weights", "layers", "methods", "target", "backend", "precision")
    return replace(settings, **{name: getattr(own, name) for name in names})


def _target(trained: Trained, run: str, recorded: str, target: str | None, progress: Progress) -> str:
    """The target of the maps: that of training, except for labels, which new images do not have.

    Raises:
        SalpipeError: maps explained the labels in training, and `target` names no replacement.
    """
    if target not in (None, "predicted"):
        raise OptionError(f"--target {target}: use predicted")
    if recorded != "label":
        if target is not None:
            raise OptionError(f"--target {target}: is for runs trained on maps of the labels; leave it out")
        return recorded
    if target is not None:
        progress.note("maps explain the predicted class; in training they explained an image's own label")
    elif reads_stored_maps(recorded_config(trained)):
        raise SalpipeError(
            f"{run}: was trained on maps of the images' own labels, which new images do not have; train on maps of "
            "--target predicted, or add --target predicted here to apply it to other maps than in training"
        )
    return "predicted"


def _recorded(trained: Trained) -> tuple[Provenance, GenerateConfig]:
    """How frames and maps of training were made.

    Raises:
        SalpipeError: the file of the network does not record it.
    """
    shards = trained.about.get("shards")
    provenance = Provenance.from_json(shards.get("provenance") if isinstance(shards, dict) else None)
    recorded = {
        "settings": provenance.settings,
        "layers": provenance.layers,
        "backend": provenance.backend,
        "precision": provenance.precision,
        "weights_sha256": provenance.source.get("weights_sha256"),
    }
    config = recorded_config(trained)
    # maps of the run's own baseline explain its default layer
    if not needs_maps(trained) or config.maps == SELF or not _explains_layers(str(config.method)):
        del recorded["layers"]
    missing = [name for name, value in recorded.items() if not value]
    if provenance.settings is None or missing:
        raise SalpipeError(
            f"{trained.path}: does not record how the frames and maps of its shards were made (no "
            f"{', '.join(missing)}); train on shards of 'salpipe generate'"
        )
    return provenance, provenance.settings


def _explains_layers(method: str) -> bool:
    return any(parsed.explained(("any",)) for parsed in find_methods([method]))


def _background(trained: Trained, config: GenerateConfig, progress: Progress) -> Frames | None:
    """The images that the method compared with in training; None for other methods, or if these shards are gone."""
    if not needs_maps(trained) or not any(method.needs_background for method in find_methods(config.methods)):
        return None
    shards = trained.about["shards"]
    with suppress(SalpipeError):
        background = background_of(ShardFolder(recorded_folder(str(shards.get("path")))))
        if describe_background(background) == Provenance.from_json(shards["provenance"]).background:
            return background
    progress.note(
        f"{config.methods[0]}: compares with some of these images instead of those of training, whose shards are no "
        f"longer at {shards.get('path')}"
    )
    return None


def _write(
    folder: Path,
    trained: Trained,
    run: str,
    targets: dict[str, str],
    pairs: ShardFolder,
    rejects: int,
    probabilities: Probabilities,
) -> None:
    """Write the table and the document."""
    classes, keys = trained.spec.classes, pairs.keys()
    best, scores = highest(probabilities)
    rows = list(zip(keys, best.tolist(), scores.tolist(), strict=True))
    write_table(
        folder / TABLE,
        ("key", "class", "score", *others_header(best.shape[1])),
        ((key, classes[top[0]], score[0], *others(top, score, classes)) for key, top, score in rows),
    )
    document = {
        "run": run,
        "network_sha256": trained.sha256,
        **targets,
        "images": len(pairs),
        "rejects": rejects,
        "predictions": [
            {
                "key": key,
                "class": classes[top[0]],
                "score": score[0],
                "top": [{"class": classes[i], "score": s} for i, s in zip(top, score, strict=True)],
            }
            for key, top, score in rows
        ],
    }
    write_atomically(folder / DOCUMENT, json.dumps(document, indent=1) + "\n")
