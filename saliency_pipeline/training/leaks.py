"""Leaks: labels or images of the validation and test parts that may reach a network in training, and their refusal.

Every check is per image and per map. A map's flag states if its source model was trained on the image, so that maps
of several source models, each trained on other folds, need no special treatment.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from saliency_pipeline.documents import read_object
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.generation.provenance import Provenance
from saliency_pipeline.images.record import Split as Part
from saliency_pipeline.models.trained.trained import open_trained, recorded_images
from saliency_pipeline.models.trained.training_images import ENTRY, UNKNOWN, TrainingImages
from saliency_pipeline.saliency.methods.registry import is_given
from saliency_pipeline.shards.methods import description, is_class_agnostic, stored_method
from saliency_pipeline.shards.schema import SEEN
from saliency_pipeline.training.config import LABEL_MAPS, SELF, SOURCE_IMAGES, START_IMAGES, STORED
from saliency_pipeline.training.runlog import PROVENANCE

if TYPE_CHECKING:
    from saliency_pipeline.shards.reader import ShardFolder
    from saliency_pipeline.training.config import TrainConfig

_HELD_OUT = "validation and test images"

Positions = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Leak:
    """One leak of one run.

    Attributes:
        name: one of `training.config.LEAKS`.
        subject: the option or folder at fault.
        problem: description with numbers.
        remedy: remedy for the message.
        sentence: the problem as a full sentence without numbers or paths, for reports.
        images: number of leaked images; 0 if unknown or all.
    """

    name: str
    subject: str
    problem: str
    remedy: str
    sentence: str
    images: int = 0

    @property
    def message(self) -> str:
        """The error message, one line."""
        accepted = f"or accept it with --allow-leaks {self.name}, which leaves no verdict"
        return f"{self.subject}: {self.problem}; {self.remedy}, {accepted}"


class LeakCheck:
    """Finds the leaks of runs on one folder of shards; hashes and flags are read once for all runs.

    Args:
        pairs: the shards.
        images: name of the held-out images in messages.
    """

    def __init__(self, pairs: ShardFolder, images: str = _HELD_OUT) -> None:
        self.pairs, self.images = pairs, images
        self._seen: dict[tuple[str, int], npt.NDArray[np.bool_]] = {}

    def leaks_of(
        self,
        config: TrainConfig,
        validation: Callable[[], Positions],
        start: TrainingImages | None,
        baseline: TrainingImages | None = None,
    ) -> tuple[Leak, ...]:
        """The leaks of a run.

        Args:
            config: options of the run.
            validation: returns the positions of its validation images, int64 (m,); called only if they matter.
            start: training images of the network that the run starts from; None without such a network.
            baseline: training images of the network that makes the maps (`--maps self`), None if they are unknown.

        Raises:
            IntegrityError: a shard is damaged.
        """

        def rows() -> Positions:
            test = np.flatnonzero((self.pairs.splits == Part.TEST) & (self.pairs.labels >= 0))
            return np.union1d(validation(), test)

        maps = self.source_images(config, rows, baseline)
        leaks = (self.label_maps(config), maps, self.start_images(config, rows, start))
        return tuple(leak for leak in leaks if leak is not None)

    def label_maps(self, config: TrainConfig) -> Leak | None:
        """The leak of a run that reads maps of every image's own label; maps that explain no class depend on none."""
        # uses that need maps in training alone never see those of held-out images
        if not (config.maps_at_test and reads_stored_maps(config)):
            return None
        method, target = self._method(config), Provenance.from_json(self.pairs.provenance).target
        if method is not None and is_given(method):
            target = str(description(self.pairs.provenance, method).get("target"))
        if target != "label":
            return None
        if method is not None and is_class_agnostic(self.pairs.provenance, method):
            return None
        return Leak(
            LABEL_MAPS,
            str(self.pairs.path),
            f"the maps explain every image's own label (--target label), those of {self.images} too, "
            "so that a map depends on the class to be predicted",
            "generate the shards again with --target predicted",
            "The maps explain every image's own label, so that the map of a validation or test image depends on the "
            "class to be predicted.",
        )

    def source_images(
        self, config: TrainConfig, rows: Callable[[], Positions], baseline: TrainingImages | None = None
    ) -> Leak | None:
        """The leak of a run that reads maps of held-out images on which the source model of the maps was trained.

        `rows` returns the positions of the held-out images, int64 (m,); it is called only if they matter.
        """
        if config.reads_maps and config.maps == SELF:
            return self._baseline_images(config, rows, UNKNOWN if baseline is None else baseline)
        if not reads_stored_maps(config):
            return None
        model, path = self.pairs.source.get("model"), str(self.pairs.path)
        if not _records_training_images(self.pairs.source):
            return Leak(
                SOURCE_IMAGES,
                path,
                f"the source model {model} of the maps does not record all images it was trained on, "
                f"which may be {self.images}",
                "train that model again with this version and generate the shards again",
                "The source model of the maps does not record which images it was trained on, and these may be "
                "validation or test images.",
            )
        seen = self.seen(config)
        if not seen.any() or not (count := int(seen[(chosen := rows())].sum())):
            return None
        return Leak(
            SOURCE_IMAGES,
            path,
            f"the source model {model} of the maps was trained on {count:,} of the {len(chosen):,} {self.images}",
            "generate the shards again with a model that was trained on other images",
            "The source model of the maps was trained on validation or test images.",
            count,
        )

    def _baseline_images(
        self, config: TrainConfig, rows: Callable[[], Positions], images: TrainingImages
    ) -> Leak | None:
        """The leak of a run whose maps are made by a network that was trained on held-out images."""
        subject = f"--from-baseline {config.from_baseline}"
        if len(images) and (count := int(images.contains(self.pairs.source_sha256[(chosen := rows())]).sum())):
            return Leak(
                SOURCE_IMAGES,
                subject,
                f"the network that makes the maps was trained on {count:,} of the {len(chosen):,} {self.images}",
                "use the baseline of the same fold",
                "The network that makes the maps was trained on validation or test images.",
                count,
            )
        if images.complete:
            return None
        return Leak(
            SOURCE_IMAGES,
            subject,
            f"the network that makes the maps does not record all images it was trained on, which may be {self.images}",
            "train it again with this version",
            "The network that makes the maps does not record which images it was trained on, and these may be "
            "validation or test images.",
        )

    def start_images(
        self, config: TrainConfig, rows: Callable[[], Positions], start: TrainingImages | None
    ) -> Leak | None:
        """The leak of a run that starts from a network which was trained on held-out images; see `source_images`."""
        if start is None:
            return None
        subject = f"--weights {config.weights}" if config.start is None else f"--from {config.start}"
        if len(start) and (count := int(start.contains(self.pairs.source_sha256[(chosen := rows())]).sum())):
            return Leak(
                START_IMAGES,
                subject,
                f"that network was trained on {count:,} of the {len(chosen):,} {self.images}",
                "begin with a network that was trained on other images, or use its split",
                "The network that training began with was trained on validation or test images.",
                count,
            )
        if start.complete:
            return None
        return Leak(
            START_IMAGES,
            subject,
            f"that network does not record all images it was trained on, which may be {self.images}",
            "train it again with this version",
            "The network that training began with does not record which images it was trained on, and these may be "
            "validation or test images.",
        )

    def seen(self, config: TrainConfig) -> npt.NDArray[np.bool_]:
        """Mask of the images whose maps are flagged as seen by their source model, bool (N,)."""
        method, target = self._method(config), config.map_target
        if method is None:
            return np.zeros(len(self.pairs), np.bool_)
        key = method, target if target < self.pairs.header.maps[method].targets else 0
        if key not in self._seen:
            self._seen[key] = self.pairs.flags(*key) & SEEN != 0
        return self._seen[key]

    def _method(self, config: TrainConfig) -> str | None:
        """Stored name of the method whose maps a run reads; None if it is not stored, an error when they are read."""
        if config.method is None:
            return next(iter(self.pairs.methods), None)
        try:
            return stored_method(self.pairs, config.method)
        except SalpipeError:
            return None


