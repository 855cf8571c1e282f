"""Progress on standard error: bars on a terminal, otherwise a line every few seconds."""

from __future__ import annotations

import threading
import time
from typing import Any

import click

from saliency_pipeline.cli.options import echo, progress_bar
from saliency_pipeline.progress import Progress
from saliency_pipeline.text import printable

EVERY = 10.0
"""Seconds without output after which a line reports the current step, if no bar is shown."""


class TerminalProgress(Progress):
    """Progress bars and notes on standard error, until the current command ends."""

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet
        self.bar: Any = None
        self.doing, self.done = "preparing", 0
        self.stage: tuple[str, int] | None = None
        self.started = self.printed = time.monotonic()
        context = click.get_current_context(silent=True)
        if not quiet and context is not None:
            ended = threading.Event()
            context.call_on_close(ended.set)
            threading.Thread(target=self._report_steps, args=(ended,), daemon=True).start()

    def note(self, text: str) -> None:
        """Print a line."""
        self.doing, self.started = text, time.monotonic()
        self._print(text)

    def start(self, total: int, unit: str, label: str) -> None:
        """Start a new bar."""
        label = printable(label)
        self.bar = progress_bar(total, unit, label, quiet=self.quiet)
        self.done, self.started = 0, time.monotonic()
        self.stage = f"{label}: {unit}", total

    def advance(self, count: int) -> None:
        """Advance the bar."""
        self.bar.update(count)
        self.done += count

    def stop(self) -> None:
        """Remove the bar."""
        self.stage = None
        if self.bar is not None:
            self.bar.close()

    def _print(self, text: str) -> None:
        if not self.quiet:
            self.printed = time.monotonic()
            echo(f"salpipe: {' '.join(text.splitlines())}", err=True)

    def _report_steps(self, ended: threading.Event) -> None:
        while not ended.wait(EVERY / 10):
            shown = self.stage and self.bar is not None and not self.bar.disable
            now = time.monotonic()
            if not shown and now - self.printed >= EVERY:
                step = f"{self.stage[0]} {self.done:,} of {self.stage[1]:,}" if self.stage else self.doing
                self._print(f"{step} ({now - self.started:.0f} s so far)")
