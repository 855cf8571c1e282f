"""Maps of the run's own baseline (`--maps self`): its network explains the images, and its folder keeps the maps.

The network was trained on the same training images as the run and on none of its validation images, which chose only
its best epoch: the maps depend on the task. They are computed once per network, shards and method, and every run that
needs them reads the same files.
"""

from __future__ import annotations

import hashlib
import io
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from saliency_pipeline.documents import read_object
from saliency_pipeline.errors import FolderInUseError, IntegrityError, OptionError, SalpipeError
from saliency_pipeline.files import disk_errors_explained, sha256_of, write_atomically
from saliency_pipeline.folders import FolderLock, make_subfolder
from saliency_pipeline.models.source.source import load_source
from saliency_pipeline.models.trained.trained import open_trained
from saliency_pipeline.models.trained.training_images import TrainingImages
from saliency_pipeline.progress import Progress
from saliency_pipeline.saliency.engine.backends import Placement
from saliency_pipeline.saliency.explainer import Explainer
from saliency_pipeline.saliency.layer_choice import explained_layers
from saliency_pipeline.saliency.methods.method import Method
from saliency_pipeline.saliency.methods.registry import find_methods
from saliency_pipeline.saliency.targets import Target
from saliency_pipeline.saliency.tuning import default_batch
from saliency_pipeline.shards.reader import Positions, ShardFolder
from saliency_pipeline.shards.schema import all_finite, are_scales, encode_maps
from saliency_pipeline.temporaries import remove_stale_temporaries
from saliency_pipeline.training.data.augment import augment
from saliency_pipeline.training.data.sources import Floats

MAPS = "maps"
"""Folder in a baseline's run, with a folder per method and shards."""

METHOD = "gradcam"

PART, CHUNK = 256, 16
"""Images per file, which are lost if a run is killed; and per call of a thread."""

SECONDS = "seconds.json"
"""Number of images whose maps are made, and the seconds that took, in a folder of maps."""

_IN_MEMORY = 2**22
_POLL = 0.5


@dataclass(frozen=True)
class BaselineRun:
    """A run of `--arch baseline` whose network makes maps.

    Attributes:
        folder: of the run, an absolute path.
        sha256: of its network's file.
        size: side of its frames in pixels.
        shards: shards that it was trained on, as it records them.
        identity: `ShardFolder.identity` of these shards; None if it records none.
    """

    folder: Path
    sha256: str
    size: int
    shards: str
    identity: str | None

    @classmethod
    def open(cls, path: Path | str) -> BaselineRun:
        """Open a run.

        Raises:
            SalpipeError: it is not there, unfinished or damaged, or not a baseline.
        """
        opened, folder = open_trained(path), Path(path).absolute()
        config = opened.about.get("config")
        use = config.get("use") if isinstance(config, dict) else None
        if not folder.is_dir():
            raise SalpipeError(f"{path}: the file of a network; give the folder of its run, where its maps are stored")
        if opened.spec.arch != "baseline" or use is not None:
            kind = f"--arch {opened.spec.arch}" if use is None else f"--use {use}"
            raise SalpipeError(f"{path}: a run of {kind}; maps are made by a run of --arch baseline that uses no maps")
        shards = opened.about.get("shards")
        table = shards if isinstance(shards, dict) else {}
        return cls(folder, sha256_of(opened.path), opened.spec.size, str(table.get("path")), table.get("sha256"))

    def training_images(self) -> TrainingImages:
        """The images that its network was trained on."""
        return open_trained(self.folder).training_images()

    def refuse_other_shards(self, pairs: ShardFolder) -> None:
        """Raise SalpipeError if it was trained on other shards."""
        if self.identity != pairs.identity:
            raise SalpipeError(
                f"--from-baseline {self.folder}: was trained on other shards ({self.shards}); train a baseline on "
                f"{pairs.path} with the same folds"
            )


def computed_method(text: str | None) -> Method:
    """The method by which a baseline explains images, Grad-CAM by default.

    Raises:
        SalpipeError: an unknown method, or one that compares images with others.
    """
    method = find_methods([text or METHOD])[0]
    if method.needs_background:
        raise OptionError(f"--method {text}: compares images with others; use another method")
    return method


