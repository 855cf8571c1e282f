"""Members of tars, compared with tarfile, and hostile archives."""

import gzip
import io
import os
import tarfile
import tracemalloc
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saliency_pipeline.datasets.files import archive
from saliency_pipeline.datasets.files.archive import members, read_small
from saliency_pipeline.datasets.files.notes import Notes
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.images.record import MAX_FILE_BYTES, ImageRecord
from tests.datasets.archives import END, HOSTILE, entry, pax, tar_bytes, write_tar

FORMS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


def members_and_notes(data: bytes, folder: Path) -> tuple[dict[str, bytes], Notes]:
    """Name and bytes of each member as a record reads them."""
    path = folder / "x.tar"
    path.write_bytes(data)
    notes = Notes()
    records = [ImageRecord(m.name, str(path), offset=m.offset, length=m.size) for m in members(str(path), notes)]
    return {record.key: record.read() for record in records}, notes


def slow_twin(data: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(data)) as opened:
        return {m.name: opened.extractfile(m).read() for m in opened if m.isreg()}


@pytest.mark.parametrize("form", FORMS)
def test_members_are_those_of_tarfile(tmp_path, form):
    deep = "folder/" * 12 + "n01440764_10026.JPEG"  # in two parts of the header
    files = {"a.jpg": b"", "b/ü.jpg": b"x" * 512, deep: b"y" * 513, "c.tar": tar_bytes({"d.jpg": b"z"})}
    if form != "ustar":
        files["e" * 300 + ".jpg"] = b"long"
    data = tar_bytes(files, form=FORMS[form])
    assert members_and_notes(data, tmp_path)[0] == slow_twin(data) == files
    assert not members_and_notes(data, tmp_path)[1]


@given(st.dictionaries(st.from_regex(r"[a-zé]{1,60}(/[a-zé]{1,60}){0,3}", fullmatch=True), st.binary(max_size=1100)))
@settings(max_examples=25, deadline=None)
def test_members_are_those_of_tarfile_whatever_they_are(tmp_path_factory, files):
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        assert members_and_notes(tar_bytes(files, form=form), tmp_path_factory.getbasetemp())[0] == files


def test_order_is_that_of_the_archive(tmp_path):
    path = write_tar(tmp_path / "x.tar", {"b.jpg": b"1", "a.jpg": b"22", "c.jpg": b""})
    assert list(members(str(path), Notes())) == [("b.jpg", 512, 1), ("a.jpg", 1536, 2), ("c.jpg", 2560, 0)]


def test_a_tar_in_a_tar_is_read_where_it_lies(tmp_path):
    inner = {"1.JPEG": b"first", "2.JPEG": b"second"}
    path = str(write_tar(tmp_path / "x.tar", {"pad": b"-" * 700, "n01440764.tar": tar_bytes(inner), "z.jpg": b"z"}))
    _, tar, _ = members(path, Notes())
    records = [
        ImageRecord(member.name, path, offset=member.offset, length=member.size)
        for member in members(path, Notes(), start=tar.offset, length=tar.size)
    ]
    assert {record.key: record.read() for record in records} == inner


def test_a_damaged_tar_in_a_tar_is_noted_and_named(tmp_path):
    inner = {"bad.tar": b"no tar" * 100, "packed.tar": gzip.compress(os.urandom(600)), "small.tar": b"x", "0.tar": b""}
    path = str(write_tar(tmp_path / "x.tar", inner))
    notes = Notes()
    for outer in members(path, notes):
        called = f"x.tar/{outer.name}"
        assert list(members(path, notes, start=outer.offset, length=outer.size, called=called)) == []
    no_tar = "no tar archive, or a damaged one; download it again or move it"
    assert set(notes.lines()) == {
        *(f"x.tar/{name}: {no_tar}" for name in ("bad.tar", "small.tar", "0.tar")),
        "x.tar/packed.tar: compressed; unpack it with gunzip, since images are read where they lie",
    }


def test_the_length_of_a_tar_in_a_tar_bounds_its_members(tmp_path):
    path = str(write_tar(tmp_path / "x.tar", {"a.tar": tar_bytes({"1.jpg": b"1" * 600}), "2.jpg": b"secret"}))
    first = next(members(path, Notes()))
    notes = Notes()
    assert list(members(path, notes, start=first.offset, length=1024, called="x.tar/a.tar")) == []
    assert notes.lines() == (
        "x.tar/a.tar: 1.jpg: reaches beyond the end of the archive, which is not read any further; download it again",
    )


