"""Shard jobs: from records to published shards and receipts; decoding, explaining and writing overlap."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from saliency_pipeline.errors import BadImageError, SalpipeError
from saliency_pipeline.execution.gpus import take_gpu
from saliency_pipeline.files import publish
from saliency_pipeline.generation.annotated import BOXES, computed, given_maps, made_by_source, upright_boxes
from saliency_pipeline.generation.background import Frames
from saliency_pipeline.generation.config import GenerateConfig
from saliency_pipeline.generation.plan import Choices, ShardTask
from saliency_pipeline.generation.receipt import Receipt, Reject
from saliency_pipeline.generation.remote import RemoteOutput
from saliency_pipeline.images.decode import Decoded, decode_upright
from saliency_pipeline.images.fit import is_single_color
from saliency_pipeline.images.record import Box, ImageRecord, RawMaps
from saliency_pipeline.images.remote_record import is_remote, need
from saliency_pipeline.models.source.source import SourceModel, load_source
from saliency_pipeline.remote.ahead import ReadAhead, reading_ahead
from saliency_pipeline.saliency.engine.backends import Placement
from saliency_pipeline.saliency.explainer import Explainer
from saliency_pipeline.saliency.methods.registry import find_methods, is_given
from saliency_pipeline.saliency.prepared import prepared_split
from saliency_pipeline.saliency.targets import Target
from saliency_pipeline.shards.manifest import ShardEntry
from saliency_pipeline.shards.schema import ShardHeader, ShardRows
from saliency_pipeline.shards.writer import ShardWriter
from saliency_pipeline.temporaries import temporary_name
from saliency_pipeline.workers import ordered, usable_cores

# Images per chunk of a worker: enough that handing over and writing take little time in comparison.
CHUNK = 16

# Forward passes per image from which on a chunk is a batch.
COSTLY = 20.0

_OF_MACHINE = (
    *(errno.ESTALE, errno.ETIMEDOUT, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENODEV, errno.ENXIO),
    *(errno.ENOTCONN, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ECONNRESET, errno.ECONNABORTED),
)
"""Errors of reading an image that are no fault of the image: it is not rejected, which would be permanent."""

_kept: dict[tuple[str, Placement], Explainer] = {}


@dataclass(frozen=True)
class Job:
    """Everything a worker needs to write any shard of a plan; small enough to send to another machine.

    Attributes:
        folder: the output folder.
        config: the configuration, with the stored names of model, methods and device.
        resolved: the choices of salpipe.
        target: the explained classes.
        streams: batches computed at the same time.
        header: header of every shard; its maps are named by the methods.
        background: frames (M, S, S, 3) that methods compare with; None if no method does.
        gpus: the GPUs that worker processes divide among them; empty if they need not.
        locks: folder of the locks on these.
        url: where finished shards are sent to; empty if they stay in the folder.
        root: folder or archive of the images; empty if they are remote.
    """

    folder: str
    config: GenerateConfig
    resolved: Choices
    target: Target
    streams: int
    header: ShardHeader
    background: Frames | None = None
    gpus: tuple[str, ...] = ()
    locks: str = ""
    url: str = ""
    root: str = ""

    @property
    def placement(self) -> Placement:
        """Backend, precision, device and streams."""
        return Placement(self.resolved.backend, self.resolved.precision, self.config.device, self.streams)

    @property
    def remote(self) -> RemoteOutput | None:
        """Where finished shards are sent to."""
        return RemoteOutput(self.url, Path(self.folder)) if self.url else None

    def send(self, receipt: Receipt) -> Receipt:
        """Send a finished shard where it is to go, if it is not to stay; returns the receipt that is then valid."""
        return self.remote.publish(receipt) if self.remote else receipt


@dataclass(frozen=True)
class _Chunk:
    """Records of one shard that one worker processes at a time: a shard's bytes depend only on its own images."""

    task: ShardTask
    records: Sequence[ImageRecord]
    last: bool


@dataclass(frozen=True)
class _Explained:
    """The result of a chunk: rows for the shard, None if every record was rejected, and the rejects."""

    chunk: _Chunk
    rows: ShardRows | None
    rejects: list[Reject]


def write_shards(
    job: Job, tasks: Sequence[ShardTask], explainer: Explainer, progress: Callable[[int], None] | None = None
) -> list[Receipt]:
    """Write shards one after the other, decoding the next while the previous one is being published.

    `progress` is called with the number of images done since the last call.

    Returns:
        One receipt per shard, each already written to the folder of receipts.

    Raises:
        SalpipeError: the disk is full or cannot be written; finished shards stay.
    """
    workers, threads = _worker_count(job.placement), torch.get_num_threads()
    remote = any(is_remote(task.records) for task in tasks)
    receipts: list[Future[Receipt]] = []
    shard: _OpenShard | None = None
    with reading_ahead(remote) as ahead, _pool(workers, "explain") as pool, _pool(1, "publish") as publisher:
        work = _Worker(job, explainer, ahead)
        try:
            for explained in ordered(pool, work, _chunks(job, tasks, ahead), 2 * workers):
                chunk = explained.chunk
                shard = shard or _OpenShard(job, chunk.task)
                shard.add(explained)
                if chunk.last:
                    if receipts:
                        receipts[-1].result()
                    receipts.append(publisher.submit(shard.publish))
                    shard = None
                if progress:
                    progress(len(chunk.records))
            return [receipt.result() for receipt in receipts]
        finally:
            if shard is not None:
                shard.entered.close()
            # The pools' threads set the number for all later threads of the process.
            torch.set_num_threads(threads)


