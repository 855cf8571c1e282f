"""Slow twins: every formula once more, written in the most obvious way, for tests to compare with."""

import math
from collections.abc import Callable

import numpy as np
import torch


def central_differences(function: Callable[[np.ndarray], float], at: np.ndarray, step: float = 1e-5) -> np.ndarray:
    """The gradient of a float64 function, one number at a time."""
    gradient = np.zeros_like(at)
    for index in np.ndindex(*at.shape):
        above, below = at.copy(), at.copy()
        above[index] += step
        below[index] -= step
        gradient[index] = (function(above) - function(below)) / (2 * step)
    return gradient


def grad_cam(activations: np.ndarray, gradients: np.ndarray) -> np.ndarray:
    """Grad-CAM of one image: (C, h, w) twice to (h, w)."""
    channels, height, width = activations.shape
    total = np.zeros((height, width))
    for k in range(channels):
        weight = sum(gradients[k, i, j] for i in range(height) for j in range(width)) / (height * width)
        for i in range(height):
            for j in range(width):
                total[i, j] += weight * activations[k, i, j]
    for i in range(height):
        for j in range(width):
            total[i, j] = max(total[i, j], 0.0)
    return total


def class_activation_map(activations: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """CAM of one image and class: (C, h, w) and (C,) to (h, w)."""
    return np.array(
        [
            [
                sum(w * a for w, a in zip(weights, activations[:, i, j], strict=True))
                for j in range(activations.shape[2])
            ]
            for i in range(activations.shape[1])
        ]
    )


def simonyan(gradients: np.ndarray) -> np.ndarray:
    """(3, S, S) to (S, S)."""
    size = gradients.shape[1]
    return np.array([[max(abs(g) for g in gradients[:, i, j]) for j in range(size)] for i in range(size)])


def smilkov(gradients: np.ndarray) -> np.ndarray:
    """(3, S, S) to (S, S)."""
    size = gradients.shape[1]
    return np.array([[sum(abs(g) for g in gradients[:, i, j]) for j in range(size)] for i in range(size)])


def pearson(a: np.ndarray, b: np.ndarray) -> float:
    """Correlation of all numbers of two arrays."""
    x, y = (m.astype(np.float64).ravel() - m.astype(np.float64).mean() for m in (a, b))
    return float((x * y).sum() / math.sqrt((x * x).sum() * (y * y).sum()))


def bilinear(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """(h, w) resized with pixel centers at halves and the border repeated (align_corners=False)."""
    rows, columns = image.shape
    out = np.zeros((height, width))
    for i in range(height):
        for j in range(width):
            y = min(max((i + 0.5) * rows / height - 0.5, 0), rows - 1)
            x = min(max((j + 0.5) * columns / width - 0.5, 0), columns - 1)
            top, left = int(y), int(x)
            down, right = min(top + 1, rows - 1), min(left + 1, columns - 1)
            upper = image[top, left] * (1 - (x - left)) + image[top, right] * (x - left)
            lower = image[down, left] * (1 - (x - left)) + image[down, right] * (x - left)
            out[i, j] = upper * (1 - (y - top)) + lower * (y - top)
    return out


def pytorch_grad_cam_view(raw: np.ndarray, size: int) -> np.ndarray:
    """What pytorch-grad-cam returns for a raw Grad-CAM (h, w): stretched, resized, stretched again."""

    def stretched(image: np.ndarray) -> np.ndarray:
        image = image - image.min()
        return image / (1e-7 + image.max())

    return stretched(bilinear(stretched(raw), size, size))


def torch_cam_view(raw: np.ndarray) -> np.ndarray:
    """What torch-cam returns for a raw Grad-CAM (h, w): stretched at its own size."""
    return (raw - raw.min()) / (raw.max() - raw.min() + 1e-8)


def bf16(value: float) -> float:
    """The nearest number that bf16 holds."""
    return float(torch.tensor(value, dtype=torch.float64).bfloat16())


def round_taps(taps: list[float]) -> list[float]:
    """One filter's taps rounded, largest first, each rounding error carried to the next."""
    rounded = [0.0] * len(taps)
    carry = 0.0
    for index in sorted(range(len(taps)), key=lambda i: (-abs(taps[i]), i)):
        rounded[index] = bf16(taps[index] + carry)
        carry = taps[index] + carry - rounded[index]
    return rounded
