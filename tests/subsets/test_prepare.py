"""Data sets prepared for a run: order of steps, splits, notes."""

import io
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from saliency_pipeline.datasets.layout import ReadOptions
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.images.record import Catalogue, Split
from saliency_pipeline.progress import Progress
from saliency_pipeline.subsets.prepare import prepare
from saliency_pipeline.subsets.selection import Grouping, Selection
from tests.generation.examples import cuts

CLASSES = ("cat", "dog", "owl")


class Recorded(Progress):
    def __init__(self) -> None:
        self.notes: list[str] = []
        self.stages: list[tuple[int, str]] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def start(self, total: int, unit: str, label: str) -> None:
        self.stages.append((total, label))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve photographs per class; four in cat have a copy of another quality, and one is in dog as well."""
    root = tmp_path_factory.mktemp("photos")
    for number, piece in enumerate(cuts(36, seed=7)):
        save(root, CLASSES[number % 3], f"{number}.jpg", piece, 95)
        if number in (0, 6, 9, 12):
            save(root, "cat", f"{number}_again.jpg", piece, 60)
        if number == 9:
            save(root, "dog", f"{number}_astray.jpg", piece, 70)
    return root


def save(root: Path, name: str, file: str, piece: object, quality: int) -> None:
    (root / name).mkdir(exist_ok=True, parents=True)
    buffer = io.BytesIO()
    Image.fromarray(piece).resize((160, 160)).save(buffer, "JPEG", quality=quality)
    (root / name / file).write_bytes(buffer.getvalue())


def keys(catalogue: Catalogue) -> list[str]:
    return [record.key for record in catalogue.records]


def splits(catalogue: Catalogue) -> dict[str, Split]:
    return {record.key: record.split for record in catalogue.records}


def test_without_wishes_it_is_what_lies_there_and_no_image_is_opened(photos):
    recorded = Recorded()
    catalogue = prepare(photos, progress=recorded)
    assert (len(catalogue), catalogue.classes, dict(catalogue.taken)) == (41, CLASSES, {})
    assert recorded.stages == []


def test_new_splits_keep_duplicates_together(photos):
    together = splits(prepare(photos, selection=Selection(splits=(50, 50))))
    for number in (0, 6, 9, 12):
        assert together[f"cat/{number}.jpg"] == together[f"cat/{number}_again.jpg"]
    assert together["cat/9.jpg"] == together["dog/9_astray.jpg"]
    assert Counter(together.values()) == {Split.TRAIN: 21, Split.VALIDATION: 20}
    apart = splits(prepare(photos, selection=Selection(splits=(50, 50)), grouping=Grouping(group_duplicates=False)))
    assert any(apart[f"cat/{number}.jpg"] != apart[f"cat/{number}_again.jpg"] for number in (0, 6, 9, 12))


def test_only_sampled_images_are_searched_for_splits(photos):
    recorded = Recorded()
    prepare(photos, selection=Selection(("dog", "owl"), per_class=5, splits=(50, 50)), progress=recorded)
    assert recorded.stages == [(10, "looking at images")]


def test_duplicates_are_removed_before_sampling(photos):
    recorded = Recorded()
    catalogue = prepare(
        photos, grouping=Grouping(dedupe="keep-first"), selection=Selection(per_class=12), progress=recorded
    )
    assert Counter(record.label for record in catalogue.records) == {0: 12, 1: 12, 2: 12}
    assert not [key for key in keys(catalogue) if "again" in key or "astray" in key]
    assert "duplicates left out (keep-first): 5, images kept: 36" in recorded.notes
    assert recorded.stages == [(41, "looking at images")]


def test_groups_of_two_labels_go_altogether(photos):
    catalogue = prepare(photos, grouping=Grouping(dedupe="drop-conflicts"))
    assert "cat/9.jpg" not in keys(catalogue)
    assert "cat/0.jpg" in keys(catalogue)
    assert len(catalogue) == 35
    assert dict(catalogue.taken) == {"dedupe": "drop-conflicts"}


def test_a_data_set_of_conflicts_alone_leaves_nothing(tmp_path):
    for name in ("cat", "dog"):
        save(tmp_path, name, "1.jpg", cuts(1)[0], 95)
    with pytest.raises(SalpipeError, match="--dedupe drop-conflicts leaves no image; 'salpipe audit' shows why"):
        prepare(tmp_path, grouping=Grouping(dedupe="drop-conflicts"))


def test_sampled_classes_are_the_same_with_and_without_duplicates(photos):
    selection = Selection(num_classes=2, seed=5)
    recorded = Recorded()
    with_policy = prepare(photos, grouping=Grouping(dedupe="keep-first"), selection=selection, progress=recorded)
    assert with_policy.classes == prepare(photos, selection=selection).classes
    assert recorded.stages[0][0] < 41
    # without the copies no class has more than 12
    with pytest.raises(SalpipeError, match="--min-per-class"):
        prepare(photos, grouping=Grouping(dedupe="keep-first"), selection=Selection(min_per_class=13))


def test_what_was_asked_for_is_kept(photos):
    selection = Selection(("cat", "owl"), per_class=4, splits=(50, 25, 25), seed=3)
    catalogue = prepare(photos, "folders", ReadOptions(), selection)
    asked = {"classes": ["cat", "owl"], "per_class": 4, "splits": [50, 25, 25], "seed": 3}
    assert dict(catalogue.taken) == asked
    assert dict(prepare(photos, selection=selection, grouping=Grouping(dedupe="keep-first")).taken) == asked | {
        "dedupe": "keep-first"
    }
    apart = prepare(photos, selection=selection, grouping=Grouping(group_duplicates=False))
    assert dict(apart.taken) == asked | {"group_duplicates": False}


def test_images_have_groups_of_duplicates_after_a_search(photos):
    groups: dict[int, set[str]] = {}
    for record in prepare(photos, selection=Selection(splits=(50, 50))).records:
        if record.group >= 0:
            groups.setdefault(record.group, set()).add(record.key)
    assert {frozenset(group) for group in groups.values()} == {
        frozenset({"cat/0.jpg", "cat/0_again.jpg"}),
        frozenset({"cat/6.jpg", "cat/6_again.jpg"}),
        frozenset({"cat/9.jpg", "cat/9_again.jpg", "dog/9_astray.jpg"}),
        frozenset({"cat/12.jpg", "cat/12_again.jpg"}),
    }
    assert {record.group for record in prepare(photos).records} == {-1}
    recorded = Recorded()
    asked = prepare(
        photos, selection=Selection(per_class=6), grouping=Grouping(group_duplicates=True), progress=recorded
    )
    assert recorded.notes[-1].startswith(f"{sum(record.group >= 0 for record in asked.records)} images are duplicates")
    assert dict(asked.taken) == {"per_class": 6, "group_duplicates": True}
    assert {record.key for record in asked.records if record.group >= 0} == {
        key for group in groups.values() for key in group & set(keys(asked)) if len(group & set(keys(asked))) > 1
    }


def persons(root: Path) -> Path:
    """Photographs of nine persons, in folders below their classes; person-0 is in two classes."""
    for number, piece in enumerate(cuts(30, seed=7)):
        person = number % 9
        save(root, f"{CLASSES[person % 3]}/person-{person}", f"{number}.jpg", piece, 95)
    save(root, "dog/person-0", "again.jpg", cuts(1, seed=8)[0], 95)
    return root


@pytest.mark.parametrize("rule", ["level:2", "person-([0-9])", "table.tsv"])
@pytest.mark.parametrize("policy", [None, "keep-first"])
def test_new_splits_keep_persons_together(tmp_path, monkeypatch, rule, policy):
    (tmp_path / "images").mkdir()
    images, recorded = persons(tmp_path / "images"), Recorded()
    monkeypatch.chdir(tmp_path)
    table = "".join(f"{key}\t{key.split('/')[1]}\n" for key in keys(prepare(images)) if "person-8" not in key)
    (tmp_path / "table.tsv").write_text(f"key\tgroup\n{table}")
    catalogue = prepare(
        images, selection=Selection(splits=(50, 50)), grouping=Grouping(dedupe=policy, group_by=rule), progress=recorded
    )
    by_person: dict[str, set[tuple[Split, int]]] = {}
    for record in catalogue.records:
        by_person.setdefault(record.key.split("/")[1], set()).add((record.split, record.group))
    assert {name for name, places in by_person.items() if len(places) > 1} <= (
        {"person-8"} if "table" in rule else set()
    )
    assert len({record.split for record in catalogue.records}) == 2
    assert len({group for places in by_person.values() for _, group in places if group >= 0}) == len(by_person) - (
        "t" in rule[:1]
    )
    in_none = sum("person-8" in key for key in keys(catalogue))
    rest = f"8 groups; {in_none} images are in none" if "table" in rule else "9 groups"
    assert f"--group-by {rule}: {rest}" in recorded.notes
    asked = {"splits": [50, 50], "group_by": rule, "group_duplicates": policy is None}
    assert dict(catalogue.taken) == asked | ({"dedupe": policy} if policy else {})


def test_persons_are_known_without_new_splits_and_without_a_search(tmp_path):
    recorded = Recorded()
    catalogue = prepare(persons(tmp_path), grouping=Grouping(group_by="level:2"), progress=recorded)
    assert recorded.stages == [], "no image is opened"
    numbers = {record.key.split("/")[1]: record.group for record in catalogue.records}
    assert all(numbers[record.key.split("/")[1]] == record.group >= 0 for record in catalogue.records)
    assert {record.split for record in catalogue.records} == {Split.NONE}
    # training must not take these groups for those of a search
    assert dict(catalogue.taken) == {"group_by": "level:2", "group_duplicates": False}
    with_search = prepare(tmp_path, grouping=Grouping(group_by="level:2", group_duplicates=True), progress=recorded)
    assert dict(with_search.taken) == {"group_by": "level:2", "group_duplicates": True}
    with pytest.raises(SalpipeError, match="--group-by level:3: no key has that many folders"):
        prepare(tmp_path, grouping=Grouping(group_by="level:3"))


def test_duplicates_join_the_groups_of_their_originals(photos):
    """cat/9.jpg is in dog as well: with it the groups of two classes become one."""
    catalogue = prepare(
        photos, selection=Selection(splits=(50, 50)), grouping=Grouping(group_duplicates=True, group_by="(cat|dog)/9")
    )
    groups = {record.key: record.group for record in catalogue.records}
    assert groups["cat/9.jpg"] == groups["cat/9_again.jpg"] == groups["dog/9_astray.jpg"] >= 0
    assert groups["cat/0.jpg"] == groups["cat/0_again.jpg"] >= 0


def test_what_was_seen_is_not_looked_at_again(photos, tmp_path, monkeypatch):
    first = prepare(photos, grouping=Grouping(dedupe="keep-first"), cache=tmp_path / "seen")
    monkeypatch.setattr("saliency_pipeline.subsets.fingerprint.fingerprint", None)
    assert prepare(photos, grouping=Grouping(dedupe="keep-first"), cache=tmp_path / "seen") == first
