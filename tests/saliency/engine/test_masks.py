"""Masks that are enlarged on the fly, and scores of masked frames, against the obvious way."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from saliency_pipeline.saliency.engine.masks import (
    CHUNK,
    GridMasks,
    Masks,
    SegmentMasks,
    bilinear,
    masked_scores,
    nearest,
    weighted_masks,
)

SIZE = 12
FILL = torch.tensor([10.0, 100.0, 200.0])


def shifted(count: int, removed: bool = False) -> GridMasks:
    """Random grids that are enlarged by one of several matrices."""
    generator = torch.Generator().manual_seed(0)
    matrices = bilinear(SIZE + 3, 4).unfold(0, SIZE, 1)[:4].transpose(1, 2)
    places = torch.randint(4, (count, 2), generator=generator)
    return GridMasks(torch.rand(count, 4, 4, generator=generator), matrices, matrices, places, removed)


def segmented(count: int) -> SegmentMasks:
    generator = torch.Generator().manual_seed(1)
    return SegmentMasks(torch.rand(count, 5, generator=generator), torch.randint(5, (SIZE, SIZE), generator=generator))


def whole(masks: Masks) -> Tensor:
    return masks.enlarged(torch.arange(len(masks)))


def frames_of(count: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(2).integers(0, 256, (count, SIZE, SIZE, 3), dtype=np.uint8))


@pytest.mark.parametrize("cells", [1, 3, 7, 12, 20])
def test_matrices_enlarge_as_pytorch_does(cells: int) -> None:
    grid = torch.rand(1, 1, cells, 1)
    for matrix, mode in ((bilinear(SIZE, cells), "bilinear"), (nearest(SIZE, cells), "nearest-exact")):
        torch.testing.assert_close(matrix @ grid[0, 0], interpolate(grid, (SIZE, 1), mode=mode)[0, 0])


def test_grids_are_enlarged_by_their_own_matrices() -> None:
    masks = shifted(5)
    for mask, grid, (down, across) in zip(whole(masks), masks.grids, masks.places.tolist(), strict=True):
        large = interpolate(grid[None, None], (SIZE + 3, SIZE + 3), mode="bilinear")[0, 0]
        torch.testing.assert_close(mask, large[down : down + SIZE, across : across + SIZE])
    torch.testing.assert_close(whole(shifted(5, removed=True)), 1 - whole(masks))


@pytest.mark.parametrize("masks", [shifted(5), segmented(5)], ids=["grids", "segments"])
def test_interleaved_masks_repeat_each_value_per_color(masks: Masks) -> None:
    torch.testing.assert_close(whole(masks.interleaved()), whole(masks).repeat_interleave(3, 2))


@pytest.mark.parametrize("count", [1, CHUNK, CHUNK + 1, 3 * CHUNK + 5])
@pytest.mark.parametrize("make", [shifted, segmented])
@pytest.mark.parametrize("batch", [1, 3, CHUNK + 1])
def test_scores_are_those_of_frames_mixed_one_by_one(count: int, make: Callable[[int], Masks], batch: int) -> None:
    frames, masks, weights = frames_of(2), make(count), torch.rand(SIZE, SIZE, 3)
    sizes = []

    def score_of(n: int, mixed: Tensor) -> Tensor:
        assert mixed.dtype == torch.uint8
        sizes.append(len(mixed))
        total = (mixed.double() * weights).sum((1, 2, 3))
        return torch.stack([total, total * n], 1)

    scores = masked_scores(frames, masks, FILL, score_of, batch)
    shares = whole(masks)[:, :, :, None]
    for n, frame in enumerate(frames):
        mixed = (frame * shares + FILL * (1 - shares) + 0.5).floor()
        want = (mixed.double() * weights).sum((1, 2, 3))
        # a value at a half may be rounded either way
        torch.testing.assert_close(scores[n, :, 0], want, rtol=0, atol=2)
        torch.testing.assert_close(scores[n, :, 1], want * n, rtol=0, atol=2)
    assert all(size % batch == 0 and size < CHUNK + batch for size in sizes)
    assert sum(sizes) < 2 * (count + batch)


def test_a_score_depends_neither_on_other_frames_nor_on_their_number() -> None:
    frames, masks = frames_of(4), [shifted(21), *(segmented(21),) * 3]
    weights = torch.randn(SIZE * SIZE * 3, 40)

    def score_of(n: int, mixed: Tensor) -> Tensor:
        # a product whose rounding depends on the number of rows
        return mixed.flatten(1).float() @ weights

    together = masked_scores(frames, masks, FILL, score_of, 2)
    for n, own in enumerate(masks):
        alone = masked_scores(frames[n : n + 1], [own], FILL, score_of, 2)
        assert torch.equal(alone[0], together[n])


def test_masks_of_ones_keep_the_frame_and_of_zeros_the_fill() -> None:
    frames = frames_of(1)
    masks = GridMasks(torch.tensor([[[1.0]], [[0.0]]]), torch.ones(1, SIZE, 1), torch.ones(1, SIZE, 1))
    seen: list[Tensor] = []

    def score_of(n: int, mixed: Tensor) -> Tensor:
        seen.extend(mixed.clone())
        return torch.zeros(len(mixed), 1)

    masked_scores(frames, masks, FILL, score_of, 1)
    assert torch.equal(seen[0], frames[0])
    assert torch.equal(seen[1], FILL.byte().expand(SIZE, SIZE, 3))


@pytest.mark.parametrize("power", [1, 2])
def test_weighted_masks_are_sums_frame_by_frame(power: int) -> None:
    masks, weights = shifted(2 * CHUNK + 3), torch.randn(3, 2, 2 * CHUNK + 3)
    sums = weighted_masks(masks, weights, power)
    want = torch.einsum("ntk,kij->ntij", weights.double(), whole(masks).double() ** power)
    torch.testing.assert_close(sums, want, rtol=1e-5, atol=1e-5)
    for n in range(3):
        assert torch.equal(weighted_masks(masks, weights[n : n + 1], power)[0], sums[n])


def test_memory_does_not_grow_with_the_number_of_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    largest = []
    enlarged = GridMasks.enlarged

    def observed(self: GridMasks, index: Tensor) -> Tensor:
        values = enlarged(self, index)
        largest.append(values.numel())
        return values

    monkeypatch.setattr(GridMasks, "enlarged", observed)
    for count in (CHUNK, 40 * CHUNK):
        largest.clear()
        masked_scores(frames_of(1), shifted(count), FILL, lambda n, mixed: torch.zeros(len(mixed), 1), 2)
        weighted_masks(shifted(count), torch.ones(1, 1, count))
        assert max(largest) == CHUNK * SIZE * SIZE * 3