@pytest.mark.parametrize("name", ["./a/b.jpg", "a//b.jpg", "a/./b.jpg", "./././a/b.jpg"])
def test_names_are_keys(tmp_path, name):
    assert members_and_notes(entry(name.encode(), b"1") + END, tmp_path)[0] == {"a/b.jpg": b"1"}


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        (b"caf\xe9.jpg", r"caf\xe9.jpg"),
        (rb"caf\xe9.jpg", r"caf\\xe9.jpg"),
        (rb"..\..\evil.jpg", r"..\\..\\evil.jpg"),
        (b"two\nlines.jpg", "two\nlines.jpg"),
        ("\N{SNOWMAN}.jpg".encode(), "\N{SNOWMAN}.jpg"),
    ],
)
@pytest.mark.parametrize("extended", [False, True])
def test_odd_names_are_valid_and_stay_apart(tmp_path, raw, name, extended):
    data = pax(path=raw) + entry(b"short", b"1") if extended else entry(raw, b"1")
    assert members_and_notes(data + END, tmp_path)[0] == {name: b"1"}


def test_folders_are_skipped_in_silence(tmp_path):
    data = (
        entry(b"a/", kind=b"5", size=b"00000000777") + entry(b"old/", kind=b"\0") + entry(b"a/1.jpg", b"1", kind=b"\0")
    )
    names, notes = members_and_notes(data + END, tmp_path)
    assert names == {"a/1.jpg": b"1"}
    assert not notes


def test_a_global_header_changes_no_member(tmp_path):
    comment = entry(b"pax_global_header", b"52 comment=" + b"0" * 40 + b"\n", kind=b"g")
    assert members_and_notes(comment + entry(b"1.jpg", b"1") + END, tmp_path)[0] == {"1.jpg": b"1"}


# hostile archives


@pytest.mark.parametrize("reason", HOSTILE)
def test_hostile_members_are_noted_and_those_behind_them_used(tmp_path, reason):
    names, notes = members_and_notes(entry(b"1.jpg", b"1") + HOSTILE[reason] + entry(b"2.jpg", b"2") + END, tmp_path)
    assert names == {"1.jpg": b"1", "2.jpg": b"2"}
    assert set(notes.passed_over()) == {reason}
    assert all(line.lstrip("'").startswith("x.tar: ") and line.isprintable() for line in notes.lines())


def test_the_first_of_a_name_counts(tmp_path):
    data = entry(b"1.jpg", b"1") + entry(b"./1.jpg", b"2") + entry(b"1.jpg", b"3") + END
    names, notes = members_and_notes(data, tmp_path)
    assert names == {"1.jpg": b"1"}
    assert notes.passed_over() == {"a name met before in the archive": 2}


def test_sparse_files_of_every_kind_are_skipped(tmp_path):
    holes = bytearray(entry(b"long.jpg", b"evil", kind=b"S", more=bytes(137) + b"\1"))
    holes[512:512] = bytes(504) + b"\1" + bytes(7) + bytes(512)  # two more blocks of the map
    new = pax(GNU_sparse_major=b"1", GNU_sparse_minor=b"0") + entry(b"new.jpg", b"evil")
    names, notes = members_and_notes(bytes(holes) + new + entry(b"1.jpg", b"1") + END, tmp_path)
    assert names == {"1.jpg": b"1"}
    assert notes.lines() == ("x.tar: long.jpg: a sparse file", "x.tar: new.jpg: a sparse file")


@pytest.mark.parametrize(
    "size",
    [b"00000010000", b"77777777777", b"\x80" + b"\0" * 3 + b"\x7f" * 8, b"\xff" * 12, b"-0000000001"],
    ids=["a little", "8 GiB", "base-256", "negative base-256", "negative"],
)
def test_sizes_beyond_the_end_are_not_believed(tmp_path, size):
    names, notes = members_and_notes(entry(b"1.jpg", b"1") + entry(b"2.jpg", b"2", size=size) + END, tmp_path)
    assert names == {"1.jpg": b"1"}
    assert notes.lines() == (
        "x.tar: 2.jpg: reaches beyond the end of the archive, which is not read any further; download it again",
    )


