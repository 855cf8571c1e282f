"""ILSVRC's boxes in XML: the same as in Kaggle's lists, in folders and archives; damaged files."""

import gzip
import os
import tracemalloc

import pytest

from saliency_pipeline.datasets.imagenet import boxes
from saliency_pipeline.datasets.imagenet.boxes import read_xml
from saliency_pipeline.datasets.open import read_images
from saliency_pipeline.errors import SalpipeError
from tests.datasets import imagenets
from tests.datasets.archives import END, HOSTILE, entry, tar_bytes
from tests.datasets.imagenets import VAL, annotated, annotation, described, expected, val_name

TRAIN = "n02119789/n02119789_30"
BOXES = {
    f"train/{TRAIN}.JPEG": ((12, 0, 500, 375), (3, 5, 4, 8)),
    **{f"val/{val_name(number)}": ((number, 1, 500, 273),) for number in VAL},
}


@pytest.fixture
def root(tmp_path):
    """A data set with images and no boxes."""
    imagenets.train_folders(tmp_path / "train")
    imagenets.val_flat(tmp_path / "val")
    imagenets.devkit(tmp_path / "devkit/data")
    return tmp_path


def put(folder, files):
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def boxes_and_notes(root):
    """The boxes of the images that have some, and the notes on skipped things."""
    catalogue = read_images(root)
    assert described(catalogue) == expected("train", "val")
    return {record.key: record.boxes for record in catalogue.records if record.boxes}, imagenets.named(catalogue)


def of(part):
    """The XML files of a part, by their paths below the folder of the part."""
    files = imagenets.annotations()
    if part == "train":
        return {name: data for name, data in files.items() if not name.startswith("val/")}
    return {name.removeprefix("val/"): data for name, data in files.items() if name.startswith("val/")}


def test_kaggles_lists_say_the_same(root):
    imagenets.solution(root, "train")
    imagenets.solution(root, "val")
    assert boxes_and_notes(root) == (BOXES, ())


@pytest.mark.parametrize(
    ("train", "val"),
    [
        ("Annotations/CLS-LOC/train", "Annotations/CLS-LOC/val"),
        ("Annotations/train", "Annotations/val"),
        ("Annotation", "bboxes/val"),
        ("bbox_train", "bbox_val"),
        ("bbox/train", "bbox/val"),
        ("bounding_boxes", "bounding_boxes/val"),
        ("ILSVRC2012_bbox_train_v2/train", "ILSVRC2012_bbox_val_v3/val"),
        ("bbox_train", "val"),
    ],
)
def test_folders_give_the_boxes_of_kaggles_lists(root, train, val):
    put(root / train, of("train"))
    put(root / val, of("val"))
    assert boxes_and_notes(root) == (BOXES, ())


@pytest.mark.parametrize(("suffix", "pack"), [(".tar.gz", gzip.compress), (".tgz", gzip.compress), (".tar", bytes)])
@pytest.mark.parametrize("above", ["", "./val/"])
def test_archives_give_the_boxes_of_kaggles_lists(root, suffix, pack, above):
    (root / f"ILSVRC2012_bbox_train_v2{suffix}").write_bytes(pack(tar_bytes(of("train"))))
    val = {f"{above}{name}": data for name, data in of("val").items()}
    (root / f"ILSVRC2012_bbox_val_v3{suffix}").write_bytes(pack(tar_bytes(val)))
    before = sorted(root.rglob("*"))
    assert boxes_and_notes(root) == (BOXES, ())
    assert sorted(root.rglob("*")) == before


def test_annotations_beside_data(tmp_path):
    images = tmp_path / "ILSVRC/Data/CLS-LOC"
    imagenets.train_folders(images / "train")
    imagenets.val_flat(images / "val")
    imagenets.devkit_with_map(tmp_path / "ILSVRC/devkit/data")
    put(tmp_path / "ILSVRC/Annotations/CLS-LOC/train", of("train"))
    put(tmp_path / "ILSVRC/Annotations/CLS-LOC/val", of("val"))
    for below in ("", "ILSVRC", "ILSVRC/Data", "ILSVRC/Data/CLS-LOC"):
        assert boxes_and_notes(tmp_path / below) == (BOXES, ())


