"""Valid images, archives, tables and lists, small and the same every time: what is mutated. What salpipe itself writes
stands in `outputs.py`, how they are read in `targets.py`.

Each function fills a folder and gives the files that are to be mutated; whatever else lies in the first folder below
the given one belongs to the same data set.
"""

import gzip
import hashlib
import io
import json
import struct
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow
from PIL import Image
from pyarrow import parquet

from tests.broken_images import encode, good_files, photo, png_bytes, tiff_bytes, unusual
from tests.datasets import imagenets
from tests.datasets.archives import tar_bytes

ENDINGS = {"jpeg": ("jpg",), "tiff": ("tif", "tiff"), "jpeg2000": ("jp2", "j2k")}
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="r" xmlns:tiff="t" tiff:Orientation="6"/></x:xmpmeta>'


# images


def images(kind: str, root: Path) -> Iterator[Path]:
    """Whole images of one format, each in a folder of its own."""
    endings = ENDINGS.get(kind, (kind,))
    for name, data in {**good_files(), **unusual(), **_more_images()}.items():
        if name.rpartition(".")[2] in endings and name != "exif.jpg":
            yield written(root / name / "class" / name, data)


def _more_images() -> dict[str, bytes]:
    image = Image.fromarray(photo())
    exif = Image.Exif()
    exif[0x0112] = 6
    rows = photo().astype(">u2") * 257
    deep = b"".join(b"\0" + row.tobytes() for row in rows)
    float_tiff = Image.fromarray(np.linspace(0, 1, 64 * 48, dtype=np.float32).reshape(48, 64))
    tiles = {256: 32, 257: 32, 258: (8, 8, 8), 262: 2, 277: 3, 322: 32, 323: 32, 324: 8, 325: 3072}
    frames = [Image.fromarray(photo(seed=seed)).quantize(16) for seed in range(3)]
    return {
        "turned.jpg": encode(image, "JPEG", exif=exif, xmp=XMP),
        "gray_progressive.jpg": encode(image.convert("L"), "JPEG", progressive=True),
        "profile.jpg": encode(image, "JPEG", icc_profile=bytes(500), comment=b"comment", dpi=(72, 72)),
        "rgb16.png": png_bytes(64, 48, depth=16, color=2, rows=deep),
        "rgba.png": encode(image.convert("RGBA"), "PNG", exif=exif),
        "interlaced.png": _interlaced(photo(16, 16)[..., 0]),
        "turned.webp": encode(image, "WEBP", exif=exif, xmp=XMP),
        "interlaced.gif": encode(frames[0], "GIF", interlace=True, transparency=3),
        "frames.gif": encode(frames[0], "GIF", save_all=True, append_images=frames[1:], loop=0),
        "float.tiff": encode(float_tiff, "TIFF"),
        "deflate.tiff": encode(image, "TIFF", compression="tiff_adobe_deflate", exif=exif),
        "packbits.tiff": encode(image.convert("L"), "TIFF", compression="packbits"),
        "zstd.tiff": encode(image, "TIFF", compression="zstd"),
        "big.tiff": encode(image, "TIFF", big_tiff=True),
        "tiles.tiff": tiff_bytes(
            photo(32, 32).tobytes(), {k: v for k, v in tiles.items() if k < 273 or k > 279} | {277: 3}
        ),
        "gray.bmp": encode(image.convert("L"), "BMP"),
        "rgba.bmp": encode(image.convert("RGBA"), "BMP"),
        "one_bit.bmp": encode(image.convert("1"), "BMP"),
        "gray16.pgm": b"P5\n# maximum\n8 8 1023\n" + bytes(range(2)) * 64,
        "text.ppm": b"P3 4 4 9\n" + b"0 5 9 " * 16,
        "plain.avif": encode(image, "AVIF", quality=60, exif=exif),
        "alpha.avif": encode(image.convert("RGBA"), "AVIF"),
        "plain.jp2": encode(image, "JPEG2000"),
        "lossy.j2k": encode(image, "JPEG2000", irreversible=True, quality_layers=[20], no_jp2=True),
        "gray16.jp2": encode(Image.fromarray(np.arange(4096, dtype=np.uint16).reshape(64, 64) * 16), "JPEG2000"),
    }


def _interlaced(pixels: np.ndarray) -> bytes:
    """An Adam7 PNG, which Pillow reads but does not write."""
    passes = ((0, 8, 0, 8), (0, 8, 4, 8), (4, 8, 0, 4), (0, 4, 2, 4), (2, 4, 0, 2), (0, 2, 1, 2), (1, 2, 0, 1))
    rows = b"".join(
        b"\0" + row.tobytes() for top, down, left, right in passes for row in pixels[top::down, left::right]
    )
    plain = png_bytes(pixels.shape[1], pixels.shape[0], depth=8, color=0, rows=rows)
    header = plain[12:28] + b"\1"
    return plain[:12] + header + struct.pack(">I", zlib.crc32(header)) + plain[33:]


# archives and tables


def small_image(seed: int = 0) -> bytes:
    return encode(photo(12, 16, seed), "JPEG")


