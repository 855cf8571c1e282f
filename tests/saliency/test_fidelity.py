"""Fidelity: how near maps come to captum's, as a number, and what fp32 and bf16 are held against."""

import numpy as np
import pytest

from saliency_pipeline.saliency.fidelity import BOUNDS, Fidelity, fidelity, measured_fidelity, reference_maps
from saliency_pipeline.saliency.methods import find_methods
from tests import reference
from tests.saliency.networks import (
    captum_grad_cam,
    captum_gradient,
    library_explainer,
    library_layer,
    library_source,
    noise,
    relative_error,
)

NAME = "test_resnet"


def test_wrong_predictions_are_noticed() -> None:
    explainer, frames = library_explainer(NAME, ("gradcam",)), noise(4)
    scores, maps = reference_maps(explainer.source, explainer.layer, explainer.methods, frames)
    assert measured_fidelity(explainer, explainer.methods, frames, (scores, maps))[0].within(0.9999, 1e-4)
    sure = np.zeros_like(scores)
    sure[:, (scores.argmax(1)[0] + 1) % 1000] = 1.0
    assert measured_fidelity(explainer, explainer.methods, frames, (sure, maps)) == [Fidelity(0.0, np.inf)]


def test_reference_maps_are_captums() -> None:
    source, layer, frames = library_source(NAME), library_layer(NAME), noise(5)
    scores, maps = reference_maps(source, layer, find_methods(["gradient", "gradcam"]), frames)
    classes = scores.argmax(1)
    np.testing.assert_allclose(scores.sum(1), 1, rtol=1e-5)
    gradient = captum_gradient(source, frames, classes)
    assert relative_error(maps[0], np.abs(gradient).max(1)) <= 1e-5
    assert relative_error(maps[1], captum_grad_cam(source, layer.name, frames, classes)) <= 1e-5


def test_fidelity_is_the_worst_maps() -> None:
    rng = np.random.default_rng(0)
    want = rng.random((3, 4, 4))
    got = want + rng.normal(0, 0.01, want.shape)
    found = fidelity(got, want)
    assert found.correlation == pytest.approx(min(reference.pearson(a, b) for a, b in zip(got, want, strict=True)))
    assert found.error == pytest.approx(max(np.abs(a - b).max() / b.max() for a, b in zip(got, want, strict=True)))
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
    found = fidelity(np.stack(got), np.stack(want))
    assert found.within(*BOUNDS["layer", "fp32"]) is faithful
    assert not np.isnan(found.error)
