"""`RemoteStore`: objects under a URL that fsspec can open, such as s3://, gs:// and az://.

Objects are sent whole and never through `open(url, "wb")`, which publishes what was written so far where an exception
ends the block. The file system belongs to one process: its event loop does not survive a fork.
"""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path
from typing import Any

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.storage.failures import ChangedError, TruncatedError, code_of, retried
from saliency_pipeline.storage.store import AZURE, CHUNK, Head, Store, write_at

PART = 32 << 20
"""Bytes per part of an upload; a file of twice as many or more is sent in parts (S3)."""

_PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", **dict.fromkeys(AZURE, "adlfs")}
_EXISTS = ("PreconditionFailed", "412")


class RemoteStore(Store):
    """Objects under a URL.

    Args:
        url: without a slash at the end.
        protocol: its protocol.

    Raises:
        SalpipeError: the package for the protocol is missing.
    """

    def __init__(self, url: str, protocol: str) -> None:
        self.url, self.protocol = url, protocol
        self._lock = threading.Lock()
        self._opened: tuple[int, Any, str] | None = None
        require(url, protocol)

    def read(self, name: str, limit: int) -> bytes:
        """See `Store`."""
        data: bytes = self._call(name, lambda system, path: system.cat_file(path, start=0, end=limit + 1), empty=b"")
        if len(data) > limit:
            raise SalpipeError(f"{self.place(name)}: larger than {limit:,} bytes; delete it")
        return data

    def fetch(self, name: str, file: int, size: int) -> str:
        """See `Store`."""
        digest = hashlib.sha256()
        for start in range(0, size, CHUNK):
            end = min(size, start + CHUNK)

            def part(system: Any, path: str, start: int = start, end: int = end) -> bytes:
                data = bytes(system.cat_file(path, start=start, end=end))
                if len(data) != end - start:
                    raise TruncatedError(f"{len(data):,} bytes instead of {end - start:,}")
                return data

            data = self._call(name, part)
            digest.update(data)
            write_at(file, data, start)
        return digest.hexdigest()

    def read_range(self, name: str, start: int, end: int, tag: str = "") -> bytes:
        """Bytes from one offset of an object to another, requested once.

        Args:
            name: the object.
            start: offset of the first byte.
            end: offset behind the last one.
            tag: ETag that the object must have; empty for any. Only S3 checks it.

        Raises:
            TruncatedError: the response has fewer bytes.
            ChangedError: the object has another ETag.
            OSError: the request fails; see `failures.retried`.
        """
        system, top = self._system()
        path = f"{top}/{name}" if name else top
        try:
            if self.protocol == "s3":
                data = _range_of_s3(system, path, start, end, tag)
            else:
                data = bytes(system.cat_file(path, start=start, end=end))
        except OSError as error:
            if code_of(error) in (*_EXISTS, "InvalidRange", "416"):
                raise ChangedError("has changed since it was listed") from error
            raise
        if len(data) != end - start:
            raise TruncatedError(f"{len(data):,} bytes instead of {end - start:,}")
        return data

    def entries(self, name: str = "") -> tuple[bool, dict[str, tuple[int, str]]]:
        """Size and tag, such as the ETag, of an object, or of all objects below a name.

        Returns:
            True if the name is that of an object, whose own name is then empty; and size and tag by name.

        Raises:
            SalpipeError: the storage fails.
        """

        def find(system: Any, path: str) -> tuple[bool, dict[str, tuple[int, str]]]:
            system.invalidate_cache()
            entries = system.find(path, detail=True)
            top = path.strip("/")
            own = {name.lstrip("/"): (int(entry["size"]), _tag_of(entry)) for name, entry in sorted(entries.items())}
            if top in own:
                return True, {"": own[top]}
            return False, {each.removeprefix(f"{top}/"): facts for each, facts in own.items()}

        try:
            listed: tuple[bool, dict[str, tuple[int, str]]] = self._call(name, find)
        except FileNotFoundError:
            return False, {}
        return listed

    def put_file(self, name: str, path: Path, sha256: str) -> bool:
        """See `Store`."""
        more = self._created_with(sha256)
        if self.protocol == "s3":
            more["chunksize"] = PART

        def put(system: Any, remote: str) -> None:
            self._refuse_existing(system, remote)
            system.put_file(str(path), remote, **more)

        return self._created(name, put)

    def create(self, name: str, data: bytes) -> bool:
        """See `Store`."""
        more = self._created_with(hashlib.sha256(data).hexdigest())

        def pipe(system: Any, remote: str) -> None:
            self._refuse_existing(system, remote)
            system.pipe_file(remote, data, **more)

        return self._created(name, pipe)

    def replace(self, name: str, data: bytes) -> None:
        """See `Store`."""
        more: dict[str, Any] = {}
        if self.protocol == "s3":
            more = {"Metadata": {"sha256": hashlib.sha256(data).hexdigest()}}
        self._call(name, lambda system, path: system.pipe_file(path, data, **more))

    def list(self) -> dict[str, int]:
        """See `Store`."""

        def find(system: Any, path: str) -> dict[str, int]:
            system.invalidate_cache()
            return {name: int(entry["size"]) for name, entry in system.find(path, detail=True).items()}

        try:
            listed = self._call("", find)
        except FileNotFoundError:
            return {}
        top = self._system()[1].strip("/") + "/"
        return {name.lstrip("/").removeprefix(top): size for name, size in sorted(listed.items())}

    def head(self, name: str) -> Head | None:
        """See `Store`."""

        def info(system: Any, path: str) -> Head:
            if self.protocol == "s3":
                # the general way leaves the metadata out, and lists the folder of an object that is not there
                bucket, key, _ = system.split_path(path)
                answer = system.call_s3("head_object", Bucket=bucket, Key=key)
                return Head(int(answer["ContentLength"]), answer.get("Metadata", {}).get("sha256"))
            system.invalidate_cache()
            entry = system.info(path)
            if entry["type"] != "file":
                raise FileNotFoundError(path)
            return Head(int(entry["size"]), None)

        try:
            described: Head = self._call(name, info)
            return described
        except FileNotFoundError:
            return None

    def _created(self, name: str, call: Any) -> bool:
        """Call a function that creates an object, and return whether it did."""

        def once(system: Any, path: str) -> None:
            try:
                call(system, path)
            except OSError as error:
                if code_of(error) in _EXISTS:
                    raise FileExistsError(path) from error
                raise

        try:
            self._call(name, once)
        except FileExistsError:
            return False
        return True

    def _created_with(self, sha256: str) -> dict[str, Any]:
        """Arguments with which the protocol's package creates an object and refuses to replace one."""
        if self.protocol == "s3":
            return {"mode": "create", "Metadata": {"sha256": sha256}}
        return {"overwrite": False} if self.protocol in AZURE else {"mode": "create"}

    def _refuse_existing(self, system: Any, path: str) -> None:
        """Refuse an object that exists; of protocols with a condition of their own that one decides."""
        if self.protocol not in ("s3", "gs", "gcs") and system.exists(path):
            raise FileExistsError(path)

    def _call(self, name: str, call: Any, empty: Any = None) -> Any:
        """Call a function with the file system and the path of an object, again where that may help."""
        place = self.place(name) if name else self.url
        system, top = self._system()
        path = f"{top}/{name}" if name else top

        def once() -> Any:
            try:
                return call(system, path)
            except OSError as error:
                if empty is not None and code_of(error) in ("InvalidRange", "416"):
                    return empty
                raise

        return retried(place, once)

    def _system(self) -> tuple[Any, str]:
        """This process's file system, and the path of the URL in it."""
        with self._lock:
            if self._opened is None or self._opened[0] != os.getpid():
                from fsspec.core import url_to_fs

                # few, since those of a whole call multiply with them; but a part that fails must not cost all others
                few = {"config_kwargs": {"retries": {"total_max_attempts": 3}}} if self.protocol == "s3" else {}
                try:
                    system, path = url_to_fs(self.url, skip_instance_cache=True, use_listings_cache=False, **few)
                except ValueError as error:
                    raise SalpipeError(f"{self.url}: {error}; check the URL") from error
                if self.protocol == "s3":
                    system.retries = 1
                self._opened = os.getpid(), system, path.rstrip("/")
            return self._opened[1], self._opened[2]


