"""`HubAddress`: a repository on the Hugging Face Hub, from `hf://org/name[@revision]`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from saliency_pipeline.errors import SalpipeError

MODEL, DATASET = KINDS = ("model", "dataset")
"""Kinds of repositories: runs are in models, shards in data sets."""

_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9])?"
_ADDRESS = re.compile(rf"hf://(?:(models|datasets)/)?({_NAME}/{_NAME})(?:@([A-Za-z0-9][A-Za-z0-9._/-]{{0,199}}))?/?")


@dataclass(frozen=True)
class HubAddress:
    """A repository.

    Attributes:
        name: `org/name`.
        kind: `model` or `dataset`; None if the address leaves it open.
        revision: branch, tag or commit; None for the default branch.
    """

    name: str
    kind: str | None = None
    revision: str | None = None

    @classmethod
    def parse(cls, text: str) -> HubAddress:
        """Read an address.

        Raises:
            SalpipeError: it is none.

        >>> HubAddress.parse("hf://org/flowers@v1")
        HubAddress(name='org/flowers', kind=None, revision='v1')
        >>> str(HubAddress.parse("hf://datasets/org/flowers"))
        'hf://datasets/org/flowers'
        """
        parts = _ADDRESS.fullmatch(text)
        if parts is None or any(mark in text for mark in ("..", "--")):
            raise SalpipeError(f"{text}: not a repository; give hf://org/name, or hf://org/name@revision")
        return cls(parts[2], parts[1] and parts[1].removesuffix("s"), parts[3])

    def __str__(self) -> str:
        kind = "" if self.kind is None else f"{self.kind}s/"
        return f"hf://{kind}{self.name}" + ("" if self.revision is None else f"@{self.revision}")
