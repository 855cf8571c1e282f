"""Precision, recall and time of `audit` on copies of photographs.

Of each photograph are made re-encodings, rescalings, crops and one mirrored copy, in turn until there are n files.
Two files are a true pair where they are made of one photograph and none or both of them are mirrored. Printed are

    precision   share of true pairs among the pairs found, and among all pairs within the groups
    recall      by kind of copy: the share that is in one group with its photograph; of mirrored ones that is wrong
    seconds     on n/4 and on n files: fingerprints, without a cache, and the search

Photographs that hold duplicates themselves make pairs that count as false: `--montage FILE.png` plots those found, to
be inspected, and `--same A=B` declares two of them (parts of their paths) to be the same.

    python -m tests.benchmarks.bench_audit FOLDER... -n 20000
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import random
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from saliency_pipeline.datasets.folder import read_folder
from saliency_pipeline.subsets import THRESHOLD
from saliency_pipeline.subsets.duplicates import find_duplicates, group, members
from saliency_pipeline.subsets.fingerprint import fingerprints


def encoded(image: Image.Image, kind: str = "JPEG", **options: int) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def scaled(image: Image.Image, factor: float) -> Image.Image:
    return image.resize((max(8, round(image.width * factor)), max(8, round(image.height * factor))))


def cropped(image: Image.Image, rng: random.Random, most: float) -> Image.Image:
    """Cut by up to `most` on each side, on every side by another amount."""
    left, top, right, bottom = (rng.uniform(0, most) for _ in range(4))
    width, height = image.size
    return image.crop(
        (round(left * width), round(top * height), round((1 - right) * width), round((1 - bottom) * height))
    )


Make = Callable[[Image.Image, random.Random], bytes]
COPIES: dict[str, Make] = {
    "jpeg-30": lambda image, rng: encoded(image, quality=30),
    "scale-0.3": lambda image, rng: encoded(scaled(image, 0.3), quality=85),
    "crop-5%": lambda image, rng: encoded(cropped(image, rng, 0.05), quality=85),
    "mirrored": lambda image, rng: encoded(ImageOps.mirror(image), quality=90),
    "webp": lambda image, rng: encoded(image, "WEBP", quality=60),
    "scale-2": lambda image, rng: encoded(scaled(image, 2), quality=85),
    "crop-10%": lambda image, rng: encoded(cropped(image, rng, 0.1), quality=85),
    "jpeg-60": lambda image, rng: encoded(image, quality=60),
    "png": lambda image, rng: encoded(image, "PNG", compress_level=1),
    "scale-0.6": lambda image, rng: encoded(scaled(image, 0.6), "PNG", compress_level=1),
    "jpeg-95": lambda image, rng: encoded(image, quality=95),
    "scale-1.4": lambda image, rng: encoded(scaled(image, 1.4), "WEBP", quality=80),
}
STRICT = tuple(kind for kind in COPIES if kind.startswith(("jpeg", "webp", "png", "scale")))


class Work(NamedTuple):
    """One photograph and the copies to make of it."""

    number: int
    source: Path
    kinds: tuple[str, ...]
    folder: Path


def make(work: Work) -> None:
    data = work.source.read_bytes()
    image = Image.open(io.BytesIO(data)).convert("RGB")
    for kind in ("original", *work.kinds):
        # 100 in a folder, so that a quarter of the photographs are a quarter of the files
        path = work.folder / f"{work.number // 100:04d}" / f"{work.number:06d}_{kind}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data if kind == "original" else COPIES[kind](image, random.Random(f"{work.number} {kind}")))


def works(sources: list[Path], folder: Path, count: int) -> Iterator[Work]:
    """Which copies each photograph gets: all kinds in turn, over all photographs, until there are `count` files."""
    kinds = itertools.cycle(COPIES)
    share, more = divmod(count - len(sources), len(sources))
    for number, source in enumerate(sources):
        wanted = share + (number < more)
        yield Work(number, source, tuple(itertools.islice(kinds, min(wanted, len(COPIES)))), folder)


def tiles(folder: Path) -> list[Path]:
    """Photographs that scikit-image ships, cut into tiles of 128 x 128 that do not overlap."""
    from skimage import data

    for name in ("astronaut", "chelsea", "coffee", "rocket", "immunohistochemistry", "camera"):
        photo = Image.fromarray(getattr(data, name)())
        for y, x in itertools.product(range(0, photo.height - 127, 128), range(0, photo.width - 127, 128)):
            photo.crop((x, y, x + 128, y + 128)).save(folder / f"{name}-{y:03d}-{x:03d}.png")
    return sorted(folder.iterdir())


def measure(folders: list[Path], threshold: float) -> tuple[dict[str, float], list[str], np.ndarray, np.ndarray]:
    """Seconds, keys, pairs and groups of the images in some folders of one tree."""
    catalogue = read_folder(folders[0].parent)
    chosen = {folder.name for folder in folders}
    records = [record for record in catalogue.records if record.key.partition("/")[0] in chosen]
    start = time.perf_counter()
    looked_at = fingerprints(type(catalogue)(catalogue.root, records))
    middle = time.perf_counter()
    duplicates = find_duplicates(looked_at, threshold=threshold)
    groups = group(duplicates.pairs, len(looked_at))
    seconds = {"fingerprints": middle - start, "search": time.perf_counter() - middle}
    assert not looked_at.reasons
    return seconds, [record.key for record in records], duplicates.pairs, groups


def judged(
    keys: list[str], pairs: np.ndarray, groups: np.ndarray, one: dict[int, int]
) -> tuple[dict[str, object], list[tuple[str, str]]]:
    """Precision, recall, and the false pairs."""
    names = [key.rpartition("/")[2].removesuffix(".jpg").partition("_") for key in keys]
    kinds = [kind for _, _, kind in names]
    numbers = [int(number) for number, _, _ in names]
    truth = [(one.get(number, number), kind == "mirrored") for number, kind in zip(numbers, kinds, strict=True)]
    false = [(keys[i], keys[j]) for i, j in pairs.tolist() if truth[i] != truth[j]]
    within = [(i, j) for places in members(groups) for i, j in itertools.combinations(places.tolist(), 2)]
    group_of = {
        number: groups[i] for i, (number, kind) in enumerate(zip(numbers, kinds, strict=True)) if kind == "original"
    }
    hits = defaultdict(list)
    for i, (number, kind) in enumerate(zip(numbers, kinds, strict=True)):
        hits[kind].append(groups[i] == group_of[number])
    recall = {kind: float(np.mean(hits[kind])) for kind in COPIES if kind in hits}
    strict = [hit for kind in STRICT for hit in hits[kind]]
    return {
        "pairs": len(pairs),
        "precision_pairs": 1 - len(false) / len(pairs),
        "precision_groups": sum(truth[i] == truth[j] for i, j in within) / len(within),
        "recall_reencoded_rescaled": float(np.mean(strict)),
        "recall": recall,
    }, false


def montage(root: Path, pairs: list[tuple[str, str]], path: Path) -> None:
    """The first 48 pairs side by side."""
    sheet = Image.new("RGB", (4 * 330, -(-len(pairs[:48]) // 4) * 180), "white")
    draw = ImageDraw.Draw(sheet)
    for place, pair in enumerate(pairs[:48]):
        x, y = place % 4 * 330, place // 4 * 180
        for side, key in enumerate(pair):
            image = Image.open(root / key).convert("RGB")
            image.thumbnail((160, 160))
            sheet.paste(image, (x + side * 162, y + 14))
            draw.text((x + side * 162, y), key.rpartition("/")[2][:26], fill="black")
    sheet.save(path)


def main() -> None:
    """Make the files, search for duplicates, print; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="*", help="photographs; tiles of scikit-image's by default")
    parser.add_argument("-n", type=int, help="files; 20000, or six a tile")
    parser.add_argument("--threshold", type=float, default=THRESHOLD)
    parser.add_argument("--same", action="append", default=[], metavar="A=B")
    parser.add_argument("--montage", type=Path)
    parser.add_argument("--work", type=Path, help="where the files go and stay; made again only where it is missing")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        if args.folders:
            sources = [Path(record.path) for folder in args.folders for record in read_folder(folder).records]
            random.Random(0).shuffle(sources)
        else:
            (Path(temporary) / "tiles").mkdir()
            sources = tiles(Path(temporary) / "tiles")
        count = args.n or (20_000 if args.folders else 6 * len(sources))
        root = args.work or Path(temporary) / "files"
        if not root.exists():
            root.mkdir()
            with ProcessPoolExecutor() as pool:
                list(pool.map(make, works(sources, root, count), chunksize=8))
        folders = sorted(root.iterdir())
        one = {}
        for text in args.same:
            first, second = (next(i for i, path in enumerate(sources) if part in str(path)) for part in text.split("="))
            one[second] = one.get(first, first)
        quarter, _, _, _ = measure(folders[: max(1, len(folders) // 4)], args.threshold)
        seconds, keys, pairs, groups = measure(folders, args.threshold)
        result, false = judged(keys, pairs, groups, one)
        for pair in false[:60]:
            numbers = [int(key.rpartition("/")[2].partition("_")[0]) for key in pair]
            print("false:", *pair, *(sources[number] for number in numbers))
        if args.montage and false:
            montage(root, false, args.montage)
        for name, value in result["recall"].items():  # type: ignore[attr-defined]
            print(f"{name:12} {value:.4f}")
        print(json.dumps({"images": len(keys), **result, "seconds": seconds, "seconds_of_a_quarter": quarter}))


if __name__ == "__main__":
    main()
