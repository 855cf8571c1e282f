"""The two composites of layer-wise relevance propagation against a twin that divides every contribution by loops."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, fx, nn

from saliency_pipeline.saliency.engine.pull_back import Record, pulled_back
from saliency_pipeline.saliency.engine.rules.operators import bounds, is_relu
from saliency_pipeline.saliency.engine.rules.relevance import Relevance, is_first
from saliency_pipeline.saliency.engine.split import split_network

SIZE, TARGET = 6, 1
LOW, HIGH = (-1.0, -1.2, -0.9), (1.1, 1.0, 1.3)
Divide = Callable[[np.ndarray, float], tuple[np.ndarray, float]]


class Small(nn.Module):
    """Convolutions with padding and groups, ReLU6 and SiLU, a residual addition, pooling and two dense layers."""

    def __init__(self, bias: bool) -> None:
        super().__init__()
        torch.manual_seed(8)
        self.a = nn.Conv2d(3, 4, 3, 2, 1, bias=bias)
        self.b = nn.Conv2d(4, 4, 3, 1, 1, groups=2, bias=bias)
        self.one, self.two = nn.Linear(4, 6, bias=bias), nn.Linear(6, 3, bias=bias)
        self.eval().requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.silu(self.a(nn.functional.pad(x, (0, 1, 0, 1))))
        x = nn.functional.relu6(x + self.b(x))
        return self.two(self.one(nn.functional.max_pool2d(x, 2).mean((2, 3))).relu())


def frames() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    low, high = (torch.tensor(color)[:, None, None] for color in (LOW, HIGH))
    return low + (high - low) * torch.rand((1, 3, SIZE, SIZE), generator=generator)


def divided(relevance: np.ndarray, contributions: np.ndarray, biases: np.ndarray, divide: Divide) -> np.ndarray:
    """Relevance (inputs,), of outputs with contributions (outputs, inputs), one output after the other."""
    result = np.zeros(contributions.shape[1])
    for own, row, bias in zip(relevance.ravel(), contributions, biases, strict=True):
        shares, rest = divide(row, float(bias))
        total = shares.sum() + rest
        result += shares * own / (total + (1e-6 if total >= 0 else -1e-6))
    return result


def epsilon(row: np.ndarray, bias: float) -> tuple[np.ndarray, float]:
    return row, bias


def plus(row: np.ndarray, bias: float) -> tuple[np.ndarray, float]:
    return np.maximum(row, 0), max(bias, 0.0)


def gamma(row: np.ndarray, bias: float) -> tuple[np.ndarray, float]:
    chosen = np.maximum if row.sum() + bias >= 0 else np.minimum
    return row + 0.25 * chosen(row, 0), bias + 0.25 * chosen(bias, 0.0)


def matrix(layer: Callable[[Tensor], Tensor], x: Tensor) -> np.ndarray:
    """The weights (outputs, inputs) of a linear map of one image."""
    jacobian = torch.autograd.functional.jacobian(lambda y: layer(y) - layer(torch.zeros_like(y)), x)
    return jacobian.reshape(-1, x.numel()).numpy()


def through(layer: nn.Module, x: Tensor, relevance: np.ndarray, divide: Divide) -> np.ndarray:
    """Relevance of a linear layer's input."""
    biases = layer(torch.zeros_like(x)).detach().flatten().numpy()
    return divided(relevance, matrix(layer, x) * x.flatten().numpy(), biases, divide).reshape(x.shape)


def first(network: Small, x: Tensor, relevance: np.ndarray, composite: str) -> np.ndarray:
    """Relevance of the frame, which the first layer reads with padding."""

    def layer(y: Tensor) -> Tensor:
        return network.a(nn.functional.pad(y, (0, 1, 0, 1)))

    weights, values = matrix(layer, x), x.flatten().numpy()
    if composite == "epsilon-plus-flat":
        contributions = (weights != 0).astype(float)
    else:
        low, high = (np.repeat(color, SIZE * SIZE) for color in (LOW, HIGH))
        contributions = weights * values - np.maximum(weights, 0) * low - np.minimum(weights, 0) * high
        assert contributions.min() > -1e-9
    return divided(relevance, contributions, np.zeros(len(weights)), epsilon).reshape(x.shape)


