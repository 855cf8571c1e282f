"""Writes a gallery: a page that needs nothing else, and a contact sheet. Which images it shows stands elsewhere."""

from __future__ import annotations

import base64
import io
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from jinja2 import Environment, StrictUndefined
from PIL import Image

from saliency_pipeline.datasets.nesting import refuse_among_images
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.files import write_atomically
from saliency_pipeline.folders import make_output
from saliency_pipeline.gallery import COUNT
from saliency_pipeline.gallery.selection import choose
from saliency_pipeline.images.record import Split
from saliency_pipeline.recognition import refuse_shards
from saliency_pipeline.saliency.render import colors, contact_sheet, overlay
from saliency_pipeline.shards.reader import ShardFolder
from saliency_pipeline.shards.schema import ALL_ZERO, CONSTANT, NON_FINITE, SEEN, SINGLE_COLOR
from saliency_pipeline.shards.shard import Pair, Shard

PAGE, CONTACT_SHEET = "gallery.html", "contact-sheet.png"

# of all pictures of a page as JPEG files, of which base64 then makes four thirds
_PAGE_BYTES = 2_200_000
# at quality 82: photographs take up to 0.2, the speckles of pixel gradients 0.3
_BYTES_PER_PIXEL = 0.3
_SIDES = (112, 320)
_SHEET_PIXELS = 6_000_000
_SHEET_SIDES = (32, 160)

Predictions = tuple[tuple[str, float], ...]
"""Names of classes and their scores in [0, 1], the highest first."""

_FLAGS = (
    (ALL_ZERO, "the map is zero everywhere"),
    (CONSTANT, "the map has one value everywhere"),
    (NON_FINITE, "values that were not finite became 0"),
    (SINGLE_COLOR, "the image has one color everywhere"),
    (SEEN, "the source model was trained on this image"),
)


@dataclass(frozen=True)
class Gallery:
    """What was written.

    Attributes:
        page: the HTML page.
        contact_sheet: the PNG picture of the same images.
        images: how many images they show.
    """

    page: Path
    contact_sheet: Path
    images: int


@dataclass(frozen=True)
class View:
    """One map of every image: a method and which of its targets, counted from 0."""

    method: str
    target: int
    title: str


@dataclass(frozen=True)
class Overlay:
    """One map of one image as the page shows it.

    Attributes:
        picture: the map over the image, a data URI.
        explains: the class explained, where it is not the prediction shown.
        signed: whether the map has negative values.
        flags: what is odd about the map.
    """

    picture: str
    explains: str | None
    signed: bool
    flags: tuple[str, ...]


@dataclass(frozen=True)
class Card:
    """One image as the page shows it; pictures are data URIs, `predictions` are names and scores in [0, 1]."""

    key: str
    label: str | None
    split: str | None
    source_size: str
    predictions: Predictions
    photo: str
    overlays: tuple[Overlay, ...]