def test_sizes_may_come_from_extended_headers_and_in_base_256(tmp_path):
    data = (
        pax(size=b"3")
        + entry(b"1.jpg", b"one", size=b"00000000000")
        + entry(b"2.jpg", b"22", size=bytes([0x80, *[0] * 10, 2]))
    )
    assert members_and_notes(data + END, tmp_path)[0] == {"1.jpg": b"one", "2.jpg": b"22"}


def test_a_file_no_image_can_be_as_large_as_is_skipped_but_a_tar_may_be(tmp_path):
    path = tmp_path / "x.tar"
    size = MAX_FILE_BYTES + 512
    with open(path, "wb") as file:  # holes take no room
        for name in (b"a.jpg", b"b.tar"):
            file.write(entry(name, size=b"%011o" % size))
            file.seek(size, os.SEEK_CUR)
        file.write(entry(b"c.jpg", b"1") + END)
    notes = Notes()
    assert [member.name for member in members(str(path), notes)] == ["b.tar", "c.jpg"]
    assert notes.lines() == ("x.tar: a.jpg: too large for an image",)


@pytest.mark.parametrize("kind", [b"x", b"L", b"K", b"g"])
def test_extended_headers_are_not_read_whatever_their_size(tmp_path, kind):
    path = tmp_path / "x.tar"
    size = 2**33
    with open(path, "wb") as file:
        file.write(entry(b"header", kind=kind, size=b"\x80" + size.to_bytes(11, "big")))
        file.seek(size, os.SEEK_CUR)
        file.write(entry(b"1.jpg", b"1") + entry(b"2.jpg", b"2") + END)
    notes = Notes()
    tracemalloc.start()
    names = [member.name for member in members(str(path), notes)]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**21
    if kind in b"xL":
        assert names == ["2.jpg"]
        assert notes.passed_over() == {"an extended header too large to be read": 1}
    else:
        assert names == ["1.jpg", "2.jpg"]


def test_a_long_chain_of_extended_headers_is_no_depth(tmp_path):
    chain = b"".join(entry(b"x", b"name%d" % number, kind=b"L") for number in range(3000))
    assert members_and_notes(chain + entry(b"short", b"1") + END, tmp_path)[0] == {"name2999": b"1"}


@pytest.mark.parametrize(
    "record", [b"5 a=b\n", b"0 a=b\n", b"-6 a=b\n", b"a=b\n", b"9" * 30, b"99 a=b\n", b"12 size=x\n"]
)
def test_extended_headers_without_sense_cost_one_member(tmp_path, record):
    names, notes = members_and_notes(entry(b"x", record, kind=b"x") + entry(b"1.jpg") + entry(b"2.jpg") + END, tmp_path)
    assert list(names) == ["2.jpg"]
    assert notes.passed_over() == {"an extended header without sense": 1}


def test_an_archive_cut_anywhere_gives_what_lies_before_the_cut(tmp_path):
    whole = entry(b"1.jpg", b"1" * 512) + entry(b"2.jpg", b"2" * 10) + END
    path = tmp_path / "x.tar"
    for cut in range(513, len(whole) - 1024, 37):
        path.write_bytes(whole[:cut])
        notes = Notes()
        names = [member.name for member in members(str(path), notes)]
        assert names == ["1.jpg", "2.jpg"][: (cut >= 1024) + (cut >= 1546)]
        assert len(notes) == 1
        (line,) = notes.lines()
        assert "beyond the end" in line or "no end mark" in line


def test_what_lies_behind_garbage_is_not_guessed_at(tmp_path):
    names, notes = members_and_notes(entry(b"1.jpg", b"1") + b"garbage!" * 64 + entry(b"2.jpg", b"2") + END, tmp_path)
    assert names == {"1.jpg": b"1"}
    assert notes.lines() == ("x.tar from byte 1024 on: damaged, and not read",)


@given(st.binary(max_size=600), st.integers(0, 2600), st.sampled_from([*HOSTILE.values(), entry(b"1.jpg", b"1" * 600)]))
@settings(max_examples=150, deadline=None)
def test_no_bytes_crash_it(tmp_path_factory, noise, at, hostile):
    data = entry(b"0.jpg", b"0") + hostile + END
    with suppress(SalpipeError):
        names, _ = members_and_notes(data[:at] + noise + data[at + len(noise) :], tmp_path_factory.getbasetemp())
        assert all(name.encode() and not name.startswith("/") and ".." not in name.split("/") for name in names)


