"""The learning rate of every step, as a pure function: nothing to save, so a resumed run has the same rates."""

from __future__ import annotations

import math

SCHEDULES = ("constant", "cosine", "step")


def learning_rate(
    step: int,
    steps_per_epoch: int,
    epochs: int,
    *,
    lr: float,
    schedule: str = "constant",
    warmup_epochs: float = 0.0,
    step_epochs: int = 10,
    gamma: float = 0.1,
) -> float:
    """The learning rate for one step of the optimizer.

    With s the step counted from 0, n the steps an epoch, E the epochs, W = n * warmup_epochs the steps of warm-up,

        rate(s) = lr * min(1, (s + 1) / W) * decay(s)

        constant   decay = 1
        cosine     decay = (1 + cos(pi * (s - W) / (n * E - W))) / 2   after the warm-up, 1 in it
        step       decay = gamma ** floor(floor(s / n) / step_epochs)

    The warm-up rises linearly and reaches lr with its last step (Goyal et al. 2017, arXiv:1706.02677, section 2.2).
    The cosine (Loshchilov and Hutter 2017, arXiv:1608.03983, equation 5, one period, lowest rate 0) would be 0 at
    step n * E, the first that is no longer taken. The epochs of `step` count from the start, warm-up included.

    Args:
        step: which step, from 0 over all epochs.
        steps_per_epoch: steps of the optimizer in an epoch, >= 1.
        epochs: epochs of the whole training, >= 1; `cosine` ends there and depends on it.
        lr: the highest rate, > 0.
        schedule: one of `SCHEDULES`.
        warmup_epochs: epochs of warm-up, also parts of one; 0 for none.
        step_epochs: for `step`, the epochs between two decays, >= 1.
        gamma: for `step`, the factor of each decay, in (0, 1].

    >>> [learning_rate(step, 1, 4, lr=0.5, schedule="cosine") for step in (0, 2)]
    [0.5, 0.25]
    """
    warmup = warmup_epochs * steps_per_epoch
    rate = lr * min(1.0, (step + 1) / warmup) if warmup else lr
    if schedule == "cosine":
        progress = (step - warmup) / (epochs * steps_per_epoch - warmup)
        rate *= (1 + math.cos(math.pi * min(max(progress, 0.0), 1.0))) / 2
    elif schedule == "step":
        rate *= gamma ** (step // steps_per_epoch // step_epochs)
    return rate
