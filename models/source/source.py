"""`load_source`: the network that is explained, by its name, with its preparation cached."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import cache, partial
from pathlib import Path

import torch
from torch import Tensor, nn

from saliency_pipeline.cache import cached, discard, environment, is_cached
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.files import sha256_of
from saliency_pipeline.models.files.file_kinds import check_weights
from saliency_pipeline.models.preprocessing import preprocessing_from_json, preprocessing_of
from saliency_pipeline.models.probe import own_random_state
from saliency_pipeline.models.source.build import (
    compare_file,
    from_file,
    pretrained,
    require_classes,
    require_pretrained,
    untrained,
)
from saliency_pipeline.models.source.own import check_own, load_own
from saliency_pipeline.models.source.registry import EMBEDDED, find_source, is_own, is_source, stored_name
from saliency_pipeline.models.source.source_model import SourceModel as SourceModel
from saliency_pipeline.models.source.source_model import class_names
from saliency_pipeline.models.source.weights import state_sha256
from saliency_pipeline.models.trained.trained import load_trained, open_trained, trained_file
from saliency_pipeline.models.trained.two_branch import NetworkSpec
from saliency_pipeline.text import one_line


def load_source(name: str = EMBEDDED, weights: str = "default") -> SourceModel:
    """Build a source model.

    The caller's random state is left unchanged. A head of 1,000 classes is taken for ImageNet-1k's, also in a file
    of the user's own; such a file does not name its classes.

    Args:
        name: `efficientnet_lite0` (comes with the installation), any timm classifier (`resnet50`,
            `resnet50.a1_in1k`), `torchvision/` and any torchvision classifier (`torchvision/resnet50`), the folder
            of a run of `salpipe train`, which records its own classes, or one's own network: `package.module:function`,
            `hf-hub:OWNER/NAME`, `local-dir:FOLDER` (see `own.load_own`), which is built at every call.
        weights: `default`: the library's pretrained ones, from its cache or else downloaded. `none`: random, the
            same every time. Otherwise the path of a file (see `weights.open_weights`), which must fit the network
            in every name and shape; only its number of classes may be another, and the network is then built with
            that many.

    Returns:
        The model on the CPU, in eval mode, float32, frozen.

    Raises:
        SalpipeError: Unknown name, weights that are not available or do not fit, or a network that does not map one
            square RGB image to class scores.
    """
    if is_own(name):
        return load_own(name, weights)
    key, load = _key(name, weights), partial(_load, name, weights)
    return cached("source", key, load, _serialize, lambda data: _deserialize(data, key, load))


def check_source(name: str = EMBEDDED, weights: str = "default") -> None:
    """Check the arguments of `load_source` quickly: the name, and that a file of weights fits.

    No network is built and nothing is downloaded, except that of one's own factory and the description of a
    repository. One that was loaded before is not checked again.

    Raises:
        SalpipeError: as `load_source`.
    """
    check_weights(weights)
    if is_own(name):
        check_own(name, weights)
        return
    if (name == EMBEDDED and weights == "default") or is_cached("source", _key(name, weights)):
        return
    if trained_file(name) and not is_source(name):
        _require_source(name, open_trained(name).spec, weights)
        return
    library, bare = find_source(name)
    preprocessing_of(name, library, bare)
    if weights == "none":
        require_classes(name, library, bare)
    elif weights == "default":
        require_pretrained(name, library, bare)
    else:
        compare_file(name, library, bare, Path(weights))


def _key(name: str, weights: str) -> tuple[str, ...]:
    paths = [os.path.abspath(text) for text in (name, weights) if os.path.exists(text)]
    # where the libraries store what they download
    folders = [os.environ.get(variable, "") for variable in ("TORCH_HOME", "HF_HOME", "HF_HUB_CACHE", "XDG_CACHE_HOME")]
    return (name, weights, *paths, *folders, *environment())


def _serialize(source: SourceModel) -> bytes:
    """All attributes except the network, as JSON, with the hash of the weights' file."""
    attributes = {**vars(source), "build": None, "preprocessing": asdict(source.preprocessing), "file": None}
    if source.file:
        attributes |= {"file": os.path.abspath(source.file), "file_bytes": source.file.stat().st_size}
        attributes |= {"file_sha256": sha256_of(source.file)}
    return json.dumps(attributes).encode()


