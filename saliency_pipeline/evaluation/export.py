"""`salpipe export`: a trained network as an ONNX model that runs without salpipe, checked before it is written."""

from __future__ import annotations

import importlib.util
import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from saliency_pipeline.datasets.nesting import refuse_among_images
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.evaluation import OPSET
from saliency_pipeline.evaluation.predictions import needs_maps, reads_signed_maps, recorded_config
from saliency_pipeline.files import write_atomically
from saliency_pipeline.folders import make_output
from saliency_pipeline.models.preprocessing import Preprocessing
from saliency_pipeline.models.trained.trained import Trained, load_trained
from saliency_pipeline.progress import Progress
from saliency_pipeline.text import one_line
from saliency_pipeline.training.data.batches import Batch
from saliency_pipeline.training.data.inputs import Inputs
from saliency_pipeline.training.data.maps import ABSOLUTE

TOLERANCE = 1e-4
"""Largest difference from PyTorch, relative to the range of the logits."""

_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
# batch sizes, other than 2, with which the network is traced: a fixed batch must be detected
_CHECKED = (1, 5)


@dataclass(frozen=True)
class Export:
    """An exported ONNX model and its deviation from the network.

    Attributes:
        file: path of the model.
        inputs: names and shapes of the inputs, for people.
        classes: number of classes.
        opset: version of the operators.
        error: largest difference of a logit from PyTorch's, relative to the range of the logits.
    """

    file: Path
    inputs: dict[str, str]
    classes: int
    opset: int
    error: float


