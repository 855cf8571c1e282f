"""Scores of an epoch: against scikit-learn, torch and the slow way; ties."""

import math
from typing import NamedTuple

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score, log_loss, top_k_accuracy_score

from saliency_pipeline.statistics.metrics import cross_entropy, label_ranks, macro_f1, top1, top5


class Scores(NamedTuple):
    """The metrics that training writes for every epoch."""

    loss: float
    top1: float
    top5: float | None
    macro_f1: float


def score(labels: np.ndarray, logits: np.ndarray) -> Scores:
    predicted = logits.argmax(axis=1)
    return Scores(
        cross_entropy(labels, logits), top1(labels, logits), top5(labels, logits), macro_f1(labels, predicted)
    )


def example(seed: int, images: int = 200, classes: int = 8) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    labels = generator.integers(classes, size=images)
    logits = generator.normal(size=(images, classes)).astype(np.float32) * 3
    logits[np.arange(images), labels] += 2
    return labels, logits


def slow(labels: np.ndarray, logits: np.ndarray) -> Scores:
    """Every image and class by itself."""
    losses, places, predictions = [], [], []
    for label, row in zip(labels.tolist(), logits.tolist(), strict=True):
        losses.append(math.log(sum(math.exp(value) for value in row)) - row[label])
        order = sorted(range(len(row)), key=lambda c: (-row[c], c))
        places.append(order.index(label))
        predictions.append(order[0])
    f1s = []
    for c in sorted({*labels.tolist(), *predictions}):
        both = sum(a == c and b == c for a, b in zip(labels, predictions, strict=True))
        f1s.append(2 * both / (sum(labels == c) + sum(a == c for a in predictions)))
    return Scores(
        loss=sum(losses) / len(losses),
        top1=sum(place < 1 for place in places) / len(places),
        top5=sum(place < 5 for place in places) / len(places) if logits.shape[1] > 5 else None,
        macro_f1=sum(f1s) / len(f1s),
    )


def assert_close(result: Scores, wanted: Scores) -> None:
    for name in ("loss", "top1", "top5", "macro_f1"):
        value = getattr(wanted, name)
        assert getattr(result, name) == (None if value is None else pytest.approx(value, rel=1e-12)), name


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("classes", [1, 2, 5, 6, 8])
def test_scores_are_those_of_the_slow_way(seed: int, classes: int) -> None:
    labels, logits = example(seed, classes=classes)
    assert_close(score(labels, logits), slow(labels, logits))


@pytest.mark.parametrize("seed", range(3))
def test_ties_fall_as_in_a_stable_sort(seed: int) -> None:
    labels, logits = example(seed)
    logits = np.round(logits / 3)
    assert_close(score(labels, logits), slow(labels, logits))
    order = torch.from_numpy(logits).sort(dim=1, descending=True, stable=True).indices.numpy()
    assert (label_ranks(labels, logits) == (order == labels[:, None]).argmax(axis=1)).all()


def test_scores_are_those_of_other_libraries() -> None:
    labels, logits = example(0)
    result, exact = score(labels, logits), torch.from_numpy(logits).double()
    names = np.arange(logits.shape[1])
    assert result.loss == pytest.approx(log_loss(labels, exact.softmax(1).numpy(), labels=names), rel=1e-12)
    assert result.loss == pytest.approx(float(torch.nn.functional.cross_entropy(exact, torch.from_numpy(labels))))
    assert result.top5 == top_k_accuracy_score(labels, logits, k=5, labels=names)
    assert result.macro_f1 == pytest.approx(f1_score(labels, logits.argmax(1), average="macro"), rel=1e-12)


def test_a_constant_output_is_class_zero_and_not_always_right() -> None:
    result = score(np.arange(10), np.zeros((10, 10), np.float32))
    assert result.loss == pytest.approx(math.log(10))
    assert (result.top1, result.top5) == (0.1, 0.5)
    # class 0 has precision 1/10 and recall 1, the nine others occur and have F1 0
    assert result.macro_f1 == pytest.approx(2 / 11 / 10)


def test_perfect_predictions_score_one() -> None:
    result = score(np.array([2, 0, 1]), 100 * np.eye(3, dtype=np.float32)[[2, 0, 1]])
    assert_close(result, Scores(0.0, 1.0, None, 1.0))


def test_classes_that_do_not_occur_have_no_part_in_macro_f1() -> None:
    assert macro_f1(np.array([7, 7]), np.array([7, 7])) == 1.0
    # class 7: 2 * 1 / (2 + 1), class 3 is only predicted: 0
    assert macro_f1(np.array([7, 7]), np.array([7, 3])) == pytest.approx(1 / 3)


def test_top5_of_five_classes_is_not_defined_rather_than_always_right() -> None:
    assert score(*example(0, classes=5)).top5 is None
    assert score(*example(0, classes=6)).top5 is not None


def test_one_image() -> None:
    assert score(np.array([6]), np.arange(10, dtype=np.float32)[None]).top5 == 1.0
    assert score(np.array([4]), np.arange(10, dtype=np.float32)[None]).top5 == 0.0


def test_huge_logits_do_not_overflow() -> None:
    result = score(np.array([0, 1]), np.array([[3e38, -3e38], [3e38, -3e38]], np.float32))
    assert result.loss == pytest.approx(3e38, rel=1e-6)


def test_many_images_are_scored_in_parts_like_few() -> None:
    labels, logits = example(1, images=9000, classes=3)
    parts = [score(labels[i : i + 1000], logits[i : i + 1000]) for i in range(0, 9000, 1000)]
    whole = score(labels, logits)
    assert whole.loss == pytest.approx(np.mean([part.loss for part in parts]), rel=1e-12)
    assert whole.top1 == pytest.approx(np.mean([part.top1 for part in parts]), rel=1e-12)


def test_the_arguments_stay_as_they_are() -> None:
    labels, logits = example(0)
    kept = logits.copy()
    logits.flags.writeable = False
    score(labels, logits)
    assert (logits == kept).all()
