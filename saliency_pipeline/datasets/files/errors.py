"""Errors of reading files and folders of a data set, as one line with the remedy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from saliency_pipeline.documents import remedy_for
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.text import shown


@contextmanager
def file_errors_explained(path: str) -> Iterator[None]:
    """Raise an OSError of reading a file as SalpipeError."""
    try:
        yield
    except OSError as error:
        raise SalpipeError(f"{shown(path)}: {error.strerror}; {remedy_for(error)}") from None


@contextmanager
def folder_errors_explained(path: str) -> Iterator[None]:
    """Raise an OSError of reading a folder as SalpipeError."""
    try:
        yield
    except FileNotFoundError:
        raise SalpipeError(f"{shown(path)}: no such folder; check the path") from None
    except OSError as error:
        raise SalpipeError(f"{shown(path)}: {error.strerror}; check its permissions or move it") from None
