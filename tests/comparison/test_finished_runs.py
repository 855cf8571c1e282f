"""Runs given by hand: what makes two of them a pair, what is refused and why, and which arms they are."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from saliency_pipeline.comparison.finished_runs import compare_runs
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.serialization import to_json
from saliency_pipeline.training.config import TrainConfig
from saliency_pipeline.training.run import train
from tests.evaluation.runs import Notes
from tests.training.examples import disable_plots, labeled

pytestmark = pytest.mark.usefixtures("without_pages")

QUICK = TrainConfig(backbone="test_resnet", epochs=1, batch_size=16, lr=0.01, precision="fp32", device="cpu")
BASELINE = {"arch": "baseline"}
RUNS = {
    "baseline": BASELINE,
    "half": {},
    "half-mismatched": {"maps": "mismatched"},
    "input": {"fusion": "input"},
    "inner": {"inner_split": True},
}


def weights_file(path: Path, seed: int) -> Path:
    """A file of random weights of the backbone."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        save_file(timm.create_model("test_resnet", num_classes=10).state_dict(), path)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards, a file of weights, and runs that start from it."""
    folder = tmp_path_factory.mktemp("runs")
    shards = labeled(folder / "shards", 48)
    weights = weights_file(folder / "weights.safetensors", 0)
    with pytest.MonkeyPatch.context() as patch:
        disable_plots(patch)
        for name, options in RUNS.items():
            train(shards, folder / name, replace(QUICK, **{"weights": str(weights), **options}))
    return folder


def copy_of(run: Path, folder: Path) -> Path:
    return Path(shutil.copytree(run, folder / f"copy of {run.name}"))


def edit(file: Path, change: Callable[[str], str]) -> None:
    text = file.read_text()
    assert change(text) != text
    file.write_text(change(text))


def change_digest(tensors: dict[str, str], name: str) -> None:
    tensors[name] = tensors[name][:-1] + ("0" if tensors[name][-1] != "0" else "1")


def with_other_shards(text: str) -> str:
    record = json.loads(text)
    record["shards"]["sha256"] = "5" * 64
    return json.dumps(record)


def other_shards(run: Path) -> None:
    edit(run / "provenance.json", with_other_shards)


def other_precision(run: Path) -> None:
    edit(run / "config.toml", lambda text: text.replace('precision = "fp32"', 'precision = "bf16"'))


def other_folds(run: Path) -> None:
    edit(run / "config.toml", lambda text: text + "folds = 3\n")


def other_grouping(run: Path) -> None:
    edit(run / "config.toml", lambda text: text + 'folds = 3\ngroup-by = "level"\n')


def other_images(run: Path) -> None:
    edit(run / "validation.csv", lambda text: text.replace("circle/0003.jpg", "circle/9999.jpg"))


def other_labels(run: Path) -> None:
    edit(run / "validation.csv", lambda text: text.replace("circle/0003.jpg,circle", "circle/0003.jpg,square"))


def other_pool(run: Path) -> None:
    edit(run / "provenance.json", lambda text: text.replace('"pool": 24', '"pool": 20'))


def other_random_weights(run: Path) -> None:
    provenance = json.loads((run / "provenance.json").read_text())
    change_digest(provenance["initialization"]["tensors"], "backbone.fc.weight")
    (run / "provenance.json").write_text(json.dumps(provenance))


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        (other_shards, r"shards .*/shards \([0-9a-f]{12}\) and .*/shards \(555555555555\)"),
        (other_precision, "--precision fp32 and bf16"),
        (other_folds, "--folds none and 3"),
        (other_grouping, "--folds none and 3, --group-by none and level"),
        (other_images, r"validation images \(12 and 12, 11 shared\)"),
        (other_labels, "labels of 1 validation images"),
        (other_pool, r"images to train on \(24 and 20\)"),
        (other_random_weights, r"random first weights \(backbone.fc.weight\)"),
    ],
)
def test_runs_that_are_no_pair_are_refused_by_what_differs(
    folder: Path, tmp_path: Path, change: Callable[[Path], None], difference: str
) -> None:
    half = copy_of(folder / "half", tmp_path)
    change(half)
    with pytest.raises(
        SalpipeError, match=f"baseline and .*copy of half: not comparable, they differ in {difference};"
    ) as error:
        compare_runs([folder / "baseline", half], tmp_path / "out")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_everything_that_differs_is_named_at_once(folder: Path, tmp_path: Path) -> None:
    half = copy_of(folder / "half", tmp_path)
    other_precision(half)
    other_labels(half)
    other_random_weights(half)
    with pytest.raises(SalpipeError, match=r"labels of .* images, --precision fp32 and bf16, random first weights"):
        compare_runs([folder / "baseline", half], tmp_path / "out")


@pytest.mark.usefixtures("without_plots")
def test_a_file_of_weights_that_changed_between_two_runs_is_seen(folder: Path, tmp_path: Path) -> None:
    """Options and names are the same; the backbones started from other weights."""
    weights = tmp_path / "weights.safetensors"
    for number, (name, options) in enumerate((("baseline", BASELINE), ("half", {}))):
        weights_file(weights, number)
        train(folder / "shards", tmp_path / name, replace(QUICK, weights=str(weights), **options))
    with pytest.raises(
        SalpipeError,
        match=r"they differ in first weights from test_resnet .* \(backbone\..*, backbone\..* and \d+ more tensors\);",
    ):
        compare_runs([tmp_path / "baseline", tmp_path / "half"], tmp_path / "out")


