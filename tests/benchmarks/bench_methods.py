"""Methods against one another and against captum, frames in memory, as ratios of rates taken in turn in one process.

    cams      the nine class activation maps in one pass, against gradcam alone on the same backend
    pixels    gradient, smoothgrad and integrated-gradients, against captum's Saliency, NoiseTunnel and
              IntegratedGradients (Gauss-Legendre) on the untouched network at its best batch size of 1, 4 and 16
              (16, 64 and 256 on a GPU), each for the predicted class, which it has to compute as well
    backward  guided-backprop and deeplift against captum's in the same way, on a copy of the network without in-place
              activations, as captum needs it; lrp, which captum refuses for most networks, only where it does not
    masks     rise, occlusion, scorecam and groupcam, against xaitk-saliency's RISEStack, captum's Occlusion and the
              Score-CAM of torch-cam and pytorch-grad-cam, in masks per second, each at its best batch size. The two
              use all channels of a layer, and so does ours here, but constant channels take no pass. `overhead` is the
              time of a mask relative to a pass of gradcam on the same placement. A peer that is not installed is named
              (pip install torchcam grad-cam xaitk-saliency)

Rounds take turns; the best of each arm counts.

    python -m tests.benchmarks.bench_methods cams
    python -m tests.benchmarks.bench_methods masks --masks 200
    python -m tests.benchmarks.bench_methods pixels --model resnet50 --weights none --points 5
    python -m tests.benchmarks.bench_methods backward --model resnet50 --weights none
"""

from __future__ import annotations

import argparse
import copy
import importlib
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


def masks(source: SourceModel, device: str, options: argparse.Namespace) -> dict[str, Any]:
    """Methods that mask frames against those of other libraries, per mask and image."""
    own = {"rise": f"rise:masks={options.masks}", "occlusion": "occlusion", "scorecam": "scorecam:channels=0"}
    own["groupcam"] = "groupcam"
    results: dict[str, Any] = {"missing": []}
    size, streams = source.preprocessing.size, usable_cores() if device == "cpu" else 2
    # masks per second
    peer_rates: dict[str, float] = {}
    for name, text in own.items():
        ours = explainer_of(source, (text,), None, device)
        plain = explainer_of(source, ("gradcam",), ours.placement, device)
        frames = frames_of(ours.batch, size)
        arms: dict[str, Arm] = {
            name: ((lambda o=ours, f=frames: o.explain(f)), ours.batch, streams),
            "gradcam": ((lambda o=plain, f=frames: o.explain(f)), plain.batch, streams),
        }
        counts = {name: ours.methods[0].cost + 1, "gradcam": 1.0}
        peers = [f"{peer}, batch {batch}" for peer in PEERS[name] for batch in BATCHES[device == "cpu"]]
        for label in peers:
            if label not in peer_rates:
                peer, _, batch = label.partition(", batch ")
                try:
                    run, counts[label] = PEERS[name][peer](source, device, options.masks, int(batch))
                    arms[label] = run, 1, None
                except ImportError as error:
                    results["missing"].append(f"{peer}: {error}")
        rates = {arm: rate * counts[arm] for arm, rate in measured(arms, options.rounds, options.seconds).items()}
        peer_rates |= {label: rates[label] for label in peers if label in rates}
        ratios = {label: rates[name] / peer_rates[label] for label in peers if label in peer_rates}
        results[name] = {
            "placement": f"{ours.placement.backend} {ours.placement.precision}",
            "masks_per_second": rates[name],
            "overhead": rates["gradcam"] / rates[name],
            "of_peers": ratios,
            "of_best": min(ratios.values(), default=None),
        }
    return results


Peer = Callable[[SourceModel, str, int, int], tuple[Callable[[], object], float]]
"""Network, device, number of masks and batch size to a call that explains one image, and its number of passes."""


def _pixels(source: SourceModel, device: str) -> torch.Tensor:
    return Normalize(source.preprocessing, device)(frames_of(1, source.preprocessing.size)).contiguous()


def captum_occlusion(source: SourceModel, device: str, masks: int, batch: int) -> tuple[Callable[[], object], float]:
    """captum's Occlusion with the windows of ours."""
    from captum.attr import Occlusion

    network, inputs = source.module.to(device), _pixels(source, device)
    count = len(range(0, inputs.shape[2] - 31, 16)) ** 2

    @torch.no_grad()
    def run() -> object:
        target = network(inputs).argmax(1)
        return Occlusion(network).attribute(
            inputs, (3, 32, 32), strides=(3, 16, 16), baselines=0, target=target, perturbations_per_eval=batch
        )

    return run, count + 2.0


