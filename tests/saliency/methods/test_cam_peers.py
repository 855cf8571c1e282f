"""Class activation maps beside those of captum, torch-cam and pytorch-grad-cam, on a linear head and on another."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from saliency_pipeline.saliency.methods.cam import (
    AblationCam,
    FinerCam,
    GradCam,
    GradCamPlusPlus,
    HiResCam,
    LayerCam,
    XGradCam,
)
from saliency_pipeline.saliency.methods.eigen import EigenCam, EigenGradCam
from saliency_pipeline.saliency.methods.method import LayerMethod
from tests.saliency.fake import FakeAnswers, Pooled

CLASSES = [0, 3, 6]


@pytest.fixture(params=[True, False], ids=["linear", "not linear"])
def linear(request: pytest.FixtureRequest) -> bool:
    return request.param


@pytest.fixture
def ask(linear: bool) -> FakeAnswers:
    pixels = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    layers, targets = ("first", "last"), torch.tensor(CLASSES)[:, None]
    return FakeAnswers(Pooled(linear), pixels, layers, targets, linear)


@pytest.fixture(params=["first", "last"])
def layer(request: pytest.FixtureRequest) -> str:
    return request.param


def assert_near(got: Tensor, expected: Tensor | np.ndarray, tolerance: float) -> None:
    expected = torch.as_tensor(expected).detach().double()
    assert expected.abs().max() > 1e-4
    torch.testing.assert_close(got.double(), expected, rtol=0, atol=tolerance * float(expected.abs().max()))


def test_captum(ask: FakeAnswers, layer: str) -> None:
    from captum.attr import LayerGradCam

    cam = LayerGradCam(ask.network, ask.network.get_submodule(layer))
    expected = cam.attribute(ask.pixels().requires_grad_(), torch.tensor(CLASSES), relu_attributions=True)
    assert_near(GradCam(layer=layer).maps(ask), expected, 1e-9)


@pytest.mark.parametrize(
    ("name", "method", "tolerance"),
    [("GradCAM", GradCam, 1e-9), ("LayerCAM", LayerCam, 1e-9), ("XGradCAM", XGradCam, 1e-6)],
)
def test_torch_cam(ask: FakeAnswers, layer: str, name: str, method: type[LayerMethod], tolerance: float) -> None:
    from torchcam import methods

    with getattr(methods, name)(ask.network, layer) as extractor:
        (expected,) = extractor(CLASSES, ask.network(ask.pixels().requires_grad_()), normalized=False)
    assert_near(method(layer=layer).maps(ask)[:, 0], expected, tolerance)


def test_finer_cam_of_torch_cam(ask: FakeAnswers, layer: str) -> None:
    from torchcam.methods import FinerCAM as Reference

    with Reference(ask.network, layer, gamma=0.6, num_references=3) as extractor:
        (expected,) = extractor(CLASSES, ask.network(ask.pixels().requires_grad_()), normalized=False)
    assert_near(FinerCam(layer=layer).maps(ask)[:, 0], expected, 1e-9)


def test_fusion_of_torch_cam(ask: FakeAnswers) -> None:
    from torchcam.methods import LayerCAM as Reference

    maps = [LayerCam(layer=layer).maps(ask)[:, 0] for layer in ask.layers]
    expected = Reference.fuse_cams([m / m.amax((1, 2), keepdim=True) for m in maps])
    assert_near(LayerCam(fuse="max", layer="+".join(ask.layers)).maps(ask)[:, 0], expected, 1e-9)


@pytest.mark.parametrize("linear", [True], indirect=True)
def test_class_activation_map_of_torch_cam(ask: FakeAnswers) -> None:
    from torchcam.methods import CAM

    with CAM(ask.network, "last", "fc") as extractor:
        scores = ask.network(ask.pixels())
        (expected,) = extractor(CLASSES, scores, normalized=False)
    assert_near(HiResCam(layer="last").maps(ask)[:, 0] * 16, expected, 1e-9)


@pytest.mark.parametrize(
    ("name", "method"), [("HiResCAM", HiResCam), ("EigenCAM", EigenCam), ("EigenGradCAM", EigenGradCam)]
)
def test_pytorch_grad_cam(ask: FakeAnswers, layer: str, name: str, method: type[LayerMethod]) -> None:
    expected = raw_image(name, ask, layer)
    if name != "HiResCAM":
        # a singular vector has no sign
        turned = [-m if m.max() < -m.min() else m for m in expected]
        expected = np.maximum(turned, 0)
    assert_near(method(layer=layer).maps(ask)[:, 0], expected, 1e-6)


def raw_image(name: str, ask: FakeAnswers, layer: str, scale: float = 1.0) -> np.ndarray:
    """pytorch-grad-cam's map (N, h, w) before its ReLU, scaling and up-sampling, of A / scale and scale dy/dA."""
    import pytorch_grad_cam
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    target_layer = ask.network.get_submodule(layer)
    activations, (gradients,) = ask.activations(layer), ask.gradients(layer)
    targets = [ClassifierOutputTarget(index) for index in CLASSES]
    with getattr(pytorch_grad_cam, name)(ask.network, [target_layer]) as cam:
        a, g = activations.numpy() / scale, gradients.numpy() * scale
        return cam.get_cam_image(ask.pixels(), target_layer, targets, a, g, False)


def test_grad_cam_plus_plus_of_pytorch_grad_cam(ask: FakeAnswers, layer: str) -> None:
    # its epsilon of 1e-6 in the denominator, larger than g^2 in a last layer, is small beside gradients scaled up
    expected = np.maximum(raw_image("GradCAMPlusPlus", ask, layer, 1e6), 0)
    method = GradCamPlusPlus(layer=layer)
    activations, (gradients,) = ask.activations(layer), ask.gradients(layer)
    assert_near(method.formula(activations, gradients), expected, 1e-6)
    assert_near(method.maps(ask)[:, 0], expected, 1e-6)


def test_normalized_grad_cam_plus_plus_of_its_authors(ask: FakeAnswers, layer: str) -> None:
    maps = GradCamPlusPlus(layer=layer, normalized=True).maps(ask)[:, 0]
    for n, (a, g) in enumerate(zip(ask.activations(layer).numpy(), ask.gradients(layer)[0].numpy(), strict=True)):
        sums = a.sum((1, 2), keepdims=True)
        denominators = 2 * g**2 + g**3 * sums
        alphas = g**2 / np.where(denominators == 0, 1, denominators)
        totals = np.where(g > 0, alphas, 0).sum((1, 2), keepdims=True)
        alphas = alphas / np.where(totals == 0, 1, totals)
        weights = (np.maximum(g, 0) * alphas).sum((1, 2), keepdims=True)
        assert_near(maps[n], np.maximum((weights * a).sum(0), 0), 1e-6)


@pytest.fixture
def quiet(capsys: pytest.CaptureFixture[str]) -> Iterator[None]:
    yield
    capsys.readouterr()


@pytest.mark.usefixtures("quiet")
def test_ablation_cam_of_pytorch_grad_cam(ask: FakeAnswers, layer: str) -> None:
    # it sets channels to 0 only where the smallest activation is 0, and divides by the logit, not its size
    assert (ask.activations(layer).amin((1, 2, 3)) == 0).all()
    expected = raw_image("AblationCAM", ask, layer) * np.sign(ask.scores().numpy())[:, :, None]
    assert_near(AblationCam(layer=layer).maps(ask)[:, 0], np.maximum(expected, 0), 1e-5)
