"""Metrics of `assess` in memory, as rates taken in turn in one process, with ready maps of five methods.

    scores    deletion, insertion and SRG, 28 steps each, of 16 images and all methods per call, through the network as
              `assess` runs it: against torch-cam's DeletionInsertionMetric at its best batch size of 32 and 64
              (64, 256 on a GPU), which has to run twice, as insertion's fill is another than that of deletion and SRG;
              and with one fill for all, where it runs once
    road      the same blocks for ROAD, next to deletion
    maps      all metrics that read maps alone, 16 random maps per call as `assess` does, each with a box

Rounds take turns; the best of each arm counts.

    python -m tests.benchmarks.bench_assess scores
    python -m tests.benchmarks.bench_assess maps
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import cv2
import numpy as np
import torch

from saliency_pipeline.assessment.inquiry import Floats, ImageBatch, Inquiry
from saliency_pipeline.assessment.metrics.metric import Cost, Metric
from saliency_pipeline.assessment.metrics.perturbation import blurred
from saliency_pipeline.assessment.metrics.registry import METRICS, find_metrics
from saliency_pipeline.assessment.network import SourceNetwork, placement_for_scores
from saliency_pipeline.devices import find_device
from saliency_pipeline.memory import keep_large_blocks
from saliency_pipeline.models.source.source import load_source
from saliency_pipeline.models.source.source_model import SourceModel
from saliency_pipeline.saliency.engine.backends import Normalize
from saliency_pipeline.saliency.methods.registry import find_methods
from saliency_pipeline.saliency.prepared import prepared_layers
from saliency_pipeline.workers import usable_cores
from tests.assessment.networks import Extractor
from tests.benchmarks.bench_methods import Arm, frames_of, measured

FIVE = ("gradcam", "layercam", "hirescam", "eigencam", "center-prior")
COUNT, FEW, STEPS = 16, 4, 28


def network_of(source: SourceModel, device: str) -> SourceNetwork:
    """The source model as `assess` asks it."""
    streams = usable_cores() if device == "cpu" else 2
    placement = placement_for_scores(source, frames_of(32, source.preprocessing.size), device, streams)
    layers = [layer.name for layer in prepared_layers(source)]
    return SourceNetwork(source, layers, find_methods(FIVE), replace(placement, streams=streams))


def images_of(network: SourceNetwork) -> ImageBatch:
    """Photographs, explained for whatever classes."""
    frames = frames_of(COUNT, network.source.preprocessing.size)
    targets = np.arange(COUNT) % len(network.source.classes)
    keys = [f"{image}.jpg" for image in range(COUNT)]
    return ImageBatch(keys, frames, targets, targets, [np.empty((0, 4))] * COUNT, network)


def maps_of(network: SourceNetwork, batch: ImageBatch) -> dict[str, Floats]:
    """Maps of all methods."""
    names = [method.canonical for method in find_methods(FIVE)]
    maps = {name: network.explain(name, batch.frames, batch.targets, batch.keys) for name in names}
    return {name: own for name, own in maps.items() if own is not None}


def assessed(batch: ImageBatch, maps: dict[str, Floats], metrics: Sequence[Metric]) -> None:
    """What `assess` does with a block of images."""
    fresh = ImageBatch(batch.keys, batch.frames, batch.targets, batch.labels, batch.boxes, batch.network)
    for name, own in maps.items():
        ask = Inquiry(fresh, name, own)
        for metric in metrics:
            metric.values(ask)


def by_torch_cam(network: SourceNetwork, batch: ImageBatch, maps: dict[str, Floats], size: int, fills: int) -> None:
    """The same curves of the first few images by torch-cam's metric, for the same classes and maps."""
    from torchcam.metrics import DeletionInsertionMetric

    source, device = network.source, network.placement.device
    normalize = Normalize(source.preprocessing, device)
    frames, targets = batch.frames[:FEW], batch.targets[:FEW].tolist()
    inputs, blurry = normalize(frames), normalize(blurred(frames, network.color))
    for own in maps.values():
        extractor = Extractor(source.module, torch.from_numpy(own[:FEW]).to(device))
        for baseline in (None, blurry)[:fills]:
            metric = DeletionInsertionMetric(
                extractor, partial(torch.softmax, dim=-1), steps=STEPS, baseline=baseline, batch_size=size
            )
            metric.update(inputs, targets)


