"""Arms with maps of their own baseline (`maps = "self"`): which run makes them, and by which method."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from saliency_pipeline.comparison.arms import Arm
from saliency_pipeline.comparison.use_arms import is_plain
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.saliency.methods.registry import GIVEN
from saliency_pipeline.shards.methods import parsed
from saliency_pipeline.training.config import CENTER_PRIOR, SELF, TrainConfig
from saliency_pipeline.training.data.self_maps import computed_method


def reads_own_baseline(arm: Arm) -> bool:
    """True if the comparison decides which run makes an arm's maps."""
    return arm.options.get("maps") == SELF and arm.options.get("from_baseline") is None


def baseline_arm(arms: Sequence[Arm]) -> Arm:
    """The arm whose runs make the maps: the first plain baseline, which is the reference if that is one.

    Raises:
        SalpipeError: there is none.
    """
    for arm in arms:
        if is_plain(arm.options):
            return arm
    own = next(arm.name for arm in arms if reads_own_baseline(arm))
    raise SalpipeError(f"arm {own}: its maps are made by a baseline of the same fold; add --arm baseline")


def check_self_maps(arms: Sequence[Arm], shared: TrainConfig) -> None:
    """Check that there is a baseline, and a method to compute, for every arm with maps of its own baseline.

    Raises:
        SalpipeError: there is none, or an arm is pretrained.
    """
    for arm in arms:
        if reads_own_baseline(arm):
            if arm.options.get("init") == "full":
                raise SalpipeError(
                    f"arm {arm.name}: the source pairs that it is pretrained on have no maps of its own baseline, "
                    "which is trained on the target; leave it out"
                )
            baseline_arm(arms)
            computed_method(own_method(arm, shared))


def own_method(arm: Arm, shared: TrainConfig) -> str | None:
    """The method of an arm's own maps: its own, else that of the comparison, on the default layer of the baseline.

    None, for Grad-CAM, where the comparison's maps come from elsewhere.
    """
    if "method" in arm.options:
        return str(arm.options["method"])
    name, parameters = parsed(shared.method or GIVEN)
    items = ",".join(f"{key}={value}" for key, value in parameters.items() if key != "layer")
    return None if name == GIVEN else f"{name}:{items}" if items else name


def with_baseline(arm: Arm, shared: TrainConfig, run: Path) -> Arm:
    """The arm with the run that makes its maps, and their method."""
    more = {"from_baseline": os.path.abspath(run), "method": own_method(arm, shared)}
    return replace(arm, options={**arm.options, **more})


def without_baseline(config: TrainConfig) -> TrainConfig:
    """Options with which a run takes as many steps of the same duration before its baseline is trained."""
    if config.maps != SELF:
        return config
    return replace(config, maps=CENTER_PRIOR, from_baseline=None, method=None)
