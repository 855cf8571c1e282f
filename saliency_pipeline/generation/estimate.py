"""Estimates of the cost of a run: forward passes per image, and the time that they take on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from saliency_pipeline.devices import find_device
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.generation.config import GenerateConfig
from saliency_pipeline.models.source.source import load_source
from saliency_pipeline.progress import Progress
from saliency_pipeline.saliency.engine.backends import Placement, openvino_installed
from saliency_pipeline.saliency.explainer import Explainer
from saliency_pipeline.saliency.layer_choice import explained_layers
from saliency_pipeline.saliency.methods.method import Method, Setup
from saliency_pipeline.saliency.methods.registry import find_methods
from saliency_pipeline.saliency.prepared import prepared_split
from saliency_pipeline.saliency.targets import Target
from saliency_pipeline.saliency.tuning import default_batch, measure_rate
from saliency_pipeline.workers import usable_cores

TIMED = 10.0
"""Passes per image from which on the time is estimated, which takes seconds: the source model has to be loaded."""

_SECONDS = 0.5


@dataclass(frozen=True)
class Estimate:
    """Cost of explaining an image.

    Attributes:
        passes: forward passes of the network per image; a gradient counts as 3.
        rate: forward passes per second on this machine; None if they were not timed.
    """

    passes: float
    rate: float | None = None

    def seconds(self, images: int) -> float | None:
        """Time for a number of images; None if the passes were not timed."""
        return None if self.rate is None else images * self.passes / self.rate


def estimate(config: GenerateConfig, progress: Progress) -> Estimate:
    """Estimate the cost per image of a configuration.

    From `TIMED` passes on, forward passes of the source model are timed, on the backend that runs it without a
    comparison of several, in fp32, and all cores. A source model that cannot be loaded or run has no time, with a note.

    Raises:
        SalpipeError: an unknown method.
    """
    methods = find_methods(config.methods, config.layers)
    targets = int(config.target.removeprefix("top:")) if config.target.startswith("top:") else 1
    passes = _passes(methods, Setup(config.size or Setup.size, targets))
    if passes < TIMED:
        return Estimate(passes)
    progress.note(f"timing forward passes of {config.model}")
    try:
        return _timed(config, methods, targets)
    except SalpipeError as error:
        progress.note(f"time not estimated: {error}")
        return Estimate(passes)


def _timed(config: GenerateConfig, methods: Sequence[Method], targets: int) -> Estimate:
    source = load_source(config.model, config.weights)
    source = source.with_size(config.size or source.preprocessing.size)
    layers, methods = explained_layers(source, methods, config.layers, config.size)
    size, device = source.preprocessing.size, str(find_device(config.device))
    batch = config.batch_size or default_batch(methods, device)
    forward = device == "cpu" and config.backend in ("auto", "openvino") and openvino_installed()
    streams = usable_cores() if device == "cpu" else 2
    placement = Placement("openvino" if forward else "torch", "fp32", device, streams)
    split = prepared_split(source, layers, batch)
    engine = Explainer(source, layers, (), Target("predicted"), batch, placement, split)
    gray = np.full((1, size, size, 3), 128, np.uint8)
    channels = layers[0].channels if layers else Setup.channels
    return Estimate(_passes(methods, Setup(size, targets, channels)), measure_rate(engine, gray, _SECONDS))


def _passes(methods: Sequence[Method], setup: Setup) -> float:
    """The pass that all methods share, and their own."""
    return 1 + sum(method.passes(setup) for method in methods)