def scores(options: argparse.Namespace) -> dict[str, Any]:
    """Deletion, insertion and SRG against torch-cam's metric."""
    device = str(find_device("auto"))
    network = network_of(load_source(options.model, options.weights), device)
    batch, streams = images_of(network), network.placement.streams
    maps = maps_of(network, batch)
    network.source.module.to(device)
    arms: dict[str, Arm] = {}
    for fills, insertion in ((2, "insertion"), (1, "insertion:fill=mean")):
        metrics = find_metrics(["deletion", insertion, "srg"])
        arms[f"salpipe, {fills} fills"] = partial(assessed, batch, maps, metrics), COUNT, streams
        for size in (32, 64) if device == "cpu" else (64, 256):
            run = partial(by_torch_cam, network, batch, maps, size, fills)
            arms[f"torch-cam, {fills} fills, {size}"] = run, FEW, None
    rates = measured(arms, options.rounds, options.seconds)
    best = {
        fills: max(rate for arm, rate in rates.items() if arm.startswith(f"torch-cam, {fills}")) for fills in (1, 2)
    }
    ratios = {f"of_torch_cam_{fills}_fills": rates[f"salpipe, {fills} fills"] / best[fills] for fills in (2, 1)}
    return {"placement": str(network.placement), "methods": len(maps), **ratios}


def road(options: argparse.Namespace) -> dict[str, Any]:
    """ROAD and, for comparison, deletion."""
    network = network_of(load_source(options.model, options.weights), str(find_device("auto")))
    batch = images_of(network)
    maps = maps_of(network, batch)
    arms: dict[str, Arm] = {
        name: (partial(assessed, batch, maps, find_metrics([name])), COUNT, network.placement.streams)
        for name in ("deletion", "road")
    }
    rates = measured(arms, options.rounds, options.seconds)
    return {"placement": str(network.placement), "cost_of_deletion": rates["deletion"] / rates["road"]}


def map_only(options: argparse.Namespace) -> dict[str, Any]:
    """All metrics that need no network."""
    names = [name for name, kind in METRICS.items() if kind.cost == Cost.MAPS]
    metrics, count, size = find_metrics(names), COUNT, 224
    targets, keys = np.zeros(count, np.int64), [str(image) for image in range(count)]
    boxes = [np.array([[30.0, 40.0, 150.0, 200.0]])] * count
    batch = ImageBatch(keys, np.empty((0, size, size, 3), np.uint8), targets, targets, boxes)
    network = network_of(load_source(options.model, options.weights), str(find_device("auto")))
    maps = {"gradcam": maps_of(network, images_of(network))["gradcam"]}
    cv2.setNumThreads(1)
    arms: dict[str, Arm] = {
        metric.name: (partial(assessed, batch, maps, (metric,)), count, usable_cores()) for metric in metrics
    }
    arms["all"] = partial(assessed, batch, maps, metrics), count, usable_cores()
    return measured(arms, options.rounds, options.seconds)


PARTS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {"scores": scores, "road": road, "maps": map_only}


def main() -> None:
    """Measure one part and print its rates or ratios as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=tuple(PARTS))
    parser.add_argument("--model", default="efficientnet_lite0")
    parser.add_argument("--weights", default="default")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=20.0)
    options = parser.parse_args()
    keep_large_blocks()
    print(json.dumps(PARTS[options.part](options)))


if __name__ == "__main__":
    main()
