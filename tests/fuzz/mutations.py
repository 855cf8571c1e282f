"""Damage that needs no knowledge of a format, or only that it is text, JSON or TOML. Formats are in `structures.py`.

A mutator takes the bytes of a file, random numbers, and the bytes of other valid files of the kind; it returns bytes.
"""

import json
import re
import tomllib
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import tomli_w

Mutator = Callable[[bytes, Random, Sequence[bytes]], bytes]

INTEGERS = (0, 1, -1, 2, 7, 127, 128, 255, 256, 32767, 65535, 65536, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1)
"""Numbers at which counters wrap, signs turn and sizes become enormous."""

TEXTS = (
    *map(str, INTEGERS),
    *("1e999", "-1e308", "NaN", "Infinity", "9" * 400, "9" * 5000, "0x10", "1_000", "\u0663", "true", "null", ""),
    *(
        "\0",
        "\r",
        "\t",
        ",",
        '"',
        "'",
        "=",
        "/",
        "../..",
        "/etc/passwd",
        "\x1b[31mred",
        "\u202eabc",
        "\ufeff",
        "\u2028",
    ),
    *("\xe9", "e\u0301", "\U0001f408", "a" * 300, "a" * 70_000, "[" * 2000, "%s%n", "{0}", "=1+1", "-"),
)
"""Words at which readers of text trip."""

MAX_BYTES = 2**23
"""Nothing grows beyond this: large files are for the special kinds."""


def flip_bits(data: bytes, random: Random, others: Sequence[bytes]) -> bytes:
    return _edited(data, lambda copy: [_flip(copy, random) for _ in range(2 ** random.randrange(5))])


def overwrite_run(data: bytes, random: Random, others: Sequence[bytes]) -> bytes:
    start, stop = _slice(data, random)
    filler = random.choice((b"\0", b"\xff", b" ", b"9", None))
    return data[:start] + (random.randbytes(stop - start) if filler is None else filler * (stop - start)) + data[stop:]


def truncate(data: bytes, random: Random, others: Sequence[bytes]) -> bytes:
    return data[: random.randrange(len(data) + 1)]


def delete_slice(data: bytes, random: Random, others: Sequence[bytes]) -> bytes:
    start, stop = _slice(data, random)
    return data[:start] + data[stop:]


