"""One small ImageNet in every layout."""

import io
import re
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import savemat

from saliency_pipeline.images.record import Catalogue, Split
from tests.datasets.archives import tar_bytes, write_tar

IDS = {"n02119789": 1, "n02100735": 2, "n02110185": 3, "n03126707": 4, "n02012849": 5}
"""ILSVRC2012_IDs of the classes: as in the devkit, their order is not that of the WordNet ids."""

WORDS = {
    "n02119789": "kit fox, Vulpes macrotis",
    "n02100735": "English setter",
    "n02110185": "Siberian husky",
    "n03126707": "crane",
    "n02012849": "crane",
    "n02083346": "canine, canid",
}

WNIDS = ("n02012849", "n02100735", "n02110185", "n02119789", "n03126707")
CLASSES = ("crane (n02012849)", "English setter", "Siberian husky", "kit fox", "crane (n03126707)")

TRAIN = {wnid: (f"{wnid}_{4 + place}.JPEG", f"{wnid}_{30 - place}.JPEG") for place, wnid in enumerate(IDS)}
VAL = dict(
    enumerate(("n02110185", "n02119789", "n03126707", "n02012849", "n02100735", "n02119789", "n02110185"), start=1)
)
TEST = (1, 2, 10)

BOXES = {
    **{f"{wnid}_30": f"{wnid} 12 0 499 374 {wnid} 3 5 3 7" for wnid in ("n02119789",)},
    **{f"ILSVRC2012_val_{number:08d}": f"{wnid} {number} 1 499 272 " for number, wnid in VAL.items()},
}
"""Kaggle's PredictionString by ImageId."""


def val_name(number: int) -> str:
    return f"ILSVRC2012_val_{number:08d}.JPEG"


def unlabeled_name(number: int) -> str:
    return f"ILSVRC2012_test_{number:08d}.JPEG"


def described(catalogue: Catalogue) -> tuple[Any, ...]:
    """Everything that must be equal in every layout."""
    images = [(record.key, record.label, record.split, record.read()) for record in catalogue.records]
    return images, catalogue.classes, catalogue.ids


def named(catalogue: Catalogue) -> tuple[str, ...]:
    """The catalogue's notes but for the count of what systems leave between the images, which `write` puts there."""
    junk = re.compile(r"skipped: [0-9]+ hidden, [0-9]+ of the operating system")
    return tuple(note for note in catalogue.notes if not junk.fullmatch(note))


def expected(*parts: str) -> tuple[Any, ...]:
    """What `described` gives for the parts train, val and test, written down here by the rules alone."""
    images: list[tuple[str, int, Split, bytes]] = []
    if "test" in parts:
        images += [
            (f"test/{unlabeled_name(number)}", -1, Split.TEST, content(unlabeled_name(number))) for number in TEST
        ]
    if "train" in parts:
        for label, wnid in enumerate(WNIDS):
            images += [(f"train/{wnid}/{name}", label, Split.TRAIN, content(name)) for name in TRAIN[wnid]]
    if "val" in parts:
        for number, wnid in VAL.items():
            name = val_name(number)
            images.append((f"val/{name}", WNIDS.index(wnid), Split.VALIDATION, content(name)))
    return images, CLASSES, WNIDS


def content(name: str) -> bytes:
    return f"the pixels of {name}".encode()


