"""What a command says while it works, where no bar is drawn."""

import time

import click
import pytest
from click.testing import CliRunner

from saliency_pipeline.cli import progress
from saliency_pipeline.cli.progress import TerminalProgress


@click.command()
@click.option("-q", "--quiet", is_flag=True)
def slow(quiet: bool) -> None:
    told = TerminalProgress(quiet)
    told.note("choosing")
    time.sleep(0.5)
    told.start(300, "image", "explaining")
    told.advance(120)
    time.sleep(0.5)
    told.stop()


def test_silence_is_broken_by_what_is_being_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "EVERY", 0.2)
    said = CliRunner().invoke(slow).stderr
    assert "salpipe: choosing (" in said
    assert "salpipe: explaining: image 120 of 300 (" in said
    assert CliRunner().invoke(slow, ["--quiet"]).stderr == ""


def test_a_command_that_speaks_is_not_interrupted_by_itself() -> None:
    assert CliRunner().invoke(slow).stderr == "salpipe: choosing\n"