def show(
    folder: Path | str,
    output: Path | str,
    *,
    count: int = COUNT,
    keys: Sequence[str] = (),
    class_name: str | None = None,
    method: str | None = None,
    random: bool = False,
    seed: int = 0,
    predictions: Callable[[int], Predictions] | None = None,
    title: str | None = None,
) -> Gallery:
    """Draw a gallery of a data set: `gallery.html`, one file that needs nothing else, and `contact-sheet.png`.

    Which images are shown depends on the arguments alone; of the data set only the labels (with `keys` the keys) and
    the images shown are read. See `saliency_pipeline.gallery.selection.choose`.

    Args:
        folder: a folder that `salpipe generate` finished, or one shard file.
        output: folder to write to, made where it is missing; a gallery in it is replaced.
        count: the most images to show, spread evenly over the classes.
        keys: names of the images to show instead, in this order.
        class_name: show images of this class only.
        method: show the maps of this method only; all that are stored by default.
        random: draw the images, each equally likely.
        seed: of that draw.
        predictions: what to show as the prediction for the image at a position of the data set; what the source model
            predicted by default.
        title: of the page; the folder's name by default.

    Returns:
        Where the gallery is.

    Raises:
        SalpipeError: there is no such folder, image, class or method, or the output cannot be written.
        IntegrityError: a shard is damaged.

    Example:
        >>> import tempfile
        >>> from saliency_pipeline.shards.schema import MapShape, ShardHeader, ShardRows
        >>> from saliency_pipeline.shards.writer import ShardWriter
        >>> header = ShardHeader("plan", {}, ("cat",), 8, "raw", {"gradcam": MapShape(1, 2, 2)})
        >>> rows = ShardRows(
        ...     keys=["cat/chelsea.jpg"],
        ...     labels=np.zeros(1, np.int64),
        ...     splits=np.zeros(1, np.int8),
        ...     images=np.full((1, 8, 8, 3), 128, np.uint8),
        ...     sha256=np.zeros((1, 32), np.uint8),
        ...     source_size=np.full((1, 2), 8, np.int32),
        ...     prediction_class=np.array([[281, 282, 285, 287, 0]], np.int32),
        ...     prediction_score=np.array([[0.6, 0.2, 0.1, 0.1, 0.0]], np.float32),
        ...     maps={"gradcam": np.eye(2, dtype=np.float32)[None, None]},
        ...     targets={"gradcam": np.array([[281]], np.int32)},
        ... )
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "shard-00000.h5"
        ...     with ShardWriter(path, header, capacity=1) as writer:
        ...         writer.append(rows)
        ...         _ = writer.finish()
        ...     gallery = show(path, Path(folder) / "gallery", class_name="cat")
        ...     sorted(each.name for each in gallery.page.parent.iterdir()), gallery.images
        (['contact-sheet.png', 'gallery.html'], 1)
    """
    data, output = ShardFolder(folder), Path(output)
    refuse_among_images(output, folder)
    refuse_shards(output)
    views = _views(data, method)
    chosen = choose(data, count, keys=keys, class_name=class_name, random=random, seed=seed)
    make_output(output)

    side = _side(_PAGE_BYTES / _BYTES_PER_PIXEL / (len(chosen) * (1 + len(views))), _SIDES, data.header.size)
    sheet_side = _side(_SHEET_PIXELS / (2 * len(chosen)), _SHEET_SIDES, None)
    cards, tiles = [], []
    for position in chosen:
        number, row = data.locate(position)
        shard = data.shard(number)
        pair = shard[row]
        overlays = [overlay(pair.image, _map(pair, view)) for view in views]
        cards.append(_card(shard, row, pair, views, overlays, side, predictions and predictions(position)))
        tiles.append(np.hstack([_resized(pair.image, sheet_side), _resized(overlays[0], sheet_side)]))

    gallery = Gallery(output / PAGE, output / CONTACT_SHEET, len(cards))
    write_atomically(gallery.contact_sheet, _contact_sheet(tiles, cards))
    # names from a stranger's file may hold what UTF-8 cannot
    write_atomically(
        gallery.page, _html(data, views, cards, title or data.path.resolve().name).encode("utf-8", "replace")
    )
    return gallery


def _views(data: ShardFolder, method: str | None) -> list[View]:
    if not data.methods:
        raise SalpipeError(f"{data.path} holds no saliency maps; run 'salpipe generate' with a method")
    if method is not None and method not in data.methods:
        raise SalpipeError(f"{data.path} holds no maps of '{method}'; it holds {', '.join(data.methods)}")
    ranked = str(data.provenance.get("target", "")).startswith("top:")
    views = []
    for name in data.methods if method is None else (method,):
        for target in range(data.header.maps[name].targets):
            several = data.header.maps[name].targets > 1
            which = f" · {'top' if ranked else 'target'} {target + 1}" if several else ""
            views.append(View(name, target, name + which))
    return views


def _map(pair: Pair, view: View) -> npt.NDArray[np.float32]:
    found: npt.NDArray[np.float32] = pair.maps[view.method][view.target]
    return found


def _card(
    shard: Shard,
    row: int,
    pair: Pair,
    views: Sequence[View],
    pictures: Sequence[npt.NDArray[np.uint8]],
    side: int,
    given: Predictions | None,
) -> Card:
    names = _source_classes(shard.provenance)
    first = int(pair.prediction_class[0])
    predicted = tuple(
        (_class_name(names, index), score if math.isfinite(score) else 0.0)
        for index, score in zip(pair.prediction_class.tolist(), pair.prediction_score.tolist(), strict=True)
        if index >= 0
    )
    overlays = []
    for view, picture in zip(views, pictures, strict=True):
        explained = int(pair.targets[view.method][view.target])
        bits = int(shard.flags(view.method, [row])[0, view.target])
        # an all-zero map is constant as well, which goes without saying
        said = bits & ~CONSTANT if bits & ~(SINGLE_COLOR | SEEN) == ALL_ZERO | CONSTANT else bits
        shown = tuple(text for bit, text in _FLAGS if said & bit)
        name = _class_name(names, explained)
        # another network numbers its classes in its own way
        same = explained == first if given is None else name in {text.partition(",")[0] for text, _ in given[:1]}
        signed = bool((_map(pair, view) < 0).any())
        overlays.append(Overlay(_data_uri(_resized(picture, side)), None if same else name, signed, shown))
    height, width = pair.source_size
    return Card(
        key=pair.key,
        label=pair.class_name,
        split=Split(pair.split).name.lower() if pair.split in (0, 1, 2) else None,
        source_size=f"{width} × {height}",
        predictions=predicted if given is None else given,
        photo=_data_uri(_resized(pair.image, side)),
        overlays=tuple(overlays),
    )


