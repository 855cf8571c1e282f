"""From finished runs to everything that the report says and shows: `results.json`, which depends on the runs alone.

No figure of time is in it: how long a run took is different every time, and stands in `costs.json`.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

from saliency_pipeline.comparison.arms import CANDIDATE, REFERENCE, Arm, contrasts
from saliency_pipeline.comparison.conclusion import conclude
from saliency_pipeline.comparison.runs import Answers, Run, recalls, shared_keys
from saliency_pipeline.evaluation.confusion import count_pairs, to_json
from saliency_pipeline.statistics.contrast import ROPE, UNDERPOWERED, Contrast, evaluate, verdict
from saliency_pipeline.statistics.images import mcnemar, paired_bootstrap
from saliency_pipeline.statistics.multiplicity import holm
from saliency_pipeline.statistics.power import LEVEL, MINIMUM_PAIRS
from saliency_pipeline.statistics.speed import EARLY_EPOCHS, THRESHOLD_SHARE, area, censored_median, epochs_to, faster

FORMAT, FORMAT_VERSION = "salpipe-comparison", 1
MEASURES = ("final", "area")
"""Validation top-1 after the last epoch, and the area under its curve over the first ten."""

_CURVES = ("train_loss", "train_top1", "validation_loss", "validation_top1")
_EXAMPLES = 12


def analyse(
    runs: Sequence[Run],
    arms: Sequence[Arm],
    settings: Sequence[str],
    classes: Sequence[str],
    *,
    about: Mapping[str, Any],
    duplicates: Mapping[str, Any] | None = None,
    warnings: Sequence[str] = (),
) -> dict[str, Any]:
    """Everything that finished runs say.

    Args:
        runs: of all arms and settings.
        arms: in the order in which they are shown.
        settings: data budgets, in their order.
        classes: names of the classes.
        about: where the runs come from; kept as it is.
        duplicates: near duplicates and groups of the images, see `training.groups.Groups.report`; None where nothing is
            known of them.
        warnings: what is known already to be kept in mind.

    Returns:
        JSON values: see docs/comparison.md.
    """
    parts = [_setting(name, [run for run in runs if run.setting == name], arms, classes) for name in settings]
    results: dict[str, Any] = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "arms": [{"name": arm.name, "kind": arm.kind, "options": arm.options} for arm in arms],
        "classes": list(classes),
        "rope": ROPE,
        "level": LEVEL,
        "minimum_pairs": MINIMUM_PAIRS,
        "duplicates": dict(duplicates) if duplicates is not None else None,
        "about": dict(about),
        "settings": parts,
        "warnings": [*warnings, *_warnings(parts, runs)],
    }
    return results | {"verdict": conclude(results)}


def _setting(name: str, runs: Sequence[Run], arms: Sequence[Arm], classes: Sequence[str]) -> dict[str, Any]:
    """One data budget: every arm, and every contrast of two."""
    by_arm = {arm.name: sorted((r for r in runs if r.arm == arm.name), key=lambda r: _order(r)) for arm in arms}
    reference = next(arm.name for arm in arms if arm.kind == REFERENCE)
    finals = [run.final for run in by_arm[reference]]
    threshold = THRESHOLD_SHARE * float(np.median(finals)) if finals else None
    epochs = max((len(run.curves["validation_top1"]) for run in runs), default=0)
    pool, validation, train = ([run.images[part] for run in runs] or [0] for part in ("pool", "validation", "train"))
    ratio = float(np.mean(validation) / np.mean(pool)) if runs else 0.0
    return {
        "name": name,
        "images": {"train": _span(train), "validation": _span(validation), "pool": _span(pool)},
        "ratio": ratio,
        "epochs": epochs,
        "early_epochs": min(EARLY_EPOCHS, epochs),
        "threshold": threshold,
        "arms": {arm: _arm(found, threshold, classes) for arm, found in by_arm.items() if found},
        "contrasts": _contrasts(by_arm, contrasts(arms), ratio, threshold),
        "confusion": _confusion(by_arm, arms, classes),
        "disagreements": _disagreements(by_arm, arms, reference),
    }


def _order(run: Run) -> tuple[int, int]:
    return run.config.seed, run.config.fold or 0


def _span(values: Sequence[int]) -> list[int]:
    return [int(min(values)), int(max(values))]


def _arm(runs: Sequence[Run], threshold: float | None, classes: Sequence[str]) -> dict[str, Any]:
    """What one arm did under one budget."""
    reached = [None if threshold is None else epochs_to(run.curves["validation_top1"], threshold) for run in runs]
    tested = [float(run.test.right.mean()) for run in runs if run.test]
    answers = [run.validation for run in runs if run.validation]
    return {
        "runs": [
            {
                "seed": run.config.seed,
                "fold": run.config.fold,
                "final": run.final,
                "best": float(run.curves["validation_top1"].max()),
                "area": area(run.curves["validation_top1"]),
                "gap": float(run.curves["train_top1"][-1]) - run.final,
                "epochs_to_threshold": epoch,
                "test": float(run.test.right.mean()) if run.test else None,
                "curve": run.curves["validation_top1"].tolist(),
            }
            for run, epoch in zip(runs, reached, strict=True)
        ],
        "curves": {name: _band([run.curves[name] for run in runs]) for name in _CURVES},
        "final": _spread([run.final for run in runs]),
        "gap": _spread([float(run.curves["train_top1"][-1]) - run.final for run in runs]),
        "test": _spread(tested) if tested else None,
        "median_epochs_to_threshold": censored_median(reached),
        "never_reached": sum(epoch is None for epoch in reached),
        "recalls": recalls(answers, classes) if answers else None,
    }


def _spread(values: Sequence[float]) -> dict[str, float | None]:
    """Mean and standard deviation; one value has no standard deviation."""
    return {"mean": float(np.mean(values)), "sd": float(np.std(values, ddof=1)) if len(values) > 1 else None}


def _band(curves: Sequence[npt.NDArray[np.float64]]) -> dict[str, list[float]]:
    """Pointwise mean of curves and one standard deviation of the runs around it; runs that stopped early leave it."""
    columns = [[curve[i] for curve in curves if len(curve) > i] for i in range(max(map(len, curves)))]
    mean = [float(np.mean(column)) for column in columns]
    sd = [float(np.std(column, ddof=1)) if len(column) > 1 else 0.0 for column in columns]
    return {
        "mean": mean,
        "low": [m - s for m, s in zip(mean, sd, strict=True)],
        "high": [m + s for m, s in zip(mean, sd, strict=True)],
    }


def _contrasts(
    by_arm: Mapping[str, Sequence[Run]], wanted: Sequence[tuple[str, str]], ratio: float, threshold: float | None
) -> list[dict[str, Any]]:
    """Every contrast; p values adjusted over all contrasts of a measure."""
    found = [
        _contrast(arm, against, by_arm[arm], by_arm[against], ratio, threshold)
        for arm, against in wanted
        if by_arm[arm] and by_arm[against]
    ]
    for measure in MEASURES:
        tested = [contrast[measure] for contrast in found if contrast[measure]["statistics"]]
        adjusted = holm([part["statistics"]["p"] for part in tested])
        for part, p in zip(tested, adjusted, strict=True):
            part["p_holm"] = p
            part["verdict"] = verdict(Contrast(**part["statistics"]), p)
    single = [contrast["images"] for contrast in found if contrast["images"]]
    for part, p in zip(single, holm([part["p"] for part in single]), strict=True):
        part["p_holm"] = p
    return found


def _contrast(
    arm: str, against: str, second: Sequence[Run], first: Sequence[Run], ratio: float, threshold: float | None
) -> dict[str, Any]:
    """What is known of one arm against another, pair by pair."""
    others = {run.pair: run for run in first}
    pairs = [(others[run.pair], run) for run in second if run.pair in others]
    found: dict[str, Any] = {"arm": arm, "against": against, "pairs": len(pairs)}
    step = 1 / max((run.images["validation"] for _, run in pairs), default=1)
    for measure in MEASURES:
        a, b = (np.array([_score(pair[side], measure) for pair in pairs], np.float64) for side in (0, 1))
        told = evaluate(a, b, ratio, step=step) if len(pairs) > 1 else None
        found[measure] = {
            "differences": [
                {"seed": run.config.seed, "fold": run.config.fold, "value": value}
                for (_, run), value in zip(pairs, (b - a).tolist(), strict=True)
            ],
            # t is infinite where all differences are the same, and JSON knows no such number
            "statistics": told and asdict(told) | {"t": told.t if math.isfinite(told.t) else None},
            "p_holm": None,
            "verdict": UNDERPOWERED,
        }
    reached = [
        [None if threshold is None else epochs_to(pair[side].curves["validation_top1"], threshold) for pair in pairs]
        for side in (0, 1)
    ]
    later, earlier, level = faster(*reached)
    found["threshold"] = {"earlier": earlier, "later": later, "level": level}
    found["images"] = _per_image(*pairs[0]) if len(pairs) == 1 else None
    found["test"] = _on_test(pairs)
    return found


def _score(run: Run, measure: str) -> float:
    return run.final if measure == "final" else area(run.curves["validation_top1"])


def _per_image(first: Run, second: Run) -> dict[str, Any] | None:
    """A single pair, image by image: the networks at hand on images of this kind, not other training runs."""
    if first.validation is None or second.validation is None:
        return None
    a, b = shared_keys(first.validation, second.validation)
    if not len(a):
        return None
    right, other = first.validation.right[a], second.validation.right[b]
    only_first, only_second, p = mcnemar(right, other)
    mean, low, high = paired_bootstrap(right.astype(np.float64), other.astype(np.float64))
    return {
        "images": len(a),
        "only_against": only_first,
        "only_arm": only_second,
        "p": p,
        "p_holm": p,
        "mean": mean,
        "low": low,
        "high": high,
    }


def _on_test(pairs: Sequence[tuple[Run, Run]]) -> dict[str, Any] | None:
    """The held-out test images: how much more often the arm's networks are right about each, averaged over pairs."""
    both = [(first.test, second.test) for first, second in pairs if first.test and second.test]
    if not both or len({found.keys for pair in both for found in pair}) != 1:
        return None
    first, second = (np.mean([pair[side].right for pair in both], axis=0) for side in (0, 1))
    mean, low, high = paired_bootstrap(first, second)
    return {"images": len(first), "mean": mean, "low": low, "high": high}


