"""Which layers are explained: those requested and those that methods name, in the order in which they run."""

import pytest

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.saliency.layer_choice import explained_layers
from saliency_pipeline.saliency.methods.registry import find_methods
from tests.saliency.networks import Tiny, own_source

SOURCE = own_source(Tiny(), 8, 7)


@pytest.mark.parametrize(
    ("texts", "requested", "layers", "canonical"),
    [
        (["gradcam"], [], ["act"], ["gradcam"]),
        (["gradient"], [], ["act"], ["gradient"]),
        (["gradcam"], ["conv"], ["conv"], ["gradcam"]),
        (["gradcam"], ["act", "conv"], ["conv", "act"], ["gradcam:layer=act", "gradcam:layer=conv"]),
        (["gradcam:layer=conv"], [], ["conv"], ["gradcam:layer=conv"]),
        (["gradcam:layer=conv", "gradcam"], [], ["conv", "act"], ["gradcam:layer=conv", "gradcam:layer=act"]),
        (["gradcam:layer=act", "gradcam"], [], ["act"], ["gradcam:layer=act", "gradcam"]),
        (["gradcam:layer=act", "gradcam"], ["norm"], ["norm", "act"], ["gradcam:layer=act", "gradcam:layer=norm"]),
        (["layercam:fuse=max"], ["act", "conv"], ["conv", "act"], ["layercam:fuse=max,layer=act+conv"]),
        (
            ["layercam:fuse=max", "gradcam:layer=conv"],
            ["act"],
            ["conv", "act"],
            ["layercam:fuse=max,layer=act", "gradcam:layer=conv"],
        ),
        (["gradcam:layer=conv", "gradient"], ["norm"], ["conv", "norm"], ["gradcam:layer=conv", "gradient"]),
    ],
)
def test_layers_that_are_explained(
    texts: list[str], requested: list[str], layers: list[str], canonical: list[str]
) -> None:
    chosen, methods = explained_layers(SOURCE, find_methods(texts, requested), requested)
    assert [layer.name for layer in chosen] == layers
    assert [method.canonical for method in methods] == canonical


def test_an_unknown_layer_of_a_method_is_reported() -> None:
    with pytest.raises(SalpipeError, match="--layer nowhere: is no layer of this network; candidates: "):
        explained_layers(SOURCE, find_methods(["gradcam:layer=nowhere"]))


def test_a_size_that_the_network_does_not_accept_is_reported() -> None:
    source = own_source(Tiny(), 2, 7)
    with pytest.raises(SalpipeError, match="--size 2: tiny has no layer on a grid for such frames; use a larger size"):
        explained_layers(source, find_methods(["gradcam"]), size=2)
    assert explained_layers(source, find_methods(["gradient"]), size=2)[0] == ()
