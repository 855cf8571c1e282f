"""Checks of a run before its images are listed: options, source model, output folder, and the plan of that folder."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from saliency_pipeline.datasets.layout import ReadOptions
from saliency_pipeline.datasets.nesting import refuse_among_images, refuse_nesting
from saliency_pipeline.devices import find_device
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.files import sha256_of
from saliency_pipeline.folders import check_output
from saliency_pipeline.generation.config import GenerateConfig
from saliency_pipeline.generation.plan import (
    Plan,
    check_same_plan,
    check_same_sizes,
    code_of,
    compared_settings,
    identify_images,
    identity_of,
    library_versions,
    sizes_digest,
    stored_plan,
)
from saliency_pipeline.generation.resolve import check_model, stored_names
from saliency_pipeline.images.record import Catalogue
from saliency_pipeline.models.source.source import check_source
from saliency_pipeline.progress import Progress
from saliency_pipeline.saliency.methods.registry import find_methods
from saliency_pipeline.saliency.targets import check_target
from saliency_pipeline.shards.schema import is_shard_name
from saliency_pipeline.storage.store import is_url
from saliency_pipeline.subsets.classes import check_files
from saliency_pipeline.subsets.group_by import check_rule
from saliency_pipeline.subsets.prepare import digests, prepare, with_files
from saliency_pipeline.subsets.selection import Grouping, Selection


def checked_catalogue(
    data: str | os.PathLike[str] | Catalogue,
    output: Path,
    config: GenerateConfig,
    *,
    layout: str,
    reading: ReadOptions | None,
    selection: Selection | None,
    grouping: Grouping | None,
    boxes: str | os.PathLike[str] | None = None,
    maps_from: str | os.PathLike[str] | None = None,
    progress: Progress,
    dry: bool = False,
) -> Catalogue:
    """The catalogue of a run, once all that can be wrong has been checked: listing images may take minutes.

    A catalogue is returned as it is, but for boxes and maps from elsewhere. Of a dry run, device, output folder and its
    plan are not checked.

    Raises:
        TypeError: settings for a data set that is a catalogue already.
        SalpipeError: an option, the output folder or the data set is wrong.
    """
    place = os.fspath(data.root if isinstance(data, Catalogue) else data)
    root = None if is_url(place) else Path(place)
    if root is not None:
        refuse_nesting(root, output)
    refuse_among_images(output, place)
    check_target(config.target)
    if not dry:
        find_device(config.device)
    if isinstance(data, Catalogue):
        if layout != "auto" or reading or selection or grouping:
            raise TypeError("a catalogue is read and selected already; give the path of the data set instead")
        catalogue = with_files(data, boxes, maps_from, progress.note)
        files = digests(catalogue, boxes is not None, maps_from is not None, progress)
        return replace(catalogue, taken={**catalogue.taken, **files})
    check_source(config.model, config.weights)
    find_methods(config.methods)
    if root is not None:
        check_files(selection.classes if selection else (), root)
    if grouping and grouping.group_by is not None:
        check_rule(grouping.group_by)
    if not dry:
        check_output(output)
        _check_options(output, config)
        check_model(config)
    return prepare(
        data,
        layout,
        reading,
        selection,
        grouping,
        boxes=boxes,
        maps_from=maps_from,
        cache=output / "fingerprints",
        index=None if dry else output / "index",
        pinned=_pinned(output),
        progress=progress,
    )


def _pinned(folder: Path) -> Mapping[str, str]:
    """Origin of a remote data set in the plan of a folder; empty without one."""
    # a plan without shards binds nothing else: one that cannot be read is replaced
    with suppress(SalpipeError):
        stored = stored_plan(folder)
        return stored.origin if stored else {}
    return {}


def refusal(catalogue: Catalogue, records: str, folder: Path, config: GenerateConfig) -> str | None:
    """Why a run into a folder would be refused, as far as it is decided without a model: it holds another plan.

    Returns:
        One line that names every difference; None if there is none.
    """
    try:
        if (stored := _followed_plan(folder)) is None:
            return None
        settings = replace(stored_names(config), device=str(find_device(config.device)))
        images = identify_images(catalogue.classes, len(catalogue), records)
        hashes = code_of(settings.model) | {"weights_sha256": _weights_sha256(config, stored)}
        versions = library_versions(stored.resolved.backend, settings.methods)
        # images to compare with follow from the others
        background = stored.record.get("background")
        check_same_plan(folder, stored, identity_of(settings, images, hashes, catalogue.taken, versions, background))
        check_same_sizes(folder, stored, catalogue.layout, sizes_digest(catalogue))
    except SalpipeError as error:
        return str(error)
    return None


def _check_options(folder: Path, config: GenerateConfig) -> None:
    """Compare a configuration with the plan of a folder, as far as possible without images and source model.

    Raises:
        PlanMismatchError: the folder holds shards that were made with other options; they are named.
        SalpipeError: the plan cannot be read, or a method is unknown.
    """
    if stored := _followed_plan(folder):
        # only the hardware tells what `auto` is
        settings = replace(stored_names(config), device=stored.settings.device)
        check_same_plan(folder, stored, {**stored.identity, **compared_settings(settings), **code_of(settings.model)})


def _followed_plan(folder: Path) -> Plan | None:
    """The plan of a folder, if there are shards of it."""
    try:
        if not any(is_shard_name(path.name) for path in folder.iterdir()):
            return None
    except OSError:
        return None
    return stored_plan(folder)


def _weights_sha256(config: GenerateConfig, stored: Plan) -> str:
    """The hash of the requested weights: that of the plan unless they are evidently others."""
    if config.weights not in ("default", "none"):
        try:
            return sha256_of(Path(config.weights))
        except OSError as error:
            raise SalpipeError(f"{config.weights}: {error.strerror}; check its permissions") from error
    before = stored.settings.weights
    same = before == config.weights or (config.weights == "default" and before in ("embedded", "trained"))
    return str(stored.identity["weights_sha256"]) if same else config.weights
