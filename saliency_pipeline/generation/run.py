"""`generate`: from a data set to shards: runs the shard jobs and merges their receipts into a manifest."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from saliency_pipeline.datasets.layout import ReadOptions
from saliency_pipeline.devices import threads_within_cores
from saliency_pipeline.errors import OptionError
from saliency_pipeline.execution.config import Workers
from saliency_pipeline.execution.engines import Calls
from saliency_pipeline.execution.gpus import ALL, visible_gpus
from saliency_pipeline.folders import FolderLock, make_output, make_subfolder
from saliency_pipeline.generation.background import Frames
from saliency_pipeline.generation.catalogue_file import PREFIX
from saliency_pipeline.generation.checks import checked_catalogue
from saliency_pipeline.generation.cluster import open_cluster, threads_of
from saliency_pipeline.generation.config import GenerateConfig
from saliency_pipeline.generation.fan_out import in_processes, on_cluster, remove_temporaries, resolve_on_worker, share
from saliency_pipeline.generation.job import Job, write_shards
from saliency_pipeline.generation.plan import PLAN, ShardTask, shard_tasks
from saliency_pipeline.generation.receipt import RECEIPTS, Receipt, merge, valid_receipt
from saliency_pipeline.generation.remote import RemoteOutput
from saliency_pipeline.generation.resolve import compares, resolve
from saliency_pipeline.generation.summary import summarize
from saliency_pipeline.images.record import Catalogue
from saliency_pipeline.memory import keep_large_blocks
from saliency_pipeline.models.trained.training_images import ENTRY
from saliency_pipeline.progress import Progress
from saliency_pipeline.saliency.explainer import Explainer
from saliency_pipeline.saliency.tuning import FRAMES
from saliency_pipeline.shards.schema import SEEN, ShardHeader, is_shard_name
from saliency_pipeline.subsets.selection import Grouping, Selection
from saliency_pipeline.text import plural
from saliency_pipeline.workers import possible_jobs, usable_cores

Write = Callable[[Sequence[ShardTask], Progress], list[Receipt]]
"""Writes shards and reports the progress in images."""


@dataclass(frozen=True)
class Report:
    """The result of a run.

    Attributes:
        folder: the output folder.
        images: number of images in the shards of this run's part.
        rejects: number of images that could not be used, in the same shards.
        single_color: number of images that have one color everywhere, in the same shards.
        seen: number of images that the source model was trained on, in the same shards.
        shards: number of shards of the part, by default all.
        written: number of shards written by this run; the others existed.
        complete: whether the whole plan is finished and its manifest written.
        seconds: duration of the run.
        images_per_second: rate while images were being explained; 0 if there were none.
        layers: the explained layers.
        backend: backend that computed the maps.
        precision: `fp32` or `bf16`.
        passed_over: number of skipped files and other entries of the data set, by kind and reason.
    """

    folder: str
    images: int
    rejects: int
    single_color: int
    seen: int
    shards: int
    written: int
    complete: bool
    seconds: float
    images_per_second: float
    layers: tuple[str, ...]
    backend: str
    precision: str
    passed_over: dict[str, int]


@threads_within_cores()
def generate(
    data: str | os.PathLike[str] | Catalogue,
    output: str | os.PathLike[str],
    config: GenerateConfig | None = None,
    *,
    layout: str = "auto",
    reading: ReadOptions | None = None,
    selection: Selection | None = None,
    grouping: Grouping | None = None,
    boxes: str | os.PathLike[str] | None = None,
    maps_from: str | os.PathLike[str] | None = None,
    jobs: int = 1,
    part: tuple[int, int] = (1, 1),
    workers: Workers | None = None,
    cluster: Calls | None = None,
    background: Frames | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Report:
    """Compute saliency maps of the images of a data set and store both in shards; resumes an interrupted run.

    Args:
        data: a data set in any layout, by path or URL, or a catalogue of images that are already read and selected.
        output: folder of the shards, outside the image folder, created if missing; or a URL such as s3://bucket/shards.
        config: settings of the frames and maps.
        layout: name of the data set's layout, or `auto`.
        reading: options for reading the data set.
        selection: classes, images and splits.
        grouping: treatment of duplicates and groups of images.
        boxes: file of boxes of objects: CSV, COCO's JSON, PASCAL VOC's XML, or a folder of such XML files.
        maps_from: folder of gray PNG or 2-D NPY files that are called as the images: maps of the method `given`.
        jobs: worker processes of this machine; each gets its share of the cores.
        part: (I, N): write only every N-th shard from the I-th on, so that N runs, here or on other machines that
            share the output, do the work between them. The last to finish writes the manifest.
        workers: processes of this machine, or a cluster whose workers share images and output folder.
        cluster: the cluster of `workers` where `open_cluster` has already been called; by default it is opened.
        background: uint8 (M, S, S, 3), frames for methods that compare with other images; by default some of the data
            set, of its training images where there are splits.
        progress: receives notes and progress.
        **options: fields of `GenerateConfig`, instead of `config`.

    Returns:
        The result of the run. Rejected images do not raise: see `Report.rejects` and `rejects.jsonl`.

    Raises:
        SalpipeError: anything the user can fix; what is already written stays.

    >>> import tempfile
    >>> from skimage import data, io
    >>> folder = Path(tempfile.mkdtemp())
    >>> (folder / "photos" / "cat").mkdir(parents=True)
    >>> io.imsave(folder / "photos" / "cat" / "chelsea.png", data.chelsea())
    >>> report = generate(folder / "photos", folder / "shards", backend="torch", precision="fp32")
    >>> report.images, report.layers, report.complete
    (1, ('bn2',), True)
    """
    start = time.perf_counter()
    if config is not None and options:
        raise TypeError("give a configuration or its fields, not both")
    config, progress, workers = config or GenerateConfig(**options), progress or Progress(), workers or Workers()
    remote = RemoteOutput.of(output, part)
    folder = remote.scratch if remote else Path(output).absolute()
    config, jobs, gpus = _checked(config, part, jobs, workers, background, remote, progress.note)
    # only the workers of a cluster have its devices
    checked = config if workers.engine == "loky" else replace(config, device="auto")
    inputs: Any = {"layout": layout, "reading": reading, "selection": selection, "grouping": grouping}
    inputs |= {"boxes": boxes, "maps_from": maps_from}
    keep_large_blocks()
    with ExitStack() as locks:
        if remote:
            _open_scratch(remote, part, locks, progress.note)
        catalogue = checked_catalogue(data, folder if remote else Path(output), checked, **inputs, progress=progress)
        if not remote:
            _open_folder(folder, part, locks, progress.note)
        if workers.engine != "loky":
            engine = cluster or locks.enter_context(open_cluster(workers, jobs, config.device, progress.note))
            return _on_cluster(engine, folder, config, catalogue, part, workers, jobs, progress, start)
        return _on_machine(remote, folder, config, catalogue, part, jobs, gpus, background, progress, start)


def _checked(
    config: GenerateConfig,
    part: tuple[int, int],
    jobs: int,
    workers: Workers,
    background: Frames | None,
    remote: RemoteOutput | None,
    note: Callable[[str], None],
) -> tuple[GenerateConfig, int, tuple[str, ...]]:
    """The configuration of one device, the number of worker processes, and all GPUs if they are requested."""
    here = workers.engine == "loky"
    if not 1 <= part[0] <= part[1]:
        raise OptionError(f"--shards {part[0]}/{part[1]}: use I/N with I from 1 to N")
    if jobs < 1:
        raise OptionError(f"--jobs {jobs}: use 1 or more")
    if not here and background is not None:
        raise TypeError("the workers of a cluster choose the background themselves")
    if not here and remote:
        raise OptionError(
            f"--engine {workers.engine}: its workers share a folder, which {remote.url} is not; give a folder, or run "
            "the command with --shards I/N on every machine"
        )
    if config.device == ALL:
        if not here:
            raise OptionError(f"--device {ALL}: the GPUs of this machine; on a cluster start one worker per GPU")
        gpus = visible_gpus()
        return replace(config, device="cuda"), possible_jobs(len(gpus), note), gpus
    return config, possible_jobs(jobs, note) if here else jobs, ()


def _on_machine(
    remote: RemoteOutput | None,
    folder: Path,
    config: GenerateConfig,
    catalogue: Catalogue,
    part: tuple[int, int],
    jobs: int,
    gpus: tuple[str, ...],
    background: Frames | None,
    progress: Progress,
    start: float,
) -> Report:
    """Resolve the job here, and write shards in this process or in worker processes."""
    data = summarize(catalogue, measured=FRAMES, background=len(catalogue) if compares(config) else 0)
    resolved = partial(resolve, folder, config, data, threads_of(jobs), progress.note, background)
    job, explainer = remote.settled(resolved) if remote else resolved()
    job = replace(job, url=remote.url) if remote else job
    report = _write(job, partial(_here, job, explainer, jobs, gpus), catalogue, part, progress, start)
    if remote:
        remote.clean()
    return report


def _on_cluster(
    engine: Calls,
    folder: Path,
    config: GenerateConfig,
    catalogue: Catalogue,
    part: tuple[int, int],
    workers: Workers,
    jobs: int,
    progress: Progress,
    start: float,
) -> Report:
    """Write shards on the workers of a cluster, which resolve the job as well."""
    shared, lines = share(folder, config, catalogue, None if workers.address else threads_of(jobs))
    job = resolve_on_worker(engine, shared, progress.note)
    report = _write(job, lambda: partial(on_cluster, engine, shared, lines, job), catalogue, part, progress, start)
    if report.complete:
        # those of other parts as well, which need them no longer
        for path in Path(shared.catalogue).parent.glob(f"{PREFIX}*"):
            path.unlink(missing_ok=True)
    return report


def _here(job: Job, explainer: Callable[[], Explainer], jobs: int, gpus: tuple[str, ...]) -> Write:
    """What writes shards on this machine: this process, which builds the engine now, or worker processes."""
    if jobs > 1:
        return lambda pending, progress: in_processes(job, gpus, pending, jobs, progress)
    engine = explainer()
    return lambda pending, progress: write_shards(job, pending, engine, progress.advance)


def _write(
    job: Job,
    ready: Callable[[], Write],
    catalogue: Catalogue,
    part: tuple[int, int],
    progress: Progress,
    start: float,
) -> Report:
    """Write the shards of a part that are missing or damaged, and the manifest once all parts are finished."""
    tasks = shard_tasks(catalogue, job.config.shard_size)
    folder, placement = Path(job.folder), job.placement
    layers = tuple(layer.name for layer in job.resolved.layers)
    progress.note(
        f"{job.config.model}, {with_names(layers)}, {placement.backend} {placement.precision} on {placement.device}"
    )
    own = tasks[part[0] - 1 :: part[1]]
    remote = job.remote
    done = (remote.valid_receipts if remote else partial(_valid_receipts, folder))(own, job.header.plan, progress)
    written, seconds = _run(ready, [task for task in own if task.name not in done], progress)
    done |= {receipt.shard.name: receipt for receipt in written}
    complete = (remote.merged if remote else partial(_merged, folder))(job.header, tasks, done)
    fresh = sum(receipt.shard.images for receipt in written)
    images = sum(receipt.shard.images for receipt in done.values())
    single_color = sum(receipt.single_color for receipt in done.values())
    seen = sum(receipt.seen for receipt in done.values())
    for text in _notes(job, single_color, seen, images):
        progress.note(text)
    return Report(
        job.url or str(folder),
        images,
        sum(len(receipt.rejects) for receipt in done.values()),
        single_color,
        seen,
        len(own),
        len(written),
        complete,
        round(time.perf_counter() - start, 3),
        round(fresh / seconds, 1) if fresh else 0.0,
        layers,
        placement.backend,
        placement.precision,
        dict(catalogue.passed_over),
    )


def with_names(layers: Sequence[str]) -> str:
    """The explained layers in words: `layer bn2`."""
    return f"layer{'s' if len(layers) > 1 else ''} {', '.join(layers) or 'none'}"


def _notes(job: Job, single_color: int, seen: int, images: int) -> Iterator[str]:
    """Notes on images without content, and on those that the source model was trained on."""
    if single_color:
        yield (
            f"{plural(single_color, 'image')} of one color everywhere, with nothing on it to explain: "
            "stored with bit 8 of saliency/<method>/flag"
        )
    model, source = job.config.model, job.header.provenance["source"]
    if seen:
        yield (
            f"{model} was trained on {seen:,} of these {plural(images, 'image')}: their maps are stored with bit "
            f"{SEEN} of saliency/<method>/flag, and must not be those of validation or test images"
        )
    if source.get(ENTRY, None if source["weights"] == "trained" else 0) is None:
        yield (
            f"{model} does not record all images it was trained on: 'salpipe train' refuses its maps; train it again, "
            "and generate these shards again in another folder"
        )


def _open_folder(folder: Path, part: tuple[int, int], locks: ExitStack, note: Callable[[str], None]) -> None:
    """Create the folder and lock it: exclusively, or shared by the parts of a job array."""
    make_output(folder)
    make_subfolder(folder / RECEIPTS)
    locks.enter_context(FolderLock(folder, shared=part[1] > 1, note=note))
    if part[1] > 1:
        own = folder / RECEIPTS / f"part-{part[0]}-of-{part[1]}"
        make_subfolder(own)
        locks.enter_context(FolderLock(own))
    elif not any(is_shard_name(path.name) for path in folder.iterdir()):
        # A plan without any shard does not bind later runs.
        (folder / PLAN).unlink(missing_ok=True)
    remove_temporaries(folder)


def _open_scratch(remote: RemoteOutput, part: tuple[int, int], locks: ExitStack, note: Callable[[str], None]) -> None:
    """Create and lock the scratch folder of a URL, with the plan that is stored there; refusals name the URL."""
    locks.enter_context(remote.named())
    _open_folder(remote.scratch, part, locks, note)
    remote.pull_plan()


def _valid_receipts(folder: Path, tasks: Sequence[ShardTask], plan: str, progress: Progress) -> dict[str, Receipt]:
    """Receipts of the shards that exist and are intact; every byte is read, because disks fail silently."""
    existing = [task for task in tasks if (folder / task.name).exists()]
    if not existing:
        return {}
    progress.start(len(existing), "shard", "checking")
    valid: dict[str, Receipt] = {}
    with ThreadPoolExecutor(usable_cores()) as pool:
        receipts = pool.map(lambda task: valid_receipt(folder, task.name, plan), existing)
        for task, receipt in zip(existing, receipts, strict=True):
            progress.advance(1)
            if receipt is not None:
                valid[task.name] = receipt
    progress.stop()
    if again := [task.name for task in existing if task.name not in valid]:
        more = f" and {len(again) - 5:,} more" if len(again) > 5 else ""
        progress.note(f"damaged or without a receipt, written again: {', '.join(again[:5])}{more}")
    return valid


def _run(ready: Callable[[], Write], pending: Sequence[ShardTask], progress: Progress) -> tuple[list[Receipt], float]:
    """Write the pending shards; returns their receipts and the seconds it took without building the engine."""
    if not pending:
        return [], 0.0
    write = ready()
    started = time.perf_counter()
    progress.start(sum(len(task.records) for task in pending), "image", "explaining")
    try:
        written = write(pending, progress)
    finally:
        progress.stop()
    return written, time.perf_counter() - started


def _merged(folder: Path, header: ShardHeader, tasks: Sequence[ShardTask], done: dict[str, Receipt]) -> bool:
    """Write manifest and rejects if every shard of the plan has a receipt, whichever run wrote it."""
    receipts: list[Receipt] = []
    for task in tasks:
        receipt = done.get(task.name) or valid_receipt(folder, task.name, header.plan, deep=False)
        if receipt is None:
            return False
        receipts.append(receipt)
    merge(folder, header, receipts)
    return True
