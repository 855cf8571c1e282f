"""Comparisons on images that belong together: one search before all runs, what results say of it, changed tables."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from saliency_pipeline.comparison.arms import Arm
from saliency_pipeline.comparison.compare import compare, plan_only
from saliency_pipeline.errors import PlanMismatchError, SalpipeError
from saliency_pipeline.serialization import to_json
from saliency_pipeline.shards.reader import ShardFolder
from saliency_pipeline.training.data import groups
from tests.comparison.examples import settings
from tests.comparison.test_compare import BASELINE, MODULATED, QUICK
from tests.evaluation.runs import Notes
from tests.training.copies import COPIED, PHOTOS, copied

pytestmark = pytest.mark.usefixtures("without_plots", "without_pages")

ARMS = (BASELINE, MODULATED)
ONCE = replace(QUICK, epochs=1)
OPTIONS = {"folds": 2, "repeats": 1, "jobs": 1}


@pytest.fixture(autouse=True)
def nothing_remembered(monkeypatch: pytest.MonkeyPatch, empty_cache: Path) -> None:
    monkeypatch.setattr(groups, "_remembered", {})


def validated(folder: Path, arm: str) -> list[set[str]]:
    """Keys of the validation images of every fold."""
    tables = sorted(folder.glob(f"runs/all-images/{arm}/*/validation.csv"))
    return [{line.split(",")[0] for line in table.read_text().splitlines()[1:]} for table in tables]


@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_copies_stay_in_one_fold_and_the_results_say_that_they_were_searched(tmp_path: Path, jobs: int) -> None:
    """With two jobs the search is made before workers begin, which read it from the cache."""
    shards, notes = copied(tmp_path / "shards"), Notes()
    comparison = compare(
        shards, tmp_path / "out", ARMS, ONCE, **settings(folds=2, repeats=1, jobs=jobs), progress=notes
    )
    assert to_json(comparison.results.duplicates) == {
        "searched": True,
        "images": 2 * len(COPIED),
        "groups": len(COPIED),
        "by": None,
    }
    assert json.loads((tmp_path / "out" / "results.json").read_text())["duplicates"]["searched"]
    assert sum("searched 32 frames for near duplicates in" in note for note in notes.notes) == 1
    keys = [pair.key for pair in ShardFolder(shards)]
    for fold in validated(tmp_path / "out", "half"):
        for place, number in enumerate(COPIED):
            assert (keys[number] in fold) == (keys[PHOTOS + place] in fold)
    assert not [warning for warning in comparison.results.warnings if "duplicates" in warning]


def test_without_a_search_the_results_say_so(tmp_path: Path) -> None:
    config = replace(ONCE, search_duplicates=False)
    comparison = compare(copied(tmp_path / "shards"), tmp_path / "out", ARMS, config, **settings(**OPTIONS))
    assert to_json(comparison.results.duplicates) == {"searched": False, "images": 0, "groups": 0, "by": None}


def test_copies_across_the_shards_own_splits_are_warned_of(tmp_path: Path) -> None:
    """An earlier version warned only of files with the same bytes."""
    shards = copied(tmp_path / "shards", splits=[0] * PHOTOS + [1] * len(COPIED))
    comparison = compare(shards, tmp_path / "out", ARMS, ONCE, **settings(folds=0, repeats=1, jobs=1))
    (warning,) = (warning for warning in comparison.results.warnings if "duplicates" in warning)
    assert warning.startswith("16 images have duplicates in another split, so that what is measured on may have been")


def test_persons_stay_in_one_fold_and_a_table_that_changes_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = copied(tmp_path / "shards")
    keys, table = [pair.key for pair in ShardFolder(shards)], tmp_path / "persons.csv"
    table.write_text("key,group\n" + "".join(f"{key},{key.split('/')[1]}\n" for key in keys))
    config = replace(ONCE, group_by="persons.csv")
    with monkeypatch.context() as patch:
        patch.chdir(tmp_path)
        comparison = compare(shards, tmp_path / "out", ARMS, config, **settings(**OPTIONS))
    assert to_json(comparison.results.duplicates) == {"searched": True, "images": 32, "groups": 9, "by": "persons.csv"}
    plan = json.loads((tmp_path / "out" / "plan.json").read_text())
    assert plan["shared"]["group_by"] == str(table)
    first, second = ({key.split("/")[1] for key in fold} for fold in validated(tmp_path / "out", "baseline"))
    assert not first & second
    assert len(first | second) == 9

    # from another folder, by another path of the same table
    again = replace(config, group_by=str(table))
    compare(shards, tmp_path / "out", ARMS, again, **settings(**OPTIONS))
    table.write_text("key,group\n" + "".join(f"{key},{key.split('/')[1]}{key < 'd'}\n" for key in keys))
    more = (*ARMS, Arm("again", MODULATED.options))
    with pytest.raises(PlanMismatchError, match=r"other groups .* table of --group-by persons.csv has changed"):
        compare(shards, tmp_path / "out", more, again, **settings(**OPTIONS))
    assert not (tmp_path / "out" / "runs" / "all-images" / "again").exists()


def test_a_rule_that_fits_no_image_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    shards = copied(tmp_path / "shards")
    for function in (compare, plan_only):
        with pytest.raises(SalpipeError, match="--group-by patient: matches no key and is no file"):
            function(shards, tmp_path / "out", ARMS, replace(ONCE, group_by="patient"), **settings(**OPTIONS))
