"""Results of format version 2, made up from a seed, for tests of the page: no run and no analysis is needed."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from saliency_pipeline.comparison import report
from saliency_pipeline.comparison.costs import Costs
from saliency_pipeline.comparison.report import write_report
from saliency_pipeline.comparison.results import Results
from saliency_pipeline.serialization import from_json
from saliency_pipeline.statistics.confusion import count_pairs, to_json
from saliency_pipeline.statistics.contrast import evaluate, verdict
from saliency_pipeline.statistics.multiplicity import holm
from tests.gallery.test_page import Page

CLASSES = ("dress", "hat", "<b>shirt</b>")
ARMS: tuple[tuple[str, str, str], ...] = (
    ("baseline", "reference", ""),
    ("half", "candidate", ""),
    ("neutral", "candidate", ""),
    ("half-mismatched", "control", "half"),
    ("half-center-prior", "control", "half"),
    ("neutral-mismatched", "control", "neutral"),
)
PRIMARY = {"arm": "half", "against": "baseline", "measure": "final", "setting": "all images"}
SPEED_WORDS = {"better": "slower", "worse": "faster"}
MEASURES = ("final", "area", "speed")


def results(
    *,
    arms: Sequence[tuple[str, str, str]] = ARMS,
    settings: Sequence[str] = ("all images",),
    folds: int = 5,
    repeats: int = 2,
    epochs: int = 12,
    effects: Mapping[str, float] | None = None,
    classes: Sequence[str] = CLASSES,
    seed: int = 0,
    **replaced: Any,
) -> dict[str, Any]:
    """Results of arms whose curves rise to about 0.7, by an arm's effect higher.

    Args:
        arms: name, kind and candidate of each.
        replaced: top-level entries to replace.
    """
    random = np.random.default_rng(seed)
    parts = [
        _setting(name, n, arms, folds, repeats, epochs, effects or {}, classes, random)
        for n, name in enumerate(settings)
    ]
    primary = PRIMARY | {"arm": arms[1][0], "against": arms[0][0], "setting": settings[-1]}
    _decide(parts, primary)
    first = next((c["final"]["statistics"] for c in parts[-1]["contrasts"]), None)
    made = [{"repeats": repeats, "pairs": max(1, folds) * repeats, "fraction": 1.0, "level": 0.05}]
    starts = {
        name: _start(0.0 if name in ("baseline", "neutral") else 0.6 + 0.02 * n) for n, (name, *_) in enumerate(arms)
    }
    return {
        "format": "salpipe-comparison",
        "format_version": 2,
        "arms": [
            {"name": n, "kind": kind, "of": of, "reference": "", "reads_maps": kind != "reference", "options": {}}
            for n, kind, of in arms
        ],
        "classes": list(classes),
        "rope": 0.01,
        "level": 0.95,
        "minimum_pairs": 6,
        "primary": primary,
        "looks": {
            "planned": 1,
            "made": [look | {"p": first["p"] if first else None, "decided": False} for look in made],
        },
        "runs": {"finished": len(arms) * len(settings) * max(1, folds) * repeats, "planned": None},
        "leaks": [],
        "maps": [{"class": name, "images": 100, "zero": 0.0, "constant": 0.0} for name in classes],
        "duplicates": {"searched": True, "images": 12, "groups": 5, "by": None},
        "tuning": None,
        "starts": starts,
        "about": {"plan": {"folds": folds}, "source": {"model": "<i>efficientnet</i>"}, "method": "gradcam"},
        "warnings": ["<u>2 images</u> are copies"],
        "verdict": {
            "word": "undecided",
            "sentence": "half: +0.4 points vs. baseline (95 % CI −1.1 to +1.9), p = 0.42: undecided.",
            "details": [
                f"{c['arm']} vs. {c['against']}, {m}: {c[m]['verdict']}"
                for c in parts[-1]["contrasts"]
                for m in MEASURES
            ],
        },
        "settings": parts,
    } | replaced


def _setting(
    name: str,
    number: int,
    arms: Sequence[tuple[str, str, str]],
    folds: int,
    repeats: int,
    epochs: int,
    effects: Mapping[str, float],
    classes: Sequence[str],
    random: np.random.Generator,
) -> dict[str, Any]:
    """One data budget; `folds` 0 stands for the shards' own split."""
    pairs = [(repeat, fold) for repeat in range(repeats) for fold in (range(1, folds + 1) if folds else (None,))]
    shared = random.normal(0, 0.01, len(pairs))
    curves = {
        arm: np.stack(
            [
                0.3
                + 0.02 * number
                + 0.4 * (1 - np.exp(-np.arange(1, epochs + 1) / 3))
                + offset
                + effects.get(arm, 0.0)
                + random.normal(0, 0.01, epochs)
                for offset in shared
            ]
        )
        for arm, *_ in arms
    }
    reference = next(name for name, kind, _ in arms if kind == "reference")
    threshold = 0.95 * float(np.median(curves[reference][:, -1]))
    matrix = to_json(count_pairs(*random.integers(0, len(classes), (2, 60))), len(classes))
    examples = [
        {"against": reference, "arm": arms[1][0], "seed": 0, "fold": 1 if folds else None, "key": f"{n}.jpg"}
        | {
            "label": classes[n % len(classes)],
            "predicted_against": classes[0],
            "predicted_arm": classes[n % len(classes)],
        }
        for n in range(1, 5)
    ]
    return {
        "name": name,
        "images": {"train": [48, 48], "validation": [60, 60], "pool": [240, 240]},
        "ratio": 0.25,
        "epochs": epochs,
        "early_epochs": min(10, epochs),
        "threshold": {"value": threshold, "fixed": False},
        "own_split": not folds,
        "completed": True,
        "arms": {arm: _arm(pairs, curves[arm], threshold, len(classes), random) for arm, *_ in arms},
        "contrasts": [
            _contrast(arm, against, role, pairs, curves, not folds)
            for arm, against, role in _questions(arms, reference)
        ],
        "confusion": {"arm": arms[1][0], "seed": 0, "fold": 1 if folds else None, "matrix": matrix},
        "disagreements": examples,
    }


