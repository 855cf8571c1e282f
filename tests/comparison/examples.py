"""Finished runs made up from a seed, and the results of analyzing them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from saliency_pipeline.comparison.analysis import Context, analyze
from saliency_pipeline.comparison.arms import CANDIDATE, CONTROL, REFERENCE, Arm
from saliency_pipeline.comparison.config import ComparisonConfig, Execution
from saliency_pipeline.comparison.map_results import ClassMaps
from saliency_pipeline.comparison.results import Duplicates, Start, Tuning
from saliency_pipeline.comparison.rules import FINAL, Primary, Rules
from saliency_pipeline.comparison.runs import Predictions, Run
from saliency_pipeline.serialization import from_json, to_json
from saliency_pipeline.settings import settings_of
from saliency_pipeline.training.config import TrainConfig

CLASSES = ("dress", "hat", "<b>shirt</b>")
IMAGES = 60
DEFAULT = ("baseline", "half", "half-mismatched", "half-center-prior")
BUDGETS = ("5 per class", "15 per class", "50 per class", "150 per class", "all images")

_CANDIDATES: dict[str, dict[str, Any]] = {
    "half": {"arch": "modulated", "init": "half"},
    "neutral": {"arch": "modulated", "init": "half", "fusion": "neutral"},
    "input": {"arch": "modulated", "init": "half", "fusion": "input"},
    "full": {"arch": "modulated", "init": "full", "start": "runs/source"},
    "learned": {"arch": "learned"},
    "zoom": {"arch": "baseline", "init": "half", "use": "zoom"},
    "mask": {"arch": "baseline", "init": "half", "use": "mask"},
}
_OTHER_MAPS: dict[str, dict[str, Any]] = {
    "oracle": {"maps": "oracle"},
    "self": {"maps": "self", "from_baseline": "runs/baseline"},
}
_REFERENCES: dict[str, dict[str, Any]] = {
    "baseline": {"arch": "baseline"},
    "baseline-full": {"arch": "baseline", "init": "full", "start": "runs/source"},
}


def arms(names: Sequence[str] = DEFAULT) -> tuple[Arm, ...]:
    """Arms by their names; `<candidate>-<control>` is a control of that candidate, `oracle-<candidate>` another one."""
    return tuple(_arm(name, names) for name in names or DEFAULT)


def _arm(name: str, names: Sequence[str]) -> Arm:
    if name in _REFERENCES:
        return Arm(name, _REFERENCES[name], REFERENCE)
    if name in _CANDIDATES:
        return Arm(name, _CANDIDATES[name], CANDIDATE, "", f"baseline-{name}" if f"baseline-{name}" in names else "")
    of, _, control = name.partition("-")
    if of in _OTHER_MAPS:
        return Arm(name, {**_CANDIDATES[control], **_OTHER_MAPS[of]}, CANDIDATE)
    return Arm(name, {**_CANDIDATES[of], "maps": control}, CONTROL, of)


def curve(epochs: int, *, start: float = 0.3, rise: float = 0.4, pace: float = 3.0) -> np.ndarray:
    """A validation curve (epochs,) that rises from about `start` by `rise`; a smaller pace is faster."""
    return start + rise * (1 - np.exp(-np.arange(1, epochs + 1) / pace))


def runs(
    arms: Sequence[Arm],
    settings: Sequence[str] = ("all images",),
    *,
    folds: int = 5,
    repeats: int = 2,
    epochs: int = 12,
    effects: Mapping[str, float] | None = None,
    paces: Mapping[str, float] | None = None,
    stops: Mapping[str, int] | None = None,
    noise: float = 0.01,
    predicted: bool = True,
    precision: Mapping[str, str] | None = None,
    seed: int = 0,
) -> list[Run]:
    """Runs whose curves rise to about 0.7; those of a pair share a part of their noise.

    Args:
        arms: whose runs.
        settings: data budgets.
        folds: per repeat; 0 for the shards' own split.
        repeats: with seeds from 0 on.
        epochs: planned ones.
        effects: per arm, added at every epoch.
        paces: per arm, see `curve`; 3 by default.
        stops: per arm, the epoch at which `--patience` stopped its runs.
        noise: standard deviation of what an arm's own curve adds at every epoch.
        predicted: whether predictions are kept.
        precision: per arm; fp32 by default.
        seed: of everything.
    """
    random = np.random.default_rng(seed)
    made = []
    for number, setting in enumerate(settings):
        for repeat in range(repeats):
            for fold in range(1, folds + 1) if folds else (None,):
                shared = random.normal(0, 0.01)
                for arm in arms:
                    top1 = curve(epochs, start=0.3 + 0.02 * number, pace=(paces or {}).get(arm.name, 3.0)) + shared
                    top1 += (effects or {}).get(arm.name, 0.0) + random.normal(0, noise, epochs)
                    top1 = top1[: (stops or {}).get(arm.name, epochs)]
                    curves = {
                        "validation_top1": top1,
                        "train_top1": np.minimum(1, top1 + 0.02 * np.arange(len(top1))),
                        "validation_loss": 2 * (1 - top1),
                        "train_loss": 1.8 * (1 - top1),
                        "seconds": np.full(len(top1), 2.0),
                    }
                    patience = 3 if arm.name in (stops or {}) else None
                    shared_options = TrainConfig(epochs=epochs, folds=folds or None, fold=fold, seed=repeat)
                    config = arm.config(shared_options)
                    object.__setattr__(config, "patience", patience)
                    object.__setattr__(config, "precision", (precision or {}).get(arm.name, "fp32"))
                    counts = {"train": 48, "validation": IMAGES, "pool": 4 * IMAGES}
                    validation = predictions(random, float(top1[-1])) if predicted else None
                    origin = ("plan", Path("shards"), "0")
                    made.append(Run(arm.name, setting, Path("runs"), config, curves, counts, *origin, validation, None))
    return made


def predictions(random: np.random.Generator, accuracy: float) -> Predictions:
    """Predictions that are correct with a given probability, otherwise of any class."""
    labels = [CLASSES[image % len(CLASSES)] for image in range(IMAGES)]
    predicted = [label if random.random() < accuracy else str(random.choice(CLASSES)) for label in labels]
    return Predictions(tuple(f"{label}/{i}.jpg" for i, label in enumerate(labels)), tuple(labels), tuple(predicted))


def settings(**options: Any) -> dict[str, Any]:
    """Arguments of `compare`: options of `ComparisonConfig` and `Execution`, others unchanged."""
    return {
        "config": take(ComparisonConfig, options),
        "execution": take(Execution, options),
        **options,
    }


def take(kind: type, options: dict[str, Any]) -> Any:
    """The settings of a class from some options, which they are removed from."""
    return kind(**{name: options.pop(name) for name in settings_of(kind) if name in options})


def rules(*, primary: Primary | None = None, **options: Any) -> Rules:
    """Rules of a plan; looks are equally spaced over the repeats."""
    return Rules(primary, ComparisonConfig(**options))


def primary(arm: str = "half", measure: str = FINAL, setting: str = "all images") -> Primary:
    """A primary question."""
    return Primary(arm, measure, setting)


def results(
    names: Sequence[str] = (),
    settings: Sequence[str] = ("all images",),
    *,
    plan: Mapping[str, Any] | None = None,
    leaks: Sequence[str] = (),
    duplicates: Mapping[str, Any] | None = None,
    maps: Sequence[Mapping[str, Any]] | None = None,
    starts: Mapping[str, Any] | None = None,
    tuning: Mapping[str, Any] | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Results of made-up runs, as JSON values.

    Args:
        names: of the arms.
        settings: data budgets.
        plan: options of `rules` that differ from what the runs have.
        leaks: and the others: see `Context`.
        duplicates: see `Context`.
        maps: see `Context`.
        starts: see `Context`.
        tuning: see `Context`.
        options: of `runs`.
    """
    compared = arms(names)
    planned = {"folds": options.get("folds", 5), "repeats": options.get("repeats", 2)} | dict(plan or {})
    context = Context(
        {"plan": {"folds": 5}, "source": {"model": "<i>efficientnet</i>"}, "method": "gradcam"},
        ("<u>2 images</u> are copies",),
        tuple(leaks),
        duplicates and from_json(Duplicates, duplicates),
        None if maps is None else tuple(from_json(ClassMaps, row) for row in maps),
        {arm: start and from_json(Start, start) for arm, start in (starts or {}).items()},
        tuning and from_json(Tuning, tuning),
    )
    made = runs(compared, settings, **options)
    return to_json(analyze(made, compared, settings, CLASSES, rules=rules(**planned), context=context))


def analyzed(
    runs: Sequence[Run], arms: Sequence[Arm], *, rules: Rules, classes: Sequence[str] = CLASSES
) -> dict[str, Any]:
    """The analysis of runs under one budget, as JSON values."""
    return to_json(analyze(runs, arms, ("all images",), classes, rules=rules, context=Context({})))
