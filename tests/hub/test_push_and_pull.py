"""Push and pull with the real library against a Hub on loopback: what is uploaded, resumed, refused and restored."""

import json
import re
import shutil
import socket
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch

from saliency_pipeline.errors import IntegrityError, OptionError, SalpipeError
from saliency_pipeline.evaluation.evaluate import evaluate
from saliency_pipeline.hub.address import HubAddress
from saliency_pipeline.hub.card import write_card
from saliency_pipeline.hub.contents import contents_of
from saliency_pipeline.hub.pull import pull
from saliency_pipeline.hub.pulled import Origin
from saliency_pipeline.hub.push import push
from saliency_pipeline.models.trained.trained import load_trained
from saliency_pipeline.shards.manifest import Manifest
from saliency_pipeline.shards.reader import ShardFolder
from saliency_pipeline.shards.verify import verify
from saliency_pipeline.training.config import TrainConfig
from saliency_pipeline.training.run import train
from tests.hub.fake_hub import TOKEN, Commit, FakeHub
from tests.training.examples import labeled_rows, store

# of the library's own uploads
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

LICENSE = "cc-by-4.0"


def by_name(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.name != ".lock"}


def test_shards_come_back_as_they_were(hub: FakeHub, shards: Path, tmp_path: Path) -> None:
    pushed = push(shards, "hf://org/figures", license=LICENSE)
    assert pushed.url == f"{hub.url}/datasets/org/figures"
    assert hub.repos["datasets", "org/figures"].private
    assert len(hub.commits) == 2  # that of the empty repository, and one
    pulled = pull("hf://org/figures", tmp_path / "again")
    assert pulled.commit == pushed.commit
    assert (pulled.kind, pulled.files, pulled.fetched) == ("dataset", 6, 6)
    files = by_name(tmp_path / "again")
    assert {name: data for name, data in files.items() if name not in ("README.md", "hub.json")} == by_name(shards)
    assert not verify(tmp_path / "again", deep=True).problems
    assert not (tmp_path / "again" / ".downloads").exists()


@pytest.mark.filterwarnings("default")  # of the other library
def test_datasets_reads_pulled_shards_by_their_card(hub: FakeHub, shards: Path, tmp_path: Path) -> None:
    from datasets import load_dataset

    push(shards, "hf://org/figures", license=LICENSE)
    pull("hf://org/figures", tmp_path / "again")
    # as from the Hub: files and splits are those of the card
    data = load_dataset(str(tmp_path / "again"), split="train", cache_dir=str(tmp_path / "cache")).with_format("numpy")
    assert len(data) == 48
    for row, pair in zip((data[0], data[47]), (ShardFolder(shards)[0], ShardFolder(shards)[47]), strict=True):
        assert np.array_equal(np.asarray(row["image"], np.uint8), pair.image)
        assert row["key"].decode() == pair.key


def test_a_run_comes_back_and_is_evaluated_alike(hub: FakeHub, run: Path, shards: Path, tmp_path: Path) -> None:
    pushed = push(run, "hf://org/half", license="apache-2.0", private=False)
    assert not hub.repos["models", "org/half"].private
    assert set(pushed.files) == {
        *("best.safetensors", "config.toml", "metrics.csv", "metrics.jsonl", "curves.png", "README.md", "salpipe.json"),
        *("provenance.json", "summary.json", "evaluation-test/evaluation.json", "evaluation-test/per-class.csv"),
    }
    pull("hf://org/half", tmp_path / "run")
    own, pulled = load_trained(run), load_trained(tmp_path / "run")
    for name, tensor in own.network.state_dict().items():
        assert torch.equal(tensor, pulled.network.state_dict()[name])
    assert own.spec == pulled.spec
    assert len(own.training_images) == len(pulled.training_images) > 0
    before, after = (
        evaluate(folder, shards, "test", tmp_path / folder.parent.name) for folder in (run, tmp_path / "run")
    )
    assert before.metrics.to_json() == after.metrics.to_json()
    assert before.caveats == after.caveats
    with pytest.raises(
        SalpipeError, match=r"was pulled, without the checkpoint last\.safetensors; choose another output"
    ):
        train(shards, tmp_path / "run", TrainConfig.read(run))