def refuse_leaks(
    config: TrainConfig,
    pairs: ShardFolder,
    validation: Positions,
    start: TrainingImages | None,
    baseline: TrainingImages | None = None,
) -> tuple[Leak, ...]:
    """Refuse a run with a leak that `config.allow_leaks` does not accept.

    Returns:
        The accepted leaks.

    Raises:
        SalpipeError: a leak that is not accepted.
    """
    leaks = LeakCheck(pairs).leaks_of(config, lambda: validation, start, baseline)
    if refused := [leak for leak in leaks if leak.name not in config.allow_leaks]:
        others = f" (this run also has the leak {', '.join(leak.name for leak in refused[1:])})" * (len(refused) > 1)
        raise SalpipeError(refused[0].message + others)
    return leaks


def reads_stored_maps(config: TrainConfig) -> bool:
    """Return whether a run reads maps of the shards, not only a control that is the same for all images."""
    return config.reads_maps and config.maps in STORED


def start_of(config: TrainConfig) -> TrainingImages | None:
    """Training images of the network that a run starts from; None if it starts from none of salpipe's.

    That network is the run of `--from`, or the file of `--weights` if that is the network of a run.

    Raises:
        SalpipeError: the file is damaged.
    """
    if config.init == "full" and config.start is not None:
        return open_trained(config.start).training_images()
    if config.init == "half" and config.weights not in ("default", "none"):
        return recorded_images(Path(config.weights))
    return None


def training_images(config: TrainConfig, pairs: ShardFolder, rows: Positions) -> TrainingImages:
    """Images that the network of a run is trained on: its training images and those of the network it starts from."""
    own, start = TrainingImages.of(pairs.source_sha256[rows]), start_of(config)
    return own if start is None else own | start


def leak_records(leaks: Sequence[Leak]) -> list[dict[str, Any]]:
    """Accepted leaks as `provenance.json` holds them."""
    return [asdict(leak) | {"message": leak.message} for leak in leaks]


def accepted_sentences(run: Path, config: TrainConfig) -> list[str]:
    """Sentences of the leaks that a finished run accepted; one per name if its record is not readable.

    Raises:
        SalpipeError: its `provenance.json` is damaged.
    """
    entries = read_object(run / PROVENANCE).get("leaks")
    sentences = [entry.get("sentence") if isinstance(entry, dict) else None for entry in entries or ()]
    if isinstance(entries, list) and all(isinstance(sentence, str) for sentence in sentences):
        return [str(sentence) for sentence in sentences]
    return [f"A run accepted the leak {name} (--allow-leaks)." for name in config.allow_leaks]


def _records_training_images(source: Mapping[str, Any]) -> bool:
    """Return whether the flags of the maps are complete: the source model is no network of a run, or has a record."""
    if ENTRY not in source:
        return source.get("weights") != "trained"
    return type(source[ENTRY]) is int and source[ENTRY] >= 0
