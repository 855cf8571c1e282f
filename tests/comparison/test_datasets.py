"""Several data sets as folders: names, refusals, and one comparison each with its results over all."""

import json
from pathlib import Path
from typing import Any

import pytest

from saliency_pipeline.comparison import datasets
from saliency_pipeline.comparison.arms import choose_arms
from saliency_pipeline.comparison.config import ComparisonConfig, Execution
from saliency_pipeline.comparison.datasets import (
    combine,
    compare_datasets,
    kind_of,
    name_inputs,
    rebuild_overall,
)
from saliency_pipeline.comparison.output import Comparison, is_overall, refuse_output
from saliency_pipeline.errors import OptionError, SalpipeError
from saliency_pipeline.recognition import COMPARISON, SHARDS
from saliency_pipeline.serialization import to_json
from saliency_pipeline.shards.reader import ShardFolder
from tests.comparison.examples import settings
from tests.comparison.several import results, write
from tests.training.examples import labeled

EFFECTS = (0.03, 0.04, 0.035)


@pytest.fixture
def comparisons(tmp_path: Path) -> list[Path]:
    return [
        write(tmp_path / name, results(effect, seed))
        for seed, (name, effect) in enumerate(zip("abc", EFFECTS, strict=True))
    ]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("shards")
    return [labeled(folder / name, 24, seed=seed) for seed, name in enumerate(("pets", "flowers", "clothes"))]


def changed(path: Path, **entries: Any) -> Path:
    content = json.loads((path / "results.json").read_text())
    (path / "results.json").write_text(json.dumps(content | entries))
    return path


def test_comparisons_give_results_a_table_and_a_page(comparisons: list[Path], tmp_path: Path) -> None:
    comparison = combine(comparisons, tmp_path / "out")
    assert comparison.results.verdict.word == "better"
    assert json.loads((tmp_path / "out" / "results.json").read_text()) == to_json(comparison.results)
    assert [each.report for each in comparison.results.datasets] == [f"../{name}/report.html" for name in "abc"]
    assert is_overall(tmp_path / "out")
    assert not is_overall(comparisons[0])
    names = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.*")}
    assert {"report.html", "results.csv", "figures/forest.png", "figures/forest.svg"} <= names


def test_the_same_comparisons_give_the_same_bytes_again(comparisons: list[Path], tmp_path: Path) -> None:
    for _ in range(2):
        combine(comparisons, tmp_path / "out")
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.*")}
    combine(comparisons, tmp_path / "other")
    assert {(tmp_path / "other" / path.relative_to(tmp_path / "out")).read_bytes() for path in before} == {
        *before.values()
    }
    rebuild_overall(tmp_path / "out")
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"rope": 0.02}, r"differs from .*a \(rope 0.01 and 0.02\); compare with the same arms"),
        ({"primary": results()["primary"] | {"measure": "area"}}, "primary .*final.* and .*area"),
        ({"arms": results()["arms"][:2]}, "arm half-mismatched in a only"),
        (
            {"arms": [*results()["arms"][:2], results()["arms"][2] | {"options": {"maps": "uniform"}}]},
            "options of arm half-mismatched",
        ),
        ({"about": {"plan": {"hash": "plan-0"}}}, "c: the same shards as a, which are not independent"),
        ({"about": {"shards": ["plan-9", "plan-1"]}}, "c: the same shards as b"),
        ({"about": {}}, "does not name its shards"),
        ({"format_version": 1}, "format version 1, .*; run the same 'salpipe compare' with another output folder"),
        ({"format": "salpipe-datasets"}, "give the comparisons that it combines"),
        ({"primary": None}, "no primary question"),
        ({"settings": []}, r"results\.json: damaged"),
        ({"leaks": None, "looks": 3}, r"results\.json: damaged"),
    ],
)
def test_comparisons_that_do_not_belong_together_are_refused(
    comparisons: list[Path], tmp_path: Path, entries: dict[str, Any], message: str
) -> None:
    changed(comparisons[2], **entries)
    with pytest.raises(SalpipeError, match=message):
        combine(comparisons, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_another_comparisons_folder_is_not_overwritten(comparisons: list[Path], tmp_path: Path) -> None:
    output = write(tmp_path / "out", results(0.0, 5))
    with pytest.raises(SalpipeError, match="holds another comparison; choose another output folder"):
        combine(comparisons, output)
    combine(comparisons, tmp_path / "over")
    with pytest.raises(SalpipeError, match="holds a comparison over several data sets; choose another output folder"):
        refuse_output(tmp_path / "over")


def test_data_sets_are_not_added_or_left_out_after_looking(comparisons: list[Path], tmp_path: Path) -> None:
    output = combine(comparisons, tmp_path / "over").folder
    for others in (comparisons[:-1], [*comparisons, write(tmp_path / "late", results(0.0, 9))]):
        with pytest.raises(SalpipeError, match=r"other data sets were analyzed here .*; choose another output folder"):
            combine(others, output)
    combine(comparisons, output)


def test_names_are_those_of_the_folders_with_the_one_above_where_two_are_the_same(tmp_path: Path) -> None:
    places = [tmp_path / "pets" / "out", tmp_path / "flowers" / "out", tmp_path / "clothes"]
    for place in places:
        place.mkdir(parents=True)
    assert list(name_inputs(places)) == ["pets-out", "flowers-out", "clothes"]
    with pytest.raises(SalpipeError, match="a second data set called 'pets-out'"):
        name_inputs([places[0], places[0], places[2]])
    (tmp_path / "figures").mkdir()
    with pytest.raises(SalpipeError, match="the output has its own figures; rename the folder"):
        name_inputs([tmp_path / "figures", places[2]])


def test_inputs_of_several_kinds_are_refused(shards: list[Path], comparisons: list[Path], tmp_path: Path) -> None:
    assert kind_of(shards) == SHARDS
    assert kind_of(comparisons) == COMPARISON
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "best.safetensors").touch()
    assert kind_of([tmp_path / "run"]) is None
    for inputs in ([*shards, comparisons[0]], [tmp_path / "run", shards[0]], [comparisons[0], tmp_path / "run"]):
        with pytest.raises(OptionError, match="give several folders of shards, several comparisons or several runs"):
            kind_of(inputs)


