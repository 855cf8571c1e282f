"""The networks that are trained: the plain transfer baseline and those that saliency modulates.

All are called as `network(images, maps)`, with images (N, 3, S, S) float32, normalized, and maps (N, 1, S, S) float32,
or None if the network needs no maps. The backbone is always the module `backbone`, so that tensors have equal names.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.models.probe import evaluating, own_random_state, probe_frames, probe_size
from saliency_pipeline.models.source.build import untrained_with
from saliency_pipeline.models.source.registry import find_source
from saliency_pipeline.models.trained.choices import ARCHS, FUSIONS, MAP_ARCHS
from saliency_pipeline.models.trained.fusion import make_fusion
from saliency_pipeline.models.trained.pooled import Pooled, find_pooled_layer, required_maps
from saliency_pipeline.models.trained.stem import (
    STEM,
    Junction,
    copy_geometry,
    find_junction,
    find_stem,
    set_input_channels,
)
from saliency_pipeline.text import one_line


@dataclass(frozen=True)
class NetworkSpec:
    """Specification of a network: everything that decides the names, shapes and use of its tensors.

    Attributes:
        backbone: name of the network that is fine-tuned, as `load_source` takes it.
        classes: names of the classes, in the order of the logits.
        size: side of the frames in pixels.
        arch: `baseline` (the backbone alone), `modulated` (a saliency branch reads the map), `learned` (the branch
            reads the RGB image, so no map is needed) or `pooled` (the map weights the last features).
        fusion: a name of `FUSIONS`.
        fuse_at: `stem`, or the module of the backbone after which branches are fused.
        alpha: weight of the skip connection of `multiply-skip`.
        learn_alpha: whether it is trained.
    """

    backbone: str
    classes: tuple[str, ...]
    size: int
    arch: str = "baseline"
    fusion: str = "multiply-skip"
    fuse_at: str = STEM
    alpha: float = 1.0
    learn_alpha: bool = False

    def __post_init__(self) -> None:
        for flag, value, choices in (("arch", self.arch, ARCHS), ("fusion", self.fusion, FUSIONS)):
            if value not in choices:
                raise SalpipeError(f"--{flag} {value}: unknown; choose from {', '.join(choices)}")
        if self.fusion == "input" and (self.arch != "modulated" or self.fuse_at != STEM):
            raise SalpipeError(
                "--fusion input adds the map as a fourth channel; use it with --arch modulated and no --fuse-at"
            )

    @property
    def needs_maps(self) -> bool:
        """True if the network needs maps."""
        return self.arch in MAP_ARCHS


class Baseline(nn.Module):
    """The backbone alone: plain transfer."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, images: Tensor, maps: Tensor | None = None) -> Tensor:
        """Logits (N, classes); maps are ignored."""
        logits: Tensor = self.backbone(images)
        return logits


class FourChannels(nn.Module):
    """The map as a fourth channel of the image."""

    def __init__(self, backbone: nn.Module, first: str) -> None:
        super().__init__()
        self.backbone = backbone
        conv = backbone.get_submodule(first)
        assert isinstance(conv, nn.Conv2d)
        set_input_channels(conv, 4)

    def forward(self, images: Tensor, maps: Tensor | None = None) -> Tensor:
        """Logits (N, classes)."""
        logits: Tensor = self.backbone(torch.cat([images, required_maps(maps)], 1))
        return logits


class SaliencyBranch(nn.Module):
    """The stem's geometry over the map, and a sigmoid: saliency of every feature, in [0, 1].

    If branches are fused after a later stage, the stem's features are average-pooled to that stage's grid and projected
    to its channels by a 1x1 convolution.

    Args:
        stem: (N, channels in, S, S) to (N, C, h, w).
        channels: C.
        project: the number of features of a later stage; None at the stem.
    """

    def __init__(self, stem: nn.Sequential, channels: int, project: int | None = None) -> None:
        super().__init__()
        self.stem = stem
        self.project = None if project is None else nn.Conv2d(channels, project, 1)

    def forward(self, maps: Tensor, grid: tuple[int, int]) -> Tensor:
        """Maps (N, channels in, S, S) to saliency (N, C, *grid) in [0, 1]."""
        features: Tensor = self.stem(maps)
        if self.project is not None:
            features = self.project(functional.adaptive_avg_pool2d(features, grid))
        return torch.sigmoid(features)


