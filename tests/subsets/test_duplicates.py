"""Duplicates: pairs, groups, removal, and images that are none."""

import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from skimage import data

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.images.record import Catalogue, ImageRecord, Split
from saliency_pipeline.subsets import near
from saliency_pipeline.subsets.duplicates import (
    Duplicates,
    dedupe,
    dropped,
    find_duplicates,
    group,
    in_conflict,
    leaks,
    marked,
    members,
)
from saliency_pipeline.subsets.fingerprint import ROW, Fingerprints, fingerprint

CAT = Image.fromarray(data.chelsea())
PHOTOS = [Image.fromarray(getattr(data, name)()) for name in ("astronaut", "coffee", "rocket", "camera")]


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.convert("RGB").save(file, kind, **options)
    return file.getvalue()


def scaled(image: Image.Image, factor: float) -> Image.Image:
    return image.resize((round(factor * image.width), round(factor * image.height)))


def cropped(image: Image.Image, left: float, top: float, right: float, bottom: float) -> Image.Image:
    width, height = image.size
    return image.crop(tuple(map(round, (left * width, top * height, (1 - right) * width, (1 - bottom) * height))))


def looked_at(files: Sequence[bytes]) -> Fingerprints:
    rows = np.array([fingerprint(file) for file in files], ROW)
    return Fingerprints(
        rows["sha256"], rows["hashes"].astype(np.uint64), rows["frame"], np.ones(len(rows), np.bool_), {}
    )


def duplicates_of(*files: bytes) -> Duplicates:
    return find_duplicates(looked_at(files))


REST = [encoded(photo) for photo in PHOTOS]

COPIES: dict[str, Callable[[Image.Image], bytes]] = {
    "jpeg-30": lambda image: encoded(image, "JPEG", quality=30),
    "jpeg-95": lambda image: encoded(image, "JPEG", quality=95),
    "webp": lambda image: encoded(image, "WEBP", quality=60),
    "gif": lambda image: encoded(image, "GIF"),
    "gray": lambda image: encoded(image.convert("L")),
    "scale-0.3": lambda image: encoded(scaled(image, 0.3), "JPEG", quality=80),
    "scale-2": lambda image: encoded(scaled(image, 2)),
    "other proportions": lambda image: encoded(image.resize((300, 300))),
    "darker": lambda image: encoded(image.point(lambda value: value * 0.8)),
    "crop-3%": lambda image: encoded(cropped(image, 0.03, 0.0, 0.02, 0.03)),
    "crop-8%": lambda image: encoded(cropped(image, 0.08, 0.02, 0.05, 0.07)),
    "crop-10% all around": lambda image: encoded(cropped(image, 0.1, 0.1, 0.1, 0.1)),
}


@pytest.mark.parametrize("kind", COPIES)
def test_copies_are_near_duplicates(kind: str) -> None:
    duplicates = duplicates_of(*REST, encoded(CAT), COPIES[kind](CAT))
    assert duplicates.pairs.tolist() == [[4, 5]]
    assert duplicates.exact.tolist() == [False]
    assert 0 <= duplicates.distances[0] < (0.01 if "crop" in kind else 0.005)


def test_crops_are_found_whichever_comes_first() -> None:
    crop = encoded(cropped(CAT, 0.08, 0.02, 0.05, 0.07))
    assert duplicates_of(crop, *REST, encoded(CAT)).pairs.tolist() == [[0, 5]]


@pytest.mark.parametrize(
    "other",
    [
        encoded(ImageOps.mirror(CAT)),
        encoded(ImageOps.flip(CAT)),
        encoded(CAT.rotate(180)),
        encoded(cropped(CAT, 0.3, 0.3, 0.0, 0.0)),
        encoded(ImageOps.invert(CAT)),
    ],
    ids=["mirrored", "upside down", "turned", "half of it", "negative"],
)
def test_what_is_no_copy_is_none(other: bytes) -> None:
    assert len(duplicates_of(encoded(CAT), other, *REST)) == 0


def shirt(print_at: int) -> Image.Image:
    """A drawing that is symmetric but for a small print on one side."""
    picture = Image.new("L", (240, 300), 230)
    picture.paste(90, (60, 60, 180, 270))
    picture.paste(90, (30, 60, 210, 110))
    picture.paste(160, (print_at, 90, print_at + 22, 130))
    return picture


