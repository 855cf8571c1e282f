"""Methods of other packages that fail: one line that names the method."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.saliency.engine.answers import Answers
from saliency_pipeline.saliency.engine.need import Need
from saliency_pipeline.saliency.explainer import Explainer
from saliency_pipeline.saliency.methods.method import Method
from tests.saliency.networks import Tiny, noise, own_explainer

SIZE, CLASSES = 16, 5
Maps = Callable[[Answers], Any]


def explainer(compute: Maps, missing: Any = None, errors: Any = None) -> Explainer:
    @dataclass(frozen=True)
    class Odd(Method):
        name = "odd"
        needs = Need.NOTHING
        convention = paper = "none"
        complete, sampled = missing is not None, errors is not None

        def maps(self, ask: Answers) -> Any:
            return compute(ask)

        def residuals(self, ask: Answers, maps: Tensor) -> Any:
            return missing

        def standard_errors(self, ask: Answers, maps: Tensor) -> Any:
            return errors

    own = own_explainer(Tiny(CLASSES), SIZE, CLASSES, ("gradcam",), batch=2)
    own.methods = (Odd(),)
    return own


def fails(ask: Answers) -> Tensor:
    raise ValueError("two\nlines")


def full(value: float, *shape: int) -> Maps:
    return lambda ask: torch.full((len(ask.logits()), *shape), float(value))


@pytest.mark.parametrize(
    ("maps", "message"),
    [
        (fails, r"fails at test_checked_maps\.py:\d+ \(ValueError: two lines\); update or uninstall the package, or"),
        (lambda ask: None, r"fails \(TypeError: its maps are of type NoneType, no tensor"),
        (lambda ask: np.zeros((2, 1, SIZE, SIZE)), "its maps are of type ndarray, no tensor"),
        (
            lambda ask: torch.ones((2, 1, SIZE, SIZE), dtype=torch.int64),
            r"its maps are of type torch\.int64, no tensor",
        ),
        (full(0, SIZE, SIZE), r"its maps have shape \(4, 16, 16\) instead of \(4, 1, 16, 16\)"),
        (full(0, 3, SIZE, SIZE), r"shape \(4, 3, 16, 16\) instead of \(4, 1, 16, 16\)"),
        (full(0, 1, 7, 7), r"shape \(4, 1, 7, 7\) instead of \(4, 1, 16, 16\)"),
        (full(torch.nan, 1, SIZE, SIZE), r"it returns values that are not finite\); update"),
    ],
)
def test_a_method_that_fails_is_named(maps: Maps, message: str) -> None:
    with pytest.raises(SalpipeError, match=f"^method odd: fails.*{message.removeprefix('fails')}") as caught:
        explainer(maps).explain(noise(3, SIZE))
    assert "\n" not in str(caught.value)


def test_residuals_are_checked_too() -> None:
    with pytest.raises(SalpipeError, match=r"^method odd: .*its residuals have shape \(3,\) instead of \(2, 1\)"):
        explainer(full(0, 1, SIZE, SIZE), torch.zeros(3)).explain(noise(2, SIZE))


def test_standard_errors_are_checked_too() -> None:
    with pytest.raises(SalpipeError, match=r"^method odd: .*its standard errors have shape \(3,\) instead of \(2, 1\)"):
        explainer(full(0, 1, SIZE, SIZE), errors=torch.zeros(3)).explain(noise(2, SIZE))
    sound = explainer(full(0, 1, SIZE, SIZE), errors=torch.ones(2, 1)).explain(noise(2, SIZE))
    np.testing.assert_array_equal(sound.standard_errors["odd"], np.ones((2, 1)))


def test_a_sound_method_of_another_package_is_used() -> None:
    explanation = explainer(full(2, 1, SIZE, SIZE)).explain(noise(3, SIZE))
    np.testing.assert_array_equal(explanation.maps["odd"], np.full((3, 1, SIZE, SIZE), 2))
