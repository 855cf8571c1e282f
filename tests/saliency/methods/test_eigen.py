"""Principal components: equal to a singular value decomposition, whatever the spectrum; flat and damaged maps."""

import pytest
import torch
from torch import Tensor

from saliency_pipeline.saliency.methods.eigen import EigenCam, EigenGradCam, principal_projection
from tests.saliency.fake import FakeAnswers, Pooled


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def svd_projection(values: Tensor) -> Tensor:
    """The slow twin: (C, h, w) to (h, w)."""
    cells = values.double().flatten(1).T
    cells = cells - cells.mean(0)
    projection = cells @ torch.linalg.svd(cells, full_matrices=False).Vh[0]
    if projection.max() < -projection.min():
        projection = -projection
    return projection.view(values.shape[1:])


def with_spectrum(singular: list[float], channels: int, side: int) -> Tensor:
    """Values (1, channels, side, side) whose centered cells have these singular values."""
    left = numbers(channels, len(singular))
    right = numbers(side * side, len(singular), seed=1)
    left, right = torch.linalg.qr(left).Q, torch.linalg.qr(right - right.mean(0)).Q
    return (left * torch.tensor(singular).double() @ right.T).view(1, channels, side, side) + 3


@pytest.mark.parametrize("row", [[0, 0, 3], [0, 0, -3]])
def test_values_computed_by_hand(row: list[float]) -> None:
    # channels (r, 2 r): centered cells are +-(1, 1, -2) times (1, 2), of length sqrt(5)
    first = torch.tensor(row).double()
    values = torch.stack([first, 2 * first]).view(1, 2, 1, 3)
    torch.testing.assert_close(principal_projection(values)[0, 0], torch.tensor([-1.0, -1.0, 2.0]).double() * 5**0.5)


@pytest.mark.parametrize("shape", [(40, 3, 3), (40, 7, 7), (5, 7, 7), (1, 4, 4), (9, 3, 3), (6, 2, 5)])
def test_it_is_the_first_singular_vector(shape: tuple[int, int, int]) -> None:
    values = numbers(4, *shape)
    expected = torch.stack([svd_projection(v) for v in values])
    torch.testing.assert_close(principal_projection(values), expected, rtol=1e-7, atol=1e-7)
    single = principal_projection(values.relu().float())
    torch.testing.assert_close(
        single.double(), torch.stack([svd_projection(v.relu()) for v in values]), rtol=0, atol=1e-4
    )


@pytest.mark.parametrize(("channels", "side"), [(64, 7), (20, 7)])
@pytest.mark.parametrize("ratio", [0.0, 0.9, 0.99, 0.998])
def test_it_resolves_singular_values_close_to_each_other(channels: int, side: int, ratio: float) -> None:
    values = with_spectrum([1.0, ratio, 0.5, 0.1], channels, side)
    torch.testing.assert_close(principal_projection(values)[0], svd_projection(values[0]), rtol=0, atol=1e-7)
    torch.testing.assert_close(
        principal_projection(values.float())[0].double(), svd_projection(values[0]), rtol=0, atol=1e-3
    )


@pytest.mark.parametrize("ratio", [0.999, 0.9999, 0.99999, 1 - 1e-9, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("channels", [64, 20])
def test_of_singular_values_that_coincide_it_has_as_much_variance(
    ratio: float, dtype: torch.dtype, channels: int
) -> None:
    values = with_spectrum([1.0, ratio, 0.5], channels, 7)
    projection = principal_projection(values.to(dtype)).double().flatten()
    cells = values[0].flatten(1) - values[0].flatten(1).mean(1, keepdim=True)
    variance = (cells @ projection / projection.norm()).square().sum()
    assert 0.996 <= variance <= 1 + 1e-9
    torch.testing.assert_close(projection.square().sum(), variance, rtol=1e-3, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("second", [0.97, 0.99, 0.999])
def test_a_second_component_of_one_cell_does_not_hide_a_first_of_many(second: float, dtype: torch.dtype) -> None:
    # cells in two groups without overlap: +-1 in 48 of them, the other two far from 0
    first = torch.cat([torch.tensor([1.0, -1.0]).repeat(24) / 48**0.5, torch.zeros(2)])
    other = torch.cat([torch.zeros(48), torch.tensor([second, -second]) / 2**0.5])
    values = torch.zeros(1, 60, 5, 10, dtype=dtype)
    values[0, :2] = torch.stack([first, other]).view(2, 5, 10)
    projection = principal_projection(values).double().flatten()
    cells = values[0].flatten(1).double()
    assert 0.996 <= (cells @ projection / projection.norm()).square().sum() <= 1 + 1e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_all_singular_values_may_coincide(dtype: torch.dtype) -> None:
    values = with_spectrum([1.0] * 48, 64, 7).to(dtype)
    torch.testing.assert_close(principal_projection(values).norm(), torch.ones((), dtype=dtype), rtol=1e-3, atol=0)


@pytest.mark.parametrize("shape", [(1, 4, 1, 1), (2, 4, 1, 1), (1, 3, 2, 2), (2, 30, 3, 3), (2, 3, 5, 5)])
@pytest.mark.parametrize("value", [0.0, 0.1, -1234.567, 1e-30])
def test_constant_activations_have_a_projection_of_zeros(shape: tuple[int, ...], value: float) -> None:
    maps = principal_projection(torch.full(shape, value))
    assert torch.equal(maps, torch.zeros(shape[0], *shape[2:]))


def test_one_flat_or_damaged_image_does_not_change_the_others() -> None:
    values = numbers(4, 12, 3, 3).float()
    values[1], values[2, 3, 1, 1] = 0.3, float("nan")
    maps = principal_projection(values)
    assert not maps[1].any()
    assert maps[2].isnan().any()
    torch.testing.assert_close(maps[[0, 3]], principal_projection(values[[0, 3]]))


def test_it_scales_and_ignores_an_offset_of_each_channel() -> None:
    values = numbers(3, 12, 4, 4)
    maps = principal_projection(values)
    torch.testing.assert_close(principal_projection(values * 1e-6), maps * 1e-6)
    torch.testing.assert_close(principal_projection(values * 1e6), maps * 1e6)
    torch.testing.assert_close(principal_projection(values + numbers(3, 12, 1, 1, seed=1)), maps)
    torch.testing.assert_close(principal_projection(-values), maps)


def test_eigen_cam_is_the_same_for_all_classes_and_eigen_grad_cam_is_not() -> None:
    ask = FakeAnswers(Pooled(linear=True), numbers(2, 3, 16, 16), targets=torch.tensor([[0, 3, 5]] * 2), linear=True)
    plain, weighted = EigenCam().maps(ask), EigenGradCam().maps(ask)
    assert plain.shape == (2, 1, 4, 4)
    assert weighted.shape == (2, 3, 4, 4)
    for n in range(2):
        activations = ask.activations()[n]
        torch.testing.assert_close(plain[n, 0], svd_projection(activations).relu(), rtol=1e-7, atol=1e-9)
        for t in range(3):
            rows = ask.rows()[n, t, :, None, None] / 16
            torch.testing.assert_close(weighted[n, t], svd_projection(rows * activations).relu(), rtol=1e-7, atol=1e-9)
    assert weighted.min() == plain.min() == 0
    assert EigenCam().describe()["class_agnostic"]
