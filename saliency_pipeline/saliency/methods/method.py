"""`Method`: what every saliency method is: what it asks the engine for, its formula, parameters, cost and paper."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from saliency_pipeline.saliency.engine.need import Need
from saliency_pipeline.settings import check_settings, setting, settings_of, types_of

if TYPE_CHECKING:
    from saliency_pipeline.saliency.engine.answers import Answers
    from saliency_pipeline.saliency.engine.pull_back import Table

Grids = Mapping[str, tuple[int, int]]
"""Height and width in cells of each explained layer, by name, in the order in which the layers run."""


@dataclass(frozen=True)
class Setup:
    """What the cost of a method may depend on, besides its parameters; the defaults are those of EfficientNet-Lite0.

    Attributes:
        size: side of the frame in pixels.
        targets: number of explained classes.
        channels: number of channels of the explained layer.
    """

    size: int = 224
    targets: int = 1
    channels: int = 1280


@dataclass(frozen=True)
class Method(ABC):
    """A saliency method with its parameters. Subclasses are frozen dataclasses; each parameter is a `setting`.

    Attributes:
        name: name on the command line.
        needs: what the method asks for; decides how the network is run, and on which networks the method works.
        convention: the formula in words, stored with the maps.
        paper: where it comes from.
        equals: when it equals another method, or an empty string.
        signed: whether values below 0 speak against the class.
        class_specific: whether maps explain a class; others store one map per image, whatever the targets.
        complete: whether the values of a map should sum to a known number; the difference is stored as residual.
        sampled: whether a map is a mean over random masks, whose standard error is stored with it.
        near_ties: whether it chooses among near equals (classes, components), so that rounding alone may change some of
            its maps much.
        needs_background: whether it compares each frame with other images of the data set.
    """

    name: ClassVar[str]
    needs: ClassVar[Need]
    convention: ClassVar[str]
    paper: ClassVar[str]
    equals: ClassVar[str] = ""
    signed: ClassVar[bool] = False
    class_specific: ClassVar[bool] = True
    complete: ClassVar[bool] = False
    sampled: ClassVar[bool] = False
    needs_background: ClassVar[bool] = False
    near_ties: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_settings(self)
        for name, (option, _) in settings_of(self).items():
            # noise=1 and noise=1.0 are one method
            if types_of(option)[0] == "float" and isinstance(getattr(self, name), int):
                object.__setattr__(self, name, float(getattr(self, name)))

    @abstractmethod
    def maps(self, ask: Answers) -> Tensor:
        """Maps (N, T, h, w) of a batch, (N, 1, h, w) of a method that explains no class."""

    def residuals(self, ask: Answers, maps: Tensor) -> Tensor | None:
        """Sum of each map minus the number that it should be, (N, T); None unless the method is `complete`."""
        return None

    def standard_errors(self, ask: Answers, maps: Tensor) -> Tensor | None:
        """Monte Carlo standard error of each map relative to its range, (N, T); None unless the method is `sampled`.

        The root mean square over the pixels of the standard error of each pixel's value, divided by the difference of
        the map's maximum and minimum.
        """
        return None

    def shape(self, grids: Grids, size: int) -> tuple[int, int]:
        """Height and width of its maps, for frames of `size` pixels per side."""
        return size, size

    @property
    def cost(self) -> float:
        """Cost in forward passes of the network, beyond the one that all methods share; a gradient counts as 3."""
        return 0.0

    def passes(self, setup: Setup) -> float:
        """The cost for frames, classes and a layer that are not those of EfficientNet-Lite0 with one class."""
        return self.cost

    @property
    def level(self) -> str:
        """What it reads: `image`, `layer`, `attention`, `pixels` or `network`."""
        if self.needs & (Need.PIXELS | Need.POINTS):
            return "pixels"
        if self.needs & (Need.BIASES | Need.MODULE | Need.FORWARD | Need.BACKWARD):
            return "network"
        if self.needs & (Need.ATTENTION | Need.ATTENTION_GRADIENTS | Need.BLOCKS):
            return "attention"
        return "layer" if self.needs & (Need.ACTIVATIONS | Need.GRADIENTS | Need.HEAD) else "image"

    @property
    def table(self) -> Table | None:
        """The rules by which a method that needs BACKWARD pulls back signals; its network needs one per operator."""
        return None

    @property
    def parameters(self) -> dict[str, object]:
        """Values of its parameters by name, sorted; of those that are left open (None) none."""
        values = ((name, getattr(self, name)) for name in sorted(settings_of(self)))
        return {name: value for name, value in values if value is not None}

    # read for every batch
    @cached_property
    def canonical(self) -> str:
        """Its name with all parameters, as maps are called in shards: `smoothgrad:noise=0.15,samples=25,…`."""
        items = ",".join(f"{name}={_text(value)}" for name, value in self.parameters.items())
        return f"{self.name}:{items}" if items else self.name

    def for_layers(self, layers: tuple[str, ...]) -> tuple[Method, ...]:
        """The method, once per layer of several that were requested if it explains layers."""
        return (self,)

    def explained(self, layers: tuple[str, ...] = ()) -> tuple[str, ...]:
        """Names of the layers that it explains: its own, or else `layers`."""
        return ()

    def describe(self) -> dict[str, object]:
        """Description of the method in every shard."""
        description: dict[str, object] = {"level": self.level, "convention": self.convention, "paper": self.paper}
        if parameters := self.parameters:
            description |= {"method": self.name, "parameters": parameters}
        properties = {"signed": self.signed, "class_agnostic": not self.class_specific, "complete": self.complete}
        properties["sampled"] = self.sampled
        return description | {name: True for name, holds in properties.items() if holds}


@dataclass(frozen=True)
class LayerMethod(Method):
    """A method that explains a layer on a grid."""

    layer: str | None = setting(None, "Layer that is explained.", metavar="NAME", default_text="--layer")

    def shape(self, grids: Grids, size: int) -> tuple[int, int]:
        return grids[self.layer] if self.layer else next(iter(grids.values()))

    def explained(self, layers: tuple[str, ...] = ()) -> tuple[str, ...]:
        return layers if self.layer is None else (self.layer,)

    def for_layers(self, layers: tuple[str, ...]) -> tuple[Method, ...]:
        if self.layer is not None or len(layers) < 2:
            return (self,)
        return tuple(dataclasses.replace(self, layer=layer) for layer in layers)


@dataclass(frozen=True)
class GradientLayerMethod(LayerMethod):
    """A method that explains a layer from its activations A and gradients dy/dA.

    A subclass has `formula`; where the head is average pooling and one linear layer, the gradient at each cell is
    known without a backward pass, and `closed_form`, if a subclass has one, is used instead unless a backward pass to
    the pixels runs anyway.
    """

    needs = Need.ACTIVATIONS | Need.GRADIENTS

    @abstractmethod
    def formula(self, activations: Tensor, gradients: Tensor) -> Tensor:
        """Maps (N, h, w) from a layer's activations and the gradients of one score, both (N, C, h, w)."""

    def closed_form(self, ask: Answers, rows: Tensor) -> Tensor | None:
        """Maps (N, T, h, w) from the linear layer's rows (N, T, C) of the explained classes; None: use `formula`."""
        return None

    def maps(self, ask: Answers) -> Tensor:
        rows = None if ask.recorded else ask.rows(self.layer)
        if rows is not None and (maps := self.closed_form(ask, rows)) is not None:
            return maps
        activations = ask.activations(self.layer)
        return torch.stack([self.formula(activations, g) for g in ask.gradients(self.layer)], 1)


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
