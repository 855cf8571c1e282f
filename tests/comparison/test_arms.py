"""Arms by name, from flags and files; their controls; and the contrasts that are made."""

from pathlib import Path

import pytest

from saliency_pipeline.comparison.arm_entries import BUILT_IN, CONTROLS
from saliency_pipeline.comparison.arms import (
    DEFAULT,
    DEFAULT_CONTROLS,
    Arm,
    Question,
    choose_arms,
    contrasts,
    reads_maps,
    with_candidates,
)
from saliency_pipeline.comparison.use_arms import listed_uses, same_use
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.training.config import TrainConfig


def file(path: Path, text: str) -> Path:
    (path / "arms.toml").write_text(text)
    return path / "arms.toml"


def names(arms: tuple[Arm, ...]) -> list[str]:
    return [arm.name for arm in arms]


def test_by_default_the_question_has_its_controls() -> None:
    arms = choose_arms([])
    assert names(arms) == [*DEFAULT, *(f"half-{control}" for control in DEFAULT_CONTROLS)]
    assert [arm.kind for arm in arms] == ["reference", "candidate", "control", "control"]
    assert contrasts(arms) == [
        Question("half", "baseline", "reference"),
        Question("half", "half-mismatched", "control"),
        Question("half", "half-center-prior", "control"),
        Question("half-mismatched", "baseline", "descriptive"),
        Question("half-center-prior", "baseline", "descriptive"),
    ]


@pytest.mark.parametrize("name", [name for name in BUILT_IN if not name.startswith("baseline")])
def test_every_built_in_arm_is_a_configuration(name: str) -> None:
    arms = choose_arms(["baseline", name], start="run" if name == "full" else None)
    config = arms[1].config(TrainConfig(epochs=3))
    assert config.epochs == 3
    assert all(getattr(config, option) == value for option, value in BUILT_IN[name].items())
    assert (arms[1].kind, reads_maps(arms[1])) == ("candidate", config.reads_maps)
    assert config.reads_maps == (name != "learned")


@pytest.mark.parametrize("candidate", ["half", "neutral", "input", "full", "zoom", "mask"])
@pytest.mark.parametrize("control", CONTROLS)
def test_a_control_differs_from_its_candidate_in_maps_alone(candidate: str, control: str) -> None:
    start = "run" if candidate == "full" else None
    arms = choose_arms(["baseline", candidate, f"{candidate}-{control}"], start=start)
    own, controlled = (arm.config(TrainConfig()) for arm in arms[1:])
    differing = {name for name, value in vars(own).items() if getattr(controlled, name) != value}
    assert differing == {"maps"}
    assert (arms[2].kind, arms[2].of, controlled.maps) == ("control", candidate, control)


def test_no_contrast_is_made_with_a_control_of_another_network() -> None:
    arms = choose_arms(["baseline", "half", "input", "learned", "half-mismatched", "input-mismatched"])
    made = [(question.arm, question.against) for question in contrasts(arms) if question.role == "control"]
    assert made == [("half", "half-mismatched"), ("input", "input-mismatched")]
    # learned reads no maps, so that nothing can be concluded about where they point
    assert ("learned", "half-mismatched") not in {(question.arm, question.against) for question in contrasts(arms)}


def test_controls_are_made_for_every_candidate_that_reads_maps() -> None:
    arms = choose_arms(["baseline", "half", "neutral", "learned", "half-uniform"], controls=["mismatched", "uniform"])
    assert names(arms)[4:] == ["half-uniform", "half-mismatched", "neutral-mismatched", "neutral-uniform"]
    assert names(choose_arms(["baseline", "half"], controls=())) == ["baseline", "half"]
    # by default of the first candidate alone, and of none where controls are named
    assert names(choose_arms(["baseline", "learned", "neutral", "half"]))[4:] == [
        "neutral-mismatched",
        "neutral-center-prior",
    ]
    assert names(choose_arms(["baseline", "half", "uniform"])) == ["baseline", "half", "half-uniform"]
    assert names(choose_arms(["baseline", "learned"])) == ["baseline", "learned"]


