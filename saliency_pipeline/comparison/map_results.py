"""Results about the maps: their quality, their content by class, and how much there is to gain from better ones."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class MapQuality:
    """Quality of the maps that some arms read, in one metric of `salpipe assess`.

    Attributes:
        method: short name of their method.
        title: of the metric.
        images: number of images.
        mean: over images, with its 95 % interval from `low` to `high`; None without values.
        floor: mean of center-prior, which looks at neither image nor network.
        beats: whether the maps are better than that (sign test, p < 0.05); None where it is undefined.
    """

    method: str
    title: str
    images: int
    mean: float | None
    low: float | None
    high: float | None
    floor: float | None
    beats: bool | None


@dataclass(frozen=True)
class ClassMaps:
    """Number of images of a class, and shares of all-zero and constant maps, None for a class without images."""

    class_: str
    images: int
    zero: float | None
    constant: float | None


@dataclass(frozen=True)
class Gain:
    """Final accuracy of an arm minus that of its reference, mean over pairs with its 95 % interval, None for one pair.

    Attributes:
        arm: name of the arm.
        maps: the maps that it reads.
        mean: in [-1, 1]; 0.01 is a point.
        low: lower end of the interval.
        high: its upper end.
        share: of the gain of the oracle; None for the oracle, and where that has no gain beyond its interval.
        share_low: lower end of the 95 % interval of the share.
        share_high: its upper end.
    """

    arm: str
    maps: str
    mean: float
    low: float | None = None
    high: float | None = None
    share: float | None = None
    share_low: float | None = None
    share_high: float | None = None


@dataclass(frozen=True)
class Headroom:
    """How much a use of maps gains with true boxes or masks as maps, and the share that other maps recover.

    Attributes:
        use: name of the use.
        setting: the data budget.
        against: the reference.
        pairs: pairs of runs that all of these arms have.
        word: `headroom`, `no headroom`, `not shown`, or why there is none of these: `underpowered`, `withheld`, `leak`.
        oracle: gain with true boxes or masks.
        others: gains with other maps.
        sentence: all of it in words.
    """

    use: str
    setting: str
    against: str
    pairs: int
    word: str
    oracle: Gain
    others: tuple[Gain, ...]
    sentence: str