def write(root: Path, *names: str) -> Path:
    """Images below a folder, each with its own bytes; and what systems leave between them."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content(path.name))
        (path.parent / ".DS_Store").touch()
        (path.parent / f"._{path.name}").touch()
        (path.parent / "Thumbs.db").touch()
    return root


def train_folders(root: Path) -> Path:
    return write(root, *(f"{wnid}/{name}" for wnid, names in TRAIN.items() for name in names))


def class_tars() -> dict[str, bytes]:
    """The thousand tars of which ILSVRC2012_img_train.tar consists, in an order of their own."""
    return {f"{wnid}.tar": tar_bytes({name: content(name) for name in names}) for wnid, names in TRAIN.items()}


def train_tar(root: Path) -> Path:
    return write_tar(root / "ILSVRC2012_img_train.tar", class_tars())


def val_flat(root: Path) -> Path:
    return write(root, *map(val_name, VAL))


def val_folders(root: Path) -> Path:
    return write(root, *(f"{wnid}/{val_name(number)}" for number, wnid in VAL.items()))


def val_tar(root: Path) -> Path:
    files = {"./._x.JPEG": b"", **{f"./{val_name(number)}": content(val_name(number)) for number in VAL}}
    return write_tar(root / "ILSVRC2012_img_val.tar", files)


def unlabeled_flat(root: Path) -> Path:
    return write(root, *map(unlabeled_name, TEST))


def unlabeled_tar(root: Path) -> Path:
    files = {f"test/{unlabeled_name(number)}": content(unlabeled_name(number)) for number in TEST}
    return write_tar(root / "ILSVRC2012_img_test_v10102019.tar", files)


# lists


def lines(path: Path, *rows: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{row}\n" for row in rows))
    return path


def ground_truth() -> list[str]:
    return [str(IDS[wnid]) for wnid in VAL.values()]


def meta_bytes(ids: Mapping[str, float] = IDS, *, words: Mapping[str, str] = WORDS) -> bytes:
    """A meta.mat: the classes in the order of their ids, then an ancestor, which is none."""
    synsets = [(number, wnid, words[wnid], 0, np.zeros((1, 0))) for wnid, number in ids.items()]
    synsets.append((1001, "n02083346", WORDS["n02083346"], 3, np.array([[1.0, 2.0, 3.0]])))
    fields = ("ILSVRC2012_ID", "WNID", "words", "num_children", "children")
    table = np.array(synsets, [(field, "O") for field in fields]).reshape(-1, 1)
    file = io.BytesIO()
    savemat(file, {"synsets": table}, do_compression=True)
    return file.getvalue()


def devkit(folder: Path) -> None:
    """The devkit, unpacked so that `folder` is its `data`."""
    lines(folder / "ILSVRC2012_validation_ground_truth.txt", *ground_truth())
    (folder / "meta.mat").write_bytes(meta_bytes())


def devkit_with_map(folder: Path) -> None:
    lines(folder / "ILSVRC2012_validation_ground_truth.txt", *ground_truth())
    rows = (f"{wnid} {number} {WORDS[wnid].split(',')[0].replace(' ', '_')}" for wnid, number in IDS.items())
    lines(folder / "map_clsloc.txt", *rows)


def packed_devkit(root: Path) -> None:
    top = "ILSVRC2012_devkit_t12/data"
    files = {
        f"{top}/meta.mat": meta_bytes(),
        f"{top}/ILSVRC2012_validation_ground_truth.txt": "\n".join(ground_truth()).encode(),
    }
    with tarfile.open(root / "ILSVRC2012_devkit_t12.tar.gz", "w:gz") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def solution(root: Path, part: str) -> None:
    rows = [f"{image},{text}" for image, text in BOXES.items() if ("_val_" in image) == (part == "val")]
    lines(root / f"LOC_{part}_solution.csv", "ImageId,PredictionString", *reversed(rows))


def annotations() -> dict[str, bytes]:
    """The boxes of Kaggle's lists as ILSVRC's XML files, by their paths in its archives of boxes."""
    files = {}
    for image, text in BOXES.items():
        words = text.split()
        objects = [annotated(words[at], *words[at + 1 : at + 5]) for at in range(0, len(words), 5)]
        folder = "val" if "_val_" in image else image.partition("_")[0]
        files[f"{folder}/{image}.xml"] = annotation(*objects, name=image, folder=folder)
    return files


def annotated(name: str, *corners: str) -> str:
    """An object in an annotation; corners are x and y of the first and of the second."""
    box = "".join(
        f"\t\t\t<{tag}>{text}</{tag}>\n" for tag, text in zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)
    )
    rest = "<pose>Unspecified</pose>\n\t\t<truncated>0</truncated>\n\t\t<difficult>0</difficult>"
    return f"\t<object>\n\t\t<name>{name}</name>\n\t\t{rest}\n\t\t<bndbox>\n{box}\t\t</bndbox>\n\t</object>\n"


def annotation(*objects: str, name: str = "%s", folder: str = "val") -> bytes:
    size = "<width>500</width>\n\t\t<height>375</height>\n\t\t<depth>3</depth>"
    return (
        f"<annotation>\n\t<folder>{folder}</folder>\n\t<filename>{name}</filename>\n\t<source>\n\t\t"
        f"<database>ILSVRC_2012</database>\n\t</source>\n\t<size>\n\t\t{size}\n\t</size>\n\t<segmented>0</segmented>\n"
        f"{''.join(objects)}</annotation>\n"
    ).encode()


def caffe(root: Path) -> None:
    """Caffe's lists with synsets.txt in an order that is not sorted, which the indices follow."""
    order = list(reversed(WNIDS))
    lines(root / "synsets.txt", *order)
    lines(root / "val.txt", *(f"{val_name(number)} {order.index(wnid)}" for number, wnid in VAL.items()))


def kaggle(root: Path) -> Path:
    images = root / "ILSVRC/Data/CLS-LOC"
    train_folders(images / "train")
    val_flat(images / "val")
    unlabeled_flat(images / "test")
    solution(root, "train")
    solution(root, "val")
    lines(root / "LOC_synset_mapping.txt", *(f"{wnid} {WORDS[wnid]}" for wnid in WNIDS))
    return images
