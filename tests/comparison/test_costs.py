"""Costs: time of an arm's runs and of those that chose its learning rate."""

import dataclasses

import numpy as np
import pytest

from saliency_pipeline.comparison.arms import Arm
from saliency_pipeline.comparison.costs import MapCosts, measure_costs
from saliency_pipeline.serialization import to_json
from saliency_pipeline.training.config import TrainConfig
from tests.comparison.examples import runs

BASELINE = Arm("baseline", {"arch": "baseline"}, "reference")
HALF = Arm("half", {"arch": "modulated", "init": "half"})
UNIFORM = Arm("uniform", {"arch": "modulated", "maps": "uniform"}, "control")


def test_time_per_arm_with_the_runs_that_tuned_it() -> None:
    finished = runs([BASELINE, HALF, UNIFORM], folds=2, repeats=1, epochs=3)
    inner = [
        dataclasses.replace(run, curves=run.curves | {"seconds": np.full(3, 0.5)})
        for run in runs([HALF], folds=2, repeats=2, epochs=3)
    ]
    maps = MapCosts(10, 1.0)
    costs = measure_costs(finished, None, TrainConfig(), maps, tuning=inner)
    assert costs.maps == maps
    assert costs.shards is None
    arms = to_json(costs.settings)["all images"]
    assert arms["half"] == {
        "runs": 2,
        "seconds": pytest.approx(6.0),
        "seconds_per_epoch": pytest.approx(2.0),
        "reads_maps": True,
        "tuning": {"runs": 4, "seconds": pytest.approx(6.0)},
        "self_maps": None,
    }
    assert arms["baseline"]["tuning"] is None
    assert [arms[name]["reads_maps"] for name in ("baseline", "uniform")] == [False, False]
