"""`Explainer`: from batches of uint8 frames to predictions and raw saliency maps."""

from __future__ import annotations

import copy
import operator
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import reduce

import numpy as np
import torch
from torch import Tensor

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.models.source.source import SourceModel
from saliency_pipeline.models.source.user_code import failures_of_network
from saliency_pipeline.saliency.checked_maps import checked_maps
from saliency_pipeline.saliency.engine.answers import Answers
from saliency_pipeline.saliency.engine.backends import Placement
from saliency_pipeline.saliency.engine.layers import Layer
from saliency_pipeline.saliency.engine.need import Need
from saliency_pipeline.saliency.engine.network import Network
from saliency_pipeline.saliency.engine.split import SplitNetwork, split_network
from saliency_pipeline.saliency.methods.method import Method
from saliency_pipeline.saliency.targets import Target, top_classes

TOP = 5
NO_CLASS = -1


@dataclass(frozen=True)
class Explanation:
    """Predictions and saliency maps of N frames.

    Attributes:
        prediction_class: (N, 5) int32, the source model's top classes; -1 where it has fewer than five.
        prediction_score: (N, 5) float32, their softmax; 0 where it has fewer than five.
        targets: (N, T) int32, the classes explained.
        maps: canonical name of a method to raw maps (N, T, h, w) float32; (N, 1, h, w) where no class is explained.
        map_targets: by method (N, T) int32, the class that each map explains; (N, 1) of -1 where none is.
        residuals: by method (N, T) float32, sum of each map minus the number that it should be, where one is known.
        standard_errors: by method (N, T) float32, Monte Carlo standard error of each map relative to its range, where
            maps are means over random masks.
        target_score: (N, T) float32, the softmax of the classes explained.
    """

    prediction_class: np.ndarray
    prediction_score: np.ndarray
    targets: np.ndarray
    maps: dict[str, np.ndarray]
    map_targets: dict[str, np.ndarray] = field(default_factory=dict)
    residuals: dict[str, np.ndarray] = field(default_factory=dict)
    standard_errors: dict[str, np.ndarray] = field(default_factory=dict)
    target_score: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.float32))


@dataclass(frozen=True)
class _Result:
    """Logits (N, K), the explained classes (N, T), and each method's maps (N, T, h, w), residuals and errors (N, T)."""

    logits: Tensor
    targets: Tensor
    maps: dict[str, Tensor]
    residuals: dict[str, Tensor]
    standard_errors: dict[str, Tensor]