class TwoBranch(nn.Module):
    """RGB branch and saliency branch, fused after one module of the backbone.

    Args:
        backbone: the RGB branch, up to its head.
        junction: the module after which the branches are fused.
        branch: computes the saliency there.
        fusion: combines both.
        learned: whether the branch reads the image instead of a map (after arXiv 2007.12562, where the saliency is
            hallucinated from RGB; here with the stem's geometry instead of an AlexNet's).
    """

    def __init__(
        self, backbone: nn.Module, junction: str, branch: SaliencyBranch, fusion: nn.Module, *, learned: bool = False
    ) -> None:
        super().__init__()
        self.backbone, self.branch, self.fusion, self.learned = backbone, branch, fusion, learned
        self._read: Tensor | None = None
        # a hook, so that branches can be fused anywhere and tensors keep their names
        backbone.get_submodule(junction).register_forward_hook(self._fuse)

    def forward(self, images: Tensor, maps: Tensor | None = None) -> Tensor:
        """Logits (N, classes)."""
        self._read = images if self.learned else required_maps(maps)
        try:
            logits: Tensor = self.backbone(images)
            return logits
        finally:
            self._read = None

    def _fuse(self, _module: nn.Module, _inputs: object, features: Tensor) -> Tensor:
        if self._read is None:
            return features  # the backbone is called alone
        saliency = self.branch(self._read, (features.shape[2], features.shape[3]))
        fused: Tensor = self.fusion(features, saliency)
        return fused


def build_network(spec: NetworkSpec) -> nn.Module:
    """Build the network of a specification: float32, on the CPU, in training mode; `initialize` sets its weights.

    Raises:
        SalpipeError: an unknown backbone or fusion, or a backbone whose stem, stage or pooling is not recognized.
    """
    library, bare = find_source(spec.backbone)
    with own_random_state():
        backbone = untrained_with(library, bare, len(spec.classes)).float()
        network = _joined(spec, backbone)
        _try(network, spec)
    return network.train()


def _try(network: nn.Module, spec: NetworkSpec) -> None:
    """Run one frame through a network.

    Raises:
        SalpipeError: it does not accept frames of that size, or does not return one score per class.
    """
    size = probe_size(spec.size)
    try:
        with evaluating(network), torch.no_grad():
            logits = network(probe_frames(size, 1), torch.zeros(1, 1, size, size))
    except (RuntimeError, ValueError, TypeError, AssertionError) as error:
        raise SalpipeError(
            f"{spec.backbone}: does not accept frames of {spec.size}x{spec.size} ({one_line(error)}); use another "
            "backbone, or shards of another --size"
        ) from error
    if not isinstance(logits, Tensor) or logits.shape != (1, len(spec.classes)):
        raise SalpipeError(f"{spec.backbone}: does not return one score per class; use an image classifier")


def _joined(spec: NetworkSpec, backbone: nn.Module) -> nn.Module:
    if spec.arch == "baseline":
        return Baseline(backbone)
    if spec.arch == "pooled":
        layer = find_pooled_layer(backbone, spec.size)
        if layer is None:
            raise SalpipeError(
                f"--arch pooled: {spec.backbone} has no grid of features before global pooling at frames of "
                f"{spec.size}x{spec.size}; use a convolutional backbone such as resnet50, or larger frames"
            )
        return Pooled(backbone, layer.name)
    size = probe_size(spec.size)
    stem = find_stem(spec.backbone, backbone, size)
    if spec.fusion == "input":
        return FourChannels(backbone, stem.layers[0])
    at_stem = spec.fuse_at == STEM
    junction = (
        Junction(stem.end, stem.channels) if at_stem else find_junction(spec.backbone, backbone, size, spec.fuse_at)
    )
    learned = spec.arch == "learned"
    geometry = copy_geometry(backbone, stem, 3 if learned else 1)
    branch = SaliencyBranch(geometry, stem.channels, None if at_stem else junction.channels)
    fusion = make_fusion(spec.fusion, junction.channels, spec.alpha, spec.learn_alpha)
    return TwoBranch(backbone, junction.name, branch, fusion, learned=learned)