def duplicate_slice(data: bytes, random: Random, others: Sequence[bytes]) -> bytes:
    start, stop = _slice(data, random)
    times = random.choice((1, 1, 2, 100, 3000))
    return data[:stop] + data[start:stop] * min(times, MAX_BYTES // max(1, len(data))) + data[stop:]


def splice(data: bytes, random: Random, others: Sequence[bytes]) -> bytes:
    other = random.choice(others or [data])
    return data[: random.randrange(len(data) + 1)] + other[random.randrange(len(other) + 1) :]


def write_integer(data: bytes, random: Random, others: Sequence[bytes]) -> bytes:
    """Half of them near the beginning or the end, where headers and tables are."""
    number = integer_bytes(random)
    end = max(1, len(data) - len(number))
    near = random.randrange(min(end, 64))
    at = random.choice((near, end - 1 - near, random.randrange(end), random.randrange(end)))
    return data[:at] + number + data[at + len(number) :]


BYTES: tuple[Mutator, ...] = (
    *(flip_bits, overwrite_run, truncate, delete_slice),
    *(duplicate_slice, splice, write_integer, write_integer),
)


def change_part(part: bytes, random: Random) -> bytes:
    """A small change of one part of a file, for mutators that know its parts."""
    return random.choice((write_integer, random.choice(BYTES)))(part, random, [part])


# text


def replace_word(data: bytes, random: Random, others: Sequence[bytes]) -> bytes:
    """A number, a word or a separator becomes another one."""
    words = list(re.finditer(rb"-?[0-9.]+|\w+|[^\w\s]|\s", data))
    if not words:
        return TEXTS[random.randrange(len(TEXTS))].encode()
    word = random.choice(words)
    return data[: word.start()] + random.choice(TEXTS).encode() + data[word.end() :]


def shuffle_lines(data: bytes, random: Random, others: Sequence[bytes]) -> bytes:
    """Lines doubled, lost, exchanged, joined, or of another file."""
    lines = data.splitlines(keepends=True) or [b"\n"]
    place, other = random.randrange(len(lines)), random.randrange(len(lines))
    strange = (random.choice(others or [data]).splitlines(keepends=True) or [b"\n"])[0]
    edits: tuple[Callable[[], object], ...] = (
        lambda: lines.insert(place, lines[other]),
        lambda: lines.pop(place),
        lambda: lines.insert(place, lines.pop(other)),
        lambda: lines.__setitem__(place, lines[place].rstrip(b"\r\n")),
        lambda: lines.insert(place, strange),
        lambda: lines.__setitem__(place, lines[place].rstrip(b"\n") + b"\r\n"),
        lambda: lines.insert(
            place, random.choice((b"\xff\xfe\n", b"\0\n", b"\n" * 5000, b"#\n", b"x" * 70_000 + b"\n"))
        ),
    )
    random.choice(edits)()
    return b"".join(lines)


def recode(data: bytes, random: Random, others: Sequence[bytes]) -> bytes:
    """As other editors save it."""
    text = data.decode("utf-8", "replace")
    return random.choice((text.encode("utf-16"), text.encode("latin-1", "replace"), b"\xef\xbb\xbf" + data))


TEXT: tuple[Mutator, ...] = (replace_word, replace_word, shuffle_lines, recode)


# JSON and TOML


def json_node(data: bytes, random: Random, others: Sequence[bytes]) -> bytes:
    """A value, key or list of a JSON document becomes another one."""
    return _json(edit_node(json.loads(data), random), random)


def json_line(data: bytes, random: Random, others: Sequence[bytes]) -> bytes:
    """The same in one line of many."""
    lines = data.splitlines()
    place = random.randrange(len(lines))
    lines[place] = json_node(lines[place], random, others)
    return b"\n".join(lines) + b"\n"


def json_key_twice(data: bytes, random: Random, others: Sequence[bytes]) -> bytes:
    """A key that occurs twice in its object, with another value."""
    keys = list(re.finditer(rb'"[^"\\]+"\s*:', data))
    key = random.choice(keys)
    return data[: key.start()] + key[0] + b" " + _json(_value(random), random) + b", " + data[key.start() :]


def json_deep(data: bytes, random: Random, others: Sequence[bytes]) -> bytes:
    """Nesting that recursion cannot follow, alone or as the value of a key."""
    depth = random.choice((60, 70, 500, 990, 3000, 200_000))
    opening, closing = random.choice(((b"[", b"]"), (b'{"a":', b"}")))
    nest = opening * depth + b"1" + closing * depth
    keys = list(re.finditer(rb'":\s*', data))
    if not keys or random.random() < 0.2:
        return nest
    key = random.choice(keys)
    return data[: key.end()] + nest + b', "z":' + data[key.end() :]


JSON: tuple[Mutator, ...] = (json_node, json_node, json_node, json_key_twice, json_deep)
JSON_LINES: tuple[Mutator, ...] = (json_line, json_line, json_key_twice, json_deep)


def toml_node(data: bytes, random: Random, others: Sequence[bytes]) -> bytes:
    """A value or key of a TOML document becomes another one."""
    return tomli_w.dumps(_without_none(edit_node(tomllib.loads(data.decode()), random))).encode("utf-8", "replace")


def toml_line(data: bytes, random: Random, others: Sequence[bytes]) -> bytes:
    """Lines that are specific to TOML."""
    lines = data.splitlines()
    strange = (b"a.b.c.d.e.f = 1", b"[[arm]]", b"[train.train]", b'"" = 1', b"x = 1979-05-27T07:32:00Z", b"x = inf")
    deep = (b"x = " + b"[" * 3000 + b"]" * 3000, b".".join([b"a"] * 3000) + b" = 1", b'"\\u001b[31m" = 1')
    lines.insert(random.randrange(len(lines) + 1), random.choice(strange + deep))
    return b"\n".join(lines) + b"\n"


TOML: tuple[Mutator, ...] = (toml_node, toml_node, toml_line)


def edit_node(document: Any, random: Random) -> Any:
    """The document with one of its nodes changed, chosen evenly among all."""
    places = list(_places(document))
    if not places:
        return _value(random)
    holder, key = random.choice(places)
    edit = random.randrange(6)
    if edit == 0:
        del holder[key]
    elif edit == 1 and isinstance(holder, dict):
        holder[random.choice(TEXTS)] = holder.pop(key)
    elif edit == 2:
        other, place = random.choice(places)
        holder[key] = json.loads(json.dumps(other[place], default=str))
    elif edit == 3 and isinstance(holder[key], int | float) and not isinstance(holder[key], bool):
        holder[key] = random.choice((-holder[key], holder[key] + 1, holder[key] * 1000, float(holder[key])))
    else:
        holder[key] = _value(random)
    return document


# kinds of file instead of contents

SPECIAL = ("missing", "empty", "folder", "dangling link", "link to itself", "pipe", "device", "sparse", "unreadable")


# pieces


def integer_bytes(random: Random, size: int | None = None) -> bytes:
    """One of `INTEGERS` in 1, 2, 4 or 8 bytes of either order."""
    size = size or random.choice((1, 2, 2, 4, 4, 4, 8))
    return (random.choice(INTEGERS) % 256**size).to_bytes(size, random.choice(("little", "big")))


def _flip(copy: bytearray, random: Random) -> None:
    copy[random.randrange(len(copy))] ^= 1 << random.randrange(8)


def _edited(data: bytes, edit: Callable[[bytearray], object]) -> bytes:
    copy = bytearray(data or b"\0")
    edit(copy)
    return bytes(copy)


def _slice(data: bytes, random: Random) -> tuple[int, int]:
    start = random.randrange(len(data) + 1)
    return start, min(len(data), start + 2 ** random.randrange(13))


def _places(node: Any) -> Any:
    """Each node but the outermost, as the object or list that holds it and its key there."""
    for key in list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ():
        yield node, key
        yield from _places(node[key])


def _value(random: Random) -> Any:
    numbers = (*INTEGERS, 0.5, -1e308, float("nan"), float("inf"), 10**30, 10**400)
    nested = ([], {}, [None], [[1]], {"a": 1}, {"": []}, ["a"] * 300, [0] * 2000)
    return random.choice((None, True, False, random.choice(numbers), random.choice(TEXTS), "\ud800", *nested))


def _json(value: Any, random: Random) -> bytes:
    return json.dumps(value, ensure_ascii=random.random() < 0.8, indent=random.choice((None, 1))).encode(
        "utf-8", "replace"
    )


def _without_none(value: Any) -> Any:
    """TOML has no null."""
    if isinstance(value, dict):
        return {str(key): _without_none(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_none(item) for item in value]
    return "null" if value is None else value
