"""Maps of the image alone: by hand where that is possible, odd frames, and random numbers by key."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from saliency_pipeline.saliency.methods.image import CenterPrior, Edges, Random, SpectralResidual
from saliency_pipeline.saliency.methods.method import Method
from tests.saliency.fake_pixels import Convolutions, FakeAnswers, random_frames

METHODS = (SpectralResidual(), Edges(), CenterPrior(), CenterPrior(sigma=0.5, cells=7), Random(), Random(cells=3))


def asked(frames: np.ndarray, keys: tuple[str, ...] | None = None) -> FakeAnswers:
    return FakeAnswers(Convolutions(), frames, keys=keys)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.canonical)
@pytest.mark.parametrize("frame", ["noise", "black", "flat", "step"])
def test_maps_have_the_announced_shape_and_finite_values_from_0(method: Method, frame: str) -> None:
    frames = random_frames(2, 40)
    if frame != "noise":
        frames[:] = 0 if frame == "black" else 77
    if frame == "step":
        frames[:, :, 20:] = 255
    maps = method.maps(asked(frames))
    assert maps.shape == (2, 1, *method.shape({}, 40))
    assert maps.dtype == torch.float32
    assert bool(torch.isfinite(maps).all())
    assert maps.min() >= 0
    assert method.level == "image"
    assert not method.class_specific


def test_edges_of_a_step_are_four_times_half_its_height() -> None:
    frames = np.zeros((1, 6, 6, 3), np.uint8)
    frames[:, :, 3:] = 255
    maps = Edges().maps(asked(frames))[0, 0].numpy()
    np.testing.assert_allclose(maps, np.tile([0, 0, 2, 2, 0, 0], (6, 1)), atol=1e-6)
    np.testing.assert_allclose(Edges().maps(asked(frames.transpose(0, 2, 1, 3).copy()))[0, 0], maps.T, atol=1e-6)


def test_edges_are_sobels() -> None:
    frames = random_frames(1, 12)
    gray = frames[0] @ np.array([0.299, 0.587, 0.114]) / 255
    want = sum(np.abs(ndimage.sobel(gray, axis, mode="mirror")) / 2 for axis in (0, 1))
    np.testing.assert_allclose(Edges().maps(asked(frames))[0, 0], want, atol=1e-6)


def test_the_spectral_residual_is_its_formula() -> None:
    frames = random_frames(1, 64)
    spectrum = np.fft.fft2(frames[0] @ np.array([0.299, 0.587, 0.114]) / 255)
    amplitude = np.log(np.abs(spectrum))
    residual = amplitude - ndimage.uniform_filter(amplitude, 3, mode="nearest")
    power = np.abs(np.fft.ifft2(np.exp(residual) * spectrum / np.abs(spectrum))) ** 2
    want = ndimage.gaussian_filter(power, 2.5, mode="constant", radius=5)
    np.testing.assert_allclose(SpectralResidual().maps(asked(frames))[0, 0], want, rtol=1e-4)


def test_the_spectral_residual_is_highest_at_the_object() -> None:
    frames = random_frames(1, 192) // 8 + 100
    frames[:, 48:72, 120:144] += 60
    maps = SpectralResidual().maps(asked(frames))[0, 0]
    row, column = divmod(int(maps.argmax()), 64)
    assert 14 <= row <= 26
    assert 38 <= column <= 50
    assert maps[16:24, 40:48].mean() > 4 * maps.mean()


def test_the_center_prior_is_a_gaussian() -> None:
    maps = CenterPrior(sigma=0.25, cells=5).maps(asked(random_frames(2)))[:, 0]
    assert torch.equal(maps[0], maps[1])
    assert torch.equal(maps[0], maps[0].t())
    assert torch.equal(maps[0], maps[0].flip(1))
    assert maps[0, 2, 2] == 1
    assert float(maps[0, 2, 3]) == pytest.approx(np.exp(-(0.2**2) / (2 * 0.25**2)))


def test_random_maps_depend_on_key_and_seed_alone() -> None:
    first = Random().maps(asked(random_frames(2), ("a", "b")))
    second = Random().maps(asked(random_frames(1, seed=1), ("b",)))
    assert torch.equal(first[1], second[0])
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(Random(seed=1).maps(asked(random_frames(1), ("b",))), second)
    assert first.max() < 1
