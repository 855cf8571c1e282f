"""Local parts of a network: which of a layer's cells change if a square window of the frame does, and stages to them.

Convolutions and pooling read a few cells around each cell. So behind the first layers of a network a window has
changed only a small square of cells, which a crop of the activations before determines.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import fx

from saliency_pipeline.saliency.engine.flat_graph import arguments_of, shapes_of

aten = torch.ops.aten

_POINTWISE = {
    *(aten.relu.default, aten.hardtanh.default, aten.clamp.default, aten.silu.default, aten.hardswish.default),
    *(aten.hardsigmoid.default, aten.sigmoid.default, aten.tanh.default, aten.gelu.default, aten.elu.default),
    *(aten.leaky_relu.default, aten.mish.default, aten.softplus.default),
    *(aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.addcmul.default),
}

# multiplications and additions that take as long as copying a value, and as calling a backend
_COPY, _CALL = 10, 5_000_000

# the share of the work that stages must save
_WORTHWHILE = 0.1


@dataclass(frozen=True)
class Field:
    """Row i of a node's output depends on rows i stride - before to i stride + after of the frame; columns alike."""

    stride: int = 1
    before: int = 0
    after: int = 0

    def through(self, kernel: int, stride: int = 1, padding: int = 0, dilation: int = 1) -> Field:
        """The field behind a window that slides over the output."""
        reach = (kernel - 1) * dilation - padding
        return Field(self.stride * stride, self.before + padding * self.stride, self.after + reach * self.stride)


