"""Metrics: perfect and worst predictions, slow twins, scikit-learn, intervals, edge cases, refusals."""

import json
import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix, f1_score, log_loss, top_k_accuracy_score

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.statistics import metrics
from saliency_pipeline.statistics.confusion import count_pairs, excerpt
from saliency_pipeline.statistics.metrics import calibration, evaluate, intervals, per_class, validate


def macro_f1(labels: np.ndarray, probabilities: np.ndarray) -> float:
    return metrics.macro_f1(labels, probabilities.argmax(1))


METRICS: list[Callable[[np.ndarray, np.ndarray], float | None]] = [metrics.top1, metrics.top5, macro_f1]


def example(seed: int, images: int = 150, classes: int = 7, dtype: Any = np.float32) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    labels = generator.integers(classes, size=images)
    logits = 2 * generator.normal(size=(images, classes))
    logits[np.arange(images), labels] += 2
    probabilities = np.exp(logits)
    return labels, (probabilities / probabilities.sum(axis=1, keepdims=True)).astype(dtype)


def ends_of(result: metrics.Intervals) -> dict[str, list[float] | None]:
    return {name: getattr(result, name) for name in ("top1", "top5", "macro_f1")}


def names(classes: int) -> list[str]:
    return [f"class {i}" for i in range(classes)]


