"""What a run tells about itself while it works. Drawing it is the caller's."""


class Progress:
    """Told how far a run is; this one keeps it to itself. Every method may be left as it is."""

    def note(self, text: str) -> None:
        """One line of news."""

    def start(self, total: int, unit: str, what: str) -> None:
        """A stage of `total` units begins."""

    def advance(self, count: int) -> None:
        """So many units more are done."""

    def stop(self) -> None:
        """The stage is over."""
