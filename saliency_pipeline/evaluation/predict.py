"""`salpipe predict`: plain images classified by a trained network, with the maps made as they were for training."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from saliency_pipeline.datasets.layout import ReadOptions
from saliency_pipeline.datasets.nesting import refuse_among_images
from saliency_pipeline.datasets.open import read_images
from saliency_pipeline.devices import find_device, threads_within_cores
from saliency_pipeline.errors import OptionError, SalpipeError
from saliency_pipeline.evaluation import BATCH
from saliency_pipeline.evaluation.predictions import (
    Probabilities,
    answer,
    highest,
    others,
    others_header,
    recorded_config,
)
from saliency_pipeline.files import write_atomically
from saliency_pipeline.folders import make_output, make_subfolder
from saliency_pipeline.gallery import COUNT
from saliency_pipeline.gallery.page import show
from saliency_pipeline.generation.config import GenerateConfig
from saliency_pipeline.generation.run import generate
from saliency_pipeline.models.source.source import load_source
from saliency_pipeline.models.source.weights import state_sha256
from saliency_pipeline.models.trained.trained import Trained, load_trained, trained_file
from saliency_pipeline.progress import Progress
from saliency_pipeline.saliency.backends import computes_bf16_in, openvino_installed
from saliency_pipeline.shards.reader import ShardFolder
from saliency_pipeline.tables import write_table
from saliency_pipeline.training.leaks import reads_stored_maps

SHARDS = "shards"
TABLE = "predictions.csv"
DOCUMENT = "predictions.json"

# what `generate` tells of its shards, as far as it decides frames and maps
_RECORDED = {"fit": str, "max_pixels": int, "target": str, "precision": str, "backend": str, "device": str}
_RECORDED_SOURCE = ("model", "weights", "weights_sha256", "layer", "interpolation")


@dataclass(frozen=True)
class Predicted:
    """What a trained network made of some images.

    Attributes:
        folder: what was written.
        images: how many were classified.
        rejects: how many could not be used; `rejects.jsonl` beside the shards says why.
        classes: how many images were given each class, the most frequent first.
        predictions: the table.
        page: the gallery.
        passed_over: how many files and other things in the folder of images were passed over, by kind and reason.
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
    """Classify plain images. The same call goes on where an interrupted one stopped.

    The maps are made as they were for training: by the source model, method, layer and target that the run recorded,
    on frames of the recorded size and fit. Where the network needs no maps it is the source model itself, so that the
    overlays show where it looks. Labels are not looked at: folders are folders.

    Args:
        images: a folder of images, at any depth, or one image.
        run: a folder of `salpipe train`, whose best network is taken, or the file of a network.
        output: where `predictions.csv`, `predictions.json`, `gallery.html`, `contact-sheet.png` and the shards go;
            outside the image folder.
        weights: the source model's file, where its weights came from a file of the user's own; where it was a run,
            that run.
        target: `predicted` to explain the predicted class for a run that was trained on maps of the images' own
            labels, which new images do not have; such a run is refused without it.
        count: images in the gallery, at most.
        batch_size: images that the trained network classifies at a time.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        progress: is told how far it is, and what is not as in training.

    Raises:
        SalpipeError: no such run, one that does not say how its maps were made, a source model that is not the one of
            then, one that was trained on maps of labels, no image that can be used, other images in the output, or a
            full disk.
    """
    progress, folder, trained = progress or Progress(), Path(output), load_trained(run)
    refuse_among_images(folder, run, images)
    request = _request(trained, str(run), weights, target, str(find_device(device)), progress)
    make_output(folder)
    make_subfolder(folder / SHARDS)
    catalogue = read_images(images, "folders", ReadOptions(label_level=0), progress.note)
    report = generate(catalogue, folder / SHARDS, request, progress=progress)
    pairs = ShardFolder(folder / SHARDS)
    if not len(pairs):
        raise SalpipeError(
            f"{images}: none of its {report.rejects:,} images can be used; see rejects.jsonl in {pairs.path}"
        )
    probabilities = answer(
        trained, pairs, np.arange(len(pairs)), batch_size=batch_size, device=device, progress=progress
    )
    best, scores = highest(probabilities)
    classes = trained.spec.classes

    def top(position: int) -> tuple[tuple[str, float], ...]:
        found = zip(best[position].tolist(), scores[position].tolist(), strict=True)
        return tuple((classes[index], score) for index, score in found)

    names = [Path(place).resolve().name for place in (images, run)]
    title = f"{names[0]}, classified by {names[1]}"
    if target is not None:
        title += f" with maps of the {target} class (it was trained on maps of the labels)"
    gallery = show(pairs.path, folder, count=count, predictions=top, title=title)
    about = {"target": target, "target_of_training": "label"} if target is not None else {}
    _write(folder, trained, str(run), about, pairs, report.rejects, probabilities)
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


