"""Boxes from a CSV table, from COCO's JSON and from PASCAL VOC's XML; impossible boxes."""

import json
import os

import pytest

from saliency_pipeline.datasets.box_files import boxes_digest, with_boxes
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.images.record import Catalogue, ImageRecord

KEYS = ("cat/1.jpg", "cat/2.jpg", "dog/1.jpg")
HEADER = "file,xmin,ymin,xmax,ymax\n"
XML = (
    "<annotation><filename>wrong.jpg</filename><size><width>{}</width><height>80</height></size><object><name>cat</name>"
    "<part><name>head</name></part><bndbox><xmin>1</xmin><ymin>2.9</ymin><xmax>30</xmax><ymax>40</ymax></bndbox>"
    "</object></annotation>"
)


def catalogue(**more):
    return Catalogue("/photos", [ImageRecord(key, f"/photos/{key}", **more) for key in KEYS])


def boxes(path, notes=None, of=None):
    own = [] if notes is None else notes
    result = with_boxes(of or catalogue(), path, own.append)
    return {record.key: (record.boxes, record.boxes_size) for record in result.records if record.boxes}


def table(tmp_path, text):
    path = tmp_path / "boxes.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_table_has_one_row_per_box(tmp_path):
    notes = []
    rows = "class,file,xmin,ymin,xmax,ymax\na,cat/1.jpg,0,0,9,19\nb,cat/1.jpg,5,5,5,5\na,cat/1.jpg,0,0,9,19\n"
    path = table(tmp_path, rows + "c,2.jpg,-3,0,10.7,2e1\nd,bird.jpg,1,2,3,4\n")
    assert boxes(path, notes) == {
        "cat/1.jpg": (((0, 0, 10, 20), (5, 5, 6, 6)), None),
        "cat/2.jpg": (((-3, 0, 11, 21),), None),
    }
    assert notes == [f"{path}: boxes of 2 images; 1 image without a box (dog/1.jpg); 1 name of no image: bird.jpg"]


def test_the_size_of_the_image_is_kept_where_a_table_states_it(tmp_path):
    path = table(tmp_path, "filename,width,height,xmin,ymin,xmax,ymax\ncat/1.jpg,40,30,1,1,2,2\n2.jpg,,,1,1,2,2\n")
    assert [size for _, size in boxes(path).values()] == [(40, 30), None]


def test_boxes_that_are_partly_outside_are_counted(tmp_path):
    rows = "cat/1.jpg,40,30,0,0,39,29\ncat/1.jpg,40,30,-1,0,40,30\n2.jpg,40,30,-3,0,9,9\n2.jpg,40,30,5,5,60,9\n"
    path, notes = table(tmp_path, "filename,width,height,xmin,ymin,xmax,ymax\n" + rows), []
    boxes(path, notes)
    assert "; 2 boxes partly outside the image, of which the part inside is used" in notes[0]


def test_boxes_of_a_file_replace_those_of_the_data_set(tmp_path):
    notes = []
    own = boxes(table(tmp_path, HEADER + "2.jpg,1,1,1,1\n"), notes, catalogue(boxes=((7, 7, 8, 8),)))
    assert [each for each, _ in own.values()] == [((7, 7, 8, 8),), ((1, 1, 2, 2),), ((7, 7, 8, 8),)]
    assert notes[0].endswith("boxes of 1 image; the data set has boxes of 1 image of these, which are not used")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("cat/1.jpg,1,1,2,x", "the corners 1, 1, 2, x are not four numbers of pixels"),
        ("cat/1.jpg,1,1,2,nan", "the corners 1, 1, 2, nan are not four numbers"),
        ("cat/1.jpg,-inf,1,2,3", "the corners -inf, 1, 2, 3 are not four numbers"),
        ("cat/1.jpg,1,1,2,9999999", "are not four numbers of pixels"),
        ("cat/1.jpg,1,1,,2", "are not four numbers of pixels"),
        ("cat/1.jpg,5,1,4,2", "the corners 5, 1, 4, 2 are reversed; give xmin, ymin, xmax, ymax"),
        (",1,1,4,2", "no name of an image"),
        ("cat/1.jpg,1,1,4", "4 columns, not 5"),
        ("1.jpg,1,1,4,2", "1.jpg is the name of 2 images"),
    ],
)
def test_an_impossible_row_is_an_error_that_names_file_and_line(tmp_path, row, reason):
    path = table(tmp_path, f"{HEADER}cat/2.jpg,1,1,2,2\n\n{row}\n")
    with pytest.raises(SalpipeError) as error:
        boxes(path)
    assert str(error.value).startswith(f"{path}:4: ")
    assert reason in str(error.value)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            "file,width,height,xmin,ymin,xmax,ymax\n2.jpg,40,30,40,1,50,2\n",
            ":2: the box 40, 1, 51, 3 lies outside the",
        ),
        ("file,width,height,xmin,ymin,xmax,ymax\n2.jpg,-4,30,1,1,2,2\n", ":2: width -4 and height 30 are no sizes"),
        (
            "file,width,height,xmin,ymin,xmax,ymax\n2.jpg,40,30,1,1,2,2\n2.jpg,30,40,1,1,2,2\n",
            ":3: another width and height than the image has in ",
        ),
        ("file,x,y\n2.jpg,1,2\n", ":1: no column xmin"),
        (
            HEADER + "2.jpg,0.1,0.2,0.3,0.95\n",
            ": all corners lie between 0 and 1; multiply them by the width",
        ),
        (HEADER, r": boxes of none of the images of /photos (it names none; an image is cat/1.jpg)"),
        (
            HEADER + "Cat/2.jpg,1,1,2,2\n",
            ": boxes of none of the images of /photos (it names Cat/2.jpg (cat/2.jpg?)",
        ),
    ],
)
def test_an_impossible_table_is_an_error(tmp_path, text, reason):
    path = table(tmp_path, text)
    with pytest.raises(SalpipeError) as error:
        boxes(path)
    assert f"{path}{reason}" in str(error.value)
    assert "\n" not in str(error.value)


