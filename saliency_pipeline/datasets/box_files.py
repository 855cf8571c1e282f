"""Boxes of objects from a file beside a data set: a CSV table, PASCAL VOC's XML files or COCO's JSON."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

from saliency_pipeline.datasets.files.errors import file_errors_explained
from saliency_pipeline.datasets.files.lines import Lines
from saliency_pipeline.datasets.files.voc import CORNERS, MAX_XML_BYTES, objects, parse_annotation
from saliency_pipeline.datasets.files.walk import files_below
from saliency_pipeline.datasets.joining import join_names, unmatched
from saliency_pipeline.documents import DocumentError, open_regular, read_json
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.images.record import Box, Catalogue, ImageRecord
from saliency_pipeline.text import plural, shown

MAX_JSON_BYTES = 2**29
"""Largest COCO file. instances_train2017.json has 448 MB, and takes ten times that in memory while it is read."""

MAX_COORDINATE = 10**6
"""Largest coordinate in pixels, beyond any image."""

_NAMES = ("file", "filename")


@dataclass
class _Annotated:
    """Boxes of one image: where they are from, the width and height that the file states, or None, and the boxes."""

    where: str
    size: tuple[int, int] | None
    boxes: list[Box] = field(default_factory=list)


def with_boxes(catalogue: Catalogue, path: str | os.PathLike[str], note: Callable[[str], None]) -> Catalogue:
    """A catalogue with the boxes of a file; images that the file does not name keep those of the data set, if any.

    See `read_boxes` for the formats, and `joining.join_names` for which image is meant.

    Args:
        catalogue: all images of a data set, before any are selected.
        path: the file, or a folder of XML files.
        note: receives the number of images with boxes, of images without, of boxes partly outside, and of names of no
            image.

    Raises:
        SalpipeError: the file cannot be read, a box is impossible, no name is that of an image, or only regions of the
            images are used.
    """
    refuse_regions(catalogue, "--boxes")
    annotated, stems = read_boxes(path)
    keys = [record.key for record in catalogue.records]
    matches = join_names({name: own.where for name, own in annotated.items()}, keys, stems=stems)
    others = [name for name in annotated if name not in matches]
    if not matches:
        named = f"it names {unmatched(others, keys)}" if others else "it names none"
        raise SalpipeError(
            f"{shown(os.fspath(path))}: boxes of none of the images of {shown(catalogue.root)} ({named}; an image is "
            f"{shown(keys[0])}); name images by their path in the data set"
        )
    records = list(catalogue.records)
    replaced = 0
    for name, place in matches.items():
        own, record = annotated[name], records[place]
        replaced += bool(record.boxes)
        records[place] = replace(record, boxes=tuple(dict.fromkeys(own.boxes)), boxes_size=own.size)
    lines = [f"{shown(os.fspath(path))}: boxes of {plural(len(matches), 'image')}"]
    if bare := sum(not record.boxes for record in records):
        lines.append(f"{plural(bare, 'image')} without a box ({_first(r.key for r in records if not r.boxes)})")
    if cut := sum(_is_cut(box, annotated[name].size) for name in matches for box in set(annotated[name].boxes)):
        lines.append(f"{plural(cut, 'box')} partly outside the image, of which the part inside is used")
    if others:
        lines.append(f"{plural(len(others), 'name')} of no image: {unmatched(others, keys)}")
    if replaced:
        lines.append(f"the data set has boxes of {plural(replaced, 'image')} of these, which are not used")
    note("; ".join(lines))
    return replace(catalogue, records=records)


def refuse_regions(catalogue: Catalogue, option: str) -> None:
    """Raise SalpipeError if frames show a region of an image: boxes and maps refer to the whole image."""
    if any(record.box is not None for record in catalogue.records):
        raise SalpipeError(
            f"{option}: refers to whole images, but {shown(catalogue.root)} is read with the regions of a list; add "
            "--no-crop"
        )


def boxes_digest(records: Iterable[ImageRecord]) -> dict[str, Any]:
    """Number of images with boxes and SHA-256 of these, as the provenance has them."""
    digest, images = hashlib.sha256(), 0
    for record in records:
        if record.boxes:
            images += 1
            digest.update(json.dumps([record.key, record.boxes, record.boxes_size]).encode() + b"\n")
    return {"images": images, "sha256": digest.hexdigest()}


def read_boxes(path: str | os.PathLike[str]) -> tuple[dict[str, _Annotated], bool]:
    """Boxes by name of the image, and whether names are without suffix.

    - `.csv`: columns `file` (or `filename`), `xmin`, `ymin`, `xmax`, `ymax` and optionally `width` and `height`, one
      row per box. Both corners are pixels of the box; decimals are cut off.
    - `.xml`, or a folder of such files at any depth: PASCAL VOC. A file belongs to the image of its own name, as its
      `filename` is often wrong. Corners as in a CSV file.
    - `.json`: COCO. `bbox` is x, y, width, height; pixels that it covers in part belong to the box. Crowds are skipped.

    Raises:
        SalpipeError: the file cannot be read, or a box has corners that are no numbers, reversed or outside the image;
            names file and line.
    """
    path = Path(path)
    if path.is_dir():
        return dict(_of_folder(path)), True
    readers = {".csv": _of_csv, ".json": _of_coco}
    if (suffix := path.suffix.lower()) in readers:
        return readers[suffix](path), False
    if suffix == ".xml":
        return {path.stem: _of_xml(path)}, True
    raise SalpipeError(
        f"{shown(str(path))}: not a file of boxes; give a .csv, .json or .xml file, or a folder of .xml files"
    )


def _of_csv(path: Path) -> dict[str, _Annotated]:
    lines = Lines(path)
    header = [cell.strip(' "') for _, text in _head(lines) for cell in text.split(",")]
    called = next((name for name in _NAMES if name in header), _NAMES[0])
    sized = "width" in header and "height" in header
    annotated: dict[str, _Annotated] = {}
    within, fractions = True, False
    for number, row in lines.rows(called, *CORNERS, *(("width", "height") if sized else ())):
        name, where = row[called].strip(), f"{shown(str(path))}:{number}"
        if not name:
            _fail(where, "no name of an image; name its file")
        corners = [row[corner].strip() for corner in CORNERS]
        size = _size(row["width"].strip(), row["height"].strip(), where) if sized else None
        own = annotated.setdefault(name, _Annotated(where, size))
        _add(own, _inclusive(corners, where), size, where)
        within = within and all(0 <= float(corner) <= 1 for corner in corners)
        fractions = fractions or not all(float(corner).is_integer() for corner in corners)
    if within and fractions:
        _fail(shown(str(path)), "all corners lie between 0 and 1; multiply them by the width and height in pixels")
    return annotated


def _head(lines: Lines) -> Iterator[tuple[int, str]]:
    for line in lines:
        yield line
        return


def _of_folder(path: Path) -> Iterator[tuple[str, _Annotated]]:
    files = 0
    for file, name in files_below(str(path), (".xml",)):
        files += 1
        yield name, _of_xml(Path(file))
    if not files:
        _fail(shown(str(path)), "no .xml file in this folder; give a .csv or .json file, or a folder of .xml files")


def _of_xml(path: Path) -> _Annotated:
    where = shown(str(path))
    with file_errors_explained(str(path)), open(path, "rb", opener=open_regular) as file:
        data = file.read(MAX_XML_BYTES + 1)
    try:
        annotation = parse_annotation(data)
    except ValueError as error:
        _fail(where, f"{error}; remove it, or write it again")
    width, height = (annotation.findtext(f"size/{side}", "").strip() for side in ("width", "height"))
    own = _Annotated(where, _size(width, height, where))
    for _, corners in objects(annotation):
        _add(own, _inclusive(corners, where), own.size, where)
    return own


def _of_coco(path: Path) -> dict[str, _Annotated]:
    where = shown(str(path))
    try:
        with file_errors_explained(str(path)):
            document = read_json(path, MAX_JSON_BYTES)
        images, annotations = document["images"], document["annotations"]
        names = {image["id"]: str(image["file_name"]) for image in images}
        sizes = {image["id"]: (image.get("width", 0), image.get("height", 0)) for image in images}
        rows = [(own["image_id"], own["bbox"]) for own in annotations if not own.get("iscrowd")]
    except DocumentError as error:
        _fail(where, f"{error}; give a COCO file")
    except (KeyError, TypeError, AttributeError):
        _fail(where, "not a COCO file; it has images (id, file_name) and annotations (image_id, bbox)")
    annotated: dict[str, _Annotated] = {}
    for number, (image, box) in enumerate(rows, 1):
        here = f"{where}: box {number:,}"
        if not isinstance(image, int | str) or image not in names:
            _fail(here, f"its image_id {image!r:.40} is that of no image; remove it")
        if not isinstance(box, list) or len(box) != 4 or not all(type(value) in (int, float) for value in box):
            _fail(here, f"{box!r:.60} is no bbox of four numbers x, y, width, height")
        width, height = map(str, sizes[image])
        size = _size(width, height, here)
        own = annotated.setdefault(names[image], _Annotated(here, size))
        _add(own, _extent(box, here), size, here)
    return annotated


def _size(width: str, height: str, where: str) -> tuple[int, int] | None:
    """The size of an image in a file, None where it is left open."""
    if width in ("", "0", "None") or height in ("", "0", "None"):
        return None
    if not all(text.isascii() and text.isdigit() and len(text) < 8 for text in (width, height)):
        _fail(where, f"width {shown(width[:20])} and height {shown(height[:20])} are no sizes in pixels")
    return int(width), int(height)


def _inclusive(corners: Sequence[str], where: str) -> Box:
    """The box of two corners that both belong to it, with an exclusive second corner."""
    try:
        numbers = [float(corner) for corner in corners]
    except ValueError:
        numbers = [math.nan]
    text = shown(", ".join(corners)[:60])
    if not all(abs(number) <= MAX_COORDINATE for number in numbers):
        _fail(where, f"the corners {text} are not four numbers of pixels")
    x0, y0, x1, y1 = map(math.floor, numbers)
    if x0 > x1 or y0 > y1:
        _fail(where, f"the corners {text} are reversed; give xmin, ymin, xmax, ymax")
    return x0, y0, x1 + 1, y1 + 1


def _extent(box: Sequence[float], where: str) -> Box:
    """The box of all pixels that x, y, width, height cover in part."""
    text = ", ".join(f"{number:g}" if isinstance(number, float) else str(number)[:20] for number in box)
    if not all(abs(number) <= MAX_COORDINATE for number in box):
        _fail(where, f"the bbox {text} is not four numbers of pixels")
    x, y, width, height = box
    if width <= 0 or height <= 0:
        _fail(where, f"the bbox {text} is empty; remove it")
    return math.floor(x), math.floor(y), math.ceil(x + width), math.ceil(y + height)


def _add(own: _Annotated, box: Box, size: tuple[int, int] | None, where: str) -> None:
    if size != own.size:
        _fail(where, f"another width and height than the image has in {own.where}; correct them")
    if size and (box[2] <= 0 or box[3] <= 0 or box[0] >= size[0] or box[1] >= size[1]):
        _fail(where, f"the box {', '.join(map(str, box))} lies outside the {size[0]} x {size[1]} image; remove it")
    own.boxes.append(box)


def _is_cut(box: Box, size: tuple[int, int] | None) -> bool:
    """Return whether a part of a box is outside its image; one pixel is a matter of counting from 0 or 1."""
    return size is not None and (min(box[:2]) < -1 or box[2] > size[0] + 1 or box[3] > size[1] + 1)


def _first(keys: Iterator[str]) -> str:
    names = [shown(key) for _, key in zip(range(4), keys, strict=False)]
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _fail(where: str, reason: str) -> NoReturn:
    raise SalpipeError(f"{where}: {reason}")
