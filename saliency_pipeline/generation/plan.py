"""The plan of a run: everything that decides the bytes of its shards, stored beside them as `plan.json`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from saliency_pipeline.documents import read_json
from saliency_pipeline.errors import OptionError, PlanMismatchError, SalpipeError
from saliency_pipeline.files import write_if_absent
from saliency_pipeline.generation.config import GenerateConfig
from saliency_pipeline.images.record import Catalogue, ImageRecord
from saliency_pipeline.models.source.own import own_sha256
from saliency_pipeline.saliency.engine.backends import BACKENDS, PRECISIONS
from saliency_pipeline.saliency.engine.layers import Layer
from saliency_pipeline.saliency.methods.registry import packages_of
from saliency_pipeline.saliency.prepared import layer_from_json
from saliency_pipeline.settings import from_table, option_name, settings_of, to_table
from saliency_pipeline.shards.schema import shard_name, to_json
from saliency_pipeline.text import shown

PLAN = "plan.json"
FORMAT = "salpipe-plan"
PASSED_OVER = "passed_over"
_SHORT = 160  # characters
_TABLES = ("settings", "resolved", "source", "methods", "data", "versions")
_TEXTS = ("layout", "sizes")
LIBRARIES = ("torch", "torchvision", "timm", "numpy", "pillow", "simplejpeg", "h5py")


@dataclass(frozen=True)
class ShardTask:
    """One shard to write: its number and the records planned for it, in order."""

    index: int
    records: tuple[ImageRecord, ...]

    @property
    def name(self) -> str:
        """The shard's file name."""
        return shard_name(self.index)


@dataclass(frozen=True)
class Choices:
    """What salpipe chose where the configuration left it open.

    Attributes:
        layers: the explained layers in the order in which they run.
        backend: one of `BACKENDS`.
        precision: one of `PRECISIONS`.
        batch_size: frames per batch.
    """

    layers: tuple[Layer, ...]
    backend: str
    precision: str
    batch_size: int

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> Choices:
        """The choices of a stored plan.

        Raises:
            KeyError, TypeError, ValueError: salpipe cannot have made them.
        """
        choices = cls(**{**stored, "layers": tuple(map(layer_from_json, stored["layers"]))})
        numbers = [choices.batch_size]
        for layer in choices.layers:
            numbers += [layer.channels, layer.prefix, *layer.grid]
        if (
            choices.backend not in BACKENDS
            or choices.precision not in PRECISIONS
            or any(len(layer.grid) != 2 for layer in choices.layers)
            or not all(type(number) is int and 0 <= number <= 1 << 20 for number in numbers)
            or not 1 <= choices.batch_size <= 1 << 14
        ):
            raise ValueError("its choices are impossible")
        return choices


@dataclass(frozen=True)
class Plan:
    """A resolved plan.

    Attributes:
        settings: the configuration, with the stored names of model, weights, methods and device.
        resolved: the choices of salpipe.
        images: classes, number and digest of the images, see `identify_images`.
        record: the rest of the provenance: source model, methods, data set, background, versions, and counts of skipped
            files. These identify nothing: a README put beside the images changes neither images nor maps.
        origin: URL and revision of a remote data set, which identify nothing but are not to change; empty for others.
        layout: name of the data set's layout, which identifies nothing: the same images may be packed in another one.
        sizes: `sizes_digest` of the images, which identifies nothing, but is not to change.
    """

    settings: GenerateConfig
    resolved: Choices
    images: Mapping[str, Any]
    record: Mapping[str, Any]
    origin: Mapping[str, str] = field(default_factory=dict)
    layout: str = ""
    sizes: str = ""

    @property
    def provenance(self) -> dict[str, Any]:
        """What is stored in every shard."""
        return {"settings": to_table(self.settings), "resolved": asdict(self.resolved), **self.record}

    @property
    def hash(self) -> str:
        """SHA-256 of everything that decides images and maps, except the contents of the images' files."""
        decides = {name: value for name, value in self.provenance.items() if name != PASSED_OVER}
        return hashlib.sha256(to_json({"images": self.images, "provenance": decides}).encode()).hexdigest()

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that identifies the plan before anything is chosen, by name; see `identity_of`."""
        record = self.record
        return identity_of(
            self.settings,
            self.images,
            {name: value for name, value in record["source"].items() if name in ("code_sha256", "weights_sha256")},
            record["data"],
            record["versions"],
            record.get("background"),
        )


def shard_tasks(catalogue: Catalogue, shard_size: int) -> list[ShardTask]:
    """The catalogue's records cut into shards of `shard_size`, in their order."""
    records = catalogue.records
    return [
        ShardTask(i, tuple(records[start : start + shard_size]))
        for i, start in enumerate(range(0, len(records), shard_size))
    ]


