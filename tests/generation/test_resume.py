"""Runs that were killed, interrupted or damaged are resumed by the same command."""

import json
import os
import random
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.shards.verify import verify
from saliency_pipeline.temporaries import temporary_name
from tests.generation.examples import COMMAND, flat, kept, receipts, run, temporaries
from tests.kills import kill_again_and_again, script, wait_for_stop


def shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("shard-*.h5"))


def receipt(folder: Path, number: int) -> Path:
    return folder / "receipts" / f"shard-{number:05d}.json"


def unfinished(folder: Path, whole: int) -> None:
    """As after a kill when a number of shards, and none after them, were finished."""
    for number, path in enumerate(shards(folder)):
        if number >= whole:
            path.unlink()
            receipt(folder, number).unlink()
    (folder / "manifest.json").unlink()
    (folder / "rejects.jsonl").unlink()


def between_shard_and_receipt(folder: Path) -> None:
    unfinished(folder, 2)
    receipt(folder, 1).unlink()


def with_temporaries_of_the_dead(folder: Path) -> None:
    unfinished(folder, 1)
    for place in (folder / "shard-00001.h5", folder / "plan.json", receipt(folder, 1)):
        temporary_name(place).write_bytes(b"half")


@pytest.mark.parametrize(
    ("state", "written"),
    [
        pytest.param(lambda folder: unfinished(folder, 0), 4, id="right after the plan"),
        pytest.param(between_shard_and_receipt, 3, id="after a shard, before its receipt"),
        pytest.param(lambda folder: unfinished(folder, 3), 1, id="between two shards"),
        pytest.param(lambda folder: unfinished(folder, 4), 0, id="after all receipts, before the manifest"),
        pytest.param(lambda folder: (folder / "manifest.json").unlink(), 0, id="between rejects and manifest"),
        pytest.param(with_temporaries_of_the_dead, 3, id="amid a shard"),
    ],
)
def test_a_killed_run_is_finished_by_the_same_command(
    images: Path, finished: Path, copied: Path, state: Callable[[Path], object], written: int
) -> None:
    state(copied)
    before = {path.name: path.stat().st_mtime_ns for path in shards(copied)}
    report = run(images, copied)
    assert (report.written, report.complete, report.images, report.rejects) == (written, True, 12, 2)
    assert kept(copied) == kept(finished)
    assert temporaries(copied) == []
    untouched = [path.name for path in shards(copied) if before.get(path.name) == path.stat().st_mtime_ns]
    assert len(untouched) == 4 - written


def flip(path: Path, position: float = 0.9) -> None:
    data = bytearray(path.read_bytes())
    data[int(len(data) * position)] ^= 1
    path.write_bytes(data)


