"""Leaks: how labels or images of the validation and test parts may reach a network in training, and their refusal.

Every check is per image and per map: which images a run validates, and which maps it reads for them. What the source
model of a map was trained on is in the map's flag, so that maps of several source models, each trained on other folds,
need nothing else here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.images.record import Split as Part
from saliency_pipeline.models.trained.trained import open_trained, recorded_images
from saliency_pipeline.models.trained.training_images import DIGEST, ENTRY, TrainingImages
from saliency_pipeline.shards.schema import SEEN
from saliency_pipeline.training.config import CENTER_PRIOR, LABEL_MAPS, SOURCE_IMAGES, START_IMAGES, UNIFORM
from saliency_pipeline.training.runlog import PROVENANCE, read_json

if TYPE_CHECKING:
    from saliency_pipeline.models.trained.training_images import Digests
    from saliency_pipeline.shards.reader import ShardFolder
    from saliency_pipeline.training.config import TrainConfig

_HELD_OUT = "validation and test images"

Positions = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Leak:
    """One leak of one run.

    Attributes:
        name: one of `training.config.LEAKS`.
        subject: the option or folder that is concerned.
        problem: what is wrong with it, with numbers.
        remedy: what to do instead.
        sentence: the problem as a full sentence without numbers or paths, for reports.
        images: number of images concerned; 0 where it is unknown, or all of them.
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
    """Finds the leaks of runs on one folder of shards; hashes and flags are read once for all of the runs.

    Args:
        pairs: the shards.
        images: what the images are called in the problems.
    """

    def __init__(self, pairs: ShardFolder, images: str = _HELD_OUT) -> None:
        self.pairs, self.images = pairs, images
        self._seen: dict[tuple[str, int], npt.NDArray[np.bool_]] = {}

    def leaks_of(
        self, config: TrainConfig, validation: Callable[[], Positions], start: TrainingImages | None
    ) -> tuple[Leak, ...]:
        """The leaks of a run.

        Args:
            config: its options.
            validation: returns the positions of its validation images, int64 (m,); called only if they matter.
            start: the images that the network it begins with was trained on; None where it begins with none.

        Raises:
            IntegrityError: a shard is damaged.
        """

        def rows() -> Positions:
            return np.union1d(validation(), self._test)

        leaks = (self.label_maps(config), self.source_images(config, rows), self.start_images(config, rows, start))
        return tuple(leak for leak in leaks if leak is not None)

    def label_maps(self, config: TrainConfig) -> Leak | None:
        """Whether the run reads maps that explain every image's own label."""
        if not reads_stored_maps(config) or self.pairs.provenance.get("target") != "label":
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

    def source_images(self, config: TrainConfig, rows: Callable[[], Positions]) -> Leak | None:
        """Whether the run reads maps of images that the source model of the maps was trained on.

        Args:
            config: its options.
            rows: returns the positions of the images that must not be among them, int64 (m,).
        """
        if not reads_stored_maps(config):
            return None
        source = self.pairs.provenance.get("source")
        source = source if isinstance(source, dict) else {}
        model, path = source.get("model"), str(self.pairs.path)
        if not _records_training_images(source):
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

    def start_images(
        self, config: TrainConfig, rows: Callable[[], Positions], start: TrainingImages | None
    ) -> Leak | None:
        """Whether the network that the run begins with was trained on images that it must not be trained on.

        Args:
            config: its options.
            rows: returns the positions of those images, int64 (m,).
            start: the images that the network was trained on; None where the run begins with none.
        """
        if start is None:
            return None
        subject = f"--weights {config.weights}" if config.start is None else f"--from {config.start}"
        if len(start) and (count := int(start.contains(self._sha256[(chosen := rows())]).sum())):
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
        """Of which images the maps that a run reads are flagged as seen by their source model, bool (N,)."""
        method, target = config.method or next(iter(self.pairs.methods), ""), config.map_target
        key = method, target if target < self.pairs.header.maps[method].targets else 0
        if key not in self._seen:
            flags = [shard.flags(method)[:, key[1]] for shard in self._shards]
            self._seen[key] = np.concatenate([np.zeros(0, np.uint8), *flags]) & SEEN != 0
        return self._seen[key]

    @property
    def _shards(self) -> list[Any]:
        return [self.pairs.shard(number) for number in range(len(self.pairs.shards))]

    @cached_property
    def _sha256(self) -> Digests:
        return np.concatenate([np.zeros((0, DIGEST), np.uint8), *(shard.source_sha256 for shard in self._shards)])

    @cached_property
    def _test(self) -> Positions:
        test = [(shard.splits == Part.TEST) & (shard.labels >= 0) for shard in self._shards]
        return np.flatnonzero(np.concatenate([np.zeros(0, np.bool_), *test]))


