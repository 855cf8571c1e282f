"""Control characters in names are escaped by every command, in results, notes and errors."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from saliency_pipeline.cli import main
from saliency_pipeline.cli.main import COMMANDS, salpipe
from saliency_pipeline.cli.progress import TerminalProgress
from saliency_pipeline.text import printable, shown
from tests.training.examples import labeled

HOSTILE = "a\x1b[2J\x1b]0;x\x07\u202egpj\u2066\x85\u2028\x7f\n$HOME;b"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(salpipe, [*map(str, arguments)], prog_name="salpipe")


def assert_harmless(text: str) -> None:
    assert [line for line in text.split("\n") if not line.isprintable()] == []


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of that name, with an image, a file and a folder of that name."""
    folder = tmp_path_factory.mktemp("hostile") / HOSTILE
    (folder / HOSTILE).mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(folder / HOSTILE / f"{HOSTILE}.png")
    (folder / HOSTILE / "broken.jpg").write_bytes(b"no image")
    (folder / "file").write_text("nothing")
    return folder


@pytest.mark.parametrize("command", [name for name in COMMANDS if name not in ("models", "methods")])
@pytest.mark.parametrize("place", ["", "file", "nothing"])
def test_errors_of_every_command(hostile: Path, tmp_path: Path, command: str, place: str) -> None:
    out = ["-o", tmp_path / "out"] if command in ("fetch", "generate", "train", "compare", "show", "export") else []
    second = [hostile] if command == "evaluate" else ["--run", hostile] if command == "predict" else []
    dry = ["--dry-run", "--model", HOSTILE] if command == "generate" else []
    result = run(command, hostile / place, *second, *out, *dry)
    assert result.exit_code or command in ("audit", "generate")
    assert result.output
    assert_harmless(result.output)


@pytest.mark.parametrize(
    "arguments", [[HOSTILE], [f"--{HOSTILE}"], ["models", HOSTILE, HOSTILE], ["inspect", f"--{HOSTILE}"]]
)
def test_wrong_usage_is_repeated_harmlessly(arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert_harmless(result.output)
    assert r"\x1b[2J" in result.output


@pytest.mark.parametrize("listing", ["models", "methods"])
def test_names_that_are_none(listing: str) -> None:
    result = run(listing, HOSTILE)
    assert_harmless(result.output)
    assert r"\x1b[2J" in result.output


def test_class_names_and_keys(hostile: Path, tmp_path: Path) -> None:
    result = run("generate", hostile, "-o", tmp_path / "out", "--dry-run", "--backend", "torch", "--precision", "fp32")
    assert result.exit_code == 0, result.output
    assert_harmless(result.output)
    assert r"\x1b[2J" in result.output


def test_results_notes_and_json(tmp_path: Path) -> None:
    shards = labeled(tmp_path / HOSTILE)
    for command in ("inspect", "verify"):
        for options in ([], ["--json"]):
            result = run(command, shards, *options)
            assert result.exit_code == 0, result.output
            assert_harmless(result.output)
    summary = json.loads(run("inspect", shards, "--json").stdout)
    assert summary["path"] == str(shards)


def test_notes_of_a_run(capsys: pytest.CaptureFixture[str]) -> None:
    TerminalProgress(False).note(f"{HOSTILE}: left out")
    stderr = capsys.readouterr().err
    assert stderr.count("\n") == 1
    assert_harmless(stderr)


def test_what_can_be_printed_is_left_alone() -> None:
    for name in ("Réunion/猫 ü.jpg", "مرحبا", "a\\b'\""):
        assert printable(name) == shown(name) == name
    assert printable("\udcff") == r"\udcff"


def test_commands_print_through_one_function() -> None:
    own = {"main.py", "options.py"}
    for path in Path(main.__file__).parent.glob("*.py"):
        assert path.name in own or "click.echo" not in path.read_text(encoding="utf-8"), path.name
