"""Writes a gallery: a self-contained page, and a contact sheet of the same images."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from saliency_pipeline.datasets.nesting import refuse_among_images
from saliency_pipeline.figures import pages
from saliency_pipeline.figures.pictures import Pixels, png, resized
from saliency_pipeline.files import write_atomically
from saliency_pipeline.folders import make_output
from saliency_pipeline.gallery import COUNT
from saliency_pipeline.gallery.cards import Card, Predictions, View, make_card, make_views, target_title
from saliency_pipeline.gallery.selection import choose
from saliency_pipeline.generation.provenance import Provenance
from saliency_pipeline.recognition import refuse_shards
from saliency_pipeline.saliency.render import colors, contact_sheet
from saliency_pipeline.shards.reader import ShardFolder

PAGE, CONTACT_SHEET = "gallery.html", "contact-sheet.png"

# all JPEG files of a page with up to 4 pictures per image; base64 makes them a third larger
_PAGE_BYTES, _PICTURES = 2_200_000, 4
# with more they may take this many times as much
_LARGER = 4
_METHODS_NAMED = 3
# at quality 82: photographs take up to 0.2, the speckles of pixel gradients 0.3
_BYTES_PER_PIXEL = 0.3
_SIDES = (112, 320)
_SHEET_PIXELS = 6_000_000
_SHEET_SIDES = (32, 160)


@dataclass(frozen=True)
class Gallery:
    """Files of a gallery.

    Attributes:
        page: the HTML page.
        contact_sheet: the PNG picture of the same images.
        images: number of images shown.
    """

    page: Path
    contact_sheet: Path
    images: int


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
    """Write a gallery of a data set: `gallery.html`, which is self-contained, and `contact-sheet.png`.

    The images shown depend on the arguments alone, see `selection.choose`; only labels (with `keys`, keys) and the
    images shown are read.

    Args:
        folder: a folder that `salpipe generate` finished, or one shard file.
        output: folder to write to, created if missing; a gallery in it is replaced.
        count: maximum number of images, spread evenly over the classes.
        keys: keys of the images to show instead, in this order.
        class_name: show images of this class only.
        method: show the maps of this method only, by any spelling of its name, see `stored_method`; all stored methods
            by default.
        random: sample the images, each equally likely.
        seed: random seed of the sample.
        predictions: returns the predictions to show for the image at an index of the data set; the source model's
            by default.
        title: of the page; the folder's name by default.

    Raises:
        SalpipeError: no such folder, image, class or method, or the output cannot be written.
        IntegrityError: a shard is damaged.

    Example::

        page = show("shards", "gallery", class_name="cat").page  # gallery/gallery.html
    """
    data, output = ShardFolder(folder), Path(output)
    refuse_among_images(output, folder)
    refuse_shards(output)
    views = make_views(data, method)
    chosen = choose(data, count, keys=keys, class_name=class_name, random=random, seed=seed)
    make_output(output)
    pictures = 1 + len(views)
    page_bytes = _PAGE_BYTES * min(_LARGER, max(1, pictures / _PICTURES))
    side = min(_side(page_bytes / _BYTES_PER_PIXEL / (len(chosen) * pictures), _SIDES), data.header.size)
    sheet_side = _side(_SHEET_PIXELS / (2 * len(chosen)), _SHEET_SIDES)
    cards, tiles = [], []
    for position in chosen:
        number, row = data.locate(position)
        card, *images = make_card(data.shard(number), row, views, side, predictions and predictions(position))
        cards.append(card)
        tiles.append(np.hstack([resized(image, sheet_side) for image in images]))
    write_atomically(output / CONTACT_SHEET, _contact_sheet(tiles, cards))
    page = _write_page(output / PAGE, data, views, cards, title or data.path.resolve().name)
    return Gallery(page, output / CONTACT_SHEET, len(cards))


def _write_page(path: Path, data: ShardFolder, views: Sequence[View], cards: Sequence[Card], title: str) -> Path:
    labeled = any(card.label is not None for card in cards)
    groups = [_group(card, labeled) for card in cards]
    counts = Counter(groups)
    # in label order if there are labels, else the most frequent first
    names = (
        [name for name in [*data.classes, None] if name in counts] if labeled else [n for n, _ in counts.most_common()]
    )
    # the methods, each with the number of its first view and of its views
    first = {view.method: number - view.target for number, view in enumerate(views)}
    targets = Counter(view.method for view in views)
    return pages.write_page(
        path,
        pages.environment(__package__),
        PAGE,
        title=title,
        total=len(data),
        facts=_facts(data, views),
        cards=list(zip(cards, groups, strict=True)),
        groups=[(name or "(unlabeled)", counts[name], number) for number, name in enumerate(names)],
        numbers={name: number for number, name in enumerate(names)},
        grouped_by="Class" if labeled else "Predicted class",
        views=views,
        methods=[(name, number, targets[name]) for name, number in first.items()],
        targets=[target_title(data, target) for target in range(max(targets.values()))],
        legends=[
            _legend(view.signed or any(card.overlays[number].signed for card in cards))
            for number, view in enumerate(views)
        ],
    )


def _legend(signed: bool) -> tuple[str, str, str]:
    """Meaning of the weak end of the colors, the steps of a CSS gradient, and meaning of the strong end."""
    values = np.linspace(-1 if signed else 0, 1, 13, dtype=np.float32)
    steps = ", ".join(f"rgb({red} {green} {blue})" for red, green, blue in colors(values[None])[0].tolist())
    return ("against the class", steps, "for it") if signed else ("low", steps, "high")


def _group(card: Card, labeled: bool) -> str | None:
    """Group of an image in the class filter: its label, or its prediction if the data set is unlabeled."""
    return card.label if labeled or not card.predictions else card.predictions[0][0]


def _facts(data: ShardFolder, views: Sequence[View]) -> list[tuple[str, str]]:
    """Facts at the head of the page, as far as the provenance has them."""
    provenance, source, size = Provenance.from_json(data.provenance), data.source, data.header.size
    methods = list(dict.fromkeys(view.method for view in views))
    facts = {
        "Images": f"{len(data):,}",
        "Classes": f"{len(data.classes):,}" if data.classes else "",
        "Source model": _words(source.get("model")),
        "Weights": _words(source.get("weights")),
        "Method": ", ".join(methods) if len(methods) <= _METHODS_NAMED else "",
        "Methods": f"{len(methods)}" if len(methods) > _METHODS_NAMED else "",
        "Layer": _words(", ".join(provenance.layers)),
        "Target": _words(provenance.target),
        "Precision": _words(provenance.precision),
        "Backend": _words(provenance.backend),
        "Frame": f"{size} × {size}",
    }
    return [(name, value) for name, value in facts.items() if value]


def _words(value: object) -> str:
    """A value of the provenance as a short text; empty unless it is a text or number."""
    return str(value)[:80] if isinstance(value, str | int | float) and not isinstance(value, bool) else ""


def _contact_sheet(tiles: Sequence[Pixels], cards: Sequence[Card]) -> bytes:
    captions = []
    for card in cards:
        lines = [card.label or card.key, *(f"{name} {score:.0%}" for name, score in card.predictions[:1])]
        captions.append("\n".join(" ".join(line.split()) for line in lines))
    height, width = tiles[0].shape[:2]
    # an aspect ratio of about 3:2
    columns = max(1, round(math.sqrt(len(tiles) * (height + 60) / width * 3 / 2)))
    return png(contact_sheet(tiles, columns, captions))


def _side(pixels: float, bounds: tuple[int, int]) -> int:
    """Side of a square with a number of pixels, within bounds."""
    return min(bounds[1], max(bounds[0], round(math.sqrt(pixels))))
