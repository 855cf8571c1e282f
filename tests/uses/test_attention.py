"""Attention loss: values by hand, identities, gradients, and maps that mark the evidence against those that do not."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from saliency_pipeline.errors import OptionError, SalpipeError
from saliency_pipeline.models.trained.pooled import find_pooled_layer
from saliency_pipeline.models.trained.trained import load_trained
from saliency_pipeline.shards.reader import ShardFolder
from saliency_pipeline.training.config import TrainConfig
from saliency_pipeline.training.run import train
from saliency_pipeline.uses.attention import AttentionLoss
from saliency_pipeline.uses.registry import find_use
from tests.training.test_run import lines, same, tensors
from tests.uses.decoys import decoys

pytestmark = pytest.mark.usefixtures("without_plots")

QUICK = TrainConfig(
    arch="baseline",
    backbone="test_resnet",
    init="scratch",
    epochs=2,
    batch_size=6,
    lr=0.01,
    precision="fp32",
    device="cpu",
)
MAP = torch.tensor([[[[0.0, 0.0], [0.5, 1.0]]]])


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return decoys(tmp_path_factory.mktemp("shards") / "decoys")


def features(*channels: list[list[float]]) -> torch.Tensor:
    return torch.tensor([list(channels)])


def test_the_squared_difference_by_hand() -> None:
    # cam = (1 A_1 - 1 A_2) / 4 = [[1, 2], [3, 5]] / 4 -> [0, 1/4, 2/4, 1]; the map is [0, 0, 1/2, 1] already
    one, two = [[2.0, 3.0], [4.0, 6.0]], [[1.0, 1.0], [1.0, 1.0]]
    term = AttentionLoss(weight=8.0).penalties(features(one, two), torch.tensor([[1.0, -1.0]]), MAP)
    assert term.tolist() == pytest.approx([8 * 0.25**2 / 4])


def test_the_share_of_the_evidence_outside_by_hand() -> None:
    # relu(cam) is proportional to [4, 0, 2, 2], of which 4 + 2 / 2 + 0 are outside
    grid = [[4.0, -3.0], [2.0, 2.0]]
    term = AttentionLoss(weight=2.0, variant="rrr").penalties(features(grid), torch.tensor([[1.0]]), MAP)
    assert term.tolist() == pytest.approx([2 * 5 / 8])


def test_maps_are_averaged_over_the_cells() -> None:
    large = MAP.repeat_interleave(3, 2).repeat_interleave(3, 3)
    one = torch.rand(1, 4, 2, 2), torch.rand(1, 4)
    for variant in ("cyborg", "rrr"):
        use = AttentionLoss(variant=variant)
        assert torch.allclose(use.penalties(*one, large), use.penalties(*one, MAP))


@pytest.mark.parametrize("variant", ["cyborg", "rrr"])
def test_a_perfect_map_costs_nothing_and_each_image_counts_alone(variant: str) -> None:
    use, rows = AttentionLoss(variant=variant), torch.ones(2, 1)
    first, second = use.penalties(torch.cat([MAP.round(), 1 - MAP]), rows, torch.cat([MAP.round(), MAP])).tolist()
    assert first == 0
    assert second == pytest.approx(use.penalties(1 - MAP, rows[:1], MAP).item())
    assert second > 0.5


@pytest.mark.parametrize("variant", ["cyborg", "rrr"])
@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_a_constant_map_has_no_term_and_no_gradient(variant: str, value: float) -> None:
    grid, rows = torch.rand(2, 4, 3, 3, requires_grad=True), torch.rand(2, 4, requires_grad=True)
    term = AttentionLoss(variant=variant).penalties(grid, rows, torch.full((2, 1, 12, 12), value))
    assert term.tolist() == [0, 0]
    term.sum().backward()
    assert not grid.grad.any()
    assert not rows.grad.any()


@pytest.mark.parametrize("variant", ["cyborg", "rrr"])
def test_the_gradient_is_right_for_features_and_head(variant: str) -> None:
    torch.manual_seed(3)
    grid = torch.randn(2, 3, 3, 3, dtype=torch.float64, requires_grad=True)
    rows = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    maps, use = torch.rand(2, 1, 9, 9), AttentionLoss(variant=variant)
    slopes = torch.autograd.grad(use.penalties(grid, rows, maps).sum(), (grid, rows))
    with torch.no_grad():
        for value, slope in zip((grid, rows), slopes, strict=True):
            before = use.penalties(grid, rows, maps).sum()
            step = 1e-3 * slope / slope.norm()
            value -= step
            change = float(before - use.penalties(grid, rows, maps).sum())
            value += step
            assert change == pytest.approx(1e-3 * float(slope.norm()), rel=0.05)


@pytest.mark.parametrize("variant", ["cyborg", "rrr"])
def test_features_of_zeros_have_a_finite_gradient(variant: str) -> None:
    grid, rows = torch.zeros(1, 4, 2, 2, requires_grad=True), torch.ones(1, 4, requires_grad=True)
    AttentionLoss(variant=variant).penalties(grid, rows, MAP).sum().backward()
    assert grid.grad.isfinite().all()


def test_the_use_by_name() -> None:
    assert find_use("attention-loss").canonical == "attention-loss:variant=cyborg,weight=1"
    assert TrainConfig(use="attention-loss:weight=2").arch == "baseline"
    assert not TrainConfig(use="attention-loss").maps_at_test
    assert not TrainConfig(use="attention-loss:weight=0").reads_maps
    with pytest.raises(OptionError, match="variant"):
        find_use("attention-loss:variant=gain")


@pytest.mark.parametrize(
    "options",
    [
        {"use": "attention-loss:weight=0"},
        {"use": "attention-loss", "maps": "uniform"},
        {"use": "attention-loss:variant=rrr", "maps": "uniform"},
    ],
    ids=lambda options: "-".join(options.values()),
)
def test_without_weight_or_place_the_run_is_the_baseline_to_the_bit(
    shards: Path, tmp_path: Path, baseline: Path, options: dict[str, str]
) -> None:
    train(shards, tmp_path / "run", dataclasses.replace(QUICK, **options))
    assert same(tensors(tmp_path / "run"), tensors(baseline))
    assert [row["train_loss"] for row in lines(tmp_path / "run")] == [row["train_loss"] for row in lines(baseline)]


@pytest.fixture(scope="module")
def baseline(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "baseline"
    train(shards, run, QUICK)
    return run


def test_the_logged_loss_is_the_whole_and_validation_is_plain(shards: Path, baseline: Path, tmp_path: Path) -> None:
    still = dataclasses.replace(QUICK, lr=1e-12, epochs=1, augment=())
    train(shards, tmp_path / "plain", still)
    for weight in (1, 2):
        train(shards, tmp_path / str(weight), dataclasses.replace(still, use=f"attention-loss:weight={weight}"))
    (plain,), (one,), (two,) = (lines(tmp_path / name) for name in ("plain", "1", "2"))
    assert one["train_loss"] > plain["train_loss"] + 0.01
    assert two["train_loss"] - plain["train_loss"] == pytest.approx(2 * (one["train_loss"] - plain["train_loss"]))
    assert one["validation_loss"] == plain["validation_loss"]
    assert tensors(tmp_path / "1").keys() == tensors(baseline).keys()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"backbone": "test_vit", "size": 32}, "test_vit"),
        ({"backbone": "test_convnext"}, "test_convnext"),
        ({"size": 32}, "frames of 32x32"),
    ],
)
def test_other_heads_are_refused_in_one_line(
    shards: Path, tmp_path: Path, options: dict[str, object], named: str
) -> None:
    with pytest.raises(SalpipeError, match=r"--use attention-loss: the head of .* is not average pooling") as error:
        train(shards, tmp_path / "run", dataclasses.replace(QUICK, use="attention-loss", **options))
    assert named in str(error.value)
    assert "\n" not in str(error.value)


def energy_inside(run: Path, shards: Path) -> float:
    """Mean over the validation images of the share of their class activation maps in the cell with the stripes."""
    trained, pairs = load_trained(run), ShardFolder(shards)
    backbone, rows = trained.network.backbone, np.flatnonzero(pairs.splits == 1)
    layer = find_pooled_layer(backbone, trained.spec.size)
    truth = torch.from_numpy(pairs.stored_maps_at(rows, "truth")).float()
    cells = functional.adaptive_max_pool2d(truth[:, None], layer.grid)[:, 0]
    grids: list[torch.Tensor] = []
    backbone.get_submodule(layer.name).register_forward_hook(lambda _module, _inputs, output: grids.append(output))
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (trained.preprocessing.mean, trained.preprocessing.std))
    backbone((torch.from_numpy(pairs.images_at(rows)).permute(0, 3, 1, 2) / 255 - mean) / std)
    weight = backbone.get_submodule(layer.linear).weight[torch.from_numpy(pairs.labels[rows])]
    cams = (grids[0] * weight[:, :, None, None]).sum(1).relu()
    return float(((cams * cells).sum((1, 2)) / cams.sum((1, 2)).clamp_min(1e-9)).mean())


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["cyborg", "rrr"])
def test_maps_that_mark_the_evidence_help_and_others_do_not(tmp_path: Path, variant: str) -> None:
    """Positive and negative control: the color is a shortcut in training images, the marked stripes are not."""
    shards = decoys(tmp_path / "shards", 180, side=96)
    shared = dataclasses.replace(
        QUICK, epochs=10, batch_size=16, optimizer="adamw", lr=3e-3, schedule="cosine", augment=()
    )
    scores, inside = {}, {}
    for name in ("baseline", "truth", "nothing"):
        use = {} if name == "baseline" else {"use": f"attention-loss:variant={variant}", "method": name}
        report = train(shards, tmp_path / name, dataclasses.replace(shared, **use))
        scores[name], inside[name] = report.last.validation_top1, energy_inside(tmp_path / name, shards)
    assert scores["baseline"] < 0.8
    assert scores["truth"] > 0.95
    assert scores["nothing"] < scores["baseline"] + 0.1
    assert inside["truth"] > inside["baseline"] + 0.08
    assert inside["truth"] > inside["nothing"] + 0.15
