"""Boxes from a file and maps from elsewhere, from the data set to the shards."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from saliency_pipeline.datasets.folder import read_folder
from saliency_pipeline.errors import OptionError, PlanMismatchError, SalpipeError
from saliency_pipeline.generation.annotated import upright_boxes
from saliency_pipeline.generation.outline import dry_run
from saliency_pipeline.images.decode import Decoded
from saliency_pipeline.images.record import ImageRecord
from saliency_pipeline.saliency.methods.listing import list_methods
from saliency_pipeline.saliency.methods.registry import find_methods
from saliency_pipeline.shards.reader import ShardFolder
from saliency_pipeline.shards.schema import ALL_ZERO
from saliency_pipeline.shards.shard import Shard
from saliency_pipeline.shards.verify import verify
from saliency_pipeline.subsets.selection import Selection
from tests.generation.conftest import BROKEN, NAMES
from tests.generation.examples import kept, run
from tests.generation.test_rejects import rejects

SIZE = 64


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


@pytest.fixture(scope="module")
def truth(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A box of every photograph but the last, in `boxes.csv`, and the same as masks in `masks`. Not to be changed."""
    root = tmp_path_factory.mktemp("truth")
    rows = ["file,width,height,xmin,ymin,xmax,ymax"]
    for number, name in enumerate(NAMES[:-1]):
        width, height = size_of(images / name)
        box = (width // 3, height // 4, width // 2, height // 2 + number % 4)
        rows.append(f"{name},{width},{height},{','.join(map(str, box))}")
        mask = np.zeros((height, width), np.uint8)
        mask[box[1] : box[3] + 1, box[0] : box[2] + 1] = 1
        path = root / "masks" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if number % 2:
            np.save(path.with_suffix(".npy"), mask.astype(np.float32) * 7)
        else:
            Image.fromarray(mask).save(path.with_suffix(".png"))
    (root / "boxes.csv").write_text("\n".join(rows))
    return root


@pytest.fixture(scope="module")
def annotated(images: Path, truth: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with both. Not to be changed."""
    folder = tmp_path_factory.mktemp("annotated") / "shards"
    run(images, folder, fit="pad", boxes=truth / "boxes.csv", maps_from=truth / "masks")
    return folder


def shards(folder: Path) -> list[Shard]:
    return [Shard(path) for path in sorted(folder.glob("shard-*.h5"))]


def test_boxes_and_maps_are_stored(images: Path, annotated: Path) -> None:
    assert verify(annotated, deep=True).problems == ()
    folder = ShardFolder(annotated)
    assert list(folder.methods) == ["given", "gradcam"]
    assert sorted(folder.keys()) == sorted(NAMES)
    for shard in shards(annotated):
        assert shard.header.provenance["data"]["boxes"]["images"] == len(NAMES) - 1
        assert shard.header.provenance["methods"]["given"]["class_agnostic"] is True
        maps, sizes = shard.maps("given"), shard.read("source/size")
        assert maps.shape[1:] == (1, SIZE // 4, SIZE // 4)
        for row, key in enumerate(shard.keys):
            if key == NAMES[-1]:
                assert len(shard.boxes(row)) == 0
                assert shard.read("saliency/given/flag")[row] & ALL_ZERO
                continue
            ((x0, y0, x1, y1),) = shard.boxes(row).tolist()
            # the box in cells of the map: the long side fills the frame
            cell = max(sizes[row]) / (SIZE // 4)
            area = (x1 - x0) * (y1 - y0) / cell**2
            assert maps[row, 0].sum() == pytest.approx(area, rel=0.1)
            rows, columns = np.mgrid[: SIZE // 4, : SIZE // 4] + 0.5
            center = [(maps[row, 0] * axis).sum() / maps[row, 0].sum() - SIZE / 8 for axis in (rows, columns)]
            middle = [((y0 + y1) - sizes[row][0]) / 2 / cell, ((x0 + x1) - sizes[row][1]) / 2 / cell]
            np.testing.assert_allclose(center, middle, atol=0.25)


def test_other_maps_are_those_of_a_run_without(images: Path, annotated: Path, tmp_path: Path) -> None:
    run(images, tmp_path / "shards", fit="pad")
    own, plain = ShardFolder(annotated), ShardFolder(tmp_path / "shards")
    assert all(np.array_equal(own[i].maps["gradcam"], plain[i].maps["gradcam"]) for i in range(len(own)))


@pytest.mark.slow
def test_workers_write_the_same_shards(images: Path, truth: Path, annotated: Path, tmp_path: Path) -> None:
    run(images, tmp_path / "jobs", jobs=2, fit="pad", boxes=truth / "boxes.csv", maps_from=truth / "masks")
    assert kept(tmp_path / "jobs") == kept(annotated)


def test_parts_write_the_same_shards(images: Path, truth: Path, annotated: Path, tmp_path: Path) -> None:
    options = {"fit": "pad", "boxes": truth / "boxes.csv", "maps_from": truth / "masks"}
    for number in (2, 1):
        run(images, tmp_path / "shards", part=(number, 2), **options)
    assert kept(tmp_path / "shards") == kept(annotated)
    assert run(images, tmp_path / "shards", **options).written == 0


def test_other_boxes_or_maps_are_another_plan(images: Path, truth: Path, annotated: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(truth, tmp_path / "truth"))
    path = next(iter(sorted((other / "masks").rglob("*.npy"))))
    values = np.load(path)
    values[0, 0] = 3
    np.save(path, values)
    same = {"fit": "pad", "boxes": other / "boxes.csv"}
    with pytest.raises(PlanMismatchError, match=r"selection.maps.sha256 [0-9a-f]{8} -> [0-9a-f]{8}\)"):
        run(images, annotated, maps_from=other / "masks", **same)
    with pytest.raises(PlanMismatchError, match=r"selection[.]maps"):
        run(images, annotated, **same)
    (other / "boxes.csv").write_text((other / "boxes.csv").read_text() + "0")
    outlined = dry_run(images, annotated, boxes=other / "boxes.csv", maps_from=truth / "masks")
    assert (outlined.boxes, outlined.maps) == (len(NAMES) - 1, len(NAMES) - 1)
    assert "selection.boxes.sha256" in str(outlined.refused)


def test_a_name_is_ambiguous_whatever_is_selected(images: Path, tmp_path: Path) -> None:
    (tmp_path / "boxes.csv").write_text("file,xmin,ymin,xmax,ymax\n9.jpg,1,1,5,5\n")
    assert run(images, tmp_path / "a", boxes=tmp_path / "boxes.csv", selection=Selection(classes=("cat",))).complete
    copy = Path(shutil.copytree(images, tmp_path / "images"))
    shutil.copy(copy / "train/cat/9.jpg", copy / "train/dog/9.jpg")
    with pytest.raises(SalpipeError, match=r"9[.]jpg is the name of 2 images"):
        run(copy, tmp_path / "b", boxes=tmp_path / "boxes.csv", selection=Selection(classes=("cat",)))


def test_images_of_impossible_boxes_or_maps_are_rejected(images: Path, tmp_path: Path) -> None:
    rows = [f"{NAMES[0]},5,5,1,1,2,2", f"{NAMES[1]},,,500,1,600,2", f"{NAMES[2]},,,-9,-9,600,600"]
    (tmp_path / "boxes.csv").write_text("\n".join(["file,width,height,xmin,ymin,xmax,ymax", *rows]))
    (tmp_path / "masks").mkdir()
    np.save(tmp_path / "masks" / "10.npy", np.array([[1, np.nan]]))
    run(images, tmp_path / "shards", boxes=tmp_path / "boxes.csv", maps_from=tmp_path / "masks")
    reasons = rejects(tmp_path / "shards")
    width, height = size_of(images / NAMES[0])
    assert set(reasons) == {*BROKEN, NAMES[0], NAMES[1], "train/cat/10.jpg"}
    assert reasons[NAMES[0]] == f"its boxes are those of an image of 5 x 5 pixels, and it has {width} x {height}"
    assert reasons[NAMES[1]].startswith("its box 500, 1, 601, 3 lies outside the ")
    assert reasons["train/cat/10.jpg"] == "its map 10.npy: values that are not finite"
    assert verify(tmp_path / "shards", deep=True).problems == ()
    stored = {
        key: each.boxes(row).tolist() for each in shards(tmp_path / "shards") for row, key in enumerate(each.keys)
    }
    assert stored[NAMES[2]] == [[0, 0, *size_of(images / NAMES[2])]]


def test_a_catalogue_takes_both(images: Path, truth: Path, tmp_path: Path) -> None:
    run(read_folder(images), tmp_path / "shards", boxes=truth / "boxes.csv", maps_from=truth / "masks")
    assert set(Shard(tmp_path / "shards" / "shard-00000.h5").header.provenance["data"]) == {"boxes", "maps"}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("stated", [None, "stored"])
def test_boxes_are_turned_as_their_image_is(orientation: int, stated: str | None) -> None:
    stored = np.zeros((30, 40), np.uint8)
    stored[3:10, 5:20] = 1
    image = Image.fromarray(stored)
    image.getexif()[0x0112] = orientation
    turns = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}
    upright = np.asarray(image.transpose(Image.Transpose(turns[orientation])) if orientation > 1 else image)
    record = ImageRecord("a", "a", boxes=((5, 3, 20, 10),), boxes_size=(40, 30) if stated else None)
    decoded = Decoded(np.zeros((1, 1, 3), np.uint8), upright.shape, orientation)
    ((x0, y0, x1, y1),) = upright_boxes(record, decoded, check=True)
    assert upright[y0:y1, x0:x1].all()
    assert upright.sum() == upright[y0:y1, x0:x1].size


@pytest.mark.parametrize("stated", ["40,30,5,3,19,9", "30,40,20,5,26,19", ",,5,3,19,9"])
def test_boxes_of_a_turned_photograph_are_stored_upright(tmp_path: Path, stated: str) -> None:
    (tmp_path / "images").mkdir()
    image = Image.fromarray(np.zeros((30, 40), np.uint8))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "images" / "1.jpg", exif=exif)
    (tmp_path / "boxes.csv").write_text(f"width,height,xmin,ymin,xmax,ymax,file\n{stated},1.jpg\n")
    run(tmp_path / "images", tmp_path / "shards", boxes=tmp_path / "boxes.csv")
    (shard,) = shards(tmp_path / "shards")
    assert shard.boxes(0).tolist() == [[20, 5, 27, 20]]
    assert shard.read("source/size").tolist() == [[40, 30]]


def test_boxes_of_the_upright_image_stay() -> None:
    record = ImageRecord("a", "a", boxes=((5, 3, 20, 10),), boxes_size=(30, 40))
    assert upright_boxes(record, Decoded(np.zeros((1, 1, 3), np.uint8), (40, 30), 6), check=True) == record.boxes


def test_given_is_no_method() -> None:
    for text in ("given", "given:x=1"):
        with pytest.raises(
            OptionError, match=f"--method {text}: maps from elsewhere, which are not computed; 'salpipe gen"
        ):
            find_methods([text])
    assert "given" not in {method.name for method in list_methods()}


def test_the_folder_of_maps_may_be_relative(images: Path, truth: Path, tmp_path: Path) -> None:
    before = os.getcwd()
    os.chdir(truth)
    try:
        report = run(images, tmp_path / "shards", maps_from="masks", boxes="boxes.csv")
    finally:
        os.chdir(before)
    assert report.rejects == len(BROKEN)