def _confusion(
    by_arm: Mapping[str, Sequence[Run]], arms: Sequence[Arm], classes: Sequence[str]
) -> dict[str, Any] | None:
    """Of the best run of the first candidate, or of the reference where there is none."""
    runs = _shown(by_arm, arms)
    if not runs:
        return None
    best = max(runs, key=lambda run: run.final)
    assert best.validation is not None
    index = {name: number for number, name in enumerate(classes)}
    labels, answers = (
        np.array([index[name] for name in names], np.int64)
        for names in (best.validation.labels, best.validation.predicted)
    )
    matrix = to_json(count_pairs(labels, answers), len(classes))
    return {"arm": best.arm, "seed": best.config.seed, "fold": best.config.fold, "matrix": matrix}


def _shown(by_arm: Mapping[str, Sequence[Run]], arms: Sequence[Arm]) -> list[Run]:
    """Runs with answers of the first candidate that has any, or of the reference."""
    for kind in (CANDIDATE, REFERENCE):
        for arm in arms:
            if arm.kind == kind and (found := [run for run in by_arm[arm.name] if run.validation]):
                return found
    return []


def _disagreements(by_arm: Mapping[str, Sequence[Run]], arms: Sequence[Arm], reference: str) -> list[dict[str, Any]]:
    """Images that the reference and the first candidate disagree on in their first pair, of each kind in turn."""
    others = {run.pair: run for run in by_arm[reference] if run.validation}
    pair = next(((others[run.pair], run) for run in _shown(by_arm, arms) if run.pair in others), None)
    if pair is None or pair[0] is pair[1]:
        return []
    first, second = (run.validation for run in pair)
    assert first is not None
    assert second is not None
    a, b = shared_keys(first, second)
    gained: list[dict[str, Any]] = []
    lost: list[dict[str, Any]] = []
    for i, j in zip(a.tolist(), b.tolist(), strict=True):
        own, other = first.right[i], second.right[j]
        if own != other:
            (gained if other else lost).append(_example(first, second, i, j))
    # as they are stored they would be of one class first
    for examples in (gained, lost):
        examples.sort(key=lambda example: hashlib.sha256(example["key"].encode("utf-8", "replace")).digest())
    turns = [example for both in zip(gained, lost, strict=False) for example in both]
    rest = gained[len(lost) :] + lost[len(gained) :]
    named = {"against": reference, "arm": pair[1].arm, "seed": pair[1].config.seed, "fold": pair[1].config.fold}
    return [named | example for example in (turns + rest)[:_EXAMPLES]]