def _html(data: ShardFolder, views: Sequence[View], cards: Sequence[Card], title: str) -> str:
    labeled = any(card.label is not None for card in cards)
    groups = [_group(card, labeled) for card in cards]
    found = Counter(groups)
    # in label order where there are labels, else the most frequent first
    names = (
        [name for name in [*data.classes, None] if name in found] if labeled else [n for n, _ in found.most_common()]
    )
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((files(__package__) / PAGE).read_text(encoding="utf-8"))
    return template.render(
        title=title,
        total=len(data),
        facts=_facts(data, views),
        cards=list(zip(cards, groups, strict=True)),
        groups=[(name or "(unlabeled)", found[name], number) for number, name in enumerate(names)],
        numbers={name: number for number, name in enumerate(names)},
        grouped_by="Class" if labeled else "Predicted class",
        views=views,
        legends=[_legend(any(card.overlays[number].signed for card in cards)) for number in range(len(views))],
    )


def _legend(signed: bool) -> tuple[str, str, str]:
    """What the weak end of the colors means, the colors as the steps of a CSS gradient, and the strong end."""
    values = np.linspace(-1 if signed else 0, 1, 13, dtype=np.float32)
    steps = ", ".join(f"rgb({red} {green} {blue})" for red, green, blue in colors(values[None])[0].tolist())
    return ("against", steps, "for") if signed else ("low", steps, "high")


def _group(card: Card, labeled: bool) -> str | None:
    """What the class filter files an image under: its label, or the prediction where the data set has none."""
    return card.label if labeled or not card.predictions else card.predictions[0][0]


def _facts(data: ShardFolder, views: Sequence[View]) -> list[tuple[str, str]]:
    """What the head of the page says about the data set, as far as its provenance tells."""
    provenance, source = data.provenance, data.provenance.get("source")
    source = source if isinstance(source, dict) else {}
    size = data.header.size
    methods = dict.fromkeys(view.method for view in views)
    facts = {
        "Images": f"{len(data):,}",
        "Classes": f"{len(data.classes):,}" if data.classes else "",
        "Source model": _words(source.get("model")),
        "Weights": _words(source.get("weights")),
        "Method": ", ".join(methods),
        "Layer": _words(source.get("layer")),
        "Target": _words(provenance.get("target")),
        "Precision": _words(provenance.get("precision")),
        "Back end": _words(provenance.get("backend")),
        "Frame": f"{size} × {size}",
    }
    return [(name, value) for name, value in facts.items() if value]


def _words(value: object) -> str:
    """A value of the provenance on one line; the empty string where it is no plain text or number."""
    return str(value)[:80] if isinstance(value, str | int | float) and not isinstance(value, bool) else ""


def _source_classes(provenance: dict[str, Any]) -> list[Any]:
    source = provenance.get("source")
    classes = source.get("classes") if isinstance(source, dict) else None
    return classes if isinstance(classes, list) else []


def _class_name(names: Sequence[Any], index: int) -> str:
    """A source class for people: its first synonym, or its number where the provenance has no name for it."""
    name = names[index] if 0 <= index < len(names) else None
    return name.partition(",")[0] if isinstance(name, str) and name else f"class {index}"


def _contact_sheet(tiles: Sequence[npt.NDArray[np.uint8]], cards: Sequence[Card]) -> bytes:
    captions = []
    for card in cards:
        name, score = card.predictions[0] if card.predictions else ("no prediction", 0.0)
        first = card.label or card.key
        captions.append(f"{_one_line(first)}\n{_one_line(name)} {score:.0%}" if card.predictions else _one_line(first))
    height, width = tiles[0].shape[:2]
    # about three wide to two high
    columns = max(1, round(math.sqrt(len(tiles) * (height + 60) / width * 3 / 2)))
    file = io.BytesIO()
    Image.fromarray(contact_sheet(tiles, columns, captions)).save(file, "PNG")
    return file.getvalue()


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _side(pixels: float, bounds: tuple[int, int], most: int | None) -> int:
    """Side of a square of so many pixels within bounds, and no greater than `most`."""
    side = min(bounds[1], max(bounds[0], round(math.sqrt(pixels))))
    return side if most is None else min(side, most)


def _resized(picture: npt.NDArray[np.uint8], side: int) -> npt.NDArray[np.uint8]:
    if picture.shape[0] == side:
        return picture
    return np.asarray(Image.fromarray(picture).resize((side, side), Image.Resampling.LANCZOS))


def _data_uri(picture: npt.NDArray[np.uint8]) -> str:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=82, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode("ascii")