class Deployed(nn.Module):
    """A trained network with the normalization of its images inside."""

    def __init__(self, network: nn.Module, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.network = network
        self.scale: Tensor
        self.shift: Tensor
        for name, values in zip(("scale", "shift"), preprocessing.scale_and_shift(1), strict=True):
            self.register_buffer(name, values.view(1, 3, 1, 1))

    def forward(self, image: Tensor, map: Tensor | None = None) -> Tensor:
        """RGB images (N, 3, S, S) in [0, 1] and maps (N, 1, S, S) to logits (N, classes), all float32."""
        logits: Tensor = self.network(image * self.scale + self.shift, map)
        return logits


def export(run: Path | str, output: Path | str, *, opset: int = OPSET, progress: Progress | None = None) -> Export:
    """Export a trained network as ONNX, after comparing ONNX Runtime with PyTorch for two batch sizes.

    The model takes `image`, float32 (N, 3, S, S), RGB in [0, 1] (normalization happens inside), and, where the network
    itself reads maps, `map`, float32 (N, 1, S, S), resized to the image (bilinear) and normalized as in training; it
    returns `logits`, float32 (N, classes). N is dynamic. Its metadata hold `classes` (a JSON list in the order of the
    logits), `method` (saliency method of the maps, or empty), `normalization` (JSON: `mean` and `std`, which the graph
    applies, `interpolation` of the frames, `map`: normalization of the maps, `map_absolute`: whether of their absolute
    values), `use` (the use of maps with its parameters, see `uses.registry.find_use`; empty for a plain network and
    where `arch` says it), `arch`, `backbone`, `network_sha256` and `salpipe`.

    What a use does to images is not in the graph but part of their preprocessing: for `zoom` the image is cropped to
    `Zoom.regions` of its normalized map and resized, for `mask` it is replaced by `Mask.changed`. With `views=2` the
    logits of the crop and of the whole image are averaged.

    Args:
        run: a folder of `salpipe train`, for its best network, or the file of a network.
        output: the file to write; an existing one is replaced.
        opset: version of the operators, 18 or higher.
        progress: receives notes.

    Raises:
        SalpipeError: ONNX is not installed, the network cannot be exported in this version, or the model differs from
            it. No file is written then.
    """
    if missing := [name for name in _PACKAGES if importlib.util.find_spec(name) is None]:
        raise SalpipeError(f"{', '.join(missing)}: not installed; run pip install 'saliency-pipeline[onnx]'")
    if opset < OPSET:
        raise SalpipeError(f"--opset {opset}: PyTorch exports {OPSET} and higher")
    progress, path, trained = progress or Progress(), Path(output), load_trained(run)
    if path.is_dir():
        raise SalpipeError(f"{path}: is a folder; name the file to write, such as {path / 'model.onnx'}")
    refuse_among_images(path, run)
    progress.note(f"exporting {trained.spec.arch} {trained.spec.backbone}")
    model = _model(trained, opset)
    for entry, text in _metadata(trained).items():
        model.metadata_props.add(key=entry, value=text)
    data = model.SerializeToString()
    progress.note("comparing with PyTorch")
    error = _error(trained, data)
    if not error <= TOLERANCE:
        raise SalpipeError(
            f"{run}: the exported model differs from PyTorch by {error:.1e} of the range of the logits, more than "
            f"{TOLERANCE:g}; no file was written, try another --opset or version of onnxruntime"
        )
    make_output(path.parent, path)
    write_atomically(path, data)
    size = trained.spec.size
    shapes = {"image": f"N x 3 x {size} x {size}"} | (
        {"map": f"N x 1 x {size} x {size}"} if trained.spec.needs_maps else {}
    )
    return Export(path, shapes, len(trained.spec.classes), opset, error)


def _model(trained: Trained, opset: int) -> Any:
    """The network as an ONNX ModelProto, without the exporter's references to source lines."""
    size, names = trained.spec.size, ["image", "map"] if trained.spec.needs_maps else ["image"]
    network = Deployed(trained.network, trained.preprocessing).eval()
    # with one example the exporter would fix the batch size
    examples = tuple(torch.rand(2, 3 if name == "image" else 1, size, size) for name in names)
    free = tuple({0: torch.export.Dim("N", min=1)} for _ in names)
    try:
        with _quiet():
            program = torch.onnx.export(
                network,
                examples,
                dynamo=True,
                input_names=names,
                output_names=["logits"],
                dynamic_shapes=free,
                opset_version=opset,
                verbose=False,
            )
            assert program is not None
            model = program.model_proto
    except Exception as error:  # the exporter runs the network's own code, and raises whatever that or ONNX raises
        raise SalpipeError(
            f"{trained.path}: cannot be exported with --opset {opset} ({one_line(error)}); try --opset {OPSET}"
        ) from error
    if [entry.version for entry in model.opset_import if entry.domain == ""] != [opset]:
        raise SalpipeError(f"--opset {opset}: this version of onnx cannot export {trained.spec.backbone} in it")
    graph = model.graph
    for part in (*graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer, graph):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    return model


def _metadata(trained: Trained) -> dict[str, str]:
    config, p = recorded_config(trained), trained.preprocessing
    mapped = needs_maps(trained)
    normalization = {
        "mean": p.mean,
        "std": p.std,
        "interpolation": p.interpolation,
        "map": config.normalize if mapped else None,
        "map_absolute": config.normalize in ABSOLUTE and reads_signed_maps(trained) if mapped else None,
    }
    return {
        "classes": json.dumps(trained.spec.classes),
        "method": config.method or "" if mapped else "",
        "normalization": json.dumps(normalization),
        "use": config.use or "",
        "arch": trained.spec.arch,
        "backbone": trained.spec.backbone,
        "network_sha256": trained.sha256,
        "salpipe": version("saliency-pipeline"),
    }


def _error(trained: Trained, model: bytes) -> float:
    """The largest difference between ONNX Runtime's logits and PyTorch's, relative to the range of the latter.

    PyTorch's input is bytes as in training, so that the normalization is compared as well.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors share no other class
        raise SalpipeError(
            f"{trained.path}: onnxruntime cannot load the exported model ({one_line(error)}); try --opset {OPSET}"
        ) from error
    random, size = np.random.default_rng(0), trained.spec.size
    inputs, differences, values = Inputs(trained.preprocessing, torch.device("cpu")), [0.0], []
    for count in _CHECKED:
        frames = random.integers(0, 256, (count, 3, size, size), np.uint8)
        maps = random.random((count, 1, size, size), np.float32) if trained.spec.needs_maps else None
        batch = Batch(
            torch.from_numpy(frames),
            None if maps is None else torch.from_numpy(maps),
            torch.zeros(count),
            np.arange(count),
        )
        with torch.inference_mode():
            expected = trained.network(*inputs(batch)[:2]).numpy()
        feed = {"image": frames.astype(np.float32) / 255} | ({} if maps is None else {"map": maps})
        logits = session.run(["logits"], feed)[0]
        if logits.shape != expected.shape:
            return float("inf")
        differences.append(float(abs(logits - expected).max()))
        values.append(expected.ravel())
    spread = float(np.ptp(np.concatenate(values)))
    # NaN stays NaN, and is refused
    return float(np.max(differences)) / spread if spread else float(np.max(differences))


@contextmanager
def _quiet() -> Iterator[None]:
    """Context without the exporter's warnings and logs, none of which concerns the user's network."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