def test_beside_one_tar_and_beside_the_folders_of_classes(tmp_path):
    train = {key: there for key, there in BOXES.items() if key.startswith("train/")}
    for name, build in (("tar", imagenets.train_tar), ("classes", imagenets.train_folders)):
        path = build(tmp_path / name)
        put(tmp_path / name / "bbox_train", of("train"))
        catalogue = read_images(path)
        assert {record.key: record.boxes for record in catalogue.records if record.boxes} == train
        assert imagenets.named(catalogue) == ()


def test_the_list_goes_before_the_files_and_folders_before_archives(root):
    (root / "ILSVRC2012_bbox_val_v3.tgz").write_bytes(gzip.compress(tar_bytes(of("val"))))
    (root / "bbox_val/val").mkdir(parents=True)
    val = {key: there for key, there in BOXES.items() if key.startswith("val/")}
    assert boxes_and_notes(root) == (val, ())
    other = annotation(annotated("n02110185", "5", "5", "6", "6"))
    put(root / "bbox_val", {"val/ILSVRC2012_val_00000001.xml": other})
    put(root / "bbox_train", of("train"))
    one = {f"train/{TRAIN}.JPEG": BOXES[f"train/{TRAIN}.JPEG"], f"val/{val_name(1)}": ((5, 5, 7, 7),)}
    assert boxes_and_notes(root) == (one, ())
    imagenets.solution(root, "val")
    assert boxes_and_notes(root) == (BOXES, ())


def test_many_files_of_a_folder_are_read_together(root, monkeypatch):
    monkeypatch.setattr(boxes, "_TOGETHER", 3)
    monkeypatch.setattr(boxes, "_THREADS", 2)
    put(root / "bbox_val", of("val"))
    put(root / "bbox_train", of("train"))
    assert boxes_and_notes(root) == (BOXES, ())


def test_files_are_no_list_of_classes(root):
    """Those of the detection task have the same names and other classes."""
    put(root / "bbox_val", {f"{val_name(1)[:-5]}.xml": annotation(annotated("n02084071", "1", "2", "3", "4"))})
    assert boxes_and_notes(root) == ({}, ())
    for path in (root / "devkit/data").iterdir():
        path.unlink()
    with pytest.raises(SalpipeError, match="its class is not known"):
        read_images(root)


# one file


def test_objects_of_the_images_class_are_taken(root):
    data = annotation(
        annotated("n02119789", "9", "8", "7", "6"),
        annotated("n02110185", "1", "2", "3", "4"),
        annotated("kit_fox", "-3", "0", "600", "400"),
        annotated("n02119789", " 10.0 ", "20.7", "30", "40"),
    ).replace(b"</annotation>", b"<owner><name>n02110185</name></owner></annotation>")
    assert read_xml(data, "n02119789", {}) == ((7, 6, 10, 9), (-3, 0, 601, 401), (10, 20, 31, 41))
    assert read_xml(data, "n02110185", {}) == ((1, 2, 4, 5), (-3, 0, 601, 401))
    assert read_xml(annotation(), "n02119789", {}) == ()


def test_text_may_be_written_in_every_way_of_xml():
    plain = annotated("n02119789", "11", "22", "33", "44")
    odd = plain.replace(">11<", "><![CDATA[1]]>1<").replace(">22<", "><!-- x -->&#50;2<").replace(">33<", ">\n33\t<")
    data = b"\xef\xbb\xbf<?xml version='1.0'?>" + annotation(odd + "<!--" + "x" * 20_000 + "-->")
    assert read_xml(data, "n02119789", {}) == ((11, 22, 34, 45),)


LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
BOX = annotated("n02119789", "1", "2", "3", "4")
REFUSED = {
    "no well-formed XML": [
        b"",
        b"\0" * 99,
        b"GIF89a",
        annotation(BOX)[:-9],
        annotation(BOX) * 2,
        annotation(BOX.replace(">1<", ">&one;<")),
        b"<annotation>" + b"<object>" * 30_000,
        b"<annotation>\xff<object></annotation>",
    ],
    "no annotation in PASCAL VOC's form": [b"<html><body>404</body></html>"],
    "has a document type, as no file of boxes should": [
        f'<!DOCTYPE annotation [<!ENTITY l0 "lol">{LAUGHS}]><annotation>&l9;</annotation>'.encode(),
        b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotation><object><name>&x;</name></object></annotation>',
        b'<!DOCTYPE annotation SYSTEM "http://localhost/x.dtd"><annotation/>',
    ],
    "cannot be read, or is too large for an image's boxes": [annotation(BOX * 2000), b" " * 2**20 + annotation(BOX)],
    "a box without its four corners in pixels": [
        annotation(BOX.replace("<xmin>1</xmin>", "")),
        annotation(BOX.replace(">1<", "><")),
        annotation(BOX.replace(">1<", ">left<")),
        annotation(BOX.replace(">1<", ">1e3<")),
        annotation(BOX.replace(">1<", ">1234567<")),
        annotation(BOX.replace(">1<", ">\u0661<")),
        annotation(BOX.replace("<xmin>1</xmin>", "<part><xmin>1</xmin></part>")),
        b"<annotation><object/></annotation>",
    ],
}


@pytest.mark.parametrize(
    ("reason", "data"),
    [pytest.param(reason, data, id=reason) for reason, files in REFUSED.items() for data in files],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_bad_file_is_refused(data, reason, encoding):
    if encoding == "utf-16":  # nothing hides in another encoding
        data = data.decode("latin-1").encode("utf-16")
    with pytest.raises(ValueError, match=r"^[\w ,'-]+$") as caught:
        read_xml(data, "n02119789", {})
    assert encoding == "utf-16" or str(caught.value) == reason


def test_a_file_in_an_encoding_of_its_own_is_read_as_utf_8():
    for encoding in ("cp037", "utf-7", "utf-16", "latin-1"):
        data = f'<?xml version="1.0" encoding="{encoding}"?>'.encode() + annotation(BOX)
        assert read_xml(data, "n02119789", {}) == ((1, 2, 4, 5),)


def test_a_file_in_utf_16_is_read():
    for encoding in ("utf-16", "utf-16-le", "utf-16-be"):
        assert read_xml(annotation(BOX).decode().encode(encoding), "n02119789", {}) == ((1, 2, 4, 5),)


def test_of_several_names_or_boxes_in_an_object_the_last_counts():
    box = BOX[BOX.index("<bndbox>") : BOX.index("</object>")]
    twice = BOX.replace("</name>", "</name><name>n02110185</name>").replace(box, box.replace(">1<", ">0<") + box)
    assert read_xml(annotation(twice), "n02110185", {}) == ((1, 2, 4, 5),)
    assert read_xml(annotation(twice), "n02119789", {}) == ()


# what lies between the others


def test_bad_files_are_named_and_the_rest_is_read(root):
    bad = {reason: data[-1] for reason, data in REFUSED.items()}
    files = of("val")
    names = list(files)
    put(root / "bbox_val", files | dict(zip(names[:5], bad.values(), strict=True)))
    put(root / "bbox_val", {"val.xml": b"<!DOCTYPE x>", "readme.txt": b"", "ILSVRC2012_val_00000099.xml": b"no image"})
    os.mkfifo(root / "bbox_val/pipe")
    os.remove(root / "bbox_val" / names[5])
    os.mkfifo(root / "bbox_val" / names[5])
    there, notes = boxes_and_notes(root)
    assert list(there) == [f"val/{val_name(7)}"]
    reasons = {f"{root}/bbox_val/{name}: {reason}" for name, reason in zip(names, bad, strict=False)}
    reasons.add(f"{root}/bbox_val/{names[5]}: cannot be read, or is too large for an image's boxes")
    assert set(notes) == reasons


def test_a_file_that_is_not_there_is_named(root):
    put(root / "bbox_val", of("val"))
    path = root / "bbox_val/ILSVRC2012_val_00000002.xml"
    path.unlink()
    path.symlink_to(root / "nowhere")
    there, notes = boxes_and_notes(root)
    assert f"val/{val_name(2)}" not in there
    assert notes == (f"{path}: cannot be read, or is too large for an image's boxes",)


def test_hostile_members_are_named_and_the_rest_is_read(root):
    first, *others = of("val").items()
    members = b"".join(entry(name.encode(), data) for name, data in others)
    hostile = b"".join(HOSTILE.values())
    large = entry(first[0].encode(), b" " * 2**19)
    path = root / "ILSVRC2012_bbox_val_v3.tgz"
    path.write_bytes(gzip.compress(hostile + large + members + entry(others[0][0].encode(), b"again") + END))
    there, notes = boxes_and_notes(root)
    assert there == {key: BOXES[key] for key in list(BOXES)[2:]}
    assert f"{path}: {first[0]}: cannot be read, or is too large for an image's boxes" in notes
    for reason in HOSTILE.keys() - {"an extended header without sense"} | {"a name met before in the archive"}:
        assert any(note.endswith(f": {reason}") for note in notes), reason


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x1f\x8b" + bytes(100), "damaged; download it again or move it"),
        (b"PK\x03\x04" + bytes(1000), "compressed; unpack it with unzip, since images are read where they lie"),
        (b"no tar" * 200, "no tar archive, or a damaged one; download it again or move it"),
    ],
)
def test_what_is_no_archive_is_named(root, data, reason):
    path = root / "ILSVRC2012_bbox_val_v3.tgz"
    path.write_bytes(data)
    assert boxes_and_notes(root) == ({}, (f"{path}: {reason}",))


