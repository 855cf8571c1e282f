"""Pickles read as data: nothing that a pickle names is imported, looked up or called.

A pickle is a small program that builds objects and calls functions by name. Here only containers and tensors
are built; every other object becomes a `Built`, which holds only the name of its class. A call is refused unless
`DATA` lists its name as that of a type of plain data: an allow list, not a deny list.
"""

from __future__ import annotations

import pickletools
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import IO, Any

from saliency_pipeline.models.files.views import Storage, UnreadableWeightsError, View, make_storage, make_view

MAX_OPERATIONS = 2_000_000
"""Length limit of a pickle. A ViT-7B has 20,000, with the optimizer's state 60,000."""

_PATHS = ("Path", "PosixPath", "PurePath", "PurePosixPath", "PureWindowsPath", "WindowsPath")
_TYPES = {
    "_codecs": ("encode",),
    "argparse": ("Namespace",),
    "builtins": (
        *("bytearray", "bytes", "complex", "dict", "frozenset", "list", "range", "set", "slice", "tuple"),
        *("bool", "float", "int", "str"),
    ),
    "collections": ("Counter", "OrderedDict", "defaultdict", "deque"),
    "datetime": ("date", "datetime", "time", "timedelta", "timezone"),
    "decimal": ("Decimal",),
    "fractions": ("Fraction",),
    "functools": ("partial",),
    "numpy": ("dtype", "ndarray"),
    # numpy.core is NumPy 1
    **{f"numpy.{core}.multiarray": ("_reconstruct", "scalar") for core in ("_core", "core")},
    **{f"numpy.{core}.numeric": ("_frombuffer",) for core in ("_core", "core")},
    # pathlib._local is Python 3.13
    "pathlib": _PATHS,
    "pathlib._local": _PATHS,
    "torch": ("Size", "device"),
    "torch._utils": (
        *("_rebuild_device_tensor_from_numpy", "_rebuild_meta_tensor_no_storage", "_rebuild_nested_tensor"),
        *("_rebuild_qtensor", "_rebuild_sparse_csr_tensor", "_rebuild_sparse_tensor"),
    ),
    "torch.serialization": ("_get_layout",),
    "types": ("SimpleNamespace",),
    "uuid": ("UUID",),
}
DATA = frozenset(f"{module}.{name}" for module, names in _TYPES.items() for name in names)
"""Names whose calls return plain data."""

_MAPPINGS = {"builtins.dict", "collections.OrderedDict", "collections.defaultdict"}
_OBJECTS = {"copyreg.__newobj__", "copyreg._reconstructor"}
_TENSORS = {f"torch._utils._rebuild_{name}" for name in ("tensor", "tensor_v2", "tensor_v3")}
_WRAPPED = {
    f"torch._utils._rebuild_{name}"
    for name in ("parameter", "parameter_with_state", "device_tensor_from_cpu_tensor", "xla_tensor")
}


class CodeError(UnreadableWeightsError):
    """A pickle calls a function. The message is its name."""


@dataclass(frozen=True, eq=False)
class Global:
    """The name of a class or function, never looked up."""

    name: str


@dataclass(eq=False)
class Built:
    """An object that was not built.

    Attributes:
        name: of its class, or of the function that returns it.
        known: whether the name is one of `DATA`.
        entries: entries of a mapping.
    """

    name: str
    known: bool
    entries: dict[str, Any] = field(default_factory=dict)


@dataclass(eq=False)
class Contents:
    """Contents of a pickle.

    Attributes:
        root: the outermost object.
        storages: all storages, by name.
        classes: number of objects of other classes than `DATA`, by the name of the class.
    """

    root: Any
    storages: dict[str, Storage]
    classes: dict[str, int]


