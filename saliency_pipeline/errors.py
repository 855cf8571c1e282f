"""The errors salpipe raises on purpose: each message is one line that names the thing and the remedy.

The command line prints a `SalpipeError` as that one line and exits with its `exit_code`; any other exception is a
defect of salpipe and keeps its traceback.
"""

from saliency_pipeline.text import printable


class SalpipeError(Exception):
    """Something the user can put right. The message names the thing and what to do about it.

    It is one printable line, whatever it quotes: lines are joined, control characters and the like are escaped.
    """

    exit_code = 1

    def __str__(self) -> str:
        return printable(" ".join(super().__str__().splitlines()))


class OptionError(SalpipeError):
    """An option has a value that it can never have, or contradicts another, whatever the files hold."""

    exit_code = 2


class BadImageError(SalpipeError):
    """One image cannot be used. The message is the reason alone, for `rejects.jsonl`; a run goes on without it."""


class PlanMismatchError(SalpipeError):
    """The output folder holds the shards of a different plan."""


class FolderInUseError(SalpipeError):
    """Another run is writing in the output folder."""


class DivergedError(SalpipeError):
    """The loss of a training run, its gradient or its logits are no longer finite."""


class TooManyRejectsError(SalpipeError):
    """More images were rejected than `--max-rejects` allows."""

    exit_code = 3


class IntegrityError(SalpipeError):
    """A shard or manifest is damaged, missing or not what it claims to be."""

    exit_code = 4