def test_an_archive_cut_short_gives_what_lies_before_the_cut(root):
    path = root / "ILSVRC2012_bbox_val_v3.tgz"
    files = of("val") | {f"x{n}": os.urandom(30_000) for n in range(9)}
    path.write_bytes(gzip.compress(tar_bytes(files))[:-9000])
    assert boxes_and_notes(root) == (
        {key: there for key, there in BOXES.items() if key.startswith("val/")},
        (f"{path}: damaged; download it again or move it",),
    )


def test_a_bomb_takes_no_memory(root, monkeypatch):
    monkeypatch.setattr(boxes, "_MAX_UNPACKED_BYTES", 2**26)
    path = root / "ILSVRC2012_bbox_train_v2.tar.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(entry(f"{TRAIN}.xml".encode(), of("train")[f"{TRAIN}.xml"]))
        file.write(entry(b"bomb", size=b"%011o" % 2**25))
        for _ in range(2**5):
            file.write(bytes(2**20))
        file.write(entry(b"bomb.xml", size=b"%011o" % 2**30))
    tracemalloc.start()
    there, notes = boxes_and_notes(root)
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()
    assert list(there) == [f"train/{TRAIN}.JPEG"]
    reason = "reaches beyond the end of the archive, which is not read any further; download it again"
    assert notes == (f"{path.name}: bomb.xml: {reason}",)


def test_there_is_an_end_to_boxes(root, monkeypatch):
    monkeypatch.setattr(boxes, "_MAX_BOXES", 2)
    put(root / "bbox_val", of("val"))
    there, notes = boxes_and_notes(root)
    assert list(there) == [f"val/{val_name(number)}" for number in (1, 2, 3)]
    assert notes == (f"{root}/bbox_val/{val_name(3)[:-5]}.xml: more boxes than ImageNet has, and none read after it",)
