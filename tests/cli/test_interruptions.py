"""Interruptions of small commands: one line and one exit code, whenever they arrive."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress

import click
import pytest

HERE = "tests.cli.test_interruptions"


@click.command()
def sleepy() -> None:
    """Wait to be interrupted."""
    click.echo("ready")
    time.sleep(60)


@click.command()
def compiled() -> None:
    """Wait in code compiled from text, for which Python sets another exit code."""
    exec("import time; print('ready', flush=True); time.sleep(60)")


@click.command()
def caught() -> None:
    """Catch an interruption, as libraries do that try an import."""
    for _ in range(2):
        with suppress(BaseException):
            click.echo("ready")
            time.sleep(20)
    time.sleep(20)


@click.command()
def tidy() -> None:
    """Take a while to clean up."""
    try:
        click.echo("ready")
        time.sleep(60)
    finally:
        time.sleep(0.5)
        click.echo("tidied")


class Closing:
    """Interrupted by its own `__del__`, from which no exception propagates."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGTERM)


@click.command()
def closing() -> None:
    """Interrupt where no exception can propagate."""
    handle = Closing()
    del handle
    click.echo("continued")
    time.sleep(60)


def process_of(name: str) -> list[str]:
    """The command line of a process in which `salpipe` has one command, of this file."""
    only = f"{{'{name}': ('{HERE}:{name}', '')}}"
    code = f"from saliency_pipeline.cli import main\nmain.salpipe.lazy = {only}\nmain.main()"
    return [sys.executable, "-c", code, name]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_process_with_one_line(number: signal.Signals) -> None:
    with subprocess.Popen(process_of("sleepy"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "ready\n"
        os.kill(process.pid, number)
        assert process.wait(timeout=30) == 130
        assert process.stderr.read() == "salpipe: interrupted; run the same command again to resume\n"


@pytest.mark.parametrize(("name", "signals", "rest"), [("compiled", 1, ""), ("caught", 1, ""), ("tidy", 2, "tidied\n")])
def test_an_interruption_is_one_line_wherever_it_strikes(name: str, signals: int, rest: str) -> None:
    with subprocess.Popen(process_of(name), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        for _ in range(signals):
            process.send_signal(signal.SIGINT)
            time.sleep(0.1)
        out, stderr = process.communicate(timeout=30)
    assert (process.returncode, stderr) == (130, "salpipe: interrupted; run the same command again to resume\n")
    assert out.replace("ready\n", "") == rest


def test_an_interruption_that_python_swallows_arrives_all_the_same() -> None:
    ended = subprocess.run(process_of("closing"), capture_output=True, text=True, timeout=50)
    assert (ended.returncode, ended.stdout) == (130, "continued\n")
    assert ended.stderr == "salpipe: interrupted; run the same command again to resume\n"
