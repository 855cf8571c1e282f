"""Files from outside: nothing outside the file is read, memory is bounded, and every defect is named."""

import struct

import h5py
import numpy as np
import pytest

from saliency_pipeline.shards.layout import read_layout
from saliency_pipeline.shards.shard import Shard
from tests.shards.examples import SIZE, header, rows, write


@pytest.fixture
def path(tmp_path):
    return write(tmp_path / "shard-00003.h5", header(), rows(4))


@pytest.fixture
def jpeg_path(tmp_path):
    return write(tmp_path / "shard-00004.h5", header("jpeg"), rows(4, "jpeg"))


def problems(path) -> list[str]:
    return read_layout(path)[1]


def replaced(path, name, make):
    """Put something else in the place of a data set; `make` gets the file and the name."""
    with h5py.File(path, "r+") as file:
        del file[name]
        make(file, name)


def test_a_sound_shard_has_no_problems(path, jpeg_path):
    assert problems(path) == problems(jpeg_path) == []


def test_links_out_of_the_file_are_not_followed(tmp_path, path):
    secret = tmp_path / "secret.h5"
    with h5py.File(secret, "w") as file:
        file["label"] = np.arange(4)
        file.create_group("source")["size"] = np.ones((4, 2), np.int32)
    for name, target in (("label", "/label"), ("source", "/source")):
        replaced(path, name, lambda file, name, t=target: file.__setitem__(name, h5py.ExternalLink(str(secret), t)))
    messages = problems(path)
    assert "label is reached through a link, which is not allowed" in messages
    assert "source/size is reached through a link, which is not allowed" in messages
    assert "source/sha256 is reached through a link, which is not allowed" in messages


def test_soft_links_are_not_followed(path):
    replaced(path, "label", lambda file, name: file.__setitem__(name, h5py.SoftLink("/source/size")))
    assert problems(path) == ["label is reached through a link, which is not allowed"]


def test_a_loop_of_links_ends(path):
    replaced(path, "saliency/gradcam", lambda file, name: file.__setitem__(name, file["saliency"]))
    assert problems(path) == ["not a readable shard (saliency/gradcam/map is missing)"]


def test_storage_in_other_files_is_not_read(tmp_path, path):
    other = tmp_path / "passwords"
    other.write_bytes(bytes(1000))

    def external(file, name):
        file.create_dataset(name, (4,), np.int64, external=[(str(other), 0, 32)])

    replaced(path, "label", external)
    assert problems(path) == ["label is not stored in one piece in this file"]


def test_virtual_data_sets_are_not_read(path):
    def virtual(file, name):
        layout = h5py.VirtualLayout((4,), np.int64)
        layout[:] = h5py.VirtualSource("elsewhere.h5", "label", (4,))
        file.create_virtual_dataset(name, layout)

    replaced(path, "label", virtual)
    assert problems(path) == ["label is not stored in one piece in this file"]


def test_chunked_and_compressed_data_sets_are_not_read(path):
    replaced(path, "image", lambda file, name: file.create_dataset(name, (4, SIZE, SIZE, 3), "u1", compression="gzip"))
    assert problems(path) == ["image is not stored in one piece in this file"]


def test_a_data_set_larger_than_the_file_is_not_made(path, jpeg_path):
    def unwritten(shape):
        return lambda file, name: file.create_dataset(name, shape, "u1", fillvalue=None)

    replaced(path, "image", unwritten((4, 2**40, 2**10, 3)))
    assert problems(path) == ["image does not fit into the file"]
    replaced(jpeg_path, "image_bytes", unwritten((2**60,)))
    assert problems(jpeg_path) == ["image_bytes does not fit into the file"]


