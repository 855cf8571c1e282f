"""Confusion matrix and reliability diagram: sizes, colors, hostile names, and the files written."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.evaluation.figures import plot_confusion, plot_reliability, show_matrix
from saliency_pipeline.figures.plotting import new_figure
from saliency_pipeline.statistics.metrics import calibration

HOSTILE = (
    "$\\frac{1}{0}$",
    "$x",
    "_^{",
    "<script>alert(1)</script>",
    "猫 と 犬",
    "مرحبا",
    "a\nb\x00\x1b[31m",
    "\ud800",
    "😀" * 40,
    "W" * 300,
    "",
    "\u202eabc",
)
DARKEST, GRAY = (8, 48, 107), (221, 221, 221)


def picture(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB")).astype(int)


def pixels_of(pixels: np.ndarray, color: tuple[int, int, int]) -> int:
    return int((abs(pixels - color).max(axis=2) < 3).sum())


def plotted(confusion: np.ndarray, path: Path, names: tuple[str, ...] = ()) -> np.ndarray:
    plot_confusion(confusion, names or tuple(f"class {i}" for i in range(len(confusion))), path)
    assert os.listdir(path.parent) == [path.name]
    return picture(path)


@pytest.mark.slow
def test_the_picture_grows_with_the_classes(tmp_path: Path) -> None:
    heights = [len(plotted(np.eye(count, dtype=np.int64), tmp_path / "c.png")) for count in (1, 10, 25, 26, 60)]
    assert heights[0] < heights[1] < heights[2]
    assert heights[3] < heights[4]


def test_colors_follow_the_share_of_the_row_and_not_the_count(tmp_path: Path) -> None:
    few = plotted(np.diag([1, 5, 9]), tmp_path / "c.png")
    many = plotted(np.diag([1000, 5000, 9000]), tmp_path / "c.png")
    for pixels in (few, many):
        # three cells of (2.4 / 3 inches * 150 dots)² less their numbers
        assert pixels_of(pixels, DARKEST) == pytest.approx(3 * 120**2, rel=0.08)


def test_a_class_without_images_has_a_gray_row(tmp_path: Path) -> None:
    whole = plotted(np.diag([3, 3, 3]), tmp_path / "c.png")
    without = plotted(np.diag([3, 0, 3]), tmp_path / "c.png")
    assert pixels_of(whole, GRAY) < 500
    assert pixels_of(without, GRAY) == pytest.approx(3 * 120**2, rel=0.02)


def test_counts_are_written_up_to_25_classes(tmp_path: Path) -> None:
    # white numbers on the dark diagonal
    def white_on_the_diagonal(count: int) -> int:
        pixels = plotted(np.eye(count, dtype=np.int64), tmp_path / "c.png")
        rows, columns = np.nonzero(abs(pixels - DARKEST).max(axis=2) < 3)
        columns = columns[columns < 0.85 * pixels.shape[1]]
        first = pixels[rows.min() + 3 : rows.min() + 18, columns.min() + 3 : columns.min() + 18]
        if count <= 25:
            first = pixels[rows.min() : rows.min() + 70, columns.min() : columns.min() + 70]
        return pixels_of(first, (255, 255, 255))

    assert white_on_the_diagonal(25) > 0
    assert white_on_the_diagonal(26) == 0


def test_hostile_names_are_plotted_verbatim(tmp_path: Path) -> None:
    pixels = plotted(np.eye(len(HOSTILE), dtype=np.int64), tmp_path / "c.png", HOSTILE)
    # names are cut: the picture is not much larger than with short ones
    assert pixels.shape[1] < 2000
    assert pixels_of(pixels, DARKEST) > 1000


@pytest.mark.slow
def test_the_picture_of_several_hundred_classes_stays_within_its_limit(tmp_path: Path) -> None:
    names = tuple(f"{i} of a rather long kind of name" for i in range(400))
    generator = np.random.default_rng(0)
    pixels = plotted(generator.integers(0, 3, (400, 400)) + 50 * np.eye(400, dtype=np.int64), tmp_path / "c.png", names)
    assert max(pixels.shape) < 3800


@pytest.mark.slow
def test_huge_counts_stay_in_their_cells(tmp_path: Path) -> None:
    pixels = plotted(np.full((25, 25), 99_999_999), tmp_path / "c.png")
    assert pixels.shape[0] < 2400


def test_matrices_that_do_not_fit_the_names_are_a_defect(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected \(2, 2\) for 2 classes"):
        plot_confusion(np.eye(3, dtype=np.int64), ("a", "b"), tmp_path / "c.png")
    assert os.listdir(tmp_path) == []


def test_an_unwritable_folder_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(SalpipeError, match="cannot write"):
        plot_confusion(np.eye(2, dtype=np.int64), ("a", "b"), tmp_path / "no" / "c.png")


BLUE, ORANGE, DARK = (143, 193, 227), (213, 94, 0), (107, 107, 107)


def reliability(labels: np.ndarray, probabilities: np.ndarray, path: Path) -> np.ndarray:
    calibrated = calibration(labels, probabilities)
    plot_reliability([vars(one) for one in calibrated.bins], calibrated.ece, path)
    pixels = picture(path)
    assert pixels.shape == (1400, 1200, 3)
    return pixels


def test_perfect_calibration_has_no_gap(tmp_path: Path) -> None:
    labels = np.array([0, 1, 1])
    sure = reliability(labels, np.eye(2)[labels], tmp_path / "r.png")
    # without the title's letters
    assert pixels_of(sure[150:], ORANGE) == 0
    assert pixels_of(sure, BLUE) > 10_000


def test_the_gap_grows_with_the_error(tmp_path: Path) -> None:
    gaps = []
    for right in (9, 6, 3):
        labels = np.array([0] * right + [1] * (10 - right))
        pixels = reliability(labels, np.tile([0.9, 0.1], (10, 1)), tmp_path / "r.png")
        gaps.append(pixels_of(pixels[150:], ORANGE))
    assert gaps[0] < gaps[1] < gaps[2]


def test_one_image_and_a_hundred_thousand(tmp_path: Path) -> None:
    one = reliability(np.array([0]), np.array([[0.7, 0.3]]), tmp_path / "r.png")
    generator = np.random.default_rng(0)
    high = generator.uniform(0.5, 1, 100_000)
    labels = (generator.uniform(size=100_000) > high).astype(np.int64)
    many = reliability(labels, np.stack([high, 1 - high], axis=1), tmp_path / "r.png")
    for pixels in (one, many):
        assert pixels_of(pixels, DARK) > 1000


def test_no_images_is_an_empty_diagram(tmp_path: Path) -> None:
    empty = [{"low": i / 15, "high": (i + 1) / 15, "count": 0, "confidence": None, "accuracy": None} for i in range(15)]
    plot_reliability(empty, 0.0, tmp_path / "r.png")
    assert pixels_of(picture(tmp_path / "r.png"), BLUE) == 0


def test_drawing_needs_no_pyplot() -> None:
    code = "import sys, saliency_pipeline.evaluation.figures; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(("count", "labels"), [(10, 10), (100, 50)])
def test_labels_that_would_touch_are_thinned_out(count: int, labels: int) -> None:
    axes = new_figure(8, 8).subplots()
    names = [f"class {number}" for number in range(count)]
    show_matrix(axes, np.eye(count, dtype=np.int64), np.ones(count, np.int64), names, 7.1, count)
    assert [label.get_text() for label in axes.get_yticklabels()] == names[:: count // labels]
    assert [label.get_text() for label in axes.get_xticklabels()] == names[:: count // labels]
    assert axes.get_title(loc="left") == ""