def confusion(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    return excerpt(count_pairs(labels, probabilities.argmax(1)), probabilities.shape[1]).matrix


def predictions(probabilities: np.ndarray) -> list[int]:
    return [max(range(len(row)), key=lambda c: (row[c], -c)) for row in probabilities.tolist()]


@pytest.mark.parametrize("metric", METRICS)
def test_perfect_predictions_score_one(metric: Callable[[np.ndarray, np.ndarray], float]) -> None:
    labels = np.array([2, 0, 6, 6])
    assert metric(labels, np.eye(8)[labels]) == 1.0
    assert metrics.nll(labels, np.eye(8)[labels]) == 0.0
    assert calibration(labels, np.eye(8)[labels]).ece == 0.0


@pytest.mark.parametrize("metric", METRICS)
def test_wrong_predictions_score_zero(metric: Callable[[np.ndarray, np.ndarray], float]) -> None:
    # by falling class: the label, class 0, comes last of eight
    row = np.arange(8) / 28
    assert metric(np.zeros(3, np.int64), np.tile(row, (3, 1))) == 0.0


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("classes", [2, 7])
def test_metrics_are_those_of_scikit_learn(seed: int, classes: int) -> None:
    labels, probabilities = example(seed, classes=classes, dtype=np.float64)
    every, predicted = np.arange(classes), probabilities.argmax(1)
    assert metrics.top1(labels, probabilities) == pytest.approx((labels == predicted).mean())
    if classes > 5:
        assert metrics.top5(labels, probabilities) == top_k_accuracy_score(labels, probabilities, k=5, labels=every)
    assert macro_f1(labels, probabilities) == pytest.approx(f1_score(labels, predicted, average="macro"))
    assert metrics.nll(labels, probabilities) == pytest.approx(log_loss(labels, probabilities, labels=every))
    assert (confusion(labels, probabilities) == confusion_matrix(labels, predicted, labels=every)).all()


def test_confusion_counts_one_by_one() -> None:
    labels, probabilities = example(4)
    wanted = np.zeros((7, 7), int)
    for label, prediction in zip(labels, predictions(probabilities), strict=True):
        wanted[label, prediction] += 1
    assert (confusion(labels, probabilities) == wanted).all()


def test_per_class_follows_from_the_confusion() -> None:
    labels, probabilities = example(5)
    counts = confusion(labels, probabilities)
    for i, row in enumerate(per_class(labels, probabilities, names(7))):
        assert row.name == f"class {i}"
        assert row.support == counts[i].sum()
        assert row.recall == pytest.approx(counts[i, i] / counts[i].sum())
        assert row.precision == pytest.approx(counts[i, i] / counts[:, i].sum())
        assert row.f1 == pytest.approx(2 / (1 / row.recall + 1 / row.precision))
    assert macro_f1(labels, probabilities) == pytest.approx(
        np.mean([row.f1 for row in per_class(labels, probabilities, names(7))])
    )


def test_what_is_not_defined_is_none() -> None:
    # class 1 is never predicted, class 2 has no image, class 3 neither
    rows = per_class(np.array([0, 1, 1]), np.eye(4)[[0, 0, 2]], names(4))
    assert [
        {name: row.to_json()[name] for name in ("class", "precision", "recall", "f1", "support")} for row in rows
    ] == [
        {"class": "class 0", "precision": 0.5, "recall": 1.0, "f1": pytest.approx(2 / 3), "support": 1},
        {"class": "class 1", "precision": None, "recall": 0.0, "f1": 0.0, "support": 2},
        {"class": "class 2", "precision": 0.0, "recall": None, "f1": 0.0, "support": 0},
        {"class": "class 3", "precision": None, "recall": None, "f1": None, "support": 0},
    ]
    assert macro_f1(np.array([0, 1, 1]), np.eye(4)[[0, 0, 2]]) == pytest.approx(2 / 9)
    for row in rows:
        assert (row.precision is None) == (row.precision_low is None) == (row.precision_high is None)
        assert (row.recall is None) == (row.recall_low is None) == (row.recall_high is None)


def test_precision_and_recall_have_the_intervals_of_their_counts() -> None:
    labels, probabilities = example(11, classes=4)
    counts = confusion(labels, probabilities)
    for i, row in enumerate(per_class(labels, probabilities, names(4))):
        for name, count in (("recall", counts[i].sum()), ("precision", counts[:, i].sum())):
            wanted = scipy.stats.binomtest(int(counts[i, i]), int(count)).proportion_ci(0.95, "wilson")
            assert (getattr(row, f"{name}_low"), getattr(row, f"{name}_high")) == pytest.approx(
                (wanted.low, wanted.high), abs=1e-12
            )
    (only,) = per_class(np.zeros(5, np.int64), np.ones((5, 1)), ["only"])
    # all five are right, and the interval is not of zero width
    assert only.recall_low == pytest.approx(5 / (5 + scipy.stats.norm.ppf(0.975) ** 2))
    assert only.recall_high == 1.0


def test_an_impossible_label_keeps_the_likelihood_finite() -> None:
    result = metrics.nll(np.array([0]), np.array([[0.0, 1.0]], np.float32))
    assert result == pytest.approx(-math.log(np.finfo(np.float32).tiny))


def slow_calibration(labels: np.ndarray, probabilities: np.ndarray, bins: int) -> tuple[float, list[int]]:
    edges = np.linspace(0, 1, bins + 1)
    error, counts = 0.0, []
    for low, high in pairwise(edges):
        inside = [
            (float(max(row)), label == prediction)
            for label, prediction, row in zip(labels, predictions(probabilities), probabilities, strict=True)
            if low < max(row) <= high
        ]
        counts.append(len(inside))
        if inside:
            accuracy = sum(right for _, right in inside) / len(inside)
            confidence = sum(value for value, _ in inside) / len(inside)
            error += len(inside) / len(labels) * abs(accuracy - confidence)
    return error, counts


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("bins", [1, 10, 15])
def test_calibration_is_that_of_the_slow_way(seed: int, bins: int) -> None:
    labels, probabilities = example(seed, dtype=np.float64)
    result = calibration(labels, probabilities, bins)
    error, counts = slow_calibration(labels, probabilities, bins)
    assert result.ece == pytest.approx(error)
    assert [b.count for b in result.bins] == counts
    assert result.bins[0].low == 0
    assert result.bins[-1].high == 1


def test_calibration_by_hand() -> None:
    # three at 0.9 of which one is right, one at 0.6 that is right
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.9, 0.1], [0.4, 0.6]])
    result = calibration(np.array([0, 1, 1, 1]), probabilities, bins=2)
    assert result.bins[0] == metrics.Bin(0, 0.5, 0, None, None)
    assert result.bins[1].confidence == pytest.approx(0.825)
    assert result.bins[1].accuracy == 0.5
    assert result.ece == pytest.approx(0.325)


