"""`Explainer`: from batches of uint8 frames to predictions and raw saliency maps."""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from saliency_pipeline.models.source.source import SourceModel
from saliency_pipeline.saliency.engine.backends import Normalize, Placement, make_trunk, placed
from saliency_pipeline.saliency.engine.layers import Layer
from saliency_pipeline.saliency.engine.mixed import MixedNetwork
from saliency_pipeline.saliency.engine.split import SplitNetwork, split_network
from saliency_pipeline.saliency.methods.method import Method
from saliency_pipeline.saliency.targets import Target, top_classes

TOP = 5

# Logits (N, classes), the classes explained (N, T) and each method's maps (N, T, h, w).
_Result = tuple[Tensor, Tensor, dict[str, Tensor]]


@dataclass(frozen=True)
class Explanation:
    """Predictions and saliency maps of N frames.

    Attributes:
        prediction_class: (N, 5) int32, the source model's top classes; -1 where it has fewer than five.
        prediction_score: (N, 5) float32, their softmax; 0 where it has fewer than five.
        targets: (N, T) int32, the classes explained.
        maps: method name to raw maps (N, T, h, w) float32.
    """

    prediction_class: np.ndarray
    prediction_score: np.ndarray
    targets: np.ndarray
    maps: dict[str, np.ndarray]


