"""`Mirror`: the folder in the cache that stands for a finished folder of shards on object storage.

It has the manifest and the rejects; a shard is fetched when it is first read. All that reads shards takes the folder's
path as that of any other folder, in worker processes as well.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from saliency_pipeline.documents import MAX_BYTES, read_json
from saliency_pipeline.errors import IntegrityError, SalpipeError
from saliency_pipeline.files import disk_errors_explained, write_atomically
from saliency_pipeline.storage.cache import LOCKS, CachedObject, ShardCache
from saliency_pipeline.storage.settings import FOLDER, CacheSettings
from saliency_pipeline.storage.store import Store, is_url, open_store

MANIFEST, REJECTS, ORIGIN = "manifest.json", "rejects.jsonl", "origin.json"
_MOST_REJECTS = 2**28
_FILE = "file://"
_KEY = re.compile("[0-9a-f]{64}")
# the process whose threads may use the network; a child that was forked from it has another number
_PROCESS = os.getpid()


@dataclass(frozen=True)
class Mirror:
    """A folder in the cache.

    Attributes:
        folder: its path.
        url: the folder on object storage.
    """

    folder: Path
    url: str

    @classmethod
    def open(cls, url: str) -> Mirror:
        """The folder for a URL; the manifest is requested, so that it is the one that is there now.

        Raises:
            SalpipeError: there is no finished folder, or it cannot be read or stored.
        """
        store = open_store(url)
        try:
            manifest = store.read(MANIFEST, MAX_BYTES)
        except FileNotFoundError:
            raise SalpipeError(
                f"{url}: not a finished salpipe folder; check the URL, or run 'salpipe generate' again to finish it"
            ) from None
        folder = CacheSettings.current().folder / hashlib.sha256(manifest).hexdigest() / store.url.rpartition("/")[2]
        mirror = cls(folder, store.url)
        if mirror != cls.at(folder):
            with disk_errors_explained(folder):
                (folder / LOCKS).mkdir(parents=True, exist_ok=True)
            try:
                write_atomically(folder / REJECTS, store.read(REJECTS, _MOST_REJECTS))
            except FileNotFoundError:
                raise IntegrityError(f"{store.place(REJECTS)}: missing; run 'salpipe generate' again") from None
            write_atomically(folder / MANIFEST, manifest)
            write_atomically(folder / ORIGIN, json.dumps({"url": store.url}) + "\n")
        return mirror

    @classmethod
    def at(cls, path: Path | str) -> Mirror | None:
        """The mirror at a path; None for any other path. Only the folder of the cache has mirrors.

        What is elsewhere comes from anyone, and must not make salpipe request a URL.
        """
        place = Path(os.path.abspath(path))
        if not _KEY.fullmatch(place.parent.name) or place.parent.parent != CacheSettings.current().folder:
            return None
        try:
            url = read_json(place / ORIGIN)["url"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return cls(place, url) if is_url(url) else None

    def object(self, name: str, bytes: int, sha256: str) -> CachedObject:
        """A shard of the folder, as the manifest describes it."""
        return CachedObject(self.folder, name, bytes, sha256)

    def open_object(self, wanted: CachedObject) -> int:
        """Open a shard, and fetch it if it is not there; see `ShardCache.open`. Works in forked processes as well."""
        cache = ShardCache()
        if os.getpid() == _PROCESS:
            return cache.open(wanted, self.store)
        # what was fetched may be removed again before it is opened
        while (file := cache.present(wanted)) is None:
            self._fetch_elsewhere(wanted)
        return file

    @contextmanager
    def held(self, wanted: CachedObject) -> Iterator[None]:
        """Keep a shard in the cache while a block runs."""
        file = self.open_object(wanted)
        try:
            yield
        finally:
            os.close(file)

    def store(self) -> Store:
        """The store of the folder, one per process."""
        return kept_store(self.url)

    def _fetch_elsewhere(self, wanted: CachedObject) -> None:
        """Fetch a shard in a process of its own: clients of object storage hang in forked ones.

        Raises:
            IntegrityError, SalpipeError: as `ShardCache.open`.
        """
        words = [str(self.folder), self.url, wanted.name, str(wanted.bytes), wanted.sha256]
        command = [sys.executable, "-m", "saliency_pipeline.storage.fetch", *words]
        path = os.pathsep.join(filter(None, sys.path))
        environment = os.environ | {"PYTHONPATH": path, FOLDER: str(self.folder.parent.parent)}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        if done.returncode:
            kind = IntegrityError if done.returncode == IntegrityError.exit_code else SalpipeError
            raise kind(done.stderr.strip().rpartition("\n")[2] or f"{self.url}/{wanted.name}: was not fetched")


_stores: dict[tuple[int, str], Store] = {}


def kept_store(url: str) -> Store:
    """The store at a URL, one per process, since opening one takes a connection."""
    key = os.getpid(), url
    if key not in _stores:
        _stores[key] = open_store(url)
    return _stores[key]


def local_folder(place: Path | str) -> Path:
    """The folder of a path or URL on this host; that of a URL is a mirror.

    Raises:
        SalpipeError: there is no finished folder at the URL.
    """
    if not is_url(place):
        return Path(place)
    assert isinstance(place, str)
    return Path(place.removeprefix(_FILE)) if place.startswith(_FILE) else Mirror.open(place).folder


def origin_of(path: Path) -> str:
    """What names a folder of shards on any host: its URL, or its path without links."""
    mirror = Mirror.at(path)
    return mirror.url if mirror else str(path.resolve())


def recorded_folder(place: str) -> str:
    """A place that a file names, if shards may be opened there: a URL only if this host has read from it before.

    A run or comparison may come from anyone, and must not make salpipe send requests to a place of its choice.

    Raises:
        SalpipeError: it is a URL of which nothing is in the cache.
    """
    if is_url(place):
        folder = CacheSettings.current().folder
        mirrors = (Mirror.at(path.parent) for path in folder.glob(f"*/*/{ORIGIN}"))
        if not any(mirror is not None and mirror.url == place for mirror in mirrors):
            raise SalpipeError(f"{place}: nothing of it is in the cache of this host; give it as SHARDS")
    return place
