"""Interface for the progress of a run."""


class Progress:
    """Receives progress and notes of a run. This base class ignores them; override what is needed."""

    def note(self, text: str) -> None:
        """Receive one line of text."""

    def start(self, total: int, unit: str, label: str) -> None:
        """A stage of `total` units starts; `label` names it, as in "checking"."""

    def advance(self, count: int) -> None:
        """Another `count` units are done."""

    def stop(self) -> None:
        """The stage ends."""