def test_a_million_keys_that_are_not_there(path):
    replaced(path, "key", lambda file, name: file.create_dataset(name, (2**40,), h5py.string_dtype("utf-8", 2**20)))
    assert problems(path) == ["key does not fit into the file"]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("label", np.zeros(3, np.int64), "4 images but 3 rows in label"),
        ("saliency/gradcam/map", np.zeros((3, 1, 7, 5), np.float16), "4 images but 3 rows in saliency/gradcam/map"),
        ("saliency/gradcam/scale", np.zeros((5, 1), np.float32), "4 images but 5 rows in saliency/gradcam/scale"),
        ("image", np.zeros((5, SIZE, SIZE, 3), np.uint8), "4 images but 5 rows in image"),
        ("label", np.zeros(4, ">i8"), "label is >i8 (4,), not int64 (4,)"),
        ("label", np.zeros((), np.int64), "label is int64 (), not int64 (4,)"),
        ("split", np.zeros(4, np.int16), "split is int16 (4,), not int8 (4,)"),
        ("source/size", np.zeros((4, 3), np.int32), "source/size is int32 (4, 3), not int32 (4, 2)"),
        ("saliency/gradcam/map", np.zeros((4, 7, 5), np.float16), "does not look like a method's maps"),
        ("key", np.zeros(4, np.int64), "key is int64 (4,), not fixed-length strings (N,)"),
        ("key", np.array([b"a"] * 4), "key is not of fixed-length UTF-8 strings"),
        ("label", h5py.Empty("i8"), "label is of an unexpected type"),
    ],
)
def test_wrong_types_and_shapes_are_named(path, name, data, message):
    replaced(path, name, lambda file, name: file.create_dataset(name, data=data))
    assert any(message in problem for problem in problems(path)), problems(path)


def test_a_residual_of_another_type_is_named(path):
    with h5py.File(path, "r+") as file:
        file["saliency/gradcam/residual"] = np.zeros((4, 1))
    assert problems(path) == ["saliency/gradcam/residual is float64 (4, 1), not float32 (4, 1)"]


@pytest.mark.parametrize("name", ["gradcam<b>", "Gradcam", "g" * 201, ".a"])
def test_a_malformed_name_of_a_method_is_named(path, name):
    with h5py.File(path, "r+") as file:
        file.move("saliency/gradcam", f"saliency/{name}")
    assert problems(path) == [f"saliency/{name!r:.60} does not look like a method's maps"]


def test_strings_of_variable_length_are_not_read(path):
    replaced(path, "key", lambda file, name: file.create_dataset(name, (4,), h5py.string_dtype()))
    assert problems(path) == ["key is not of fixed-length UTF-8 strings"]


@pytest.mark.parametrize(
    "name", ["key", "label", "image", "source/sha256", "prediction/score", "saliency/gradcam/flag"]
)
def test_missing_data_sets_are_named(path, name):
    replaced(path, name, lambda file, name: None)
    assert problems(path) == [f"{name} is missing"]


def test_all_problems_are_listed(path, jpeg_path):
    for name in ("label", "split", "image"):
        replaced(path, name, lambda file, name: file.create_dataset(name, data=np.zeros(2, np.uint8)))
    assert [problem.split()[0] for problem in problems(path)] == ["label", "split", "image"]
    replaced(jpeg_path, "image_offset", lambda file, name: file.create_dataset(name, data=np.zeros(4, np.uint64)))
    replaced(jpeg_path, "image_bytes", lambda file, name: file.create_dataset(name, data=np.zeros((4, 2), np.uint8)))
    assert problems(jpeg_path) == [
        "4 images but 4 offsets, not one more",
        "image_bytes is uint8 (4, 2), not uint8 (total,)",
    ]


