"""Exceptions with messages for users.

The command line prints a `SalpipeError` as one line and exits with its `exit_code`; any other exception is a defect of
salpipe and keeps its traceback.
"""

from saliency_pipeline.text import printable


class SalpipeError(Exception):
    """Base class: something the user can fix. The message names the thing and the remedy.

    It is always one printable line: lines are joined, control characters are escaped.
    """

    exit_code = 1

    def __str__(self) -> str:
        return printable(" ".join(super().__str__().splitlines()))


class OptionError(SalpipeError):
    """An option has an invalid value or contradicts another option."""

    exit_code = 2


class BadImageError(SalpipeError):
    """One image cannot be used. The message is the reason, for `rejects.jsonl`; the run continues without it."""


class PlanMismatchError(SalpipeError):
    """The output folder holds shards of a different plan."""


class FolderInUseError(SalpipeError):
    """Another run is writing to the output folder."""


class DivergedError(SalpipeError):
    """The loss, gradient or logits of a training run are no longer finite."""


class TooManyRejectsError(SalpipeError):
    """More images were rejected than `--max-rejects` allows."""

    exit_code = 3


class IntegrityError(SalpipeError):
    """A shard or manifest is damaged, missing or inconsistent."""

    exit_code = 4
