"""Attention exposed in the exported graph: the same logits, and the matrices, gradients and blocks of the network."""

import pytest
import timm
import torch
from torch import Tensor, nn

from saliency_pipeline.models.probe import probe_frames, replaced_output
from saliency_pipeline.saliency.engine.attention import NoAttentionError, attention_graph
from saliency_pipeline.saliency.engine.layers import choose_layer
from saliency_pipeline.saliency.engine.split import split_network
from saliency_pipeline.saliency.engine.stored_graph import from_bytes, to_bytes
from tests.saliency.networks import BATCH, Tiny
from tests.saliency.transformers import (
    BUILDERS,
    CLASSES,
    DEPTH,
    GRIDS,
    HEADS,
    PREFIXES,
    SIZE,
    Masked,
    graph_of,
    initialized,
    layer_of,
    split_of,
    transformer,
)

FRAMES = probe_frames(SIZE, BATCH)
TARGETS = torch.tensor([[1, 3], [0, 2]])


def without_fusion(kind: str) -> nn.Module:
    """A network of timm whose attention is written out."""
    network = initialized(BUILDERS[kind]())
    for module in network.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = False
    return network


def captured(network: nn.Module) -> tuple[list[Tensor], Tensor]:
    """The attention that passes the dropouts of a network of timm, and its logits; both may be differentiated."""
    matrices: list[Tensor] = []
    for block in network.blocks:
        block.attn.attn_drop.register_forward_hook(lambda _module, _inputs, output: matrices.append(output))
    with torch.enable_grad():
        logits = network(FRAMES.clone().requires_grad_())
    return matrices, logits


@pytest.mark.parametrize("kind", BUILDERS)
def test_logits_are_those_of_the_network(kind: str) -> None:
    graph, expected = graph_of(kind), transformer(kind)(FRAMES)
    attended = graph.attend(FRAMES)
    assert torch.allclose(attended.results[-1], expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))
    assert attended.results[0].shape == split_of(kind).whole(FRAMES)[0].shape


@pytest.mark.parametrize("kind", BUILDERS)
def test_matrices_are_attention_after_its_softmax(kind: str) -> None:
    graph, prefix = graph_of(kind), PREFIXES.get(kind, 1)
    depth, grid = 1 if kind == "masked" else DEPTH, GRIDS.get(kind, (3, 3))
    assert (graph.depth, graph.prefix, graph.grid) == (depth, prefix, grid)
    matrices = graph.attend(FRAMES).matrices
    for matrix in matrices:
        assert matrix.shape == (BATCH, HEADS, *[grid[0] * grid[1] + prefix] * 2)
        assert torch.allclose(matrix.sum(3), torch.ones(()), atol=1e-5)
        assert matrix.std() > 0.01, "the network's attention should not be uniform"
    assert len(matrices) == depth


@pytest.mark.parametrize(
    ("kind", "tokens"),
    [
        ("vit", [0]),
        ("distilled", [0, 1]),
        ("registers", [0]),
        ("averaged", range(9)),
        ("rotary", range(1, 10)),
        ("torchvision", [0]),
    ],
)
def test_the_tokens_that_the_classifier_reads(kind: str, tokens: list[int]) -> None:
    read = graph_of(kind).read
    assert read.nonzero().flatten().tolist() == list(tokens)
    assert torch.allclose(read[list(tokens)], torch.tensor(1 / len(tokens)))


def test_a_classifier_of_zeros_reads_the_same_tokens() -> None:
    network = initialized(BUILDERS["torchvision"]())
    nn.init.zeros_(network.heads.head.weight)
    split = split_network(network, [layer_of("torchvision")], SIZE, BATCH)
    assert attention_graph(split.whole, (3, 3), SIZE, BATCH).read.tolist() == graph_of("torchvision").read.tolist()


@pytest.mark.parametrize("kind", ["vit", "distilled", "registers"])
def test_matrices_and_gradients_are_those_of_attention_that_is_written_out(kind: str) -> None:
    wanted, logits = captured(without_fusion(kind))
    frames = FRAMES.clone().requires_grad_()
    with torch.enable_grad():
        attended = graph_of(kind).attend(frames)
    for got, want in zip(attended.matrices, wanted, strict=True):
        assert torch.allclose(got, want, atol=1e-5)
    for t, gradients in enumerate(attended.gradients(TARGETS)):
        score = logits.gather(1, TARGETS[:, t : t + 1]).sum()
        references = torch.autograd.grad(score, wanted, retain_graph=True)
        for got, want in zip(gradients, references, strict=True):
            assert torch.allclose(got, want, atol=1e-4 * float(want.abs().max()))


