"""Choice of the explained layer: the last one on a grid with a gradient, in every kind of network; overrides."""

import numpy as np
import pytest
import torch
from torch import nn

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.models.probe import probe_frames
from saliency_pipeline.saliency.engine.layers import Layer, choose_layer, grid_of
from saliency_pipeline.saliency.engine.split import WithActivations
from saliency_pipeline.saliency.fidelity import reference_maps
from tests.saliency.networks import (
    captum_grad_cam,
    library_explainer,
    library_layer,
    library_source,
    noise,
    own_explainer,
    relative_error,
)
from tests.saliency.transformers import SIZE, explainer_of

CHOSEN = [
    ("resnet18", 64, "layer4", "nchw", 2, 0),
    ("tf_efficientnet_lite0", 64, "bn2", "nchw", 2, 0),
    pytest.param("efficientnet_b0", 64, "bn2", "nchw", 2, 0, marks=pytest.mark.slow),
    pytest.param("mobilenetv2_050", 64, "bn2", "nchw", 2, 0, marks=pytest.mark.slow),
    ("mobilenetv3_small_050", 64, "blocks", "nchw", 2, 0),
    pytest.param("densenet121", 64, "features", "nchw", 2, 0, marks=pytest.mark.slow),
    pytest.param("vgg11", 64, "features", "nchw", 2, 0, marks=pytest.mark.slow),
    ("convnext_atto", 64, "stages", "nchw", 2, 0),
    pytest.param("edgenext_xx_small", 64, "stages", "nchw", 2, 0, marks=pytest.mark.slow),
    pytest.param("regnetx_002", 64, "s4", "nchw", 2, 0, marks=pytest.mark.slow),
    pytest.param("inception_v3", 128, "Mixed_7c", "nchw", 2, 0, marks=pytest.mark.slow),
    ("test_vit", 160, "blocks.4", "tokens", 10, 1),
    pytest.param("deit_tiny_distilled_patch16_224", 224, "blocks.10", "tokens", 14, 2, marks=pytest.mark.slow),
    pytest.param("swin_tiny_patch4_window7_224", 224, "norm", "nhwc", 7, 0, marks=pytest.mark.slow),
    pytest.param("cait_xxs24_224", 224, "blocks", "tokens", 14, 0, marks=pytest.mark.slow),
    ("torchvision/resnet18", 64, "layer4", "nchw", 2, 0),
    pytest.param("torchvision/mobilenet_v2", 64, "features", "nchw", 2, 0, marks=pytest.mark.slow),
    pytest.param("torchvision/mobilenet_v3_small", 64, "features", "nchw", 2, 0, marks=pytest.mark.slow),
    pytest.param("torchvision/regnet_y_400mf", 64, "trunk_output", "nchw", 2, 0, marks=pytest.mark.slow),
    pytest.param("torchvision/vgg11_bn", 64, "features", "nchw", 2, 0, marks=pytest.mark.slow),
    pytest.param("torchvision/swin_t", 64, "permute", "nchw", 2, 0, marks=pytest.mark.slow),
    pytest.param(
        "torchvision/vit_b_32", 224, "encoder.layers.encoder_layer_10", "tokens", 7, 1, marks=pytest.mark.slow
    ),
]


@pytest.mark.parametrize(("name", "size", "expected", "layout", "side", "prefix"), CHOSEN)
def test_the_chosen_layer_carries_the_whole_signal(
    name: str, size: int, expected: str, layout: str, side: int, prefix: int
) -> None:
    source = library_source(name, size)
    layer = library_layer(name, size)
    assert (layer.name, layer.layout, layer.grid, layer.prefix, layer.clean) == (
        expected,
        layout,
        (side,) * 2,
        prefix,
        True,
    )
    if name.startswith("torchvision/vit"):  # its classifier is all zeros until it is trained
        return
    output, logits = WithActivations(source.module, [layer.name])(probe_frames(size, 1).requires_grad_())
    (gradient,) = torch.autograd.grad(logits[0, 3], output)
    assert layer.to_grid(output).shape == (1, layer.channels, side, side)
    assert layer.to_grid(gradient).abs().amax() > 0


@pytest.mark.parametrize(
    ("shape", "prefix", "wanted"),
    [
        ((2, 8, 7, 7), None, ("nchw", 8, (7, 7), 0)),
        ((2, 7, 7, 8), None, ("nhwc", 8, (7, 7), 0)),
        ((2, 197, 8), None, ("tokens", 8, (14, 14), 1)),
        ((2, 198, 8), 2, ("tokens", 8, (14, 14), 2)),
        ((2, 196, 8), 1, ("tokens", 8, (14, 14), 0)),
        ((2, 201, 8), 5, ("tokens", 8, (14, 14), 5)),
        ((2, 8, 1, 1), None, None),
        ((2, 8, 7, 5), None, None),
        ((2, 8), None, None),
        ((3, 8, 7, 7), None, None),
        ((2, 40, 8), None, ("tokens", 8, (6, 6), 4)),
        ((2, 48, 8), None, None),
    ],
)
def test_grids_are_square(shape: tuple[int, ...], prefix: int | None, wanted: object) -> None:
    assert grid_of(torch.zeros(shape), 2, prefix) == wanted


