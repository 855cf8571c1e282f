"""Images that are in memory already, from Pillow, NumPy or PyTorch, as square RGB frames."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from saliency_pipeline.errors import BadImageError
from saliency_pipeline.images.color import to_rgb
from saliency_pipeline.images.fit import Pixels, Stored, fit_frame
from saliency_pipeline.images.orientation import orientation

_CHANNELS = (1, 3, 4)


def frame_of(
    image: Image.Image | npt.NDArray[Any] | torch.Tensor,
    size: int,
    *,
    fit: str = "crop",
    interpolation: str = "bilinear",
) -> tuple[Pixels, tuple[int, int]]:
    """Fit an image in memory into a square, as `decode.decode_frame` does with a file of the same pixels.

    Args:
        image: of Pillow, in any mode, with the orientation that its EXIF block has; an array (H, W), (H, W, 1),
            (H, W, 3) or (H, W, 4), gray, RGB or RGBA, bool, uint8, uint16 or floating-point in [0, 1]; or a tensor
            (H, W) or (C, H, W) of such values. Transparent pixels become white. It is not changed.
        size: side S of the frame in pixels.
        fit: one of `fit.FITS`.
        interpolation: one of `fit.INTERPOLATIONS`.

    Returns:
        The frame, (S, S, 3) uint8 RGB, and the (height, width) of the image, upright.

    Raises:
        BadImageError: another shape or type, or values outside [0, 1]. The message is the reason.

    >>> frame, source_size = frame_of(np.zeros((30, 40)), 16)
    >>> frame.shape, source_size
    ((16, 16, 3), (30, 40))
    """
    if isinstance(image, torch.Tensor):
        image = _channels_last(image)
    if isinstance(image, np.ndarray):
        image = Image.fromarray(_bytes_of(image))
    # conversion may drop the transparent color of a palette from the image
    image = image.copy()
    pixels = to_rgb(image, alpha=True)
    turn = orientation(image)
    height, width = pixels.shape[:2]
    frame = fit_frame(Stored(pixels, (height, width), (height, width), turn), size, fit, interpolation)
    return frame, (width, height) if turn >= 5 else (height, width)


def _channels_last(image: torch.Tensor) -> npt.NDArray[Any]:
    values = image.detach().cpu()
    if values.is_floating_point():
        values = values.float()
    if values.ndim == 3:
        if values.shape[0] not in _CHANNELS:
            raise BadImageError(f"a tensor of shape {tuple(values.shape)}; use (H, W), (3, H, W) or an array (H, W, 3)")
        values = values.permute(1, 2, 0)
    return values.numpy()


def _bytes_of(image: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """The values of an array as uint8, (H, W), (H, W, 3) or (H, W, 4)."""
    if image.ndim == 3 and image.shape[2] == 1:
        image = image[..., 0]
    if image.ndim not in (2, 3) or image.size == 0 or (image.ndim == 3 and image.shape[2] not in _CHANNELS):
        raise BadImageError(f"an array of shape {image.shape}; use (H, W), (H, W, 3) or (H, W, 4)")
    values: npt.NDArray[Any] = image
    if image.dtype == np.bool_:
        values = image * np.uint8(255)
    elif image.dtype == np.uint16:
        values = image >> 8
    elif np.issubdtype(image.dtype, np.floating):
        # a NaN fails this comparison too
        if not (image.min() >= 0 and image.max() <= 1):
            raise BadImageError("floating-point values outside [0, 1]; use the image before it is normalized")
        values = np.rint(image.astype(np.float32) * 255)
    elif image.dtype != np.uint8:
        raise BadImageError(f"values of type {image.dtype}; use uint8, or floating-point in [0, 1]")
    return np.ascontiguousarray(values, np.uint8)
