"""`Metric`: what it measures, what it needs, and its values for the images of a batch; a metric is a subclass."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt

from saliency_pipeline.settings import to_table

if TYPE_CHECKING:
    from saliency_pipeline.assessment.inquiry import Inquiry

Values = dict[str, npt.NDArray[np.float64]]
"""Values (B,) by column and curves (B, P) by name; NaN where one is undefined."""


class Cost(IntEnum):
    """What a metric needs besides the maps; each level includes those before it.

    Attributes:
        MAPS: nothing: it runs over all images of a folder.
        SCORES: the source model's scores of changed frames. From here on a sample of images is taken.
        EXPLANATIONS: maps of changed frames, by the same method.
        RANDOMIZED: maps by networks whose weights are random.
    """

    MAPS = 0
    SCORES = 1
    EXPLANATIONS = 2
    RANDOMIZED = 3


@dataclass(frozen=True)
class Column:
    """One number per image and method.

    Attributes:
        name: as in tables and JSON: lower-case letters, digits and hyphens, unique over all metrics.
        title: as on the page.
        higher: True if higher is better, False if lower is, None if neither.
        low: smallest possible value, or None.
        high: greatest possible value, or None.
        by_class: whether the mean over classes of the class means is reported, as in the metric's paper.
    """

    name: str
    title: str
    higher: bool | None
    low: float | None = 0.0
    high: float | None = 1.0
    by_class: bool = False


@dataclass(frozen=True)
class Curve:
    """A curve of P points per image and method.

    Attributes:
        name: unique over all metrics and columns.
        title: as on the page.
        horizontal: name of the horizontal axis.
        vertical: name of the vertical axis.
    """

    name: str
    title: str
    horizontal: str
    vertical: str


@dataclass(frozen=True)
class Metric(ABC):
    """A metric of the quality of maps. Subclasses are frozen dataclasses whose fields are its parameters (`setting`).

    Attributes:
        name: as in `--metric NAME[:key=value,...]`.
        columns: the numbers that it has per image; the first is its main one.
        curves: the curves that it has per image.
        cost: what it needs.
        needs_boxes: whether it compares maps with boxes of objects; images without one have no value.
        signed_only: whether it is defined for signed maps of pixels alone; others have no value.
        optional: whether it is left out unless it is requested.
        definition: in one line, with the formula.
        paper: its source.
    """

    name: ClassVar[str]
    columns: ClassVar[tuple[Column, ...]]
    curves: ClassVar[tuple[Curve, ...]] = ()
    cost: ClassVar[Cost] = Cost.MAPS
    needs_boxes: ClassVar[bool] = False
    signed_only: ClassVar[bool] = False
    optional: ClassVar[bool] = False
    definition: ClassVar[str]
    paper: ClassVar[str]

    @abstractmethod
    def values(self, ask: Inquiry) -> Values:
        """Values of all columns (B,) and curves (B, P) for the maps of one method.

        No value may depend on the other images of the batch; a column that depends on the data set is NaN here, see
        `finish`.
        """

    def finish(self, values: Values) -> Values:
        """Fill the columns that depend on the data set, which `values` leaves NaN; by default there are none.

        Called once per method, after the last batch.

        Args:
            values: all columns (N,) and curves (N, P) of all N images of a method, as `values` returned them.

        Returns:
            The same, with these columns filled; the argument is not modified.
        """
        return values

    def points(self, curve: str) -> npt.NDArray[np.float64]:
        """Horizontal positions (P,) of the points of a curve."""
        raise KeyError(curve)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of its columns and curves."""
        return *(column.name for column in self.columns), *(curve.name for curve in self.curves)

    @property
    def canonical(self) -> str:
        """Name with all parameters, sorted, as in `assess.json`."""
        parameters: Mapping[str, object] = to_table(self)
        text = ",".join(f"{key}={value}" for key, value in sorted(parameters.items()) if value is not None)
        return f"{self.name}:{text}" if text else self.name
