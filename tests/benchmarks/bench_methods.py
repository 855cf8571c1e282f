"""Methods against one another and against captum, frames in memory, as ratios of rates taken in turn in one process.

    cams      the nine class activation maps in one pass, against gradcam alone on the same backend
    pixels    gradient, smoothgrad and integrated-gradients, against captum's Saliency, NoiseTunnel and
              IntegratedGradients (Gauss-Legendre) on the untouched network at its best batch size of 1, 4 and 16
              (16, 64 and 256 on a GPU), each for the predicted class, which it has to compute as well
    backward  guided-backprop and deeplift against captum's in the same way, on a copy of the network without in-place
              activations, as captum needs it; lrp, which captum refuses for most networks, only where it does not

Rounds take turns; the best of each arm counts.

    python -m tests.benchmarks.bench_methods cams
    python -m tests.benchmarks.bench_methods pixels --model resnet50 --weights none --points 5
    python -m tests.benchmarks.bench_methods backward --model resnet50 --weights none
"""

from __future__ import annotations

import argparse
import copy
import json
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from saliency_pipeline.devices import find_device
from saliency_pipeline.memory import keep_large_blocks
from saliency_pipeline.models.source.source import SourceModel, load_source
from saliency_pipeline.saliency.engine.backends import Normalize, Placement
from saliency_pipeline.saliency.explainer import Explainer
from saliency_pipeline.saliency.methods.registry import find_methods
from saliency_pipeline.saliency.prepared import prepared_layers, prepared_split
from saliency_pipeline.saliency.targets import Target
from saliency_pipeline.saliency.tuning import choose_placement, default_batch
from saliency_pipeline.workers import usable_cores
from tests.benchmarks.bench_generate import rate_of
from tests.saliency.networks import photos

NINE = ("gradcam", "gradcampp", "xgradcam", "layercam", "hirescam", "eigencam", "eigengradcam", "ablationcam")
NINE += ("finercam",)
CHUNK = 16

Arm = tuple[Callable[[], object], int, int | None]
"""What is called, frames per call, and streams of one core each, or None for all cores in one call."""


def frames_of(count: int, size: int) -> np.ndarray:
    """Photographs (count, size, size, 3) uint8 that scikit-image ships."""
    return np.resize(photos(size), (count, size, size, 3))


def explainer_of(source: SourceModel, methods: tuple[str, ...], placement: Placement | None, device: str) -> Explainer:
    """The engine of `generate` for some methods, on the placement that it chooses itself unless one is passed."""
    layers, chosen = prepared_layers(source), find_methods(methods)
    batch = default_batch(chosen, device)
    if placement is None:
        streams = usable_cores() if device == "cpu" else 2
        frames = frames_of(32, source.preprocessing.size)
        placement, _ = choose_placement(source, layers, chosen, frames, device=device, streams=streams, batch=batch)
    split = prepared_split(source, layers, batch)
    return Explainer(source, layers, chosen, Target("predicted"), batch, placement, split)


def measured(arms: dict[str, Arm], rounds: int, seconds: float) -> dict[str, float]:
    """The best rate of each arm, in images per second."""
    best = dict.fromkeys(arms, 0.0)
    for _ in range(rounds):
        for name, (run, count, streams) in arms.items():
            best[name] = max(best[name], rate_of(run, count, streams, seconds))
            print(f"{name:34} {best[name]:8.2f} images/s", flush=True)
    return best


def cams(source: SourceModel, device: str, options: argparse.Namespace) -> dict[str, Any]:
    """All class activation maps against one."""
    alone = explainer_of(source, ("gradcam",), None, device)
    together = explainer_of(source, NINE, alone.placement, device)
    own = explainer_of(source, NINE, None, device).placement
    frames = frames_of(max(CHUNK, alone.batch), source.preprocessing.size)
    runs = {"gradcam": alone, "nine": together}
    arms = {
        name: ((lambda one=one: one.explain(frames)), len(frames), one.placement.streams) for name, one in runs.items()
    }
    rates = measured(arms, options.rounds, options.seconds)
    return {"placement": str(alone.placement), "own_placement": str(own), "cost": rates["gradcam"] / rates["nine"]}


