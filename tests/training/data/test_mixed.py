"""The loss of mixed labels, by hand."""

import pytest
import torch
from torch.nn import functional

from saliency_pipeline.training.data.mixed import Mixed, mixed_cross_entropy

LOGITS = torch.tensor([[2.0, 0.0, -1.0], [0.5, 0.25, 3.0]])
TARGETS, PARTNERS = torch.tensor([0, 1]), torch.tensor([2, 0])


def test_by_hand() -> None:
    loss = mixed_cross_entropy(LOGITS, TARGETS, Mixed(PARTNERS, torch.tensor([0.75, 1.0])))
    log = LOGITS.log_softmax(1)
    assert float(loss) == pytest.approx(float(-0.75 * log[0, 0] - 0.25 * log[0, 2] - log[1, 1]), rel=1e-6)


@pytest.mark.parametrize("weights", [None, torch.tensor([0.5, 1.0, 2.0])])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_weights_and_smoothing_are_those_of_both_labels(weights: torch.Tensor | None, smoothing: float) -> None:
    def loss(mixed: Mixed | None, targets: torch.Tensor = TARGETS) -> float:
        return float(mixed_cross_entropy(LOGITS, targets, mixed, weights, smoothing))

    own, other = (
        float(functional.cross_entropy(LOGITS, t, weights, reduction="sum", label_smoothing=smoothing))
        for t in (TARGETS, PARTNERS)
    )
    assert loss(None) == own
    for share in (1.0, 0.0, 0.25):
        mixed = Mixed(PARTNERS, torch.full((2,), share))
        assert loss(mixed) == pytest.approx(share * own + (1 - share) * other, rel=1e-6)
