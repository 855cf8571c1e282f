"""The lists beside ImageNet's images: equal classes, contradictions and damage."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from saliency_pipeline.datasets.files.lines import Lines
from saliency_pipeline.datasets.imagenet.annotations import read_meta, read_solution
from saliency_pipeline.datasets.imagenet.ilsvrc import read_ilsvrc
from saliency_pipeline.datasets.layout import ReadOptions
from saliency_pipeline.datasets.open import read_images
from saliency_pipeline.errors import SalpipeError
from tests.datasets import imagenets
from tests.datasets.imagenets import IDS, VAL, WNIDS, described, expected, lines, val_name

TRUTH = "ILSVRC2012_validation_ground_truth.txt"


def read(root):
    return read_ilsvrc(root, ReadOptions())


def with_map(root):
    imagenets.devkit_with_map(root / "devkit/data")


def of_2014(root):
    with_map(root)
    (root / "devkit/data" / TRUTH).rename(root / "devkit/data/ILSVRC2014_clsloc_validation_ground_truth.txt")
    (root / "devkit").rename(root / "ILSVRC2014_devkit")


def of_2015(root):
    with_map(root)
    (root / "devkit/data" / TRUTH).rename(root / "devkit/data/ILSVRC2015_clsloc_validation_ground_truth.txt")


def with_both(root):
    imagenets.devkit_with_map(root)
    imagenets.devkit(root / "data")


def with_kaggles(root):
    imagenets.solution(root, "val")


def with_all(root):
    imagenets.packed_devkit(root)
    with_both(root)
    with_kaggles(root)
    imagenets.caffe(root / "caffe_ilsvrc12")


SOURCES: dict[str, Callable[[Path], None]] = {
    "devkit": imagenets.devkit,
    "devkit's data": lambda root: imagenets.devkit(root / "data"),
    "devkit unpacked": lambda root: imagenets.devkit(root / "ILSVRC2012_devkit_t12/data"),
    "packed devkit": imagenets.packed_devkit,
    "map_clsloc.txt": with_map,
    "devkit of 2014": of_2014,
    "devkit of 2015": of_2015,
    "meta.mat and map_clsloc.txt": with_both,
    "Kaggle": with_kaggles,
    "Caffe": imagenets.caffe,
    "all": with_all,
}


@pytest.mark.parametrize("place", [imagenets.val_flat, imagenets.val_tar])
@pytest.mark.parametrize("source", SOURCES)
def test_every_source_gives_the_same_labels(tmp_path, source, place):
    place(tmp_path / "val" if place is imagenets.val_flat else tmp_path)
    SOURCES[source](tmp_path)
    assert described(read(tmp_path)) == expected("val")


def test_the_devkit_beside_kaggles_data(tmp_path):
    imagenets.val_flat(tmp_path / "ILSVRC/Data/CLS-LOC/val")
    of_2015(tmp_path / "ILSVRC")
    for below in ("", "ILSVRC", "ILSVRC/Data", "ILSVRC/Data/CLS-LOC"):
        assert described(read_images(tmp_path / below)) == expected("val")


def test_the_ids_of_the_ground_truth_are_no_labels(tmp_path):
    """The known pitfall: labels by `id - 1` look right, since both run from 0 to 999, and are wrong nearly always."""
    imagenets.val_flat(tmp_path / "val")
    imagenets.devkit(tmp_path)
    right = [record.label for record in read(tmp_path).records]
    naive = [int(line) - 1 for line in (tmp_path / TRUTH).read_text().split()]
    assert list(IDS) != sorted(IDS)
    assert right == [WNIDS.index(wnid) for wnid in VAL.values()]
    assert [IDS[WNIDS[label]] - 1 for label in right] == naive
    assert right != naive


def test_ancestors_in_the_devkit_are_no_classes(tmp_path):
    path = tmp_path / "meta.mat"
    path.write_bytes(imagenets.meta_bytes())
    assert {synset.wnid: synset.number for synset in read_meta(Lines(path))} == IDS


def test_a_part_of_the_validation_images_keeps_its_numbers(tmp_path):
    imagenets.val_flat(tmp_path / "val")
    imagenets.devkit(tmp_path)
    for number in (1, 2, 4):
        (tmp_path / "val" / val_name(number)).unlink()
    catalogue = read(tmp_path)
    assert {record.key: catalogue.ids[record.label] for record in catalogue.records} == {
        f"val/{val_name(number)}": wnid for number, wnid in VAL.items() if number not in (1, 2, 4)
    }


def test_names_come_from_the_data_sets_own_lists(tmp_path):
    imagenets.val_flat(tmp_path / "val")
    imagenets.solution(tmp_path, "val")
    assert read(tmp_path).classes == imagenets.CLASSES
    lines(tmp_path / "synset_words.txt", "n02119789 Fuchs, kit fox", "n02012849 Kranich", "n99999999 nothing")
    assert read(tmp_path).classes == ("Kranich", "English setter", "Siberian husky", "Fuchs", "crane")
    (tmp_path / "synset_words.txt").unlink()
    (tmp_path / "meta.mat").write_bytes(imagenets.meta_bytes(words={**imagenets.WORDS, "n02110185": "Husky"}))
    assert read(tmp_path).classes == ("crane (n02012849)", "English setter", "Husky", "kit fox", "crane (n03126707)")


# contradictions


def test_two_lists_that_contradict_each_other_are_both_named(tmp_path):
    imagenets.val_flat(tmp_path / "val")
    imagenets.devkit(tmp_path)
    order = sorted(WNIDS)
    lines(tmp_path / "synsets.txt", *order)
    answers = {**VAL, 3: "n02100735"}
    lines(tmp_path / "val.txt", *(f"{val_name(number)} {order.index(wnid)}" for number, wnid in answers.items()))
    reason = (
        rf"^val/{val_name(3)}: n03126707 according to {tmp_path}/{TRUTH} with meta\.mat, "
        rf"n02100735 according to {tmp_path}/val\.txt; remove what is wrong$"
    )
    with pytest.raises(SalpipeError, match=reason):
        read(tmp_path)


def test_ids_of_another_devkit_are_noticed(tmp_path):
    imagenets.val_flat(tmp_path / "val")
    imagenets.devkit_with_map(tmp_path)
    swapped = {**IDS, "n02119789": 2, "n02100735": 1}
    (tmp_path / "meta.mat").write_bytes(imagenets.meta_bytes(swapped))
    with pytest.raises(
        SalpipeError, match=r"_00000002.JPEG: n02100735 .* with meta\.mat, n02119789 .* with map_clsloc"
    ):
        read(tmp_path)


def test_a_folder_that_contradicts_the_list_is_noticed(tmp_path):
    imagenets.val_folders(tmp_path / "val")
    imagenets.packed_devkit(tmp_path)
    assert described(read(tmp_path)) == expected("val")
    (tmp_path / "val/n02119789" / val_name(2)).rename(tmp_path / "val/n02012849" / val_name(2))
    reason = r"_00000002.JPEG: n02119789 according to .*, n02012849 according to the folder it is in; remove what is"
    with pytest.raises(SalpipeError, match=reason):
        read(tmp_path)


# what is missing


def test_a_ground_truth_alone_says_nothing(tmp_path):
    imagenets.val_flat(tmp_path / "val")
    lines(tmp_path / "data" / TRUTH, *imagenets.ground_truth())
    reason = (
        rf"{TRUTH} has ids that only meta\.mat or map_clsloc\.txt of the devkit explain; put one of them beside it$"
    )
    with pytest.raises(SalpipeError, match=reason):
        read(tmp_path)


def test_caffes_indices_alone_say_nothing(tmp_path):
    imagenets.val_flat(tmp_path / "val")
    imagenets.caffe(tmp_path)
    (tmp_path / "synsets.txt").unlink()
    with pytest.raises(SalpipeError, match=r"val\.txt has indices that only synsets\.txt explains; put it beside it$"):
        read(tmp_path)
    imagenets.packed_devkit(tmp_path)
    assert described(read(tmp_path)) == expected("val")


def test_without_any_list_the_error_says_what_would_help(tmp_path):
    imagenets.val_flat(tmp_path / "val")
    reason = (
        rf"^val/ILSVRC2012_val_0000000\d.JPEG: its class is not known; put ILSVRC2012_devkit_t12\.tar\.gz, "
        rf"LOC_val_solution\.csv, or val\.txt and synsets\.txt in {tmp_path}, or use the layout folders"
    )
    with pytest.raises(SalpipeError, match=reason):
        read(tmp_path)


@pytest.mark.parametrize("build", [imagenets.devkit, imagenets.caffe, with_kaggles])
def test_an_image_that_no_list_has_is_named(tmp_path, build):
    imagenets.val_flat(tmp_path / "val")
    build(tmp_path)
    imagenets.write(tmp_path / "val", val_name(len(VAL) + 1))
    with pytest.raises(SalpipeError, match=r"_00000008\.JPEG: not in /.*; use the whole list, or remove the image$"):
        read(tmp_path)


def test_a_devkit_without_its_files_is_named(tmp_path):
    imagenets.val_flat(tmp_path / "val")
    imagenets.packed_devkit(tmp_path)
    path = tmp_path / "ILSVRC2012_devkit_t12.tar.gz"
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(SalpipeError, match=r"ILSVRC2012_devkit_t12\.tar\.gz: damaged; download it again"):
        read(tmp_path)


def test_another_list_called_val_txt_is_skipped(tmp_path):
    imagenets.val_flat(tmp_path / "val")
    imagenets.devkit(tmp_path)
    for text in (f"{val_name(1)}\n", "ILSVRC2012_val_00000001 1\n", "cat.jpg 3\n", ""):
        (tmp_path / "val.txt").write_text(text)
        assert described(read(tmp_path)) == expected("val")
    (tmp_path / "val.txt").write_bytes(b"\xff\xfe")
    assert described(read(tmp_path)) == expected("val")


# damage

DAMAGE = {
    f"{TRUTH}:2: 9 is no id that meta.mat explains": (TRUTH, 2, "9"),
    f"{TRUTH}:3: three is no id that meta.mat explains": (TRUTH, 3, "three"),
    f"{TRUTH}:1: 1001 is no id that meta.mat explains": (TRUTH, 1, "1001"),
    "map_clsloc.txt:2: not like 'n02119789 1 kit_fox'": ("map_clsloc.txt", 2, "1 n02119789 kit_fox"),
    "map_clsloc.txt:2: id 1 is also that of n02119789": ("map_clsloc.txt", 2, "n02100735 1 setter"),
    "val.txt:7: not like 'ILSVRC2012_val_00000001.JPEG 65'": ("val.txt", 7, "ILSVRC2012_val_00000007.JPEG"),
    "val.txt:7: no line 6 in synsets.txt": ("val.txt", 7, f"{val_name(7)} 5"),
    "val.txt:7: ILSVRC2012_val_00000001.JPEG is listed twice": ("val.txt", 7, f"{val_name(1)} 0"),
    "synsets.txt:4: kit fox is no WordNet id": ("synsets.txt", 4, "kit fox"),
    "LOC_val_solution.csv:3: not like 'ILSVRC2012_val_00048981,n03": (
        "LOC_val_solution.csv",
        3,
        f"{val_name(6)[:-5]},",
    ),
    "LOC_val_solution.csv:4: 1 columns, not 2": ("LOC_val_solution.csv", 4, "x"),
    "LOC_val_solution.csv:1: no column ImageId": ("LOC_val_solution.csv", 1, "Image,PredictionString"),
    "LOC_val_solution.csv:2: cat is no validation image": ("LOC_val_solution.csv", 2, "cat,n02119789 1 2 3 4"),
    "LOC_val_solution.csv:2: boxes of several classes": (
        "LOC_val_solution.csv",
        2,
        f"{val_name(7)[:-5]},n02119789 1 2 3 4 n02110185 1 2 3 4",
    ),
    "LOC_val_solution.csv:2: 1 2 3 x4 are not the four corners": (
        "LOC_val_solution.csv",
        2,
        f"{val_name(7)[:-5]},n02119789 1 2 3 x4",
    ),
}


@pytest.mark.parametrize("reason", DAMAGE)
def test_a_damaged_line_is_named(tmp_path, reason):
    imagenets.val_flat(tmp_path / "val")
    with_both(tmp_path)
    with_kaggles(tmp_path)
    imagenets.caffe(tmp_path)
    name, number, text = DAMAGE[reason]
    path = next(path for path in (tmp_path / name, tmp_path / "data" / name) if path.exists())
    rows = path.read_text().splitlines()
    rows[number - 1] = text
    lines(path, *rows)
    with pytest.raises(SalpipeError, match=re.escape(reason)):
        read(tmp_path)


@pytest.mark.parametrize("data", [b"", b"MATLAB 7.3 MAT-file", imagenets.meta_bytes()[:-50]])
def test_a_damaged_meta_file_is_named(tmp_path, data):
    imagenets.val_flat(tmp_path / "val")
    imagenets.devkit(tmp_path)
    (tmp_path / "meta.mat").write_bytes(data)
    with pytest.raises(
        SalpipeError, match=r"meta\.mat: not the meta\.mat of ILSVRC 2012, or damaged; unpack the devkit"
    ):
        read(tmp_path)


@pytest.mark.parametrize("ids", [{"kit fox": 1}, {"n02119789": 1.5}, {"n02119789": 1, "n02110185": 1}])
def test_a_meta_file_of_something_else_is_named(tmp_path, ids):
    path = tmp_path / "meta.mat"
    path.write_bytes(imagenets.meta_bytes(ids, words=dict.fromkeys(ids, "words") | imagenets.WORDS))
    with pytest.raises(SalpipeError, match=r"not the meta\.mat of ILSVRC 2012"):
        read_meta(Lines(path))


def test_solutions_are_read_as_published(tmp_path):
    path = lines(
        tmp_path / "LOC_train_solution.csv",
        "ImageId,PredictionString",
        "n02017213_7894,n02017213 115 49 448 294 ",
        "n02017213_7895,n02017213 9 8 7 6 n02119789 1 2 3 4 n02017213 0 0 0 0",
    )
    assert list(read_solution(Lines(path))) == [
        (2, "n02017213_7894", "n02017213", ((115, 49, 449, 295),)),
        (3, "n02017213_7895", "n02017213", ((7, 6, 10, 9), (0, 0, 1, 1))),
    ]