def pixels(source: SourceModel, device: str, options: argparse.Namespace) -> dict[str, Any]:
    """Methods on pixels against captum's."""
    from captum.attr import IntegratedGradients, NoiseTunnel, Saliency

    n, network, ratios = options.points, source.module.to(device), {}
    own = {"gradient": "gradient", "smoothgrad": f"smoothgrad:samples={n}"}
    own["integrated-gradients"] = f"integrated-gradients:nodes={n}"

    def captum_maps(name: str, inputs: torch.Tensor, inner: int) -> torch.Tensor:
        with torch.no_grad():
            target = network(inputs).argmax(1)
        inputs = inputs.clone().requires_grad_()
        if name == "gradient":
            return Saliency(network).attribute(inputs, target)  # type: ignore[no-any-return]
        if name == "smoothgrad":
            tunnel, stdevs = NoiseTunnel(Saliency(network)), 0.15 * float((inputs.max() - inputs.min()).detach())
            return tunnel.attribute(  # type: ignore[no-any-return]
                inputs, nt_samples=n, nt_samples_batch_size=inner, stdevs=stdevs, target=target, abs=False
            )
        return IntegratedGradients(network).attribute(  # type: ignore[no-any-return]
            inputs, target=target, n_steps=n, internal_batch_size=inner * len(inputs)
        )

    for name, method in own.items():
        ours = explainer_of(source, (method,), None, device)
        size, streams = source.preprocessing.size, ours.placement.streams
        frames = frames_of(ours.batch, size)
        arms: dict[str, Any] = {
            f"{name} {ours.placement.precision}": ((lambda o=ours, f=frames: o.explain(f)), ours.batch, streams)
        }
        for batch in (1, 4, 16) if device == "cpu" else (16, 64, 256):
            inputs = Normalize(source.preprocessing, device)(frames_of(batch, size)).contiguous()
            # as many points at once as fit in a batch of 16, or 256 on a GPU
            inner = max(1, min(n, (16 if device == "cpu" else 256) // batch))
            run = lambda name=name, inputs=inputs, inner=inner: captum_maps(name, inputs, inner).detach().cpu()  # noqa: E731
            arms[f"captum {name}, batch {batch}"] = run, batch, None
        rates = measured(arms, options.rounds, options.seconds)
        first, *rest = rates.values()
        ratios[name] = {"precision": ours.placement.precision, "of_captum": first / max(rest)}
    return ratios


def backward(source: SourceModel, device: str, options: argparse.Namespace) -> dict[str, Any]:
    """Methods with modified backward passes against captum's."""
    import captum.attr

    network, ratios, size = copy.deepcopy(source.module).to(device), {}, source.preprocessing.size
    for part in network.modules():
        if "inplace" in vars(part):
            vars(part)["inplace"] = False

    def captum_maps(name: str, inputs: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            target = network(inputs).argmax(1)
        with warnings.catch_warnings():
            # captum announces its hooks
            warnings.simplefilter("ignore")
            attribution = getattr(captum.attr, name)(network)
            return attribution.attribute(inputs.clone().requires_grad_(), target=target).detach().cpu()  # type: ignore[no-any-return]

    for method, name in {"guided-backprop": "GuidedBackprop", "deeplift": "DeepLift", "lrp": "LRP"}.items():
        ours = explainer_of(source, (method,), None, device)
        frames = frames_of(ours.batch, size)
        own: Arm = (lambda o=ours, f=frames: o.explain(f)), ours.batch, ours.placement.streams
        peers: dict[str, Arm] = {}
        for batch in (1, 4, 16) if device == "cpu" else (16, 64, 256):
            inputs = Normalize(source.preprocessing, device)(frames_of(batch, size)).contiguous()
            try:
                captum_maps(name, inputs[:1])
            except (RuntimeError, TypeError, AssertionError) as error:
                print(f"captum {name}: {error}".splitlines()[0], flush=True)
                break
            run = lambda name=name, inputs=inputs: captum_maps(name, inputs)  # noqa: E731
            peers[f"captum {name}, batch {batch}"] = run, batch, None
        first, *rest = measured({method: own, **peers}, options.rounds, options.seconds).values()
        ratios[method] = first / max(rest) if rest else None
    return ratios


PARTS = {"cams": cams, "pixels": pixels, "backward": backward}


def main() -> None:
    """Measure one part and print its ratios as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=tuple(PARTS))
    parser.add_argument("--model", default="efficientnet_lite0")
    parser.add_argument("--weights", default="default")
    parser.add_argument(
        "--points", type=int, default=10, help="samples of smoothgrad and nodes of integrated-gradients"
    )
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=5.0)
    options = parser.parse_args()
    keep_large_blocks()
    source, device = load_source(options.model, options.weights), str(find_device("auto"))
    print(json.dumps(PARTS[options.part](source, device, options)))


if __name__ == "__main__":
    main()