def test_voc_files_belong_to_the_images_of_their_names(tmp_path):
    (tmp_path / "xml/cat").mkdir(parents=True)
    (tmp_path / "xml/cat/1.xml").write_text(XML.format(60))
    (tmp_path / "xml/2.XML").write_text(XML.format(0))
    (tmp_path / "xml/.hidden.xml").write_text("no XML")
    os.symlink(tmp_path / "xml", tmp_path / "xml/loop")
    box = ((1, 2, 31, 41),)
    assert boxes(tmp_path / "xml") == {"cat/1.jpg": (box, (60, 80)), "cat/2.jpg": (box, None)}
    assert boxes(tmp_path / "xml/2.XML") == {"cat/2.jpg": (box, None)}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("<annotation>", "no well-formed XML"),
        ('<!DOCTYPE x [<!ENTITY a "b">]><annotation/>', "has a document type"),
        ("<annotation><object><bndbox/></object></annotation>", "are not four numbers of pixels"),
        (XML.format(1), "lies outside the 1 x 80 image"),
        ("<annotation>" + " " * 2**18 + "</annotation>", "too large"),
    ],
)
def test_damaged_voc_files_are_named(tmp_path, text, reason):
    (tmp_path / "2.xml").write_text(text)
    with pytest.raises(SalpipeError, match=reason) as error:
        boxes(tmp_path)
    assert str(error.value).startswith(f"{tmp_path / '2.xml'}: ")


def coco(tmp_path, *annotations, images=({"id": 7, "file_name": "cat/2.jpg", "width": 40, "height": 30},)):
    path = tmp_path / "boxes.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations}))
    return path


def test_coco_has_extents(tmp_path):
    path = coco(
        tmp_path,
        {"image_id": 7, "bbox": [1.5, 2, 3, 4.2], "category_id": 1},
        {"image_id": 7, "bbox": [0, 0, 5, 5], "iscrowd": 0},
        {"image_id": 7, "bbox": [9, 9, 5, 5], "iscrowd": 1},
    )
    assert boxes(path) == {"cat/2.jpg": (((1, 2, 5, 7), (0, 0, 5, 5)), (40, 30))}


@pytest.mark.parametrize(
    ("annotation", "reason"),
    [
        ({"image_id": 7, "bbox": [1, 2, 0, 4]}, "box 1: the bbox 1, 2, 0, 4 is empty; remove it"),
        ({"image_id": 7, "bbox": [1, 2, float("nan"), 4]}, "box 1: the bbox 1, 2, nan, 4 is not four numbers"),
        ({"image_id": 7, "bbox": [1, 2, True, 4]}, "box 1: .* is no bbox"),
        ({"image_id": 7, "bbox": "1234"}, "box 1: '1234' is no bbox"),
        ({"image_id": 7, "bbox": [50, 2, 3, 4]}, "box 1: the box 50, 2, 53, 6 lies outside the 40 x 30 image"),
        ({"image_id": [], "bbox": [1, 2, 3, 4]}, r"box 1: its image_id \[\] is that of no image"),
        ({"image_id": 8, "bbox": [1, 2, 3, 4]}, "box 1: its image_id 8 is that of no image"),
        ({"image_id": 8}, "not a COCO file"),
        (3, "not a COCO file"),
    ],
)
def test_impossible_coco_boxes_are_named(tmp_path, annotation, reason):
    path = coco(tmp_path, annotation)
    with pytest.raises(SalpipeError, match=f"{path}: {reason}"):
        boxes(path)


def test_other_documents_and_files_are_refused(tmp_path):
    for text, reason in (("[1]", "not a COCO file"), ("{", "not valid JSON"), ("[" * 9999, "nested too deeply")):
        (tmp_path / "boxes.json").write_text(text)
        with pytest.raises(SalpipeError, match=reason):
            boxes(tmp_path / "boxes.json")
    (tmp_path / "boxes.txt").touch()
    with pytest.raises(SalpipeError, match=r"boxes.txt: not a file of boxes; give a .csv, .json or .xml file"):
        boxes(tmp_path / "boxes.txt")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SalpipeError, match=r"no .xml file in this folder"):
        boxes(tmp_path / "empty")
    with pytest.raises(SalpipeError, match="No such file"):
        boxes(tmp_path / "missing.csv")


def test_regions_have_no_boxes(tmp_path):
    with pytest.raises(SalpipeError, match=r"--boxes: refers to whole images, .* add --no-crop"):
        boxes(table(tmp_path, HEADER), of=catalogue(box=(0, 0, 5, 5)))


def test_the_digest_is_that_of_the_boxes_that_are_used(tmp_path):
    def digest(text):
        return boxes_digest(with_boxes(catalogue(), table(tmp_path, text), [].append).records)

    first = digest(HEADER + "2.jpg,1,1,2,2\n")
    assert first["images"] == 1
    assert first == digest("ymin,file,xmin,xmax,ymax\n1,cat/2.jpg,1,2,2\n1,other.jpg,1,1,1\n")
    assert first != digest(HEADER + "2.jpg,1,1,2,3\n")
