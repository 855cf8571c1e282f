"""Split of a network at the first explained layer: a trunk that runs forward only, and a head for autograd.

The network is exported once to a flat graph (`torch.export`), BatchNorm is folded into it, and the graph is cut at the
layer's output. Where the head is average pooling and one linear layer, Grad-CAM needs no backward pass at all: the
gradient at every cell is the class's weight vector divided by h w (Selvaraju et al., arXiv 1610.02391, section 3.1).
That is decided by comparing gradients, never by the head's shape.
"""

from __future__ import annotations

import io
import logging
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, fx, nn

from saliency_pipeline.models.probe import evaluating, probe_frames, replaced_output
from saliency_pipeline.saliency.engine.flat_graph import constant, fold_batchnorm, fold_constants, subgraph
from saliency_pipeline.saliency.engine.functional import make_functional
from saliency_pipeline.saliency.engine.layers import Layer

aten = torch.ops.aten
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LinearHead:
    """Global average pooling and one linear layer: logits = mean_hw(A) weight^T + bias.

    Attributes:
        weight: (classes, C) float32.
        bias: (classes,) float32.
    """

    weight: Tensor
    bias: Tensor


@dataclass(frozen=True)
class SplitNetwork:
    """A network split at the first of its explained layers, every part in eval mode with frozen weights.

    Attributes:
        layers: the explained layers in the order in which they run.
        batch: N, the batch size the graphs were made for.
        whole: normalized frames (N, 3, S, S) to (each layer's output, logits (N, classes)); differentiable.
        trunk: normalized frames to the first layer's output, to be run forward only; None where the network could not
            be exported or the layer is no clean cut, so that only `whole` explains it.
        head: the first layer's output to (each later layer's output, logits); differentiable; None as `trunk`.
        linear: the head of a single layer in closed form where that was proved equal, else None.
        cache_key: determines its content, see `prepared`; empty if nothing derived from it may be cached.
    """

    layers: tuple[Layer, ...]
    batch: int
    whole: nn.Module
    trunk: fx.GraphModule | None = None
    head: fx.GraphModule | None = None
    linear: LinearHead | None = None
    cache_key: tuple[str, ...] = ()


class WithActivations(nn.Module):
    """A network that returns (the outputs of some of its layers, its logits), without folding or cutting."""

    def __init__(self, network: nn.Module, layers: Sequence[str]) -> None:
        super().__init__()
        self.network = network
        self.layers = tuple(layers)

    def forward(self, frames: Tensor) -> tuple[Tensor, ...]:
        """Normalized frames (N, 3, S, S) to (each layer's output, logits (N, classes)); differentiable."""
        seen: dict[str, Tensor] = {}
        thread = threading.get_ident()

        def observe(name: str, output: Tensor) -> Tensor | None:
            # the hook is on the layer for all threads, which would get one another's images
            if threading.get_ident() != thread or name in seen:
                return None
            # cloned twice, because the next layer may work in place on its input
            seen[name] = output.clone()
            return seen[name].clone()

        with ExitStack() as hooks:
            for name in self.layers:
                hooks.enter_context(replaced_output(self.network.get_submodule(name), partial(observe, name)))
            logits = self.network(frames)
        return *(seen[name] for name in self.layers), logits


def split_network(network: nn.Module, layers: Sequence[Layer], size: int, batch: int) -> SplitNetwork:
    """Cut `network` at the first of `layers` for batches of `batch` frames of `size` x `size` pixels.

    Args:
        network: float32, on the CPU: (N, 3, size, size) to (N, classes). It is left unchanged.
        layers: from `choose_layers`, in the order in which they run.
        size: side of the frame.
        batch: N.

    Returns:
        The cut network; one with `whole` alone where it cannot be cut or its export does not reproduce it.
    """
    frames, layers = probe_frames(size, batch), tuple(layers)
    observed = WithActivations(network, [layer.name for layer in layers])
    with evaluating(observed), warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        whole = _exported(observed, frames)
    if whole is None:
        return SplitNetwork(layers, batch, observed)
    if not layers or not layers[0].clean:
        return SplitNetwork(layers, batch, whole)
    trunk, head = cut(whole)
    with torch.no_grad():
        activations = whole(frames)[0]
    linear = linear_head(layers[0], head, activations) if len(layers) == 1 else None
    return SplitNetwork(layers, batch, whole, trunk, head, linear)


def cut(whole: fx.GraphModule) -> tuple[fx.GraphModule, fx.GraphModule]:
    """Trunk and head of a flat graph that returns (each layer's output, logits); they share its weights."""
    nodes = list(whole.graph.nodes)
    start = next(node for node in nodes if node.op == "placeholder")
    output, *rest = nodes[-1].args[0]
    return subgraph(whole, start, output), subgraph(whole, output, tuple(rest))


def heads(split: SplitNetwork) -> dict[str, fx.GraphModule]:
    """For each layer at which the network can be cut, from its output to (…, logits); they share the weights."""
    if not isinstance(split.whole, fx.GraphModule):
        return {}
    *outputs, logits = list(split.whole.graph.nodes)[-1].args[0]
    pairs = zip(split.layers, outputs, strict=True)
    return {layer.name: subgraph(split.whole, output, (logits,)) for layer, output in pairs if layer.clean}


