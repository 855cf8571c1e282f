"""`assess`: measures the quality of stored maps, block by block, and writes results and page."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from saliency_pipeline.assessment.blocks import (
    ALL,
    SAMPLED,
    Block,
    blocks_of,
    read_block,
    remove_blocks,
    scattered,
    write_block,
)
from saliency_pipeline.assessment.config import AssessConfig
from saliency_pipeline.assessment.maps import AssessedMaps, explainable
from saliency_pipeline.assessment.measured import Measured
from saliency_pipeline.assessment.metrics.metric import Cost, Metric, Values
from saliency_pipeline.assessment.metrics.registry import find_metrics
from saliency_pipeline.assessment.network import SourceNetwork, placement_for_scores
from saliency_pipeline.assessment.report import write_report
from saliency_pipeline.assessment.results import Results, write_results
from saliency_pipeline.assessment.summary import summarize
from saliency_pipeline.datasets.nesting import refuse_among_images
from saliency_pipeline.devices import find_device, threads_within_cores
from saliency_pipeline.documents import read_object
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.figures.pictures import jpeg
from saliency_pipeline.files import write_atomically
from saliency_pipeline.folders import FolderLock, make_output, make_subfolder
from saliency_pipeline.generation.background import background_of
from saliency_pipeline.generation.plan import library_versions
from saliency_pipeline.generation.provenance import Provenance
from saliency_pipeline.generation.recorded import is_available, recorded_source
from saliency_pipeline.memory import keep_large_blocks
from saliency_pipeline.progress import Progress
from saliency_pipeline.recognition import refuse_shards
from saliency_pipeline.saliency.engine.backends import Placement
from saliency_pipeline.saliency.render import overlay
from saliency_pipeline.saliency.tuning import FRAMES
from saliency_pipeline.settings import to_table
from saliency_pipeline.shards.reader import Positions, ShardFolder
from saliency_pipeline.shards.schema import ALL_ZERO
from saliency_pipeline.subsets.hash_sampling import hashes
from saliency_pipeline.temporaries import remove_stale_temporaries
from saliency_pipeline.text import plural
from saliency_pipeline.workers import usable_cores

PLAN, PARTS = "plan.json", "blocks"


@dataclass(frozen=True)
class Assessment:
    """The result of a run.

    Attributes:
        folder: the output folder.
        results: statistics of all metrics and methods.
        page: path of the page.
        images: number of images.
        sampled: number of images for metrics that need the network.
        resumed: number of blocks that an earlier run had measured.
        blocks: number of all blocks.
        seconds: duration of the run.
    """

    folder: Path
    results: Results
    page: Path
    images: int
    sampled: int
    resumed: int
    blocks: int
    seconds: float


@threads_within_cores()
def assess(
    shards: Path | str,
    output: Path | str,
    config: AssessConfig | None = None,
    *,
    weights: str | None = None,
    device: str = "auto",
    progress: Progress | None = None,
    renew: bool = False,
    **options: Any,
) -> Assessment:
    """Measure the quality of stored maps and rank the methods. The same call resumes an interrupted one.

    Args:
        shards: a finished folder of shards, or one shard.
        output: folder of `assess.json`, `per-image.csv`, `report.html` and `figures/`.
        config: what is measured.
        weights: file of the source model's weights, if they came from a file; or the run, if the source model was one.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        progress: receives notes and progress.
        renew: whether the results of other settings in the output folder are replaced, not refused.
        **options: fields of `AssessConfig`, instead of `config`.

    Raises:
        SalpipeError: no such shards, methods or metrics, a damaged shard, another source model, the results of other
            settings in the output folder, an output folder of images or shards, or a full disk.
    """
    start = time.perf_counter()
    if config is not None and options:
        raise TypeError("give a configuration or its fields, not both")
    config, progress, folder = config or AssessConfig(**options), progress or Progress(), Path(output)
    pairs, metrics, notes = ShardFolder(shards), find_metrics(config.metrics), list[str]()
    pairs.load(progress)
    refuse_among_images(folder, shards)
    refuse_shards(folder)
    if not len(pairs):
        raise SalpipeError(f"{shards}: holds no image; generate it again from images that can be used")

    def note(text: str) -> None:
        notes.append(text)
        progress.note(text)

    provenance = Provenance.from_json(pairs.provenance)
    maps = AssessedMaps.of(pairs, config.methods, provenance.settings.fit if provenance.settings else "crop")
    metrics = _without_boxes(metrics, pairs, note)
    if any(pairs.header.maps[method.name].targets > 1 for method in maps.methods if method.stored):
        note("of several maps per image and method the first is assessed, that of the highest class")
    _note_zeros(pairs, maps, note)
    keep_large_blocks()
    make_output(folder)
    make_subfolder(folder / PARTS)
    with FolderLock(folder, note=progress.note):
        remove_stale_temporaries(folder / PARTS)
        network, metrics, record = _network(pairs, maps, provenance, metrics, config, weights, device, folder, note)
        sample = _sample(pairs, config) if any(metric.cost for metric in metrics) else np.zeros(0, np.int64)
        blocks = _blocks(len(pairs), sample, metrics, config)
        plan = {**record, "settings": to_table(config), "metrics": [metric.canonical for metric in metrics]}
        plan["methods"] = [method.name for method in maps.methods]
        _check_plan(folder, plan, renew)
        values, resumed = _measure(folder, blocks, maps, network, progress)
        place = pairs.mirror.url if pairs.mirror else str(pairs.path)
        described = {"shards": place, "facts": _facts(pairs, provenance, config), **plan}
        measured = _measured(pairs, maps, metrics, sample, values, described, notes)
        results = summarize(measured)
        write_results(folder, results, measured)
        page = write_report(folder, results, _pictures(pairs, maps))
    seconds = round(time.perf_counter() - start, 3)
    return Assessment(folder, results, page, len(pairs), len(sample), resumed, len(blocks), seconds)


def _facts(pairs: ShardFolder, provenance: Provenance, config: AssessConfig) -> list[list[str]]:
    """What the head of the page says of the network and the sample."""
    network = f"{pairs.source.get('model', 'not recorded')}, weights {pairs.source.get('weights', 'not recorded')}"
    return [["Network", network], ["Layers", ", ".join(provenance.layers) or "none"], ["Seed", str(config.seed)]]


def _without_boxes(metrics: tuple[Metric, ...], pairs: ShardFolder, note: Callable[[str], None]) -> tuple[Metric, ...]:
    """The metrics, without those that need boxes where there are none."""
    needing = [metric.name for metric in metrics if metric.needs_boxes]
    if pairs.header.boxes or not needing:
        return metrics
    text = f"{', '.join(needing)}: need boxes of objects, of which {pairs.path} has none"
    remedy = "generate it with --boxes"
    if len(needing) == len(metrics):
        raise SalpipeError(f"{text}; {remedy}")
    note(f"{text}: left out; {remedy}")
    return tuple(metric for metric in metrics if not metric.needs_boxes)


def _note_zeros(pairs: ShardFolder, maps: AssessedMaps, note: Callable[[str], None]) -> None:
    """Name methods with maps of zeros, as of images without a map from elsewhere, whose values say nothing."""
    for method in maps.methods:
        if method.stored and (zeros := np.count_nonzero(pairs.flags(method.name) & ALL_ZERO)):
            ranked = "their pixels are ranked row by row"
            note(f"{method.name}: {zeros:,} of {plural(len(pairs), 'map')} are zero everywhere, and {ranked}")


def _network(
    pairs: ShardFolder,
    maps: AssessedMaps,
    provenance: Provenance,
    metrics: tuple[Metric, ...],
    config: AssessConfig,
    weights: str | None,
    device: str,
    folder: Path,
    note: Callable[[str], None],
) -> tuple[SourceNetwork | None, tuple[Metric, ...], dict[str, Any]]:
    """The source model where metrics need it, the metrics that can be measured, and what identifies the run."""
    record: dict[str, Any] = {"shards_sha256": pairs.identity, "images": len(pairs), "versions": library_versions("")}
    record["source"] = {name: pairs.source.get(name) for name in ("model", "weights", "weights_sha256")}
    if not any(metric.cost for metric in metrics):
        return None, metrics, record
    if provenance.settings is None or not provenance.source.get("weights_sha256"):
        text = f"{pairs.path}: does not record how its maps were made, so that no network can be asked"
        left = tuple(metric for metric in metrics if not metric.cost)
        if config.metrics or not left:
            raise SalpipeError(f"{text}; use --metric with metrics of the maps alone")
        note(f"{text}: metrics that need one are left out")
        return None, left, record
    where = str(find_device(device))
    source, _, _ = recorded_source(provenance, provenance.settings, str(pairs.path), weights, note)
    source = source.with_size(pairs.header.size)
    able = explainable(maps.methods, note) if any(m.cost >= Cost.EXPLANATIONS for m in metrics) else ()
    stored = _stored_placement(folder, where)
    frames = pairs.images_at(np.arange(min(FRAMES, len(pairs))))
    streams = usable_cores() if where == "cpu" else 2
    placement = stored or placement_for_scores(source, frames, where, streams)
    background = background_of(pairs) if any(method.needs_background for method in able) else None
    record["versions"] = library_versions(placement.backend, [method.name for method in able])
    record["placement"] = {"backend": placement.backend, "precision": placement.precision, "device": where}
    placement = replace(placement, streams=streams)
    return SourceNetwork(source, provenance.layers, able, placement, background), metrics, record


def _stored_placement(folder: Path, device: str) -> Placement | None:
    """The placement that an interrupted run has chosen, if it is for the same device and available here."""
    try:
        placement = Placement(**_stored_plan(folder)["placement"])
    except (KeyError, TypeError):
        return None
    return placement if placement.device == device and is_available(placement) else None


def _sample(pairs: ShardFolder, config: AssessConfig) -> Positions:
    """Positions of the sampled images in the order of their hashes, so that a larger sample begins with a smaller."""
    return np.argsort(hashes(config.seed, "assess", pairs.keys()), kind="stable")[: config.images].astype(np.int64)


def _blocks(count: int, sample: Positions, metrics: Sequence[Metric], config: AssessConfig) -> list[Block]:
    """All blocks, those that take longest first."""
    of_maps = [metric for metric in metrics if metric.cost == Cost.MAPS]
    of_scores = [metric for metric in metrics if metric.cost == Cost.SCORES]
    explaining = [metric for metric in metrics if metric.cost >= Cost.EXPLANATIONS]
    return [
        *blocks_of("explained", sample[: config.explained], explaining, SAMPLED),
        *blocks_of("scores", sample, of_scores, SAMPLED),
        *blocks_of("maps", np.arange(count), of_maps, ALL),
    ]


def _check_plan(folder: Path, plan: dict[str, Any], renew: bool) -> None:
    """Store the plan, or compare it with the stored one.

    Raises:
        SalpipeError: the folder holds the results of other settings, which are not to be replaced.
    """
    stored, plan = _stored_plan(folder), json.loads(json.dumps(plan))
    if stored == plan:
        return
    if stored and not renew:
        other = ", ".join(name.replace("_", " ") for name in plan if stored.get(name) != plan[name]) or "contents"
        raise SalpipeError(f"{folder}: holds an assessment with other {other}; choose another output folder")
    remove_blocks(folder / PARTS)
    write_atomically(folder / PLAN, json.dumps(plan, indent=1, sort_keys=True) + "\n")


def _stored_plan(folder: Path) -> dict[str, Any]:
    """The plan of a folder; empty if there is none or it is damaged."""
    try:
        return read_object(folder / PLAN, "salpipe assess")
    except SalpipeError:
        return {}


def _measure(
    folder: Path, blocks: Sequence[Block], maps: AssessedMaps, network: SourceNetwork | None, progress: Progress
) -> tuple[list[tuple[Block, dict[str, Values]]], int]:
    """Values of all blocks, and the number of those that were measured before."""
    stored = {block.name: read_block(folder / PARTS / block.name, block, maps.methods) for block in blocks}
    pending = [block for block in blocks if stored[block.name] is None]

    def measure(block: Block) -> dict[str, Values]:
        values = block.measure(maps, network)
        write_block(folder / PARTS / block.name, values)
        return values

    if pending:
        progress.start(sum(len(block.positions) for block in pending), "image", "measuring")
        with _one_core_per_thread() as pool:
            jobs = {pool.submit(measure, block): block for block in pending}
            try:
                for job in as_completed(jobs):
                    stored[jobs[job].name] = job.result()
                    progress.advance(len(jobs[job].positions))
            finally:
                pool.shutdown(wait=True, cancel_futures=True)
                progress.stop()
    return [(block, stored[block.name] or {}) for block in blocks], len(blocks) - len(pending)


@contextmanager
def _one_core_per_thread() -> Iterator[ThreadPoolExecutor]:
    """A thread per core, in which libraries start no threads of their own, which would wait for each other."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        with ThreadPoolExecutor(usable_cores(), "assess", torch.set_num_threads, (1,)) as pool:
            yield pool
    finally:
        cv2.setNumThreads(before)