def test_nothing_that_is_uploaded_names_this_machine(hub: FakeHub, run: Path, shards: Path, home: Path) -> None:
    push(run, "hf://org/half", license=LICENSE)
    push(shards, "hf://org/figures", license=LICENSE)
    # the weights' record, which names the shards, is in the file of the weights
    assert home.name.encode() in (run / "best.safetensors").read_bytes()
    assert home.name.encode() in (run / "provenance.json").read_bytes()
    # a shorter name of the machine may occur by chance
    host = socket.gethostname()
    secrets = [home.name, str(home), str(Path.home()) + "/", TOKEN, *([host] if len(host) > 5 else [])]
    for kind, name in hub.repos:
        for path, data in hub.files(kind, name).items():
            for secret in secrets:
                assert secret.encode() not in data, (path, secret)
            assert not re.search(rb"validation\.csv|circle/0001\.jpg", data) or path.endswith(".h5"), path


def test_what_is_there_is_not_sent_again(hub: FakeHub, shards: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(shards, tmp_path / "copy")
    hub.fail = 2
    with pytest.raises(SalpipeError, match=r"^hf://org/figures: "):
        push(copy, "hf://org/figures", license=LICENSE)
    assert len(hub.commits) == 1
    hub.fail = None
    pushed = push(copy, "hf://org/figures", license=LICENSE)
    assert len(hub.sent) == len(set(hub.sent)) == 3
    commits = len(hub.commits)
    again = push(copy, "hf://org/figures", license=LICENSE)
    assert again.commit == pushed.commit
    assert again.sent == ()
    assert len(hub.commits) == commits
    changed = push(copy, "hf://org/figures", license="mit")
    assert changed.sent == ("README.md", "salpipe.json")
    assert len(hub.sent) == 3


def test_many_shards_are_committed_in_parts(
    hub: FakeHub, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("saliency_pipeline.hub.push.COMMITTED", 2)
    monkeypatch.setattr("saliency_pipeline.hub.repository.TOGETHER", 1)
    push(shards, "hf://org/figures", license=LICENSE)
    assert len(hub.commits) == 5
    # lists and card are last
    assert "salpipe.json" not in list(hub.commits.values())[-2].files
    pull("hf://org/figures", tmp_path / "again")


def test_a_branch_is_created_and_pulled(hub: FakeHub, shards: Path, run: Path, tmp_path: Path) -> None:
    push(shards, "hf://org/figures", license=LICENSE, revision="v2")
    assert set(hub.files("datasets", "org/figures")) == {".gitattributes"}
    assert pull("hf://org/figures@v2", tmp_path / "v2").fetched == 6
    with pytest.raises(SalpipeError, match=r"^hf://org/figures: has no salpipe.json"):
        pull("hf://org/figures", tmp_path / "main")
    with pytest.raises(SalpipeError, match=r"^hf://org/figures@v3: the repository has no such revision; correct it$"):
        pull("hf://org/figures@v3", tmp_path / "v3")
    with pytest.raises(SalpipeError, match="holds revision v2 of org/figures; choose another folder"):
        pull("hf://org/figures", tmp_path / "v2")
    with pytest.raises(OptionError, match=r"name the branch with --revision v2$"):
        push(shards, "hf://org/figures@v2", license=LICENSE)
    # a run of the same name: the kind decides
    push(run, "hf://org/figures", license=LICENSE)
    push(shards, "hf://org/figures", license=LICENSE)
    with pytest.raises(SalpipeError, match="give hf://models/org/figures or hf://datasets/org/figures"):
        pull("hf://org/figures", tmp_path / "any")
    assert pull("hf://models/org/figures", tmp_path / "model").kind == "model"


def test_an_interrupted_download_continues_with_its_commit(
    hub: FakeHub, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = push(shards, "hf://org/figures", license=LICENSE)
    real, calls = huggingface_hub.HfApi.hf_hub_download, []

    def interrupted(*args: object, **options: object) -> object:
        calls.append(args)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(huggingface_hub.HfApi, "hf_hub_download", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pull("hf://org/figures", tmp_path / "again")
    assert not (tmp_path / "again" / "manifest.json").exists()
    push(shards, "hf://org/figures", license="mit")
    pulled = pull("hf://org/figures", tmp_path / "again")
    assert pulled.commit == first.commit
    assert pulled.fetched == 4
    assert "license: cc-by-4.0" in (tmp_path / "again" / "README.md").read_text()
    assert pull("hf://org/figures", tmp_path / "again").fetched == 0


def test_a_download_replaces_nothing(hub: FakeHub, shards: Path, tmp_path: Path) -> None:
    push(shards, "hf://org/figures", license=LICENSE)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(SalpipeError, match=r"holds other files, such as notes.txt; choose another folder"):
        pull("hf://org/figures", tmp_path / "mine")
    pull("hf://org/figures", tmp_path / "again")
    (tmp_path / "again" / "README.md").write_text("my notes")
    with pytest.raises(SalpipeError, match=r"README.md: another file than in the repository, which is not replaced"):
        pull("hf://org/figures", tmp_path / "again")
    assert (tmp_path / "again" / "README.md").read_text() == "my notes"
    (tmp_path / "again" / "README.md").unlink()
    (tmp_path / "again" / "README.md").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SalpipeError, match="a symbolic link inside the output folder is not followed"):
        pull("hf://org/figures", tmp_path / "again")
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize(
    "name", ["../outside", "/etc/outside", "evaluation-../x", "code.py", "shard-00000.h5/../../x", "sub/README.md"]
)
def test_a_repository_cannot_write_elsewhere(hub: FakeHub, shards: Path, tmp_path: Path, name: str) -> None:
    push(shards, "hf://org/figures", license=LICENSE)
    repo = hub.repos["datasets", "org/figures"]
    files = dict(hub.commits[repo.branches["main"]].files)
    listing = json.loads(files["salpipe.json"][0])
    listing["files"][name] = listing["files"]["README.md"]
    files["salpipe.json"] = json.dumps(listing).encode(), False
    repo.branches["main"] = hub.add_commit(Commit(files))
    with pytest.raises(SalpipeError, match=r"salpipe.json is damaged \(it lists '"):
        pull("hf://org/figures", tmp_path / "again")
    assert {path.name for path in tmp_path.iterdir()} <= {"again", "hf-cache"}


@pytest.mark.parametrize("name", ["manifest.json", "shard-00001.h5"])
def test_other_bytes_are_refused(hub: FakeHub, shards: Path, tmp_path: Path, name: str) -> None:
    push(shards, "hf://org/figures", license=LICENSE)
    repo = hub.repos["datasets", "org/figures"]
    files = dict(hub.commits[repo.branches["main"]].files)
    data, large = files[name]
    files[name] = data[:-1] + b"!", large
    repo.branches["main"] = hub.add_commit(Commit(files))
    with pytest.raises(IntegrityError, match=rf"^hf://org/figures: {name} is not the file that was pushed"):
        pull("hf://org/figures", tmp_path / "again")
    assert not (tmp_path / "again" / name).exists()


@pytest.mark.parametrize("change", ["longer", "missing"])
def test_other_sizes_are_refused_before_the_download(hub: FakeHub, shards: Path, tmp_path: Path, change: str) -> None:
    push(shards, "hf://org/figures", license=LICENSE)
    repo = hub.repos["datasets", "org/figures"]
    files = dict(hub.commits[repo.branches["main"]].files)
    data, large = files.pop("rejects.jsonl")
    if change == "longer":
        files["rejects.jsonl"] = data + b"!", large
    repo.branches["main"] = hub.add_commit(Commit(files))
    with pytest.raises(IntegrityError, match=r"^hf://org/figures: rejects.jsonl is not the file that was pushed"):
        pull("hf://org/figures", tmp_path / "again")
    assert hub.downloads == ["salpipe.json"]


def test_a_run_names_the_data_set_that_its_shards_were_pulled_from(run: Path, shards: Path) -> None:
    Origin("org/figures", "dataset", None, "ab" * 20).write(shards)
    try:
        contents = contents_of(run)
    finally:
        (shards / "hub.json").unlink()
    card = write_card(contents, HubAddress("org/half"), "mit")
    assert "datasets:\n- org/figures\n" in card
    assert "name: top-1 accuracy (95 % interval " in card


def test_damaged_shards_are_not_pushed(hub: FakeHub, shards: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(shards, tmp_path / "copy")
    path = copy / "shard-00001.h5"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1  # a pixel
    path.write_bytes(data)
    with pytest.raises(
        IntegrityError, match=r"shard-00001.h5: not the bytes that manifest.json lists; run 'salpipe ver"
    ):
        push(copy, "hf://org/figures", license=LICENSE)
    assert len(hub.commits) == 1


def test_repositories_with_other_contents_are_refused(hub: FakeHub, shards: Path, tmp_path: Path) -> None:
    push(shards, "hf://org/figures", license=LICENSE)
    header = replace(Manifest.read(shards).header, plan="another-plan")
    copy = store(tmp_path / "copy", header, labeled_rows(12))
    with pytest.raises(SalpipeError, match=r"^hf://org/figures: holds other shards; choose another repository"):
        push(copy, "hf://org/figures", license=LICENSE)
    repo = hub.repos["datasets", "org/figures"]
    repo.branches["main"] = hub.add_commit(Commit({"data.csv": (b"1,2", False), "README.md": (b"", False)}))
    with pytest.raises(SalpipeError, match=r"^hf://org/figures: holds other files, such as data.csv; choose another"):
        push(shards, "hf://org/figures", license=LICENSE)
