"""The layout of a data set (its name, how it is recognized and read) and the settings of reading."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from saliency_pipeline.images.record import Catalogue
from saliency_pipeline.settings import check_settings, documented, setting


@documented
@dataclass(frozen=True)
class ReadOptions:
    """Options for reading a data set; each layout uses those that apply to it."""

    label_level: int = setting(
        1, "Plain folders: level of the folder that names the class; 0 for unlabeled images.", range=(0, 1000)
    )
    noise: int = setting(
        0,
        "Imagenette, Imagewoof: percentage of wrong training labels.",
        choices=(0, 1, 5, 25, 50),
        metavar="0|1|5|25|50",
    )
    list: Path | None = setting(None, "PubFig: list of URLs, if it is outside the folder.", metavar="FILE")  # noqa: RUF009
    crop: bool = setting(True, "PubFig: crop each image to the rectangle of its face, if there is one.")
    margin: float = setting(
        0.0,
        "PubFig: margin added on each side of a face, as a fraction of its width and height.",
        range=(0, 10),
        metavar="FRACTION",
    )

    def __post_init__(self) -> None:
        check_settings(self)


@dataclass(frozen=True)
class Layout:
    """A layout of data sets.

    Attributes:
        name: value of `--layout`.
        description: its files in a few words, for the documentation and messages.
        recognize: returns True if an absolute, existing path looks like this layout, by a few names and without
            reading images. Layouts with missing files are recognized too: `read` reports them.
        read: returns the catalogue; raises SalpipeError if something is missing or wrong.
    """

    name: str
    description: str
    recognize: Callable[[Path], bool]
    read: Callable[[Path, ReadOptions], Catalogue]
