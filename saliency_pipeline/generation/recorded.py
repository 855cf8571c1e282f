"""The source model that stored maps were made by, and where its network runs, as their provenance records both."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.generation.config import GenerateConfig
from saliency_pipeline.generation.provenance import Provenance
from saliency_pipeline.models.source.source import SourceModel, load_source
from saliency_pipeline.models.source.weights import state_sha256
from saliency_pipeline.models.trained.trained import trained_file
from saliency_pipeline.saliency.engine.backends import Placement, computes_bf16_in, openvino_installed

Note = Callable[[str], None]


def recorded_source(
    provenance: Provenance, settings: GenerateConfig, where: str, weights: str | None, note: Note
) -> tuple[SourceModel, str, str]:
    """The source model of stored maps, and its name and weights for `load_source`.

    Args:
        provenance: that of the maps.
        settings: its settings.
        where: what holds the maps or was trained on them, for messages.
        weights: file of the weights, where they came from a file; or the run, where the source model was one.
        note: receives a note where the source of one's own network has changed.

    Raises:
        SalpipeError: it is not available, or differs from the one that made the maps.
    """
    model, then = settings.model, settings.weights
    if then == "trained":
        model, weights = weights or model, "default"
        if not trained_file(model):
            raise SalpipeError(
                f"{where}: its maps were made with the run {model}, which is not there; give it with --weights"
            )
    elif weights is None and then not in ("embedded", "default", "none"):
        raise SalpipeError(
            f"{where}: its maps were made by {model} with the weights of a file {then!r}; give it with --weights PATH"
        )
    elif weights is None:
        weights = "none" if then == "none" else "default"
    source, expected = load_source(model, weights), str(provenance.source.get("weights_sha256"))
    # a file may hold the weights that the library had then
    if source.weights_sha256 != expected and state_sha256(source.module) != expected:
        which = model if weights in ("default", "none") else weights
        raise SalpipeError(
            f"{which}: has other weights than the source model that made the maps (SHA-256 {expected[:12]}…, here "
            f"{source.weights_sha256[:12]}…); give those with --weights PATH"
        )
    if source.code_sha256 != provenance.source.get("code_sha256"):
        note(f"{model}: its source has changed since the maps were made; restore it if the network is another")
    return source, model, weights


def is_available(placement: Placement) -> bool:
    """True if a placement that was stored, perhaps on another machine, can be used on this one."""
    if not _backends(placement.device).get(placement.backend):
        return False
    if placement.precision == "bf16":
        return computes_bf16_in(placement.backend, placement.device)
    return placement.precision == "fp32"


def recorded_placement(provenance: Provenance, settings: GenerateConfig, device: str, note: Note) -> tuple[str, str]:
    """Backend and precision that made the maps, or the nearest available on this machine."""
    backend, precision = str(provenance.backend), str(provenance.precision)
    same = settings.device.partition(":")[0] == device.partition(":")[0]
    # another kind of device compiles other kernels
    usable = _backends(device).get(backend) and (same or backend != "compile")
    here = (backend, precision) if usable else ("torch", "fp32")
    if here[1] == "bf16" and not computes_bf16_in(here[0], device):
        here = (here[0], "fp32")
    if here != (backend, precision):
        note(f"{backend} {precision}, which made the maps, is not available here: {' '.join(here)}")
    return here


def _backends(device: str) -> dict[str, bool]:
    """Backends by name, each with True if it is available for a device on this machine."""
    compiles = device != "cpu" or shutil.which(os.environ.get("CXX", "g++")) is not None
    return {"torch": True, "openvino": device == "cpu" and openvino_installed(), "compile": compiles}
