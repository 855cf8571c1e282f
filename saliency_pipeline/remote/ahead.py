"""Reading ahead: what the images of a shard need of remote files, merged, requested early and kept briefly."""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import deque
from collections.abc import Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from saliency_pipeline.remote.file import MOST, RemoteFile, held_by

GAP = 256 << 10
"""Bytes between two images up to which both are requested together, rather than with two requests."""

LONGEST = 8 << 20
"""Bytes per request."""

HELD = 256 << 20
"""Bytes per process that are requested and not yet used."""


class Span(NamedTuple):
    """A part of a remote file: offsets of its first byte and behind its last one."""

    file: RemoteFile
    start: int
    end: int


def merged(spans: Iterable[Span]) -> list[tuple[Span, list[int]]]:
    """The requests for some spans, in the order in which they are first needed.

    Spans with at most `GAP` bytes between them are requested together, up to `LONGEST` bytes; longer ones are divided.

    Args:
        spans: what is needed, in this order; may overlap.

    Returns:
        Each request with the indices of the spans that have a part in it.

    >>> file = RemoteFile("s3://bucket/data.tar", 10**9)
    >>> [(r.start, r.end, users) for r, users in merged([Span(file, 700, 900), Span(file, 0, 500)])]
    [(0, 900, [0, 1])]
    """
    spans = list(spans)
    requests: list[Span] = []
    for file, start, end in sorted(set(spans), key=lambda span: (span.file.url, span.start, span.end)):
        if requests:
            last = requests[-1]
            if last.file == file and start <= last.end + GAP and max(end, last.end) - last.start <= LONGEST:
                requests[-1] = Span(file, last.start, max(end, last.end))
                continue
            if last.file == file:
                start = max(start, last.end)
        for piece in range(start, end, LONGEST):
            requests.append(Span(file, piece, min(end, piece + LONGEST)))
    places = [(request.file.url, request.start) for request in requests]
    users: list[list[int]] = [[] for _ in requests]
    for index, (file, start, end) in enumerate(spans):
        place = bisect_right(places, (file.url, start)) - 1 if start < end else len(requests)
        while place < len(requests) and requests[place].file == file and requests[place].start < end:
            users[place].append(index)
            place += 1
    return sorted(zip(requests, users, strict=True), key=lambda request: request[1][0])


@dataclass(eq=False)
class _Piece:
    """A request, its state, and the number of its spans that are not done."""

    span: Span
    users: int = 0
    state: Literal["waiting", "requested", "there", "failed", "dropped"] = "waiting"
    data: bytes = b""
    error: BaseException | None = None

    @property
    def size(self) -> int:
        return self.span.end - self.span.start


@dataclass(eq=False)
class _Pieces:
    """The pieces of one file by offset, without overlap."""

    starts: list[int] = field(default_factory=list)
    pieces: list[_Piece] = field(default_factory=list)


