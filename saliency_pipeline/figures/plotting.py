"""Palette, panels, labels and files of all matplotlib figures.

Figures use matplotlib's object interface, never pyplot: no window, no global state, and any thread may plot.
"""

from __future__ import annotations

import io
import unicodedata
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator

from saliency_pipeline.figures.pictures import data_uri
from saliency_pipeline.files import write_atomically
from saliency_pipeline.folders import make_output, make_subfolder
from saliency_pipeline.temporaries import remove_stale_temporaries

# of Okabe and Ito's palette, distinguishable by color-blind readers and in gray
BLUE = "#0072B2"
ORANGE = "#D55E00"
GRAY = "#6b6b6b"
ROPE = "#e4ecf3"
"""Shade of the region of practical equivalence."""

FONT = "DejaVu Sans"
"""Part of matplotlib, so that figures do not depend on the machine's fonts."""

VERBATIM: dict[str, Any] = {"parse_math": False, "usetex": False, "fontfamily": FONT}
"""Options of a text that users wrote: a dollar sign is a dollar sign."""

FEW_POINTS = 12
"""Maximum number of points for which a line has markers."""

LONGEST_NAME = 28
"""Maximum number of characters of a name in a figure."""

PICTURES = "figures"
"""Folder of a report's figures."""

_DPI = 200
_MISSING = "\N{WHITE SQUARE}"


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, in inches, whose panels make room for their labels."""
    return Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.08))


def frame(axes: Axes, title: str, grid: str = "y", color: str = "black") -> None:
    """Style shared by all panels: the quantity above the panel, a light grid, no box."""
    axes.set_title(title, loc="left", fontsize=11, color=color, **VERBATIM)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x" if grid == "x" else "y", color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=10)


def epoch_axis(axes: Axes) -> None:
    """Label the horizontal axis as epochs, with whole numbers."""
    axes.set_xlabel("epoch")
    axes.set_xmargin(0.02)
    axes.xaxis.set_major_locator(MaxNLocator(10, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))


def label_text(text: str, longest: int = 80) -> str:
    r"""A text as one line of at most `longest` characters, with a square per character that the font lacks.

    >>> label_text("R&D\n$5 猫")
    'R&D $5 □'
    >>> label_text("a long name", 7)
    'a long…'
    """
    text = " ".join(text.split())
    # control characters and direction marks are invisible
    text = "".join(c for c in text if unicodedata.category(c) not in ("Cc", "Cf"))
    text = "".join(c if _font().get_char_index(ord(c)) else _MISSING for c in text)
    return text if len(text) <= longest else text[: longest - 1].rstrip() + "…"


def shortened(name: str, longest: int = LONGEST_NAME) -> str:
    """A name in one line, without its middle if it is long: the ends of long names often distinguish them.

    >>> shortened("a-candidate-with-a-long-name-mismatched", 24)
    'a-candidat…me-mismatched'
    """
    text = label_text(name, 1000)
    if len(text) <= longest:
        return text
    end = 3 * (longest - 1) // 5
    return f"{text[: longest - 1 - end]}…{text[len(text) - end :]}"


def write_png(figure: Figure, path: Path, *, dpi: int = _DPI, tight: bool = False) -> None:
    """Write a figure as a PNG, atomically; `tight` crops or grows it to its content.

    Raises:
        SalpipeError: the file cannot be written.
    """
    canvas, file = FigureCanvasAgg(figure), io.BytesIO()
    if tight:
        figure.savefig(file, format="png", dpi=dpi, facecolor="white", bbox_inches="tight")
    else:
        # what `savefig` would do, but drawn once
        figure.set_dpi(dpi)
        canvas.print_png(file)  # type: ignore[no-untyped-call]
    write_atomically(path, file.getvalue())


def write_svg(figure: Figure, path: Path) -> bytes:
    """Write a figure as an SVG, atomically, and return its content; the same figure gives the same bytes.

    Raises:
        SalpipeError: the file cannot be written.
    """
    text = io.StringIO()
    # the names of clip paths are random without a salt, and the metadata holds the date
    with matplotlib.rc_context({"svg.hashsalt": "salpipe"}):
        FigureCanvasSVG(figure).print_svg(text, metadata={"Date": None})  # type: ignore[no-untyped-call]
    write_atomically(path, text.getvalue())
    return text.getvalue().encode()


def make_report_folder(folder: Path) -> None:
    """Create the folder of a report and its subfolder `PICTURES`, and remove what killed runs left there.

    Raises:
        SalpipeError: one cannot be created, or the subfolder is a link.
    """
    make_output(folder)
    make_subfolder(folder / PICTURES)
    remove_stale_temporaries(folder / PICTURES)


def picture_of(folder: Path, name: str, figure: Figure | None) -> str | None:
    """Write a figure of a report as PNG and SVG, and return the SVG as a data URI; without one, remove older files.

    Args:
        folder: folder of the report; the files are in its subfolder `PICTURES`.
        name: name of the files, without an ending.
        figure: the figure, or None.

    Raises:
        SalpipeError: a file cannot be written.
    """
    paths = [folder / PICTURES / f"{name}.{ending}" for ending in ("png", "svg")]
    if figure is None:
        for path in paths:
            path.unlink(missing_ok=True)
        return None
    write_png(figure, paths[0])
    # where the PNG has everything: laying it out again takes as long as drawing it
    figure.set_layout_engine("none")
    return data_uri(write_svg(figure, paths[1]), "svg+xml")


@cache
def _font() -> FT2Font:
    return FT2Font(str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")))