def _deserialize(data: bytes, key: Sequence[str], load: Callable[[], SourceModel]) -> SourceModel:
    """The serialized source model; its network is loaded on first use.

    Raises:
        Exception: the bytes are no source model, or the file of the weights has changed.
    """
    attributes = json.loads(data)
    file_bytes, file_hash = (attributes.pop(name, None) for name in ("file_bytes", "file_sha256"))
    if attributes["file"]:
        attributes["file"] = Path(attributes["file"])
        # hashing may take minutes, and is not needed for a file of another size
        if attributes["file"].stat().st_size != file_bytes or sha256_of(attributes["file"]) != file_hash:
            raise ValueError(f"{attributes['file']} has changed")
    name, weights_sha256, _ = _texts([attributes[name] for name in ("name", "weights_sha256", "weights")])

    @cache
    def build() -> nn.Module:
        source = load()
        if source.weights_sha256 != weights_sha256:
            discard("source", key)
            raise SalpipeError(f"{name}: its weights were replaced; run the same command again")
        return source.module

    attributes["preprocessing"] = preprocessing_from_json(attributes["preprocessing"])
    attributes |= {name: _texts(attributes[name]) for name in ("classes", "wnids", "notes")}
    return SourceModel(**{**attributes, "build": build})


def _texts(values: object) -> tuple[str, ...]:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise ValueError(f"{values!r:.40} is no list of texts")
    return tuple(values)


def _load(name: str, weights: str) -> SourceModel:
    if trained_file(name) and not is_source(name):
        return _from_run(name, weights)
    library, bare = find_source(name)
    preprocessing = preprocessing_of(name, library, bare)
    file: Path | None = None
    notes: tuple[str, ...] = ()
    with own_random_state():
        if weights == "none":
            module = untrained(name, library, bare)
        elif weights == "default":
            module, file = pretrained(name, library, bare)
        else:
            file = Path(weights)
            module, notes = from_file(name, library, bare, file)
        module = module.float().eval().requires_grad_(False)
        count = _logit_count(name, module, preprocessing.size)
    classes, wnids = class_names(count)
    if weights in ("default", "none"):
        sha256 = state_sha256(module)
        label = "embedded" if library == "embedded" and weights == "default" else weights
    else:
        sha256, label = sha256_of(Path(weights)), Path(weights).name
    return SourceModel(stored_name(name), lambda: module, preprocessing, classes, wnids, label, sha256, file, notes)


def _from_run(name: str, weights: str) -> SourceModel:
    """A network of `salpipe train`, whose file names its classes."""
    trained = load_trained(name)
    _require_source(name, trained.spec, weights)
    preprocessing = replace(trained.preprocessing, size=trained.spec.size, interpolation=trained.interpolation)
    # a source model is called with images only; hooks of a two-branch network stay active
    module = trained.network.backbone if trained.spec.arch == "baseline" else trained.network
    assert isinstance(module, nn.Module)
    classes, sha256 = trained.spec.classes, trained.sha256
    return SourceModel(name, lambda: module, preprocessing, classes, (), "trained", sha256, trained.path)


def _require_source(name: str, spec: NetworkSpec, weights: str) -> None:
    if spec.needs_maps:
        raise SalpipeError(f"{name}: needs maps itself; a source model is a run of --arch baseline or learned")
    if weights != "default":
        raise SalpipeError(f"{name}: brings its weights; leave out --weights")


def _logit_count(name: str, module: nn.Module, size: int) -> int:
    try:
        # no_grad, not inference_mode: attention masks and positions that a module caches here are used under autograd
        with torch.no_grad():
            output = module(torch.zeros(1, 3, size, size, dtype=torch.float32))
    except (RuntimeError, ValueError, TypeError, AssertionError, ImportError) as error:
        reason = one_line(error)
        raise SalpipeError(f"{name}: cannot classify one {size}x{size} image ({reason}); use another model") from error
    if not isinstance(output, Tensor) or output.ndim != 2 or output.shape[1] == 0:
        raise SalpipeError(
            f"{name}: does not return one score per class; use an image classifier, see 'salpipe models'"
        )
    return int(output.shape[1])
