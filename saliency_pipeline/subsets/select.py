"""Selection of classes and images of a catalogue, and their new splits."""

from __future__ import annotations

from dataclasses import replace
from itertools import compress

import numpy as np
import numpy.typing as npt

from saliency_pipeline.datasets.files.notes import Notes
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.images.record import Catalogue, ImageRecord, Split
from saliency_pipeline.subsets.classes import classes_meant
from saliency_pipeline.subsets.groups import leaders
from saliency_pipeline.subsets.hash_sampling import Hashes, hashes, ranks
from saliency_pipeline.subsets.selection import Selection, format_split
from saliency_pipeline.subsets.splits import part_totals, split_by_hash, split_units
from saliency_pipeline.text import shown

Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

PARTS = ("training", "validation", "test")
"""Names of the parts of `--split`; their positions are the values of `Split`."""

_NAMED = 10


def select(catalogue: Catalogue, selection: Selection) -> Catalogue:
    """Select classes and images of a catalogue and split them.

    A seed selects the same images on every machine and from every layout of a data set, since layouts give an image
    the same key and classes are sampled by WordNet id where they have one.

    Args:
        catalogue: the data set. If it has classes, images without a label are never selected. New splits never divide
            a group of its records.
        selection: the options. The default selection returns the catalogue unchanged.

    Returns:
        A catalogue of the selected records, in their order. Labels index the selected classes, in their order; a class
        that `classes`, `num_classes` and `min_per_class` keep stays even without images, unless `splits` are counts.
        Notes list everything else that was left out.

    Raises:
        SalpipeError: a class does not exist, there are too few classes or images, or nothing is left.

    >>> records = [ImageRecord(f"{name}/{n}", "", label) for label, name in enumerate("ab") for n in range(10)]
    >>> selected = select(Catalogue("", records, ("a", "b")), Selection(classes=("b",), splits=(80, 20)))
    >>> selected.classes, len(selected), sum(record.split is Split.VALIDATION for record in selected.records)
    (('b',), 10, 2)
    """
    if selection == Selection(seed=selection.seed):
        return catalogue
    notes = Notes()
    records = catalogue.records
    # without classes, all images count as one unnamed class
    labels = np.fromiter((record.label if catalogue.classes else 0 for record in records), np.int64, len(records))
    splits = np.fromiter((record.split for record in records), np.int8, len(records))
    chosen = _chosen_classes(catalogue, selection, labels, notes)
    kept = _chosen_images(catalogue, selection, labels, splits, chosen, notes)
    if not len(kept):
        raise SalpipeError(f"{shown(catalogue.root)}: no image is left; choose other classes or fewer conditions")
    if selection.splits:
        groups = np.fromiter((record.group for record in records), np.int64, len(records))
        splits[kept] = _new_splits(catalogue, selection, labels[kept], leaders(groups)[kept], notes)

    new_labels = np.cumsum(chosen) - 1 if catalogue.classes else np.array([-1])
    wanted = zip(kept.tolist(), new_labels[labels[kept]].tolist(), splits[kept].tolist(), strict=True)
    return replace(
        catalogue,
        records=[_changed(records[position], label, Split(split)) for position, label, split in wanted],
        classes=tuple(compress(catalogue.classes, chosen)),
        ids=tuple(compress(catalogue.ids, chosen)),
        notes=(*catalogue.notes, *notes.lines()),
    )


def _chosen_classes(catalogue: Catalogue, selection: Selection, labels: Ints, notes: Notes) -> Mask:
    """The selected classes, (k,) bool."""
    classes = catalogue.classes
    chosen = np.ones(max(len(classes), 1), bool)
    wanted = {
        "--classes": selection.classes,
        "--min-per-class": selection.min_per_class,
        "--num-classes": selection.num_classes,
        "--per-class": selection.per_class,
    }
    if not classes:
        if flags := [flag for flag, value in wanted.items() if value]:
            raise SalpipeError(f"{flags[0]}: the images of {shown(catalogue.root)} have no classes")
        return chosen
    if selection.classes:
        chosen[:] = False
        chosen[list(classes_meant(selection.classes, classes, catalogue.ids))] = True
    if selection.classes or selection.num_classes or selection.min_per_class or selection.counts:
        least = selection.min_per_class or 1
        images = np.bincount(labels[labels >= 0], minlength=len(classes))
        few = chosen & (images < least)
        for label in np.flatnonzero(few):
            reason = f"left out, it has fewer than {least:,} images" if least > 1 else "left out, it has no images"
            notes.add(f"class {classes[label]} ({images[label]:,})" if least > 1 else f"class {classes[label]}", reason)
        if (few == chosen).all():
            most = f"the largest of the classes has {images[chosen].max():,} images"
            if selection.min_per_class:
                raise SalpipeError(f"--min-per-class {least}: {most}; use a smaller number")
            raise SalpipeError(f"{shown(catalogue.root)}: {most}; choose other classes")
        chosen &= ~few
    if (number := selection.num_classes) is not None:
        if number > (there := int(chosen.sum())):
            raise SalpipeError(f"--num-classes {number}: only {there:,} classes to sample from; use {there} or less")
        by_hash = np.lexsort((_class_hashes(catalogue, selection, "class"), ~chosen))
        chosen[by_hash[number:]] = False
    return chosen


