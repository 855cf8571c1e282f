"""Recognition of layouts by their files, and equal catalogues for the same images."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow
import pyarrow.parquet
import pytest

from saliency_pipeline.conversion.convert import convert
from saliency_pipeline.datasets.layout import ReadOptions
from saliency_pipeline.datasets.open import LAYOUTS, read_images
from saliency_pipeline.errors import SalpipeError
from tests.datasets import imagenets
from tests.datasets.archives import write_tar
from tests.datasets.imagenets import TRAIN, VAL, WNIDS, content, described, expected, lines, val_name, write
from tests.shards import examples

ROW = "Ada Lovelace\t{}\thttp://example.org/{}.jpg\t1,2,30,40\t{:032x}"


def folders(root: Path) -> None:
    write(root, "cat/1.jpg", "dog/1.jpg")


def unpacked(root: Path) -> None:
    imagenets.train_folders(root / "train")
    imagenets.val_folders(root / "val")


def as_downloaded(root: Path) -> None:
    imagenets.train_tar(root)
    imagenets.val_tar(root)
    imagenets.packed_devkit(root)


def with_caffes_lists(root: Path) -> None:
    imagenets.train_folders(root / "train")
    imagenets.val_flat(root / "val")
    imagenets.caffe(root)


def kaggle(root: Path) -> None:
    images = imagenets.kaggle(root)
    for path in (images / "test").iterdir():
        path.unlink()


def tiny_imagenet(root: Path) -> None:
    for wnid in WNIDS:
        write(root / "train" / wnid / "images", f"{wnid}_0.JPEG")
        lines(root / "train" / wnid / f"{wnid}_boxes.txt", f"{wnid}_0.JPEG\t0\t0\t62\t31")
    write(root / "val/images", "val_0.JPEG")
    lines(root / "val/val_annotations.txt", f"val_0.JPEG\t{WNIDS[2]}\t0\t32\t44\t62")
    lines(root / "wnids.txt", *reversed(WNIDS))
    lines(root / "words.txt", *(f"{wnid}\t{words}" for wnid, words in imagenets.WORDS.items()))


def imagenette(root: Path) -> None:
    names = [f"train/{wnid}/{wnid}_1.JPEG" for wnid in WNIDS] + [f"val/{WNIDS[0]}/{WNIDS[0]}_7.JPEG"]
    write(root, *names)
    rows = (",".join([name, *[name.split("/")[1]] * 5, str(name.startswith("val"))]) for name in names)
    columns = ",".join(f"noisy_labels_{noise}" for noise in (0, 1, 5, 25, 50))
    lines(root / "noisy_imagenette.csv", f"path,{columns},is_valid", *rows)


def imagenet_100(root: Path) -> None:
    for number, wnid in enumerate(WNIDS[:4], start=1):
        write(root / f"train.X{number}", f"{wnid}/{wnid}_{number}.JPEG")
    write(root / "val.X", f"{WNIDS[0]}/{val_name(1)}")
    (root / "Labels.json").write_text(json.dumps({WNIDS[3]: "kit fox"}))


def webdataset(root: Path) -> None:
    for part, names in (
        ("train", [(name, wnid) for wnid, items in TRAIN.items() for name in items]),
        ("validation", [(val_name(number), wnid) for number, wnid in VAL.items()]),
    ):
        files = {}
        for name, wnid in names:
            stem = name.removesuffix(".JPEG")
            files |= {f"{stem}.cls": str(WNIDS.index(wnid)).encode(), f"{stem}.jpg": content(name)}
        write_tar(root / f"set-{part}-0000.tar", files)


def export(root: Path) -> None:
    with TemporaryDirectory() as folder:
        convert(examples.folder(Path(folder) / "shards", (4,)), root, methods=("gradcam",))


def parquet(root: Path) -> None:
    for part, rows in (
        ("train", [(name, name.replace(".", f"_{wnid}."), wnid) for wnid, items in TRAIN.items() for name in items]),
        ("validation", [(val_name(n), val_name(n).replace(".", f"_{wnid}."), wnid) for n, wnid in VAL.items()]),
    ):
        images = [{"bytes": content(name), "path": path} for name, path, _ in rows]
        table = pyarrow.table({"image": images, "label": [WNIDS.index(wnid) for _, _, wnid in rows]})
        (root / "data").mkdir(exist_ok=True)
        pyarrow.parquet.write_table(table, root / "data" / f"{part}-00000-of-00001.parquet")


def pubfig(root: Path) -> None:
    lines(root / "dev_urls.txt", "# PubFig Dataset v1.2", "#\tperson\timagenum\turl\trect\tmd5sum")
    with open(root / "dev_urls.txt", "a") as file:
        file.write("\n".join(ROW.format(number, number, number) for number in (1, 2)))
    write(root, "Ada_Lovelace/1.jpg", "Ada_Lovelace/2.png")


def pubfig_of_kaggle(root: Path) -> None:
    write(root / "CelebDataProcessed", "Ada Lovelace/1.jpg", "Alan Turing/1.jpg")


def pubfig83(root: Path) -> None:
    write(root / "pubfig83", "Ada Lovelace/1.jpg", "Alan Turing/1.jpg")


SHAPES: dict[str, list[Callable[[Path], None]]] = {
    "export": [export],
    "folders": [folders],
    "ilsvrc": [unpacked, as_downloaded, with_caffes_lists],
    "kaggle": [kaggle],
    "tiny-imagenet": [tiny_imagenet],
    "imagenette": [imagenette],
    "imagenet-100": [imagenet_100],
    "webdataset": [webdataset],
    "parquet": [parquet],
    "pubfig": [pubfig],
    "pubfig-kaggle": [pubfig_of_kaggle],
    "pubfig83": [pubfig83],
}


def test_layouts_are_there_without_slow_imports():
    code = (
        "import sys, saliency_pipeline.datasets.open\n"
        "print([name for name in ('torch', 'h5py', 'PIL', 'scipy', 'pyarrow') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_every_layout_is_here():
    assert sorted(SHAPES) == sorted(layout.name for layout in LAYOUTS)


@pytest.mark.parametrize(("name", "build"), [(name, build) for name, builds in SHAPES.items() for build in builds])
def test_a_layout_is_recognized_and_read_alike_by_its_name(tmp_path, name, build):
    build(tmp_path)
    root = tmp_path / "pubfig83" if name == "pubfig83" else tmp_path
    notes: list[str] = []
    recognized = read_images(root, note=notes.append)
    assert notes[0].startswith(f"{root}: layout {name} (")
    assert recognized.layout == name
    assert recognized == read_images(root, name)
    assert len(recognized) > 1
    keys = [record.key for record in recognized.records]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("build", [unpacked, as_downloaded, with_caffes_lists, kaggle, webdataset, parquet])
def test_the_same_images_are_the_same_catalogue_in_every_layout(tmp_path, build):
    build(tmp_path)
    assert described(read_images(tmp_path)) == expected("train", "val")


def test_options_reach_the_reader(tmp_path):
    folders(tmp_path)
    assert read_images(tmp_path, "folders", ReadOptions(label_level=0)).classes == ()


@pytest.mark.parametrize("build", [folders, unpacked, kaggle, tiny_imagenet, imagenet_100, webdataset, parquet, pubfig])
def test_noise_is_not_ignored(tmp_path, build):
    build(tmp_path)
    with pytest.raises(SalpipeError, match=r"layout .*, but --noise needs noisy_imagenette\.csv"):
        read_images(tmp_path, options=ReadOptions(noise=25))


@pytest.mark.parametrize(("flag", "options"), [("--margin", {"margin": 0.3}), ("--no-crop", {"crop": False})])
@pytest.mark.parametrize("build", [folders, unpacked, imagenette, pubfig_of_kaggle])
def test_options_of_faces_are_refused_where_no_list_has_rectangles(tmp_path, build, flag, options):
    build(tmp_path)
    with pytest.raises(SalpipeError, match=f"layout .*, but {flag} needs the rectangles of a list of PubFig; leave it"):
        read_images(tmp_path, options=ReadOptions(**options))


@pytest.mark.parametrize(("flag", "options"), [("--label-level", {"label_level": 0}), ("--list", {"list": Path("x")})])
def test_other_options_of_one_layout_are_refused_elsewhere(tmp_path, flag, options):
    unpacked(tmp_path)
    with pytest.raises(SalpipeError, match=f"layout ilsvrc, but {flag} needs "):
        read_images(tmp_path, "ilsvrc", ReadOptions(**options))


def test_a_list_that_lies_elsewhere_makes_a_tree_pubfig(tmp_path):
    write(tmp_path / "tree", "Ada Lovelace/1.jpg")
    listed = lines(tmp_path / "lists" / "dev_urls.txt", ROW.format(1, 1, 1))
    catalogue = read_images(tmp_path / "tree", options=ReadOptions(list=listed))
    assert (catalogue.layout, catalogue.records[0].box) == ("pubfig", (1, 2, 30, 40))


def test_what_was_skipped_is_noted(tmp_path):
    pubfig(tmp_path)
    write(tmp_path, "Ada_Lovelace/77.jpg")
    notes: list[str] = []
    assert len(read_images(tmp_path, note=notes.append)) == 2
    assert any("77.jpg" in line for line in notes[1:])


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        ("kagle", "--layout kagle: no such layout; did you mean 'kaggle'?"),
        ("xyz", "--layout xyz: no such layout; choose from auto, export, pubfig, "),
    ],
)
def test_an_unknown_layout_is_named(tmp_path, layout, message):
    with pytest.raises(SalpipeError) as caught:
        read_images(tmp_path, layout)
    assert str(caught.value).startswith(message)


def test_a_missing_path_is_named(tmp_path):
    with pytest.raises(SalpipeError, match="nowhere: no such file or folder; check the path"):
        read_images(tmp_path / "nowhere")
