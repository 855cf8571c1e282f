"""Results of a comparison: results.json as frozen dataclasses, whose fields are its keys in their order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from saliency_pipeline.comparison.arms import Question
from saliency_pipeline.comparison.map_results import ClassMaps, Headroom, MapQuality
from saliency_pipeline.comparison.rules import Primary
from saliency_pipeline.statistics.confusion import Stored
from saliency_pipeline.statistics.contrast import Contrast as Statistics
from saliency_pipeline.statistics.crossed import Crossed
from saliency_pipeline.statistics.interquartile import Interquartile
from saliency_pipeline.statistics.superiority import Superiority

FORMAT, FORMAT_VERSION = "salpipe-comparison", 2


@dataclass(frozen=True)
class Verdict:
    """The answer to the primary question, as a word and as a sentence; `details` has one per further statement."""

    word: str
    sentence: str
    details: tuple[str, ...]


@dataclass(frozen=True)
class PrimaryQuestion(Primary):
    """The primary question with the arm that its candidate is compared with."""

    against: str


@dataclass(frozen=True)
class ComparedArm:
    """An arm: see `arms.Arm`. `reads_maps` is true if it is trained with saliency maps."""

    name: str
    kind: str
    of: str
    reference: str
    reads_maps: bool
    options: Mapping[str, Any]


@dataclass(frozen=True)
class Look:
    """An analysis of the primary question: repeats and pairs that count, and its test at a two-sided nominal level.

    `fraction` is the information so far over that of the last planned look, in (0, 1].
    """

    repeats: int
    pairs: int
    fraction: float
    level: float
    p: float | None
    decided: bool


@dataclass(frozen=True)
class LookResults:
    """Number of planned looks, and the looks that were made."""

    planned: int
    made: tuple[Look, ...]


@dataclass(frozen=True)
class RunCounts:
    """Number of finished runs, and of planned ones, None without a plan."""

    finished: int
    planned: int | None


@dataclass(frozen=True)
class Duplicates:
    """Near duplicates: true if searched for, images in groups, number of groups, and `--group-by`."""

    searched: bool
    images: int
    groups: int
    by: str | None


@dataclass(frozen=True)
class Tuning:
    """Learning rates to choose from, number of inner runs and of those that diverged, and the chosen rates.

    `chosen` has the number of runs by setting, arm and rate.
    """

    lrs: tuple[float, ...]
    runs: int
    diverged: int
    chosen: Mapping[str, Mapping[str, Mapping[str, int]]]


@dataclass(frozen=True)
class Modes:
    """A value with batch normalization in evaluation and in training mode."""

    eval: float
    train: float


@dataclass(frozen=True)
class Start:
    """Distance of a first network from plain transfer: relative norms of its features and logits."""

    features: Modes
    logits: Modes


@dataclass(frozen=True)
class Images:
    """Smallest and largest number of images over runs: trained on, validated on, and available for training."""

    train: tuple[int, int]
    validation: tuple[int, int]
    pool: tuple[int, int]


@dataclass(frozen=True)
class Threshold:
    """An accuracy, and true if it was chosen beforehand."""

    value: float
    fixed: bool


@dataclass(frozen=True)
class RunResult:
    """A run: its validation top-1 in several measures, and all of its `curve`, None where it was not validated.

    `gap` is training minus validation top-1; `time` counts epochs to 95 % of its own final accuracy.
    """

    seed: int
    fold: int | None
    final: float
    best: float
    area: float | None
    time: float | None
    gap: float
    epochs_to_threshold: int | None
    test: float | None
    curve: tuple[float | None, ...]
    epochs_trained: int


@dataclass(frozen=True)
class Band:
    """Pointwise mean of curves, and one standard deviation below and above it; None where not all were validated."""

    mean: tuple[float | None, ...]
    low: tuple[float | None, ...]
    high: tuple[float | None, ...]


@dataclass(frozen=True)
class Curves:
    """Curves over the epochs."""

    train_loss: Band
    train_top1: Band
    validation_loss: Band
    validation_top1: Band


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation; a single value has no standard deviation."""

    mean: float
    sd: float | None


@dataclass(frozen=True)
class ArmResult:
    """The runs of an arm under a data budget, and their summary; `recalls` are by class."""

    runs: tuple[RunResult, ...]
    curves: Curves
    final: Spread
    interquartile: Interquartile
    gap: Spread
    test: Spread | None
    own_level: float
    time: Spread | None
    median_epochs_to_threshold: float | None
    never_reached: int
    recalls: tuple[float | None, ...] | None


