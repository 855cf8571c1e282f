"""Interface of the layouts of data sets: a name, a recognizer and a reader."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from saliency_pipeline.images.record import Catalogue


@dataclass(frozen=True)
class ReadOptions:
    """What the user may say about how a data set is read; every layout takes what concerns it.

    Attributes:
        label_level: plain folders: which level of folders names the class, 0 for unlabeled images.
        noise: Imagenette and Imagewoof: percentage of wrong training labels, 0, 1, 5, 25 or 50.
        list: PubFig: a list of URLs, where it does not lie in the folder.
        crop: PubFig: whether faces are cut out where their rectangle is known.
        margin: PubFig: how much of a rectangle's width and height is added on each side; at least 0.
    """

    label_level: int = 1
    noise: int = 0
    list: Path | None = None
    crop: bool = True
    margin: float = 0.0


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
