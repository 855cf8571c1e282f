"""Choice of backend and precision for a source model on this machine: the fastest that reproduces the maps."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib.metadata import version

import numpy as np
import torch

from saliency_pipeline.devices import capabilities
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.models.source.source import SourceModel
from saliency_pipeline.saliency.engine.backends import (
    BACKENDS,
    PRECISIONS,
    Placement,
    computes_bf16_in,
    openvino_installed,
)
from saliency_pipeline.saliency.engine.layers import Layer
from saliency_pipeline.saliency.engine.need import Need
from saliency_pipeline.saliency.engine.network import ATTENDED, RECORDED
from saliency_pipeline.saliency.explainer import Explainer
from saliency_pipeline.saliency.fidelity import fidelity_check
from saliency_pipeline.saliency.methods.cam import GradCam
from saliency_pipeline.saliency.methods.gradient import Gradient
from saliency_pipeline.saliency.methods.method import LayerMethod, Method
from saliency_pipeline.saliency.methods.occlusion import Occlusion
from saliency_pipeline.saliency.prepared import prepared_split
from saliency_pipeline.saliency.targets import Target
from saliency_pipeline.speeds import remembered_speeds

logger = logging.getLogger(__name__)

# a lower precision must be faster by this factor
WORTHWHILE = 1.1
# A candidate behind the fastest by this factor in its first batches is measured no further.
HOPELESS = 2.0
FRAMES = 32


def default_batch(methods: Sequence[Method], device: str) -> int:
    """Frames per batch: small ones keep activations in the CPU's cache; a GPU wants many.

    Backward passes keep all activations anyway, and on the CPU lay a convolution's weights out anew for every batch.
    """
    if any(method.needs & ATTENDED for method in methods):
        # matrix products of all tokens need no batch on a CPU, and the matrices of many frames much memory
        return 32 if device.startswith("cuda") else 1
    pixels = _recorded(methods)
    if device.startswith("cuda"):
        return 32 if pixels else 64
    return 16 if pixels else 2


def _recorded(methods: Sequence[Method]) -> bool:
    """Return whether backward passes to the pixels are needed."""
    return any(method.needs & (RECORDED | Need.BIASES | Need.BACKWARD) for method in methods)


def representatives(methods: Sequence[Method], layers: Sequence[Layer], size: int) -> tuple[Method, ...]:
    """The methods that are measured and compared with captum in place of `methods`, because they take less time.

    What many passes answer is proved by one: gradients at other points by those of the frame, the head of a layer by
    Grad-CAM, scores of many masked frames by occlusion of quarters of frames of `size` pixels per side. What reads
    frames or the network as it was loaded is the same everywhere.
    """
    chosen: dict[str, Method] = {}
    half = max(1, size // 2)
    for method in methods:
        if method.needs & Need.POINTS:
            method = Gradient()
        elif method.needs & Need.FORWARD:
            if isinstance(method, LayerMethod):
                # the layer makes the masks
                own = GradCam(layer=method.layer)
                chosen[own.canonical] = own
            method = Occlusion(window=half, stride=half)
        elif method.level not in ("layer", "pixels") or method.needs & Need.HEAD:
            # of the same layer: bf16 changes some layers' maps more than others'
            method = GradCam(layer=method.layer if isinstance(method, LayerMethod) else None)
        chosen[method.canonical] = method
    if not layers:
        chosen.pop(GradCam().canonical, None)
    return tuple(chosen.values())


def choose_placement(
    source: SourceModel,
    layers: Sequence[Layer],
    methods: Sequence[Method],
    frames: np.ndarray,
    *,
    backend: str = "auto",
    precision: str = "auto",
    device: str = "cpu",
    streams: int = 1,
    batch: int,
) -> tuple[Placement, Explainer | None]:
    """The fastest placement whose maps agree with captum's in fp32, and its explainer if one was made.

    Speeds are measured once per kind of machine, network and library versions and kept in the user's cache folder, so
    that the same machine always makes the same choice. Where no candidate passes `fidelity_check`, PyTorch in fp32 is
    chosen, or the requested combination that is closest to it. bf16 is a candidate only where the device computes in
    it, or where nothing else was requested.

    Args:
        source: the source model.
        layers: the explained layers.
        methods: saliency methods to compute.
        frames: (N, S, S, 3) uint8, the first frames of the run; at most `FRAMES` are used.
        backend: `auto` or a name of `BACKENDS`.
        precision: `auto`, `fp32` or `bf16`.
        device: `cpu`, `cuda` or `cuda:N`.
        streams: batches computed at the same time.
        batch: frames per batch.

    Raises:
        SalpipeError: for a backend that is not installed or cannot be used as requested.
    """
    attended = any(method.needs & ATTENDED for method in methods)
    if attended:
        if precision == "bf16":
            raise SalpipeError("--precision bf16: methods of attention are computed in fp32; use --precision auto")
        precision = "fp32" if precision == "auto" else precision
    candidates = _candidates(backend, precision, device, streams, _recorded(methods), attended)
    if len(candidates) == 1:
        return candidates[0], None
    requested, methods = methods, representatives(methods, layers, source.preprocessing.size)
    make = _explainers(source, layers, methods, batch)
    frames = frames[: max(1, min(FRAMES, len(frames)))]
    rates = _rates(_speed_key(source, layers, methods, batch, candidates), candidates, make, frames)
    running = [c for c in candidates if rates[c] > 0] or candidates
    faithful = fidelity_check(source, layers, methods, frames, running, make)
    for candidate in sorted(running, key=lambda c: -rates[c] * (1 if c.precision == "bf16" else WORTHWHILE)):
        if faithful(candidate):
            return candidate, make(candidate) if methods == tuple(requested) else None
    exact = [c for c in running if c.precision == "fp32"]
    chosen = (exact or running)[-1]
    logger.warning("no backend's maps agree with fp32 within the bounds; using %s %s", chosen.backend, chosen.precision)
    return chosen, make(chosen) if methods == tuple(requested) else None


def _candidates(
    backend: str, precision: str, device: str, streams: int, pixels: bool, attended: bool = False
) -> list[Placement]:
    if backend not in ("auto", *BACKENDS):
        raise SalpipeError(f"--backend {backend}: unknown; choose from auto, {', '.join(BACKENDS)}")
    if precision not in ("auto", *PRECISIONS):
        raise SalpipeError(f"--precision {precision}: unknown; choose from auto, {', '.join(PRECISIONS)}")
    if backend in ("compile", "openvino") and pixels:
        needs = "attention needs" if attended else "pixel gradients need"
        raise SalpipeError(f"--backend {backend} runs forward only; {needs} --backend torch (or auto)")
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
    source: SourceModel, layers: Sequence[Layer], methods: Sequence[Method], batch: int
) -> Callable[[Placement], Explainer]:
    """Explainers of the predicted class by placement, each made once; they share one export of the network."""
    split = prepared_split(source, layers, batch)

    @cache
    def make(placement: Placement) -> Explainer:
        return Explainer(source, layers, methods, Target("predicted"), batch, placement, split)

    return make


def _rates(
    key: str,
    candidates: Sequence[Placement],
    make: Callable[[Placement], Explainer],
    frames: np.ndarray,
) -> dict[Placement, float]:
    """Frames per second of each candidate, from the cache or measured now."""

    def rate(candidate: Placement, seconds: float) -> float:
        try:
            return measure_rate(make(candidate), frames, seconds)
        except SalpipeError as error:  # the backend cannot run this network
            logger.info("%s: %s", candidate, error)
            return 0.0

    def measure() -> list[float]:
        # a few batches are enough to compare candidates that are far apart
        first_rates = {candidate: rate(candidate, 0) for candidate in candidates}
        close = [c for c in candidates if first_rates[c] * HOPELESS > max(first_rates.values())]
        rates = {c: rate(c, 0.1) for c in close} if len(close) > 1 else {}
        return list({**first_rates, **rates}.values())

    names = [f"{c.backend} {c.precision}" for c in candidates]
    rates = remembered_speeds(key, names, measure)
    return {c: rates[name] for c, name in zip(candidates, names, strict=True)}


def measure_rate(explainer: Explainer, frames: np.ndarray, seconds: float) -> float:
    """Frames per second of an explainer with all its streams busy: the better of two runs, after a warm-up.

    Args:
        explainer: the explainer to measure.
        frames: (N, S, S, 3) uint8, repeated or cut to a batch.
        seconds: duration of each run; with 0, as long as one batch per stream takes.
    """
    batch, streams = explainer.batch, explainer.placement.streams
    block = np.resize(frames, (batch, *frames.shape[1:]))

    def work(until: float) -> int:
        done = 0
        while not done or time.perf_counter() < until:
            explainer.explain(block)
            done += batch
        return done

    with ThreadPoolExecutor(streams, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        list(pool.map(explainer.explain, [block] * streams))
        best = 0.0
        for _ in range(2):
            start = time.perf_counter()
            done = sum(pool.map(work, [start + seconds] * streams))
            best = max(best, done / (time.perf_counter() - start))
    return best


def _speed_key(
    source: SourceModel, layers: Sequence[Layer], methods: Sequence[Method], batch: int, candidates: Sequence[Placement]
) -> str:
    libraries = ["torch", "timm", *(["openvino"] if any(c.backend == "openvino" for c in candidates) else [])]
    placement = candidates[0]
    parts = [
        source.name,
        # one's own networks of the same name may differ
        *([] if source.code_sha256 is None else [source.code_sha256 or source.weights_sha256]),
        str(source.preprocessing.size),
        *(layer.name for layer in layers),
        *(m.canonical for m in methods),
    ]
    parts += [f"batch {batch}", f"streams {placement.streams}", capabilities(placement.device)]
    return "; ".join(parts + [f"{name} {version(name)}" for name in libraries])
