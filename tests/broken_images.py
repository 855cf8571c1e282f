"""Damaged and unusual image files, built byte by byte, and a folder of some 200 of them."""

import functools
import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

MODES = {".jpg": "JPEG", ".png": "PNG", ".webp": "WEBP", ".bmp": "BMP", ".gif": "GIF", ".tiff": "TIFF", ".ppm": "PPM"}


def photo(height: int = 48, width: int = 64, seed: int = 0) -> np.ndarray:
    """Something with edges, gradients and noise: (height, width, 3) uint8."""
    rows, columns = np.mgrid[0:height, 0:width]
    noise = np.random.default_rng(seed).integers(0, 40, (height, width, 3))
    smooth = np.stack([rows * 200 // height, columns * 200 // width, (rows // 8 + columns // 8) % 2 * 200], axis=-1)
    return (smooth + noise).astype(np.uint8)


def encode(image: np.ndarray | Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(file, kind, **options)
    return file.getvalue()


@functools.cache
def good_files() -> dict[str, bytes]:
    """One whole file for each of Pillow's ways of decoding: name to bytes."""
    image = photo()
    files = {f"plain{suffix}": encode(image, kind) for suffix, kind in MODES.items()}
    files["progressive.jpg"] = encode(image, "JPEG", progressive=True, quality=90)
    files["lossless.webp"] = encode(image, "WEBP", lossless=True)
    files["lzw.tif"] = encode(image, "TIFF", compression="tiff_lzw")
    files["jpeg.tif"] = encode(image, "TIFF", compression="jpeg")
    return files


def png_bytes(width: int, height: int, *, depth: int, color: int, rows: bytes, extra: bytes = b"") -> bytes:
    """A PNG file from its filtered rows, which need not fit its size."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    transparency = chunk(b"tRNS", extra) if extra else b""
    pixels = chunk(b"IDAT", zlib.compress(rows, 9))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + transparency + pixels + chunk(b"IEND", b"")


def tiff_bytes(pixels: bytes, tags: dict[int, int | tuple[int, ...]], order: str = "<") -> bytes:
    """An uncompressed TIFF file with one strip at byte 8, from its tags, all of them LONG."""
    entries, values = b"", b""
    where = 8 + len(pixels)
    tags = {273: 8, 279: len(pixels), **tags}
    after = where + 2 + 12 * len(tags) + 4
    for tag in sorted(tags):
        value = tags[tag] if isinstance(tags[tag], tuple) else (tags[tag],)
        packed = struct.pack(f"{order}{len(value)}I", *value)
        if len(value) > 1:
            packed, values = struct.pack(f"{order}I", after + len(values)), values + packed
        entries += struct.pack(f"{order}HHI", tag, 4, len(value)) + packed
    header = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, where)
    return header + pixels + struct.pack(f"{order}H", len(tags)) + entries + bytes(4) + values


@functools.cache
def bombs() -> dict[str, bytes]:
    """Small files that claim, or hold, far more pixels than any limit allows."""
    side = 30_000
    row = bytes(1 + side // 8)
    webp = b"VP8X" + struct.pack("<I", 10) + bytes(4) + (2**16 - 2).to_bytes(3, "little") * 2
    gif = b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0)
    bmp = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 24, 0, 0, 0, 0, 0, 0)
    plain = {256: 8, 257: 8, 258: (8, 8, 8), 262: 2, 277: 3}
    jpeg = bytearray(encode(photo(), "JPEG"))
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = b"\xff\xdc\xff\xdc"
    return {
        "30000.png": png_bytes(side, side, depth=1, color=0, rows=row * side),
        "65535.webp": b"RIFF" + struct.pack("<I", 4 + len(webp)) + b"WEBP" + webp,
        "65535.gif": gif + b"," + struct.pack("<HHHHB", 0, 0, 65535, 65535, 0) + b"\x08\x01\x00\x00;",
        "30000.bmp": b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + bmp,
        "30000.tiff": tiff_bytes(bytes(192), {**plain, 256: side, 257: side}),
        "tile.tiff": tiff_bytes(bytes(192), {**plain, 322: 2**16, 323: 2**16, 324: 8, 325: 192, 259: 5}),
        "65500.jpg": bytes(jpeg),
    }


@functools.cache
def unusual() -> dict[str, bytes]:
    """Whole files that a careless reader gets wrong."""
    image = Image.fromarray(photo())
    frames = [Image.new("RGB", (20, 30), color) for color in ("red", "blue")]
    gray16 = Image.fromarray(np.arange(64 * 64, dtype=np.uint16).reshape(64, 64) * 16)
    damaged_exif = b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\x01\x1a\x00\x05\xff\xff\xff\xff" * 3
    return {
        "cmyk.jpg": encode(image.convert("CMYK"), "JPEG"),
        "cmyk.tiff": encode(image.convert("CMYK"), "TIFF"),
        "16bit.png": encode(gray16, "PNG"),
        "16bit.tiff": encode(gray16, "TIFF"),
        "animated.gif": encode(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        "animated.webp": encode(frames[0], "WEBP", save_all=True, append_images=frames[1:]),
        "animated.png": encode(frames[0], "PNG", save_all=True, append_images=frames[1:]),
        "pages.tiff": encode(frames[0], "TIFF", save_all=True, append_images=frames[1:]),
        "gray.jpg": encode(image.convert("L"), "JPEG"),
        "one_bit.png": encode(image.convert("1"), "PNG"),
        "one_bit.tiff": encode(image.convert("1"), "TIFF", compression="group4"),
        "palette.png": encode(image.quantize(17), "PNG", transparency=3),
        "gray_alpha.png": encode(image.convert("LA"), "PNG"),
        "alpha.webp": encode(image.convert("RGBA"), "WEBP"),
        "lab.tiff": encode(image.convert("LAB"), "TIFF"),
        "exif.jpg": encode(image, "JPEG", exif=damaged_exif),
        "pixel.png": encode(image.crop((0, 0, 1, 1)), "PNG"),
        "line.png": encode(Image.new("L", (5000, 1)), "PNG"),
    }


def build_broken_folder(root: Path) -> int:
    """Fills a folder with broken and unusual image files, a class folder for each kind of trouble.

    Everything under `unusual`, `renamed` and `names` can be decoded; nothing under `truncated`, `empty`, `noise`
    and `bombs` can; under `overwritten` and `unreadable` it depends on the file and on who reads it.

    Returns:
        How many of them are image files: what a run must account for, stored or rejected.
    """
    generator = np.random.default_rng(7)
    files: dict[str, bytes] = {}
    whole = good_files()
    suffixes = ("jpg", "JPEG", "png", "Webp", "bmp", "TIFF", "tif", "gif")
    for name, data in whole.items():
        stem, suffix = name.split(".")
        for tenth in range(1, 10):
            files[f"truncated/{stem}_{suffix}_{tenth}.{suffix}"] = data[: len(data) * tenth // 10]
        for copy in range(3):
            start = len(data) * (copy + 1) // 4
            damage = generator.bytes(max(8, len(data) // 20))
            files[f"overwritten/{stem}_{suffix}_{copy}.{suffix}"] = data[:start] + damage + data[start + len(damage) :]
        # Followed by noise, the first bytes still promise an image of the kind.
        files[f"noise/{stem}_{suffix}_magic.{suffix}"] = data[:12] + generator.bytes(2000)
    for suffix in suffixes:
        files[f"empty/empty.{suffix}"] = b""
        for length in (1, 100, 5000):
            files[f"noise/random_{length}.{suffix}"] = b"\0" + generator.bytes(length - 1)
    files["noise/page.jpg"] = b"<!DOCTYPE html><title>404 Not Found</title>"
    files["noise/drawing.png"] = b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'
    files["noise/print.tif"] = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n"
    files["noise/sound.webp"] = b"RIFF\x24\0\0\0WAVEfmt " + bytes(24)
    for right, wrong in (("jpg", "png"), ("png", "jpg"), ("webp", "jpeg"), ("gif", "bmp"), ("tiff", "gif")):
        files[f"renamed/was_{right}.{wrong}"] = whole[f"plain.{right}"]
    files |= {f"bombs/{name}": data for name, data in bombs().items()}
    files |= {f"unusual/{name}": data for name, data in unusual().items()}
    for name in ("two\nlines.jpg", "Käse 猫 🐈.JPG", "'; rm -rf *.jpg", "many.dots..jpg.Jpg", "x" * 240 + ".jpg"):
        files[f"names/{name}"] = whole["plain.jpg"]
    files["x.jpg/inside.jpg"] = whole["plain.jpg"]
    files["unreadable/forbidden.jpg"] = whole["plain.jpg"]
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    (root / "empty.jpg").mkdir()
    (root / "unreadable" / "forbidden.jpg").chmod(0)
    (root / "unreadable" / "nowhere.jpg").symlink_to(root / "no such file")
    (root / "unreadable" / "itself.jpg").symlink_to(root / "unreadable" / "itself.jpg")
    (root / "unreadable" / "loop").symlink_to(root, target_is_directory=True)
    os.mkfifo(root / "unreadable" / "pipe.jpg")
    count = len(files) + 2
    try:
        Path(os.fsdecode(os.fsencode(root / "names") + b"/\xff\xfe.jpg")).write_bytes(whole["plain.jpg"])
    except OSError:  # macOS allows only UTF-8 in names
        return count
    return count + 1
