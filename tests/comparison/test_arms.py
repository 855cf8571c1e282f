"""Arms by name, from flags and files; which is held against which."""

from pathlib import Path

import pytest

from saliency_pipeline.comparison.arms import BUILT_IN, DEFAULT, choose_arms, contrasts
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.training.config import TrainConfig


def file(path: Path, text: str) -> Path:
    (path / "arms.toml").write_text(text)
    return path / "arms.toml"


def test_by_default_the_question_has_its_controls() -> None:
    arms = choose_arms([])
    assert tuple(arm.name for arm in arms) == DEFAULT
    assert [arm.kind for arm in arms] == ["reference", "candidate", "control", "control"]
    assert contrasts(arms) == [
        ("half", "baseline"),
        ("mismatched", "baseline"),
        ("center-prior", "baseline"),
        ("half", "mismatched"),
        ("half", "center-prior"),
    ]


@pytest.mark.parametrize("name", [name for name in BUILT_IN if name != "baseline"])
def test_every_built_in_arm_is_a_configuration(name: str) -> None:
    arms = choose_arms(["baseline", name], start="run" if name == "full" else None)
    config = arms[1].config(TrainConfig(epochs=3))
    assert config.epochs == 3
    assert all(getattr(config, option) == value for option, value in BUILT_IN[name].items())
    assert arms[1].kind == ("control" if config.maps != "own" else "candidate")


def test_an_arm_may_stand_under_another_name() -> None:
    first, second = choose_arms(["baseline", "again=baseline"])
    assert (second.name, second.options, second.kind) == ("again", first.options, "candidate")


def test_another_reference_may_be_chosen() -> None:
    arms = choose_arms(["baseline", "half", "add"], reference="add")
    assert contrasts(arms) == [("baseline", "add"), ("half", "add")]
    assert choose_arms(["half", "add"])[0].kind == "reference"


def test_a_file_describes_arms_of_ones_own(tmp_path: Path) -> None:
    text = """
[arm.baseline]
arch = "baseline"
[arm.late]
like = "half"
fuse-at = "layer2"
augment = ["flip"]
[arm.late-mismatched]
like = "mismatched"
fuse-at = "layer2"
[arm.own]
like = "half"
kind = "control"
"""
    arms = {arm.name: arm for arm in choose_arms([], file(tmp_path, text))}
    assert [arm.kind for arm in arms.values()] == ["reference", "candidate", "control", "control"]
    config = arms["late"].config(TrainConfig())
    assert (config.arch, config.init, config.fuse_at, config.augment) == ("modulated", "half", "layer2", ("flip",))
    # what is named on the command line comes as well
    assert len(choose_arms(["learned"], file(tmp_path, text))) == 5


@pytest.mark.parametrize(
    ("names", "text", "message"),
    [
        (["half"], None, "needs two arms or more"),
        (["half", "hafl"], None, "no arm 'hafl'; there are baseline"),
        (["half", "half"], None, "half is named twice; call one of them otherwise, as in --arm again=half"),
        (["half", "a/b=half"], None, "use letters, digits"),
        (["half", "../up=half"], None, "use letters, digits"),
        ([], "x = 1", r"holds no tables \[arm.NAME\]"),
        ([], "[arm", r"holds no tables \[arm.NAME\]"),
        ([], "arm = 3", r"holds no tables \[arm.NAME\]"),
        ([], "arm = " + "[" * 100_000, "nested too deeply"),
        ([], "[arm.x]\nlike = ['half']", "no arm '\\['half'\\]' to be like"),
        ([], "[arm]\nx = 3", r"\[arm.x\] is no table"),
        ([], "[arm.x]\nlike = 'full-time'", "no arm 'full-time' to be like"),
        ([], "[arm.x]\nkind = 'reference'", "kind 'reference'; use candidate or control"),
        ([], "[arm.x]\nlearning-rate = 1", "learning-rate is no option of 'salpipe train'; leave it out"),
        ([], "[arm.x]\nseed = 1", "seed is the same for all arms; leave it out"),
    ],
)
def test_what_is_no_arm_is_refused(tmp_path: Path, names: list[str], text: str | None, message: str) -> None:
    with pytest.raises(SalpipeError, match=message) as error:
        choose_arms(names, file(tmp_path, text) if text else None)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("lr = -1", "arm x: --lr -1"),
        ("lr = 'fast'", "arm x: --lr 'fast': use a number"),
        ("batch-size = 2.5", "arm x: --batch-size 2.5: use a whole number"),
        ("augment = [['crop']]", "arm x: --augment .*: use a list of names"),
        ("fusion = 3", "arm x: --fusion 3: use text"),
    ],
)
def test_an_option_that_cannot_be_names_its_arm(tmp_path: Path, options: str, message: str) -> None:
    arms = choose_arms(["baseline"], file(tmp_path, f"[arm.x]\n{options}"))
    with pytest.raises(SalpipeError, match=message):
        arms[1].config(TrainConfig())
