"""Plans: what makes a different plan, storage, and damaged files."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file

from saliency_pipeline.datasets.folder import read_folder
from saliency_pipeline.errors import PlanMismatchError, SalpipeError
from saliency_pipeline.generation import plan as plan_module
from saliency_pipeline.generation import resolve as resolve_module
from saliency_pipeline.generation.config import GenerateConfig
from saliency_pipeline.generation.outline import dry_run
from saliency_pipeline.generation.plan import (
    Choices,
    Plan,
    check_same_plan,
    identify_images,
    library_versions,
    records_digest,
    shard_tasks,
    store_plan,
    stored_plan,
)
from saliency_pipeline.images.record import Catalogue, ImageRecord
from saliency_pipeline.models.source.source import load_source
from saliency_pipeline.saliency.engine.layers import Layer
from saliency_pipeline.settings import option_name, settings_of
from saliency_pipeline.shards.manifest import Manifest
from saliency_pipeline.shards.reader import ShardFolder
from saliency_pipeline.shards.schema import to_json
from saliency_pipeline.shards.summary import inspect
from saliency_pipeline.shards.verify import verify
from tests.generation.examples import OPTIONS, kept, photographs, run

CHOICES = Choices((Layer("layer4", "nchw", 8, (2, 2), 0, True),), "torch", "fp32", 2)
RECORD = {"source": {"weights_sha256": "0" * 64}, "methods": {}, "data": {}, "versions": {"torch": "2.9"}}
PLAN = Plan(GenerateConfig(model="tiny"), CHOICES, {"images": 3, "records": "1" * 64}, RECORD)
OTHER = replace(PLAN, settings=GenerateConfig(model="other"))


@pytest.fixture
def own_images(images: Path, tmp_path: Path) -> Path:
    """A copy of the images to be changed."""
    return Path(shutil.copytree(images, tmp_path / "images"))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"precision": "bf16"}, "precision fp32 -> bf16"),
        ({"size": 32}, "size 64 -> 32"),
        ({"methods": ("gradcam", "gradient")}, "method ['gradcam'] -> ['gradcam', 'gradient']"),
        ({"model": "test_efficientnet"}, "model test_resnet -> test_efficientnet"),
        ({"target": "top:2", "encoding": "jpeg"}, "(target predicted -> top:2; encoding raw -> jpeg)"),
        ({"shard_size": 5}, "shard-size 4 -> 5"),
        ({"max_pixels": 10}, "max-pixels 128000000 -> 10"),
    ],
)
def test_other_options_are_another_plan(
    images: Path, finished: Path, copied: Path, options: dict[str, Any], named: str
) -> None:
    with pytest.raises(PlanMismatchError) as caught:
        run(images, copied, **options)
    message = str(caught.value)
    assert message.startswith(f"{copied} holds the shards of another plan (")
    assert named in message
    assert message.endswith("); choose another output folder")
    assert "\n" not in message
    assert kept(copied) == kept(finished)


def test_other_labels_are_another_plan(images: Path, copied: Path) -> None:
    with pytest.raises(PlanMismatchError, match=r"classes \['cat', 'dog', 'owl'\] -> \[\]; records "):
        run(read_folder(images, label_level=0), copied)


def add(root: Path) -> None:
    photographs(root / "train" / "dog", ["99.jpg"])


def grow(root: Path) -> None:
    with open(root / "train/cat/1.jpg", "ab") as file:
        file.write(b"\0")


def relabel(root: Path) -> None:
    os.rename(root / "train/cat/1.jpg", root / "train/dog/1.jpg")


def move_to_another_split(root: Path) -> None:
    os.rename(root / "train/cat/1.jpg", root / "test/1.jpg")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (add, "images 14 -> 15; records "),
        (grow, "files of other sizes under the same names"),
        (relabel, "(records "),
        (move_to_another_split, "(records "),
        (lambda root: os.rename(root / "train/cat", root / "train/kitten"), "-> ['cat', 'dog', 'kitten', 'owl']"),
        (lambda root: (root / "train/cat/1.jpg").unlink(), "images 14 -> 13; records "),
    ],
)
def test_other_images_are_another_plan(
    own_images: Path, copied: Path, change: Callable[[Path], None], named: str
) -> None:
    assert run(own_images, copied).written == 0  # the same images elsewhere are the same plan
    change(own_images)
    with pytest.raises(PlanMismatchError) as caught:
        run(own_images, copied)
    assert named in str(caught.value)


def test_a_dry_run_names_images_of_other_sizes(own_images: Path, copied: Path) -> None:
    config = GenerateConfig(**{name: value for name, value in OPTIONS.items() if name != "jobs"})
    assert dry_run(own_images, copied, config).refused is None
    grow(own_images)
    assert "files of other sizes under the same names" in str(dry_run(own_images, copied, config).refused)


def test_the_same_images_in_another_layout_do_not_continue_a_run(images: Path, copied: Path) -> None:
    catalogue = replace(read_folder(images), layout="parquet")
    with pytest.raises(PlanMismatchError, match="the same images in layout folders instead of parquet"):
        run(catalogue, copied)


def test_other_images_under_the_same_names_are_one_plan_with_another_identity(
    own_images: Path, finished: Path, tmp_path: Path
) -> None:
    shutil.copy(own_images / "train/cat/1.jpg", own_images / "train/cat/2.jpg")
    run(own_images, tmp_path / "others")
    first, second = ShardFolder(finished), ShardFolder(tmp_path / "others")
    assert first.header.plan == second.header.plan
    assert first.identity == ShardFolder(finished).identity != second.identity


def test_other_versions_are_another_plan(images: Path, copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    versions = library_versions("torch")
    monkeypatch.setattr(resolve_module, "library_versions", lambda *_: {**versions, "salpipe": "9.9"})
    with pytest.raises(PlanMismatchError, match=rf"\(versions\.salpipe {versions['salpipe']} -> 9\.9\)"):
        run(images, copied)


def test_a_refusal_names_what_differs_in_a_long_list() -> None:
    before = ["gradcam", "eigencam", *(f"smoothgrad:noise=0.15,samples={n},seed=0,stat=mean" for n in range(8))]
    names = [name.replace("samples=3,seed=0", "samples=3,seed=1") for name in before]
    for methods, difference in (
        (names, f"(10 with {before[5]}) -> (10 with {names[5]})"),
        ([*before, "hirescam"], "(10) -> (11 with hirescam)"),
        (before[::-1], "(10) -> (10 in another order)"),
        ([name.replace("seed=0", "seed=2") for name in before], "(10) -> (10 others)"),
    ):
        stored = replace(PLAN, settings=replace(PLAN.settings, methods=tuple(before)))
        with pytest.raises(PlanMismatchError) as caught:
            check_same_plan(Path("shards"), stored, {**stored.identity, "method": methods})
        assert f"(method {difference});" in str(caught.value)


def test_the_backends_version_counts_where_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "openvino" not in library_versions("torch")
    assert {**library_versions("openvino"), **library_versions("torch")} == library_versions("openvino")
    installed = plan_module.version

    def missing(name: str) -> str:
        if name == "openvino":
            raise PackageNotFoundError(name)
        return installed(name)

    monkeypatch.setattr(plan_module, "version", missing)
    assert library_versions("openvino")["openvino"] == "not installed"


def test_weights_are_known_by_what_they_hold(images: Path, tmp_path: Path) -> None:
    network = load_source("test_resnet", "none").module
    save_file(network.state_dict(), tmp_path / "a.safetensors")
    run(images, tmp_path / "shards", weights=str(tmp_path / "a.safetensors"))
    os.rename(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    assert run(images, tmp_path / "shards", weights=str(tmp_path / "b.safetensors")).written == 0

    other = {name: tensor + 1 if name == "fc.bias" else tensor for name, tensor in network.state_dict().items()}
    save_file(other, tmp_path / "b.safetensors")
    with pytest.raises(PlanMismatchError, match=r"\(weights_sha256 [0-9a-f]{8} -> [0-9a-f]{8}\)"):
        run(images, tmp_path / "shards", weights=str(tmp_path / "b.safetensors"))
    # The engine of the last run is kept, but not for other weights of the same name.
    run(images, tmp_path / "others", weights=str(tmp_path / "b.safetensors"))
    assert kept(tmp_path / "others")["shard-00000.h5"] != kept(tmp_path / "shards")["shard-00000.h5"]


def test_a_plan_without_shards_does_not_bind_later_runs(images: Path, finished: Path, tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    shutil.copy(finished / "plan.json", tmp_path / "shards")
    assert run(images, tmp_path / "shards", size=32).complete


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[:100],
        lambda text: "",
        lambda text: "[]",
        lambda text: '{"format": "something else"}',
        lambda text: text.replace('"size": 64', '"size": 32'),
        lambda text: text.replace('"layer4"', '"layer3"'),
        lambda text: "[" * 100_000,
        lambda text: '{"format": "salpipe-plan", "images": [], "provenance": []}',
        lambda text: text.replace('"fit": "crop"', '"fit": "zoom"'),
    ],
)
def test_a_damaged_plan_is_named_and_can_be_made_anew(
    images: Path, finished: Path, copied: Path, damage: Callable[[str], str]
) -> None:
    path = copied / "plan.json"
    path.write_text(damage(path.read_text()))
    with pytest.raises(SalpipeError, match=r"plan\.json: damaged or not a plan .*; choose another output folder, or"):
        run(images, copied)
    path.unlink()
    assert run(images, copied).written == 0
    assert kept(copied) == kept(finished)
    assert (copied / "plan.json").read_bytes() == (finished / "plan.json").read_bytes()


@pytest.mark.parametrize(
    "resolved",
    [
        {},
        {"layers": 3},
        {"layers": [{"name": "layer4"}]},
        {"backend": "magic"},
        {"precision": "fp8"},
        {"batch_size": 10**9},
        {"batch_size": "8"},
    ],
)
def test_choices_that_cannot_be_are_refused_though_their_hash_is_right(
    images: Path, copied: Path, resolved: dict[str, Any]
) -> None:
    path = copied / "plan.json"
    data = json.loads(path.read_text())
    made = data["provenance"]
    made["resolved"] = made["resolved"] | resolved if resolved else {}
    parts = {name: data[name] for name in ("images", "provenance")}
    path.write_text(json.dumps(data | {"plan": sha256(to_json(parts).encode()).hexdigest()}))
    with pytest.raises(SalpipeError, match=r"plan\.json: damaged or not a plan \((KeyError|TypeError|ValueError): "):
        run(images, copied)


@pytest.mark.parametrize("kind", ["pipe", "device", "hole"])
def test_a_plan_that_is_no_file_of_a_plans_size_is_refused(images: Path, copied: Path, kind: str) -> None:
    path = copied / "plan.json"
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.touch()
        os.truncate(path, 10 * 2**30)
    with pytest.raises(SalpipeError, match=r"plan\.json: damaged or not a plan .*(regular file|larger than)"):
        run(images, copied)


def test_the_plan_that_is_stored_first_stays(tmp_path: Path) -> None:
    assert stored_plan(tmp_path) is None
    assert store_plan(tmp_path, PLAN) == PLAN
    assert store_plan(tmp_path, OTHER) == PLAN
    assert stored_plan(tmp_path) == PLAN
    assert [path.name for path in tmp_path.iterdir()] == ["plan.json"]


def test_a_file_system_without_links_keeps_a_plan_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*paths: object) -> None:
        raise PermissionError("no links here")

    monkeypatch.setattr(os, "link", link)
    assert store_plan(tmp_path, PLAN) == store_plan(tmp_path, OTHER) == PLAN
    assert [path.name for path in tmp_path.iterdir()] == ["plan.json"]


def test_the_hash_covers_all_of_a_plan() -> None:
    others = [
        OTHER,
        replace(PLAN, resolved=replace(CHOICES, backend="openvino")),
        replace(PLAN, images={"images": 4, "records": "1" * 64}),
        replace(PLAN, record={**RECORD, "versions": {"torch": "3.0"}}),
    ]
    assert len({PLAN.hash, *(other.hash for other in others)}) == 5
    assert replace(PLAN, record={**RECORD, "passed_over": {".txt": 1}}).hash == PLAN.hash


def test_shards_are_cut_from_the_records_in_order() -> None:
    records = [ImageRecord(f"{number}.jpg", f"/{number}.jpg") for number in range(7)]
    tasks = shard_tasks(Catalogue("/", records), 3)
    assert [task.name for task in tasks] == ["shard-00000.h5", "shard-00001.h5", "shard-00002.h5"]
    assert [len(task.records) for task in tasks] == [3, 3, 1]
    assert [record for task in tasks for record in task.records] == records


def test_every_setting_but_the_file_of_weights_identifies_a_plan(images: Path) -> None:
    catalogue = read_folder(images)
    plan = replace(PLAN, images=identify_images(catalogue.classes, len(catalogue), records_digest(catalogue)))
    names = {option_name(GenerateConfig, name) for name in settings_of(GenerateConfig)} - {"weights"}
    assert set(plan.identity) == names | {"weights_sha256", "classes", "images", "records", "versions"}
    assert plan.identity["images"] == 14
    assert replace(plan, settings=replace(plan.settings, weights="a.pt")).identity == plan.identity
    assert replace(plan, settings=replace(plan.settings, fit="pad")).identity == {**plan.identity, "fit": "pad"}


def test_skipped_files_are_noted_and_are_no_part_of_the_plan(own_images: Path, tmp_path: Path) -> None:
    shards, again = tmp_path / "shards", tmp_path / "again"
    (own_images / "list.txt").touch()
    assert run(own_images, shards).passed_over == {".txt": 1}
    before = kept(shards)
    (own_images / "README.md").touch()
    (shards / "shard-00000.h5").unlink()
    # the rest of the run is of the same plan, and so are its bytes
    assert run(own_images, shards).passed_over == {".md": 1, ".txt": 1}
    assert kept(shards) == before
    run(own_images, again)
    first, second = Manifest.read(shards).header, Manifest.read(again).header
    assert first.plan == second.plan
    assert (first.provenance["passed_over"], second.provenance["passed_over"]) == ({".txt": 1}, {".md": 1, ".txt": 1})
    summary = inspect(shards)
    assert summary.as_dict()["passed_over"] == {".txt": 1}
    assert "\nskipped    1\n        1  .txt\n" in summary.as_text()
    assert verify(again, deep=True).problems == ()
