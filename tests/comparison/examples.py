"""Finished runs made up from a seed, and what comes of them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from saliency_pipeline.comparison.analysis import analyse
from saliency_pipeline.comparison.arms import Arm, choose_arms
from saliency_pipeline.comparison.runs import Answers, Run
from saliency_pipeline.training.config import TrainConfig

CLASSES = ("dress", "hat", "<b>shirt</b>")
IMAGES = 60


def runs(
    arms: Sequence[Arm],
    settings: Sequence[str] = ("all images",),
    *,
    folds: int = 5,
    repeats: int = 2,
    epochs: int = 12,
    effects: Mapping[str, float] | None = None,
    answered: bool = True,
    seed: int = 0,
) -> list[Run]:
    """Runs whose curves rise to about 0.7, by an arm's effect higher; those of a pair share some luck."""
    random = np.random.default_rng(seed)
    found = []
    for number, setting in enumerate(settings):
        for repeat in range(repeats):
            for fold in range(1, folds + 1) if folds else (None,):
                luck = random.normal(0, 0.01)
                for arm in arms:
                    rise = 0.3 + 0.02 * number + 0.4 * (1 - np.exp(-np.arange(1, epochs + 1) / 3)) + luck
                    top1 = rise + (effects or {}).get(arm.name, 0.0) + random.normal(0, 0.01, epochs)
                    curves = {
                        "validation_top1": top1,
                        "train_top1": np.minimum(1, top1 + 0.02 * np.arange(epochs)),
                        "validation_loss": 2 * (1 - top1),
                        "train_loss": 1.8 * (1 - top1),
                        "seconds": np.full(epochs, 2.0),
                    }
                    config = arm.config(TrainConfig(epochs=epochs, folds=folds or None, fold=fold, seed=repeat))
                    counts = {"train": 48, "validation": IMAGES, "pool": 4 * IMAGES}
                    said = answers(random, float(top1[-1])) if answered else None
                    found.append(
                        Run(arm.name, setting, Path("runs"), config, curves, counts, "plan", Path("s"), "0", said, None)
                    )
    return found


def answers(random: np.random.Generator, accuracy: float) -> Answers:
    """Answers that are right as often as asked, or else any class."""
    labels = [CLASSES[image % len(CLASSES)] for image in range(IMAGES)]
    said = [label if random.random() < accuracy else str(random.choice(CLASSES)) for label in labels]
    return Answers(tuple(f"{label}/{i}.jpg" for i, label in enumerate(labels)), tuple(labels), tuple(said))


def results(names: Sequence[str] = (), settings: Sequence[str] = ("all images",), **options: Any) -> dict[str, Any]:
    """What comes of made-up runs."""
    arms = choose_arms(names, controls=() if names else None)
    about = {"plan": {"folds": 5}, "source": {"model": "<i>efficientnet</i>"}, "method": "gradcam"}
    return analyse(
        runs(arms, settings, **options), arms, settings, CLASSES, about=about, warnings=["<u>2 images</u> are copies"]
    )
