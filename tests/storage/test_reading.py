"""Shards on object storage are read through the cache as those of a folder, by every command."""

import json
import os
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.torch import load_file

from saliency_pipeline.cli.main import salpipe
from saliency_pipeline.errors import IntegrityError, SalpipeError
from saliency_pipeline.progress import Progress
from saliency_pipeline.shards.manifest import Manifest
from saliency_pipeline.shards.reader import ShardFolder
from saliency_pipeline.shards.verify import verify
from saliency_pipeline.storage import settings
from saliency_pipeline.training.config import TrainConfig
from saliency_pipeline.training.run import train
from tests.kills import script
from tests.storage.s3 import Proxy
from tests.training.examples import labeled

IMAGES, SHARDS = 48, 4


@pytest.fixture(scope="session")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished folder of four shards. Not to be changed."""
    return labeled(tmp_path_factory.mktemp("labeled") / "shards", IMAGES, SHARDS)


@pytest.fixture
def shard_size(local: Path) -> int:
    return (local / "shard-00000.h5").stat().st_size


@pytest.fixture
def url(local: Path, bucket: str, s3, empty_cache: Path) -> str:
    """The same on object storage; nothing of it is in the cache."""
    for path in local.iterdir():
        if path.is_file():
            s3.upload_file(str(path), bucket, f"data/shards/{path.name}")
    return f"s3://{bucket}/data/shards"


def files_of(cache: Path) -> list[Path]:
    """All files of shards in the cache, those that are being fetched as well."""
    return sorted(path for path in cache.rglob("*.h5") if path.parent.name != "locks")


def bytes_at_one_moment(cache: Path) -> int:
    """Bytes that the cache held together, at least; 0 when a file came or went while they were counted."""
    try:
        files = files_of(cache)
        total = sum(path.stat().st_size for path in files)
        return total if files_of(cache) == files else 0
    except FileNotFoundError:
        return 0


def same(a: ShardFolder, b: ShardFolder) -> None:
    assert a.header == b.header
    assert a.keys() == b.keys()
    everything = np.random.default_rng(0).permutation(len(a))
    np.testing.assert_array_equal(a.labels, b.labels)
    np.testing.assert_array_equal(a.images_at(everything), b.images_at(everything))
    for method in a.methods:
        np.testing.assert_array_equal(a.stored_maps_at(everything, method), b.stored_maps_at(everything, method))
        np.testing.assert_array_equal(a.scales_at(everything, method), b.scales_at(everything, method))
    assert [pair.key for pair in a] == [pair.key for pair in b]
    np.testing.assert_array_equal(a[5].maps["gradcam"], b[5].maps["gradcam"])


def test_the_same_is_read(local: Path, url: str) -> None:
    folder = ShardFolder(url)
    same(folder, ShardFolder(local))
    assert folder.origin == url
    assert folder.path.name == "shards"


def test_each_shard_is_fetched_once(local: Path, url: str, faulty: Proxy) -> None:
    for _ in range(2):
        same(ShardFolder(url), ShardFolder(local))
    assert [faulty.count("GET", f"shard-{number:05d}.h5") for number in range(SHARDS)] == [1] * SHARDS
    assert faulty.count("GET", "manifest.json") == 2


def test_a_cache_of_two_shards_stays_within_its_limit(
    local: Path, url: str, empty_cache: Path, shard_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = int(2.5 * shard_size)
    monkeypatch.setenv(settings.SIZE, str(limit))
    largest, over = [0], threading.Event()

    def watch() -> None:
        while not over.wait(0.001):
            largest[0] = max(largest[0], bytes_at_one_moment(empty_cache))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        same(ShardFolder(url), ShardFolder(local))
    finally:
        over.set()
        watcher.join()
    assert 0 < largest[0] <= limit


def test_a_cache_that_is_too_small_fetches_a_shard_once_for_its_small_columns(
    url: str, faulty: Proxy, shard_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(settings.SIZE, str(int(1.5 * shard_size)))
    folder = ShardFolder(url)
    everything = np.arange(len(folder))
    for _ in range(2):
        assert len(folder.labels) == len(folder.splits) == len(folder.keys()) == IMAGES
        folder.scales_at(everything, "gradcam")
        folder.flags("gradcam")
    assert sum(faulty.count("GET", f"shard-{number:05d}.h5") for number in range(SHARDS)) == SHARDS


def test_an_altered_object_is_fetched_again_or_named(url: str, local: Path, bucket: str, s3, faulty: Proxy) -> None:
    # on the way: the first response has other bytes
    key = "data/shards/shard-00001.h5"
    whole = (local / "shard-00001.h5").read_bytes()
    spoilt = bytearray(whole)
    spoilt[len(whole) // 2] ^= 1
    s3.put_object(Bucket=bucket, Key=key, Body=bytes(spoilt))

    def restore(request) -> None:
        if request.method == "GET" and request.path.endswith(key) and faulty.count("GET", key) == 2:
            s3.put_object(Bucket=bucket, Key=key, Body=whole)

    faulty.fault = restore
    assert len(ShardFolder(url).labels) == IMAGES
    # in the store
    s3.put_object(Bucket=bucket, Key="data/shards/shard-00002.h5", Body=bytes(spoilt))
    report = verify(url, deep=True)
    assert report.damaged == ("shard-00002.h5",)
    assert f"{url}/shard-00002.h5: its SHA-256 is" in str(report.problems[0])
    with pytest.raises(IntegrityError, match=f"{url}/shard-00002.h5: its SHA-256 is .* twice in succession"):
        ShardFolder(url).images_at(np.arange(IMAGES))


def test_another_manifest_at_the_same_url_is_seen(url: str, bucket: str, s3, tmp_path: Path) -> None:
    first = ShardFolder(url).labels
    other = labeled(tmp_path / "other", IMAGES, SHARDS, seed=3, unlabeled=4)
    for path in other.iterdir():
        s3.upload_file(str(path), bucket, f"data/shards/{path.name}")
    folder = ShardFolder(url)
    np.testing.assert_array_equal(folder.labels, ShardFolder(other).labels)
    assert (folder.labels != first).any()


def test_a_folder_that_is_not_finished_is_named(bucket: str, url: str) -> None:
    with pytest.raises(SalpipeError, match=f"s3://{bucket}/data: not a finished salpipe folder; check the URL"):
        ShardFolder(f"s3://{bucket}/data")


def test_a_file_outside_the_cache_leads_nowhere(local: Path, tmp_path: Path) -> None:
    """A folder from anyone that looks as one of the cache makes no requests."""
    place = tmp_path / ("a" * 64) / "shards"
    place.mkdir(parents=True)
    (place / "manifest.json").write_bytes((local / "manifest.json").read_bytes())
    (place / "origin.json").write_text(json.dumps({"url": "s3://bucket/shards"}))
    folder = ShardFolder(place)
    assert folder.mirror is None
    with pytest.raises(IntegrityError, match=r"shard-00000.h5: missing"):
        _ = folder.labels


@pytest.mark.slow
def test_forked_processes_read_as_well(url: str, local: Path, faulty: Proxy) -> None:
    """The client of this process has been used, and would hang in a fork."""
    folder = ShardFolder(url)
    first = folder.images_at(np.arange(4))
    child = os.fork()
    if child == 0:
        code = 1
        try:
            same(ShardFolder(folder.path), ShardFolder(local))
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    np.testing.assert_array_equal(folder.images_at(np.arange(4)), first)
    assert [faulty.count("GET", f"shard-{number:05d}.h5") for number in range(SHARDS)] == [1] * SHARDS


def read_all(url: str) -> None:
    """Read all images and maps."""
    folder = ShardFolder(url)
    for _ in range(3):
        print(int(folder.images_at(np.arange(len(folder))).sum()))


@pytest.mark.slow
def test_two_processes_fetch_each_shard_once(url: str, faulty: Proxy) -> None:
    processes = [script("tests.storage.test_reading", "read_all(sys.argv[1])", url) for _ in range(2)]
    ended = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], ended
    assert ended[0][0] == ended[1][0]
    assert [faulty.count("GET", f"shard-{number:05d}.h5") for number in range(SHARDS)] == [1] * SHARDS


TRAINING = TrainConfig(
    backbone="test_resnet",
    weights="none",
    init="scratch",
    epochs=2,
    batch_size=8,
    device="cpu",
    precision="fp32",
    search_duplicates=False,
)


class Notes(Progress):
    """Keeps all notes."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def note(self, text: str) -> None:
        self.texts.append(text)


