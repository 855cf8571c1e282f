"""Methods that a network is not made for are refused, and no others."""

import pytest
import timm
import torch
from torch import Tensor, nn

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.saliency.capability import check_capable
from saliency_pipeline.saliency.layer_choice import explained_layers
from saliency_pipeline.saliency.methods.registry import find_methods
from tests.saliency.networks import BATCH, Tiny, own_source
from tests.saliency.transformers import BUILDERS, CLASSES, SIZE, initialized, transformer


class Branched(nn.Module):
    """Two branches, which join before the last layer; `decides`: what it computes depends on the frame's values."""

    def __init__(self, decides: bool) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 4, 3, 2), nn.Conv2d(3, 4, 3, 2)
        self.last, self.fc, self.decides = nn.Conv2d(4, 5, 3), nn.Linear(5, 7), decides
        self.eval().requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.left(x).relu() + self.right(x)
        if self.decides and y.detach().sum() > 1e9:
            y = 2 * y
        return self.fc(torch.tanh(self.last(y)).mean((2, 3)))


def check(methods: list[str], decides: bool = False) -> None:
    source = own_source(Branched(decides), 16, 7)
    layers, named = explained_layers(source, find_methods(methods))
    check_capable(source, named, layers, BATCH)


def test_a_layer_is_cut_whatever_other_layers_are_explained() -> None:
    check(["ablationcam:layer=last", "gradcam:layer=left"])
    with pytest.raises(SalpipeError, match="--method ablationcam:layer=left: tiny cannot be cut at left; use a layer"):
        check(["ablationcam:layer=left", "gradcam:layer=last"])


@pytest.mark.parametrize("method", ["ablationcam", "fullgrad", "rollout:discard=0.0,residual=0.5", "chefer"])
def test_a_network_that_cannot_be_exported(method: str) -> None:
    with pytest.raises(SalpipeError, match=f"--method {method}: tiny cannot be exported; use another method"):
        check([method], decides=True)
    check(["gradcam", "gradient", "captum:DeepLift"], decides=True)


def check_attention(network: nn.Module, *methods: str, size: int = SIZE) -> None:
    source = own_source(network, size, CLASSES)
    layers, named = explained_layers(source, find_methods(methods))
    check_capable(source, named, layers, BATCH)


@pytest.mark.parametrize("method", ["attention", "rollout", "chefer", "legrad"])
def test_attention_of_networks_that_have_none_or_another_one(method: str) -> None:
    with pytest.raises(SalpipeError, match=f"--method {method}: tiny has no attention; use gradcam or another method"):
        check_attention(Tiny(), method, size=16)
    options = {"depths": (1, 1), "num_heads": (1, 2), "embed_dim": 16, "num_classes": CLASSES, "img_size": 112}
    swin = initialized(timm.create_model("swin_tiny_patch4_window7_224", **options))
    with pytest.raises(SalpipeError, match=f"--method {method}: tiny attends within windows; use gradcam or another"):
        check_attention(swin, "gradcam", method, size=112)
    check_attention(transformer("vit"), "gradcam", method)


def test_blocks_that_the_network_does_not_have() -> None:
    check_attention(transformer("vit"), "attention:block=2", "legrad:blocks=2")
    with pytest.raises(SalpipeError, match="--method attention:block=3,heads=mean: tiny has 2 blocks; use a number up"):
        check_attention(transformer("vit"), "attention:block=3")
    with pytest.raises(SalpipeError, match="--method legrad:blocks=3,score=mean: tiny has 2 blocks"):
        check_attention(transformer("vit"), "legrad:blocks=3")


class WithoutSums(nn.Module):
    """Two blocks of attention, the second without a residual sum."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = (initialized(BUILDERS["vit"]()) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.one.blocks[0](self.one._pos_embed(self.one.patch_embed(x)))
        return self.two.head(self.two.blocks[1].attn(tokens)[:, 0])


def test_legrad_needs_the_output_of_every_block() -> None:
    check_attention(WithoutSums().eval(), "chefer", "rollout")
    with pytest.raises(SalpipeError, match="--method legrad: the blocks of tiny do not end with a residual sum"):
        check_attention(WithoutSums().eval(), "chefer", "legrad")
