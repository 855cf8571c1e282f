"""Plans: what is fixed before the runs, what may change later, looks, and the precision of all arms."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from saliency_pipeline.comparison import estimate
from saliency_pipeline.comparison.arms import Arm, choose_arms
from saliency_pipeline.comparison.compare import compare, plan_only
from saliency_pipeline.comparison.config import ComparisonConfig
from saliency_pipeline.comparison.output import Comparison
from saliency_pipeline.errors import PlanMismatchError, SalpipeError
from saliency_pipeline.progress import Progress
from saliency_pipeline.serialization import to_json
from saliency_pipeline.shards.reader import ShardFolder
from saliency_pipeline.training.config import TrainConfig
from tests.comparison.examples import settings
from tests.comparison.pretended import START, Pretended
from tests.training.examples import labeled

QUICK = TrainConfig(backbone="test_resnet", init="scratch", epochs=2, lr=0.01, precision="fp32", device="cpu")
BASELINE = Arm("baseline", {"arch": "baseline"}, "reference")
HALF = Arm("half", {"arch": "modulated"})
UNIFORM = Arm("half-uniform", {"arch": "modulated", "maps": "uniform"}, "control", of="half")


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return labeled(tmp_path_factory.mktemp("shards") / "labeled")


def effect(size: float) -> Any:
    """Scores of runs with an effect of the second branch, and noise that depends on pair and arm."""

    def score(config: TrainConfig) -> float:
        noise = np.random.default_rng([config.run_seed, config.arch == "baseline"]).normal(0, 0.01)
        return float(0.5 + noise + size * (config.arch != "baseline"))

    return score


def made(shards: Path, folder: Path, arms: Sequence[Arm] = (BASELINE, HALF), **options: Any) -> Comparison:
    return compare(shards, folder, arms, QUICK, **settings(**{"folds": 5, "repeats": 2, "jobs": 1, **options}))


class Notes(Progress):
    def __init__(self) -> None:
        self.all: list[str] = []

    def note(self, text: str) -> None:
        self.all.append(text)


def test_repeats_are_not_added_after_looking(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Pretended(monkeypatch, effect(0.005))
    made(shards, tmp_path, repeats=1)
    with pytest.raises(
        PlanMismatchError, match="has finished runs of 1 planned repeat; more repeats after looking would"
    ):
        made(shards, tmp_path, repeats=2)
    made(shards, tmp_path, repeats=1)  # the same again is no further look
    made(shards, tmp_path, (BASELINE, HALF, UNIFORM), repeats=1)  # nor is another arm


def test_arms_and_budgets_are_not_left_out_afterwards(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a budget, or a control that was not beaten, the same runs would support a stronger claim."""
    Pretended(monkeypatch, effect(0.0))
    made(shards, tmp_path, (BASELINE, HALF, UNIFORM), per_class=("5", "all"), repeats=1)
    with pytest.raises(PlanMismatchError, match="arm half-uniform is left out"):
        made(shards, tmp_path, per_class=("5", "all"), repeats=1)
    with pytest.raises(PlanMismatchError, match="per-class 5 is left out"):
        made(shards, tmp_path, (BASELINE, HALF, UNIFORM), repeats=1)


