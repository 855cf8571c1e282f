"""What a run tells about itself, on the terminal."""

from __future__ import annotations

from typing import Any

from saliency_pipeline.cli.options import echo, progress_bar
from saliency_pipeline.progress import Progress
from saliency_pipeline.text import printable


class TerminalProgress(Progress):
    """Bars and notes of a run on standard error."""

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet
        self.bar: Any = None

    def note(self, text: str) -> None:
        """A line, unless all is to be quiet."""
        if not self.quiet:
            echo(f"salpipe: {' '.join(text.splitlines())}", err=True)

    def start(self, total: int, unit: str, what: str) -> None:
        """A new bar."""
        self.bar = progress_bar(total, unit, printable(what), quiet=self.quiet)

    def advance(self, count: int) -> None:
        """The bar grows."""
        self.bar.update(count)

    def stop(self) -> None:
        """The bar goes."""
        if self.bar is not None:
            self.bar.close()
