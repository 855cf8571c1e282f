"""Unusable images are rejected without stopping a run; full disks stop it without damage."""

import errno
import json
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner
from safetensors.torch import save_file

from saliency_pipeline.cli.main import salpipe
from saliency_pipeline.datasets.folder import read_folder
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.generation.job import check_machine
from saliency_pipeline.models.source import build
from saliency_pipeline.models.source.registry import find_source
from saliency_pipeline.progress import Progress
from saliency_pipeline.shards.reader import ShardFolder
from saliency_pipeline.shards.summary import inspect
from saliency_pipeline.shards.verify import verify
from tests.broken_images import build_broken_folder
from tests.generation.examples import COMMAND, flat, kept, photographs, run, temporaries


def rejects(folder: Path) -> dict[str, str]:
    lines = [json.loads(line) for line in (folder / "rejects.jsonl").read_text().splitlines()]
    return {line["key"]: line["reason"] for line in lines}


def test_every_file_of_a_broken_folder_is_stored_or_rejected_with_a_reason(tmp_path: Path) -> None:
    count = build_broken_folder(tmp_path / "images")
    command = ["generate", str(tmp_path / "images"), "-o", str(tmp_path / "shards"), *COMMAND, "--shard-size", "32"]
    result = CliRunner().invoke(salpipe, [*command, "--quiet"])
    assert result.exit_code == 3, result.output
    stored, rejected = ShardFolder(tmp_path / "shards").keys(), rejects(tmp_path / "shards")
    assert result.stderr.splitlines() == [
        f"salpipe: error: {len(rejected)} of {count} images were rejected, more than --max-rejects 1%: see "
        f"rejects.jsonl in {tmp_path / 'shards'}; all others are stored"
    ]
    assert len(stored) + len(rejected) == count >= 200
    assert {*stored, *rejected} == {record.key for record in read_folder(tmp_path / "images").records}
    assert all(reason and reason.isprintable() and len(reason) < 300 for reason in rejected.values())
    assert all(key.startswith(("unusual", "renamed", "names", "overwritten", "unreadable", "x.jpg")) for key in stored)
    assert verify(tmp_path / "shards", deep=True).problems == ()

    before = kept(tmp_path / "shards")
    for limit, code in (("100%", 0), (str(len(rejected)), 0), (str(len(rejected) - 1), 3)):
        again = CliRunner().invoke(salpipe, [*command, "--max-rejects", limit])
        assert again.exit_code == code
        assert f"({0} written now), {len(rejected)} rejected" in again.stdout
    assert kept(tmp_path / "shards") == before


def test_a_folder_of_nothing_but_rejects_is_finished_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for number in range(5):
        (tmp_path / "images" / f"{number}.jpg").touch()
    report = run(tmp_path / "images", tmp_path / "shards")
    assert (report.images, report.rejects, report.shards, report.complete) == (0, 5, 2, True)
    assert rejects(tmp_path / "shards") == {f"{number}.jpg": "empty file" for number in range(5)}
    assert len(ShardFolder(tmp_path / "shards")) == 0
    assert verify(tmp_path / "shards", deep=True).problems == ()
    assert "0 images" in inspect(tmp_path / "shards").as_text()
    assert run(tmp_path / "images", tmp_path / "shards").written == 0


def test_a_folder_of_one_image(tmp_path: Path) -> None:
    images = photographs(tmp_path / "images", ["cat/1.jpg"])
    assert run(images, tmp_path / "shards").images == 1
    assert run(images / "cat" / "1.jpg", tmp_path / "one").images == 1
    assert ShardFolder(tmp_path / "one").keys() == ["1.jpg"]


def test_a_shard_may_lose_all_its_images(tmp_path: Path) -> None:
    images = flat(tmp_path / "images", 12)
    for number in (5, 6, 7, 8, 12):
        (images / f"{number}.jpg").write_bytes(b"\xff\xd8\xff")
    run(images, tmp_path / "shards")
    folder = ShardFolder(tmp_path / "shards")
    assert [len(shard) for shard in folder.shards] == [4, 0, 3]
    assert list(rejects(tmp_path / "shards")) == [f"{number}.jpg" for number in (5, 6, 7, 8, 12)]
    assert verify(tmp_path / "shards", deep=True).problems == ()


def test_a_rejected_image_changes_nothing_about_the_others(tmp_path: Path) -> None:
    images = flat(tmp_path / "images", 8)
    run(images, tmp_path / "whole", shard_size=8)
    (images / "3.jpg").write_bytes(b"")
    run(images, tmp_path / "shards", shard_size=8)
    (whole,), (shard,) = ShardFolder(tmp_path / "whole").shards, ShardFolder(tmp_path / "shards").shards
    rows = [row for row, key in enumerate(whole.keys) if key != "3.jpg"]
    assert shard.keys == [whole.keys[row] for row in rows]
    peak = abs(whole.maps("gradcam")).max()
    assert abs(shard.maps("gradcam") - whole.maps("gradcam", rows)).max() <= peak * 2**-10
    assert (shard.images() == whole.images(rows)).all()