def _exported(observed: WithActivations, frames: Tensor) -> fx.GraphModule | None:
    """The network as a flat graph, None if it cannot be exported or its graph does not reproduce it on `frames`."""
    try:
        with _nothing_printed():
            exported = torch.export.export(observed, (frames,), strict=False)
    except Exception as error:  # export runs the network's own code and raises whatever that raises
        logger.info("%s cannot be exported: %s", type(observed.network).__name__, error)
        return None
    expected = observed(frames)
    for functional in (_functional, _decomposed):
        try:
            graph = _flat(functional(exported))
            if all(close(a, b, 1e-4) for a, b in zip(graph(frames), expected, strict=True)):
                return graph
            reason: object = "its graph does not reproduce it"
        except Exception as error:  # an operator that the rewriting does not support, or PyTorch's own failure
            reason = error
        logger.info("%s, %s: %s", type(observed.network).__name__, functional.__name__, reason)
    return None


@contextmanager
def _nothing_printed() -> Iterator[None]:
    """Within the block PyTorch does not print the graph of a network that it cannot export."""
    disabled = logging.root.manager.disable
    logging.disable(max(disabled, logging.WARNING))
    try:
        with redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(disabled)


def _functional(exported: torch.export.ExportedProgram) -> fx.GraphModule:
    """The graph without in-place operators, by `make_functional`, which does not support all graphs but is fast."""
    module = exported.module()
    assert isinstance(module, fx.GraphModule)
    make_functional(module.graph)
    return module


def _decomposed(exported: torch.export.ExportedProgram) -> fx.GraphModule:
    """The graph without in-place operators, by PyTorch's own decomposition."""
    module = exported.run_decompositions({}).module()
    assert isinstance(module, fx.GraphModule)
    return module


def _flat(module: fx.GraphModule) -> fx.GraphModule:
    """A functional graph with BatchNorm and all that no frame changes folded, without input checks."""
    for node in list(module.graph.nodes):
        if node.target is aten._assert_tensor_metadata.default or (node.op == "call_module" and not node.users):
            module.graph.erase_node(node)
        elif node.target is aten.clone.default and not node.kwargs:
            # Nothing works in place any more, so nothing needs its own copy.
            node.replace_all_uses_with(node.args[0])
            module.graph.erase_node(node)
        elif node.target is aten.view.default:
            # Exported with contiguous frames; in channels_last a view may have to be a copy.
            node.target = aten.reshape.default
    module.graph.set_codegen(fx.graph.CodeGen())
    fold_constants(module)
    fold_batchnorm(module)
    # exported modules cannot be put into eval mode
    return fx.GraphModule(module, module.graph).eval()


def linear_head(layer: Layer, head: fx.GraphModule, seen: Tensor, tolerance: float = 1e-5) -> LinearHead | None:
    """The head as `LinearHead` where it equals one, found by its last linear node and proved by gradients and logits.

    Gradients of several logits at two different activations must equal weight / (h w) at every cell, and the logits
    must come out, to `tolerance` relative to their largest value; ConvNeXt, whose norm stands between pooling and the
    linear layer, has the right shapes and fails this.

    Args:
        layer: the layer the head starts from.
        head: the layer's output to (logits (N, classes),).
        seen: the layer's output for some frames.
        tolerance: largest difference allowed, relative to the largest value.
    """
    linear = last_linear(head)
    if linear is None or linear.weight.shape[1] != layer.channels or not linear.weight.any():
        return None
    cells = layer.grid[0] * layer.grid[1]
    for scale in (1.0, 0.5):
        activations = (seen * scale).detach().requires_grad_()
        with torch.enable_grad():
            (logits,) = head(activations)
        grid = layer.to_grid(activations.detach())
        want = torch.nn.functional.linear(grid.mean((2, 3)), linear.weight, linear.bias)
        if not close(want, logits.detach(), tolerance):
            return None
        for target in _spread(logits.shape[1]):
            (gradient,) = torch.autograd.grad(logits[:, target].sum(), activations, retain_graph=True)
            constant = (linear.weight[target] / cells).view(1, -1, 1, 1)
            if not close(constant.expand_as(grid), layer.to_grid(gradient), tolerance):
                return None
    return linear


def last_linear(head: fx.GraphModule) -> LinearHead | None:
    """The weights of a head's last linear layer, whatever else the head does; None if it has none."""
    for node in reversed(head.graph.nodes):
        if node.target in (aten.linear.default, aten.conv2d.default):
            weight = constant(head, node.args[1]).flatten(1)
            bias = constant(head, node.args[2]) if len(node.args) > 2 and node.args[2] else None
            return LinearHead(weight, weight.new_zeros(len(weight)) if bias is None else bias)
    return None


def _spread(classes: int) -> Sequence[int]:
    return sorted({0, classes // 3, classes // 2, classes - 1})


def close(a: Tensor, b: Tensor, tolerance: float) -> bool:
    """Return whether a equals b to `tolerance` of b's largest value; False if either is not finite."""
    return bool((a - b).abs().max() <= tolerance * b.abs().max())
