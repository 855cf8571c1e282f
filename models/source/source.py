"""`SourceModel` and `load_source`: the network that is explained, with its weights, preprocessing and classes."""

from __future__ import annotations

import difflib
import json
import os
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from saliency_pipeline.cache import cached, discard, environment, is_cached
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.files import sha256_of
from saliency_pipeline.models.files.file_kinds import check_weights
from saliency_pipeline.models.preprocessing import Preprocessing, preprocessing_from_json, preprocessing_of
from saliency_pipeline.models.probe import own_random_state
from saliency_pipeline.models.source.build import (
    compare_file,
    from_file,
    pretrained,
    require_classes,
    require_pretrained,
    untrained,
)
from saliency_pipeline.models.source.registry import EMBEDDED, find_source, is_source
from saliency_pipeline.models.source.weights import state_sha256
from saliency_pipeline.models.trained.trained import load_trained, open_trained, recorded_images, trained_file
from saliency_pipeline.models.trained.training_images import TrainingImages
from saliency_pipeline.models.trained.two_branch import NetworkSpec
from saliency_pipeline.text import one_line

# weights that are not from a file of the user
_LIBRARY = ("embedded", "default", "none")
# The ImageNet subset of a number of outputs. 1001 is ImageNet-1k with a background class before it, as in TensorFlow.
_IMAGENETS = {
    1000: "imagenet-1k",
    1001: "imagenet-1k",
    11221: "imagenet-21k-miil",
    11821: "imagenet-12k",
    21841: "imagenet-22k",
    21842: "imagenet-22k-ms",
    21843: "imagenet-21k-goog",
}


@dataclass(frozen=True, eq=False)
class SourceModel:
    """A classifier whose predictions are explained.

    Attributes:
        name: As passed to `load_source`, without a redundant `timm/`.
        build: Returns `module`, the same object on every call.
        preprocessing: How images become its input.
        classes: A name for each logit, synonyms separated by commas; `class 0`, `class 1`, … if unknown.
        wnids: The WordNet id of each logit (`n02123045`) where the head is one of ImageNet's, else empty. The
            background class of a 1001-class head has the empty id.
        weights: `embedded`, `default` (the library's pretrained), `none` (random) or the name of a file.
        weights_sha256: In hexadecimal; of the file's bytes if weights are a file, else `state_sha256(module)`.
        file: The file that the weights were read from; None for random weights.
        notes: Notes on how that file was read.
    """

    name: str
    build: Callable[[], nn.Module]
    preprocessing: Preprocessing
    classes: tuple[str, ...]
    wnids: tuple[str, ...]
    weights: str
    weights_sha256: str
    file: Path | None = None
    notes: tuple[str, ...] = ()

    @property
    def module(self) -> nn.Module:
        """From images (N, 3, size, size) float32, normalized, to logits (N, classes) float32.

        On the CPU, in eval mode, parameters frozen. Built on first use, which takes seconds.
        """
        return self.build()

    def with_size(self, size: int) -> SourceModel:
        """The same network for frames of `size` pixels per side."""
        return replace(self, preprocessing=replace(self.preprocessing, size=size))

    def training_images(self) -> TrainingImages | None:
        """Read the record of its training images from its file; None for a network not of `salpipe train`.

        Raises:
            SalpipeError: the record is damaged.
        """
        return None if self.file is None or self.weights in _LIBRARY else recorded_images(self.file)

    def class_index(self, name_or_index: str) -> int:
        """The index of a class given as its index, WordNet id, or name.

        Names are case-insensitive, an underscore equals a space, and any synonym is accepted. A whole name takes
        precedence over a synonym: `maillot` is class 638, not 639 (`maillot, tank suit`).

        Raises:
            SalpipeError: No such class, or several of that name.

        Example:
            >>> source = load_source()
            >>> source.class_index("tiger_cat"), source.class_index("n02123045"), source.class_index("967")
            (282, 281, 967)
        """
        wanted = _plain(name_or_index)
        if _is_number(wanted):
            index, called = int(wanted), [i for i, name in enumerate(self.classes) if _plain(name) == wanted]
            if not 0 <= index < len(self.classes):
                if called:
                    return called[0]
                raise SalpipeError(f"class {wanted}: {self.name} has classes 0 to {len(self.classes) - 1}")
            if called not in ([], [index]):
                raise SalpipeError(
                    f"class {wanted}: class {called[0]} is called so, and class {wanted} is called "
                    f"{self.classes[index]!r}; explain the labels or the predicted classes instead"
                )
            return index
        return self._named(name_or_index)

    def class_named(self, name: str) -> int:
        """The index of a class given as its WordNet id or name, as for `class_index`; never as an index.

        Numbers as class names of a data set are in its own order, from 0 or 1.

        Raises:
            SalpipeError: No such class, or several of that name, or the classes have no names.
        """
        wanted = _plain(name)
        if self.classes == tuple(f"class {i}" for i in range(len(self.classes))):
            raise SalpipeError(f"class {name!r}: {self.name}'s {len(self.classes)} classes have indices and no names")
        if _is_number(wanted) and wanted not in map(_plain, self.classes):
            index = int(wanted)
            meant = f", which would be {self.classes[index]!r}" if 0 <= index < len(self.classes) else ""
            raise SalpipeError(
                f"class {name!r}: a number is no name, and not taken for an index{meant}; call classes by WordNet ids "
                f"or by {self.name}'s names"
            )
        return self._named(name, "give a WordNet id or another name")

    def _named(self, name_or_index: str, otherwise: str = "give an index, a WordNet id or another name") -> int:
        wanted = _plain(name_or_index)
        if wanted and wanted in self.wnids:
            return self.wnids.index(wanted)
        whole = [_plain(name) for name in self.classes]
        synonyms = [[part.strip() for part in name.split(",")] for name in whole]
        matches = [i for i, name in enumerate(whole) if name == wanted]
        matches = matches or [i for i, names in enumerate(synonyms) if wanted in names]
        if len(matches) == 1:
            return matches[0]
        if matches:
            several = ", ".join(self.wnids[i] if self.wnids else str(i) for i in matches)
            raise SalpipeError(f"class {name_or_index!r}: {len(matches)} classes have that name; give one of {several}")
        close = difflib.get_close_matches(wanted, dict.fromkeys(name for names in synonyms for name in names), n=3)
        remedy = f"did you mean {', '.join(close)}?" if close else otherwise
        raise SalpipeError(f"class {name_or_index!r}: not one of {self.name}'s {len(self.classes)} classes; {remedy}")


