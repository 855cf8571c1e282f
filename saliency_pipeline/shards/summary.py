"""`inspect`: counts and statistics of a finished folder or one shard: classes, splits, scores, maps, rejects."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from saliency_pipeline.documents import parse_json
from saliency_pipeline.errors import IntegrityError
from saliency_pipeline.images.record import SPLITS
from saliency_pipeline.shards.manifest import MANIFEST, REJECTS, Manifest, reject_lines
from saliency_pipeline.shards.methods import is_class_agnostic, is_signed, recorded_parameters
from saliency_pipeline.shards.reader import ShardFolder
from saliency_pipeline.shards.schema import ALL_ZERO, CONSTANT, NON_FINITE, SEEN, SINGLE_COLOR, MapShape
from saliency_pipeline.text import plural, printable

# the columns of counts
_SPLITS = [name or "none" for name in SPLITS]

_SHOWN = 10
_SHOWN_CLASSES = 40
_REASON = 500


@dataclass(frozen=True)
class Range:
    """Minimum, median and maximum of some values; None if there are none."""

    min: float | None
    median: float | None
    max: float | None

    @classmethod
    def of(cls, values: npt.NDArray[Any]) -> Range:
        """The range of the finite values of an array."""
        values = values[np.isfinite(values)]
        if not values.size:
            return cls(None, None, None)
        return cls(float(values.min()), float(np.median(values)), float(values.max()))

    def __str__(self) -> str:
        if self.min is None:
            return "no values"
        return f"{self.min:.4g} … {self.median:.4g} … {self.max:.4g}"


@dataclass(frozen=True)
class MapStatistics:
    """Statistics of the maps of one method.

    Attributes:
        shape: targets per image, native height and width in cells.
        scale: greatest absolute raw value of each map.
        all_zero: share of maps that are zero everywhere, in [0, 1].
        constant: share of maps with one value everywhere that is not zero.
        non_finite: share of maps in which values were not finite and became 0.
        parameters: parameters of the method, as far as they are recorded.
        signed: whether values below 0 speak against the class.
        class_agnostic: whether the maps explain no class.
        residual: absolute values of the residuals, if they are stored: sum of a map minus what it should be.
        standard_error: Monte Carlo standard errors of the maps relative to their ranges, if they are stored.
    """

    shape: MapShape
    scale: Range
    all_zero: float
    constant: float
    non_finite: float
    parameters: dict[str, Any]
    signed: bool
    class_agnostic: bool
    residual: Range | None
    standard_error: Range | None = None

    def as_lines(self, method: str) -> list[str]:
        """The statistics as readable lines."""
        targets = "explain no class" if self.class_agnostic else f"{plural(self.shape.targets, 'target')} per image"
        lines = [
            f"maps of {method}: {self.shape.height}×{self.shape.width}, {targets}{', signed' * self.signed}",
            f"  scale {self.scale}; all zero {self.all_zero:.2%}, constant {self.constant:.2%}, "
            f"non-finite {self.non_finite:.2%}",
        ]
        if self.residual is not None and self.residual.max is not None:
            median, most = self.residual.median, self.residual.max
            lines.append(f"  residual of the sum: median {median:.4g}, largest {most:.4g} (absolute values)")
        if self.standard_error is not None and self.standard_error.max is not None:
            median, most = self.standard_error.median, self.standard_error.max
            lines.append(f"  standard error: median {median:.2%}, largest {most:.2%} of a map's range")
        return lines


@dataclass(frozen=True)
class ClassCount:
    """Name of a class, number of its images, and how many are in each split."""

    name: str
    images: int
    splits: dict[str, int]


@dataclass(frozen=True)
class PredictedClass:
    """A class of the source model: index, name, and number of images for which it has the highest score."""

    index: int
    name: str
    images: int


@dataclass(frozen=True)
class Summary:
    """The result of `inspect`; `as_dict` is JSON-serializable, `as_text` is for reading.

    Attributes:
        path: the folder or shard.
        images: number of images.
        shards: number of shard files.
        bytes: their size on disk.
        size: S, height and width of every frame in pixels.
        encoding: "raw" or "jpeg".
        plan: hash of the plan.
        splits: images of each split, those without any left out.
        classes: counts of each class, in label order.
        unlabeled: number of images without a label.
        boxed: number of images with boxes of their objects.
        duplicates: number of images in groups, of duplicates or of `--group-by`.
        single_color: number of images that have one color everywhere.
        seen: number of images on which the network that made their maps was trained.
        source_height: heights of the original images in pixels.
        source_width: widths of the original images in pixels.
        score: softmax of the source model's first class.
        predicted: the most frequent predictions of the source model.
        maps: statistics of the maps, by method.
        rejects: number of images that could not be used, by reason; None for a single shard, which has no record.
        unlisted: shards in the folder that are ignored because its manifest does not list them: for each file name
            whether it is of this plan.
        passed_over: number of skipped files and other entries of the data set, by kind and reason.
        provenance: how the maps were made.
    """

    path: str
    images: int
    shards: int
    bytes: int
    size: int
    encoding: str
    plan: str
    splits: dict[str, int]
    classes: list[ClassCount]
    unlabeled: int
    boxed: int
    duplicates: int
    single_color: int
    seen: int
    source_height: Range
    source_width: Range
    score: Range
    predicted: list[PredictedClass]
    maps: dict[str, MapStatistics]
    rejects: dict[str, int] | None
    unlisted: dict[str, bool]
    passed_over: dict[str, int]
    provenance: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """The summary, JSON-serializable."""
        predicted = [{"class": each.index, "name": each.name, "images": each.images} for each in self.predicted]
        return asdict(self) | {"predicted": predicted}

    def as_text(self) -> str:
        """The summary as several readable lines."""
        lines = [
            f"{self.path}: {plural(self.images, 'image')} in {plural(self.shards, 'shard')}, {_bytes(self.bytes)}",
            f"frames     {self.size}×{self.size}, {self.encoding}",
            f"originals  height {self.source_height}, width {self.source_width} (min … median … max)",
            f"splits     {_listing(self.splits)}",
        ]
        if self.boxed:
            lines.append(f"boxes      objects of {plural(self.boxed, 'image')}")
        if self.duplicates:
            data = self.provenance.get("data")
            kind = "groups" if isinstance(data, dict) and "group_by" in data else "duplicates"
            lines.append(f"{kind:<10} {plural(self.duplicates, 'image')}, kept together in splits and folds")
        if self.single_color:
            lines.append(f"one color  {plural(self.single_color, 'image')}, with nothing on it to explain")
        if self.seen:
            lines.append(f"seen       {plural(self.seen, 'image')} on which the source model was trained")
        if self.rejects is not None:
            lines.append(f"rejects    {sum(self.rejects.values()):,}")
            lines += [f"  {count:7,}  {reason}" for reason, count in list(self.rejects.items())[:_SHOWN]]
        if self.unlisted:
            lines.append(f"ignored    {plural(len(self.unlisted), 'shard')} not listed in {MANIFEST}; move away:")
            lines += [
                f"  {name}{'' if ours else ' (of another plan)'}" for name, ours in list(self.unlisted.items())[:_SHOWN]
            ]
        if self.passed_over:
            lines.append(f"skipped    {sum(self.passed_over.values()):,}")
            lines += [f"  {count:7,}  {kind}" for kind, count in list(self.passed_over.items())[:_SHOWN]]
        lines += ["", *self._class_table(), "", f"top-1 score {self.score}; most frequent predictions:"]
        lines += [f"  {each.images:7,}  {each.name}" for each in self.predicted]
        for method, maps in self.maps.items():
            lines += ["", *maps.as_lines(method)]
        provenance = {name: entry for name, entry in self.provenance.items() if name != "passed_over"}
        lines += ["", "provenance", *_outline(provenance, "  ")]
        return "\n".join(map(printable, lines))

    def _class_table(self) -> list[str]:
        splits = list(self.splits)
        rows = [["class", "images", *splits]]
        shown = self.classes[:_SHOWN_CLASSES]
        rows += [[c.name, f"{c.images:,}", *(f"{c.splits.get(split, 0):,}" for split in splits)] for c in shown]
        if self.unlabeled:
            rows.append(["(unlabeled)", f"{self.unlabeled:,}", *("" for _ in splits)])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(
                [name.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True))]
            )
            for name, *cells in rows
        ]
        if len(self.classes) > len(shown):
            lines.append(f"and {len(self.classes) - len(shown):,} more classes (all of them with --json)")
        return [line.rstrip() for line in lines]


def inspect(path: Path | str) -> Summary:
    """Count the images, classes, splits and maps of a finished folder or of one shard.

    Shards are read one after the other; a few numbers per image are kept in memory.

    Raises:
        SalpipeError: there is no such folder or it is not finished.
        IntegrityError: a file is damaged.
    """
    folder = ShardFolder(path)
    classes = folder.classes
    counts = np.zeros((len(classes) + 1, len(_SPLITS)), dtype=np.int64)
    predicted: Counter[int] = Counter()
    size_on_disk = boxed = duplicates = 0
    # each list begins with an empty array, for folders without any shard
    sizes = [np.empty((0, 2), dtype=np.int32)]
    scores = [np.empty(0, dtype=np.float32)]
    shapes = folder.header.maps
    scales = {method: [np.empty((0, shape.targets), dtype=np.float32)] for method, shape in shapes.items()}
    flags = {method: [np.empty((0, shape.targets), dtype=np.uint8)] for method, shape in shapes.items()}
    residuals = {method: [np.empty(0, dtype=np.float32)] for method, shape in shapes.items() if shape.residual}
    errors = {method: [np.empty(0, dtype=np.float32)] for method, shape in shapes.items() if shape.standard_error}
    for number in range(len(folder.shards)):
        shard = folder.shard(number)
        size_on_disk += shard.layout.identity[2]
        np.add.at(counts, (shard.labels + 1, shard.splits + 1), 1)
        boxed += int((shard.box_counts > 0).sum())
        duplicates += int((shard.groups >= 0).sum())
        sizes.append(shard.source_sizes)
        first, score = shard.predictions
        predicted.update(first[:, 0].tolist())
        scores.append(score[:, 0])
        for method in folder.methods:
            scales[method].append(shard.scales(method))
            flags[method].append(shard.flags(method))
            if (residual := shard.residuals(method)) is not None:
                residuals[method].append(np.abs(residual).ravel())
            if (error := shard.standard_errors(method)) is not None:
                errors[method].append(error.ravel())
        shard.close()
    manifest = Manifest.read(folder.path) if folder.path.is_dir() else None
    size = np.concatenate(sizes)
    by_split = counts.sum(axis=0)
    return Summary(
        path=folder.mirror.url if folder.mirror else str(path),
        images=len(folder),
        shards=len(folder.shards),
        bytes=size_on_disk,
        size=folder.header.size,
        encoding=folder.header.encoding,
        plan=folder.header.plan,
        splits=_named(by_split),
        classes=[ClassCount(name, int(row.sum()), _named(row)) for name, row in zip(classes, counts[1:], strict=True)],
        unlabeled=int(counts[0].sum()),
        boxed=boxed,
        duplicates=duplicates,
        single_color=_flagged(flags, SINGLE_COLOR),
        seen=_flagged(flags, SEEN),
        source_height=Range.of(size[:, 0]),
        source_width=Range.of(size[:, 1]),
        score=Range.of(np.concatenate(scores)),
        predicted=_most_frequent(predicted, folder.source_classes),
        maps={
            method: _map_statistics(
                folder, method, scales[method], flags[method], residuals.get(method), errors.get(method)
            )
            for method in shapes
        },
        rejects=_rejects(folder.path) if manifest else None,
        unlisted=manifest.unlisted(folder.path) if manifest else {},
        passed_over=_passed_over(folder.provenance),
        provenance=folder.provenance,
    )


def _flagged(flags: dict[str, list[npt.NDArray[np.uint8]]], bit: int) -> int:
    """The number of images with a bit set in any flag."""
    images = [(np.concatenate(parts) & bit != 0).any(axis=1) for parts in flags.values()]
    return int(np.any(images, axis=0).sum()) if images else 0


def _map_statistics(
    folder: ShardFolder,
    method: str,
    scales: list[npt.NDArray[np.float32]],
    flags: list[npt.NDArray[np.uint8]],
    residuals: list[npt.NDArray[np.float32]] | None,
    errors: list[npt.NDArray[np.float32]] | None,
) -> MapStatistics:
    flag = np.concatenate(flags)
    zero = flag & ALL_ZERO != 0
    maps = max(1, flag.size)
    return MapStatistics(
        shape=folder.header.maps[method],
        scale=Range.of(np.concatenate(scales)),
        all_zero=float(zero.sum() / maps),
        constant=float(((flag & CONSTANT != 0) & ~zero).sum() / maps),
        non_finite=float((flag & NON_FINITE != 0).sum() / maps),
        parameters=recorded_parameters(folder.provenance, method),
        signed=is_signed(folder.provenance, method),
        class_agnostic=is_class_agnostic(folder.provenance, method),
        residual=None if residuals is None else Range.of(np.concatenate(residuals)),
        standard_error=None if errors is None else Range.of(np.concatenate(errors)),
    )


def _most_frequent(predicted: Counter[int], names: Sequence[object]) -> list[PredictedClass]:
    ranked = sorted(predicted.items(), key=lambda item: (-item[1], item[0]))[:_SHOWN]
    return [
        PredictedClass(index, str(names[index]) if 0 <= index < len(names) else f"class {index}", count)
        for index, count in ranked
    ]


def _rejects(folder: Path) -> dict[str, int]:
    """Number of rejected images by reason, most frequent first."""
    reasons: Counter[str] = Counter()
    try:
        for line in reject_lines(folder):
            try:
                reasons[str(parse_json(line.decode("utf-8", "replace"))["reason"])[:_REASON]] += 1
            except (ValueError, KeyError, TypeError):
                reasons[f"unreadable line of {REJECTS}"] += 1
    except OSError as error:
        raise IntegrityError(f"{folder / REJECTS}: cannot be read ({error.strerror}); run 'salpipe verify'") from error
    return dict(sorted(reasons.items(), key=lambda item: (-item[1], item[0])))


def _passed_over(provenance: Mapping[str, object]) -> dict[str, int]:
    """The counts as far as the provenance has them: it may be of a file from outside."""
    counts = provenance.get("passed_over")
    items = counts.items() if isinstance(counts, dict) else ()
    return {kind: number for kind, number in items if isinstance(number, int) and not isinstance(number, bool)}


def _named(counts: npt.NDArray[np.int64]) -> dict[str, int]:
    return {name: int(count) for name, count in zip(_SPLITS, counts, strict=True) if count}


def _listing(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items()) or "none"


def _bytes(count: float) -> str:
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def _outline(value: Mapping[str, object], indent: str) -> list[str]:
    """A dictionary as indented lines; long lists as their length."""
    lines = []
    for name, entry in value.items():
        if isinstance(entry, dict):
            lines += [f"{indent}{name}", *_outline(entry, indent + "  ")]
        elif isinstance(entry, list) and len(entry) > _SHOWN:
            lines.append(f"{indent}{name}: {len(entry):,} entries")
        else:
            lines.append(f"{indent}{name}: {entry if isinstance(entry, str) else json.dumps(entry)}")
    return lines