def test_a_mirrored_picture_that_is_nearly_symmetric_is_no_duplicate() -> None:
    left, right = shirt(80), ImageOps.mirror(shirt(80))
    frames = np.stack([fingerprint(encoded(each))["frame"] for each in (left, right)]).astype(np.float64)
    likeness = np.corrcoef(frames.reshape(2, -1))[0, 1]
    assert likeness > 0.95
    assert len(duplicates_of(encoded(left), encoded(right), *REST)) == 0
    # nor where correlation alone would take it for one
    duplicates = find_duplicates(looked_at([encoded(left), encoded(right), *REST]), threshold=0.1)
    assert len(duplicates) == 0


def test_a_symmetric_picture_is_a_duplicate_of_its_copy() -> None:
    picture = shirt(109)
    assert len(duplicates_of(encoded(picture), encoded(scaled(picture, 0.6), "JPEG", quality=60))) == 1


def test_other_photographs_of_the_same_kind_are_no_duplicates() -> None:
    """The same ground, the same garment, another print."""
    assert len(duplicates_of(encoded(shirt(80)), encoded(shirt(138)), encoded(shirt(109)))) == 0


def test_exact_duplicates_are_paired_with_the_first() -> None:
    cat, near_cat = encoded(CAT), encoded(CAT, "JPEG")
    duplicates = duplicates_of(REST[0], cat, cat, near_cat, cat, near_cat)
    assert [tuple(pair) for pair, exact in zip(duplicates.pairs.tolist(), duplicates.exact, strict=True) if exact] == [
        (1, 2),
        (1, 4),
        (3, 5),
    ]
    assert duplicates.distances[duplicates.exact].tolist() == [0, 0, 0]
    assert [tuple(pair) for pair in duplicates.pairs[~duplicates.exact].tolist()] == [(1, 3)]
    assert group(duplicates.pairs, 6).tolist() == [0, 1, 1, 1, 1, 1]


def test_empty_images_have_exact_duplicates_only() -> None:
    pages = [encoded(Image.new("RGB", size, color)) for size, color in (((80, 80), "white"), ((90, 90), "white"))]
    duplicates = duplicates_of(pages[0], pages[1], encoded(Image.new("RGB", (80, 80), "black")), pages[0])
    assert duplicates.pairs.tolist() == [[0, 3]]
    assert duplicates.exact.tolist() == [True]


def test_images_that_cannot_be_read_are_duplicates_of_none() -> None:
    prints = looked_at([encoded(CAT)] * 3)
    prints.readable[0] = False
    assert find_duplicates(prints).pairs.tolist() == [[1, 2]]


def test_none_at_all() -> None:
    nothing = Fingerprints(
        *(np.zeros((0, *shape), kind) for shape, kind in (((32,), "u1"), ((11,), "u8"), ((64, 64), "u1"), ((), "?"))),
        {},
    )
    assert len(find_duplicates(nothing)) == 0
    assert group(find_duplicates(nothing).pairs, 0).tolist() == []
    assert members([]) == ()


def test_the_threshold_counts() -> None:
    prints = looked_at([encoded(CAT), encoded(CAT, "JPEG", quality=30)])
    (distance,) = find_duplicates(prints).distances
    assert len(find_duplicates(prints, threshold=distance)) == 1
    assert len(find_duplicates(prints, threshold=distance * 0.99)) == 0
    for threshold in (-0.1, 0.2, float("nan")):
        with pytest.raises(SalpipeError, match="threshold"):
            find_duplicates(prints, threshold=threshold)


# candidates


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1))
def test_bits_are_counted(values: list[int]) -> None:
    assert near._ones(np.array(values, np.uint64)).tolist() == [value.bit_count() for value in values]


@settings(max_examples=20)
@given(st.integers(0, 2**32), st.integers(2, 8))
def test_few_hashes_are_all_compared(seed: int, count: int) -> None:
    random = np.random.default_rng(seed)
    hashes = random.integers(0, 2**64, (count, 11), np.uint64)
    hashes[1:] ^= (hashes[1:] ^ hashes[:1]) & np.uint64(0xFFFF)  # some are near one another
    pairs, windows = near._candidates(hashes, 28, 11)
    wanted = {
        (i, j, window)
        for i in range(count)
        for j in range(count)
        for window in range(11)
        if i != j and int(hashes[i, window] ^ hashes[j, 0]).bit_count() <= 28
    }
    assert sorted(zip(*pairs.T.tolist(), windows.tolist(), strict=True)) == sorted(wanted)


