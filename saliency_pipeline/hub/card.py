"""Cards of repositories: what a run or shards are, where they come from, how good they are, how to use them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from saliency_pipeline.hub.address import HubAddress
from saliency_pipeline.hub.contents import Contents, RunRecord, ShardsRecord
from saliency_pipeline.images.record import SPLITS
from saliency_pipeline.shards.manifest import Manifest
from saliency_pipeline.text import plural

MOST_CLASSES = 200
"""Classes that a card names."""

_SIZES = (
    *((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M")),
    *((10_000_000, "1M<n<10M"), (100_000_000, "10M<n<100M")),
)


def write_card(contents: Contents, address: HubAddress, license: str) -> str:
    """The card of a repository: metadata of the Hub in YAML, and text in Markdown."""
    title = address.name.rpartition("/")[2]
    record = contents.record
    if isinstance(record, RunRecord):
        metadata, parts = _model(record, title, license), _model_text(record, address)
    else:
        metadata, parts = _data_set(record.manifest, title, license), _data_set_text(record, address)
    heading = f"# {escaped(title)}"
    return f"---\n{metadata}\n---\n\n" + "\n\n".join([heading, *parts, _license_text(license)]) + "\n"


def escaped(text: object) -> str:
    r"""A text of unknown origin in Markdown: one line, no markup.

    >>> print(escaped("a|b\n<script> *c*"))
    a\|b \<script\> \*c\*
    """
    line = " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())
    return re.sub(r"([\\`*_{}\[\]<>()#+!|~$])", r"\\\1", line)


def _model(run: RunRecord, title: str, license: str) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    base = _base_model(run)
    results = [
        EvalResult(
            task_type="image-classification",
            dataset_type=run.dataset or "images",
            dataset_name=run.dataset or "images of the run's classes",
            dataset_split=str(split),
            metric_type=kind,
            metric_value=round(value, 4),
            metric_name=f"{name} ({_percent(level)} interval {low:.4f} to {high:.4f})",
        )
        for split, entry in _scores(run)
        for kind, name, value, (low, high), level in entry
    ]
    data = ModelCardData(
        license=license,
        library_name="salpipe",
        pipeline_tag="image-classification",
        tags=["salpipe", "saliency", "image-classification"],
        base_model=base,
        datasets=None if run.dataset is None else [run.dataset],
        model_name=title if results else None,
        eval_results=results or None,
    )
    return str(data.to_yaml())


def _base_model(run: RunRecord) -> str | None:
    """The Hub's name of the network whose weights a run started from; None if it is not on the Hub."""
    config = _table(run.about, "config")
    if config.get("init") != "half" or config.get("weights") != "default":
        return None
    from saliency_pipeline.models.source.registry import find_source

    library, name = find_source(run.trained.spec.backbone)
    if library != "timm":
        return None
    import timm

    settings = timm.get_pretrained_cfg(name)
    place = getattr(settings, "hf_hub_id", None)
    return place if isinstance(place, str) and place.count("/") == 1 and not place.endswith("/") else None


def _model_text(run: RunRecord, address: HubAddress) -> Iterator[str]:
    spec, config = run.trained.spec, _table(run.about, "config")
    reads = spec.needs_maps or config.get("use")
    yield (
        f"An image classifier of {plural(len(spec.classes), 'class')}, trained with "
        f"[salpipe](https://pypi.org/project/saliency-pipeline) "
        + ("on images with their saliency maps." if reads else "on images without saliency maps.")
    )
    yield "## Results"
    yield from _results(run)
    if run.curves:
        yield "![Learning curves](curves.png)"
    yield "## Network"
    images = _table(run.provenance, "images")
    rows = {
        "architecture": spec.arch,
        "backbone": spec.backbone,
        "fusion": spec.fusion if spec.arch == "modulated" else None,
        "use of maps": config.get("use"),
        "saliency method": config.get("method") if reads else None,
        "maps": config.get("maps") if reads else None,
        "frames": f"{spec.size} x {spec.size} pixels, RGB",
        "initialization": _table(run.provenance, "initialization").get("report"),
        "training images": images.get("train"),
        "validation images": images.get("validation"),
        "epochs": run.summary.get("epochs"),
        "optimizer": f"{config.get('optimizer')}, learning rate {config.get('lr')}, {config.get('schedule')} schedule",
        "augmentation": ", ".join(config.get("augment") or ()) or "none",
        "seed": config.get("seed"),
    }
    yield _table_of(("", ""), ((name, value) for name, value in rows.items() if value is not None))
    yield "## Classes"
    yield _classes(spec.classes)
    yield "## Use"
    yield _code(f"salpipe pull {address} -o run", "salpipe predict photos --run run", language="sh")
    yield ("`best.safetensors` holds the weights and the description of the network. Reading it executes nothing.")
    if config.get("maps") == "self":
        sha256 = _table(run.about, "maps").get("sha256")
        yield (
            f"Its maps are made by the network of a baseline, SHA-256 `{escaped(sha256)}`, which is needed as well: "
            "`salpipe predict photos --run run --weights baseline`."
        )
    yield "## Provenance"
    yield from _provenance(_table(_table(run.about, "shards"), "provenance"))
    yield _list(
        f"Plan of the shards: `{escaped(_table(run.about, 'shards').get('plan'))}`",
        f"Initial weights: SHA-256 `{escaped(_table(run.provenance, 'initialization').get('sha256'))}`",
        f"Versions: {_versions(_table(_table(run.provenance, 'environment'), 'versions'))}",
    )


