"""Attributions of captum that need no arguments of their own, as methods named `captum:NAME`."""

from __future__ import annotations

import copy
import inspect
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from saliency_pipeline.errors import OptionError, SalpipeError
from saliency_pipeline.saliency.engine.need import Need
from saliency_pipeline.saliency.methods.method import Method
from saliency_pipeline.settings import setting

if TYPE_CHECKING:
    from saliency_pipeline.saliency.engine.answers import Answers

GRADIENTS = {"IntegratedGradients": 50, "DeepLift": 2, "LRP": 2}
"""Number of gradients that an attribution takes, if it is not 1."""


@dataclass(frozen=True)
class Captum(Method):
    """The sum over the colors of an attribution of captum for the normalized frame, (N, T, S, S), signed.

    captum's defaults apply: the baseline is 0, the mean color, and Saliency takes absolute values. captum changes the
    ReLU modules of a network; it does not see ReLU as a function, nor other activations, and GuidedBackprop and
    Deconvolution are then the plain gradient without a warning. Kokhlikyan et al., arXiv 2009.07896.

    Raises:
        OptionError: for an attribution that captum does not have or that needs arguments of its own.
        SalpipeError: from `maps`, where captum does not work with the network.
    """

    name = "captum"
    needs = Need.MODULE
    convention = "sum over the colors of captum.attr's attribution of the normalized frame, with its defaults"
    paper = "arXiv:2009.07896"
    signed = True

    attribution: str = setting("", "Name of a class in captum.attr.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.attribution not in captum_names():
            raise OptionError(f"--method {self.canonical}: unknown; choose from {', '.join(captum_names())}")

    @property
    def cost(self) -> float:
        return 4.0 * GRADIENTS.get(self.attribution, 1)

    @property
    def canonical(self) -> str:
        return f"{self.name}:{self.attribution}"

    def maps(self, ask: Answers) -> Tensor:
        import captum.attr

        network, pixels, targets = _copied(ask.module()), ask.pixels(), ask.targets()
        options: dict[str, Any] = {}
        kind = getattr(captum.attr, self.attribution)
        if "internal_batch_size" in inspect.signature(kind.attribute).parameters:
            # otherwise its memory grows with the number of steps
            options["internal_batch_size"] = len(pixels)
        try:
            with torch.inference_mode(False), torch.enable_grad(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                attribution = kind(network)
                maps = [
                    attribution.attribute(pixels.clone(), target=targets[:, t].clone(), **options).detach().sum(1)
                    for t in range(targets.shape[1])
                ]
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # captum raises whatever the network makes of its hooks
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise SalpipeError(f"{self.canonical}: {reason:.300}; choose another method or network") from error
        return torch.stack(maps, 1)


@cache
def captum_names() -> tuple[str, ...]:
    """Names of captum's attributions that take a network and a target and nothing else.

    Those that perturb the input are left out: without groups of pixels, which they would need as an argument, they
    perturb each color of each pixel on its own. So are attributions of layers and neurons, and those that need
    baselines.
    """
    import captum.attr

    base = captum.attr.GradientAttribution
    kinds: dict[str, Any] = {
        name: kind
        for name, kind in sorted(vars(captum.attr).items())
        if inspect.isclass(kind) and issubclass(kind, base) and kind is not base
    }
    return tuple(
        name
        for name, kind in kinds.items()
        if _required(kind) in ({"model"}, {"forward_func"}) and _required(kind.attribute) == {"self", "inputs"}
    )


def _required(function: Callable[..., Any]) -> set[str]:
    """Names of the parameters without a default."""
    parameters = inspect.signature(function).parameters.values()
    return {p.name for p in parameters if p.default is p.empty and p.kind is not p.VAR_KEYWORD}


def _copied(module: nn.Module) -> nn.Module:
    """A copy for captum to put hooks on, as other threads use the network, and without in-place activations."""
    network = copy.deepcopy(module)
    for part in network.modules():
        if "inplace" in vars(part):
            vars(part)["inplace"] = False
    return network
