"""Write the data set of `make demo`, objects in clutter with their boxes: demo_scenes.py FOLDER."""

import csv
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data

SIDE, OBJECT = 192, 64
TRAIN, VALIDATION = 16, 8


def write_scenes(folder: Path) -> None:
    """Write a small labeled data set, one class per photograph, and the place of every object in `boxes.csv`.

    An object is a small tile of its class's photograph, anywhere on a background that all classes share: a network that
    is shown where to look has less to learn.
    """
    pictures = {
        "astronaut": data.astronaut(),
        "camera": data.camera(),
        "cat": data.chelsea(),
        "coffee": data.coffee(),
        "motorcycle": data.stereo_motorcycle()[0],
        "rocket": data.rocket(),
    }
    backgrounds = [data.brick(), data.grass(), data.gravel()]
    random, rows = np.random.default_rng(0), []

    def tile(pixels: np.ndarray, side: int) -> Image.Image:
        y, x = (int(random.integers(0, length - side + 1)) for length in pixels.shape[:2])
        return Image.fromarray(pixels[y : y + side, x : x + side]).convert("RGB")

    for name, pixels in pictures.items():
        for number in range(TRAIN + VALIDATION):
            scene = tile(backgrounds[random.integers(len(backgrounds))], SIDE)
            x, y = (int(value) for value in random.integers(0, SIDE - OBJECT + 1, 2))
            scene.paste(tile(pixels, 3 * OBJECT).resize((OBJECT, OBJECT)), (x, y))
            file = Path("train" if number < TRAIN else "validation") / name / f"{number:02d}.jpg"
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            scene.save(folder / file, quality=95)
            rows.append((file.as_posix(), x, y, x + OBJECT - 1, y + OBJECT - 1))
    with open(folder / "boxes.csv", "w", newline="", encoding="utf-8") as table:
        csv.writer(table).writerows([("file", "xmin", "ymin", "xmax", "ymax"), *rows])
    print(f"{len(pictures)} classes of {TRAIN} + {VALIDATION} scenes with the boxes of their objects in {folder}")


if __name__ == "__main__":
    write_scenes(Path(sys.argv[1]))
