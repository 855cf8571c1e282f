"""A local web server with configurable faults that counts its requests."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

LONG = 30.0
"""Seconds that a stalled reply would take; the end of the server cuts them short."""

Reply = Callable[["Handler"], None]


class Web:
    """While the `with` block runs, paths answer with the replies given to `page`.

    Attributes:
        requests: how often each path was asked for.
        completed: how often each path's reply was sent to its end.
        agents: what visitors called themselves.
        most: by host name, how many requests were answered at a time at most.
        gate: replies made by `gated` wait until it is set; those that wait when `abandon` is called end unfinished.
    """

    def __init__(self) -> None:
        self.pages: dict[str, list[Reply]] = {}
        self.requests: Counter[str] = Counter()
        self.completed: Counter[str] = Counter()
        self.agents: set[str] = set()
        self.now: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.gate = threading.Event()
        self.over = threading.Event()
        self.abandoned = 0
        self.lock = threading.Lock()

    def __enter__(self) -> Web:
        web = self

        class Bound(Handler):
            def setup(self) -> None:
                self.web = web
                super().setup()

        # all addresses of the loopback network: what leads to 127.0.0.2 would be answered
        self.server = Server(("0.0.0.0", 0), Bound)
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})
        self.thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.over.set()
        self.gate.set()
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"

    def page(self, path: str, *replies: Reply) -> str:
        """The first request gets the first reply and so on; the last one stays. Returns the URL."""
        self.pages[path] = list(replies)
        return self.url(path)

    def abandon(self) -> None:
        self.abandoned += 1


class Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that close the connection are no error."""


class Handler(BaseHTTPRequestHandler):
    web: Web
    protocol_version = "HTTP/1.1"
    timeout = LONG
    disable_nagle_algorithm = True

    def log_message(self, format: str, *arguments: object) -> None:
        pass

    def do_GET(self) -> None:
        web, host = self.web, self.headers["Host"].partition(":")[0]
        with web.lock:
            web.requests[self.path] += 1
            web.agents.add(self.headers["User-Agent"])
            web.now[host] += 1
            web.most[host] = max(web.most[host], web.now[host])
            replies = web.pages.get(self.path, [status(404)])
            reply = replies.pop(0) if len(replies) > 1 else replies[0]
        try:
            reply(self)
            with web.lock:
                web.completed[self.path] += 1
        finally:
            with web.lock:
                web.now[host] -= 1

    def head(self, code: int, **headers: object) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def wait(self, seconds: float) -> None:
        """Raises where the server ends meanwhile."""
        if self.web.over.wait(seconds):
            raise ConnectionAbortedError


def image(data: bytes, kind: str | None = "image/jpeg", *, length: int | None = None, delay: float = 0) -> Reply:
    """A file; `length` is the declared length, if it is wrong."""

    def reply(handler: Handler) -> None:
        time.sleep(delay)
        headers = {"Content_Type": kind} if kind else {}
        handler.head(200, Content_Length=len(data) if length is None else length, **headers)
        handler.wfile.write(data)
        if length is not None:
            handler.close_connection = True

    return reply


def gated(data: bytes) -> Reply:
    """Half a file, and the rest when the gate opens; nothing more if it was abandoned by then."""

    def reply(handler: Handler) -> None:
        age = handler.web.abandoned
        handler.head(200, Content_Type="image/jpeg", Content_Length=len(data))
        handler.wfile.write(data[: len(data) // 2])
        handler.web.gate.wait(LONG)
        if handler.web.abandoned > age:
            raise ConnectionAbortedError
        handler.wfile.write(data[len(data) // 2 :])

    return reply


def status(code: int, body: bytes = b"", **headers: object) -> Reply:
    return lambda handler: (handler.head(code, Content_Length=len(body), **headers), handler.wfile.write(body))[0]


def redirect(target: str, code: int = 302) -> Reply:
    return status(code, b"moved", Location=target)


def stalled(data: bytes = b"") -> Reply:
    """The head and some bytes, or not even the head; then silence."""

    def reply(handler: Handler) -> None:
        if data:
            handler.head(200, Content_Type="image/jpeg", Content_Length=len(data) + 1000)
            handler.wfile.write(data)
        handler.wait(LONG)

    return reply


def dripping(data: bytes, pause: float) -> Reply:
    """A byte at a time, each within any time-out."""

    def reply(handler: Handler) -> None:
        handler.head(200, Content_Type="image/jpeg", Content_Length=len(data))
        for byte in data:
            handler.wfile.write(bytes([byte]))
            handler.wait(pause)

    return reply


def endless(data: bytes) -> Reply:
    """No length, and no end."""

    def reply(handler: Handler) -> None:
        handler.head(200, Content_Type="image/jpeg", Connection="close")
        handler.wfile.write(data)
        while not handler.web.over.is_set():
            handler.wfile.write(bytes(2**16))

    return reply


def cut_chunks(data: bytes) -> Reply:
    """A chunked body that ends in the middle of a chunk."""

    def reply(handler: Handler) -> None:
        handler.head(200, Content_Type="image/jpeg", Transfer_Encoding="chunked")
        handler.wfile.write(b"%x\r\n%b" % (len(data) + 500, data))
        handler.close_connection = True

    return reply


def reset(handler: Handler) -> None:
    """The connection is reset instead of a reply."""
    with suppress(OSError):
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        handler.connection.close()
    raise ConnectionAbortedError


def nonsense(handler: Handler) -> None:
    """A reply that is not HTTP."""
    handler.wfile.write(b"SSH-2.0-OpenSSH_9.6\r\n")
    handler.close_connection = True