def load_source(name: str = EMBEDDED, weights: str = "default") -> SourceModel:
    """Build a source model.

    The caller's random state is left unchanged. A head of 1,000 classes is taken for ImageNet-1k's, also in a file
    of the user's own; such a file does not name its classes.

    Args:
        name: `efficientnet_lite0` (comes with the installation), any timm classifier (`resnet50`,
            `resnet50.a1_in1k`), `torchvision/` and any torchvision classifier (`torchvision/resnet50`), or the folder
            of a run of `salpipe train`, which records its own classes.
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
    key, load = _key(name, weights), partial(_load, name, weights)
    return cached("source", key, load, _serialize, lambda data: _deserialize(data, key, load))


def check_source(name: str = EMBEDDED, weights: str = "default") -> None:
    """Check the arguments of `load_source` quickly: the name, and that a file of weights fits.

    No network is built and nothing is downloaded. One that was loaded before is not checked again.

    Raises:
        SalpipeError: as `load_source`.
    """
    check_weights(weights)
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
    classes, wnids = _class_names(count)
    if weights in ("default", "none"):
        sha256 = state_sha256(module)
        label = "embedded" if library == "embedded" and weights == "default" else weights
    else:
        sha256, label = sha256_of(Path(weights)), Path(weights).name
    # timm has another network of the embedded one's name, which keeps the prefix
    shown = name if name == f"timm/{EMBEDDED}" else name.removeprefix("timm/")
    return SourceModel(shown, lambda: module, preprocessing, classes, wnids, label, sha256, file, notes)


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


def _class_names(count: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names and WordNet ids of a head's classes, as `SourceModel` has them."""
    from timm.data.imagenet_info import ImageNetInfo

    if count not in _IMAGENETS:
        return tuple(f"class {i}" for i in range(count)), ()
    info: Any = ImageNetInfo(_IMAGENETS[count])
    names, wnids = tuple(info.label_descriptions()), tuple(info.label_names())
    return (("background", *names), ("", *wnids)) if count == 1001 else (names, wnids)


def _plain(name: str) -> str:
    return " ".join(unicodedata.normalize("NFC", name).replace("_", " ").casefold().split())


def _is_number(plain: str) -> bool:
    return plain.removeprefix("-").isdecimal() and len(plain) < 20
