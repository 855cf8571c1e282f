"""One's own network as a source model: a module from Python, a factory, or a timm network of the hub or a folder."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.files import sha256_of
from saliency_pipeline.models.preprocessing import EXAMPLE, Preprocessing, preprocessing_from
from saliency_pipeline.models.probe import own_random_state
from saliency_pipeline.models.source.hub import HUB_FILES, hub_folder
from saliency_pipeline.models.source.matching import Choice, Mismatch, choices, compare, fill, require_values
from saliency_pipeline.models.source.registry import HUB, LOCAL, is_own, stored_name
from saliency_pipeline.models.source.source_model import SourceModel, class_names
from saliency_pipeline.models.source.user_code import call_factory, code_sha256, importable
from saliency_pipeline.models.source.weights import open_weights, read_state, read_state_dict, state_sha256
from saliency_pipeline.text import one_line

_WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel)
_LIBRARIES = (HUB, LOCAL)


def source_from_module(
    module: nn.Module, preprocessing: object = None, name: str | None = None, classes: Sequence[str] | None = None
) -> SourceModel:
    """A source model around a copy of a network, which itself is not changed.

    Args:
        module: from images (N, 3, size, size), normalized, to logits (N, classes), on any device, in any mode and
            floating-point precision; wrappers of DataParallel and torch.compile are removed.
        preprocessing: a `Preprocessing`, a mapping with timm's keys `input_size`, `mean`, `std`, `interpolation`, or
            the transforms of torchvision's weights. None: the module's `pretrained_cfg` or `default_cfg`, as timm
            sets it; of a network of torchvision ImageNet's at 224 pixels, with a note.
        name: the model's name in messages and records; default: that of the module's class.
        classes: a name for each logit. None: the module's `classes` or `class_names`, if it has such a list of
            strings; else as `load_source`.

    Returns:
        The model on the CPU, in eval mode, float32, frozen; nothing that is derived from it is cached on disk.

    Raises:
        SalpipeError: the module cannot be copied, its preprocessing is missing, or it does not map one image to
            logits.

    Example:
        >>> network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
        >>> settings = {"size": 32, "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
        >>> source_from_module(network, settings, classes=["cat", "dog"]).class_index("dog")
        1
    """
    module = _unwrapped(module)
    name = name or type(module).__name__
    with own_random_state():
        try:
            module = copy.deepcopy(module)
        except Exception as error:  # whatever the parts of a user's network raise
            raise SalpipeError(
                f"{name}: cannot be copied ({one_line(error)}); pass it before it is used, or a factory by its name"
            ) from error
        return _source(name, _for_explaining(name, module), preprocessing, classes)


def load_own(name: str, weights: str) -> SourceModel:
    """Build the source model of a factory `package.module:function`, `hf-hub:OWNER/NAME` or `local-dir:FOLDER`.

    The function takes no arguments and returns the network, or the network and its preprocessing; see
    `source_from_module` for both, and for the names of classes. It is called with torch's random state fixed.

    Args:
        name: the model's name.
        weights: `default`: as the function returns them, or those of the repository or folder. `none`: of a function
            the same, otherwise random ones. Else the path of a file, which must fit in every name and shape.

    Raises:
        SalpipeError: as `load_source`; a user's error with the file and line where it was raised.
    """
    name = stored_name(name)
    path = None if weights in ("default", "none") else Path(weights)
    file, preprocessing = path, None
    with own_random_state(), importable():
        if name.startswith(_LIBRARIES):
            module, file = _from_timm(name, weights)
        else:
            module, preprocessing = _from_factory(name)
            weights = "default" if weights == "none" else weights
        module = _for_explaining(name, module)
        notes = _fill(name, module, path) if path else ()
        return _source(name, module, preprocessing, None, weights, file, notes, own_sha256(name))


def own_sha256(name: str) -> str | None:
    """The hash that `load_own` stores as `SourceModel.code_sha256`; None for any other name."""
    if not is_own(name):
        return None
    if name.startswith(_LIBRARIES):
        return sha256_of(_timm_folder(name, weights=False) / "config.json")
    return code_sha256(name)


def check_own(name: str, weights: str) -> None:
    """Check the arguments of `load_own`; of a hub's repository only its description, with no download of weights.

    Raises:
        SalpipeError: as `load_own`.
    """
    if name.startswith(_LIBRARIES):
        _timm_folder(stored_name(name), weights=False)
        if weights not in ("default", "none"):
            open_weights(Path(weights))
    else:
        load_own(name, weights)


# ---- networks ---------------------------------------------------------------------------------------------------


def _from_factory(name: str) -> tuple[nn.Module, object]:
    """The network of a factory and its preprocessing, None if it returns none."""
    result = call_factory(name)
    preprocessing = None
    if isinstance(result, tuple) and len(result) == 2:
        result, preprocessing = result
    if not isinstance(result, nn.Module):
        raise SalpipeError(
            f"model {name!r}: returns {_kind(result)} instead of a network; return an nn.Module, or it and its "
            f"preprocessing, such as {EXAMPLE}"
        )
    return _unwrapped(result), preprocessing


def _from_timm(name: str, weights: str) -> tuple[nn.Module, Path | None]:
    """A network that timm describes in a `config.json`, and the file of its weights if it has that file's."""
    import timm

    folder = _timm_folder(name, weights=weights == "default")
    path = next((folder / file for file in HUB_FILES if (folder / file).is_file()), None)
    settings: dict[str, Any] = {"pretrained": False}
    if weights == "default":
        if path is None:
            raise SalpipeError(f"{name}: {folder} holds neither {' nor '.join(HUB_FILES)}; use --weights PATH")
        state = read_state_dict(path)
        require_values(path, state, {})
        # from the tensors: some versions of timm would run code in the file
        overlay = {"source": "", "state_dict": state, "custom_load": False}
        settings = {"pretrained": True, "pretrained_cfg_overlay": overlay}
    try:
        module: Any = timm.create_model(f"{LOCAL}{folder}", **settings)
    except Exception as error:  # of a description from anywhere
        raise SalpipeError(
            f"{name}: timm cannot build it from its config.json ({one_line(error)}); use a repository made by this or "
            "an earlier version of timm"
        ) from error
    module.pretrained_cfg.pop("state_dict", None)
    return module, path if weights == "default" else Path(weights) if weights != "none" else None


def _timm_folder(name: str, *, weights: bool) -> Path:
    """The folder with the `config.json` of a timm network."""
    place = name.partition(":")[2]
    folder = hub_folder(name, place, weights=weights) if name.startswith(HUB) else Path(place)
    if not (folder / "config.json").is_file():
        raise SalpipeError(f"{name}: no config.json there; give a folder of timm's save_for_hf or of a repository")
    return folder


def _unwrapped(module: nn.Module) -> nn.Module:
    """A network without the wrappers of DataParallel and torch.compile."""
    inner: Any = module
    if isinstance(module, torch.jit.ScriptModule):
        raise SalpipeError("TorchScript: its layers cannot be observed; give the module that it was compiled from")
    while isinstance(inner, _WRAPPERS) or isinstance(getattr(inner, "_orig_mod", None), nn.Module):
        inner = inner.module if isinstance(inner, _WRAPPERS) else inner._orig_mod
    assert isinstance(inner, nn.Module)
    return inner


def _for_explaining(name: str, module: nn.Module) -> nn.Module:
    try:
        module = module.cpu().float().eval()
        # one by one: a compiled module of TorchScript has no requires_grad_
        for parameter in module.parameters():
            parameter.requires_grad_(False)
        return module
    except (RuntimeError, NotImplementedError, ValueError) as error:
        raise SalpipeError(
            f"{name}: cannot be converted to float32 on the CPU ({one_line(error)}); initialize it first"
        ) from error


def _fill(name: str, module: nn.Module, path: Path) -> tuple[str, ...]:
    """Fill a network with the weights of a file; returns notes on how it was read."""
    file = open_weights(path)
    fits: list[Choice] = []
    others: list[Mismatch] = []
    for choice in choices(file, module):
        attempts = [(attempt, compare(module, attempt.state)) for attempt in (choice, choice.without_foreign(module))]
        fits += [attempt for attempt, mismatch in attempts if not mismatch][:1]
        others.append(attempts[0][1])
    if not fits:
        raise SalpipeError(
            f"{path}: does not fit {name}: {min(others, key=len)}; give the state_dict() of the network that it returns"
        )
    best = min(fits, key=lambda choice: not choice.averaged)
    fill(module, read_state(path, best.state), path)
    return best.notes([choice for choice in fits if choice is not best])


# ---- source models ----------------------------------------------------------------------------------------------


def _source(
    name: str,
    module: nn.Module,
    preprocessing: object,
    classes: Sequence[str] | None,
    weights: str = "default",
    file: Path | None = None,
    notes: tuple[str, ...] = (),
    code_sha256: str | None = "",
) -> SourceModel:
    """The source model of a network that is ready for explaining."""
    if preprocessing is None:
        preprocessing = getattr(module, "pretrained_cfg", None) or getattr(module, "default_cfg", None)
    if preprocessing is None and type(module).__module__.startswith("torchvision.models."):
        size = getattr(module, "image_size", 224)
        preprocessing = Preprocessing(size, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "bilinear")
        notes = (*notes, f"{name}: records no preprocessing; ImageNet's, {size} pixels, bilinear, is used")
    if preprocessing is None:
        raise SalpipeError(
            f"{name}: its preprocessing is unknown; give it beside the network or as its attribute pretrained_cfg, for "
            f"example {EXAMPLE}"
        )
    settings = preprocessing_from(name, preprocessing)
    scores = _scores(name, module, settings.size)
    if len(scores) == 1:
        notes = (*notes, f"{name}: returns one score per image, so that every image is of class 0")
    elif scores.min() >= 0 and abs(scores.sum() - 1) < 1e-4:
        notes = (
            *notes,
            f"{name}: returns probabilities, which are explained in place of logits; leave out its softmax",
        )
    names, wnids = _named_classes(name, module, len(scores), classes)
    own = weights not in ("default", "none")
    sha256 = sha256_of(file) if own and file else state_sha256(module)
    label = file.name if own and file else weights
    return SourceModel(name, lambda: module, settings, names, wnids, label, sha256, file, notes, code_sha256)


def _named_classes(
    name: str, module: nn.Module, count: int, classes: Sequence[str] | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names and WordNet ids of a network's classes: those that are given, its own, or as `class_names`."""
    config = getattr(module, "pretrained_cfg", None)
    labels = config.get("label_names") if isinstance(config, Mapping) else None
    for names in (classes, getattr(module, "classes", None), getattr(module, "class_names", None), labels):
        if isinstance(names, list | tuple) and names and all(isinstance(text, str) for text in names):
            if len(names) != count:
                raise SalpipeError(f"{name}: has {len(names)} names of classes for {count} scores; give one for each")
            return tuple(names), ()
        if names is not None and names is classes:
            raise SalpipeError(f"{name}: its classes are {_kind(classes)}; give a list of strings, one for each score")
    return class_names(count)


def _scores(name: str, module: nn.Module, size: int) -> Tensor:
    """The scores (classes,) that a network returns for a gray image; raises SalpipeError if it returns none."""
    try:
        # no_grad as in `load_source`
        with torch.no_grad():
            output = module(torch.zeros(1, 3, size, size, dtype=torch.float32))
    except Exception as error:  # whatever a user's network raises
        reason = one_line(f"{type(error).__name__}: {error}")
        raise SalpipeError(
            f"{name}: cannot classify one {size}x{size} image ({reason}); correct it, or the input_size of its "
            "preprocessing"
        ) from error
    wanted = "let forward return one tensor of scores, float32 of shape (images, classes)"
    if not isinstance(output, Tensor):
        raise SalpipeError(f"{name}: returns {_kind(output)} instead of scores; {wanted}")
    if output.ndim != 2 or output.shape[0] != 1 or output.shape[1] == 0:
        raise SalpipeError(f"{name}: returns a tensor of shape {tuple(output.shape)} for one image; {wanted}")
    if output.dtype != torch.float32:
        raise SalpipeError(f"{name}: returns scores of {str(output.dtype).removeprefix('torch.')}; {wanted}")
    return output[0]


def _kind(value: object) -> str:
    """An object's type in words, with the length or the keys of a container."""
    name = type(value).__name__
    if isinstance(value, Mapping):
        return f"a {name} with {', '.join(map(str, value))}"[:80]
    return f"a {name} of {len(value)}" if isinstance(value, list | tuple) else f"an object of type {name}"
