"""Pretrained weights of the libraries: lookup in their caches, and download."""

from __future__ import annotations

import re
import sys
import urllib.request
from pathlib import Path
from urllib.parse import urlparse

import torch

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.text import one_line

HUB_FILES = ("model.safetensors", "pytorch_model.bin")
CONNECT_SECONDS = 5.0


def hub_cached(repo: str) -> Path | None:
    """The cached weights of a Hugging Face repository, or None."""
    from huggingface_hub import try_to_load_from_cache

    for file in HUB_FILES:
        path = try_to_load_from_cache(repo, file)
        if isinstance(path, str):
            return Path(path)
    return None


def url_cached(url: str) -> Path | None:
    """The file that `torch.hub` has cached for a URL, or None."""
    path = _hub_dir_file(url)
    return path if path.is_file() else None


def hub_file(name: str, repo: str) -> Path:
    """The weights of a Hugging Face repository, from the cache or downloaded into it.

    A cached file is used without network access. Otherwise one short request checks that the repository can be
    reached: the library's own download retries for most of a minute.

    Raises:
        SalpipeError: The weights are not cached and cannot be downloaded.
    """
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError

    if cached := hub_cached(repo):
        return cached
    try:
        for file in HUB_FILES:
            try:
                huggingface_hub.get_hf_file_metadata(huggingface_hub.hf_hub_url(repo, file), timeout=CONNECT_SECONDS)
            except EntryNotFoundError:
                continue
            return Path(huggingface_hub.hf_hub_download(repo, file))
    except Exception as error:  # the HTTP library, and with it the error, differs between versions
        raise _unavailable(name, error) from error
    raise _unavailable(name, f"{repo} holds neither {' nor '.join(HUB_FILES)}")


def hub_folder(name: str, repo: str, *, weights: bool) -> Path:
    """The folder with a repository's `config.json` and, if asked for, its weights, downloaded if they are not cached.

    Args:
        name: the model's name in messages.
        repo: `OWNER/NAME`, or `OWNER/NAME@REVISION`.
        weights: True if the weights are needed.

    Raises:
        SalpipeError: a file is not cached and cannot be downloaded.
    """
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError

    repo, _, revision = repo.partition("@")
    try:
        cached = huggingface_hub.try_to_load_from_cache(repo, "config.json", revision=revision or None)
        if not isinstance(cached, str):
            url = huggingface_hub.hf_hub_url(repo, "config.json", revision=revision or None)
            huggingface_hub.get_hf_file_metadata(url, timeout=CONNECT_SECONDS)
            cached = huggingface_hub.hf_hub_download(repo, "config.json", revision=revision or None)
        folder = Path(cached).parent
        if not weights or any((folder / file).is_file() for file in HUB_FILES):
            return folder
        for file in HUB_FILES:
            try:
                # the folder is named by the commit: both files are of one revision
                url = huggingface_hub.hf_hub_url(repo, file, revision=folder.name)
                huggingface_hub.get_hf_file_metadata(url, timeout=CONNECT_SECONDS)
            except EntryNotFoundError:
                continue
            return Path(huggingface_hub.hf_hub_download(repo, file, revision=folder.name)).parent
        reason: object = f"{repo} holds neither {' nor '.join(HUB_FILES)}"
    except Exception as error:  # as in `hub_file`
        reason = error
    raise SalpipeError(
        f"{name}: not cached and cannot be downloaded ({one_line(reason)}); check the name and the network, or copy "
        "the repository and use local-dir:FOLDER"
    )


def url_file(name: str, url: str) -> Path:
    """The weights at a URL, from `torch.hub`'s cache or downloaded into it.

    Raises:
        SalpipeError: The weights are not cached and cannot be downloaded.
    """
    if cached := url_cached(url):
        return cached
    path = _hub_dir_file(url)
    digest = re.search(r"-([0-9a-f]{8,})\.", path.name)
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=CONNECT_SECONDS):
            pass
        path.parent.mkdir(parents=True, exist_ok=True)
        prefix = digest.group(1) if digest else None
        torch.hub.download_url_to_file(url, str(path), prefix, progress=sys.stderr.isatty())
    except (OSError, RuntimeError) as error:
        raise _unavailable(name, error) from error
    return path


def _hub_dir_file(url: str) -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(url).path).name


def _unavailable(name: str, reason: object) -> SalpipeError:
    return SalpipeError(
        f"{name}: its weights are not cached and cannot be downloaded ({one_line(reason)}); "
        "use the embedded 'efficientnet_lite0' or --weights PATH"
    )
