"""Choice of a placement: speeds are cached, fidelity is checked every time, failing candidates are skipped."""

import dataclasses
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.saliency import fidelity, tuning
from saliency_pipeline.saliency.engine.backends import Placement
from saliency_pipeline.saliency.engine.layers import choose_layer
from saliency_pipeline.saliency.explainer import Explainer
from saliency_pipeline.saliency.fidelity import Fidelity
from saliency_pipeline.saliency.methods.method import Method
from saliency_pipeline.saliency.methods.registry import find_methods
from saliency_pipeline.saliency.tuning import choose_placement, default_batch, measure_rate, representatives
from tests.saliency.networks import (
    BATCH,
    Tiny,
    library_explainer,
    library_layer,
    library_source,
    noise,
    own_source,
)

NAME = "test_resnet"
Rates = dict[tuple[str, str], float]


@pytest.fixture(autouse=True)
def memory(empty_cache: Path) -> Path:
    return empty_cache / "speeds.json"


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Callable[[Rates], list[tuple[str, str]]]:
    """Prescribes the rates; the list has the placements that were measured."""

    def dictate(rates: Rates) -> list[tuple[str, str]]:
        asked: list[tuple[str, str]] = []

        def rate(explainer: object, _frames: np.ndarray, seconds: float) -> float:
            placement = explainer.placement.backend, explainer.placement.precision
            if not seconds:
                asked.append(placement)
            return rates[placement]

        monkeypatch.setattr(tuning, "measure_rate", rate)
        monkeypatch.setattr(tuning, "_explainers", shared_explainers)
        monkeypatch.setattr(tuning, "computes_bf16_in", lambda _backend, _device: True)
        return asked

    return dictate


@cache
def shared_explainer(methods: tuple[str, ...], placement: Placement) -> Explainer:
    """Computed in fp32 whatever it is called, so that every processor can."""
    explainer = library_explainer(NAME, methods, dataclasses.replace(placement, precision="fp32"))
    explainer.placement = placement
    return explainer


def shared_explainers(_source: object, _layer: object, methods: tuple[Method, ...], _batch: int) -> Callable:
    return lambda placement: shared_explainer(tuple(m.name for m in methods), placement)


FAST_BF16 = {("openvino", "fp32"): 200.0, ("openvino", "bf16"): 400.0, ("torch", "fp32"): 50.0, ("torch", "bf16"): 90.0}


def choose(methods: tuple[str, ...] = ("gradcam",), frames: int = 4, **options: object) -> Placement:
    source, layer = library_source(NAME), library_layer(NAME)
    return choose_placement(source, [layer], find_methods(methods), noise(frames), batch=BATCH, **options)[0]


@pytest.mark.parametrize(
    ("rates", "options", "wanted"),
    [
        ({}, {}, ("openvino", "bf16")),
        ({("openvino", "fp32"): 395.0}, {}, ("openvino", "fp32")),
        ({("torch", "bf16"): 900.0}, {}, ("torch", "bf16")),
        ({("torch", "fp32"): 900.0}, {}, ("torch", "fp32")),
        ({}, {"precision": "fp32"}, ("openvino", "fp32")),
        ({("torch", "fp32"): 900.0}, {"precision": "fp32"}, ("torch", "fp32")),
        ({}, {"backend": "torch"}, ("torch", "bf16")),
        ({}, {"precision": "bf16", "backend": "openvino"}, ("openvino", "bf16")),
    ],
)
def test_the_fastest_faithful_placement_is_chosen(
    rates: Rates, options: dict, wanted: tuple[str, str], measured: Callable
) -> None:
    measured({**FAST_BF16, **rates})
    chosen = choose(**options)
    assert (chosen.backend, chosen.precision) == wanted