@pytest.mark.parametrize(
    ("data", "remedy"),
    [
        (gzip.compress(b"x", mtime=0), "compressed; unpack it with gunzip"),
        (b"BZh91AY", "compressed; unpack it with bunzip2"),
        (b"\xfd7zXZ\0", "compressed; unpack it with unxz"),
        (b"\x28\xb5\x2f\xfd", "compressed; unpack it with unzstd"),
        (b"PK\x03\x04", "compressed; unpack it with unzip"),
        (b"", "no tar archive, or a damaged one; download it again"),
        (b"<html>404</html>" * 100, "no tar archive, or a damaged one; download it again"),
    ],
)
def test_what_is_no_archive_is_an_error_with_a_remedy(tmp_path, data, remedy):
    (tmp_path / "x.tar").write_bytes(data)
    with pytest.raises(SalpipeError, match=rf"x\.tar: {remedy}"):
        next(members(str(tmp_path / "x.tar"), Notes()))


def test_a_file_that_cannot_be_opened_is_named(tmp_path):
    with pytest.raises(SalpipeError, match=r"nowhere\.tar: No such file or directory; check the path$"):
        next(members(str(tmp_path / "nowhere.tar"), Notes()))


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.tar")
    with pytest.raises(SalpipeError, match=r"pipe\.tar: Not a regular file; give a regular file$"):
        next(members(str(tmp_path / "pipe.tar"), Notes()))
    with pytest.raises(SalpipeError, match=r"pipe\.tar: Not a regular file"):
        read_small(str(tmp_path / "pipe.tar"), "meta.mat")
    assert not archive.is_archive(str(tmp_path / "pipe"))


def test_an_empty_archive_has_no_members(tmp_path):
    assert members_and_notes(END, tmp_path)[0] == {}


# small files


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_small_file_is_found_by_the_end_of_its_path(tmp_path, pack):
    path = tmp_path / "devkit"
    path.write_bytes(pack(tar_bytes({"x/notdata/a.txt": b"no", "x/data/a.txt": b"yes", "data/a.txt": b"later"})))
    assert read_small(str(path), "data/a.txt") == b"yes"
    with pytest.raises(SalpipeError, match=r"devkit: holds no data/b\.txt; download it again"):
        read_small(str(path), "data/b.txt")
    with pytest.raises(SalpipeError, match=r"devkit: data/a\.txt is larger than 2 bytes"):
        read_small(str(path), "data/a.txt", 2)


def test_no_more_than_the_beginning_is_unpacked(tmp_path, monkeypatch):
    path = tmp_path / "bomb.tar.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(entry(b"first.txt", b"1") + entry(b"bomb", size=b"%011o" % 2**27))
        for _ in range(2**7):
            file.write(bytes(2**20))
        file.write(entry(b"last.txt", b"2") + END)
    monkeypatch.setattr(archive, "_MAX_UNPACKED_BYTES", 2**20)
    tracemalloc.start()
    assert read_small(str(path), "first.txt") == b"1"
    with pytest.raises(SalpipeError, match=r"bomb\.tar\.gz: holds no last\.txt"):
        read_small(str(path), "last.txt")
    assert tracemalloc.get_traced_memory()[1] < 2**23
    tracemalloc.stop()


@pytest.mark.parametrize(
    "data",
    [
        gzip.compress(os.urandom(5000))[:-3000],
        gzip.compress(tar_bytes({"data/meta.mat": bytes(2000)})[:1000]),
        b"\x1f\x8b garbage",
        b"garbage",
        b"",
    ],
    ids=["cut", "cut before it was packed", "no gzip", "no tar", "empty"],
)
def test_a_damaged_archive_of_small_files_is_an_error(tmp_path, data):
    (tmp_path / "kit.tar.gz").write_bytes(data)
    with pytest.raises(SalpipeError, match=r"kit\.tar\.gz: .*download it again or move it$"):
        read_small(str(tmp_path / "kit.tar.gz"), "data/meta.mat")
