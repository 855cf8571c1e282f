"""Configuration of a training run: every option, defined once, and the file that stores them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from saliency_pipeline.documents import read_toml
from saliency_pipeline.errors import OptionError, PlanMismatchError, SalpipeError
from saliency_pipeline.files import write_atomically
from saliency_pipeline.models.trained.choices import ARCHS, FUSIONS, INITS, MAP_ARCHS
from saliency_pipeline.settings import (
    SEEDS,
    check_settings,
    documented,
    from_table,
    option_name,
    setting,
    settings_of,
    to_table,
)
from saliency_pipeline.training.schedule import SCHEDULES
from saliency_pipeline.training.validation import ALL, validated_epochs
from saliency_pipeline.uses.choices import USES
from saliency_pipeline.uses.networks import Architecture
from saliency_pipeline.uses.registry import find_use
from saliency_pipeline.uses.use import Use

CONFIG = "config.toml"
TABLE = "train"

OWN, MISMATCHED, SAME_CLASS, CENTER_PRIOR, UNIFORM, SHUFFLED, ORACLE, SELF = MAPS = (
    "own",
    "mismatched",
    "mismatched-same-class",
    "center-prior",
    "uniform",
    "shuffled-pixels",
    "oracle",
    "self",
)
"""Maps that a run can read; see `training.data.controls`, and for the last two `training.data.sources`."""

NO_CONTROLS = (OWN, ORACLE, SELF)
"""Maps of candidates; the others are controls."""

STORED = (OWN, MISMATCHED, SAME_CLASS, SHUFFLED)
"""Maps that are made of those of the shards."""

NORMALIZATIONS = ("minmax", "max", "p99", "none")
"""See `training.data.maps`."""

AUGMENTATIONS = ("crop", "flip", "color")
"""See `training.data.augment`."""

LABEL_MAPS, SOURCE_IMAGES, START_IMAGES = LEAKS = ("label-maps", "source-images", "start-images")
"""See `training.leaks`."""


SHARDS_PER_BATCH = 4
"""Shards that batches are drawn from at a time with `--shuffle blocks`."""

PARTS = ("train", "validation", "test", "all")
"""Parts of a data set that can be evaluated; see `training.data.split`."""


@documented
@dataclass(frozen=True)
class TrainConfig:
    """Options of a training run. The defaults are the article's where it names them."""

    arch: str = setting(
        "modulated",
        "baseline: plain transfer learning; modulated: a second branch reads the saliency map; learned: that branch "
        "reads the image instead; pooled: the map weights the last features. Follows from --use.",
        choices=ARCHS,
    )
    backbone: str = setting("efficientnet_lite0", "Network to fine-tune; see 'salpipe models'.", metavar="NAME")
    weights: str = setting("default", "Weights of the backbone (--init half).", metavar="default|PATH")
    init: str = setting(
        "half",
        "Initialization; scratch: all weights are random; half: the backbone is pretrained, the rest is random; full: "
        "all weights but the head's are those of --from.",
        choices=INITS,
    )
    start: str | None = setting(
        None, "Run, or file of a trained network, to start from (--init full).", option="from", metavar="RUN"
    )
    fusion: str = setting(
        "multiply-skip",
        f"Fusion of the branches; {'; '.join(f'{name}: {formula}' for name, formula in FUSIONS.items())}.",
        choices=tuple(FUSIONS),
    )
    fuse_at: str = setting(
        "stem",
        "Where the branches are fused: after the stem or a stage of the backbone, such as layer2.",
        metavar="stem|NAME",
    )
    alpha: float = setting(1.0, "Weight of the skip connection (--fusion multiply-skip).", range=(-1e4, 1e4))
    learn_alpha: bool = setting(False, "Train the weight of the skip connection as well.")
    use: str | None = setting(
        None,
        f"Use of the maps, with its parameters; {'; '.join(f'{name}: {text}' for name, text in USES.items())}.",
        metavar="NAME[:KEY=VALUE,...]",
        default_text="that of --arch",
    )
    method: str | None = setting(
        None,
        "Saliency method whose maps are used; parameters may be left out where one stored method has the name.",
        metavar="NAME[:KEY=VALUE,...]",
        default_text="the first in the shards",
    )
    maps: str = setting(
        OWN,
        "own: each image's map. oracle: 1 in its boxes, 0 elsewhere. self: the map that the run of --from-baseline "
        "makes. The others are controls: the map of another image, of another image of the same class, a Gaussian at "
        "the center, 1 everywhere, or the image's own map with its cells shuffled.",
        choices=MAPS,
    )
    from_baseline: str | None = setting(
        None, "Run of --arch baseline whose network makes the maps (--maps self).", metavar="RUN"
    )
    map_target: int = setting(0, "Index of the map to use per image, from 0.", range=(0, 1 << 20), metavar="N")
    normalize: str = setting(
        "minmax",
        "Normalization of each map to [0, 1]; minmax and p99: absolute values first, if the method has signed values; "
        "none: raw values.",
        choices=NORMALIZATIONS,
    )
    size: int | None = setting(
        None,
        "Side of the network's frames in pixels; smaller than those of the shards, so that --use zoom enlarges from "
        "more pixels.",
        range=(16, 4096),
        metavar="PIXELS",
        default_text="that of the shards",
    )
    augment: tuple[str, ...] = setting(
        ("crop", "flip"),
        "Random augmentation of each training image and its map; may be repeated.",
        choices=AUGMENTATIONS,
    )
    folds: int | None = setting(
        None, "Split into K stratified folds instead of the shards' own splits.", range=(2, 1000), metavar="K"
    )
    fold: int | None = setting(None, "Fold to validate on, from 1 to K.", range=(1, 1000), metavar="I")
    per_class: int | None = setting(
        None, "Maximum number of training images per class.", range=(1, 1 << 40), metavar="N"
    )
    limit: int | None = setting(None, "Maximum number of training images.", range=(1, 1 << 40), metavar="N")
    group_by: str | None = setting(
        None,
        "Keep images of one person, scene or patient in the same fold: those in whose keys REGEX matches the same "
        "text, those of one group in a table FILE of keys and groups, or those that share the N-th folder of their "
        "keys.",
        metavar="REGEX|FILE|level:N",
    )
    search_duplicates: bool = setting(
        True, "Search the frames for near duplicates if the shards do not list them, and keep them in the same fold."
    )
    inner_split: bool = setting(
        False,
        "Train on four fifths of the training images and validate on the rest, to choose options without the "
        "validation images of the fold.",
    )
    allow_leaks: tuple[str, ...] = setting(
        (),
        "Accept this leak instead of refusing to train; comparisons then give no verdict; may be repeated.",
        choices=LEAKS,
    )
    epochs: int = setting(50, "Number of epochs; may be raised later to continue the run.", range=(1, 100_000))
    shuffle: str = setting(
        "auto",
        "Order of the training images; full: any order of all images; blocks=N: batches from N shards at a time, by "
        f"default {SHARDS_PER_BATCH}, for shards on object storage that exceed the cache; auto: full, or small blocks "
        "if the frames exceed the memory.",
        metavar="auto|full|blocks[=N]",
    )
    batch_size: int = setting(16, "Training images per step, over all processes.", range=(1, 1 << 16))
    optimizer: str = setting("sgd", "Optimizer.", choices=("sgd", "adamw"))
    lr: float = setting(1e-4, "Peak learning rate.", range=(1e-12, 1e4))
    momentum: float = setting(0.9, "SGD momentum.", range=(0, 1))
    weight_decay: float = setting(0.0, "Weight decay; not applied to biases and normalization layers.", range=(0, 1e3))
    schedule: str = setting("constant", "Learning-rate schedule.", choices=SCHEDULES)
    warmup: float = setting(0.0, "Epochs of linear learning-rate warmup.", range=(0, 1e5), metavar="EPOCHS")
    step_epochs: int = setting(15, "Epochs per step (--schedule step).", range=(1, 1e5), metavar="EPOCHS")
    gamma: float = setting(0.1, "Learning-rate factor per step (--schedule step).", range=(1e-12, 1))
    label_smoothing: float = setting(0.0, "Label smoothing.", range=(0, 0.999))
    clip: float | None = setting(
        None, "Maximum gradient norm.", range=(1e-9, 1e9), metavar="NORM", default_text="no clipping"
    )
    class_weights: str = setting(
        "none", "balanced: weight classes by their inverse frequency.", choices=("none", "balanced")
    )
    freeze: str | None = setting(
        None,
        "Freeze the backbone up to and including this stage; features: train only the head and the saliency branch.",
        metavar="stem|NAME|features",
    )
    patience: int | None = setting(
        None,
        "Stop after this many validated epochs without a better validation top-1 accuracy.",
        range=(1, 1e5),
        metavar="EPOCHS",
    )
    validate: str = setting(
        ALL,
        "Epochs after which to validate, besides the last; every=N: every N-th; curve=N: the first N.",
        metavar="all|every=N|curve=N",
    )
    precision: str = setting(
        "auto",
        "Floating-point precision; auto: bf16 if it is faster and preserves the gradient, both measured.",
        choices=("auto", "fp32", "bf16"),
    )
    device: str = setting("auto", "Device to train on.", metavar="auto|cpu|cuda[:N]")
    seed: int = setting(
        0,
        "Random seed of the folds and, together with the fold index, of initialization, order and augmentation.",
        range=SEEDS,
    )

    def __post_init__(self) -> None:
        check_settings(self)
        if self.use is not None:
            self._resolve_use(self.use)
        validated_epochs(self.validate, self.epochs)
        shard_window(self.shuffle)
        if self.warmup >= self.epochs:
            raise OptionError(f"--warmup {self.warmup:g}: must be less than the {self.epochs} epochs of --epochs")
        if self.maps != OWN and not self.reads_maps:
            reader = f"--use {self.use}" if self.use else f"--arch {self.arch}"
            raise OptionError(f"--maps {self.maps}: {reader} reads no maps; use --arch modulated, or --use zoom")
        if self.from_baseline is not None and self.maps != SELF:
            raise OptionError(f"--from-baseline {self.from_baseline}: is for --maps self")
        if self.start is not None and self.init != "full":
            raise OptionError(f"--from {self.start}: is for --init full")

    def _resolve_use(self, text: str) -> None:
        """Replace `use` by its canonical name, and set the network that it trains.

        Raises:
            OptionError: no such use, or another network is requested.
        """
        use = find_use(text)
        if self.arch not in (type(self).arch, use.arch):
            raise OptionError(f"--use {text}: trains --arch {use.arch}, not {self.arch}; leave --arch out")
        fusion = use.fusion if isinstance(use, Architecture) else None
        if fusion is not None and self.fusion not in (type(self).fusion, fusion):
            raise OptionError(f"--use {text}: trains --fusion {fusion}, not {self.fusion}; leave --fusion out")
        resolved = {"arch": use.arch, "use": None if isinstance(use, Architecture) else use.canonical}
        if fusion is not None:
            resolved["fusion"] = fusion
        for name, value in resolved.items():
            # frozen, but still within its __post_init__
            object.__setattr__(self, name, value)

    @property
    def map_use(self) -> Use | None:
        """The use of maps, where it is not an architecture."""
        return None if self.use is None else find_use(self.use)

    @property
    def reads_maps(self) -> bool:
        """True if training reads maps."""
        return reads_maps(self.arch, self.use)

    @property
    def maps_at_test(self) -> bool:
        """True if the network needs maps of new images as well."""
        return self.arch in MAP_ARCHS or (self.use is not None and find_use(self.use).at_test)

    @property
    def run_seed(self) -> int:
        """Random seed of everything but the folds."""
        from saliency_pipeline.training.data.order import run_seed  # with NumPy, which --help does without

        return run_seed(self.seed, self.fold)

    @classmethod
    def restored(cls, values: Mapping[str, Any]) -> TrainConfig:
        """The configuration of a run from its stored options, by field or option name.

        Raises:
            KeyError, TypeError, SalpipeError: they are no configuration.
        """
        # runs of earlier versions did not search, and their folds must not change; every run stores `augment`
        return from_table(cls, {"search_duplicates": False, **values, "augment": values["augment"]})

    def write(self, folder: Path) -> None:
        """Store it as `config.toml`, which `salpipe train --config` reads."""
        write_atomically(folder / CONFIG, tomli_w.dumps({TABLE: to_table(self)}))

    @classmethod
    def read(cls, folder: Path) -> TrainConfig | None:
        """The configuration of a run, or None if the folder has none.

        Raises:
            SalpipeError: it cannot be read.
        """
        path = folder / CONFIG
        try:
            return cls.restored(read_toml(path)[TABLE])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError, SalpipeError) as error:
            raise SalpipeError(f"{path}: damaged ({error!s:.200}); choose another output folder") from error


