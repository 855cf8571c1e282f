"""Tiny-ImageNet, Imagenette, Imagewoof, Imagewang and ImageNet-100, also rearranged."""

import json

import pytest

from saliency_pipeline.datasets.imagenet.subsets import LAYOUTS
from saliency_pipeline.datasets.layout import ReadOptions
from saliency_pipeline.datasets.open import read_images
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.images.record import Split
from tests.datasets.imagenets import lines, named, val_name, write


def read(root, **options):
    """The catalogue, which must be the same by the layout's name and recognized."""
    layout = next(layout for layout in LAYOUTS if layout.recognize(root))
    catalogue = layout.read(root, ReadOptions(**options))
    assert catalogue.layout == layout.name
    assert read_images(root, options=ReadOptions(**options)) == catalogue
    return catalogue


def labeled(catalogue):
    return {record.key: catalogue.ids[record.label] if record.label >= 0 else "" for record in catalogue.records}


# Tiny-ImageNet

TINY = ("n02124075", "n01443537", "n04067472")
"""As in wnids.txt, not sorted."""

TINY_LABELS = {
    **{f"test/test_{number}.JPEG": "" for number in range(2)},
    **{f"train/{wnid}/{wnid}_{number}.JPEG": wnid for wnid in sorted(TINY) for number in range(2)},
    **{f"val/val_{number}.JPEG": wnid for number, wnid in enumerate(TINY)},
}


def tiny(root, *, images="images/", moved=None):
    for wnid in TINY:
        write(root / "train" / wnid, *(f"{images}{wnid}_{number}.JPEG" for number in range(2)))
        rows = (f"{wnid}_{number}.JPEG\t{number}\t10\t63\t58" for number in range(2))
        lines(root / "train" / wnid / f"{wnid}_boxes.txt", *rows)
    for number, wnid in enumerate(TINY):
        write(root / "val", f"{images if moved is None else f'{wnid}/{moved}'}val_{number}.JPEG")
    write(root / "test", *(f"{images}test_{number}.JPEG" for number in range(2)))
    rows = (f"val_{number}.JPEG\t{wnid}\t0\t32\t{number}\t62" for number, wnid in enumerate(TINY))
    lines(root / "val/val_annotations.txt", *rows)
    lines(root / "wnids.txt", *TINY)
    words = ("n00001740\tentity", "n02124075\tEgyptian cat", "n01443537\tgoldfish, Carassius auratus")
    lines(root / "words.txt", *words, "n04067472\treel")
    return root


@pytest.mark.parametrize(
    "shape",
    [{}, {"images": ""}, {"moved": ""}, {"moved": "images/"}],
    ids=["as published", "flat", "moved to classes", "moved to classes' images"],
)
def test_tiny_imagenet_is_the_same_however_it_lies(tmp_path, shape):
    catalogue = read(tiny(tmp_path, **shape))
    assert catalogue.layout == "tiny-imagenet"
    assert labeled(catalogue) == TINY_LABELS
    assert catalogue.ids == tuple(sorted(TINY))
    assert catalogue.classes == ("goldfish", "Egyptian cat", "reel")
    splits = {"train": Split.TRAIN, "val": Split.VALIDATION, "test": Split.TEST}
    assert all(record.split is splits[record.key.partition("/")[0]] for record in catalogue.records)
    assert all(record.read() for record in catalogue.records)
    boxes = {record.key: record.boxes for record in catalogue.records}
    assert boxes["train/n01443537/n01443537_1.JPEG"] == ((1, 10, 64, 59),)
    assert boxes["val/val_2.JPEG"] == ((0, 32, 3, 63),)
    assert boxes["test/test_0.JPEG"] == ()


def test_tiny_imagenet_without_lists_but_with_folders(tmp_path):
    tiny(tmp_path, moved="")
    for name in ("val/val_annotations.txt", "wnids.txt", "words.txt"):
        (tmp_path / name).unlink()
    catalogue = read(tmp_path)
    assert catalogue.layout == "tiny-imagenet"
    assert labeled(catalogue) == TINY_LABELS
    assert catalogue.classes == ("goldfish", "Egyptian cat", "reel")


def test_tiny_imagenets_missing_annotations_are_named(tmp_path):
    tiny(tmp_path)
    (tmp_path / "val/val_annotations.txt").unlink()
    reason = r"/val_\d.JPEG: its class is not known; /.*/val/val_annotations\.txt: not there$"
    with pytest.raises(SalpipeError, match=reason):
        read_images(tmp_path)
    lines(tmp_path / "val/val_annotations.txt", "val_1.JPEG\tn02124075\t0\t0\t1\t1")
    with pytest.raises(SalpipeError, match=r"val_annotations\.txt: does not list it$"):
        read_images(tmp_path)