def faked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Path, dict[str, Any]]]:
    """Comparisons that train nothing, with the arguments of their calls."""
    calls: list[tuple[Path, dict[str, Any]]] = []

    def compare(shards: Path, output: Path, arms: Any, shared: Any, *options: Any, **_: Any) -> Comparison:
        calls.append((output, {"arms": arms, "options": options}))
        content = results(EFFECTS[len(calls) % 3], len(calls))
        content["about"]["plan"]["hash"] = ShardFolder(shards).identity
        (output / "results.json").write_text(json.dumps(content))
        (output / "costs.json").write_text(json.dumps({"shards": str(shards)}))
        return Comparison(output, output / "report.html", 30, 0, content)

    monkeypatch.setattr(datasets, "compare", compare)
    return calls


def test_each_data_set_is_compared_in_its_own_folder_with_the_same_options(
    shards: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ShardFolder, "identity", Distinct())
    calls = faked(monkeypatch)
    arms = choose_arms(())
    comparison = compare_datasets(shards, tmp_path / "out", arms, **settings(folds=5, jobs=2))
    assert [output for output, _ in calls] == [tmp_path / "out" / path.name for path in shards]
    assert all(call == {"arms": arms, "options": (ComparisonConfig(folds=5), Execution(jobs=2))} for _, call in calls)
    assert comparison.results.verdict.word == "better"
    assert [each.report for each in comparison.results.datasets] == [f"{path.name}/report.html" for path in shards]


class Distinct:
    """The name of the folder as identity: examples of one seed and size otherwise share theirs."""

    def __get__(self, pairs: ShardFolder, _: type) -> str:
        return pairs.path.name


def test_a_data_set_given_twice_is_refused_before_anything_is_trained(
    shards: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = faked(monkeypatch)
    again = labeled(tmp_path / "again", 24, seed=0)
    with pytest.raises(SalpipeError, match="again: the same shards as pets, which are not independent data sets"):
        compare_datasets([shards[0], again], tmp_path / "out", choose_arms(()))
    # the same images under another plan, such as with other maps
    monkeypatch.setattr(ShardFolder, "identity", Distinct())
    with pytest.raises(SalpipeError, match="24 of its images are also in pets, so that they are not independent"):
        compare_datasets([shards[0], again], tmp_path / "out", choose_arms(()))
    assert not calls
    assert not (tmp_path / "out").exists()
