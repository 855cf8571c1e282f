"""`salpipe methods` on the command line; names and parameters are tested in tests/saliency/methods."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from saliency_pipeline.cli.main import salpipe
from saliency_pipeline.saliency.methods.listing import list_methods
from saliency_pipeline.saliency.methods.registry import METHODS
from tests.saliency.methods.test_registry import Sampled, install


def methods(*arguments: str) -> Result:
    result = CliRunner().invoke(salpipe, ["methods", *arguments])
    assert result.exit_code == 0
    return result


def test_all_methods_are_listed_with_level_cost_needs_equality_and_paper() -> None:
    table, _, notes = methods().stdout.partition("\n\n")
    head, *lines = table.splitlines()
    assert head.split() == ["name", "level", "cost", "needs"]
    assert [line.split()[0] for line in lines] == [*METHODS, "captum:NAME"]
    assert lines[0].split() == ["gradcam", "layer", "0", "activations,", "gradients"]
    assert "gradcampp:normalized=false: equals layercam" in notes
    assert all(paper in notes for paper in ("arXiv:1610.02391", "arXiv:1905.00780"))
    assert max(map(len, methods().stdout.splitlines())) <= 80


def test_parameters_are_shown_with_their_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, "sampled", Sampled)
    _, line, _, note = methods("samp*").stdout.splitlines()
    assert line.split()[:2] == ["sampled", "pixels"]
    assert note.startswith("sampled:absolute=false,noise=0.15,samples=25,stat=mean: ")
    (entry,) = json.loads(methods("sampled", "--json").stdout)["methods"]
    assert entry["parameters"]["samples"] == {
        "default": 25,
        "type": "int",
        "range": [1, 1000],
        "choices": [],
        "help": "Number of samples.",
    }
    assert entry["needs"] == ["points"]
    assert entry["complete"] is True


def test_a_pattern_is_searched_for() -> None:
    names = [entry["name"] for entry in json.loads(methods("*cam", "--json").stdout)["methods"]]
    assert "gradcam" in names
    assert all(name.endswith("cam") for name in names)
    assert "captum:NAME" not in methods("*cam").stdout


def test_a_pattern_without_a_match_says_so() -> None:
    assert json.loads(methods("no such method", "--json").stdout) == {"methods": []}
    assert methods("no such method").stderr == "salpipe: no method matches 'no such method'\n"


def test_attributions_of_captum_are_listed_for_their_pattern() -> None:
    names = [method.name for method in list_methods("captum*")]
    assert "captum:DeepLift" in names
    assert all(name.startswith("captum:") for name in names)
    assert [method.name for method in list_methods("captum:Deep*")] == ["captum:DeepLift"]


def test_a_broken_package_does_not_hide_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "bright_package", {"brightness": "Brightness"})
    install(tmp_path, "broken_package", {"broken": "Broken"}, "import nothing_at_all\n")
    monkeypatch.syspath_prepend(tmp_path)
    result = methods("br*")
    assert [line.split()[0] for line in result.stdout.splitlines()[1:2]] == ["brightness"]
    assert "from bright_package" in result.stdout
    assert result.stderr == (
        "salpipe: method broken of broken_package: cannot be imported at broken_package.py:1 "
        "(ModuleNotFoundError: No module named 'nothing_at_all'); update or uninstall the package\n"
    )
