"""All metrics by name, and parsing of metrics with their parameters."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from saliency_pipeline.assessment.metrics import (
    concentration,
    drops,
    imputation,
    localization,
    perturbation,
    randomization,
    robustness,
)
from saliency_pipeline.assessment.metrics.metric import Metric
from saliency_pipeline.errors import OptionError
from saliency_pipeline.parameters import with_parameters

_KINDS: tuple[type[Metric], ...] = (
    perturbation.SymmetricRelevanceGain,
    perturbation.Deletion,
    perturbation.Insertion,
    imputation.Road,
    drops.AverageDrop,
    drops.Adcc,
    localization.PointingGame,
    localization.EnergyPointingGame,
    localization.Localization,
    localization.RelevanceRankAccuracy,
    randomization.ParameterRandomization,
    randomization.EfficientRandomization,
    robustness.MaxSensitivity,
    robustness.Infidelity,
    concentration.Sparseness,
    concentration.Complexity,
    concentration.Mass,
)

METRICS = {kind.name: kind for kind in _KINDS}
"""In the order of the report."""


def find_metrics(texts: Iterable[str]) -> tuple[Metric, ...]:
    """Parse metrics as the command line has them, `NAME[:key=value,...]`, in the order of the report.

    Args:
        texts: names with parameters or without; none means all but the optional ones.

    Raises:
        OptionError: an unknown name or parameter, a value that is not permitted, or a metric named twice.
    """
    requested = list(texts) or [name for name, kind in METRICS.items() if not kind.optional]
    metrics: dict[str, Metric] = {}
    for text in dict.fromkeys(requested):
        name, colon, items = text.partition(":")
        if name not in METRICS:
            close = difflib.get_close_matches(name, METRICS, n=1)
            remedy = f"did you mean {close[0]}?" if close else f"choose from {', '.join(METRICS)}"
            raise OptionError(f"--metric {text}: unknown; {remedy}")
        if name in metrics:
            raise OptionError(f"--metric {text}: {name} is named twice; name it once")
        metrics[name] = with_parameters(METRICS[name], name, items if colon else None, "--metric")
    return tuple(metrics[name] for name in METRICS if name in metrics)
