"""A store in a folder, for tests of what uses a store."""

import hashlib
import shutil
from pathlib import Path

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.files import sha256_of
from saliency_pipeline.storage.store import CHUNK, Head, Store, write_at


class LocalStore(Store):
    """The files of a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.url = folder, str(folder)

    def read(self, name: str, limit: int) -> bytes:
        return (self.folder / name).read_bytes()

    def fetch(self, name: str, file: int, size: int) -> str:
        digest, written = hashlib.sha256(), 0
        with open(self.folder / name, "rb") as source:
            while data := source.read(min(CHUNK, size - written)):
                digest.update(data)
                write_at(file, data, written)
                written += len(data)
        if written < size:
            raise SalpipeError(f"{self.folder / name}: {written:,} bytes instead of {size:,}")
        return digest.hexdigest()

    def put_file(self, name: str, path: Path, sha256: str) -> bool:
        if (self.folder / name).exists():
            return False
        shutil.copy(path, self.folder / name)
        return True

    def create(self, name: str, data: bytes) -> bool:
        try:
            with open(self.folder / name, "xb") as file:
                file.write(data)
        except FileExistsError:
            return False
        return True

    def replace(self, name: str, data: bytes) -> None:
        (self.folder / name).write_bytes(data)

    def list(self) -> dict[str, int]:
        return {path.relative_to(self.folder).as_posix(): path.stat().st_size for path in self.folder.rglob("*.*")}

    def head(self, name: str) -> Head | None:
        path = self.folder / name
        return Head(path.stat().st_size, sha256_of(path)) if path.exists() else None
