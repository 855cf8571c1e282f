"""Networks that other libraries' modified backward passes get wrong, and slow twins of these passes.

The twins run the network as it is, under a mode that replaces its activations, pooling and products by autograd
functions with the backward pass of the method; they share nothing with the engine's graph.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

SIZE = 8
CLASSES = 5
KINDS = (
    "modules", "functions", "reused module", "in place", "relu6", "relu6 function", "clamp", "residual", "pooling",
    "concatenation", "gate",
)  # fmt: skip


class Trap(nn.Module):
    """Three convolutions, with ReLUs and what else there may be between them, mean and linear layer."""

    def __init__(self, kind: str, bias: bool = True) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.kind = kind
        self.a = nn.Conv2d(3, 6, 3, 1, 1, bias=bias)
        self.b = nn.Conv2d(6, 6, 3, 1, 1, bias=bias)
        self.c = nn.Conv2d(12 if kind == "concatenation" else 6, 6, 3, 2, 1, bias=bias)
        self.act, self.other, self.six = nn.ReLU(), nn.ReLU(), nn.ReLU6()
        self.last, self.fc = nn.Identity(), nn.Linear(6, CLASSES, bias=bias)
        for convolution in (self.a, self.b, self.c):
            convolution.weight.data *= 3
        self.eval().requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.last(self.c(self.between(self.a(x))).relu()).mean((2, 3)))

    def between(self, x: Tensor) -> Tensor:
        match self.kind:
            case "modules":
                return self.other(self.b(self.act(x)))
            case "functions":
                return torch.relu(self.b(F.relu(x)))
            case "reused module":
                return self.act(self.b(self.act(x)))
            case "in place":
                return F.relu(self.b(F.relu(x, inplace=True)), inplace=True)
            case "relu6":
                return self.six(self.b(self.six(4 * x)))
            case "relu6 function":
                return F.relu6(self.b(F.relu6(4 * x)))
            case "clamp":
                return self.b(x.clamp(0, 1)).clamp_min(0)
            case "residual":
                return self.act(x + self.b(self.act(x)))
            case "pooling":
                return F.max_pool2d(self.act(x), 3, 2, 1) + F.avg_pool2d(self.b(x), 2)
            case "concatenation":
                first, second = self.act(x).chunk(2, 1)
                return torch.cat([second, self.other(self.b(x)), first], 1)
            case _:
                return self.act(x) * self.b(x.mean((2, 3), keepdim=True).relu()).sigmoid()


class Replaced(TorchFunctionMode):
    """Functions of PyTorch are replaced within the block."""

    def __init__(self, functions: Mapping[Callable[..., Any], Callable[..., Any]]) -> None:
        super().__init__()
        self.functions = functions

    def __torch_function__(
        self, function: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return self.functions.get(function, function)(*args, **(kwargs or {}))


def clips(function: Callable[[Tensor, float, float], Tensor]) -> dict[Callable[..., Any], Callable[..., Any]]:
    """Each way to call a ReLU, replaced by `function(x, low, high)`."""
    infinite = float("inf")

    def relu(x: Tensor, inplace: bool = False) -> Tensor:
        return function(x, 0.0, infinite)

    def relu6(x: Tensor, inplace: bool = False) -> Tensor:
        return function(x, 0.0, 6.0)

    def hardtanh(x: Tensor, min_val: float, max_val: float, inplace: bool = False) -> Tensor:
        return function(x, min_val, max_val)

    ways = dict.fromkeys((F.relu, torch.relu, torch.Tensor.relu), relu)
    ways |= {F.relu6: relu6, F.hardtanh: hardtanh, torch.Tensor.clamp: function}
    return ways | {torch.Tensor.clamp_min: lambda x, low: function(x, low, infinite)}


def guided_twin(network: nn.Module, pixels: Tensor, target: int, deconvnet: bool = False) -> Tensor:
    """The modified gradient (N, 3, S, S) of one logit."""

    class Guided(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor, low: float, high: float) -> Tensor:
            ctx.open = (x > low) & (x < high)
            return x.clamp(low, high)

        @staticmethod
        def backward(ctx: Any, signal: Tensor) -> tuple[Any, ...]:
            positive = torch.where(signal > 0, signal, 0)
            return (positive if deconvnet else torch.where(ctx.open, positive, 0)), None, None

    leaf = pixels.double().requires_grad_()
    with Replaced(clips(Guided.apply)):
        score = copy.deepcopy(network).double()(leaf)[:, target].sum()
    return torch.autograd.grad(score, leaf)[0]


class _Compared(torch.autograd.Function):
    """A function of one number of frames and baselines, which are the second half of the batch."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.save_for_backward(x)
        ctx.function = function
        return function(x)

    @staticmethod
    def backward(ctx: Any, signal: Tensor) -> tuple[Any, ...]:
        (both,) = ctx.saved_tensors
        x, x0 = both.chunk(2)
        y, y0 = ctx.function(both).chunk(2)
        h = 1e-6
        slope = (ctx.function(x + h) - ctx.function(x - h)) / (2 * h)
        quotient = torch.where((x - x0).abs() > 1e-9, (y - y0) / torch.where(x == x0, 1, x - x0), slope)
        return torch.cat([signal.chunk(2)[0] * quotient, torch.zeros_like(x)]), None