class SelfMaps:
    """Maps of the images of some shards by the network of a baseline, stored in its folder.

    Args:
        pairs: the shards.
        baseline: the run whose network explains the predicted class of every image.
        method: the saliency method.
    """

    def __init__(self, pairs: ShardFolder, baseline: BaselineRun, method: Method) -> None:
        self.pairs, self.baseline, self.method = pairs, baseline, method
        key = hashlib.sha256("\0".join([baseline.sha256, pairs.identity, method.canonical]).encode()).hexdigest()
        self.folder = baseline.folder / MAPS / f"{method.canonical}-{key[:16]}"
        self._parts: _Parts | None = None

    @property
    def signed(self) -> bool:
        """True if values below 0 speak against the class."""
        return self.method.signed

    @property
    def record(self) -> dict[str, Any]:
        """The network and the method, for the run's provenance."""
        own = self.baseline
        return {
            "baseline": str(own.folder),
            "sha256": own.sha256,
            "size": own.size,
            "method": self.method.canonical,
        }

    def prepare(self, positions: Positions, device: torch.device, progress: Progress) -> None:
        """Make the maps of some images (n,) that are missing; an interrupted call is resumed by the next one.

        If another process makes them, this one waits.

        Raises:
            SalpipeError: the network cannot be loaded or has changed, a full disk.
        """
        positions = np.unique(positions)
        if len(self._read().missing(positions)):
            make_subfolder(self.folder, inside=self.baseline.folder)
            with _locked(self.folder, progress):
                remove_stale_temporaries(self.folder)
                missing = self._read(repair=True).missing(positions)
                if len(missing):
                    _make(self, missing, device, progress)
            self._read()

    def at(self, positions: Positions) -> Floats:
        """Raw maps of some images (B,) that are prepared: float32 (B, h, w).

        Raises:
            IntegrityError: a file is damaged or was removed.
        """
        parts = self._parts or self._read()
        return parts.at(positions)

    def marked(self, positions: Positions) -> npt.NDArray[np.bool_]:
        """True for images (n,) whose map is not 0 everywhere, bool (n,)."""
        parts = self._parts or self._read()
        return ~np.isin(positions, parts.zeros())

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_parts": None}

    def _read(self, *, repair: bool = False) -> _Parts:
        self._parts = _Parts(self.folder, repair=repair)
        return self._parts


class _Parts:
    """The files of a folder of maps; damaged ones are left out, and removed if `repair`."""

    def __init__(self, folder: Path, *, repair: bool = False) -> None:
        self.folder, self.paths, self.parts = folder, list[Path](), list[npt.NDArray[Any]]()
        for path in sorted(folder.glob("part-*.npy")):
            part = _read_part(path)
            if part is not None:
                self.paths.append(path)
                self.parts.append(part)
            elif repair:
                with disk_errors_explained(path):
                    path.unlink()
        everything = [np.asarray(part["position"]) for part in self.parts]
        positions = np.concatenate([np.zeros(0, np.int64), *everything])
        self._order = np.argsort(positions, kind="stable")
        self._sorted = positions[self._order]
        self._starts = np.cumsum([0, *map(len, self.parts)])

    def missing(self, positions: Positions) -> Positions:
        """The images (n,) that have no map here."""
        return positions[~np.isin(positions, self._sorted)]

    def at(self, positions: Positions) -> Floats:
        """Raw maps float32 (B, h, w)."""
        if len(missing := self.missing(positions)):
            raise IntegrityError(f"{self.folder}: lacks maps of {len(missing):,} images; run the same command again")
        places = self._order[np.searchsorted(self._sorted, positions)]
        numbers = np.searchsorted(self._starts, places, side="right") - 1
        maps = np.empty((len(positions), *self.parts[0].dtype["map"].shape), np.float32)
        for number in np.unique(numbers).tolist():
            own = numbers == number
            rows = self.parts[number][places[own] - self._starts[number]]
            if not (all_finite(rows["map"]) and are_scales(rows["scale"])):
                raise IntegrityError(
                    f"{self.paths[number]}: holds values that are not finite; remove it and run the same command again"
                )
            maps[own] = rows["map"].astype(np.float32) * rows["scale"][:, None, None]
        return maps

    def zeros(self) -> Positions:
        """The images (n,) whose map is 0 everywhere."""
        zeros = [part["position"][part["scale"] == 0] for part in self.parts]
        return np.concatenate([np.zeros(0, np.int64), *zeros])

    def next_path(self) -> Path:
        """The path of the next file."""
        last = int(self.paths[-1].stem.removeprefix("part-")) if self.paths else -1
        return self.folder / f"part-{last + 1:06d}.npy"

    def add(self, positions: Positions, raw: Floats) -> None:
        """Write the maps (n, h, w) of some images to a file, encoded as in shards."""
        maps, scales, _ = encode_maps(raw[:, None])
        part = np.empty(len(positions), [("position", "<i8"), ("scale", "<f4"), ("map", "<f2", raw.shape[1:])])
        part["position"], part["scale"], part["map"] = positions, scales[:, 0], maps[:, 0]
        file, path = io.BytesIO(), self.next_path()
        np.save(file, part)
        write_atomically(path, file.getvalue())
        self.paths.append(path)