class Vanishing(Progress):
    """Removes an image once the plan is stored."""

    def __init__(self, image: Path) -> None:
        self.image = image

    def start(self, total: int, unit: str, label: str) -> None:
        self.image.unlink()


def test_an_image_that_vanishes_during_the_run_is_rejected(tmp_path: Path) -> None:
    images = flat(tmp_path / "images", 5)
    report = run(images, tmp_path / "shards", progress=Vanishing(images / "3.jpg"))
    assert (report.images, report.rejects) == (4, 1)
    assert rejects(tmp_path / "shards") == {"3.jpg": "cannot be read: No such file or directory"}


@pytest.mark.parametrize("number", [errno.ESTALE, errno.EIO, errno.EMFILE, errno.ENOMEM])
def test_faults_of_the_machine_are_no_rejects(tmp_path: Path, number: int) -> None:
    error = OSError(number, os.strerror(number), "1.jpg")
    with pytest.raises(SalpipeError, match=f"1.jpg: {os.strerror(number)}, which is no fault of the image"):
        check_machine(error, "1.jpg", "")
    check_machine(OSError(errno.EIO, "the archive ends within the image", "1.jpg"), "1.jpg", "")
    check_machine(OSError(errno.EACCES, os.strerror(errno.EACCES), "1.jpg"), "1.jpg", str(tmp_path))


@pytest.mark.parametrize("lost", ["removed", "empty"])
def test_a_lost_data_set_ends_the_run_and_is_read_once_it_is_back(tmp_path: Path, lost: str) -> None:
    class Lost(Progress):
        def start(self, total: int, unit: str, label: str) -> None:
            images.rename(tmp_path / "elsewhere")
            if lost == "empty":
                images.mkdir()

    images = flat(tmp_path / "images", 3)
    with pytest.raises(SalpipeError, match="images: is no longer there, which is no fault of the image"):
        run(images, tmp_path / "shards", progress=Lost())
    if lost == "empty":
        images.rmdir()
    (tmp_path / "elsewhere").rename(images)
    assert (run(images, tmp_path / "shards").images, rejects(tmp_path / "shards")) == (3, {})


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Limit files of this process to `size` bytes: for a writer this is a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_disk_that_is_full_ends_in_one_line_and_can_be_resumed(tmp_path: Path, jobs: int) -> None:
    images = flat(tmp_path / "images", 24)
    command = ["generate", str(images), "-o", str(tmp_path / "shards"), *COMMAND, "--shard-size", "12", "--quiet"]
    if jobs == 2:
        # Workers started before keep their own limit; the folder cannot be written for another reason here.
        (tmp_path / "shards" / "shard-00001.h5").mkdir(parents=True)
        result = CliRunner().invoke(salpipe, [*command, "--jobs", "2"])
        line = f"cannot write {tmp_path}/shards/shard-00001.h5: Is a directory; put that right and run"
    else:
        with largest_file(100_000):
            result = CliRunner().invoke(salpipe, command)
        line = f"file size limit reached while writing {tmp_path}/shards/shard-00000.h5; raise it (ulimit -f) and run"
    assert result.exit_code == 1
    assert result.stderr == f"salpipe: error: {line} the same command again\n"
    assert not [path for path in (tmp_path / "shards").glob("shard-00001.h5") if path.is_file()]
    assert temporaries(tmp_path / "shards") == []

    for folder in (tmp_path / "shards").glob("shard-*.h5"):
        if folder.is_dir():
            folder.rmdir()
    run(images, tmp_path / "shards", shard_size=12)
    run(images, tmp_path / "whole", shard_size=12)
    assert kept(tmp_path / "shards") == kept(tmp_path / "whole")


def test_a_plan_that_does_not_fit_on_the_disk_leaves_nothing(images: Path, tmp_path: Path) -> None:
    with largest_file(1000), pytest.raises(SalpipeError, match=r"file size limit reached while writing .*plan\.json"):
        run(images, tmp_path / "shards")
    assert [path.name for path in (tmp_path / "shards").rglob("*") if path.is_file()] == [".lock"]


@pytest.mark.parametrize("method", ["gradcam", "gradient"])
def test_images_whose_scores_are_not_finite_are_rejected(tmp_path: Path, method: str) -> None:
    state = build.untrained("test_resnet", *find_source("test_resnet")).state_dict()
    # finite, but more than float32 holds once activations of a picture are multiplied with it; black gives bias alone
    for name in ("conv1.0.weight", "fc.weight"):
        state[name] = state[name] * 1e25
    save_file(state, tmp_path / "w.safetensors")
    images = flat(tmp_path / "images", 5)
    options = {"weights": str(tmp_path / "w.safetensors"), "methods": (method,)}
    report = run(images, tmp_path / "shards", **options)
    assert report.images + report.rejects == 5
    assert report.rejects > 0
    assert set(rejects(tmp_path / "shards").values()) == {"the source model's scores for it are not finite"}
    assert verify(tmp_path / "shards", deep=True).problems == ()
