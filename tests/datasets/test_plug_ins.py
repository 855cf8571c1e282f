"""Layouts of installed packages: by name, by detection, and errors that name the package."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from saliency_pipeline.cli.main import salpipe
from saliency_pipeline.datasets.open import read_images
from saliency_pipeline.errors import SalpipeError
from tests.datasets.imagenets import write

MODULE = """
from pathlib import Path
from saliency_pipeline.datasets.layout import Layout
from saliency_pipeline.images.record import Catalogue, ImageRecord, Split

def read(path, options):
    rows = [line.split(",") for line in (path / "table.csv").read_text().splitlines()]
    names = sorted({name for _, name in rows})
    records = [ImageRecord(key, str(path / key), names.index(name), Split.TRAIN) for key, name in sorted(rows)]
    return Catalogue(str(path), records, tuple(names))

LAYOUT = Layout("table", "images with a table.csv", lambda path: (path / "table.csv").exists(), read)
"""

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Installs a package `demo-reader` with a module and entry points."""
    monkeypatch.delitem(sys.modules, "demo_reader", raising=False)

    def install(text: str = MODULE, package: str = "demo-reader", **layouts: str) -> None:
        site = tmp_path / "site"
        folder = site / f"{package.replace('-', '_')}-1.0.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        lines = [f"{name} = demo_reader:{attribute}" for name, attribute in layouts.items()]
        (folder / "entry_points.txt").write_text("\n".join(["[salpipe.readers]", *lines, ""]))
        (site / "demo_reader.py").write_text(text)
        monkeypatch.syspath_prepend(site)

    return install


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Two images that a table labels."""
    root = tmp_path / "images"
    write(root, "all/1.jpg", "all/2.jpg")
    (root / "table.csv").write_text("all/2.jpg,dog\nall/1.jpg,cat\n")
    return root


def error_of(images: Path, layout: str = "auto") -> str:
    with pytest.raises(SalpipeError) as caught:
        read_images(images, layout)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_layout_is_used_by_name_and_by_its_detection(install: Install, images: Path) -> None:
    install(table="LAYOUT")
    notes: list[str] = []
    catalogue = read_images(images, note=notes.append)
    assert (catalogue.layout, catalogue.classes) == ("table", ("cat", "dog"))
    assert [(record.key, record.label) for record in catalogue.records] == [("all/1.jpg", 0), ("all/2.jpg", 1)]
    assert notes == [f"{images}: layout table (images with a table.csv)"]
    assert read_images(images, "table").records == catalogue.records
    assert read_images(images, "folders").classes == ("all",)
    (images / "table.csv").unlink()
    assert read_images(images).layout == "folders"


def test_a_function_is_used_by_name_only(install: Install, images: Path) -> None:
    install(table="read")
    assert read_images(images).layout == "folders"
    assert read_images(images, "table").classes == ("cat", "dog")


def test_the_command_line_takes_the_name(install: Install, images: Path, tmp_path: Path) -> None:
    install(table="LAYOUT")
    arguments = ["generate", str(images), "-o", str(tmp_path / "out"), "--dry-run", "--json"]
    result = CliRunner().invoke(salpipe, [*arguments, "--layout", "table"])
    assert json.loads(result.stdout)["layout"] == "table"
    result = CliRunner().invoke(salpipe, [*arguments, "--layout", "tabel"])
    assert (result.exit_code, result.stderr) == (
        1,
        "salpipe: error: --layout tabel: no such layout; did you mean 'table'?\n",
    )
    assert "pubfig83, imagenette" not in error_of(images, "qqqq")
    assert error_of(images, "qqqq").endswith(", folders, table")


def test_nothing_is_imported_for_a_layout_of_salpipes_own(install: Install, images: Path) -> None:
    install("raise RuntimeError('imported')", table="LAYOUT", folders="LAYOUT", auto="LAYOUT")
    assert read_images(images, "folders").layout == "folders"
    assert CliRunner().invoke(salpipe, ["generate", "--help"]).exit_code == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "import nosuchlibrary",
            "cannot be imported at demo_reader.py:1 (ModuleNotFoundError: No module named 'nosuch",
        ),
        ("", "cannot be imported (AttributeError: module 'demo_reader' has no attribute 'LAYOUT')"),
        ("LAYOUT = 3", "demo_reader:LAYOUT is of type int, no reader; update or uninstall it"),
        (MODULE.replace('"table",', '"other",'), "is called other; update or uninstall it"),
        (
            MODULE.replace("names = sorted", "names = sort"),
            "fails to read {} at demo_reader.py:8 (NameError: name 'sort'",
        ),
        (MODULE.replace('(path / "table.csv").exists()', "1 / 0"), "fails to look at {} at demo_reader.py:12 (ZeroDiv"),
        (
            MODULE.replace("return Catalogue(", "return ("),
            "fails to read {} (TypeError: it returns an object of type tup",
        ),
        (
            MODULE.replace("str(path / key)", "key"),
            "fails to read {} (TypeError: all/1.jpg: its path 'all/1.jpg' is not",
        ),
        (MODULE.replace("tuple(names)", "()"), "fails to read {} (TypeError: all/1.jpg: label 0 for 0 classes)"),
        (
            MODULE.replace("ImageRecord(key", "ImageRecord('a'"),
            "fails to read {} (TypeError: two images have the key 'a'",
        ),
        (MODULE.replace("tuple(names)", "('a', 'a')"), "fails to read {} (TypeError: two classes have the same name)"),
        (MODULE.replace("sorted(rows)]", "[]]"), "fails to read {} (TypeError: it returns no images)"),
    ],
)
def test_a_package_that_fails_is_named(install: Install, images: Path, text: str, message: str) -> None:
    install(text, table="LAYOUT")
    assert error_of(images).startswith(f"layout table of demo-reader: {message.format(images)}")


def test_a_layout_in_two_packages_is_refused(install: Install, images: Path) -> None:
    install(table="LAYOUT")
    install(package="other-reader", table="read")
    assert error_of(images, "table") == (
        "layout table of demo-reader, other-reader: more than one; uninstall all packages but one of them"
    )
    assert read_images(images, "folders").layout == "folders"


def test_errors_of_the_data_set_stay_as_they_are(install: Install, images: Path) -> None:
    text = "from saliency_pipeline.errors import SalpipeError\ndef read(path, options): raise SalpipeError('no table')"
    install(text, table="read")
    assert error_of(images, "table") == "no table"
