"""The page on formats: every example runs with the tool that it names, and reads what the shards hold."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from saliency_pipeline.conversion.annotate import annotate
from saliency_pipeline.conversion.convert import convert
from saliency_pipeline.conversion.masks import Cut
from saliency_pipeline.files import publish
from saliency_pipeline.shards.manifest import Manifest, ShardEntry
from saliency_pipeline.shards.reader import ShardFolder
from saliency_pipeline.shards.schema import MapShape, shard_name
from saliency_pipeline.temporaries import temporary_name
from tests.shards.examples import SIZE, header, rows, write

PAGE = Path(__file__).parents[1] / "docs" / "formats.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
TOOLS = (
    '"hdf5"',
    '"parquet"',
    '"webdataset"',
    '"imagefolder"',
    "webdataset.WebDataset",
    "ImageFolder",
    "pycocotools",
    "fiftyone",
    "generate(",
)
"""A word of each example, in their order, which is not that of the table."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards and their exports under the names of the page. Not to be changed."""
    root = tmp_path_factory.mktemp("formats")
    (root / "shards").mkdir()
    head = dataclasses.replace(header(), maps={"gradcam": MapShape(1, 7, 5)})
    head = dataclasses.replace(head, classes=("cat", "dog", "owl"))
    entries = []
    for number in range(2):
        whole = rows(4, first=4 * number)
        whole.maps = {"gradcam": np.abs(whole.maps["gradcam"])}
        whole.targets = {"gradcam": whole.targets["gradcam"]}
        whole.labels, whole.splits = np.array([0, 1, 2, 0]), np.array([0, 0, 0, 1], np.int8)
        final = root / "shards" / shard_name(number)
        digest = publish(write(temporary_name(final), head, whole), final)
        entries.append(ShardEntry(final.name, 4, final.stat().st_size, digest))
    Manifest(head, 0, tuple(entries)).write(root / "shards")
    for to, name in (("webdataset", "tars"), ("parquet", "tables"), ("png", "folders")):
        convert(root / "shards", root / name, to=to)
    annotate(root / "shards", root / "coco", "coco", cut="otsu")
    annotate(root / "shards", root / "fiftyone", "fiftyone")
    return root


@pytest.fixture(autouse=True)
def without_network(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """The libraries of Hugging Face look nothing up and keep nothing in the user's cache."""
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path_factory.mktemp("hf")))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("datasets")))


def test_there_is_an_example_for_every_line_of_the_table():
    table = re.findall(r"^\| (?!tool|---|file|`\.).*\|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(EXAMPLES) == len(TOOLS) == len(table)
    for example, tool in zip(EXAMPLES, TOOLS, strict=True):
        assert tool in example


@pytest.mark.filterwarnings("default")  # of the other libraries
@pytest.mark.parametrize("example", EXAMPLES, ids=[re.sub(r"\W", "", tool) for tool in TOOLS])
def test_an_example_reads_what_the_shards_hold(folder, monkeypatch, capsys, example):
    monkeypatch.chdir(folder)
    values: dict[str, Any] = {}
    exec(compile(example, str(PAGE), "exec"), values)
    shards = ShardFolder(folder / "shards")
    image = np.asarray(values["image"])
    (pair,) = (each for each in shards if np.array_equal(each.image, image))
    if "hdf5" not in example:
        assert values["name"] == pair.class_name
    else:
        assert values["row"]["label"] == pair.label
    read = {"saliency", "mask", "levels"} & values.keys()
    own = pair.maps["gradcam"][0]
    if "saliency" in read:
        assert np.asarray(values["saliency"]).dtype == np.float32
        np.testing.assert_array_equal(values["saliency"], own)
    elif "mask" in read:
        np.testing.assert_array_equal(values["mask"], Cut("otsu").mask(own, SIZE))
    elif "levels" in read:
        np.testing.assert_array_equal(np.asarray(values["levels"]), np.rint(own.astype(float) / own.max() * 255))
    else:
        assert "maps" not in example