def _results(run: RunRecord) -> Iterator[str]:
    rows, caveats = [], []
    for split, entry in _scores(run):
        for _, name, value, (low, high), level in entry:
            rows.append((split, name, f"{value:.4f}", f"{low:.4f} to {high:.4f}", _percent(level)))
    for evaluation in run.evaluations.values():
        texts = evaluation.get("caveats")
        caveats += [text for text in texts if isinstance(text, str)] if isinstance(texts, list) else []
    if not run.evaluations:
        caveats.append("the best epoch was chosen by these validation images: the figures are optimistic")
    yield _table_of(("images", "metric", "value", "interval", "level"), rows)
    yield (
        "Intervals are Wilson's for accuracies and bootstrap percentiles for F1; what varies is the images, not the "
        "training."
    )
    if caveats:
        yield _list(*(escaped(text) for text in dict.fromkeys(caveats)))


_METRICS = {
    "top1": ("accuracy", "top-1 accuracy"),
    "top5": ("accuracy", "top-5 accuracy"),
    "macro_f1": ("f1", "macro F1"),
}
Score = tuple[str, str, float, tuple[float, float], float]
"""Metric of the Hub, its name, value, interval and level of the interval."""


def _scores(run: RunRecord) -> Iterator[tuple[str, list[Score]]]:
    """The metrics of a run's evaluations, by split; without any, the validation accuracy of its best epoch."""
    for evaluation in run.evaluations.values():
        intervals, scores = _table(evaluation, "intervals"), []
        level = _number(intervals.get("level"))
        for key, (kind, name) in _METRICS.items():
            ends, value = intervals.get(key), _number(evaluation.get(key))
            low, high = map(_number, ends) if isinstance(ends, list) and len(ends) == 2 else (None, None)
            if value is not None and level is not None and low is not None and high is not None:
                scores.append((kind, name, value, (low, high), level))
        if scores:
            yield f"{evaluation.get('split')}, {evaluation.get('images')} images", scores
    if not run.evaluations:
        best = _table(run.summary, "best")
        count, share = _number(_table(run.provenance, "images").get("validation")), _number(best.get("validation_top1"))
        if count and share is not None:
            from saliency_pipeline.statistics.power import LEVEL
            from saliency_pipeline.statistics.shares import wilson

            ends = wilson(round(share * count), count)
            name = f"validation, {count} images, epoch {best.get('epoch')}"
            yield name, [(*_METRICS["top1"], share, (float(ends[0]), float(ends[1])), LEVEL)]


def _data_set(manifest: Manifest, title: str, license: str) -> str:
    from huggingface_hub import DatasetCardData

    size = next((name for limit, name in _SIZES if manifest.images < limit), "n>100M")
    more: dict[str, Any] = {"viewer": False}
    if reads_directly(manifest):
        more = {"configs": [{"config_name": "default", "data_files": [{"split": "train", "path": "shard-*.h5"}]}]}
    data = DatasetCardData(
        license=license,
        pretty_name=title,
        task_categories=["image-classification"],
        size_categories=[size],
        tags=["salpipe", "saliency"],
        **more,
    )
    return str(data.to_yaml())