def test_near_hashes_are_found_among_many() -> None:
    random = np.random.default_rng(0)
    hashes = random.integers(0, 2**64, (20_000, 11), np.uint64)
    for image in range(1000):
        bits = random.choice(64, 4, replace=False).astype(np.uint64)
        hashes[19_000 + image] = hashes[image] ^ np.bitwise_or.reduce(np.uint64(1) << bits)
    pairs, _ = near._candidates(hashes, 8, 1)
    duplicates = set(map(tuple, pairs.tolist()))
    assert np.mean([(image, 19_000 + image) in duplicates for image in range(1000)]) > 0.98


def test_work_is_bounded_where_thousands_are_alike() -> None:
    """All pairs of 5,000 would be 12 million."""
    frame = fingerprint(encoded(CAT))
    count = 5000
    alike = Fingerprints(
        np.random.default_rng(0).integers(0, 256, (count, 32)).astype(np.uint8),
        np.repeat(frame["hashes"][None].astype(np.uint64), count, 0),
        np.broadcast_to(frame["frame"], (count, 64, 64)),
        np.ones(count, np.bool_),
        {},
    )
    duplicates = find_duplicates(alike)
    assert len(duplicates) <= 8 * count
    assert not group(duplicates.pairs, count).any()


# groups


def test_chains_are_one_group() -> None:
    assert group(np.array([[4, 5], [0, 2], [2, 4]]), 7).tolist() == [0, 1, 0, 3, 0, 0, 6]
    assert [places.tolist() for places in members([0, 1, 0, 3, 0, 0, 1])] == [[0, 2, 4, 5], [1, 6]]


def record(key: str, label: int = -1, split: Split = Split.NONE) -> ImageRecord:
    return ImageRecord(key, key, label, split)


def test_conflicts_and_leaks_need_two_that_are_set() -> None:
    assert in_conflict([record("a", 0), record("b"), record("c", 1)])
    assert not in_conflict([record("a", 0), record("b"), record("c", 0)])
    assert leaks([record("a", split=Split.TRAIN), record("b", split=Split.TEST)])
    assert not leaks([record("a", split=Split.TEST), record("b")])


CATALOGUE = Catalogue(
    "photos",
    [record("a", 0), record("b", 1), record("c", 0), record("d", 0), record("e"), record("f", 1)],
    ("cat", "dog"),
    notes=("a note",),
)


def test_the_first_of_each_group_is_kept() -> None:
    kept = dedupe(CATALOGUE, [0, 0, 2, 2, 0, 5], "keep-first")
    assert [each.key for each in kept.records] == ["a", "c", "f"]
    assert kept.notes == ("a note", "duplicates left out (keep-first): 3, images kept: 3")
    assert kept.classes == CATALOGUE.classes


def test_groups_in_conflict_go_entirely() -> None:
    groups = np.array([0, 0, 2, 2, 0, 5])
    kept = dedupe(CATALOGUE, groups, "drop-conflicts")
    assert [each.key for each in kept.records] == ["c", "f"]
    assert dropped(CATALOGUE, groups, "drop-conflicts").tolist() == [True, True, False, True, True, False]


def test_without_duplicates_nothing_changes() -> None:
    assert dedupe(CATALOGUE, range(6), "drop-conflicts") == CATALOGUE


def test_mistakes_are_named() -> None:
    with pytest.raises(SalpipeError, match="dedupe 'keep-last': use one of keep-first, drop-conflicts"):
        dedupe(CATALOGUE, range(6), "keep-last")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="5 groups for 6 images"):
        marked(CATALOGUE, [0, 0, 2, 2, 0])
    with pytest.raises(ValueError, match="5 groups for 6 images"):
        dedupe(CATALOGUE, range(5), "keep-first")


def test_every_removed_image_has_a_twin_that_stays(tmp_path: Path) -> None:
    files = [*REST, encoded(CAT), *(make(CAT) for make in COPIES.values()), encoded(CAT)]
    groups = group(duplicates_of(*files).pairs, len(files))
    catalogue = Catalogue("", [record(f"{place}") for place in range(len(files))])
    assert [each.key for each in dedupe(catalogue, groups, "keep-first").records] == ["0", "1", "2", "3", "4"]
