"""`Answers`: what the engine answers the methods about one batch of frames; each answer is computed once for all."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import TypeVar, cast

import numpy as np
import torch
from torch import Tensor

from saliency_pipeline.saliency.engine.attention import Attended
from saliency_pipeline.saliency.engine.biases import biases_of
from saliency_pipeline.saliency.engine.layers import Layer
from saliency_pipeline.saliency.engine.masks import Masks, WindowMasks, masked_scores
from saliency_pipeline.saliency.engine.need import Need
from saliency_pipeline.saliency.engine.network import Network
from saliency_pipeline.saliency.engine.once import Once
from saliency_pipeline.saliency.engine.pull_back import PulledBack, Record, Table, pulled_back
from saliency_pipeline.saliency.engine.random_numbers import generator
from saliency_pipeline.saliency.engine.windows import window_scores
from saliency_pipeline.saliency.targets import Target, summed_scores

X = TypeVar("X")

_DIFFERENTIATED = Need.PIXELS | Need.GRADIENTS | Need.CONTRASTS | Need.ATTENTION_GRADIENTS | Need.BLOCKS


class Answers:
    """Answers about N frames, for T explained classes of K. A method must neither mix frames nor modify an answer.

    N is the network's batch size, or a multiple of it where one forward pass is all that a run needs.

    Attributes:
        network: the network that is explained.
        frames: (N, S, S, 3) uint8 RGB.
        keys: name of each frame; random numbers depend on it, never on the position in a batch.
        labels: (N,) labels in the data set, or None.
        target: the classes explained.
        references: (M, S, S, 3) uint8 other images of the data set, or None.
        count: number of frames before those that only fill the batch.
    """

    def __init__(
        self,
        network: Network,
        frames: np.ndarray,
        keys: Sequence[str],
        labels: Tensor | None,
        target: Target,
        references: np.ndarray | None = None,
        count: int | None = None,
    ) -> None:
        self.network, self.frames, self.keys, self.labels = network, frames, keys, labels
        self.count = len(frames) if count is None else count
        self.target, self.references = target, references
        self._kept: dict[Hashable, object] = {}

    # about the frames

    @property
    def size(self) -> int:
        """S, side of the frame in pixels."""
        return self.network.size

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the explained layers in the order in which they run."""
        return tuple(self.network.layers)

    def pixels(self) -> Tensor:
        """The normalized frames (N, 3, S, S) float32."""
        return self._pixels.detach()

    def color(self, value: float) -> Tensor:
        """The normalized gray of a brightness in [0, 1], as (1, 3, 1, 1): 0 is black, 1 white."""
        return self.network.normalize(np.full((1, 1, 1, 3), round(255 * value), np.uint8))

    def color_of_zero(self) -> tuple[int, int, int]:
        """The RGB color in whole numbers from 0 to 255 that is closest to 0 after normalization."""
        return self.network.color_of_zero

    def background(self) -> Tensor:
        """Normalized frames (M, 3, S, S) of other images of the data set, the same for all batches."""
        assert self.references is not None, "the explainer has no background"
        return self.network.normalize(self.references)

    def random(self, *purpose: str | int) -> list[np.random.Generator]:
        """A generator of random numbers for each frame, of its key and purpose (method, seed, index) alone."""
        return [generator(key, *purpose) for key in self.keys]

    # about the network's scores

    def logits(self) -> Tensor:
        """Logits (N, K) of the frames."""
        return self._passed[1].detach()

    @Once
    def _targets(self) -> Tensor:
        return self.target.classes(self.logits(), self.labels)

    def targets(self) -> Tensor:
        """The explained classes (N, T) int64."""
        return self._targets

    def scores(self, logits: Tensor | None = None) -> Tensor:
        """Logits of the explained classes (N, T), out of those of the frames or out of others (N, K)."""
        return self._scores if logits is None else logits.gather(1, self.targets())

    @Once
    def _scores(self) -> Tensor:
        rows, bias = (None, None) if self.recorded else (self.rows(), self.network.bias)
        if rows is None or bias is None:
            return self.logits().gather(1, self.targets())
        # not out of the logits, which come from a matrix product whose rounding depends on the number of frames
        return (rows * self.pooled()[:, None]).sum(2) + bias[self.targets()]

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits (N, K) of other normalized frames (N, 3, S, S). Needs FORWARD and POINTS."""
        assert self.network.whole is not None
        with torch.no_grad():
            return self.network.whole(pixels)[-1]  # type: ignore[no-any-return]

    def forward_once(self, key: Hashable, pixels: Callable[[], Tensor]) -> Tensor:
        """Logits, as `forward`, of frames that are the same for all batches, which pass for the first one only."""
        return self.network.once((key, len(self.frames)), lambda: self.forward(pixels()))

    def masked(self, masks: Masks | Sequence[Masks], fill: Tensor, score: str = "logit") -> Tensor:
        """Scores (N, K, T) of the explained classes for frames that are partly replaced. Needs FORWARD.

        One pass through the network per frame and mask, or through what a window changes of it. A score depends on
        neither the other frames nor their number. Frames that only fill a batch have scores of 0, without a pass.

        Args:
            masks: K masks that all frames share, or K masks for each frame.
            fill: RGB in [0, 255], broadcast to (N, S, S, 3). Masked frames are rounded to whole numbers.
            score: `logit` or `probability`, the softmax of the logits.
        """
        own, targets = slice(self.count), self.targets()
        # torch reads no memory that may not be written, such as a file mapped for reading
        frames = torch.from_numpy(np.require(self.frames[own], requirements="W")).to(targets.device)

        def score_of(n: int, logits: Tensor) -> Tensor:
            return (logits.softmax(1) if score == "probability" else logits)[:, targets[n]]

        network = self.network
        windowed = network.for_windows(masks) if isinstance(masks, WindowMasks) and fill.ndim == 1 else None
        if windowed is not None:
            scores = window_scores(frames, windowed, fill, lambda n, output: score_of(n, network.logits_behind(output)))
        else:
            fills = fill.to(frames.device).expand(self.frames.shape)[own]
            scores = masked_scores(
                frames,
                masks if isinstance(masks, Masks) else masks[own],
                fills,
                lambda n, mixed: score_of(n, network.logits(mixed)),
                network.batch,
            )
        return torch.nn.functional.pad(scores, (0, 0, 0, 0, 0, len(self.frames) - self.count))

    # about layers

    @property
    def recorded(self) -> bool:
        """True where gradients pass through the layers anyway, on their way to the pixels or for want of a trunk."""
        return self.network.whole is not None

    def activations(self, layer: str | None = None) -> Tensor:
        """Output of a layer on its grid (N, C, h, w); of the first layer without a name. Needs ACTIVATIONS."""
        return self._grids[self._layer(layer).name]

    def pooled(self, layer: str | None = None) -> Tensor:
        """Mean of a layer's output over its grid (N, C). Needs ACTIVATIONS."""
        return self.once(("pooled", layer), lambda: self.activations(layer).mean((2, 3)))

    def rows(self, layer: str | None = None, classes: Tensor | None = None) -> Tensor | None:
        """Rows (N, T, C) of a linear head for the explained classes, or None where the head is no linear one.

        The head is then global average pooling and one linear layer: dy_t/dA_kij = row_tk / (h w).

        Args:
            layer: see `activations`.
            classes: other classes (N, T, R), whose rows are (N, T, R, C).
        """
        weight = self.network.weight
        if weight is None:
            return None
        return self.once("rows", lambda: weight[self.targets()]) if classes is None else weight[classes]

    def gradients(self, layer: str | None = None, contrast: Tensor | None = None) -> tuple[Tensor, ...]:
        """Gradients (N, C, h, w) of each of T scores with respect to a layer's output. Needs GRADIENTS.

        Args:
            layer: see `activations`.
            contrast: weights (N, T, K) of the logits in T scores; the explained classes' own logits without one. Needs
                CONTRASTS.
        """
        place = self._layer(layer)
        if not self.recorded and (rows := self.rows(layer)) is not None:
            if contrast is not None:
                rows = contrast @ cast(Tensor, self.network.weight)
            h, w = place.grid
            return tuple((row / (h * w))[:, :, None, None].expand(-1, -1, h, w) for row in rows.unbind(1))
        own = self._gradients[place.name] if contrast is None else self._contrasted(place.name, contrast)
        return tuple(place.to_grid(gradient) for gradient in own)

    def head(self, activations: Tensor, layer: str | None = None) -> Tensor:
        """Logits (N, K) for other activations (N, C, h, w) of a layer on its grid. Needs HEAD."""
        network, place = self.network, self._layer(layer)
        if network.weight is not None:
            return network.linear_logits(activations.mean((2, 3)))
        output = place.from_grid(activations, self._outputs[place.name])
        with torch.no_grad():
            return network.heads[place.name](output)[-1]  # type: ignore[no-any-return]

    # about pixels

    def pixel_gradients(self) -> tuple[Tensor, ...]:
        """Gradients (N, 3, S, S) of each of the T scores with respect to the normalized frame. Needs PIXELS."""
        return self._gradients[""]

    def moments(
        self, key: Hashable, points: Callable[[], Iterable[tuple[Tensor | float, Tensor]]], square: bool = False
    ) -> tuple[Tensor, ...]:
        """Sums of the gradients at other frames, (T, N, 3, S, S): sum_k w_k g_k, and sum_k w_k g_k^2 if `square`.

        One pass per point, so that memory does not grow with their number. Needs POINTS.

        Args:
            key: identifies the points and `square`: methods with equal keys share the result.
            points: the weight w_k, a number or a tensor (N, 3, S, S), and the normalized frames of each point.
            square: whether the second sum is needed.
        """
        return self.once(("moments", key), lambda: self._moments(points(), square))

    def _moments(self, points: Iterable[tuple[Tensor | float, Tensor]], square: bool) -> tuple[Tensor, ...]:
        assert self.network.whole is not None
        targets = self.targets()
        sums = [torch.zeros((targets.shape[1], *self.pixels().shape), device=targets.device) for _ in range(1 + square)]
        for weight, point in points:
            with torch.enable_grad():
                leaf = point.detach().requires_grad_()
                logits = self.network.whole(leaf)[-1]
            for t, gradient in enumerate(_pulled(logits, targets, [leaf])):
                sums[0][t] += weight * gradient[0]
                if square:
                    sums[1][t] += weight * gradient[0].square()
        return tuple(sums)

    def bias_gradients(self, visit: Callable[[int, Tensor, Tensor], None]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Pass the gradients with respect to the network's biases to `visit`. Needs BIASES.

        The network is the exported one, with BatchNorm folded into convolutions.

        Args:
            visit: called with t, a bias and the gradient of score t with respect to the output that the bias is added
                to: (C, 1, 1) and (N, C, h, w), or (C,) and (N, ..., C) of a linear layer.

        Returns:
            The scores (N, T) of the exported network, which `scores` differ from in bf16, and the gradients
            (N, 3, S, S) of each with respect to the normalized frame.
        """
        assert self.network.graph is not None
        with torch.enable_grad():
            leaf = self.network.normalize(self.frames).requires_grad_()
            (*_, logits), outputs = biases_of(self.network.graph, leaf)
        current = 0
        for bias, output in outputs:
            output.register_hook(lambda gradient, bias=bias: visit(current, bias, gradient))  # type: ignore[no-untyped-call]
        parts = []
        for gradient in _pulled(logits, self.targets(), [leaf]):
            parts.append(gradient[0])
            current += 1
        return self.scores(logits.detach()), tuple(parts)

    def pulled_back(self, table: Table, baseline: Callable[[], Tensor] | None = None) -> PulledBack:
        """Signals of each score at the normalized frames, by other rules than the gradient's. Needs BACKWARD.

        Args:
            table: the rules; methods with equal tables share the result.
            baseline: normalized frames (N, 3, S, S) that the rules compare with.

        Raises:
            SalpipeError: an operator of the network has no rule.
        """
        graph = self.network.graph
        assert graph is not None

        def compute() -> PulledBack:
            record = Record(graph, self.pixels(), table.rule, None if baseline is None else baseline())
            if not self.network.need & (Need.PIXELS | Need.GRADIENTS | Need.CONTRASTS):
                # the pass that everything shares, unless it ran before
                *outputs, logits = record.results
                self.__dict__.setdefault("_passed", (tuple(outputs), logits))
            return pulled_back(record, self.targets())

        return self.once(("pulled back", table), compute)

    def once(self, key: Hashable, compute: Callable[[], X]) -> X:
        """The value of `compute()`, which is called only the first time that a method asks with this key."""
        if key not in self._kept:
            self._kept[key] = compute()
        return cast(X, self._kept[key])

    # about attention

    def attention(self) -> Attended:
        """Attention matrices of the pass that all methods share, and their gradients. Needs ATTENTION."""
        return self._attended

    # about the network as it was loaded

    def module(self) -> torch.nn.Module:
        """The network as it was loaded, on the device; all threads use it: copy it to change it. Needs MODULE."""
        assert self.network.module is not None
        return self.network.module

    # passes

    @Once
    def _attended(self) -> Attended:
        assert self.network.attention is not None, "the network has no exposed attention"
        recorded = bool(self.network.need & _DIFFERENTIATED)
        with torch.set_grad_enabled(recorded):
            return self.network.attention.attend(self._pixels.requires_grad_(recorded))

    @Once
    def _pixels(self) -> Tensor:
        return self.network.normalize(self.frames)

    @Once
    def _passed(self) -> tuple[tuple[Tensor, ...], Tensor]:
        """Outputs of the layers, and the logits, of the one pass that everything about the frames themselves shares."""
        network = self.network
        if network.attention is not None:
            *outputs, logits = self._attended.results
            return tuple(outputs), logits
        recorded = bool(network.need & _DIFFERENTIATED)
        if network.whole is not None:
            with torch.set_grad_enabled(recorded):
                *outputs, logits = network.whole(self._pixels.requires_grad_(recorded))
            return tuple(outputs), logits
        assert network.trunk is not None
        output = network.trunk(self.frames)
        if network.weight is not None:
            (layer,) = network.layers.values()
            pooled = self.once(("pooled", None), lambda: layer.to_grid(output).mean((2, 3)))
            return (output,), network.linear_logits(pooled)
        assert network.head is not None
        with torch.set_grad_enabled(recorded):
            output = output.clone().requires_grad_(recorded)
            *outputs, logits = network.head(output)
        return (output, *outputs), logits

    @property
    def _outputs(self) -> dict[str, Tensor]:
        return dict(zip(self.network.layers, self._passed[0], strict=True))

    @Once
    def _grids(self) -> dict[str, Tensor]:
        return {name: self.network.layers[name].to_grid(out.detach()) for name, out in self._outputs.items()}

    @Once
    def _gradients(self) -> dict[str, tuple[Tensor, ...]]:
        """Gradients of each score with respect to what is needed: by layer, and to the pixels under an empty name."""
        need, wanted = self.network.need, {}
        if need & Need.PIXELS:
            wanted[""] = self._pixels
        if need & Need.GRADIENTS:
            wanted |= self._outputs
        # logits first: pixels must have been recorded
        logits, targets = self._passed[1], self.targets()
        parts = list(
            _pulled(
                logits,
                targets,
                list(wanted.values()),
                keep=bool(need & (Need.CONTRASTS | Need.ATTENTION_GRADIENTS | Need.BLOCKS)),
            )
        )
        return dict(zip(wanted, zip(*parts, strict=True), strict=True))

    def _contrasted(self, layer: str, contrast: Tensor) -> list[Tensor]:
        logits, output = self._passed[1], self._outputs[layer]
        with torch.enable_grad():
            scores = [(logits * weights).sum() for weights in contrast.unbind(1)]
        return [torch.autograd.grad(score, output, retain_graph=True)[0] for score in scores]

    def _layer(self, name: str | None) -> Layer:
        return next(iter(self.network.layers.values())) if name is None else self.network.layers[name]


def _pulled(logits: Tensor, targets: Tensor, leaves: list[Tensor], keep: bool = False) -> Iterator[tuple[Tensor, ...]]:
    """Gradients of each explained class's logit with respect to some tensors, one backward pass per class."""
    last = targets.shape[1] - 1
    for t, score in enumerate(summed_scores(logits, targets)):
        yield torch.autograd.grad(score, leaves, retain_graph=keep or t < last)
