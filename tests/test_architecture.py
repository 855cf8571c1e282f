"""The shape of the source: imports follow the data, files and functions are short, modules begin with a docstring."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import saliency_pipeline

PACKAGE = Path(saliency_pipeline.__file__).parent
LAYERS = (
    "text",
    "errors",
    "plug_ins",
    "settings",
    "parameters",
    "documents",
    "contents",
    "serialization",
    "signatures",
    "home",
    "locks",
    "temporaries",
    "files",
    "tables",
    "folders",
    "memory",
    "workers",
    "devices",
    "cache",
    "progress",
    "execution",
    "speeds",
    "storage",
    "remote",
    "images",
    "recognition",
    "datasets",
    "subsets",
    "fetching",
    "models",
    "saliency",
    "uses",
    "shards",
    "generation",
    "figures",
    "explanation",
    "gallery",
    "conversion",
    "statistics",
    "assessment",
    "training",
    "evaluation",
    "hub",
    "comparison",
    "cli",
)
"""In the order in which data moves; a layer imports itself and those before it."""

TESTS = sorted(Path(__file__).parent.rglob("*.py"))
LONGEST_FILE, LONGEST_FUNCTION = 400, 80
SLOW_TO_IMPORT = {
    "torch",
    "torchvision",
    "timm",
    "captum",
    "numpy",
    "cv2",
    "PIL",
    "h5py",
    "joblib",
    "openvino",
    "scipy",
    "sklearn",
    "matplotlib",
    "lightning_fabric",
}


def sources() -> list[Path]:
    """Every module of the installed package or checkout, without following a link twice."""
    return sorted(path for folder in (PACKAGE, *links()) for path in folder.rglob("*.py"))


def links() -> list[Path]:
    """The folders of the package that are links in the checkout; pathlib does not walk into links."""
    return [path for path in PACKAGE.iterdir() if path.is_symlink()]


def name(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def layer(module: str) -> str:
    """The layer of `saliency_pipeline.images.decode` is `images`; that of the package itself is the empty string."""
    return module.partition(".")[2].partition(".")[0]


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and full name of everything that is imported, inside functions as well."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative import"
            assert node.module is not None
            if node.module == "saliency_pipeline":
                yield from ((node.lineno, f"saliency_pipeline.{alias.name}") for alias in node.names)
            else:
                yield node.lineno, node.module


def test_the_package_is_there() -> None:
    names = {name(path) for path in sources()}
    assert {"errors.py", "images/record.py", "models/__init__.py", "cli/main.py"} <= names


@pytest.mark.parametrize("path", sources(), ids=name)
def test_imports_follow_the_data(path: Path) -> None:
    here = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if here == "__init__":  # the public names, imported when first used
        return
    assert here in LAYERS, f"give '{here}' its place in LAYERS"
    for line, module in imports(ast.parse(path.read_text(encoding="utf-8"))):
        if module.partition(".")[0] != "saliency_pipeline":
            continue
        there = layer(module)
        assert there in LAYERS, f"{name(path)}:{line} imports {module}, which is in no layer"
        assert LAYERS.index(there) <= LAYERS.index(here), f"{name(path)}:{line} imports {module}, a later layer"


@pytest.mark.parametrize("path", [p for p in sources() if name(p).startswith("cli/")], ids=name)
def test_command_files_import_nothing_slow_at_their_top(path: Path) -> None:
    top = ast.Module(body=[], type_ignores=[])
    top.body = [node for node in ast.parse(path.read_text(encoding="utf-8")).body if not is_for_types(node)]
    functions = {id(inner) for node in ast.walk(top) if isinstance(node, ast.FunctionDef) for inner in ast.walk(node)}
    for node in ast.walk(top):
        if isinstance(node, ast.Import | ast.ImportFrom) and id(node) not in functions:
            for line, module in imports(ast.Module(body=[node], type_ignores=[])):
                assert module.partition(".")[0] not in SLOW_TO_IMPORT, f"{name(path)}:{line} imports {module}"


@pytest.mark.parametrize("path", [p for p in sources() if name(p).startswith("datasets/files/")], ids=name)
def test_access_to_files_imports_no_layout(path: Path) -> None:
    for line, module in imports(ast.parse(path.read_text(encoding="utf-8"))):
        if module.startswith("saliency_pipeline.datasets."):
            assert module.startswith("saliency_pipeline.datasets.files."), f"{name(path)}:{line} imports {module}"


def is_for_types(node: ast.stmt) -> bool:
    """Return whether a statement is `if TYPE_CHECKING:`, whose imports never run."""
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


@pytest.mark.parametrize("path", [*sources(), *TESTS], ids=lambda path: "/".join(path.parts[-2:]))
def test_files_are_short_and_begin_with_a_docstring(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= LONGEST_FILE
    if text.strip():
        assert ast.get_docstring(ast.parse(text)), f"{path.name} begins without a docstring"


@pytest.mark.parametrize("path", sources(), ids=name)
def test_functions_are_short(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            assert lines <= LONGEST_FUNCTION, f"{name(path)}:{node.lineno}: {node.name} has {lines} lines"