def shard_window(shuffle: str) -> int | None:
    """Number of shards that a batch is drawn from with `--shuffle blocks[=N]`; None for other orders.

    Raises:
        OptionError: it is no order.

    >>> shard_window("blocks"), shard_window("blocks=2"), shard_window("full")
    (4, 2, None)
    """
    if shuffle in ("auto", "full"):
        return None
    parts = re.fullmatch("blocks(?:=([1-9][0-9]{0,5}))?", shuffle)
    if parts is None:
        raise OptionError(f"--shuffle {shuffle}: use auto, full, blocks or blocks=N, such as blocks=4")
    return int(parts[1] or SHARDS_PER_BATCH)


def reads_maps(arch: str, use: str | None) -> bool:
    """Return whether training with an architecture and a use reads maps, those of the images or of a control."""
    return arch in MAP_ARCHS or (use is not None and find_use(use).reads_maps)


def option(name: str) -> str:
    """The command line's spelling of a field.

    >>> option("start")
    '--from'
    """
    return f"--{option_name(TrainConfig, name)}"


def check_same(folder: Path, stored: TrainConfig, requested: TrainConfig) -> None:
    """Refuse to resume a run with another configuration; only `epochs` may differ.

    A requested `auto` stands for what was chosen when the run began.

    Raises:
        PlanMismatchError: naming every option that differs.
    """
    differing = []
    for name in settings_of(TrainConfig):
        old, new = getattr(stored, name), getattr(requested, name)
        if name == "method" and not stored.reads_maps and not requested.reads_maps:
            continue  # no maps are read
        if name == "device":
            new = new.partition(":")[0]  # which of the GPUs makes no difference
        if name != "epochs" and old != new and new not in ("auto", None):
            differing.append(f"{option(name)} {_shown(old)} -> {_shown(new)}")
        elif new is None and old is not None and name != "method":
            differing.append(f"{option(name)} {_shown(old)} -> none")
    if differing:
        raise PlanMismatchError(
            f"{folder} holds a run with other options ({'; '.join(differing)}); choose another output folder"
        )


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(value) or "none"
    return "none" if value is None else str(value)
