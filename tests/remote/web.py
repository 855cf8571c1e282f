"""A web server on loopback that serves ranges of files and fails as servers do, and a fake Hub."""

import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import pytest

from saliency_pipeline.remote import client


@dataclass
class Request:
    """A request: path, first byte and byte behind the last, or None for the whole file; headers."""

    path: str
    range: tuple[int, int] | None
    headers: dict[str, str]
    number: int


Fault = Callable[[Request], str | None]
"""Returns `truncate`, `whole` (200 for a range), `other` (another range), a status with an optional Retry-After such as
`429:0.01`, a URL to redirect to, or None."""


@dataclass
class Files:
    """Files by path, their ETags, the fault, and the requests so far."""

    address: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    fault: Fault = lambda request: None
    requests: list[Request] = field(default_factory=list)
    hub: "Hub | None" = None

    def put(self, path: str, data: bytes) -> str:
        """Serve a file; returns its URL."""
        self.files[path] = data
        return self.address + path

    def of(self, path: str) -> list[Request]:
        """The requests for a path."""
        return [request for request in self.requests if request.path == path]


@dataclass
class Hub:
    """A repository: its files by commit, and the commits of its branches."""

    repository: str
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)

    def commit(self, folder: Path, branch: str = "main") -> str:
        """Add a folder as a commit of a branch; returns the commit."""
        files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        name = hashlib.sha1(json.dumps([[k, len(v)] for k, v in sorted(files.items())]).encode()).hexdigest()
        name = hashlib.sha1(name.encode() + b"".join(files[k] for k in sorted(files))).hexdigest()
        self.commits[name], self.branches[branch] = files, name
        return name

    def tree(self, revision: str, path: str) -> list[dict[str, object]]:
        """Entries below a path."""
        files = self.commits[revision]
        inside = {name: data for name, data in files.items() if not path or name.startswith(f"{path}/")}
        return [_entry(name, data) for name, data in sorted(inside.items())]


def _entry(name: str, data: bytes) -> dict[str, object]:
    return {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}


@contextmanager
def serving() -> Iterator[Files]:
    """A server of files."""
    state = Files()
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
            span = (int(asked[1]), int(asked[2]) + 1) if asked else None
            with lock:
                request = Request(path, span, dict(self.headers), len(state.requests))
                state.requests.append(request)
            fault = state.fault(request)
            if fault and fault[0].isdigit():
                status, _, wait = fault.partition(":")
                self.reply(int(status), b"", {"Retry-After": wait} if wait else {})
            elif fault and "://" in fault:
                self.reply(302, b"", {"Location": fault})
            elif state.hub and path.startswith("/api/"):
                self.interface(state.hub, path)
            elif (data := self.data(path)) is None:
                self.reply(404, b"")
            else:
                self.file(data, state.tags.get(path, f'"{hashlib.md5(data).hexdigest()}"'), span, fault)

        def do_POST(self) -> None:
            body = unquote(self.rfile.read(int(self.headers["Content-Length"])).decode())
            assert state.hub
            revision = self.path.rpartition("/")[2]
            path = re.search(r"paths=([^&]*)", body)[1]  # type: ignore[index]
            files = state.hub.commits[revision]
            entries: list[dict[str, object]] = [_entry(path, files[path])] if path in files else []
            if any(name.startswith(f"{path}/") for name in files):
                entries = [{"type": "directory", "path": path, "oid": "0" * 40}]
            self.reply(200, json.dumps(entries).encode(), {"Content-Type": "application/json"})

        def data(self, path: str) -> bytes | None:
            if state.hub and (match := re.fullmatch(r"/datasets/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)):
                return state.hub.commits[match[2]].get(unquote(match[3]))
            return state.files.get(path)

        def interface(self, hub: Hub, path: str) -> None:
            match = re.fullmatch(rf"/api/datasets/{hub.repository}(?:/(revision|tree)/([^/]+)(?:/(.+))?)?", path)
            revision = unquote(match[2] or "main") if match else ""
            commit = hub.branches.get(revision, revision)
            if match is None or commit not in hub.commits:
                self.reply(404, b"{}", {"X-Error-Code": "RevisionNotFound" if match else "RepoNotFound"})
                return
            listed = hub.tree(commit, unquote(match[3] or "")) if match[1] == "tree" else None
            answer = {"id": hub.repository, "sha": commit, "siblings": []} if listed is None else listed
            self.reply(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})

        def file(self, data: bytes, tag: str, span: tuple[int, int] | None, fault: str | None) -> None:
            headers = {"ETag": tag}
            if span is None or fault == "whole":
                self.reply(200, data, headers)
                return
            start, end = span[0], min(span[1], len(data))
            if start >= end:
                self.reply(416, b"", headers)
                return
            shift = int(fault == "other")
            headers["Content-Range"] = f"bytes {start + shift}-{end - 1 + shift}/{len(data)}"
            self.reply(206, data[start:end], headers, cut=fault == "truncate")

        def reply(self, status: int, body: bytes, headers: dict[str, str] | None = None, cut: bool = False) -> None:
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if cut else body)
            self.close_connection = self.close_connection or cut

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            """Clients that leave are not reported."""

    httpd = Server(("127.0.0.1", 0), Handler)
    httpd.daemon_threads = True
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    state.address = f"http://127.0.0.1:{httpd.server_address[1]}"
    try:
        yield state
    finally:
        client.close()
        httpd.shutdown()
        httpd.server_close()
        thread.join()


def allow(patch: pytest.MonkeyPatch, state: Files) -> None:
    """Let this process and its children ask the server, and take it for the Hub."""
    patch.setenv("SALPIPE_ALLOW_PRIVATE", "1")
    patch.setenv("HF_ENDPOINT", state.address)
    # tests of other libraries may have set it before
    patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    patch.setattr("saliency_pipeline.storage.failures.FIRST_WAIT", 0.01)
