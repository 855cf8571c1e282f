"""What decides a training run: every option, its default and its range, and the file that keeps them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import tomli_w

from saliency_pipeline.documents import read_toml
from saliency_pipeline.errors import OptionError, PlanMismatchError, SalpipeError
from saliency_pipeline.files import write_atomically
from saliency_pipeline.training.data.controls import MAPS, OWN
from saliency_pipeline.training.data.order import run_seed
from saliency_pipeline.training.schedule import learning_rate

CONFIG = "config.toml"
TABLE = "train"
OPTIMIZERS = ("sgd", "adamw")
PRECISIONS = ("auto", "fp32", "bf16")
CLASS_WEIGHTS = ("none", "balanced")
SPELLED = {"start": "from"}
"""Fields whose option has another name, because that name is a word of Python."""


_RANGES: dict[str, tuple[float, float]] = {
    "epochs": (1, 100_000),
    "batch_size": (1, 1 << 16),
    "lr": (1e-12, 1e4),
    "alpha": (-1e4, 1e4),
    "momentum": (0, 1),
    "weight_decay": (0, 1e3),
    "warmup": (0, 1e5),
    "step_epochs": (1, 1e5),
    "gamma": (0, 1),
    "label_smoothing": (0, 0.999),
    "clip": (1e-9, 1e9),
    "patience": (1, 1e5),
    "map_target": (0, 1 << 20),
    "per_class": (1, 1 << 40),
    "limit": (1, 1 << 40),
    "folds": (2, 1000),
    "fold": (1, 1000),
    "seed": (0, 2**32 - 1),
}
_KINDS = {
    "str": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "tuple[str, ...]": "a list of names",
}


@dataclass(frozen=True)
class TrainConfig:
    """A training run but for its shards and its folder. The defaults are the article's where it names them.

    Attributes:
        arch: `baseline`, `modulated` or `learned`; see `models.trained.two_branch`.
        backbone: the network that is fine-tuned.
        weights: its weights for `init = half`: `default` or a file.
        init: `scratch`, `half` or `full`; see `models.trained.initialize`.
        start: for `full`, a run or a file of a trained network; the option is called `--from`.
        fusion: how branches become one; see `models.trained.fusion`.
        fuse_at: where.
        alpha: weight of the skip connection.
        learn_alpha: whether it is trained.
        method: whose maps modulate; None for the first that the shards hold.
        maps: `own`, or those of a control; see `training.data.controls`.
        map_target: which of an image's maps, from 0.
        normalize: `minmax`, `max`, `p99` or `none`; see `training.data.maps`.
        augment: some of `crop`, `flip` and `color`.
        folds: number of stratified folds to split into instead of the shards' own splits.
        fold: which of them validates, from 1.
        per_class: at most so many training images a class.
        limit: at most so many training images.
        group_by: what keeps images together in folds besides duplicates: see `subsets.grouping`; None for nothing else.
        search_duplicates: whether near duplicates are searched for among the frames where the shards do not name them.
        inner_split: train on four fifths of the training images and validate on the rest, so that options can be
            chosen without the images that a fold validates.
        allow_leaks: leaks that are accepted, by name, see `training.leaks`; with any of them nothing can be concluded.
        epochs: passes over the training images.
        batch_size: images a step, over all processes together.
        optimizer: `sgd` or `adamw`.
        lr: highest learning rate.
        momentum: of SGD.
        weight_decay: of either.
        schedule: `constant`, `cosine` or `step`; see `training.schedule`.
        warmup: epochs of linear warm-up.
        step_epochs: for `step`, epochs between two falls.
        gamma: for `step`, the factor of each.
        label_smoothing: in [0, 1).
        clip: largest norm of the gradient; None for no limit.
        class_weights: `balanced` weighs every class by the inverse of its frequency.
        freeze: the backbone's layers up to this one stay as they are; None for none, `features` for all but the head.
        patience: stop after so many epochs without a better validation top-1; None to go on.
        precision: `auto`, `fp32` or `bf16`.
        device: `auto`, `cpu` or `cuda`.
        seed: of the folds; with the fold also of the first weights, the order and the augmentations.
    """

    arch: str = "modulated"
    backbone: str = "efficientnet_lite0"
    weights: str = "default"
    init: str = "half"
    start: str | None = None
    fusion: str = "multiply-skip"
    fuse_at: str = "stem"
    alpha: float = 1.0
    learn_alpha: bool = False
    method: str | None = None
    maps: str = OWN
    map_target: int = 0
    normalize: str = "minmax"
    augment: tuple[str, ...] = ("crop", "flip")
    folds: int | None = None
    fold: int | None = None
    per_class: int | None = None
    limit: int | None = None
    group_by: str | None = None
    search_duplicates: bool = True
    inner_split: bool = False
    allow_leaks: tuple[str, ...] = ()
    epochs: int = 50
    batch_size: int = 16
    optimizer: str = "sgd"
    lr: float = 1e-4
    momentum: float = 0.9
    weight_decay: float = 0.0
    schedule: str = "constant"
    warmup: float = 0.0
    step_epochs: int = 15
    gamma: float = 0.1
    label_smoothing: float = 0.0
    clip: float | None = None
    class_weights: str = "none"
    freeze: str | None = None
    patience: int | None = None
    precision: str = "auto"
    device: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        for field in fields(self):
            kinds, value = str(field.type).split(" | "), getattr(self, field.name)
            if not any(_is_a(value, kind) for kind in kinds):
                raise OptionError(f"{option(field.name)} {value!r:.80}: use {_KINDS[kinds[0]]}")
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            # written so that NaN fails as well
            if value is not None and not low <= value <= high:
                raise OptionError(f"{option(name)} {value}: use a number from {low:g} to {high:g}")
        for name, choices in (
            ("optimizer", OPTIMIZERS),
            ("precision", PRECISIONS),
            ("class_weights", CLASS_WEIGHTS),
            ("maps", MAPS),
        ):
            if getattr(self, name) not in choices:
                raise OptionError(f"{option(name)} {getattr(self, name)}: choose from {', '.join(choices)}")
        learning_rate(
            0,
            1,
            self.epochs,
            lr=self.lr,
            schedule=self.schedule,
            warmup_epochs=self.warmup,
            step_epochs=self.step_epochs,
            gamma=self.gamma,
        )
        if self.maps != OWN and self.arch != "modulated":
            raise OptionError(f"--maps {self.maps}: --arch {self.arch} reads no maps; use --arch modulated")
        if self.start is not None and self.init != "full":
            raise OptionError(f"--from {self.start}: is for --init full")

    @property
    def run_seed(self) -> int:
        """The seed of whatever this run draws but its folds."""
        return run_seed(self.seed, self.fold)

    @classmethod
    def restored(cls, values: Mapping[str, Any]) -> TrainConfig:
        """The configuration of a run from its options as files keep them.

        Raises:
            KeyError, TypeError, SalpipeError: they are no configuration.
        """
        lists = {"augment": tuple(values["augment"]), "allow_leaks": tuple(values.get("allow_leaks", ()))}
        # runs of earlier versions did not search, and their folds must be found again as they were
        return cls(**{"search_duplicates": False, **values, **lists})

    def write(self, folder: Path) -> None:
        """Keep it as `config.toml`, which `salpipe train --config` reads."""
        given = {name: value for name, value in asdict(self).items() if value is not None}
        table = {
            SPELLED.get(name, name).replace("_", "-"): list(v) if isinstance(v, tuple) else v
            for name, v in given.items()
        }
        write_atomically(folder / CONFIG, tomli_w.dumps({TABLE: table}))

    @classmethod
    def read(cls, folder: Path) -> TrainConfig | None:
        """The configuration of a run, or None where the folder holds none.

        Raises:
            SalpipeError: it cannot be read.
        """
        path = folder / CONFIG
        try:
            table = read_toml(path)[TABLE]
            back = {spelled: name for name, spelled in SPELLED.items()}
            return cls.restored({back.get(key, key).replace("-", "_"): value for key, value in table.items()})
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError, SalpipeError) as error:
            raise SalpipeError(f"{path}: damaged ({error!s:.200}); choose another output folder") from error


def _is_a(value: object, kind: str) -> bool:
    """Whether a value, which may come from a file, is of a field's kind, as `int` in `int | None`."""
    if kind == "tuple[str, ...]":
        return isinstance(value, tuple) and all(isinstance(item, str) for item in value)
    if isinstance(value, bool) or kind == "bool":
        return isinstance(value, bool) and kind == "bool"
    kinds = {"str": str, "int": int, "float": int | float, "None": type(None)}
    return isinstance(value, kinds[kind])


def option(name: str) -> str:
    """The command line's spelling of a field."""
    return f"--{SPELLED.get(name, name).replace('_', '-')}"


def check_same(folder: Path, stored: TrainConfig, given: TrainConfig) -> None:
    """Refuse to go on with another configuration; only `epochs` may differ.

    `auto` in what is given stands for whatever was chosen when the run began.

    Raises:
        PlanMismatchError: naming every option that differs.
    """
    differing = []
    for field in fields(TrainConfig):
        old, new = getattr(stored, field.name), getattr(given, field.name)
        if field.name == "method" and stored.arch == given.arch != "modulated":
            continue  # no maps are read, whosever they are
        if field.name == "device":
            new = new.partition(":")[0]  # which of the GPUs makes no difference
        if field.name != "epochs" and old != new and new not in ("auto", None):
            differing.append(f"{option(field.name)} {_shown(old)} -> {_shown(new)}")
        elif new is None and old is not None and field.name != "method":
            differing.append(f"{option(field.name)} {_shown(old)} -> none")
    if differing:
        raise PlanMismatchError(
            f"{folder} holds a run with other options ({'; '.join(differing)}); choose another output folder"
        )


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(value) or "none"
    return "none" if value is None else str(value)
