"""`Explanation`: the maps of one image with the prediction that they explain, and the ways to look at them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.figures.pictures import Pixels, data_uri, jpeg, png
from saliency_pipeline.files import write_atomically
from saliency_pipeline.folders import make_output
from saliency_pipeline.saliency.methods.method import Method
from saliency_pipeline.saliency.methods.registry import find_methods
from saliency_pipeline.saliency.render import overlay
from saliency_pipeline.settings import settings_of
from saliency_pipeline.text import plural, printable, shown

if TYPE_CHECKING:
    from PIL import Image

FORMATS = (".png", ".html", ".npz")
MINUS = "\N{MINUS SIGN}"


@dataclass(frozen=True)
class ClassScore:
    """A class of the source model and its score for an image.

    Attributes:
        index: index of the logit.
        name: first of its names.
        score: softmax, in [0, 1].
    """

    index: int
    name: str
    score: float

    def __str__(self) -> str:
        return f"{self.name} {percent(self.score)}"


@dataclass(frozen=True, eq=False, repr=False)
class Explanation:
    """Saliency maps of one image by one or several methods, for one or several classes (targets).

    Attributes:
        name: file name of the image, or `image` for one in memory.
        frame: what the source model saw, (S, S, 3) uint8 RGB.
        top: the up to five classes of the highest scores.
        targets: the T explained classes.
        maps: canonical name of a method to its raw maps (T, h, w) float32; (1, h, w) where no class is explained.
        residuals: by method (T,) float32, sum of each map minus the number that it should be, where one is known.
        methods: the methods by canonical name, in the order of `maps`.
        facts: description of the source model by name, for display.
        standard_errors: by method (T,) float32, Monte Carlo standard error of each map relative to its range, where
            maps are means over random masks.
    """

    name: str
    frame: Pixels
    top: tuple[ClassScore, ...]
    targets: tuple[ClassScore, ...]
    maps: dict[str, npt.NDArray[np.float32]]
    residuals: dict[str, npt.NDArray[np.float32]]
    methods: dict[str, Method]
    facts: dict[str, str] = field(default_factory=dict)
    standard_errors: dict[str, npt.NDArray[np.float32]] = field(default_factory=dict)

    @property
    def prediction(self) -> ClassScore:
        """The predicted class, of the highest score."""
        return self.top[0]

    def map(self, method: str | None = None, target: int = 0) -> npt.NDArray[np.float32]:
        """One raw map, (h, w) float32.

        Args:
            method: name of a method, of which only one may be present, or its canonical name; the first one without.
            target: position in `targets`.

        Raises:
            SalpipeError: there is no such map.
        """
        name = self._canonical(method)
        if not 0 <= target < len(self.targets):
            raise SalpipeError(f"target {target}: use a number from 0 to {len(self.targets) - 1}")
        saliency: npt.NDArray[np.float32] = self.maps[name][target if self.methods[name].class_specific else 0]
        return saliency

    def overlay(self, method: str | None = None, target: int = 0) -> Image.Image:
        """One map over the frame, a picture of Pillow with the frame's resolution.

        Args:
            method: as for `map`.
            target: position in `targets`.

        Raises:
            SalpipeError: there is no such map.
        """
        from PIL import Image

        return Image.fromarray(overlay(self.frame, self.map(method, target)))

    def save(self, path: Path | str) -> Path:
        """Write a picture (.png), a self-contained page (.html) or the raw maps (.npz), and return the path.

        The picture and the page show the methods side by side: a row per target, a column per method. The arrays of
        an .npz are `frame`, `targets` (T,) int32, and `maps/NAME` for each method.

        Raises:
            SalpipeError: another ending, or the file cannot be written.
        """
        return save([self], path)

    def label(self, method: str) -> tuple[str, str]:
        """The name of a method, and those of its parameters that are not the default; for display."""
        own, default = self.methods[method], type(self.methods[method])
        usual = {name: field.default for name, (field, _) in settings_of(default).items()}
        others = (f"{name}={value}" for name, value in own.parameters.items() if value != usual[name])
        parameters = ", ".join(others)
        # a family such as captum's has its member in the canonical name
        family = own.canonical != own.name and not own.canonical.partition(":")[2].count("=")
        return (method, "") if family else (own.name, parameters)

    def _canonical(self, method: str | None) -> str:
        if method is None:
            return next(iter(self.maps))
        if method in self.maps:
            return method
        names = [name for name, own in self.methods.items() if own.name == method]
        if not names:
            names = [own.canonical for own in find_methods([method]) if own.canonical in self.maps]
        if len(names) != 1:
            problem = "several of that name" if names else "not computed"
            raise SalpipeError(f"method {method}: {problem}; choose from {', '.join(names or self.maps)}")
        return names[0]

    def __repr__(self) -> str:
        return f"Explanation({self.name}: {self.prediction}; {', '.join(self.maps)})"

    def _repr_html_(self) -> str:
        return _html([self])


class Explanations(tuple[Explanation, ...]):
    """The explanations of several images, in their order: a tuple that can be saved and shown as a whole."""

    __slots__ = ()

    def save(self, path: Path | str) -> Path:
        """Write one picture, page or file of maps of all, as `Explanation.save`; arrays begin with an axis of images.

        Raises:
            SalpipeError: there are none, another ending, or the file cannot be written.
        """
        return save(self, path)

    def _repr_html_(self) -> str:
        return _html(self)


def check_output_file(path: Path | str) -> Path:
    """Check the ending of a file that explanations are saved to.

    Raises:
        SalpipeError: it is none of `FORMATS`.
    """
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        raise SalpipeError(f"{shown(path)}: use a name that ends in {', '.join(FORMATS[:-1])} or {FORMATS[-1]}")
    return path


def save(explanations: Sequence[Explanation], path: Path | str) -> Path:
    """Write explanations of the same methods; see `Explanation.save`.

    Raises:
        SalpipeError: no explanations, another ending, or the file cannot be written.
    """
    path = check_output_file(path)
    if not explanations:
        raise SalpipeError(f"{shown(path)}: there are no images to save; explain at least one")
    make_output(path.parent, path)
    if path.suffix.lower() == ".npz":
        write_atomically(path, _arrays(explanations))
    elif path.suffix.lower() == ".png":
        from saliency_pipeline.explanation.side_by_side import side_by_side

        write_atomically(path, png(side_by_side(explanations)))
    else:
        from saliency_pipeline.explanation.page import write_page

        write_page(path, explanations)
    return path


def percent(score: float) -> str:
    """A score for people, such as 87%, with one digit after the point where it is small."""
    return f"{score:.0%}" if score >= 0.0995 else f"{score:.1%}"


def signed(value: float) -> str:
    """A difference for people, such as −0.12."""
    return f"{value:+.2g}".replace("-", MINUS)


def _arrays(explanations: Sequence[Explanation]) -> bytes:
    arrays: dict[str, list[npt.NDArray[Any]]] = {
        "frame": [each.frame for each in explanations],
        "targets": [np.array([target.index for target in each.targets], np.int32) for each in explanations],
        **{f"maps/{name}": [each.maps[name] for each in explanations] for name in explanations[0].maps},
        **{f"residuals/{name}": [each.residuals[name] for each in explanations] for name in explanations[0].residuals},
        **{
            f"standard_errors/{name}": [each.standard_errors[name] for each in explanations]
            for name in explanations[0].standard_errors
        },
    }
    single = not isinstance(explanations, Explanations)
    file = io.BytesIO()
    stacked: dict[str, Any] = {name: rows[0] if single else np.stack(rows) for name, rows in arrays.items()}
    np.savez_compressed(file, **stacked)
    return file.getvalue()


def _html(explanations: Sequence[Explanation]) -> str:
    """A fragment of HTML for notebooks, which needs no other file."""
    from saliency_pipeline.explanation.side_by_side import side_by_side

    if not explanations:
        return "<p>no images</p>"
    first = explanations[0]
    caption = f"{first.name}: {first.prediction}" if len(explanations) == 1 else plural(len(explanations), "image")
    text = escape(printable(f"{caption}; {', '.join(first.maps)}"))
    picture = data_uri(jpeg(side_by_side(explanations), 90))
    return (
        f'<figure style="margin:0"><img src="{picture}" alt="{text}" style="max-width:100%">'
        f"<figcaption>{text}</figcaption></figure>"
    )