def webdataset(root: Path) -> Iterator[Path]:
    """Tars of samples, with classes in `.cls` and in `.json`."""
    cls = {
        f"{n:03d}.{ending}": data
        for n in range(4)
        for ending, data in (("jpg", small_image(n)), ("cls", b"%d" % (n % 2)))
    }
    facts = json.dumps({"label": 1, "filename": "n01443537/n01443537_2.JPEG", "height": 12, "width": 16}).encode()
    named = {"n01443537_2.jpg": small_image(1), "n01443537_2.cls": b"1", "n01443537_2.json": facts}
    files = {"shard-000000.tar": cls, "imagenet1k-train-0000.tar": named}
    for name, inside in files.items():
        yield written(root / name / name, tar_bytes(inside))


def tars(root: Path) -> Iterator[Path]:
    """Photos in tars that are given themselves, with classes and without."""
    for name, form in (("classes", tarfile.PAX_FORMAT), ("flat", tarfile.GNU_FORMAT)):
        between = ["cat/", "d\u00f6g/" + "x" * 120 + "/"] if name == "classes" else ["", ""]
        files = {f"{between[n % 2]}{n}.jpg": small_image(n) for n in range(4)}
        yield written(root / name / "photos.tar", tar_bytes(files, form=form))


def imagenet_tars(root: Path) -> Iterator[Path]:
    """ILSVRC's tars: one of tars, one of images; and the packed devkit and boxes beside one."""
    for name in ("train", "val"):
        folder = root / name
        folder.mkdir()
        path = imagenets.train_tar(folder) if name == "train" else imagenets.val_tar(folder)
        if name == "val":
            imagenets.solution(folder, "val")
        yield path
    for name in ("devkit", "boxes"):
        folder = root / name
        imagenets.val_flat(folder / "val")
        imagenets.packed_devkit(folder)
        boxes = {path: data for path, data in imagenets.annotations().items() if path.startswith("val/")}
        written(folder / "ILSVRC2012_bbox_val_v3.tgz", gzip.compress(tar_bytes(boxes), mtime=0))
        devkit = folder / "ILSVRC2012_devkit_t12.tar.gz"
        devkit.write_bytes(gzip.compress(gzip.decompress(devkit.read_bytes()), mtime=0))
        _without_date(folder)
        yield devkit if name == "devkit" else folder / "ILSVRC2012_bbox_val_v3.tgz"


