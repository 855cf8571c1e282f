"""Windows of frames: what they change, and passes that compute nothing else, against passes of whole frames."""

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, max_pool2d, pad, relu

from saliency_pipeline.models.preprocessing import Preprocessing
from saliency_pipeline.saliency.engine import locality
from saliency_pipeline.saliency.engine.backends import Placement, make_trunk
from saliency_pipeline.saliency.engine.layers import choose_layer
from saliency_pipeline.saliency.engine.locality import Field, cuts_of, stages_of
from saliency_pipeline.saliency.engine.masks import WindowMasks
from saliency_pipeline.saliency.engine.split import SplitNetwork, split_network
from saliency_pipeline.saliency.engine.windows import WindowTrunk, window_trunk
from tests.saliency.networks import BATCH, FP32, library_explainer, noise

SIZE, SIDE, STRIDE = 48, 6, 5
STARTS = (*range(0, SIZE - SIDE, STRIDE), SIZE - SIDE)
MASKS = WindowMasks.of(STARTS, SIDE, SIZE)
PREPROCESSING = Preprocessing(SIZE, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "bilinear")
COLOR = np.array([200, 30, 90], np.uint8)

Forward = Callable[[nn.ModuleList, Tensor], Tensor]


def strided(convs: nn.ModuleList, x: Tensor) -> Tensor:
    for conv in convs[:3]:
        x = relu(conv(x))
    return x


def residual(convs: nn.ModuleList, x: Tensor) -> Tensor:
    x = relu(convs[0](x))
    x = x + relu(convs[3](relu(convs[3](x))))
    return relu(convs[1](x))


def padded_behind(convs: nn.ModuleList, x: Tensor) -> Tensor:
    # TensorFlow's padding for a stride of 2: behind the last row and column alone
    return relu(convs[5](pad(relu(convs[4](pad(x, (0, 1, 0, 1)))), (0, 1, 0, 1))))


def pooled(convs: nn.ModuleList, x: Tensor) -> Tensor:
    return convs[3](avg_pool2d(max_pool2d(relu(convs[0](x)), 3, 2, 1), 2))


def joined(convs: nn.ModuleList, x: Tensor) -> Tensor:
    x = relu(convs[0](x))
    return convs[6](torch.cat([convs[3](x), convs[7](x)], 1)) * 0.5


class Local(nn.Module):
    """Convolutions that a function connects, global pooling and a linear layer."""

    def __init__(self, forward: Forward) -> None:
        super().__init__()
        torch.manual_seed(0)
        shapes = [(3, 8, 3, 2, 1), (8, 8, 3, 2, 1), (8, 8, 5, 1, 2), (8, 8, 3, 1, 1), (3, 8, 3, 2, 0), (8, 8, 3, 2, 0)]
        convs = [nn.Conv2d(*shape) for shape in shapes]
        convs += [nn.Conv2d(16, 8, 1), nn.Conv2d(8, 8, 3, 1, 2, dilation=2)]
        self.convs, self.fc, self.connect = nn.ModuleList(convs), nn.Linear(8, 4), forward
        self.last = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.last(self.connect(self.convs, x)).mean((2, 3)))


@cache
def split_of(forward: Forward) -> SplitNetwork:
    network = Local(forward).eval().requires_grad_(False)
    return split_network(network, [choose_layer(network, SIZE, "last")], SIZE, BATCH)


