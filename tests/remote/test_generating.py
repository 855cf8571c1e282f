"""`generate` from URLs: digest and shards are those of a copy on disk, whatever fails on the way."""

import json
from pathlib import Path

import pytest

from saliency_pipeline.generation.outline import dry_run
from tests.generation.examples import kept, run
from tests.remote import examples
from tests.remote.web import Files, Hub


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of classes. Not to be changed."""
    return examples.folder(tmp_path_factory.mktemp("far") / "photos")


@pytest.fixture(scope="module")
def tar(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return examples.tar(photos, tmp_path_factory.mktemp("tar") / "photos.tar")


@pytest.fixture(scope="module")
def local(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What a run from the folder leaves."""
    target = tmp_path_factory.mktemp("local") / "shards"
    report = run(photos, target)
    assert (report.images, report.rejects) == (9, 1)
    return kept(target)


def digest(place: object) -> str:
    return dry_run(place, "unused").records  # type: ignore[arg-type]


def upload(s3, bucket: str, folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            s3.upload_file(str(path), bucket, f"data/{folder.name}/{path.relative_to(folder)}")


def test_a_tar_and_a_folder_anywhere_make_the_same_shards(
    photos: Path, tar: Path, local: dict[str, bytes], web: Files, bucket: str, s3, tmp_path: Path
) -> None:
    """Acceptance: folder, local tar, tar on S3 and on a web server, and a folder of objects."""
    s3.upload_file(str(tar), bucket, "data/photos.tar")
    upload(s3, bucket, photos)
    places = {
        "local tar": tar,
        "tar on S3": f"s3://{bucket}/data/photos.tar",
        "folder on S3": f"s3://{bucket}/data/photos",
        "tar on a web server": web.put("/photos.tar", tar.read_bytes()),
    }
    expected = digest(photos)
    for number, (name, place) in enumerate(places.items()):
        assert digest(place) == expected, name
        run(place, tmp_path / str(number))  # type: ignore[arg-type]
        assert kept(tmp_path / str(number)) == local, name


@pytest.mark.parametrize("layout", ["tables", "webdataset"])
def test_a_data_set_of_the_hub_makes_the_shards_of_its_copy(
    layout: str, photos: Path, local: dict[str, bytes], web: Files, tmp_path: Path
) -> None:
    copy = getattr(examples, layout)(photos, tmp_path / "copy")
    (copy / "README.md").write_text("# Birds")
    (copy / ".gitattributes").write_text("*.parquet filter=lfs")
    web.hub = Hub("org/birds")
    commit = web.hub.commit(copy)
    run(copy, tmp_path / "local")
    report = run("hf://datasets/org/birds", tmp_path / "remote")  # type: ignore[arg-type]
    assert (report.images, report.rejects) == (9, 1)
    assert kept(tmp_path / "remote") == kept(tmp_path / "local")
    assert digest("hf://datasets/org/birds@main") == digest(copy)
    plan = json.loads((tmp_path / "remote" / "plan.json").read_text())
    assert plan["origin"] == {"url": "hf://datasets/org/birds", "revision": commit}
