"""The plan of a run: everything that decides the bytes of its shards, and how it is kept beside them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from saliency_pipeline.documents import read_json
from saliency_pipeline.errors import PlanMismatchError, SalpipeError
from saliency_pipeline.files import write_if_absent
from saliency_pipeline.images.decode import DEFAULT_MAX_PIXELS
from saliency_pipeline.images.record import Catalogue, ImageRecord
from saliency_pipeline.shards.schema import shard_name, to_json

PLAN = "plan.json"
FORMAT = "salpipe-plan"
PASSED_OVER = "passed_over"
LIBRARIES = ("torch", "torchvision", "timm", "numpy", "pillow", "simplejpeg", "h5py")


@dataclass(frozen=True)
class Request:
    """What the user asked for, as far as it decides what is stored. `None` and `auto` leave a choice to salpipe.

    Attributes:
        model: name of the source model.
        weights: `default`, `none` or a file.
        layer: the explained layer.
        methods: saliency methods, in the order asked for.
        target: `predicted`, `label`, `top:K`, a class index or a class name.
        size: side of the frame in pixels.
        fit: `crop`, `pad` or `squash`.
        encoding: `raw` or `jpeg`.
        jpeg_quality: 1 to 100.
        shard_size: images a shard.
        batch_size: images computed together.
        precision: `auto`, `fp32` or `bf16`.
        backend: `auto`, `torch`, `compile` or `openvino`.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        max_pixels: images with more are rejected.
    """

    model: str = "efficientnet_lite0"
    weights: str = "default"
    layer: str | None = None
    methods: tuple[str, ...] = ("gradcam",)
    target: str = "predicted"
    size: int | None = None
    fit: str = "crop"
    encoding: str = "raw"
    jpeg_quality: int = 95
    shard_size: int = 1024
    batch_size: int | None = None
    precision: str = "auto"
    backend: str = "auto"
    device: str = "auto"
    max_pixels: int = DEFAULT_MAX_PIXELS


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
class Plan:
    """A resolved plan.

    Attributes:
        fields: what was asked and found, by name: a run with any of them different is another plan.
        resolved: what salpipe chose where it was asked to: layer, back end, precision, batch size.
        provenance: what is stored in every shard.

    What was passed over stands in the provenance and identifies nothing: a README put beside the images changes
    neither images nor maps, so that it must neither refuse the rest of a run nor make another plan of the same images.
    """

    fields: dict[str, Any]
    resolved: dict[str, Any]
    provenance: dict[str, Any]

    @property
    def hash(self) -> str:
        """SHA-256 of everything that decides images and maps."""
        decides = {name: value for name, value in self.provenance.items() if name != PASSED_OVER}
        return hashlib.sha256(to_json({**asdict(self), "provenance": decides}).encode()).hexdigest()


def shard_tasks(catalogue: Catalogue, shard_size: int) -> list[ShardTask]:
    """The catalogue's records cut into shards of `shard_size`, in their order."""
    records = catalogue.records
    return [
        ShardTask(i, tuple(records[start : start + shard_size]))
        for i, start in enumerate(range(0, len(records), shard_size))
    ]


def plan_fields(
    request: Request, catalogue: Catalogue, weights_sha256: str, records: str | None = None
) -> dict[str, Any]:
    """Everything that identifies a plan before anything is chosen.

    Images are known by their digest, weights by their hash, whatever their file is called.

    Args:
        request: what is asked for, with the names that model, methods and device have.
        catalogue: the images.
        weights_sha256: of the source model.
        records: the images' digest, where it is known already.
    """
    return {
        **{name: list(v) if isinstance(v, tuple) else v for name, v in asdict(request).items() if name != "weights"},
        "weights_sha256": weights_sha256,
        "classes": list(catalogue.classes),
        "images": len(catalogue),
        "records": records or records_digest(catalogue),
        # so that a refusal says why the images are others; absent where all of a data set is taken as it comes
        **({"selection": dict(catalogue.taken)} if catalogue.taken else {}),
        "versions": library_versions(),
    }


def records_digest(catalogue: Catalogue) -> str:
    """SHA-256 of what is known of all images: key, label, split, boxes, group and size in bytes.

    An image that changed its content without changing its size is not noticed.
    """
    digest = hashlib.sha256()
    for record in catalogue.records:
        known: list[Any] = [record.key, record.label, record.split, record.box, record.size()]
        if record.boxes:
            known.append(record.boxes)
        if record.group >= 0:
            known.append({"group": record.group})
        digest.update(to_json(known).encode() + b"\n")
    return digest.hexdigest()


def library_versions() -> dict[str, str]:
    """Versions of salpipe and of the libraries that decide pixels, maps and bytes."""
    names = {"salpipe": "saliency-pipeline", **{name: name for name in LIBRARIES}}
    return {name: version(distribution) for name, distribution in names.items()}


def with_backend_version(fields: dict[str, Any], backend: str) -> dict[str, Any]:
    """The fields with the version of the chosen back end's library where that is one more: it decides the maps too."""
    if backend != "openvino":
        return fields
    try:
        found = version("openvino")
    except PackageNotFoundError:
        found = "not installed"
    return {**fields, "versions": {**fields["versions"], "openvino": found}}


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
        parts = [data[name] for name in ("fields", "resolved", "provenance")]
        if not all(isinstance(part, dict) for part in parts):
            raise TypeError("a part of it is not a table")
        plan = Plan(*parts)
        if data["plan"] != plan.hash:
            raise ValueError("its hash is not that of its contents")
        return plan
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SalpipeError(
            f"{path}: damaged or not a plan ({type(error).__name__}: {error!s:.80}); choose another output folder, or "
            "remove it and run the command that made the folder again"
        ) from error


def check_same_plan(folder: Path, stored: Plan, fields: Mapping[str, Any]) -> None:
    """Refuse to mix plans.

    Raises:
        PlanMismatchError: naming every field in which `fields` differ from those of the stored plan.
    """
    differences = [f"{name} {old} -> {new}" for name, old, new in _differences(stored.fields, fields)]
    if differences:
        raise PlanMismatchError(
            f"{folder} holds the shards of another plan ({'; '.join(differences)}); choose another output folder"
        )


def _differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str, str]]:
    found = []
    for name in dict.fromkeys([*old, *new]):
        a, b = old.get(name), new.get(name)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found += _differences(a, b, f"{prefix}{name}.")
        elif a != b:
            found.append((prefix + name, *_shortened(name, a, b)))
    return found


def _shortened(name: str, a: Any, b: Any) -> tuple[str, str]:
    if name in ("records", "weights_sha256"):
        return str(a)[:8], str(b)[:8]
    if isinstance(a, Sequence) and isinstance(b, Sequence) and len(str(a) + str(b)) > 120:
        return f"({len(a)})", f"({len(b)} others)"
    return str(a), str(b)


def store_plan(folder: Path, plan: Plan) -> Plan:
    """Keep the plan beside the shards, unless another job of the same array was first; the one kept is returned."""
    text = json.dumps({"format": FORMAT, "plan": plan.hash, **asdict(plan)}, indent=2, sort_keys=True) + "\n"
    write_if_absent(folder / PLAN, text)
    kept = stored_plan(folder)
    assert kept is not None
    return kept
