"""`salpipe compare`: output, and errors for impossible options."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from saliency_pipeline.cli.main import salpipe
from tests.training.examples import labeled

ARMS = """
[arm.baseline]
arch = "baseline"
init = "scratch"
[arm.half]
like = "half"
init = "scratch"
"""


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compare")
    (folder / "arms.toml").write_text(ARMS)
    return labeled(folder / "shards", 48)


def compare(*arguments: object) -> Result:
    return CliRunner().invoke(salpipe, ["compare", *map(str, arguments)], catch_exceptions=False)


def quick(shards: Path) -> list[object]:
    network = ["--backbone", "test_resnet", "--epochs", 1, "--lr", 0.01, "--precision", "fp32", "--device", "cpu"]
    shape = ["--folds", 2, "--repeats", 1, "--jobs", 1, "--control", "none"]
    return [shards, "--arms", shards.parent / "arms.toml", *network, *shape]


def test_it_prints_the_verdict_first_and_the_page_last(shards: Path, tmp_path: Path) -> None:
    result = compare(*quick(shards), "-o", tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0].startswith("half: ")
    assert (
        "underpowered, because 2 pairs of runs on this data set are too few for a verdict, which takes 6." in lines[0]
    )
    assert lines[-1] == str(tmp_path / "out" / "report.html")
    assert "4 runs: 2 arms, 2 folds x 1 repeats; fp32" in result.stderr
    again = compare("-o", tmp_path / "out", "--report-only", "--json")
    content = json.loads(again.stdout)
    assert (content["word"], content["runs"], content["sentence"]) == ("underpowered", 4, lines[0])


def test_a_dry_run_lists_and_writes_nothing(shards: Path, tmp_path: Path) -> None:
    result = compare(*quick(shards), "-o", tmp_path / "out", "--dry-run")
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert [line.split(",")[0] for line in lines[:2]] == ["baseline", "half"]
    assert lines[-1].startswith("4 runs to train, 8 steps, about 1 min")
    content = json.loads(compare(*quick(shards), "-o", tmp_path / "out", "--dry-run", "--json").stdout)
    assert content["runs"] == [
        f"runs/all-images/{arm}/seed-0-fold-{fold}" for fold in (1, 2) for arm in ("baseline", "half")
    ]
    assert not (tmp_path / "out").exists()


def test_a_dry_run_names_questions_rules_and_inner_runs(shards: Path, tmp_path: Path) -> None:
    more = ["--control", "uniform", "--looks", 1, "--primary", "half:area", "--rope", 0.5, "--lr", "0.01,0.02"]
    arguments = [argument for argument in quick(shards) if argument not in ("--control", "none", "--lr", 0.01)]
    result = compare(*arguments, *more, "-o", tmp_path / "out", "--dry-run")
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert [line.split(":")[0] for line in lines[:6]] == [
        f"{stage}{arm}, all images" for stage in ("tuning of ", "") for arm in ("baseline", "half", "half-uniform")
    ]
    assert lines[6:10] == [
        "half vs. baseline (reference)",
        "half vs. half-uniform (control)",
        "half-uniform vs. baseline (descriptive)",
        "primary question: half, area, all images; 1 look",
    ]
    assert lines[10].startswith("tuning: 12 runs, about 1 min")
    assert lines[-1].startswith("18 runs to train, ")
    content = json.loads(compare(*arguments, *more, "-o", tmp_path / "out", "--dry-run", "--json").stdout)
    assert content["rules"]["rope"] == 0.005
    assert content["questions"][1] == {"arm": "half", "against": "half-uniform", "role": "control"}
    assert content["parts"]["tuning"]["runs"] == 12


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "give SHARDS, or two RUNs or more"),
        (["SHARDS", "--arm", "basline"], 1, "no arm 'basline'; there are baseline"),
        (["SHARDS", "--arm", "half"], 1, "two arms or more; add --arm baseline"),
        (["SHARDS", "--from", "somewhere"], 1, "--from somewhere: no arm starts from it; add --arm full"),
        (["SHARDS", "--augment", "none", "--augment", "flip"], 2, "--augment none: leave out the others"),
        (["SHARDS", "--address", "tcp://localhost:1"], 2, "use --engine dask or ray"),
        (["SHARDS", "--control", "none", "--control", "uniform"], 2, "--control none: leave out the others"),
        (["SHARDS", "--control", "blurred"], 2, "--control blurred: unknown; choose from mismatched"),
        (["SHARDS", "--lr", "fast"], 2, "Invalid value for '--lr'"),
        (["SHARDS", "--lr", "0.1,-1"], 2, "--lr -1.0: use a number"),
        (["SHARDS", "--arm", "learned-mismatched"], 1, "learned reads no maps, so it has no controls"),
        (["--report-only"], 1, "holds no results.json; make one with"),
    ],
)
def test_errors_are_one_line(shards: Path, tmp_path: Path, arguments: list[str], code: int, message: str) -> None:
    words = [str(shards) if argument == "SHARDS" else argument for argument in arguments]
    result = compare(*words, "-o", tmp_path / "out", "--precision", "fp32", "--device", "cpu", "-q")
    assert result.exit_code == code
    assert message in result.stderr
    assert code == 2 or len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("line", ["epochs = 0", "repeats = 0"])
def test_an_error_names_the_file_that_has_the_value(shards: Path, tmp_path: Path, line: str) -> None:
    (tmp_path / "plan.toml").write_text(line)
    result = compare(shards, "-o", tmp_path / "out", "--config", tmp_path / "plan.toml", "--device", "cpu")
    assert result.exit_code == 2
    assert result.stderr.startswith(f"salpipe: error: {tmp_path / 'plan.toml'}: --{line.split()[0]} 0: use a number")


@pytest.mark.parametrize("option", [["--looks", 2], ["--primary", "half"], ["--lr", 0.1], ["--control", "uniform"]])
def test_options_without_effect_on_finished_runs_are_refused(tmp_path: Path, option: list[object]) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.toml").touch()
    result = compare(tmp_path / "a", tmp_path / "b", "-o", tmp_path / "out", *option)
    assert result.exit_code == 2
    assert f"{option[0]}: has no effect on finished runs; leave it out" in result.stderr
