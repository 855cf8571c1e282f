"""Settings: one field of a class gives the option, its default and check, the key in files and the documentation."""

import json
from dataclasses import asdict, dataclass, make_dataclass
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result

from saliency_pipeline.cli.main import salpipe
from saliency_pipeline.cli.options import config_option, setting_options, take_settings
from saliency_pipeline.datasets.layout import ReadOptions
from saliency_pipeline.errors import OptionError
from saliency_pipeline.generation.config import GenerateConfig
from saliency_pipeline.remote.session import Limits
from saliency_pipeline.settings import (
    SEEDS,
    check_settings,
    documented,
    from_table,
    option_name,
    setting,
    settings_of,
    to_table,
)
from saliency_pipeline.subsets.selection import Grouping, Selection
from saliency_pipeline.training.config import TrainConfig


@documented
@dataclass(frozen=True)
class Config:
    """Options of a toy."""

    mode: str = setting("slow", "Mode.", choices=("slow", "fast"))
    rate: float = setting(0.5, "Rate.", range=(0, 1))
    count: int | None = setting(None, "Count.", range=(1, 9), metavar="N", default_text="all")
    source: str | None = setting(None, "Source.", option="from")
    dry_run: bool = setting(False, "Write nothing.")
    cache: bool = setting(True, "Use the cache.")
    parts: tuple[str, ...] = setting(("a", "b"), "Parts; may be repeated.", choices=("a", "b", "c"))
    seed: int = setting(0, "Random seed.", range=SEEDS)
    internal: int = 7

    def __post_init__(self) -> None:
        check_settings(self)


OTHER = Config("fast", 0.25, 3, "x", True, False, ("c",))


def run(kind: type, *arguments: str, without: tuple[str, ...] = ()) -> Result:
    @click.command()
    @setting_options(kind, without=without, help={"mode": "Another text."})
    @config_option
    def command(**values: object) -> None:
        click.echo(json.dumps(asdict(kind(**values))))

    return CliRunner().invoke(command, arguments, terminal_width=100)


def values(config: object) -> object:
    return json.loads(json.dumps(asdict(config)))  # type: ignore[call-overload]


def test_options_have_the_defaults_of_their_fields() -> None:
    assert json.loads(run(Config).stdout) == values(Config())


def test_options_set_their_fields() -> None:
    words = "--mode fast --rate 0.25 --count 3 --from x --dry-run --no-cache --parts c --parts c"
    result = run(Config, *words.split())
    assert json.loads(result.stdout) == values(OTHER)
    assert json.loads(run(Config, "--parts", "none").stdout)["parts"] == []
    assert "--parts none: leave out the others" in run(Config, "--parts", "none", "--parts", "a").stderr


def test_help_is_derived() -> None:
    lines = run(Config, "--help").stdout.splitlines()
    assert [line.split("  ", 2)[1].strip() for line in lines if line.startswith("  --")][:-2] == [
        "--mode [slow|fast]",
        "--rate FLOAT",
        "--count N",
        "--from TEXT",
        "--dry-run",
        "--cache / --no-cache",
        "--parts [a|b|c|none]",
        "--seed INTEGER",
    ]
    text = " ".join(" ".join(lines).split())
    assert "Another text. [default: slow]" in text
    assert "Count. [default: all]" in text
    assert "[default: a, b]" in text
    assert "--rate" not in run(Config, "--help", without=("rate",)).stdout


def test_documentation_is_derived() -> None:
    assert Config.__doc__ is not None
    summary, *lines = Config.__doc__.splitlines()
    assert summary == "Options of a toy."
    assert lines[:3] == ["", "Attributes:", "    mode: Mode."]
    assert len(lines) == 2 + 8


@pytest.mark.parametrize("config", [Config(), OTHER, Config(parts=())])
def test_tables_are_read_back(config: Config, tmp_path: Path) -> None:
    import tomli_w

    table = to_table(config)
    assert from_table(Config, table) == config
    assert set(table) <= {"mode", "rate", "count", "from", "dry-run", "cache", "parts", "seed"}
    (tmp_path / "run.toml").write_text(tomli_w.dumps(table))
    assert json.loads(run(Config, "--config", str(tmp_path / "run.toml")).stdout) == values(config)


