"""What methods ask for, answered in the most obvious way: autograd over a network as it is, one target at a time."""

from collections.abc import Callable, Hashable, Iterable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

MEAN, STD = 0.4, 0.25


class LinearNetwork(nn.Module):
    """Logits y = W x + b of the pixels."""

    def __init__(self, size: int, classes: int = 4) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.size, self.fc = size, nn.Linear(3 * size * size, classes)
        self.double().eval().requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x.flatten(1))

    def rows(self, classes: Tensor) -> Tensor:
        """W for explained classes (N, T), as (N, T, 3, S, S)."""
        return self.fc.weight[classes].unflatten(2, (3, self.size, self.size))


class Convolutions(nn.Module):
    """Two convolutions with biases, activations as modules that are used once, pooling and a linear layer."""

    def __init__(self, activation: Callable[[], nn.Module] = nn.ReLU) -> None:
        super().__init__()
        torch.manual_seed(1)
        first, second = nn.Conv2d(3, 5, 3, padding=1), nn.Conv2d(5, 6, 3, stride=2)
        self.layers = nn.Sequential(first, activation(), second, activation(), nn.AdaptiveAvgPool2d(2))
        self.fc = nn.Linear(24, 4)
        self.double().eval().requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        # captum's LRP has no rule for nn.Flatten
        return self.fc(self.layers(x).flatten(1))


class FakeAnswers:
    """The part of `Answers` that reads pixels, in float64; `classes` are explained for every frame."""

    def __init__(
        self,
        network: nn.Module,
        frames: np.ndarray,
        classes: Sequence[int] = (0, 2),
        keys: Sequence[str] | None = None,
        background: np.ndarray | None = None,
    ) -> None:
        self.network, self.frames, self.classes = network, frames, classes
        self.keys = tuple(keys or (f"image {i}" for i in range(len(frames))))
        self.others = background
        self.passes = 0
        self.memory: dict[Hashable, object] = {}

    @property
    def size(self) -> int:
        return self.frames.shape[1]

    def once(self, key: Hashable, compute: Callable[[], object]) -> object:
        if key not in self.memory:
            self.memory[key] = compute()
        return self.memory[key]

    def color(self, value: float) -> Tensor:
        return torch.full((1, 3, 1, 1), (value - MEAN) / STD, dtype=torch.float64)

    def pixels(self) -> Tensor:
        return _normalized(self.frames)

    def background(self) -> Tensor:
        assert self.others is not None
        return _normalized(self.others)

    def random(self, *purpose: str | int) -> list[np.random.Generator]:
        return [np.random.default_rng(list("/".join(map(str, (*purpose, key))).encode())) for key in self.keys]

    def targets(self) -> Tensor:
        return torch.tensor(self.classes).expand(len(self.frames), -1)

    def forward(self, pixels: Tensor) -> Tensor:
        assert len(pixels) == len(self.frames)
        return self.network(pixels)

    def forward_once(self, key: Hashable, pixels: Callable[[], Tensor]) -> Tensor:
        return self.forward(pixels())

    def scores(self, logits: Tensor | None = None) -> Tensor:
        return (self.forward(self.pixels()) if logits is None else logits).gather(1, self.targets())

    def gradients_at(self, pixels: Tensor) -> Tensor:
        """(T, N, 3, S, S)."""
        self.passes += 1
        leaf = pixels.double().requires_grad_()
        with torch.enable_grad():
            scores = self.scores(self.forward(leaf)).sum(0)
            return torch.stack([torch.autograd.grad(score, leaf, retain_graph=True)[0] for score in scores])

    def pixel_gradients(self) -> tuple[Tensor, ...]:
        return tuple(self.gradients_at(self.pixels()))

    def moments(
        self, key: Hashable, points: Callable[[], Iterable[tuple[Tensor | float, Tensor]]], square: bool = False
    ) -> tuple[Tensor, ...]:
        def compute() -> tuple[Tensor, ...]:
            terms = [(weight, self.gradients_at(frames)) for weight, frames in points()]
            first = sum(weight * gradient for weight, gradient in terms)
            return (first, sum(weight * gradient**2 for weight, gradient in terms)) if square else (first,)

        return self.once(("moments", key), compute)

    def bias_gradients(self, visit: Callable[[int, Tensor, Tensor], None]) -> tuple[Tensor, Tensor]:
        self.passes += 1
        outputs: list[tuple[Tensor, Tensor]] = []

        def note(layer: nn.Module, _: object, output: Tensor) -> None:
            outputs.append((layer.bias[(...,) + (None,) * (output.ndim - 2)], output))

        layers = [module for module in self.network.modules() if getattr(module, "bias", None) is not None]
        hooks = [layer.register_forward_hook(note) for layer in layers]
        leaf = self.pixels().requires_grad_()
        with torch.enable_grad():
            scores = self.scores(self.forward(leaf)).sum(0)
            for hook in hooks:
                hook.remove()
            gradients = []
            for t, score in enumerate(scores):
                ofs = [output for _, output in outputs]
                *of_outputs, of_pixels = torch.autograd.grad(score, [*ofs, leaf], retain_graph=True)
                for (bias, _), gradient in zip(outputs, of_outputs, strict=True):
                    visit(t, bias, gradient)
                gradients.append(of_pixels)
        return self.scores(), torch.stack(gradients)

    def module(self) -> nn.Module:
        return self.network


def random_frames(count: int, size: int = 9, seed: int = 0) -> np.ndarray:
    """Frames (count, size, size, 3) uint8 of noise."""
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def _normalized(frames: np.ndarray) -> Tensor:
    return (torch.from_numpy(frames).permute(0, 3, 1, 2).double() / 255 - MEAN) / STD
