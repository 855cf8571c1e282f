"""The choice of precision: by speed, and only while the gradient is the same."""

import copy
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

from saliency_pipeline.models.trained.initialize import initialize
from saliency_pipeline.models.trained.two_branch import NetworkSpec, build_network
from saliency_pipeline.shards.reader import ShardFolder
from saliency_pipeline.training import precision, setup
from saliency_pipeline.training.config import TrainConfig
from saliency_pipeline.training.precision import Prepared, autocast, choose_precision
from saliency_pipeline.training.setup import set_up
from tests.training.examples import labeled

SPEC = NetworkSpec("test_resnet", ("a", "b", "c"), 64, "modulated")


@pytest.fixture
def network() -> nn.Module:
    built = build_network(SPEC)
    initialize(built, SPEC, "scratch")
    return built.to(memory_format=torch.channels_last)


@pytest.fixture
def batch() -> Prepared:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(6, 3, 64, 64, generator=generator).to(memory_format=torch.channels_last)
    return images, torch.rand(6, 1, 64, 64, generator=generator), torch.arange(6) % 3


def speeds(monkeypatch: pytest.MonkeyPatch, fp32: float, bf16: float) -> None:
    monkeypatch.setattr(precision, "remembered_speeds", lambda *_: {"fp32": fp32, "bf16": bf16})


@pytest.mark.parametrize(("fp32", "bf16", "chosen"), [(1.0, 3.0, "bf16"), (1.0, 1.05, "fp32"), (3.0, 1.0, "fp32")])
def test_the_faster_one_is_taken_where_it_is_worth_it(
    monkeypatch: pytest.MonkeyPatch, network: nn.Module, batch: Prepared, fp32: float, bf16: float, chosen: str
) -> None:
    speeds(monkeypatch, fp32, bf16)
    assert choose_precision(network, SPEC, batch) == chosen


def test_a_gradient_that_points_elsewhere_is_refused(
    monkeypatch: pytest.MonkeyPatch, network: nn.Module, batch: Prepared
) -> None:
    class Coarse(nn.Module):
        """Loses everything to rounding: two large numbers whose difference bf16 cannot hold."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(2, 3, bias=False)
            nn.init.constant_(self.inner.weight, 1.0)

        def forward(self, images: torch.Tensor, maps: torch.Tensor | None) -> torch.Tensor:
            value = images.mean((1, 2, 3))
            return self.inner(torch.stack([1000 + value, -1000 - value * 0.5], 1)) * torch.tensor([1.0, -1.0, 2.0])

    speeds(monkeypatch, 1.0, 5.0)
    assert choose_precision(Coarse(), SPEC, batch) == "fp32"
    assert choose_precision(network, SPEC, batch) == "bf16"


def test_random_masks_of_dropout_do_not_count_against_bf16(monkeypatch: pytest.MonkeyPatch, batch: Prepared) -> None:
    class Dropping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.drop, self.head = nn.Conv2d(3, 32, 8, 8), nn.Dropout(0.5), nn.Linear(32 * 64, 3)

        def forward(self, images: torch.Tensor, maps: torch.Tensor | None) -> torch.Tensor:
            return self.head(self.drop(self.first(images).relu().flatten(1)))

    speeds(monkeypatch, 1.0, 5.0)
    torch.manual_seed(0)
    assert choose_precision(Dropping(), SPEC, batch) == "bf16"


def test_measuring_leaves_the_network_as_found(network: nn.Module, batch: Prepared) -> None:
    before = copy.deepcopy(network.state_dict())
    assert choose_precision(network, SPEC, batch) in ("fp32", "bf16")
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(p.grad is None for p in network.parameters())
    assert network.training


def test_speeds_are_measured_once(monkeypatch: pytest.MonkeyPatch, network: nn.Module, batch: Prepared) -> None:
    choose_precision(network, SPEC, batch)
    monkeypatch.setattr(precision, "_steps_per_second", lambda *_: pytest.fail("measured again"))
    choose_precision(network, SPEC, batch)


@pytest.mark.parametrize(
    ("asked", "bf16", "left"), [("auto", False, "fp32"), ("auto", True, "auto"), ("bf16", False, "bf16")]
)
def test_without_instructions_for_bf16_nothing_is_left_to_choose(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, asked: str, bf16: bool, left: str
) -> None:
    monkeypatch.setattr(setup, "computes_bf16", lambda _device: bf16)
    config = TrainConfig(backbone="test_resnet", arch="baseline", init="scratch", precision=asked)
    pairs = ShardFolder(labeled(tmp_path / "shards", 24))
    assert set_up(config, pairs, torch.device("cpu")).config.precision == left


def test_bf16_trains_weights_in_fp32(network: nn.Module, batch: Prepared) -> None:
    images, maps, labels = batch
    with autocast("bf16", images.device):
        logits = network(images, maps)
    assert logits.dtype == torch.bfloat16
    functional.cross_entropy(logits.float(), labels).backward()
    assert {p.grad.dtype for p in network.parameters() if p.grad is not None} == {torch.float32}
    with autocast("fp32", images.device):
        assert network(images, maps).dtype == torch.float32
