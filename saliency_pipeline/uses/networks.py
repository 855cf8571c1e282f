"""Uses that are architectures: the network itself reads the map; see `models.trained`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from saliency_pipeline.uses.use import Use


@dataclass(frozen=True)
class Architecture(Use):
    """A use that is one of `--arch`, with `--fusion` where that is decided as well."""

    at_test = True
    fusion: ClassVar[str | None] = None


@dataclass(frozen=True)
class Modulate(Architecture):
    """Modulation: a saliency branch multiplies the features of the stem, `--arch modulated` with its fusions.

    rgb * sal + alpha * rgb, with sal = sigmoid(branch(map)) (Figueroa Flores et al., Pattern Recognition 2019, arXiv
    1808.00262).
    """

    name = "modulate"
    formula = "rgb*sal + alpha*rgb after the stem, sal = sigmoid(branch(map)); see --fusion"
    paper = "arXiv:1808.00262"
    arch = "modulated"


@dataclass(frozen=True)
class Input(Architecture):
    """The map as a fourth channel of the image, `--fusion input`."""

    name = "input"
    formula = "the first convolution reads (R, G, B, map)"
    paper = ""
    arch = "modulated"
    fusion = "input"


@dataclass(frozen=True)
class Pool(Architecture):
    """Attention pooling: features are averaged with the map's weights before the head, `--arch pooled`.

    sum(w A) / sum(w), with w = the map averaged over each cell of the features A (after the spatial weights of CroW,
    Kalantidis et al., arXiv 1512.04065). A constant map is plain average pooling.
    """

    name = "pool"
    formula = "sum(w A) / sum(w) instead of mean(A) before the head, w = the map averaged over the cells of A"
    paper = "arXiv:1512.04065"
    arch = "pooled"
