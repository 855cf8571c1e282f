"""Selection of images for a gallery: spread, random or by key, and how little is opened for it."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.files import publish
from saliency_pipeline.gallery.selection import choose
from saliency_pipeline.shards.manifest import Manifest, ShardEntry
from saliency_pipeline.shards.reader import ShardFolder
from saliency_pipeline.shards.schema import shard_name
from saliency_pipeline.temporaries import temporary_name
from tests.shards import examples


def labeled(path: Path, *shards: list[int], classes: int = 3) -> ShardFolder:
    """A finished folder whose shards hold images of these labels."""
    path.mkdir()
    head = examples.header(classes=tuple(f"class {i}" for i in range(classes)))
    entries, first = [], 0
    for number, labels in enumerate(shards):
        rows = examples.rows(len(labels), first=first)
        rows.labels = np.array(labels, dtype=np.int64)
        final = path / shard_name(number)
        digest = publish(examples.write(temporary_name(final), head, rows), final)
        entries.append(ShardEntry(final.name, len(labels), final.stat().st_size, digest))
        first += len(labels)
    Manifest(head, 0, tuple(entries)).write(path)
    return ShardFolder(path)


def classes_of(folder: ShardFolder, positions: list[int]) -> Counter[int]:
    return Counter(folder[position].label for position in positions)


def test_classes_are_shown_alike_as_far_as_they_go(tmp_path: Path) -> None:
    folder = labeled(tmp_path / "s", [0] * 20 + [1] * 2, [2] * 10 + [-1] * 9)
    chosen = choose(folder, 16)
    assert classes_of(folder, chosen) == {-1: 5, 0: 4, 1: 2, 2: 5}
    assert len(set(chosen)) == len(chosen) == 16
    assert chosen == choose(folder, 16)


def test_images_of_a_class_are_spread_over_the_data_set(tmp_path: Path) -> None:
    folder = labeled(tmp_path / "s", [0] * 10, [0] * 10)
    assert choose(folder, 2) == [5, 15]


def test_of_more_classes_than_images_some_are_shown_once(tmp_path: Path) -> None:
    folder = labeled(tmp_path / "s", list(range(12)), classes=12)
    counts = classes_of(folder, choose(folder, 4))
    assert sorted(counts) == [1, 4, 7, 10]
    assert set(counts.values()) == {1}


def test_all_are_shown_where_there_are_no_more(tmp_path: Path) -> None:
    folder = labeled(tmp_path / "s", [2, 0, 1], [], [1, 0])
    assert sorted(choose(folder, 100)) == [0, 1, 2, 3, 4]
    assert [folder[i].label for i in choose(folder, 100)] == [0, 0, 1, 1, 2]


def test_of_many_shards_few_are_opened(tmp_path: Path) -> None:
    folder = labeled(tmp_path / "s", *([i % 3, 1] for i in range(80)))
    chosen = choose(folder, 6)
    assert len(chosen) == 6
    assert sum(shard.is_open for shard in folder.shards) <= 64
    assert max(chosen) > 120
    assert min(chosen) < 40
    # but all where these do not hold enough
    assert sorted(choose(folder, 159)) == sorted(set(choose(folder, 159)))
    assert len(choose(folder, 159)) == 159


def test_a_draw_depends_on_the_seed_and_opens_no_shard(tmp_path: Path) -> None:
    folder = labeled(tmp_path / "s", [0] * 50, [1] * 50)
    chosen = choose(folder, 10, random=True, seed=3)
    assert chosen == choose(folder, 10, random=True, seed=3)
    assert chosen != choose(folder, 10, random=True, seed=4)
    assert len(set(chosen)) == 10
    assert not any(shard.is_open for shard in folder.shards)
    assert sorted(choose(folder, 1_000, random=True)) == list(range(100))


def test_every_image_is_sampled_by_some_seed(tmp_path: Path) -> None:
    folder = labeled(tmp_path / "s", [0] * 6, [1] * 4)
    sampled = Counter(i for seed in range(400) for i in choose(folder, 3, random=True, seed=seed))
    assert len(sampled) == 10
    assert max(sampled.values()) < 1.6 * min(sampled.values())


@pytest.mark.parametrize("random", [False, True])
def test_one_class(tmp_path: Path, random: bool) -> None:
    folder = labeled(tmp_path / "s", [0, 1, 2, 1], [1, 1, 0])
    assert sorted(choose(folder, 48, class_name="class 1", random=random)) == [1, 3, 4, 5]
    assert len(choose(folder, 2, class_name="class 1", random=random)) == 2


def test_keys_are_shown_in_the_order_named_and_once(tmp_path: Path) -> None:
    folder = labeled(tmp_path / "s", [0] * 4, [1] * 4)
    keys = folder.keys()
    assert choose(folder, 1, keys=[keys[5], keys[0], keys[5]]) == [5, 0]


def refusal(folder: ShardFolder, **arguments: object) -> str:
    with pytest.raises(SalpipeError) as caught:
        choose(folder, **{"count": 48, **arguments})
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_unknown_key_is_answered_with_the_nearest(tmp_path: Path) -> None:
    folder = labeled(tmp_path / "s", [0] * 4)
    assert "did you mean 'klasse 0/日本/0.jpg'?" in refusal(folder, keys=["0.JPG"])
    assert "'klasse 1/日本/long1.jpg'" in refusal(folder, keys=["klasse 1/日本/lnog1.jpg"])
    assert "keys look like 'klasse 0/日本/0.jpg'" in refusal(folder, keys=["%%%%"])
    assert "keys look like" in refusal(folder, keys=[""])


def test_an_unknown_class_is_answered_with_those_there_are(tmp_path: Path) -> None:
    folder = labeled(tmp_path / "s", [0] * 4)
    message = refusal(folder, class_name="clas 1")
    assert "did you mean 'class 1'?" in message
    assert "class 0, class 1, class 2" in message


def test_of_many_classes_some_are_listed(tmp_path: Path) -> None:
    folder = labeled(tmp_path / "s", [0], classes=1_500)
    assert "and 1,480 more" in refusal(folder, class_name="%")


def test_impossible_selections_say_why(tmp_path: Path) -> None:
    folder = labeled(tmp_path / "s", [0] * 4)
    assert "no images of class 'class 2'" in refusal(folder, class_name="class 2")
    assert "leave out" in refusal(folder, keys=folder.keys()[:1], random=True)
    assert "leave out" in refusal(folder, keys=folder.keys()[:1], class_name="class 0")
    assert "at least 1" in refusal(folder, count=0)
    assert "not labeled" in refusal(labeled(tmp_path / "flat", [-1] * 3, classes=0), class_name="cat")
    empty = labeled(tmp_path / "empty")
    assert "no images" in refusal(empty)
    assert "no images" in refusal(empty, random=True)
    assert "no images" in refusal(empty, keys=["x"])