def xaitk_rise(source: SourceModel, device: str, masks: int, batch: int) -> tuple[Callable[[], object], float]:
    """xaitk-saliency's RISEStack, whose classifier takes batches of images."""
    # no requirement of the benchmarks, as it brings many of its own
    base: Any = importlib.import_module("smqtk_classifier").ClassifyImage
    stacks = importlib.import_module("xaitk_saliency.impls.gen_image_classifier_blackbox_sal.rise")

    network, normalize = source.module.to(device), Normalize(source.preprocessing, device)

    class Classifier(base):  # type: ignore[misc]
        def get_labels(self) -> list[str]:
            return ["0"]

        def classify_images(self, img_iter: Any) -> Any:
            pending: list[np.ndarray] = []

            def scores() -> Any:
                with torch.no_grad():
                    values = network(normalize(np.stack(pending))).softmax(1).cpu().numpy()
                pending.clear()
                # the predicted class alone, as the library sums maps of all classes one by one
                return [{"0": float(row.max())} for row in values]

            for image in img_iter:
                pending.append(image)
                if len(pending) == batch:
                    yield from scores()
            if pending:
                yield from scores()

        def get_config(self) -> dict[str, Any]:
            return {}

    stack = stacks.RISEStack(n=masks, s=7, p1=0.5, seed=0, threads=usable_cores(), debiased=False)
    stack.fill = [round(255 * value) for value in source.preprocessing.mean]
    frame, classifier = frames_of(1, source.preprocessing.size)[0], Classifier()
    return (lambda: stack.generate(frame, classifier)), masks + 1.0


def torchcam_score(source: SourceModel, device: str, masks: int, batch: int) -> tuple[Callable[[], object], float]:
    """torch-cam's Score-CAM, with all channels of our layer."""
    from torchcam.methods import ScoreCAM

    network, inputs, (layer,) = source.module.to(device).eval(), _pixels(source, device), prepared_layers(source)
    size = source.preprocessing.size

    @torch.no_grad()
    def run() -> object:
        with ScoreCAM(network, layer.name, batch_size=batch, input_shape=(3, size, size)) as cam:
            logits = network(inputs)
            return cam(int(logits.argmax()), logits)

    return run, layer.channels + 2.0


def grad_cam_score(source: SourceModel, device: str, masks: int, batch: int) -> tuple[Callable[[], object], float]:
    """pytorch-grad-cam's Score-CAM, with all channels of our layer."""
    from pytorch_grad_cam import ScoreCAM

    network, inputs, (layer,) = source.module.to(device).eval(), _pixels(source, device), prepared_layers(source)

    def run() -> object:
        with ScoreCAM(network, [network.get_submodule(layer.name)]) as cam:
            cam.batch_size = batch
            return cam(inputs, None)

    return run, layer.channels + 1.0


BATCHES = ((64, 256), (4, 16, 64))
"""Batch sizes of other libraries on a GPU and on a CPU."""

PEERS: dict[str, dict[str, Peer]] = {
    "rise": {"xaitk-saliency": xaitk_rise},
    "occlusion": {"captum": captum_occlusion},
    "scorecam": {"torch-cam": torchcam_score, "pytorch-grad-cam": grad_cam_score},
    # no library has Group-CAM: its masks are those of Score-CAM
    "groupcam": {"torch-cam": torchcam_score, "pytorch-grad-cam": grad_cam_score},
}


PARTS = {"cams": cams, "pixels": pixels, "backward": backward, "masks": masks}


def main() -> None:
    """Measure one part and print its ratios as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=tuple(PARTS))
    parser.add_argument("--model", default="efficientnet_lite0")
    parser.add_argument("--weights", default="default")
    parser.add_argument(
        "--points", type=int, default=10, help="samples of smoothgrad and nodes of integrated-gradients"
    )
    parser.add_argument("--masks", type=int, default=1000, help="masks of rise")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=5.0)
    options = parser.parse_args()
    keep_large_blocks()
    source, device = load_source(options.model, options.weights), str(find_device("auto"))
    print(json.dumps(PARTS[options.part](source, device, options)))


if __name__ == "__main__":
    main()
