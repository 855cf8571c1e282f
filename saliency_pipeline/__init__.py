"""salpipe: does knowing where to look help my network learn?

The functions below are the commands of the same name, and what they are given; they are imported when first used, so
that importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from saliency_pipeline.comparison.compare import compare
    from saliency_pipeline.comparison.config import ComparisonConfig, Execution
    from saliency_pipeline.comparison.finished_runs import compare_runs
    from saliency_pipeline.datasets.layout import ReadOptions
    from saliency_pipeline.datasets.open import read_images
    from saliency_pipeline.errors import SalpipeError
    from saliency_pipeline.evaluation.evaluate import evaluate
    from saliency_pipeline.evaluation.export import export
    from saliency_pipeline.evaluation.predict import predict
    from saliency_pipeline.fetching.fetch import fetch
    from saliency_pipeline.gallery.audit import audit
    from saliency_pipeline.gallery.page import show
    from saliency_pipeline.generation.config import GenerateConfig
    from saliency_pipeline.generation.run import generate
    from saliency_pipeline.models.source.registry import list_sources
    from saliency_pipeline.models.source.source import load_source
    from saliency_pipeline.shards.reader import ShardFolder
    from saliency_pipeline.shards.summary import inspect
    from saliency_pipeline.shards.verify import verify
    from saliency_pipeline.subsets.prepare import prepare
    from saliency_pipeline.subsets.selection import Grouping, Selection
    from saliency_pipeline.training.config import TrainConfig
    from saliency_pipeline.training.run import train

__all__ = [
    "ComparisonConfig",
    "Execution",
    "GenerateConfig",
    "Grouping",
    "ReadOptions",
    "SalpipeError",
    "Selection",
    "ShardFolder",
    "TrainConfig",
    "audit",
    "compare",
    "compare_runs",
    "evaluate",
    "export",
    "fetch",
    "generate",
    "inspect",
    "list_sources",
    "load_source",
    "predict",
    "prepare",
    "read_images",
    "show",
    "train",
    "verify",
]

_PLACES = {
    "ComparisonConfig": "comparison.config",
    "Execution": "comparison.config",
    "GenerateConfig": "generation.config",
    "Grouping": "subsets.selection",
    "ReadOptions": "datasets.layout",
    "SalpipeError": "errors",
    "Selection": "subsets.selection",
    "ShardFolder": "shards.reader",
    "TrainConfig": "training.config",
    "audit": "gallery.audit",
    "compare": "comparison.compare",
    "compare_runs": "comparison.finished_runs",
    "evaluate": "evaluation.evaluate",
    "export": "evaluation.export",
    "fetch": "fetching.fetch",
    "generate": "generation.run",
    "inspect": "shards.summary",
    "list_sources": "models.source.registry",
    "load_source": "models.source.source",
    "predict": "evaluation.predict",
    "prepare": "subsets.prepare",
    "read_images": "datasets.open",
    "show": "gallery.page",
    "train": "training.run",
    "verify": "shards.verify",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
