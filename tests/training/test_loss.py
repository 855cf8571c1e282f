"""The loss of a step: plain cross entropy, and what an attention loss adds to it."""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch.nn import functional

from saliency_pipeline.shards.reader import ShardFolder
from saliency_pipeline.training.config import TrainConfig
from saliency_pipeline.training.loss import Loss
from saliency_pipeline.training.setup import Setup, set_up
from saliency_pipeline.uses.attention import AttentionLoss
from tests.uses.decoys import decoys

CONFIG = TrainConfig(
    arch="baseline", backbone="test_resnet", init="scratch", batch_size=4, precision="fp32", device="cpu"
)
WEIGHTS = torch.tensor([0.5, 1.0, 2.0])


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> ShardFolder:
    return ShardFolder(decoys(tmp_path_factory.mktemp("shards") / "decoys"))


@pytest.fixture
def parts(shards: ShardFolder) -> Callable[..., Setup]:
    return lambda **options: set_up(dataclasses.replace(CONFIG, **options), shards, torch.device("cpu"))


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_without_a_use_it_is_cross_entropy(
    parts: Callable[..., Setup], weights: torch.Tensor | None, smoothing: float
) -> None:
    setup = parts(label_smoothing=smoothing)
    batch = setup.train.prepare([0, 1, 2, 3], 0)
    images, maps, targets = setup.inputs(batch)
    loss = Loss(setup.config, setup.network, weights, setup.supervised)
    with loss.capturing():
        logits = setup.network(images, maps)
    want = functional.cross_entropy(logits, targets, weights, reduction="sum", label_smoothing=smoothing)
    assert torch.equal(loss(logits, batch, targets, maps), want)
    mean = functional.cross_entropy(logits, targets, weights, label_smoothing=0.0)
    if not smoothing:
        assert (want / loss.total_weight(batch.labels.numpy())).item() == pytest.approx(mean.item(), rel=1e-5)


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_an_attention_loss_adds_the_terms_of_the_images(
    parts: Callable[..., Setup], weights: torch.Tensor | None
) -> None:
    setup = parts(use="attention-loss:weight=3", method="truth")
    batch = setup.train.prepare([0, 1, 2, 3], 0)
    images, maps, targets = setup.inputs(batch)
    loss, backbone = Loss(setup.config, setup.network, weights, setup.supervised), setup.network.backbone
    features: list[torch.Tensor] = []
    handle = backbone.layer4.register_forward_hook(lambda _module, _inputs, output: features.append(output))
    with loss.capturing():
        logits = setup.network(images, maps)
    handle.remove()
    terms = AttentionLoss(weight=3.0).penalties(features[0], backbone.fc.weight[targets], maps)
    own = 1.0 if weights is None else weights[targets]
    want = functional.cross_entropy(logits, targets, weights, reduction="sum") + (own * terms).sum()
    got = loss(logits, batch, targets, maps)
    assert got.item() == pytest.approx(want.item())
    got.backward()
    assert all(parameter.grad is not None for parameter in setup.network.parameters())


def test_the_hook_is_there_during_the_pass_alone(parts: Callable[..., Setup]) -> None:
    setup = parts(use="attention-loss", method="truth")
    loss = Loss(setup.config, setup.network, None, setup.supervised)

    def hooks() -> int:
        return sum(len(part._forward_hooks) for part in setup.network.modules())

    assert hooks() == 0
    with loss.capturing():
        assert hooks() == 1
    assert hooks() == 0


def test_the_divisor_is_the_sum_of_the_class_weights(parts: Callable[..., Setup]) -> None:
    setup = parts()
    labels = np.array([0, 2, 2])
    assert Loss(setup.config, setup.network, None, None).total_weight(labels) == 3
    assert Loss(setup.config, setup.network, WEIGHTS, None).total_weight(labels) == 4.5
