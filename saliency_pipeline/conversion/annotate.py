"""`annotate`: from shards to a data set of COCO or FiftyOne."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from saliency_pipeline.conversion.coco import write_coco
from saliency_pipeline.conversion.config import CUT
from saliency_pipeline.conversion.export_folder import export_folder, hash_of
from saliency_pipeline.conversion.fiftyone import write_fiftyone
from saliency_pipeline.conversion.masks import Cut
from saliency_pipeline.conversion.samples import counted, read_samples
from saliency_pipeline.errors import OptionError, SalpipeError
from saliency_pipeline.gallery.selection import choose
from saliency_pipeline.progress import Progress
from saliency_pipeline.shards.methods import stored_method
from saliency_pipeline.shards.reader import ShardFolder


@dataclass(frozen=True)
class Annotated:
    """The result of `annotate`.

    Attributes:
        file: the JSON file of the data set.
        to: `coco` or `fiftyone`.
        images: number of images.
        annotations: number of masks or heat maps.
    """

    file: Path
    to: str
    images: int
    annotations: int


def annotate(
    shards: Path | str,
    output: Path | str,
    to: str,
    *,
    cut: str = CUT,
    count: int | None = None,
    keys: Sequence[str] = (),
    class_name: str | None = None,
    method: str | None = None,
    random: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
) -> Annotated:
    """Write images and maps of shards as a data set of COCO (`coco`) or FiftyOne (`fiftyone`).

    The same call after an interruption writes all files again, with the same bytes.

    Args:
        shards: a folder that `salpipe generate` finished, or one shard.
        output: folder to write to; created if missing, otherwise empty or of the same call.
        to: `coco` or `fiftyone`.
        cut: how a map becomes a mask (`coco`), see `Cut.parse`.
        count: maximum number of images, all by default; this and the next arguments are those of `gallery.page.show`.
        keys: keys of the images.
        class_name: images of this class only.
        method: maps of this method only; required for `coco` if several are stored.
        random: sample the images.
        seed: random seed of the sample.
        progress: receives progress.

    Raises:
        OptionError: `to` or `cut` is unknown.
        SalpipeError: no such image, class or method, or the output cannot be written.
        IntegrityError: a shard is damaged.
    """
    if to not in ("coco", "fiftyone"):
        raise OptionError(f"--to {to}: use gallery, coco or fiftyone")
    data, folder, progress = ShardFolder(shards), Path(output), progress or Progress()
    how = Cut.parse(cut)
    methods = data.methods if method is None else (stored_method(data, method),)
    if to == "coco" and len(methods) != 1:
        listed = ", ".join(methods) or "none"
        raise SalpipeError(f"{data.path}: masks are cut from the maps of one method; choose one of {listed} (--method)")
    chosen = choose(
        data, len(data) if count is None else count, keys=keys, class_name=class_name, random=random, seed=seed
    )
    positions = np.array(sorted(chosen), np.int64)
    decisive = {"to": to, "cut": asdict(how), "methods": list(methods), "positions": positions.tolist()}
    with export_folder(folder, shards, hash_of(data, decisive), progress.note):
        progress.start(len(positions), "image", "exporting")
        try:
            samples = counted(read_samples(data, positions, methods), progress)
            own: Any = write_coco(folder, data, samples, how) if to == "coco" else write_fiftyone(folder, data, samples)
        finally:
            progress.stop()
    return Annotated(own[0], to, len(positions), own[1])
