"""Fidelity: agreement of maps with captum's, and which maps those of fp32 and bf16 are compared with."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest

from saliency_pipeline.saliency import fidelity as fidelity_module
from saliency_pipeline.saliency.engine.backends import Placement
from saliency_pipeline.saliency.explainer import Explainer
from saliency_pipeline.saliency.fidelity import (
    BOUNDS,
    Fidelity,
    fidelity,
    fidelity_check,
    measured_fidelity,
    reference_maps,
)
from saliency_pipeline.saliency.methods.registry import find_methods
from saliency_pipeline.saliency.prepared import prepared_layers, prepared_split
from tests import reference
from tests.saliency.networks import (
    BATCH,
    PREDICTED,
    captum_grad_cam,
    captum_gradient,
    library_explainer,
    library_layer,
    library_source,
    load_sized,
    noise,
    relative_error,
)

NAME = "test_resnet"


def test_wrong_predictions_are_noticed() -> None:
    explainer, frames = library_explainer(NAME, ("gradcam",)), noise(4)
    scores, maps = reference_maps(explainer.source, [explainer.layers[0]], explainer.methods, frames)
    assert measured_fidelity(explainer, explainer.methods, frames, (scores, maps))[0].within(0.9999, 1e-4)
    sure = np.zeros_like(scores)
    sure[:, (scores.argmax(1)[0] + 1) % 1000] = 1.0
    assert measured_fidelity(explainer, explainer.methods, frames, (sure, maps)) == [Fidelity(0.0, np.inf)]


def test_reference_maps_are_captums() -> None:
    source, layer, frames = library_source(NAME), library_layer(NAME), noise(5)
    scores, maps = reference_maps(source, [layer], find_methods(["gradient", "gradcam"]), frames)
    classes = scores.argmax(1)
    np.testing.assert_allclose(scores.sum(1), 1, rtol=1e-5)
    gradient = captum_gradient(source, frames, classes)
    assert relative_error(maps[0], np.abs(gradient).max(1)) <= 1e-5
    assert relative_error(maps[1], captum_grad_cam(source, layer.name, frames, classes)) <= 1e-5


def test_fidelity_is_the_worst_maps() -> None:
    rng = np.random.default_rng(0)
    want = rng.random((3, 4, 4))
    got = want + rng.normal(0, 0.01, want.shape)
    agreement = fidelity(got, want)
    assert agreement.correlation == pytest.approx(min(reference.pearson(a, b) for a, b in zip(got, want, strict=True)))
    assert agreement.error == pytest.approx(max(np.abs(a - b).max() / b.max() for a, b in zip(got, want, strict=True)))
    assert fidelity(want, want) == Fidelity(pytest.approx(1.0), 0.0)
    assert fidelity(-want, want).correlation == pytest.approx(-1.0)


ZERO, FLAT, SLOPE = np.zeros((4, 4)), np.full((4, 4), 2.0), np.arange(16.0).reshape(4, 4)
HOLE, PEAK = np.where(SLOPE == 3, np.nan, SLOPE), np.where(SLOPE == 3, np.inf, SLOPE)


@pytest.mark.parametrize(
    ("got", "want", "faithful"),
    [
        ([ZERO], [ZERO], True),
        ([FLAT], [FLAT], True),
        ([ZERO], [SLOPE], False),
        ([FLAT], [SLOPE], False),
        ([SLOPE], [ZERO], False),
        ([ZERO + 1e-9, SLOPE], [ZERO, SLOPE], True),
        ([ZERO + 1, SLOPE], [ZERO, SLOPE], False),
        ([HOLE, SLOPE], [HOLE, SLOPE], True),
        ([HOLE], [HOLE], True),
        ([PEAK], [PEAK], True),
        ([HOLE, SLOPE], [SLOPE, SLOPE], False),
        ([SLOPE], [PEAK], False),
    ],
)
def test_fidelity_of_odd_maps(got: list[np.ndarray], want: list[np.ndarray], faithful: bool) -> None:
    agreement = fidelity(np.stack(got), np.stack(want))
    assert agreement.within(*BOUNDS["layer", "fp32"]) is faithful
    assert not np.isnan(agreement.error)


EXACT, ROUNDED = Placement("torch", "fp32"), Placement("torch", "bf16")


class Checking:
    """`fidelity_check` for a tiny network; counts captum's references, and can spoil the maps of a placement."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.references = 0
        self.spoiled: set[Placement] = set()
        self.compared_with: list[np.ndarray] = []
        computed, measured = fidelity_module.reference_maps, fidelity_module.measured_fidelity

        def count(*arguments: object) -> object:
            self.references += 1
            return computed(*arguments)

        def note(explainer: Explainer, methods: object, frames: np.ndarray, reference: object) -> list[Fidelity]:
            self.compared_with.append(reference[1][0])
            fidelities = measured(explainer, methods, frames, reference)
            return [Fidelity(0.5, 1.0) for _ in fidelities] if explainer.placement in self.spoiled else fidelities

        monkeypatch.setattr(fidelity_module, "reference_maps", count)
        monkeypatch.setattr(fidelity_module, "measured_fidelity", note)

    def __call__(self, placement: Placement, frames: int = 3) -> bool:
        source = load_sized(NAME)
        layer, methods = prepared_layers(source)[0], find_methods(["gradcam"])
        split = prepared_split(source, [layer], BATCH)
        self.make = cache(lambda p: Explainer(source, [layer], methods, PREDICTED, BATCH, p, split))
        check = fidelity_check(source, [layer], methods, noise(frames), [EXACT, ROUNDED], self.make)
        return check(placement)


