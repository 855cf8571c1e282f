"""Prepared networks: cached ones are not built again and give bit-identical results."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from saliency_pipeline.models.source.source import SourceModel
from saliency_pipeline.saliency.engine.backends import Placement
from saliency_pipeline.saliency.engine.layers import Layer
from saliency_pipeline.saliency.engine.split import WithActivations
from saliency_pipeline.saliency.explainer import Explainer, Explanation
from saliency_pipeline.saliency.methods.registry import find_methods
from saliency_pipeline.saliency.prepared import prepared_layers, prepared_split
from tests.saliency.networks import BATCH, PREDICTED, load_sized, noise


def unbuildable(source: SourceModel) -> SourceModel:
    def refuse() -> nn.Module:
        raise AssertionError("the network was built")

    return dataclasses.replace(source, build=refuse)


def explained(
    source: SourceModel, layer: str | None, methods: tuple[str, ...], placement: Placement
) -> tuple[Layer, Explanation]:
    chosen = prepared_layers(source, [layer] if layer else [])[0]
    split = prepared_split(source, [chosen], BATCH)
    explainer = Explainer(source, [chosen], find_methods(methods), PREDICTED, BATCH, placement, split)
    return chosen, explainer.explain(noise(3, source.preprocessing.size))


@pytest.mark.parametrize(
    ("name", "layer", "methods", "placement"),
    [
        ("test_resnet", None, ("gradcam",), Placement("torch", "fp32")),
        ("test_resnet", None, ("gradcam",), Placement("torch", "bf16")),
        ("test_resnet", None, ("gradcam",), Placement("openvino", "fp32", streams=2)),
        ("test_resnet", None, ("gradcam", "gradient"), Placement("torch", "fp32")),
        ("test_resnet", "layer3.0.conv1", ("gradcam", "gradient"), Placement("torch", "fp32")),
        *(
            pytest.param(name, None, methods, Placement(backend, "fp32"), marks=pytest.mark.slow)
            for name, methods, backend in (
                ("test_vit", ("gradcam",), "openvino"),
                ("resnet18", ("gradcam",), "openvino"),
                ("mobilenetv3_small_050", ("gradcam",), "openvino"),
                ("torchvision/swin_t", ("gradcam",), "openvino"),
                ("convnext_atto", ("gradcam", "gradient"), "torch"),
            )
        ),
    ],
)
def test_a_kept_network_explains_to_the_last_bit_alike(
    name: str, layer: str | None, methods: tuple[str, ...], placement: Placement, empty_cache: Path
) -> None:
    size = 224 if name == "torchvision/swin_t" else 160 if name == "test_vit" else 64
    source = load_sized(name, size)
    expected_layer, expected = explained(source, layer, methods, placement)
    kinds = {"layer", "network", "source", *(["openvino"] if placement.backend == "openvino" else [])}
    assert {path.name.partition("-")[0] for path in empty_cache.glob("networks/*")} == kinds

    again = load_sized(name, size)
    assert {**vars(again), "build": None} == {**vars(source), "build": None}
    cached_layer, explanation = explained(unbuildable(again), layer, methods, placement)
    assert cached_layer == expected_layer
    for field in ("prediction_class", "prediction_score", "targets"):
        assert np.array_equal(getattr(explanation, field), getattr(expected, field))
    for method in methods:
        assert np.array_equal(explanation.maps[method], expected.maps[method])


def test_other_sizes_layers_and_batches_are_other_entries(empty_cache: Path) -> None:
    def count() -> int:
        return len([path for path in empty_cache.glob("networks/*") if path.name.startswith(("layer", "network"))])

    source = load_sized("test_resnet", 64)
    layer = prepared_layers(source)[0]
    prepared_split(source, [layer], 2)
    assert count() == 2
    prepared_split(source, [layer], 3)
    assert count() == 3
    other = prepared_layers(source, ["layer3.0.conv1"])[0]
    assert other != layer
    prepared_split(source, [other], 2)
    assert count() == 5
    prepared_layers(load_sized("test_resnet", 96))
    assert count() == 6


def test_a_network_that_cannot_be_exported_is_remembered_as_such(
    empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = load_sized("test_resnet", 64)
    layer = prepared_layers(source)[0]

    def refuse(*_: object, **__: object) -> object:
        raise RuntimeError("data-dependent")

    monkeypatch.setattr(torch.export, "export", refuse)
    assert isinstance(prepared_split(source, [layer], BATCH).whole, WithActivations)
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(empty_cache.parent))
    again = prepared_split(source, [layer], BATCH)
    assert isinstance(again.whole, WithActivations)
    assert again.trunk is None
    assert again.whole.network is source.module
