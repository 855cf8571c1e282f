"""Leaks of a run: detection, refusal, acceptance by name, and the records of a run."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from saliency_pipeline.errors import OptionError, PlanMismatchError, SalpipeError
from saliency_pipeline.images.record import Split
from saliency_pipeline.models.trained.trained import load_trained, write_trained
from saliency_pipeline.models.trained.training_images import ENTRY, TrainingImages
from saliency_pipeline.shards.reader import ShardFolder
from saliency_pipeline.training.config import LEAKS, TrainConfig
from saliency_pipeline.training.find_lr import find_learning_rate
from saliency_pipeline.training.leaks import LeakCheck, accepted_sentences, start_of, training_images
from saliency_pipeline.training.run import train
from saliency_pipeline.training.setup import split_of
from tests.shards.examples import of_methods
from tests.training.examples import labeled_rows
from tests.training.leaky import IMAGES, leaky

pytestmark = pytest.mark.usefixtures("without_plots")

QUICK = TrainConfig(
    backbone="test_resnet", init="scratch", epochs=1, batch_size=8, lr=0.01, precision="fp32", device="cpu"
)
SPLITS = labeled_rows(IMAGES).splits
PLACES = {part: np.flatnonzero(part == SPLITS) for part in (Split.TRAIN, Split.VALIDATION, Split.TEST)}
RUN: dict[str, Any] = {"model": "runs/source", "weights": "trained"}


def names(shards: Path, **options: Any) -> list[str]:
    """Names of the leaks of a run with some options."""
    config, pairs = replace(QUICK, **options), ShardFolder(shards)
    leaks = LeakCheck(pairs).leaks_of(config, lambda: split_of(config, pairs).validation, start_of(config))
    return [leak.name for leak in leaks]


def refused(shards: Path, folder: Path, message: str, **options: Any) -> None:
    """Training and the search for a learning rate end in one line; nothing is trained."""
    config = replace(QUICK, **options)
    for start in (train, find_learning_rate):
        with pytest.raises(SalpipeError, match=message) as error:
            start(shards, folder, config)
        assert "\n" not in str(error.value)
    assert not list(folder.glob("*.safetensors"))
    assert not list(folder.glob("lr-find*"))


@pytest.fixture(scope="module")
def label_maps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return leaky(tmp_path_factory.mktemp("label-maps") / "shards", target="label")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return leaky(tmp_path_factory.mktemp("plain") / "shards")


@pytest.fixture(scope="module")
def plain_run(plain: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plain-run") / "run"
    train(plain, folder, QUICK)
    return folder


def test_maps_of_the_label_are_refused_where_they_are_read(label_maps: Path, plain: Path, tmp_path: Path) -> None:
    refused(
        label_maps,
        tmp_path / "run",
        r"shards: the maps explain every image's own label \(--target label\).*; generate the shards again with "
        r"--target predicted, or accept it with --allow-leaks label-maps",
    )
    assert names(label_maps, maps="mismatched") == names(label_maps, maps="shuffled-pixels") == ["label-maps"]
    for options in ({"arch": "baseline"}, {"arch": "learned"}, {"maps": "center-prior"}, {"maps": "uniform"}):
        assert names(label_maps, **options) == []
    for use, leaks in (("zoom", ["label-maps"]), ("mask", ["label-maps"]), ("keep", []), ("mix", [])):
        assert names(label_maps, use=use) == leaks
    assert names(plain) == []
    train(label_maps, tmp_path / "baseline", replace(QUICK, arch="baseline"))


def test_maps_of_an_export_are_leaks_by_the_target_that_they_were_made_with(tmp_path: Path) -> None:
    recorded = {
        "given:edges": {"target": "label", "class_agnostic": True},
        "given:gradcam": {"target": "label"},
        "given:rise": {"target": "predicted"},
    }
    check = LeakCheck(ShardFolder(of_methods(tmp_path / "shard-00000.h5", recorded)))
    leaks = {method: check.label_maps(replace(QUICK, method=method)) for method in recorded}
    assert [method for method, leak in leaks.items() if leak] == ["given:gradcam"]


def test_an_accepted_leak_is_recorded_and_noted(label_maps: Path, tmp_path: Path) -> None:
    config = replace(QUICK, allow_leaks=("label-maps",))
    train(label_maps, tmp_path / "run", config)
    (leak,) = json.loads((tmp_path / "run" / "provenance.json").read_text())["leaks"]
    assert leak["name"] == "label-maps"
    (sentence,) = accepted_sentences(tmp_path / "run", config)
    assert sentence == leak["sentence"]
    assert sentence.startswith("The maps explain every image's own label")
    assert TrainConfig.read(tmp_path / "run").allow_leaks == ("label-maps",)  # type: ignore[union-attr]
    with pytest.raises(PlanMismatchError, match="--allow-leaks label-maps -> none"):
        train(label_maps, tmp_path / "run", QUICK)
    (tmp_path / "run" / "provenance.json").write_text('{"leaks": "none"}')
    assert accepted_sentences(tmp_path / "run", config) == ["A run accepted the leak label-maps (--allow-leaks)."]
    assert accepted_sentences(tmp_path / "run", QUICK) == []


def test_another_leak_is_not_accepted_with_it_and_names_are_checked(
    label_maps: Path, plain: Path, tmp_path: Path
) -> None:
    refused(label_maps, tmp_path / "a", "--allow-leaks label-maps", allow_leaks=("source-images", "start-images"))
    for start in (train, find_learning_rate):
        with pytest.raises(OptionError, match=f"--allow-leaks labels: choose from {', '.join(LEAKS)}"):
            start(plain, tmp_path / "b", replace(QUICK, allow_leaks=("labels",)))


@pytest.mark.parametrize("part", [Split.VALIDATION, Split.TEST])
def test_maps_by_a_source_that_saw_their_held_out_images_are_refused(part: Split, tmp_path: Path) -> None:
    seen = [*PLACES[Split.TRAIN].tolist(), int(PLACES[part][1])]
    shards = leaky(tmp_path / "shards", seen=seen, **RUN, **{ENTRY: len(seen)})
    message = r"shards: the source model runs/source of the maps was trained on 1 of the 24 validation and test images;"
    refused(shards, tmp_path / "run", message)
    for options in ({"arch": "baseline"}, {"maps": "center-prior"}):
        assert names(shards, **options) == []


def test_a_source_that_saw_training_images_alone_is_no_leak_but_for_folds(tmp_path: Path) -> None:
    seen = PLACES[Split.TRAIN].tolist()
    shards = leaky(tmp_path / "shards", seen=seen, **RUN, **{ENTRY: len(seen)})
    assert names(shards) == []
    assert names(shards, folds=3, fold=1) == ["source-images"]
    train(shards, tmp_path / "run", QUICK)


def test_flags_of_other_maps_do_not_count(tmp_path: Path) -> None:
    shards = leaky(tmp_path / "shards", seen=PLACES[Split.VALIDATION].tolist(), **RUN, **{ENTRY: 12})
    for file in shards.glob("shard-*.h5"):
        pairs = ShardFolder(file).shards[0]
        offset, column = pairs.layout.places["saliency/gradient-simonyan/flag"]
        data = bytearray(file.read_bytes())
        flags = np.frombuffer(data, np.uint8, column.nbytes, offset).reshape(column.shape).copy()
        flags[:, 1] = 0
        data[offset : offset + column.nbytes] = flags.tobytes()
        file.write_bytes(data)
    assert names(shards) == names(shards, method="gradient-simonyan") == ["source-images"]
    assert names(shards, method="gradient-simonyan", map_target=1) == []


@pytest.mark.parametrize("entry", [{}, {ENTRY: None}, {ENTRY: "many"}, {ENTRY: True}, {ENTRY: -1}])
def test_a_trained_source_without_a_record_is_refused(entry: dict[str, Any], tmp_path: Path) -> None:
    shards = leaky(tmp_path / "shards", **RUN, **entry)
    assert names(shards) == ["source-images"]
    assert names(shards, arch="baseline") == []
    if not entry:
        refused(shards, tmp_path / "run", "does not record all images it was trained on.* generate the shards again")


@pytest.mark.parametrize("source", [{"weights": "default"}, {"weights": "mine.pth"}, {}, {**RUN, ENTRY: 0}])
def test_other_sources_need_no_record(source: dict[str, Any], tmp_path: Path) -> None:
    assert names(leaky(tmp_path / "shards", **source)) == []


def test_a_run_records_the_images_it_was_trained_on(plain: Path, plain_run: Path) -> None:
    sha256 = labeled_rows(IMAGES).sha256[PLACES[Split.TRAIN]]
    images = load_trained(plain_run).training_images
    assert images.complete
    assert images.digests.tolist() == sorted(sha256.tolist())
    fewer = replace(QUICK, per_class=2)
    pairs = ShardFolder(plain)
    assert len(training_images(fewer, pairs, split_of(fewer, pairs).train)) == 6


def test_a_start_that_saw_held_out_images_is_refused_along_the_chain(
    plain: Path, plain_run: Path, tmp_path: Path
) -> None:
    same = {"init": "full", "start": str(plain_run)}
    assert names(plain, **same) == []
    folds = {**same, "folds": 4, "fold": 1}
    assert names(plain, **folds) == ["start-images"]
    refused(
        plain, tmp_path / "a", f"--from {plain_run}: that network was trained on . of the 21 validation and", **folds
    )

    # trained on other images, but it began with a network that was trained on these
    other = leaky(tmp_path / "other", seed=1)
    train(other, tmp_path / "second", replace(QUICK, **same))
    images = load_trained(tmp_path / "second").training_images
    assert (len(images), images.complete) == (48, True)
    assert names(plain, init="full", start=str(tmp_path / "second"), folds=4, fold=1) == ["start-images"]
    train(other, tmp_path / "unrelated", QUICK)
    assert names(plain, init="full", start=str(tmp_path / "unrelated"), folds=4, fold=1) == []


def test_the_file_of_a_run_as_weights_is_no_way_around(plain: Path, plain_run: Path, tmp_path: Path) -> None:
    train(plain, tmp_path / "baseline", replace(QUICK, arch="baseline"))
    file = str(tmp_path / "baseline" / "best.safetensors")
    weights = {"init": "half", "weights": file, "folds": 4, "fold": 1}
    refused(
        plain, tmp_path / "run", rf"--weights {file}: that network was trained on .* --allow-leaks start-im", **weights
    )
    assert names(plain, init="half", weights=file) == []


def test_a_start_without_a_record_is_refused(plain: Path, plain_run: Path, tmp_path: Path) -> None:
    trained = load_trained(plain_run)
    file = tmp_path / "old.safetensors"
    write_trained(file, trained.network, trained.spec, trained.about)
    start = {"init": "full", "start": str(file)}
    refused(plain, tmp_path / "run", "does not record all images it was trained on.*; train it again", **start)
    train(plain, tmp_path / "accepted", replace(QUICK, allow_leaks=("start-images",), **start))
    images = load_trained(tmp_path / "accepted").training_images
    assert (len(images), images.complete) == (24, False)
    partly = TrainingImages.of(np.zeros((1, 32), np.uint8), complete=False)
    write_trained(file, trained.network, trained.spec, trained.about, partly)
    assert names(plain, **start) == ["start-images"]


def test_all_leaks_of_a_run_are_named(plain_run: Path, tmp_path: Path) -> None:
    shards = leaky(tmp_path / "shards", target="label", **RUN)
    start = {"init": "full", "start": str(plain_run), "folds": 4, "fold": 1}
    assert names(shards, **start) == list(LEAKS)
    refused(
        shards, tmp_path / "run", r"--allow-leaks label-maps.*also has the leak source-images, start-images\)", **start
    )


def test_unlabeled_images_of_the_test_split_do_not_count(tmp_path: Path) -> None:
    shards = leaky(tmp_path / "shards", seen=PLACES[Split.TEST].tolist(), **RUN, **{ENTRY: 12})
    assert names(shards) == ["source-images"]
    for file in shards.glob("shard-*.h5"):
        shard = ShardFolder(file).shards[0]
        offset, column = shard.layout.places["label"]
        labels = np.where(shard.splits == Split.TEST, -1, shard.labels)
        data = file.read_bytes()
        file.write_bytes(data[:offset] + labels.astype("<i8").tobytes() + data[offset + column.nbytes :])
    assert (ShardFolder(shards).labels < 0).sum() == 12
    assert names(shards) == []
