"""setup.cfg against the source it packages. What a built wheel holds is checked by `make wheel`."""

import ast
import importlib
import re
import sys
from configparser import ConfigParser
from importlib.metadata import entry_points, packages_distributions
from pathlib import Path

import pytest

import saliency_pipeline
from saliency_pipeline.training.trackers import TRACKERS

ROOT = Path(__file__).parents[1]
PACKAGE = Path(saliency_pipeline.__file__).parent


@pytest.fixture(scope="module")
def setup() -> ConfigParser:
    parser = ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


def folders() -> dict[str, Path]:
    """Name of every package in the source: where it is."""
    packages = {"saliency_pipeline": PACKAGE}
    for top in PACKAGE.iterdir():
        if top.is_dir():  # links to the folders at the top of a checkout included
            for init in top.rglob("__init__.py"):
                packages[".".join(["saliency_pipeline", *init.parent.relative_to(PACKAGE).parts])] = init.parent
    return packages


def lines(setup: ConfigParser, section: str, key: str) -> list[str]:
    return [line for line in setup[section][key].splitlines() if line and not line.startswith("#")]


def test_every_package_is_listed(setup: ConfigParser) -> None:
    assert sorted(lines(setup, "options", "packages")) == sorted(folders())


def test_folders_with_modules_are_packages() -> None:
    packages = {path.resolve() for path in folders().values()}
    for top in (PACKAGE, *(path for path in PACKAGE.iterdir() if path.is_dir())):
        for module in top.rglob("*.py"):
            assert module.parent.resolve() in packages, f"{module.parent} has no __init__.py"


def test_the_mapping_agrees_with_the_links(setup: ConfigParser) -> None:
    mapping = dict(re.split(r"\s*=\s*", line) for line in lines(setup, "options", "package_dir"))
    assert mapping.pop("saliency_pipeline") == "saliency_pipeline"
    links = {f"saliency_pipeline.{path.name}": path.readlink() for path in PACKAGE.iterdir() if path.is_symlink()}
    if PACKAGE.parent == ROOT:
        assert links == {name: Path("..", folder) for name, folder in mapping.items()}
    else:
        assert links == {}, "an installed package holds folders, not links"


def test_typing_marker_and_templates_are_shipped(setup: ConfigParser) -> None:
    patterns = {name: setup["options.package_data"][name].split() for name in setup["options.package_data"]}
    for name, folder in folders().items():
        for path in folder.iterdir():
            if path.is_file() and path.suffix not in {".py", ".pyc"}:
                assert any(path.match(pattern) for pattern in patterns.get(name, [])), f"{path} is not shipped"
    assert (PACKAGE / "py.typed").is_file()


def test_the_entry_point_resolves(setup: ConfigParser) -> None:
    (line,) = lines(setup, "options.entry_points", "console_scripts")
    name, place = re.split(r"\s*=\s*", line)
    module, attribute = place.split(":")
    assert name == "salpipe"
    assert callable(getattr(importlib.import_module(module), attribute))
    for installed in entry_points(group="console_scripts", name="salpipe"):
        assert installed.value == place


def requirements(*texts: str) -> set[str]:
    """Distribution names in lists of requirements."""
    names = {re.split(r"[\s>=!<~;\[]", line.strip())[0] for text in texts for line in text.splitlines()}
    return {name.lower() for name in names if name and not name.startswith("#")}


def imported(folder: Path) -> dict[str, Path]:
    """Top-level name of everything that the modules under a folder import, and a module that does."""
    modules: dict[str, Path] = {}
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                modules |= {alias.name.partition(".")[0]: path for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                modules[node.module.partition(".")[0]] = path
    return modules


@pytest.mark.parametrize(
    ("place", "extras"),
    [
        ("package", ("openvino", "onnx", *TRACKERS, "parquet", "fetch", "heic", "cloud")),
        ("tests", ("openvino", "onnx", *TRACKERS, "bench", "parquet", "fetch", "cloud", "test")),
        ("docs", ("docs", "demo")),
    ],
)
def test_what_is_imported_is_declared(setup: ConfigParser, place: str, extras: tuple[str, ...]) -> None:
    declared = requirements(
        setup["options"]["install_requires"], *(setup["options.extras_require"][extra] for extra in extras)
    )
    provides = packages_distributions()
    for folder in set(folders().values()) if place == "package" else [ROOT / place]:
        for name, path in imported(folder).items():
            if name in sys.stdlib_module_names or name in {"saliency_pipeline", "tests", "_typeshed"}:
                continue
            distributions = {each.lower().replace("_", "-") for each in provides.get(name, [name])}
            assert distributions & declared, f"{path} imports {name}, which setup.cfg does not declare"