def _questions(arms: Sequence[tuple[str, str, str]], reference: str) -> list[tuple[str, str, str]]:
    candidates = [name for name, kind, _ in arms if kind == "candidate"]
    controls = [(name, of) for name, kind, of in arms if kind == "control"]
    return [
        *((name, reference, "reference") for name in candidates),
        *((of, name, "control") for name, of in controls if of),
        *((name, reference, "descriptive") for name, _ in controls),
    ]


def _arm(
    pairs: Sequence[tuple[int, int | None]],
    curves: npt.NDArray[np.float64],
    threshold: float,
    classes: int,
    random: np.random.Generator,
) -> dict[str, Any]:
    epochs = curves.shape[1]
    reached = [next((e + 1 for e, value in enumerate(curve) if value >= threshold), None) for curve in curves]
    finals, hits = curves[:, -1], [epoch for epoch in reached if epoch is not None]
    runs = [
        {"seed": seed, "fold": fold, "final": float(curve[-1]), "best": float(curve.max()), "area": float(curve.mean())}
        | {"time": _time(curve), "gap": 0.05, "epochs_to_threshold": epoch, "test": None, "curve": curve.tolist()}
        | {"epochs_trained": epochs}
        for (seed, fold), curve, epoch in zip(pairs, curves, reached, strict=True)
    ]
    times = np.array([run["time"] for run in runs], np.float64)
    return {
        "runs": runs,
        "curves": {
            "train_loss": _band(1.8 * (1 - curves)),
            "train_top1": _band(np.minimum(1, curves + 0.02 * np.arange(epochs))),
            "validation_loss": _band(2 * (1 - curves)),
            "validation_top1": _band(curves),
        },
        "final": _spread(finals),
        "gap": _spread(np.full(len(finals), 0.05)),
        "test": None,
        "time": _spread(times),
        "own_level": 0.95 * float(finals.mean()),
        "median_epochs_to_threshold": float(np.median(hits)) if 2 * len(hits) > len(reached) else None,
        "never_reached": len(reached) - len(hits),
        "recalls": random.uniform(0.5, 0.9, classes).tolist(),
        "interquartile": {"value": float(np.median(finals)), "low": float(finals.min()), "high": float(finals.max())},
    }


def _time(curve: npt.NDArray[np.float64]) -> float:
    return float(np.argmax(curve >= 0.95 * curve[-1])) + 1.0


def _spread(values: npt.NDArray[np.float64]) -> dict[str, float | None]:
    return {"mean": float(values.mean()), "sd": float(values.std(ddof=1)) if len(values) > 1 else None}


def _band(curves: npt.NDArray[np.float64]) -> dict[str, list[float]]:
    mean, sd = curves.mean(axis=0), curves.std(axis=0, ddof=min(1, len(curves) - 1))
    return {"mean": mean.tolist(), "low": (mean - sd).tolist(), "high": (mean + sd).tolist()}


