"""`generate` from URLs: digest and shards are those of a copy on disk, whatever fails on the way."""

import json
import shutil
from pathlib import Path

import pytest

from saliency_pipeline.errors import SalpipeError
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
    """Acceptance: folder, local tar, tar on S3 and on a web server, a folder of objects, and tables of the Hub."""
    tables = examples.tables(photos, tmp_path / "tables", "part")
    shutil.copy(photos / "notes.txt", tables)
    web.hub = Hub("org/photos")
    web.hub.commit(tables)
    s3.upload_file(str(tar), bucket, "data/photos.tar")
    upload(s3, bucket, photos)
    places = {
        "local tar": tar,
        "tar on S3": f"s3://{bucket}/data/photos.tar",
        "folder on S3": f"s3://{bucket}/data/photos",
        "tar on a web server": web.put("/photos.tar", tar.read_bytes()),
        "tables on disk": tables,
        "tables of the Hub": "hf://datasets/org/photos",
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


@pytest.fixture
def served(tar: Path, web: Files) -> str:
    """The URL of the tar on the web server."""
    return web.put("/photos.tar", tar.read_bytes())


def test_images_of_a_shard_that_lie_together_are_one_request(
    served: str, tar: Path, local: dict[str, bytes], web: Files, tmp_path: Path
) -> None:
    run(served, tmp_path / "shards")  # type: ignore[arg-type]
    assert kept(tmp_path / "shards") == local
    listing, *rest = (request.range for request in web.of("/photos.tar"))
    assert listing == (0, 1)
    scan, measured, *shards = rest
    assert scan == (0, tar.stat().st_size)
    assert len(shards) == 3
    assert measured[0] <= min(start for start, _ in shards)  # type: ignore[index]
    assert sum(end - start for start, end in shards) < 1.2 * tar.stat().st_size  # type: ignore[misc]


def test_the_index_of_a_tar_is_kept(served: str, local: dict[str, bytes], web: Files, tmp_path: Path) -> None:
    shards = tmp_path / "shards"
    run(served, shards)  # type: ignore[arg-type]
    (index,) = (shards / "index").iterdir()
    for damage in (None, b"", index.read_bytes()[:-7], b"{}\n"):
        if damage is not None:
            index.write_bytes(damage)
        web.requests.clear()
        (shards / "shard-00001.h5").unlink()
        run(served, shards)  # type: ignore[arg-type]
        assert kept(shards) == local
        # the first byte and the images of the shard; where the index is damaged, the archive is scanned again
        assert len(web.requests) == (2 if damage is None else 3)


def test_failures_that_pass_change_nothing(served: str, local: dict[str, bytes], web: Files, tmp_path: Path) -> None:
    kinds = ["truncate", "503:0.01", "whole", "other", "429:0.02", "500"]
    left: dict[tuple[int, int], list[str]] = {}

    def fault(request) -> str | None:
        faults = left.setdefault(request.range, list(kinds))
        return faults.pop(0) if faults and request.range != (0, 1) else None

    web.fault = fault
    report = run(served, tmp_path / "shards")  # type: ignore[arg-type]
    assert (report.images, report.rejects) == (9, 1)
    assert kept(tmp_path / "shards") == local
    # the first byte has no faults; the scan asks for the whole file, and may get it at once
    images = [faults for span, faults in left.items() if span[0] > 0]
    assert len(images) >= 3
    assert not any(images)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("truncate", r"photos\.tar: does not answer \(.*8 attempts; run the same command again later"),
        ("whole", r"photos\.tar: does not answer \(the whole file where a part was asked for"),
        ("503", r"photos\.tar: does not answer \(503\), 8 attempts"),
        ("403", r"photos\.tar: access denied"),
        ("404", r"photos\.tar: there is no such file; check the URL"),
    ],
)
def test_failures_that_stay_are_no_rejects(
    fault: str, message: str, served: str, local: dict[str, bytes], web: Files, tmp_path: Path
) -> None:
    shards = tmp_path / "shards"
    run(served, shards, part=(1, 3))  # type: ignore[arg-type]
    before = len(web.requests)
    web.fault = lambda request: fault if request.number > before and request.range != (0, 1) else None
    with pytest.raises(SalpipeError, match=message):
        run(served, shards)  # type: ignore[arg-type]
    web.fault = lambda request: None
    report = run(served, shards)  # type: ignore[arg-type]
    assert (report.written, report.rejects) == (2, 1)
    assert kept(shards) == local


def test_a_server_without_ranges_is_named_at_once(served: str, web: Files, tmp_path: Path) -> None:
    web.fault = lambda request: "whole"
    message = r"photos\.tar: its server has no range requests; download the file, and give its path"
    with pytest.raises(SalpipeError, match=message):
        run(served, tmp_path / "shards")  # type: ignore[arg-type]
    assert len(web.requests) == 1


def test_from_object_storage_to_object_storage(
    tar: Path, local: dict[str, bytes], bucket: str, s3, empty_cache: Path
) -> None:
    s3.upload_file(str(tar), bucket, "photos.tar")
    report = run(f"s3://{bucket}/photos.tar", f"s3://{bucket}/shards")  # type: ignore[arg-type]
    assert report.complete
    for name, data in local.items():
        assert s3.get_object(Bucket=bucket, Key=f"shards/{name}")["Body"].read() == data
    plan = json.loads(s3.get_object(Bucket=bucket, Key="shards/plan.json")["Body"].read())
    assert plan["origin"]["url"] == f"s3://{bucket}/photos.tar"
    s3.put_object(Bucket=bucket, Key="photos.tar", Body=tar.read_bytes() + bytes(512))
    with pytest.raises(SalpipeError, match="has changed since the output was begun"):
        run(f"s3://{bucket}/photos.tar", f"s3://{bucket}/shards")  # type: ignore[arg-type]