class _OpenShard:
    """A shard being written under a temporary name."""

    def __init__(self, job: Job, task: ShardTask) -> None:
        self.job, self.task = job, task
        self.rejects: list[Reject] = []
        self.single_color = self.seen = 0
        self.entered = ExitStack()
        path = temporary_name(Path(job.folder) / task.name)
        self.writer = self.entered.enter_context(ShardWriter(path, job.header, len(task.records)))

    def add(self, explained: _Explained) -> None:
        """Write the rows of the next chunk."""
        self.rejects += explained.rejects
        if explained.rows is not None:
            self.writer.append(explained.rows)
            self.single_color += int(np.sum(explained.rows.single_color))
            self.seen += int(np.sum(explained.rows.seen))

    def publish(self) -> Receipt:
        """Complete the file, move it to its name, write the receipt, and send both where they are to go."""
        folder = Path(self.job.folder)
        with self.entered:
            images = self.writer.finish()
            path = self.writer.path
            size = path.stat().st_size
            digest = publish(path, folder / self.task.name, file=self.writer.descriptor)
        entry = ShardEntry(self.task.name, images, size, digest)
        receipt = Receipt(self.job.header.plan, entry, tuple(self.rejects), self.single_color, self.seen)
        receipt.write(folder)
        return self.job.send(receipt)


def _pool(size: int, name: str) -> ThreadPoolExecutor:
    """Threads whose tensor operations run in the thread: many small workers beat few that wait for one another."""
    return ThreadPoolExecutor(size, name, initializer=torch.set_num_threads, initargs=(1,))


def _chunks(job: Job, tasks: Sequence[ShardTask], ahead: ReadAhead | None) -> Iterator[_Chunk]:
    batch = job.resolved.batch_size
    # where an image takes many passes, all threads should have some of the last images
    costly = sum(method.cost for method in find_methods(job.config.methods)) >= COSTLY
    size = batch if costly else -(-CHUNK // batch) * batch
    for task in tasks:
        need(ahead, task.records)
        for start in range(0, len(task.records), size):
            yield _Chunk(task, task.records[start : start + size], start + size >= len(task.records))


def _worker_count(placement: Placement) -> int:
    """On the CPU one more than compute: more decoding workers would evict the others' data from the caches."""
    return placement.streams + 1 if placement.device == "cpu" else max(placement.streams + 1, usable_cores())


class _Worker:
    """Turns a chunk into rows: reads, decodes, explains. Called from as many threads as there are workers."""

    def __init__(self, job: Job, explainer: Explainer, ahead: ReadAhead | None = None) -> None:
        self.job, self.explainer, self.ahead = job, explainer, ahead
        self.interpolation = explainer.source.preprocessing.interpolation
        self.training_images = explainer.source.training_images()
        self.checks_boxes = BOXES in job.header.provenance["data"]
        self.stores_given = any(map(is_given, job.header.maps))
        self.same_network = made_by_source(job.header)
        # As many as there are cores, or batches in a GPU's memory.
        self.computing = threading.BoundedSemaphore(job.placement.streams)

    def __call__(self, chunk: _Chunk) -> _Explained:
        job, rejects = self.job, []
        records: list[ImageRecord] = []
        boxes: list[tuple[Box, ...]] = []
        ready: list[RawMaps] = []
        digests: list[bytes] = []
        sizes: list[tuple[int, int]] = []
        jpegs: list[bytes] = []
        single_color: list[bool] = []
        frames = np.empty((len(chunk.records), job.header.size, job.header.size, 3), np.uint8)
        for record in chunk.records:
            try:
                data = record.read()
                decoded = decode_record(record, data, job.config, job.header.size, self.interpolation)
                boxes_of = upright_boxes(record, decoded, check=self.checks_boxes)
                if self.stores_given:
                    # after all else that may reject the image
                    ready.append(given_maps(record, decoded.size, job.header, job.config, self.same_network))
            except BadImageError as error:
                rejects.append(Reject(record.key, str(error)))
                continue
            except OSError as error:
                check_machine(error, record.path, job.root)
                rejects.append(Reject(record.key, f"cannot be read: {error.strerror or type(error).__name__}"))
                continue
            finally:
                if self.ahead is not None:
                    self.ahead.done(record.key)
            single_color.append(is_single_color(decoded.frame, job.config.fit))
            frames[len(records)], encoded = frame_as_stored(decoded.frame, job.config)
            if encoded is not None:
                jpegs.append(encoded)
            records.append(record)
            boxes.append(boxes_of)
            digests.append(hashlib.sha256(data).digest())
            sizes.append(decoded.size)
        if not records:
            return _Explained(chunk, None, rejects)
        frames = frames[: len(records)]
        labels = np.array([record.label for record in records], np.int64)
        with self.computing:
            explanation = self.explainer.explain(frames, labels, [record.key for record in records])
        finite = np.isfinite(explanation.prediction_score).all(axis=1)
        if not finite.all():
            failed = {record.key for record, whole in zip(records, finite, strict=True) if not whole}
            rejects = [Reject(key, "the source model's scores for it are not finite") for key in sorted(failed)]
            rest = self(replace(chunk, records=[record for record in chunk.records if record.key not in failed]))
            return _Explained(chunk, rest.rows, rejects + rest.rejects)
        sha256 = np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32)
        maps, targets = explanation.maps, explanation.map_targets
        seen = None if self.training_images is None else self.training_images.contains(sha256)
        if self.stores_given:
            maps = {**maps, **{name: np.stack([each.maps[name] for each in ready]) for name in ready[0].maps}}
            targets = {**targets, **{name: np.stack([each.targets[name] for each in ready]) for name in ready[0].maps}}
            if any(each.seen for each in ready):
                seen = np.array([each.seen for each in ready], np.bool_) | (False if seen is None else seen)
        rows = ShardRows(
            keys=[record.key for record in records],
            labels=labels,
            splits=np.array([record.split for record in records], np.int8),
            images=jpegs or frames,
            sha256=sha256,
            source_size=np.array(sizes, np.int32),
            prediction_class=explanation.prediction_class,
            prediction_score=explanation.prediction_score,
            maps=maps,
            targets=targets,
            residuals=explanation.residuals,
            standard_errors=explanation.standard_errors,
            boxes=boxes if job.header.boxes else (),
            groups=np.array([record.group for record in records], np.int64) if job.header.groups else (),
            single_color=np.array(single_color, np.bool_),
            seen=() if seen is None else seen,
        )
        return _Explained(chunk, rows, rejects)


