"""KernelSHAP against Shapley values by enumeration."""

from itertools import permutations

import numpy as np
import pytest
import torch
from torch import nn

from saliency_pipeline.saliency.engine.layers import choose_layer
from saliency_pipeline.saliency.engine.superpixels import superpixels
from saliency_pipeline.saliency.explainer import Explainer, Explanation
from saliency_pipeline.saliency.methods.registry import find_methods
from saliency_pipeline.saliency.methods.shapley import KernelShap, coalitions, shapley_values
from saliency_pipeline.saliency.targets import Target
from tests.saliency.networks import FP32, Tiny, noise, own_source

SIZE = 16
GRAY = 128
FRAMES = noise(2, SIZE)


def explained(network: nn.Module, method: str) -> Explanation:
    layers, methods = [choose_layer(network, SIZE)], find_methods([method])
    own = Explainer(own_source(network, SIZE, 7), layers, methods, Target("predicted", 2), 2, FP32)
    return own.explain(FRAMES, keys=["a", "b"])


def logits(network: nn.Module, frame: np.ndarray, stays: np.ndarray) -> np.ndarray:
    mixed = torch.from_numpy(np.where(stays[..., None], frame, GRAY)).permute(2, 0, 1)[None]
    return network(mixed.float() / 127.5 - 1)[0].numpy()


def test_values_on_eight_segments_are_those_of_all_coalitions() -> None:
    network = Tiny()
    explanation = explained(network, "kernelshap:segments=8")
    (maps,) = explanation.maps.values()
    assert KernelShap(segments=8).cost == 2**8
    for frame, targets, own in zip(FRAMES, explanation.targets, maps, strict=True):
        segments = superpixels(frame, 8)
        table = {}
        for code in range(256):
            members = np.array([code >> j & 1 for j in range(8)], bool)
            table[code] = logits(network, frame, members[segments])[targets].astype(np.float64)
        values = np.zeros((8, 2))
        for j in range(8):
            for code in range(256):
                if not code >> j & 1:
                    size = bin(code).count("1")
                    weight = 1 / (8 * len(list(_subsets(7, size))))
                    values[j] += weight * (table[code | 1 << j] - table[code])
        np.testing.assert_allclose(own, values.T[:, segments], atol=1e-4 * np.abs(values).max())


def _subsets(count: int, size: int) -> set[int]:
    return {code for code in range(2**count) if bin(code).count("1") == size}


def test_values_of_a_small_game_are_means_over_all_orders() -> None:
    rng = np.random.default_rng(3)
    table = rng.standard_normal((2, 2, 2, 2, 2))
    chosen, weights = coalitions(4, 14, rng)
    assert len(chosen) == 16
    got = shapley_values(chosen, weights, table[tuple(chosen.T.astype(int))])
    want = np.zeros((4, 2))
    for order in permutations(range(4)):
        members = np.zeros(4, int)
        for player in order:
            before = table[tuple(members)]
            members[player] = 1
            want[player] += (table[tuple(members)] - before) / 24
    np.testing.assert_allclose(got, want, atol=1e-12)


@pytest.mark.parametrize("samples", [4, 51, 400])
def test_coalitions_come_with_their_complements(samples: int) -> None:
    chosen, weights = coalitions(30, samples, np.random.default_rng(0))
    assert not chosen[0].any()
    assert chosen[1].all()
    pairs = chosen[2:].reshape(-1, 2, 30)
    assert (pairs[:, 0] ^ pairs[:, 1]).all()
    assert len(weights) == len(chosen) - 2 == samples // 2 * 2
    assert pairs.sum(2).min() > 0


def test_random_coalitions_have_the_sizes_of_the_kernel() -> None:
    chosen, _ = coalitions(10, 40_000, np.random.default_rng(0))
    assert len(chosen) == 2**10
    chosen, _ = coalitions(16, 40_000, np.random.default_rng(0))
    sizes = np.arange(1, 16)
    want = 1 / (sizes * (16 - sizes))
    counts = np.bincount(chosen[2:].sum(1), minlength=17)[1:16]
    np.testing.assert_allclose(counts / counts.sum(), want / want.sum(), atol=0.01)
    np.testing.assert_allclose(chosen[2:].mean(0), 0.5)


def test_values_of_an_additive_game_are_exact_and_sum_to_the_difference() -> None:
    rng = np.random.default_rng(1)
    own = rng.standard_normal((20, 3))
    chosen, weights = coalitions(20, 100, rng)
    np.testing.assert_allclose(shapley_values(chosen, weights, chosen @ own + 2), own, atol=1e-10)
    # few coalitions, an arbitrary game
    chosen, weights = coalitions(20, 10, rng)
    scores = rng.standard_normal((len(chosen), 3))
    values = shapley_values(chosen, weights, scores)
    np.testing.assert_allclose(values.sum(0), scores[1] - scores[0], atol=1e-10)


def test_samples_approach_the_exact_values() -> None:
    network = Tiny()
    exact = next(iter(explained(network, "kernelshap:segments=9,samples=510").maps.values()))
    near = next(iter(explained(network, "kernelshap:segments=9,samples=400").maps.values()))
    assert np.abs(near - exact).max() < 0.1 * np.abs(exact).max()
    assert not np.array_equal(near, exact)
