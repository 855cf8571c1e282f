"""Write sample images, from photographs that scikit-image ships: demo_photos.py PHOTOS [TILES]."""

import sys
from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data

SIDE = 128
TRAIN, VALIDATION = 8, 4


def write_photos(folder: Path) -> None:
    """Write whole photographs, one folder per class, each with one or two JPEG files."""
    left, right, _ = data.stereo_motorcycle()
    photos = {
        "astronaut/portrait": data.astronaut(),
        "camera/photographer": data.camera(),
        "cat/chelsea": data.chelsea(),
        "coffee/cup": data.coffee(),
        "motorcycle/left": left,
        "motorcycle/right": right,
        "rocket/launch": data.rocket(),
    }
    for name, pixels in photos.items():
        write(folder / f"{name}.jpg", pixels)
    print(f"{len(photos)} photographs in {folder}")


def write_tiles(folder: Path) -> None:
    """Write a small labeled data set of tiles, with one class per photograph.

    Training tiles are from the left part of each photograph and validation tiles from its right part, so that they
    share no pixels.
    """
    pictures = {
        "astronaut": data.astronaut(),
        "brick": data.brick(),
        "camera": data.camera(),
        "cat": data.chelsea(),
        "coffee": data.coffee(),
        "galaxies": data.hubble_deep_field(),
        "grass": data.grass(),
        "gravel": data.gravel(),
        "motorcycle": data.stereo_motorcycle()[0],
        "retina": data.retina()[200:1200, 200:1200],
        "rocket": data.rocket(),
        "tissue": data.immunohistochemistry(),
    }
    random = np.random.default_rng(0)
    for name, pixels in pictures.items():
        border = int(pixels.shape[1] * 0.6)
        for split, part, count in (
            ("train", pixels[:, :border], TRAIN),
            ("validation", pixels[:, border:], VALIDATION),
        ):
            side = min(SIDE, part.shape[1])
            for number in range(count):
                y, x = (int(random.integers(0, length - side + 1)) for length in part.shape[:2])
                write(folder / split / name / f"{number:02d}.jpg", part[y : y + side, x : x + side])
    print(f"{len(pictures)} classes of {TRAIN} + {VALIDATION} tiles in {folder}")


def write(file: Path, pixels: np.ndarray) -> None:
    """Write one JPEG file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file, quality=95)


if __name__ == "__main__":
    write_photos(Path(sys.argv[1]))
    if len(sys.argv) > 2:
        write_tiles(Path(sys.argv[2]))
