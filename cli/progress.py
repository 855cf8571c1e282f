"""What a run tells about itself, on the terminal."""

from __future__ import annotations

from typing import Any

import click

from saliency_pipeline.cli.options import progress_bar
from saliency_pipeline.progress import Progress


class TerminalProgress(Progress):
    """Bars and notes of a run on standard error."""

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet
        self.bar: Any = None

    def note(self, text: str) -> None:
        """A line, unless all is to be quiet."""
        if not self.quiet:
            click.echo(f"salpipe: {text}", err=True)

    def start(self, total: int, unit: str, what: str) -> None:
        """A new bar."""
        self.bar = progress_bar(total, unit, what, quiet=self.quiet)

    def advance(self, count: int) -> None:
        """The bar grows."""
        self.bar.update(count)

    def stop(self) -> None:
        """The bar goes."""
        if self.bar is not None:
            self.bar.close()
