"""`salpipe evaluate` on the command line: figures, notes and errors."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from saliency_pipeline.cli.main import salpipe
from tests.evaluation.runs import run_on
from tests.training.examples import labeled


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return labeled(tmp_path_factory.mktemp("shards") / "shards")


@pytest.fixture(scope="module")
def run(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_on(shards, tmp_path_factory.mktemp("run") / "run", lr=1e-4)


def evaluate(*arguments: object) -> Result:
    return CliRunner().invoke(salpipe, ["evaluate", *map(str, arguments)], prog_name="salpipe")


def test_the_figures_are_printed(run: Path, shards: Path) -> None:
    result = evaluate(run, shards, "--split", "test", "--device", "cpu")
    assert result.exit_code == 0, result.output
    written = json.loads((run / "evaluation-test" / "evaluation.json").read_text())
    low, high = written["intervals"]["top1"]
    lines = result.stdout.splitlines()
    assert lines[0] == "test: 24 images of 3 classes"
    assert lines[1] == f"top-1 {written['top1']:.1%} (95% interval {low:.1%} to {high:.1%})"
    ece = written["calibration"]["ece"]
    # no top 5 of three classes
    assert lines[2] == f"macro F1 {written['macro_f1']:.3f}, ECE {ece:.1%}"
    assert written["top5"] is None
    worst = sorted(written["per_class"], key=lambda row: row["f1"])[0]
    assert lines[3].startswith(f"lowest F1 (images): {worst['class']} {worst['f1']:.2f} (8)")
    assert lines[4] == f"tables and figures are in {run / 'evaluation-test'}"
    assert result.stderr == ""


def test_json_is_the_written_file_and_notes_are_on_standard_error(run: Path, shards: Path, tmp_path: Path) -> None:
    arguments = [run, shards, "--split", "train", "-o", tmp_path / "out", "--json", "--batch-size", 5]
    result = evaluate(*arguments)
    metrics = json.loads(result.stdout)
    assert metrics.pop("folder") == str(tmp_path / "out")
    assert metrics == json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert result.stderr.startswith("salpipe: the network was trained on these images")
    assert evaluate(*arguments, "--quiet").stderr == ""


def test_validation_is_the_default(run: Path, shards: Path) -> None:
    result = evaluate(run, shards)
    assert result.stdout.startswith("validation: 24 images")
    caveat = (
        "the best epoch was chosen by these images: the figures are optimistic; use --split test for held-out images"
    )
    assert result.stdout.splitlines()[-2] == f"note: {caveat}"
    assert caveat in result.stderr


def test_options_come_from_a_file(run: Path, shards: Path, tmp_path: Path) -> None:
    (tmp_path / "e.toml").write_text('[evaluate]\nsplit = "test"\n')
    assert evaluate(run, shards, "--config", tmp_path / "e.toml", "-o", tmp_path / "o").stdout.startswith("test: 24")


def test_class_names_are_escaped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.training.examples.CLASSES", ("\x1b[31mred", "a\nb", "c"))
    evil = labeled(tmp_path / "shards", 48)
    result = evaluate(run_on(evil, tmp_path / "run", lr=1e-12), evil, "--split", "test")
    assert result.exit_code == 0, result.output
    assert "lowest F1" in result.stdout
    assert len(result.stdout.splitlines()) == 5
    assert "\x1b" not in result.stdout


@pytest.mark.parametrize(
    ("arguments", "exit_code", "message"),
    [
        (["--split", "tset"], 2, "is not one of 'train', 'validation', 'test', 'all'"),
        (["--batch-size", "0"], 2, "--batch-size"),
        (["--device", "tpu"], 2, "salpipe: error: --device tpu: not available here; use --device cpu\n"),
    ],
)
def test_mistakes(arguments: list[str], exit_code: int, message: str, run: Path, shards: Path) -> None:
    result = evaluate(run, shards, *arguments)
    assert result.exit_code == exit_code
    assert message in result.stderr
    assert result.stdout == ""


def test_a_folder_without_a_run_is_refused(shards: Path, tmp_path: Path) -> None:
    result = evaluate(tmp_path, shards)
    assert (result.exit_code, len(result.stderr.splitlines())) == (1, 1)
    assert "holds no trained network; give a run that 'salpipe train' made" in result.stderr