def _request(
    trained: Trained, run: str, weights: str | None, target: str | None, device: str, progress: Progress
) -> GenerateConfig:
    """How frames and maps are to be made so that they are what the network was trained with."""
    provenance, source = _provenance(trained)
    frame = {"size": trained.spec.size, "fit": provenance["fit"], "max_pixels": provenance["max_pixels"]}
    if isinstance(provenance.get("jpeg_quality"), int):
        # JPEG had its say in the frames of training
        frame |= {"encoding": "jpeg", "jpeg_quality": provenance["jpeg_quality"]}
    if not trained.spec.needs_maps:
        if weights is not None:
            raise SalpipeError(f"{run}: needs no maps, so there is no source model; leave out --weights")
        if target is not None:
            raise OptionError(f"--target {target}: {run} needs no maps; leave it out")
        return GenerateConfig(model=run, backend="torch", precision="fp32", device=device, **frame)
    model, weights = _source(trained, source, weights)
    backend, precision = _placement(provenance, device, progress)
    explained = _target(trained, run, str(provenance["target"]), target, progress)
    return GenerateConfig(
        model=model,
        weights=weights,
        layer=source["layer"],
        methods=(str(recorded_config(trained).method),),
        target=explained,
        backend=backend,
        precision=precision,
        device=device,
        **frame,
    )


def _target(trained: Trained, run: str, recorded: str, target: str | None, progress: Progress) -> str:
    """The class that maps explain: the one of training, which cannot be the label of images that have none.

    Raises:
        SalpipeError: maps explained the labels in training, and `target` does not say what they explain instead.
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


def _provenance(trained: Trained) -> tuple[dict[str, Any], dict[str, Any]]:
    """How the shards of training were made, and by which source model.

    Raises:
        SalpipeError: the network's file does not say.
    """
    shards = trained.about.get("shards")
    provenance = shards.get("provenance") if isinstance(shards, dict) else None
    source = provenance.get("source") if isinstance(provenance, dict) else None
    if isinstance(provenance, dict) and isinstance(source, dict):
        missing = [name for name, kind in _RECORDED.items() if not isinstance(provenance.get(name), kind)]
        if not (missing := missing + [name for name in _RECORDED_SOURCE if not isinstance(source.get(name), str)]):
            return provenance, source
    else:
        missing = ["source"]
    raise SalpipeError(
        f"{trained.path}: does not say how the frames and maps of its shards were made (no {', '.join(missing)}); "
        "train on shards of 'salpipe generate'"
    )


def _source(trained: Trained, source: dict[str, Any], weights: str | None) -> tuple[str, str]:
    """Name and weights of the source model of training, as `load_source` takes them.

    Raises:
        SalpipeError: it cannot be had, or is not the one of then.
    """
    model, then = str(source["model"]), str(source["weights"])
    if then == "trained":
        model, weights = weights or model, "default"
        if not trained_file(model):
            raise SalpipeError(
                f"{trained.path}: its maps were made with the run {model}, which is not there; give it with --weights"
            )
    elif weights is None and then not in ("embedded", "default", "none"):
        raise SalpipeError(
            f"{trained.path}: its maps were made by {model} with the weights of a file {then!r}; give it with "
            "--weights PATH"
        )
    elif weights is None:
        weights = "none" if then == "none" else "default"
    found, wanted = load_source(model, weights), str(source["weights_sha256"])
    # a file may hold what was the library's then
    if found.weights_sha256 != wanted and state_sha256(found.module) != wanted:
        which = model if weights in ("default", "none") else weights
        raise SalpipeError(
            f"{which}: has other weights than the source model of training (SHA-256 {wanted[:12]}…, here "
            f"{found.weights_sha256[:12]}…); give those with --weights PATH"
        )
    return model, weights


def _placement(provenance: dict[str, Any], device: str, progress: Progress) -> tuple[str, str]:
    """Back end and precision of training, or the nearest that this machine has."""
    backend, precision = str(provenance["backend"]), str(provenance["precision"])
    same = str(provenance["device"]).partition(":")[0] == device.partition(":")[0]
    compiler = device != "cpu" or shutil.which(os.environ.get("CXX", "g++")) is not None
    available = {"torch": True, "openvino": device == "cpu" and openvino_installed(), "compile": same and compiler}
    here = (backend, precision) if available.get(backend) else ("torch", "fp32")
    if here[1] == "bf16" and not computes_bf16_in(here[0], device):
        here = (here[0], "fp32")
    if here != (backend, precision):
        progress.note(
            f"{backend} {precision}, which made the maps of training, is not available here: {' '.join(here)}"
        )
    return here


def _write(
    folder: Path,
    trained: Trained,
    run: str,
    about: dict[str, str],
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
        **about,
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
