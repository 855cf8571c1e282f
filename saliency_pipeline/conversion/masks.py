"""Masks from maps: cut at a threshold, by Otsu's method or at a percentile; as run lengths of COCO."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from saliency_pipeline.errors import OptionError

Mask = npt.NDArray[np.bool_]

_CUT = re.compile(r"otsu|(threshold|percentile)=([0-9]+(?:\.[0-9]+)?)")


@dataclass(frozen=True)
class Cut:
    """How a map becomes a mask. Values below 0, which speak against the class, count as 0.

    Attributes:
        kind: `threshold`, pixels of at least `value` times the maximum; `otsu`, pixels above the threshold that
            separates the gray levels of the map best (N. Otsu, "A threshold selection method from gray-level
            histograms", IEEE Trans. SMC 1979); `percentile`, pixels above this percentile of all.
        value: from 0 to 1 or from 0 to 100; 0 for `otsu`.
    """

    kind: str
    value: float = 0.0

    @classmethod
    def parse(cls, text: str) -> Cut:
        """The cut that a text such as `threshold=0.4`, `otsu` or `percentile=90` names.

        Raises:
            OptionError: it is none.

        >>> Cut.parse("percentile=90")
        Cut(kind='percentile', value=90.0)
        """
        match = _CUT.fullmatch(text)
        kind, value = (match[1] or "otsu", float(match[2] or 0)) if match else ("", 0.0)
        if not match or value > (1 if kind == "threshold" else 100) or (kind == "threshold" and value == 0):
            raise OptionError(f"--cut {text}: use threshold=T with T above 0 up to 1, otsu, or percentile=P up to 100")
        return cls(kind, value)

    def __str__(self) -> str:
        return self.kind if self.kind == "otsu" else f"{self.kind}={self.value:g}"

    def mask(self, saliency: npt.NDArray[np.float32], size: int) -> Mask:
        """The pixels of a frame that a map marks.

        Args:
            saliency: (h, w), finite values of any range; enlarged bilinearly with half-pixel centers, or reduced by
                area.
            size: side S of the frame.

        Returns:
            bool (S, S); nothing for a map without positive values, or that is constant.

        >>> Cut("threshold", 0.5).mask(np.array([[0, 1], [2, 4]], np.float32), 2).tolist()
        [[False, False], [True, True]]
        """
        shrinks = max(saliency.shape) > size
        resized = cv2.resize(
            saliency.astype(np.float32), (size, size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        )
        values = np.maximum(np.asarray(resized, np.float64), 0)
        peak = values.max()
        # up-sampling rounds
        if peak <= 0 or peak - values.min() <= 1e-5 * peak:
            return np.zeros((size, size), np.bool_)
        if self.kind == "threshold":
            return np.asarray(values >= self.value * peak)
        if self.kind == "percentile":
            return np.asarray(values > np.percentile(values, self.value))
        levels = np.rint(values * (255 / peak)).astype(np.uint8)
        threshold, _ = cv2.threshold(levels, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
        return np.asarray(levels > threshold)


def run_lengths(mask: Mask) -> dict[str, Any]:
    """A mask as uncompressed run lengths of COCO: column by column, beginning with pixels outside.

    >>> run_lengths(np.array([[0, 1], [1, 1]], bool))
    {'size': [2, 2], 'counts': [1, 3]}
    """
    flat = mask.ravel(order="F")
    ends = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff(np.concatenate([[0], ends, [flat.size]])).tolist()
    return {"size": list(mask.shape), "counts": [0, *counts] if flat[0] else counts}


def box_of(mask: Mask) -> list[int]:
    """The smallest box around a mask that is not empty: x, y, width, height in pixels.

    >>> box_of(np.array([[0, 0, 0], [0, 1, 1]], bool))
    [1, 1, 2, 1]
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return [int(columns[0]), int(rows[0]), int(columns[-1] - columns[0] + 1), int(rows[-1] - rows[0] + 1)]
