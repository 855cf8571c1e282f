"""`Network`: the parts of a split network that the methods of a run need, on their device, shared by all threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from functools import partial
from typing import TypeVar, cast

import torch
from torch import Tensor, fx, nn

from saliency_pipeline.models.source.source import SourceModel
from saliency_pipeline.saliency.engine.attention import AttentionGraph, attention_graph
from saliency_pipeline.saliency.engine.backends import Normalize, Placement, Trunk, make_trunk, placed
from saliency_pipeline.saliency.engine.fused import fuse_convolutions
from saliency_pipeline.saliency.engine.layers import Layer
from saliency_pipeline.saliency.engine.masks import WindowMasks
from saliency_pipeline.saliency.engine.mixed import MixedNetwork
from saliency_pipeline.saliency.engine.need import Need
from saliency_pipeline.saliency.engine.split import SplitNetwork, heads
from saliency_pipeline.saliency.engine.windows import WindowTrunk, window_trunk

X = TypeVar("X")

# what only a transformer with exposed attention can answer
ATTENDED = Need.ATTENTION | Need.ATTENTION_GRADIENTS | Need.BLOCKS

# what only a pass through the whole network in PyTorch can answer
RECORDED = Need.PIXELS | Need.POINTS | ATTENDED


class Network:
    """A network on its device, with all that some needs take. Threads may share it: what it is made of never changes.

    Attributes:
        layers: the explained layers by name, in the order in which they run.
        size: S, side of the frame in pixels.
        need: what it was placed for.
        batch: frames per batch.
        color_of_zero: the RGB color in whole numbers from 0 to 255 that is closest to 0 after normalization.
        normalize: frames (N, S, S, 3) uint8 to (N, 3, S, S) float32 on the device.
        whole: normalized frames to (each layer's output, logits), for backward passes; None if nothing needs it.
        trunk: frames uint8 to the first layer's output; None where `whole` runs instead.
        head: that output to (each later layer's output, logits); None beside `whole` and where it is linear.
        weight: rows (K, C) of a linear head; None where there is none.
        bias: (K,), as `weight`.
        graph: the exported network, float32; None unless BIASES or BACKWARD are needed.
        module: the network as it was loaded; None unless MODULE is needed.
        attention: the transformer with exposed attention, float32; None unless ATTENTION is needed.
        heads: for each layer at which the network can be cut, its output to (…, logits); empty unless HEAD is needed.
    """

    def __init__(self, source: SourceModel, split: SplitNetwork, need: Need, placement: Placement) -> None:
        device = placement.device
        self.layers: dict[str, Layer] = {layer.name: layer for layer in split.layers}
        self.size, self.need, self.batch = source.preprocessing.size, need, split.batch
        red, green, blue = (round(255 * value) for value in source.preprocessing.mean)
        self.color_of_zero = red, green, blue
        self.normalize = Normalize(source.preprocessing, device)
        self.whole: nn.Module | None = None
        self.trunk: Trunk | None = None
        self.head: nn.Module | None = None
        self.weight: Tensor | None = None
        self.bias: Tensor | None = None
        self.graph: fx.GraphModule | None = None
        self.module: nn.Module | None = None
        self.attention: AttentionGraph | None = None
        self._make_for_windows: Callable[[WindowMasks], WindowTrunk | None] | None = None
        self._kept: dict[Hashable, object] = {}
        self._lock = threading.Lock()
        self.heads: dict[str, nn.Module]
        if need & ATTENDED and isinstance(split.whole, fx.GraphModule):
            whole = placed(split.whole, device)
            self.attention = attention_graph(whole, split.layers[-1].grid, self.size, split.batch)
            self.whole = whole
        elif split.trunk is None or need & RECORDED:
            self.whole = _recorded(split, self.size, placement)
        else:
            how = (source.preprocessing, split.batch, placement, split.cache_key)
            self.trunk = make_trunk(split.trunk, *how)
            self._make_for_windows = partial(window_trunk, split.trunk, *how)
        if split.linear:
            self.weight, self.bias = (values.to(device) for values in (split.linear.weight, split.linear.bias))
        if split.head is not None and self.trunk and not split.linear:
            self.head = placed(split.head, device)
        self.heads = {}
        if need & Need.HEAD and self.weight is None:
            self.heads = {name: placed(head, device) for name, head in heads(split).items()}
        if need & (Need.BIASES | Need.BACKWARD) and isinstance(split.whole, fx.GraphModule):
            self.graph = placed(split.whole, device)
        if need & Need.MODULE:
            self.module = placed(source.module, device)
        if device.startswith("cuda"):
            # Other streams read the weights.
            torch.cuda.synchronize(device)

    def logits(self, frames: Tensor) -> Tensor:
        """Logits (M, K) of frames (M, S, S, 3) uint8 on the device, in passes forward; M a multiple of the batch."""
        with torch.no_grad():
            if self.whole is not None:
                return torch.cat([self.whole(self.normalize(batch))[-1] for batch in torch.split(frames, self.batch)])
            assert self.trunk is not None
            return self.logits_behind(self.trunk(frames))

    def logits_behind(self, output: Tensor) -> Tensor:
        """Logits (M, K) for the trunk's output of M frames, M a multiple of the batch."""
        if self.head is not None:
            return torch.cat([self.head(batch)[-1] for batch in torch.split(output, self.batch)])
        (layer,) = self.layers.values()
        return self.linear_logits(layer.to_grid(output).mean((2, 3)))

    def for_windows(self, masks: WindowMasks) -> WindowTrunk | None:
        """The trunk for frames with windows replaced; None where whole frames have to pass, or do so as fast."""
        make = self._make_for_windows
        return self.once(("windows", masks.starts, masks.side), lambda: make(masks)) if make else None

    def once(self, key: Hashable, compute: Callable[[], X]) -> X:
        """The value of `compute()`, which no frame determines: computed once for all batches; threads wait for it."""
        with self._lock:
            if key not in self._kept:
                self._kept[key] = compute()
                if self.normalize.device.type == "cuda":
                    # other streams read it
                    torch.cuda.synchronize(self.normalize.device)
            return cast(X, self._kept[key])

    def linear_logits(self, pooled: Tensor) -> Tensor:
        """Logits (M, K) of a linear head for means of its layer's output over the grid (M, C)."""
        assert self.weight is not None
        assert self.bias is not None
        return torch.addmm(self.bias, pooled, self.weight.t())


def _recorded(split: SplitNetwork, size: int, placement: Placement) -> nn.Module:
    """The whole network for backward passes; bf16 means the backward pass alone, never the forward pass."""
    device = placement.device
    trunk, head = (split.trunk, split.head) if placement.precision == "bf16" else (None, None)
    whole = placed(trunk or split.whole, device)
    if device == "cpu" and isinstance(whole, fx.GraphModule):
        fuse_convolutions(whole, split.batch, size)
    if head is None:
        return whole
    return MixedNetwork(cast(fx.GraphModule, whole), placed(head, device))
