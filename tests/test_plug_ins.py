"""A method of another package shows up in the command line, in shards and in the gallery."""

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from saliency_pipeline.cli.main import salpipe
from saliency_pipeline.shards.reader import ShardFolder
from tests.gallery.test_page import Page
from tests.generation.examples import COMMAND, photographs
from tests.saliency.methods.test_registry import install

PACKAGE = '''\
"""Saliency from the distance of a pixel's color to the mean color, a method in a package of its own."""

from dataclasses import dataclass

from torch import Tensor

from saliency_pipeline.saliency.engine.need import Need
from saliency_pipeline.saliency.methods.method import Method
from saliency_pipeline.settings import setting


@dataclass(frozen=True)
class ColorContrast(Method):
    """Distance of each pixel's color to the mean color of the image."""

    name = "color-contrast"
    needs = Need.NOTHING
    convention = "|x - mean(x)|^power over the channels of the normalized frame"
    paper = "Achanta et al., CVPR 2009"
    class_specific = False

    power: float = setting(1.0, "Exponent of the distance.", range=(0.1, 10.0))

    def maps(self, ask) -> Tensor:
        pixels = ask.pixels()
        return (pixels - pixels.mean((2, 3), keepdim=True)).norm(dim=1, keepdim=True) ** self.power
'''


def test_a_method_of_a_package_works_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(PACKAGE.splitlines()) <= 40
    (tmp_path / "site").mkdir()
    install(tmp_path / "site", "contrast_package", {"color-contrast": "ColorContrast"}, PACKAGE)
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.chdir(tmp_path)
    images = photographs(tmp_path / "photos", [f"{kind}/{n}.jpg" for kind in "ab" for n in range(2)])

    def run(*arguments: object) -> str:
        result = CliRunner().invoke(salpipe, [*map(str, arguments)], catch_exceptions=False)
        assert result.exit_code == 0, result.stderr
        return result.stdout

    assert "color-contrast  image" in run("methods", "color*")
    method = "color-contrast:power=2"
    run("explain", images / "a/0.jpg", "--method", method, "-o", "picture.npz", *COMMAND[:6])
    run("generate", images, "-o", "shards", "--method", method, "--method", "gradcam", *COMMAND)
    run("show", "shards", "-o", "gallery")

    data = ShardFolder(tmp_path / "shards")
    assert list(data.methods) == ["color-contrast:power=2.0", "gradcam"]
    pair = next(pair for pair in data if pair.key == "a/0.jpg")
    assert pair.maps["color-contrast:power=2.0"].shape == (1, 64, 64)
    assert pair.targets["color-contrast:power=2.0"].tolist() == [-1]
    assert data.provenance["methods"]["color-contrast:power=2.0"]["paper"] == "Achanta et al., CVPR 2009"
    explained = np.load(tmp_path / "picture.npz")["maps/color-contrast:power=2.0"]
    stored = pair.maps["color-contrast:power=2.0"]
    np.testing.assert_allclose(stored, explained, atol=1e-3 * explained.max())
    assert "color-contrast" in Page(tmp_path / "gallery/gallery.html").text
