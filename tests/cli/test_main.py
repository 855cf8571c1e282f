"""The group, `--config` and the shared options, on small commands."""

import errno
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result

from saliency_pipeline import errors
from saliency_pipeline.cli import options
from saliency_pipeline.cli.main import COMMANDS, LazyGroup, salpipe
from tests.odd_files import make_odd

HEAVY = {"torch", "numpy", "h5py", "cv2", "timm", "torchvision", "tqdm", "jinja2", "joblib", "importlib.metadata"}


@click.command()
@options.config_option
@click.argument("images")
@options.output_option("where shards go", required=False)
@click.option("--method", "methods", multiple=True, default=["gradcam"])
@click.option("--size", type=click.IntRange(min=1), default=224)
@click.option("--max-rejects", type=float, default=0.01)
@click.option("--target", default="predicted")
@click.option("--shuffle/--no-shuffle", default=False)
@options.seed_option("of the order")
@options.quiet_option
@options.json_option
def toy(**settings: object) -> None:
    """Print the parameters."""
    settings["output"] = settings["output"] and str(settings["output"])
    click.echo(json.dumps(settings))


@click.command()
@click.argument("kind")
def broken(kind: str) -> None:
    """Fail in the requested way."""
    if kind == "disk":
        raise OSError(errno.ENOSPC, "No space left on device", "shards/shard-00000.h5")
    if kind == "hdf5":
        raise RuntimeError("Can't decrement id ref count (file write failed: No space left on device)")
    if kind == "files":
        raise OSError(errno.EMFILE, "Too many open files")
    if kind == "threads":
        raise RuntimeError("can't start new thread")
    if kind == "pipe":
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")
    if kind == "interrupt":
        raise KeyboardInterrupt
    if kind == "defect":
        raise ValueError("a defect of salpipe")
    raise getattr(errors, kind)("shard-00003.h5: 128 images but 127 maps;\nrun 'salpipe verify'")


HERE = "tests.cli.test_main"
GROUP = LazyGroup(
    "salpipe",
    lazy={name: (f"{HERE}:{name}", f"The {name} one.") for name in ("toy", "broken")},
)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(GROUP, arguments, prog_name="salpipe")


def run_toy(tmp_path: Path, toml: str, *arguments: str) -> Result:
    file = tmp_path / "run.toml"
    file.write_text(toml, encoding="utf-8")
    return run("toy", "--config", str(file), *arguments)


def in_fresh_interpreter(*lines: str) -> subprocess.CompletedProcess[str]:
    """Run lines of Python in a new process."""
    return subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=True)


def test_help_imports_no_command_and_nothing_heavy() -> None:
    done = in_fresh_interpreter(
        "import sys; from saliency_pipeline.cli.main import salpipe",
        "salpipe.main(['--help'], prog_name='salpipe', standalone_mode=False)",
        "print(*sorted(sys.modules), file=sys.stderr)",
    )
    imported = set(done.stderr.split())
    assert not imported & HEAVY
    assert not imported & {place.split(":")[0] for place, _ in COMMANDS.values()}
    for name, (_, short_help) in COMMANDS.items():
        assert f"{name} " in done.stdout
        assert short_help in done.stdout


def test_help_of_train_imports_nothing_heavy() -> None:
    done = in_fresh_interpreter(
        "import sys; from saliency_pipeline.cli.main import salpipe",
        "salpipe.main(['train', '--help'], prog_name='salpipe', standalone_mode=False)",
        "print(*sorted(sys.modules), file=sys.stderr)",
    )
    assert not set(done.stderr.split()) & HEAVY


def test_help_takes_at_most_three_times_importing_click() -> None:
    def seconds(*command: str) -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, *command], stdout=subprocess.DEVNULL, check=True)
        return time.perf_counter() - start

    click_alone, help_page = [], []
    for _ in range(9):  # taken in turns, so that a busy moment of the machine meets both
        click_alone.append(seconds("-c", "import click"))
        help_page.append(seconds("-m", "saliency_pipeline.cli", "--help"))
    assert statistics.median(help_page) <= 3 * statistics.median(click_alone)


def test_commands_are_listed_in_the_order_of_their_table() -> None:
    page = CliRunner().invoke(salpipe, ["--help"]).output
    listed = [line.split()[0] for line in page.split("Commands:")[1].splitlines() if line.strip()]
    assert listed == list(COMMANDS)


def test_a_command_is_imported_when_called(tmp_path: Path) -> None:
    result = run("toy", "photos")
    assert json.loads(result.output)["images"] == "photos"
    assert result.exit_code == 0


