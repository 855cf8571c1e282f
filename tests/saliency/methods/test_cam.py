"""Class activation maps: values computed by hand, slow twins, finite differences, equalities on a linear head."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from saliency_pipeline.errors import OptionError
from saliency_pipeline.saliency.engine.layers import choose_layers
from saliency_pipeline.saliency.explainer import Explainer
from saliency_pipeline.saliency.methods.cam import (
    AblationCam,
    FinerCam,
    GradCam,
    GradCamPlusPlus,
    HiResCam,
    LayerCam,
    XGradCam,
    grad_cam,
    linear_grad_cam,
)
from saliency_pipeline.saliency.methods.eigen import EigenCam, EigenGradCam
from saliency_pipeline.saliency.methods.method import GradientLayerMethod
from saliency_pipeline.saliency.methods.registry import find_methods
from saliency_pipeline.saliency.targets import Target
from tests import reference
from tests.saliency.fake import FakeAnswers, LinearNetwork, Pooled
from tests.saliency.networks import FP32, Tiny, normalized, own_explainer, own_source


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 5, 3, 3), (3, 4, 2, 5)])
def test_grad_cam_equals_its_slow_twin(shape: tuple[int, ...]) -> None:
    activations, gradients = numbers(*shape), numbers(*shape, seed=1)
    slow = [reference.grad_cam(a, g) for a, g in zip(activations.numpy(), gradients.numpy(), strict=True)]
    np.testing.assert_allclose(grad_cam(activations, gradients), slow, atol=1e-12)


def test_under_a_linear_head_it_is_the_class_activation_map_over_the_cells() -> None:
    activations, weights = numbers(2, 5, 3, 4), numbers(2, 3, 5, seed=1)
    maps = linear_grad_cam(activations, weights)
    for n in range(2):
        for t in range(3):
            cam = reference.class_activation_map(activations[n].numpy(), weights[n, t].numpy())
            np.testing.assert_allclose(maps[n, t], np.maximum(cam, 0) / 12, atol=1e-12)
            gradient = (weights[n, t] / 12)[None, :, None, None].expand(1, 5, 3, 4)
            np.testing.assert_allclose(maps[n, t], grad_cam(activations[n : n + 1], gradient)[0], atol=1e-12)


def test_grad_cam_follows_from_finite_differences_of_the_head() -> None:
    head = nn.Sequential(nn.Conv2d(4, 5, 1), nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 3))
    head = head.double().requires_grad_(False)
    activations = numbers(1, 4, 3, 3)
    gradients = reference.central_differences(
        lambda a: float(head(torch.from_numpy(a)[None])[0, 2]), activations[0].numpy()
    )
    leaf = activations.clone().requires_grad_()
    (exact,) = torch.autograd.grad(head(leaf)[0, 2], leaf)
    slow = reference.grad_cam(activations[0].numpy(), gradients)
    np.testing.assert_allclose(grad_cam(activations, exact)[0], slow, atol=1e-8)
    assert slow.max() > 0


def test_the_engine_gives_the_class_activation_map_of_a_network_with_pooling_and_one_linear_layer() -> None:
    network = Tiny()
    explainer = own_explainer(network, 8, 7, ("gradcam",))
    assert explainer.split.linear is not None
    frames = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    explanation = explainer.explain(frames)
    pixels = normalized(frames, own_source(network, 8, 7))
    activations = network.act(network.norm(network.conv(pixels)))
    for n in range(2):
        weights = network.fc.weight[int(explanation.targets[n, 0])]
        cam = reference.class_activation_map(activations[n].numpy(), weights.numpy())
        np.testing.assert_allclose(explanation.maps["gradcam"][n, 0], np.maximum(cam, 0) / 16, atol=1e-5)


# two channels of two cells: the sums of A are 3 and -1
HAND_A = torch.tensor([[[[1.0, 2.0]], [[3.0, -4.0]]]], dtype=torch.float64)
HAND_G = torch.tensor([[[[1.0, 3.0]], [[0.5, -1.0]]]], dtype=torch.float64)


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        (GradCam(), [1.25, 5]),  # weights 2 and -0.25
        (HiResCam(), [2.5, 10]),
        (LayerCam(), [2.5, 6]),
        (XGradCam(), [0, 14 / 3 + 22]),  # weights 7 / 3 and -5.5
        (GradCamPlusPlus(), [1 / 5 + 3 / 11 + 1, 0]),  # alphas 1 / 5, 1 / 11 and 2 / 3
        (GradCamPlusPlus(normalized=True), [3.125, 1.25]),  # alphas 11 / 16, 5 / 16 and 1
    ],
    ids=lambda value: value.canonical if isinstance(value, GradientLayerMethod) else "",
)
def test_values_computed_by_hand(method: GradientLayerMethod, expected: list[float]) -> None:
    torch.testing.assert_close(method.formula(HAND_A, HAND_G)[0, 0], torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("linear", [True, False], ids=["closed form", "one channel at a time"])
def test_ablation_cam_by_hand(linear: bool) -> None:
    weight, bias = torch.tensor([[2.0, -1.0], [0.0, 0.0]]).double(), torch.tensor([-5.5, 0.0]).double()
    ask = FakeAnswers(LinearNetwork(weight, bias), HAND_A, ("grid",), torch.tensor([[0, 1]]), linear)
    # y = -2; it loses 3 without the first channel and 0.5 without the second. The other class has y = 0
    torch.testing.assert_close(AblationCam().maps(ask)[0, :, 0], torch.tensor([[2.25, 2.0], [0.0, 0.0]]).double())


def contrast_of(method: FinerCam, logits: torch.Tensor, targets: list[list[int]]) -> torch.Tensor:
    chosen = torch.tensor(targets)
    return method.contrast(logits, chosen, method.nearest(logits, chosen))


def test_the_references_of_finer_cam_are_the_nearest_logits() -> None:
    logits = torch.tensor([[5.0, 1.0, 4.0, 7.0, 5.5]])
    contrast = contrast_of(FinerCam(gamma=0.5, references=2), logits, [[0, 3]])
    torch.testing.assert_close(contrast, torch.tensor([[[1, 0, -0.25, 0, -0.25], [-0.25, 0, 0, 1, -0.25]]]))
    everything = contrast_of(FinerCam(gamma=0.5, references=9), logits, [[0]])
    torch.testing.assert_close(everything, torch.tensor([[[1.0, -0.125, -0.125, -0.125, -0.125]]]))
    assert contrast_of(FinerCam(), torch.ones(1, 1), [[0]]).tolist() == [[[1.0]]]


def test_denominators_of_zero() -> None:
    activations, gradients = torch.zeros(1, 2, 2, 2), torch.ones(1, 2, 2, 2)
    activations[0, 0] = torch.tensor([[1.0, -1.0], [1.0, -1.0 + 1e-7]])  # a sum that is 0 but for rounding
    activations[0, 1] = 1
    torch.testing.assert_close(XGradCam().formula(activations, gradients), torch.ones(1, 2, 2))
    assert not XGradCam().formula(torch.zeros(1, 2, 2, 2), gradients).any()
    for method in (GradCamPlusPlus(), GradCamPlusPlus(normalized=True)):
        # 2 + S g = 0
        assert not method.formula(torch.full((1, 2, 2, 2), -0.5), gradients).any()
        assert method.formula(activations, gradients * 1e-30).isfinite().all()
    rows = torch.tensor([[[2.0, -1.0]]])
    assert not GradCamPlusPlus().closed_form(OneLayer(torch.full((1, 2, 2, 2), -1.0)), rows).any()


class OneLayer:
    """Answers about one layer with these activations (N, C, h, w)."""

    def __init__(self, activations: torch.Tensor) -> None:
        self.kept = activations

    def activations(self, layer: str | None = None) -> torch.Tensor:
        return self.kept

    def pooled(self, layer: str | None = None) -> torch.Tensor:
        return self.kept.mean((2, 3))

    def once(self, key: object, compute: Callable[[], torch.Tensor]) -> torch.Tensor:
        return compute()


ACTIVATIONS, ROWS = numbers(3, 6, 4, 5).relu(), numbers(3, 2, 6, seed=1)
CLOSED = [GradCam(), GradCamPlusPlus(), GradCamPlusPlus(normalized=True), XGradCam(), LayerCam(), HiResCam()]
CLOSED.append(EigenGradCam())


@pytest.mark.parametrize("method", CLOSED, ids=lambda method: method.canonical)
def test_the_closed_form_is_the_formula_with_the_gradient_of_a_linear_head(method: GradientLayerMethod) -> None:
    closed = method.closed_form(OneLayer(ACTIVATIONS), ROWS)
    assert closed.shape == (3, 2, 4, 5)
    for t in range(2):
        gradients = (ROWS[:, t] / 20)[:, :, None, None].expand(-1, -1, 4, 5)
        torch.testing.assert_close(closed[:, t], method.formula(ACTIVATIONS, gradients), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("method", CLOSED, ids=lambda method: method.canonical)
def test_maps_do_not_depend_on_their_neighbors_and_scale_with_the_logit(method: GradientLayerMethod) -> None:
    gradients = numbers(3, 6, 4, 5, seed=2)
    maps = method.formula(ACTIVATIONS, gradients)
    torch.testing.assert_close(method.formula(ACTIVATIONS[1:2], gradients[1:2]), maps[1:2])
    # where A gets smaller as the logit's gradient grows, alpha is the same
    torch.testing.assert_close(method.formula(ACTIVATIONS / 8, gradients * 8), maps)
    assert method.signed == bool((maps < 0).any())
    if not isinstance(method, GradCamPlusPlus):
        torch.testing.assert_close(method.formula(ACTIVATIONS, gradients * 8), 8 * maps)


def linear_answers(targets: torch.Tensor | None = None) -> FakeAnswers:
    return FakeAnswers(Pooled(linear=True), numbers(4, 3, 16, 16), targets=targets, linear=True)


def test_equalities_on_a_linear_head() -> None:
    ask = linear_answers(torch.tensor([[0, 3]] * 4))
    gradcam, hirescam = GradCam().maps(ask), HiResCam().maps(ask)
    torch.testing.assert_close(hirescam.relu(), gradcam)
    torch.testing.assert_close(XGradCam().maps(ask), gradcam)
    torch.testing.assert_close(GradCamPlusPlus(normalized=True).maps(ask), LayerCam().maps(ask))
    torch.testing.assert_close(hirescam.sum((2, 3)), ask.scores() - ask.network.fc.bias[[0, 3]])
    assert hirescam.min() < 0 < gradcam.max()


@pytest.mark.parametrize(
    "method", [*CLOSED, AblationCam(), FinerCam(), EigenCam()], ids=lambda method: method.canonical
)
def test_maps_are_the_same_with_and_without_the_closed_form(method: GradientLayerMethod) -> None:
    ask = linear_answers(torch.tensor([[0, 3]] * 4))
    closed = method.maps(ask)
    assert closed.shape == (4, 2 if method.class_specific else 1, 4, 4)
    before = ask.activations()
    ask.linear = False
    torch.testing.assert_close(method.maps(ask), closed, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(ask.activations(), before, rtol=0, atol=0)
    assert method.shape({"last": (4, 4)}, 16) == (4, 4)


def test_finer_cam_without_weight_is_grad_cam() -> None:
    ask = linear_answers()
    torch.testing.assert_close(FinerCam(gamma=0.0).maps(ask), GradCam().maps(ask))


@pytest.mark.parametrize("how", ["max", "mean"])
def test_fused_layer_cam(how: str) -> None:
    layers = ("first", "last")
    ask = FakeAnswers(Pooled(linear=False), numbers(2, 3, 16, 16), layers)
    (method,) = LayerCam(fuse=how).for_layers(layers)
    assert method.canonical == f"layercam:fuse={how},layer=first+last"
    maps = [LayerCam(layer=layer).maps(ask)[:, 0] for layer in layers]
    scaled = [torch.tanh(2 * m / m.amax((1, 2), keepdim=True)).numpy() for m in maps]
    fused = method.maps(ask).numpy()
    for n in range(2):
        both = np.stack([scaled[0][n], reference.bilinear(scaled[1][n], 8, 8)])
        np.testing.assert_allclose(fused[n, 0], both.max(0) if how == "max" else both.mean(0), atol=1e-12)
    assert method.for_layers(("other", "last")) == (method,)
    assert method.shape({"first": (8, 8), "last": (4, 4)}, 16) == (8, 8)


def test_layers_of_layer_cam() -> None:
    alone = LayerCam().for_layers(("first", "last"))
    assert [method.canonical for method in alone] == ["layercam:layer=first", "layercam:layer=last"]
    assert alone[0].shape({"first": (8, 8), "last": (4, 4)}, 16) == (8, 8)
    ask = FakeAnswers(Pooled(linear=False), torch.zeros(1, 3, 16, 16).double(), ("first", "last"))
    one = LayerCam(fuse="max", layer="last")
    torch.testing.assert_close(one.maps(ask), LayerCam(fuse="max").maps(FakeAnswers(ask.network, ask.pixels())))
    with pytest.raises(OptionError, match="--fuse sum: choose from max, mean"):
        LayerCam(fuse="sum")


def test_a_damaged_activation_shows_in_the_map() -> None:
    activations = ACTIVATIONS.clone()
    activations[1, 2, 0, 0] = float("nan")
    for method in CLOSED:
        maps = method.closed_form(OneLayer(activations), ROWS)
        assert maps[1].isnan().any(), method.canonical
        assert maps[[0, 2]].isfinite().all(), method.canonical


@pytest.mark.parametrize("linear", [True, False])
def test_the_engine_answers_all_methods_in_one_pass(linear: bool) -> None:
    network = Pooled(linear).float()
    names = ("gradcam", "gradcampp", "gradcampp:normalized", "xgradcam", "layercam", "hirescam")
    names += ("eigencam", "eigengradcam", "ablationcam", "finercam")
    explainer = own_explainer(network, 16, 7, names, Target("predicted", 2), layer="last")
    frames = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
    explanation = explainer.explain(frames)
    ask = FakeAnswers(network, normalized(frames, explainer.source), targets=torch.tensor(explanation.targets).long())
    assert [method.canonical for method in explainer.methods] == list(explanation.maps)
    for method in explainer.methods:
        expected = method.maps(ask).numpy()
        assert expected.max() > 0
        np.testing.assert_allclose(explanation.maps[method.canonical], expected, atol=1e-4 * abs(expected).max())


def test_the_engine_fuses_layers() -> None:
    network = Pooled(linear=False).float()
    frames = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
    source, layers = own_source(network, 16, 7), ("first", "last")
    methods = find_methods(["layercam:fuse=max", "ablationcam", "finercam"], layers)
    explainer = Explainer(source, choose_layers(network, 16, layers), methods, Target("fixed", index=2), 2, FP32)
    explanation = explainer.explain(frames)
    ask = FakeAnswers(network, normalized(frames, source), layers, torch.full((2, 1), 2))
    assert [method.canonical for method in methods][:2] == [
        "layercam:fuse=max,layer=first+last",
        "ablationcam:layer=first",
    ]
    for method in methods:
        expected = method.maps(ask).numpy()
        assert expected.shape[2:] == method.shape({"first": (8, 8), "last": (4, 4)}, 16)
        np.testing.assert_allclose(explanation.maps[method.canonical], expected, atol=1e-4 * expected.max())
