"""Maps of methods that need no network, computed where none are stored."""

from __future__ import annotations

from collections.abc import Sequence

from saliency_pipeline.assessment.inquiry import Floats
from saliency_pipeline.figures.pictures import Pixels
from saliency_pipeline.saliency.engine.answers import Answers
from saliency_pipeline.saliency.methods.method import Method
from saliency_pipeline.saliency.targets import Target


def computed_maps(method: Method, frames: Pixels, keys: Sequence[str]) -> Floats:
    """Maps (B, h, w) of a method that needs no network."""
    ask = Answers(None, frames, keys, None, Target("predicted"))  # type: ignore[arg-type]
    maps: Floats = method.maps(ask)[:, 0].numpy()
    return maps
