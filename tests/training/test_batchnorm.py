"""BatchNorm: batches that it cannot process, and layers that are synchronized over processes."""

import copy
import dataclasses
from pathlib import Path

import pytest
import torch

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.models.trained.two_branch import NetworkSpec, build_network
from saliency_pipeline.training.batchnorm import synchronize
from saliency_pipeline.training.find_lr import find_learning_rate
from saliency_pipeline.training.run import train
from tests.training.examples import labeled
from tests.training.test_run import QUICK


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return labeled(tmp_path_factory.mktemp("shards") / "labeled")


@pytest.mark.parametrize(("options", "remedy"), [({"batch_size": 1}, "2"), ({"batch_size": 2, "limit": 3}, "3")])
@pytest.mark.parametrize("command", [train, find_learning_rate])
def test_a_step_of_one_value_per_channel_is_refused_before_training(
    shards: Path, tmp_path: Path, command: object, options: dict[str, int], remedy: str
) -> None:
    with pytest.raises(SalpipeError, match=rf"a step has only one, .*BatchNorm .*; use --batch-size {remedy}"):
        command(shards, tmp_path / "run", dataclasses.replace(QUICK, **options))  # type: ignore[operator]
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


@pytest.mark.usefixtures("without_plots")
def test_networks_without_batchnorm_take_single_images(shards: Path, tmp_path: Path) -> None:
    config = dataclasses.replace(QUICK, backbone="test_vit", batch_size=1, limit=3, epochs=1)
    assert train(shards, tmp_path / "run", config).epochs == 1


@pytest.mark.parametrize("backbone", ["efficientnet_lite0", "resnet18"])
def test_synchronized_layers_keep_the_branch_that_is_fused_at_one_of_them(backbone: str) -> None:
    network = build_network(NetworkSpec(backbone, ("a", "b"), 32, "modulated")).eval()
    images, maps = torch.randn(2, 3, 32, 32), torch.rand(2, 1, 32, 32)
    with torch.no_grad():
        expected = network(images, maps)
        result = synchronize(copy.deepcopy(network), torch.device("cpu"))(images, maps)
    torch.testing.assert_close(result, expected)
