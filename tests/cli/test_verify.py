"""`salpipe verify` on the command line; the checks are tested in tests/shards."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from saliency_pipeline.cli.main import salpipe
from tests.shards.examples import folder


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    return folder(tmp_path / "shards", rejects=1)


def verify(path: Path, *arguments: str) -> Result:
    return CliRunner().invoke(salpipe, ["verify", str(path), *arguments])


def flip_last_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def test_intact_shards_are_reported(shards: Path) -> None:
    result = verify(shards)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == f"{shards}: 12 images in 3 shards, structure intact\n"
    assert verify(shards, "--deep").stdout == f"{shards}: 12 images in 3 shards, hashes and values intact\n"
    assert verify(shards / "shard-00001.h5").stdout.endswith(": 3 images in 1 shard, structure intact\n")


def test_damage_is_named_with_its_own_code(shards: Path) -> None:
    flip_last_bit(shards / "shard-00001.h5")
    (shards / "shard-00002.h5").unlink()
    result = verify(shards, "--deep")
    assert result.exit_code == 4
    named = [line.partition(":")[0] for line in result.stdout.splitlines()]
    assert list(dict.fromkeys(named)) == ["shard-00001.h5", "shard-00002.h5"]
    assert result.stderr == (
        f"salpipe: error: {shards}: damaged: shard-00001.h5, shard-00002.h5; run the same 'salpipe generate' again "
        "to rewrite them\n"
    )


def test_many_damaged_shards_are_counted(tmp_path: Path) -> None:
    shards = folder(tmp_path / "shards", [1] * 8)
    for path in shards.glob("*.h5"):
        path.unlink()
    result = verify(shards)
    assert len(result.stdout.splitlines()) == 8
    assert "shard-00004.h5 and 3 more; run" in result.stderr


def test_json_is_one_object(shards: Path) -> None:
    sound = verify(shards, "--json")
    assert sound.exit_code == 0
    assert json.loads(sound.stdout) == {"shards": 3, "images": 12, "deep": False, "damaged": [], "problems": []}
    (shards / "manifest.json").write_text("{")
    damaged = verify(shards, "--json", "--deep")
    assert damaged.exit_code == 4
    report = json.loads(damaged.stdout)
    assert report["damaged"] == ["manifest.json"]
    assert [set(problem) for problem in report["problems"]] == [{"shard", "message"}]
    assert damaged.stderr.count("\n") == 1


def test_a_folder_without_shards_is_refused(tmp_path: Path) -> None:
    result = verify(tmp_path)
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert "salpipe generate" in result.stderr
    assert verify(tmp_path / "nowhere").exit_code == 2
