"""Score-CAM and Group-CAM: torch-cam, the formulas step by step, and frames that masks do not change."""

from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from saliency_pipeline.saliency.engine.answers import Answers
from saliency_pipeline.saliency.engine.layers import choose_layers
from saliency_pipeline.saliency.engine.masks import GridMasks
from saliency_pipeline.saliency.explainer import Explainer, Explanation
from saliency_pipeline.saliency.methods import score_cam
from saliency_pipeline.saliency.methods.method import Setup
from saliency_pipeline.saliency.methods.registry import find_methods
from saliency_pipeline.saliency.methods.score_cam import GroupCam, ScoreCam, blurred_frames
from saliency_pipeline.saliency.targets import Target
from tests.saliency.fake import Pooled
from tests.saliency.networks import FP32, noise, normalized, own_source, relative_error

SIZE = 16
FRAMES = noise(3, SIZE)
GRAY = 128


@pytest.fixture(params=[True, False], ids=["linear", "bent"])
def network(request: pytest.FixtureRequest) -> Pooled:
    return Pooled(request.param, channels=9).float()


def explained(network: nn.Module, method: str, layer: str = "last") -> Explanation:
    layers = choose_layers(network, SIZE, [layer])
    methods = find_methods([method])
    return Explainer(own_source(network, SIZE, 7), layers, methods, Target("predicted", 2), 2, FP32).explain(FRAMES)


def activations(network: Pooled, pixels: Tensor, layer: str) -> Tensor:
    first = network.first(network.conv1(pixels))
    return first if layer == "first" else network.last(network.conv2(first))


def own_pixels(network: Pooled, frames: np.ndarray = FRAMES) -> Tensor:
    return normalized(frames, own_source(network, SIZE, 7))


def in_unit_range(values: Tensor) -> Tensor:
    low, high = values.amin((-2, -1), keepdim=True), values.amax((-2, -1), keepdim=True)
    return (values - low) / torch.where(high > low, high - low, 1.0)


def mixed(frame: np.ndarray, fill: np.ndarray | int, mask: Tensor) -> np.ndarray:
    share = interpolate(mask[None, None], (SIZE, SIZE), mode="bilinear")[0, 0].numpy()[..., None]
    return np.floor(frame * share + fill * (1 - share) + 0.5).astype(np.uint8)


@pytest.mark.parametrize("layer", ["first", "last"])
@pytest.mark.parametrize("count", [0, 4])
def test_scorecam_is_its_formula(network: Pooled, layer: str, count: int) -> None:
    explanation = explained(network, f"scorecam:channels={count},layer={layer}", layer)
    (maps,) = explanation.maps.values()
    for n, frame in enumerate(FRAMES):
        grids = activations(network, own_pixels(network)[n : n + 1], layer)[0]
        order = grids.flatten(1).var(1).argsort(descending=True)[: count or None]
        want = torch.zeros(2, *grids.shape[1:])
        for k in order.tolist():
            if grids[k].max() > grids[k].min():
                image = mixed(frame, GRAY, in_unit_range(grids[k]))
                scores = network(own_pixels(network, image[None])).softmax(1)[0, explanation.targets[n]]
                want += scores[:, None, None] * grids[k]
        assert relative_error(maps[n], want.relu().numpy()) < 1e-4


def test_softmax_weights_are_those_of_torch_cam() -> None:
    from torchcam.methods import ScoreCAM

    # frames of 0 and 255 on black, with masks that are 0 or 1, are the same in whole numbers
    network = Pooled(False, channels=9).float()
    explanation = explained(network, "scorecam:channels=0,weights=softmax")
    pixels = own_pixels(network)
    target = explanation.targets[:, 0].tolist()
    with ScoreCAM(network, "last", input_shape=(3, SIZE, SIZE)) as cam, torch.no_grad():
        (want,) = cam(target, network(pixels), normalized=False)
    varied = activations(network, pixels, "last").flatten(2).var(2).amin() > 0
    assert varied
    (maps,) = explanation.maps.values()
    # masked frames are rounded to whole numbers, and gray is 128 instead of 127.5
    assert relative_error(maps[:, 0], want.numpy()) < 0.01


