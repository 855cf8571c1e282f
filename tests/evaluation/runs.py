"""Small trained runs, and what tests change about them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from saliency_pipeline.models.trained.trained import Trained, load_trained, write_trained
from saliency_pipeline.progress import Progress
from saliency_pipeline.training.config import TrainConfig
from saliency_pipeline.training.run import train
from tests.generation import examples

TINY = TrainConfig(backbone="test_resnet", init="scratch", epochs=1, precision="fp32", lr=0.05, device="cpu")
"""A network that trains in a moment; nothing is measured."""

PHOTOGRAPHS = [
    *(f"train/cat/{number}.jpg" for number in range(4)),
    *(f"train/dog/{number}.jpg" for number in range(4, 8)),
    "validation/cat/8.jpg",
    "validation/cat/9.png",
    "validation/dog/10.jpg",
    "validation/dog/11.jpg",
]


class Notes(Progress):
    """Collects notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def find(self, part: str) -> str:
        """The one note that holds `part`."""
        (note,) = (note for note in self.notes if part in note)
        return note


def run_on(shards: Path, folder: Path, **options: Any) -> Path:
    """A run of `TINY` with some options."""
    train(shards, folder, replace(TINY, **options))
    return folder


def shards_of(images: Path, folder: Path, **options: Any) -> Path:
    """Shards of some images, by a tiny network unless the options say otherwise."""
    examples.run(images, folder, **options)
    return folder


def altered(run: Path, file: Path, **provenance: dict[str, Any]) -> Path:
    """A file of a run's network with another record of how its shards were made: other entries of its tables."""
    trained = load_trained(run)
    shards = trained.about["shards"]
    recorded = shards["provenance"]
    changed = recorded | {name: recorded.get(name, {}) | entries for name, entries in provenance.items()}
    rewrite(trained, file, trained.about | {"shards": shards | {"provenance": changed}})
    return file


def rewrite(trained: Trained, file: Path, about: dict[str, Any]) -> None:
    """The same network in another file with another record."""
    write_trained(file, trained.network, trained.spec, about)
