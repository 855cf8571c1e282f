"""What is read ahead: merged requests, bounded memory, errors where the bytes are needed."""

import threading
import time
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saliency_pipeline.remote import ahead as module
from saliency_pipeline.remote.ahead import GAP, LONGEST, ReadAhead, Span, held_by, merged
from saliency_pipeline.remote.file import Gate, RemoteError, RemoteFile
from tests.remote.examples import content

FILE = RemoteFile("s3://bucket/data.tar", 100 << 20)
OTHER = RemoteFile("s3://bucket/other.tar", 100 << 20)


def test_neighbors_are_one_request_and_distant_spans_are_several() -> None:
    spans = [Span(FILE, 5000, 6000), Span(FILE, 0, 1000), Span(OTHER, 0, 10), Span(FILE, 6001 + GAP, 6002 + GAP)]
    assert merged(spans) == [
        (Span(FILE, 0, 6000), [0, 1]),
        (Span(OTHER, 0, 10), [2]),
        (Span(FILE, 6001 + GAP, 6002 + GAP), [3]),
    ]


def test_a_long_span_is_divided() -> None:
    assert [(r.start, r.end) for r, _ in merged([Span(FILE, 10, 2 * LONGEST + 20)])] == [
        (10, LONGEST + 10),
        (LONGEST + 10, 2 * LONGEST + 10),
        (2 * LONGEST + 10, 2 * LONGEST + 20),
    ]


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 300), st.integers(0, 60)), max_size=12),
    st.integers(0, 20),
    st.integers(1, 100),
)
def test_requests_cover_every_span_once(spans: list[tuple[int, int]], gap: int, longest: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "GAP", gap)
        patch.setattr(module, "LONGEST", longest)
        wanted = [Span(FILE, start, start + length) for start, length in spans]
        requests = merged(wanted)
    bytes_requested = [offset for span, _ in requests for offset in range(span.start, span.end)]
    assert len(bytes_requested) == len(set(bytes_requested))
    assert all(span.end - span.start <= longest for span, _ in requests)
    for index, span in enumerate(wanted):
        own = {o for request, users in requests if index in users for o in range(request.start, request.end)}
        assert own.issuperset(range(span.start, span.end))


def test_what_is_needed_is_read_once_and_dropped(requests: list[tuple[int, int]]) -> None:
    with ReadAhead(threads=2) as ahead, held_by(ahead):
        ahead.need([("a", Span(FILE, 0, 100)), ("b", Span(FILE, 100, 300)), ("c", Span(FILE, 1 << 20, (1 << 20) + 9))])
        assert FILE.read(200, 100) == content(100, 300)
        assert FILE.read(100, 0) == content(0, 100)
        ahead.done("a")
        assert FILE.read(100, 0) == content(0, 100)
        ahead.done("b")
        assert sorted(requests) == [(0, 300), (1 << 20, (1 << 20) + 9)]
        assert FILE.read(100, 0) == content(0, 100)  # dropped, and so requested again
        assert (0, 100) in requests
        assert FILE.read(9, 1 << 20) == content(1 << 20, (1 << 20) + 9)
    assert len(requests) == 3


def test_overlapping_needs_of_two_shards_are_requested_once(requests: list[tuple[int, int]]) -> None:
    with ReadAhead(threads=1) as ahead, held_by(ahead):
        ahead.need([("a", Span(FILE, 0, 100))])
        assert FILE.read(100, 0) == content(0, 100)
        ahead.need([("b", Span(FILE, 50, 200))])
        ahead.done("a")
        assert FILE.read(150, 50) == content(50, 200)
    assert requests == [(0, 100), (100, 200)]


def test_memory_is_bounded_and_nobody_waits_for_what_has_no_room(requests: list[tuple[int, int]]) -> None:
    """The first request takes all room until its last user is done, who comes after the users of others."""
    with ReadAhead(threads=4, held=1000) as ahead, held_by(ahead):
        far = 1 << 20
        ahead.need(
            [("a", Span(FILE, 0, 900)), ("b", Span(FILE, far, far + 900)), ("c", Span(FILE, 2 * far, 2 * far + 9))]
        )
        assert FILE.read(900, 0) == content(0, 900)
        assert FILE.read(900, far) == content(far, far + 900)
        assert ahead._bytes <= 1000
        ahead.done("b")
        assert FILE.read(9, 2 * far) == content(2 * far, 2 * far + 9)
        ahead.done("a")
    assert sorted(set(requests)) == [(0, 900), (far, far + 900), (2 * far, 2 * far + 9)]


def test_an_error_is_raised_where_the_bytes_are_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    def request(file: RemoteFile, start: int, end: int) -> bytes:
        raise RemoteError("s3://bucket/data.tar: does not answer")

    monkeypatch.setattr(RemoteFile, "request", request)
    with ReadAhead(threads=1) as ahead, held_by(ahead):
        ahead.need([("a", Span(FILE, 0, 100))])
        with pytest.raises(RemoteError, match="does not answer"):
            FILE.read(100, 0)


def test_many_readers_get_their_bytes(requests: list[tuple[int, int]]) -> None:
    spans = [
        (str(index), Span(FILE, index * 7919 % 5000 * 400, index * 7919 % 5000 * 400 + 300)) for index in range(200)
    ]
    problems: list[str] = []

    def read(part: list[tuple[str, Span]], done: Callable[[str], None]) -> None:
        for name, (_, start, end) in part:
            if FILE.read(end - start, start) != content(start, end):
                problems.append(name)
            done(name)

    with ReadAhead(threads=3, held=20_000) as ahead, held_by(ahead):
        ahead.need(spans)
        threads = [threading.Thread(target=read, args=(spans[number::4], ahead.done)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert not any(thread.is_alive() for thread in threads)
        assert (ahead._bytes, ahead._files) == (0, {})
    assert problems == []


def test_a_gate_lets_fewer_through_after_it_was_throttled() -> None:
    gate, active, most = Gate(8), [0], [0]
    lock = threading.Lock()

    def work() -> None:
        for _ in range(5):
            with gate:
                with lock:
                    active[0] += 1
                    most[0] = max(most[0], active[0])
                time.sleep(0.001)
                with lock:
                    active[0] -= 1

    gate.throttled()
    gate.throttled()
    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most[0] <= 3  # two, and one more after 32 successes
    assert gate.limit == 3