def identity_of(
    settings: GenerateConfig,
    images: Mapping[str, Any],
    hashes: Mapping[str, str],
    data: Mapping[str, Any],
    versions: Mapping[str, str],
    background: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Everything that identifies a plan before anything is chosen.

    Weights are identified by their hash, whatever their file is called: `hashes` has `weights_sha256`, and for one's
    own network `code_sha256`. The settings have the stored names of model, methods and device.
    """
    return {
        **compared_settings(settings),
        **hashes,
        **images,
        # so that a refusal says why the images differ; absent where all of a data set is taken as it is
        **({"selection": dict(data)} if data else {}),
        "versions": dict(versions),
        **({"background": dict(background)} if background else {}),
    }


def code_of(model: str) -> dict[str, str]:
    """The hash of the code or description of one's own network, as part of an identity; empty for a library's model."""
    code = own_sha256(model)
    return {} if code is None else {"code_sha256": code}


def compared_settings(settings: GenerateConfig) -> dict[str, Any]:
    """The settings that identify a plan, by option; those that are None as well."""
    names = {option_name(settings, name): getattr(settings, name) for name in settings_of(settings)}
    return {name: list(v) if isinstance(v, tuple) else v for name, v in names.items() if name != "weights"}


def identify_images(classes: Sequence[str], images: int, records: str) -> dict[str, Any]:
    """Classes and number of the images, and their `records_digest`."""
    return {"classes": list(classes), "images": images, "records": records}


def records_digest(catalogue: Catalogue) -> str:
    """SHA-256 of what identifies the images, however they are packed: key, label, split, boxes and group."""
    digest = hashlib.sha256()
    for record in catalogue.records:
        identity: list[object] = [record.key, record.label, record.split, record.box]
        if record.boxes:
            identity.append(record.boxes)
        if record.group >= 0:
            identity.append({"group": record.group})
        digest.update(to_json(identity).encode() + b"\n")
    return digest.hexdigest()


def sizes_digest(catalogue: Catalogue) -> str:
    """SHA-256 of the images' sizes in bytes as their layout states them: a parquet table only states means.

    Images that were replaced since a run was begun are noticed unless they have the same sizes.
    """
    digest = hashlib.sha256()
    for record in catalogue.records:
        digest.update(b"%d\n" % record.size())
    return digest.hexdigest()


def library_versions(backend: str, methods: Sequence[str] = ()) -> dict[str, str]:
    """Versions of salpipe and of the libraries that decide pixels, maps and bytes.

    Args:
        backend: its library is one of them.
        methods: names of methods, whose packages are among them.
    """
    names = {"salpipe": "saliency-pipeline", **{name: name for name in LIBRARIES}}
    versions = {name: version(distribution) for name, distribution in names.items()}
    for name in [*packages_of(methods), *(["openvino"] if backend == "openvino" else [])]:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed"
    return versions


def stored_plan(folder: Path) -> Plan | None:
    """The plan of a folder, or None where there is none.

    Raises:
        SalpipeError: where it cannot be read.
    """
    path = folder / PLAN
    try:
        data = read_json(path)
        if data["format"] != FORMAT:
            raise ValueError("not a plan of salpipe")
        plan = _from_json(data)
        if data["plan"] != plan.hash:
            raise ValueError("its hash is not that of its contents")
        return plan
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, OptionError) as error:
        raise SalpipeError(
            f"{path}: damaged or not a plan ({type(error).__name__}: {error!s:.80}); choose another output folder, or "
            "remove it and run the command that made the folder again"
        ) from error


def _from_json(data: Any) -> Plan:
    images, provenance, origin = data["images"], data["provenance"], data.get("origin", {})
    texts = {name: data.get(name, "") for name in _TEXTS}
    if not all(isinstance(text, str) for text in texts.values()):
        raise TypeError("its layout or sizes are not strings")
    if not all(isinstance(part, dict) for part in (images, *(provenance[name] for name in _TABLES))):
        raise TypeError("a part of it is not a table")
    if origin and not (isinstance(origin, dict) and all(isinstance(origin.get(k), str) for k in ("url", "revision"))):
        raise TypeError("its origin is none")
    record = {name: value for name, value in provenance.items() if name not in ("settings", "resolved")}
    settings = from_table(GenerateConfig, provenance["settings"])
    plan = Plan(settings, Choices.from_json(provenance["resolved"]), images, record, origin, **texts)
    if not isinstance(plan.identity["weights_sha256"], str):
        raise TypeError("its weights have no hash")
    return plan


def check_same_plan(folder: Path, stored: Plan, identity: Mapping[str, Any]) -> None:
    """Refuse to mix shards of different plans.

    Raises:
        PlanMismatchError: naming every entry in which `identity` differs from that of the stored plan.
    """
    differences = [f"{name} {old} -> {new}" for name, old, new in _differences(stored.identity, identity)]
    if differences:
        raise PlanMismatchError(
            f"{folder} holds the shards of another plan ({'; '.join(differences)}); choose another output folder"
        )


def check_same_origin(folder: Path, stored: Plan, origin: Mapping[str, str]) -> None:
    """Refuse a remote data set that has changed, or whose branch was resolved to another commit by another run.

    Raises:
        PlanMismatchError: it is at the same URL as that of the stored plan, but another revision.
    """
    before = stored.origin
    if before and origin and before["url"] == origin["url"] and before["revision"] != origin["revision"]:
        raise PlanMismatchError(
            f"{folder}: begun with revision {before['revision'][:12]} of {before['url']}, which is now "
            f"{origin['revision'][:12]}; run the same command again, or choose another output folder"
        )


def check_same_sizes(folder: Path, stored: Plan, layout: str, sizes: str) -> None:
    """Refuse images that may have been replaced.

    Raises:
        PlanMismatchError: their sizes are not those of the stored plan, or cannot be compared, as layouts differ.
    """
    if stored.layout != layout:
        raise PlanMismatchError(
            f"{folder} was begun with the same images in layout {shown(stored.layout)} instead of {layout}; choose "
            "another output folder"
        )
    if stored.sizes != sizes:
        raise PlanMismatchError(
            f"{folder} was begun with files of other sizes under the same names; restore them, or choose another "
            "output folder"
        )


def _differences(old: Mapping[str, object], new: Mapping[str, object], prefix: str = "") -> list[tuple[str, str, str]]:
    differences = []
    for name in dict.fromkeys([*old, *new]):
        a, b = old.get(name), new.get(name)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            differences += _differences(a, b, f"{prefix}{name}.")
        elif a != b:
            differences.append((prefix + name, *_shortened(name, a, b)))
    return differences


def _shortened(name: str, a: object, b: object) -> tuple[str, str]:
    if name in ("records", "weights_sha256", "code_sha256", "sha256"):
        return str(a)[:8], str(b)[:8]
    if isinstance(a, list) and isinstance(b, list) and len(str(a) + str(b)) > _SHORT:
        gone, new = ([item for item in one if item not in other] for one, other in ((a, b), (b, a)))
        if not gone and not new:
            return f"({len(a)})", f"({len(b)} in another order)"
        if len(str(gone) + str(new)) > _SHORT:
            return f"({len(a)})", f"({len(b)} others)"
        # what they have in common says nothing
        return _with(a, gone), _with(b, new)
    return str(a), str(b)


def _with(values: Sequence[object], own: Sequence[object]) -> str:
    return f"({len(values)} with {', '.join(map(str, own))})" if own else f"({len(values)})"


def store_plan(folder: Path, plan: Plan) -> Plan:
    """Write the plan beside the shards, unless another job of the same array was first; the stored one is returned."""
    document = {"format": FORMAT, "plan": plan.hash, "images": plan.images, "provenance": plan.provenance}
    document |= {name: value for name in _TEXTS if (value := getattr(plan, name))}
    if plan.origin:
        document["origin"] = dict(plan.origin)
    write_if_absent(folder / PLAN, json.dumps(document, indent=2, sort_keys=True) + "\n")
    stored = stored_plan(folder)
    assert stored is not None
    return stored
