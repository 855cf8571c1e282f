"""Attention of vision transformers: that of one block, its rollout over all, and its gradients.

A_l is the attention (N, heads, T, T) of block l of L after its softmax: rows are queries, columns keys, and each row
sums to 1. A map begins with e, equal weights of the tokens that the classifier reads: the class token, both the class
and the distillation token of a distilled DeiT, or, where the network averages the tokens of the frame, all of these. It
ends as numbers of the T tokens, of which those on the grid of the frame are kept: class, distillation and register
tokens are dropped, without rescaling the rest. Maps are raw, on that grid.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from saliency_pipeline.errors import OptionError
from saliency_pipeline.saliency.engine.need import Need
from saliency_pipeline.saliency.methods.method import Grids, Method
from saliency_pipeline.settings import setting

if TYPE_CHECKING:
    from saliency_pipeline.saliency.engine.answers import Answers


@dataclass(frozen=True)
class AttentionMethod(Method):
    """A method of vision transformers whose tokens all attend to one another."""

    def shape(self, grids: Grids, size: int) -> tuple[int, int]:
        # tokens come after the layers of a convolutional stem
        return list(grids.values())[-1]

    @property
    def least_depth(self) -> int:
        """Number of blocks that the network must have."""
        return 1


@dataclass(frozen=True)
class Attention(AttentionMethod):
    """Attention of one block: e^T fused_heads(A_l), (N, 1, h, w), >= 0.

    Of a network with a class token this is what the class token attends to. Caron et al., arXiv 2104.14294, figure 1,
    show it per head for the last block.
    """

    name = "attention"
    needs = Need.ATTENTION
    convention = "attention of the tokens that the classifier reads to the tokens of the frame, fused over heads"
    paper = "arXiv:2104.14294"
    class_specific = False

    block: str = setting("last", "Block, 'last' or its number from 1.", metavar="N")
    heads: str = setting("mean", "How heads are combined.", choices=("mean", "max", "min"))

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_number(self.block, "block", "last")

    @property
    def cost(self) -> float:
        return 0.05

    @property
    def least_depth(self) -> int:
        return 1 if self.block == "last" else int(self.block)

    def maps(self, ask: Answers) -> Tensor:
        attended = ask.attention()
        matrix = attended.matrices[-1 if self.block == "last" else int(self.block) - 1]
        return attended.to_grid(attended.read @ _fused(matrix, self.heads))


@dataclass(frozen=True)
class Rollout(AttentionMethod):
    """Attention rollout: e^T B_L ... B_1, B_l = r I + (1 - r) mean_heads(A_l) with rows of sum 1, (N, 1, h, w), >= 0.

    r = residual stands for the residual connection that carries each token past the attention. All values of a map
    together with those of the dropped tokens sum to 1. Abnar and Zuidema, arXiv 2005.00928.
    """

    name = "rollout"
    needs = Need.ATTENTION
    convention = (
        "row of the tokens that the classifier reads in the product over blocks of "
        "residual I + (1 - residual) mean_heads(A), whose rows are scaled to sum 1"
    )
    paper = "arXiv:2005.00928"
    equals = "attention, of a single block with residual=0"
    class_specific = False

    residual: float = setting(0.5, "Share of the residual connection.", range=(0.0, 1.0))
    discard: float = setting(0.0, "Share of the lowest attention that is set to 0 per block.", range=(0.0, 0.999))

    @property
    def cost(self) -> float:
        return 0.1

    def maps(self, ask: Answers) -> Tensor:
        attended = ask.attention()
        rows = rollout(attended.matrices, attended.read, self.residual, self.discard, attended.graph.prefix)
        return attended.to_grid(rows)


@dataclass(frozen=True)
class Chefer(AttentionMethod):
    """Generic attention explainability: rows of R - I, R <- R + mean_heads(ReLU(dy/dA_l * A_l)) R over blocks from I.

    Maps (N, T, h, w) >= 0: e^T (R - I). The version of Chefer et al., arXiv 2103.15679, equations 5 and 6, that needs
    gradients only; that of arXiv 2012.09838 propagates relevance.
    """

    name = "chefer"
    needs = Need.ATTENTION | Need.ATTENTION_GRADIENTS
    convention = (
        "row of the tokens that the classifier reads in R - I; R <- R + mean_heads(ReLU(dy/dA * A)) R from R = I"
    )
    paper = "arXiv:2103.15679"

    @property
    def cost(self) -> float:
        return 2.0

    def maps(self, ask: Answers) -> Tensor:
        attended = ask.attention()
        matrices, read = attended.matrices, attended.read
        rows = [relevance(matrices, gradients, read) for gradients in attended.gradients(ask.targets())]
        return attended.to_grid(torch.cat(rows, 1))


@dataclass(frozen=True)
class LeGrad(AttentionMethod):
    """LeGrad: mean over blocks, heads and queries of ReLU(ds_l/dA_l), (N, T, h, w), >= 0.

    s_l is the logit of the network's own classifier, applied to the output of block l. Bousselham et al.,
    arXiv 2404.03214, apply it to the mean of all tokens, score=mean; with score=network it reads the tokens that it was
    trained on.
    """

    name = "legrad"
    needs = Need.ATTENTION | Need.ATTENTION_GRADIENTS | Need.BLOCKS
    convention = (
        "mean over blocks, heads and queries of ReLU(ds/dA), s the logit of the classifier at the output of the block: "
        "of the mean of all tokens, or of those that it reads if score is network"
    )
    paper = "arXiv:2404.03214"

    blocks: str = setting("all", "Blocks, 'all' or the number of last ones.", metavar="N")
    score: str = setting("mean", "Tokens that the classifier is applied to at each block.", choices=("mean", "network"))

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_number(self.blocks, "blocks", "all")

    @property
    def cost(self) -> float:
        return 1.5

    @property
    def least_depth(self) -> int:
        return 1 if self.blocks == "all" else int(self.blocks)

    def maps(self, ask: Answers) -> Tensor:
        attended, targets = ask.attention(), ask.targets()
        depth = attended.graph.depth
        first = 0 if self.blocks == "all" else depth - int(self.blocks)
        total = torch.zeros((*targets.shape, attended.read.shape[-1]), device=targets.device)
        for block in range(first, depth):
            for t, gradient in enumerate(attended.block_gradients(block, targets, self.score == "mean")):
                total[:, t] += gradient.relu_().mean((1, 2))
        return attended.to_grid(total / (depth - first))


def rollout(matrices: Sequence[Tensor], rows: Tensor, residual: float, discard: float = 0.0, prefix: int = 0) -> Tensor:
    """Attention rollout of some rows, from the last block to the first, without a product of two matrices.

    Args:
        matrices: (N, heads, T, T) of each block, first to last.
        rows: (N, R, T), weights of the tokens that maps begin with; the identity gives the whole product.
        residual: share of the identity in each factor, from 0 to 1.
        discard: share of the attention to the tokens of the frame that is set to 0: the lowest values of each matrix.
        prefix: number of tokens before those of the frame, to which attention is always kept.

    Returns:
        (N, R, T); each row has the sum that it began with.

    >>> uniform = torch.full((1, 1, 2, 2), 0.5)
    >>> rollout([uniform], torch.eye(2)[None], 0.5)
    tensor([[[0.7500, 0.2500],
             [0.2500, 0.7500]]])
    """
    for matrix in reversed(matrices):
        fused = _kept(matrix.mean(1), discard, prefix)
        sums = residual + (1 - residual) * fused.sum(2)
        rows = rows / torch.where(sums == 0, 1.0, sums)[:, None]
        rows = residual * rows + (1 - residual) * (rows @ fused)
    return rows


def relevance(matrices: Sequence[Tensor], gradients: Sequence[Tensor], rows: Tensor) -> Tensor:
    """Rows of R - I, where R <- R + mean_heads(ReLU(dy/dA * A)) R over the blocks, from R = I.

    Args:
        matrices: attention A (N, heads, T, T) of each block, first to last.
        gradients: dy/dA of each, likewise.
        rows: (N, R, T), weights of the tokens whose rows are summed.

    Returns:
        (N, R, T), >= 0.
    """
    total = torch.zeros_like(rows)
    for matrix, gradient in zip(reversed(matrices), reversed(gradients), strict=True):
        # without the identity, beside which small gradients would be rounded away
        total = total + (rows + total) @ (gradient * matrix).relu_().mean(1)
    return total


def _fused(matrix: Tensor, heads: str) -> Tensor:
    """Attention (N, T, T) of (N, heads, T, T)."""
    if heads == "mean":
        return matrix.mean(1)
    return matrix.amax(1) if heads == "max" else matrix.amin(1)


def _kept(matrix: Tensor, discard: float, prefix: int) -> Tensor:
    """A matrix (N, T, T) with the lowest values right of the prefix set to 0; equal ones together."""
    left, right = matrix[:, :, :prefix], matrix[:, :, prefix:]
    if count := int(discard * right[0].numel()):
        limit = right.flatten(1).kthvalue(count, 1).values[:, None, None]
        return torch.cat([left, right.where(right > limit, 0)], 2)
    return matrix


def _check_number(value: str, name: str, word: str) -> None:
    if value != word and not re.fullmatch(r"[1-9]\d{0,3}", value):
        raise OptionError(f"--{name} {value}: use '{word}' or a number from 1")
