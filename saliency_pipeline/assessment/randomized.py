"""Networks with random parameters, from the last layers on: the cascade of parameter randomization tests."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode

from saliency_pipeline.models.probe import evaluating, probe_frames
from saliency_pipeline.saliency.engine.random_numbers import generator

POINTS = 5
"""Networks of a cascade: the last fifth of the layers is random, then two fifths, and so on to all of them."""

_CALIBRATION = 8


def cascade(module: nn.Module, size: int, points: int = POINTS, seed: int = 0) -> Iterator[nn.Module]:
    """Copies of a network whose last layers are random, as in Adebayo et al. 2018, arXiv 1810.03292.

    In copy k all parameters of the last k / points of the layers are random; a layer is a module with parameters of its
    own, and layers are in the order in which a probe frame meets them. Positional embeddings, class tokens, layer
    scales, weights and biases of norms are parameters like others. Each is normal with the mean and the standard
    deviation of its values before, from a generator of the parameter's name and the seed, so that layers of the same
    shape differ. Running statistics of batch norms in these layers are estimated anew, on frames of noise.

    An initialization by `reset_parameters` would leave embeddings and scales as they are and norms without random
    parameters. In PyTorch's default one, with a mean of 0 and a variance of 1 for batch norms, activations of
    EfficientNet-Lite0 vanish: logits of different images differ by 1e-8.

    Args:
        module: from (N, 3, size, size) float32, normalized, to logits; in eval mode; not changed.
        size: side of the frame in pixels.
        points: number of networks.
        seed: random seed.

    Yields:
        Networks in eval mode; the last has no parameter of the original. Equal for equal arguments but for rounding.
    """
    layers = _layers(module, size)
    for point in range(1, points + 1):
        first = len(layers) - -(-len(layers) * point // points)
        network = copy.deepcopy(module)
        names = list(itertools.chain.from_iterable(layers[first:]))
        _randomize(network, names, seed)
        _calibrate(network, names, size)
        yield network


class _Uses(TorchFunctionMode):
    """Lists tensors by their first use as an argument of PyTorch's functions, wherever they are called."""

    def __init__(self, names: Mapping[int, str]) -> None:
        super().__init__()
        self.names, self.order = names, dict[str, int]()

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        for value in (*args, *(kwargs or {}).values()):
            for part in value if isinstance(value, tuple | list) else (value,):
                if id(part) in self.names:
                    self.order.setdefault(self.names[id(part)], len(self.order))
        return function(*args, **(kwargs or {}))


def _layers(module: nn.Module, size: int) -> list[list[str]]:
    """Names of the parameters of each layer, layers by the first use of a parameter.

    Layers that Python does not see running, as in TorchScript, follow in the order of their registration.
    """
    names = {id(value): name for name, value in module.named_parameters() if value.is_floating_point()}
    with evaluating(module), torch.no_grad(), _Uses(names) as uses:
        module(probe_frames(size, 1))
    layers: dict[str, list[str]] = {}
    for name in (*uses.order, *(name for name in names.values() if name not in uses.order)):
        layers.setdefault(name.rpartition(".")[0], []).append(name)
    return list(layers.values())


@torch.no_grad()
def _randomize(network: nn.Module, names: Sequence[str], seed: int) -> None:
    parameters = dict(network.named_parameters())
    for name in names:
        values = parameters[name]
        mean, deviation = float(values.mean()), float(values.std(correction=0))
        if deviation <= 1e-6 * abs(mean):  # all values are equal, as of norms that were never trained
            deviation = abs(mean) / 2 or 0.02
        drawn = generator(name, "cascade", seed).normal(mean, deviation, tuple(values.shape))
        values.copy_(torch.from_numpy(drawn) if values.ndim else torch.tensor(drawn))


@torch.no_grad()
def _calibrate(network: nn.Module, names: Sequence[str], size: int) -> None:
    """Replace running statistics of batch norms with those of noise: the old ones fit the activations no longer."""
    owners = {name.rpartition(".")[0] for name in names}
    norms = [part for name, part in network.named_modules() if name in owners and isinstance(part, _BatchNorm)]
    norms = [norm for norm in norms if norm.running_mean is not None]
    if not norms:
        return
    before = [norm.momentum for norm in norms]
    for norm in norms:
        norm.train()
        norm.momentum = 1.0
    network(probe_frames(size, _CALIBRATION))
    for norm, momentum in zip(norms, before, strict=True):
        norm.eval()
        norm.momentum = momentum
