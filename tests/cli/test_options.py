"""Options of all commands: a number out of range is wrong usage."""

from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from saliency_pipeline.cli.main import COMMANDS, salpipe
from tests.datasets.imagenets import write
from tests.shards import examples

LIST = "person\timagenum\turl\trect\tmd5sum\n"
OTHERS = {
    ("generate", "--shards"): ["0/1", "2/1", "x"],
    ("generate", "--max-rejects"): ["-1", "x", "nan"],
    ("generate", "--split"): ["x", "0.5/0.6", "nan/1", "1/2/3/4"],
    ("generate", "--margin"): ["-1", "nan", "11"],
    ("compare", "--per-class"): ["0", "x", "5,", "5,5"],
    ("compare", "--folds"): ["1"],
    ("train", "--warmup"): ["50"],
    ("train", "--fold"): ["1"],
}
"""Numbers that are texts, and those that contradict the other options."""


def numbers() -> Iterator[tuple[str, str, str]]:
    """Every number of every command: command, option and a value that is out of its range."""
    context = click.Context(salpipe)
    for name in COMMANDS:
        command = salpipe.get_command(context, name)
        assert command is not None
        for option in command.params:
            kind = option.type
            if not isinstance(kind, click.types.IntParamType | click.types.FloatParamType):
                continue
            yield name, option.opts[0], "x"
            if isinstance(kind, click.types.FloatParamType):
                yield name, option.opts[0], "nan"
            low = getattr(kind, "min", None)
            yield name, option.opts[0], "-100000" if low is None else str(low - 1)
    for (name, flag), values in OTHERS.items():
        yield from ((name, flag, value) for value in values)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("inputs")
    examples.folder(root / "shards")
    write(root / "photos", "cat/1.jpg", "dog/1.jpg")
    (root / "list.txt").write_text(LIST)
    return root


def call(inputs: Path, output: Path, name: str, *arguments: str) -> Result:
    shards, photos = str(inputs / "shards"), str(inputs / "photos")
    required = {
        "fetch": ["pubfig", "--list", str(inputs / "list.txt")],
        "generate": [photos, "--dry-run"],
        "audit": [photos],
        "explain": [f"{photos}/cat/1.jpg"],
        "evaluate": [shards, shards],
        "predict": [photos, "--run", shards],
    }.get(name, [shards])
    return CliRunner().invoke(salpipe, [name, *required, "-o", str(output), *arguments])


@pytest.mark.parametrize(("name", "flag", "value"), list(numbers()))
def test_a_number_out_of_range_is_wrong_usage(inputs: Path, tmp_path: Path, name: str, flag: str, value: str) -> None:
    result = call(inputs, tmp_path / "out", name, flag, value)
    assert result.exit_code == 2, result.output
    assert flag.lstrip("-") in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("name", ["generate", "train", "compare", "show", "audit", "evaluate", "predict", "export"])
def test_an_empty_output_is_not_the_current_folder(inputs: Path, name: str) -> None:
    required = ["--run", str(inputs / "shards")] if name == "predict" else []
    more = [str(inputs / "shards")] if name == "evaluate" else []
    result = CliRunner().invoke(salpipe, [name, str(inputs / "shards"), *more, *required, "-o", ""])
    assert (result.exit_code, "is empty; use . for the current folder" in result.stderr) == (2, True)
