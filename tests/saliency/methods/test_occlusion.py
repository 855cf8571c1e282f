"""Occlusion, RISE and HSIC: a linear network, whose answers are known, the formulas in NumPy, and captum."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from saliency_pipeline.errors import OptionError
from saliency_pipeline.saliency.engine.layers import choose_layer
from saliency_pipeline.saliency.explainer import Explainer, Explanation
from saliency_pipeline.saliency.methods.method import Setup
from saliency_pipeline.saliency.methods.occlusion import Hsic, Occlusion, Rise, balanced_masks, hsic, random_masks
from saliency_pipeline.saliency.methods.registry import find_methods
from saliency_pipeline.saliency.targets import Target
from tests.saliency.networks import FP32, Tiny, noise, own_source, relative_error

SIZE = 16
FRAMES = noise(3, SIZE)
# the mean color of `own_source`, 0.5, in whole numbers
GRAY = 128
TOP_TWO = Target("predicted", 2)


class LinearPixels(nn.Module):
    """Logits y = sum_ij w_kij sum_c x_cij + b_k, with a layer on the grid of the pixels."""

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(4)
        self.grid = nn.Conv2d(3, 1, 1)
        self.grid.weight.data.fill_(1.0)
        self.grid.bias.data.zero_()
        self.fc = nn.Linear(SIZE * SIZE, classes)
        self.fc.weight.data = torch.randn(classes, SIZE * SIZE, generator=generator) * 0.02
        self.eval().requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.grid(x).flatten(1))


def explained(network: nn.Module, *methods: str, batch: int = 2, target: Target = TOP_TWO) -> Explanation:
    own = Explainer(
        own_source(network, SIZE, 5), [choose_layer(network, SIZE)], find_methods(methods), target, batch, FP32
    )
    return own.explain(FRAMES, keys=["a", "b", "c"])


def contributions(network: LinearPixels, explanation: Explanation) -> np.ndarray:
    """What each pixel adds to the logit compared with gray, (N, T, S, S)."""
    values = 2 * (FRAMES.astype(np.float64) - GRAY).sum(3) / 255
    rows = network.fc.weight.numpy().astype(np.float64)[explanation.targets].reshape(3, 2, SIZE, SIZE)
    return rows * values[:, None]


@pytest.fixture(scope="module")
def linear() -> LinearPixels:
    return LinearPixels()


@pytest.mark.parametrize(("window", "stride"), [(4, 2), (5, 3), (1, 1), (16, 4), (40, 40)])
def test_occlusion_of_a_linear_network_is_the_mean_contribution_of_windows(
    linear: LinearPixels, window: int, stride: int
) -> None:
    explanation = explained(linear, f"occlusion:window={window},stride={stride}")
    own = contributions(linear, explanation)
    side = min(window, SIZE)
    starts = sorted({*range(0, SIZE - side + 1, stride), SIZE - side})
    sums, counts = np.zeros(own.shape), np.zeros((SIZE, SIZE))
    for top in starts:
        for left in starts:
            place = np.s_[top : top + side, left : left + side]
            sums[..., place[0], place[1]] += own[..., place[0], place[1]].sum((2, 3))[:, :, None, None]
            counts[place] += 1
    assert counts.min() > 0
    (maps,) = explanation.maps.values()
    assert relative_error(maps.reshape(6, SIZE, SIZE), (sums / counts).reshape(6, SIZE, SIZE)) < 1e-4
    method = Occlusion(window=window, stride=stride)
    assert method.passes(Setup(SIZE)) == len(starts) ** 2 + 1


def test_occlusion_is_captums_where_the_stride_fits() -> None:
    from captum.attr import Occlusion as CaptumOcclusion

    network = Tiny(classes=5)
    explanation = explained(network, "occlusion:window=4,stride=2")
    pixels = torch.from_numpy(FRAMES).permute(0, 3, 1, 2).float() / 127.5 - 1
    for t in range(2):
        target = torch.as_tensor(explanation.targets[:, t]).long()
        want = CaptumOcclusion(network).attribute(
            pixels, (3, 4, 4), strides=(3, 2, 2), baselines=GRAY / 127.5 - 1, target=target
        )
        assert (
            relative_error(explanation.maps["occlusion:score=logit,stride=2,window=4"][:, t], want[:, 0].numpy()) < 1e-4
        )


def test_windows_must_not_leave_gaps() -> None:
    with pytest.raises(OptionError, match="leaves gaps between windows of 8 pixels; set stride to at most 8"):
        find_methods(["occlusion:window=8"])
    with pytest.raises(OptionError, match="--stride 9: it leaves gaps"):
        Occlusion(window=8, stride=9)
    assert find_methods(["occlusion:window=8,stride=8"]) == (Occlusion(window=8, stride=8),)
    assert Occlusion().cost == 13**2 + 1


def test_rise_is_its_formula_on_the_same_masks() -> None:
    network, count, p = Tiny(classes=5), 50, 0.3
    explanation = explained(network, f"rise:masks={count},cells=3,p={p}")
    masks = random_masks(count, 3, p, 0, SIZE)
    large, cell = interpolate(masks.grids[None].float(), (4 * 6, 4 * 6), mode="bilinear")[0], 6
    cut = np.stack([m[y : y + SIZE, x : x + SIZE] for m, (y, x) in zip(large.numpy(), masks.places, strict=True)])
    assert masks.places.min() == 0
    assert masks.places.max() == cell - 1
    terms = np.zeros((count, 3, 2, SIZE, SIZE))
    for k, mask in enumerate(cut):
        mixed = np.floor(FRAMES * mask[..., None] + GRAY * (1 - mask[..., None]) + 0.5).astype(np.uint8)
        scores = network(torch.from_numpy(mixed).permute(0, 3, 1, 2).float() / 127.5 - 1).softmax(1).numpy()
        terms[k] = np.take_along_axis(scores, explanation.targets, 1)[:, :, None, None] * mask / p
    (maps,), (errors,) = explanation.maps.values(), explanation.standard_errors.values()
    want = terms.mean(0)
    assert relative_error(maps.reshape(6, SIZE, SIZE), want.reshape(6, SIZE, SIZE)) < 1e-5
    spread = terms.std(0, ddof=1) / np.sqrt(count)
    np.testing.assert_allclose(errors, np.sqrt((spread**2).mean((2, 3))) / np.ptp(want, axis=(2, 3)), rtol=1e-3)


def test_debiased_maps_are_covariances_and_have_smaller_errors() -> None:
    network, count = Tiny(classes=5), 200
    plain, own = (explained(network, f"rise:masks={count},cells=3{text}") for text in ("", ",debiased"))
    masks = random_masks(count, 3, 0.5, 0, SIZE).enlarged(torch.arange(count)).numpy()
    (whole,), (maps,), (errors,) = plain.maps.values(), own.maps.values(), own.standard_errors.values()
    # the values without the mean score times the mean mask
    mean = (whole - maps) / (masks.mean(0) / 0.5)
    np.testing.assert_allclose(mean, np.broadcast_to(mean.mean((2, 3), keepdims=True), mean.shape), rtol=1e-4)
    assert maps.min() < 0 < maps.max()
    (larger,) = plain.standard_errors.values()
    assert (errors * np.ptp(maps, axis=(2, 3)) < 0.5 * larger * np.ptp(whole, axis=(2, 3))).all()
    assert [method.signed for method in find_methods(["rise", "rise:debiased"])] == [False, True]
    assert Rise(debiased=True).describe()["signed"] is True


def test_rise_of_a_linear_network_rises_with_the_contribution_of_each_cell(linear: LinearPixels) -> None:
    """The score is linear in the mask, so that products of masks are all that the maps depend on."""
    count, cells = 2000, 4
    explanation = explained(linear, f"rise:masks={count},cells={cells},score=logit")
    (maps,), (errors,) = explanation.maps.values(), explanation.standard_errors.values()
    own = contributions(linear, explanation)
    masks = random_masks(count, cells, 0.5, 0, SIZE)
    shares = masks.enlarged(torch.arange(count)).flatten(1).double()
    mean, products = shares.mean(0), shares.t() @ shares / count
    gray = 2 * (GRAY / 255) - 1
    rows = linear.fc.weight.numpy()[explanation.targets]
    start = 3 * gray * rows.sum(2) + linear.fc.bias.numpy()[explanation.targets]
    # s = start + sum_q m_q contribution_q, but for the rounding to whole numbers
    want = 2 * (start[..., None] * mean.numpy() + own.reshape(3, 2, -1) @ products.numpy())
    assert relative_error(maps.reshape(6, -1), want.reshape(6, -1)) < 0.02
    assert errors.shape == (3, 2)


def test_standard_errors_of_rise_are_the_scatter_of_independent_runs() -> None:
    network = Tiny(classes=5)
    runs = [explained(network, f"rise:masks=60,cells=3,seed={seed}") for seed in range(12)]
    maps, errors = (np.stack([next(iter(of(run).values())) for run in runs]) for of in (_maps, _errors))
    scatter = np.sqrt((maps.std(0, ddof=1) ** 2).mean((2, 3)))
    stored = np.sqrt(((errors * np.ptp(maps, axis=(3, 4))) ** 2).mean(0))
    np.testing.assert_allclose(stored, scatter, rtol=0.4)
    more = explained(network, "rise:masks=960,cells=3")
    (large,), (error,) = more.maps.values(), more.standard_errors.values()
    np.testing.assert_allclose(4 * error * np.ptp(large, axis=(2, 3)), scatter, rtol=0.4)


def _maps(explanation: Explanation) -> dict[str, np.ndarray]:
    return explanation.maps


def _errors(explanation: Explanation) -> dict[str, np.ndarray]:
    return explanation.standard_errors


def test_masks_are_those_of_the_seed_and_the_first_of_more() -> None:
    few, many, other = (
        random_masks(10, 7, 0.5, 0, 224),
        random_masks(50, 7, 0.5, 0, 224),
        random_masks(10, 7, 0.5, 1, 224),
    )
    assert torch.equal(few.grids, many.grids[:10])
    assert torch.equal(few.places, many.places[:10])
    assert not torch.equal(few.grids, other.grids)
    assert 0.4 < random_masks(1000, 7, 0.5, 0, 224).grids.float().mean() < 0.6


def test_each_cell_of_hsic_stays_in_half_of_the_masks() -> None:
    signs = 2 * balanced_masks(200, 5, 0, SIZE).grids.flatten(1).float() - 1
    assert torch.equal(signs.sum(0), torch.zeros(25))
    assert (signs.t() @ signs / 200 - torch.eye(25)).abs().max() < 0.35


def test_hsic_of_a_score_that_depends_on_one_cell() -> None:
    count = 400
    signs = 2 * balanced_masks(count, 4, 0, SIZE).grids.flatten(1).double() - 1
    values = hsic(signs, 3.0 * signs[:, 5] + 7, rows=64)
    # two values of the score, at the median distance from one another: L = (1 + e) / 2 + (1 - e) / 2 z z^T
    assert values[5].item() == pytest.approx((1 - np.exp(-0.5)) / 4 * count**2 / (count - 1) ** 2)
    overlap = (signs.t() @ signs[:, 5] / count) ** 2
    torch.testing.assert_close(values, values[5] * overlap)
    assert torch.equal(hsic(signs, torch.full((count,), 2.0, dtype=torch.float64)), torch.zeros(16).double())


def test_hsic_is_the_trace_of_its_definition() -> None:
    count, rng = 60, np.random.default_rng(0)
    signs, scores = rng.choice([-1.0, 1.0], (count, 6)), rng.standard_normal(count)
    distances = np.abs(scores[:, None] - scores)
    width = np.sort(distances[np.triu_indices(count, 1)])[(count * (count - 1) // 2 - 1) // 2]
    kernel, center = np.exp(-(distances**2) / (2 * width**2)), np.eye(count) - 1 / count
    want = [np.trace((0.5 - (cell[:, None] != cell)) @ center @ kernel @ center) / (count - 1) ** 2 for cell in signs.T]
    got = hsic(torch.from_numpy(signs), torch.from_numpy(scores), rows=17)
    np.testing.assert_allclose(got.numpy(), want, rtol=1e-10)


def test_hsic_of_a_network_that_reads_one_cell(linear: LinearPixels) -> None:
    network = LinearPixels()
    weight = torch.zeros(5, SIZE, SIZE)
    weight[:, 4:8, 12:16] = torch.rand(5, 1, 1) + 0.1
    network.fc.weight.data = weight.flatten(1)
    (maps,) = explained(network, "hsic:grid=4,samples=200,score=logit").maps.values()
    assert maps.shape == (3, 2, 4, 4)
    best = maps.reshape(6, 16).argmax(1)
    assert (best == 4 + 3).all()
    assert (np.sort(maps.reshape(6, 16))[:, -2] < 0.2 * maps.max((2, 3)).ravel()).all()


def test_scores_may_be_probabilities_or_logits() -> None:
    network = Tiny(classes=5)
    for name in ("occlusion:stride=4,window=4", "rise:cells=4,masks=20", "hsic:grid=4,samples=20"):
        logit, probability = (
            next(iter(explained(network, f"{name},score={s}").maps.values())) for s in ("logit", "probability")
        )
        assert np.isfinite(logit).all()
        assert not np.allclose(logit, probability)
    assert (Rise().score, Hsic().score, Occlusion().score) == ("probability", "logit", "logit")
