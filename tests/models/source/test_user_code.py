"""Factories: import, errors with the user's line, and the hash of their sources."""

import itertools
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.models.source import user_code
from saliency_pipeline.models.source.user_code import call_factory, code_sha256, importable

NUMBERS = itertools.count()

Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes a package into the current folder under a name that no test has used, and returns that name."""
    monkeypatch.chdir(tmp_path)

    def write(**modules: str) -> str:
        package = f"own{next(NUMBERS)}"
        (tmp_path / package).mkdir()
        for module, text in modules.items():
            (tmp_path / package / f"{module}.py").write_text(text)
        return package

    return write


def error_of(name: str) -> str:
    with pytest.raises(SalpipeError) as caught, importable():
        call_factory(name)
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(f"model {name!r}: ")


def test_a_factory_is_imported_from_the_current_folder_and_prints_beside_the_result(
    write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    package, path = write(nets="print('importing')\ndef make(classes=3): return classes"), list(sys.path)
    with importable():
        assert call_factory(f"{package}.nets:make") == 3
    assert sys.path == path
    assert capsys.readouterr() == ("", "importing\n")


def test_a_name_may_be_dotted_or_that_of_a_network(write: Write) -> None:
    package = write(nets="from torch import nn\nnet = nn.Linear(1, 1)\nclass A:\n    make = staticmethod(lambda: 7)")
    with importable():
        assert call_factory(f"{package}.nets:A.make") == 7
        network = call_factory(f"{package}.nets:net")
    assert network is not sys.modules[f"{package}.nets"].net


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def make():\n    raise KeyError('fc')", "make() fails at {}:2 (KeyError: 'fc'); correct it there"),
        ("import sys\ndef make(): sys.exit(2)", "make() fails at {}:2 (SystemExit: 2)"),
        (
            "import os\n\nimport nosuchlibrary",
            "importing {0} fails at {1}:3 (ModuleNotFoundError: No module named",
        ),
        ("def make(:", "importing {0} fails at {1}:1 (SyntaxError: "),
        ("raise SystemExit", "importing {0} fails at {1}:1 (SystemExit)"),
        ("from torch import nn\ndef make(): nn.Linear('a', 1)", "make() fails at {}:2 (TypeError: "),
        ("def maker(): pass", "no 'make' in {}; did you mean maker?"),
        ("", "no 'make' in {}; name a function"),
        ("make = 3", "make is of type int; name a function"),
        (
            "def make(classes, *, depth, width=2): pass",
            "make needs arguments (classes, depth); name a function without",
        ),
    ],
)
def test_errors_of_a_factory_name_its_line(write: Write, text: str, message: str) -> None:
    package = write(nets=text)
    file = os.path.join(package, "nets.py")
    places = (f"{package}.nets", file) if "{1}" in message else (file,)
    assert error_of(f"{package}.nets:make").startswith(message.format(*places))


@pytest.mark.parametrize("name", ["nosuchmodule:make", "os.nosuchmodule:make", "nosuchmodule.nets:make"])
def test_a_module_that_does_not_exist_is_looked_for_here(write: Write, tmp_path: Path, name: str) -> None:
    message = error_of(name)
    assert message.startswith("no module ")
    assert f"in {tmp_path} or on Python's path; change to its folder" in message


@pytest.mark.parametrize("name", ["nets.py:make", "./nets:make", "nets:", ":make", "a b:c", "nets:make()", "a:b:c"])
def test_a_name_of_another_form_is_explained(name: str) -> None:
    assert error_of(name).startswith("no such model; write package.module:function ")


def test_the_hash_covers_what_the_module_imports_and_nothing_else(write: Write, tmp_path: Path) -> None:
    package = write(
        __init__="",
        nets="import torch.nn\nfrom .blocks import block\ndef make():\n    from own_single import more",
        blocks="import os.path, own_parts.inner\nfrom . import deep\nblock = 1",
        deep="",
        unused="",
    )
    (tmp_path / "own_parts").mkdir()
    others = [tmp_path / "own_single.py", tmp_path / "own_parts" / "inner.py"]
    for path in others:
        path.touch()
    noticed = []
    for path in [*sorted((tmp_path / package).iterdir()), *others]:
        before = code_sha256(f"{package}.nets:make")
        path.write_text(f"{path.read_text()}\n# changed")
        user_code._hashes.clear()  # as in the next process
        if code_sha256(f"{package}.nets:make") != before:
            noticed.append(path.stem)
        user_code._hashes.clear()
    assert noticed == ["__init__", "blocks", "deep", "nets", "own_single", "inner"]


def test_a_source_that_changed_after_its_import_is_refused(write: Write, tmp_path: Path) -> None:
    package = write(nets="def make(): return 1")
    name, path = f"{package}.nets:make", tmp_path / package / "nets.py"
    first = code_sha256(name)
    assert code_sha256(name) == first
    path.write_text("def make(): return 2")
    with pytest.raises(SalpipeError, match=r"its source has changed since it was imported; restart Python"):
        code_sha256(name)


def test_of_an_installed_package_only_its_own_modules_are_hashed() -> None:
    assert len(code_sha256("json.decoder:JSONDecoder")) == 64
