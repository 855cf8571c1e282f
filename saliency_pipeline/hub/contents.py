"""The files of a run or a folder of shards that `salpipe push` uploads, with their hashes."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomli_w

from saliency_pipeline.documents import MAX_BYTES, DocumentError, parse_json, parse_toml, read_object, read_regular
from saliency_pipeline.errors import IntegrityError, SalpipeError
from saliency_pipeline.files import sha256_of
from saliency_pipeline.hub.address import DATASET, MODEL
from saliency_pipeline.hub.shareable import (
    absolute_paths,
    check_shareable,
    network_without_paths,
    with_baseline,
    without_paths,
)
from saliency_pipeline.images.record import SPLITS
from saliency_pipeline.recognition import RUN, is_shards, no_run, no_shards, recognize
from saliency_pipeline.shards.manifest import MANIFEST, REJECTS, Manifest
from saliency_pipeline.shards.reader import ShardFolder
from saliency_pipeline.storage.mirror import Mirror
from saliency_pipeline.training.config import SELF

if TYPE_CHECKING:
    from saliency_pipeline.models.trained.trained import OpenedRun

# in `models.trained`, which imports torch; shards are pushed and all is pulled without it
BEST = "best.safetensors"
CARD, LISTING = "README.md", "salpipe.json"
FORMAT, FORMAT_VERSION = "salpipe-hub", "1.0"

_NUMBERS = ("metrics.jsonl", "metrics.csv", "curves.png")
_EVALUATION = re.compile(r"evaluation-[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_EVALUATED = ("evaluation.json", "per-class.csv")

ALLOWED = {
    MODEL: re.compile(
        r"README\.md|best\.safetensors|config\.toml|(?:summary|provenance)\.json|metrics\.(?:jsonl|csv)|curves\.png|"
        r"evaluation-[A-Za-z0-9][A-Za-z0-9._-]{0,99}/(?:evaluation\.json|per-class\.csv)"
    ),
    DATASET: re.compile(r"README\.md|manifest\.json|rejects\.jsonl|shard-[0-9]{5,9}\.h5"),
}
"""Names that files of a repository may have: nothing else is written by `salpipe pull`."""


@dataclass(frozen=True, eq=False)
class File:
    """A file to upload.

    Attributes:
        name: its path in the repository.
        size: size in bytes.
        sha256: SHA-256 in hexadecimal.
        data: its contents; None for a shard, which stays on disk.
        mirror: where the shard is fetched from, if it is on object storage.
        folder: folder of the shard.
    """

    name: str
    size: int
    sha256: str
    data: bytes | None = field(default=None, repr=False)
    folder: Path | None = None
    mirror: Mirror | None = None

    @classmethod
    def of(cls, name: str, data: bytes) -> File:
        """A file with some contents."""
        return cls(name, len(data), hashlib.sha256(data).hexdigest(), data)

    @contextmanager
    def opened(self) -> Iterator[bytes | str]:
        """The contents, or the path of a shard, whose bytes are compared with the manifest first.

        Raises:
            IntegrityError: the shard is damaged.
        """
        if self.data is not None:
            yield self.data
            return
        assert self.folder is not None
        path = self.folder / self.name
        if self.mirror is not None:
            with self.mirror.held(self.mirror.object(self.name, self.size, self.sha256)):
                yield str(path)
            return
        try:
            same = path.stat().st_size == self.size and sha256_of(path) == self.sha256
        except OSError as error:
            raise IntegrityError(f"{path}: {error.strerror}; run 'salpipe verify {self.folder}'") from error
        if not same:
            raise IntegrityError(f"{path}: not the bytes that {MANIFEST} lists; run 'salpipe verify {self.folder}'")
        yield str(path)


@dataclass(frozen=True, eq=False)
class Contents:
    """What is uploaded, without card and listing.

    Attributes:
        kind: kind of the repository.
        identity: what a repository must have in common with what is pushed to it: the plan of shards; empty for runs.
        files: the files.
        record: what the card describes.
    """

    kind: str
    identity: str
    files: tuple[File, ...]
    record: RunRecord | ShardsRecord

    def listing(self, files: tuple[File, ...]) -> File:
        """The list of all files with their hashes."""
        document = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "kind": self.kind,
            "identity": self.identity,
            "files": {file.name: {"bytes": file.size, "sha256": file.sha256} for file in files},
        }
        return File.of(LISTING, _json(document))


@dataclass(frozen=True, eq=False)
class RunRecord:
    """What a run records, without paths of this machine.

    Attributes:
        trained: its network, of which no tensor is read.
        about: the record of its training in the network's file.
        provenance: `provenance.json`.
        summary: `summary.json`.
        evaluations: `evaluation.json` by the name of its folder.
        curves: True if there is a plot of its metrics.
        dataset: repository that its shards were pulled from; None if that is not known.
    """

    trained: OpenedRun
    about: dict[str, Any]
    provenance: dict[str, Any]
    summary: dict[str, Any]
    evaluations: dict[str, dict[str, Any]]
    curves: bool
    dataset: str | None


@dataclass(frozen=True)
class ShardsRecord:
    """What shards record: their manifest, and the numbers of images by split and by class."""

    manifest: Manifest
    splits: dict[str, int]
    classes: dict[str, int]


def contents_of(path: Path | str) -> Contents:
    """What to upload of a run or a folder of shards.

    Raises:
        SalpipeError: it is neither, is not finished, or names paths that cannot be left out.
    """
    path = Path(path)
    if path.is_dir() and recognize(path) == RUN:
        contents = _of_run(path)
    elif path.is_dir() and is_shards(path):
        contents = _of_shards(path)
    elif not path.exists():
        raise SalpipeError(f"{path}: no such folder; give a run or a folder of shards")
    elif path.is_file():
        raise SalpipeError(f"{path}: a file; give a run or a folder of shards")
    else:
        raise no_shards(path)
    for file in contents.files:
        if file.data is not None:
            check_shareable(file.name, file.data, path)
    return contents


def _of_run(folder: Path) -> Contents:
    if not (folder / BEST).is_file() or not (folder / "summary.json").is_file():
        raise no_run(folder)
    from saliency_pipeline.models.trained.trained import open_trained

    trained = open_trained(folder)
    baseline = _pushed_baseline(trained)
    documents = {name: without_paths(read_object(folder / name)) for name in ("provenance.json", "summary.json")}
    documents["summary.json"].pop("folder", None)
    documents["provenance.json"] = with_baseline(documents["provenance.json"], baseline)
    surroundings = documents["provenance.json"].get("environment")
    if isinstance(surroundings, dict):
        surroundings.pop("platform", None)
    origin = trained.about.get("shards")
    files = [File.of(BEST, _network(trained.path, baseline))]
    files += [File.of(name, _json(document)) for name, document in documents.items()]
    files.append(File.of("config.toml", _config(folder / "config.toml")))
    files += [File.of(name, _read(folder / name)) for name in _NUMBERS if (folder / name).is_file()]
    evaluations = {}
    for place in sorted(folder.iterdir()):
        if _EVALUATION.fullmatch(place.name) and all((place / name).is_file() for name in _EVALUATED):
            evaluations[place.name] = without_paths(read_object(place / _EVALUATED[0], "salpipe evaluate"))
            files.append(File.of(f"{place.name}/{_EVALUATED[0]}", _json(evaluations[place.name])))
            files.append(File.of(f"{place.name}/{_EVALUATED[1]}", _read(place / _EVALUATED[1])))
    record = RunRecord(
        trained,
        about=with_baseline(without_paths(trained.about), baseline),
        provenance=documents["provenance.json"],
        summary=documents["summary.json"],
        evaluations=evaluations,
        curves=any(file.name == "curves.png" for file in files),
        dataset=_pulled_from(origin.get("path") if isinstance(origin, dict) else None),
    )
    return Contents(MODEL, "", tuple(files), record)


def _network(path: Path, baseline: str | None = None) -> bytes:
    return network_without_paths(_read(path, path.stat().st_size), baseline)


def _pushed_baseline(trained: OpenedRun) -> str | None:
    """SHA-256 that the network of a run's baseline has once it is pushed itself; None for other runs.

    Raises:
        SalpipeError: the baseline cannot be read.
    """
    config = trained.about.get("config")
    if not isinstance(config, dict) or config.get("maps") != SELF:
        return None
    from saliency_pipeline.evaluation.predictions import recorded_baseline

    return hashlib.sha256(_network(recorded_baseline(trained).folder / BEST)).hexdigest()


def _of_shards(folder: Path) -> Contents:
    manifest, mirror = Manifest.read(folder), Mirror.at(folder)
    if paths := sorted(set(absolute_paths(manifest.header.provenance))):
        raise SalpipeError(
            f"{folder}: its shards hold the path {paths[0]!r}, as 'salpipe generate' was called with it; they are not "
            "uploaded: generate them with a relative path"
        )
    rejects = _read(folder / REJECTS) if (folder / REJECTS).is_file() else b""
    files = [File(entry.name, entry.bytes, entry.sha256, None, folder, mirror) for entry in manifest.shards]
    files += [File.of(REJECTS, rejects), File.of(MANIFEST, _read(folder / MANIFEST))]
    pairs = ShardFolder(folder)
    counts = {name: int((pairs.splits == code).sum()) for name, code in SPLITS.items()}
    per_class = {name: int((pairs.labels == label).sum()) for label, name in enumerate(pairs.classes)}
    return Contents(DATASET, manifest.header.plan, tuple(files), ShardsRecord(manifest, counts, per_class))


def _pulled_from(place: object) -> str | None:
    """The repository that a folder of shards was pulled from; None if it was not, or is gone."""
    from saliency_pipeline.hub.pulled import Origin

    origin = Origin.read(Path(place)) if isinstance(place, str) and place else None
    return None if origin is None else origin.name


def _config(path: Path) -> bytes:
    try:
        return tomli_w.dumps(without_paths(parse_toml(_read(path)))).encode()
    except DocumentError as error:
        raise SalpipeError(f"{path}: damaged ({error}); train again") from error


def _read(path: Path, limit: int = MAX_BYTES) -> bytes:
    try:
        return read_regular(path, limit)
    except (OSError, DocumentError) as error:
        raise SalpipeError(f"cannot read {path}: {error}") from error


def _json(document: Any) -> bytes:
    return (json.dumps(document, indent=2, sort_keys=True) + "\n").encode()


@dataclass(frozen=True)
class Listed:
    """An entry of a repository's listing: size in bytes and SHA-256."""

    size: int
    sha256: str


