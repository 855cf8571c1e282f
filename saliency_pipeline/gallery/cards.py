"""Cards of a gallery: one image as the page shows it, with its maps, predictions and notes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.figures.pictures import Pixels, data_uri, jpeg, resized
from saliency_pipeline.generation.provenance import Provenance
from saliency_pipeline.images.record import Split
from saliency_pipeline.saliency.render import overlay
from saliency_pipeline.shards.methods import is_signed, stored_method
from saliency_pipeline.shards.reader import ShardFolder
from saliency_pipeline.shards.schema import ALL_ZERO, CONSTANT, NON_FINITE, SEEN, SINGLE_COLOR
from saliency_pipeline.shards.shard import Pair, Shard

Predictions = tuple[tuple[str, float], ...]
"""Class names and their scores in [0, 1], highest first."""

_FLAGS = (
    (ALL_ZERO, "the map is zero everywhere"),
    (CONSTANT, "the map is constant"),
    (NON_FINITE, "values that were not finite became 0"),
    (SINGLE_COLOR, "the image has a single color"),
    (SEEN, "the source model was trained on this image"),
)


@dataclass(frozen=True)
class View:
    """One map of every image.

    Attributes:
        method: method of the map.
        target: index of the map among those of the method.
        title: text that names the map.
        signed: True if values below 0 speak against the class.
    """

    method: str
    target: int
    title: str
    signed: bool

    def map_of(self, pair: Pair) -> npt.NDArray[np.float32]:
        """The map of this view, (h, w)."""
        saliency: npt.NDArray[np.float32] = pair.maps[self.method][self.target]
        return saliency


@dataclass(frozen=True)
class Overlay:
    """One map of one image.

    Attributes:
        picture: the map over the image, a data URI.
        explains: the explained class, unless it is the prediction shown; None as well where no class is explained.
        class_agnostic: True if the map explains no class.
        signed: True if the map has negative values.
        flags: notes on the map.
    """

    picture: str
    explains: str | None
    class_agnostic: bool
    signed: bool
    flags: tuple[str, ...]


@dataclass(frozen=True)
class Card:
    """One image; `photo` is a data URI."""

    key: str
    label: str | None
    split: str | None
    source_size: str
    predictions: Predictions
    photo: str
    overlays: tuple[Overlay, ...]


def make_views(data: ShardFolder, method: str | None) -> list[View]:
    """Views of all stored maps, or of those of one method, see `stored_method`; those of a method follow one another.

    Raises:
        SalpipeError: no maps, or none of this method.
    """
    if not data.methods:
        raise SalpipeError(f"{data.path} holds no saliency maps; run 'salpipe generate' with a method")
    views = []
    for name in data.methods if method is None else (stored_method(data, method),):
        targets, signed = data.header.maps[name].targets, is_signed(data.provenance, name)
        titles = [f"{name} · {target_title(data, target)}" for target in range(targets)] if targets > 1 else [name]
        views += [View(name, target, title, signed) for target, title in enumerate(titles)]
    return views


def target_title(data: ShardFolder, target: int) -> str:
    """Name of the map at an index among several of a method."""
    noun = "top" if str(Provenance.from_json(data.provenance).target).startswith("top:") else "target"
    return f"{noun} {target + 1}"


def make_card(
    shard: Shard, row: int, views: Sequence[View], side: int, predictions: Predictions | None = None
) -> tuple[Card, Pixels, Pixels]:
    """The card of an image; the image and its first overlay, (H, W, 3) uint8 each.

    Pictures of the card have `side` pixels per side; `predictions` replace those of the source model.
    """
    pair, names = shard[row], shard.source_classes
    first = int(pair.prediction_class[0])
    stored = tuple(
        (_class_name(names, index), score if math.isfinite(score) else 0.0)
        for index, score in zip(pair.prediction_class.tolist(), pair.prediction_score.tolist(), strict=True)
        if index >= 0
    )
    pictures = [overlay(pair.image, view.map_of(pair)) for view in views]
    overlays = []
    for view, picture in zip(views, pictures, strict=True):
        explained = int(pair.targets[view.method][view.target])
        name = _class_name(names, explained)
        # another network numbers its classes in its own way
        same = (
            explained == first
            if predictions is None
            else name in {text.partition(",")[0] for text, _ in predictions[:1]}
        )
        flags = _flags(int(shard.flags(view.method, [row])[0, view.target]))
        signed = bool((view.map_of(pair) < 0).any())
        agnostic = explained < 0
        explains = None if same or agnostic else name
        overlays.append(Overlay(_embedded(picture, side), explains, agnostic, signed, flags))
    height, width = pair.source_size
    card = Card(
        key=pair.key,
        label=pair.class_name,
        split=Split(pair.split).name.lower() if pair.split in (0, 1, 2) else None,
        source_size=f"{width} × {height}",
        predictions=stored if predictions is None else predictions,
        photo=_embedded(pair.image, side),
        overlays=tuple(overlays),
    )
    return card, pair.image, pictures[0]


def _embedded(image: Pixels, side: int) -> str:
    return data_uri(jpeg(resized(image, side)))


def _flags(bits: int) -> tuple[str, ...]:
    # an all-zero map is constant as well, which goes without saying
    if bits & ~(SINGLE_COLOR | SEEN) == ALL_ZERO | CONSTANT:
        bits &= ~CONSTANT
    return tuple(text for bit, text in _FLAGS if bits & bit)


def _class_name(names: Sequence[Any], index: int) -> str:
    """First synonym of a source class, or its number if the provenance has no name for it."""
    name = names[index] if 0 <= index < len(names) else None
    return name.partition(",")[0] if isinstance(name, str) and name else f"class {index}"
