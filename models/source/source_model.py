"""`SourceModel`: a network that is explained, with its weights, preprocessing and classes."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.models.preprocessing import Preprocessing
from saliency_pipeline.models.trained.trained import recorded_images
from saliency_pipeline.models.trained.training_images import TrainingImages

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
        notes: Notes on how that file was read, and on choices that were made.
        code_sha256: SHA-256 of the user's code that builds the network, or of the `config.json` that describes it to
            timm; None for a network that a library defines. Empty for a module of the caller, whose code is not
            hashed: nothing that is derived from it is cached.
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
    code_sha256: str | None = None

    @property
    def identity(self) -> tuple[str, ...]:
        """Everything that determines the network and its input, as part of a cache key; empty if that is unknown."""
        if self.code_sha256 == "":
            return ()
        # a factory may read strides and the like from a file, which neither weights nor code show
        own = () if self.code_sha256 is None else (self.code_sha256, repr(self.module))
        return (self.name, self.weights_sha256, str(self.preprocessing), *own)

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
            >>> from saliency_pipeline import load_source
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


def class_names(count: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
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
