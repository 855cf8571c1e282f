"""The shard jobs: decode, explain and write overlapped, from records to published shards and their receipts."""

from __future__ import annotations

import hashlib
import io
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from saliency_pipeline.errors import BadImageError, SalpipeError
from saliency_pipeline.files import publish, temporary_name
from saliency_pipeline.generation.plan import ShardTask
from saliency_pipeline.generation.receipt import Receipt, Reject
from saliency_pipeline.images.decode import decode_frame
from saliency_pipeline.images.record import ImageRecord
from saliency_pipeline.models.source import SourceModel, load_source
from saliency_pipeline.saliency.allocator import keep_large_blocks
from saliency_pipeline.saliency.backends import Placement
from saliency_pipeline.saliency.engine import Explainer, Explanation
from saliency_pipeline.saliency.layers import Layer
from saliency_pipeline.saliency.methods import find_methods
from saliency_pipeline.saliency.targets import Target
from saliency_pipeline.shards.manifest import ShardEntry
from saliency_pipeline.shards.schema import ShardHeader, ShardRows
from saliency_pipeline.shards.writer import ShardWriter

_In = TypeVar("_In")
_Out = TypeVar("_Out")


@dataclass(frozen=True)
class Job:
    """All that a worker needs to write any shard of a plan; small enough to send to another machine.

    Attributes:
        folder: the output folder.
        model: name of the source model.
        weights: its weights.
        size: side of the frame in pixels.
        layer: the explained layer.
        methods: names of the methods.
        target: the classes explained.
        placement: back end, precision, device and streams.
        batch: frames computed together.
        header: what every shard says of itself.
        fit: how an image becomes a square frame.
        max_pixels: images with more are rejected.
        jpeg_quality: for the `jpeg` encoding.
    """

    folder: str
    model: str
    weights: str
    size: int
    layer: Layer
    methods: tuple[str, ...]
    target: Target
    placement: Placement
    batch: int
    header: ShardHeader
    fit: str
    max_pixels: int
    jpeg_quality: int


@dataclass
class _Decoded:
    """One record after decoding: a frame, or the reason why there is none."""

    record: ImageRecord
    reason: str = ""
    sha256: bytes = b""
    source_size: tuple[int, int] = (0, 0)
    frame: np.ndarray | None = None
    jpeg: bytes = b""


@dataclass
class _Batch:
    """Frames of one shard that are explained together; a shard's last batch carries its rejects and may be empty."""

    task: ShardTask
    images: list[_Decoded] = field(default_factory=list)
    rejects: tuple[Reject, ...] = ()
    last: bool = False


def write_shards(
    job: Job, tasks: Sequence[ShardTask], explainer: Explainer, progress: Callable[[int], None] | None = None
) -> list[Receipt]:
    """Write shards one after the other, decoding the next while the last is still being published.

    Args:
        job: what the shards have in common.
        tasks: the shards to write.
        explainer: the job's engine, from `make_explainer`.
        progress: called with the number of images done since the last call.

    Returns:
        A receipt a shard, each already written beside its shard.

    Raises:
        SalpipeError: the disk is full or cannot be written; finished shards stay.
    """
    streams = job.placement.streams
    threads = torch.get_num_threads()
    receipts: list[Future[Receipt]] = []
    shard: _OpenShard | None = None
    with (
        _pool(streams, "decode") as decoders,
        _pool(streams, "explain") as explainers,
        _pool(1, "publish") as publisher,
    ):
        try:
            batches = _batches(job, tasks, decoders)
            for batch, explanation in _ordered(explainers, lambda b: (b, _explain(explainer, b)), batches, streams + 1):
                shard = shard or _OpenShard(job, batch.task)
                if explanation is not None:
                    shard.writer.append(_rows(job, batch, explanation))
                if batch.last:
                    if receipts:
                        receipts[-1].result()
                    receipts.append(publisher.submit(shard.publish, batch.rejects))
                    shard = None
                if progress:
                    progress(len(batch.images) + len(batch.rejects))
            return [receipt.result() for receipt in receipts]
        finally:
            if shard is not None:
                shard.entered.close()
            # The pools' threads set the number for threads to come, which is not theirs alone.
            torch.set_num_threads(threads)


class _OpenShard:
    """A shard being written under a temporary name."""

    def __init__(self, job: Job, task: ShardTask) -> None:
        self.job, self.task = job, task
        self.entered = ExitStack()
        path = temporary_name(Path(job.folder) / task.name)
        self.writer = self.entered.enter_context(ShardWriter(path, job.header, len(task.records)))

    def publish(self, rejects: tuple[Reject, ...]) -> Receipt:
        """Complete the file, move it to its name and leave the receipt."""
        folder = Path(self.job.folder)
        with self.entered:
            images = self.writer.finish()
        path = self.writer.path
        size = path.stat().st_size
        digest = publish(path, folder / self.task.name)
        receipt = Receipt(self.job.header.plan, ShardEntry(self.task.name, images, size, digest), rejects)
        receipt.write(folder)
        return receipt


def _pool(size: int, name: str) -> ThreadPoolExecutor:
    """Threads whose tensor operations stay in the thread: many small workers beat few that wait for one another."""
    return ThreadPoolExecutor(size, name, initializer=torch.set_num_threads, initargs=(1,))


