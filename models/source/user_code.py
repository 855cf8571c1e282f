"""A user's own code: import and call of `package.module:function`, and the hash of its sources.

The code runs because the user names it, as with `python -m`; nothing here runs code from a file of weights or data.
"""

from __future__ import annotations

import ast
import copy
import difflib
import hashlib
import importlib
import inspect
import os
import re
import site
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import NoReturn

from torch import nn

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.text import one_line, shown

_PACKAGE = Path(__file__).parents[2]
_DOTTED = r"[^\W\d]\w*(?:\.[^\W\d]\w*)*"
_NAME = re.compile(f"({_DOTTED}):({_DOTTED})")
_hashes: dict[tuple[str, str], str] = {}
"""Hash of the sources of each module and its file when this process imported it."""


@contextmanager
def importable() -> Iterator[None]:
    """Within the block modules are imported from the current folder first, and print on standard error."""
    here = os.getcwd()
    sys.path.insert(0, here)
    importlib.invalidate_caches()
    try:
        # standard output carries the result of a command
        with redirect_stdout(sys.stderr):
            yield
    finally:
        if here in sys.path:
            sys.path.remove(here)


def call_factory(name: str) -> object:
    """Import `package.module:function` and call the function without arguments, within `importable`.

    Returns:
        The function's result, or a copy of the network if the name is that of one.

    Raises:
        SalpipeError: there is no such module or function, or it raises; the message names file and line.
    """
    module, function = _split(name)
    factory: object = _imported(name, module)
    file = getattr(factory, "__file__", None) or module
    for attribute in function.split("."):
        if not hasattr(factory, attribute):
            close = difflib.get_close_matches(attribute, [own for own in dir(factory) if own[0] != "_"], n=1)
            remedy = f"did you mean {close[0]}?" if close else "name a function that is defined or imported there"
            raise SalpipeError(f"model {name!r}: no {attribute!r} in {_place(file)}; {remedy}")
        factory = getattr(factory, attribute)
    if isinstance(factory, nn.Module):
        # the module of the user's code stays as it is
        return copy.deepcopy(factory)
    if not callable(factory):
        kind = type(factory).__name__
        raise SalpipeError(f"model {name!r}: {function} is of type {kind}; name a function that returns the network")
    _require_no_arguments(name, function, factory)
    try:
        return factory()
    except (Exception, SystemExit) as error:  # whatever a user's code raises
        _fail(name, f"{function}() fails", error)


def code_sha256(name: str) -> str:
    """SHA-256 of the sources that `package.module:function` is built from.

    These are the module of the function and all modules that it imports, directly or not, from the same folder of
    Python's path: the user's own ones. Of an installed package these are only modules of that package. Import
    statements are followed, also in functions, but no `importlib.import_module`. The same on every machine.

    Raises:
        SalpipeError: the module cannot be imported, or a source has changed since this process imported it.
    """
    module, _ = _split(name)
    with importable():
        file = getattr(_imported(name, module), "__file__", None)
    if file is None:
        raise SalpipeError(f"model {name!r}: {module} has no source; name a function in a file")
    return _first_hash(name, module, os.path.abspath(file))


def _first_hash(name: str, module: str, file: str) -> str:
    digest = _hash(name, module, Path(file))
    if _hashes.setdefault((module, file), digest) != digest:
        raise SalpipeError(f"model {name!r}: its source has changed since it was imported; restart Python")
    return digest


def _split(name: str) -> tuple[str, str]:
    """Module and function of a name."""
    if match := _NAME.fullmatch(name):
        module, function = match.groups()
        if not module.endswith(".py"):
            return module, function
    raise SalpipeError(
        f"model {name!r}: no such model; write package.module:function for a function that returns a network (its "
        "module as in an import statement), hf-hub:OWNER/NAME, or local-dir:FOLDER"
    )


