"""Registry of saliency methods: inputs, convention and paper of each. A new method is one entry here."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.saliency.methods import cam, gradient


@dataclass(frozen=True)
class Method:
    """A saliency method.

    Attributes:
        name: its name on the command line and in shards.
        level: `layer`: explains with (activations, gradients), both (N, C, h, w), of the explained layer;
            `pixels`: with the gradients (N, 3, S, S) of the normalized frame.
        explain: the formula, giving maps (N, h, w) or (N, S, S).
        convention: the formula in words, stored with the maps.
        paper: where it comes from.
        closed_form: for `layer` methods, the same from (activations, weights (N, T, C)) under a linear head.
    """

    name: str
    level: Literal["layer", "pixels"]
    explain: Callable[..., Tensor]
    convention: str
    paper: str
    closed_form: Callable[[Tensor, Tensor], Tensor] | None = None

    def describe(self) -> dict[str, str]:
        """Description of the method in every shard."""
        return {"level": self.level, "convention": self.convention, "paper": self.paper}


METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method(
            "gradcam",
            "layer",
            cam.grad_cam,
            "ReLU(sum_k mean_ij(dy/dA_k) A_k) on the logit y, at the layer's own resolution",
            "arXiv:1610.02391",
            cam.linear_grad_cam,
        ),
        Method("gradient", "pixels", gradient.simonyan, "max_c |dy/dx_c| of the normalised frame", "arXiv:1312.6034"),
        Method(
            "gradient-smilkov",
            "pixels",
            gradient.smilkov,
            "sum_c |dy/dx_c| of the normalised frame",
            "arXiv:1706.03825",
        ),
    )
}
ALIASES = {"gradient:simonyan": "gradient", "gradient-simonyan": "gradient", "gradient:smilkov": "gradient-smilkov"}


def find_methods(names: Iterable[str]) -> tuple[Method, ...]:
    """The methods of some names, each once, in order.

    Raises:
        SalpipeError: for a name that is none.

    >>> [m.name for m in find_methods(["gradcam", "gradient:smilkov", "gradcam"])]
    ['gradcam', 'gradient-smilkov']
    """
    methods: dict[str, Method] = {}
    for name in names:
        canonical = ALIASES.get(name, name)
        if canonical not in METHODS:
            raise SalpipeError(f"--method {name}: unknown; choose from {', '.join(METHODS)}")
        methods[canonical] = METHODS[canonical]
    if not methods:
        raise SalpipeError(f"no saliency method given; choose from {', '.join(METHODS)}")
    return tuple(methods.values())