@pytest.mark.parametrize(
    ("shape", "wanted"),
    [
        ((2, 8, 3, 6), ("nchw", 8, (3, 6), 0)),
        ((2, 3, 6, 8), ("nhwc", 8, (3, 6), 0)),
        ((2, 19, 8), ("tokens", 8, (3, 6), 1)),
        ((2, 18, 8), ("tokens", 8, (3, 6), 0)),
        ((2, 8, 7, 7), ("nchw", 8, (7, 7), 0)),
        ((2, 8, 6, 3), None),
    ],
)
def test_patches_that_are_not_square_have_other_grids(shape: tuple[int, ...], wanted: object) -> None:
    assert grid_of(torch.zeros(shape), 2, oblong=((3, 6),)) == wanted


def test_a_transformer_with_patches_that_are_not_square_is_explained_by_other_methods() -> None:
    maps = explainer_of("oblong", "gradcam").explain(noise(2, SIZE)).maps["gradcam"]
    assert maps.shape == (2, 1, 3, 6)
    assert np.ptp(maps) > 0


@pytest.mark.parametrize("output", [None, [torch.zeros(2, 3, 4, 4)], torch.zeros(2, 3, 4, 4, dtype=torch.int64)])
def test_what_is_no_float_tensor_has_no_grid(output: object) -> None:
    assert grid_of(output, 2) is None


def test_tokens_lie_on_the_grid_row_by_row_without_the_class_token() -> None:
    tokens = torch.arange(10.0).view(1, 10, 1)
    grid = Layer("x", "tokens", 1, (3, 3), 1, clean=True).to_grid(tokens)
    assert grid[0, 0].tolist() == [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
    rows = torch.arange(9.0).view(1, 3, 3, 1)
    assert Layer("x", "nhwc", 1, (3, 3), 0, clean=True).to_grid(rows)[0, 0, 1].tolist() == [3, 4, 5]


@pytest.mark.parametrize("name", ["layer3", "layer4.1", "layer3.0.act1"])
def test_another_layer_can_be_named(name: str) -> None:
    source = library_source("resnet18")
    layer = choose_layer(source.module, 64, name)
    assert (layer.name, layer.layout, layer.clean) == (name, "nchw", not name.endswith("act1"))
    assert layer.grid == ((2, 2) if name == "layer4.1" else (4, 4))


def test_a_layer_inside_a_residual_block_is_explained_uncut() -> None:
    source, frames = library_source("resnet18"), noise(3)
    layer = choose_layer(source.module, 64, "layer4.1.conv1")
    assert not layer.clean
    explainer = own_explainer(source.module, 64, 1000, ("gradcam",), layer="layer4.1.conv1")
    assert explainer.split.trunk is None
    explanation = explainer.explain(frames)
    wanted = captum_grad_cam(explainer.source, layer.name, frames, explanation.targets[:, 0])
    assert relative_error(explanation.maps["gradcam"][:, 0], wanted) <= 1e-4


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("layer9", ["--layer layer9", "is no layer", "candidates", "layer4"]),
        ("fc", ["--layer fc", "no output on a grid", "candidates", "layer4"]),
        ("layer4.1.conv", ["is no layer", "layer4.1.conv1"]),
        ("", ["no output on a grid", "candidates"]),
    ],
)
def test_an_unknown_layer_is_answered_with_candidates(name: str, words: list[str]) -> None:
    with pytest.raises(SalpipeError) as caught:
        choose_layer(library_source("resnet18").module, 64, name)
    assert "\n" not in str(caught.value)
    assert all(word in str(caught.value) for word in words)


def test_a_network_without_a_grid_is_refused() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 5)).eval()
    with pytest.raises(SalpipeError, match="no layer whose output lies on a grid"):
        choose_layer(network, 8)


def test_vision_transformers_are_explained_like_by_autograd_on_the_untouched_network() -> None:
    explainer = library_explainer("test_vit", ("gradcam", "gradient"), size=160)
    frames = noise(3, 160)
    scores, wanted = reference_maps(explainer.source, [explainer.layers[0]], explainer.methods, frames)
    explanation = explainer.explain(frames)
    np.testing.assert_array_equal(explanation.targets[:, 0], scores.argmax(1))
    assert explanation.maps["gradcam"].shape == (3, 1, 10, 10)
    for method, maps in zip(explainer.methods, wanted, strict=True):
        assert relative_error(explanation.maps[method.name][:, 0], maps) <= 1e-4
        assert maps.max() > 0