def test_a_changed_file_is_refused(served: str, tar: Path, web: Files, tmp_path: Path) -> None:
    shards = tmp_path / "shards"
    run(served, shards, part=(1, 3))  # type: ignore[arg-type]
    web.tags["/photos.tar"] = '"another"'
    with pytest.raises(SalpipeError, match=r"photos\.tar: has changed since the output was begun \(revision .* is now"):
        run(served, shards)  # type: ignore[arg-type]
    before = len(web.requests)

    def change(request) -> None:
        web.tags["/photos.tar"] = '"another"' if request.number > before + 2 else '"one"'

    web.fault = change
    with pytest.raises(SalpipeError, match=r"photos\.tar: has changed since it was listed: another ETag .*restore it"):
        run(served, tmp_path / "other")  # type: ignore[arg-type]
    assert not kept_shards(tmp_path / "other")


def kept_shards(folder: Path) -> list[Path]:
    return list(folder.glob("shard-*.h5"))


def test_an_object_that_changes_is_refused(
    photos: Path, tar: Path, bucket: str, s3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3.upload_file(str(tar), bucket, "photos.tar")
    url = f"s3://{bucket}/photos.tar"
    run(url, tmp_path / "shards", part=(1, 3))  # type: ignore[arg-type]
    from saliency_pipeline.remote.origin import find_origin

    (file,) = find_origin(url).files.values()
    data = bytearray(tar.read_bytes())
    data[-1] ^= 1
    s3.put_object(Bucket=bucket, Key="photos.tar", Body=bytes(data))
    with pytest.raises(SalpipeError, match=r"photos\.tar: has changed since it was listed; restore it"):
        file.read(10, 0)
    with pytest.raises(SalpipeError, match="has changed since the output was begun"):
        run(url, tmp_path / "shards")  # type: ignore[arg-type]


def test_object_storage_that_fails_for_a_while(
    tar: Path, local: dict[str, bytes], bucket: str, s3, faulty, tmp_path: Path
) -> None:
    s3.upload_file(str(tar), bucket, "photos.tar")
    failed: dict[str, int] = {}

    def fault(request) -> str | None:
        failed[request.method] = failed.get(request.method, 0) + 1
        return {2: "503", 3: "truncate", 5: "truncate", 6: "lose"}.get(failed.get("GET", 0))

    faulty.fault = fault
    report = run(f"s3://{bucket}/photos.tar", tmp_path / "shards")  # type: ignore[arg-type]
    assert (report.images, report.rejects) == (9, 1)
    assert kept(tmp_path / "shards") == local


def test_a_resumed_run_reads_the_commit_it_was_begun_with(photos: Path, web: Files, tmp_path: Path) -> None:
    copy, shards = examples.tables(photos, tmp_path / "copy"), tmp_path / "shards"
    web.hub = Hub("org/birds")
    first = web.hub.commit(copy)
    run(copy, tmp_path / "local")
    run("hf://datasets/org/birds", shards, part=(1, 3))  # type: ignore[arg-type]
    (copy / "data" / "train-00000-of-00002.parquet").unlink()
    second = web.hub.commit(copy)
    run("hf://datasets/org/birds", shards)  # type: ignore[arg-type]
    assert kept(shards) == kept(tmp_path / "local")
    assert json.loads((shards / "plan.json").read_text())["origin"]["revision"] == first
    with pytest.raises(SalpipeError, match="holds the shards of another plan"):
        run(f"hf://datasets/org/birds@{second}", shards)  # type: ignore[arg-type]


def test_a_redirect_is_followed_and_remembered(
    tar: Path, local: dict[str, bytes], web: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = web.put("/signed/photos.tar", tar.read_bytes())
    web.put("/photos.tar", b"")
    web.fault = lambda request: target if request.path == "/photos.tar" else None
    run(f"{web.address}/photos.tar", tmp_path / "shards")  # type: ignore[arg-type]
    assert kept(tmp_path / "shards") == local
    assert len(web.of("/photos.tar")) == 1


def test_signatures_are_in_no_message(served: str, web: Files, tmp_path: Path) -> None:
    targets = {"/photos.tar": f"{web.address}/other.tar?Signature=secret", "/other.tar": f"{served}?Signature=secret"}
    web.fault = lambda request: targets[request.path]
    with pytest.raises(SalpipeError, match=r"photos\.tar\?\.\.\.: ") as caught:
        run(f"{served}?Signature=secret", tmp_path / "shards")  # type: ignore[arg-type]
    assert "secret" not in str(caught.value)


def test_private_addresses_are_refused(
    served: str, web: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SALPIPE_ALLOW_PRIVATE")
    message = r"photos\.tar: .*127\.0\.0\.1 is not an address of the public Internet.*; only --allow-private"
    with pytest.raises(SalpipeError, match=message):
        run(served, tmp_path / "shards")  # type: ignore[arg-type]
    from saliency_pipeline.remote import session

    public = session.is_public
    monkeypatch.setattr(session, "is_public", lambda host: host == "127.0.0.1" or public(host))
    port = served.rpartition(":")[2].partition("/")[0]
    web.fault = lambda request: f"http://127.0.0.2:{port}/secret" if request.path == "/photos.tar" else None
    before = len(web.requests)
    with pytest.raises(SalpipeError, match=r"127\.0\.0\.2 is not an address of the public Internet"):
        run(served, tmp_path / "shards")  # type: ignore[arg-type]
    assert [request.path for request in web.requests[before:]] == ["/photos.tar"]