def test_version_is_printed() -> None:
    result = CliRunner().invoke(salpipe, ["--version"])
    assert result.exit_code == 0
    assert result.output.startswith("salpipe ")


@pytest.mark.parametrize(("name", "message"), [("tpy", "did you mean 'toy'?"), ("zzz", "choose from toy, broken")])
def test_an_unknown_command_is_a_usage_error_that_names_the_nearest(name: str, message: str) -> None:
    result = run(name)
    assert result.exit_code == 2
    assert message in result.stderr


def test_a_wrong_option_is_a_usage_error() -> None:
    result = run("toy", "photos", "--size", "0")
    assert result.exit_code == 2
    assert "--size" in result.stderr


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("SalpipeError", 1),
        ("BadImageError", 1),
        ("PlanMismatchError", 1),
        ("TooManyRejectsError", 3),
        ("IntegrityError", 4),
    ],
)
def test_an_expected_error_is_one_line_and_its_code(kind: str, code: int) -> None:
    result = run("broken", kind)
    assert result.exit_code == code
    assert result.stderr == "salpipe: error: shard-00003.h5: 128 images but 127 maps; run 'salpipe verify'\n"
    assert result.stdout == ""


def test_a_full_disk_is_one_line_that_names_the_file_and_the_remedy() -> None:
    result = run("broken", "disk")
    assert result.exit_code == 1
    line = "disk full while writing shards/shard-00000.h5; free space and run the same command again"
    assert result.stderr == f"salpipe: error: {line}\n"


def test_a_full_disk_reported_by_hdf5_is_recognized() -> None:
    result = run("broken", "hdf5")
    assert result.exit_code == 1
    assert result.stderr == "salpipe: error: disk full; free space and run the same command again\n"


def test_a_closed_pipe_prints_no_message() -> None:
    result = run("broken", "pipe")
    assert result.exit_code == 1
    assert result.output == ""


def test_a_current_folder_that_is_gone_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    result = run("toy", "photos")
    assert result.exit_code == 1
    assert result.stderr == "salpipe: error: the current folder no longer exists; change to one that does\n"


def test_a_defect_keeps_its_traceback() -> None:
    result = run("broken", "defect")
    assert isinstance(result.exception, ValueError)


def test_an_interruption_says_how_to_resume() -> None:
    result = run("broken", "interrupt")
    assert result.exit_code == 130
    assert result.stderr == "salpipe: interrupted; run the same command again to resume\n"


def test_help_is_the_same_where_python_strips_docstrings() -> None:
    code = """if True:
        import contextlib, io, sys
        from saliency_pipeline.cli import main
        pages = io.StringIO()
        for name in ["", *main.COMMANDS]:
            sys.argv = ["salpipe", *name.split(), "--help"]
            with contextlib.redirect_stdout(pages), contextlib.suppress(SystemExit):
                main.main()
        print(pages.getvalue())"""
    pages = [
        subprocess.run([sys.executable, *optimize, "-c", code], capture_output=True, text=True, check=True).stdout
        for optimize in ([], ["-OO"])
    ]
    assert pages[0].count("Examples:") >= 10
    assert pages[0] == pages[1]


@pytest.mark.parametrize(
    ("kind", "limit"),
    [("files", "limit on open files reached (ulimit -n)"), ("threads", "limit on processes and threads reached")],
)
def test_a_limit_that_is_reached_is_named(kind: str, limit: str) -> None:
    result = run("broken", kind)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"salpipe: error: {limit}")
    assert result.stderr.count("\n") == 1


def test_config_supplies_defaults_of_every_kind(tmp_path: Path) -> None:
    toml = """
        images = "photos"
        output = "shards"
        method = ["gradcam", "gradient"]
        size = 64
        max-rejects = 1e-3
        target = 7
        shuffle = true
        json = true
    """
    result = run_toy(tmp_path, toml)
    assert json.loads(result.stdout) == {
        "images": "photos",
        "output": "shards",
        "methods": ["gradcam", "gradient"],
        "size": 64,
        "max_rejects": 0.001,
        "target": "7",
        "shuffle": True,
        "seed": 0,
        "quiet": False,
        "as_json": True,
    }


def test_the_command_line_takes_precedence_over_the_file(tmp_path: Path) -> None:
    toml = 'images = "photos"\nsize = 64\nshuffle = true\nmethod = ["gradient"]'
    typed = ("others", "--size", "32", "--no-shuffle", "--method", "gradcam")
    settings = json.loads(run_toy(tmp_path, toml, *typed).stdout)
    assert settings["images"] == "others"
    assert settings["size"] == 32
    assert settings["shuffle"] is False
    assert settings["methods"] == ["gradcam"]


