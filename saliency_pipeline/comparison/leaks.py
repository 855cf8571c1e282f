"""Leaks of a comparison: every run of its plan is checked before any is trained."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from saliency_pipeline.comparison.plan import Plan, Task
from saliency_pipeline.comparison.runs import Run
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.models.trained.training_images import TrainingImages
from saliency_pipeline.shards.reader import ShardFolder
from saliency_pipeline.training.config import TrainConfig
from saliency_pipeline.training.data.self_maps import BaselineRun
from saliency_pipeline.training.data.split import Split
from saliency_pipeline.training.leaks import (
    Leak,
    LeakCheck,
    accepted_sentences,
    start_of,
    training_images,
)
from saliency_pipeline.training.setup import split_of

_SPLIT = ("folds", "fold", "per_class", "limit", "seed", "group_by", "search_duplicates", "inner_split")
"""Options that decide the images of a run."""


class _Shards:
    """One folder of shards: its leak check, and the splits of its runs, each made once and only if asked for."""

    def __init__(self, pairs: ShardFolder) -> None:
        self.pairs, self.check = pairs, LeakCheck(pairs)
        self._splits: dict[tuple[object, ...], Split] = {}

    def split(self, config: TrainConfig) -> Split:
        """The images of a run."""
        key = tuple(getattr(config, name) for name in _SPLIT)
        if key not in self._splits:
            self._splits[key] = split_of(config, self.pairs)
        return self._splits[key]

    def leaks_of(
        self, config: TrainConfig, start: TrainingImages | None, baseline: TrainingImages | None = None
    ) -> tuple[Leak, ...]:
        """The leaks of a run; `baseline` as of `LeakCheck.leaks_of`."""
        return self.check.leaks_of(config, lambda: self.split(config).validation, start, baseline)


def refuse_leaks(plan: Plan, folder: Path, pairs: ShardFolder) -> list[str]:
    """Refuse a comparison if any of its runs, pretraining included, has a leak that is not accepted.

    Flags and hashes of the shards are read once. If no map is flagged and no run starts from a trained network, no
    split is made.

    Returns:
        For each leak that is accepted a sentence with the runs that it concerns.

    Raises:
        SalpipeError: a leak that is not accepted; the message names the runs.
    """
    compared, pretrainings, tasks = _Shards(pairs), plan.pretrainings(), plan.tasks(folder)
    sources: dict[str, _Shards] = {}
    pretrained: dict[str, TrainingImages] = {}
    starts: dict[tuple[object, ...], TrainingImages | None] = {}
    # by its name, a leak of every run that has it, with the run's arm
    concerned: dict[str, list[tuple[Leak, str]]] = {}

    def add(task: Task, leaks: Iterable[Leak]) -> None:
        for leak in leaks:
            concerned.setdefault(leak.name, []).append((leak, task.label))

    for task in pretrainings:
        source = sources.setdefault(task.shards, _Shards(ShardFolder(task.shards)))
        add(task, source.leaks_of(task.config, start_of(task.config)))
        images = training_images(task.config, source.pairs, source.split(task.config).train)
        pretrained[str((folder / task.folder).resolve())] = images
    planned = {str((folder / task.folder).resolve()): task.config for task in tasks}
    baselines: dict[str, TrainingImages] = {}

    def start(config: TrainConfig) -> TrainingImages | None:
        key = config.init, config.start, config.weights
        if key not in starts:
            trained = None if config.start is None else pretrained.get(str(Path(config.start).resolve()))
            starts[key] = start_of(config) if trained is None else trained
        return starts[key]

    def baseline(config: TrainConfig) -> TrainingImages | None:
        """Images that the run which makes the maps is, or will be, trained on."""
        if config.from_baseline is None:
            return None
        place = str(Path(config.from_baseline).resolve())
        if place not in baselines:
            if (own := planned.get(place)) is None:
                baselines[place] = BaselineRun.open(place).training_images()
            else:
                images, first = TrainingImages.of(pairs.source_sha256[compared.split(own).train]), start(own)
                baselines[place] = images if first is None else images | first
        return baselines[place]

    for task in tasks:
        add(task, compared.leaks_of(task.config, start(task.config), baseline(task.config)))
    total = len(pretrainings) + len(tasks)
    sentences = []
    for name, runs in concerned.items():
        leak = max((leak for leak, _ in runs), key=lambda leak: leak.images)
        where = f"{len(runs)} of {total} runs: {', '.join(dict.fromkeys(arm for _, arm in runs))}"
        if name not in plan.shared.allow_leaks:
            raise SalpipeError(f"{leak.message} ({where})")
        sentences.append(f"{leak.sentence.removesuffix('.')} ({where}).")
    return sentences


def accepted_leaks(runs: Iterable[Run]) -> list[str]:
    """For each leak that finished runs accepted a sentence with the arms that it concerns."""
    arms: dict[str, dict[str, None]] = {}
    for run in runs:
        for sentence in accepted_sentences(run.folder, run.config):
            arms.setdefault(sentence, {})[run.arm] = None
    return [f"{sentence.removesuffix('.')} ({', '.join(names)})." for sentence, names in arms.items()]
