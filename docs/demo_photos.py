"""Writes the photographs of `make demo`, which scikit-image ships, as class folders: demo_photos.py FOLDER."""

import sys
from pathlib import Path

from PIL import Image
from skimage import data


def main(folder: Path) -> None:
    """Write one folder a class into `folder`, each with one or two JPEG files."""
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
        file = folder / f"{name}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(file, quality=95)
    print(f"{len(photos)} photographs in {folder}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
