"""Figures: labels show any text, files are written atomically and are the same every time."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.figures.plotting import VERBATIM, label_text, new_figure, write_png, write_svg


def test_any_character_can_be_plotted(tmp_path: Path) -> None:
    figure = Figure(figsize=(10, 10))
    every = [chr(code) for code in range(0, 0x30000, 13)]
    for row, start in enumerate(range(0, len(every), 250)):
        figure.text(0, row / 70, label_text("".join(every[start : start + 250]), 250), **VERBATIM)
    write_png(figure, tmp_path / "all.png", dpi=50)
    with Image.open(tmp_path / "all.png") as image:
        assert image.size == (500, 500)
        assert np.asarray(image.convert("L")).min() < 100


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a\nb\r\n\tc", "a b c"),
        ("Ärmel ß", "Ärmel ß"),
        ("猫$", "□$"),
        ("a\u202eb", "ab"),
        ("x" * 10, "x" * 10),
        ("x" * 11, "x" * 9 + "…"),
    ],
)
def test_labels_are_short_and_printable(text: str, wanted: str) -> None:
    assert label_text(text, 10) == wanted


def test_an_svg_is_the_same_every_time(tmp_path: Path) -> None:
    files = []
    for name in ("a.svg", "b.svg"):
        figure = new_figure(3, 2)
        figure.subplots().plot([1, 2], clip_on=True)
        files.append(write_svg(figure, tmp_path / name))
        assert (tmp_path / name).read_bytes() == files[-1]
    assert files[0] == files[1]
    assert files[0].startswith(b"<?xml")


@pytest.mark.parametrize("write", [write_png, write_svg])
def test_a_file_that_cannot_be_written_is_named(tmp_path: Path, write: object) -> None:
    with pytest.raises(SalpipeError, match=r"cannot write .*no/figure"):
        write(new_figure(1, 1), tmp_path / "no" / "figure")  # type: ignore[operator]
    assert os.listdir(tmp_path) == []


def test_pyplot_is_never_imported() -> None:
    code = "import sys, saliency_pipeline.figures.plotting; sys.exit('matplotlib.pyplot' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("module", ["pages", "pictures"])
def test_pages_and_pictures_do_not_import_matplotlib(module: str) -> None:
    code = f"import sys, saliency_pipeline.figures.{module}; sys.exit('matplotlib' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
