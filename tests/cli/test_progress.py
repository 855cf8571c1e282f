"""Lines of progress where no bar is shown."""

import time

import click
import pytest
from click.testing import CliRunner

from saliency_pipeline.cli import progress
from saliency_pipeline.cli.progress import TerminalProgress


@click.command()
@click.option("-q", "--quiet", is_flag=True)
def slow(quiet: bool) -> None:
    progress_lines = TerminalProgress(quiet)
    progress_lines.note("choosing")
    time.sleep(0.5)
    progress_lines.start(300, "image", "explaining")
    progress_lines.advance(120)
    time.sleep(0.5)
    progress_lines.stop()


def test_the_current_step_is_printed_after_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "EVERY", 0.2)
    stderr = CliRunner().invoke(slow).stderr
    assert "salpipe: choosing (" in stderr
    assert "salpipe: explaining: image 120 of 300 (" in stderr
    assert CliRunner().invoke(slow, ["--quiet"]).stderr == ""


def test_a_command_with_recent_output_prints_no_extra_line() -> None:
    assert CliRunner().invoke(slow).stderr == "salpipe: choosing\n"