def test_keys_may_be_names_of_fields_but_must_exist() -> None:
    assert from_table(Config, {"dry_run": True, "source": "x"}) == Config(dry_run=True, source="x")
    with pytest.raises(TypeError):
        from_table(Config, {"speed": 1})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "fst"}, "--mode fst: choose from slow, fast"),
        ({"rate": 1.5}, "--rate 1.5: use a number from 0 to 1"),
        ({"rate": float("nan")}, "--rate nan: use a number from 0 to 1"),
        ({"rate": None}, "--rate None: use a number"),
        ({"count": 0}, "--count 0: use a number from 1 to 9"),
        ({"seed": 2**32}, "--seed 4294967296: use a number from 0 to 4294967295$"),
        ({"count": 1.0}, "--count 1.0: use a whole number"),
        ({"source": 1}, "--from 1: use text"),
        ({"dry_run": 1}, "--dry-run 1: use true or false"),
        ({"parts": ("d",)}, "--parts d: choose from a, b, c"),
        ({"parts": ["d"]}, "--parts d: choose from a, b, c"),
        ({"parts": [1]}, r"--parts \(1,\): use a list of names"),
        ({"parts": "a"}, "--parts 'a': use a list of names"),
    ],
)
def test_values_are_checked(options: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        Config(**options)  # type: ignore[arg-type]


def test_lists_become_tuples() -> None:
    names = ["a", "c"]
    config = Config(parts=names)  # type: ignore[arg-type]
    names.clear()
    assert config == Config(parts=("a", "c"))
    assert hash(config) == hash(Config(parts=("a", "c")))
    assert GenerateConfig(methods=["gradcam", "gradient"]).methods == ("gradcam", "gradient")  # type: ignore[arg-type]
    assert Selection(classes=["cat"]) == Selection(classes=("cat",))  # type: ignore[arg-type]


def test_paths_texts_and_numpys_integers_are_taken(tmp_path: Path) -> None:
    assert GenerateConfig(weights=tmp_path).weights == str(tmp_path)  # type: ignore[arg-type]
    assert ReadOptions(list="urls.txt").list == Path("urls.txt")  # type: ignore[arg-type]
    seed = Selection(seed=np.int64(3)).seed  # type: ignore[arg-type]
    assert (seed, type(seed)) == (3, int)


def test_an_error_names_the_file_that_has_the_value(tmp_path: Path) -> None:
    @click.command()
    @setting_options(Config)
    @config_option
    def command(**values: object) -> None:
        take_settings(Config, values)

    file = tmp_path / "run.toml"
    file.write_text("rate = 1.5\ncount = 3\n")
    error = CliRunner().invoke(command, ["--config", str(file)]).exception
    assert isinstance(error, OptionError)
    assert str(error) == f"{file}: --rate 1.5: use a number from 0 to 1"
    error = CliRunner().invoke(command, ["--config", str(file), "--rate", "2"]).exception
    assert str(error) == "--rate 2.0: use a number from 0 to 1"


def test_one_field_adds_an_option_to_a_run() -> None:
    field = ("dropout", "float", setting(0.1, "Dropout probability.", range=(0, 1)))
    kind = documented(make_dataclass("Larger", [field], bases=(TrainConfig,), frozen=True))
    assert "--dropout FLOAT Dropout probability. [default: 0.1]" in " ".join(run(kind, "--help").stdout.split())
    assert json.loads(run(kind, "--dropout", "0.2").stdout)["dropout"] == 0.2
    assert isinstance(run(kind, "--dropout", "2").exception, OptionError)
    assert to_table(kind(dropout=0.3))["dropout"] == 0.3
    assert from_table(kind, {"dropout": 0.3}) == kind(dropout=0.3)
    assert "    dropout: Dropout probability." in (kind.__doc__ or "").splitlines()


def test_options_of_train_are_the_fields_of_its_configuration() -> None:
    with click.Context(salpipe) as context:
        command = salpipe.get_command(context, "train")
    assert command is not None
    own = {"shards", "output", "save_every", "find_lr", "log", "as_json", "quiet"}
    options = {option.name: option.opts[0] for option in command.params if option.expose_value}
    derived = {name: flag for name, flag in options.items() if name not in own}
    assert derived == {name: f"--{option_name(TrainConfig, name)}" for name in settings_of(TrainConfig)}
    assert all(field in settings_of(TrainConfig) for field in TrainConfig.__dataclass_fields__)


@pytest.mark.parametrize("kind", [TrainConfig, GenerateConfig, ReadOptions, Selection, Grouping, Limits])
def test_every_option_is_described_in_sentences_and_documented(kind: type) -> None:
    for name, (_, own) in settings_of(kind).items():
        assert own.help.endswith("."), name
        assert not own.help.startswith(("Of ", "Whether ", "What ")), name
        assert f"    {name}: {own.help}" in (kind.__doc__ or "").splitlines()
