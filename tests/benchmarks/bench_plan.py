"""Time and memory of planning a run over as many images as ImageNet has, in folders and in a tar.

python tests/benchmarks/bench_plan.py [--images 1280000] [--folder SCRATCH]

Images are a few bytes each: what is measured is the catalogue and the plan, not decoding. A tree is made with a tenth
of the images, since an empty file costs a file system's block or more, and the slope between two sizes says what the
whole would take.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

WNIDS = 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1_280_000)
    parser.add_argument("--folder", type=Path, help="where there is room for 1 KB per image")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as scratch:
        root = Path(scratch)
        each = arguments.images // WNIDS
        write_tar(root / "tar" / "ILSVRC2012_img_train.tar", each)
        tar = measured(root / "tar", root / "shards")
        print(f"tar of {WNIDS} tars    {tar}")
        sizes = []
        for part in (20, 10):
            tree = root / f"tree-{part}"
            write_tree(tree, each // part)
            sizes.append(measured(tree, root / "shards"))
            print(f"folders, 1/{part:<2}         {sizes[-1]}")
        small, large = sizes
        steps = (arguments.images - large.images) / (large.images - small.images)
        seconds = large.seconds + steps * (large.seconds - small.seconds)
        megabytes = large.megabytes + steps * (large.megabytes - small.megabytes)
        print(f"folders, all of them by that slope: {seconds:.1f} s, {megabytes:,.0f} MB")


class Figures:
    """What one dry run took."""

    def __init__(self, images: int, seconds: float, megabytes: float) -> None:
        self.images, self.seconds, self.megabytes = images, seconds, megabytes

    def __str__(self) -> str:
        return f"{self.images:>9,} images  {self.seconds:6.1f} s  {self.megabytes:7,.0f} MB at most"


def measured(data: Path, shards: Path) -> Figures:
    """A dry run of generate in a process of its own."""
    code = (
        "import resource, runpy, sys; sys.argv[0] = 'salpipe'\n"
        "try: runpy.run_module('saliency_pipeline.cli', run_name='__main__')\n"
        "finally: print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)"
    )
    began = time.perf_counter()
    command = [sys.executable, "-c", code, "generate", os.fspath(data), "-o", os.fspath(shards), "--dry-run", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    seconds = time.perf_counter() - began
    return Figures(json.loads(done.stdout)["images"], seconds, int(done.stderr.split()[-1]) / 1024)


def write_tar(path: Path, each: int) -> None:
    """ILSVRC2012_img_train.tar as it is distributed, but for the pixels."""
    path.parent.mkdir(parents=True)
    with tarfile.open(path, "w") as outer:
        for wnid in wnids():
            inner = io.BytesIO()
            with tarfile.open(fileobj=inner, mode="w") as members:
                for number in range(each):
                    data = f"{wnid} {number}".encode()
                    info = tarfile.TarInfo(f"{wnid}_{number * 7}.JPEG")
                    info.size = len(data)
                    members.addfile(info, io.BytesIO(data))
            info = tarfile.TarInfo(f"{wnid}.tar")
            info.size = inner.tell()
            inner.seek(0)
            outer.addfile(info, inner)


def write_tree(path: Path, each: int) -> None:
    """Train folders with empty files."""
    for wnid in wnids():
        folder = path / "train" / wnid
        folder.mkdir(parents=True)
        for number in range(each):
            (folder / f"{wnid}_{number * 7}.JPEG").touch()


def wnids() -> list[str]:
    from saliency_pipeline.datasets.imagenet.synsets import imagenet_names

    return [wnid for wnid, _ in imagenet_names()]


if __name__ == "__main__":
    main()