def check_machine(error: OSError, path: str, root: str) -> None:
    """Check that an image cannot be read for a reason of its own, so that it is to be rejected.

    Args:
        error: the error of reading it.
        path: its file.
        root: folder or archive of the data set; empty if it is remote.

    Raises:
        SalpipeError: this machine, a mount or the whole data set fails.
    """
    reason = error.strerror or type(error).__name__
    # readers of archives and tables raise EIO with their own words for damaged ones
    fails = error.errno in _OF_MACHINE or (error.errno == errno.EIO and reason == os.strerror(errno.EIO))
    if error.errno == errno.ENOENT and root and _is_gone(root):
        path, reason, fails = root, "is no longer there", True
    if fails:
        raise SalpipeError(
            f"{path}: {reason}, which is no fault of the image; make it readable and run the same command again"
        ) from error


def _is_gone(root: str) -> bool:
    """True if a data set is not there, or an empty folder, as where a mount was lost."""
    try:
        with os.scandir(root) as entries:
            return next(entries, None) is None
    except NotADirectoryError:
        return False
    except OSError:
        return True


def decode_record(record: ImageRecord, data: bytes, config: GenerateConfig, size: int, interpolation: str) -> Decoded:
    """The frame of a record, see `decode_upright`."""
    fit, most = config.fit, config.max_pixels
    return decode_upright(data, size, fit=fit, interpolation=interpolation, max_pixels=most, box=record.box)


def frame_as_stored(frame: np.ndarray, config: GenerateConfig) -> tuple[np.ndarray, bytes | None]:
    """A frame as it is stored, which is what the source model sees, and the JPEG file if it is stored as one."""
    if config.encoding != "jpeg":
        return frame, None
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, "JPEG", quality=config.jpeg_quality, subsampling=0)
    return np.asarray(Image.open(buffer)), buffer.getvalue()


def write_shard(job: Job, task: ShardTask) -> Receipt:
    """Write one shard in a worker process, which keeps its engine for the next shard."""
    if job.gpus:
        take_gpu(job.gpus, Path(job.locks))
    return write_shards(job, [task], _kept_explainer(job))[0]


def build_explainer(job: Job, source: SourceModel) -> Explainer:
    """The job's engine, from its source model."""
    chosen = job.resolved
    return Explainer(
        source,
        chosen.layers,
        find_methods(computed(job.header.maps)),
        job.target,
        chosen.batch_size,
        job.placement,
        prepared_split(source, chosen.layers, chosen.batch_size),
        job.background,
    )


def _kept_explainer(job: Job) -> Explainer:
    """A worker's engine; the last one is kept."""
    # settings outside the plan's hash change no explainer
    key = job.header.plan, job.placement
    if key not in _kept:
        _kept.clear()
        source = load_source(job.config.model, job.config.weights).with_size(job.header.size)
        described = job.header.provenance["source"]
        if source.code_sha256 != described.get("code_sha256"):
            raise SalpipeError(f"--model {source.name}: its source has changed since the run was started; restore it")
        if source.weights_sha256 != described["weights_sha256"]:
            raise SalpipeError(
                f"--weights {job.config.weights}: not the weights that the run was started with; restore them"
            )
        _kept[key] = build_explainer(job, source)
    return _kept[key]
