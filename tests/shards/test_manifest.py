"""The manifest: round trip, reproducible bytes, and damage in one line."""

import dataclasses
import json

import pytest

from saliency_pipeline.errors import IntegrityError, SalpipeError
from saliency_pipeline.shards.manifest import Manifest, ShardEntry
from saliency_pipeline.shards.schema import MapShape
from tests.shards.examples import folder, header

DIGEST = "ab" * 32


def manifest(**changes) -> Manifest:
    shards = (ShardEntry("shard-00000.h5", 3, 999, DIGEST), ShardEntry("shard-00001.h5", 0, 50, DIGEST))
    return Manifest(dataclasses.replace(header(), **changes), 1, shards)


def test_what_was_written_is_read(tmp_path):
    whole = manifest()
    whole.write(tmp_path)
    assert Manifest.read(tmp_path) == whole
    assert Manifest.read(tmp_path).images == 3
    assert Manifest.read(tmp_path).header == header()
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]


def test_bytes_depend_on_what_it_says_alone(tmp_path):
    manifest().write(tmp_path)
    first = (tmp_path / "manifest.json").read_bytes()
    shuffled = dict(reversed(list(header().provenance.items())))
    manifest(provenance=shuffled, maps=dict(reversed(list(header().maps.items())))).write(tmp_path)
    assert (tmp_path / "manifest.json").read_bytes() == first
    assert first.isascii()
    assert first.endswith(b"}\n")
    data = json.loads(first)
    assert (data["format"], data["format_version"], data["images"]) == ("salpipe-manifest", "1.1", 3)
    assert data["maps"]["gradcam"] == {"targets": 1, "height": 7, "width": 5}
    assert data["shards"][0] == {"name": "shard-00000.h5", "images": 3, "bytes": 999, "sha256": DIGEST}


def test_residuals_are_part_of_the_shape(tmp_path):
    whole = manifest(maps={"gradcam": MapShape(1, 7, 7), "b:nodes=9": MapShape(1, 7, 7, residual=True)})
    whole.write(tmp_path)
    assert Manifest.read(tmp_path) == whole
    data = json.loads((tmp_path / "manifest.json").read_bytes())
    assert data["format_version"] == "1.2"
    assert data["maps"]["b:nodes=9"] == {"targets": 1, "height": 7, "width": 7, "residual": True}
    assert data["maps"]["gradcam"] == {"targets": 1, "height": 7, "width": 7}


def test_standard_errors_are_part_of_the_shape(tmp_path):
    whole = manifest(maps={"gradcam": MapShape(1, 7, 7), "rise": MapShape(1, 9, 9, standard_error=True)})
    whole.write(tmp_path)
    assert Manifest.read(tmp_path) == whole
    data = json.loads((tmp_path / "manifest.json").read_bytes())
    assert data["format_version"] == "1.3"
    assert data["maps"]["rise"] == {"targets": 1, "height": 9, "width": 9, "standard_error": True}


def test_a_folder_without_one_is_not_finished(tmp_path):
    with pytest.raises(SalpipeError, match=r"not a finished salpipe folder; run 'salpipe generate' again") as raised:
        Manifest.read(tmp_path)
    assert raised.value.exit_code == 1
    assert str(tmp_path) in str(raised.value)


def damage(**changes):
    def change(data):
        data.update(changes)

    return change


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda data: data.pop("plan"), "'plan' is missing"),
        (damage(size="224"), "not a int"),
        (damage(size=True), "not a int"),
        (damage(size=-1), "size"),
        (damage(encoding="png"), "encoding"),
        (damage(classes=[1, 2]), "not a str"),
        (damage(maps={"gradcam": {"targets": 1, "height": 7}}), "'width' is missing"),
        (damage(maps={"../x": {"targets": 1, "height": 7, "width": 7}}), "method"),
        (damage(images=4), "4 images but 3 in its shards"),
        (damage(rejects=10**19), "rejected images"),
        (damage(boxes="yes"), "not a bool"),
        (damage(groups=1), "not a bool"),
        (damage(format="something"), "not a manifest"),
        (damage(format_version="one"), "format_version"),
        (lambda data: data["shards"][0].update(name="../../etc/passwd"), "not the name of a shard"),
        (lambda data: data["shards"][1].update(name="shard-00000.h5"), "listed twice"),
        (lambda data: data["shards"][0].update(sha256="zz"), "impossible"),
        (lambda data: data["shards"][0].update(bytes=-1), "impossible"),
        (lambda data: data["shards"].append(3), "not a dict"),
    ],
)
def test_damage_is_named(tmp_path, change, what):
    manifest().write(tmp_path)
    path = tmp_path / "manifest.json"
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))
    with pytest.raises(IntegrityError, match=what) as raised:
        Manifest.read(tmp_path)
    assert "\n" not in str(raised.value)
    assert str(path) in str(raised.value)


@pytest.mark.parametrize("text", [b"", b"{", b"\xff\xfe", b"[1]", b"null", b"[" * 100_000, b'{"format": NaN}'])
def test_what_is_not_json_is_damaged(tmp_path, text):
    (tmp_path / "manifest.json").write_bytes(text)
    with pytest.raises(IntegrityError, match="damaged"):
        Manifest.read(tmp_path)


def test_a_newer_format_asks_for_an_upgrade(tmp_path):
    path = folder(tmp_path / "f") / "manifest.json"
    path.write_text(path.read_text().replace('"format_version": "1.1"', '"format_version": "1.7"'))
    assert Manifest.read(path.parent).images == 12
    path.write_text(path.read_text().replace('"format_version": "1.7"', '"format_version": "2.0"'))
    with pytest.raises(SalpipeError, match=r"format 2\.0 is newer than this salpipe can read; upgrade salpipe"):
        Manifest.read(path.parent)


def test_a_manifest_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "manifest.json").mkdir()
    with pytest.raises(SalpipeError, match=r"cannot read .*manifest\.json"):
        Manifest.read(tmp_path)
