"""Shuffled batches of 32 from shards, compared with WebDataset and ImageFolder on the same photographs.

Each arm is a process of its own; arms alternate over the rounds and the best round of each counts. All read from the
page cache and yield uint8 batches; peers start to be timed with their first batch, so that no start of workers counts.

    gather       PairDataset.__getitems__: images 224 x 224 and Grad-CAM maps of shuffled rows, in one thread
    prepared     Prefetcher: maps up-sampled and normalized
    augmented    Prefetcher: crop, flip and color as well
    webdataset   the JPEG files in tar files, decoded, resized to 256 and cut to 224; best of 0 and 2 workers
    webdataset224  the same, but of JPEG files that are 224 x 224 already and are merely decoded
    imagefolder  ImageFolder and DataLoader, shuffled: decoded, resized to 256, cut to 224; best of 0 and 2 workers

    python -m tests.benchmarks.bench_batches --images FOLDER
    python -m tests.benchmarks.bench_batches -n 4000 --rounds 3
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.bench_generate import linked, photographs

SIZE, BATCH, SHARDS = 224, 32, 4


def build(work: Path, source: Path | None, pairs: int, photos: int) -> None:
    """Write what the arms read: `photos` JPEG files, tar files of them, and a folder of `pairs` pairs made of them."""
    from PIL import Image

    from saliency_pipeline.images.decode import decode_frame

    folder = work / "photos" / "class"
    folder.parent.mkdir()
    files = sorted((linked(source, folder, photos) if source else photographs(folder, photos)).iterdir())
    frames = [decode_frame(file.read_bytes(), SIZE)[0] for file in files]
    small = []
    for frame in frames:
        encoded = io.BytesIO()
        Image.fromarray(frame).save(encoded, "JPEG", quality=90)
        small.append(encoded.getvalue())
    for name, contents in (("photos", [file.read_bytes() for file in files]), ("small", small)):
        for number in range(SHARDS):
            with tarfile.open(work / f"{name}-{number}.tar", "w") as tar:
                for i in range(number, photos, SHARDS):
                    entry = tarfile.TarInfo(f"{i:05d}.jpg")
                    entry.size = len(contents[i])
                    tar.addfile(entry, io.BytesIO(contents[i]))
    write_shards(work / "shards", frames, pairs)


def write_shards(folder: Path, frames: list[np.ndarray], pairs: int) -> None:
    """A finished folder of raw pairs; frames repeat, maps are random."""
    from saliency_pipeline.files import publish
    from saliency_pipeline.shards.manifest import Manifest, ShardEntry
    from saliency_pipeline.shards.schema import MapShape, ShardHeader, ShardRows, shard_name
    from saliency_pipeline.shards.writer import ShardWriter
    from saliency_pipeline.temporaries import temporary_name

    folder.mkdir()
    random = np.random.default_rng(0)
    head = ShardHeader("plan", {}, ("photograph",), SIZE, "raw", {"gradcam": MapShape(1, 7, 7)})
    entries = []
    for number, places in enumerate(np.array_split(np.arange(pairs), SHARDS)):
        final = folder / shard_name(number)
        with ShardWriter(temporary_name(final), head, len(places)) as writer:
            for some in np.array_split(places, max(1, len(places) // 256)):
                count = len(some)
                writer.append(
                    ShardRows(
                        keys=[f"{i}.jpg" for i in some],
                        labels=np.zeros(count, np.int64),
                        splits=np.zeros(count, np.int8),
                        images=np.stack([frames[i % len(frames)] for i in some]),
                        sha256=np.zeros((count, 32), np.uint8),
                        source_size=np.full((count, 2), SIZE, np.int32),
                        prediction_class=np.full((count, 5), -1, np.int32),
                        prediction_score=np.zeros((count, 5), np.float32),
                        maps={"gradcam": random.random((count, 1, 7, 7), dtype=np.float32)},
                        targets={"gradcam": np.zeros((count, 1), np.int32)},
                    )
                )
            writer.finish()
        digest = publish(writer.path, final)
        entries.append(ShardEntry(final.name, len(places), final.stat().st_size, digest))
    (folder / "rejects.jsonl").write_text("")
    Manifest(head, 0, tuple(entries)).write(folder)


def gather(work: Path) -> float:
    """Rows of every epoch anew, gathered in this thread."""
    from saliency_pipeline.training.data.order import epoch_batches, epoch_order

    dataset = _dataset(work)

    def epoch(number: int) -> Iterable[int]:
        for indices in epoch_batches(epoch_order(len(dataset), 0, number), BATCH):
            yield len(dataset.__getitems__(indices).images)

    return _best_epoch(epoch)


def prepared(work: Path, names: tuple[str, ...] = ()) -> float:
    """Prefetcher as a training step takes them, apart from the step."""
    from saliency_pipeline.training.data.batches import Prefetcher, Transform
    from saliency_pipeline.training.data.order import epoch_batches, epoch_order

    dataset = _dataset(work)
    batches = Prefetcher(dataset, Transform(augment=names))

    def epoch(number: int) -> Iterable[int]:
        chosen = epoch_batches(epoch_order(len(dataset), 0, number), BATCH)
        for batch in batches.run(chosen[: 40 if names else 120], number):
            yield len(batch.images)

    return _best_epoch(epoch)


def augmented(work: Path) -> float:
    """The same with every augmentation."""
    return prepared(work, ("crop", "flip", "color"))


def webdataset(work: Path, name: str = "photos") -> float:
    """The same photographs from tar files, shuffled through a buffer."""
    import webdataset as wds

    from saliency_pipeline.training.data.order import epoch_order

    transform = _transform() if name == "photos" else _to_tensor()
    tars = [str(work / f"{name}-{number}.tar") for number in epoch_order(SHARDS, 0, 0)]

    def loader(workers: int) -> Iterable[Any]:
        stream = wds.WebDataset(tars, shardshuffle=False).shuffle(500).decode("pilrgb").to_tuple("jpg")
        return wds.WebLoader(stream.map_tuple(transform).batched(BATCH), batch_size=None, num_workers=workers)

    return max(_rate(loader(workers), lambda batch: len(batch[0])) for workers in (0, 2))


def webdataset224(work: Path) -> float:
    """JPEG files that need no resizing."""
    return webdataset(work, "small")


def imagefolder(work: Path) -> float:
    """The same photographs as files."""
    from torch.utils.data import DataLoader
    from torchvision.datasets import ImageFolder

    folder = ImageFolder(str(work / "photos"), transform=_transform())
    loaders = (DataLoader(folder, BATCH, shuffle=True, num_workers=workers) for workers in (0, 2))
    return max(_rate(loader, lambda batch: len(batch[0])) for loader in loaders)


ARMS: dict[str, Callable[[Path], float]] = {
    arm.__name__: arm for arm in (gather, prepared, augmented, webdataset, webdataset224, imagefolder)
}


def _dataset(work: Path) -> Any:
    from saliency_pipeline.memory import keep_large_blocks
    from saliency_pipeline.shards.reader import ShardFolder
    from saliency_pipeline.training.data.batches import PairDataset

    # as the trainer does
    keep_large_blocks()
    folder = ShardFolder(work / "shards")
    return PairDataset(folder, np.arange(len(folder)), "gradcam")


def _transform() -> Callable[[Any], Any]:
    from torchvision.transforms import v2

    return v2.Compose([v2.Resize(256), v2.CenterCrop(SIZE), v2.PILToTensor()])


def _to_tensor() -> Callable[[Any], Any]:
    from torchvision.transforms import v2

    return v2.PILToTensor()


def _best_epoch(epoch: Callable[[int], Iterable[int]], epochs: int = 3) -> float:
    """Pairs per second of the best epoch; a first one, not timed, touches every page."""
    best = 0.0
    for number in range(epochs + 1):
        start = time.perf_counter()
        pairs = sum(epoch(number))
        if number:
            best = max(best, pairs / (time.perf_counter() - start))
    return best


def _rate(loader: Iterable[Any], size: Callable[[Any], int]) -> float:
    """Images per second from the first batch to the last."""
    batches = iter(loader)
    next(batches)
    start = time.perf_counter()
    images = sum(map(size, batches))
    return images / (time.perf_counter() - start)


def main() -> None:
    """Run every arm in turn and print the ratios; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, help="a folder of JPEG files; scikit-image's photographs otherwise")
    parser.add_argument("-n", type=int, default=6000, help="pairs in the shards")
    parser.add_argument("--photos", type=int, default=800, help="different photographs")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--arm", nargs=2, metavar=("ARM", "WORK"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.arm:
        print(json.dumps(ARMS[args.arm[0]](Path(args.arm[1]))))
        return
    rates: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as temporary:
        build(Path(temporary), args.images, args.n, args.photos)
        for _, arm in itertools.product(range(args.rounds), ARMS):
            command = [sys.executable, "-m", "tests.benchmarks.bench_batches", "--arm", arm, temporary]
            output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            rate = json.loads(output.splitlines()[-1])
            rates[arm] = max(rate, rates.get(arm, 0.0))
            print(f"{arm:14} {rate:9.0f} pairs/s  {rate / BATCH:8.1f} batches/s", flush=True)
    peers = ("webdataset", "webdataset224", "imagefolder")
    ratios = {f"gather_of_{peer}": round(rates["gather"] / rates[peer], 1) for peer in peers}
    print(json.dumps({**{arm: round(rate) for arm, rate in rates.items()}, **ratios}))


if __name__ == "__main__":
    main()
