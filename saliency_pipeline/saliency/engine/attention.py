"""Attention matrices of a vision transformer: matched in its exported graph, exposed there, and their gradients.

Fused attention computes softmax(q k^T scale) v without showing the softmax. In the flat graph it is replaced once by
the operators that it stands for; attention that is written out already is left as it is. No hook and no code of the
network is involved, so that it does not matter which library the network is from.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from saliency_pipeline.models.probe import probe_frames
from saliency_pipeline.saliency.engine.flat_graph import device_of, shapes_of
from saliency_pipeline.saliency.engine.split import cut
from saliency_pipeline.saliency.targets import summed_scores

aten = torch.ops.aten

_FUSED = aten.scaled_dot_product_attention.default
_SOFTMAX = (aten.softmax.int, aten._softmax.default, aten._safe_softmax.default)
_PRODUCTS = (aten.matmul.default, aten.bmm.default)
# operators between softmax and product that change no value
_UNCHANGED = (
    *(aten.dropout.default, aten.clone.default, aten.alias.default, aten.contiguous.default, aten.expand.default),
    *(aten.reshape.default, aten.view.default, aten.to.dtype, aten.type_as.default),
)
_SUMS = (aten.add.Tensor, aten.addcmul.default)
MOST_PREFIX_TOKENS = 8


class NoAttentionError(Exception):
    """A network has no attention from tokens of the frame to one another; the text says what it has instead."""


@dataclass(frozen=True)
class AttentionGraph:
    """A vision transformer whose L attention matrices are results of its graph.

    Attributes:
        plain: normalized frames (N, 3, S, S) to (each explained layer's output, logits), with fused attention.
        exposed: frames to (the results of `plain`, A_1 to A_L (N, heads, T, T), Z_1 to Z_L (N, T, C)); A_l is attention
            after its softmax, rows are queries, and Z_l the output of its block. There may be no Z.
        classifier: Z_L to (logits,); None where there is no Z.
        depth: L, the number of blocks.
        grid: (h, w) of the tokens that are part of the frame.
        prefix: number of tokens before them, T - h w: class, distillation and register tokens.
        read: (T,) float32, sum 1: equal weights of the tokens that the classifier reads.
    """

    plain: fx.GraphModule
    exposed: fx.GraphModule
    classifier: fx.GraphModule | None
    depth: int
    grid: tuple[int, int]
    prefix: int
    read: Tensor

    def attend(self, frames: Tensor) -> Attended:
        """One forward pass; of frames that require gradients, while autograd records, one to be differentiated."""
        results = self.exposed(frames)
        blocks = self.depth if self.classifier else 0
        matrices = results[len(results) - self.depth - blocks : len(results) - blocks]
        return Attended(self, results[: len(results) - self.depth - blocks], matrices, results[len(results) - blocks :])


class Attended:
    """What one forward pass through an `AttentionGraph` of N frames gave.

    Attributes:
        results: each explained layer's output, and the logits (N, K).
    """

    def __init__(
        self, graph: AttentionGraph, results: Sequence[Tensor], matrices: Sequence[Tensor], blocks: Sequence[Tensor]
    ) -> None:
        self.graph, self.results = graph, tuple(results)
        self._recorded, self._blocks = tuple(matrices), tuple(blocks)

    @property
    def matrices(self) -> tuple[Tensor, ...]:
        """Attention (N, heads, T, T) of each block, first to last; rows are queries and sum to 1."""
        return tuple(matrix.detach() for matrix in self._recorded)

    @property
    def read(self) -> Tensor:
        """Weights (N, 1, T) of the tokens that the classifier reads."""
        read = self.graph.read.to(self._recorded[0].device)
        return read.expand(len(self._recorded[0]), 1, -1)

    def to_grid(self, tokens: Tensor) -> Tensor:
        """Numbers per token (N, R, T) as maps (N, R, h, w), without those of prefix tokens."""
        return tokens[..., self.graph.prefix :].reshape(*tokens.shape[:-1], *self.graph.grid)

    def gradients(self, targets: Tensor) -> Iterator[tuple[Tensor, ...]]:
        """Gradients (N, heads, T, T) of a logit with respect to each matrix, first to last, class after class.

        Those of one class need as much memory as the matrices; they should be dropped before the next is asked for.

        Args:
            targets: (N, T) explained classes.
        """
        for scores in summed_scores(self.results[-1], targets):
            yield torch.autograd.grad(scores, self._recorded, retain_graph=True)

    def block_gradients(self, block: int, targets: Tensor, averaged: bool) -> Iterator[Tensor]:
        """Gradients (N, heads, T, T) of a score at a block with respect to its matrix, class after class.

        The score is a logit of the network's classifier, its last normalization included, applied to the output of the
        block instead of that of the last one.

        Args:
            block: index of the block, from 0; the passes end there, so that all blocks together cost little more than
                one pass through the network.
            targets: (N, T) explained classes.
            averaged: replace every token by the mean of all before the classifier, whichever it reads.
        """
        assert self.graph.classifier is not None
        with torch.enable_grad():
            tokens = self._blocks[block]
            if averaged:
                tokens = tokens.mean(1, keepdim=True).expand_as(tokens)
            (logits,) = self.graph.classifier(tokens)
        for scores in summed_scores(logits, targets):
            yield torch.autograd.grad(scores, self._recorded[block], retain_graph=True)[0]


def attention_graph(whole: fx.GraphModule, grid: tuple[int, int], size: int, batch: int) -> AttentionGraph:
    """Expose the attention of an exported network; the weights are shared with it.

    Args:
        whole: normalized frames (N, 3, S, S) to (each explained layer's output, logits).
        grid: (h, w) of the tokens.
        size: S.
        batch: N, the batch size the graph was made for.

    Raises:
        NoAttentionError: it is no transformer whose tokens, on that grid, all attend to one another in every block.
    """
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    results: Any = graph.graph_copy(whole.graph, copies)
    graph.output(results)
    shapes = shapes_of(whole, batch, size)
    shapes = {copies[node]: shape for node, shape in shapes.items() if node in copies}
    matrices = [matrix for node in list(graph.nodes) if (matrix := _matrix(node, shapes, batch)) is not None]
    tokens = _tokens([shapes[matrix] for matrix in matrices], batch)
    prefix = tokens - grid[0] * grid[1]
    if not 0 <= prefix <= MOST_PREFIX_TOKENS:
        raise NoAttentionError(
            f"attends among {tokens} tokens, which are not the {grid[0]} x {grid[1]} cells of a layer"
        )
    blocks = _block_outputs(graph, matrices, shapes, (batch, tokens))
    last = list(graph.nodes)[-1]
    last.args = ((*results, *matrices, *blocks),)
    exposed = fx.GraphModule(whole, graph).eval()
    graph.lint()
    classifier = _classifier(whole, graph, blocks[-1], results[-1]) if blocks else None
    read = _read_tokens(exposed, len(results) - 1, len(matrices), size, batch)
    return AttentionGraph(whole, exposed, classifier, len(matrices), grid, prefix, read)


def _matrix(node: fx.Node, shapes: dict[fx.Node, tuple[int, ...]], batch: int) -> fx.Node | None:
    """The node of an attention matrix (N, heads, queries, keys), if `node` computes one, or None; enters its shape."""
    if node.target is _FUSED:
        return _written_out(node, shapes)
    if node.target not in _SOFTMAX or len(shapes[node]) < 3:
        return None
    dimension: Any = node.args[1]
    if dimension not in (-1, len(shapes[node]) - 1) or not _is_multiplied(node):
        raise NoAttentionError("has a softmax of another form than softmax(q k^T) v")
    if len(shapes[node]) == 4:
        return node
    if len(shapes[node]) != 3 or shapes[node][0] % batch:
        raise NoAttentionError("has a softmax of another form than softmax(q k^T) v")
    # torch.nn.MultiheadAttention has frames and heads in one dimension, frames first
    count, queries, keys = shapes[node]
    shape = [batch, count // batch, queries, keys]
    with node.graph.inserting_after(node):
        matrix = node.graph.call_function(aten.reshape.default, (node, shape))
    with node.graph.inserting_after(matrix):
        flat = node.graph.call_function(aten.reshape.default, (matrix, [count, queries, keys]))
    node.replace_all_uses_with(flat, delete_user_cb=lambda user: user is not matrix)
    shapes[matrix], shapes[flat] = tuple(shape), shapes[node]
    return matrix


def _is_multiplied(node: fx.Node) -> bool:
    """Return whether the result of a softmax is used as the left factor of a matrix product, and for nothing else."""
    while len(node.users) == 1:
        (user,) = node.users
        if user.args[0] is not node:
            return False
        if user.target in _PRODUCTS:
            return True
        if user.target not in _UNCHANGED:
            return False
        node = user
    return False


def _written_out(node: fx.Node, shapes: dict[fx.Node, tuple[int, ...]]) -> fx.Node:
    """Replace fused attention by softmax(q scale k^T + mask) v; the node of the softmax."""
    schema: dict[str, Any] = {argument.name: argument.default_value for argument in _FUSED._schema.arguments}
    schema |= dict(zip(schema, node.args, strict=False)) | dict(node.kwargs)
    query, key, value, mask, scale = (schema[name] for name in ("query", "key", "value", "attn_mask", "scale"))
    if schema["is_causal"] or schema["enable_gqa"] or schema["dropout_p"] or len(shapes[query]) != 4:
        raise NoAttentionError("has attention with a causal mask, dropout or shared keys")
    graph = node.graph
    with graph.inserting_before(node):
        scaled = graph.call_function(aten.mul.Tensor, (query, scale or 1 / math.sqrt(shapes[query][-1])))
        transposed = graph.call_function(aten.transpose.int, (key, -2, -1))
        scores = graph.call_function(aten.matmul.default, (scaled, transposed))
        if mask is not None:
            scores = graph.call_function(aten.add.Tensor, (scores, mask))
        matrix = graph.call_function(aten.softmax.int, (scores, -1))
        product = graph.call_function(aten.matmul.default, (matrix, value))
    shapes[matrix], shapes[product] = (*shapes[query][:3], shapes[key][2]), shapes[node]
    node.replace_all_uses_with(product)
    graph.erase_node(node)
    return matrix


def _tokens(shapes: Sequence[tuple[int, ...]], batch: int) -> int:
    """The number T of tokens that attend to one another in every block.

    Raises:
        NoAttentionError: there are none, or others in another block.
    """
    if not shapes:
        raise NoAttentionError("has no attention")
    if any(shape[0] != batch for shape in shapes):
        raise NoAttentionError("attends within windows")
    if any(queries != keys for _, _, queries, keys in shapes):
        raise NoAttentionError("pools tokens by attention")
    counts = {shape[-1] for shape in shapes}
    if len(counts) > 1:
        raise NoAttentionError("has blocks with different numbers of tokens")
    return counts.pop()


def _block_outputs(
    graph: fx.Graph, matrices: Sequence[fx.Node], shapes: dict[fx.Node, tuple[int, ...]], start: tuple[int, int]
) -> list[fx.Node]:
    """The output (N, T, C) of the block of each attention: the last sum before the next attention that all passes.

    Blocks end with a residual sum, and whatever the frame contributes to the logits passes through it: no node before
    is read by a node behind. None at all where a block has no such node.
    """
    order = {node: position for position, node in enumerate(graph.nodes)}
    dependent: set[fx.Node] = set()
    for node in graph.nodes:
        if node.op == "placeholder" or any(source in dependent for source in node.all_input_nodes):
            dependent.add(node)
    logits = list(graph.nodes)[-1].args[0][-1]
    needed = {logits}
    for node in reversed(graph.nodes):
        if node in needed:
            needed.update(source for source in node.all_input_nodes if source in dependent)
    sums, reach = [], 0
    for node in graph.nodes:
        if node not in needed:
            continue
        joins = node.target in _SUMS and sum(source in dependent for source in node.all_input_nodes) > 1
        if joins and reach <= order[node] and len(shapes[node]) == 3 and shapes[node][:2] == start:
            sums.append(node)
        reach = max(reach, *(order[user] for user in node.users if user in needed), order[node])
    ends = [*(order[matrix] for matrix in matrices[1:]), len(order)]
    outputs = []
    for matrix, end in zip(matrices, ends, strict=True):
        own = [node for node in sums if order[matrix] < order[node] < end]
        if not own:
            return []
        outputs.append(own[-1])
    return outputs


def _classifier(whole: fx.GraphModule, graph: fx.Graph, block: fx.Node, logits: fx.Node) -> fx.GraphModule:
    """The part of a graph from the last block's output to the logits."""
    copy = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    copy.graph_copy(graph, copies)
    copy.output((copies[block], copies[logits]))
    return cut(fx.GraphModule(whole, copy))[1]


def _read_tokens(exposed: fx.GraphModule, logits: int, depth: int, size: int, batch: int) -> Tensor:
    """Weights (T,) of the tokens on which the logits depend behind the last attention.

    That is the class token, both tokens of a distilled network, or all of the frame where it averages them.
    """
    generator = torch.Generator().manual_seed(0)
    device = device_of(exposed)
    # a classifier of zeros (torchvision's ViT before training) would hide what it reads
    blank = {
        name: torch.randn(tensor.shape, generator=generator).to(device)
        for name, tensor in (*exposed.named_buffers(), *exposed.named_parameters())
        if tensor.ndim == 2 and not tensor.any()
    }
    frames = probe_frames(size, batch).to(device).requires_grad_()
    with torch.enable_grad():
        results = torch.func.functional_call(exposed, blank, (frames,))
        scores = results[logits]
        weights = torch.randn(scores.shape, generator=generator).to(device)
        (gradient,) = torch.autograd.grad((scores * weights).sum(), results[logits + depth])
    read: Tensor = (gradient.abs().amax((0, 1, 3)) > 0).float()
    return read / read.sum().clamp_min(1)
