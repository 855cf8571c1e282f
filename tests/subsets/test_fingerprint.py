"""Fingerprints and their cache."""

import hashlib
import io
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import imagehash
import numpy as np
import pytest
from PIL import Image
from skimage import data

from saliency_pipeline.datasets.folder import read_folder
from saliency_pipeline.errors import BadImageError, SalpipeError
from saliency_pipeline.images.decode import decode_frame
from saliency_pipeline.images.record import Catalogue, ImageRecord
from saliency_pipeline.subsets import fingerprint as module
from saliency_pipeline.subsets.fingerprint import Fingerprints, fingerprint, fingerprint_frame, fingerprints

PHOTO = Image.fromarray(data.chelsea())


def encoded(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.fixture
def photos(tmp_path: Path) -> Catalogue:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(12):
        PHOTO.crop((20 * number, 0, 20 * number + 200, 200)).save(folder / f"{number}.jpg")
    return read_folder(folder)


def same(first: Fingerprints, second: Fingerprints) -> bool:
    return all(
        np.array_equal(getattr(first, name), getattr(second, name))
        for name in ("sha256", "hashes", "frames", "readable")
    )


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The SHA-256 of every file that is fingerprinted from now on."""
    seen: list[str] = []

    def counting(file: bytes, real: Callable[[bytes], object] = fingerprint) -> object:
        seen.append(hashlib.sha256(file).hexdigest())
        return real(file)

    monkeypatch.setattr(module, "fingerprint", counting)
    return seen


# one image


def test_bytes_hashes_and_frame_are_as_documented() -> None:
    file = encoded(PHOTO, "PNG")
    row = fingerprint(file)
    assert row["sha256"].tobytes() == hashlib.sha256(file).digest()
    whole = imagehash.phash(Image.fromarray(row["frame"]).resize((32, 32), Image.Resampling.LANCZOS))
    assert int(row["hashes"][0]).to_bytes(8, "little") == np.packbits(whole.hash.ravel()).tobytes()
    gray = np.asarray(PHOTO.convert("L").resize((64, 64), Image.Resampling.BOX), np.float32)
    assert abs(gray - row["frame"]).mean() < 8


def test_a_window_hashes_like_the_crop_it_is() -> None:
    width, height = PHOTO.size
    crop = PHOTO.crop((round(0.1 * width), round(0.05 * height), width, round(0.95 * height)))
    window = module.WINDOWS.index((0.1, 0.05, 1.0, 0.9500000000000001))
    inside, alone = fingerprint(encoded(PHOTO))["hashes"][window], fingerprint(encoded(crop))["hashes"][0]
    assert int(inside ^ alone).bit_count() <= 6


@pytest.mark.parametrize("side", [64, 96, 224])
def test_a_frame_looks_like_the_file_that_it_was_decoded_from(side: int) -> None:
    file = io.BytesIO()
    Image.fromarray(data.chelsea()).save(file, "PNG")
    of_file = fingerprint(file.getvalue())
    frame, _ = decode_frame(file.getvalue(), side, fit="squash")
    row = fingerprint_frame(frame, hashlib.sha256(file.getvalue()).digest())
    assert (row["sha256"] == of_file["sha256"]).all()
    # the frame has been resized twice
    limit = 0 if side == 64 else 4
    assert np.abs(row["frame"].astype(int) - of_file["frame"]).mean() <= limit
    bits = (row["hashes"] ^ of_file["hashes"]).view(np.uint8)
    assert np.unpackbits(bits).sum() <= 2 * limit


def test_a_border_of_padding_is_cut_off() -> None:
    picture = np.asarray(Image.fromarray(data.chelsea()).resize((64, 40)))
    frame = np.full((64, 64, 3), 128, np.uint8)
    frame[12:52] = picture
    alone, padded = fingerprint_frame(picture, bytes(32)), fingerprint_frame(frame, bytes(32), padded=True)
    assert (alone["frame"] == padded["frame"]).all()
    assert (fingerprint_frame(frame, bytes(32))["frame"] != padded["frame"]).any()
    empty = np.full((64, 64, 3), 128, np.uint8)
    assert fingerprint_frame(empty, bytes(32), padded=True)["frame"].tolist() == [[128] * 64] * 64


def test_orientation_counts_and_color_does_not() -> None:
    upright = fingerprint(encoded(PHOTO, "PNG"))["frame"].astype(int)
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = encoded(PHOTO.transpose(Image.Transpose.ROTATE_90), exif=exif.tobytes(), quality=95)
    for copy in (turned, encoded(PHOTO.convert("L"), "PNG")):
        assert abs(fingerprint(copy)["frame"] - upright).mean() < 1


def test_what_is_no_image_is_refused() -> None:
    with pytest.raises(BadImageError):
        fingerprint(b"no image")


# a catalogue


def test_fingerprints_are_in_the_order_of_the_catalogue(photos: Catalogue) -> None:
    prints = fingerprints(photos, threads=3)
    assert len(prints) == 12
    for place, record in enumerate(photos.records):
        row = fingerprint(record.read())
        assert np.array_equal(prints.frames[place], row["frame"])
        assert np.array_equal(prints.hashes[place], row["hashes"])
        assert np.array_equal(prints.sha256[place], row["sha256"])
    assert same(prints, fingerprints(photos, threads=1))


def test_images_that_cannot_be_read_have_a_reason(photos: Catalogue) -> None:
    root = Path(photos.root)
    (root / "3.jpg").write_bytes(b"no image")
    (root / "5.jpg").unlink()
    prints = fingerprints(photos)
    assert prints.readable.tolist() == [place not in (3, 5) for place in range(12)]
    assert prints.reasons.keys() == {3, 5}
    assert "not an image" in prints.reasons[3]
    assert prints.reasons[5] == "No such file or directory"


def test_the_whole_image_counts_also_where_a_region_is_meant(photos: Catalogue) -> None:
    regions = replace(photos, records=[replace(record, box=(0, 0, 10, 10)) for record in photos.records])
    assert same(fingerprints(photos), fingerprints(regions))


def test_bytes_alone_need_no_decoding(photos: Catalogue, looked_at: list[str]) -> None:
    (Path(photos.root) / "3.jpg").write_bytes(b"no image")
    prints = fingerprints(photos, bytes_only=True)
    assert looked_at == []
    assert prints.readable.all()
    assert prints.frames.shape == (0, 64, 64)
    assert prints.sha256[3].tobytes() == hashlib.sha256(b"no image").digest()


# the cache


def test_nothing_is_looked_at_twice(photos: Catalogue, tmp_path: Path, looked_at: list[str]) -> None:
    first = fingerprints(photos, tmp_path / "cache")
    assert len(looked_at) == 12
    assert same(first, fingerprints(photos, tmp_path / "cache"))
    assert len(looked_at) == 12


def test_what_changed_is_looked_at_again(photos: Catalogue, tmp_path: Path, looked_at: list[str]) -> None:
    fingerprints(photos, tmp_path / "cache")
    changed = Path(photos.root) / "4.jpg"
    changed.write_bytes(encoded(PHOTO))
    looked_at.clear()
    prints = fingerprints(photos, tmp_path / "cache")
    assert looked_at == [hashlib.sha256(changed.read_bytes()).hexdigest()]
    assert same(prints, fingerprints(photos))


def test_images_of_an_archive_are_distinguished_by_their_place(tmp_path: Path, looked_at: list[str]) -> None:
    files = [encoded(PHOTO.rotate(angle)) for angle in (0, 30)]
    archive = tmp_path / "archive.tar"
    archive.write_bytes(b"".join(files))
    places = [(0, len(files[0])), (len(files[0]), len(files[1]))]
    records = [
        ImageRecord(f"{n}", str(archive), offset=offset, length=length) for n, (offset, length) in enumerate(places)
    ]
    first = fingerprints(Catalogue(str(archive), records), tmp_path / "cache")
    assert same(first, fingerprints(Catalogue(str(archive), records), tmp_path / "cache"))
    assert len(looked_at) == 2
    swapped = [replace(records[0], key="1"), replace(records[1], key="0")]
    again = fingerprints(Catalogue(str(archive), swapped), tmp_path / "cache")
    assert len(looked_at) == 4
    assert np.array_equal(again.frames, first.frames)


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: file[:-1],
        lambda file: file[:-9] + bytes([file[-9] ^ 1]) + file[-8:],
        lambda file: b"",
        lambda file: b"\x93NUMPY\x01\x00",
    ],
    ids=["cut", "flipped", "empty", "header"],
)
def test_a_damaged_part_is_made_again(
    photos: Catalogue, tmp_path: Path, looked_at: list[str], damage: Callable[[bytes], bytes]
) -> None:
    first = fingerprints(photos, tmp_path / "cache")
    (part,) = (tmp_path / "cache").iterdir()
    part.write_bytes(damage(part.read_bytes()))
    looked_at.clear()
    assert same(first, fingerprints(photos, tmp_path / "cache"))
    assert len(looked_at) == 12
    assert same(first, fingerprints(photos, tmp_path / "cache"))
    assert len(looked_at) == 12


@pytest.mark.parametrize("rows", [13, 10**15, -1])
def test_a_part_that_claims_other_rows_than_it_has_is_made_again(
    photos: Catalogue, tmp_path: Path, looked_at: list[str], rows: int
) -> None:
    first = fingerprints(photos, tmp_path / "cache")
    (part,) = (tmp_path / "cache").iterdir()
    data = part.read_bytes().replace(b"(12,)", b"(%d,)" % rows)
    part.rename(part.with_name(f"{hashlib.sha256(data).hexdigest()}.npy")).write_bytes(data)
    looked_at.clear()
    assert same(first, fingerprints(photos, tmp_path / "cache"))
    assert len(looked_at) == 12


def test_a_strangers_file_in_the_cache_is_not_executed(photos: Catalogue, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str, str]]:
            return shutil.move, (photos.root, str(tmp_path / "gone"))

    file = io.BytesIO()
    np.save(file, np.array([Evil()], object), allow_pickle=True)
    (tmp_path / "cache").mkdir()
    for stranger in (file.getvalue(), pickle.dumps(Evil())):
        (tmp_path / "cache" / f"{hashlib.sha256(stranger).hexdigest()}.npy").write_bytes(stranger)
    assert fingerprints(photos, tmp_path / "cache").readable.all()
    assert not (tmp_path / "gone").exists()


def test_fingerprints_of_another_version_are_not_taken(
    photos: Catalogue, tmp_path: Path, looked_at: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fingerprints(photos, tmp_path / "cache")
    monkeypatch.setattr(module, "VERSION", module.VERSION + 1)
    fingerprints(photos, tmp_path / "cache")
    assert len(looked_at) == 24


def test_an_interruption_keeps_what_was_done(
    photos: Catalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = [7]

    def interrupted(file: bytes, real: Callable[[bytes], object] = fingerprint) -> object:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return real(file)

    monkeypatch.setattr(module, "fingerprint", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fingerprints(photos, tmp_path / "cache", threads=1)
    left[0] = 5
    assert fingerprints(photos, tmp_path / "cache", threads=1).readable.all()


def test_a_kill_loses_little(photos: Catalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FLUSH_ROWS", 5)
    fingerprints(photos, tmp_path / "cache")
    assert len(list((tmp_path / "cache").glob("*.npy"))) == 3  # 5, 5 and 2


def test_a_cache_that_cannot_be_written_is_named(photos: Catalogue, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(SalpipeError, match="cannot write"):
        fingerprints(photos, tmp_path / "cache")
