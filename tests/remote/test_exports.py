"""Exports of `salpipe convert` at a URL, read as their copies are."""

from pathlib import Path

import pytest

from saliency_pipeline.conversion.convert import convert
from saliency_pipeline.datasets.export_file import KINDS
from saliency_pipeline.datasets.open import read_images
from saliency_pipeline.datasets.remote import read_place
from saliency_pipeline.errors import SalpipeError
from tests.conversion.examples import rich_folder
from tests.remote.web import Files, Hub


@pytest.mark.parametrize("kind", KINDS)
def test_an_export_is_read_from_a_url(kind: str, web: Files, tmp_path: Path) -> None:
    shards = rich_folder(tmp_path / "shards")
    copy = Path(convert(shards.path, tmp_path / "copy", to=kind, methods=("edges",)).folder)
    web.hub = Hub("org/birds")
    web.hub.commit(copy)
    remote, local = read_place("hf://datasets/org/birds"), read_images(copy)
    assert (remote.layout, remote.classes) == (local.layout, local.classes) == ("export", shards.classes)
    for one, other in zip(remote.records, local.records, strict=True):
        assert (one.key, one.label, one.split, one.read()) == (other.key, other.label, other.split, other.read())


def test_a_missing_image_of_an_export_is_named(web: Files, tmp_path: Path) -> None:
    shards = rich_folder(tmp_path / "shards")
    copy = Path(convert(shards.path, tmp_path / "copy", to="png", methods=("edges",)).folder)
    image = next((copy / "images").rglob("*.png"))
    image.unlink()
    web.hub = Hub("org/birds")
    web.hub.commit(copy)
    with pytest.raises(SalpipeError, match="in a list of images, but not there; restore it") as error:
        read_place("hf://datasets/org/birds")
    assert str(error.value).startswith(f"hf://datasets/org/birds/{image.relative_to(copy)}: ")
