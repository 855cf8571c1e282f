"""`salpipe explain` on the command line: outputs, JSON, progress, errors in one line."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from saliency_pipeline.cli.main import salpipe
from tests.gallery.test_page import Page
from tests.generation.examples import flat

TINY = ("--model", "test_resnet", "--weights", "none", "--size", "64")


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return flat(tmp_path / "photos", 2)


def explain(*arguments: object) -> Result:
    return CliRunner().invoke(salpipe, ["explain", *TINY, *map(str, arguments)], prog_name="salpipe")


def width(path: Path) -> int:
    with Image.open(path) as picture:
        return picture.width


def test_a_picture_goes_into_the_current_folder(images: Path) -> None:
    result = explain(images / "1.jpg", "--method", "gradcam")
    assert result.exit_code == 0, result.output
    first, second = result.stdout.splitlines()
    assert re.fullmatch(r"1\.jpg: [^,%]+ [0-9.]+%(, [^,%]+ [0-9.]+%){4}", first)
    assert second == "1-explained.png"
    assert width(Path("1-explained.png")) == 2 * (224 + 12) + 12
    assert result.stderr.splitlines() == ["salpipe: loading test_resnet", "salpipe: explaining 1 image"]
    assert explain(images / "1.jpg", "--quiet").stderr == ""


def test_standard_errors_and_masked_methods_are_in_the_output(images: Path) -> None:
    methods = ("--method", "rise:masks=20,cells=3", "--method", "occlusion", "--method", "groupcam:groups=3")
    result = explain(images / "1.jpg", *methods, "--json")
    assert result.exit_code == 0, result.output
    rise, occlusion, groupcam = json.loads(result.stdout)["images"][0]["maps"].values()
    assert 0 < rise["standard_error"][0] < 5
    assert "standard_error" not in occlusion
    assert (rise["shape"], occlusion["shape"]) == ([1, 64, 64], [1, 64, 64])
    assert groupcam["min"][0] >= 0


def test_methods_targets_and_images_are_side_by_side(images: Path, tmp_path: Path) -> None:
    outputs = [tmp_path / f"new/out.{kind}" for kind in ("png", "html", "npz")]
    methods = ("--method", "gradcam", "--method", "gradient", "--target", "top:2")
    layers = ("--layer", "layer3", "--layer", "layer4")
    options = [option for output in outputs for option in ("-o", output)]
    result = explain(images / "1.jpg", images / "2.jpg", *methods, *layers, *options, "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["files"] == [str(output) for output in outputs]
    assert [entry["image"] for entry in report["images"]] == [str(images / "1.jpg"), str(images / "2.jpg")]
    for entry in report["images"]:
        assert len(entry["top"]) == 5
        assert entry["targets"] == entry["top"][:2]
        shapes = {name: own["shape"][0] for name, own in entry["maps"].items()}
        assert shapes == {"gradcam:layer=layer3": 2, "gradcam:layer=layer4": 2, "gradient": 2}
    assert np.load(outputs[2])["maps/gradient"].shape == (2, 2, 64, 64)
    assert width(outputs[0]) == 4 * (224 + 12) + 12
    assert "2 images" in Page(outputs[1]).text


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["photos/1.jpg", "--method", "gradcum"], 2, "--method gradcum: unknown; did you mean gradcam?"),
        (["photos/1.jpg", "--target", "top:0"], 2, "--target top:0: use predicted, label, top:K"),
        (["photos/1.jpg", "--target", "tabbby"], 1, "--target: class 'tabbby': not one of test_resnet's 1000 classes"),
        (["photos/1.jpg", "--layer", "layer9"], 1, "--layer layer9: is no layer of this network; candidates: layer"),
        (["photos/1.jpg", "-o", "out.jpg"], 1, "out.jpg: use a name that ends in .png, .html or .npz"),
        (["photos/1.png", "-o", "photos/1.png"], 2, "-o photos/1.png: is the image itself; choose another name"),
        (["text.jpg"], 1, "text.jpg: not an image that can be read"),
        (["photos/1.jpg", "-o", ""], 2, "Invalid value for '-o' / '--output': is empty"),
        (["photos/1.jpg", "--fit", "stretch"], 2, "'stretch' is not one of 'crop', 'pad', 'squash'"),
        (["photos/1.jpg", "--size", "0"], 2, "--size 0: use a number from 1"),
        (["photos"], 2, "File 'photos' is a directory"),
        (["nowhere.jpg"], 2, "File 'nowhere.jpg' does not exist"),
        ([], 2, "Missing argument 'IMAGES...'"),
    ],
)
def test_errors_are_one_line(images: Path, arguments: list[str], code: int, message: str) -> None:
    Path("text.jpg").write_text("not an image", encoding="utf-8")
    Image.new("RGB", (40, 40)).save(images / "1.png")
    before = (images / "1.png").read_bytes()
    result = explain(*arguments, "--quiet")
    assert result.exit_code == code
    assert message in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr
    assert (images / "1.png").read_bytes() == before
    assert not list(Path().glob("*explained*"))


PRINTING = """
from torch import nn

class Printing(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))

    def forward(self, images):
        print("shape", tuple(images.shape))
        return self.layers(images)

def network():
    return Printing(), {"size": 32, "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
"""


def test_what_a_network_prints_is_not_part_of_the_result(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "printing_networks.py").write_text(PRINTING)
    monkeypatch.chdir(tmp_path)
    image = next(path for path in sorted(images.rglob("*")) if path.is_file())
    for command in (["explain", image, "-o", "out.png"], ["generate", image.parent, "-o", "out"]):
        options = ["--model", "printing_networks:network", "--method", "gradient", "--json"]
        result = CliRunner().invoke(salpipe, [*map(str, command), *options], catch_exceptions=False)
        assert result.exit_code == 0, result.stderr
        assert json.loads(result.stdout)
        assert "shape (" in result.stderr