def leaks_of(
    config: TrainConfig, pairs: ShardFolder, validation: Positions, start: TrainingImages | None
) -> tuple[Leak, ...]:
    """The leaks of one run; see `LeakCheck.leaks_of`."""
    return LeakCheck(pairs).leaks_of(config, lambda: validation, start)


def refuse_leaks(
    config: TrainConfig, pairs: ShardFolder, validation: Positions, start: TrainingImages | None
) -> tuple[Leak, ...]:
    """Refuse a run with a leak that is not accepted by `config.allow_leaks`.

    Returns:
        The leaks that are accepted.

    Raises:
        SalpipeError: a leak that is not accepted.
    """
    leaks = leaks_of(config, pairs, validation, start)
    if refused := [leak for leak in leaks if leak.name not in config.allow_leaks]:
        others = f" (this run also has the leak {', '.join(leak.name for leak in refused[1:])})" * (len(refused) > 1)
        raise SalpipeError(refused[0].message + others)
    return leaks


def reads_stored_maps(config: TrainConfig) -> bool:
    """Whether a run reads maps of the shards, and not only a control that is the same for all images."""
    return config.arch == "modulated" and config.maps not in (CENTER_PRIOR, UNIFORM)


def start_of(config: TrainConfig) -> TrainingImages | None:
    """The images that the network with which a run begins was trained on; None where none is recorded or to record.

    That network is the run of `--from`, or the file of `--weights` where that is the network of a run.

    Raises:
        SalpipeError: the file is damaged.
    """
    if config.init == "full" and config.start is not None:
        return open_trained(config.start).training_images()
    if config.init == "half" and config.weights not in ("default", "none"):
        return recorded_images(Path(config.weights))
    return None


def training_images(config: TrainConfig, pairs: ShardFolder, rows: Positions) -> TrainingImages:
    """The images that a run's network is trained on: its training images and those of the network it begins with.

    Args:
        config: the run's options.
        pairs: its shards.
        rows: positions of its training images, int64 (n,).
    """
    digests = [np.zeros((0, DIGEST), np.uint8)]
    digests += [shard.source_sha256[there] for shard, _, there in pairs.group(rows)]
    own, start = TrainingImages.of(np.concatenate(digests)), start_of(config)
    return own if start is None else own | start


def leak_records(leaks: Sequence[Leak]) -> list[dict[str, Any]]:
    """Accepted leaks as a run's `provenance.json` keeps them."""
    return [asdict(leak) | {"message": leak.message} for leak in leaks]


def accepted_sentences(run: Path, config: TrainConfig) -> list[str]:
    """Sentences of the leaks that a finished run accepted; one for each name where its record is not readable.

    Raises:
        SalpipeError: its `provenance.json` is damaged.
    """
    entries = read_json(run / PROVENANCE).get("leaks")
    sentences = [entry.get("sentence") if isinstance(entry, dict) else None for entry in entries or ()]
    if isinstance(entries, list) and all(isinstance(sentence, str) for sentence in sentences):
        return [str(sentence) for sentence in sentences]
    return [f"A run accepted the leak {name} (--allow-leaks)." for name in config.allow_leaks]


def _records_training_images(source: Mapping[str, Any]) -> bool:
    """Whether the flags of the maps are complete: the source model is no network of a run, or all is recorded."""
    if ENTRY not in source:
        return source.get("weights") != "trained"
    return type(source[ENTRY]) is int and source[ENTRY] >= 0