@pytest.fixture
def checking(monkeypatch: pytest.MonkeyPatch, empty_cache: Path) -> Checking:
    return Checking(monkeypatch)


def proofs(folder: Path) -> int:
    return len(list(folder.glob("networks/proof-*")))


def test_fp32_is_compared_with_captum_once(checking: Checking, empty_cache: Path) -> None:
    assert checking(EXACT)
    assert (checking.references, proofs(empty_cache)) == (1, 1)
    assert checking(EXACT, frames=5)
    assert checking.references == 1


def test_a_rejected_engine_is_compared_again(checking: Checking, empty_cache: Path) -> None:
    checking.spoiled.add(EXACT)
    assert not checking(EXACT)
    assert proofs(empty_cache) == 0
    checking.spoiled.clear()
    assert checking(EXACT)
    assert checking.references == 2


def test_maps_that_agree_with_anything_prove_nothing(
    checking: Checking, empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fidelity_module, "_is_informative", lambda _reference: False)
    assert checking(EXACT)
    assert proofs(empty_cache) == 0
    flat, varied = np.ones((2, 4, 4)), np.arange(32.0).reshape(2, 4, 4)
    monkeypatch.undo()
    for maps, informative in (([flat], False), ([varied], True), ([flat, varied], False), ([varied * np.nan], False)):
        assert fidelity_module._is_informative((np.ones((2, 3)), maps)) is informative


def test_bf16_is_compared_on_every_run_with_the_proved_engine(checking: Checking) -> None:
    assert checking(EXACT)
    assert checking(ROUNDED, frames=5)
    assert checking.references == 1
    expected = checking.make(EXACT).explain(noise(5)).maps["gradcam"][:, 0]
    assert np.array_equal(checking.compared_with[-1], expected)
    checking.spoiled.add(ROUNDED)
    assert not checking(ROUNDED, frames=5)


def test_bf16_is_compared_with_captum_if_no_engine_is_proved(checking: Checking) -> None:
    checking.spoiled.add(EXACT)
    assert checking(ROUNDED, frames=5)
    assert checking.references == 2
    source, layer = library_source(NAME), library_layer(NAME)
    expected = captum_grad_cam(source, layer.name, noise(5), checking.make(ROUNDED).explain(noise(5)).targets[:, 0])
    assert relative_error(checking.compared_with[-1], expected) <= 1e-5


def test_of_methods_with_near_ties_the_better_half_counts() -> None:
    reference = np.random.default_rng(0).random((4, 5, 5))
    maps = reference.copy()
    maps[1] = reference[1].T
    assert not fidelity_module.fidelity(maps, reference).within(0.9999, 1e-3)
    assert fidelity_module.fidelity(maps, reference, 0.75).within(0.9999, 1e-3)
    maps[2:] = reference[2:].transpose(0, 2, 1)
    assert not fidelity_module.fidelity(maps, reference, fidelity_module.TIED_SHARE).within(0.9999, 1e-3)
