"""Files of trained networks: safetensors with a description of the network and of its training."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save
from torch import Tensor, nn

from saliency_pipeline.documents import parse_json
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.files import write_atomically
from saliency_pipeline.models.preprocessing import Preprocessing, preprocessing_from_json, preprocessing_of
from saliency_pipeline.models.source.build import skeleton
from saliency_pipeline.models.source.matching import Mismatch, compare, fill
from saliency_pipeline.models.source.registry import find_source
from saliency_pipeline.models.source.weights import State, file_sha256, open_safetensors, read_state
from saliency_pipeline.models.trained.training_images import (
    UNKNOWN,
    TrainingImages,
    describe,
    read_record,
    without_record,
)
from saliency_pipeline.models.trained.two_branch import NetworkSpec, build_network
from saliency_pipeline.recognition import no_run
from saliency_pipeline.text import one_line

BEST = "best.safetensors"
FORMAT = "salpipe-network"
FORMAT_VERSION = 1
_KEY = "salpipe"
_BACKBONE = "backbone."
LARGEST = 4096
"""Maximum side of frames in pixels: limits the memory that a file from outside can take."""


@dataclass(frozen=True, eq=False)
class Trained:
    """A trained network.

    Attributes:
        path: the file it was read from.
        spec: its specification.
        network: called as `network(images, maps)`, see `two_branch`; in eval mode, parameters frozen, on the CPU.
        preprocessing: preprocessing of frames.
        about: the file's record of its training, a JSON document: `config`, `shards`, `groups`, `initialization`,
            `scores`; parts may be missing.
        sha256: SHA-256 of the file, in hexadecimal.
        training_images: the images that the network was trained on, as far as the file records them.
    """

    path: Path
    spec: NetworkSpec
    network: nn.Module
    preprocessing: Preprocessing
    about: dict[str, Any]
    sha256: str
    training_images: TrainingImages = UNKNOWN

    @property
    def interpolation(self) -> str:
        """Interpolation of the frames it was trained on; that of the backbone if the file does not record it."""
        entry: Any = self.about
        for name in ("shards", "provenance", "source", "interpolation"):
            entry = entry.get(name) if isinstance(entry, dict) else None
        return entry if entry in ("bilinear", "bicubic") else self.preprocessing.interpolation


def trained_file(path: Path | str) -> Path | None:
    """The file of a trained network at a path: the best network of a run, or the file itself; None for neither."""
    path = Path(path)
    if path.is_dir() and (path / BEST).is_file():
        return path / BEST
    return path if path.suffix == ".safetensors" and path.is_file() else None


def write_tensors(path: Path, tensors: dict[str, Tensor], format: str, description: dict[str, Any]) -> None:
    """Write tensors and their description to one file, atomically, with bytes that depend only on them.

    Raises:
        SalpipeError: the disk is full or cannot be written; an older file is untouched then.
    """
    text = json.dumps({"format": format, "format_version": FORMAT_VERSION, **description}, sort_keys=True)
    # one entry, because the library does not fix the order of several
    write_atomically(path, save({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, {_KEY: text}))


def open_tensors(path: Path, format: str) -> tuple[State, dict[str, Any]]:
    """Open a file of `write_tensors`, without reading tensors or executing anything in it.

    Raises:
        SalpipeError: the file does not exist, is damaged, or has another format.
    """
    try:
        state, metadata = open_safetensors(path)
        description = parse_json(metadata.get(_KEY, "null"))
    except FileNotFoundError as error:
        raise SalpipeError(f"{path}: no such file") from error
    except (OSError, ValueError, SafetensorError) as error:
        raise SalpipeError(f"{path}: damaged ({one_line(error)}); train again, or use a copy") from error
    if not isinstance(description, dict) or description.get("format") != format:
        raise SalpipeError(f"{path}: not a {format} file; give a run that 'salpipe train' made")
    if description.get("format_version") != FORMAT_VERSION:
        raise SalpipeError(f"{path}: written by a newer salpipe; upgrade salpipe")
    return state, description


def write_trained(
    path: Path, network: nn.Module, spec: NetworkSpec, about: dict[str, Any], images: TrainingImages | None = None
) -> None:
    """Write a network with its specification and its training images; see `write_tensors`.

    Without `images` the file has no record of them, like files of earlier versions.
    """
    preprocessing = preprocessing_of(spec.backbone, *find_source(spec.backbone))
    description = {"spec": asdict(spec), "preprocessing": asdict(preprocessing), "about": about}
    tensors = network.state_dict()
    if images is not None:
        tensors, description = tensors | images.tensors(), description | describe(images)
    write_tensors(path, tensors, FORMAT, description)


def load_trained(path: Path | str) -> Trained:
    """Read a trained network.

    Args:
        path: a run of `salpipe train`, of which the best network is read, or a file.

    Raises:
        SalpipeError: it does not exist or is damaged.
    """
    opened = open_trained(path)
    file, spec, state = opened.path, opened.spec, opened.state
    network = build_network(spec)
    if mismatch := compare(network, state):
        raise _misfit(file, spec, mismatch)
    fill(network, read_state(file, state), file)
    network.eval().requires_grad_(False)
    images = opened.training_images()
    return Trained(file, spec, network, opened.preprocessing, opened.about, file_sha256(file), images)


@dataclass(frozen=True, eq=False)
class OpenedRun:
    """The file of a trained network, without reading tensors; attributes are those of `Trained`."""

    path: Path
    spec: NetworkSpec
    state: State
    preprocessing: Preprocessing
    about: dict[str, Any]
    _tensors: State = field(repr=False)
    _description: dict[str, Any] = field(repr=False)

    def training_images(self) -> TrainingImages:
        """Read the record of the network's training images.

        Raises:
            SalpipeError: the record is damaged.
        """
        return _record(self.path, self._tensors, self._description)


def open_trained(path: Path | str) -> OpenedRun:
    """Open a trained network and compare it with its backbone, before memory is allocated for either.

    Raises:
        SalpipeError: it does not exist or is damaged.
    """
    file = trained_file(path)
    if file is None:
        raise no_run(path)
    tensors, description = open_tensors(file, FORMAT)
    try:
        state = without_record(tensors)
        spec = _spec(description["spec"])
        preprocessing = preprocessing_from_json(description["preprocessing"])
        training = dict(description["about"])
        if not any(value.shape[:1] == (len(spec.classes),) for value in state.values()):
            raise ValueError(f"none of its tensors is for {len(spec.classes)} classes")
        if len(set(spec.classes)) < len(spec.classes):
            raise ValueError("some of its classes have the same name")
    except (KeyError, TypeError, ValueError) as error:
        raise SalpipeError(f"{file}: damaged ({one_line(error)}); train again, or use a copy") from error
    if mismatch := _compare_backbone(spec, state):
        raise _misfit(file, spec, mismatch)
    return OpenedRun(file, spec, state, preprocessing, training, tensors, description)


def recorded_images(file: Path) -> TrainingImages | None:
    """The training images of the network in a file of weights; None for a file that salpipe did not write.

    They are unknown for other files of salpipe, such as the checkpoint of a run.

    Raises:
        SalpipeError: the record is damaged.
    """
    try:
        tensors, description = open_tensors(file, FORMAT)
    except SalpipeError:
        return UNKNOWN if _is_own(file) else None
    return _record(file, tensors, description)


def _is_own(file: Path) -> bool:
    """Return whether `write_tensors` wrote a file."""
    try:
        return _KEY in open_safetensors(file)[1]
    except (OSError, ValueError, SafetensorError):
        return False


def _record(file: Path, tensors: State, description: dict[str, Any]) -> TrainingImages:
    try:
        return read_record(file, tensors, description)
    except ValueError as error:
        raise SalpipeError(f"{file}: damaged ({one_line(error)}); train again, or use a copy") from error


def _misfit(file: Path, spec: NetworkSpec, mismatch: Mismatch) -> SalpipeError:
    return SalpipeError(f"{file}: damaged, or timm has changed {spec.backbone}: {mismatch}; train again, or use a copy")


def _compare_backbone(spec: NetworkSpec, state: State) -> Mismatch:
    """Compare a file with the backbone it names, before memory is allocated for it."""
    own = skeleton(*find_source(spec.backbone), len(spec.classes))
    mismatch = compare(
        own, {name.removeprefix(_BACKBONE): v for name, v in state.items() if name.startswith(_BACKBONE)}
    )
    # the map may be a fourth channel of the first convolution
    shapes = {name: pair for name, pair in mismatch.shapes.items() if (pair[0][1:2], pair[1][1:2]) != ((3,), (4,))}
    return replace(mismatch, shapes=shapes)


def _spec(data: dict[str, Any]) -> NetworkSpec:
    kinds = {f.name: str if f.type == "str" else bool if f.type == "bool" else None for f in fields(NetworkSpec)}
    if set(data) != set(kinds):
        raise ValueError("its specification is incomplete")
    wrong = [name for name, kind in kinds.items() if kind and not isinstance(data[name], kind)]
    if wrong or type(data["size"]) is not int or type(data["alpha"]) not in (int, float):
        raise ValueError(f"its specification is of other types ({', '.join(wrong) or 'numbers'})")
    if not 1 <= data["size"] <= LARGEST:
        raise ValueError(f"its frames are of {data['size']} pixels")
    classes = tuple(data["classes"])
    if not classes or not all(isinstance(name, str) for name in classes):
        raise ValueError("its classes are not names")
    return NetworkSpec(**{**data, "classes": classes})
