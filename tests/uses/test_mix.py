"""`mix`: patches, shares of labels and their controls, by hand."""

import numpy as np
import pytest
import torch

from saliency_pipeline.uses.mix import Mix, _partners, _patch
from saliency_pipeline.uses.registry import find_use
from tests.uses.examples import SIZE, marked, noise, seeds

COUNT = 64


def plain(count: int = COUNT) -> torch.Tensor:
    """Images each of a color of its own, so that every pixel shows where it comes from."""
    levels = torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1)
    return levels.expand(-1, 3, SIZE, SIZE).contiguous(memory_format=torch.channels_last)


def spots(count: int = COUNT) -> torch.Tensor:
    """Maps that peak at one pixel each."""
    random = np.random.default_rng(0)
    maps = 0.1 * torch.rand(count, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    for values in maps[:, 0]:
        values[tuple(random.integers(0, SIZE, 2))] = 1
    return maps


def mix(text: str, maps: torch.Tensor | None, images: torch.Tensor | None = None) -> tuple[torch.Tensor, ...]:
    images = plain() if images is None else images
    result = find_use(text).mix(images, maps, seeds(len(images)))
    assert result is not None
    mixed, partners, share = result
    assert (mixed.shape, mixed.dtype, share.dtype) == (images.shape, torch.uint8, torch.float32)
    assert mixed.is_contiguous(memory_format=torch.channels_last)
    assert sorted(partners.tolist()) == list(range(len(images)))
    assert (partners != torch.arange(len(images))).all()
    return result


def test_a_patch_around_the_peak_of_the_partner_comes_with_its_area() -> None:
    maps = spots()
    mixed, partners, share = mix("mix:p=1", maps)
    for i, partner in enumerate(partners.tolist()):
        foreign = mixed[i, 0] == partner
        assert (foreign | (mixed[i, 0] == i)).all()
        assert share[i] == pytest.approx(1 - foreign.float().mean().item())
        if foreign.any():
            top, left = divmod(int(maps[partner, 0].argmax()), SIZE)
            assert foreign[top, left]
            rows, columns = (foreign.any(axis).nonzero().flatten() for axis in (1, 0))
            assert foreign.sum() == (rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1)


def test_patches_by_hand() -> None:
    assert _patch((32, 32), 0.25, 64) == (16, 16, 32, 32)
    assert _patch((0, 63), 0.25, 64) == (0, 47, 16, 17)  # clipped at the border
    assert _patch((10, 10), 1.0, 64) == (0, 0, 42, 42)
    assert _patch((10, 10), 0.0, 64)[2:] == (0, 0)


def test_labels_by_mass_by_hand() -> None:
    """Own / (own + patch), with the shares of both maps' mass in the patch."""
    maps = marked(*[(8, 8, 16, 16), (40, 40, 16, 16)] * (COUNT // 2))
    mixed, partners, share = mix("mix:p=1,labels=mass", maps)
    _, _, by_area = mix("mix:p=1", maps)
    assert not torch.equal(share, by_area)
    for i, partner in enumerate(partners.tolist()):
        foreign = (mixed[i, 0] == partner).float()
        lost, patch = (float((foreign * maps[j, 0]).sum() / maps[j, 0].sum()) for j in (i, partner))
        expected = (1 - lost) / (1 - lost + patch) if patch > 0 or lost < 1 else by_area[i]
        assert share[i] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("labels", ["area", "mass"])
def test_with_uniform_maps_it_is_cutmix(labels: str) -> None:
    images = noise(COUNT)
    uniform = mix(f"mix:labels={labels}", torch.ones(COUNT, 1, SIZE, SIZE), images)
    for ours, theirs in zip(uniform, mix("mix:kind=cutmix", None, images), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
    assert torch.equal(uniform[0], mix("mix:kind=cutmix", None, images)[0])


def test_mixup_blends_whole_images() -> None:
    images = noise(COUNT)
    mixed, partners, share = mix("mix:kind=mixup", None, images)
    weights = share.view(-1, 1, 1, 1)
    expected = weights * images.float() + (1 - weights) * images[partners].float()
    assert (mixed.float() - expected).abs().max() <= 0.501
    assert torch.equal(mixed[share == 1], images[share == 1])


@pytest.mark.parametrize("kind", ["saliency", "cutmix", "mixup"])
def test_a_share_of_the_images_is_mixed(kind: str) -> None:
    maps = spots() if kind == "saliency" else None
    images = noise(COUNT)
    assert find_use(f"mix:kind={kind},p=0").mix(images, maps, seeds(COUNT)) is None
    assert find_use(f"mix:kind={kind},p=1").mix(images[:1], None if maps is None else maps[:1], seeds(1)) is None
    mixed, _, share = mix(f"mix:kind={kind},p=0.3", maps, images)
    untouched = (mixed == images).flatten(1).all(1)
    assert 0.5 < untouched.float().mean() < 0.9
    assert (share[untouched] == 1).all()


def test_ratios_have_the_beta_distribution() -> None:
    images = plain(2).repeat(300, 1, 1, 1)
    for alpha, deviation in ((1.0, 12**-0.5), (0.2, (1 / 1.4 / 4) ** 0.5)):
        share = mix(f"mix:kind=mixup,p=1,alpha={alpha}", None, images)[2]
        assert abs(float(share.mean()) - 0.5) < 0.06
        assert abs(float(share.std()) - deviation) < 0.03


def test_partners_and_shares_depend_on_the_numbers_of_the_batch_alone() -> None:
    images, maps = plain(), spots()
    torch.manual_seed(3)
    first = Mix().mix(images, maps, seeds(COUNT))
    torch.manual_seed(4)
    again = Mix().mix(images, maps, seeds(COUNT))
    later = Mix().mix(images, maps, seeds(COUNT, epoch=1))
    assert first is not None
    assert again is not None
    assert later is not None
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[1], later[1])
    assert not torch.equal(first[2], later[2])


@pytest.mark.parametrize("count", [2, 3, 7])
def test_partners_are_one_cycle(count: int) -> None:
    for seed in range(20):
        partners, seen, place = _partners([seed], count).tolist(), set(), 0
        for _ in range(count):
            seen.add(place)
            place = partners[place]
        assert len(seen) == count
