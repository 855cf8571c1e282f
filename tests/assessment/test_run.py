"""Whole assessments of small folders of shards: files, resume, refusals, and folders with little in them."""

import csv
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import save_file

from saliency_pipeline.assessment.blocks import Block
from saliency_pipeline.assessment.maps import AssessedMaps
from saliency_pipeline.assessment.run import PARTS, PLAN, Assessment, assess
from saliency_pipeline.errors import IntegrityError, OptionError, SalpipeError
from saliency_pipeline.models.source.source import load_source
from saliency_pipeline.shards.reader import ShardFolder
from tests.evaluation.runs import Notes
from tests.generation.examples import photographs, run, salpipe
from tests.training.examples import labeled

METHODS = ("gradcam", "hirescam", "gradient")
QUICK: dict[str, Any] = {"metrics": ("srg:steps=4", "deletion:steps=4", "average-drop", "pointing-game", "sparseness")}
FILES = ("assess.json", "per-image.csv", "report.html")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve photographs of two classes, with a box of all but one. Not to be changed."""
    root = tmp_path_factory.mktemp("photos")
    names = [f"{'cat' if number % 2 else 'dog'}/{number}.png" for number in range(12)]
    photographs(root / "images", names)
    rows = ["file,xmin,ymin,xmax,ymax"]
    for name in names[1:]:
        with Image.open(root / "images" / name) as image:
            width, height = image.size
        rows.append(f"{name},{width // 4},{height // 4},{width // 2},{height // 2}")
    (root / "boxes.csv").write_text("\n".join(rows))
    return root


@pytest.fixture(scope="module")
def shards(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Their shards. Not to be changed."""
    folder = tmp_path_factory.mktemp("shards") / "shards"
    run(photos / "images", folder, methods=METHODS, boxes=photos / "boxes.csv")
    return folder


@pytest.fixture(scope="module")
def done(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Assessment:
    """A quick assessment of all of them. Not to be changed."""
    return assess(shards, tmp_path_factory.mktemp("done") / "out", **QUICK)


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in FILES}


def test_methods_that_mask_frames_explain_other_frames_too(photos: Path, tmp_path: Path) -> None:
    methods = ("occlusion", "rise:masks=20,cells=3", "scorecam:channels=4", "kernelshap:segments=4")
    run(photos / "images", tmp_path / "shards", methods=methods)
    metrics = ("max-sensitivity", "srg")
    done = assess(tmp_path / "shards", tmp_path / "out", images=4, explained=2, metrics=metrics)
    for method in done.results.methods[:4]:
        for column, estimate in method.columns.items():
            assert estimate.mean is not None, (method.label, column)
            assert np.isfinite(estimate.mean)


def test_all_metrics_have_values_for_all_methods_and_floors(shards: Path, tmp_path: Path) -> None:
    result = assess(shards, tmp_path / "out", images=4, explained=2).results
    assert [method.label for method in result.methods] == [
        "gradcam",
        "gradient",
        "hirescam",
        "random",
        "center-prior",
        "edges",
    ]
    assert result.headline == "srg"
    empty = {
        (method.label, column)
        for method in result.methods
        for column, estimate in method.columns.items()
        if estimate.mean is None
    }
    assert not empty
    counts = {column: estimate.images for column, estimate in result.method("gradcam").columns.items()}
    assert (counts["sparseness"], counts["srg"], counts["pointing"]) == (12, 4, 11)
    assert counts["adcc"] == counts["parameter-randomization"] == 2
    assert result.method("center-prior:cells=28,sigma=0.25").columns["parameter-randomization"].mean == 1


