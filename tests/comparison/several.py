"""Finished comparisons on several data sets, made up from a seed: as much of results.json as is read over data sets."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from saliency_pipeline.comparison.overall import Finished, overall
from saliency_pipeline.comparison.results import Results
from saliency_pipeline.serialization import from_json, to_json
from saliency_pipeline.statistics.contrast import evaluate

ARMS = (
    ("baseline", "reference", "", {"arch": "baseline"}),
    ("half", "candidate", "", {"arch": "modulated", "init": "half"}),
    ("half-mismatched", "control", "half", {"arch": "modulated", "init": "half", "maps": "mismatched"}),
)
QUESTIONS = (
    ("half", "baseline", "reference"),
    ("half", "half-mismatched", "control"),
    ("half-mismatched", "baseline", "descriptive"),
)
PRIMARY = {"arm": "half", "measure": "final", "setting": "all images", "against": "baseline"}
PAIRS = 10
LOOK = {"repeats": 2, "fraction": 1.0, "level": 0.05, "p": 0.01, "decided": True}
RUN = (
    dict.fromkeys(("best", "area", "time", "gap"), 0.5)
    | {"epochs_to_threshold": None, "test": None}
    | {
        "curve": [0.5],
        "epochs_trained": 1,
    }
)
SPREAD = {"mean": 0.5, "sd": 0.1}
BAND = {"mean": [0.5], "low": [0.5], "high": [0.5]}
ARM = {
    "curves": dict.fromkeys(("train_loss", "train_top1", "validation_loss", "validation_top1"), BAND),
    "interquartile": {"value": 0.5, "low": 0.4, "high": 0.6},
    **dict.fromkeys(("final", "gap", "time"), SPREAD),
    **dict.fromkeys(("test", "median_epochs_to_threshold", "recalls")),
    "own_level": 0.5,
    "never_reached": 0,
}


def results(
    effect: float = 0.0, seed: int = 0, *, pairs: int = PAIRS, own_split: bool = False, **replaced: Any
) -> dict[str, Any]:
    """One data set, on which `half` ends higher by `effect`; top-level entries may be replaced."""
    random = np.random.default_rng(seed)
    offsets = random.normal(0.7, 0.01, pairs)
    finals = {name: offsets + effect * (name == "half") + random.normal(0, 0.01, pairs) for name, *_ in ARMS}
    folds = [None if own_split else 1 + number % 5 for number in range(pairs)]
    return {
        "format": "salpipe-comparison",
        "format_version": 2,
        "arms": [
            {"name": name, "kind": kind, "of": of, "reference": "", "reads_maps": bool(of), "options": options}
            for name, kind, of, options in ARMS
        ],
        "classes": ["dress", "hat", "<b>shirt</b>"],
        "rope": 0.01,
        "level": 0.95,
        "minimum_pairs": 6,
        "primary": dict(PRIMARY),
        "looks": {"planned": 1, "made": [dict(LOOK, pairs=pairs)]},
        "runs": {"finished": 3 * pairs, "planned": None},
        "maps": None,
        "duplicates": None,
        "tuning": None,
        "starts": {},
        "leaks": [],
        "about": {"plan": {"hash": f"plan-{seed}", "folds": 5, "repeats": 2, "shared": {"epochs": 12, "lr": 0.005}}},
        "warnings": [],
        "verdict": {"word": "undecided", "sentence": f"half vs. baseline on <i>{seed}</i>: undecided.", "details": []},
        "settings": [
            {
                "name": "all images",
                "images": {"train": [192, 192], "validation": [48, 49], "pool": [192, 192]},
                "own_split": own_split,
                "ratio": 0.25,
                "epochs": 12,
                "early_epochs": 10,
                "threshold": None,
                "completed": True,
                "confusion": None,
                "disagreements": [],
                "arms": {
                    name: ARM
                    | {
                        "runs": [
                            RUN | {"seed": number, "fold": fold, "final": float(final)}
                            for number, (fold, final) in enumerate(zip(folds, values, strict=True))
                        ]
                    }
                    for name, values in finals.items()
                },
                "contrasts": [_contrast(finals, *question, own_split) for question in QUESTIONS],
            }
        ],
    } | replaced


def _contrast(finals: Mapping[str, Any], arm: str, against: str, role: str, own_split: bool) -> dict[str, Any]:
    values = finals[arm] - finals[against]
    statistics = asdict(evaluate(finals[against], finals[arm], 0.25)) if len(values) > 1 else None
    measured = {
        "margin": 0.01,
        "differences": [{"seed": number, "fold": None, "value": float(v)} for number, v in enumerate(values)],
        "statistics": statistics,
        "crossed": None,
        "verdict": "descriptive" if role == "descriptive" else "undecided",
    }
    final = dict(measured)
    if own_split:
        mean = float(values.mean())
        final["crossed"] = {"seeds": len(values), "images": 200, "mean": mean, "low": mean - 0.03}
        final["crossed"] |= {"high": mean + 0.03, "p": 0.5}
    # a difference of 2 epochs per 100 points
    times = {**measured, "statistics": None}
    if statistics:
        times["statistics"] = {**statistics, **{key: -2 * 100 * statistics[key] for key in ("mean", "sd")}}
        times["statistics"] |= {"low": -200 * statistics["high"], "high": -200 * statistics["low"]}
    return {"arm": arm, "against": against, "role": role, "pairs": len(values), "final": final, "area": measured} | {
        "speed": times,
        "threshold": {"earlier": 0, "later": 0, "level": len(values)},
        "images": None,
        "test": None,
    }


def finished(effects: Sequence[float], **options: Any) -> list[Finished]:
    """One data set per effect, named a, b, c and so on."""
    return [
        Finished(
            chr(97 + seed), f"../{chr(97 + seed)}/report.html", from_json(Results, results(effect, seed, **options))
        )
        for seed, effect in enumerate(effects)
    ]


def over(*effects: float, **options: Any) -> dict[str, Any]:
    """Results over data sets with these effects."""
    return to_json(overall(finished(effects, **options)))


def write(folder: Path, content: Mapping[str, Any]) -> Path:
    """A comparison's folder with nothing but its plan and results."""
    folder.mkdir(parents=True)
    (folder / "plan.json").write_text("{}")
    (folder / "results.json").write_text(json.dumps(content))
    return folder