def _example(first: Answers, second: Answers, i: int, j: int) -> dict[str, Any]:
    return {
        "key": first.keys[i],
        "label": first.labels[i],
        "said_against": first.predicted[i],
        "said_arm": second.predicted[j],
    }


def _warnings(parts: Sequence[Mapping[str, Any]], runs: Sequence[Run]) -> list[str]:
    """What is to be kept in mind, as far as the runs say it."""
    found = []
    fewest = min((contrast["pairs"] for part in parts for contrast in part["contrasts"]), default=0)
    if 1 < fewest < MINIMUM_PAIRS:
        found.append(f"{fewest} pairs of runs: too few for a verdict, which takes {MINIMUM_PAIRS}; add folds")
    if fewest == 1:
        found.append(
            "a single pair of runs: what is said is about these two networks on images of this kind, and not about "
            "training again"
        )
    if runs and all(run.config.fold is None for run in runs) and fewest > 1:
        found.append("all runs share one split: intervals are about other seeds, not about other images")
    for part in parts:
        counts = {arm: len(told["runs"]) for arm, told in part["arms"].items()}
        if len(set(counts.values())) > 1:
            told = ", ".join(f"{arm} {count}" for arm, count in counts.items())
            found.append(f"{part['name']}: not every arm has every run ({told}); only whole pairs are compared")
    lengths = {len(run.curves["validation_top1"]) for run in runs if run.config.patience is None}
    if len(lengths) > 1:
        found.append(f"runs of {', '.join(map(str, sorted(lengths)))} epochs are compared: not the same budget")
    return found