@pytest.mark.usefixtures("without_plots")
def test_runs_of_other_seeds_are_no_pair(folder: Path, tmp_path: Path) -> None:
    train(folder / "shards", tmp_path / "seed-1", replace(QUICK, init="scratch", seed=1))
    with pytest.raises(SalpipeError, match=r"baseline and .*seed-1: not a pair, they differ in seed 0 and seed 1,"):
        compare_runs([folder / "baseline", tmp_path / "seed-1"], tmp_path / "out")


def test_a_fourth_channel_leaves_the_rest_of_the_first_weights_comparable(folder: Path, tmp_path: Path) -> None:
    runs = [folder / "baseline", folder / "input"]
    assert compare_runs(runs, tmp_path / "out").results.settings[0].contrasts[0].pairs == 1
    changed = copy_of(folder / "input", tmp_path)
    provenance = json.loads((changed / "provenance.json").read_text())
    tensors = provenance["initialization"]["tensors"]
    (name,) = (name for name in tensors if name.endswith("[:, :3]"))
    change_digest(tensors, name)
    (changed / "provenance.json").write_text(json.dumps(provenance))
    with pytest.raises(SalpipeError, match=rf"first weights from test_resnet .*\({name.removesuffix('[:, :3]')}\)"):
        compare_runs([folder / "baseline", changed], tmp_path / "again")


def test_runs_on_an_inner_split_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(SalpipeError, match="inner: trained with --inner-split, which is for choosing options"):
        compare_runs([folder / "baseline", folder / "inner"], tmp_path / "out")


@pytest.mark.usefixtures("without_plots")
def test_a_run_of_an_earlier_version_is_refused_until_its_first_weights_are_recorded(
    folder: Path, tmp_path: Path
) -> None:
    half = copy_of(folder / "half", tmp_path)
    provenance = json.loads((half / "provenance.json").read_text())
    del provenance["initialization"]["tensors"]
    (half / "provenance.json").write_text(json.dumps(provenance))
    with pytest.raises(SalpipeError, match="does not record its first weights; give the same 'salpipe train' again"):
        compare_runs([folder / "baseline", half], tmp_path / "out")
    stored = TrainConfig.read(half)
    assert stored is not None
    train(folder / "shards", half, stored)
    assert compare_runs([folder / "baseline", half], tmp_path / "out").runs == 2
    (half / "validation.csv").unlink()
    with pytest.raises(SalpipeError, match=r"has no validation.csv, so that its validation images cannot be checked"):
        compare_runs([folder / "baseline", half], tmp_path / "again")


def test_a_control_belongs_to_the_candidate_that_differs_in_maps_alone(folder: Path, tmp_path: Path) -> None:
    runs = [folder / name for name in ("baseline", "half-mismatched", "half", "input")]
    results = to_json(compare_runs(runs, tmp_path / "out").results)
    arms = {arm["name"]: arm for arm in results["arms"]}
    assert {name: arm["kind"] for name, arm in arms.items()} == {
        "baseline": "reference",
        "half,fusion=multiply-skip-mismatched": "control",
        "half,fusion=multiply-skip": "candidate",
        "half,fusion=input": "candidate",
    }
    assert all({"arch", "maps"} <= arm["options"].keys() for arm in arms.values())
    contrasts = results["settings"][0]["contrasts"]
    assert {(c["arm"], c["against"]) for c in contrasts if c["role"] == "control"} == {
        ("half,fusion=multiply-skip", "half,fusion=multiply-skip-mismatched")
    }
    assert {c["against"] for c in contrasts if c["arm"] == "half,fusion=input"} == {"baseline"}


def test_given_runs_are_one_look_that_no_plan_fixed(folder: Path, tmp_path: Path) -> None:
    notes = Notes()
    results = to_json(compare_runs([folder / "baseline", folder / "half"], tmp_path / "out", progress=notes).results)
    assert results["about"]["given"] is True
    assert any("no plan fixed them beforehand: p values hold for one look" in text for text in results["warnings"])
    assert any("no plan fixed them beforehand" in text for text in notes.notes)
    primary = {"arm": "half", "against": "baseline", "measure": "final", "setting": "all images"}
    assert results["primary"] == primary
    assert results["looks"]["planned"] == 1
    assert results["settings"][0]["own_split"] is True
    assert results["starts"]["baseline"] is None
    assert results["starts"]["half"]["features"]["eval"] > 0


def test_leaks_that_a_run_accepted_leave_no_verdict(folder: Path, tmp_path: Path) -> None:
    half = copy_of(folder / "half", tmp_path)
    edit(half / "config.toml", lambda text: text.replace("allow-leaks = []", 'allow-leaks = ["label-maps"]'))
    provenance = json.loads((half / "provenance.json").read_text())
    sentence = "The maps explain every image's own label."
    provenance["leaks"] = [{"name": "label-maps", "sentence": sentence}]
    (half / "provenance.json").write_text(json.dumps(provenance))
    results = to_json(compare_runs([folder / "baseline", half], tmp_path / "out").results)
    assert results["leaks"] == ["The maps explain every image's own label (half)."]
    assert results["verdict"]["word"] == "leak"


def test_training_options_may_differ_name_the_arm_and_are_a_warning(folder: Path, tmp_path: Path) -> None:
    half = copy_of(folder / "half", tmp_path)
    edit(half / "config.toml", lambda text: text.replace("batch-size = 16", "batch-size = 8"))
    results = to_json(compare_runs([folder / "baseline", half], tmp_path / "out").results)
    assert [arm["name"] for arm in results["arms"]] == ["baseline,batch_size=16", "half,batch_size=8"]
    assert (
        "half,batch_size=8 differs from baseline,batch_size=16 in --batch-size 8 instead of 16 as well: a difference "
        "between them is not one of the networks alone" in results["warnings"]
    )
