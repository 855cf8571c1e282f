"""Generate pairs of images and saliency maps, train networks on them, compare the networks.

The functions are the commands of the same name; the classes are their arguments. All are imported on first use, so that
importing the package is quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from saliency_pipeline.assessment.config import AssessConfig as AssessConfig
    from saliency_pipeline.assessment.run import assess as assess
    from saliency_pipeline.comparison.compare import compare as compare
    from saliency_pipeline.comparison.config import ComparisonConfig as ComparisonConfig
    from saliency_pipeline.comparison.config import Execution as Execution
    from saliency_pipeline.comparison.finished_runs import compare_runs as compare_runs
    from saliency_pipeline.conversion.config import ConvertConfig as ConvertConfig
    from saliency_pipeline.conversion.convert import convert as convert
    from saliency_pipeline.datasets.layout import ReadOptions as ReadOptions
    from saliency_pipeline.datasets.open import read_images as read_images
    from saliency_pipeline.errors import SalpipeError as SalpipeError
    from saliency_pipeline.evaluation.evaluate import evaluate as evaluate
    from saliency_pipeline.evaluation.export import export as export
    from saliency_pipeline.evaluation.predict import predict as predict
    from saliency_pipeline.execution.config import Workers as Workers
    from saliency_pipeline.explanation.explain import Explainer as Explainer
    from saliency_pipeline.explanation.explain import explain as explain
    from saliency_pipeline.explanation.explanation import Explanation as Explanation
    from saliency_pipeline.fetching.fetch import fetch as fetch
    from saliency_pipeline.gallery.audit import audit as audit
    from saliency_pipeline.gallery.page import show as show
    from saliency_pipeline.generation.config import GenerateConfig as GenerateConfig
    from saliency_pipeline.generation.run import generate as generate
    from saliency_pipeline.hub.pull import pull as pull
    from saliency_pipeline.hub.push import push as push
    from saliency_pipeline.models.source.registry import list_sources as list_sources
    from saliency_pipeline.models.source.source import load_source as load_source
    from saliency_pipeline.saliency.methods.listing import list_methods as list_methods
    from saliency_pipeline.shards.reader import ShardFolder as ShardFolder
    from saliency_pipeline.shards.summary import inspect as inspect
    from saliency_pipeline.shards.verify import verify as verify
    from saliency_pipeline.subsets.prepare import prepare as prepare
    from saliency_pipeline.subsets.selection import Grouping as Grouping
    from saliency_pipeline.subsets.selection import Selection as Selection
    from saliency_pipeline.training.config import TrainConfig as TrainConfig
    from saliency_pipeline.training.run import train as train

_MODULES = {
    "AssessConfig": "assessment.config",
    "ComparisonConfig": "comparison.config",
    "ConvertConfig": "conversion.config",
    "Execution": "comparison.config",
    "Explainer": "explanation.explain",
    "Explanation": "explanation.explanation",
    "GenerateConfig": "generation.config",
    "Grouping": "subsets.selection",
    "ReadOptions": "datasets.layout",
    "SalpipeError": "errors",
    "Selection": "subsets.selection",
    "ShardFolder": "shards.reader",
    "TrainConfig": "training.config",
    "Workers": "execution.config",
    "assess": "assessment.run",
    "audit": "gallery.audit",
    "compare": "comparison.compare",
    "compare_runs": "comparison.finished_runs",
    "convert": "conversion.convert",
    "evaluate": "evaluation.evaluate",
    "explain": "explanation.explain",
    "export": "evaluation.export",
    "fetch": "fetching.fetch",
    "generate": "generation.run",
    "inspect": "shards.summary",
    "list_methods": "saliency.methods.listing",
    "list_sources": "models.source.registry",
    "load_source": "models.source.source",
    "predict": "evaluation.predict",
    "prepare": "subsets.prepare",
    "pull": "hub.pull",
    "push": "hub.push",
    "read_images": "datasets.open",
    "show": "gallery.page",
    "train": "training.run",
    "verify": "shards.verify",
}
__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
