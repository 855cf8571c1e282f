"""A stand-in for the engine: answers the methods by plain autograd, and two tiny networks to ask about."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from saliency_pipeline.models.probe import replaced_output


class Pooled(nn.Module):
    """Two convolutions, average pooling and a linear layer; not `linear`: with a tanh before the pooling.

    Its layers are `first` and `last`; frames of 16 x 16 pixels have grids of 8 x 8 and 4 x 4 cells.
    """

    def __init__(self, linear: bool, classes: int = 7, channels: int = 6) -> None:
        super().__init__()
        self.conv1, self.first = nn.Conv2d(3, 5, 3, 2, 1), nn.ReLU()
        self.conv2, self.last = nn.Conv2d(5, channels, 3, 2, 1), nn.ReLU()
        self.bend = nn.Identity() if linear else nn.Sequential(nn.Conv2d(channels, channels, 1), nn.Tanh())
        self.fc = nn.Linear(channels, classes)
        generator = torch.Generator().manual_seed(3)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.5
        self.double().eval().requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.last(self.conv2(self.first(self.conv1(x))))
        return self.fc(self.bend(x).mean((2, 3)))


class LinearNetwork(nn.Module):
    """Average pooling of the pixels, one layer `grid` that returns them, and a linear layer."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.grid = nn.Identity()
        self.fc = nn.Linear(*weight.shape[::-1])
        self.fc.weight.data, self.fc.bias.data = weight, bias
        self.eval().requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.grid(x).mean((2, 3)))


class FakeAnswers:
    """What `Answers` answers about activations, gradients and the head.

    Args:
        network: (N, C, S, S) to logits (N, K), frozen.
        pixels: (N, C, S, S).
        layers: names of the explained layers.
        targets: (N, T); the predicted classes without them.
        linear: whether the last layer has the linear head `network.fc`; otherwise there are no rows.
    """

    def __init__(
        self,
        network: nn.Module,
        pixels: Tensor,
        layers: tuple[str, ...] = ("last",),
        targets: Tensor | None = None,
        linear: bool = False,
    ) -> None:
        self.network, self.layers, self.linear = network, layers, linear
        self._pixels = pixels
        self._targets = self.logits().argmax(1, keepdim=True) if targets is None else targets

    def pixels(self) -> Tensor:
        return self._pixels

    def logits(self) -> Tensor:
        return self.network(self._pixels)

    def targets(self) -> Tensor:
        return self._targets

    def scores(self, logits: Tensor | None = None) -> Tensor:
        return (self.logits() if logits is None else logits).gather(1, self._targets)

    recorded = False

    def once(self, key: object, compute: Callable[[], Tensor]) -> Tensor:
        return compute()

    def pooled(self, layer: str | None = None) -> Tensor:
        return self.activations(layer).mean((2, 3))

    def activations(self, layer: str | None = None) -> Tensor:
        seen: list[Tensor] = []
        with replaced_output(self._module(layer), seen.append):
            self.logits()
        return seen[0]

    def rows(self, layer: str | None = None, classes: Tensor | None = None) -> Tensor | None:
        if not self.linear or self._name(layer) != self.layers[-1]:
            return None
        return self.network.fc.weight[self._targets if classes is None else classes]

    def gradients(self, layer: str | None = None, contrast: Tensor | None = None) -> tuple[Tensor, ...]:
        activations = self.activations(layer).detach().requires_grad_()
        with torch.enable_grad():
            logits = self.head(activations, layer)
            scores = self.scores(logits) if contrast is None else (contrast * logits[:, None]).sum(2)
            sums = scores.sum(0).unbind()
        return tuple(torch.autograd.grad(score, activations, retain_graph=True)[0] for score in sums)

    def head(self, activations: Tensor, layer: str | None = None) -> Tensor:
        with replaced_output(self._module(layer), lambda _: activations):
            return self.logits()

    def pixel_gradients(self) -> tuple[Tensor, ...]:
        pixels = self._pixels.clone().requires_grad_()
        with torch.enable_grad():
            sums = self.scores(self.network(pixels)).sum(0).unbind()
        return tuple(torch.autograd.grad(score, pixels, retain_graph=True)[0] for score in sums)

    def _name(self, layer: str | None) -> str:
        return self.layers[-1] if layer is None else layer

    def _module(self, layer: str | None) -> nn.Module:
        return self.network.get_submodule(self._name(layer))
