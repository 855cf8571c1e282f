"""Weights rounded to bf16: every filter keeps its sum, and so Grad-CAM keeps its numbers."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import fx

from saliency_pipeline.saliency.engine import backends
from saliency_pipeline.saliency.engine.backends import Placement, computes_bf16_in
from saliency_pipeline.saliency.engine.rounding import round_taps, rounded_to_bf16
from saliency_pipeline.saliency.engine.split import SplitNetwork
from saliency_pipeline.saliency.explainer import Explainer
from saliency_pipeline.saliency.fidelity import BOUNDS, fidelity
from saliency_pipeline.saliency.methods.registry import find_methods
from saliency_pipeline.saliency.targets import Target
from tests import reference
from tests.saliency.networks import BATCH, FP32, library_explainer, library_source, library_split, photos


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-4, 4, width=32), min_size=1, max_size=25))
def test_taps_equal_their_slow_twin(taps: list[float]) -> None:
    rounded = round_taps(torch.tensor(taps).view(1, 1, 1, -1))
    assert rounded.flatten().tolist() == pytest.approx(reference.round_taps(taps), rel=1e-6, abs=1e-30)


def test_a_filter_keeps_its_sum_and_bf16_holds_every_tap() -> None:
    weight = torch.randn(16, 4, 3, 3, generator=torch.Generator().manual_seed(0)) * 0.1
    rounded = round_taps(weight)
    assert torch.equal(rounded, rounded.bfloat16().float())
    assert (rounded - weight).abs().max() <= 0.01
    moved = (rounded.double().sum((2, 3)) - weight.double().sum((2, 3))).abs()
    plainly = (weight.bfloat16().double().sum((2, 3)) - weight.double().sum((2, 3))).abs()
    assert moved.max() <= 2.0**-8 * weight.abs().amax()
    assert moved.mean() < 0.2 * plainly.mean()


def test_what_bf16_holds_already_stays() -> None:
    weight = torch.randn(4, 2, 5, 5, generator=torch.Generator().manual_seed(0)).bfloat16().float()
    assert torch.equal(round_taps(weight), weight)


def test_only_a_copys_convolutions_are_rounded() -> None:
    trunk = library_split("mobilenetv3_small_050").trunk
    assert trunk is not None
    before = {name: b.clone() for name, b in trunk.named_buffers()}
    rounded = rounded_to_bf16(trunk)
    assert all(torch.equal(b, before[name]) for name, b in trunk.named_buffers())
    changed = {name for name, b in rounded.named_buffers() if not torch.equal(b, before[name])}
    assert changed
    assert all(before[name].ndim == 4 for name in changed)


def rounded_plainly(graph: fx.GraphModule) -> fx.GraphModule:
    plain = copy.deepcopy(graph)
    for buffer in plain.buffers():
        if buffer.ndim == 4:
            buffer.data = buffer.data.bfloat16().float()
    return plain


def lite0_maps(placement: Placement, split: SplitNetwork, classes: np.ndarray) -> np.ndarray:
    source = library_source("efficientnet_lite0", 224, "default")
    target = Target("label", label_index=tuple(range(1000)))
    explainer = Explainer(source, [split.layers[0]], find_methods(["gradcam"]), target, BATCH, placement, split)
    return explainer.explain(photos(), classes).maps["gradcam"][:, 0]


@pytest.mark.slow
def test_rounded_weights_alone_cost_half_of_what_they_cost_without_keeping_sums() -> None:
    split = library_split("efficientnet_lite0", 224, "default")
    assert split.trunk is not None
    wanted = library_explainer("efficientnet_lite0", ("gradcam",), size=224, weights="default").explain(photos())
    classes, reference_map = wanted.targets[:, 0], wanted.maps["gradcam"][:, 0]
    peaks = reference_map.max((1, 2))
    errors = [
        (np.abs(lite0_maps(FP32, dataclasses.replace(split, trunk=trunk), classes) - reference_map).max((1, 2)) / peaks)
        for trunk in (rounded_to_bf16(split.trunk), rounded_plainly(split.trunk))
    ]
    assert errors[0].mean() < 0.6 * errors[1].mean()
    assert errors[0].max() <= 0.04


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["torch", "openvino"])
def test_grad_cam_in_bf16_is_within_bounds_and_nearer_for_it(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if backend == "openvino" and not computes_bf16_in(backend, "cpu"):
        pytest.skip("no bf16 in this processor: OpenVINO computes in fp32, so there is no rounding error to compare")
    split = library_split("efficientnet_lite0", 224, "default")
    wanted = library_explainer("efficientnet_lite0", ("gradcam",), size=224, weights="default").explain(photos())
    classes, reference_map = wanted.targets[:, 0], wanted.maps["gradcam"][:, 0]
    kept = fidelity(lite0_maps(Placement(backend, "bf16"), split, classes), reference_map)
    monkeypatch.setattr(backends, "rounded_to_bf16", lambda graph: graph)
    plain = fidelity(lite0_maps(Placement(backend, "bf16"), split, classes), reference_map)
    assert kept.within(*BOUNDS["layer", "bf16"])
    assert kept.error < plain.error
    assert kept.correlation > plain.correlation