def _measured(
    pairs: ShardFolder,
    maps: AssessedMaps,
    metrics: tuple[Metric, ...],
    sample: Positions,
    blocks: Sequence[tuple[Block, dict[str, Values]]],
    plan: dict[str, Any],
    notes: Sequence[str],
) -> Measured:
    """All values by method and column."""
    count, ordered = len(pairs), np.sort(sample)
    values: dict[str, Values] = {}
    curves: dict[str, Values] = {}
    for method in maps.methods:
        own: Values = {}
        for metric in metrics:
            own |= metric.finish({name: scattered(blocks, method.name, name, count) for name in metric.names})
        columns = [column.name for metric in metrics for column in metric.columns]
        values[method.name] = {name: own[name] for name in columns}
        curves[method.name] = {
            curve.name: own[curve.name] for metric in metrics for curve in metric.curves if own[curve.name].ndim == 2
        }
    with_boxes = sum(int((pairs.shard(i).box_counts > 0).sum()) for i in range(len(pairs.shards)))
    return Measured(
        pairs.keys(), pairs.labels, pairs.classes, ordered, with_boxes, maps.methods, metrics, values, curves, plan,
        tuple(notes),
    )  # fmt: skip


def _pictures(pairs: ShardFolder, maps: AssessedMaps) -> Callable[[str, str], tuple[bytes, bytes] | None]:
    """Photo and overlay of an image by its key and a method, as JPEG files."""
    methods = {method.name: method for method in maps.methods}

    def pictures(key: str, name: str) -> tuple[bytes, bytes] | None:
        position = np.array([pairs.find(key)])
        batch = maps.batch(position, None, frames=True)
        frame, values = batch.frames[0], maps.maps(methods[name], position, batch)[0]
        return jpeg(frame), jpeg(overlay(frame, values))

    return pictures