def weights(folder: Path) -> dict[str, bytes]:
    """The bytes of every tensor, without what a run records about itself."""
    return {name: tensor.numpy().tobytes() for name, tensor in load_file(folder / "last.safetensors").items()}


@pytest.mark.slow
def test_blocks_fetch_each_shard_once_per_epoch(
    local: Path, url: str, tmp_path: Path, shard_size: int, faulty: Proxy, monkeypatch, without_plots: None
) -> None:
    """With the order that the note offers, recorded with the run, and the same weights as from files."""
    config = replace(TRAINING, shuffle="blocks=1", epochs=3, batch_size=2)
    monkeypatch.setenv(settings.SIZE, str(int(2.5 * shard_size)))
    train(local, tmp_path / "local", config)
    train(url, tmp_path / "remote", config)
    assert weights(tmp_path / "local") == weights(tmp_path / "remote")
    assert TrainConfig.read(tmp_path / "remote") == TrainConfig.read(tmp_path / "local")
    assert json.loads((tmp_path / "remote" / "provenance.json").read_text())["shuffle"] == [0, 1]
    # set-up, three epochs, and of the start and the validation, which stays in memory, one batch with images of all
    # shards: first the images are read, then the maps
    fetched = [faulty.count("GET", f"shard-{number:05d}.h5") for number in range(SHARDS)]
    assert max(fetched) <= 1 + 3 + 2 + 2


