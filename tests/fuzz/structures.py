"""Damage that keeps a container's frame sound, so that it reaches what lies behind: right checksums, lengths, digests.

Each takes and returns bytes as the mutators of `mutations.py` do; one that cannot parse what it gets raises anything.
"""

import gzip
import hashlib
import io
import json
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import h5py
import numpy as np
import pyarrow
from pyarrow import parquet

from tests.datasets.archives import HOSTILE
from tests.fuzz.mutations import INTEGERS, TEXTS, Mutator, change_part, edit_node, replace_word

# archives


def tar_header(data: bytes, random: Random, others: Sequence[bytes]) -> bytes:
    """A field of a member's header, also of a tar within the tar, under the right checksum."""
    headers = [at for at in range(0, len(data) - 511, 512) if data[at + 257 : at + 262] == b"ustar"]
    at, (start, length) = random.choice(headers), random.choice(((0, 100), (124, 12), (124, 12), (156, 1), (345, 155)))
    values = (b"", b"\x80" + b"\0" * 3 + b"\x7f" + b"\xff" * 7, b"\xff" * 12, b"77777777777", b"-0000000001", b"0 0 0")
    names = (
        b"../x.jpg",
        b"/x.jpg",
        b"a/" * 40 + b"b.jpg",
        b"x\xff.jpg",
        b"\x1b[31m.jpg",
        b".jpg",
        b"x.tar",
        b"a//b.jpg",
    )
    choice = random.choice(
        (values, names, [random.randbytes(length)], [bytes([random.choice(b"0123456789xXgLKSVDM")])])
    )
    block = bytearray(data[at : at + 512])
    block[start : start + length] = random.choice(choice)[:length].ljust(length, b"\0")
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return data[:at] + bytes(block) + data[at + 512 :]


def tar_member(data: bytes, random: Random, others: Sequence[bytes]) -> bytes:
    """A member that no archive should have, between the others."""
    headers = [at for at in range(0, len(data) - 511, 512) if data[at + 257 : at + 262] == b"ustar"]
    at = random.choice(headers)
    return data[:at] + random.choice(list(HOSTILE.values())) + data[at:]


def packed(mutators: Sequence[Mutator]) -> Mutator:
    """Mutators of what lies in a gzip file."""

    def mutate(data: bytes, random: Random, others: Sequence[bytes]) -> bytes:
        inner = random.choice(mutators)(gzip.decompress(data), random, [])
        return gzip.compress(inner, mtime=0) * random.choice((1, 1, 1, 2))

    return mutate


def zip_member(data: bytes, random: Random, others: Sequence[bytes]) -> bytes:
    """A member of a ZIP (a checkpoint of torch), with right checksums: changed, packed, lost, doubled or renamed."""
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        members = [(info.filename, file.read(info)) for info in file.infolist()]
    place, edit = random.randrange(len(members)), random.randrange(8)
    if edit < 4:  # the pickle comes first, and decides most
        place = 0 if random.random() < 0.7 else place
        members[place] = members[place][0], change_part(members[place][1], random)
    elif edit == 4:
        del members[place]
    elif edit == 5:
        members[place] = members[place][0] + random.choice(("x", "/../y", "\0", "é")), members[place][1]
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED if edit == 6 else zipfile.ZIP_STORED) as file:
        for name, body in members:
            file.writestr(zipfile.ZipInfo(name), body, compress_type=file.compression)
    return out.getvalue()


def pickle_number(data: bytes, random: Random, others: Sequence[bytes]) -> bytes:
    """A number in a pickle, such as a shape, a stride or an offset: opcodes K, M and J, within whatever file."""
    numbers = list(re.finditer(rb"(?s)K.|M..|J....", data[: 2**16]))
    place = random.choice(numbers)
    value = random.choice(INTEGERS) % 256 ** (len(place[0]) - 1)
    return data[: place.start() + 1] + value.to_bytes(len(place[0]) - 1, "little") + data[place.end() :]


# documents with a digest


