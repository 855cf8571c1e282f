"""`generate` to object storage: the manifest is that of a local run, whatever is killed, fails or runs beside it."""

import hashlib
import json
import signal
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from saliency_pipeline.cli.main import salpipe
from saliency_pipeline.errors import IntegrityError, PlanMismatchError, SalpipeError
from saliency_pipeline.execution.engines import Calls
from saliency_pipeline.generation import fan_out
from saliency_pipeline.generation.job import Job
from saliency_pipeline.generation.remote import RemoteOutput
from saliency_pipeline.shards.reader import ShardFolder
from saliency_pipeline.shards.verify import verify
from saliency_pipeline.workers import WorkerDiedError
from tests.generation.examples import COMMAND, flat, kept, run
from tests.kills import kill_at_call, script
from tests.storage.s3 import Proxy

IMAGES, SHARDS = 10, 3


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten photographs, four per shard, and a file that is none. Not to be changed."""
    folder = flat(tmp_path_factory.mktemp("images"), IMAGES)
    (folder / "0.jpg").write_bytes(b"not an image")
    return folder


@pytest.fixture(scope="module")
def local(images: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What a run leaves in a folder."""
    folder = tmp_path_factory.mktemp("local") / "shards"
    run(images, folder)
    return kept(folder)


@pytest.fixture
def url(bucket: str, empty_cache: Path) -> str:
    return f"s3://{bucket}/data/shards"


def stored(s3, bucket: str) -> dict[str, bytes]:
    """The finished parts on object storage, as `kept` has those of a folder."""
    objects = {}
    for entry in s3.list_objects_v2(Bucket=bucket).get("Contents", ()):
        name = entry["Key"].removeprefix("data/shards/")
        if "/" not in name and name != "plan.json":
            objects[name] = s3.get_object(Bucket=bucket, Key=entry["Key"])["Body"].read()
    return objects


def scratch(cache: Path) -> list[Path]:
    return list(cache.glob("shards/scratch/*"))


def test_the_bytes_are_those_of_a_local_run(
    images: Path, local: dict[str, bytes], url: str, bucket: str, s3, empty_cache: Path
) -> None:
    report = run(images, url)
    assert (report.folder, report.images, report.rejects, report.written, report.complete) == (url, 10, 1, 3, True)
    assert stored(s3, bucket) == local
    assert scratch(empty_cache) == []
    head = s3.head_object(Bucket=bucket, Key="data/shards/shard-00000.h5")
    assert head["Metadata"] == {"sha256": hashlib.sha256(local["shard-00000.h5"]).hexdigest()}
    assert verify(url, deep=True).problems == ()
    again = run(images, url)
    assert (again.written, again.images, again.complete) == (0, 10, True)
    assert stored(s3, bucket) == local


@pytest.mark.slow
def test_worker_processes_send_as_well(images: Path, local: dict[str, bytes], url: str, bucket: str, s3) -> None:
    assert run(images, url, jobs=2).complete
    assert stored(s3, bucket) == local


def killed_run(images: str, url: str, method: str, moment: str) -> None:
    """A run that kills itself before its n-th call of a method of the store."""
    from saliency_pipeline.storage.remote import RemoteStore

    kill_at_call(RemoteStore, method, int(moment))
    run(Path(images), url)


def kill(images: Path, url: str, method: str, moment: int) -> None:
    process = script("tests.storage.test_generating", "killed_run(*sys.argv[1:])", images, url, method, moment)
    output = process.communicate(timeout=300)
    assert process.returncode == -signal.SIGKILL, output


@pytest.mark.slow
def test_kills_at_any_moment(images: Path, local: dict[str, bytes], url: str, bucket: str, s3) -> None:
    """Before the plan, between a shard and its receipt, before rejects and before the manifest."""
    for method, moment in (
        ("create", 1),  # the plan
        ("create", 2),  # the first receipt, after its shard: the first call is for the plan
        ("replace", 1),  # rejects, after all receipts
        ("replace", 2),  # the manifest
    ):
        kill(images, url, method, moment)
        names = set(stored(s3, bucket))
        assert "manifest.json" not in names
    assert run(images, url).complete
    assert stored(s3, bucket) == local


def forget(s3, bucket: str, *names: str) -> None:
    for name in names:
        s3.delete_object(Bucket=bucket, Key=f"data/shards/{name}")