def test_before_the_first_run_is_finished_repeats_may_change(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(config: TrainConfig) -> float:
        raise KeyboardInterrupt

    Pretended(monkeypatch, interrupted)
    with pytest.raises(KeyboardInterrupt):
        made(shards, tmp_path, repeats=1)
    Pretended(monkeypatch, effect(0.0))
    assert made(shards, tmp_path, repeats=2).runs == 20


def test_a_finished_run_was_seen_also_where_nothing_was_analyzed(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Progress notes have the accuracy of every run, so that an interrupted comparison counts as looked at."""
    begun: list[TrainConfig] = []

    def interrupted(config: TrainConfig) -> float:
        begun.append(config)
        if len(begun) > 3:
            raise KeyboardInterrupt
        return 0.5

    Pretended(monkeypatch, interrupted)
    with pytest.raises(KeyboardInterrupt):
        made(shards, tmp_path, repeats=1)
    with pytest.raises(PlanMismatchError, match=r"--repeats 2: .* has finished runs of 1 planned repeat"):
        made(shards, tmp_path, repeats=2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rope": 2.0}, "rope 0.01 -> 0.02"),
        ({"threshold": 0.8}, "threshold none -> 0.8"),
        ({"looks": 2}, "looks 1 -> 2"),
        ({"lrs": (0.1, 0.2)}, "lrs none -> 0.1,0.2"),
        ({"primary": "half:area"}, "primary half:final:all images -> half:area:all images"),
    ],
)
def test_rules_are_fixed_by_the_plan(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], message: str
) -> None:
    Pretended(monkeypatch, effect(0.0))
    made(shards, tmp_path)
    with pytest.raises(PlanMismatchError, match=message):
        made(shards, tmp_path, **options)


def test_the_primary_question_stays_when_arms_and_budgets_are_added(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Pretended(monkeypatch, effect(0.0))
    made(shards, tmp_path)
    new = Arm("add", {"arch": "modulated", "fusion": "add"})
    made(shards, tmp_path, (BASELINE, new, HALF), per_class=("all", "5"))
    stored = json.loads((tmp_path / "plan.json").read_text())
    assert stored["primary"] == {"arm": "half", "measure": "final", "setting": "all images"}


def test_options_that_are_new_since_were_what_their_defaults_are(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Pretended(monkeypatch, effect(0.0))
    made(shards, tmp_path)
    before = json.loads((tmp_path / "plan.json").read_text())
    for name in ("shuffle", "validate"):
        del before["shared"][name]
    (tmp_path / "plan.json").write_text(json.dumps(before))
    made(shards, tmp_path)
    assert json.loads((tmp_path / "plan.json").read_text())["shared"]["shuffle"] == "auto"
    before["shared"]["shuffle"] = "full"
    (tmp_path / "plan.json").write_text(json.dumps(before))
    with pytest.raises(PlanMismatchError, match="--shuffle full -> auto"):
        made(shards, tmp_path)


def test_a_plan_of_an_earlier_version_is_refused(shards: Path, tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text('{"shards": "s", "hash": "h", "shared": {"precision": "fp32"}, "threads": 1}')
    with pytest.raises(SalpipeError, match="holds a comparison of an earlier version, with other controls and rules"):
        made(shards, tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rope": 0.0}, "--rope 0.0: use a number from 0.001"),
        ({"rope": float("nan")}, "--rope nan: use a number from 0.001"),
        ({"threshold": 1.5}, "--threshold 1.5: use a number from 1e-09 to 1"),
        ({"looks": 0}, "--looks 0: use a number from 1"),
        ({"looks": 3}, "--looks 3: there are 2 repeats, and every look needs a new one"),
        ({"looks": 2, "folds": 0}, "--looks 2: needs folds"),
        ({"lrs": (0.1, 0.1)}, "--lr 0.1,0.1: has a rate twice"),
        ({"lrs": (0.1, float("nan"))}, "--lr nan: use a number from 1e-12"),
        ({"per_class": ()}, "--per-class: empty; use numbers of images"),
        ({"primary": "baseline"}, "--primary baseline: baseline is not a candidate; choose from half"),
        ({"primary": "half:best"}, "--primary half:best: no measure 'best'; choose from final, area, speed"),
        ({"arms": (BASELINE, Arm("half", {"lr": 0.1})), "lrs": (0.1, 0.2)}, "arm half: has its own lr"),
    ],
)
def test_rules_that_cannot_be_are_refused(shards: Path, tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(SalpipeError, match=message):
        made(shards, tmp_path / "out", **options)


def test_looks_share_the_repeats() -> None:
    assert ComparisonConfig(repeats=5, looks=5).look_repeats == (1, 2, 3, 4, 5)
    for repeats in range(1, 20):
        for looks in range(1, repeats + 1):
            shares = ComparisonConfig(repeats=repeats, looks=looks).look_repeats
            assert len(shares) == looks
            assert shares[-1] == repeats
            assert all(earlier < later for earlier, later in zip((0, *shares), shares, strict=False))


def test_a_decided_question_ends_the_training(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notes, pretended = Notes(), Pretended(monkeypatch, effect(0.2))
    comparison = made(shards, tmp_path, repeats=6, looks=3, progress=notes)
    # folds of the first two repeats, two arms
    assert (comparison.runs, len(pretended.trained)) == (20, 20)
    assert [look.decided for look in comparison.results.looks.made] == [True]
    assert any("look 1 of 3 after 2 of 6 repeats" in note and "no further run is needed" in note for note in notes.all)
    before = (tmp_path / "results.json").read_bytes()
    made(shards, tmp_path, repeats=6, looks=3)
    assert len(pretended.trained) == 20
    assert (tmp_path / "results.json").read_bytes() == before


def test_without_an_effect_all_looks_are_made_and_resuming_changes_nothing(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretended = Pretended(monkeypatch, effect(0.0))
    comparison = made(shards, tmp_path / "whole", repeats=4, looks=2)
    assert [(look.repeats, look.decided) for look in comparison.results.looks.made] == [(2, False), (4, False)]
    assert comparison.runs == 40
    whole, count = (tmp_path / "whole" / "results.json").read_bytes(), len(pretended.trained)

    def killed(config: TrainConfig) -> float:
        if config.seed == 2 and config.fold == 3:
            raise KeyboardInterrupt
        return float(effect(0.0)(config))

    pretended.score = killed
    with pytest.raises(KeyboardInterrupt):
        made(shards, tmp_path / "cut", repeats=4, looks=2)
    # the first look is there, and counts the runs of its own repeats alone
    early = json.loads((tmp_path / "cut" / "results.json").read_text())
    assert [look["repeats"] for look in early["looks"]["made"]] == [2]
    pretended.score = effect(0.0)
    made(shards, tmp_path / "cut", repeats=4, looks=2)
    assert (tmp_path / "cut" / "results.json").read_bytes() == whole
    assert len(pretended.trained) == 2 * count + 1


def test_results_hold_maps_and_starts(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Pretended(monkeypatch, effect(0.0))
    results = to_json(made(shards, tmp_path).results)
    assert results["starts"] == {"baseline": None, "half": START}
    assert [(row["class"], row["images"]) for row in results["maps"]] == [
        ("circle", 32),
        ("square", 32),
        ("stripe", 32),
    ]
    assert all(row["zero"] == row["constant"] == 0 for row in results["maps"])
    assert results["tuning"] is None


@pytest.mark.parametrize("refusing", ["", "half-uniform"])
def test_bf16_needs_the_gradient_of_every_arm(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusing: str
) -> None:
    asked: list[str] = []

    def choose(network: object, spec: Any, batch: Any) -> str:
        maps = batch[1]
        name = "baseline" if maps is None else "half-uniform" if float(maps.std()) == 0 else "half"
        asked.append(name)
        return "fp32" if name == refusing else "bf16"

    monkeypatch.setattr(estimate, "choose_precision", choose)
    arms = (BASELINE, HALF, Arm("again", HALF.options), UNIFORM)
    configs = [arm.config(dataclasses.replace(QUICK, precision="auto", folds=2, fold=1)) for arm in arms]
    precision = estimate.choose_shared_precision(configs, ShardFolder(shards), 1)
    assert precision == ("fp32" if refusing else "bf16")
    assert asked == ["baseline", "half", "half-uniform"]


def test_the_first_run_of_every_arm_decides_the_precision(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Sequence[TrainConfig]] = []
    module = "saliency_pipeline.comparison.compare"
    monkeypatch.setattr(f"{module}.computes_bf16", lambda _device: True)
    monkeypatch.setattr(f"{module}.choose_shared_precision", lambda configs, *_: calls.append(configs) or "fp32")
    arms = [dataclasses.replace(arm, options=arm.options | {"init": "scratch"}) for arm in choose_arms(())]
    automatic = dataclasses.replace(QUICK, precision="auto")
    plan_only(shards, tmp_path / "out", arms, automatic, **settings(folds=2, repeats=1, jobs=1))
    assert [(config.arch, config.maps) for config in calls[0]] == [
        ("baseline", "own"),
        ("modulated", "own"),
        ("modulated", "mismatched"),
        ("modulated", "center-prior"),
    ]