def _chosen_images(
    catalogue: Catalogue, selection: Selection, labels: Ints, splits: npt.NDArray[np.int8], chosen: Mask, notes: Notes
) -> Ints:
    """The selected images of the chosen classes, as ascending positions."""
    if unlabeled := int((labels < 0).sum()):
        notes.add(f"{unlabeled:,} images", "left out, they have no label")
    kept = np.flatnonzero(np.append(chosen, False)[labels])  # the label -1 finds the last
    if selection.counts is not None:
        wanted = sum(selection.counts)
        if wanted < len(kept) and not selection.recipe:
            notes.add(selection.requested_by, f"read as numbers of images, {wanted:,} of {len(kept):,} are taken")
        return _sampled(catalogue, selection, kept, labels[kept], _quotas(catalogue, selection, labels, chosen))
    if selection.per_class is not None:
        pools = labels[kept] if selection.splits else labels[kept] * len(Split) + splits[kept] + 1
        return _sampled(catalogue, selection, kept, pools, np.full(int(pools.max(initial=0)) + 1, selection.per_class))
    return kept


def _sampled(catalogue: Catalogue, selection: Selection, kept: Ints, pools: Ints, quotas: Ints) -> Ints:
    """The images with the lowest hashes of their pool, as many as its quota."""
    stays = np.ones(len(kept), bool)
    # only pools that exceed their quota are hashed
    large = np.flatnonzero((np.bincount(pools, minlength=len(quotas)) > quotas)[pools])
    keys = (catalogue.records[position].key for position in kept[large].tolist())
    stays[large] = ranks(pools[large], hashes(selection.seed, "draw", keys)) < quotas[pools[large]]
    return kept[stays]


def _quotas(catalogue: Catalogue, selection: Selection, labels: Ints, chosen: Mask) -> Ints:
    """Number of images per class if `splits` are counts, (k,) int64: the same for all, or one less."""
    wanted = sum(selection.counts or ())
    images = np.bincount(labels[labels >= 0], minlength=len(chosen))
    if not catalogue.classes and wanted > images[0]:
        raise SalpipeError(
            f"{selection.requested_by}: {wanted:,} images are wanted, there are {images[0]:,}; ask for fewer"
        )
    quotas = np.zeros(len(chosen), np.int64)
    classes = np.flatnonzero(chosen)
    if wanted < len(classes):
        raise SalpipeError(
            f"{selection.requested_by}: {wanted:,} images for {len(classes):,} classes; ask for more, or "
            f"for fewer classes with --num-classes {wanted}"
        )
    by_hash = classes[np.argsort(_class_hashes(catalogue, selection, "quota")[classes], kind="stable")]
    quotas[by_hash] = wanted // len(classes) + (np.arange(len(classes)) < wanted % len(classes))
    if len(short := np.flatnonzero(images < quotas)):
        named = ", ".join(
            f"{shown(catalogue.classes[label])} {images[label]:,} of {quotas[label]:,}" for label in short[:_NAMED]
        )
        more = f" and {len(short) - _NAMED:,} more" if len(short) > _NAMED else ""
        raise SalpipeError(
            f"{selection.requested_by}: {len(short):,} of {len(classes):,} classes have too few images: "
            f"{named}{more}; {_remedy(catalogue, selection, wanted, images)}"
        )
    return quotas


def _remedy(catalogue: Catalogue, selection: Selection, wanted: int, images: Ints) -> str:
    """Remedy where classes have too few images: the largest number of classes that have enough."""
    if selection.classes:
        images = images[list(classes_meant(selection.classes, catalogue.classes, catalogue.ids))]
    sizes = np.sort(images)[::-1]
    most = min(selection.num_classes or len(sizes), len(sizes))
    enough = np.flatnonzero(-(-wanted // np.arange(1, most + 1)) <= sizes[:most])
    if not len(enough):
        fewer = "leave the recipe out and ask for fewer" if selection.recipe else "ask for fewer"
        return f"there are {int(images.sum()):,} images in all: {fewer} with --split"
    last = int(enough[-1])
    if selection.num_classes:
        fewer = "" if last + 1 == selection.num_classes else f" and --num-classes {last + 1}"
        return f"sample among larger ones with --min-per-class {-(-wanted // (last + 1))}{fewer}"
    return f"leave them out with --min-per-class {sizes[last]}, which keeps {last + 1:,}, or --classes '!NAME'"


def _new_splits(
    catalogue: Catalogue, selection: Selection, labels: Ints, firsts: Ints, notes: Notes
) -> npt.NDArray[np.int8]:
    """The new split of each selected image, the same for all of a group."""
    shares = selection.shares
    totals = list(selection.counts or part_totals(len(labels), shares or ()))
    leader, first, unit, sizes = np.unique(firsts, return_index=True, return_inverse=True, return_counts=True)
    unit_hashes = hashes(selection.seed, "deal", (catalogue.records[position].key for position in leader.tolist()))
    if selection.stable and shares is not None:
        parts = split_by_hash(unit_hashes, shares)[unit]
    else:
        class_hashes = _class_hashes(catalogue, selection, "quota")
        parts = split_units(labels[first], sizes, unit_hashes, totals, class_hashes)[unit]
    actual = np.bincount(parts, minlength=len(totals)).tolist()
    for part, size in enumerate(selection.splits):
        if size and not actual[part]:
            raise SalpipeError(
                f"{selection.requested_by}: none of {len(labels):,} images is left for {PARTS[part]}; "
                "select more images or change the numbers"
            )
    if actual != totals and not selection.stable:
        notes.add(
            f"{format_split(actual)} images instead of {format_split(totals)}",
            "splits are uneven to keep groups of images together",
        )
    return parts


def _class_hashes(catalogue: Catalogue, selection: Selection, purpose: str) -> Hashes:
    return hashes(selection.seed, purpose, catalogue.ids or catalogue.classes or ("",))


def _changed(record: ImageRecord, label: int, split: Split) -> ImageRecord:
    if record.label == label and record.split is split:
        return record
    return replace(record, label=label, split=split)
