"""Formats by first bytes, and images without an image's suffix."""

import io
from pathlib import Path

import pytest
from PIL import Image, features

from saliency_pipeline.datasets.files import listing as listing_module
from saliency_pipeline.datasets.files.listing import listing
from saliency_pipeline.datasets.folder import read_folder
from saliency_pipeline.images.keys import SUFFIXES, ending_of
from saliency_pipeline.images.magic import FIRST_BYTES, first_bytes, format_of

FORMATS = ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "JPEG2000", "PPM"] + ["AVIF"] * features.check("avif")
JPEG_BYTES = b"\xff\xd8\xff\xe0"


def encoded(kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").resize((16, 16)).save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", FORMATS)
def test_what_pillow_writes_is_recognized_by_its_first_bytes(kind: str) -> None:
    assert format_of(encoded(kind)[:FIRST_BYTES]) == kind.replace("JPEG2000", "JPEG 2000")


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        (b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf", "AVIF"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0isommp42", None),
        (b"\0\0\0\x14ftypcrx \0\0\0\x01crx ", None),
        (b"\xff\x4f\xff\x51", "JPEG 2000"),
        (b"BM is a text that begins so", None),
        (b"RIFF\0\0\0\0WAVE", None),
        (b"GIF, said he", None),
        (b"P2\n# GIMP\n3 4\n", "PPM"),
        (b"P4\r\n30 40\n", "PPM"),
        (b"P1 is a text", None),
        (b"P3 2 players", None),
        (b"P7\nWIDTH 3\n", None),
        (b"", None),
    ],
)
def test_formats_that_are_distinguished(data: bytes, kind: str | None) -> None:
    assert format_of(data) == kind


def write(root: Path, **files: bytes) -> Path:
    for name, data in files.items():
        (root / name).write_bytes(data)
    return root


def test_content_decides_where_the_ending_is_missing_or_another(tmp_path: Path) -> None:
    names = ("noending", "1.jpg!d", "a.dat", "b.txt", "IMG.001", "c.jpg_large")
    write(tmp_path, **dict.fromkeys(names, encoded("PNG")), **{"list.dat": b"1 2 3", "readme": b"text"})
    catalogue = read_folder(tmp_path)
    assert {record.key for record in catalogue.records} == set(names)
    assert catalogue.notes == (
        "taken for images by their first bytes: 3 without ending, 1 .dat, 1 .jpg_large, 1 .txt",
        "skipped: 1 .dat, 1 without ending (not read)",
    )
    assert catalogue.passed_over == {".dat": 1, "without ending": 1}


def test_raw_photographs_films_and_leftovers_are_not_taken(tmp_path: Path) -> None:
    names = ("1.dng", "2.CR2", "3.mjpeg", "4.jpg.part", "5.jpg~", "6.jpg.bak")
    write(tmp_path, **dict.fromkeys(names, JPEG_BYTES), **{"7.jpg": JPEG_BYTES})
    catalogue = read_folder(tmp_path)
    assert [record.key for record in catalogue.records] == ["7.jpg"]
    assert catalogue.passed_over == dict.fromkeys((".dng", ".cr2", ".mjpeg", ".part", ".bak", "without ending"), 1)


def test_one_file_without_an_ending_is_a_catalogue(tmp_path: Path) -> None:
    write(tmp_path, picture=encoded("JPEG"))
    assert [record.key for record in read_folder(tmp_path / "picture").records] == ["picture"]


def test_of_a_million_lists_few_are_looked_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, **{f"{number:04d}.txt": b"1" for number in range(200)})
    write(tmp_path, **{f"{number:04d}.jpg": b"" for number in range(200)})
    looked: list[str] = []
    monkeypatch.setattr(
        listing_module, "first_bytes", lambda path, offset: looked.append(path) or first_bytes(path, offset)
    )
    entries = listing(str(tmp_path))
    assert (len(entries.images), len(entries.others), len(looked)) == (200, 200, 32)
    # where there is one image of the ending all files of it are looked into
    write(tmp_path, **{"0000.txt": JPEG_BYTES, "0199.txt": JPEG_BYTES})
    assert (listing(str(tmp_path)).by_content, len(looked)) == ({".txt": 2}, 232)


@pytest.mark.parametrize(
    ("name", "ending"),
    [
        ("a.TXT", ".txt"),
        ("a.tar.gz", ".gz"),
        ("a", "without ending"),
        ("a.", "without ending"),
        ("a.7", "without ending"),
    ],
)
def test_endings(name: str, ending: str) -> None:
    assert ending_of(name) == ending


def test_the_default_suffixes_are_those_promised():
    jpeg, others = "jpg jpeg jpe jfif jfi jif pjpeg pjp", "png apng webp bmp dib gif tif tiff ppm pgm pbm pnm"
    assert {
        *jpeg.split(),
        *others.split(),
        *["avif", "avifs", "heic", "heif", "hif", "jp2", "j2k", "jpf", "jpx", "j2c", "jpc"],
    } == SUFFIXES
