"""Groups of images that folds keep together: near duplicates among frames, groups by a rule, records of runs."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from saliency_pipeline.cache import SUBFOLDER
from saliency_pipeline.errors import PlanMismatchError, SalpipeError
from saliency_pipeline.evaluation.evaluate import evaluate
from saliency_pipeline.shards.reader import ShardFolder
from saliency_pipeline.training.config import TrainConfig
from saliency_pipeline.training.data import groups as module
from saliency_pipeline.training.data.groups import (
    KIND,
    check_same_groups,
    divided,
    find_groups,
    frame_fingerprints,
    searched_before,
)
from saliency_pipeline.training.run import train
from saliency_pipeline.training.setup import split_of
from tests.comparison.marked import marked
from tests.evaluation.runs import Notes, run_on
from tests.training import copies
from tests.training.copies import COPIED, PHOTOS, copied, framed, photographs
from tests.training.examples import labeled, store

pytestmark = pytest.mark.usefixtures("without_plots")

COUNT = PHOTOS + len(COPIED)
TWINS = [(number, PHOTOS + place) for place, number in enumerate(COPIED)]
BEFORE = [0, 1, 9, 10, 11, 12, 13, 24, 26, 28, 31]
"""The first of three folds of seed 0 of an earlier version."""
SEARCHED = {"searched": True, "images": 2 * len(COPIED), "groups": len(COPIED), "by": None}


@pytest.fixture(autouse=True)
def nothing_remembered(monkeypatch: pytest.MonkeyPatch, empty_cache: Path) -> Path:
    """Every test searches anew, with a cache of its own."""
    monkeypatch.setattr(module, "_remembered", {})
    return empty_cache


@pytest.mark.parametrize("encoding", ["raw", "jpeg"])
def test_near_duplicates_lie_in_one_fold_without_a_search_by_generate(tmp_path: Path, encoding: str) -> None:
    """An earlier version had re-encoded or cropped copies on both sides."""
    pairs = ShardFolder(copied(tmp_path / "shards", encoding=encoding))
    assert not pairs.header.groups
    for seed in range(3):
        for fold in (1, 2, 3):
            split = split_of(TrainConfig(folds=3, fold=fold, seed=seed), pairs)
            apart = [pair for pair in TWINS if (pair[0] in split.train) != (pair[1] in split.train)]
            assert apart == []
            assert len(split.train) + len(split.validation) == COUNT
    assert find_groups(TrainConfig(), pairs).report() == SEARCHED


def test_without_the_search_folds_are_those_of_earlier_versions(tmp_path: Path) -> None:
    pairs = ShardFolder(copied(tmp_path / "shards"))
    before = TrainConfig(folds=3, fold=1, search_duplicates=False)
    assert find_groups(before, pairs).report() == {"searched": False, "images": 0, "groups": 0, "by": None}
    assert split_of(before, pairs).validation.tolist() == BEFORE


def test_a_run_of_an_earlier_version_is_evaluated_on_its_own_folds(tmp_path: Path) -> None:
    """Its options have no entry for a search, and its file records no groups."""
    stored = {
        name: value
        for name, value in vars(TrainConfig(folds=3, fold=1)).items()
        if name not in ("search_duplicates", "group_by", "inner_split", "allow_leaks")
    }
    pairs = ShardFolder(copied(tmp_path / "shards"))
    config = TrainConfig.restored(stored)
    assert split_of(config, pairs).validation.tolist() == BEFORE
    check_same_groups(tmp_path, None, {"sha256": "anything"})


def test_the_search_is_made_once_and_its_duration_is_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_cache: Path
) -> None:
    path, notes = copied(tmp_path / "shards"), Notes()
    first = find_groups(TrainConfig(), ShardFolder(path), notes)
    assert notes.find(f"searched {COUNT} frames for near duplicates in ").endswith(
        f" s: {2 * len(COPIED)} images in {len(COPIED)} groups, kept together in folds"
    )
    (entry,) = empty_cache.joinpath(SUBFOLDER).glob(f"{KIND}-*")
    monkeypatch.setattr(module, "_remembered", {})
    with monkeypatch.context() as patch:
        patch.setattr(module, "fingerprint_frame", None)
        again = find_groups(TrainConfig(), ShardFolder(path), notes)
    assert again.sha256 == first.sha256
    assert notes.find("near duplicates, from the cache: 16 images in 8 groups")

    # damaged entries, also such as are whole but of other images, are searched again
    for damaged in (b"", entry.read_bytes()[:-9]):
        monkeypatch.setattr(module, "_remembered", {})
        entry.write_bytes(damaged)
        assert find_groups(TrainConfig(), ShardFolder(path)).sha256 == first.sha256
    with pytest.raises(ValueError, match="no groups of these images"):
        module._deserialized(module._serialized(np.array([0, 0, 1])), 3)
    with pytest.raises(ValueError, match="no groups of these images"):
        module._deserialized(module._serialized(np.array([0, 0, 2])), 4)


def test_the_cache_is_of_these_files(tmp_path: Path) -> None:
    """Shards of one plan may hold other images: those that could be read then."""
    keys = {
        module._key(ShardFolder(labeled(tmp_path / f"{seed}{images}", images, seed=seed)))
        for seed, images in ((0, 24), (1, 24), (0, 48))
    }
    assert len(keys) == 3


def test_a_search_needs_no_cache(tmp_path: Path, empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    empty_cache.parent.write_text("a file where the folder should be")
    path = copied(tmp_path / "shards")
    assert find_groups(TrainConfig(), ShardFolder(path)).report() == SEARCHED
    # and is not made again for the next run of the same process
    monkeypatch.setattr(module, "fingerprint_frame", None)
    assert find_groups(TrainConfig(), ShardFolder(path)).report() == SEARCHED


@pytest.mark.parametrize("encoding", ["raw", "jpeg"])
def test_synthetic_images_are_not_merged(tmp_path: Path, encoding: str) -> None:
    for path in (labeled(tmp_path / "labeled", 192, encoding=encoding), marked(tmp_path / "marked")):
        assert find_groups(TrainConfig(), ShardFolder(path)).report()["images"] == 0


def test_the_border_of_padding_is_no_part_of_an_image(tmp_path: Path) -> None:
    """Copies of other proportions than their originals."""
    originals = photographs()[:6]
    frames = np.stack([framed(piece, border=border) for border in (16, 8) for piece in originals])
    rows = copies.rows(frames, np.arange(12) % 2, "raw", np.full(12, -1, np.int8))
    counts = {}
    for fit in ("pad", "crop"):
        pairs = ShardFolder(store(tmp_path / fit, replace(copies.header(settings={"fit": fit}), plan=fit), rows))
        groups = find_groups(TrainConfig(), pairs)
        counts[fit] = groups.report()["groups"]
        if fit == "pad":
            assert groups.numbers.tolist() == [0, 1, 2, 3, 4, 5] * 2
    assert counts == {"pad": 6, "crop": 0}


def test_images_that_only_look_alike_leave_too_few_for_folds_and_the_error_says_what_to_do(tmp_path: Path) -> None:
    ramp = np.linspace(0, 255, copies.SIZE, dtype=np.uint8)
    frames = np.broadcast_to(ramp[:, None, None], (12, copies.SIZE, copies.SIZE, 3)).copy()
    rows = copies.rows(frames, np.arange(12) % 2, "raw", np.full(12, -1, np.int8))
    pairs, notes = ShardFolder(store(tmp_path / "shards", copies.header(), rows)), Notes()
    config = TrainConfig(folds=3, fold=1)
    with pytest.raises(SalpipeError, match=r"'dog' has no image to train on; .*, or --no-search-duplicates"):
        split_of(config, pairs)
    find_groups(config, pairs, notes)
    assert notes.find("12 of 12 images are one group of near duplicates").endswith("use --no-search-duplicates")
    assert len(split_of(replace(config, search_duplicates=False), pairs).validation) == 4


def test_groups_that_shards_store_are_of_a_search_unless_they_are_of_a_rule_alone(tmp_path: Path) -> None:
    groups = np.full(COUNT, -1, np.int64)
    groups[[1, 2]] = 1
    frames = np.stack([framed(piece) for piece in photographs()])
    labels, splits = np.arange(COUNT) % 2, np.full(COUNT, -1, np.int8)
    rows = replace(copies.rows(frames, labels, "raw", splits), groups=groups)
    expected = {
        "searched": ({"layout": "folders", "splits": [50, 50]}, True, [2, 1]),
        "both": ({"group_by": "level:2", "group_duplicates": True}, True, [2, 1]),
        "rule alone": ({"group_by": "level:2", "group_duplicates": False}, False, [18, 9]),
    }
    for name, (data, searched, counts) in expected.items():
        pairs = ShardFolder(store(tmp_path / name, replace(copies.header(data=data), plan=name, groups=True), rows))
        assert searched_before(pairs) is searched
        report = find_groups(TrainConfig(), pairs).report()
        assert [report["images"], report["groups"]] == counts
        assert report["searched"] is True
        assert find_groups(TrainConfig(search_duplicates=False), pairs).report()["searched"] is searched
        assert report["by"] == data.get("group_by")


@pytest.mark.parametrize("rule", ["level:2", r"(person-[0-9]+)/", "table.csv"])
def test_persons_lie_in_one_fold_whatever_names_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rule: str
) -> None:
    pairs = ShardFolder(copied(tmp_path / "shards"))
    keys = [pair.key for pair in pairs]
    persons = [key.split("/")[1] for key in keys]
    monkeypatch.chdir(tmp_path)
    table = "".join(f"{key},{name}\n" for key, name in zip(keys, persons, strict=True))
    (tmp_path / "table.csv").write_text(f"key,group\n{table}")
    config = TrainConfig(folds=2, fold=1, group_by=rule, search_duplicates=False)
    seen = []
    for fold in (1, 2):
        split = split_of(replace(config, fold=fold), pairs)
        assert not {persons[row] for row in split.train} & {persons[row] for row in split.validation}
        seen += split.validation.tolist()
    assert sorted(seen) == list(range(COUNT))
    assert find_groups(config, pairs).report() == {"searched": False, "images": COUNT, "groups": 9, "by": rule}
    # near duplicates join the groups of their originals
    both = find_groups(replace(config, search_duplicates=True), pairs).numbers
    assert all(both[one] == both[other] for one, other in TWINS)
    assert all(
        (both[one] == both[other]) for one in range(COUNT) for other in range(COUNT) if persons[one] == persons[other]
    )


def test_images_in_no_group_are_noted(tmp_path: Path) -> None:
    pairs, notes = ShardFolder(copied(tmp_path / "shards")), Notes()
    find_groups(TrainConfig(group_by="person-[0-4]"), pairs, notes)
    alone = sum(int(key.split("person-")[1][0]) > 4 for key in [pair.key for pair in pairs])
    assert notes.find(f"--group-by person-[0-4]: {alone} of {COUNT} images are in no group")


def test_a_table_that_has_changed_is_refused_by_run_and_evaluation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = copied(tmp_path / "shards")
    keys, table = ShardFolder(shards).keys(), tmp_path / "persons.csv"
    table.write_text("key,group\n" + "".join(f"{key},{key.split('/')[1]}\n" for key in keys))
    options = {"folds": 2, "fold": 1, "arch": "baseline"}
    with monkeypatch.context() as patch:
        patch.chdir(tmp_path)
        run = run_on(shards, tmp_path / "run", group_by="persons.csv", **options)
    stored = json.loads((run / "provenance.json").read_text())
    assert stored["groups"]["by"] == "persons.csv"
    assert len(stored["groups"]["sha256"]) == 64
    config = TrainConfig.read(run)
    assert config is not None
    assert config.group_by == str(table)
    train(shards, run, config)
    assert evaluate(run, shards, device="cpu").metrics.images == stored["images"]["validation"]

    table.write_text("key,group\n" + "".join(f"{key},{key.split('/')[1]}{key < 'd'}\n" for key in keys))
    with pytest.raises(PlanMismatchError, match=r"other groups .* table of --group-by persons.csv has changed"):
        train(shards, run, replace(config, epochs=2))
    with pytest.raises(PlanMismatchError, match="its folds were made with other groups"):
        evaluate(run, shards, device="cpu")
    table.unlink()
    with pytest.raises(SalpipeError, match=r"--group-by .*persons.csv: No such file or directory; check the path"):
        evaluate(run, shards, device="cpu")


def test_a_run_notes_groups_across_the_shards_own_splits(tmp_path: Path) -> None:
    shards, notes = copied(tmp_path / "shards", splits=0), Notes()
    pairs = ShardFolder(shards)
    assert divided(pairs, find_groups(TrainConfig(), pairs), folds=False) == 0
    other = copied(tmp_path / "apart", splits=[0] * PHOTOS + [1] * len(COPIED))
    train(other, tmp_path / "run", TrainConfig(**run_options()), progress=notes)
    assert notes.find("16 images have near duplicates, or others of their group, in another split")
    assert json.loads((tmp_path / "run" / "provenance.json").read_text())["groups"] == SEARCHED | {"sha256": None}


def run_options() -> dict[str, object]:
    return {
        "backbone": "test_resnet",
        "init": "scratch",
        "arch": "baseline",
        "epochs": 1,
        "precision": "fp32",
        "device": "cpu",
    }


def test_fingerprints_of_frames_are_in_the_order_of_the_images(tmp_path: Path) -> None:
    pairs = ShardFolder(copied(tmp_path / "shards"))
    groups = frame_fingerprints(pairs)
    assert groups.readable.all()
    for position in (0, 17, COUNT - 1):
        row = module.fingerprint_frame(pairs[position].image, bytes(32))
        assert (groups.frames[position] == row["frame"]).all()
        assert groups.hashes[position].tolist() == row["hashes"].tolist()
