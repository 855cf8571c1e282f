"""The source model that made the maps, as metrics ask it: scores of other frames, and maps of them by any method."""

from __future__ import annotations

import copy
import threading
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property, partial

import numpy as np
import numpy.typing as npt
from torch import nn

from saliency_pipeline.assessment.floors import computed_maps
from saliency_pipeline.assessment.inquiry import Floats
from saliency_pipeline.assessment.randomized import cascade
from saliency_pipeline.figures.pictures import Pixels
from saliency_pipeline.models.source.source_model import SourceModel
from saliency_pipeline.saliency.engine.backends import Placement
from saliency_pipeline.saliency.engine.need import Need
from saliency_pipeline.saliency.engine.network import RECORDED
from saliency_pipeline.saliency.explainer import Explainer
from saliency_pipeline.saliency.layer_choice import explained_layers
from saliency_pipeline.saliency.methods.cam import GradCam
from saliency_pipeline.saliency.methods.method import Method
from saliency_pipeline.saliency.prepared import prepared_split
from saliency_pipeline.saliency.targets import Target
from saliency_pipeline.saliency.tuning import choose_placement, default_batch


class SourceNetwork:
    """The source model of some maps: `inquiry.Network`.

    Attributes:
        placement: where scores are computed.
        color: the color in [0, 255] that normalization turns into 0.
    """

    def __init__(
        self,
        source: SourceModel,
        layers: Sequence[str],
        methods: Sequence[Method],
        placement: Placement,
        background: Pixels | None = None,
    ) -> None:
        """Prepare nothing yet: networks are prepared when they are asked for the first time.

        Args:
            source: the source model, for frames of the shards' size.
            layers: names of the layers that the stored maps explain.
            methods: the methods that other frames may be explained by.
            placement: where scores are computed.
            background: (M, S, S, 3) uint8, for methods that compare with other images.
        """
        self.source, self.placement, self.background = source, placement, background
        self.layers, self.methods = tuple(layers), {method.canonical: method for method in methods}
        red, green, blue = (round(255 * value) for value in source.preprocessing.mean)
        self.color = red, green, blue
        self._explainers: dict[bool, Explainer] = {}
        # of all preparation: each probes the one module with hooks, which would get another thread's activations
        self._lock = threading.RLock()

    def scores(self, frames: Pixels, targets: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Softmax (M,) of one class for each of M frames (M, S, S, 3) uint8."""
        return self._scorer.explain(frames, targets).target_score[:, 0].astype(np.float64)

    def explain(
        self, method: str, frames: Pixels, targets: npt.NDArray[np.int64], keys: Sequence[str]
    ) -> Floats | None:
        """Raw maps (M, h, w) float32 of M frames by a method; None for a method that is not known here."""
        if method not in self.methods:
            return None
        own = self.methods[method]
        if own.needs == Need.NOTHING:
            return computed_maps(own, frames, keys)
        return self._explainer(own).explain(frames, targets, keys).maps[method][:, 0]

    def randomized(self) -> Sequence[SourceNetwork]:
        """The network with the last fifth, two fifths, … and all of its layers random; see `cascade`."""
        with self._lock:
            return self._randomized

    @cached_property
    def _randomized(self) -> list[SourceNetwork]:
        return [
            SourceNetwork(
                # nothing that is derived from it is cached
                replace(self.source, build=partial(_itself, module), code_sha256=""),
                self.layers,
                tuple(self.methods.values()),
                self._exact,
                self.background,
            )
            for module in cascade(self.source.module, self.source.preprocessing.size)
        ]

    @property
    def _scorer(self) -> Explainer:
        # once it is there, scores need not wait while networks for maps are prepared
        if "_scoring" in vars(self):
            return self._scoring
        with self._lock:
            return self._scoring

    @cached_property
    def _scoring(self) -> Explainer:
        batch = default_batch((), self.placement.device)
        layers, _ = explained_layers(self.source, ())
        split = prepared_split(self.source, layers, batch)
        return Explainer(self.source, layers, (), self._target, batch, self.placement, split)

    @property
    def _target(self) -> Target:
        """One class for each frame, passed as its label."""
        return Target("label", label_index=tuple(range(len(self.source.classes))))

    @property
    def _exact(self) -> Placement:
        return replace(self.placement, backend="torch", precision="fp32")

    def _explainer(self, method: Method) -> Explainer:
        """An explainer by one method; all that need no backward pass to the pixels share a network, and the others."""
        with self._lock:
            backward = _is_backward(method)
            if backward not in self._explainers:
                self._explainers[backward] = self._make(backward)
            own = copy.copy(self._explainers[backward])
        own.methods = (method,)
        return own

    def _make(self, backward: bool) -> Explainer:
        methods = [m for m in self.methods.values() if m.needs != Need.NOTHING and _is_backward(m) == backward]
        layers, _ = explained_layers(self.source, methods, self.layers)
        # rounding to bf16 would count as sensitivity
        placement = self._exact if backward else replace(self.placement, precision="fp32")
        batch = default_batch(methods, placement.device)
        split = prepared_split(self.source, layers, batch)
        return Explainer(self.source, layers, methods, self._target, batch, placement, split, self.background)


def _is_backward(method: Method) -> bool:
    return bool(method.needs & (RECORDED | Need.BIASES | Need.MODULE | Need.BACKWARD))


def _itself(module: nn.Module) -> nn.Module:
    return module


def placement_for_scores(source: SourceModel, frames: Pixels, device: str, streams: int) -> Placement:
    """The fastest placement whose Grad-CAM maps agree with fp32 on some frames; its scores are taken to agree too.

    In bf16 they differ by 0.006 on average, by 0.05 at most (15 photographs, EfficientNet-Lite0).
    """
    layers, methods = explained_layers(source, (GradCam(),))
    batch = default_batch((), device)
    placement, _ = choose_placement(source, layers, methods, frames, device=device, streams=streams, batch=batch)
    return placement
