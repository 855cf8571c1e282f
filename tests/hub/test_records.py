"""Records without paths, cards, and listings of unknown origin."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.hub import contents
from saliency_pipeline.hub.address import HubAddress
from saliency_pipeline.hub.card import escaped, write_card
from saliency_pipeline.hub.contents import FORMAT, Contents, ShardsRecord, contents_of, read_listing
from saliency_pipeline.hub.shareable import check_shareable, network_without_paths, with_baseline, without_paths
from saliency_pipeline.models.trained import trained
from saliency_pipeline.shards.manifest import Manifest, ShardEntry
from saliency_pipeline.shards.schema import MapShape, ShardHeader

ADDRESS = HubAddress("org/figures")


@pytest.mark.parametrize(
    ("text", "shareable"),
    [
        ("/home/me/my shards", "my shards"),
        ("/data", "data"),
        ("~/x/run/", "run"),
        ("C:\\Users\\me\\run", "run"),
        ("s3://private-bucket/a/shards", "shards"),
        ("file:///home/me/x", "x"),
        ("init half: loaded from /home/me/w.pth, 3 drawn", "init half: loaded from w.pth, 3 drawn"),
        ("cat/0001.jpg", "cat/0001.jpg"),
        ("https://arxiv.org/abs/1610.02391", "https://arxiv.org/abs/1610.02391"),
        ("train/test, 1/2 and and/or; a / b", "train/test, 1/2 and and/or; a / b"),
        ("hf://org/name", "hf://org/name"),
        ("/", "/"),
        ("../data/flowers", "flowers"),
        ("weights/of-me/w.pth", "w.pth"),
        ("hf-hub:timm/resnet18.a1_in1k", "hf-hub:timm/resnet18.a1_in1k"),
        ("https://me:hunter2@host/a.tar", "https://host/a.tar"),
        ("from http://token@host/x@2 and https://a:b@c", "from http://host/x@2 and https://c"),
        ("s3://me:hunter2@bucket", "bucket"),
        ("hf://datasets/org/name@main", "hf://datasets/org/name@main"),
    ],
)
def test_paths_become_names(text: str, shareable: str) -> None:
    assert without_paths(text) == shareable
    assert without_paths({"a": [text, {"b": (text,)}]}) == {"a": [shareable, {"b": [shareable]}]}


def test_a_path_with_spaces_is_recognized_within_other_texts_if_it_is_one_elsewhere() -> None:
    record = {"from": "/my disk/a run", "report": "weights of /my disk/a run/best.safetensors were loaded"}
    assert without_paths(record) == {"from": "a run", "report": "weights of a run/best.safetensors were loaded"}


def test_places_become_names_also_if_they_are_relative() -> None:
    record = {
        "run": "runs/half",
        "config": {"start": "old/run"},
        "key": "cat/1",
        "origin": "timm:a/b",
        "start": {"x": 1},
    }
    assert without_paths(record) == record | {"run": "half", "config": {"start": "run"}}


def test_classes_may_look_like_paths() -> None:
    assert without_paths({"classes": ["/m/01g317", "~/x"]}) == {"classes": ["/m/01g317", "~/x"]}


@settings(max_examples=30)
@given(st.dictionaries(st.text(max_size=5), st.one_of(st.none(), st.integers(), st.text(), st.lists(st.text()))))
def test_records_stay_records(record: dict[str, Any]) -> None:
    once = without_paths(record)
    assert once.keys() == record.keys()
    json.dumps(once)


def test_the_record_of_a_network_changes_and_its_tensors_do_not() -> None:
    training = {"shards": {"path": "/home/me/shards"}, "config": {"arch": "baseline"}}
    description = json.dumps({"about": training, "spec": {"classes": ["/m/1"]}})
    entry = {"dtype": "U8", "shape": [3], "data_offsets": [0, 3]}
    header = json.dumps({"__metadata__": {"salpipe": description}, "t": entry}).encode()
    data = network_without_paths(struct.pack("<Q", len(header)) + header + b"\x01\x02\x03")
    (length,) = struct.unpack("<Q", data[:8])
    assert length % 8 == 0
    assert data[8 + length :] == b"\x01\x02\x03"
    changed = json.loads(data[8 : 8 + length])
    assert changed["t"] == entry
    assert json.loads(changed["__metadata__"]["salpipe"]) == {
        "about": {"shards": {"path": "shards"}, "config": {"arch": "baseline"}},
        "spec": {"classes": ["/m/1"]},
    }


def test_the_baseline_of_a_network_is_that_which_is_pushed() -> None:
    record = {"config": {"maps": "self"}, "maps": {"self": "gradcam", "sha256": "ab"}}
    changed = {**record, "maps": {"self": "gradcam", "sha256": "cd"}}
    assert with_baseline(record, "cd") == changed
    assert with_baseline(record, None) == record
    header = json.dumps({"__metadata__": {"salpipe": json.dumps({"about": record})}}).encode()
    data = network_without_paths(struct.pack("<Q", len(header)) + header, "cd")
    assert json.loads(json.loads(data[8:])["__metadata__"]["salpipe"])["about"] == changed


def test_a_text_that_names_the_folder_is_never_uploaded(tmp_path: Path) -> None:
    check_shareable("a.txt", b"nothing", tmp_path)
    for text in (f"in {tmp_path}", f"{tmp_path}/x", f"{Path.home()}/x"):
        with pytest.raises(SalpipeError, match=r"a\.txt: holds the path .* of this machine and is not uploaded$"):
            check_shareable("a.txt", text.encode(), tmp_path)
    # the tensors of a network are no text
    header = b'{"__metadata__":{}}'
    check_shareable("best.safetensors", struct.pack("<Q", len(header)) + header + str(tmp_path).encode(), tmp_path)


def test_the_name_of_the_network_is_that_of_trained_networks() -> None:
    assert contents.BEST == trained.BEST


def manifest(
    *, encoding: Any = "raw", boxes: bool = False, classes: tuple[str, ...] = ("a", "b"), **more: Any
) -> Manifest:
    provenance = {"source": {"model": "timm:resnet18", "weights_sha256": "ab" * 32}, **more}
    header = ShardHeader("plan", provenance, classes, 32, encoding, {"gradcam": MapShape(1, 7, 7)}, boxes)
    return Manifest(header, 0, (ShardEntry("shard-00000.h5", 2500, 10_000_000, "00" * 32),))


def card(record: Manifest, license: str = "mit") -> str:
    counts = {"train": 2000, "validation": 0, "test": 500, "": 0}
    shards = ShardsRecord(record, counts, dict.fromkeys(record.header.classes, 1250))
    return write_card(Contents("dataset", "plan", (), shards), ADDRESS, license)


def metadata(text: str) -> Any:
    return yaml.safe_load(text.split("---\n")[1])


def test_a_card_of_shards() -> None:
    text = card(manifest())
    assert metadata(text) == {
        "license": "mit",
        "pretty_name": "figures",
        "task_categories": ["image-classification"],
        "size_categories": ["1K<n<10K"],
        "tags": ["salpipe", "saliency"],
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": "shard-*.h5"}]}],
    }
    for part in (
        "2,500 images of 2 classes",
        "| train | 2,000 | 0 |",
        "| test | 500 | 2 |",
        "| gradcam | 1 | 7 x 7 |",
        "a \\(1,250\\), b \\(1,250\\)",
        "Source network: timm:resnet18",
        'load_dataset("org/figures", split="train")',
        "salpipe pull hf://org/figures -o shards",
    ):
        assert part in text, part
    assert "validation |" not in text


@pytest.mark.parametrize("options", [{"encoding": "jpeg"}, {"boxes": True}])
def test_shards_that_datasets_cannot_read_have_no_configuration(options: dict[str, Any]) -> None:
    text = card(manifest(**options))
    assert metadata(text)["viewer"] is False
    assert "configs" not in metadata(text)
    assert "load_dataset" not in text


def test_names_of_unknown_origin_are_no_markup() -> None:
    name = "a|b\n# <script>x</script> [l](http://x) `c`"
    text = card(manifest(classes=(name, "b")))
    assert "<script>" not in text
    assert "\n# \\<" not in text
    assert escaped(name) == r"a\|b \# \<script\>x\</script\> \[l\]\(http://x\) \`c\`"


def test_shards_that_hold_a_path_are_refused(tmp_path: Path) -> None:
    shards = manifest(settings={"weights": "/home/me/w.pth"})
    shards.write(tmp_path)
    with pytest.raises(SalpipeError, match=r"its shards hold the path '/home/me/w.pth', "):
        contents_of(tmp_path)


LISTING: dict[str, Any] = {
    "format": FORMAT,
    "format_version": "1.0",
    "kind": "dataset",
    "identity": "plan",
    "files": {"manifest.json": {"bytes": 1, "sha256": "00" * 32}},
}


@pytest.mark.parametrize(
    "change",
    [
        {"format": "other"},
        {"kind": "space"},
        {"identity": 3},
        {"files": []},
        {"files": {"manifest.json": 3}},
        {"files": {"manifest.json": {"bytes": -1, "sha256": "00" * 32}}},
        {"files": {"manifest.json": {"bytes": True, "sha256": "00" * 32}}},
        {"files": {"manifest.json": {"bytes": 1, "sha256": "00"}}},
        {"files": {"manifest.json\n": {"bytes": 1, "sha256": "00" * 32}}},
        {"files": {"best.safetensors": {"bytes": 1, "sha256": "00" * 32}}},
        {"files": {"plan.json": {"bytes": 1, "sha256": "00" * 32}}},
    ],
)
def test_damaged_listings_are_refused(change: dict[str, Any]) -> None:
    assert list(read_listing(json.dumps(LISTING).encode(), "hf://org/a")[2]) == ["manifest.json"]
    with pytest.raises(SalpipeError, match=r"^hf://org/a: salpipe\.json is damaged"):
        read_listing(json.dumps(LISTING | change).encode(), "hf://org/a")
    with pytest.raises(SalpipeError, match="pushed by a newer salpipe"):
        read_listing(json.dumps(LISTING | {"format_version": "2.0"}).encode(), "hf://org/a")