def _range_of_s3(system: Any, path: str, start: int, end: int, tag: str) -> bytes:
    """A range of an object, if it has a tag; `cat_file` has no such condition."""
    from fsspec.asyn import sync

    bucket, key, _ = system.split_path(path)
    more = {"IfMatch": tag} if tag else {}

    async def get() -> bytes:
        answer = await system._call_s3("get_object", Bucket=bucket, Key=key, Range=f"bytes={start}-{end - 1}", **more)
        try:
            return bytes(await answer["Body"].read())
        finally:
            answer["Body"].close()

    return bytes(sync(system.loop, get))


def _tag_of(entry: dict[str, Any]) -> str:
    """What identifies the version of an object in a listing; empty if there is nothing."""
    names = ("ETag", "etag", "content_md5", "md5Hash", "generation", "last_modified", "LastModified", "updated")
    return next((str(entry[name]) for name in names if entry.get(name)), "")


def require(url: str, protocol: str) -> None:
    """Raise SalpipeError if a package that a URL needs is missing; the message has the command that installs it."""
    package = _PACKAGES.get(protocol, "fsspec")
    try:
        __import__("fsspec")
        __import__(package)
    except ImportError as error:
        install = "'saliency-pipeline[cloud]'" if package in ("s3fs", "fsspec") else package
        raise SalpipeError(f"{url}: needs the package {package}; pip install {install}") from error
    from fsspec import available_protocols

    if protocol not in available_protocols():
        raise SalpipeError(f"{url}: no file system is known for {protocol}://; use s3://, gs:// or az://")