def test_a_confidence_on_an_edge_belongs_to_the_lower_bin() -> None:
    result = calibration(np.array([0, 0]), np.array([[0.5, 0.5], [1.0, 0.0]]), bins=2)
    assert [b.count for b in result.bins] == [1, 1]


def slow_bootstrap(labels: np.ndarray, probabilities: np.ndarray, resamples: int) -> np.ndarray:
    """Percentile ends by drawing images one by one, in the order top-1, top-5, macro F1."""
    generator = np.random.default_rng(99)
    values = []
    for _ in range(resamples):
        rows = [int(generator.integers(len(labels))) for _ in labels]
        values.append([metric(labels[rows], probabilities[rows]) for metric in METRICS])
    return np.percentile(values, [2.5, 97.5], axis=0)


def test_intervals_are_those_of_drawing_images_one_by_one() -> None:
    labels, probabilities = example(6, images=80)
    wanted = slow_bootstrap(labels, probabilities, 1000)
    for i, (name, ends) in enumerate(ends_of(intervals(labels, probabilities)).items()):
        assert ends is not None
        # a thousand resamples place an end within about a tenth of the interval's width; Wilson's interval of a share
        # lies nearer to one half
        tolerance = (0.15 if name == "macro_f1" else 0.25) * (ends[1] - ends[0])
        assert ends == pytest.approx(wanted[:, i].tolist(), abs=tolerance)


