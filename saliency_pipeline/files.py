"""Files that are either whole or absent: atomic, durable publication and the lock on a folder.

What a file holds is decided elsewhere; here stands only how it reaches its name without ever being seen half written.
"""

from __future__ import annotations

import csv
import errno
import fcntl
import hashlib
import io
import itertools
import os
import re
import socket
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

from saliency_pipeline.errors import FolderInUseError, SalpipeError

_counter = itertools.count()

# tmp.<host>.<process>.<counter>.
_TEMPORARY = re.compile(r"^tmp\.([A-Za-z0-9-]+)\.([0-9]+)\.[0-9]+\.(?=.)")

# Cells that a spreadsheet would take for a formula (the four signs in full width as well), and those of them that are
# only numbers. A cell that begins so after apostrophes of its own has one more, so that the way back is known.
_FORMULA = re.compile(r"'*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?|inf)")

# file systems that cannot lock or cannot sync a folder answer with one of these
_UNSUPPORTED = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EBADF}


@contextmanager
def disk_errors_explained(path: Path) -> Iterator[None]:
    """Turn an OSError met while writing into one line that names the file and the remedy.

    Where the path is a temporary one the line names the file it is to become.

    Raises:
        SalpipeError: the disk is full, a quota or size limit is reached, or the file cannot be written.
    """
    try:
        yield
    except OSError as error:
        path = path.with_name(_TEMPORARY.sub("", path.name))
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            message = f"disk full while writing {path}; free space and run the same command again"
        elif error.errno == errno.EFBIG:
            message = (
                f"file size limit reached while writing {path}; raise it (ulimit -f) and run the same command again"
            )
        else:
            # HDF5 writes several lines, of which the first says what happened
            reason = error.strerror or str(error)
            reason = reason.partition("\n")[0].strip()
            message = f"cannot write {path}: {reason}; put that right and run the same command again"
        raise SalpipeError(message) from error


def sha256_of(path: Path | str) -> str:
    """SHA-256 of a file as 64 hexadecimal digits, read in chunks."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def temporary_name(final: Path) -> Path:
    """A name of its own beside `final`, for writing what `publish` then moves there.

    The name is `tmp.<host>.<process>.<counter>.<final name>`, so that what a killed process left behind can be told
    from what a living one is writing.
    """
    return final.with_name(f"tmp.{_host()}.{os.getpid()}.{next(_counter)}.{final.name}")


def publish(tmp: Path, final: Path) -> str:
    """Move a closed file to its final name so that it survives a crash of the machine from then on.

    Args:
        tmp: the written and closed file, in the same folder as `final`.
        final: where it belongs; a file already there is replaced.

    Returns:
        SHA-256 of the file as 64 hexadecimal digits.

    Raises:
        SalpipeError: the disk is full or cannot be written; `tmp` is removed then.
    """
    with disk_errors_explained(final):
        try:
            with open(tmp, "rb") as file:
                os.fsync(file.fileno())
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            os.replace(tmp, final)
        except BaseException:
            tmp.unlink(missing_ok=True)
            raise
        _sync_folder(final.parent)
    return digest


def write_atomically(path: Path, data: bytes | str) -> None:
    """Write a whole file (text as UTF-8): after a crash at any moment it is the old one or the new one.

    Raises:
        SalpipeError: the disk is full or cannot be written; the old file, if any, is untouched then.
    """
    tmp = temporary_name(path)
    with disk_errors_explained(path):
        try:
            with open(tmp, "wb") as file:
                file.write(data.encode() if isinstance(data, str) else data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(tmp, path)
        except BaseException:
            tmp.unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)


def write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV file in UTF-8, whole or not at all.

    Names are quoted where they must be. One that a spreadsheet would take for a formula, since it begins with = + - @,
    a tab or an end of line, has an apostrophe before it, as OWASP recommends (CSV injection); `read_table` takes it off
    again. Texts of numbers are left alone. Of numbers six digits are written, about what float32 can answer for.

    Raises:
        SalpipeError: the disk is full or cannot be written.
    """
    table = io.StringIO()
    # a carriage return, which the csv module of Python 3.11 does not quote, would end the row
    minimal, full = (
        csv.writer(table, lineterminator="\n", quoting=quoting) for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL)
    )
    for row in itertools.chain([header], rows):
        cells = [_cell(value) for value in row]
        (full if any("\r" in cell for cell in cells if isinstance(cell, str)) else minimal).writerow(cells)
    # names from a stranger's file may hold what UTF-8 cannot
    write_atomically(path, table.getvalue().encode("utf-8", "replace"))


def read_table(path: Path) -> list[dict[str, str]]:
    """The rows of a file that `write_table` wrote, by the names of the columns.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no UTF-8, or no CSV.
    """
    try:
        with open(path, newline="", encoding="utf-8") as file:
            header, *rows = csv.reader(file)
            return [dict(zip(header, map(_value, row), strict=False)) for row in rows]
    except csv.Error as error:
        raise ValueError(str(error)) from error


def _cell(value: object) -> object:
    """What is written of a value; see `write_table`."""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, str) and _FORMULA.match(value) and not _NUMBER.fullmatch(value):
        return f"'{value}"
    return value


def _value(cell: str) -> str:
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def remove_stale_temporaries(folder: Path) -> list[Path]:
    """Remove what killed processes of this host left in a folder.

    Files of living processes and of other hosts stay: a shared folder may be written from many machines.

    Returns:
        The files that were removed, sorted.
    """
    removed = []
    for path in sorted(folder.iterdir()):
        match = _TEMPORARY.match(path.name)
        if match and match[1] == _host() and not _alive(int(match[2])):
            # another job may be cleaning up as well, or the file be somebody else's
            with suppress(FileNotFoundError, PermissionError):
                if stat.S_ISREG(path.lstat().st_mode):
                    path.unlink()
                    removed.append(path)
    return removed


class FolderLock:
    """Holds the lock of an output folder while the `with` block runs.

    Any number of runs may hold it shared (the slices of one job array); an exclusive holder is alone. The lock is
    the kernel's (`flock` on `<folder>/.lock`): it goes with the process that holds it, however that ends. Where the
    file system has no locks the block runs without one; every file is published atomically all the same.

    Args:
        folder: an existing folder.
        shared: hold it together with other shared holders.

    Raises:
        FolderInUseError: on entry, when somebody else holds it.
        SalpipeError: the folder cannot be written.
    """

    def __init__(self, folder: Path, *, shared: bool = False) -> None:
        self.folder = Path(folder)
        self.shared = shared
        self._file: int | None = None

    def __enter__(self) -> FolderLock:
        with disk_errors_explained(self.folder / ".lock"):
            file = os.open(self.folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                fcntl.flock(file, (fcntl.LOCK_SH if self.shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(file)
                raise FolderInUseError(
                    f"{self.folder}: another run is writing there; wait until it ends or choose another folder"
                ) from None
            except OSError as error:
                if error.errno not in _UNSUPPORTED:
                    os.close(file)
                    raise
        self._file = file
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            # closing alone would leave the lock to any forked child that inherited the descriptor
            with suppress(OSError):
                fcntl.flock(self._file, fcntl.LOCK_UN)
            os.close(self._file)
            self._file = None


def _host() -> str:
    return re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname()) or "localhost"


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _sync_folder(folder: Path) -> None:
    file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(file)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
    finally:
        os.close(file)