def _imported(name: str, module: str) -> object:
    try:
        return importlib.import_module(module)
    except (Exception, SystemExit) as error:  # whatever a user's code raises
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing and f"{module}.".startswith(f"{missing}.") and _user_line(error) is None:
            raise SalpipeError(
                f"model {name!r}: no module {missing} in {shown(os.getcwd())} or on Python's path; change to its "
                "folder, or set PYTHONPATH"
            ) from error
        _fail(name, f"importing {module} fails", error)


def _require_no_arguments(name: str, function: str, factory: Callable[..., object]) -> None:
    try:
        signature = inspect.signature(factory)
    except (TypeError, ValueError):  # of a function that is not written in Python
        return
    needed = [
        parameter.name
        for parameter in signature.parameters.values()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    if needed:
        raise SalpipeError(
            f"model {name!r}: {function} needs arguments ({', '.join(needed)}); name a function without, which calls it"
        )


def _fail(name: str, event: str, error: BaseException) -> NoReturn:
    where = f" at {line}" if (line := _user_line(error)) else ""
    text = one_line(error)
    reason = text if text == type(error).__name__ else f"{type(error).__name__}: {text}"
    raise SalpipeError(f"model {name!r}: {event}{where} ({reason}); correct it there") from error


def _user_line(error: BaseException) -> str | None:
    """File and line in the user's code where an error was raised, or None."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{_place(error.filename)}:{error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if f.filename[0] != "<" and not Path(f.filename).is_relative_to(_PACKAGE)]
    own = [frame for frame in own if not _is_installed(Path(frame.filename))]
    return f"{_place(own[-1].filename)}:{own[-1].lineno}" if own else None


def _place(file: str) -> str:
    """A file relative to the current folder if it is in it."""
    path = Path(file)
    return shown(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def _is_installed(path: Path) -> bool:
    """Return whether a path is that of an installed package or of Python's own library."""
    paths = sysconfig.get_paths()
    folders = {paths[key] for key in ("stdlib", "platstdlib", "purelib", "platlib")} | {site.getusersitepackages()}
    return any(path.is_relative_to(folder) for folder in folders) or "dist-packages" in path.parts


# ---- sources ----------------------------------------------------------------------------------------------------


def _hash(name: str, module: str, file: Path) -> str:
    """SHA-256 of names and contents of a module's sources."""
    package = file.name == "__init__.py"
    root = file.parents[module.count(".") + package]
    within = module.partition(".")[0] if _is_installed(root) or _is_installed(file) else None
    digest = hashlib.sha256()
    try:
        for own, path in sorted(_sources(root, module, file, within).items()):
            content = path.read_bytes()
            digest.update(f"{own}\0{len(content)}\0".encode() + content)
    except OSError as error:
        raise SalpipeError(f"model {name!r}: {error.filename}: {error.strerror}; restore it") from error
    return digest.hexdigest()


def _sources(root: Path, module: str, file: Path, within: str | None) -> dict[str, Path]:
    """Files of a module and of all modules that it imports from `root`, by module name.

    `within` limits them to one package.
    """
    sources: dict[str, Path] = {}
    pending = [module]
    while pending:
        parts = pending.pop().split(".")
        # a package runs before its modules
        for name in (".".join(parts[: i + 1]) for i in range(len(parts))):
            path = file if name == module else _file(root / name.replace(".", "/"))
            if path is None or name in sources or within not in (None, parts[0]):
                continue
            sources[name] = path
            pending += _imports(path, name)
    return sources


def _file(stem: Path) -> Path | None:
    """The source of a module whose path without extension is `stem`, or None."""
    return next((path for path in (stem / "__init__.py", stem.with_name(f"{stem.name}.py")) if path.is_file()), None)


def _imports(path: Path, module: str) -> list[str]:
    """Full names of what a source imports, anywhere in it; of a file that is no source, none."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return []
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            outer = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*outer, *([node.module] if node.module else [])])
            # what is imported may be a module of the package or a name in it
            names += [f"{base}.{alias.name}" for alias in node.names if base]
    return names
