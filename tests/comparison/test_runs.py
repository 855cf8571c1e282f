"""What a comparison reads of finished runs is what they wrote, whatever their classes are called."""

import numpy as np
import pytest

from saliency_pipeline.comparison.runs import _read_predictions, recalls
from saliency_pipeline.training.runlog import VALIDATION, write_predictions


@pytest.mark.parametrize("classes", [("=cat", "'=cat", "dog"), ("-1", "+1", "@"), ("a\rb", "a\nb", 'a"b')])
def test_answers_are_those_that_were_written(tmp_path, classes):
    keys = [f"{name}/{number}.jpg" for number, name in enumerate(classes)]
    labels = np.array([0, 1, 2])
    write_predictions(tmp_path, keys, labels, np.eye(3, dtype=np.float32)[[0, 2, 2]], classes)
    predictions = _read_predictions(tmp_path / VALIDATION)
    assert predictions is not None
    assert (predictions.keys, predictions.labels) == (tuple(keys), classes)
    assert predictions.predicted == (classes[0], classes[2], classes[2])
    assert recalls([predictions], classes) == [1, 0, 1]
