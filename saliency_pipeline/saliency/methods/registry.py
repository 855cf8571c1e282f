"""Registry of saliency methods: those of salpipe, those of installed packages, and how their names are parsed.

A package adds a method as an entry point of the group `salpipe.methods`, whose name is that of the method and whose
object is a subclass of `Method`. Packages are imported only for a name that salpipe itself does not have.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import re
from collections.abc import Callable, Iterable, Sequence

from saliency_pipeline.errors import OptionError, SalpipeError
from saliency_pipeline.parameters import with_parameters
from saliency_pipeline.plug_ins import load_plug_in, packages_with, plug_in_names
from saliency_pipeline.saliency.engine.need import Need
from saliency_pipeline.saliency.methods import (
    attention,
    backward,
    cam,
    captum_methods,
    eigen,
    full_gradient,
    gradient,
    image,
    occlusion,
    path,
    score_cam,
    shapley,
)
from saliency_pipeline.saliency.methods.method import Method
from saliency_pipeline.text import one_line

GROUP = "salpipe.methods"
"""Entry point group of methods in other packages."""

METHODS: dict[str, type[Method]] = {
    kind.name: kind
    for kind in (
        cam.GradCam,
        cam.GradCamPlusPlus,
        cam.XGradCam,
        cam.LayerCam,
        cam.HiResCam,
        eigen.EigenCam,
        eigen.EigenGradCam,
        cam.AblationCam,
        cam.FinerCam,
        gradient.Gradient,
        gradient.GradientSmilkov,
        gradient.InputXGradient,
        gradient.SmoothGrad,
        path.IntegratedGradients,
        path.ExpectedGradients,
        full_gradient.FullGrad,
        attention.Attention,
        attention.Rollout,
        attention.Chefer,
        attention.LeGrad,
        backward.GuidedBackprop,
        backward.GuidedGradCam,
        backward.DeepLift,
        backward.Lrp,
        score_cam.ScoreCam,
        score_cam.GroupCam,
        occlusion.Occlusion,
        occlusion.Rise,
        occlusion.Hsic,
        shapley.KernelShap,
        image.SpectralResidual,
        image.Edges,
        image.CenterPrior,
        image.Random,
    )
}
"""The methods of salpipe by name, in the order in which they are listed."""

ALIASES = {
    "gradient:simonyan": "gradient",
    "gradient-simonyan": "gradient",
    "gradient:smilkov": "gradient-smilkov",
    "squaregrad": "smoothgrad:stat=square",
    "vargrad": "smoothgrad:stat=var",
}

GIVEN = "given"
"""Name of stored maps that come from elsewhere; no method has it. Those of an export are called `given:METHOD`."""

CAPTUM = "captum:"
"""Prefix of the attributions of captum that need no arguments, such as `captum:DeepLift`."""

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
_CANONICAL = re.compile(r"[A-Za-z0-9_:=,.+-]+")
_TEXTS = ("convention", "paper", "equals")
_MISSING = ("name", "needs", "convention", "paper")


def find_methods(texts: Iterable[str], layers: Sequence[str] = ()) -> tuple[Method, ...]:
    """Parse methods as the command line has them, `NAME[:key=value,...]`; each once, in order.

    Args:
        texts: a name, with parameters or without; of a parameter that is true or false the key alone means true.
        layers: explained layers; of several, a method that explains layers and has none becomes one per layer.

    Raises:
        OptionError: an unknown name or parameter, or a value that is not permitted; or no method at all.
        SalpipeError: a method of another package cannot be used.

    >>> [m.canonical for m in find_methods(["gradcam", "gradient:smilkov", "gradcam"])]
    ['gradcam', 'gradient-smilkov']
    >>> [m.canonical for m in find_methods(["gradcam:layer=blocks.3", "gradcam"], ["blocks.1", "blocks.5"])]
    ['gradcam:layer=blocks.3', 'gradcam:layer=blocks.1', 'gradcam:layer=blocks.5']
    """
    names = tuple(dict.fromkeys(layers))
    parsed = [method for text in texts for method in _parse(text).for_layers(names)]
    if not parsed:
        raise OptionError(f"--method: no method is requested; choose from {', '.join(METHODS)}")
    return tuple({method.canonical: method for method in parsed}.values())


def is_given(name: str) -> bool:
    """Return whether stored maps of that name come from elsewhere.

    >>> is_given("given"), is_given("given:gradcam"), is_given("gradcam")
    (True, True, False)
    """
    return name.partition(":")[0] == GIVEN


def all_methods(broken: Callable[[SalpipeError], None] | None = None) -> dict[str, type[Method]]:
    """The methods of salpipe and those of installed packages, by name.

    Args:
        broken: called for each method of a package that cannot be used; without it that is an error.

    Raises:
        SalpipeError: a method of a package cannot be used; names the package.
    """
    methods = dict(METHODS)
    for name in plug_in_names(GROUP):
        try:
            methods[name] = _plug_in(name)
        except SalpipeError as error:
            if broken is None:
                raise
            broken(error)
    return methods


def packages_of(texts: Iterable[str]) -> tuple[str, ...]:
    """Names of the distributions, other than salpipe's, that methods are from.

    >>> packages_of(["gradcam", "captum:DeepLift"])
    ('captum',)
    """
    names = {text.partition(":")[0] for text in texts} - set(METHODS)
    others = {name for name in names if name != CAPTUM[:-1]}
    packages = {package for name in others for package in packages_with(GROUP, name)}
    return tuple(sorted(packages | {CAPTUM[:-1] for name in names - others}))


def _parse(text: str) -> Method:
    if text in ALIASES:
        text = ALIASES[text]
    elif (alias := ALIASES.get(text.partition(":")[0])) is not None:
        text = f"{alias},{text.partition(':')[2]}"
    if text.startswith(CAPTUM) or text == CAPTUM[:-1]:
        return captum_methods.Captum(text.partition(":")[2])
    name, colon, items = text.partition(":")
    if name == GIVEN:
        raise OptionError(
            f"--method {text}: maps from elsewhere, which are not computed; 'salpipe generate --maps-from FOLDER' "
            "stores them beside the maps of other methods"
        )
    kind = METHODS.get(name) or _plug_in(name, text)
    method = with_parameters(kind, name, items if colon else None, "--method")
    if not _CANONICAL.fullmatch(method.canonical):
        # it names files and data sets
        raise OptionError(f"--method {text}: use letters a-z, digits and _ - . + in values")
    return method


def _unknown(text: str) -> OptionError:
    names = {_plain(name): name for name in [*METHODS, *plug_in_names(GROUP)]}
    close = difflib.get_close_matches(_plain(text.partition(":")[0]), names, n=1)
    remedy = f"did you mean {names[close[0]]}?" if close else f"choose from {', '.join(names.values())}"
    return OptionError(f"--method {text}: unknown; {remedy}")


def _plain(name: str) -> str:
    """A name without case and punctuation: other libraries spell it Grad-CAM++ or GradCAM."""
    return re.sub(r"[^a-z0-9]", "", name.lower().replace("+", "p"))


def _plug_in(name: str, text: str | None = None) -> type[Method]:
    """The method of an installed package.

    Raises:
        OptionError: no package has it.
        SalpipeError: it cannot be used.
    """
    plug_in = load_plug_in(GROUP, "method", name)
    if plug_in is None:
        raise _unknown(text or name)
    if problem := _problem(name, plug_in.loaded):
        raise SalpipeError(f"{plug_in.label}: {problem}; update or uninstall it")
    assert isinstance(plug_in.loaded, type)
    return plug_in.loaded


def _problem(name: str, kind: object) -> str | None:
    """The reason why an object is no method of that name, or None."""
    if name in (*METHODS, GIVEN) or not _NAME.fullmatch(name):
        return (
            "salpipe has a method of that name"
            if name in (*METHODS, GIVEN)
            else "a name has up to 64 letters a-z, digits and '-'"
        )
    if not isinstance(kind, type) or not issubclass(kind, Method) or not dataclasses.is_dataclass(kind):
        return f"{one_line(kind)} is no subclass of Method"
    if missing := [attribute for attribute in _MISSING if not hasattr(kind, attribute)]:
        return f"{kind.__name__} lacks {', '.join(missing)}"
    if kind.name != name:
        return f"{kind.__name__} is called {kind.name}"
    needs: object = kind.needs
    if not isinstance(needs, Need):
        return f"{kind.__name__}.needs is of type {type(needs).__name__}, no Need"
    if wrong := [attribute for attribute in _TEXTS if not isinstance(getattr(kind, attribute), str)]:
        return f"{kind.__name__}.{wrong[0]} is no text"
    try:
        method = kind()
        json.dumps([method.describe(), method.canonical, float(method.cost)])
    except Exception as error:  # whatever a module of others raises
        return f"has no valid defaults or description ({one_line(error)})"
    return None
