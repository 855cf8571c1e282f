"""Attributions of captum as methods: which there are, equal to direct calls, no traces, errors in one line."""

import copy
import warnings
from functools import partial

import pytest
import torch
from torch import nn

from saliency_pipeline.errors import OptionError, SalpipeError
from saliency_pipeline.saliency.methods.captum_methods import Captum, captum_names
from saliency_pipeline.saliency.methods.gradient import GradientSmilkov, InputXGradient
from tests.saliency.fake_pixels import Convolutions, FakeAnswers, random_frames

FRAMES = random_frames(2)


def test_the_attributions_are_those_without_arguments() -> None:
    names = set(captum_names())
    assert names >= {"DeepLift", "Deconvolution", "GuidedBackprop", "InputXGradient", "IntegratedGradients", "LRP"}
    assert not names & {"GradientShap", "DeepLiftShap", "Occlusion", "KernelShap", "FeatureAblation", "LayerGradCam"}


@pytest.mark.parametrize("name", captum_names())
def test_maps_are_the_sums_of_captums_attributions(name: str) -> None:
    import captum.attr

    ask, method = FakeAnswers(Convolutions(), FRAMES), Captum(name)
    maps = method.maps(ask)
    assert maps.shape == (2, 2, 9, 9)
    assert not maps.requires_grad
    network = copy.deepcopy(ask.network)
    for t, target in enumerate(ask.classes):
        with warnings.catch_warnings():
            # captum announces its hooks
            warnings.simplefilter("ignore")
            want = getattr(captum.attr, name)(network).attribute(ask.pixels().requires_grad_(), target=target)
        torch.testing.assert_close(maps[:, t], want.detach().sum(1), rtol=1e-9, atol=1e-9)


def test_they_equal_the_methods_of_the_same_name() -> None:
    ask = FakeAnswers(Convolutions(), FRAMES)
    torch.testing.assert_close(Captum("InputXGradient").maps(ask), InputXGradient().maps(ask))
    torch.testing.assert_close(Captum("Saliency").maps(ask), GradientSmilkov().maps(ask))


def test_activations_in_place_are_no_obstacle() -> None:
    maps = Captum("DeepLift").maps(FakeAnswers(Convolutions(partial(nn.ReLU, inplace=True)), FRAMES))
    torch.testing.assert_close(maps, Captum("DeepLift").maps(FakeAnswers(Convolutions(), FRAMES)))


@pytest.mark.parametrize("activation", [nn.ReLU, nn.SiLU])
def test_the_network_is_left_as_it_was(activation: type[nn.Module]) -> None:
    network = Convolutions(activation)
    before = {name: (set(vars(part)), list(part._forward_hooks)) for name, part in network.named_modules()}
    weights = {name: value.clone() for name, value in network.state_dict().items()}
    ask = FakeAnswers(network, FRAMES)
    if activation is nn.ReLU:
        Captum("LRP").maps(ask)
    else:
        with pytest.raises(SalpipeError, match=r"^captum:LRP: .*SiLU.*; choose another method or network$") as error:
            Captum("LRP").maps(ask)
        assert "\n" not in str(error.value)
    assert before == {name: (set(vars(part)), list(part._forward_hooks)) for name, part in network.named_modules()}
    assert all(torch.equal(weights[name], value) for name, value in network.state_dict().items())


@pytest.mark.parametrize("name", ["", "Occlusion", "deeplift", "GradientAttribution", "__doc__"])
def test_another_name_is_answered_with_the_attributions(name: str) -> None:
    with pytest.raises(OptionError, match=r"choose from .*DeepLift"):
        Captum(name)


def test_the_name_of_the_attribution_is_that_of_the_map() -> None:
    assert Captum("LRP").canonical == "captum:LRP"
    assert Captum("LRP").level == "network"