class _ComparedMaximum(torch.autograd.Function):
    """Max pooling of frames and baselines, window by window."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: int, stride: int, padding: int) -> Tensor:
        ctx.save_for_backward(x)
        ctx.window = kernel, stride, padding
        return F.max_pool2d(x, kernel, stride, padding)

    @staticmethod
    def backward(ctx: Any, signal: Tensor) -> tuple[Any, ...]:
        (both,) = ctx.saved_tensors
        kernel, stride, padding = ctx.window
        x, x0 = both.chunk(2)
        shares = torch.zeros_like(x)
        for n, c, i, j in torch.cartesian_prod(*(torch.arange(k) for k in signal.chunk(2)[0].shape)).tolist():
            rows = range(max(0, i * stride - padding), min(x.shape[2], i * stride - padding + kernel))
            columns = range(max(0, j * stride - padding), min(x.shape[3], j * stride - padding + kernel))
            cells = [(n, c, row, column) for row in rows for column in columns]
            top, top0 = max(cells, key=lambda cell: x[cell]), max(cells, key=lambda cell: x0[cell])
            change = float(x[top] - x0[top0])
            place = top if change > 0 else top0
            shares[place] += signal[n, c, i, j] * change
        difference = x - x0
        multipliers = torch.where(difference.abs() > 1e-9, shares / torch.where(difference == 0, 1, difference), 0)
        return torch.cat([multipliers, torch.zeros_like(x)]), None, None, None


class _ComparedProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor) -> Tensor:
        ctx.save_for_backward(x, y)
        return x * y

    @staticmethod
    def backward(ctx: Any, signal: Tensor) -> tuple[Any, ...]:
        x, y = ctx.saved_tensors
        half = len(x) // 2
        means = [(values[:half] + values[half:]) / 2 for values in (y, x)]
        parts = [(signal[:half] * mean).sum_to_size(own[:half].shape) for mean, own in zip(means, (x, y), strict=True)]
        return tuple(torch.cat([part, torch.zeros_like(part)]) for part in parts)


def rescale_twin(network: nn.Module, pixels: Tensor, baselines: Tensor, target: int) -> Tensor:
    """Contributions (N, 3, S, S) of the Rescale rule to one logit."""
    ways = clips(lambda x, low, high: _Compared.apply(x, lambda values: values.clamp(low, high)))
    ways[torch.Tensor.sigmoid] = lambda x: _Compared.apply(x, torch.sigmoid)
    ways[F.max_pool2d] = lambda x, kernel, stride, padding, **_: _ComparedMaximum.apply(x, kernel, stride, padding)
    ways[torch.Tensor.mul] = lambda x, y: _ComparedProduct.apply(x, y) if isinstance(y, Tensor) else x * y
    both = torch.cat([pixels, baselines]).double().requires_grad_()
    with Replaced(ways):
        score = copy.deepcopy(network).double()(both)[: len(pixels), target].sum()
    return torch.autograd.grad(score, both)[0][: len(pixels)] * (pixels - baselines)