def test_tiny_imagenets_contradictions_and_gaps_are_named(tmp_path):
    tiny(tmp_path, moved="")
    lines(tmp_path / "wnids.txt", *TINY, "n07749582")
    write(tmp_path / "train", "cats/images/1.JPEG", "loose.JPEG")
    assert set(named(read(tmp_path))) == {
        f"{tmp_path}/train/cats: a folder of no class such as n01440764",
        f"{tmp_path}/train/loose.JPEG: a training image of no class",
        f"{tmp_path}/wnids.txt: n07749582: a class without images",
    }
    lines(tmp_path / "val/val_annotations.txt", "val_0.JPEG\tn01443537\t0\t0\t1\t1")
    with pytest.raises(
        SalpipeError, match=r"n02124075/val_0\.JPEG: n01443537 according to val_annotations\.txt; remove"
    ):
        read_images(tmp_path)


@pytest.mark.parametrize(
    "row",
    ["val_0.JPEG", "val_0.JPEG n02124075 0 0 1 1", "val_0.JPEG\tn02124075\t0\t0\t1", "val_0.JPEG\tn1\t0\t0\t1\t1"],
)
def test_a_damaged_row_of_tiny_imagenet_is_named(tmp_path, row):
    tiny(tmp_path)
    lines(tmp_path / "val/val_annotations.txt", "val_1.JPEG\tn02124075\t0\t0\t1\t1", row)
    with pytest.raises(SalpipeError, match=r"val_annotations\.txt:2: .*(four corners)"):
        read_images(tmp_path)


def test_links_in_circles_are_survived(tmp_path):
    tiny(tmp_path)
    (tmp_path / "val/images/images").symlink_to(tmp_path / "val/images")
    (tmp_path / "train/n02124075/n02124075").symlink_to(tmp_path / "train/n02124075")
    assert labeled(read(tmp_path)) == TINY_LABELS


@pytest.mark.parametrize("part", ["train", "val"])
def test_a_part_of_tiny_imagenet_is_no_data_set_of_one_class(tmp_path, part):
    tiny(tmp_path)
    with pytest.raises(SalpipeError, match=rf"{part}: a part of Tiny-ImageNet; give the folder above it, {tmp_path}$"):
        read_images(tmp_path / part)


# Imagenette

ROWS = {
    "train/n02979186/n02979186_9036.JPEG": ("n02979186", "n02979186", "n02979186", "n03000684"),
    "train/n02979186/ILSVRC2012_val_00000008.JPEG": ("n02979186", "n02979186", "n03417042", "n03000684"),
    "train/n03417042/n03417042_5.JPEG": ("n03417042", "n02979186", "n03417042", "n03417042"),
    "val/n03417042/n03417042_8.JPEG": ("n03417042",) * 4,
    f"val/n02979186/{val_name(293)}": ("n02979186",) * 4,
}
HEADER = "path,noisy_labels_0,noisy_labels_1,noisy_labels_25,noisy_labels_50"


def imagenette(root, name="noisy_imagenette.csv", *, numbered=False, valid=True):
    write(root, *ROWS)
    rows = [HEADER + (",is_valid" if valid else "")]
    for path, labels in ROWS.items():
        rows.append(",".join((path, *labels, *([str(path.startswith("val"))] if valid else []))))
    if numbered:
        rows = [f"{'Unnamed: 0' if not number else number - 1},{row}" for number, row in enumerate(rows)]
    lines(root / name, *rows)
    return root


@pytest.mark.parametrize("name", ["noisy_imagenette.csv", "noisy_imagewoof.csv"])
@pytest.mark.parametrize(("numbered", "valid"), [(False, True), (True, True), (False, False)])
def test_noise_is_in_training_labels_alone(tmp_path, name, numbered, valid):
    imagenette(tmp_path, name, numbered=numbered, valid=valid)
    for column, noise in enumerate((0, 1, 25, 50)):
        catalogue = read(tmp_path, noise=noise)
        assert catalogue.layout == "imagenette"
        expected = {path: labels[column] for path, labels in ROWS.items()}
        expected[f"val/{val_name(293)}"] = expected.pop(f"val/n02979186/{val_name(293)}")
        assert labeled(catalogue) == expected
        assert catalogue.ids == tuple(sorted(set(expected.values())))
        splits = {record.key: record.split for record in catalogue.records}
        assert all(splits[key] is (Split.TRAIN if key.startswith("train") else Split.VALIDATION) for key in expected)


