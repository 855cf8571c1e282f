"""Passes through a network for frames with one window replaced, which compute its first layers where they change."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, fx

from saliency_pipeline.models.preprocessing import Preprocessing
from saliency_pipeline.saliency.engine.backends import Normalize, Placement, make_trunk, placed
from saliency_pipeline.saliency.engine.flat_graph import subgraph
from saliency_pipeline.saliency.engine.locality import Stage, stages_of
from saliency_pipeline.saliency.engine.masks import WindowMasks, chunks

FEW = 64
"""Number of masks for which preparing the stages would take longer than they save."""

Places = list[tuple[slice, slice, slice]]
"""For each window along a side: rows of a crop, changed rows of what is pasted, and the same rows of the crop."""


class WindowTrunk:
    """Runs the trunk for windows of frames: stages on crops of what the whole frame's pass returned, then the rest.

    It returns what the whole trunk does for frames with the window replaced, but for rounding. Nothing in it changes,
    so that threads may share it.
    """

    def __init__(
        self,
        graph: fx.GraphModule,
        preprocessing: Preprocessing,
        batch: int,
        placement: Placement,
        cache_key: tuple[str, ...],
        masks: WindowMasks,
        stages: Sequence[Stage],
    ) -> None:
        """Prepare the stages, from `stages_of`. Other arguments are those of `make_trunk`."""
        self.masks, self.batch = masks, batch
        self.normalize = Normalize(preprocessing, placement.device)
        nodes = list(graph.graph.nodes)
        start, output = next(node for node in nodes if node.op == "placeholder"), nodes[-1].args[0]
        ends = [stage.end for stage in stages]
        self.whole = placed(subgraph(graph, start, tuple(end.node for end in ends)), placement.device)
        tops = [stage.starts for stage in stages[1:]] + [(0,) * len(masks.starts)]
        sides = [stage.side for stage in stages[1:]] + [ends[-1].rows]
        windows = [(top, top + masks.side) for top in masks.starts]
        self.places = [_places(windows, masks.starts, stages[0].starts, stages[0].side)]
        for stage, own, side in zip(stages, tops, sides, strict=True):
            crops = [top // stage.ratio for top in stage.starts]
            self.places.append(_places(stage.kept, crops, own, side))
        begins = [(stage.begin, stage.side) for stage in stages] + [(ends[-1], ends[-1].rows)]
        self.parts = []
        for (begin, side), end in zip(begins, [*(end.node for end in ends), output], strict=True):
            key = (*cache_key, f"from {begin.node.name} to {end.name}, {side} rows") if cache_key else ()
            inputs = None if begin.node is start else (begin.channels, side, side)
            part, own_size = subgraph(graph, begin.node, end), replace(preprocessing, size=side)
            self.parts.append(make_trunk(part, own_size, batch, placement, key, inputs))

    def pass_whole(self, frame: Tensor) -> list[np.ndarray]:
        """The frame (S, S, 3) uint8 as (3, S, S), and its pass's outputs (C, rows, rows) at the end of each stage."""
        with torch.inference_mode():
            ends = self.whole(self.normalize(frame[None]))
        return [frame.permute(2, 0, 1).numpy(), *(end[0].contiguous().numpy() for end in ends)]

    def __call__(self, values: Sequence[np.ndarray], color: np.ndarray, index: Sequence[int]) -> Tensor:
        """The trunk's output (M, ...) float32 for masks of one frame.

        Args:
            values: from `pass_whole`.
            color: (3,) uint8, what windows are replaced by.
            index: M numbers of masks, M a multiple of the batch size.
        """
        count, side = len(self.masks.starts), self.masks.side
        # the last mask replaces nothing: its window is what it was
        windows = [divmod(min(number, count**2 - 1), count) for number in index]
        outputs = np.empty((len(index), 3, side, side), np.uint8)
        outputs[:] = color[:, None, None]
        for output, number, (row, column) in zip(outputs, index, windows, strict=True):
            if number == count**2:
                top, left = self.masks.starts[row], self.masks.starts[column]
                output[:] = values[0][:, top : top + side, left : left + side]
        for places, whole, part in zip(self.places, values, self.parts, strict=True):
            outputs = part(_pasted(places, whole, outputs, windows)).numpy()
        return torch.from_numpy(outputs)


def _places(changed: Sequence[tuple[int, int]], origins: Sequence[int], tops: Sequence[int], side: int) -> Places:
    """Where rows of outputs are pasted into crops of what they replace a part of.

    Args:
        changed: for each window, the first of the rows, and the one behind the last.
        origins: the first row that each output has.
        tops: the first row of each crop.
        side: of the crops.
    """
    places = []
    for rows, origin, top in zip(changed, origins, tops, strict=True):
        # rows that nothing reads may be outside of the crop
        first, last = (min(max(row, top), top + side) for row in rows)
        places.append((slice(top, top + side), slice(first - origin, last - origin), slice(first - top, last - top)))
    return places


def _pasted(places: Places, whole: np.ndarray, outputs: np.ndarray, windows: Sequence[tuple[int, int]]) -> np.ndarray:
    """Crops (M, C, side, side) of (C, h, w), or (M, side, side, 3) of a frame, with outputs (M, C, a, b) of windows."""
    crop = places[0][0]
    side, colors = crop.stop - crop.start, whole.dtype == np.uint8
    crops = np.empty((len(outputs), side, side, 3) if colors else (len(outputs), len(whole), side, side), whole.dtype)
    own = crops.transpose(0, 3, 1, 2) if colors else crops
    for target, output, (row, column) in zip(own, outputs, windows, strict=True):
        (rows, from_rows, to_rows), (columns, from_columns, to_columns) = places[row], places[column]
        target[:] = whole[:, rows, columns]
        target[:, to_rows, to_columns] = output[:, from_rows, from_columns]
    return crops


def window_trunk(
    graph: fx.GraphModule,
    preprocessing: Preprocessing,
    batch: int,
    placement: Placement,
    cache_key: tuple[str, ...],
    masks: WindowMasks,
) -> WindowTrunk | None:
    """The trunk for windows of frames, None where it would save too little.

    Copies of small crops take longer on a GPU than they save, and so does compiling a network in parts. bf16 would
    round what a window changes otherwise than the rest. Arguments are those of `make_trunk`.
    """
    if placement.device != "cpu" or placement.precision != "fp32" or placement.backend == "compile":
        return None
    if len(masks) <= FEW:
        return None
    stages = stages_of(graph, batch, preprocessing.size, masks.starts, masks.side)
    return WindowTrunk(graph, preprocessing, batch, placement, cache_key, masks, stages) if stages else None


def window_scores(
    frames: Tensor, trunk: WindowTrunk, color: Tensor, score_of: Callable[[int, Tensor], Tensor]
) -> Tensor:
    """Scores (N, K, T), as of `masked_scores`, for frames (N, S, S, 3) uint8 and the windows of the trunk.

    Args:
        frames: see there.
        trunk: for windows of these frames.
        color: RGB in whole numbers from 0 to 255, (3,).
        score_of: the index n of a frame and the trunk's output for M masks of it to T scores of each, (M, T).
    """
    total, rgb, scores = len(trunk.masks), color.numpy().astype(np.uint8), []
    for n, frame in enumerate(frames):
        values, parts = trunk.pass_whole(frame), []
        for start, masked in chunks(total, trunk.batch):
            index = [min(number, total - 1) for number in range(start, start + masked)]
            parts.append(score_of(n, trunk(values, rgb, index))[: total - start])
        scores.append(torch.cat(parts))
    return torch.stack(scores)
