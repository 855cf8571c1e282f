"""`salpipe inspect` on the command line; the summary is tested in tests/shards."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from saliency_pipeline.cli.main import salpipe
from saliency_pipeline.shards.summary import inspect as summary
from tests.shards.examples import folder


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    return folder(tmp_path / "shards")


def inspect(path: Path, *arguments: str) -> Result:
    return CliRunner().invoke(salpipe, ["inspect", str(path), *arguments])


def test_the_summary_is_printed_as_text(shards: Path) -> None:
    for path in (shards, shards / "shard-00002.h5"):
        result = inspect(path)
        assert (result.exit_code, result.stderr) == (0, "")
        assert result.stdout == summary(path).as_text() + "\n"
    assert "12 images" in inspect(shards).stdout
    assert "5 images" in inspect(shards / "shard-00002.h5").stdout


def test_json_is_one_object(shards: Path) -> None:
    result = inspect(shards, "--json")
    assert result.exit_code == 0
    report = json.loads(result.stdout)
    assert report["images"] == 12
    assert report.keys() == summary(shards).as_dict().keys()


def test_an_unfinished_folder_is_refused_and_a_damaged_one_is_named(shards: Path) -> None:
    (shards / "manifest.json").rename(shards / "elsewhere.json")
    result = inspect(shards)
    assert result.exit_code == 1
    assert result.stderr == (
        f"salpipe: error: {shards}: not a finished salpipe folder; run 'salpipe generate' again to finish it\n"
    )
    (shards / "elsewhere.json").rename(shards / "manifest.json")
    (shards / "shard-00001.h5").write_bytes(b"")
    result = inspect(shards)
    assert result.exit_code == 4
    assert "shard-00001.h5" in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_missing_folder_is_wrong_usage(tmp_path: Path) -> None:
    assert inspect(tmp_path / "nowhere").exit_code == 2