@pytest.mark.parametrize(
    ("row", "noise", "reason"),
    [
        (None, 5, r"noisy_imagenette\.csv: no noise of 5 %; choose from 0, 1, 25, 50$"),
        (HEADER.replace("path", "file"), 1, r"noisy_imagenette\.csv:1: no column path; its first line must name"),
        (
            "train/n03417042/n03417042_5.JPEG,a,golf ball,a,a",
            1,
            r"csv:2: golf ball is no WordNet id such as n01440764$",
        ),
        ("train/n03417042/n03417042_5.JPEG,n03417042", 25, r"noisy_imagenette\.csv:2: 2 columns, not 5$"),
        (HEADER, 50, r"\.JPEG: not in the CSV file of noisy labels; remove one or the other$"),
    ],
)
def test_wrong_noise_is_named(tmp_path, row, noise, reason):
    imagenette(tmp_path)
    if row is not None:
        lines(tmp_path / "noisy_imagenette.csv", *([row] if "path" in row or "file" in row else [HEADER, row]))
    with pytest.raises(SalpipeError, match=reason):
        read_images(tmp_path, options=ReadOptions(noise=noise))


@pytest.mark.parametrize("layout", ["imagenette", "auto"])
def test_noise_without_its_list_names_it(tmp_path, layout):
    write(tmp_path, *ROWS)
    with pytest.raises(SalpipeError, match=r"noise( 5)? needs noisy_imagenette\.csv or noisy_imagewoof\.csv there"):
        read_images(tmp_path, layout, ReadOptions(noise=5))


@pytest.mark.parametrize("unsup", ["unsup", "train/unsup"])
def test_imagewangs_unlabeled_images_are_in_no_split(tmp_path, unsup):
    write(tmp_path, "train/n02979186/n02979186_1.JPEG", "train/n02086240/n02086240_2.JPEG", "val/n02086240/x.JPEG")
    write(tmp_path / unsup, "n02088364_1.JPEG", val_name(7))
    catalogue = read(tmp_path)
    assert [(record.key, record.label, record.split) for record in catalogue.records] == [
        ("train/n02086240/n02086240_2.JPEG", 0, Split.TRAIN),
        ("train/n02979186/n02979186_1.JPEG", 1, Split.TRAIN),
        (f"unsup/{val_name(7)}", -1, Split.NONE),
        ("unsup/n02088364_1.JPEG", -1, Split.NONE),
        ("val/n02086240/x.JPEG", 0, Split.VALIDATION),
    ]
    assert catalogue.classes == ("Shih-Tzu", "cassette player")
    assert named(catalogue) == ()


def test_imagenettes_list_without_images_is_recognized(tmp_path):
    lines(tmp_path / "noisy_imagewoof.csv", HEADER)
    with pytest.raises(SalpipeError, match="the folders train and val are missing; put them there"):
        read_images(tmp_path)


# ImageNet-100

HUNDRED = ("n02869837", "n01749939", "n02488291", "n02107142")


def hundred(root):
    for number, wnid in enumerate(HUNDRED, start=1):
        write(root / f"train.X{number}", f"{wnid}/{wnid}_{number}.JPEG")
        write(root / "val.X", f"{wnid}/{val_name(number)}")
    names = ("bonnet, poke bonnet", "green mamba", "langur", "Doberman, Doberman pinscher")
    (root / "Labels.json").write_text(json.dumps(dict(zip(HUNDRED, names, strict=True))))
    return root


def test_the_four_folders_of_imagenet_100_are_one_split(tmp_path):
    catalogue = read(hundred(tmp_path))
    assert catalogue.layout == "imagenet-100"
    assert labeled(catalogue) == {
        **{f"train/{wnid}/{wnid}_{number}.JPEG": wnid for number, wnid in enumerate(HUNDRED, start=1)},
        **{f"val/{val_name(number)}": wnid for number, wnid in enumerate(HUNDRED, start=1)},
    }
    assert catalogue.classes == ("green mamba", "Doberman", "langur", "bonnet")
    assert named(catalogue) == ()
    (tmp_path / "Labels.json").unlink()
    assert read(tmp_path).classes == catalogue.classes


def test_missing_folders_of_imagenet_100_are_noted(tmp_path):
    hundred(tmp_path)
    (tmp_path / "train.X2").rename(tmp_path / "set aside")
    catalogue = read(tmp_path)
    assert len(catalogue) == 7
    assert named(catalogue) == (
        f"{tmp_path}/train.X2: not there, so that its images are missing",
        f"{tmp_path}/set aside: a folder beside the parts of the data set",
    )


@pytest.mark.parametrize("lists", ["wnids.txt", "noisy_imagenette.csv"])
def test_a_part_that_is_not_there_is_noted(tmp_path, lists):
    lines(tmp_path / lists, HEADER if lists.endswith("csv") else "n02979186")
    write(tmp_path, "train/n02979186/images/n02979186_1.JPEG" if lists == "wnids.txt" else next(iter(ROWS)))
    notes = named(read(tmp_path))
    assert f"{tmp_path / 'val'}: not there" in notes