class Explainer:
    """Explains frames with one source model, one layer and one placement; safe to call from several threads.

    A map never depends on its batch neighbors: every batch has the same shape (a short one is filled with black
    frames whose results are dropped) and nothing in an eval-mode network mixes images. Only the closed form takes all
    batches of a call at once: their number may change the rounding of the scores.
    """

    def __init__(
        self,
        source: SourceModel,
        layer: Layer,
        methods: Sequence[Method],
        target: Target,
        batch: int,
        placement: Placement,
        split: SplitNetwork | None = None,
    ) -> None:
        """Prepare the network. Takes seconds; the source model is not changed.

        Args:
            source: the source model.
            layer: the explained layer, from `choose_layer`.
            methods: saliency methods to compute, all in one pass.
            target: the classes explained.
            batch: frames per batch.
            placement: backend, precision, device and streams.
            split: the network cut at `layer` for this batch size, where it was cut before.

        Raises:
            SalpipeError: where the backend is not installed or does not fit the device.
        """
        self.source, self.layer, self.methods, self.target = source, layer, tuple(methods), target
        self.batch, self.placement = batch, placement
        self.size = source.preprocessing.size
        self.local = threading.local()
        self.split = split = split or split_network(source.module, layer, self.size, batch)
        self.needs_pixels = any(method.level == "pixels" for method in methods)
        self.differentiates = self.needs_pixels or split.trunk is None
        self.closed_form = split.linear is not None and all(method.closed_form for method in methods)
        if split.trunk is None or self.differentiates:
            self.whole = _differentiable(split, placement)
            self.normalize = Normalize(source.preprocessing, placement.device)
        else:
            self.trunk = make_trunk(split.trunk, source.preprocessing, batch, placement, split.cache_key)
            self.head = placed(split.head, placement.device) if split.head else None
        if split.linear:
            self.weight = split.linear.weight.to(placement.device)
            self.bias = split.linear.bias.to(placement.device)
        if placement.device.startswith("cuda"):
            # Other streams read the weights.
            torch.cuda.synchronize(placement.device)

    def explain(self, frames: np.ndarray, labels: np.ndarray | None = None) -> Explanation:
        """Explain frames.

        Args:
            frames: (N, S, S, 3) uint8 RGB, any N.
            labels: (N,) data set labels, needed where the target is `label`.

        Returns:
            The explanation, in the frames' order.
        """
        count, missing = len(frames), -len(frames) % self.batch
        frames = np.ascontiguousarray(frames)
        padded = None if labels is None else torch.as_tensor(labels)
        if missing:
            frames = np.concatenate([frames, np.zeros((missing, *frames.shape[1:]), frames.dtype)])
            padded = None if padded is None else torch.nn.functional.pad(padded, (0, missing))
        with self._own_stream():
            if self.closed_form:
                logits, targets, maps = self._closed_form(self.trunk(frames), padded)
            else:
                batches = [slice(i, i + self.batch) for i in range(0, len(frames), self.batch)]
                logits, targets, maps = _joined(
                    [self._differentiated(frames[b], None if padded is None else padded[b]) for b in batches]
                )
            return _explanation(logits[:count], targets[:count], {name: m[:count] for name, m in maps.items()})

    def with_target(self, target: Target) -> Explainer:
        """The same explainer with the same network, for other classes."""
        other = copy.copy(self)
        other.target = target
        return other

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

    @torch.inference_mode()
    def _closed_form(self, activations: Tensor, labels: Tensor | None) -> _Result:
        activations = self.layer.to_grid(activations)
        logits = torch.addmm(self.bias, activations.mean((2, 3)), self.weight.t())
        targets = self.target.classes(logits, labels)
        weights = self.weight[targets]
        return logits, targets, {m.name: m.closed_form(activations, weights) for m in self.methods if m.closed_form}

    def _differentiated(self, frames: np.ndarray, labels: Tensor | None) -> _Result:
        """Run one batch through the part of the network that has to be differentiated."""
        with torch.enable_grad():
            if self.differentiates:
                pixels = self.normalize(frames).requires_grad_()
                output, logits = self.whole(pixels)
                return self._gradients(logits, labels, pixels, output)
            assert self.head is not None
            output = self.trunk(frames).clone().requires_grad_()
            return self._gradients(self.head(output), labels, layer=output)

    def _gradients(
        self, logits: Tensor, labels: Tensor | None, pixels: Tensor | None = None, layer: Tensor | None = None
    ) -> _Result:
        """One backward pass per target, to the pixels and the layer at once, as the methods need them."""
        targets = self.target.classes(logits.detach(), labels)
        of = {
            "pixels": pixels if self.needs_pixels else None,
            "layer": layer if any(m.level == "layer" for m in self.methods) else None,
        }
        wanted = {level: tensor for level, tensor in of.items() if tensor is not None}
        maps: dict[str, list[Tensor]] = {method.name: [] for method in self.methods}
        for t in range(targets.shape[1]):
            score = logits.gather(1, targets[:, t : t + 1]).sum()
            last = t == targets.shape[1] - 1
            gradients = torch.autograd.grad(score, list(wanted.values()), retain_graph=not last)
            gradient = dict(zip(wanted, gradients, strict=True))
            with torch.no_grad():
                for method in self.methods:
                    if method.level == "pixels":
                        maps[method.name].append(method.explain(gradient["pixels"]))
                    else:
                        grid = self.layer.to_grid(wanted["layer"].detach()), self.layer.to_grid(gradient["layer"])
                        maps[method.name].append(method.explain(*grid))
        return logits.detach(), targets, {name: torch.stack(parts, 1) for name, parts in maps.items()}


def _differentiable(split: SplitNetwork, placement: Placement) -> torch.nn.Module:
    """The whole network for backward passes; bf16 means the backward pass alone, never the forward pass."""
    if placement.precision == "bf16" and split.trunk is not None and split.head is not None:
        return placed(MixedNetwork(split.trunk, split.head), placement.device)
    return placed(split.whole, placement.device)


def _joined(parts: Sequence[_Result]) -> _Result:
    if len(parts) == 1:
        return parts[0]
    logits, targets, maps = zip(*parts, strict=True)
    return torch.cat(logits), torch.cat(targets), {name: torch.cat([m[name] for m in maps]) for name in maps[0]}


def _explanation(logits: Tensor, targets: Tensor, maps: dict[str, Tensor]) -> Explanation:
    classes = top_classes(logits, min(TOP, logits.shape[1]))
    scores = logits.float().softmax(1).gather(1, classes)
    filler = (0, TOP - classes.shape[1])
    return Explanation(
        torch.nn.functional.pad(classes, filler, value=-1).to("cpu", torch.int32).numpy(),
        torch.nn.functional.pad(scores, filler).cpu().numpy(),
        targets.to("cpu", torch.int32).numpy(),
        {name: m.float().cpu().numpy() for name, m in maps.items()},
    )