def _contrast(
    arm: str,
    against: str,
    role: str,
    pairs: Sequence[tuple[int, int | None]],
    curves: Mapping[str, npt.NDArray[np.float64]],
    own_split: bool,
) -> dict[str, Any]:
    scores: dict[str, Any] = {
        "final": lambda curve: curve[-1],
        "area": lambda curve: curve[:10].mean(),
        "speed": _time,
    }
    contrast: dict[str, Any] = {"arm": arm, "against": against, "role": role, "pairs": len(pairs)}
    for measure, score in scores.items():
        first, second = (np.array([score(c) for c in curves[name]], np.float64) for name in (against, arm))
        share = float((second > first).mean())
        several = len(pairs) > 1
        contrast[measure] = {
            "differences": [
                {"seed": seed, "fold": fold, "value": float(value)}
                for (seed, fold), value in zip(pairs, second - first, strict=True)
            ],
            "statistics": asdict(evaluate(first, second, 0.25)) if several else None,
            "superiority": {"probability": share, "low": max(0, share - 0.2), "high": min(1, share + 0.2)}
            | {"word": "not significant"}
            if several
            else None,
            "crossed": {"seeds": len(pairs), "images": 60, "mean": float((second - first).mean()), "low": -0.02}
            | {"high": 0.03, "p": 0.4}
            if own_split and several and measure == "final"
            else None,
            "margin": 1.0 if measure == "speed" else 0.01,
            "family": None,
            "p_adjusted": None,
            "level": None,
            "detectable": 0.021 if several else None,
            "pairs_needed": None,
            "verdict": "underpowered",
        }
    single = {
        "images": 60,
        "only_arm": 7,
        "only_against": 3,
        "p": 0.34,
        "p_holm": 1.0,
        "mean": 0.067,
        "low": -0.03,
        "high": 0.17,
    }
    contrast["threshold"] = {"earlier": 4, "later": 3, "level": len(pairs) - 7}
    contrast["images"] = single if len(pairs) == 1 else None
    contrast["test"] = None
    return contrast


def _decide(parts: Sequence[dict[str, Any]], primary: Mapping[str, str]) -> None:
    """The primary question at its own level; the others of roles with a verdict as one Holm family."""
    family = []
    for part in parts:
        for contrast in part["contrasts"]:
            for measure in MEASURES:
                value = contrast[measure]
                if part["own_split"] and measure != "final":
                    value["verdict"] = None
                if contrast["role"] == "descriptive" or value["statistics"] is None or value["verdict"] is None:
                    continue
                place = {
                    "arm": contrast["arm"],
                    "against": contrast["against"],
                    "measure": measure,
                    "setting": part["name"],
                }
                value["family"] = "primary" if place == primary else "secondary"
                value["level"] = 0.05
                if place == primary:
                    value["p_adjusted"] = value["statistics"]["p"]
                    value["verdict"] = _word(value, measure)
                else:
                    family.append((value, measure))
    for (value, measure), p in zip(family, holm([v["statistics"]["p"] for v, _ in family]), strict=True):
        value["p_adjusted"] = p
        value["verdict"] = _word(value, measure)


def _word(value: Mapping[str, Any], measure: str) -> str:
    from saliency_pipeline.statistics.contrast import Contrast

    word = verdict(Contrast(**value["statistics"]), value["p_adjusted"])
    return SPEED_WORDS.get(word, word) if measure == "speed" else word


def _start(distance: float) -> dict[str, dict[str, float]]:
    return {
        "features": {"eval": distance, "train": 0.8 * distance},
        "logits": {"eval": 0.9 * distance, "train": 0.7 * distance},
    }


def picture(key: str) -> tuple[bytes, bytes] | None:
    file = io.BytesIO()
    Image.new("RGB", (32, 32), (90, 120, 160)).save(file, "JPEG")
    return file.getvalue(), file.getvalue()


def costs(results: Mapping[str, Any], tuned: bool = False) -> dict[str, Any]:
    arms = {
        arm["name"]: {"runs": 10, "seconds": 24.0, "seconds_per_epoch": 2.0, "reads_maps": arm["name"] != "baseline"}
        | {"tuning": {"runs": 6, "seconds": 60.0} if tuned else None}
        for arm in results["arms"]
    }
    return {"settings": {s["name"]: arms for s in results["settings"]}, "maps": {"images": 300, "seconds": 3.0}}


def written(folder: Path, results: dict[str, Any], tuned: bool = False) -> Page:
    """The page of some results."""
    return Page(write_report(folder, from_json(Results, results), from_json(Costs, costs(results, tuned)), picture))


def without_figures(folder: Path, results: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Page:
    """The page without figures, which take most of the time."""
    monkeypatch.setattr(report, "FIGURES", {})
    return written(folder, results)