class Explainer:
    """Explains frames with one source model, its layers and one placement; safe to call from several threads.

    A map never depends on its batch neighbors: every batch has the same shape (a short one is filled with black
    frames whose results are dropped) and nothing in an eval-mode network mixes images. Only where one forward pass is
    all that the methods need are all batches of a call taken at once: their number may change the rounding of scores.
    """

    def __init__(
        self,
        source: SourceModel,
        layers: Sequence[Layer],
        methods: Sequence[Method],
        target: Target,
        batch: int,
        placement: Placement,
        split: SplitNetwork | None = None,
        background: np.ndarray | None = None,
    ) -> None:
        """Prepare the network. Takes seconds; the source model is not changed.

        Args:
            source: the source model.
            layers: the explained layers, from `choose_layers`.
            methods: saliency methods to compute, all in one pass.
            target: the classes explained.
            batch: frames per batch.
            placement: backend, precision, device and streams.
            split: the network cut at the first of `layers` for this batch size, where it was cut before.
            background: (M, S, S, 3) uint8, other images of the data set, for methods that need them.

        Raises:
            SalpipeError: where the backend is not installed or does not fit the device, or a method needs a background
                and there is none.
        """
        for method in methods:
            if method.needs_background and background is None:
                raise SalpipeError(
                    f"--method {method.canonical}: compares an image with others of its data set; explain a data set "
                    "with 'salpipe generate', or use integrated-gradients"
                )
        self.source, self.layers, self.methods, self.target = source, tuple(layers), tuple(methods), target
        self.batch, self.placement, self.background = batch, placement, background
        self.grids = {layer.name: layer.grid for layer in self.layers}
        self.local = threading.local()
        self.split = split or split_network(source.module, layers, source.preprocessing.size, batch)
        need = reduce(operator.or_, (method.needs for method in methods), Need.NOTHING)
        self.network = Network(source, self.split, need, placement)
        own_passes = need & (Need.BIASES | Need.MODULE | Need.BACKWARD)
        self.at_once = self.network.whole is None and self.network.weight is not None and not own_passes

    def explain(
        self, frames: np.ndarray, labels: np.ndarray | None = None, keys: Sequence[str] | None = None
    ) -> Explanation:
        """Explain frames.

        Args:
            frames: (N, S, S, 3) uint8 RGB, any N from 1 on.
            labels: (N,) data set labels, needed where the target is `label`.
            keys: name of each frame, on which random numbers of methods depend; all alike without.

        Returns:
            The explanation, in the frames' order.

        Raises:
            SalpipeError: a method of another package fails, or a user's own network does.
        """
        count, missing = len(frames), -len(frames) % self.batch
        frames = np.ascontiguousarray(frames)
        names = [*(keys if keys is not None else [""] * count), *[""] * missing]
        padded = None if labels is None else torch.as_tensor(labels)
        if missing:
            frames = np.concatenate([frames, np.zeros((missing, *frames.shape[1:]), frames.dtype)])
            padded = None if padded is None else torch.nn.functional.pad(padded, (0, missing))
        step = len(frames) if self.at_once else self.batch
        with self._own_stream(), failures_of_network(self.source):
            results = []
            for start in range(0, len(frames), max(1, step)):
                rows = slice(start, start + step)
                own = None if padded is None else padded[rows]
                real = min(step, count - start)
                ask = Answers(self.network, frames[rows], names[rows], own, self.target, self.background, real)
                results.append(self._explained(ask))
            return self._explanation(_joined(results), count)

    def with_target(self, target: Target) -> Explainer:
        """The same explainer with the same network, for other classes."""
        other = copy.copy(self)
        other.target = target
        return other

    @torch.no_grad()
    def _explained(self, ask: Answers) -> _Result:
        maps: dict[str, Tensor] = {}
        residuals, errors = {}, {}
        # the cheapest first, while the activations are in the processor's cache
        for method in sorted(self.methods, key=lambda method: method.cost):
            shape = method.shape(self.grids, self.source.preprocessing.size)
            maps[method.canonical], residual, error = checked_maps(method, ask, shape)
            if residual is not None:
                residuals[method.canonical] = residual
            if error is not None:
                errors[method.canonical] = error
        # the logits last: a pass that a method needs may have computed them
        ordered = {method.canonical: maps[method.canonical] for method in self.methods}
        return _Result(ask.logits(), ask.targets(), ordered, residuals, errors)

    @contextmanager
    def _own_stream(self) -> Iterator[None]:
        """Use one CUDA stream per calling thread on a GPU, so that copies and kernels overlap."""
        if not self.placement.device.startswith("cuda"):
            yield
            return
        if not hasattr(self.local, "stream"):
            # one per thread, not per call: freed memory is cached for the stream that used it
            self.local.stream = torch.cuda.Stream(self.placement.device)  # type: ignore[no-untyped-call]
        with torch.cuda.stream(self.local.stream):
            yield
            self.local.stream.synchronize()

    def _explanation(self, result: _Result, count: int) -> Explanation:
        logits, targets = result.logits[:count], result.targets[:count]
        classes = top_classes(logits, min(TOP, logits.shape[1]))
        scores = logits.float().softmax(1)
        filler = (0, TOP - classes.shape[1])
        explained = targets.to("cpu", torch.int32).numpy()
        none = np.full((count, 1), NO_CLASS, np.int32)
        return Explanation(
            torch.nn.functional.pad(classes, filler, value=-1).to("cpu", torch.int32).numpy(),
            torch.nn.functional.pad(scores.gather(1, classes), filler).cpu().numpy(),
            explained,
            {name: maps[:count].float().cpu().numpy() for name, maps in result.maps.items()},
            {m.canonical: explained if m.class_specific else none for m in self.methods},
            {name: values[:count].float().cpu().numpy() for name, values in result.residuals.items()},
            {name: values[:count].float().cpu().numpy() for name, values in result.standard_errors.items()},
            scores.gather(1, targets).cpu().numpy(),
        )


def _joined(parts: Sequence[_Result]) -> _Result:
    if len(parts) == 1:
        return parts[0]
    first = parts[0]
    return _Result(
        torch.cat([part.logits for part in parts]),
        torch.cat([part.targets for part in parts]),
        {name: torch.cat([part.maps[name] for part in parts]) for name in first.maps},
        {name: torch.cat([part.residuals[name] for part in parts]) for name in first.residuals},
        {name: torch.cat([part.standard_errors[name] for part in parts]) for name in first.standard_errors},
    )