def truncate(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def device(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def hole(path: Path) -> None:
    os.truncate(path, 10 * 2**30)


def claims_nothing(folder: Path) -> None:
    """Let the receipt say that its shard has no bytes, as a pipe does."""
    data = json.loads(receipt(folder, 1).read_text())
    data["shard"]["bytes"] = 0
    receipt(folder, 1).write_text(json.dumps(data))


SHARD = "shard-00001.h5"


@pytest.mark.parametrize(
    ("damage", "named", "written"),
    [
        pytest.param(lambda f: flip(f / SHARD), SHARD, 1, id="a bit of the frames"),
        pytest.param(lambda f: flip(f / SHARD, 0.001), SHARD, 1, id="a bit of the structure"),
        pytest.param(lambda f: truncate(f / SHARD), SHARD, 1, id="a truncated shard"),
        pytest.param(lambda f: (f / SHARD).write_bytes(b""), SHARD, 1, id="an empty shard"),
        pytest.param(lambda f: (f / SHARD).unlink(), SHARD, 1, id="a missing shard"),
        pytest.param(lambda f: shutil.copy(f / "shard-00000.h5", f / SHARD), SHARD, 1, id="another shard in its place"),
        pytest.param(lambda f: truncate(f / "manifest.json"), "manifest.json", 0, id="a truncated manifest"),
        pytest.param(lambda f: (f / "manifest.json").write_text("[]"), "manifest.json", 0, id="another manifest"),
        pytest.param(lambda f: (f / "rejects.jsonl").unlink(), "rejects.jsonl", 0, id="missing rejects"),
        # Receipts are for resuming alone: nothing that is read later depends on them.
        pytest.param(lambda f: receipt(f, 1).unlink(), None, 1, id="a missing receipt"),
        pytest.param(lambda f: truncate(receipt(f, 1)), None, 1, id="a truncated receipt"),
        pytest.param(lambda f: receipt(f, 1).write_text("{}"), None, 1, id="an empty receipt"),
        pytest.param(lambda f: shutil.copy(receipt(f, 0), receipt(f, 1)), None, 1, id="another receipt in its place"),
        # what is no regular file neither blocks nor fills memory, and what is nested without end is no receipt
        pytest.param(lambda f: receipt(f, 1).write_text("[" * 100_000), None, 1, id="a receipt nested too deeply"),
        pytest.param(lambda f: pipe(receipt(f, 1)), None, 1, id="a pipe for a receipt"),
        pytest.param(lambda f: device(receipt(f, 1)), None, 1, id="a device for a receipt"),
        pytest.param(lambda f: hole(receipt(f, 1)), None, 1, id="a receipt of 10 GB"),
        pytest.param(lambda f: pipe(f / SHARD), SHARD, 1, id="a pipe for a shard"),
        pytest.param(lambda f: device(f / SHARD), SHARD, 1, id="a device for a shard"),
        pytest.param(lambda f: (pipe(f / SHARD), claims_nothing(f)), SHARD, 1, id="a pipe for a shard of no bytes"),
        pytest.param(lambda f: pipe(f / "rejects.jsonl"), "rejects.jsonl", 0, id="a pipe for rejects"),
        pytest.param(lambda f: device(f / "rejects.jsonl"), "rejects.jsonl", 0, id="a device for rejects"),
        pytest.param(lambda f: pipe(f / "manifest.json"), "manifest.json", 0, id="a pipe for a manifest"),
        pytest.param(lambda f: device(f / "manifest.json"), "manifest.json", 0, id="a device for a manifest"),
    ],
)
def test_only_what_is_damaged_is_written_again(
    images: Path, finished: Path, copied: Path, damage: Callable[[Path], object], named: str | None, written: int
) -> None:
    damage(copied)
    assert verify(copied, deep=True).damaged == ((named,) if named else ())
    before = {path.name: path.stat().st_mtime_ns for path in shards(copied) if path.name != SHARD}
    report = run(images, copied)
    assert (report.written, report.complete) == (written, True)
    assert kept(copied) == kept(finished)
    assert before == {path.name: path.stat().st_mtime_ns for path in shards(copied) if path.name != SHARD}
    assert verify(copied, deep=True).problems == ()


def test_a_finished_folder_is_only_read(images: Path, copied: Path) -> None:
    def times() -> dict[str, int]:
        return {path.name: path.stat().st_mtime_ns for path in copied.rglob("*") if path.is_file()}

    before = times()
    assert run(images, copied).written == 0
    assert times() == before


def killed_again_and_again(images: str, output: str, moments: str, options: str) -> None:
    """Run in children that kill themselves, and print how many receipts each of them left."""
    folder = Path(output)
    kill_again_and_again(
        lambda: run(Path(images), folder, shard_size=1, **json.loads(options)),
        output,
        json.loads(moments),
        lambda: len(receipts(folder)),
    )


THREE_SHARDS = 25
"""Accesses to temporary files that the plan and three shards take."""


def stopped(images: Path, output: Path) -> subprocess.Popen[str]:
    """A run that has finished its first shards and stands still."""
    stopping = (
        f"from tests.kills import signal_itself; signal_itself(sys.argv.pop(1), {int(signal.SIGSTOP)}, {THREE_SHARDS})"
    )
    process = script("saliency_pipeline.cli.main", f"{stopping}; main()", output, *arguments(images, output))
    wait_for_stop(process)
    assert receipts(output)
    return process


def arguments(images: Path, output: Path) -> list[object]:
    return ["generate", images, "-o", output, *COMMAND, "--shard-size", 1, "--quiet", "--json"]


MASKED = ["scorecam:channels=4", "groupcam:groups=2", "occlusion:stride=32", "rise:masks=8", "hsic:grid=3,samples=8"]
BACKWARD = ["kernelshap:segments=4,samples=8", "guided-backprop", "guided-gradcam", "deeplift", "lrp"]
ATTENTION = {"model": "test_vit", "size": 160, "methods": ["attention", "rollout", "chefer", "legrad"]}


@pytest.mark.parametrize(
    ("seed", "kills", "options"),
    [
        (1, 2, {}),
        pytest.param(1, 3, {}, marks=pytest.mark.slow),
        pytest.param(2, 20, {}, marks=pytest.mark.slow),
        pytest.param(3, 2, {"methods": [*MASKED, *BACKWARD]}, marks=pytest.mark.slow, id="masked and backward"),
        pytest.param(4, 2, ATTENTION, marks=pytest.mark.slow, id="attention"),
    ],
)
def test_any_number_of_kills_leave_the_bytes_of_an_undisturbed_run(
    tmp_path: Path, seed: int, kills: int, options: dict[str, Any]
) -> None:
    images = flat(tmp_path / "images", 6 * kills)
    run(images, tmp_path / "undisturbed", shard_size=1, **options)

    output, dice = tmp_path / "shards", random.Random(seed)
    moments = [(THREE_SHARDS, 0.0), *((dice.randrange(1, 30), dice.uniform(0, 0.02)) for _ in range(kills - 1))]
    killing = script(
        __name__,
        "killed_again_and_again(*sys.argv[1:])",
        images,
        output,
        json.dumps(moments),
        json.dumps(options),
    )
    stdout, stderr = killing.communicate()
    assert (killing.returncode, stderr) == (0, "")
    codes, counts = zip(*json.loads(stdout), strict=True)
    # those that are killed a little later may be through by then
    assert (len(codes), codes[0], {*codes} <= {-signal.SIGKILL, 0}) == (kills, -signal.SIGKILL, True)
    assert 0 < counts[0] < 6 * kills

    report = run(images, output, shard_size=1, **options)
    assert report.complete
    assert (report.images, report.written) == (6 * kills, 6 * kills - counts[-1])
    assert kept(output) == kept(tmp_path / "undisturbed")
    assert temporaries(output) == []


@pytest.mark.parametrize("number", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGTERM])
def test_an_interrupted_run_says_so_and_can_be_resumed(tmp_path: Path, number: signal.Signals) -> None:
    images, output = flat(tmp_path / "images", 30), tmp_path / "shards"
    process = stopped(images, output)
    if number == signal.SIGTERM:  # a second run into the same folder harms neither
        with pytest.raises(SalpipeError, match="another run is writing there; wait until it ends"):
            run(images, output, shard_size=1)
        with pytest.raises(SalpipeError, match="another run is writing there"):
            run(images, output, shard_size=1, part=(1, 2))
    assert process.poll() is None
    process.send_signal(number)
    process.send_signal(signal.SIGCONT)
    stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout) == (130, "")
    assert stderr == "salpipe: interrupted; run the same command again to resume\n"

    there = len(shards(output))
    assert run(images, output, shard_size=1).written == 30 - there > 0
    assert temporaries(output) == []
    run(images, tmp_path / "undisturbed", shard_size=1)
    assert kept(output) == kept(tmp_path / "undisturbed")


@pytest.mark.slow
def test_a_run_continues_while_a_second_one_is_refused(tmp_path: Path) -> None:
    images, output = flat(tmp_path / "images", 30), tmp_path / "shards"
    first = stopped(images, output)
    with pytest.raises(SalpipeError, match="another run is writing there"):
        run(images, output, shard_size=1)
    assert first.poll() is None
    first.send_signal(signal.SIGCONT)
    first.communicate()
    assert first.returncode == 0
    assert run(images, output, shard_size=1).written == 0
    assert verify(output, deep=True).problems == ()
