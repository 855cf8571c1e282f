"""The study: its tables are those of the committed results, which rebuild a report."""

import json
import re
import shutil
from pathlib import Path
from types import ModuleType

import pytest

from saliency_pipeline.comparison.output import rebuild
from tests.scripts import DOCS, load_script

COMPARISONS = sorted(path.parent for path in (DOCS / "study").glob("*/results.json"))


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    return load_script("study")


def test_the_tables_are_those_of_the_results(generator: ModuleType) -> None:
    assert COMPARISONS
    assert generator.PAGE.read_text(encoding="utf-8") == generator.page(), "run: .venv/bin/python docs/study.py"


@pytest.mark.parametrize("folder", COMPARISONS, ids=lambda folder: folder.name)
def test_no_path_of_a_machine_is_published(folder: Path) -> None:
    """`costs.json` has the folder of the shards as the command was given it."""
    assert json.loads((folder / "costs.json").read_text())["shards"].startswith("shards/")
    assert not re.search(r'"/\w+/', "".join(path.read_text() for path in folder.iterdir()))


def test_results_without_a_table_are_refused(
    generator: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(COMPARISONS[0], tmp_path / "other")
    monkeypatch.setattr(generator, "RESULTS", tmp_path)
    with pytest.raises(SystemExit, match="0 tables"):
        generator.page()


@pytest.mark.slow
@pytest.mark.parametrize("folder", COMPARISONS, ids=lambda folder: folder.name)
def test_results_rebuild_their_report(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / folder.name)
    page = rebuild(tmp_path / folder.name).page
    text = page.read_text(encoding="utf-8")
    arms = json.loads((folder / "results.json").read_text())["arms"]
    assert len(arms) >= 6
    assert all(arm["name"] in text for arm in arms)