@pytest.mark.parametrize(
    ("gone", "written"),
    [
        pytest.param(["receipts/shard-00001.json", "manifest.json"], 1, id="between a shard and its receipt"),
        pytest.param(["shard-00001.h5", "manifest.json"], 1, id="a shard is gone"),
        pytest.param(["manifest.json"], 0, id="between rejects and manifest"),
    ],
)
def test_a_run_is_finished_by_the_same_command(
    gone: list[str], written: int, images: Path, local: dict[str, bytes], url: str, bucket: str, s3
) -> None:
    run(images, url)
    forget(s3, bucket, *gone)
    report = run(images, url)
    assert (report.written, report.complete, report.rejects) == (written, True, 1)
    assert stored(s3, bucket) == local


def test_slices_one_after_the_other(images: Path, local: dict[str, bytes], url: str, bucket: str, s3) -> None:
    first = run(images, url, part=(1, 2))
    assert (first.written, first.complete) == (2, False)
    assert "manifest.json" not in stored(s3, bucket)
    assert run(images, url, part=(2, 2)).complete
    assert stored(s3, bucket) == local


def one_slice(images: str, url: str, number: str) -> None:
    """Write every second shard."""
    print(json.dumps(run(Path(images), url, part=(int(number), 2)).complete))


@pytest.mark.slow
def test_two_slices_at_the_same_time(images: Path, local: dict[str, bytes], url: str, bucket: str, s3) -> None:
    line = "one_slice(*sys.argv[1:])"
    processes = [script("tests.storage.test_generating", line, images, url, number) for number in (1, 2)]
    ended = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], ended
    assert any(output.endswith("true\n") for output, _ in ended)
    assert stored(s3, bucket) == local


def test_another_run_that_is_first_with_plan_and_shard(
    images: Path, local: dict[str, bytes], url: str, bucket: str, s3, tmp_path: Path, monkeypatch
) -> None:
    """A second run of the same work stores each object just before this one does."""
    create, put = (getattr(RemoteOutput(url, tmp_path).store.__class__, name) for name in ("create", "put_file"))
    monkeypatch.setattr(
        "saliency_pipeline.storage.remote.RemoteStore.create", lambda *words: (create(*words), create(*words))[1]
    )
    monkeypatch.setattr(
        "saliency_pipeline.storage.remote.RemoteStore.put_file", lambda *words: (put(*words), put(*words))[1]
    )
    report = run(images, url)
    assert (report.written, report.complete) == (3, True)
    assert stored(s3, bucket) == local


