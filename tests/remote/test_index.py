"""Indexes of remote archives: what is kept, requests of readers, names that no file can have."""

import errno
import io
import os
import tarfile
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saliency_pipeline.contents import open_contents, standing_in
from saliency_pipeline.datasets.remote import read_place
from saliency_pipeline.datasets.remote_index import KeptBytes, Window, index_path
from saliency_pipeline.datasets.remote_scan import scan
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.remote.file import RemoteFile
from tests.broken_images import encode, photo
from tests.remote import examples
from tests.remote.examples import content
from tests.remote.web import Files, Hub

JPEG = encode(photo(), "JPEG")


@settings(max_examples=50, deadline=None)
@given(st.binary(min_size=1, max_size=200), st.lists(st.tuples(st.integers(0, 30), st.integers(0, 40)), max_size=12))
def test_what_is_kept_is_what_was_added(data: bytes, parts: list[tuple[int, int]]) -> None:
    data = data.replace(b"\x01", b"\0") + bytes(40)
    kept, there, at = KeptBytes(), [False] * len(data), 0
    for gap, length in parts:
        at += gap
        kept.add(at, data[at : at + length])
        there[at : at + length] = [True] * len(there[at : at + length])
        at += length
    for start in range(0, len(data), 7):
        for length in (1, 5, 33):
            whole = all(there[start : start + length]) and start + length <= len(data)
            assert kept.read(length, start) == (data[start : start + length] if whole else None)


def test_an_index_is_that_of_one_version_of_a_file(tmp_path: Path) -> None:
    kept, file = KeptBytes(), RemoteFile("https://host/a.tar?signature=secret", 1000, '"one"')
    kept.add(10, b"abc" + bytes(500))
    kept.save(path := index_path(tmp_path / "shards" / "index", file), file)
    assert b"secret" not in path.read_bytes()
    loaded = KeptBytes.load(path, RemoteFile("https://host/a.tar?signature=other", 1000, '"one"'))
    assert loaded is not None
    assert loaded.read(503, 10) == b"abc" + bytes(500)
    assert KeptBytes.load(path, RemoteFile(file.url, 1000, '"two"')) is None
    assert KeptBytes.load(path, RemoteFile(file.url, 1001, '"one"')) is None
    for damaged in (b"", b"[]\n", path.read_bytes()[:-30], path.read_bytes().replace(b'"parts": 1', b'"parts": 9')):
        path.write_bytes(damaged)
        assert KeptBytes.load(path, file) is None


def test_requests_grow_while_headers_lie_together(requests: list[tuple[int, int]]) -> None:
    size = (64 << 20) + 7
    small = Window(RemoteFile("s3://bucket/a.tar", size))
    for offset in range(0, size, 99_999):
        assert small.read(512, offset) == content(offset, min(offset + 512, size))
    ordered = sorted(requests)
    assert len(ordered) < 20
    assert max(end - start for start, end in ordered) == 8 << 20
    # each byte is requested once, but for what a request had of the next header
    assert sum(end - start for start, end in ordered) < 1.02 * size


def test_large_members_are_skipped(requests: list[tuple[int, int]]) -> None:
    large = Window(RemoteFile("s3://bucket/b.tar", 1 << 30))
    for offset in range(0, 1 << 30, 32 << 20):
        assert large.read(512, offset) == content(offset, offset + 512)
    assert (len(requests), sum(end - start for start, end in requests)) == (32, 32 * (256 << 10))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 300)), max_size=40), st.integers(1, 3000))
def test_windows_have_the_bytes_of_the_file(reads: list[tuple[int, int]], size: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RemoteFile, "request", lambda file, start, end: content(start, end))
        for name, value in (("_FIRST", 16), ("_LONGEST", 64)):
            patch.setattr(f"saliency_pipeline.datasets.remote_index.{name}", value)
        window = Window(RemoteFile("s3://bucket/a.tar", size))
        for offset, length in [*reads, *((o, 9) for o in range(0, size, 11))]:
            assert window.read(length, offset) == content(offset, max(offset, min(offset + length, size)))