def test_an_arm_may_stand_under_another_name() -> None:
    first, second = choose_arms(["baseline", "again=baseline"])
    assert (second.name, second.options, second.kind) == ("again", first.options, "candidate")
    arms = choose_arms(["baseline", "mine=half", "mine-mismatched", "blurred=center-prior"])
    assert [(arm.name, arm.of) for arm in arms[2:]] == [("mine-mismatched", "mine"), ("blurred", "mine")]


def test_another_reference_may_be_chosen() -> None:
    arms = choose_arms(["baseline", "half", "add"], reference="add", controls=())
    assert contrasts(arms) == [Question("baseline", "add", "reference"), Question("half", "add", "reference")]
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
of = "late"
maps = "mismatched"
[arm.late-uniform]
like = "uniform"
fuse-at = "layer2"
augment = ["flip"]
"""
    arms = {arm.name: arm for arm in choose_arms([], file(tmp_path, text))}
    assert [arm.kind for arm in arms.values()] == ["reference", "candidate", "control", "control"]
    config = arms["late"].config(TrainConfig())
    assert (config.arch, config.init, config.fuse_at, config.augment) == ("modulated", "half", "layer2", ("flip",))
    assert arms["late-mismatched"].options == {**arms["late"].options, "maps": "mismatched"}
    # without a name for its candidate it is the control of the arm that has the same options
    assert arms["late-uniform"].of == "late"
    # what is named on the command line comes as well
    assert len(choose_arms(["learned", "late-center-prior"], file(tmp_path, text))) == 6


def test_a_control_without_its_candidate_finds_it_by_its_options() -> None:
    arms = (Arm("b", {"arch": "baseline"}, "reference"), Arm("h", {"fusion": "add"}))
    control = Arm("c", {"fusion": "add", "maps": "uniform"}, "control")
    assert with_candidates((*arms, control))[2].of == "h"
    with pytest.raises(SalpipeError, match="arm c: no candidate has the same options but maps, so it is not a control"):
        with_candidates((*arms, Arm("c", {"fusion": "concat", "maps": "uniform"}, "control")))


def test_uses_are_arms_with_controls_of_their_own() -> None:
    arms = {arm.name: arm for arm in choose_arms([], uses=["zoom:margin=0.3", "modulate"])}
    controls = [f"{use}-{control}" for use in ("zoom", "modulate") for control in DEFAULT_CONTROLS]
    assert list(arms) == ["baseline", "zoom", "modulate", *controls]
    config = arms["zoom"].config(TrainConfig())
    assert config.map_use is not None
    assert (config.arch, config.init, config.map_use.margin) == ("baseline", "half", 0.3)  # type: ignore[attr-defined]
    assert arms["zoom"].options["use"] == config.use
    assert arms["modulate"].options == BUILT_IN["half"]
    assert [arm.of for arm in arms.values() if arm.kind == "control"] == ["zoom", "zoom", "modulate", "modulate"]
    assert arms["zoom-center-prior"].config(TrainConfig()).maps == "center-prior"
    assert names(choose_arms(["half"], uses=["zoom"], controls=()))[:3] == ["baseline", "half", "zoom"]
    assert names(choose_arms(["baseline", "wide=zoom:margin=0.3", "zoom"], controls=())) == ["baseline", "wide", "zoom"]


def test_oracle_and_self_arms_are_candidates_that_differ_in_maps_alone() -> None:
    arms = choose_arms(["given=zoom"], uses=["zoom:mass=0.8", "half"], oracle=True, self_maps=True)
    by_name = {arm.name: arm for arm in arms}
    added = [f"{maps}-{use}" for maps in ("oracle", "self") for use in ("given", "zoom", "half")]
    assert names(arms)[:10] == ["baseline", "given", "zoom", "half", *added]
    for name in added:
        maps, _, use = name.partition("-")
        assert by_name[name].kind == "candidate"
        assert by_name[name].options == {**by_name[use].options, "maps": maps}
        assert same_use(by_name[name].options, by_name[use].options)
    assert not same_use(by_name["given"].options, by_name["zoom"].options)
    # controls of what reads the maps of a method, but not of the true boxes
    assert {arm.of for arm in arms if arm.kind == "control"} == {"given", "zoom", "half"}
    assert by_name["oracle-zoom"].config(TrainConfig()).maps == "oracle"
    assert choose_arms(["baseline", "oracle-zoom"])[1].options == {**BUILT_IN["zoom"], "maps": "oracle"}


def test_controls_of_oracle_and_self_arms_are_those_that_read_no_stored_map() -> None:
    arms = choose_arms(["baseline", "self-zoom", "self-zoom-center-prior", "self-zoom-uniform"])
    assert [(arm.options["maps"], arm.kind, arm.of) for arm in arms[2:]] == [
        ("center-prior", "control", "self-zoom"),
        ("uniform", "control", "self-zoom"),
    ]
    # the pretraining of an arm has no baseline of its own
    names = [arm.name for arm in choose_arms(["baseline", "half", "full"], self_maps=True)]
    assert "self-half" in names
    assert "self-full" not in names


def test_arms_that_differ_in_their_method_share_an_oracle(tmp_path: Path) -> None:
    text = "[arm.masks]\nuse = 'zoom'\nmethod = 'given'\n[arm.truth]\nuse = 'mask'\nmaps = 'oracle'\n"
    arms = choose_arms([], file(tmp_path, text), uses=["zoom", "mask"], oracle=True, controls=())
    assert names(arms) == ["baseline", "zoom", "mask", "masks", "truth", "oracle-zoom"]
    assert arms[3].options == {"arch": "baseline", "use": BUILT_IN["zoom"]["use"], "method": "given"}


@pytest.mark.parametrize("order", ["before", "behind"])
def test_arms_with_other_maps_have_the_parameters_of_the_use_that_is_compared(tmp_path: Path, order: str) -> None:
    path = tmp_path / "arms.toml"
    path.write_text('[arm.given-zoom]\nlike = "zoom"\nmethod = "given"\n[arm.plain]\nlike = "mask"\nmethod = "given"\n')
    named = ("oracle-zoom", "self-zoom", "zoom-mismatched")
    own = "zoom:threshold=0.4"
    listed = (*named, own) if order == "before" else (own, *named)
    arms = {arm.name: arm for arm in choose_arms(("baseline", *listed), path, controls=())}
    uses = {name: arm.options.get("use") for name, arm in arms.items()}
    assert "threshold=0.4" in str(uses["zoom"])
    assert {uses[name] for name in (*named, "given-zoom")} == {uses["zoom"]}
    assert uses["plain"] == "mask:fill=mean,floor=0.2"


def test_parameters_of_listed_uses_may_have_commas() -> None:
    assert listed_uses("zoom:mass=0.8,margin=0.3,mask") == ("zoom:mass=0.8,margin=0.3", "mask")
    assert listed_uses("cut=zoom:views=2,mask:floor=0") == ("cut=zoom:views=2", "mask:floor=0")


FILE = "[arm.baseline]\narch = 'baseline'\n[arm.late]\nlike = 'half'\nfuse-at = 'layer2'\n"


@pytest.mark.parametrize(
    ("listed", "text", "message"),
    [
        (["half"], None, "needs two arms or more"),
        (["half", "hafl"], None, "no arm 'hafl'; there are baseline"),
        (["half", "half"], None, "half is named twice; rename one of them, as in --arm again=half"),
        (["half", "a/b=half"], None, "use letters, digits"),
        (["half", "../up=half"], None, "use letters, digits"),
        (["baseline", "baseline-full"], None, "needs a candidate besides its reference; add --arm half"),
        (["baseline", "mismatched"], None, "of the first candidate that reads maps, and none does; add --arm half"),
        (
            ["baseline", "half", "neutral-mismatched"],
            None,
            "its candidate neutral is not among the arms; add",
        ),
        (["baseline", "learned", "learned-mismatched"], None, "learned reads no maps, so it has no controls"),
        (
            ["baseline", "self-zoom", "self-zoom-mismatched"],
            None,
            "would read the stored maps of other images",
        ),
        (["baseline", "half", "baseline-uniform"], None, "baseline reads no maps, so it has no controls"),
        (["baseline", "x=learned", "x-uniform"], None, r"x reads no maps \(learned\), so it has no controls"),
        (["half", "add", "half-uniform"], None, "half is the reference, which has no controls; name a candidate"),
        ([], "x = 1", r"holds no tables \[arm.NAME\]"),
        ([], "[arm", r"holds no tables \[arm.NAME\]"),
        ([], "arm = 3", r"holds no tables \[arm.NAME\]"),
        ([], "arm = " + "[" * 100_000, "nested too deeply"),
        ([], "[arm.x]\nlike = ['half']", "like = '\\['half'\\]' is no arm"),
        ([], "[arm]\nx = 3", r"\[arm.x\] is not a table"),
        ([], "[arm.x]\nlike = 'full-time'", "like = 'full-time' is no arm"),
        ([], "[arm.x]\nlike = 'learned-mismatched'", "like = 'learned-mismatched' is no arm"),
        ([], "[arm.x]\nkind = 'reference'", "kind 'reference'; use candidate or control"),
        ([], "[arm.x]\nkind = 'control'", "a control needs other maps; add maps = one of mismatched"),
        ([], "[arm.x]\nkind = 'candidate'\nmaps = 'uniform'", "an arm like that is a control"),
        ([], "[arm.x]\nof = 3\nmaps = 'uniform'", "of = 3; use the name of a candidate"),
        (
            [],
            FILE + "[arm.c]\nof = 'late'\nmaps = 'uniform'\nlr = 0.1",
            "arm c: --lr differs from late; a control",
        ),
        ([], FILE + "[arm.c]\nlike = 'mismatched'", "arm c: no candidate has the same options but maps"),
        ([], FILE + "[arm.c]\nof = 'early'\nmaps = 'uniform'", "its candidate early is not among the arms"),
        ([], "[arm.x]\nlearning-rate = 1", "learning-rate is not an option of 'salpipe train'; leave it out"),
        ([], "[arm.x]\nseed = 1", "seed is the same for all arms; leave it out"),
        ([], "[arm.x]\ngroup-by = 'level:1'", "group-by is the same for all arms; leave it out"),
        ([], "[arm.x]\nmaps = 5", "maps = 5; use one of own, mismatched"),
        (["baseline", "zoom:width=3"], None, "--use zoom:width=3"),
        (["baseline", "oracle-baseline"], None, "no arm 'oracle-baseline'; there are baseline"),
        (["baseline", "oracle-self-zoom"], None, "no arm 'oracle-self-zoom'"),
        ([], "[arm.x]\nuse = 3", "arm x: use = 3; use one of modulate"),
        ([], "[arm.x]\nuse = 'zum'", "arm x: --use zum: unknown; choose from modulate"),
        ([], "[arm.x]\nuse = 'zoom'\narch = 'learned'", "use zoom trains arch = 'baseline'; leave arch out"),
        ([], "[arm.x]\nkind = 'control'\nmaps = 'oracle'", "a control needs other maps"),
    ],
)
def test_what_is_no_arm_is_refused(tmp_path: Path, listed: list[str], text: str | None, message: str) -> None:
    with pytest.raises(SalpipeError, match=message) as error:
        choose_arms(listed, file(tmp_path, text) if text else None)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("controls", "message"),
    [(["own"], "--control own: unknown; choose from mismatched"), (["uniform"], "no candidate reads maps")],
)
def test_controls_that_cannot_be_are_refused(controls: list[str], message: str) -> None:
    with pytest.raises(SalpipeError, match=message):
        choose_arms(["baseline", "learned"], controls=controls)


def test_other_maps_take_a_candidate_that_reads_maps() -> None:
    with pytest.raises(SalpipeError, match="--oracle: no candidate reads maps; add --uses zoom"):
        choose_arms(["baseline", "learned"], oracle=True)
    with pytest.raises(SalpipeError, match="zoom is named twice; rename one of them"):
        choose_arms(["zoom"], uses=["zoom:margin=0.3"])


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
