"""Folded networks: the logits of the original within rounding, after every change of its weights."""

import pytest
import torch
from torch import nn

from saliency_pipeline.models.trained.folded import fold
from saliency_pipeline.models.trained.two_branch import NetworkSpec, build_network

SIZE = 32


def batch(count: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(count, 3, SIZE, SIZE, generator=generator), torch.rand(count, 1, SIZE, SIZE, generator=generator)


def step(network: nn.Module) -> None:
    """A step that changes weights and running statistics."""
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)
    network.train()
    network(*batch(8)).square().mean().backward()
    optimizer.step()
    network.eval()


@pytest.mark.parametrize("backbone", ["test_resnet", "efficientnet_lite0"])
@pytest.mark.parametrize("arch", ["baseline", "modulated", "learned"])
def test_logits_are_those_of_the_network(backbone, arch):
    torch.manual_seed(0)
    network = build_network(NetworkSpec(backbone, ("a", "b", "c"), SIZE, arch)).eval()
    folded = fold(network, *batch())
    assert folded is not None
    assert len(folded.layers) > 5
    before = list(network.state_dict())
    for _ in range(2):
        step(network)
        with torch.inference_mode():
            expected, values = network(*batch()), folded.updated()(*batch())
        torch.testing.assert_close(values, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
        assert torch.equal(values.argmax(1), expected.argmax(1))
    assert before == list(network.state_dict())


class Twice(nn.Module):
    """A network that reads the output of its convolution twice, so that it cannot be folded."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        nn.init.constant_(self.norm.weight, 2.0)

    def forward(self, images: torch.Tensor, maps: torch.Tensor | None = None) -> torch.Tensor:
        features = self.conv(images)
        return (self.norm(features) + features).mean((2, 3))


def test_networks_that_cannot_be_folded_are_left_alone():
    network = Twice()
    assert fold(network, *batch()) is None
    assert network.training
    assert type(network.norm) is nn.BatchNorm2d