def _ordered(
    pool: ThreadPoolExecutor, function: Callable[[_In], _Out], items: Iterable[_In], ahead: int
) -> Iterator[_Out]:
    """`map` over a pool in order, with at most `ahead` items begun and not yet taken."""
    waiting: deque[Future[_Out]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) >= ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def _batches(job: Job, tasks: Sequence[ShardTask], pool: ThreadPoolExecutor) -> Iterator[_Batch]:
    """Decoded frames in batches that never cross a shard, so that a shard's bytes depend on its own images alone."""
    pairs = ((task, i) for task in tasks for i in range(len(task.records)))
    decode = _Decoder(job)
    ahead = 2 * job.batch * (job.placement.streams + 1)
    batch: _Batch | None = None
    rejects: list[Reject] = []
    for task, i, decoded in _ordered(pool, lambda p: (*p, decode(p[0].records[p[1]])), pairs, ahead):
        batch = batch or _Batch(task)
        if decoded.reason:
            rejects.append(Reject(decoded.record.key, decoded.reason))
        else:
            batch.images.append(decoded)
        last = i == len(task.records) - 1
        if last or len(batch.images) == job.batch:
            yield replace(batch, last=last, rejects=tuple(rejects) if last else ())
            batch, rejects = None, [] if last else rejects


class _Decoder:
    """Reads and decodes one record; called from many threads."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.interpolation = job.header.provenance["source"]["interpolation"]

    def __call__(self, record: ImageRecord) -> _Decoded:
        job = self.job
        try:
            data = record.read()
            frame, size = decode_frame(
                data, job.size, fit=job.fit, interpolation=self.interpolation, max_pixels=job.max_pixels
            )
        except BadImageError as error:
            return _Decoded(record, str(error))
        except OSError as error:
            return _Decoded(record, f"cannot be read: {error.strerror or type(error).__name__}")
        jpeg = b""
        if job.header.encoding == "jpeg":
            # The model must see what is stored.
            buffer = io.BytesIO()
            Image.fromarray(frame).save(buffer, "JPEG", quality=job.jpeg_quality, subsampling=0)
            jpeg = buffer.getvalue()
            frame = np.asarray(Image.open(io.BytesIO(jpeg)))
        return _Decoded(record, "", hashlib.sha256(data).digest(), size, frame, jpeg)


def _explain(explainer: Explainer, batch: _Batch) -> Explanation | None:
    if not batch.images:
        return None
    frames = np.stack([image.frame for image in batch.images if image.frame is not None])
    return explainer.explain(frames, np.array([image.record.label for image in batch.images]))


def _rows(job: Job, batch: _Batch, explanation: Explanation) -> ShardRows:
    images = batch.images
    raw = job.header.encoding == "raw"
    return ShardRows(
        keys=[image.record.key for image in images],
        labels=np.array([image.record.label for image in images], np.int64),
        splits=np.array([image.record.split for image in images], np.int8),
        images=np.stack([i.frame for i in images if i.frame is not None]) if raw else [i.jpeg for i in images],
        sha256=np.frombuffer(b"".join(image.sha256 for image in images), np.uint8).reshape(-1, 32),
        source_size=np.array([image.source_size for image in images], np.int32),
        prediction_class=explanation.prediction_class,
        prediction_score=explanation.prediction_score,
        maps=explanation.maps,
        targets=dict.fromkeys(explanation.maps, explanation.targets),
    )


def write_shard(job: Job, task: ShardTask, run: int) -> Receipt:
    """One shard in a worker process, whose engine is built for its first shard and kept for the next.

    Args:
        job: what the shards have in common.
        task: the shard to write.
        run: process id of the run that started this worker, which ends with it.
    """
    _become_worker(run)
    return write_shards(job, [task], make_explainer(job))[0]


@cache
def _become_worker(run: int) -> None:
    keep_large_blocks()
    # tqdm's own lock is a semaphore of the system, and its guard writes to the terminal when a worker is ended.
    tqdm.set_lock(threading.RLock())
    threading.Thread(target=_end_with, args=(run,), daemon=True).start()


def _end_with(run: int) -> None:
    """End this worker when its run is gone: one that was killed can no longer tell it to."""
    while os.getppid() == run:
        time.sleep(0.5)
    os._exit(1)


def make_explainer(job: Job) -> Explainer:
    """The job's engine; the last one made is kept."""
    sha256 = job.header.provenance["source"]["weights_sha256"]
    return _kept_explainer(
        job.model, job.weights, sha256, job.size, job.layer, job.methods, job.target, job.batch, job.placement
    )


@lru_cache(maxsize=1)
def _kept_explainer(
    model: str,
    weights: str,
    sha256: str,
    size: int,
    layer: Layer,
    methods: tuple[str, ...],
    target: Target,
    batch: int,
    placement: Placement,
) -> Explainer:
    source = sized(load_source(model, weights), size)
    if source.weights_sha256 != sha256:
        raise SalpipeError(f"--weights {weights}: not the weights that the run began with; put them back")
    return Explainer(source, layer, find_methods(methods), target, batch, placement)


def sized(source: SourceModel, size: int) -> SourceModel:
    """The same network for frames of `size` pixels a side."""
    return replace(source, preprocessing=replace(source.preprocessing, size=size))
