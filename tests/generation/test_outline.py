"""Dry runs: counts of a catalogue, as text and as data."""

from saliency_pipeline.generation.outline import outline
from saliency_pipeline.images.record import Catalogue, ImageRecord, Split

RECORDS = [
    ImageRecord("a/1.jpg", "/1", 0, Split.TRAIN, boxes=((0, 0, 5, 5),), length=10),
    ImageRecord("a/2.jpg", "/2", 0, Split.TRAIN, box=(0, 0, 5, 5), length=10),
    ImageRecord("a/3.jpg", "/3", 0, Split.VALIDATION, length=10),
    ImageRecord("c/4.jpg", "/4", 2, Split.NONE, length=10),
    ImageRecord("5.jpg", "/5", -1, Split.TRAIN, length=10),
]
CATALOGUE = Catalogue("/data", RECORDS, ("ant", "bee", "cow"), (), "ilsvrc", ("x.tar: a link",))


def test_everything_is_counted():
    outlined = outline(CATALOGUE, 2)
    assert (outlined.root, outlined.layout, outlined.images, outlined.shards) == ("/data", "ilsvrc", 5, 3)
    assert outlined.splits == {"none": 1, "train": 3, "validation": 1}
    assert outlined.classes == {"ant": 3, "bee": 0, "cow": 1}
    assert (outlined.unlabeled, outlined.boxes, outlined.regions) == (1, 1, 1)
    assert outlined.notes == ("x.tar: a link",)


def test_the_text_is_readable():
    assert outline(CATALOGUE, 2).as_text().splitlines()[:-1] == [
        "/data: layout ilsvrc, 5 images in 3 classes, 3 shards",
        "splits: 1 none, 3 train, 1 validation",
        "classes of 0 to 3 images: ant 3, bee 0, cow 1",
        "1 image unlabeled",
        "1 image with boxes of their objects",
        "1 image of which a region is cut out",
    ]


def test_one_of_a_kind_is_no_plural():
    records = [ImageRecord("a/1.jpg", "/1", 0, length=10)]
    assert outline(Catalogue("/data", records, ("ant",), layout="folders"), 2).as_text().splitlines()[::2] == [
        "/data: layout folders, 1 image in 1 class, 1 shard",
        "class of 1 image: ant 1",
    ]
    two = [*records, ImageRecord("b/1.jpg", "/2", 1, length=10)]
    assert "classes of 1 image: ant 1, bee 1" in outline(Catalogue("/data", two, ("ant", "bee")), 2).as_text()


def test_many_classes_are_not_all_named():
    records = [ImageRecord(f"{number}", "/x", number, length=1) for number in range(12)]
    text = outline(Catalogue("/data", records, tuple(map(str, range(12)))), 100).as_text()
    assert "9 1, and 2 more\n" in text


def test_the_same_images_are_known_by_the_same_digest():
    assert outline(CATALOGUE, 2).records == outline(CATALOGUE, 100).records
    other = Catalogue("/data", RECORDS[:-1], CATALOGUE.classes)
    assert outline(other, 2).records != outline(CATALOGUE, 2).records
