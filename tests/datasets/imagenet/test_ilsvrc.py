"""ILSVRC 2012 in folders, in tars and in Kaggle's tree: the same images, keys and labels."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from saliency_pipeline.datasets.imagenet.ilsvrc import LAYOUTS, read_ilsvrc, read_kaggle
from saliency_pipeline.datasets.layout import ReadOptions
from saliency_pipeline.datasets.open import read_images
from saliency_pipeline.errors import SalpipeError
from tests.datasets import imagenets
from tests.datasets.archives import END, HOSTILE, entry, tar_bytes, write_tar
from tests.datasets.imagenets import TRAIN, VAL, WNIDS, described, expected, val_name, write

OPTIONS = ReadOptions()


def folders(root):
    imagenets.train_folders(root / "train")
    imagenets.val_folders(root / "val")
    imagenets.unlabeled_flat(root / "test")


def flat(root):
    imagenets.train_folders(root / "ILSVRC2012_img_train")
    imagenets.val_flat(root / "validation")
    imagenets.unlabeled_flat(root / "ILSVRC2012_img_test_v10102019/test")
    imagenets.devkit(root / "ILSVRC2012_devkit_t12/data")


def tars(root):
    imagenets.train_tar(root)
    imagenets.val_tar(root)
    imagenets.unlabeled_tar(root)
    imagenets.packed_devkit(root)


def half_unpacked(root):
    for name, data in imagenets.class_tars().items():
        (root / "train").mkdir(exist_ok=True)
        (root / "train" / name).write_bytes(data)
    imagenets.val_tar(root)
    imagenets.unlabeled_flat(root / "Test")
    imagenets.caffe(root)


def own_tars(root):
    write_tar(
        root / "ILSVRC2012_img_train.tar",
        {f"train/{wnid}/{name}": imagenets.content(name) for wnid, names in TRAIN.items() for name in names},
    )
    write_tar(
        root / "ILSVRC2012_img_val.tar",
        {f"val/{wnid}/{val_name(number)}": imagenets.content(val_name(number)) for number, wnid in VAL.items()},
    )
    imagenets.unlabeled_tar(root)


SHAPES: dict[str, tuple[str, Callable[[Path], object]]] = {
    "folders": ("ilsvrc", folders),
    "flat validation images and devkit": ("ilsvrc", flat),
    "tars as downloaded": ("ilsvrc", tars),
    "tars of classes, Caffe's lists": ("ilsvrc", half_unpacked),
    "tars of folders": ("ilsvrc", own_tars),
    "Kaggle": ("kaggle", imagenets.kaggle),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_gives_the_same_images(tmp_path, shape):
    name, build = SHAPES[shape]
    build(tmp_path)
    layout = next(layout for layout in LAYOUTS if layout.name == name)
    catalogue = layout.read(tmp_path, OPTIONS)
    assert described(catalogue) == expected("train", "val", "test")
    assert (catalogue.root, catalogue.layout) == (str(tmp_path), name)
    recognized = read_images(tmp_path)
    assert recognized.layout == name
    assert described(recognized) == expected("train", "val", "test")


def test_kaggles_tree_can_be_given_at_any_height(tmp_path):
    imagenets.kaggle(tmp_path)
    for below in ("ILSVRC", "ILSVRC/Data", "ILSVRC/Data/CLS-LOC"):
        catalogue = read_images(tmp_path / below)
        assert catalogue.layout == "kaggle"
        assert described(catalogue) == expected("train", "val", "test")
        assert sum(len(record.boxes) for record in catalogue.records) == len(VAL) + 2


def test_boxes_are_those_of_the_image(tmp_path):
    imagenets.kaggle(tmp_path)
    boxes = {record.key: record.boxes for record in read_kaggle(tmp_path, OPTIONS).records if record.boxes}
    assert boxes == {
        "train/n02119789/n02119789_30.JPEG": ((12, 0, 500, 375), (3, 5, 4, 8)),
        **{f"val/{val_name(number)}": ((number, 1, 500, 273),) for number in VAL},
    }


def test_kaggles_lists_beside_other_folders_give_boxes_as_well(tmp_path):
    folders(tmp_path)
    imagenets.solution(tmp_path, "train")
    imagenets.solution(tmp_path, "val")
    catalogue = read_images(tmp_path)
    assert catalogue.layout == "ilsvrc"
    assert described(catalogue) == expected("train", "val", "test")
    assert sum(len(record.boxes) for record in catalogue.records) == len(VAL) + 2


@pytest.mark.parametrize("build", [imagenets.train_folders, imagenets.train_tar])
def test_training_images_alone(tmp_path, build):
    build(tmp_path)
    assert described(read_images(tmp_path)) == expected("train")


def test_classes_folders_in_a_folder_of_validation_images(tmp_path):
    imagenets.val_folders(tmp_path)
    assert described(read_images(tmp_path)) == expected("val")
    write(tmp_path / "val", *(f"{wnid}/{TRAIN[wnid][0]}" for wnid in WNIDS))
    catalogue = read_images(tmp_path / "val")
    assert [record.key for record in catalogue.records] == [f"val/{wnid}/{TRAIN[wnid][0]}" for wnid in WNIDS]


@pytest.mark.parametrize(
    ("build", "part"),
    [(imagenets.train_tar, "train"), (imagenets.val_tar, "val"), (imagenets.unlabeled_tar, "test")],
)
def test_one_tar_alone(tmp_path, build, part):
    path = build(tmp_path)
    imagenets.packed_devkit(tmp_path)
    catalogue = read_images(path)
    assert (catalogue.root, catalogue.layout) == (str(path), "ilsvrc")
    images, classes, ids = expected(part)
    assert described(catalogue) == ((images, (), ()) if part == "test" else (images, classes, ids))
    assert {id(record.path) for record in catalogue.records} == {id(catalogue.records[0].path)}


def test_a_tar_of_classes_may_have_any_name(tmp_path):
    path = imagenets.train_tar(tmp_path).rename(tmp_path / "pictures.tar")
    assert described(read_images(path)) == expected("train")
    other = write_tar(tmp_path / "other.tar", {"n01440764_10026.jpg": b"a shard", "n01440764_10026.cls": b"0"})
    assert not any(layout.recognize(other) for layout in LAYOUTS)
    with pytest.raises(SalpipeError, match=r"other\.tar: none of ILSVRC's tars, such as ILSVRC2012_img_train"):
        read_ilsvrc(other, OPTIONS)


def test_what_was_unpacked_goes_before_its_tar(tmp_path):
    folders(tmp_path)
    tars(tmp_path)
    catalogue = read_ilsvrc(tmp_path, OPTIONS)
    assert described(catalogue) == expected("train", "val", "test")
    assert imagenets.named(catalogue) == tuple(
        f"{tmp_path / name}: not read, since {part} images lie in {part}"
        for part, name in [
            ("train", "ILSVRC2012_img_train.tar"),
            ("val", "ILSVRC2012_img_val.tar"),
            ("test", "ILSVRC2012_img_test_v10102019.tar"),
        ]
    )


def test_an_empty_folder_does_not_stand_before_the_tar(tmp_path):
    (tmp_path / "train/n02119789").mkdir(parents=True)
    imagenets.train_tar(tmp_path)
    assert described(read_images(tmp_path)) == expected("train")


def test_flat_training_images_are_of_the_class_in_their_names(tmp_path):
    write(tmp_path / "train", *(name for names in TRAIN.values() for name in names), "holiday.JPEG")
    catalogue = read_images(tmp_path)
    assert described(catalogue) == expected("train")
    assert imagenets.named(catalogue) == (f"{tmp_path}/train/holiday.JPEG: a training image of no class",)


def test_other_folders_and_names_are_noted(tmp_path):
    folders(tmp_path)
    write(tmp_path / "train", "cats/1.JPEG")
    write(tmp_path / "val", "holiday.JPEG")
    catalogue = read_ilsvrc(tmp_path, OPTIONS)
    assert described(catalogue) == expected("train", "val", "test")
    assert imagenets.named(catalogue) == (
        f"{tmp_path}/train/cats: a folder of no class such as n01440764",
        f"{tmp_path}/val/holiday.JPEG: no validation image of ILSVRC 2012",
    )


def test_odd_names_keep_their_own(tmp_path):
    write(tmp_path / "train", "n02119789/photo 1.png", "n02012849/n02012849_1.JPEG.jpg", "n02012849/é.JPEG")
    assert [record.key for record in read_images(tmp_path).records] == [
        "train/n02012849/n02012849_1.JPEG.jpg",
        "train/n02012849/é.JPEG",
        "train/n02119789/photo 1.png",
    ]


def test_folders_without_images_are_no_classes(tmp_path):
    write(tmp_path / "train", "n02119789/n02119789_1.JPEG")
    (tmp_path / "train/n01440764").mkdir()
    assert read_images(tmp_path).ids == ("n02119789",)


def test_an_image_in_the_folders_of_two_classes_is_an_error(tmp_path):
    write(tmp_path / "val", f"n02110185/{val_name(1)}", f"n02119789/{val_name(1)}")
    reason = rf"val/{val_name(1)}: n\d+ in {tmp_path}/val/n\d+/.* but n\d+ in .*; remove the one that is wrong$"
    with pytest.raises(SalpipeError, match=reason):
        read_ilsvrc(tmp_path, OPTIONS)


def test_a_folder_of_a_class_goes_before_its_tar(tmp_path):
    write(tmp_path / "train", "n02110185/n02110185_1.JPEG")
    write_tar(tmp_path / "train/n02110185.tar", {"n02110185_2.JPEG": b""})
    catalogue = read_ilsvrc(tmp_path, OPTIONS)
    assert [record.key for record in catalogue.records] == ["train/n02110185/n02110185_1.JPEG"]
    assert imagenets.named(catalogue) == (f"{tmp_path}/train/n02110185.tar: not read, since a folder has its name",)


def test_an_image_twice_in_one_class_is_used_once(tmp_path):
    write_tar(tmp_path / "ILSVRC2012_img_train.tar", {f"{part}/n02110185/x.JPEG": part.encode() for part in "ab"})
    catalogue = read_ilsvrc(tmp_path, OPTIONS)
    assert [(record.key, record.read()) for record in catalogue.records] == [("train/n02110185/x.JPEG", b"a")]
    assert imagenets.named(catalogue) == (f"{tmp_path}/ILSVRC2012_img_train.tar: train/n02110185/x.JPEG: there twice",)


@pytest.mark.parametrize(
    "names",
    [
        ["train/cat/1.jpg", "train/dog/1.jpg", "val/cat/2.jpg"],
        ["train/n02119789/1.jpg", "train/dog/1.jpg"],
        ["n02119789/1.jpg", "dog/1.jpg", "n02110185/1.jpg"],
        ["n02119789/1.jpg"],
        ["val/1.jpg", "train/2.jpg"],
        ["1.jpg"],
    ],
)
def test_other_data_sets_are_not_taken_for_imagenet(tmp_path, names):
    write(tmp_path, *names)
    assert not any(layout.recognize(tmp_path) for layout in LAYOUTS)
    assert read_images(tmp_path).layout == "folders"


# what is missing or hostile


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (["ILSVRC2012_devkit_t12.tar.gz"], "no images of ImageNet; put ILSVRC2012_img_train.tar, ILSVRC2012_img_val"),
        (["ILSVRC2012_validation_ground_truth.txt"], "no images of ImageNet; put ILSVRC2012_img_train.tar, "),
        (["LOC_val_solution.csv"], r"no ILSVRC/Data/CLS-LOC there; unpack imagenet_object_localization"),
        (["ILSVRC/Data/CLS-LOC/train/x.txt"], r"no images of ImageNet; put ILSVRC2012_img_train.tar"),
        (["train/n01440764/x.txt"], r"no images of ImageNet; put ILSVRC2012_img_train.tar"),
    ],
)
def test_half_a_data_set_is_recognized_and_says_what_is_missing(tmp_path, names, reason):
    for name in names:
        imagenets.lines(tmp_path / name)
    with pytest.raises(SalpipeError, match=reason):
        read_images(tmp_path)


def test_kaggles_missing_list_is_named(tmp_path):
    imagenets.kaggle(tmp_path)
    (tmp_path / "LOC_val_solution.csv").unlink()
    reason = rf"val/ILSVRC2012_val_0000000\d.JPEG: its class is not known; put LOC_val_solution.csv in {tmp_path}$"
    with pytest.raises(SalpipeError, match=reason):
        read_images(tmp_path)


def test_hidden_files_first_in_a_tar_hide_nothing(tmp_path):
    tars = {"._n01440764.tar": b"", **imagenets.class_tars()}
    assert described(read_images(write_tar(tmp_path / "imagenet.tar", tars))) == expected("train")


def test_where_nothing_could_be_used_it_is_named(tmp_path):
    write_tar(tmp_path / "ILSVRC2012_img_train.tar", {"n01440764.tar": b"\x1f\x8b" + bytes(1000)})
    with pytest.raises(
        SalpipeError, match=r"n01440764\.tar: compressed; unpack it with gunzip.* leaves no images of ImageNet; put ILS"
    ):
        read_images(tmp_path)


@pytest.mark.parametrize(
    "names", [("train/cat/1.jpg", "val/{}/1.jpg"), ("train/{}/1.jpg", "train/cat/1.jpg", "val/{}/1.jpg")]
)
def test_classes_of_ones_own_beside_imagenets_are_kept(tmp_path, names):
    write(tmp_path, *(name.format("n01440764") for name in names))
    catalogue = read_images(tmp_path)
    assert (catalogue.layout, catalogue.classes) == ("folders", ("cat", "n01440764"))


def test_a_compressed_tar_says_how_to_unpack_it(tmp_path):
    (tmp_path / "ILSVRC2012_img_train.tar").write_bytes(b"\x1f\x8b" + bytes(600))
    with pytest.raises(SalpipeError, match=r"ILSVRC2012_img_train\.tar: compressed; unpack it with gunzip"):
        read_images(tmp_path)


def test_hostile_members_of_inner_and_outer_tars_are_named_and_the_rest_is_read(tmp_path):
    name, data = "n02119789_7.JPEG", b"the image"
    inner = b"".join(HOSTILE.values()) + entry(name.encode(), data) + entry(name.encode(), b"again") + END
    outer = b"".join(HOSTILE.values()) + entry(b"n02119789.tar", inner) + entry(b"n02110185.tar", b"no tar" * 200)
    sound = tar_bytes({"n02012849_1.JPEG": b"after"})
    path = tmp_path / "ILSVRC2012_img_train.tar"
    path.write_bytes(outer + entry(b"n02012849.tar", sound) + END)
    before = sorted(tmp_path.rglob("*"))
    catalogue = read_images(tmp_path)
    assert {record.key: record.read() for record in catalogue.records} == {
        "train/n02012849/n02012849_1.JPEG": b"after",
        f"train/n02119789/{name}": data,
    }
    for reason in (*HOSTILE, "a name met before in the archive"):
        places = [
            note.removesuffix(f": {reason}") for note in imagenets.named(catalogue) if note.endswith(f": {reason}")
        ]
        assert any("ILSVRC2012_img_train.tar: n02119789.tar: " in place for place in places), reason
    assert any("n02110185.tar: no tar archive" in note for note in imagenets.named(catalogue))
    assert sorted(tmp_path.rglob("*")) == before


def test_a_tar_cut_short_gives_what_lies_before_the_cut(tmp_path):
    path = imagenets.train_tar(tmp_path)
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"n02110185_")])
    catalogue = read_images(tmp_path)
    assert catalogue.ids == ("n02100735", "n02119789")
    assert any("reaches beyond the end of the archive" in note for note in imagenets.named(catalogue))


def test_a_tar_cut_short_in_its_first_class_is_to_be_downloaded_again(tmp_path):
    path = imagenets.train_tar(tmp_path)
    path.write_bytes(path.read_bytes()[:1024])
    with pytest.raises(SalpipeError) as caught:
        read_images(path)
    assert re.fullmatch(
        rf"{path}: {path.name}: n\d+\.tar: reaches beyond the end of the archive, which is not read any further; "
        "download it again; that leaves no images of ImageNet; give another of its tars, or a folder of them",
        str(caught.value),
    )


def test_classes_without_images_are_noted(tmp_path):
    imagenets.train_folders(tmp_path / "train")
    (tmp_path / "train" / "n01440764").mkdir()
    assert imagenets.named(read_images(tmp_path)) == (f"{tmp_path}/train/n01440764: a folder without images, left out",)
