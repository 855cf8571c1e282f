"""Counts of pairs of classes: nothing grows with the square of the classes, in memory, in JSON or as a picture."""

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix

from saliency_pipeline.evaluation import confusion
from saliency_pipeline.evaluation.confusion import count_pairs, excerpt, from_json, to_json
from saliency_pipeline.evaluation.figures import plot_confusion
from saliency_pipeline.evaluation.metrics import evaluate
from tests.evaluation.test_figures import picture


def sample(classes: int, images: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    return generator.integers(classes, size=images), generator.integers(classes, size=images)


@pytest.mark.parametrize("classes", [2, 7, 300, 301])
def test_pairs_are_the_cells_that_are_not_empty(classes: int) -> None:
    labels, answers = sample(classes, 200)
    pairs = count_pairs(labels, answers)
    matrix = confusion_matrix(labels, answers, labels=np.arange(classes))
    assert [tuple(pair) for pair in pairs.tolist()] == [
        (row, column, matrix[row, column]) for row, column in np.argwhere(matrix)
    ]
    told = to_json(pairs, classes)
    assert isinstance(told, dict) == (classes > 300)
    if classes <= 300:
        assert told == matrix.tolist()
    assert (from_json(json.loads(json.dumps(told))) == pairs).all()


def test_no_image_has_no_pair() -> None:
    none = np.array([], np.int64)
    assert count_pairs(none, none).shape == from_json(to_json(count_pairs(none, none), 400)).shape == (0, 3)


def test_of_many_classes_those_confused_most_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confusion, "MATRIX_CLASSES", 6)
    monkeypatch.setattr(confusion, "EXCERPT_CLASSES", 4)
    cells = [(0, 0, 90), (1, 1, 5), (5, 2, 3), (2, 8, 7), (8, 8, 2), (8, 1, 4), (5, 5, 9), (3, 4, 1)]
    part = excerpt(np.array(sorted(cells)), 9)
    # 2 and 8 by seven images, then 1, then 5
    assert part.classes.tolist() == [1, 2, 5, 8]
    assert part.matrix.tolist() == [[5, 0, 0, 0], [0, 0, 0, 7], [0, 3, 9, 0], [4, 0, 0, 2]]
    assert part.images.tolist() == [5, 7, 12, 6]
    alone = excerpt(np.array([(0, 0, 1), (8, 7, 1)]), 9)
    assert alone.classes.tolist() == [0, 1, 7, 8]
    whole = excerpt(np.array([(0, 1, 3)]), 6)
    assert whole.matrix.shape == (6, 6)
    assert whole.images.tolist() == [3, 0, 0, 0, 0, 0]


@pytest.mark.parametrize("classes", [3000, 20_000])
def test_an_evaluation_of_many_classes_is_small(classes: int) -> None:
    images = 40
    labels = np.arange(images, dtype=np.int64) * (classes // images)
    probabilities = np.full((images, classes), 0.5 / (classes - 1), np.float32)
    probabilities[np.arange(images), labels[::-1]] = 0.5
    tracemalloc.start()
    found = evaluate(labels, probabilities, [f"class {i}" for i in range(classes)])
    text = json.dumps(found, indent=2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found["confusion"]["images"] == [1] * images
    assert peak < 40 * probabilities.nbytes  # the matrix of 3,000 classes alone has 150 times as much
    assert len(text) < 250 * classes


def test_the_picture_of_many_classes_is_that_of_some(tmp_path: Path) -> None:
    labels, answers = sample(3000, 5000)
    part = excerpt(count_pairs(labels, answers), 3000)
    names = [f"a rather long name of class {index}" for index in part.classes.tolist()]
    assert len(names) == 80
    plot_confusion(part.matrix, names, tmp_path / "c.png", images=part.images, of=3000)
    assert max(picture(tmp_path / "c.png").shape) < 3200
