"""List of saliency methods for people: what each costs, needs and equals, its parameters and its paper."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.saliency.engine.need import Need
from saliency_pipeline.saliency.methods.method import LayerMethod, Method
from saliency_pipeline.saliency.methods.registry import CAPTUM, METHODS, all_methods, find_methods
from saliency_pipeline.settings import settings_of, types_of


@dataclass(frozen=True)
class Parameter:
    """A parameter of a method.

    Attributes:
        default: its default; None if it is left open.
        type: `int`, `float`, `bool` or `str`.
        range: smallest and largest value, or None.
        choices: permitted values; empty for any.
        help: what it is.
    """

    default: Any
    type: str
    range: tuple[float, float] | None
    choices: tuple[str | int, ...]
    help: str


@dataclass(frozen=True)
class MethodInfo:
    """A saliency method.

    Attributes:
        name: name on the command line.
        level: what it reads: `image`, `layer`, `attention`, `pixels` or `network`.
        cost: cost in forward passes with its default parameters, beyond the one that all methods share.
        needs: what it asks the engine for, in lower case, such as `activations`.
        parameters: its parameters by name.
        signed: whether values below 0 speak against the class.
        class_specific: whether maps explain a class.
        complete: whether the values of a map should sum to a known number.
        equals: when it equals another method, or an empty string.
        convention: the formula in words.
        paper: where it comes from.
        package: the package that brings it; empty for salpipe.
    """

    name: str
    level: str
    cost: float
    needs: tuple[str, ...]
    parameters: dict[str, Parameter]
    signed: bool
    class_specific: bool
    complete: bool
    equals: str
    convention: str
    paper: str
    package: str = ""


def list_methods(
    pattern: str | None = None, broken: Callable[[SalpipeError], None] | None = None
) -> tuple[MethodInfo, ...]:
    """List the methods of salpipe and of installed packages.

    Args:
        pattern: shell pattern of names, such as `*cam`; all by default. Attributions of captum are listed one by one
            only for a pattern that begins with `captum`.
        broken: called for each method of a package that cannot be used; without it that is an error.

    Raises:
        SalpipeError: a method of a package cannot be used; names the package.
    """
    if pattern is not None and pattern.startswith(CAPTUM.rstrip(":")):
        from saliency_pipeline.saliency.methods.captum_methods import captum_names

        methods = find_methods([f"{CAPTUM}{name}" for name in captum_names()])
        infos = [_info(method, method.canonical) for method in methods]
        return tuple(info for info in infos if fnmatchcase(info.name, pattern))
    kinds = all_methods(broken)
    return tuple(_info(kind(), name) for name, kind in kinds.items() if pattern is None or fnmatchcase(name, pattern))


def _info(method: Method, name: str) -> MethodInfo:
    # the name says which attribution of captum it is, and --layer which layer
    hidden = {"layer"} if isinstance(method, LayerMethod) else {"attribution"} if name.startswith(CAPTUM) else set()
    parameters = {
        key: Parameter(field.default, types_of(field)[0], own.range, own.choices, own.help)
        for key, (field, own) in sorted(settings_of(method).items())
        if key not in hidden
    }
    needs = tuple(str(need.name).lower() for need in Need if need in method.needs)
    return MethodInfo(
        name=name,
        level=method.level,
        cost=method.cost,
        needs=needs,
        parameters=parameters,
        signed=method.signed,
        class_specific=method.class_specific,
        complete=method.complete,
        equals=method.equals,
        convention=method.convention,
        paper=method.paper,
        package="" if name in METHODS or name.startswith(CAPTUM) else type(method).__module__.partition(".")[0],
    )