class ReadAhead:
    """Requests what is needed, some threads at a time, and holds it in memory until it is done with.

    Args:
        threads: number of requests at a time.
        held: bytes that are requested and not done with. Where they are used up by what is needed later, what is needed
            now is requested alone.
    """

    def __init__(self, threads: int = MOST, held: int = HELD) -> None:
        self._most = held
        self._bytes = 0
        self._queue: deque[_Piece] = deque()
        self._files: dict[RemoteFile, _Pieces] = {}
        self._used: dict[Hashable, list[_Piece]] = {}
        self._changed = threading.Condition()
        self._closed = False
        self._threads = [threading.Thread(target=self._work, name="read-ahead", daemon=True) for _ in range(threads)]

    def __enter__(self) -> ReadAhead:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._changed:
            self._closed = True
            self._queue.clear()
            self._changed.notify_all()
        for thread in self._threads:
            # after an error nobody waits for requests that are still being repeated
            thread.join(0 if kind else None)

    def need(self, spans: Sequence[tuple[Hashable, Span]]) -> None:
        """Request what is needed next.

        Args:
            spans: what is needed, each by a name for `done`.
        """
        with self._changed:
            for request, users in merged(span for _, span in spans):
                for piece in list(self._pieces_of(request)):
                    for name, span in (spans[user] for user in users):
                        if piece.span.start < span.end and span.start < piece.span.end:
                            self._used.setdefault(name, []).append(piece)
                            piece.users += 1
                    if not piece.users:  # a gap
                        self._drop(piece)
            self._changed.notify_all()

    def done(self, name: Hashable) -> None:
        """Drop what is needed by nothing else any more."""
        with self._changed:
            for piece in self._used.pop(name, ()):
                piece.users -= 1
                if not piece.users:
                    self._drop(piece)
            self._changed.notify_all()

    def read(self, file: RemoteFile, length: int, offset: int) -> bytes | None:
        """Bytes of what is or will be there, waiting for it; None for what is not, or not soon."""
        parts = []
        with self._changed:
            at, end = offset, offset + length
            while at < end:
                piece = self._piece(file, at)
                if piece is None or not self._arrived(piece):
                    return None
                start = at - piece.span.start
                parts.append(piece.data[start : start + end - at])
                at += len(parts[-1])
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _pieces_of(self, request: Span) -> Iterator[_Piece]:
        """The pieces that a request consists of: new ones, which are queued, for what no other has."""
        own = self._files.setdefault(request.file, _Pieces())
        at = request.start
        while at < request.end:
            piece = self._piece(request.file, at)
            if piece is None:
                place = bisect_right(own.starts, at)
                end = min([request.end, *own.starts[place : place + 1]])
                piece = _Piece(Span(request.file, at, end))
                own.starts.insert(place, at)
                own.pieces.insert(place, piece)
                self._queue.append(piece)
            at = piece.span.end
            yield piece

    def _piece(self, file: RemoteFile, offset: int) -> _Piece | None:
        own = self._files.get(file)
        place = bisect_right(own.starts, offset) - 1 if own else -1
        piece = own.pieces[place] if own and place >= 0 else None
        return piece if piece and offset < piece.span.end else None

    def _arrived(self, piece: _Piece) -> bool:
        """Wait for a piece. False if there is no room for it until something else is done; raises its error."""
        self._changed.wait_for(
            lambda: self._closed or piece.state in ("there", "failed", "dropped") or self._is_stuck(piece)
        )
        if piece.error is not None:
            raise piece.error
        return piece.state == "there"

    def _is_stuck(self, piece: _Piece) -> bool:
        return piece.state == "waiting" and not self._has_room()

    def _has_room(self) -> bool:
        return not self._bytes or not self._queue or self._bytes + self._queue[0].size <= self._most

    def _drop(self, piece: _Piece) -> None:
        if piece.state in ("requested", "there", "failed"):
            self._bytes -= piece.size
        piece.state, piece.data = "dropped", b""
        own = self._files[piece.span.file]
        place = bisect_right(own.starts, piece.span.start) - 1
        del own.starts[place], own.pieces[place]
        if not own.pieces:
            del self._files[piece.span.file]

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or (self._queue and self._has_room()))
                if self._closed:
                    return
                piece = self._queue.popleft()
                if piece.state == "dropped":
                    continue
                piece.state = "requested"
                self._bytes += piece.size
            data, problem = b"", None
            try:
                data = piece.span.file.request(piece.span.start, piece.span.end)
            except BaseException as error:  # raised where it is needed
                problem = error
            with self._changed:
                if piece.state == "requested":
                    piece.state, piece.data, piece.error = "failed" if problem else "there", data, problem
                self._changed.notify_all()


@contextmanager
def reading_ahead(remote: bool) -> Iterator[ReadAhead | None]:
    """Read ahead within a block, if anything is remote; what is read from remote files is then taken from there."""
    if not remote:
        yield None
        return
    with ReadAhead() as ahead, held_by(ahead):
        yield ahead
