"""Files of maps and the images that they belong to; no map is opened here."""

import os

import pytest

from saliency_pipeline.datasets.map_files import maps_digest, with_maps
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.images.record import Catalogue, ImageRecord
from saliency_pipeline.progress import Progress

CATALOGUE = Catalogue(
    "/photos", [ImageRecord(key, f"/photos/{key}") for key in ("cat/1.jpg", "cat/2.jpg", "dog/1.JPG")]
)


def files(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    return root


def maps(root, notes=None):
    records = with_maps(CATALOGUE, root, ([] if notes is None else notes).append).records
    return {record.key: os.path.relpath(record.map_path, root) for record in records if record.map_path}


def test_a_map_has_the_name_of_its_image_without_suffix(tmp_path):
    notes = []
    files(tmp_path / "masks", "cat/1.png", "dog/1.NPY", "2.npy", "README.txt", ".hidden.png", "stray.png")
    (tmp_path / "masks/loop").symlink_to(tmp_path / "masks")
    assert maps(tmp_path / "masks", notes) == {"cat/1.jpg": "cat/1.png", "dog/1.JPG": "dog/1.NPY", "cat/2.jpg": "2.npy"}
    assert notes == [f"{tmp_path / 'masks'}: maps of 3 images, each of the whole image; 1 file of no image: stray"]
    (tmp_path / "masks/2.npy").unlink()
    maps(tmp_path / "masks", notes)
    assert (
        "maps of 2 images, each of the whole image; 1 image without one, whose maps are zeros (cat/2.jpg); 1 file"
        in notes[1]
    )


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (("1.png",), "1.png: 1 is the name of 2 images"),
        (("cat/1.npy", "cat/1.png"), "cat/1.png: .*cat/1.npy is a map of the same image; leave one out"),
        (
            ("bird.png",),
            r"maps of none of the images of /photos \(there is bird; an image is cat/1.jpg\); call each",
        ),
        ((), r"maps of none of the images of /photos \(there is no file .png or .npy; an image"),
    ],
)
def test_what_cannot_be_joined_is_an_error(tmp_path, names, reason):
    with pytest.raises(SalpipeError, match=reason):
        maps(files(tmp_path, *names))


def test_a_missing_folder_is_an_error(tmp_path):
    with pytest.raises(SalpipeError, match="missing: no such folder"):
        maps(tmp_path / "missing")


def test_the_digest_is_that_of_the_contents(tmp_path):
    def digest():
        return maps_digest(with_maps(CATALOGUE, tmp_path, [].append).records, Progress())

    first = digest() if files(tmp_path, "2.npy", "other.npy") else None
    assert first is not None
    assert first["images"] == 1
    (tmp_path / "other.npy").write_bytes(b"changed")
    os.rename(tmp_path / "2.npy", tmp_path / "2.png")
    assert digest() == first
    (tmp_path / "2.png").write_bytes(b"3.npy")
    assert digest() != first
    (tmp_path / "2.png").unlink()
    (tmp_path / "2.png").symlink_to("nowhere")
    with pytest.raises(SalpipeError, match=r"2.png: No such file or directory"):
        digest()