def test_fused_or_not_is_one_result() -> None:
    split = split_network(without_fusion("vit"), [layer_of("vit")], SIZE, BATCH)
    operators = {node.target for node in split.whole.graph.nodes}
    assert torch.ops.aten.scaled_dot_product_attention.default not in operators
    plain = attention_graph(split.whole, (3, 3), SIZE, BATCH).attend(FRAMES)
    fused = graph_of("vit").attend(FRAMES)
    for one, other in zip((*plain.matrices, plain.results[-1]), (*fused.matrices, fused.results[-1]), strict=True):
        assert torch.allclose(one, other, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "block"),
    [
        *((kind, "blocks.{}") for kind in ("vit", "distilled", "registers", "averaged", "rotary", "oblong")),
        ("torchvision", "encoder.layers.encoder_layer_{}"),
    ],
)
def test_outputs_of_blocks_are_those_of_the_modules(kind: str, block: str) -> None:
    network, wanted = transformer(kind), []
    for index in range(DEPTH):
        with replaced_output(network.get_submodule(block.format(index)), wanted.append):
            network(FRAMES)
    graph = graph_of(kind)
    outputs = graph.exposed(FRAMES)[-DEPTH:]
    for got, want in zip(outputs, wanted, strict=True):
        assert torch.allclose(got, want, atol=1e-4 * float(want.abs().max()))
    assert graph.classifier is not None
    assert torch.allclose(graph.classifier(wanted[-1])[0], network(FRAMES), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("averaged", [True, False])
def test_gradients_of_scores_at_blocks(averaged: bool) -> None:
    """Against torchvision's own modules: the encoder's norm and the head, applied to the tokens of each block."""
    network, frames = transformer("torchvision"), FRAMES.clone().requires_grad_()
    with torch.enable_grad():
        attended = graph_of("torchvision").attend(frames)
        tokens = network.encoder.dropout(
            torch.cat([network.class_token.expand(BATCH, -1, -1), network._process_input(frames)], 1)
            + network.encoder.pos_embedding
        )
        for index, block in enumerate(network.encoder.layers):
            normed = block.ln_1(tokens)
            joined, matrix = _attention(block.self_attention, normed)
            tokens = tokens + joined
            tokens = tokens + block.mlp(block.ln_2(tokens))
            read = tokens.mean(1) if averaged else tokens[:, 0]
            logits = network.heads(network.encoder.ln(read))
            for t, gradient in enumerate(attended.block_gradients(index, TARGETS, averaged)):
                score = logits.gather(1, TARGETS[:, t : t + 1]).sum()
                (want,) = torch.autograd.grad(score, matrix, retain_graph=True)
                assert torch.allclose(gradient, want, atol=1e-4 * float(want.abs().max()))


def _attention(module: nn.MultiheadAttention, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Output and attention (N, heads, T, T) of torch.nn.MultiheadAttention, step by step."""
    parts = nn.functional.linear(tokens, module.in_proj_weight, module.in_proj_bias).chunk(3, 2)
    query, key, value = (part.unflatten(2, (HEADS, -1)).transpose(1, 2) for part in parts)
    matrix = (query @ key.transpose(2, 3) / query.shape[-1] ** 0.5).softmax(3)
    return module.out_proj((matrix @ value).transpose(1, 2).flatten(2)), matrix


def test_weights_are_shared_and_a_stored_graph_gives_the_same() -> None:
    graph = graph_of("vit")
    plain = {buffer.data_ptr() for buffer in graph.plain.buffers()}
    assert {buffer.data_ptr() for buffer in graph.exposed.buffers()} <= plain
    stored, _ = from_bytes(to_bytes(graph.plain, {}))
    assert stored is not None
    again = attention_graph(stored, (3, 3), SIZE, BATCH).attend(FRAMES)
    for one, other in zip(again.matrices, graph.attend(FRAMES).matrices, strict=True):
        assert torch.equal(one, other)


def refusal(network: nn.Module, size: int = SIZE, grid: tuple[int, int] | None = None) -> str:
    """The reason why the attention of a network cannot be exposed."""
    layer = choose_layer(network, size)
    split = split_network(network, [layer], size, BATCH)
    with pytest.raises(NoAttentionError) as raised:
        attention_graph(split.whole, grid or layer.grid, size, BATCH)
    return str(raised.value)


def test_networks_without_attention_among_all_tokens() -> None:
    small = {"embed_dim": 16, "num_classes": CLASSES}
    swin = timm.create_model("swin_tiny_patch4_window7_224", depths=(1, 1), num_heads=(1, 2), img_size=112, **small)
    assert refusal(initialized(swin), 112) == "attends within windows"
    cait = timm.create_model("cait_xxs24_224", img_size=SIZE, depth=1, num_heads=2, **small)
    assert refusal(initialized(cait)) == "has a softmax of another form than softmax(q k^T) v"
    pooling = {"class_token": False, "global_pool": "map"}
    pooled = timm.create_model("vit_tiny_patch16_224", img_size=SIZE, depth=1, num_heads=2, **pooling, **small)
    assert refusal(initialized(pooled)) == "pools tokens by attention"
    assert refusal(initialized(Masked(causal=True))) == "has attention with a causal mask, dropout or shared keys"
    assert refusal(Tiny(), 16) == "has no attention"
    wrong = refusal(transformer("vit"), grid=(6, 6))
    assert wrong == "attends among 10 tokens, which are not the 6 x 6 cells of a layer"


def test_rows_of_a_grid_that_is_not_square() -> None:
    attended = graph_of("oblong").attend(FRAMES)
    tokens = attended.matrices[0].mean(1)
    maps = attended.to_grid(tokens)
    assert maps.shape == (BATCH, 19, 3, 6)
    assert torch.equal(maps[:, :, 1], tokens[:, :, 7:13])
