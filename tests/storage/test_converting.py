"""`convert` to object storage: the files are those of a local export, whatever is killed, and salpipe reads them."""

import json
import signal
from pathlib import Path

import pytest
from click.testing import CliRunner

from saliency_pipeline.cli.main import salpipe
from saliency_pipeline.conversion.convert import convert
from saliency_pipeline.datasets.export_file import KINDS
from saliency_pipeline.datasets.open import read_images
from saliency_pipeline.datasets.remote import read_place
from saliency_pipeline.errors import PlanMismatchError, SalpipeError
from saliency_pipeline.shards.reader import ShardFolder
from saliency_pipeline.storage.remote import RemoteStore
from tests.conversion.examples import tree
from tests.kills import kill_at_call, script


@pytest.fixture
def url(bucket: str, empty_cache: Path) -> str:
    return f"s3://{bucket}/data/export"


def stored(s3, bucket: str) -> dict[str, bytes]:
    """The objects below the URL, as `tree` has the files of a folder."""
    return {
        entry["Key"].removeprefix("data/export/"): s3.get_object(Bucket=bucket, Key=entry["Key"])["Body"].read()
        for entry in s3.list_objects_v2(Bucket=bucket).get("Contents", ())
    }


def count_uploads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A list that receives the name of every object that is sent from a file."""
    sent: list[str] = []
    put = RemoteStore.put_file
    monkeypatch.setattr(
        RemoteStore, "put_file", lambda store, name, *more: (sent.append(name), put(store, name, *more))[1]
    )
    return sent


@pytest.mark.parametrize("to", KINDS)
def test_the_files_are_those_of_a_local_export(
    shards: ShardFolder, exports: dict[str, Path], to: str, url: str, bucket: str, s3, empty_cache: Path, monkeypatch
) -> None:
    result = convert(shards.path, url, to=to)
    assert (result.folder, result.images, result.shards, result.written) == (url, 12, 3, 3)
    assert stored(s3, bucket) == tree(exports[to])
    assert list(empty_cache.glob("shards/scratch/*")) == []
    sent = count_uploads(monkeypatch)
    assert convert(shards.path, url, to=to).written == 0
    assert sent == []
    # an object that is lost is written again, alone
    lost = json.loads(stored(s3, bucket)[".receipts/shard-00001.json"])["files"][0]["name"]
    s3.delete_object(Bucket=bucket, Key=f"data/export/{lost}")
    assert convert(shards.path, url, to=to).written == 1
    assert sent == [lost]
    assert stored(s3, bucket) == tree(exports[to])


@pytest.mark.parametrize("to", KINDS)
def test_generate_reads_an_export_at_a_url(shards: ShardFolder, exports: dict[str, Path], to: str, url: str) -> None:
    convert(shards.path, url, to=to)
    local, remote = read_images(exports[to]), read_place(url)
    assert (remote.layout, remote.classes) == ("export", local.classes)
    for ours, theirs in zip(local.records, remote.records, strict=True):
        assert (ours.key, ours.label, ours.split, ours.boxes) == (theirs.key, theirs.label, theirs.split, theirs.boxes)
        assert ours.read() == theirs.read()


def killed_conversion(shards: str, url: str, to: str, method: str, moment: str) -> None:
    """A conversion that kills itself before its n-th call of a method of the store."""
    kill_at_call(RemoteStore, method, int(moment))
    convert(shards, url, to=to)


def kill(*words: object) -> None:
    process = script("tests.storage.test_converting", "killed_conversion(*sys.argv[1:])", *words)
    output = process.communicate(timeout=300)
    assert process.returncode == -signal.SIGKILL, output


def test_a_kill_between_two_files(
    shards: ShardFolder, exports: dict[str, Path], url: str, bucket: str, s3, monkeypatch
) -> None:
    kill(shards.path, url, "webdataset", "put_file", 6)
    before = stored(s3, bucket)
    assert "export.json" not in before
    assert all(tree(exports["webdataset"])[name] == data for name, data in before.items())
    sent = count_uploads(monkeypatch)
    result = convert(shards.path, url)
    assert result.written < 3
    # what was there is not sent again
    assert set(sent) == {name for name in tree(exports["webdataset"]) if name.endswith(".tar")} - set(before)
    assert stored(s3, bucket) == tree(exports["webdataset"])


@pytest.mark.slow
def test_kills_at_any_moment(shards: ShardFolder, exports: dict[str, Path], url: str, bucket: str, s3) -> None:
    """Before the identity, before a receipt, amid small files, before class names and before `export.json`."""
    for method, moment in (("create", 1), ("create", 2), ("put_file", 30), ("replace", 1), ("replace", 2)):
        kill(shards.path, url, "png", method, moment)
        assert "export.json" not in stored(s3, bucket)
    assert convert(shards.path, url, to="png").written == 0
    assert stored(s3, bucket) == tree(exports["png"])


def test_what_else_is_at_the_url_stays(
    shards: ShardFolder, exports: dict[str, Path], url: str, bucket: str, s3
) -> None:
    s3.put_object(Bucket=bucket, Key="data/export/train-00000.tar", Body=b"mine")
    with pytest.raises(SalpipeError, match=rf"^{url}: holds other files \(train-00000.tar\); choose an empty folder$"):
        convert(shards.path, url)
    assert stored(s3, bucket) == {"train-00000.tar": b"mine"}
    s3.delete_object(Bucket=bucket, Key="data/export/train-00000.tar")
    convert(shards.path, url)
    with pytest.raises(PlanMismatchError, match=f"^{url}: holds the export of other shards, or with other options"):
        convert(shards.path, url, splits=("train",))
    s3.put_object(Bucket=bucket, Key="data/export/train-00000.tar", Body=b"mine")
    with pytest.raises(SalpipeError, match=f"^{url}/train-00000.tar: missing or with other bytes than this conversion"):
        convert(shards.path, url)
    whole = tree(exports["webdataset"])
    assert stored(s3, bucket) == {**whole, "train-00000.tar": b"mine"}


def test_a_receipt_from_anyone_writes_nothing_outside(
    shards: ShardFolder, url: str, bucket: str, s3, empty_cache: Path
) -> None:
    convert(shards.path, url, to="png")
    receipt = json.loads(stored(s3, bucket)[".receipts/shard-00000.json"])
    (listed,) = (entry for entry in receipt["files"] if entry["images"])
    listed["name"] = "samples/../../../outside"
    body = json.dumps(receipt).encode()
    s3.put_object(Bucket=bucket, Key="data/export/.receipts/shard-00000.json", Body=body)
    assert convert(shards.path, url, to="png").written == 1
    assert not list(empty_cache.rglob("outside"))


def test_the_command_line(shards: ShardFolder, url: str, tmp_path: Path) -> None:
    def invoke(output: str):
        return CliRunner().invoke(salpipe, ["convert", str(shards.path), "-o", output, "--to", "parquet"])

    done = invoke(url)
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith(f"{url}: 12 images")
    assert "3 exported now" in done.stdout
    assert f"give the path {tmp_path}/tables instead" in invoke(f"file://{tmp_path}/tables").output