def _read_part(path: Path) -> npt.NDArray[Any] | None:
    """A file of maps; None if it is damaged."""
    try:
        if path.is_symlink() or not path.is_file():
            return None
        part = np.load(path, mmap_mode=None if path.stat().st_size <= _IN_MEMORY else "r", allow_pickle=False)
        fields = part.dtype.names == ("position", "scale", "map") and len(part.dtype["map"].shape) == 2
    # NumPy raises many kinds of errors for damaged files
    except Exception:
        return None
    return part if fields and part.ndim == 1 else None


@contextmanager
def _locked(folder: Path, progress: Progress) -> Iterator[None]:
    """Lock a folder of maps; while another process makes them, wait."""
    with ExitStack() as stack:
        noted = False
        while True:
            try:
                stack.enter_context(FolderLock(folder, note=progress.note))
                break
            except FolderInUseError:
                if not noted:
                    progress.note(f"{folder}: another run makes these maps; waiting for it")
                noted = True
                time.sleep(_POLL)
        yield


# gradients need tensors that are made outside inference mode, in which predictions are computed
@torch.inference_mode(False)
def _make(maps: SelfMaps, missing: Positions, device: torch.device, progress: Progress) -> None:
    """Explain images and write their maps, file by file.

    Every batch is computed by one thread in fp32, so that a map depends on neither the number of threads nor on
    which images are made together.
    """
    pairs, canonical = maps.pairs, maps.method.canonical
    explainer = _explainer(maps, device)
    chunk = -(-CHUNK // explainer.batch) * explainer.batch
    size = maps.baseline.size

    def explain(positions: Positions) -> Floats:
        images = pairs.images_at(positions)
        if images.shape[1] != size:
            tensors = torch.from_numpy(images).permute(0, 3, 1, 2)
            images = augment(tensors, None, (), [()] * len(images), size=size)[0].permute(0, 2, 3, 1).numpy()
        own: Floats = explainer.explain(images, keys=pairs.keys_at(positions)).maps[canonical][:, 0]
        return own

    parts, threads, started = maps._parts or _Parts(maps.folder), torch.get_num_threads(), time.perf_counter()
    progress.start(len(missing), "image", f"explaining with {maps.baseline.folder.name}")
    try:
        with ThreadPoolExecutor(explainer.placement.streams, "explain", torch.set_num_threads, (1,)) as pool:
            for start in range(0, len(missing), PART):
                rows = missing[start : start + PART]
                chunks = [rows[first : first + chunk] for first in range(0, len(rows), chunk)]
                parts.add(rows, np.concatenate(list(pool.map(explain, chunks))))
                progress.advance(len(rows))
        images, seconds = made_maps(maps.folder)
        spent = {"images": images + len(missing), "seconds": seconds + time.perf_counter() - started}
        write_atomically(maps.folder / SECONDS, json.dumps(spent) + "\n")
    finally:
        progress.stop()
        # the pool's threads set the number for all later threads of the process
        torch.set_num_threads(threads)


def made_maps(folder: Path) -> tuple[int, float]:
    """Number of images whose maps are in a folder of maps, and the seconds that it took to make them; 0 if unknown."""
    try:
        spent = read_object(folder / SECONDS)
        return int(spent["images"]), float(spent["seconds"])
    except (SalpipeError, KeyError, TypeError, ValueError, OverflowError):
        return 0, 0.0


def _explainer(maps: SelfMaps, device: torch.device) -> Explainer:
    """The engine, with the baseline's network in fp32 and its default layer."""
    baseline = maps.baseline
    source = load_source(str(baseline.folder))
    if source.weights_sha256 != baseline.sha256:
        raise SalpipeError(f"{baseline.folder}: its network was replaced; run the same command again")
    layers, methods = explained_layers(source, (maps.method,))
    streams = torch.get_num_threads() if device.type == "cpu" else 2
    placement = Placement("torch", "fp32", str(device), streams)
    batch = default_batch(methods, str(device))
    return Explainer(source, layers, methods, Target("predicted"), batch, placement)
