"""Chooses back end and precision for one source model on this machine: by speed measured, after fidelity proved."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version

import numpy as np
import torch

from saliency_pipeline.devices import capabilities
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.models.probe import evaluating
from saliency_pipeline.models.source import SourceModel
from saliency_pipeline.saliency.backends import (
    BACKENDS,
    PRECISIONS,
    Normalise,
    Placement,
    computes_bf16_in,
    openvino_installed,
)
from saliency_pipeline.saliency.engine import Explainer
from saliency_pipeline.saliency.layers import Layer
from saliency_pipeline.saliency.methods import Method
from saliency_pipeline.saliency.split import Observed
from saliency_pipeline.saliency.targets import Target
from saliency_pipeline.speeds import remembered_speeds

logger = logging.getLogger(__name__)

# A lower precision has to be worth it.
WORTHWHILE = 1.1
# Behind the fastest by this factor after one batch, a candidate is measured no further.
HOPELESS = 2.0
FRAMES = 32
# Softmax scores this near are a tie as far as rounding is concerned.
NEAR_TIE = 0.05


@dataclass(frozen=True)
class Fidelity:
    """How near maps come to the reference.

    Attributes:
        correlation: the lowest Pearson correlation of any map.
        error: the largest difference of any map, relative to the reference map's largest value.
    """

    correlation: float
    error: float

    def within(self, correlation: float, error: float) -> bool:
        """Whether it is at least as good as these bounds."""
        return self.correlation >= correlation and self.error <= error


# What maps must keep of the fp32 reference: layer maps and pixel gradients, by the trunk's precision.
BOUNDS = {
    ("layer", "fp32"): (0.9999, 1e-3),
    ("layer", "bf16"): (0.995, 0.08),
    # fp32 itself comes 0.11 from fp32 computed in another order: a ReLU near 0 decides a pixel. The error bounds scale.
    ("pixels", "fp32"): (0.999, 0.25),
    ("pixels", "bf16"): (0.999, 0.25),
}


def default_batch(methods: Sequence[Method], device: str) -> int:
    """Frames per batch: small ones keep activations in the CPU's cache; a GPU wants many.

    Backward passes keep all activations anyway, and on the CPU lay a convolution's weights out anew for every batch.
    """
    pixels = any(m.level == "pixels" for m in methods)
    if device.startswith("cuda"):
        return 32 if pixels else 64
    return 16 if pixels else 2


def choose_placement(
    source: SourceModel,
    layer: Layer,
    methods: Sequence[Method],
    frames: np.ndarray,
    *,
    backend: str = "auto",
    precision: str = "auto",
    device: str = "cpu",
    streams: int = 1,
    batch: int,
) -> tuple[Placement, Explainer | None]:
    """The fastest placement whose maps agree with captum's fp32 maps on `frames`, and its explainer if one was made.

    Speeds are measured once per kind of machine, network and library versions and kept in the user's cache folder, so
    that the same machine always chooses alike; fidelity is measured on the frames given, every time. Where no candidate
    is faithful enough, PyTorch in fp32 is chosen, or what comes nearest to it among what is asked for. bf16 is a
    candidate only where the device computes in it, or where nothing else is asked for.

    Args:
        source: the network that explains.
        layer: the explained layer.
        methods: what will be computed.
        frames: (N, S, S, 3) uint8, the first frames of the run; at most `FRAMES` are used.
        backend: `auto` or a name of `BACKENDS`.
        precision: `auto`, `fp32` or `bf16`.
        device: `cpu`, `cuda` or `cuda:N`.
        streams: batches computed at the same time.
        batch: frames per batch.

    Raises:
        SalpipeError: for a back end that is not installed or does not serve what is asked.
    """
    pixels = any(m.level == "pixels" for m in methods)
    candidates = _candidates(backend, precision, device, streams, pixels)
    if len(candidates) == 1:
        return candidates[0], None
    make = _explainers(source, layer, methods, batch)
    frames = frames[: max(1, min(FRAMES, len(frames)))]
    rates = _rates(_speed_key(source, layer, methods, batch, candidates), candidates, make, frames)
    running = [c for c in candidates if rates[c] > 0] or candidates
    by_speed = sorted(running, key=lambda c: -rates[c] * (1 if c.precision == "bf16" else WORTHWHILE))
    reference = reference_maps(source, layer, methods, frames)
    for candidate in by_speed:
        fidelity = _fidelity(make(candidate), methods, frames, reference)
        accepted = all(f.within(*BOUNDS[m.level, candidate.precision]) for m, f in zip(methods, fidelity, strict=True))
        logger.info("%s: %s: %s", candidate, fidelity, "taken" if accepted else "refused")
        if accepted:
            return candidate, make(candidate)
    exact = [c for c in running if c.precision == "fp32"]
    chosen = (exact or running)[-1]
    logger.warning("no back end's maps come within the bounds of fp32; %s %s it is", chosen.backend, chosen.precision)
    return chosen, make(chosen)


def _candidates(backend: str, precision: str, device: str, streams: int, pixels: bool) -> list[Placement]:
    if backend not in ("auto", *BACKENDS):
        raise SalpipeError(f"--backend {backend}: unknown; choose from auto, {', '.join(BACKENDS)}")
    if precision not in ("auto", *PRECISIONS):
        raise SalpipeError(f"--precision {precision}: unknown; choose from auto, {', '.join(PRECISIONS)}")
    if backend in ("compile", "openvino") and pixels:
        raise SalpipeError(f"--backend {backend} runs forward only; pixel gradients need --backend torch (or auto)")
    if backend == "openvino" and not openvino_installed():
        raise SalpipeError("--backend openvino: not installed; run pip install 'saliency-pipeline[openvino]'")
    if backend == "openvino" and device != "cpu":
        raise SalpipeError(f"--backend openvino runs on the CPU, not on {device}; use --backend torch")
    if backend != "auto":
        backends = [backend]
    elif device == "cpu" and not pixels and openvino_installed():
        backends = ["openvino", "torch"]
    else:
        backends = ["torch"]
    # the likely winner first: those behind it need not be measured to the end
    return [Placement(b, p, device, streams) for b in backends for p in _precisions(precision, b, device)]


def _precisions(precision: str, backend: str, device: str) -> list[str]:
    if precision != "auto":
        return [precision]
    return ["bf16", "fp32"] if computes_bf16_in(backend, device) else ["fp32"]


def _explainers(
    source: SourceModel, layer: Layer, methods: Sequence[Method], batch: int
) -> Callable[[Placement], Explainer]:
    """Explainers of the predicted class by placement, each made once; they share one export of the network."""
    made: dict[Placement, Explainer] = {}

    def make(placement: Placement) -> Explainer:
        if placement not in made:
            split = next(iter(made.values())).split if made else None
            made[placement] = Explainer(source, layer, methods, Target("predicted"), batch, placement, split)
        return made[placement]

    return make


def _rates(
    key: str,
    candidates: Sequence[Placement],
    make: Callable[[Placement], Explainer],
    frames: np.ndarray,
) -> dict[Placement, float]:
    """Frames per second of each candidate, from the cache or measured now."""
    names = [f"{c.backend} {c.precision}" for c in candidates]

    def measure() -> list[float]:
        measured: list[float] = []
        for candidate in candidates:
            try:
                measured.append(measure_rate(make(candidate), frames, max(measured, default=0.0)))
            except SalpipeError as error:  # the back end cannot run this network
                logger.info("%s: %s", candidate, error)
                measured.append(0.0)
        return measured

    rates = remembered_speeds(key, names, measure)
    return {c: float(rates[name]) for c, name in zip(candidates, names, strict=True)}


def measure_rate(explainer: Explainer, frames: np.ndarray, fastest: float = 0.0, seconds: float = 0.6) -> float:
    """Frames per second of an explainer with all its streams busy; the best of two runs of `seconds` each.

    Where the first batches show that it cannot come near `fastest`, the rate of another candidate, what they show is
    returned at once.
    """
    batch, streams = explainer.batch, explainer.placement.streams
    block = np.resize(frames, (batch, *frames.shape[1:]))

    def work(until: float) -> int:
        done = 0
        while time.perf_counter() < until:
            explainer.explain(block)
            done += batch
        return done

    with ThreadPoolExecutor(streams, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        list(pool.map(explainer.explain, [block] * streams))
        start = time.perf_counter()
        list(pool.map(explainer.explain, [block] * streams))
        best = batch * streams / (time.perf_counter() - start)
        if best * HOPELESS < fastest:
            return best
        for _ in range(2):
            start = time.perf_counter()
            done = sum(pool.map(work, [start + seconds] * streams))
            best = max(best, done / (time.perf_counter() - start))
    return best


def reference_maps(
    source: SourceModel, layer: Layer, methods: Sequence[Method], frames: np.ndarray
) -> tuple[np.ndarray, list[np.ndarray]]:
    """The scores (N, classes) and every method's raw maps (N, h, w), by captum on the untouched fp32 network.

    captum's LayerGradCam reads NCHW layers only; maps of token and NHWC layers come from autograd on the untouched
    network.
    """
    from captum.attr import LayerGradCam, Saliency

    network, normalise = source.module, Normalise(source.preprocessing)
    scores: list[np.ndarray] = []
    maps: list[list[np.ndarray]] = [[] for _ in methods]
    with evaluating(network):
        observed = Observed(network, layer.name)
        for start in range(0, len(frames), 4):
            pixels = normalise(frames[start : start + 4]).contiguous()
            with torch.no_grad():
                scored = network(pixels)
            target = scored.argmax(1)
            scores.append(scored.softmax(1).numpy())
            for method, parts in zip(methods, maps, strict=True):
                if method.name == "gradcam" and layer.layout == "nchw":
                    cam = LayerGradCam(network, network.get_submodule(layer.name))
                    parts.append(cam.attribute(pixels, target, relu_attributions=True)[:, 0].detach().numpy())
                elif method.level == "pixels":
                    gradient = Saliency(network).attribute(pixels.clone().requires_grad_(), target, abs=False)
                    parts.append(method.explain(gradient.detach()).numpy())
                else:
                    output, logits = observed(pixels.clone().requires_grad_())
                    (gradient,) = torch.autograd.grad(logits.gather(1, target[:, None]).sum(), output)
                    grid = layer.to_grid(output.detach()), layer.to_grid(gradient)
                    parts.append(method.explain(*grid).numpy())
    return np.concatenate(scores), [np.concatenate(parts) for parts in maps]


def _fidelity(
    explainer: Explainer,
    methods: Sequence[Method],
    frames: np.ndarray,
    reference: tuple[np.ndarray, list[np.ndarray]],
) -> list[Fidelity]:
    """Each method's fidelity where the predicted class is the reference's; none at all where classes are mistaken.

    Where two classes come out all but equal, rounding may well prefer the other one; that is no mistake.
    """
    explanation = explainer.explain(frames)
    scores, rows = reference[0], np.arange(len(frames))
    predicted = explanation.targets[:, 0]
    same = predicted == scores.argmax(1)
    mistaken = scores.max(1) - scores[rows, predicted] > NEAR_TIE
    if mistaken.mean() > 0.05 or not same.any():
        return [Fidelity(0.0, np.inf)] * len(methods)
    return [
        fidelity(explanation.maps[method.name][same, 0], wanted[same])
        for method, wanted in zip(methods, reference[1], strict=True)
    ]


def fidelity(maps: np.ndarray, reference: np.ndarray) -> Fidelity:
    """How near `maps` (N, h, w) come to `reference` (N, h, w)."""
    got, want = (m.reshape(len(m), -1).astype(np.float64) for m in (maps, reference))
    finite, wanted = (np.isfinite(m).all(1) for m in (got, want))
    if (finite != wanted).any():
        return Fidelity(0.0, np.inf)
    got, want = got[finite], want[finite]
    if not len(want):
        return Fidelity(1.0, 0.0)
    peaks = np.abs(want).max(1)
    # A map that is all but zero beside the others holds rounding only.
    peaks = np.maximum(peaks, 1e-3 * np.median(peaks) + 1e-30)
    error = float((np.abs(got - want).max(1) / peaks).max(initial=0.0))
    varied = (want.std(1) > 1e-3 * peaks) & (got.std(1) > 0)
    pairs = [np.corrcoef(a, b)[0, 1] for a, b in zip(got[varied], want[varied], strict=True)]
    return Fidelity(float(min(pairs, default=1.0)), error)


def _speed_key(
    source: SourceModel, layer: Layer, methods: Sequence[Method], batch: int, candidates: Sequence[Placement]
) -> str:
    libraries = ["torch", "timm", *(["openvino"] if any(c.backend == "openvino" for c in candidates) else [])]
    placement = candidates[0]
    parts = [source.name, str(source.preprocessing.size), layer.name, *(m.name for m in methods)]
    parts += [f"batch {batch}", f"streams {placement.streams}", capabilities(placement.device)]
    return "; ".join(parts + [f"{name} {version(name)}" for name in libraries])
