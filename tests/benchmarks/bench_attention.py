"""Methods of attention against the plain forward pass and torch-cam, as ratios of rates taken in turn in one process.

Arms: the forward pass with fused attention, that with exposed attention, each of the four methods, all in one run, and
LeGrad of torch-cam at batch sizes of 1 and 4, if the network is torchvision's. Rounds take turns; the best counts.

    python -m tests.benchmarks.bench_attention
    python -m tests.benchmarks.bench_attention --model torchvision/vit_b_16 --weights none
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import torch
from torch import nn

from saliency_pipeline.devices import find_device
from saliency_pipeline.memory import keep_large_blocks
from saliency_pipeline.models.source.source import SourceModel, load_source
from saliency_pipeline.saliency.engine.backends import Normalize
from tests.benchmarks.bench_methods import Arm, explainer_of, frames_of, measured

METHODS = ("attention", "rollout", "chefer", "legrad")


def arms_of(source: SourceModel, device: str) -> dict[str, Arm]:
    """What is measured, by name."""
    explainers = {name: explainer_of(source, (name,), None, device) for name in METHODS}
    explainers["all"] = explainer_of(source, METHODS, None, device)
    first = explainers["attention"]
    batch, streams = first.batch, first.placement.streams
    frames, graph = frames_of(batch, source.preprocessing.size), first.network.attention
    assert graph is not None

    def forward(network: nn.Module) -> torch.Tensor:
        with torch.inference_mode():
            return network(first.network.normalize(frames))[-1].cpu()  # type: ignore[no-any-return]

    arms: dict[str, Arm] = {
        "fused": ((lambda: forward(graph.plain)), batch, streams),
        "exposed": ((lambda: forward(graph.exposed)), batch, streams),
    }
    for name, one in explainers.items():
        arms[name] = (lambda one=one: one.explain(frames)), batch, streams
    return arms


def peers_of(source: SourceModel, device: str) -> dict[str, Arm]:
    """LeGrad of torch-cam for the predicted class, on all cores."""
    from torchcam.methods import LeGrad

    network, arms = source.module.to(device), {}

    def maps(batch: int) -> Any:
        inputs = Normalize(source.preprocessing, device)(frames_of(batch, source.preprocessing.size)).contiguous()
        with LeGrad(network, list(network.encoder.layers)) as extractor:
            scores = network(inputs)
            return extractor(scores.argmax(1).tolist(), scores, normalized=False)[0].cpu()

    for batch in (1, 4):
        arms[f"torch-cam LeGrad, batch {batch}"] = (lambda batch=batch: maps(batch)), batch, None
    return arms


def main() -> None:
    """Measure and print the ratios as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="vit_small_patch16_224")
    parser.add_argument("--weights", default="none")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=5.0)
    options = parser.parse_args()
    keep_large_blocks()
    source, device = load_source(options.model, options.weights), str(find_device("auto"))
    arms = arms_of(source, device)
    if peers := options.model.startswith("torchvision/"):
        arms |= peers_of(source, device)
    rates = measured(arms, options.rounds, options.seconds)
    ratios = {f"{name}_of_fused": rates[name] / rates["fused"] for name in ("exposed", *METHODS, "all")}
    if peers:
        ratios["legrad_of_torch_cam"] = rates["legrad"] / max(rates[name] for name in rates if "torch-cam" in name)
    print(json.dumps(ratios))


if __name__ == "__main__":
    main()
