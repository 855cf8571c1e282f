"""What a run tells about itself, on standard error: bars on a terminal, and elsewhere a line now and then."""

from __future__ import annotations

import threading
import time
from typing import Any

import click

from saliency_pipeline.cli.options import echo, progress_bar
from saliency_pipeline.progress import Progress
from saliency_pipeline.text import printable

EVERY = 10.0
"""Seconds of silence after which a line says what is being done, where no bar does."""


class TerminalProgress(Progress):
    """Bars and notes of a run on standard error, for as long as the command runs that makes it.

    Args:
        quiet: say nothing.
    """

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet
        self.bar: Any = None
        self.doing, self.done = "preparing", 0
        self.stage: tuple[str, int] | None = None
        self.began = self.spoke = time.monotonic()
        context = click.get_current_context(silent=True)
        if not quiet and context is not None:
            ended = threading.Event()
            context.call_on_close(ended.set)
            threading.Thread(target=self._break_silence, args=(ended,), daemon=True).start()

    def note(self, text: str) -> None:
        """A line, unless all is to be quiet."""
        self.doing, self.began = text, time.monotonic()
        self._say(text)

    def start(self, total: int, unit: str, what: str) -> None:
        """A new bar."""
        what = printable(what)
        self.bar = progress_bar(total, unit, what, quiet=self.quiet)
        self.done, self.began = 0, time.monotonic()
        self.stage = f"{what}: {unit}", total

    def advance(self, count: int) -> None:
        """The bar grows."""
        self.bar.update(count)
        self.done += count

    def stop(self) -> None:
        """The bar goes."""
        self.stage = None
        if self.bar is not None:
            self.bar.close()

    def _say(self, text: str) -> None:
        if not self.quiet:
            self.spoke = time.monotonic()
            echo(f"salpipe: {' '.join(text.splitlines())}", err=True)

    def _break_silence(self, ended: threading.Event) -> None:
        while not ended.wait(EVERY / 10):
            drawn = self.stage and self.bar is not None and not self.bar.disable
            now = time.monotonic()
            if not drawn and now - self.spoke >= EVERY:
                what = f"{self.stage[0]} {self.done:,} of {self.stage[1]:,}" if self.stage else self.doing
                self._say(f"{what} ({now - self.began:.0f} s so far)")