def test_a_shard_of_other_rounding_is_adopted(
    images: Path, url: str, bucket: str, s3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is a whole one of the same plan: other hardware made it, and was killed before the receipt."""
    run(images, url)
    key = "data/shards/shard-00001.h5"
    data = bytearray(s3.get_object(Bucket=bucket, Key=key)["Body"].read())
    import h5py

    path = tmp_path / "shard.h5"
    path.write_bytes(data)
    with h5py.File(path) as file:
        place = file["saliency/gradcam/map"].id.get_offset()
    data[place] ^= 1
    digest = hashlib.sha256(data).hexdigest()
    s3.put_object(Bucket=bucket, Key=key, Body=bytes(data), Metadata={"sha256": digest})
    forget(s3, bucket, "receipts/shard-00001.json", "manifest.json")
    assert run(images, url).complete
    assert hashlib.sha256(stored(s3, bucket)["shard-00001.h5"]).hexdigest() == digest
    assert verify(url, deep=True).problems == ()
    assert len(ShardFolder(url).labels) == IMAGES


def test_a_damaged_shard_and_one_of_another_plan_are_named(
    images: Path, local: dict[str, bytes], url: str, bucket: str, s3
) -> None:
    run(images, url)
    key = "data/shards/shard-00001.h5"
    digest = hashlib.sha256(local["shard-00001.h5"]).hexdigest()
    s3.put_object(Bucket=bucket, Key=key, Body=local["shard-00001.h5"][:-1], Metadata={"sha256": digest})
    with pytest.raises(SalpipeError, match=r"shard-00001.h5: is there already, damaged; delete it and run the same"):
        run(images, url)
    with pytest.raises(IntegrityError, match="bytes instead of the"):
        ShardFolder(url).keys()
    forget(s3, bucket, "shard-00001.h5")
    assert run(images, url).complete
    assert stored(s3, bucket) == local
    with pytest.raises(PlanMismatchError, match="encoding raw -> jpeg"):
        run(images, url, encoding="jpeg")


def test_throttling_and_lost_responses_change_nothing(
    images: Path, local: dict[str, bytes], url: str, bucket: str, s3, faulty: Proxy
) -> None:
    failed: dict[str, int] = {}

    def fault(request) -> str | None:
        kind = f"{request.method} {request.path}"
        failed[kind] = failed.get(kind, 0) + 1
        return {1: "503", 2: "lose"}.get(failed[kind])

    faulty.fault = fault
    assert run(images, url).complete
    faulty.fault = lambda request: None
    assert stored(s3, bucket) == local
    assert max(failed.values()) >= 3


def test_what_a_killed_run_left_in_its_scratch_folder_is_sent(
    images: Path, local: dict[str, bytes], url: str, bucket: str, s3, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> bool:
        raise SalpipeError("the store is gone")

    with monkeypatch.context() as patch:
        patch.setattr("saliency_pipeline.storage.remote.RemoteStore.put_file", fail)
        with pytest.raises(SalpipeError, match="the store is gone"):
            run(images, url)
    report = run(images, url)
    assert report.complete
    assert report.written < SHARDS
    assert stored(s3, bucket) == local


def test_what_a_dying_worker_wrote_and_did_not_send_is_sent(
    images: Path, local: dict[str, bytes], url: str, bucket: str, s3, monkeypatch: pytest.MonkeyPatch
) -> None:
    deaths = ["SIGKILL"]

    @contextmanager
    def opened(*_: object) -> Iterator[Calls]:
        def calls(function: Callable[..., Any], each: Iterable[tuple[Any, ...]]) -> Generator[Any]:
            for call in each:
                if not deaths:
                    yield function(*call)
                    continue
                with monkeypatch.context() as patch:
                    patch.setattr(Job, "send", lambda _, receipt: receipt)
                    function(*call)
                raise WorkerDiedError(deaths.pop())

        yield calls

    monkeypatch.setattr(fan_out, "open_engine", opened)
    report = run(images, url, jobs=2)
    assert (report.written, report.complete, deaths) == (3, True, [])
    assert stored(s3, bucket) == local


def test_a_scratch_folder_binds_nobody_and_is_not_named(
    images: Path, url: str, bucket: str, s3, empty_cache: Path
) -> None:
    run(images, url)
    (place,) = [RemoteOutput.of(url, (1, 1))]
    assert place is not None
    with pytest.raises(PlanMismatchError) as refused:
        run(images, url, size=32)
    assert str(refused.value).startswith(f"{url} holds the shards of another plan (size 64 -> 32)")
    # what a killed run left, of shards that were deleted since
    place.scratch.mkdir(parents=True, exist_ok=True)
    (place.scratch / "plan.json").write_bytes(s3.get_object(Bucket=bucket, Key="data/shards/plan.json")["Body"].read())
    (place.scratch / "shard-00000.h5").write_bytes(b"left")
    for entry in s3.list_objects_v2(Bucket=bucket)["Contents"]:
        s3.delete_object(Bucket=bucket, Key=entry["Key"])
    assert run(images, url, size=32).complete


def test_the_number_of_requests_is_that_of_the_documentation(images: Path, url: str, faulty: Proxy) -> None:
    run(images, url)
    count = {
        method: sum(r.method == method and "list-type" not in r.path for r in faulty.requests)
        for method in ("PUT", "POST", "GET", "HEAD")
    }
    assert count == {"PUT": 2 * SHARDS + 3, "POST": 0, "GET": 1, "HEAD": 2}
    assert sum("list-type" in r.path for r in faulty.requests) <= 2
    faulty.requests.clear()
    assert len(ShardFolder(url).keys()) == IMAGES
    assert [r.method for r in faulty.requests].count("HEAD") == SHARDS
    assert [r.method for r in faulty.requests].count("GET") == SHARDS + 2


def test_the_command_line(images: Path, url: str, bucket: str, s3, tmp_path: Path) -> None:
    def invoke(*words: object) -> Result:
        return CliRunner().invoke(salpipe, [str(word) for word in words])

    dry = invoke("generate", images, "-o", url, *COMMAND, "--dry-run", "--json")
    assert (dry.exit_code, json.loads(dry.stdout)["images"]) == (0, 11)
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0
    done = invoke("generate", images, "-o", url, *COMMAND, "--max-rejects", 1)
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith(f"{url}: 10 images in 3 shards (3 written now), 1 rejected; complete")
    refused = invoke("train", url, "-o", f"s3://{bucket}/run")
    assert refused.exit_code == 2
    assert "is a URL; give a folder of this host" in " ".join(refused.output.split())
    local = invoke("generate", images, "-o", f"file://{tmp_path}/shards", *COMMAND)
    assert f"give the path {tmp_path}/shards instead" in local.output


def test_a_missing_bucket_is_named(images: Path, url: str) -> None:
    with pytest.raises(SalpipeError, match=r"s3://no-such-bucket/shards/plan.json: there is no such bucket"):
        run(images, "s3://no-such-bucket/shards")
