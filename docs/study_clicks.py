"""Maps of one click per object, for docs/study.md: python docs/study_clicks.py cards_boxes.csv clicks.

A map is a Gaussian at the center of each true box, with a standard deviation of 15 % of the image's shorter side: what
a person would mark. The table has the columns file, width, height, xmin, ymin, xmax and ymax, in pixels; a map has the
name of its image and the ending .png.
"""

import csv
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
from PIL import Image

WIDTH = 0.15


def write_clicks(table: Path, folder: Path) -> None:
    """Write a map for every image that has a box in the table."""
    rows: dict[str, list[dict[str, str]]] = defaultdict(list)
    with table.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            rows[row["file"]].append(row)
    for name, boxes in rows.items():
        width, height = (int(boxes[0][side]) for side in ("width", "height"))
        path = folder / Path(name).with_suffix(".png")
        if not path.resolve().is_relative_to(folder.resolve()):
            raise SystemExit(f"{table}: {name} is outside the folder of the images; correct it")
        path.parent.mkdir(parents=True, exist_ok=True)
        clicks = [
            [(float(box[a]) + float(box[b])) / 2 for a, b in (("xmin", "xmax"), ("ymin", "ymax"))] for box in boxes
        ]
        Image.fromarray(np.round(255 * gaussians(clicks, width, height)).astype(np.uint8)).save(path)


def gaussians(centers: list[list[float]], width: int, height: int) -> np.ndarray:
    """The largest of some Gaussians at every pixel: (height, width) in [0, 1].

    >>> gaussians([[1.0, 0.0]], 3, 1).round(3).tolist()
    [[0.0, 1.0, 0.0]]
    """
    y, x = np.mgrid[:height, :width]
    variance = 2 * (WIDTH * min(width, height)) ** 2
    return np.max([np.exp(-((x - left) ** 2 + (y - top) ** 2) / variance) for left, top in centers], axis=0)


if __name__ == "__main__":
    write_clicks(Path(sys.argv[1]), Path(sys.argv[2]))