@dataclass(frozen=True)
class Difference:
    """The difference of a pair of runs, arm minus the arm it is compared with."""

    seed: int
    fold: int | None
    value: float


@dataclass(frozen=True)
class MeasureResult:
    """A contrast in one measure.

    Attributes:
        differences: one per pair.
        margin: half width of the region of practical equivalence, a share or an epoch.
        statistics: over pairs; None for fewer than two.
        superiority: probability that the arm is better in a pair.
        crossed: over images and seeds, on the shards' own split.
        family: `primary`, `secondary` or `untested`; None for a contrast without a verdict.
        p_adjusted: p that the verdict is made from.
        level: two-sided level of the test.
        detectable: true difference that is detected with 80 % power.
        pairs_needed: pairs that detect a difference as large as the margin.
        verdict: in a word; None for a contrast without one.
    """

    differences: tuple[Difference, ...]
    margin: float
    statistics: Statistics | None = None
    superiority: Superiority | None = None
    crossed: Crossed | None = None
    family: str | None = None
    p_adjusted: float | None = None
    level: float | None = None
    detectable: float | None = None
    pairs_needed: int | None = None
    verdict: str | None = None


@dataclass(frozen=True)
class ThresholdPairs:
    """Number of pairs in which the arm reached the threshold earlier, later, or in the same epoch."""

    earlier: int
    later: int
    level: int


@dataclass(frozen=True)
class ImageTest:
    """A single pair of runs, image by image: McNemar's test, and the mean difference with its 95 % interval."""

    images: int
    only_against: int
    only_arm: int
    p: float
    p_holm: float
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class HeldOut:
    """Mean difference on the held-out test images, averaged over pairs, with its 95 % interval."""

    images: int
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class ContrastResult(Question):
    """A contrast of two arms under one data budget."""

    pairs: int
    final: MeasureResult
    area: MeasureResult
    speed: MeasureResult
    threshold: ThresholdPairs
    images: ImageTest | None
    test: HeldOut | None

    def __getitem__(self, measure: str) -> MeasureResult:
        """The result in the measure `final`, `area` or `speed`."""
        result: MeasureResult = getattr(self, measure)
        return result


@dataclass(frozen=True)
class RunConfusion:
    """The confusion matrix of one run, see `statistics.confusion.to_json`."""

    arm: str
    seed: int
    fold: int | None
    matrix: Stored


@dataclass(frozen=True)
class Disagreement:
    """An image that the runs of a pair classify differently."""

    against: str
    arm: str
    seed: int
    fold: int | None
    key: str
    label: str
    predicted_against: str
    predicted_arm: str


@dataclass(frozen=True)
class SettingResult:
    """One data budget: the arms that have runs, and the contrasts.

    `ratio` is validation images over images to train on, 0 on the shards' own split; `area` is the mean of the
    `early_epochs`; `completed` is true if all planned runs are finished.
    """

    name: str
    images: Images
    ratio: float
    epochs: int
    early_epochs: int
    threshold: Threshold | None
    own_split: bool
    completed: bool
    arms: Mapping[str, ArmResult]
    contrasts: tuple[ContrastResult, ...]
    confusion: RunConfusion | None
    disagreements: tuple[Disagreement, ...]

    def contrast(self, arm: str, against: str) -> ContrastResult | None:
        """The contrast of two arms, None where none was made."""
        return next((each for each in self.contrasts if (each.arm, each.against) == (arm, against)), None)


@dataclass(frozen=True)
class Results:
    """results.json; see docs/comparison.md. `about` is stored as it is."""

    format: str
    format_version: int
    arms: tuple[ComparedArm, ...]
    classes: tuple[str, ...]
    rope: float
    level: float
    minimum_pairs: int
    primary: PrimaryQuestion | None
    looks: LookResults
    runs: RunCounts
    leaks: tuple[str, ...]
    maps: tuple[ClassMaps, ...] | None
    duplicates: Duplicates | None
    tuning: Tuning | None
    starts: Mapping[str, Start | None]
    about: Mapping[str, Any]
    settings: tuple[SettingResult, ...]
    warnings: tuple[str, ...]
    verdict: Verdict
    quality: tuple[MapQuality, ...] | None = None
    headroom: tuple[Headroom, ...] = ()

    def setting(self, name: str) -> SettingResult:
        """The data budget of a name; StopIteration where there is none."""
        return next(setting for setting in self.settings if setting.name == name)