def read_pickle(file: IO[bytes]) -> Contents:
    """Read one pickle from the position of a file, up to its end.

    Strings, numbers, bytes, None, tuples, lists and dictionaries are kept, except for keys other than strings. Tensors
    are `View`s. Time and memory are proportional to the length of the pickle.

    Raises:
        CodeError: it calls a function.
        UnreadableWeightsError: it is damaged, too long, or a tensor is larger than its storage.
    """
    reader = _Reader()
    try:
        for number, (opcode, argument, _) in enumerate(pickletools.genops(file)):
            if number == MAX_OPERATIONS:
                raise UnreadableWeightsError(f"its pickle has more than {MAX_OPERATIONS:,} operations")
            reader.step(opcode.name, argument)
        return Contents(reader.stack.pop(), reader.storages, reader.classes)
    except UnreadableWeightsError:
        raise
    except Exception as error:  # a damaged pickle can make any of its operations fail
        raise UnreadableWeightsError("its pickle is damaged") from error


class _Reader:
    """Stack machine that interprets a pickle, see `pickletools`."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.storages: dict[str, Storage] = {}
        self.classes: dict[str, int] = {}

    def step(self, name: str, argument: Any) -> None:
        """Execute one operation."""
        if action := _ACTIONS.get(name):
            action(self, argument)
        elif name in _VALUES:
            self.stack.append(argument)
        else:
            raise UnreadableWeightsError(f"its pickle uses {name}, which no file of weights does")

    def marked(self) -> list[Any]:
        """Pop the items since the last mark, and the mark."""
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def take(self, count: int) -> list[Any]:
        """Pop the topmost objects."""
        items = self.stack[-count:]
        if len(items) < count:
            raise UnreadableWeightsError("its pickle is damaged")
        del self.stack[-count:]
        return items

    def memoize(self, index: int | None) -> None:
        """Memoize the topmost object."""
        self.memo[len(self.memo) if index is None else index] = self.stack[-1]

    def entries(self, items: list[Any]) -> None:
        """Add alternating keys and values to the topmost mapping."""
        target = self.stack[-1]
        target = target.entries if isinstance(target, Built) else target
        # equality and hashes of keys of other types are up to the file, and they name no weights
        for key, value in zip(items[::2], items[1::2], strict=True):
            if isinstance(key, str):
                target[key] = value

    def extend(self, items: list[Any]) -> None:
        """Add items to the topmost list."""
        if isinstance(self.stack[-1], list):
            self.stack[-1].extend(items)

    def call(self, function: Any, arguments: Any) -> None:
        """Push the result of a function of this name, if it is data."""
        name = function.name if isinstance(function, Global) else ""
        if name in _TENSORS:
            dtype = arguments[6].name if name.endswith("_v3") else None
            storage, offset, shape, strides = arguments[:4]
            self.stack.append(make_view(storage, offset, shape, strides, dtype))
        elif name in _WRAPPED and isinstance(arguments[0], View):
            self.stack.append(arguments[0])
        elif name == "torch._tensor._rebuild_from_type_v2":
            # a parameter or another subclass of tensors with attributes: its own function and arguments
            self.call(arguments[0], arguments[2])
        elif name in _OBJECTS:
            self.build(arguments[0])
        elif name in DATA:
            self.stack.append(Built(name, known=True))
            if name in _MAPPINGS and arguments and isinstance(arguments[-1], list):
                self.entries([item for pair in arguments[-1] for item in pair])  # by Python 2
        else:
            raise CodeError(name or "the result of a call")

    def instance(self, items: list[Any]) -> None:
        """Push an object of the class that precedes its arguments."""
        self.call(items[0], tuple(items[1:]))

    def build(self, kind: Any) -> None:
        """Push an object of a class; only the name is kept."""
        if not isinstance(kind, Global):
            raise UnreadableWeightsError("its pickle is damaged")
        if kind.name not in DATA:
            self.classes[kind.name] = self.classes.get(kind.name, 0) + 1
        self.stack.append(Built(kind.name, known=kind.name in DATA))

    def persistent(self, identity: Any) -> None:
        """Push a storage."""
        kind, storage, key, _, count, *view = identity
        # old versions could store a storage as a part of another one
        if kind != "storage" or any(view):
            raise UnreadableWeightsError("its storages are of an unsupported kind")
        key = str(key)
        self.stack.append(self.storages.setdefault(key, make_storage(storage.name, key, count)))


def _named(module: str, name: str) -> Global:
    # protocol 2, which PyTorch writes, has the names of Python 2
    module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
    return Global(f"{module}.{name}")


def _stack_global(reader: _Reader, _: Any) -> None:
    module, name = reader.take(2)
    if not isinstance(module, str) or not isinstance(name, str):
        raise UnreadableWeightsError("its pickle is damaged")
    reader.stack.append(_named(module, name))


def _pop(reader: _Reader, _: Any) -> None:
    if reader.marks and reader.marks[-1] == len(reader.stack):
        reader.marks.pop()
    else:
        reader.stack.pop()


def _mapping(reader: _Reader, _: Any) -> None:
    items = reader.marked()
    reader.stack.append({})
    reader.entries(items)


def _push(make: Callable[[], Any]) -> Callable[[_Reader, Any], object]:
    return lambda reader, _: reader.stack.append(make())


def _tuple(count: int) -> Callable[[_Reader, Any], object]:
    return lambda reader, _: reader.stack.append(tuple(reader.take(count)))


_ACTIONS: dict[str, Callable[[_Reader, Any], object]] = {
    "PROTO": lambda _, version: None,
    "FRAME": lambda _, length: None,
    "STOP": lambda *_: None,
    "NONE": _push(lambda: None),
    "NEWTRUE": _push(lambda: True),
    "NEWFALSE": _push(lambda: False),
    "EMPTY_LIST": _push(list),
    "EMPTY_SET": _push(list),
    "EMPTY_DICT": _push(dict),
    "EMPTY_TUPLE": _push(tuple),
    "MARK": lambda reader, _: reader.marks.append(len(reader.stack)),
    "LIST": lambda reader, _: reader.stack.append(reader.marked()),
    "FROZENSET": lambda reader, _: reader.stack.append(reader.marked()),
    "TUPLE": lambda reader, _: reader.stack.append(tuple(reader.marked())),
    "TUPLE1": _tuple(1),
    "TUPLE2": _tuple(2),
    "TUPLE3": _tuple(3),
    "DICT": _mapping,
    "APPEND": lambda reader, _: reader.extend(reader.take(1)),
    "APPENDS": lambda reader, _: reader.extend(reader.marked()),
    "ADDITEMS": lambda reader, _: reader.extend(reader.marked()),
    "SETITEM": lambda reader, _: reader.entries(reader.take(2)),
    "SETITEMS": lambda reader, _: reader.entries(reader.marked()),
    "POP": _pop,
    "POP_MARK": lambda reader, _: reader.marked(),
    "DUP": lambda reader, _: reader.stack.append(reader.stack[-1]),
    "PUT": _Reader.memoize,
    "BINPUT": _Reader.memoize,
    "LONG_BINPUT": _Reader.memoize,
    "MEMOIZE": _Reader.memoize,
    "GET": lambda reader, index: reader.stack.append(reader.memo[index]),
    "BINGET": lambda reader, index: reader.stack.append(reader.memo[index]),
    "LONG_BINGET": lambda reader, index: reader.stack.append(reader.memo[index]),
    "GLOBAL": lambda reader, argument: reader.stack.append(_named(*argument.split(" ", 1))),
    "STACK_GLOBAL": _stack_global,
    "REDUCE": lambda reader, _: reader.call(*reader.take(2)),
    "INST": lambda reader, argument: reader.call(_named(*argument.split(" ", 1)), tuple(reader.marked())),
    "OBJ": lambda reader, _: reader.instance(reader.marked()),
    "NEWOBJ": lambda reader, _: reader.build(reader.take(2)[0]),
    "NEWOBJ_EX": lambda reader, _: reader.build(reader.take(3)[0]),
    "BUILD": lambda reader, _: reader.take(1),  # attributes are not kept
    "BINPERSID": lambda reader, _: reader.persistent(reader.stack.pop()),
}
_VALUES = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}
