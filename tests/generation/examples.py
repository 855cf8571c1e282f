"""Folders of small photographs, runs over them that take a moment, and what a run leaves behind."""

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from skimage import data

from saliency_pipeline.generation.run import Report, generate
from saliency_pipeline.images.record import Catalogue

OPTIONS: dict[str, Any] = {
    "model": "test_resnet",
    "weights": "none",
    "size": 64,
    "backend": "torch",
    "precision": "fp32",
    "shard_size": 4,
}
"""A request whose network is tiny and whose choices are all made: nothing is measured."""

COMMAND = [part for name, value in OPTIONS.items() for part in (f"--{name.replace('_', '-')}", str(value))]
"""The same on the command line."""


def cuts(count: int, seed: int = 0) -> list[np.ndarray]:
    """Different pieces, from 70 to 160 pixels a side, of photographs that scikit-image brings."""
    random = np.random.default_rng(seed)
    photographs = [data.astronaut(), data.coffee(), data.chelsea(), data.rocket()]
    pieces = []
    for number in range(count):
        whole = photographs[number % len(photographs)]
        height, width = random.integers(70, 161, 2)
        top, left = (int(random.integers(0, whole.shape[axis] - side)) for axis, side in ((0, height), (1, width)))
        pieces.append(whole[top : top + height, left : left + width])
    return pieces


def photographs(root: Path, names: Iterable[str]) -> Path:
    """A folder with a photograph for each name."""
    names = list(names)
    for name, piece in zip(names, cuts(len(names)), strict=True):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(piece).save(path, quality=90)
    return root


def flat(root: Path, count: int) -> Path:
    """A flat folder of `count` photographs, 1.jpg and so on."""
    return photographs(root, (f"{number}.jpg" for number in range(1, count + 1)))


def run(images: Path | Catalogue, output: Path, **options: Any) -> Report:
    """`generate` with `OPTIONS`."""
    return generate(images, output, **{**OPTIONS, **options})


def kept(folder: Path) -> dict[str, bytes]:
    """The parts of a finished folder that are compared: the bytes of its shards, manifest and rejects."""
    files = [*folder.glob("shard-*.h5"), folder / "manifest.json", folder / "rejects.jsonl"]
    return {path.name: path.read_bytes() for path in sorted(files)}


def receipts(folder: Path) -> list[Path]:
    """The complete receipts; a killed run leaves temporary ones beside them."""
    return list(folder.glob("receipts/shard-*.json"))


def temporaries(folder: Path) -> list[str]:
    """Files of interrupted writing."""
    return [path.name for path in folder.rglob("tmp.*")]


def salpipe(*arguments: object, **keywords: Any) -> subprocess.Popen[str]:
    """The command line as a process of its own, with pipes."""
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "saliency_pipeline.cli",
            *(os.fspath(a) if isinstance(a, Path) else str(a) for a in arguments),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **keywords,
    )
