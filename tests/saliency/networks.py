"""Networks and frames for tests of saliency: library networks with random weights, tiny ones, photographs."""

from functools import cache

import numpy as np
import skimage.data
import torch
from torch import Tensor, nn

from saliency_pipeline.models.preprocessing import Preprocessing
from saliency_pipeline.models.source.source import SourceModel, load_source
from saliency_pipeline.models.source.weights import state_sha256
from saliency_pipeline.saliency.engine.backends import Placement
from saliency_pipeline.saliency.engine.layers import Layer, choose_layer
from saliency_pipeline.saliency.engine.split import SplitNetwork, split_network
from saliency_pipeline.saliency.explainer import Explainer
from saliency_pipeline.saliency.methods.registry import find_methods
from saliency_pipeline.saliency.targets import Target

BATCH = 2
FP32 = Placement("torch", "fp32")
PREDICTED = Target("predicted")


def load_sized(name: str, size: int = 64, weights: str = "none") -> SourceModel:
    """A library's network; convolutional ones take frames smaller than they were made for."""
    return load_source(name, weights).with_size(size)


library_source = cache(load_sized)


@cache
def library_layer(name: str, size: int = 64, weights: str = "none") -> Layer:
    return choose_layer(library_source(name, size, weights).module, size)


@cache
def library_split(name: str, size: int = 64, weights: str = "none") -> SplitNetwork:
    source = library_source(name, size, weights)
    return split_network(source.module, [library_layer(name, size, weights)], size, BATCH)


def library_explainer(
    name: str,
    methods: tuple[str, ...],
    placement: Placement = FP32,
    size: int = 64,
    target: Target = PREDICTED,
    weights: str = "none",
) -> Explainer:
    """An explainer that shares its split network with the other tests of the same network."""
    source, split = library_source(name, size, weights), library_split(name, size, weights)
    return Explainer(source, [split.layers[0]], find_methods(methods), target, BATCH, placement, split)


def own_source(module: nn.Module, size: int, classes: int) -> SourceModel:
    """A source model around a module, which stays in whatever mode it is."""
    names = tuple(f"class {i}" for i in range(classes))
    preprocessing = Preprocessing(size, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "bilinear")
    return SourceModel("tiny", lambda: module, preprocessing, names, (), "none", state_sha256(module))


def own_explainer(
    module: nn.Module,
    size: int,
    classes: int,
    methods: tuple[str, ...] = ("gradcam", "gradient"),
    target: Target = PREDICTED,
    batch: int = BATCH,
    placement: Placement = FP32,
    layer: str | None = None,
) -> Explainer:
    source = own_source(module, size, classes)
    return Explainer(source, [choose_layer(module, size, layer)], find_methods(methods), target, batch, placement)


class Tiny(nn.Module):
    """A convolution, BatchNorm with statistics of its own, ReLU, pooling and one linear layer."""

    def __init__(self, classes: int = 7, channels: int = 6) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.conv = nn.Conv2d(3, channels, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(channels)
        self.act = nn.ReLU()
        self.fc = nn.Linear(channels, classes)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.5
        self.norm.running_mean = torch.randn(channels, generator=generator) * 0.1
        self.norm.running_var = torch.rand(channels, generator=generator) + 0.5
        self.eval().requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.act(self.norm(self.conv(x))).mean((2, 3)))


def noise(count: int, size: int = 64, seed: int = 0) -> np.ndarray:
    """Frames (count, size, size, 3) uint8 of noise that has large patches as well as small."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 200, (count, 4, 4, 3)).repeat(size // 4, 1).repeat(size // 4, 2)
    return (coarse + rng.integers(0, 56, coarse.shape)).astype(np.uint8)


@cache
def photos(size: int = 224) -> np.ndarray:
    """Photographs that scikit-image ships, (4, size, size, 3) uint8."""
    frames = []
    for photo in (skimage.data.astronaut, skimage.data.chelsea, skimage.data.coffee, skimage.data.rocket):
        image = torch.from_numpy(photo().copy()).permute(2, 0, 1)[None].float()
        side = min(image.shape[2:])
        top, left = ((n - side) // 2 for n in image.shape[2:])
        square = image[:, :, top : top + side, left : left + side]
        resized = nn.functional.interpolate(square, (size, size), mode="bilinear", antialias=True)
        frames.append(resized[0].permute(1, 2, 0).round().clamp(0, 255).byte().numpy())
    return np.stack(frames)


def normalized(frames: np.ndarray, source: SourceModel) -> Tensor:
    """Frames (N, S, S, 3) uint8 as the network's input (N, 3, S, S), in the obvious way."""
    mean, std = (torch.tensor(v)[:, None, None] for v in (source.preprocessing.mean, source.preprocessing.std))
    return (torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255 - mean) / std


def captum_grad_cam(source: SourceModel, layer: str, frames: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """captum's Grad-CAM (N, h, w) of the untouched network."""
    from captum.attr import LayerGradCam

    cam = LayerGradCam(source.module, source.module.get_submodule(layer))
    chosen = torch.as_tensor(targets).long()
    return cam.attribute(normalized(frames, source), chosen, relu_attributions=True)[:, 0].detach().numpy()


def captum_gradient(source: SourceModel, frames: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """captum's signed pixel gradient (N, 3, S, S) of the untouched network."""
    from captum.attr import Saliency

    chosen = torch.as_tensor(targets).long()
    pixels = normalized(frames, source).requires_grad_()
    return Saliency(source.module).attribute(pixels, chosen, abs=False).detach().numpy()


def captum_integrated_gradients(network: nn.Module, pixels: Tensor, targets: np.ndarray) -> np.ndarray:
    """captum's integrated gradients (N, S, S) with 8 nodes from the mean color, summed over the colors."""
    from captum.attr import IntegratedGradients

    chosen = torch.as_tensor(targets).long()
    maps = IntegratedGradients(network).attribute(
        pixels, torch.zeros_like(pixels), chosen, n_steps=8, method="gausslegendre", internal_batch_size=4
    )
    return maps.sum(1).detach().numpy()


def relative_error(got: np.ndarray, want: np.ndarray) -> float:
    """Largest difference of any map, relative to the largest value of that map."""
    peaks = np.abs(want).reshape(len(want), -1).max(1)
    return float((np.abs(got - want).reshape(len(want), -1).max(1) / np.maximum(peaks, 1e-30)).max())
