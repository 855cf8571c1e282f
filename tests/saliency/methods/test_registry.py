"""Methods by name: aliases, order, unknown names, and descriptions in shards."""

import pytest

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.saliency.methods.registry import METHODS, find_methods


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["gradcam"], ["gradcam"]),
        (["gradient", "gradcam"], ["gradient", "gradcam"]),
        (["gradient:simonyan"], ["gradient"]),
        (["gradient-simonyan", "gradient:smilkov"], ["gradient", "gradient-smilkov"]),
        (["gradcam", "gradcam"], ["gradcam"]),
    ],
)
def test_methods_by_name(names: list[str], found: list[str]) -> None:
    assert [method.name for method in find_methods(names)] == found


@pytest.mark.parametrize("names", [["gradcam++"], ["GradCAM"], [""], []])
def test_an_unknown_method_is_answered_with_the_known_ones(names: list[str]) -> None:
    with pytest.raises(SalpipeError, match="choose from gradcam, gradient") as caught:
        find_methods(names)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("method", METHODS.values(), ids=lambda method: method.name)
def test_every_method_says_what_it_computes_and_where_it_comes_from(method: object) -> None:
    assert METHODS[method.name] is method
    description = method.describe()
    assert set(description) == {"level", "convention", "paper"}
    assert description["level"] in ("layer", "pixels")
    assert description["paper"].startswith("arXiv:")
    assert (method.closed_form is None) or method.level == "layer"