def archive(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def test_readers_of_an_indexed_archive_make_no_requests(web: Files, tmp_path: Path) -> None:
    """Archives in an archive, labels and files without a suffix included."""
    inner = archive(tmp_path / "n01440764.tar", {"n01440764_1.JPEG": JPEG, "noending": JPEG}).read_bytes()
    outer = archive(tmp_path / "x.tar", {"n01440764.tar": inner, "1.cls": b"7", "1.jpg": JPEG})
    file = RemoteFile(web.put("/x.tar", outer.read_bytes()), outer.stat().st_size)
    kept = scan("x.tar", file)
    web.requests.clear()
    start = outer.read_bytes().index(inner[:512])
    for offset, length in ((0, 512), (start, 512), (start + 512 + len(JPEG), 0)):
        assert kept.read(length, offset) == outer.read_bytes()[offset : offset + length]
    assert kept.read(1, outer.read_bytes().index(b"1.cls") + 512) == b"7"
    assert kept.read(64, outer.read_bytes().index(b"noending") + 512) == JPEG[:64]
    assert kept.read(64, start + 512) is None  # an image by its name is not read
    assert web.requests == []


def test_a_damaged_archive_is_read_like_its_copy(web: Files, tmp_path: Path) -> None:
    data = archive(tmp_path / "x.tar", {f"a/{number}.jpg": JPEG for number in range(9)}).read_bytes()
    for number, damaged in enumerate((data[:30_000], data[:9000] + b"x" * 700 + data[9700:], b"\x1f\x8b" + data)):
        (copy := tmp_path / str(number) / "x.tar").parent.mkdir()
        copy.write_bytes(damaged)
        url = web.put(f"/{number}/x.tar", damaged)
        results = []
        for place in (copy, url):
            try:
                catalogue = read_place(place)
                results.append(([(r.key, r.offset, r.length) for r in catalogue.records], catalogue.notes))
            except SalpipeError as error:
                results.append(str(error).replace(str(place), "PLACE"))
        assert results[0] == results[1]


def test_names_of_objects_that_no_file_can_have(bucket: str, s3) -> None:
    for key in (
        "cat/1.jpg",
        "cat/2.jpg/3.jpg",
        "cat/2.jpg",
        "dog/../1.jpg",
        "dog/",
        "dog//2.jpg",
        "dog/3.jpg",
        "x" * 300,
    ):
        s3.put_object(Bucket=bucket, Key=key, Body=JPEG)
    catalogue = read_place(f"s3://{bucket}")
    keys = [record.key for record in catalogue.records]
    assert {"cat/1.jpg", "dog/3.jpg"} <= set(keys)
    assert not any(".." in key or "//" in key for key in keys)
    assert any("not a valid file name on this machine; rename it" in note for note in catalogue.notes)
    assert catalogue.root == f"s3://{bucket}"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EMFILE])
def test_a_full_temporary_folder_drops_no_image(bucket: str, s3, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("cat/1.jpg", "cat/2.jpg", "dog/3.jpg"):
        s3.put_object(Bucket=bucket, Key=key, Body=JPEG)
    opened = os.open

    def full(path: object, flags: int, *rest: int, **options: int) -> int:
        if str(path).endswith("2.jpg"):
            raise OSError(number, os.strerror(number), path)
        return opened(path, flags, *rest, **options)

    monkeypatch.setattr("saliency_pipeline.datasets.remote.os.open", full)
    with pytest.raises(SalpipeError) as error:
        read_place(f"s3://{bucket}")
    assert str(error.value) == (
        f"{tempfile.gettempdir()}: cannot hold the temporary files of the data set ({os.strerror(number)}); free space "
        "there, or set TMPDIR to another folder, and run the same command again"
    )


def test_a_list_that_finds_no_room_ends_in_one_line(bucket: str, s3, monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("cat/1.jpg", "classnames.txt"):
        s3.put_object(Bucket=bucket, Key=key, Body=JPEG)

    def full(path: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(SalpipeError, match=r"No space left on device\); free space there, or set TMPDIR"):
        read_place(f"s3://{bucket}")


def test_lists_beside_the_images_are_read(web: Files, tmp_path: Path) -> None:
    """Names of classes in a file beside WebDataset shards, as in a copy."""
    copy = examples.webdataset(examples.folder(tmp_path / "photos"), tmp_path / "copy")
    (copy / "classnames.txt").write_text("Katze\nHund\n")
    web.hub = Hub("org/birds")
    web.hub.commit(copy)
    remote = read_place("hf://datasets/org/birds")
    assert remote.classes == read_place(copy).classes == ("Katze", "Hund")
    assert read_place("hf://datasets/org/birds@main/train-00000.tar").classes == ("0",)
    with pytest.raises(
        SalpipeError, match=r"hf://datasets/org/birds@v9: not on the Hub, or not accessible \(HTTP 404\)"
    ):
        read_place("hf://datasets/org/birds@v9")
    with pytest.raises(SalpipeError, match="no files there; check the URL"):
        read_place("hf://datasets/org/birds/missing")


def test_contents_stand_in_for_a_file_in_one_block_only(tmp_path: Path) -> None:
    (path := tmp_path / "a").write_bytes(b"local")
    with standing_in({str(path): Window(RemoteFile("s3://bucket/a", 77))}), open_contents(path) as contents:
        assert contents.size == 77
    with open_contents(path) as contents:
        assert (contents.size, contents.read(9, 2)) == (5, b"cal")
