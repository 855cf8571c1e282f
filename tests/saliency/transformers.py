"""Small vision transformers of every kind, with random weights, for tests of attention."""

from collections.abc import Callable
from functools import cache

import timm
import torch
from torch import Tensor, nn
from torchvision.models import VisionTransformer

from saliency_pipeline.saliency.engine.attention import AttentionGraph, attention_graph
from saliency_pipeline.saliency.engine.layers import Layer, choose_layer
from saliency_pipeline.saliency.engine.split import SplitNetwork, split_network
from saliency_pipeline.saliency.explainer import Explainer
from saliency_pipeline.saliency.methods.registry import find_methods
from saliency_pipeline.saliency.targets import Target
from tests.saliency.networks import BATCH, FP32, own_source

SIZE, CLASSES, DEPTH, HEADS, WIDTH = 48, 5, 2, 2, 24
_SMALL = {"img_size": SIZE, "patch_size": 16, "depth": DEPTH, "embed_dim": WIDTH, "num_heads": HEADS}


def _of_timm(name: str, **options: object) -> Callable[[], nn.Module]:
    return lambda: timm.create_model(name, num_classes=CLASSES, **{**_SMALL, **options})


class Weighted(nn.Module):
    """A transformer of torch.nn.MultiheadAttention that returns its weights, so that attention is written out."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, WIDTH, 16, 16)
        self.token = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.attentions = nn.ModuleList(nn.MultiheadAttention(WIDTH, HEADS, batch_first=True) for _ in range(DEPTH))
        self.mixers = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(DEPTH))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(len(x), -1, -1), tokens], 1)
        for attention, mixer in zip(self.attentions, self.mixers, strict=True):
            tokens = tokens + attention(tokens, tokens, tokens)[0]
            tokens = tokens + mixer(tokens).tanh()
        return self.head(self.norm(tokens)[:, 0])


class Masked(nn.Module):
    """One block of fused attention with a bias on the scores and a scale of its own; or with a causal mask."""

    def __init__(self, causal: bool = False) -> None:
        super().__init__()
        self.patches, self.mix = nn.Conv2d(3, WIDTH, 16, 16), nn.Linear(WIDTH, WIDTH)
        self.bias, self.head = nn.Parameter(torch.zeros(1, 1, 9, 9)), nn.Linear(WIDTH, CLASSES)
        self.causal = causal

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        heads = tokens.unflatten(2, (HEADS, -1)).transpose(1, 2)
        options = {"is_causal": True} if self.causal else {"attn_mask": self.bias}
        joined = nn.functional.scaled_dot_product_attention(heads, heads, heads, scale=0.7, **options)
        return self.head((tokens + self.mix(joined.transpose(1, 2).flatten(2))).mean(1))


BUILDERS: dict[str, Callable[[], nn.Module]] = {
    "vit": _of_timm("vit_tiny_patch16_224"),
    "distilled": _of_timm("deit_tiny_distilled_patch16_224"),
    "registers": _of_timm("vit_small_patch14_reg4_dinov2"),
    "averaged": _of_timm("vit_tiny_patch16_224", class_token=False, global_pool="avg"),
    "rotary": _of_timm("eva02_tiny_patch14_224"),
    "oblong": _of_timm("vit_tiny_patch16_224", patch_size=(16, 8)),
    "torchvision": lambda: VisionTransformer(SIZE, 16, DEPTH, HEADS, WIDTH, 32, num_classes=CLASSES),
    "weighted": Weighted,
    "masked": Masked,
}
"""Transformers whose attention is exposed, by kind."""

PREFIXES = {"distilled": 2, "registers": 5, "averaged": 0, "masked": 0}
"""Numbers of prefix tokens, other than 1."""

GRIDS = {"oblong": (3, 6)}
"""Grids other than 3 x 3 cells."""


@cache
def transformer(kind: str) -> nn.Module:
    """The network of a kind, frozen, with weights large enough that attention differs from one token to another."""
    return initialized(BUILDERS[kind]())


def initialized(module: nn.Module) -> nn.Module:
    """A module in eval mode, frozen, whose matrices are random and not small."""
    generator = torch.Generator().manual_seed(7)
    for name, parameter in module.named_parameters():
        if parameter.ndim > 1:
            scale = 0.5 if "token" in name or "pos" in name else 1.5 / parameter[0].numel() ** 0.5
            parameter.data = torch.randn(parameter.shape, generator=generator) * scale
        elif "gamma" in name:
            parameter.data = torch.ones_like(parameter)
    return module.eval().requires_grad_(False)


@cache
def layer_of(kind: str) -> Layer:
    return choose_layer(transformer(kind), SIZE)


@cache
def split_of(kind: str) -> SplitNetwork:
    return split_network(transformer(kind), [layer_of(kind)], SIZE, BATCH)


@cache
def graph_of(kind: str) -> AttentionGraph:
    split = split_of(kind)
    return attention_graph(split.whole, layer_of(kind).grid, SIZE, BATCH)


def explainer_of(kind: str, *methods: str, targets: int = 1) -> Explainer:
    """An explainer that shares the exported network with the other tests of its kind."""
    source, target = own_source(transformer(kind), SIZE, CLASSES), Target("predicted", targets)
    return Explainer(source, [layer_of(kind)], find_methods(methods), target, BATCH, FP32, split_of(kind))
