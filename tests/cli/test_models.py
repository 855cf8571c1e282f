"""`salpipe models` on the command line; the registry is tested in tests/models."""

import json

from click.testing import CliRunner, Result

from saliency_pipeline.cli.main import salpipe


def models(*arguments: str) -> Result:
    return CliRunner().invoke(salpipe, ["models", *arguments])


def test_a_few_good_models_are_listed_first_the_embedded_one() -> None:
    result = models()
    assert result.exit_code == 0
    head, first, *rest = (line.split() for line in result.stdout.splitlines())
    assert head == ["name", "library", "weights", "size", "shortcut"]
    assert first == ["efficientnet_lite0", "embedded", "embedded", "224", "yes"]
    assert {"resnet50", "torchvision/resnet50", "vit_small_patch16_224"} <= {line[0] for line in rest}
    assert "salpipe models 'resnet*'" in result.stderr


def test_a_pattern_is_searched_for() -> None:
    result = models("torchvision/resnet*")
    names = [line.split()[0] for line in result.stdout.splitlines()[1:]]
    assert "torchvision/resnet50" in names
    assert all(name.startswith("torchvision/resnet") for name in names)
    assert result.stderr == ""


def test_json_is_one_object() -> None:
    report = json.loads(models("test_resnet", "--json").stdout)
    (entry,) = [model for model in report["models"] if model["name"] == "test_resnet"]
    assert entry["library"] == "timm"
    assert entry["size"] == 160
    assert set(entry) == {"name", "library", "weights", "size", "closed_form"}


def test_a_pattern_without_a_match_says_so() -> None:
    assert json.loads(models("no such model", "--json").stdout) == {"models": []}
    result = models("no such model")
    assert (result.exit_code, len(result.stdout.splitlines())) == (0, 1)
    assert result.stderr == "salpipe: no model matches 'no such model'\n"
