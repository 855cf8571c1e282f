"""A Hugging Face Hub on loopback: the endpoints that `huggingface_hub` calls to create, commit, list and download."""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

LARGE = (".h5", ".safetensors", ".png")
TOKEN = "hf_" + "x" * 34
_REPOSITORY = r"/api/(models|datasets)/([^/]+/[^/]+)"


@dataclass
class Commit:
    """Files by name: contents, and True for a large one."""

    files: dict[str, tuple[bytes, bool]]
    parent: str | None = None
    message: str = ""


@dataclass
class Repo:
    """A repository: its branches, and whether it is private."""

    private: bool
    branches: dict[str, str] = field(default_factory=dict)


class FakeHub(ThreadingHTTPServer):
    """Repositories in memory.

    Attributes:
        repos: by kind (`models`, `datasets`) and name.
        commits: by their hash.
        stored: large files that were uploaded, by SHA-256.
        requests: all requests, method and path, in order.
        sent: SHA-256 of the large files that were sent, in order.
        downloads: names of the files that were downloaded, in order.
        fail: number of large files after which uploads are refused; None for never.
        transfers: number of uploads and downloads of files so far.
        on_transfer: called with that number before each.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repos: dict[tuple[str, str], Repo] = {}
        self.commits: dict[str, Commit] = {}
        self.stored: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.sent: list[str] = []
        self.downloads: list[str] = []
        self.fail: int | None = None
        self.tokens = {TOKEN}
        self.counting = threading.Lock()
        self.transfers = 0
        self.on_transfer: Callable[[int], None] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def count_transfer(self) -> None:
        with self.counting:
            self.transfers += 1
            if self.on_transfer is not None:
                self.on_transfer(self.transfers)

    def add_commit(self, commit: Commit) -> str:
        digest = hashlib.sha1(repr((sorted(commit.files), commit.parent, len(self.commits))).encode()).hexdigest()
        self.commits[digest] = commit
        return digest

    def files(self, kind: str, name: str, revision: str = "main") -> dict[str, bytes]:
        """Contents of the files of a branch."""
        commit = self.commits[self.repos[kind, name].branches[revision]]
        return {path: data for path, (data, _) in commit.files.items()}


class Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    protocol_version = "HTTP/1.1"
    server: FakeHub

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self.route("GET")

    def do_HEAD(self) -> None:
        self.route("HEAD")

    def do_POST(self) -> None:
        self.route("POST")

    def do_PUT(self) -> None:
        self.route("PUT")

    def route(self, method: str) -> None:
        path = urlsplit(self.path).path
        self.server.requests.append(f"{method} {path}")
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        authorized = self.headers.get("Authorization", "").removeprefix("Bearer ") in self.server.tokens
        if path.startswith("/storage/"):  # signed addresses, without a token
            return self.store(path.removeprefix("/storage/"))
        routes = (
            ("POST", r"/api/repos/create", self.create),
            ("POST", r"/api/validate-yaml", lambda: self.answer({"warnings": [], "errors": []})),
            ("POST", rf"{_REPOSITORY}/branch/([^/]+)", self.branch),
            ("POST", rf"{_REPOSITORY}/preupload/([^/]+)", self.preupload),
            ("POST", r"/(datasets/)?([^/]+/[^/]+)\.git/info/lfs/objects/batch", self.batch),
            ("POST", rf"{_REPOSITORY}/commit/([^/]+)", self.commit),
            ("GET", rf"{_REPOSITORY}/tree/([^/]+)/?", self.tree),
            ("GET", rf"{_REPOSITORY}(?:/revision/([^/]+))?", self.info),
            ("HEAD", r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self.resolve),
            ("GET", r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self.resolve),
        )
        for verb, pattern, handle in routes:
            if verb == method and (match := re.fullmatch(pattern, path)):
                if method == "POST" and not authorized:
                    return self.answer({"error": "Invalid username or password."}, 401)
                parts = [unquote(part) if part else part for part in match.groups()]
                return handle(*parts)
        return self.answer({"error": f"no such endpoint: {method} {path}"}, 404)

    def answer(self, document: Any, status: int = 200, **headers: str) -> None:
        data = document if isinstance(document, bytes) else json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def missing(self, code: str) -> None:
        self.answer({"error": code}, 404, X_Error_Code=code, X_Error_Message=code)

    def repo(self, kind: str, name: str) -> Repo | None:
        repo = self.server.repos.get((kind, name))
        if repo is None or (repo.private and not self.headers.get("Authorization")):
            self.answer({"error": "Repository not found"}, 401 if not repo else 404, X_Error_Code="RepoNotFound")
            return None
        return repo

    def create(self) -> None:
        wanted = json.loads(self.body)
        kind = f"{wanted.get('type') or 'model'}s"
        name = f"{wanted['organization']}/{wanted['name']}" if wanted.get("organization") else wanted["name"]
        url = f"{self.server.url}/{'datasets/' if kind == 'datasets' else ''}{name}"
        if (kind, name) in self.server.repos:
            return self.answer({"error": "You already created this repo", "url": url}, 409)
        private = wanted.get("private", wanted.get("visibility") == "private")
        first = self.server.add_commit(Commit({".gitattributes": (b"*.h5 filter=lfs\n", False)}))
        self.server.repos[kind, name] = Repo(bool(private), {"main": first})
        return self.answer({"url": url, "name": name, "id": name})

    def branch(self, kind: str, name: str, branch: str) -> None:
        if repo := self.repo(kind, name):
            if branch in repo.branches:
                return self.answer({"error": "exists"}, 409)
            repo.branches[branch] = repo.branches["main"]
            return self.answer({})
        return None

    def preupload(self, kind: str, name: str, revision: str) -> None:
        if self.repo(kind, name):
            wanted = json.loads(self.body)["files"]
            modes = [
                {"path": f["path"], "uploadMode": "lfs" if f["path"].endswith(LARGE) else "regular"} for f in wanted
            ]
            self.answer({"files": [{**mode, "shouldIgnore": False} for mode in modes]})

    def batch(self, kind: str | None, name: str) -> None:
        objects = []
        for wanted in json.loads(self.body)["objects"]:
            upload = {"upload": {"href": f"{self.server.url}/storage/{wanted['oid']}", "header": {}}}
            objects.append(wanted if wanted["oid"] in self.server.stored else {**wanted, "actions": upload})
        self.answer({"transfer": "basic", "objects": objects})

    def store(self, oid: str) -> None:
        server = self.server
        server.count_transfer()
        if hashlib.sha256(self.body).hexdigest() != oid:
            return self.answer({"error": "other bytes"}, 400)
        with server.counting:  # files are sent at the same time
            full = server.fail is not None and len(server.sent) >= server.fail
            if not full:
                server.sent.append(oid)
                server.stored[oid] = self.body
        return self.answer({"error": "no space"}, 400) if full else self.answer({})

    def commit(self, kind: str, name: str, revision: str) -> None:
        if not (repo := self.repo(kind, name)):
            return None
        lines = [json.loads(line) for line in self.body.splitlines()]
        head = repo.branches[revision]
        if lines[0]["value"].get("parentCommit") not in (None, head):
            return self.answer({"error": "A commit has happened since."}, 412)
        files = dict(self.server.commits[head].files)
        for line in lines[1:]:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"]), False
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.server.stored[value["oid"]], True
        made = self.server.add_commit(Commit(files, head, lines[0]["value"]["summary"]))
        repo.branches[revision] = made
        return self.answer({"commitUrl": f"{self.server.url}/{name}/commit/{made}", "commitOid": made, "success": True})

    def at(self, kind: str, name: str, revision: str | None) -> tuple[str, Commit] | None:
        if not (repo := self.repo(kind, name)):
            return None
        oid = repo.branches.get(revision or "main", revision or "")
        if oid not in self.server.commits:
            self.missing("RevisionNotFound")
            return None
        return oid, self.server.commits[oid]

    def info(self, kind: str, name: str, revision: str | None = None) -> None:
        if commit := self.at(kind, name, revision):
            private = self.server.repos[kind, name].private
            self.answer({"id": name, "sha": commit[0], "private": private, "tags": [], "siblings": []})

    def tree(self, kind: str, name: str, revision: str) -> None:
        if commit := self.at(kind, name, revision):
            self.answer([self.entry(path, *file) for path, file in commit[1].files.items()])

    def entry(self, path: str, data: bytes, large: bool) -> dict[str, Any]:
        git = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        entry = {"type": "file", "path": path, "size": len(data), "oid": git}
        lfs = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
        return {**entry, "lfs": lfs} if large else entry

    def resolve(self, prefix: str | None, name: str, revision: str, path: str) -> None:
        if not (commit := self.at("datasets" if prefix else "models", name, revision)):
            return None
        oid, files = commit[0], commit[1].files
        if path not in files:
            return self.missing("EntryNotFound")
        data, large = files[path]
        entry = self.entry(path, data, large)
        etag = entry["lfs"]["oid"] if large else entry["oid"]
        if self.command == "GET":
            self.server.count_transfer()
            self.server.downloads.append(path)
        # Content-Length of a HEAD is the size of the file
        return self.answer(data, ETag=f'"{etag}"', X_Repo_Commit=oid, X_Linked_Size=str(len(data)))


@contextmanager
def serving() -> Iterator[FakeHub]:
    """A running server."""
    with FakeHub() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