def tables(root: Path) -> Iterator[Path]:
    """Hugging Face parquet, images as structures and as plain bytes."""
    struct_type = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    rows = [{"bytes": small_image(n), "path": f"{n}.jpg"} for n in range(5)]
    features = {"image": {"_type": "Image"}, "label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}
    meta = {"huggingface": json.dumps({"info": {"features": features}})}
    labels = pyarrow.array([n % 2 for n in range(5)], pyarrow.int64())
    shapes = {"structure": pyarrow.array(rows, struct_type), "bytes": pyarrow.array([row["bytes"] for row in rows])}
    for name, column in shapes.items():
        table = pyarrow.table({"image": column, "label": labels}).replace_schema_metadata(meta)
        out = io.BytesIO()
        parquet.write_table(table, out, row_group_size=2, compression="zstd")
        yield written(root / name / "train-00000-of-00001.parquet", out.getvalue())


# lists


def lists(root: Path) -> Iterator[Path]:
    """Text lists of ImageNet and its subsets, each in a data set that needs it."""
    for name in (
        "LOC_val_solution.csv",
        "ILSVRC2012_validation_ground_truth.txt",
        "map_clsloc.txt",
        "val.txt",
        "synsets.txt",
    ):
        folder = root / name
        imagenets.val_flat(folder / "val")
        if name.startswith("LOC"):
            imagenets.solution(folder, "val")
        elif name in ("val.txt", "synsets.txt"):
            imagenets.caffe(folder)
        else:
            imagenets.devkit_with_map(folder)
        yield folder / name
    for name in ("wnids.txt", "val/val_annotations.txt", "words.txt", "train/n02124075/n02124075_boxes.txt"):
        yield _tiny(root / name.replace("/", "-")) / name
    nette = root / "noisy"
    for n in range(2):
        written(nette / "train" / "n01440764" / f"{n}.JPEG", small_image(n))
    written(nette / "val" / "n01440764" / "9.JPEG", small_image())
    rows = "".join(
        f"train/n01440764/{n}.JPEG,n01440764,n02102040,n01440764,n01440764,n02102040,False\n" for n in range(2)
    )
    header = "path,noisy_labels_0,noisy_labels_1,noisy_labels_5,noisy_labels_25,noisy_labels_50,is_valid\n"
    yield written(nette / "noisy_imagenette.csv", (header + rows).encode())
    for n in range(2):
        written(root / "hundred" / "train.X1" / "n01440764" / f"{n}.JPEG", small_image(n))
    yield written(root / "hundred" / "Labels.json", b'{"n01440764": "tench, Tinca tinca", "n01443537": "goldfish"}')


def _tiny(root: Path) -> Path:
    wnids = ("n02124075", "n01443537")
    for wnid in wnids:
        written(root / "train" / wnid / "images" / f"{wnid}_0.JPEG", small_image())
        written(root / "train" / wnid / f"{wnid}_boxes.txt", f"{wnid}_0.JPEG\t0\t1\t6\t5\n".encode())
    for n in range(len(wnids)):
        written(root / "val" / "images" / f"val_{n}.JPEG", small_image(n))
    written(
        root / "val" / "val_annotations.txt",
        "".join(f"val_{n}.JPEG\t{w}\t0\t2\t3\t6\n" for n, w in enumerate(wnids)).encode(),
    )
    written(root / "words.txt", b"n00001740\tentity\nn02124075\tEgyptian cat\nn01443537\tgoldfish, Carassius auratus\n")
    written(root / "wnids.txt", "".join(f"{wnid}\n" for wnid in wnids).encode())
    return root


def meta(root: Path) -> Iterator[Path]:
    imagenets.val_flat(root / "devkit" / "val")
    imagenets.devkit(root / "devkit")
    _without_date(root / "devkit")
    yield root / "devkit" / "meta.mat"


def xml(root: Path) -> Iterator[Path]:
    folder = root / "boxes"
    imagenets.val_flat(folder / "val")
    imagenets.devkit_with_map(folder)
    for name, data in imagenets.annotations().items():
        written(folder / "bbox_val" / name, data)
    yield folder / "bbox_val" / "val" / "ILSVRC2012_val_00000001.xml"


def boxes(root: Path) -> Iterator[Path]:
    """Boxes of a data set of two images in each form."""
    size = {"id": 1, "file_name": "cat/1.jpg", "width": 64, "height": 48}
    coco = {
        "images": [size],
        "annotations": [{"image_id": 1, "bbox": [1.5, 2, 3, 4]}, {"image_id": 1, "bbox": [1, 2, 9, 9]}],
    }
    corners = "<xmin>1</xmin><ymin>2</ymin><xmax>3</xmax><ymax>4</ymax>"
    voc = f"<annotation><object><bndbox>{corners}</bndbox></object></annotation>"
    table = "file,width,height,xmin,ymin,xmax,ymax\ncat/1.jpg,64,48,1,2,30,40\n2.jpg,64,48,0,0,3,3\n"
    for name, text in (("boxes.csv", table), ("1.xml", voc), ("boxes.json", json.dumps(coco))):
        for number in (1, 2):
            written(root / name / "photos" / "cat" / f"{number}.jpg", small_image(number))
        yield written(root / name / name, text.encode())


def ready_maps(root: Path) -> Iterator[Path]:
    """Maps of images in both forms."""
    values = np.arange(48, dtype=np.float32).reshape(6, 8)
    for name, kind in (("plain", "<f4"), ("big", ">f8"), ("bytes", "u1")):
        file = io.BytesIO()
        np.save(file, np.asarray(values, kind, order="F" if name == "big" else "C"))
        yield written(root / name / "1.npy", file.getvalue())
    for name, image in (
        ("gray", values.astype(np.uint8)),
        ("deep", values.astype(np.uint16) * 999),
        ("bits", values > 9),
    ):
        yield written(root / name / "1.png", encode(Image.fromarray(image), "PNG"))


def classes(root: Path) -> Iterator[Path]:
    for name in ("cat", "great white shark", "dog"):
        written(root / "chosen" / "photos" / name / "1.jpg", small_image())
    yield written(root / "chosen" / "classes.txt", b"# mine\ncat\n!dog\ngreat*   # all of them\nGREAT_WHITE_SHARK\n")


def pubfig(root: Path) -> Iterator[Path]:
    """A list of PubFig with the images of two of its people, and the log of their download."""
    faces = [("Brad Pitt", 2), ("Brad Pitt", 10), ("Shakira", 1)]
    for mutated in ("dev_urls.txt", "fetch.jsonl"):
        folder, rows, log = root / mutated, "# PubFig\n#\tperson\timagenum\turl\trect\tmd5sum\n", ""
        for person, number in faces:
            data, url = small_image(number), f"http://host/{number}.jpg"
            written(folder / person / f"{number}.jpg", data)
            digest = hashlib.md5(data).hexdigest()
            rows += f"{person}\t{number}\t{url}\t1,1,9,{number}\t{digest}\n"
            outcome = {"person": person, "imagenum": number, "url": url, "outcome": "ok", "detail": "", "status": 200}
            log += json.dumps(outcome | {"bytes": len(data), "md5": digest, "attempts": 1}) + "\n"
        written(folder / "dev_urls.txt", rows.encode())
        written(folder / "fetch.jsonl", log.encode())
        yield folder / mutated
    for person, number in faces:
        written(root / "people" / person / f"{number}.jpg", small_image(number))
    yield written(root / "people" / "dev_people.txt", b"# PubFig\nBrad Pitt\nShakira\n")


# pieces


def written(path: Path, data: bytes) -> Path:
    """A file, and the folders it needs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def _without_date(folder: Path) -> None:
    """MATLAB files begin with the date at which they were made."""
    for path in folder.rglob("meta.mat"):
        path.write_bytes(b"MATLAB 5.0 MAT-file".ljust(116) + path.read_bytes()[116:])
