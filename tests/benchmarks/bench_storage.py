"""Reading random batches of shards on object storage from the cache, beside the same shards in a folder.

The store is a memory file system, so that nothing but the cache is measured: run it on a quiet machine.
"""

import os
import tempfile
import time
from pathlib import Path

import numpy as np

from saliency_pipeline.shards.reader import ShardFolder
from saliency_pipeline.storage import settings
from saliency_pipeline.storage.store import open_store
from tests.training.examples import labeled

IMAGES, SHARDS, BATCH, BATCHES = 4096, 64, 64, 200


def rate(folder: ShardFolder) -> float:
    """Images per second of random batches, frames and maps, once all shards are there."""
    random = np.random.default_rng(0)
    batches = [random.integers(0, len(folder), BATCH) for _ in range(BATCHES)]
    _ = folder.labels
    start = time.perf_counter()
    for batch in batches:
        folder.images_at(batch)
        folder.stored_maps_at(batch, "gradcam")
    return BATCHES * BATCH / (time.perf_counter() - start)


def main() -> None:
    """Print images per second of both."""
    with tempfile.TemporaryDirectory() as place:
        local = labeled(Path(place) / "shards", IMAGES, SHARDS)
        store = open_store("memory://bench/shards")
        for path in local.iterdir():
            if path.is_file():
                store.create(path.name, path.read_bytes())
        os.environ[settings.FOLDER] = str(Path(place) / "cache")
        start = time.perf_counter()
        remote = ShardFolder("memory://bench/shards")
        _ = remote.labels
        print(f"{SHARDS} shards fetched in {time.perf_counter() - start:.2f} s")
        print(f"folder: {rate(ShardFolder(local)):,.0f} images/s")
        print(f"cache:  {rate(remote):,.0f} images/s")


if __name__ == "__main__":
    main()
