"""Figures of a run: written atomically, plotted from the values that exist, with texts shown verbatim."""

import math
import os
import threading
import warnings
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from PIL import Image

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.figures.plotting import BLUE, ORANGE
from saliency_pipeline.training.curves import column, plot_curves, plot_lr_find
from tests import rare

Row = dict[str, float]


def epochs(count: int) -> list[Row]:
    return [
        {
            "epoch": e,
            "train_loss": 2 / e,
            "train_top1": 1 - 0.8 / e,
            "validation_loss": 2 / e + 0.3,
            "validation_top1": 0.9 - 0.7 / e,
            "validation_top5": 1.0,
            "validation_macro_f1": 0.5,
            "lr": 1e-4,
            "seconds": 3.0,
            "images_per_second": 100.0,
            "wait_share": 0.01,
        }
        for e in range(1, count + 1)
    ]


def picture(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def share_of(pixels: np.ndarray, color: str) -> float:
    wanted = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    return float((abs(pixels.astype(int) - wanted).max(axis=2) < 4).mean())


@pytest.mark.parametrize("count", [1, 12, 200, *rare(2, 13)])
def test_curves_of_any_length_show_both_parts(count: int, tmp_path: Path) -> None:
    plot_curves(epochs(count), tmp_path / "curves.png", "baseline")
    pixels = picture(tmp_path / "curves.png")
    assert pixels.shape == (1800, 1600, 3)
    assert share_of(pixels, BLUE) > 1e-4
    assert share_of(pixels, ORANGE) > 1e-4
    assert os.listdir(tmp_path) == ["curves.png"]


def test_without_train_top1_that_line_alone_is_missing(tmp_path: Path) -> None:
    rows = epochs(20)
    plot_curves(rows, tmp_path / "all.png", "run")
    plot_curves([{k: v for k, v in row.items() if k != "train_top1"} for row in rows], tmp_path / "some.png", "run")
    whole, some = picture(tmp_path / "all.png"), picture(tmp_path / "some.png")
    assert (whole[:720] == some[:720]).all()
    middle = slice(800, 1350)
    assert share_of(some[middle], BLUE) == 0 < share_of(whole[middle], BLUE)
    assert share_of(some[middle], ORANGE) == pytest.approx(share_of(whole[middle], ORANGE), rel=0.2)


@pytest.mark.parametrize("value", [None, math.nan, *rare(math.inf, -math.inf)])
def test_values_that_are_not_finite_leave_a_gap(value: float, tmp_path: Path) -> None:
    rows = epochs(5)
    for key in ("train_loss", "validation_loss", "validation_top1", "lr"):
        rows[3][key] = value
    plot_curves(rows, tmp_path / "gap.png", "gap")
    assert share_of(picture(tmp_path / "gap.png"), ORANGE) > 1e-4


@pytest.mark.parametrize("rows", [[], [{"epoch": 1}], [{"epoch": 1, "lr": 0.0}]])
def test_nothing_to_draw_is_an_empty_picture(rows: list[Row], tmp_path: Path) -> None:
    plot_curves(rows, tmp_path / "none.png", "none")
    assert share_of(picture(tmp_path / "none.png"), ORANGE) == 0


def test_the_best_epoch_is_the_first_of_equals_and_marked(tmp_path: Path) -> None:
    rows = epochs(30)
    for row in rows:
        row["validation_top1"] = 0.5
    rows[10]["validation_top1"] = rows[20]["validation_top1"] = 0.8
    plot_curves(rows, tmp_path / "tie.png", "tie")
    rows[20]["validation_top1"] = 0.5
    plot_curves(rows, tmp_path / "first.png", "tie")
    rows[20]["validation_top1"], rows[10]["validation_top1"] = 0.8, 0.5
    plot_curves(rows, tmp_path / "second.png", "tie")
    # the panels of the loss differ only in the position of the marker
    tie, first, second = (picture(tmp_path / f"{name}.png")[:720] for name in ("tie", "first", "second"))
    assert (tie == first).all()
    assert (tie != second).any()


def test_columns_hold_nan_where_a_row_has_nothing() -> None:
    values = column([{"a": 1}, {}, {"a": math.inf}, {"a": 2.5}], "a")
    assert np.isnan(values).tolist() == [False, True, True, False]
    assert values[[0, 3]].tolist() == [1, 2.5]


@pytest.mark.parametrize("suggestion", [None, 3e-3, *rare(1e-5, 0.5)])
def test_range_tests_are_plotted(suggestion: float | None, tmp_path: Path) -> None:
    rates = np.logspace(-6, 0, 50)
    losses = [2.3 - 0.02 * i if i < 40 else 10.0**i for i in range(48)] + [math.inf, math.nan]
    plot_lr_find(rates.tolist(), losses, suggestion, tmp_path / "lr.png")
    pixels = picture(tmp_path / "lr.png")
    assert share_of(pixels, BLUE) > 1e-3
    assert (share_of(pixels, ORANGE) > 1e-4) == (suggestion is not None)


@pytest.mark.parametrize("losses", [[2.0], [], *rare([1.0, 1.0], [0.0, 0.0], [math.nan, math.nan])])
def test_short_and_flat_range_tests_are_plotted(losses: list[float], tmp_path: Path) -> None:
    plot_lr_find([1e-4, 1e-3][: len(losses)], losses, None, tmp_path / "lr.png")
    assert picture(tmp_path / "lr.png").shape == (900, 1600, 3)


TITLES = [
    "$\\frac{1}{0}$",
    "$5 and 10$",
    "_^{",
    "<b>&amp;",
    "猫 और",
    "مرحبا",
    "\ud800 lone",
    "\x00\x1b[31m",
    "line\nbreak\ttab",
    "e\u0301 \u200b\u202e",
    "😀",
    "\U0010ffff",
    "",
    "x" * 500,
]


@pytest.mark.parametrize("title", [*TITLES[:2], *rare(*TITLES[2:])], ids=ascii)
def test_titles_are_verbatim(title: str, tmp_path: Path) -> None:
    plot_curves(epochs(2), tmp_path / "title.png", title)
    assert picture(tmp_path / "title.png").shape == (1800, 1600, 3)


def test_a_picture_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    with pytest.raises(SalpipeError, match=r"cannot write .*no/curves\.png"):
        plot_curves(epochs(1), tmp_path / "no" / "curves.png", "x")
    assert os.listdir(tmp_path) == []


def test_no_global_state_is_touched(tmp_path: Path) -> None:
    before, filters = dict(matplotlib.rcParams), list(warnings.filters)
    plot_curves(epochs(3), tmp_path / "curves.png", "x")
    plot_lr_find([1e-3, 1e-2], [1.0, 2.0], 1e-3, tmp_path / "lr.png")
    assert dict(matplotlib.rcParams) == before
    assert list(warnings.filters) == filters


def test_the_same_rows_give_the_same_bytes_in_any_thread(tmp_path: Path) -> None:
    plot_curves(epochs(4), tmp_path / "here.png", "x")
    thread = threading.Thread(target=plot_curves, args=(epochs(4), tmp_path / "there.png", "x"))
    thread.start()
    thread.join()
    assert (tmp_path / "here.png").read_bytes() == (tmp_path / "there.png").read_bytes()
