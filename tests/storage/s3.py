"""An S3 server of moto on loopback, buckets in it, and a proxy before it that fails as networks do."""

import http.client
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import boto3
import pytest
from moto.server import ThreadedMotoServer

KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}


@contextmanager
def server() -> Iterator[str]:
    """The address of a server without any bucket."""
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    try:
        yield f"http://{host}:{port}"
    finally:
        moto.stop()


def client(address: str):
    """boto3's client, which shares no code with the one that is tested."""
    return boto3.client(
        "s3", endpoint_url=address, region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test"
    )


@dataclass
class Request:
    """A request as the proxy sees it."""

    method: str
    path: str
    number: int


Fault = Callable[[Request], str | None]
"""Returns `503`, `truncate`, `lose` (the response), or None for a request that is passed on as it is."""


@dataclass
class Proxy:
    """Address of the proxy, its fault, and the requests so far."""

    address: str = ""
    fault: Fault = lambda request: None
    requests: list[Request] = field(default_factory=list)

    def count(self, method: str, ending: str) -> int:
        """Number of requests of a method for paths with an ending."""
        return sum(r.method == method and r.path.partition("?")[0].endswith(ending) for r in self.requests)


@contextmanager
def proxy(address: str) -> Iterator[Proxy]:
    """A proxy before a server."""
    state = Proxy()
    target = address.removeprefix("http://")
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def __getattr__(self, name: str) -> object:
            if name.startswith("do_"):
                return self.answer
            raise AttributeError(name)

        def answer(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length)
            with lock:
                request = Request(self.command, self.path, len(state.requests))
                state.requests.append(request)
            fault = state.fault(request)
            if fault == "503":
                text = b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>Reduce your rate</Message></Error>"
                self.send_response(503)
                self.send_header("Content-Length", str(len(text)))
                self.send_header("Content-Type", "application/xml")
                self.end_headers()
                self.wfile.write(text)
                return
            upstream = http.client.HTTPConnection(target, timeout=30)
            upstream.request(self.command, self.path, body, dict(self.headers))
            answer = upstream.getresponse()
            data = answer.read()
            if fault == "lose":
                self.close_connection = True
                return
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("transfer-encoding", "connection", "server", "date"):
                    self.send_header(name, value)
            if answer.getheader("Content-Length") is None:
                self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data[: len(data) // 2] if fault == "truncate" else data)
            if fault == "truncate":
                self.close_connection = True
            upstream.close()

        def log_message(self, *_: object) -> None:
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.daemon_threads = True
    thread = threading.Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    state.address = f"http://127.0.0.1:{httpd.server_address[1]}"
    try:
        yield state
    finally:
        httpd.shutdown()
        httpd.server_close()
        thread.join()


def use(patch: pytest.MonkeyPatch, address: str) -> None:
    """Let clients of this process and its children use a server."""
    for name, value in {**KEYS, "AWS_ENDPOINT_URL": address, "AWS_CONFIG_FILE": "/dev/null"}.items():
        patch.setenv(name, value)
    patch.setattr("saliency_pipeline.storage.failures.FIRST_WAIT", 0.01)