def signed(mutate: Mutator) -> Mutator:
    """A mutator of what follows the SHA-256 with which an entry of the cache begins."""

    def change(data: bytes, random: Random, others: Sequence[bytes]) -> bytes:
        body = mutate(data[32:], random, [other[32:] for other in others])
        return hashlib.sha256(body).digest() + body

    return change


def plan_with_hash(data: bytes, random: Random, others: Sequence[bytes]) -> bytes:
    """A changed plan under its right hash."""
    document = json.loads(data)
    for part in ("images", "provenance"):
        if random.random() < 0.6:
            document[part] = edit_node(document[part], random)
    parts = {part: document[part] for part in ("images", "provenance")}
    text = json.dumps(parts, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return json.dumps({**document, "plan": hashlib.sha256(text.encode()).hexdigest()}).encode()


def safetensors_header(data: bytes, random: Random, others: Sequence[bytes]) -> bytes:
    """The JSON header of a safetensors file, or the JSON that salpipe keeps in it, under the right length."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    own = header.get("__metadata__", {})
    if own and random.random() < 0.6:
        key = random.choice(list(own))
        own[key] = json.dumps(edit_node(json.loads(own[key]), random))
    elif random.random() < 0.5:
        tensor = header[random.choice([name for name in header if name != "__metadata__"])]
        edit_node(tensor, random)
    else:
        header = edit_node(header, random)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def npy_header(data: bytes, random: Random, others: Sequence[bytes]) -> bytes:
    """The header of a NumPy file, with its right length."""
    length = int.from_bytes(data[8:10], "little")
    text = replace_word(data[10 : 10 + length], random, [])[: 2**16 - 1]
    return data[:8] + len(text).to_bytes(2, "little") + text + data[10 + length :]


def mat_numbers(data: bytes, random: Random, others: Sequence[bytes]) -> bytes:
    """The compressed content of a MATLAB file."""
    inner = change_part(zlib.decompress(data[136:]), random)
    body = zlib.compress(inner)
    return data[:128] + struct.pack("<II", 15, len(body)) + body


# tables


def parquet_footer(data: bytes, random: Random, others: Sequence[bytes]) -> bytes:
    """The footer, under its right length: schema, offsets, counts."""
    length = int.from_bytes(data[-8:-4], "little")
    footer = change_part(data[-8 - length : -8], random)
    return data[: -8 - length] + footer + len(footer).to_bytes(4, "little") + b"PAR1"


def parquet_table(data: bytes, random: Random, others: Sequence[bytes]) -> bytes:
    """A sound table of another shape: columns of other types, packed megabytes, nulls, other metadata."""
    table = parquet.read_table(io.BytesIO(data))
    rows = table.num_rows
    big = ["x" * 10**6 * random.choice((1, 10))] * rows
    columns: tuple[Any, ...] = (
        *(
            big,
            [None] * rows,
            [[1]] * rows,
            list(range(rows)),
            [2**62] * rows,
            [-2] * rows,
            [0.5] * rows,
            [b"\xff"] * rows,
        ),
        [{"bytes": b"x", "path": "../x.jpg"}] * rows,
        [{"bytes": None, "path": "x.jpg"}] * rows,
        [{"bytes": b"x", "path": None, "more": [1, 2]}] * rows,
        [{"bytes": b"x", "path": path} for path in big],
    )
    name = random.choice(("image", "label", "extra", "image.bytes", "\x1b[31m"))
    place = table.schema.get_field_index(name)
    column = pyarrow.array(random.choice(columns))
    table = table.append_column(name, column) if place < 0 else table.set_column(place, name, column)
    if random.random() < 0.3:
        facts = json.loads((table.schema.metadata or {}).get(b"huggingface", b"{}"))
        table = table.replace_schema_metadata({"huggingface": json.dumps(edit_node(facts, random))})
    out = io.BytesIO()
    options = {
        "compression": random.choice(("zstd", "snappy", "none", "gzip")),
        "use_dictionary": random.random() < 0.5,
    }
    parquet.write_table(table, out, row_group_size=random.choice((1, 2, 1000)), **options)
    return out.getvalue()


# HDF5


def hdf5_attribute(data: bytes, random: Random, others: Sequence[bytes]) -> bytes:
    """An attribute of a shard: another value or type, or another document in its JSON."""

    def edit(file: h5py.File) -> None:
        name = random.choice(sorted(file.attrs))
        if name in ("classes", "provenance") and random.random() < 0.5:
            file.attrs[name] = np.bytes_(json.dumps(edit_node(json.loads(file.attrs[name]), random)).encode())
            return
        values = (
            random.choice(INTEGERS),
            random.choice(TEXTS).replace("\0", "0"),
            np.bytes_(b"\xff"),
            0.5,
            [1, 2],
            b"",
        )
        value = random.choice((*values, random.choice(INTEGERS), h5py.Empty("i8"), ["a", "b"]))
        del file.attrs[name]
        if random.random() < 0.9:
            file.attrs[name] = np.bytes_(value.encode()) if isinstance(value, str) else value

    return _hdf5(data, edit)


def hdf5_values(data: bytes, random: Random, others: Sequence[bytes]) -> bytes:
    """Values of a data set that no shard has: offsets, labels and targets out of range, numbers that are none."""

    def edit(file: h5py.File) -> None:
        dataset = file[random.choice(_datasets(file))]
        place = tuple(random.randrange(side) for side in dataset.shape)
        if dataset.dtype.kind == "f":
            value: Any = random.choice((np.nan, np.inf, -np.inf, 1e30, -1.0, 0.0))
        elif dataset.dtype.kind == "S":
            value = random.choice((b"", b"\xff\xfe", b"\x1b[31m", b"../x", b"a" * 500))
        else:
            value = np.array(random.choice(INTEGERS) % 2**63, np.int64).astype(dataset.dtype)
        dataset[place] = value

    return _hdf5(data, edit)


def hdf5_dataset(data: bytes, random: Random, others: Sequence[bytes]) -> bytes:
    """A data set that is lost, of another type, shape or storage, or a link to somewhere else."""

    def edit(file: h5py.File) -> None:
        names = _datasets(file)
        name = random.choice(names)
        old = file[name]
        shape, dtype, values = old.shape, old.dtype, old[()]
        if random.random() < 0.9:
            del file[name]
        huge = (2**40, *shape[1:])
        edits: tuple[Callable[[], object], ...] = (
            lambda: None,
            lambda: file.create_dataset(
                name, shape, random.choice(("f8", "i8", "u1", "S4", "c8", "?", h5py.string_dtype()))
            ),
            lambda: file.create_dataset(
                name, random.choice(((), (0,), shape[:-1], (*shape, 3), (*shape[:-1], 9))), dtype
            ),
            lambda: file.create_dataset(name, data=values, chunks=True, compression="gzip"),
            lambda: file.create_dataset(name, huge, dtype, chunks=(1, *shape[1:])),
            lambda: file.create_dataset(name, huge, dtype),
            lambda: file.create_dataset(name, shape, dtype, external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)]),
            lambda: file.create_group(name),
            lambda: file.__setitem__(name, h5py.SoftLink(random.choice(names))),
            lambda: file.__setitem__(name, h5py.ExternalLink("/etc/passwd", "/")),
            lambda: file.__setitem__(name, file.get("label", file)),
            lambda: file.create_dataset(name, data=h5py.Empty(dtype)),
        )
        random.choice(edits)()

    return _hdf5(data, edit)


def _datasets(file: h5py.File) -> list[str]:
    datasets: list[str] = []
    file.visititems(lambda name, item: datasets.append(name) if isinstance(item, h5py.Dataset) else None)
    return sorted(datasets)


def _hdf5(data: bytes, edit: Callable[[h5py.File], None]) -> bytes:
    buffer = io.BytesIO(data)
    with h5py.File(buffer, "r+") as file:
        edit(file)
    return buffer.getvalue()
