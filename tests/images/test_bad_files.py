"""Damaged and hostile files: a frame, or a BadImageError with a reason of one line."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from saliency_pipeline.datasets.folder import read_folder
from saliency_pipeline.errors import BadImageError
from saliency_pipeline.images.decode import DEFAULT_MAX_PIXELS, decode_frame
from saliency_pipeline.images.formats import WEIGHTS, find_format
from tests.broken_images import bombs, build_broken_folder, good_files, unusual

WHOLE = good_files()


@pytest.mark.parametrize("name", WHOLE)
def test_truncated_files_are_refused_wherever_they_end(name):
    data = WHOLE[name]
    for length in range(0, len(data) - 20, max(1, len(data) // 60)):
        with pytest.raises(BadImageError) as caught:
            decode_frame(data[:length], 32)
        assert str(caught.value).isprintable()


def test_reasons_name_the_trouble():
    for data, reason in (
        (b"", "^empty file$"),
        (b"abc", r"^not an image that can be read \(JPEG, PNG, WebP, GIF, TIFF, BMP, PPM, AVIF, HEIC or JPEG 2000\)$"),
        (b"\n<html>", "^a web page or XML instead of an image; download the file itself$"),
        (
            b"version https://git-lfs.github.com/spec/v1\n",
            "^a pointer of Git LFS instead of the file; run",
        ),
        (b"\x1f\x8b\x08", "^compressed with gzip; unpack it$"),
        (WHOLE["plain.jpg"][:-99], r"^damaged or unsupported JPEG \(OSError: image file is truncated"),
        (WHOLE["plain.png"][:-99], r"^damaged or unsupported PNG \(OSError: image file is truncated\)$"),
        (b"\xff\xd8\xff\xe0", r"^damaged or unsupported JPEG \(error: unpack_from requires"),
        (WHOLE["plain.png"][:20], r"^damaged or unsupported PNG \("),
    ):
        with pytest.raises(BadImageError, match=reason):
            decode_frame(data, 32)


def test_other_programs_formats_are_never_parsed():
    # Pillow would hand the first to Ghostscript.
    for data in (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", b"gimp xcf v011", b"8BPS\0\1" + bytes(40)):
        with pytest.raises(BadImageError, match="not an image that can be read"):
            decode_frame(data, 32)


@pytest.mark.parametrize("name", bombs())
def test_bombs_are_refused_by_their_header(name, monkeypatch):
    data = bombs()[name]
    assert len(data) < 2**20

    def never(image):
        raise AssertionError("pixels were decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", never)
    with pytest.raises(
        BadImageError, match=r"more than the limit of 128000000 \(--max-pixels\)|could not create decoder"
    ):
        decode_frame(data, 32)


@pytest.mark.parametrize("name", WHOLE)
def test_max_pixels_is_the_last_number_allowed(name):
    weight = WEIGHTS.get(find_format(WHOLE[name])[0], 1)
    most = weight * 48 * 64
    assert decode_frame(WHOLE[name], 32, max_pixels=most)[1] == (48, 64)
    with pytest.raises(
        BadImageError, match=rf"^64 x 48 pixels.* are more than the limit of {most - 1} \(--max-pixels\)$"
    ):
        decode_frame(WHOLE[name], 32, max_pixels=most - 1)


@pytest.mark.parametrize("name", WHOLE)
def test_pillows_own_switches_neither_matter_nor_change(name, monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    decode_frame(WHOLE[name], 32)
    truncated = WHOLE[name][: len(WHOLE[name]) * 3 // 4]

    def refused(_):
        with pytest.raises(BadImageError):
            decode_frame(truncated, 32)
        return True

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(refused, range(40)))
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True
    assert Image.MAX_IMAGE_PIXELS == 10


def test_a_want_of_memory_is_a_reason(monkeypatch):
    def full(image):
        raise MemoryError

    monkeypatch.setattr(ImageFile.ImageFile, "load", full)
    with pytest.raises(BadImageError, match=r"^damaged PNG, or too little memory to decode it$"):
        decode_frame(WHOLE["plain.png"], 32)


def test_a_damaged_jpeg_is_quiet(capfd):
    # Nothing but zeros where the last third of the pixels was: libjpeg would print "Corrupt JPEG data".
    data = WHOLE["plain.jpg"]
    data = data[: len(data) * 2 // 3] + bytes(len(data) // 3 - 2) + data[-2:]
    assert decode_frame(data, 32)[0].shape == (32, 32, 3)
    assert capfd.readouterr() == ("", "")


def accept_or_reject(data: bytes) -> None:
    """Decodes a file, or checks the reason for which that is refused. Anything else that is raised fails the test."""
    reason = None
    try:
        frame, (height, width) = decode_frame(data, 16, max_pixels=100_000)
    except BadImageError as error:
        reason = str(error)
    if reason is None:
        assert frame.shape == (16, 16, 3)
        assert 0 < height * width <= 100_000
    else:
        assert reason.isprintable()
        assert 0 < len(reason) < 300


MAGICS = [data[:12] for data in WHOLE.values()] + [b"BM", b"GIF89a", b"\xff\xd8\xff", b"II*\0", b"MM\0+\0\x08\0\0"]


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=400), st.sampled_from([b"", *MAGICS]))
def test_random_bytes_are_never_a_surprise(noise, magic):
    accept_or_reject(magic + noise)


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.large_base_example])
@given(st.data())
def test_mutated_files_are_never_a_surprise(data):
    original = data.draw(st.sampled_from([*WHOLE.values(), *unusual().values()]), label="file")
    mutated = bytearray(original[: data.draw(st.integers(0, len(original)), label="length")])
    for _ in range(data.draw(st.integers(0, 6), label="changes")):
        # Most of what can go wrong is in the first bytes.
        at = data.draw(st.one_of(st.integers(0, 64), st.integers(0, len(original))), label="at")
        mutated[at : at + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=4), label="by")
    accept_or_reject(bytes(mutated))


def test_every_file_of_a_broken_folder_is_stored_or_has_a_reason(tmp_path):
    count = build_broken_folder(tmp_path)
    records = read_folder(tmp_path).records
    assert len(records) == count > 190
    outcomes: dict[str, set[bool]] = {}
    reasons = []
    for record in records:
        assert record.key.encode()
        stored = True
        try:
            frame, (height, width) = decode_frame(record.read(), 32)
        except BadImageError as error:
            stored = False
            reasons.append(str(error))
        except OSError:
            stored = False
        if stored:
            assert frame.shape == (32, 32, 3)
            assert 0 < height * width <= DEFAULT_MAX_PIXELS
        outcomes.setdefault(record.key.split("/")[0], set()).add(stored)
    assert all(reason.isprintable() for reason in reasons)
    assert outcomes.pop("overwritten") == {True, False}
    assert outcomes.pop("unreadable") == ({False} if os.geteuid() else {True, False})
    assert outcomes == {
        **{kind: {True} for kind in ("unusual", "renamed", "names", "x.jpg")},
        **{kind: {False} for kind in ("truncated", "empty", "noise", "bombs")},
    }
    assert any("\n" in record.key for record in records)
    assert Path(records[0].path).is_relative_to(tmp_path)
