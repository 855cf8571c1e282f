"""`salpipe compare` with several comparisons or folders of shards: what it prints and refuses."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from saliency_pipeline.cli.main import salpipe
from tests.cli.test_compare import ARMS
from tests.comparison.several import results, write
from tests.training.examples import labeled


def compare(*arguments: object) -> Result:
    return CliRunner().invoke(salpipe, ["compare", *map(str, arguments)], catch_exceptions=False)


@pytest.fixture
def comparisons(tmp_path: Path) -> list[Path]:
    return [write(tmp_path / "abc"[seed], results(effect, seed)) for seed, effect in enumerate((0.03, 0.04, 0.035))]


def test_comparisons_are_taken_together(comparisons: list[Path], tmp_path: Path) -> None:
    result = compare(*comparisons, "-o", tmp_path / "out", "--device", "cpu")
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0].startswith("Across 3 data sets half: +3")
    assert lines[-1] == str(tmp_path / "out" / "report.html")
    (tmp_path / "out" / "report.html").unlink()
    again = compare("-o", tmp_path / "out", "--report-only", "--json", "--device", "cpu")
    content = json.loads(again.stdout)
    assert (content["word"], content["sentence"]) == ("better", lines[0])
    assert (tmp_path / "out" / "report.html").exists()


def test_several_kinds_at_once_are_refused(comparisons: list[Path], tmp_path: Path) -> None:
    shards = labeled(tmp_path / "shards", 24)
    result = compare(shards, *comparisons, "-o", tmp_path / "out", "--device", "cpu")
    assert result.exit_code == 2
    assert "give several folders of shards, several comparisons or several runs" in result.stderr


def test_the_same_shards_twice_are_refused(tmp_path: Path) -> None:
    first, second = (labeled(tmp_path / name, 24) for name in ("first", "second"))
    result = compare(first, second, "-o", tmp_path / "out", "--device", "cpu", "-q")
    assert result.exit_code == 1
    assert result.stderr == (
        "salpipe: error: second: the same shards as first, which are not independent data sets; give each once\n"
    )


def test_a_dry_run_lists_the_runs_of_each_data_set(tmp_path: Path) -> None:
    first, second = (labeled(tmp_path / name, 48, seed=seed) for seed, name in enumerate(("pets", "flowers")))
    (tmp_path / "arms.toml").write_text(ARMS)
    arms = ["--arms", tmp_path / "arms.toml", "--backbone", "test_resnet", "--epochs", 1, "--precision", "fp32"]
    options = [*arms, "--device", "cpu", "--folds", 2, "--repeats", 1, "--jobs", 1, "--dry-run"]
    result = compare(first, second, "-o", tmp_path / "out", *options)
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0] == "pets:"
    assert "flowers:" in lines
    assert sum(line.startswith("baseline") for line in lines) == 2
    assert not (tmp_path / "out").exists()
    as_json = compare(first, second, "-o", tmp_path / "out", *options, "--json")
    assert as_json.exit_code == 2
    assert "give one folder of shards at a time" in as_json.stderr
