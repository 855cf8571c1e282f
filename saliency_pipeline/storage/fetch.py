"""Fetches one shard into the cache: `python -m saliency_pipeline.storage.fetch FOLDER URL NAME BYTES SHA256`.

Forked processes, in which clients of object storage hang, start it; see `Mirror.open_object`.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.storage.mirror import Mirror


def main(folder: str, url: str, name: str, size: str, sha256: str) -> int:
    """Fetch a shard; returns the exit code."""
    mirror = Mirror(Path(folder), url)
    try:
        os.close(mirror.open_object(mirror.object(name, int(size), sha256)))
    except SalpipeError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