def twin(network: Small, x: Tensor, composite: str) -> np.ndarray:
    """Relevance (3, S, S) of one frame, layer after layer in float64."""
    convolution = plus if composite == "epsilon-plus-flat" else gamma
    a = nn.functional.silu(network.a(nn.functional.pad(x, (0, 1, 0, 1))))
    b = network.b(a)
    c = nn.functional.relu6(a + b)
    pooled, places = nn.functional.max_pool2d(c, 2, return_indices=True)
    means = pooled.mean((2, 3))
    hidden = network.one(means).relu()
    start = np.zeros((1, 3))
    start[0, TARGET] = 1
    of_means = through(network.one, means, through(network.two, hidden, start, epsilon), epsilon)
    cells = pooled.shape[2] * pooled.shape[3]
    of_pooled = np.zeros(pooled.shape)
    for k in range(4):
        shares = pooled[0, k].numpy() / cells
        of_pooled[0, k] = shares * of_means[0, k] / (shares.sum() + (1e-6 if shares.sum() >= 0 else -1e-6))
    of_sum = np.zeros(c.shape)
    for k in range(4):
        for place, value in zip(places[0, k].flatten().tolist(), of_pooled[0, k].ravel(), strict=True):
            of_sum[0, k].ravel()[place] += value
    terms = np.stack([a.flatten(), b.flatten()], 1)
    pairs = zip(of_sum.ravel(), terms, strict=True)
    parts = np.array([divided(np.array([own]), row[None], np.zeros(1), epsilon) for own, row in pairs])
    of_a = parts[:, 0].reshape(a.shape) + through(network.b, a, parts[:, 1], convolution)
    return first(network, x, of_a, composite)[0]


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("composite", ["epsilon-plus-flat", "epsilon-gamma-box"])
def test_relevance_is_that_of_the_twin(composite: str, bias: bool) -> None:
    network, x = Small(bias), frames()
    graph = split_network(network, (), SIZE, 1).whole
    assert isinstance(graph, fx.GraphModule)
    table = Relevance(composite, LOW, HIGH)
    (got,) = pulled_back(Record(graph, x, table.rule), torch.tensor([[TARGET]])).signals
    want = twin(network.double(), x.double(), composite)
    assert np.abs(got[0].numpy() - want).max() < 1e-4 * np.abs(want).max()
    if not bias:
        assert abs(want.sum() - 1) < 1e-2


def test_the_first_layers_are_those_that_none_precedes() -> None:
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right, self.join = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)

        def forward(self, x: Tensor) -> Tensor:
            y = 2 * x
            return self.join(self.left(y).relu() + self.right(x.flip(3))).mean((2, 3))

    graph = split_network(Branches().eval(), (), SIZE, 1).whole
    assert isinstance(graph, fx.GraphModule)
    layers = [node for node in graph.graph.nodes if node.target is torch.ops.aten.conv2d.default]
    assert [is_first(node) for node in layers] == [True, True, False]


@pytest.mark.parametrize(
    ("function", "expected", "relu"),
    [
        (lambda x: x.relu(), (0, np.inf), True),
        (nn.functional.relu6, (0, 6), True),
        (nn.functional.hardtanh, (-1, 1), False),
        (lambda x: x.clamp(max=1), (-np.inf, 1), False),
        (lambda x: x.clamp(0), (0, np.inf), True),
        (lambda x: x.clamp(min=0, max=3), (0, 3), True),
        (lambda x: x.clamp_min(0.5), (0.5, np.inf), False),
    ],
)
def test_bounds_of_relus(function: Callable[[Tensor], Tensor], expected: tuple[float, float], relu: bool) -> None:
    class One(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return function(x).mean((2, 3))

    graph = split_network(One(), (), SIZE, 1).whole
    assert isinstance(graph, fx.GraphModule)
    node = next(node for node in graph.graph.nodes if node.op == "call_function")
    assert (bounds(node), is_relu(node)) == (expected, relu)
