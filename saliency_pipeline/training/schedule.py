"""Learning-rate schedules as a pure function of the step: no state to save, so a resumed run has the same rates."""

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
    """Learning rate of one optimizer step.

    With s the step counted from 0, n the steps per epoch, E the epochs, W = n * warmup_epochs the warmup steps,

        rate(s) = lr * min(1, (s + 1) / W) * decay(s)

        constant   decay = 1
        cosine     decay = (1 + cos(pi * (s - W) / (n * E - W))) / 2   after warmup, 1 before
        step       decay = gamma ** floor(floor(s / n) / step_epochs)

    Warmup rises linearly and reaches lr with its last step (Goyal et al. 2017, arXiv:1706.02677, section 2.2). The
    cosine (Loshchilov and Hutter 2017, arXiv:1608.03983, equation 5, one period, minimum 0) would be 0 at step n * E,
    the first after training. The epochs of `step` count from the start, warmup included.

    Args:
        step: index of the step over all epochs, from 0.
        steps_per_epoch: optimizer steps per epoch, >= 1.
        epochs: total number of epochs, >= 1, at which `cosine` ends.
        lr: peak learning rate, > 0.
        schedule: one of `SCHEDULES`.
        warmup_epochs: epochs of warmup, may be fractional, < epochs; 0 for none.
        step_epochs: for `step`, epochs between decays, >= 1.
        gamma: for `step`, factor per decay, in (0, 1].

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
