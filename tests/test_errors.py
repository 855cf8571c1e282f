"""Error messages are one printable line, whatever they quote."""

import pickle

import pytest

from saliency_pipeline.errors import BadImageError, SalpipeError, TooManyRejectsError


@pytest.mark.parametrize("kind", [SalpipeError, BadImageError, TooManyRejectsError])
@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("Réunion/1.jpg: cut short", "Réunion/1.jpg: cut short"),
        ("a\x1b[2J\nb\u2028\u202ec\t.jpg", r"a\x1b[2J b \u202ec\t.jpg"),
        ("\udcff: no such file", r"\udcff: no such file"),
    ],
)
def test_a_message_is_one_printable_line(kind: type[SalpipeError], text: str, line: str) -> None:
    error = kind(text)
    for each in (error, pickle.loads(pickle.dumps(error)), SalpipeError(str(error))):
        assert str(each) == f"{each}" == line
    assert str(error).isprintable()
