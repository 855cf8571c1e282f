"""Agreement of an engine's maps with captum's on the unmodified network in fp32."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from saliency_pipeline.cache import cached
from saliency_pipeline.devices import capabilities
from saliency_pipeline.models.probe import evaluating
from saliency_pipeline.models.source.source import SourceModel
from saliency_pipeline.models.source.user_code import failures_of_network
from saliency_pipeline.saliency.engine.backends import Normalize, Placement
from saliency_pipeline.saliency.engine.layers import Layer
from saliency_pipeline.saliency.engine.split import SplitNetwork, WithActivations
from saliency_pipeline.saliency.explainer import Explainer
from saliency_pipeline.saliency.methods.cam import GradCam
from saliency_pipeline.saliency.methods.gradient import PixelGradient
from saliency_pipeline.saliency.methods.method import Method
from saliency_pipeline.saliency.targets import Target

logger = logging.getLogger(__name__)

# Softmax scores this near are a tie as far as rounding is concerned.
NEAR_TIE = 0.05

# share of the maps that are compared, for methods with choices of their own
TIED_SHARE = 0.5

_STEP = 4

# Frames on which fp32 candidates are compared with captum.
PROOF_FRAMES = 8

# The scores (N, classes) of N frames and every method's raw maps (N, h, w) of the predicted class.
Reference = tuple[np.ndarray, list[np.ndarray]]


@dataclass(frozen=True)
class Fidelity:
    """Agreement of maps with reference maps.

    Attributes:
        correlation: the lowest Pearson correlation of any map.
        error: the largest difference of any map, relative to the reference map's largest value.
    """

    correlation: float
    error: float

    def within(self, correlation: float, error: float) -> bool:
        """Return whether it is at least as good as these bounds."""
        return self.correlation >= correlation and self.error <= error


# required agreement with the fp32 reference: layer maps, pixel gradients and occlusion, by the trunk's precision
BOUNDS = {
    ("layer", "fp32"): (0.9999, 1e-3),
    ("layer", "bf16"): (0.995, 0.08),
    # fp32 differs by 0.11 from fp32 computed in another order: a ReLU near 0 decides a pixel. The error bounds scale.
    ("pixels", "fp32"): (0.999, 0.25),
    ("pixels", "bf16"): (0.999, 0.25),
    # differences of logits, which are small beside the logits themselves
    ("network", "fp32"): (0.9999, 0.01),
    ("network", "bf16"): (0.995, 0.08),
}


def fidelity_check(
    source: SourceModel,
    layers: Sequence[Layer],
    methods: Sequence[Method],
    frames: np.ndarray,
    candidates: Sequence[Placement],
    make: Callable[[Placement], Explainer],
) -> Callable[[Placement], bool]:
    """Return a function that tells whether a candidate's maps are within the bounds.

    fp32 maps differ from captum's only in the order of sums, whatever the frames are: they are compared once, on the
    first frames, and a positive result is cached. What bf16 changes depends on the frames: it is compared on every run,
    with the maps of an fp32 candidate that passed, or with captum's if none did.

    Args:
        source: the network that explains.
        layers: the explained layers.
        methods: saliency methods.
        frames: (N, S, S, 3) uint8.
        candidates: all placements.
        make: returns a placement's explainer of the predicted class.
    """
    proof_frames = frames[:PROOF_FRAMES]
    captum_maps = cache(lambda: reference_maps(source, layers, methods, frames))

    def within_bounds(candidate: Placement, frames: np.ndarray, reference: Reference) -> bool:
        measured = measured_fidelity(make(candidate), methods, frames, reference)
        accepted = all(f.within(*BOUNDS[m.level, candidate.precision]) for m, f in zip(methods, measured, strict=True))
        logger.info("%s: %s: %s", candidate, measured, "accepted" if accepted else "rejected")
        return accepted

    @cache
    def exact(candidate: Placement) -> bool:
        split_key = make(candidate).split.cache_key
        names = [method.canonical for method in methods]
        key = (*split_key, *names, candidate.backend, capabilities(candidate.device)) if split_key else ()

        def compare() -> tuple[bool, bool]:
            with failures_of_network(source):
                reference = reference_maps(source, layers, methods, proof_frames)
            return within_bounds(candidate, proof_frames, reference), _is_informative(reference)

        def serialize(result: tuple[bool, bool]) -> bytes:
            if not all(result):
                raise ValueError("nothing was proved")
            return b"accepted"

        accepted, _ = cached("proof", key, compare, serialize, lambda data: (data == b"accepted", True))
        return accepted

    def faithful(candidate: Placement) -> bool:
        if candidate.precision == "fp32":
            return exact(candidate)
        proved = next((c for c in candidates if c.precision == "fp32" and exact(c)), None)
        reference = own_maps(make(proved), methods, frames) if proved else captum_maps()
        return within_bounds(candidate, frames, reference)

    return faithful


def _is_informative(reference: Reference) -> bool:
    """Return whether every method has a finite map that is not constant: others would agree with anything."""
    return all(any(np.isfinite(m).all() and np.ptp(m) > 0 for m in maps) for maps in reference[1])


def own_maps(explainer: Explainer, methods: Sequence[Method], frames: np.ndarray) -> Reference:
    """Scores and maps of an explainer of the predicted class; only the scores of the highest classes are not 0."""
    explanation = explainer.explain(frames)
    scores = np.zeros((len(frames), len(explainer.source.classes)), np.float32)
    rows, places = np.nonzero(explanation.prediction_class >= 0)
    scores[rows, explanation.prediction_class[rows, places]] = explanation.prediction_score[rows, places]
    return scores, [explanation.maps[method.canonical][:, 0] for method in methods]


def reference_maps(
    source: SourceModel, layers: Sequence[Layer], methods: Sequence[Method], frames: np.ndarray
) -> Reference:
    """The scores and maps of the unmodified fp32 network: by captum, or by autograd where captum has no such method.

    captum's LayerGradCam reads NCHW layers only.
    """
    network, normalize = source.module, Normalize(source.preprocessing)
    scores: list[np.ndarray] = []
    maps: dict[str, list[np.ndarray]] = {method.canonical: [] for method in methods}
    with evaluating(network):
        for start in range(0, len(frames), _STEP):
            pixels = normalize(frames[start : start + _STEP]).contiguous()
            with torch.no_grad():
                scored = network(pixels)
            scores.append(scored.softmax(1).numpy())
            for method in methods:
                if (part := _captum_map(method, network, layers, pixels, scored.argmax(1))) is not None:
                    maps[method.canonical].append(part.detach().numpy())
        if rest := [method for method in methods if not maps[method.canonical]]:
            whole = SplitNetwork(tuple(layers), _STEP, WithActivations(network, [layer.name for layer in layers]))
            untouched = Explainer(source, layers, rest, Target("predicted"), _STEP, Placement(), whole)
            maps |= {name: [part[:, 0]] for name, part in untouched.explain(frames).maps.items()}
    return np.concatenate(scores), [np.concatenate(maps[method.canonical]) for method in methods]


def _captum_map(
    method: Method, network: nn.Module, layers: Sequence[Layer], pixels: Tensor, target: Tensor
) -> Tensor | None:
    from captum.attr import LayerGradCam, Saliency

    if isinstance(method, GradCam) and method.layer is None and layers[0].layout == "nchw":
        cam = LayerGradCam(network, network.get_submodule(layers[0].name))
        return cast(Tensor, cam.attribute(pixels, target, relu_attributions=True))[:, 0]
    if isinstance(method, PixelGradient):
        signed = Saliency(network).attribute(pixels.clone().requires_grad_(), target, abs=False)
        return method.formula(pixels, signed.detach())
    return None


def measured_fidelity(
    explainer: Explainer, methods: Sequence[Method], frames: np.ndarray, reference: Reference
) -> list[Fidelity]:
    """Each method's fidelity where the predicted class is the reference's; none at all where classes are mistaken.

    Where two classes come out all but equal, rounding may select the other one, which is no error. The same holds for
    the choices of some methods: see `Method.near_ties`.
    """
    explanation = explainer.explain(frames)
    (scores, maps), rows = reference, np.arange(len(frames))
    predicted = explanation.targets[:, 0]
    same = predicted == scores.argmax(1)
    mistaken = scores.max(1) - scores[rows, predicted] > NEAR_TIE
    if mistaken.mean() > 0.05 or not same.any():
        return [Fidelity(0.0, np.inf)] * len(methods)
    return [
        fidelity(explanation.maps[method.canonical][same, 0], wanted[same], TIED_SHARE if method.near_ties else 1.0)
        for method, wanted in zip(methods, maps, strict=True)
    ]


def fidelity(maps: np.ndarray, reference: np.ndarray, share: float = 1.0) -> Fidelity:
    """Agreement of `maps` (N, h, w) with `reference` (N, h, w): of all maps, or of a share with the least errors."""
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
    errors = np.abs(got - want).max(1) / peaks
    best = np.isin(np.arange(len(errors)), errors.argsort(kind="stable")[: math.ceil(share * len(errors))])
    error = float(errors[best].max(initial=0.0))
    varied = best & (want.std(1) > 1e-3 * peaks) & (got.std(1) > 0)
    pairs = [np.corrcoef(a, b)[0, 1] for a, b in zip(got[varied], want[varied], strict=True)]
    return Fidelity(float(min(pairs, default=1.0)), error)