def set_attribute(path, name, value):
    with h5py.File(path, "r+") as file:
        del file.attrs[name]
        if value is not None:
            file.attrs[name] = value


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("format", None, "not a shard of salpipe"),
        ("format", np.bytes_("hdf5"), "not a shard of salpipe"),
        ("format_version", np.bytes_("2.0"), "format 2.0 is newer than this salpipe can read; upgrade salpipe"),
        ("format_version", np.bytes_("x"), "format_version is 'x'"),
        ("format_version", None, "format_version is None"),
        ("complete", None, "unfinished: it was never completed"),
        ("complete", np.uint8(0), "unfinished: it was never completed"),
        ("plan", None, "attribute plan is missing"),
        ("plan", 3, "attribute plan is missing or not a string"),
        ("plan", "of variable length", "not a number or a string of fixed length"),
        ("provenance", np.bytes_("{"), "not a readable shard"),
        ("provenance", np.bytes_("[]"), "provenance is not a dictionary"),
        ("classes", np.bytes_("3"), "classes is not a list of names"),
        ("classes", np.bytes_("[3]"), "classes is not a list of names"),
        ("size", np.bytes_("24"), "size is not a number"),
        ("size", np.int64(0), "size is 0"),
        ("size", np.zeros(2), "not a number or a string"),
        ("encoding", np.bytes_("png"), "encoding is 'png'"),
    ],
)
def test_wrong_attributes_are_named(path, name, value, message):
    set_attribute(path, name, value)
    messages = problems(path)
    assert len(messages) == 1
    assert message in messages[0]
    assert "\n" not in messages[0]


def test_a_minor_version_may_add_things(path):
    set_attribute(path, "format_version", np.bytes_("1.3"))
    with h5py.File(path, "r+") as file:
        file["extra"] = h5py.ExternalLink("elsewhere.h5", "/")
        file.attrs["note"] = "new"
    assert problems(path) == []
    np.testing.assert_array_equal(Shard(path).images(), rows(4).images)


def test_methods_of_odd_names_are_refused(path):
    with h5py.File(path, "r+") as file:
        file.move("saliency/gradcam", "saliency/Grad CAM\n")
    assert problems(path) == ["saliency/'Grad CAM\\n' does not look like a method's maps"]


def test_what_is_no_hdf5_file_at_all(tmp_path):
    path = tmp_path / "shard-00000.h5"
    assert problems(path) == ["missing"]
    path.mkdir()
    assert problems(path) == ["not a file"]
    path.rmdir()
    for content in (b"", b"hello", b"\x89HDF\r\n\x1a\n", b"\x89HDF\r\n\x1a\n" + bytes(5000), bytes(100_000)):
        path.write_bytes(content)
        (problem,) = problems(path)
        assert problem.startswith("not a readable shard (")
        assert "\n" not in problem


def test_truncated_anywhere(path):
    content = path.read_bytes()
    for length in (*range(0, len(content), 997), len(content) - 1):
        path.write_bytes(content[:length])
        assert problems(path)


def test_no_damaged_byte_of_the_structure_goes_unseen_or_does_harm(path):
    """All metadata has checksums; the data themselves are for the SHA-256 in the manifest."""
    content = path.read_bytes()
    layout, _ = read_layout(path)
    data = sorted((offset, offset + column.nbytes) for offset, column in layout.places.values())
    structure = [i for i in range(len(content)) if not any(start <= i < stop for start, stop in data)]
    assert 1000 < len(structure) < 12_000
    unseen = []
    for position in structure[:: max(1, len(structure) // 250)]:
        damaged = bytearray(content)
        damaged[position] ^= 0xFF
        path.write_bytes(damaged)
        if not problems(path):
            unseen.append(position)
            np.testing.assert_array_equal(Shard(path).images(), rows(4).images)
    # what is left are gaps between the blocks
    assert len(unseen) < 12, unseen


def test_a_size_field_out_of_all_proportion(path):
    """An offset beyond the file, under a checksum that fits, as a stranger could write it."""
    content = bytearray(path.read_bytes())
    offset, column = read_layout(path)[0].places["image"]
    where = content.find(struct.pack("<QQ", offset, column.nbytes))
    assert where > 0
    content[where : where + 8] = struct.pack("<Q", 2**62)
    path.write_bytes(content)
    assert problems(path)