def test_the_table_has_every_value_of_every_image(done: Assessment, shards: Path) -> None:
    with (done.folder / "per-image.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12 * 6
    assert {row["key"] for row in rows} == set(ShardFolder(shards).keys())
    values = [float(row["deletion"]) for row in rows if row["method"] == "gradcam"]
    assert np.isclose(np.mean(values), done.results.method("gradcam").columns["deletion"].mean, rtol=1e-6)


def test_a_killed_run_is_resumed_to_the_same_bytes(
    done: Assessment, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure = Block.measure

    def killed(self: Block, *arguments: Any) -> Any:
        if self.name.startswith("maps"):
            raise KeyboardInterrupt
        return measure(self, *arguments)

    monkeypatch.setattr(Block, "measure", killed)
    with pytest.raises(KeyboardInterrupt):
        assess(shards, tmp_path / "out", **QUICK)
    left = {path.name for path in (tmp_path / "out" / PARTS).iterdir()}
    assert left == {"scores-00000.npz"}
    (tmp_path / "out" / PARTS / "scores-00001.npz").write_bytes(b"PK damaged")
    monkeypatch.undo()
    result = assess(shards, tmp_path / "out", **QUICK)
    assert (result.resumed, result.blocks) == (1, 2)
    assert contents(result.folder) == contents(done.folder)


def test_a_damaged_block_is_measured_again(done: Assessment, shards: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    shutil.copytree(done.folder, folder)
    for path, data in zip(sorted((folder / PARTS).iterdir()), (b"", b"PK damaged"), strict=True):
        path.write_bytes(data)
    result = assess(shards, folder, **QUICK)
    assert (result.resumed, result.blocks) == (0, 2)
    assert contents(folder) == contents(done.folder)


def test_blocks_of_other_images_or_without_a_plan_are_measured_again(
    done: Assessment, shards: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    shutil.copytree(done.folder, folder)
    few = assess(shards, tmp_path / "few", images=5, **QUICK)
    shutil.copy(few.folder / PARTS / "scores-00000.npz", folder / PARTS)
    assert assess(shards, folder, **QUICK).resumed == 1
    assert contents(folder) == contents(done.folder)
    (folder / PLAN).write_text("{")
    assert assess(shards, folder, **QUICK).resumed == 0
    assert contents(folder) == contents(done.folder)


def test_other_settings_replace_a_result_on_request(done: Assessment, shards: Path, tmp_path: Path) -> None:
    assess(shards, tmp_path / "out", metrics=("sparseness",), methods=("gradient",))
    again = assess(shards, tmp_path / "out", renew=True, **QUICK)
    assert again.resumed == 0
    assert contents(again.folder) == contents(done.folder)


def test_a_stored_backend_that_is_not_available_is_refused(done: Assessment, shards: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    shutil.copytree(done.folder, folder)
    plan = json.loads((folder / PLAN).read_text())
    plan["placement"]["backend"] = "abacus"
    (folder / PLAN).write_text(json.dumps(plan))
    with pytest.raises(SalpipeError, match="holds an assessment with other placement; choose another"):
        assess(shards, folder, **QUICK)


def test_results_do_not_belong_among_shards_or_images(photos: Path, shards: Path) -> None:
    with pytest.raises(SalpipeError, match="holds shards; choose another output folder"):
        assess(shards, shards, **QUICK)
    with pytest.raises(SalpipeError, match="lies inside the image folder"):
        assess(shards, photos / "images" / "quality", **QUICK)


def test_one_shard_is_assessed_alone(shards: Path, tmp_path: Path) -> None:
    path = sorted(shards.glob("shard-*.h5"))[0]
    result = assess(path, tmp_path / "out", metrics=("pointing-game",)).results
    assert result.images == len(ShardFolder(path))


def test_maps_of_no_class_are_asked_about_the_class_of_the_others() -> None:
    provenance = {"methods": {"eigencam": {"class_agnostic": True}, "gradcam": {}}}
    folder: Any = SimpleNamespace(methods=("eigencam", "gradcam"), provenance=provenance, path="shards")
    assert AssessedMaps.of(folder, ("eigencam",), "crop").reference == "gradcam"


def test_a_value_depends_on_no_other_image(done: Assessment, shards: Path, tmp_path: Path) -> None:
    few = assess(shards, tmp_path / "out", images=5, **QUICK)
    with (few.folder / "per-image.csv").open() as own, (done.folder / "per-image.csv").open() as whole:
        rows = {(row["key"], row["method"]): row for row in csv.DictReader(whole)}
        sampled = [row for row in csv.DictReader(own) if row["srg"]]
    assert len(sampled) == 5 * 6
    assert all(row["srg"] == rows[row["key"], row["method"]]["srg"] for row in sampled)


def test_other_settings_in_the_same_folder_are_refused(done: Assessment, shards: Path) -> None:
    with pytest.raises(SalpipeError, match="holds an assessment with other settings, metrics; choose another"):
        assess(shards, done.folder, metrics=("srg:steps=5",))


def test_a_shard_damaged_in_between_is_named(shards: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(shards, copy)
    path = sorted(copy.glob("shard-*.h5"))[1]
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(IntegrityError, match=path.name):
        assess(copy, tmp_path / "out", **QUICK)


def test_without_boxes_their_metrics_are_left_out_in_one_line(photos: Path, tmp_path: Path) -> None:
    run(photos / "images", tmp_path / "shards")
    notes = Notes()
    result = assess(tmp_path / "shards", tmp_path / "out", images=2, progress=notes, **QUICK).results
    assert "pointing-game: need boxes" in notes.find("left out")
    assert result.notes == (notes.find("left out"),)
    assert "pointing-game" not in [metric.name for metric in result.metrics]
    with pytest.raises(SalpipeError, match=r"pointing-game: need boxes of objects.*generate it with --boxes$"):
        assess(tmp_path / "shards", tmp_path / "other", metrics=("pointing-game",))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metrics": ("srgg",)}, "--metric srgg: unknown; did you mean srg?"),
        ({"metrics": ("srg:step=3",)}, "--metric srg:step=3: no such parameter; did you mean steps?"),
        ({"metrics": ("srg:steps=0",)}, "--metric srg:steps=0: "),
        ({"metrics": ("srg", "srg:steps=3")}, "--metric srg:steps=3: srg is named twice; name it once"),
        ({"images": 0}, "--images 0: "),
        ({"explained": 0}, "--explained-images 0: "),
    ],
)
def test_wrong_settings_are_refused_in_one_line(
    options: dict[str, Any], message: str, shards: Path, tmp_path: Path
) -> None:
    with pytest.raises(OptionError) as caught:
        assess(shards, tmp_path / "out", **options)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_a_method_that_is_not_stored_is_refused(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(SalpipeError, match="holds no maps of 'layercam'"):
        assess(shards, tmp_path / "out", methods=("layercam",))


def test_maps_from_elsewhere_are_assessed_too(photos: Path, shards: Path, tmp_path: Path) -> None:
    for pair in ShardFolder(shards):
        path = tmp_path / "masks" / pair.key
        path.parent.mkdir(parents=True, exist_ok=True)
        height, width = pair.source_size
        mask = np.zeros((height, width), np.uint8)
        mask[height // 4 : height // 2 + 1, width // 4 : width // 2 + 1] = 255
        Image.fromarray(mask).save(path)
    run(photos / "images", tmp_path / "shards", boxes=photos / "boxes.csv", maps_from=tmp_path / "masks")
    notes, metrics = Notes(), ("srg:steps=2", "pointing-game", "localization", "relevance-rank-accuracy", "adcc")
    result = assess(tmp_path / "shards", tmp_path / "out", metrics=metrics, images=2, progress=notes).results
    own = {column: estimate.mean for column, estimate in result.method("given").columns.items()}
    assert (own["pointing"], own["localization"]) == (1, 1)
    assert own["rank-accuracy"] is not None
    assert own["rank-accuracy"] > 0.9
    assert own["adcc"] is None
    assert notes.find("given: cannot explain changed frames here")


def test_one_image_of_one_class(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "one" / "cat").mkdir(parents=True)
    shutil.copy(photos / "images" / "cat" / "1.png", tmp_path / "one" / "cat")
    run(tmp_path / "one", tmp_path / "shards")
    result = assess(tmp_path / "shards", tmp_path / "out", **QUICK).results
    assert (result.images, result.sampled, result.classes) == (1, 1, 1)
    assert "too few" in result.verdict


def test_maps_that_are_all_zero_have_values(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "masks").mkdir()
    for number in range(12):
        Image.fromarray(np.zeros((9, 9), np.uint8)).save(tmp_path / "masks" / f"{number}.png")
    run(
        photos / "images",
        tmp_path / "shards",
        boxes=photos / "boxes.csv",
        maps_from=tmp_path / "masks",
        methods=("gradcam",),
    )
    result = assess(tmp_path / "shards", tmp_path / "out", methods=("given",), images=3, **QUICK).results
    assert result.notes == ("given: 12 of 12 maps are zero everywhere, and their pixels are ranked row by row",)
    own = result.method("given")
    assert all(estimate.mean is not None for estimate in own.columns.values())
    assert own.columns["sparseness"].mean == 0


def test_shards_without_provenance_have_the_metrics_of_maps(tmp_path: Path) -> None:
    shards, notes = labeled(tmp_path / "shards"), Notes()
    result = assess(shards, tmp_path / "out", progress=notes).results
    assert [metric.name for metric in result.metrics] == ["sparseness", "complexity", "mass"]
    assert "metrics that need one are left out" in notes.find("does not record how its maps were made")
    with pytest.raises(SalpipeError, match=r"does not record how its maps were made.*use --metric with metrics of the"):
        assess(shards, tmp_path / "other", metrics=("srg",))


def test_the_command_prints_the_verdict_and_json(shards: Path, tmp_path: Path) -> None:
    process = salpipe(
        "assess", shards, "-o", tmp_path / "out", "--metric", "sparseness", "--metric", "pointing-game", "-q"
    )
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert "ranks first in Pointing game" in output
    process = salpipe(
        "assess", shards, "-o", tmp_path / "out", "--metric", "sparseness", "--metric", "pointing-game", "--json"
    )
    output, errors = process.communicate(timeout=300)
    document = json.loads(output)
    assert document["images"] == 12
    assert document["headline"] == "pointing"
    assert (tmp_path / "out" / PLAN).is_file()


def test_the_source_must_be_the_one_that_made_the_maps(photos: Path, tmp_path: Path) -> None:
    weights = tmp_path / "mine.safetensors"
    save_file(load_source("test_resnet", "none").module.state_dict(), weights)
    run(photos / "images", tmp_path / "shards", weights=str(weights))
    with pytest.raises(
        SalpipeError, match=r"with the weights of a file 'mine.safetensors'; give it with --weights PATH"
    ):
        assess(tmp_path / "shards", tmp_path / "out", **QUICK)
    assert (
        assess(tmp_path / "shards", tmp_path / "out", weights=str(weights), images=1, metrics=("srg:steps=1",)).sampled
        == 1
    )
