"""Reading the images of a tar over loopback http, beside the same tar on disk: listing, and images per second.

Nothing is decoded, so that reading alone is measured: run it on a quiet machine.
"""

import io
import os
import tarfile
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from saliency_pipeline.datasets.remote import read_place
from saliency_pipeline.images.record import Catalogue
from saliency_pipeline.images.remote_record import is_remote, need
from saliency_pipeline.remote.address import ALLOW_PRIVATE
from saliency_pipeline.remote.ahead import reading_ahead
from tests.remote.web import serving

IMAGES, BYTES, SHARD, THREADS = 4096, 110_000, 1024, 3


def archive(path: Path) -> Path:
    """A tar of files of ImageNet's mean size, whose names are those of images."""
    data = np.random.default_rng(0).bytes(BYTES)
    with tarfile.open(path, "w") as tar:
        for number in range(IMAGES):
            info = tarfile.TarInfo(f"class-{number * 16 // IMAGES:02d}/{number:06d}.jpg")
            info.size = BYTES
            tar.addfile(info, io.BytesIO(data))
    return path


def listed(place: Path | str) -> Catalogue:
    """The catalogue; prints how long it takes."""
    start = time.perf_counter()
    catalogue = read_place(place)
    print(f"  listing {len(catalogue):,} images: {time.perf_counter() - start:.2f} s")
    return catalogue


def rate(catalogue: Catalogue) -> float:
    """Images read per second, by as many threads as generate decodes with."""
    start = time.perf_counter()
    with reading_ahead(is_remote(catalogue.records)) as ahead, ThreadPoolExecutor(THREADS) as pool:
        for first in range(0, len(catalogue), SHARD):
            shard = catalogue.records[first : first + SHARD]
            need(ahead, shard)

            def read(index: int, first: int = first) -> int:
                record = catalogue.records[first + index]
                data = record.read()
                if ahead is not None:
                    ahead.done(record.key)
                return len(data)

            assert sum(pool.map(read, range(len(shard)))) == BYTES * len(shard)
    return len(catalogue) / (time.perf_counter() - start)


def main() -> None:
    """Print images per second of both."""
    os.environ[ALLOW_PRIVATE] = "1"
    with tempfile.TemporaryDirectory() as place, serving() as web:
        path = archive(Path(place) / "photos.tar")
        url = web.put("/photos.tar", path.read_bytes())
        for name, where in (("local tar", path), ("http on loopback", url)):
            print(name)
            catalogue = listed(where)
            before = len(web.requests)
            print(f"  {rate(catalogue):,.0f} images/s, {len(web.requests) - before} requests")


if __name__ == "__main__":
    main()