@pytest.mark.parametrize(
    ("unfaithful", "options", "wanted"),
    [
        ([("openvino", "bf16")], {}, ("openvino", "fp32")),
        ([("openvino", "bf16"), ("openvino", "fp32")], {}, ("torch", "bf16")),
        ([*FAST_BF16], {}, ("torch", "fp32")),
        ([*FAST_BF16], {"backend": "openvino"}, ("openvino", "fp32")),
        ([*FAST_BF16], {"precision": "bf16"}, ("torch", "bf16")),
    ],
)
def test_what_is_not_faithful_is_refused(
    unfaithful: list, options: dict, wanted: tuple[str, str], measured: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured(FAST_BF16)
    true = fidelity.measured_fidelity

    def doubted(explainer: object, *rest: object) -> list[Fidelity]:
        bad = (explainer.placement.backend, explainer.placement.precision) in unfaithful
        return [Fidelity(0.9, 0.5)] if bad else true(explainer, *rest)

    monkeypatch.setattr(fidelity, "measured_fidelity", doubted)
    chosen = choose(**options)
    assert (chosen.backend, chosen.precision) == wanted


def test_broken_maps_are_noticed(measured: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    measured(FAST_BF16)
    true = tuning.Explainer.explain

    def upside_down(explainer: object, *rest: object) -> object:
        explanation = true(explainer, *rest)
        if explainer.placement.precision == "bf16":
            explanation.maps["gradcam"] = explanation.maps["gradcam"][:, :, ::-1]
        return explanation

    monkeypatch.setattr(tuning.Explainer, "explain", upside_down)
    assert choose().precision == "fp32"


def test_pixel_gradients_stay_on_torch(measured: Callable) -> None:
    asked = measured({("torch", "fp32"): 10.0, ("torch", "bf16"): 14.0})
    assert choose(("gradcam", "gradient")) == Placement("torch", "bf16")
    assert {backend for backend, _ in asked} == {"torch"}


def test_attention_is_computed_by_torch_in_fp32(measured: Callable) -> None:
    asked = measured(FAST_BF16)
    assert choose(("gradcam", "rollout")) == Placement("torch", "fp32")
    assert not asked


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"backend": "tensorrt"}, "choose from auto, torch, compile, openvino"),
        ({"precision": "fp16"}, "choose from auto, fp32, bf16"),
        ({"backend": "openvino", "methods": ("gradient",)}, "forward only; pixel gradients need --backend torch"),
        ({"backend": "compile", "methods": ("gradient",)}, "forward only; pixel gradients need --backend torch"),
        ({"backend": "openvino", "methods": ("chefer",)}, "forward only; attention needs --backend torch"),
        ({"precision": "bf16", "methods": ("attention",)}, "attention are computed in fp32; use --precision auto"),
        ({"precision": "fp16", "methods": ("attention",)}, "choose from auto, fp32, bf16"),
        ({"backend": "openvino", "device": "cuda"}, "runs on the CPU, not on cuda; use --backend torch"),
    ],
)
def test_what_does_not_exist_is_refused_in_one_line(options: dict, words: str) -> None:
    with pytest.raises(SalpipeError, match=words) as caught:
        choose(**options)
    assert "\n" not in str(caught.value)


def test_without_openvino_torch_is_measured_alone(measured: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "openvino_installed", lambda: False)
    asked = measured(FAST_BF16)
    assert choose().backend == "torch"
    assert asked == [("torch", "bf16"), ("torch", "fp32")]
    with pytest.raises(SalpipeError, match=r"pip install 'saliency-pipeline\[openvino\]'"):
        choose(backend="openvino")


def failing(name: str) -> Callable:
    def measure(explainer: object, _frames: np.ndarray, _seconds: float) -> float:
        if explainer.placement.backend == name:
            raise SalpipeError(f"--backend {name}: cannot run this network (why)")
        return 10.0

    return measure


def test_a_backend_that_cannot_run_the_network_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "measure_rate", failing("openvino"))
    assert choose() == Placement("torch", "fp32")


def test_a_back_end_asked_for_that_cannot_run_the_network_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> object:
        raise SalpipeError("--backend openvino: cannot run this network (why)")

    monkeypatch.setattr(tuning, "Explainer", refuse)
    monkeypatch.setattr(tuning, "computes_bf16_in", lambda _backend, _device: True)
    with pytest.raises(SalpipeError, match="cannot run this network"):
        choose(backend="openvino")


def test_speeds_are_remembered(memory: Path, measured: Callable) -> None:
    asked = measured(FAST_BF16)
    first = choose()
    assert len(asked) == 4
    (rates,) = json.loads(memory.read_text()).values()
    assert rates == {f"{backend} {precision}": rate for (backend, precision), rate in FAST_BF16.items()}
    assert choose() == first
    assert len(asked) == 4
    choose(streams=2)
    assert len(asked) == 8
    assert len(json.loads(memory.read_text())) == 2


@pytest.mark.parametrize("content", ["", "{", "[1, 2]", '{"key": 3}', "\0"])
def test_a_damaged_memory_is_measured_anew(content: str, memory: Path, measured: Callable) -> None:
    memory.parent.mkdir(parents=True)
    memory.write_text(content)
    asked = measured(FAST_BF16)
    choose()
    assert len(asked) == 4
    choose()
    assert len(asked) == 4


