"""Check that a built wheel contains every file of the package and nothing else: check_wheel.py dist/*.whl."""

import sys
from pathlib import Path
from zipfile import ZipFile

PACKAGE = Path(__file__).parents[1] / "saliency_pipeline"


def source_files() -> set[str]:
    """Return the names of the package's files in the checkout, links followed, as the wheel should contain them."""
    tops = [PACKAGE, *(path for path in PACKAGE.iterdir() if path.is_symlink())]
    files = {path for top in tops for path in top.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    return {path.relative_to(PACKAGE.parent).as_posix() for path in files}


def complaint(wheel: Path) -> str | None:
    """Return what is wrong with a wheel, or None."""
    with ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.endswith("/")}
    contained = {name for name in names if not name.partition("/")[0].endswith(".dist-info")}
    tops = {name.partition("/")[0] for name in contained}
    if tops != {"saliency_pipeline"}:
        return f"top-level names {sorted(tops)}"
    if missing := source_files() - contained:
        return f"lacks {sorted(missing)}"
    if stray := contained - source_files():
        return f"holds {sorted(stray)}, which are not in the checkout"
    return None


def main() -> None:
    """Check the wheel that is named on the command line."""
    (wheel,) = map(Path, sys.argv[1:])
    if message := complaint(wheel):
        sys.exit(f"{wheel}: {message}")
    print(f"{wheel}: only saliency_pipeline, and all of it")


if __name__ == "__main__":
    main()
