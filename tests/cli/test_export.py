"""`salpipe export` on the command line: output and errors."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from saliency_pipeline.cli.main import salpipe
from tests.evaluation.runs import run_on
from tests.training.examples import labeled


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("run")
    return run_on(labeled(root / "shards"), root / "run")


def export(*arguments: object) -> Result:
    return CliRunner().invoke(salpipe, ["export", *map(str, arguments)], prog_name="salpipe")


def test_inputs_and_error_of_the_model_are_printed(run: Path, tmp_path: Path) -> None:
    result = export(run, "-o", tmp_path / "model.onnx")
    assert result.exit_code == 0, result.output
    first, second = result.stdout.splitlines()
    assert first == (
        f"{tmp_path / 'model.onnx'}: image (N x 3 x 32 x 32), map (N x 1 x 32 x 32) to logits (N x 3), opset 18"
    )
    assert second.startswith("differs from PyTorch by at most ")
    assert float(second.split()[6]) <= 1e-4
    # nothing of the exporter's own
    assert result.stderr.splitlines() == [
        "salpipe: exporting modulated test_resnet",
        "salpipe: comparing with PyTorch",
    ]


def test_json(run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    arguments = ["export", str(run), "-o", str(tmp_path / "model.onnx"), "--opset", "21", "--json", "-q"]
    salpipe.main(arguments, prog_name="salpipe", standalone_mode=False)
    printed = capfd.readouterr()
    report = json.loads(printed.out)
    assert printed.err == ""
    assert report.pop("error") <= 1e-4
    assert report == {
        "file": str(tmp_path / "model.onnx"),
        "inputs": {"image": "N x 3 x 32 x 32", "map": "N x 1 x 32 x 32"},
        "classes": 3,
        "opset": 21,
    }


def test_mistakes(run: Path, tmp_path: Path) -> None:
    assert "Missing option '-o'" in export(run).stderr
    assert export(run, "-o", tmp_path / "m.onnx", "--opset", 11).exit_code == 2
    for arguments, message in (
        ([tmp_path, "-o", tmp_path / "m.onnx"], "holds no trained network"),
        ([run, "-o", tmp_path], "is a folder; name the file to write"),
    ):
        result = export(*arguments)
        assert (result.exit_code, len(result.stderr.splitlines())) == (1, 1)
        assert message in result.stderr
    assert list(tmp_path.iterdir()) == []
