"""Selection of classes by words, and errors for words of none or several."""

import os

import pytest

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.subsets.classes import classes_meant

NAMES = ("tench", "great white shark", "tiger shark", "crane (n02012849)", "crane (n03126707)", "Ada Lovelace")
IDS = ("n01440764", "n01484850", "n01491361", "n02012849", "n03126707", "n99999999")


def meant(*words: str) -> tuple[int, ...]:
    return classes_meant(words, NAMES, IDS)


@pytest.mark.parametrize(
    ("words", "labels"),
    [
        (["tench"], (0,)),
        (["n01484850"], (1,)),
        (["N01484850", "TENCH"], (0, 1)),
        (["great_white_shark"], (1,)),
        (["ada  lovelace"], (5,)),
        (["Ada_Lovelace"], (5,)),
        (["* shark"], (1, 2)),
        (["*_SHARK"], (1, 2)),
        (["n014*"], (0, 1, 2)),
        (["?ench"], (0,)),
        (["[ta]*"], (0, 2, 5)),
        (["crane (n03126707)"], (4,)),
        (["crane*"], (3, 4)),
        (["tench", "tench", "n01440764"], (0,)),
        (["!tench"], (1, 2, 3, 4, 5)),
        (["*shark", "!tiger shark"], (1,)),
        (["!tiger shark", "*shark"], (1,)),
        (["!crane*", "! n0149*"], (0, 1, 5)),
    ],
)
def test_words_mean_classes(words, labels):
    assert meant(*words) == labels


def test_classes_without_ids_are_meant_by_name():
    assert classes_meant(["a_b", "c?"], ["a b", "c1", "c2"]) == (0, 1, 2)


def test_a_name_spelt_exactly_wins():
    assert classes_meant(["cat"], ["Cat", "cat"]) == (1,)
    assert classes_meant(["a*"], ["a*", "ab"]) == (0,)
    assert classes_meant(["crane"], ["crane", "crane (n03126707)"]) == (0,)
    assert classes_meant(["Crane"], ["crane", "crane (n03126707)"]) == (0,)
    assert classes_meant(["@home"], ["@home", "work"]) == (0,)


def test_a_class_called_by_its_id_is_one_class():
    assert classes_meant(["N01440764"], ["n01440764", "other"], ["n01440764", "n01440765"]) == (0,)


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("crane", "--classes: 2 classes are called 'crane'; use an id: n02012849, n03126707$"),
        ("!crane", "--classes: 2 classes are called 'crane'"),
        ("tensh", "--classes: no class 'tensh'; did you mean 'tench'[?]$"),
        ("zeppelin", "--classes: no class 'zeppelin'; there are n01440764, .*, n03126707 and 1 more$"),
        ("z*", "--classes: no class matches 'z[*]'; there are n01440764"),
        ("", "--classes: no class ''"),
        ("two\nlines", r"no class 'two\\nlines'"),
    ],
)
def test_what_means_no_class_or_several_is_named(word, reason):
    with pytest.raises(SalpipeError, match=reason) as caught:
        meant(word)
    assert str(caught.value).isprintable()


def test_names_that_differ_in_case_alone_must_be_spelt():
    with pytest.raises(SalpipeError, match="2 classes are called 'CAT'; use an id: Cat, cat"):
        classes_meant(["CAT"], ["Cat", "cat"])


def test_leaving_out_all_is_an_error():
    with pytest.raises(SalpipeError, match="--classes: no class is left"):
        meant("tench", "!t*")


# files


def test_a_file_has_a_word_a_line(tmp_path):
    file = tmp_path / "classes.txt"
    file.write_text(
        "# fish\ntench  # the first\n\n  n01484850\nn01491361\ttiger shark, Galeocerdo cuvieri\nAda_Lovelace\n"
    )
    assert meant(f"@{file}") == (0, 1, 2, 5)
    assert meant(str(file)) == (0, 1, 2, 5)
    assert meant(f"!@{file}") == (3, 4)
    assert meant(f"@{file}", "!tench", "crane (n02012849)") == (1, 2, 3, 5)


def test_a_file_may_hold_patterns_and_what_is_left_out(tmp_path):
    file = tmp_path / "classes.txt"
    file.write_text("*shark\n!tiger*\n")
    assert meant(f"@{file}") == (1,)
    assert meant(f"!@{file}", "t*") == (0, 2)
    file.write_text("*shark\n!n01491361 tiger shark, Galeocerdo cuvieri\n")
    assert meant(f"@{file}") == (1,)


def test_a_class_wins_over_a_file_of_its_name(tmp_path, monkeypatch):
    (tmp_path / "tench").write_text("tiger shark\n")
    monkeypatch.chdir(tmp_path)
    assert meant("tench") == (0,)
    assert meant("@tench") == (2,)


def test_a_word_of_a_file_is_named_with_its_line(tmp_path):
    file = tmp_path / "classes.txt"
    file.write_text("tench\n\ncrane\n")
    with pytest.raises(SalpipeError, match=r"classes\.txt:3: 2 classes are called 'crane'"):
        meant(f"@{file}")
    file.write_text("@/etc/passwd\n")
    with pytest.raises(SalpipeError, match=r"classes\.txt:1: no class '@/etc/passwd'"):
        meant(f"@{file}")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"# nothing\n\n", "classes.txt: no classes in it; write one per line"),
        (b"\xff\n", "classes.txt:1: not UTF-8"),
        (b"a" * 2**17, "classes.txt:1: longer than"),
    ],
)
def test_a_file_that_is_no_list_is_named(tmp_path, content, reason):
    file = tmp_path / "classes.txt"
    file.write_bytes(content)
    with pytest.raises(SalpipeError, match=reason):
        meant(f"@{file}")


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(SalpipeError, match=r"none\.txt: No such file"):
        meant(f"@{tmp_path / 'none.txt'}")


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_what_is_no_regular_file_is_not_waited_for(tmp_path, kind):
    file = tmp_path / "classes.txt"
    os.mkfifo(file) if kind == "pipe" else file.symlink_to("/dev/zero")
    with pytest.raises(SalpipeError, match=r"classes\.txt: Not a regular file; give a regular file"):
        meant(f"@{file}")


def test_a_file_that_is_not_there_is_named_as_it_was_typed() -> None:
    with pytest.raises(SalpipeError, match=r"^--classes @nofile: No such file or directory; check the path$"):
        meant("@nofile")