def test_the_commands_own_table_wins_and_other_tables_are_ignored(tmp_path: Path) -> None:
    toml = "size = 64\nseed = 3\n[toy]\nsize = 32\n[broken]\nno-such-key = 1"
    settings = json.loads(run_toy(tmp_path, toml, "photos").stdout)
    assert settings["size"] == 32
    assert settings["seed"] == 3


def test_a_key_may_be_spelt_with_underscores_and_a_single_value_may_stand_for_a_list(tmp_path: Path) -> None:
    settings = json.loads(run_toy(tmp_path, 'max_rejects = 0.5\nmethod = "gradient"', "photos").stdout)
    assert settings["max_rejects"] == 0.5
    assert settings["methods"] == ["gradient"]


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("max-reject = 1", "unknown key 'max-reject' for 'salpipe toy'; did you mean 'max-rejects'?"),
        ("zzz = 1", "unknown key 'zzz' for 'salpipe toy'; choose from images, json, max-rejects,"),
        ("config = 'a'", "unknown key 'config'"),
        ("help = true", "unknown key 'help'"),
        ("[tyo]\nsize = 1", "unknown key 'tyo'"),
        ("size = 2.5", "size: '2.5' is not a valid"),
        ("size = 0", "size: 0 is not in the range"),
        ("size = [1, 2]", "size: expected a string or a number, got [1, 2]"),
        ("size = true", "size: expected a string or a number, got True"),
        ("shuffle = 1", "shuffle: expected true or false, got 1"),
        ("method = [['a']]", "method: expected a list of strings or numbers, got [['a']]"),
        ("size = ", "cannot be read as TOML"),
        ("size = " + "[" * 100_000, "cannot be read as TOML: nested too deeply"),
    ],
)
def test_a_mistake_in_the_file_is_one_line(tmp_path: Path, toml: str, message: str) -> None:
    result = run_toy(tmp_path, toml, "photos")
    assert result.exit_code == 1
    assert result.stderr.startswith(f"salpipe: error: {tmp_path / 'run.toml'}: ")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("kind", ["pipe", "device", "sparse"])
def test_a_config_that_is_no_small_file_is_one_line(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "run.toml"
    make_odd(path, kind)
    result = run("toy", "--config", str(path), "photos")
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)


def test_a_missing_config_file_is_a_usage_error() -> None:
    result = run("toy", "--config", "nowhere.toml", "photos")
    assert result.exit_code == 2
    assert "nowhere.toml" in result.stderr


def test_json_is_printed_in_plain_types(capsys: pytest.CaptureFixture[str]) -> None:
    options.json_echo(
        {
            "count": np.int64(3),
            "mean": np.float32(0.5),
            "size": (224, 224),
            "histogram": np.arange(2),
            "undefined": float("nan"),
            "undefined too": np.float32("inf"),
            "where": Path("shards"),
            "done": True,
            1: None,
            "chat": "été",
        }
    )
    assert json.loads(capsys.readouterr().out) == {
        "count": 3,
        "mean": 0.5,
        "size": [224, 224],
        "histogram": [0, 1],
        "undefined": None,
        "undefined too": None,
        "where": "shards",
        "done": True,
        "1": None,
        "chat": "été",
    }


def test_json_refuses_other_types() -> None:
    with pytest.raises(TypeError, match="object is not JSON-serializable"):
        options.json_echo({"x": object()})


def test_a_bar_is_shown_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with options.progress_bar(2, "shard", "writing") as bar:
        bar.update(1)
    assert capsys.readouterr().err == ""

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with options.progress_bar(2, "shard", "writing") as bar:
        bar.update(2)
    assert "writing" in capsys.readouterr().err

    with options.progress_bar(2, "shard", "writing", quiet=True) as bar:
        bar.update(2)
    assert capsys.readouterr().err == ""


def test_the_collector_runs_rarely_and_ignores_all_objects_at_exit() -> None:
    done = in_fresh_interpreter(
        "import atexit, gc; from saliency_pipeline.cli.main import collect_garbage_rarely",
        "collect_garbage_rarely()",
        "print(gc.get_threshold()[0] >= 10_000, gc.isenabled(), gc.get_freeze_count())",
        "atexit._run_exitfuncs()",
        "print(gc.get_freeze_count() > 1000)",
    )
    assert done.stdout.splitlines() == ["True True 0", "True"]