def read_listing(data: bytes, where: str) -> tuple[str, str, dict[str, Listed]]:
    """Kind, identity and files of a repository's listing, which may come from anyone.

    Raises:
        SalpipeError: it is damaged, of a newer salpipe, or lists a file that a repository of its kind does not have.
    """
    try:
        document = parse_json(data)
        if not isinstance(document, dict) or document.get("format") != FORMAT:
            raise ValueError("not a listing of salpipe")
        if str(document.get("format_version")).split(".")[0] != FORMAT_VERSION.split(".")[0]:
            raise SalpipeError(f"{where}: pushed by a newer salpipe; upgrade salpipe")
        kind, identity, files = document["kind"], document["identity"], {}
        if kind not in ALLOWED or not isinstance(identity, str):
            raise ValueError("its kind is unknown")
        for name, entry in document["files"].items():
            size, sha256 = entry["bytes"], entry["sha256"]
            if not ALLOWED[kind].fullmatch(name):
                raise ValueError(f"it lists {name!r:.80}")
            if type(size) is not int or size < 0 or not re.fullmatch("[0-9a-f]{64}", sha256):
                raise ValueError(f"its entry of {name} is impossible")
            files[name] = Listed(size, sha256)
        return kind, identity, files
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SalpipeError(f"{where}: {LISTING} is damaged ({error}); ask its owner to push again") from error
