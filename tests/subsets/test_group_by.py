"""Groups of persons, scenes and patients, by keys or by a table; and every one-line refusal."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saliency_pipeline.errors import OptionError, SalpipeError
from saliency_pipeline.subsets import group_by
from saliency_pipeline.subsets.group_by import anchored, check_rule, described, groups_by, table_of
from saliency_pipeline.subsets.groups import leaders, several, united

KEYS = ["cat/anna/1.jpg", "dog/anna/2.jpg", "cat/ben/p7-3.jpg", "cat/4.jpg", "dog/ben/p7-5.jpg"]


@pytest.mark.parametrize(
    ("rule", "groups"),
    [
        ("level:1", [0, 1, 0, 0, 1]),
        ("level:2", [0, 0, 1, -1, 1]),
        ("anna|ben", [0, 0, 1, -1, 1]),
        ("/(a|b)[a-z]+/", [0, 0, 1, -1, 1]),
        ("p([0-9]+)-", [-1, -1, 0, -1, 0]),
        ("^(?:cat|dog)", [0, 1, 0, 0, 1]),
        # what matches nothing of a key names no group
        ("(x?)anna|ben", [-1, -1, -1, -1, -1]),
    ],
)
def test_keys_name_groups(rule: str, groups: list[int]) -> None:
    if max(groups) < 0:
        with pytest.raises(SalpipeError, match="matches no key and is no file"):
            groups_by(KEYS, rule)
    else:
        groups_of_keys = groups_by(KEYS, rule)
        assert groups_of_keys.tolist() == groups
        assert groups_of_keys.dtype == np.int64


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.csv", "key,group\ncat/anna/1.jpg,A\ndog/anna/2.jpg,A\nelsewhere.jpg,A\ndog/ben/p7-5.jpg,B\n"),
        ("t.CSV", "\ufeffgroup,age,key\r\nA,7,cat/anna/1.jpg\r\nA,7,dog/anna/2.jpg\r\nB,,dog/ben/p7-5.jpg\r\n"),
        ("t.tsv", 'key\tgroup\ncat/anna/1.jpg\tA, or "a"\ndog/anna/2.jpg\tA, or "a"\ndog/ben/p7-5.jpg\tB\n'),
        ("t", "key,group\ncat/anna/1.jpg,A\ndog/anna/2.jpg,A\ncat/4.jpg,\ndog/ben/p7-5.jpg,B\n"),
    ],
)
def test_tables_name_groups(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8", newline="")
    assert groups_by(KEYS, str(tmp_path / name)).tolist() == [0, 0, -1, -1, 1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("key,person\ncat/4.jpg,1\n", "its first line names no column 'group'"),
        ("", "its first line names no column 'key'"),
        ("key,group\ncat/4.jpg,1,2\n", "has other columns than the first"),
        ("key,group\ncat/4.jpg,1\ncat/4.jpg,2\n", "cat/4.jpg is in two groups; leave one of them out"),
        ("key,group\nwolf/4.jpg,1\n", "no image has one of its keys; .*, such as cat/anna/1.jpg"),
        ("key,group\n", "no image has one of its keys"),
    ],
)
def test_tables_that_name_none_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(SalpipeError, match=message) as refused:
        groups_by(KEYS, str(tmp_path / "t.csv"))
    assert str(refused.value).startswith(f"--group-by {tmp_path / 't.csv'}: ")


def test_tables_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"key,group\n\xff,1\n")
    with pytest.raises(SalpipeError, match="cannot be read as a table"):
        groups_by(KEYS, str(tmp_path / "t.csv"))
    with pytest.raises(SalpipeError, match=r"gone.csv: No such file or directory; check the path"):
        check_rule(str(tmp_path / "gone.csv"))
    with pytest.raises(SalpipeError, match="cannot be read as a table"):
        check_rule("/dev/null")


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("", "--group-by: is empty"),
        ("person(", r"no regular expression \(missing \), unterminated subpattern"),
        ("x{99999999999999999999}", "no regular expression"),
        ("level:0", "levels count from 1"),
    ],
)
def test_rules_that_can_never_be_are_refused_before_anything_is_read(rule: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        check_rule(rule)


@pytest.mark.parametrize("rule", ["level:3", "level:x", "person"])
def test_rules_that_fit_no_image_are_refused(rule: str) -> None:
    with pytest.raises(SalpipeError, match=f"--group-by {rule}: .*, such as cat/anna/1.jpg"):
        groups_by(KEYS, rule)


def test_an_expression_that_takes_too_long_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Backtracking over 60 letters would take 2**60 steps."""
    monkeypatch.setattr(group_by, "TIME_LIMIT", 0.5)
    with pytest.raises(SalpipeError, match=r"takes more than 0.5 s for 1 keys; remove nested repetitions"):
        groups_by(["a" * 60 + "!"], "(a+)+$")


def test_a_folder_is_no_table_and_a_pipe_never_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "anna").mkdir()
    (tmp_path / "list").write_text("")
    assert [rule for rule in ("anna", "list", "t.csv", "level:1", "a\0b") if table_of(rule)] == ["list", "t.csv"]
    assert groups_by(KEYS, "anna").tolist() == [0, 0, -1, -1, -1]
    assert [anchored(rule) for rule in ("anna", "list", None)] == ["anna", str(tmp_path / "list"), None]
    assert [described(rule) for rule in ("a/b", str(tmp_path / "list"), None)] == ["a/b", "list", None]


def test_keys_of_any_script_are_matched() -> None:
    assert groups_by(["Vögel/日本-1", "x/日本-2", "x/\udcff"], "日本").tolist() == [0, 0, -1]


@settings(max_examples=50)
@given(st.lists(st.lists(st.integers(-1, 8), min_size=12, max_size=12), min_size=1, max_size=3))
def test_united_groups_are_the_connected_components(groupings: list[list[int]]) -> None:
    arrays = [np.array(numbers) for numbers in groupings]
    reach = np.eye(12, dtype=bool)
    for numbers in arrays:
        reach |= (numbers[:, None] == numbers[None]) & (numbers[:, None] >= 0)
    for _ in range(4):
        reach = (reach.astype(int) @ reach.astype(int)) > 0
    merged = united(*arrays)
    assert merged.tolist() == reach.argmax(axis=1).tolist()
    assert (leaders(merged) == merged).all()
    sizes = reach.sum(axis=1)
    assert several(merged) == (int((sizes > 1).sum()), len(set(merged[sizes > 1].tolist())))