def test_weights_follow_the_order_of_the_variances_only(network: Pooled) -> None:
    whole = explained(network, "scorecam:channels=0").maps
    most = explained(network, "scorecam:channels=9").maps
    assert np.array_equal(next(iter(whole.values())), next(iter(most.values())))
    assert ScoreCam(channels=0).cost == 1280
    assert ScoreCam().passes(Setup(channels=20)) == 20


def test_channels_that_are_constant_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Pooled(True, channels=9).float()
    network.conv2.weight.data[3:] = 0
    network.conv2.bias.data[3:] = 2.0
    masked, passes = Answers.masked, []

    def counting(self: Answers, masks: list[GridMasks], *rest: Any) -> Tensor:
        passes.append(len(masks[0]))
        return masked(self, masks, *rest)

    sums, widths = score_cam.weighted_sum, []

    def measuring(grids: Tensor, weights: Tensor) -> Tensor:
        widths.append((grids.shape[1], weights.shape[2]))
        return sums(grids, weights)

    monkeypatch.setattr(Answers, "masked", counting)
    monkeypatch.setattr(score_cam, "weighted_sum", measuring)
    for weights in ("probability", "softmax"):
        own = explained(network, f"scorecam:channels=0,weights={weights}").maps
        few = explained(network, f"scorecam:channels=3,weights={weights}").maps
        np.testing.assert_allclose(next(iter(own.values())), next(iter(few.values())), rtol=1e-5, atol=1e-6)
    assert set(passes) == {3}
    # the rounding of a sum depends on its length, which is not to depend on the other images
    assert set(widths) == {(9, 9), (3, 3)}
    network.conv2.weight.data[:] = 0
    for weights in ("probability", "softmax"):
        (maps,) = explained(network, f"scorecam:weights={weights}").maps.values()
        assert np.array_equal(maps, np.zeros_like(maps))


@pytest.mark.parametrize("groups", [1, 3, 32])
def test_groupcam_is_its_formula(network: Pooled, groups: int) -> None:
    explanation = explained(network, f"groupcam:groups={groups}")
    (maps,) = explanation.maps.values()
    blur = blurred_frames(FRAMES).numpy()
    for n, frame in enumerate(FRAMES):
        leaf = activations(network, own_pixels(network)[n : n + 1], "last").requires_grad_()
        with torch.enable_grad():
            logits = network.fc(network.bend(leaf).mean((2, 3)))[0]
        base = network(own_pixels(network, np.floor(blur[n] + 0.5).astype(np.uint8)[None])).softmax(1)[0]
        for t, target in enumerate(explanation.targets[n].tolist()):
            (gradient,) = torch.autograd.grad(logits[target], leaf, retain_graph=True)
            weighted = (gradient.mean((2, 3), keepdim=True) * leaf.detach())[0]
            want = torch.zeros(weighted.shape[1:])
            for part in weighted.chunk(min(groups, 9)):
                grid = part.sum(0).relu()
                grid = in_unit_range(torch.where(grid > np.percentile(grid.numpy(), 70), grid, 0.0))
                image = mixed(frame, blur[n], grid)
                score = network(own_pixels(network, image[None])).softmax(1)[0]
                want += (score - base)[target] * grid
            # a score differs by that of a pixel where a half is rounded the other way
            np.testing.assert_allclose(maps[n, t], want.relu().numpy(), atol=2e-3 * max(want.abs().max(), 1e-3))
    assert GroupCam().passes(Setup(targets=3)) == 33 * 3


def test_blur_keeps_the_color_and_loses_detail() -> None:
    frames = np.stack([np.full((SIZE, SIZE, 3), 77, np.uint8), FRAMES[0]])
    blur = blurred_frames(frames).numpy()
    np.testing.assert_allclose(blur[0], 77, rtol=1e-5)
    assert blur[1].std() < 0.9 * FRAMES[0].std()
    large = blurred_frames(noise(1, 224))[0].numpy()
    np.testing.assert_allclose(large, cv2.GaussianBlur(noise(1, 224)[0].astype(np.float32), (51, 51), 50), atol=1e-3)