@pytest.fixture
def no_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stages of tiny networks save little: calls and copies cost nothing here."""
    monkeypatch.setattr(locality, "_CALL", 0)
    monkeypatch.setattr(locality, "_COPY", 0)


NETWORKS = (strided, residual, padded_behind, pooled, joined)


def test_a_field_is_that_of_the_sliding_windows_before() -> None:
    assert Field().through(3, stride=2, padding=1) == Field(2, 1, 1)
    assert Field().through(3, stride=2, padding=1).through(3, padding=1) == Field(2, 3, 3)
    assert Field(4, 2, 2).through(3, stride=1, padding=2, dilation=2) == Field(4, 10, 10)
    assert Field().through(3, stride=2) == Field(2, 0, 2)


@pytest.mark.parametrize("forward", NETWORKS)
def test_a_window_changes_the_cells_of_its_field_and_no_others(forward: Forward) -> None:
    """Rows that differ, of frames that differ in a window alone, begin and end where they are said to."""
    trunk = split_of(forward).trunk
    assert trunk is not None
    cuts, work = cuts_of(trunk, BATCH, SIZE)
    assert len(cuts) >= 3
    assert work > cuts[-1].work
    interpreter = torch.fx.Interpreter(trunk, garbage_collect_values=False)
    frame = torch.rand(BATCH, 3, SIZE, SIZE)
    for start in STARTS:
        other = frame.clone()
        other[:, :, start : start + SIDE, start : start + SIDE] = torch.rand(BATCH, 3, SIDE, SIDE)
        values = []
        for frames in (frame, other):
            interpreter.env = {}
            interpreter.run(frames)
            values.append(dict(interpreter.env))
        for cut in cuts:
            one, two = (own[cut.node] for own in values)
            assert one.shape == (BATCH, cut.channels, cut.rows, cut.rows)
            differ = (one != two).any(0).any(0)
            for sides in (differ.any(0), differ.any(1)):
                rows = sides.nonzero().flatten().tolist()
                first, last = cut.changed(start, SIDE)
                assert first <= rows[0] <= rows[-1] < last
                # a ReLU or a maximum may hide the outermost ones
                assert rows[0] <= first + 1
                assert rows[-1] >= last - 2


@pytest.mark.usefixtures("no_costs")
@pytest.mark.parametrize(
    ("forward", "backend"), [*((forward, "torch") for forward in NETWORKS), (padded_behind, "openvino")]
)
def test_stages_return_what_passes_of_whole_frames_do(forward: Forward, backend: str) -> None:
    split, placement = split_of(forward), Placement(backend)
    assert split.trunk is not None
    own = window_trunk(split.trunk, PREPROCESSING, BATCH, placement, (), MASKS)
    assert own is not None
    assert len(own.parts) >= 3
    frame = torch.from_numpy(noise(1, SIZE)[0])
    frames = frame.repeat(len(MASKS) + 1, 1, 1, 1)
    for masked, inside in zip(frames, 1 - MASKS.enlarged(torch.arange(len(MASKS))), strict=False):
        masked[inside == 1] = torch.from_numpy(COLOR)
    expected = make_trunk(split.trunk, PREPROCESSING, BATCH, placement)(frames)[:-1]
    index = list(range(len(MASKS)))
    outputs = own(own.pass_whole(frame), COLOR, [*index, index[-1]])[:-1]
    assert (outputs - expected).abs().max() <= 1e-5 * expected.abs().max()
    # and each window changes something
    assert ((outputs[:-1] - outputs[-1]).abs().amax((1, 2, 3)) > 0).all()


@pytest.mark.usefixtures("no_costs")
def test_stages_compute_crops_that_are_smaller_than_what_they_replace() -> None:
    trunk = split_of(strided).trunk
    assert trunk is not None
    stages = stages_of(trunk, BATCH, SIZE, STARTS, SIDE)
    assert stages[0].begin.rows == SIZE
    for stage in stages:
        assert stage.side < stage.begin.rows
        assert stage.side % stage.ratio == 0
        assert all(0 <= start <= stage.begin.rows - stage.side for start in stage.starts)
    assert sum(stage.work for stage in stages) < stages[-1].end.work / 2


def test_operators_that_are_not_local_end_the_stages() -> None:
    class Squeezed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.first, self.gate = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 1)
            self.last, self.fc = nn.Conv2d(8, 8, 3, 1, 1), nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            x = relu(self.first(x))
            x = x * self.gate(x.mean((2, 3), keepdim=True)).sigmoid()
            return self.fc(self.last(x).mean((2, 3)))

    network = Squeezed().eval().requires_grad_(False)
    trunk = split_network(network, [choose_layer(network, SIZE, "last")], SIZE, BATCH).trunk
    assert trunk is not None
    cuts, _ = cuts_of(trunk, BATCH, SIZE)
    assert [(cut.channels, cut.rows) for cut in cuts] == [(3, SIZE), (8, SIZE // 2), (8, SIZE // 2)]


@pytest.mark.parametrize("kernel", [(3, 1), (1, 5)])
def test_windows_of_unequal_sides_end_the_stages(kernel: tuple[int, int]) -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, kernel, padding="same"), nn.AdaptiveAvgPool2d(1))
    network = nn.Sequential(network, nn.Flatten(), nn.Linear(8, 4)).eval().requires_grad_(False)
    trunk = split_network(network, [choose_layer(network, SIZE, "0.1")], SIZE, BATCH).trunk
    assert trunk is not None
    cuts, _ = cuts_of(trunk, BATCH, SIZE)
    assert [cut.channels for cut in cuts] == [3, 8]


@pytest.mark.usefixtures("no_costs")
def test_whole_frames_pass_where_stages_would_not_be_worth_it() -> None:
    trunk = split_of(strided).trunk
    assert trunk is not None

    def made(placement: Placement, masks: WindowMasks) -> WindowTrunk | None:
        return window_trunk(trunk, PREPROCESSING, BATCH, placement, (), masks)

    assert made(FP32, MASKS) is not None
    assert made(Placement("torch", "bf16"), MASKS) is None
    assert made(Placement("compile"), MASKS) is None
    assert made(FP32, WindowMasks.of(STARTS[:7], SIDE, SIZE)) is None
    # what changes is nearly everything
    assert made(FP32, WindowMasks.of(range(9), SIZE - 8, SIZE)) is None


def test_occlusion_is_that_of_whole_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locality, "_CALL", 0)
    explainer = library_explainer("efficientnet_lite0", ("occlusion:window=8,stride=7",))
    frames = noise(BATCH)
    own = explainer.explain(frames)
    (trunk,) = explainer.network._kept.values()
    assert trunk is not None
    explainer.network._kept = dict.fromkeys(explainer.network._kept)
    whole = explainer.explain(frames)
    for method, maps in own.maps.items():
        assert np.abs(maps - whole.maps[method]).max() <= 1e-4 * np.abs(whole.maps[method]).max()
