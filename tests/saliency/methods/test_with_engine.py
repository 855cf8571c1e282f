"""Methods on pixels, image and module asked of the real engine: neighbors, batches, residuals, references."""

import numpy as np
import pytest
import torch

from saliency_pipeline.saliency.engine.layers import choose_layer
from saliency_pipeline.saliency.engine.need import Need
from saliency_pipeline.saliency.engine.network import RECORDED
from saliency_pipeline.saliency.explainer import Explainer
from saliency_pipeline.saliency.methods.registry import METHODS, find_methods
from saliency_pipeline.saliency.targets import Target
from tests.saliency.networks import BATCH, FP32, Tiny, noise, normalized, own_source, relative_error

SIZE = 16
FRAMES = noise(3, SIZE)
KEYS = ("a", "b", "c")
FEW = {"rise": "rise:masks=40", "hsic": "hsic:samples=40", "kernelshap": "kernelshap:samples=40,segments=9"}
NOT_OF_LAYERS = [FEW.get(name, name) for name, kind in METHODS.items() if kind().level not in ("layer", "attention")]


@pytest.fixture(scope="module")
def explainer() -> Explainer:
    methods = find_methods(
        [*NOT_OF_LAYERS, "smoothgrad:stat=var", "integrated-gradients:baseline=blur", "captum:DeepLift"]
    )
    network = Tiny()
    layers = [choose_layer(network, SIZE)]
    source, background = own_source(network, SIZE, 7), noise(5, SIZE, seed=1)
    return Explainer(source, layers, methods, Target("predicted", 2), BATCH, FP32, background=background)


def test_maps_have_the_announced_shapes(explainer: Explainer) -> None:
    explanation = explainer.explain(FRAMES, keys=KEYS)
    for method in explainer.methods:
        targets = 2 if method.class_specific else 1
        maps = explanation.maps[method.canonical]
        assert maps.shape == (3, targets, *method.shape(explainer.grids, SIZE)), method.canonical
        assert np.isfinite(maps).all()
        assert (maps.min() >= 0) == (not method.signed), method.canonical
    assert set(explanation.standard_errors) == {method.canonical for method in explainer.methods if method.sampled}
    assert set(explanation.residuals) == {method.canonical for method in explainer.methods if method.complete}


def test_maps_do_not_depend_on_their_neighbors(explainer: Explainer) -> None:
    together = explainer.explain(FRAMES, keys=KEYS)
    for n, key in enumerate(KEYS):
        alone = explainer.explain(FRAMES[n : n + 1], keys=[key])
        for name, maps in together.maps.items():
            assert np.array_equal(alone.maps[name][0], maps[n]), name
        for name, residuals in together.residuals.items():
            assert np.array_equal(alone.residuals[name][0], residuals[n]), name
        for name, errors in together.standard_errors.items():
            assert np.array_equal(alone.standard_errors[name][0], errors[n]), name


def test_masked_maps_do_not_depend_on_the_size_of_batches(explainer: Explainer) -> None:
    # beyond that, how a network rounds is the backend's affair
    methods = tuple(m for m in explainer.methods if m.needs & Need.FORWARD and not m.needs & RECORDED)
    assert len(methods) == 6
    source, layers = explainer.source, explainer.layers
    own = [Explainer(source, layers, methods, Target("predicted", 2), batch, FP32) for batch in (1, 2, 3)]
    first, *others = (each.explain(FRAMES, keys=KEYS) for each in own)
    backwards = own[1].explain(FRAMES[::-1], keys=KEYS[::-1])
    for name, maps in first.maps.items():
        for other in others:
            np.testing.assert_allclose(other.maps[name], maps, atol=1e-5 * np.abs(maps).max())
        assert np.array_equal(backwards.maps[name][::-1], others[0].maps[name])


def test_residuals_are_small_where_they_should_be(explainer: Explainer) -> None:
    explanation = explainer.explain(FRAMES, keys=KEYS)
    sizes = {name.partition(":")[0]: np.abs(values).max() for name, values in explanation.residuals.items()}
    ways = np.abs(explanation.maps["expected-gradients:samples=50,seed=0"]).sum((2, 3)).min()
    assert sizes["fullgrad"] < 1e-5
    assert sizes["integrated-gradients"] < 0.01 * ways
    assert sizes["expected-gradients"] < 0.2 * ways


def test_what_all_batches_compare_with_passes_once(explainer: Explainer) -> None:
    names = [
        "integrated-gradients:nodes=2",
        "integrated-gradients:nodes=2,baseline=blur",
        "expected-gradients:samples=2",
    ]
    source, layers, methods = explainer.source, explainer.layers, find_methods(names)
    own = Explainer(source, layers, methods, Target("predicted", 2), BATCH, FP32, background=noise(5, SIZE, seed=1))
    passed: list[int] = []
    own.network.whole.register_forward_hook(lambda _, inputs, __: passed.append(len(inputs[0])))
    first, second = (own.explain(FRAMES[:BATCH], keys=KEYS[:BATCH]) for _ in range(2))
    # the frames, two points of each method, the blurred frames; before that the mean color and five other frames
    assert passed == [BATCH] * ((1 + 6 + 1) * 2 + 1 + 3)
    assert all(np.array_equal(first.residuals[name], second.residuals[name]) for name in first.residuals)


def test_maps_are_captums_of_the_untouched_network(explainer: Explainer) -> None:
    from captum.attr import InputXGradient, IntegratedGradients

    explanation, network = explainer.explain(FRAMES, keys=KEYS), Tiny()
    pixels = normalized(FRAMES, own_source(network, SIZE, 7))
    target = torch.as_tensor(explanation.targets[:, 1]).long()
    path = IntegratedGradients(network).attribute(pixels, target=target, n_steps=20, method="gausslegendre")
    for name, reference in (
        ("integrated-gradients:baseline=mean,nodes=20", path),
        ("input-x-gradient", InputXGradient(network).attribute(pixels.requires_grad_(), target)),
    ):
        assert relative_error(explanation.maps[name][:, 1], reference.sum(1).detach().numpy()) < 1e-4