def test_a_memory_that_cannot_be_written_stops_nothing(
    tmp_path: Path, measured: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = tmp_path / "a file"
    blocked.write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    asked = measured(FAST_BF16)
    assert choose() == choose() == Placement("openvino", "bf16")
    assert len(asked) == 8


def test_a_true_measurement_ends_with_a_faithful_placement(memory: Path) -> None:
    chosen = choose(frames=40)
    assert chosen.backend in ("torch", "openvino")
    (rates,) = json.loads(memory.read_text()).values()
    assert all(rate > 0 for rate in rates.values())


def test_a_rate_counts_frames_per_second() -> None:
    explainer = library_explainer(NAME, ("gradcam",), Placement("torch", "fp32", streams=2))
    calls = 0
    explain = explainer.explain

    def counted(frames: np.ndarray) -> object:
        nonlocal calls
        calls += 1
        assert frames.shape == (BATCH, 64, 64, 3)
        return explain(frames)

    explainer.explain = counted
    rate = measure_rate(explainer, noise(1), seconds=0.1)
    assert 0 < rate <= calls * BATCH / 0.1


@pytest.mark.parametrize(
    ("first_rates", "longer"), [((100.0, 40.0), []), ((40.0, 100.0), []), ((100.0, 60.0), ["openvino", "torch"])]
)
def test_only_what_the_first_batches_leave_open_is_measured_for_long(
    first_rates: tuple[float, float], longer: list[str], measured: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured({})
    rates, asked = dict(zip(("openvino", "torch"), first_rates, strict=True)), []

    def rate(explainer: object, _frames: np.ndarray, seconds: float) -> float:
        if seconds:
            asked.append(explainer.placement.backend)
        return rates[explainer.placement.backend]

    monkeypatch.setattr(tuning, "measure_rate", rate)
    assert choose(precision="fp32").backend == max(rates, key=rates.get)
    assert asked == longer


def test_zero_seconds_are_one_batch_per_stream_and_run() -> None:
    explainer = library_explainer(NAME, ("gradcam",), Placement("torch", "fp32", streams=2))
    calls, explain = [], explainer.explain

    def counted(frames: np.ndarray) -> object:
        calls.append(len(frames))
        return explain(frames)

    explainer.explain = counted
    assert measure_rate(explainer, noise(1), 0) > 0
    assert calls == [BATCH] * 6  # warming up, and two runs


def test_bf16_is_not_tried_where_the_processor_has_none(monkeypatch: pytest.MonkeyPatch, measured: Callable) -> None:
    asked = measured(FAST_BF16)
    monkeypatch.setattr(tuning, "computes_bf16_in", lambda backend, _device: backend == "torch")
    assert choose() == Placement("openvino", "fp32")
    assert asked == [("openvino", "fp32"), ("torch", "bf16"), ("torch", "fp32")]
    monkeypatch.setattr(tuning, "computes_bf16_in", lambda _backend, _device: False)
    assert choose(backend="torch") == Placement("torch", "fp32")
    assert choose(backend="torch", precision="bf16") == Placement("torch", "bf16")
    assert len(asked) == 3


@pytest.mark.parametrize("damage", [float("nan"), float("inf")])
def test_a_damaged_network_still_gets_a_placement(damage: float, monkeypatch: pytest.MonkeyPatch) -> None:
    network = Tiny()
    network.conv.weight[0, 0, 0, 0] = damage
    monkeypatch.setattr(tuning, "measure_rate", lambda _explainer, _frames, _seconds: 10.0)
    source = own_source(network, 8, 7)
    chosen, _ = choose_placement(
        source, [choose_layer(network, 8)], find_methods(["gradcam"]), noise(3, 8), batch=BATCH
    )
    assert chosen.device == "cpu"


def test_batches_are_small_on_a_cpu_and_larger_on_a_gpu() -> None:
    cams, pixels = find_methods(["gradcam"]), find_methods(["gradient"])
    assert default_batch(cams, "cpu") < default_batch(pixels, "cpu") <= 16
    assert default_batch(cams, "cuda:1") > default_batch(pixels, "cuda") > 4


def test_what_takes_many_passes_is_proved_by_one_at_the_same_layer() -> None:
    layers = [choose_layer(library_source(NAME).module, 64, name) for name in ("layer3", "layer4")]
    methods = find_methods(["ablationcam:layer=layer4", "smoothgrad", "fullgrad", "finercam:layer=layer3"])
    names = [method.canonical for method in representatives(methods, layers, 64)]
    assert names == ["gradcam:layer=layer4", "gradient", "gradcam", "finercam:gamma=0.6,layer=layer3,references=3"]
    masked = find_methods(["rise", "scorecam", "kernelshap:segments=9"])
    assert [method.canonical for method in representatives(masked, layers, 65)] == [
        "occlusion:score=logit,stride=32,window=32",
        "gradcam",
    ]
    assert [method.canonical for method in representatives(find_methods(["fullgrad", "edges"]), [], 64)] == []
