"""Learning rates: closed forms, torch's schedulers step by step."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from saliency_pipeline.training.schedule import SCHEDULES, learning_rate


def sgd(lr: float) -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr)


def test_constant_is_constant() -> None:
    assert {learning_rate(step, 7, 3, lr=1e-4) for step in range(21)} == {1e-4}


def test_warmup_rises_by_equal_parts_and_ends_at_the_full_rate() -> None:
    rates = [learning_rate(step, 4, 5, lr=0.8, warmup_epochs=2) for step in range(20)]
    assert rates[:8] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8])
    assert rates[8:] == [0.8] * 12


def test_warmup_may_be_part_of_an_epoch() -> None:
    rates = [learning_rate(step, 5, 1, lr=1.0, warmup_epochs=0.5) for step in range(5)]
    assert rates == pytest.approx([0.4, 0.8, 1, 1, 1])


def test_cosine_passes_its_closed_form() -> None:
    rates = [learning_rate(step, 10, 4, lr=2.0, schedule="cosine") for step in (0, 10, 20, 30, 40)]
    assert rates == pytest.approx([2, 1 + math.sqrt(0.5), 1, 1 - math.sqrt(0.5), 0])
    assert rates[-1] == 0


def test_cosine_begins_where_the_warmup_ends() -> None:
    def rate(step: int) -> float:
        return learning_rate(step, 10, 4, lr=2.0, schedule="cosine", warmup_epochs=2)

    assert rate(19) == rate(20) == 2.0
    assert rate(30) == pytest.approx(1.0)
    assert rate(40) == 0


def test_cosine_is_torchs_cosine() -> None:
    optimizer = sgd(0.3)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=24)
    for step in range(24):
        assert learning_rate(step, 6, 4, lr=0.3, schedule="cosine") == pytest.approx(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()


def test_step_is_torchs_step() -> None:
    optimizer = sgd(0.3)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=3, gamma=0.5)
    for epoch in range(10):
        for step in (4 * epoch, 4 * epoch + 3):
            rate = learning_rate(step, 4, 10, lr=0.3, schedule="step", step_epochs=3, gamma=0.5)
            assert rate == pytest.approx(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()


@given(
    schedule=st.sampled_from(SCHEDULES),
    steps=st.integers(1, 50),
    epochs=st.integers(1, 30),
    part=st.floats(0, 0.99),
    where=st.floats(0, 0.999),
)
def test_rates_stay_above_zero_and_below_lr(schedule: str, steps: int, epochs: int, part: float, where: float) -> None:
    step = int(where * steps * epochs)
    rate = learning_rate(step, steps, epochs, lr=0.1, schedule=schedule, warmup_epochs=part * epochs, step_epochs=2)
    assert 0 < rate <= 0.1


def test_rates_do_not_rise_after_the_warmup() -> None:
    for schedule in SCHEDULES:
        rates = [learning_rate(s, 5, 9, lr=0.1, schedule=schedule, warmup_epochs=2, step_epochs=3) for s in range(45)]
        assert rates[:10] == sorted(rates[:10])
        assert rates[9:] == sorted(rates[9:], reverse=True)