@pytest.mark.slow
def test_weights_from_object_storage_equal_those_from_files(
    local: Path, url: str, tmp_path: Path, shard_size: int, monkeypatch: pytest.MonkeyPatch, without_plots: None
) -> None:
    """Bit for bit, also with a cache that is smaller than the data set."""
    train(local, tmp_path / "local", TRAINING)
    train(url, tmp_path / "remote", TRAINING)
    monkeypatch.setenv(settings.SIZE, str(int(2.5 * shard_size)))
    monkeypatch.setenv(settings.FOLDER, str(tmp_path / "small"))
    notes = Notes()
    train(url, tmp_path / "small-cache", TRAINING, progress=notes)
    assert weights(tmp_path / "local") == weights(tmp_path / "remote") == weights(tmp_path / "small-cache")
    assert any("use --shuffle blocks=1, with which every epoch fetches each once" in text for text in notes.texts)
    record = json.loads((tmp_path / "remote" / "provenance.json").read_text())
    assert record["shards"]["path"] == url


def invoke(*words: object) -> str:
    result = CliRunner().invoke(salpipe, [str(word) for word in words])
    assert result.exit_code == 0, (result.output, result.exception)
    return result.output


@pytest.mark.slow
def test_commands_take_the_url(
    url: str, local: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, without_plots: None
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in (settings.FOLDER, settings.SIZE):
        # so that what the commands set is undone
        monkeypatch.setenv(name, "unset")
        monkeypatch.delenv(name)
    cache = ("--cache", tmp_path / "own-cache", "--cache-size", "1G")
    there, here = (json.loads(invoke("inspect", place, "--json", *cache)) for place in (url, local))
    assert there == {**here, "path": url}
    assert invoke("verify", url, "--deep", *cache) == f"{url}: 48 images in 4 shards, hashes and values intact\n"
    invoke("show", url, "--count", 4, *cache)
    assert (tmp_path / "shards-gallery" / "gallery.html").is_file()
    options = ("--backbone", "test_resnet", "--weights", "none", "--init", "scratch", "--epochs", 1)
    invoke("train", url, "-o", "run", *options, "--no-search-duplicates", *cache)
    invoke("evaluate", "run", url, "--split", "test", *cache)
    assert (tmp_path / "run" / "evaluation-test" / "evaluation.json").is_file()
    assert len(files_of(tmp_path / "own-cache")) == SHARDS
    assert Manifest.read(next((tmp_path / "own-cache").glob("*/shards"))) == Manifest.read(local)


def test_a_bad_size_of_the_cache_is_refused(url: str) -> None:
    result = CliRunner().invoke(salpipe, ["inspect", url, "--cache-size", "lots"])
    assert result.exit_code == 2
    assert "--cache-size lots: not a size" in result.output
