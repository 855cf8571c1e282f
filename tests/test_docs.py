"""The documentation: its commands, options, code, files and links exist and work."""

import re
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import numpy as np
import pytest

import saliency_pipeline
from saliency_pipeline.cli.main import salpipe
from saliency_pipeline.shards.schema import MapShape, ShardHeader, ShardRows
from saliency_pipeline.shards.writer import ShardWriter
from tests.scripts import load_script
from tests.training.examples import labeled

ROOT = Path(__file__).parents[1]
PACKAGE = Path(saliency_pipeline.__file__).parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
PROSE = [page for page in PAGES if page.name != "commands.md"]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def commands() -> dict[str, click.Command]:
    with click.Context(salpipe) as ctx:
        loaded = {name: salpipe.get_command(ctx, name) for name in salpipe.list_commands(ctx)}
    return {name: command for name, command in loaded.items() if command is not None}


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    return load_script("commands")


def test_the_command_reference_is_what_help_prints(generator: ModuleType) -> None:
    written = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    assert written.split() == generator.page().split(), "run: .venv/bin/python docs/commands.py"


def test_the_configuration_in_the_reference_is_accepted(generator: ModuleType, tmp_path: Path) -> None:
    (toml,) = re.findall(r"```toml\n(.*?)```", generator.INTRODUCTION, re.DOTALL)
    (tmp_path / "run.toml").write_text(toml, encoding="utf-8")
    command = commands()["generate"]
    arguments = ["--config", str(tmp_path / "run.toml"), str(tmp_path), "-o", str(tmp_path / "shards")]
    with command.make_context("generate", arguments, parent=click.Context(salpipe, info_name="salpipe")) as ctx:
        (method,) = (parameter.name for parameter in command.params if "--method" in parameter.opts)
        assert list(ctx.params[method]) == ["gradcam", "gradient"]


@pytest.mark.parametrize("page", PROSE, ids=lambda page: page.name)
def test_commands_shown_exist_with_their_options(page: Path) -> None:
    available = commands()
    for line in (line for block in blocks(page, "sh") for line in block.splitlines()):
        words = line.partition("#")[0].split()
        if words[:1] != ["salpipe"]:
            continue
        assert words[1] in available, line
        options = {
            name for parameter in available[words[1]].params for name in [*parameter.opts, *parameter.secondary_opts]
        }
        assert {word for word in words[2:] if word.startswith("-")} <= options, line


@pytest.mark.parametrize("page", PROSE, ids=lambda page: page.name)
def test_options_named_in_the_text_exist(page: Path) -> None:
    available = {
        name
        for command in commands().values()
        for parameter in command.params
        for name in [*parameter.opts, *parameter.secondary_opts]
    }
    named = set(re.findall(r"`(--[a-z][a-z-]*)", page.read_text(encoding="utf-8")))
    assert named <= available | {"--help", "--version"}


@pytest.mark.parametrize("page", PROSE, ids=lambda page: page.name)
def test_make_targets_shown_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    text = page.read_text(encoding="utf-8")
    assert set(re.findall(r"`make ([a-z]+)", text)) | set(re.findall(r"^make ([a-z]+)", text, re.MULTILINE)) <= targets


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_files_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PROSE, ids=lambda page: page.name)
def test_files_of_the_source_named_in_the_text_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for name in re.findall(r"`((?:saliency_pipeline|models|cli|tests|docs)/[a-z_/.-]*)`", text):
        installed = PACKAGE / name.removeprefix("saliency_pipeline/")
        assert (ROOT / name).exists() or installed.exists(), f"{page.name} names {name}"


def test_the_code_that_reads_shards_without_salpipe_reads_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    maps = random.standard_normal((3, 2, 2, 4), dtype=np.float32)
    rows = ShardRows(
        keys=["chat/été.jpg", "chat/2.jpg", "dog/1.jpg"],
        labels=np.array([0, 0, 1]),
        splits=np.zeros(3, np.int8),
        images=images,
        sha256=np.zeros((3, 32), np.uint8),
        source_size=np.full((3, 2), 8, np.int32),
        prediction_class=np.zeros((3, 5), np.int32),
        prediction_score=np.zeros((3, 5), np.float32),
        maps={"gradcam": maps},
        targets={"gradcam": np.zeros((3, 2), np.int32)},
    )
    header = ShardHeader("plan", {"seed": 1}, ("chat", "dog"), 8, "raw", {"gradcam": MapShape(2, 2, 4)})
    with ShardWriter(tmp_path / "shard-00000.h5", header, capacity=3) as writer:
        writer.append(rows)
        writer.finish()

    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for block in blocks(ROOT / "docs" / "shard-format.md", "python"):
        exec(block, names)

    assert names["classes"] == ["chat", "dog"]
    assert names["provenance"] == {"seed": 1}
    assert list(names["keys"]) == rows.keys
    np.testing.assert_array_equal(names["labels"], [0, 0, 1])
    np.testing.assert_array_equal(names["images"], images)
    np.testing.assert_allclose(names["maps"], maps, atol=np.abs(maps).max() * 2**-11)
    np.testing.assert_array_equal(names["frames"], images)
    np.testing.assert_array_equal(names["batch"], images[[2, 0, 1]])
    assert names["cells"].shape == maps.shape


def test_the_code_that_reads_batches_reads_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labeled(tmp_path / "shards")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for block in blocks(ROOT / "docs" / "training.md", "python"):
        exec(block.replace("num_workers=2", "num_workers=0"), names)
    shapes = {name: (tuple(value.shape), str(value.dtype)) for name, value in names["batch"].items()}
    assert shapes["images"] == ((32, 32, 32, 3), "torch.uint8")
    assert shapes["maps"] == ((32, 7, 7), "torch.float32")
    assert shapes["labels"] == ((32,), "torch.int64")
    assert (names["position"]["epoch"], names["position"]["step"]) == (0, 1)


@pytest.mark.slow
def test_the_tutorial_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    cells = blocks(ROOT / "docs" / "tutorial.md", "python")
    assert len(cells) == 10
    for cell in cells:
        exec(cell, names)
    printed = capsys.readouterr().out
    for text in re.findall(r"print\(.*\)  # (.+)", "".join(cells)):
        assert text.partition(":")[0] in printed
    for file in ("methods.png", "methods.html", "methods.npz", "gallery/gallery.html", "runs/modulated/curves.png"):
        assert Path(file).stat().st_size > 10_000
