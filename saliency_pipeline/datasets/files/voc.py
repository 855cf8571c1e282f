"""Annotations of objects in PASCAL VOC's XML form, parsed without expanding or loading anything."""

from __future__ import annotations

from collections.abc import Iterator
from xml.etree.ElementTree import XML, Element, ParseError, XMLParser

MAX_XML_BYTES = 2**18
"""Largest file, of a thousand boxes. Files have 500 bytes and rarely more than a few boxes."""

CORNERS = ("xmin", "ymin", "xmax", "ymax")


def parse_annotation(data: bytes | None) -> Element:
    """The `annotation` element of a file.

    Args:
        data: contents of the file; None if it cannot be read.

    Raises:
        ValueError: the file is damaged, too large or something else; the message is the reason.
    """
    if data is None or len(data) > MAX_XML_BYTES:
        raise ValueError("cannot be read, or is too large for an image's boxes")
    # entities are declared in document types alone: without one nothing is expanded or loaded
    if b"<!DOCTYPE" in data.replace(b"\0", b""):  # the parser also reads UTF-16
        raise ValueError("has a document type, as no file of boxes should")
    try:
        root = XML(data, XMLParser(encoding="utf-8"))
    except ParseError:
        raise ValueError("no well-formed XML") from None
    if root.tag != "annotation":
        raise ValueError("no annotation in PASCAL VOC's form")
    return root


def objects(annotation: Element) -> Iterator[tuple[str, list[str]]]:
    """Name and texts of the four corners, in the order of `CORNERS`, of each object; missing ones are empty."""
    for item in annotation.iterfind("object"):
        # of several names or boxes in an object the last one counts
        name = ([part.text or "" for part in item.iterfind("name")] or [""])[-1].strip()
        texts = {part.tag: part.text or "" for part in item.iterfind("*/*")}
        yield name, [texts.get(corner, "").strip() for corner in CORNERS]