def test_intervals_of_top1_are_those_of_scipy_and_of_the_binomial() -> None:
    labels, probabilities = example(7, images=400)
    right = (labels == probabilities.argmax(1)).astype(float)
    low, high = intervals(labels, probabilities).top1
    drawn = scipy.stats.bootstrap(
        (right,), np.mean, n_resamples=2000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    assert (low, high) == pytest.approx((drawn.low, drawn.high), abs=0.008)
    wanted = scipy.stats.binom(400, right.mean()).ppf([0.025, 0.975]) / 400
    assert (low, high) == pytest.approx(tuple(wanted), abs=0.008)


@pytest.mark.parametrize(("hits", "count"), [(0, 750), (750, 750), (0, 1), (1, 1), (3, 750), (375, 750)])
def test_a_share_has_an_interval_also_at_its_ends(hits: int, count: int) -> None:
    labels = np.zeros(count, np.int64)
    # by falling class where it is wrong: the label, class 0, comes last of seven
    probabilities = np.where(np.arange(count)[:, None] < hits, np.eye(7)[0], np.arange(7) / 21)
    result = intervals(labels, probabilities, resamples=20)
    # Wilson 1927, solved for the shares that are z standard errors from what was seen
    z2, share = scipy.stats.norm.ppf(0.975) ** 2, hits / count
    center, half = share + z2 / (2 * count), math.sqrt(z2 * (share * (1 - share) / count + z2 / (4 * count**2)))
    wanted = [(center - half) / (1 + z2 / count), (center + half) / (1 + z2 / count)]
    for name in ("top1", "top5"):
        low, high = getattr(result, name)
        assert (low, high) == pytest.approx(wanted, abs=1e-12)
        assert 0 <= low <= share <= high <= 1
        assert high - low > 0.004
    # also where all resamples are alike
    assert result.macro_f1[0] <= macro_f1(labels, probabilities) <= result.macro_f1[1]
    assert result.macro_f1[1] - result.macro_f1[0] > 0.001


@pytest.mark.parametrize(
    ("images", "classes", "recall"), [(20, 2, 0.985), (20, 2, 0.02), (30, 3, 0.99), (60, 3, 0.995)]
)
def test_the_interval_of_macro_f1_holds_the_truth_where_the_bootstrap_collapses(
    images: int, classes: int, recall: float
) -> None:
    """Samples of a network whose macro F1 is its recall, that of its classes being equal and errors spread evenly."""
    generator, held, collapsed = np.random.default_rng(0), 0, 0
    for _ in range(300):
        labels = np.arange(images) % classes
        other = (labels + generator.integers(1, classes, images)) % classes
        prediction = np.where(generator.random(images) < recall, labels, other)
        low, high = intervals(labels, np.eye(classes)[prediction], resamples=50).macro_f1 or (1, 0)
        if len(set((prediction == labels).tolist())) == 1:
            collapsed += 1
            held += low <= recall <= high
    assert collapsed > 50
    assert held == collapsed


def test_intervals_hold_the_value_and_widen_with_the_level() -> None:
    labels, probabilities = example(8)
    narrow, wide = (intervals(labels, probabilities, level=level) for level in (0.5, 0.99))
    for metric, name in zip(METRICS, ("top1", "top5", "macro_f1"), strict=True):
        inner, outer = getattr(narrow, name), getattr(wide, name)
        assert outer[0] < inner[0] <= metric(labels, probabilities) <= inner[1] < outer[1]


def test_intervals_depend_on_the_seed_and_not_on_the_order_of_the_images() -> None:
    labels, probabilities = example(9)
    order = np.random.default_rng(0).permutation(len(labels))
    assert intervals(labels, probabilities, seed=3) == intervals(labels[order], probabilities[order], seed=3)
    assert intervals(labels, probabilities, seed=3) != intervals(labels, probabilities, seed=4)


def test_evaluate_is_plain_json_and_says_what_the_metrics_say() -> None:
    labels, probabilities = example(10)
    result = evaluate(labels, probabilities, names(7), seed=2)
    document = result.to_json()
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert result.images == 150
    assert result.classes == 7
    for metric, name in zip(METRICS, ("top1", "top5", "macro_f1"), strict=True):
        assert getattr(result, name) == metric(labels, probabilities)
    assert result.nll == metrics.nll(labels, probabilities)
    assert result.calibration == calibration(labels, probabilities)
    assert result.intervals == intervals(labels, probabilities, seed=2)
    assert list(document["intervals"]) == ["level", "resamples", "top1", "top5", "macro_f1"]
    assert (result.intervals.level, result.intervals.resamples) == (0.95, 2000)
    assert result.to_json()["confusion"] == confusion(labels, probabilities).tolist()


def test_one_image() -> None:
    result = evaluate(np.array([1]), np.array([[0.2, 0.8, 0.0]], np.float32), names(3))
    assert (result.top1, result.macro_f1) == (1.0, 1.0)
    # 1 of 1: Wilson's lower end is 1 / (1 + z²)
    assert result.intervals.top1 == pytest.approx([1 / (1 + scipy.stats.norm.ppf(0.975) ** 2), 1.0])
    assert (result.top5, result.intervals.top5) == (None, None)
    # precision and recall are 1 of 1, so that the lower end is the one of top-1
    assert result.intervals.macro_f1 == pytest.approx(result.intervals.top1)
    assert result.calibration.ece == pytest.approx(0.2)
    json.dumps(result.to_json(), allow_nan=False)


def test_one_class() -> None:
    result = evaluate(np.zeros(4, np.int64), np.ones((4, 1), np.float32), ["only"])
    assert (result.top1, result.top5, result.macro_f1, result.nll) == (1.0, None, 1.0, 0.0)
    assert result.to_json()["confusion"] == [[4]]
    (only,) = result.per_class
    assert (only.name, only.precision, only.recall, only.f1, only.support) == ("only", 1.0, 1.0, 1.0, 4)


def test_the_classes_of_lowest_f1_come_first() -> None:
    values = {"a": 0.5, "b": None, "c": 1.0, "d": 0.0, "e": 0.25, "f": 0.75}
    rows = [metrics.ClassMetrics(name, None, None, f1, 0, None, None, None, None) for name, f1 in values.items()]
    assert [row.name for row in metrics.lowest_f1(rows)] == ["d", "e", "a"]


@settings(max_examples=40, deadline=None)
@given(images=st.integers(1, 12), classes=st.integers(1, 9), seed=st.integers(0, 10**6), steps=st.integers(1, 4))
def test_small_and_tied_data_agree_with_counting(images: int, classes: int, seed: int, steps: int) -> None:
    generator = np.random.default_rng(seed)
    labels = generator.integers(classes, size=images)
    weights = generator.integers(1, 1 + steps, size=(images, classes)).astype(np.float64)
    probabilities = weights / weights.sum(axis=1, keepdims=True)
    predicted = np.array(predictions(probabilities))
    assert metrics.top1(labels, probabilities) == (labels == predicted).mean()
    for i, row in enumerate(per_class(labels, probabilities, names(classes))):
        both, images_of, predictions_of = (
            ((labels == i) & (predicted == i)).sum(),
            (labels == i).sum(),
            sum(predicted == i),
        )
        assert row.recall == (pytest.approx(both / images_of) if images_of else None)
        assert row.precision == (pytest.approx(both / predictions_of) if predictions_of else None)
        either = images_of + predictions_of
        assert row.f1 == (pytest.approx(2 * both / either) if either else None)
    ends = intervals(labels, probabilities, resamples=20)
    assert all(0 <= low < high <= 1 for low, high in filter(None, ends_of(ends).values()))
    assert ends.top1[0] <= metrics.top1(labels, probabilities) <= ends.top1[1]
    assert (ends.top5 is None) == (classes <= 5)


def refused(change: str) -> tuple[np.ndarray, np.ndarray]:
    labels, probabilities = example(0, images=5, classes=3)
    if change == "label":
        labels[2] = 3
    elif change == "unlabeled":
        labels[1] = -1
    elif change == "sum":
        probabilities[4] *= 1.1
    elif change == "logits":
        probabilities[0] = (2.0, -2.0, 1.0)
    elif change == "nan":
        probabilities[3, 1] = np.nan
    elif change == "shapes":
        labels = labels[:4]
    elif change == "flat":
        probabilities = probabilities[:, 0]
    elif change == "empty":
        labels, probabilities = labels[:0], probabilities[:0]
    return labels, probabilities


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("label", r"image 2 has label 3, but the probabilities are of 3 classes"),
        ("unlabeled", r"image 1 has label -1"),
        ("sum", r"the values of image 4 are no probabilities .*sum 1\.1\); apply a softmax"),
        ("logits", r"the values of image 0 are no probabilities \(smallest -2"),
        ("nan", r"image 3 has a probability that is not finite; predict with --precision fp32"),
        ("shapes", r"labels of shape \(4,\) and probabilities of shape \(5, 3\) do not belong together"),
        ("flat", r"probabilities of shape \(5,\)"),
        ("empty", r"there is no image to evaluate; choose a split"),
    ],
)
def test_what_is_refused(change: str, message: str) -> None:
    labels, probabilities = refused(change)
    with pytest.raises(SalpipeError, match=message) as caught:
        validate(labels, probabilities)
    assert "\n" not in str(caught.value)
    with pytest.raises(SalpipeError, match=message):
        evaluate(labels, probabilities, names(3))


def test_names_that_are_not_as_many_as_the_classes_are_refused() -> None:
    with pytest.raises(SalpipeError, match=r"there are 2 class names, but probabilities of 3 classes"):
        evaluate(*example(0, classes=3), names(2))


def test_softmax_in_low_precision_is_accepted() -> None:
    labels, probabilities = example(0, classes=1000)
    validate(labels, probabilities.astype(np.float16).astype(np.float32))