@dataclass(frozen=True)
class Cut:
    """An output that is all that the rest of the network reads, of local operators alone.

    Attributes:
        node: the graph's node.
        field: what its rows depend on.
        channels: C of (N, C, rows, rows).
        rows: see `channels`.
        work: multiplications and additions of the graph per frame up to it.
    """

    node: fx.Node
    field: Field
    channels: int
    rows: int
    work: int

    def changed(self, start: int, side: int) -> tuple[int, int]:
        """First row, and the one behind the last, of those that rows start to start + side - 1 of the frame change."""
        first = max(0, -((self.field.after - start) // self.field.stride))
        last = min(self.rows, (start + side - 1 + self.field.before) // self.field.stride + 1)
        # a stride may read none of them
        return first, max(first, last)


@dataclass(frozen=True)
class Stage:
    """What computes the changed cells of one cut from a crop of the cut before, or of the frame.

    Attributes:
        begin: the cut before.
        end: the cut.
        side: rows and columns of the crop.
        starts: for each window along a side of the frame, the first row of the crop.
        kept: for each window, the first of the end's changed rows, and the one behind the last.
    """

    begin: Cut
    end: Cut
    side: int
    starts: tuple[int, ...]
    kept: tuple[tuple[int, int], ...]

    @property
    def ratio(self) -> int:
        """Rows of the crop per row of its output."""
        return self.end.field.stride // self.begin.field.stride

    @property
    def work(self) -> float:
        """Multiplications and additions per window, and what copies take."""
        share = (self.side / self.begin.rows) ** 2
        return _CALL + share * (self.end.work - self.begin.work) + _COPY * self.begin.channels * self.side**2


def stages_of(module: fx.GraphModule, batch: int, size: int, starts: Sequence[int], side: int) -> tuple[Stage, ...]:
    """The stages that save the most work for windows of the frame, empty if they save too little of it.

    Behind the last stage the rest of the graph runs on all cells.

    Args:
        module: flat graph of normalized frames (batch, 3, size, size) to one output.
        batch: see there.
        size: side of the frame in pixels.
        starts: first row of each window along a side.
        side: side of the windows.
    """
    cuts, total = cuts_of(module, batch, size)
    # the least work up to each cut, and the stages that do it
    best: list[tuple[float, tuple[Stage, ...]]] = [(0.0, ())]
    for end in cuts[1:]:
        options = []
        for begin, (work, stages) in zip(cuts, best, strict=False):
            stage = _stage(begin, end, starts, side)
            options.append((work + stage.work, (*stages, stage)))
        best.append(min(options, key=lambda option: option[0]))
    least, chosen = float(total), best[0][1]
    for cut, (work, stages) in zip(cuts[1:], best[1:], strict=True):
        work += total - cut.work + _COPY * cut.channels * cut.rows**2
        if work < least:
            least, chosen = work, stages
    return chosen if least < (1 - _WORTHWHILE) * total else ()


def _stage(begin: Cut, end: Cut, starts: Sequence[int], side: int) -> Stage:
    ratio = end.field.stride // begin.field.stride
    before = (end.field.before - begin.field.before) // begin.field.stride
    after = (end.field.after - begin.field.after) // begin.field.stride
    kept = tuple(end.changed(start, side) for start in starts)
    # crops start at whole rows of the output, and end at the border where the rows that are read do
    needed = [(max(0, first * ratio - before) // ratio * ratio, (last - 1) * ratio + after + 1) for first, last in kept]
    rows = max(min(last, begin.rows) - first for first, last in needed)
    crop = min(begin.rows, max(1, math.ceil(rows / ratio)) * ratio)
    return Stage(begin, end, crop, tuple(min(first, begin.rows - crop) for first, _ in needed), kept)


def cuts_of(module: fx.GraphModule, batch: int, size: int) -> tuple[list[Cut], int]:
    """The frame itself and the cuts behind it as far as operators are local, and the work of the whole graph."""
    shapes, nodes = shapes_of(module, batch, size), [node for node in module.graph.nodes if node.op != "get_attr"]
    if not shapes:
        return [], 0
    done = list(accumulate(_work(node, shapes) // batch for node in nodes))
    cuts: list[Cut] = []
    fields: dict[fx.Node, Field] = {}
    # how many nodes have yet to read what depends on the frame
    unread: dict[fx.Node, int] = {}
    for node, work in zip(nodes[:-2], done, strict=False):
        own = Field() if node.op == "placeholder" else _field(node, fields, shapes)
        if own is None:
            break
        fields[node], unread[node] = own, len(node.users)
        for source in node.all_input_nodes:
            if source in unread:
                unread[source] -= 1
        alone = not any(count for other, count in unread.items() if other is not node)
        if alone and shapes[node][2] * own.stride == size:
            cuts.append(Cut(node, own, shapes[node][1], shapes[node][2], work))
    return cuts, done[-1]


def _work(node: fx.Node, shapes: Mapping[fx.Node, tuple[int, ...]]) -> int:
    values = math.prod(shapes[node]) if node in shapes else 0
    if node.target is aten.conv2d.default:
        values *= math.prod(shapes[node.all_input_nodes[1]][1:])
    return values


def _field(node: fx.Node, fields: Mapping[fx.Node, Field], shapes: Mapping[fx.Node, tuple[int, ...]]) -> Field | None:
    """The field of a node's output, None if the operator is not local, or not alike in rows and columns."""
    sources = [source for source in node.all_input_nodes if source in fields]
    if not sources or not isinstance(node.target, torch._ops.OpOverload):
        return None
    arguments = arguments_of(node)
    if node.target in _POINTWISE or (node.target is aten.cat.default and arguments["dim"] == 1):
        others = [shapes[other] for other in node.all_input_nodes if other not in fields]
        alike = {(fields[source].stride, shapes[source][2:]) for source in sources}
        if len(alike) != 1 or any(len(shape) > 1 and shape[-2:] != (1, 1) for shape in others):
            return None
        before, after = (max(getattr(fields[source], name) for source in sources) for name in ("before", "after"))
        return Field(fields[sources[0]].stride, before, after)
    own = fields[sources[0]]
    if node.target is aten.pad.default:
        pad = arguments["pad"]
        constant = len(pad) == 4 and pad[:2] == pad[2:] and arguments["mode"] == "constant"
        return own.through(1 + pad[0] + pad[1], padding=pad[0]) if constant else None
    if node.target is aten.conv2d.default:
        kernel = list(shapes[arguments["weight"]][2:])
    elif node.target in (aten.max_pool2d.default, aten.avg_pool2d.default) and not arguments["ceil_mode"]:
        kernel = arguments["kernel_size"]
    else:
        return None
    window = (kernel, arguments["stride"] or kernel, arguments["padding"], arguments.get("dilation", 1))
    sides = [set(value) if isinstance(value, (list, tuple)) else {value} for value in window]
    return own.through(*(value for (value,) in sides)) if all(len(side) == 1 for side in sides) else None
