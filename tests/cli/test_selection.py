"""Options of reading and taking images: what a command is given of them, and that --help names them all."""

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from saliency_pipeline.cli.options import config_option
from saliency_pipeline.cli.selection import selection_options
from saliency_pipeline.datasets.layout import ReadOptions
from saliency_pipeline.errors import OptionError, SalpipeError
from saliency_pipeline.subsets.selection import Selection


@click.command("take")
@click.argument("images")
@selection_options
@config_option
@click.option("--fit", default="crop")
def take(**given: object) -> dict[str, object]:
    """Take images."""
    return given


def given(*arguments: str) -> dict[str, object]:
    return take.main(["photos", *arguments], standalone_mode=False)


def test_nothing_given_is_nothing_wanted():
    assert given() == {
        "images": "photos",
        "fit": "crop",
        "layout": "auto",
        "reading": ReadOptions(),
        "selection": Selection(),
    }


def test_every_option_arrives(tmp_path):
    (tmp_path / "urls.txt").touch()
    reading = f"--layout pubfig --label-level 2 --noise 25 --list {tmp_path / 'urls.txt'} --no-crop --margin 0.2"
    found = given(*reading.split())
    assert found["layout"] == "pubfig"
    assert found["reading"] == ReadOptions(2, 25, tmp_path / "urls.txt", False, 0.2)

    taking = "--classes tench --classes !n014* --min-per-class 5 --num-classes 4 --per-class 3 --split 72/18/10"
    assert given(*taking.split(), "--stable-split", "--seed", "7")["selection"] == Selection(
        ("tench", "!n014*"), 5, 4, 3, splits=(72, 18, 10), stable=True, seed=7
    )


@pytest.mark.parametrize(
    ("text", "splits"),
    [("80/20", (80, 20)), ("0.8/.1/0.1", (0.8, 0.1, 0.1)), ("8828/2057/1143", (8828, 2057, 1143))],
)
def test_splits_are_numbers_divided_by_strokes(text, splits):
    assert given("--split", text)["selection"] == Selection(splits=splits)


@pytest.mark.parametrize("text", ["80-20", "80%/20%", "a/b", "-1/101", "1e2/0", "nan/1", "80/", "", "٣/٤"])
def test_other_splits_are_wrong_usage(text):
    with pytest.raises(click.BadParameter, match="is not numbers divided by '/', such as 72/18/10"):
        given("--split", text)


def test_a_recipe_gives_the_splits_and_leaves_the_rest_to_the_other_options():
    found = given("--recipe", "article-pubfig", "--num-classes", "60", "--seed", "3", "--min-per-class", "60")
    assert found["selection"] == Selection((), 60, 60, None, splits=(2218, 555, 309), seed=3, recipe="article-pubfig")
    with pytest.raises(SalpipeError, match="leave --per-class out"):
        given("--recipe", "article-pubfig", "--per-class", "3")


def test_contradictions_are_errors_of_one_line():
    with pytest.raises(SalpipeError, match="--stable-split: needs fractions"):
        given("--stable-split")


def test_a_file_of_defaults_has_the_same_names(tmp_path):
    file = tmp_path / "take.toml"
    file.write_text('classes = ["tench", "*shark"]\nsplit = "80/20"\nstable-split = true\ncrop = false\nseed = 5\n')
    found = given("--config", str(file))
    assert found["selection"] == Selection(("tench", "*shark"), splits=(80, 20), stable=True, seed=5)
    assert found["reading"] == ReadOptions(crop=False)


def test_help_shows_every_option_in_its_place():
    text = CliRunner().invoke(take, ["--help"]).output
    flags = "--layout --label-level --noise --list --crop --margin --classes --min-per-class --num-classes --per-class"
    places = [text.index(f"  {flag} ") for flag in (*flags.split(), "--split", "--stable-split", "--recipe", "--seed")]
    assert places == sorted(places)
    rule = "percentages, which sum to 100, fractions, which sum to 1, or else numbers of images"
    assert rule in " ".join(text.split())


@pytest.mark.parametrize(
    "arguments",
    [
        ("--margin", "-1"),
        ("--margin", "nan"),
        ("--margin", "wide"),
        ("--noise", "2"),
        ("--seed", "-1"),
        ("--num-classes", "0"),
    ],
)
def test_values_out_of_range_are_wrong_usage(arguments):
    with pytest.raises((click.BadParameter, OptionError)):
        given(*arguments)


def test_a_list_that_is_not_there_is_wrong_usage(tmp_path):
    with pytest.raises(click.BadParameter, match="does not exist"):
        given("--list", str(Path(tmp_path, "none.txt")))