def reads_directly(manifest: Manifest) -> bool:
    """Return whether `datasets.load_dataset` reads the shards as they are: raw frames and no boxes."""
    return manifest.header.encoding == "raw" and not manifest.header.boxes


def _data_set_text(record: ShardsRecord, address: HubAddress) -> Iterator[str]:
    manifest, header = record.manifest, record.manifest.header
    yield (
        f"{plural(manifest.images, 'image')} of {plural(len(header.classes), 'class')} with saliency maps, made with "
        "[salpipe](https://pypi.org/project/saliency-pipeline)."
    )
    frames = "raw" if header.encoding == "raw" else "JPEG"
    rows: list[tuple[object, object]] = [
        ("images", f"{manifest.images:,}"),
        ("shards", f"{len(manifest.shards):,}, {sum(entry.bytes for entry in manifest.shards) / 1e6:,.1f} MB"),
        ("frames", f"{header.size} x {header.size} pixels, RGB, {frames}"),
        ("boxes", "yes" if header.boxes else "no"),
        ("images that could not be used", f"{manifest.rejects:,}"),
    ]
    yield _table_of(("", ""), rows)
    yield "## Splits"
    numbers = (
        (name or "none", f"{record.splits[name]:,}", int(code)) for name, code in SPLITS.items() if record.splits[name]
    )
    yield _table_of(("split", "images", "`split` in the shards"), numbers)
    yield "## Maps"
    shapes = ((name, s.targets, f"{s.height} x {s.width}") for name, s in header.maps.items())
    yield _table_of(("method", "explained classes per image", "cells"), shapes)
    yield "## Classes"
    yield _classes([f"{name} ({count:,})" for name, count in record.classes.items()])
    yield "Labels are in the data set `label` of each shard, in this order from 0; -1 is an image without one."
    yield "## Use"
    yield _code(
        f"salpipe pull {address} -o shards", "salpipe verify shards", "salpipe train shards -o run", language="sh"
    )
    if reads_directly(manifest):
        yield "Or with `datasets`, which ignores the splits of the images:"
        yield _code(
            "from datasets import load_dataset",
            "",
            f'data = load_dataset("{address.name}", split="train").with_format("numpy")',
            language="python",
        )
    else:
        yield (
            "`datasets` does not read these shards, which have JPEG frames or boxes; 'salpipe convert --to parquet' "
            "exports them for it."
        )
    yield "## Provenance"
    yield from _provenance(header.provenance)
    yield _list(f"Plan: `{escaped(header.plan)}`")


def _provenance(provenance: dict[str, Any]) -> Iterator[str]:
    """How maps were made."""
    source, settings = (_table(provenance, name) for name in ("source", "settings"))
    lines = [f"Source network: {escaped(source.get('model', 'not recorded'))}"]
    if source.get("weights_sha256"):
        lines.append(f"Its weights: {escaped(source.get('weights'))}, SHA-256 `{escaped(source['weights_sha256'])}`")
    if settings.get("target"):
        lines.append(f"Explained class: {escaped(settings['target'])}")
    for name, method in _table(provenance, "methods").items():
        paper = method.get("paper") if isinstance(method, dict) else None
        lines.append(f"Method {escaped(name)}" + (f": {escaped(paper)}" if paper else ""))
    yield _list(*lines)


def _license_text(license: str) -> str:
    stated = "The license is not stated." if license == "unknown" else f"License: {license}."
    return f"## License\n\n{stated} It concerns this repository; the images may have licenses of their own."


def _classes(classes: Sequence[str]) -> str:
    names = ", ".join(escaped(name) for name in classes[:MOST_CLASSES])
    return names + (f", and {len(classes) - MOST_CLASSES:,} more" if len(classes) > MOST_CLASSES else "")


def _table_of(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [list(header), ["---"] * len(header), *([escaped(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _list(*lines: str) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _code(*lines: str, language: str) -> str:
    return "\n".join([f"```{language}", *lines, "```"])


def _versions(versions: dict[str, Any]) -> str:
    return ", ".join(f"{escaped(name)} {escaped(version)}" for name, version in versions.items()) or "not recorded"


def _percent(level: float) -> str:
    return f"{100 * level:g} %"


def _number(value: object) -> float | None:
    """A number of a record from a file; None for anything else."""
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _table(record: Any, name: str) -> dict[str, Any]:
    entry = record.get(name) if isinstance(record, dict) else None
    return entry if isinstance(entry, dict) else {}
