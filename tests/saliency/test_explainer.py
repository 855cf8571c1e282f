"""The explainer: maps equal captum's and do not depend on batch or thread; the user's state is not changed."""

import copy
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from saliency_pipeline.saliency.engine.backends import Placement
from saliency_pipeline.saliency.engine.layers import choose_layer
from saliency_pipeline.saliency.explainer import Explainer, Explanation
from saliency_pipeline.saliency.methods.gradient import Gradient
from saliency_pipeline.saliency.methods.registry import find_methods
from saliency_pipeline.saliency.targets import Target
from tests import rare, reference
from tests.saliency.networks import (
    FP32,
    Tiny,
    captum_grad_cam,
    captum_gradient,
    captum_integrated_gradients,
    library_explainer,
    library_source,
    library_split,
    noise,
    normalized,
    own_explainer,
    own_source,
    photos,
    relative_error,
)

NETWORKS = [
    pytest.param("resnet18", 64, marks=pytest.mark.slow),
    ("tf_efficientnet_lite0", 64),
    pytest.param("mobilenetv3_small_050", 64, marks=pytest.mark.slow),
    ("convnext_atto", 64),
    pytest.param("densenet121", 64, marks=pytest.mark.slow),
    pytest.param("vgg11", 64, marks=pytest.mark.slow),
    pytest.param("torchvision/vgg11_bn", 64, marks=pytest.mark.slow),
    pytest.param("regnetx_002", 64, marks=pytest.mark.slow),
]


@pytest.mark.parametrize("backend", ["torch", "openvino"])
@pytest.mark.parametrize(("name", "size"), NETWORKS)
def test_grad_cam_equals_captums(name: str, size: int, backend: str) -> None:
    explainer, frames = library_explainer(name, ("gradcam",), Placement(backend, "fp32"), size), noise(3, size)
    explanation = explainer.explain(frames)
    wanted = captum_grad_cam(explainer.source, explainer.layers[0].name, frames, explanation.targets[:, 0])
    assert explanation.maps["gradcam"].shape == (3, 1, *explainer.layers[0].grid)
    assert relative_error(explanation.maps["gradcam"][:, 0], wanted) <= 1e-4


@pytest.mark.parametrize("name", ["test_resnet", *rare("resnet18", "mobilenetv3_small_050", "convnext_atto")])
def test_gradients_are_captums_and_no_further_from_float64(name: str) -> None:
    explainer, frames = library_explainer(name, ("gradient", "gradient-smilkov")), noise(2)
    explanation = explainer.explain(frames)
    targets = explanation.targets[:, 0]
    captum = captum_gradient(explainer.source, frames, targets)
    exact = copy.deepcopy(explainer.source.module).double()
    pixels = normalized(frames, explainer.source).double().requires_grad_()
    chosen = torch.as_tensor(targets).long()[:, None]
    (gradient,) = torch.autograd.grad(exact(pixels).gather(1, chosen).sum(), pixels)
    for n in range(2):
        maps = {m: explanation.maps[m][n, 0] for m in explanation.maps}
        for method, twin in (("gradient", reference.simonyan), ("gradient-smilkov", reference.smilkov)):
            theirs, true = twin(captum[n]), twin(gradient[n].numpy())
            assert reference.pearson(maps[method], theirs) >= 0.9999
            assert reference.pearson(maps[method], true) >= min(reference.pearson(theirs, true), 0.99999) - 1e-5


@pytest.mark.slow
def test_integrated_gradients_of_photographs_are_no_further_from_float64_than_captums() -> None:
    explainer = library_explainer("efficientnet_lite0", ("integrated-gradients:nodes=8",), size=224, weights="default")
    frames = photos()[:1]
    explanation = explainer.explain(frames)
    pixels, targets = normalized(frames, explainer.source), explanation.targets[:, 0]
    theirs = captum_integrated_gradients(explainer.source.module, pixels, targets)
    exact = captum_integrated_gradients(copy.deepcopy(explainer.source.module).double(), pixels.double(), targets)
    (ours,) = (maps[:, 0] for maps in explanation.maps.values())
    # rounding moves points over the bends of 50 layers: two computations in float32 differ by 1e-2 of the largest value
    assert relative_error(ours, exact) <= 1.5 * relative_error(theirs, exact) <= 0.05
    assert all(reference.pearson(own, wanted) >= 0.9999 for own, wanted in zip(ours, exact, strict=True))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_methods_in_one_pass_equal_each_alone(precision: str) -> None:
    placement, frames = Placement("torch", precision), noise(2)
    names = ("gradcam", "gradient", "gradient-smilkov")
    together = library_explainer("resnet18", names, placement).explain(frames)
    assert tuple(together.maps) == names
    for name in names[1:]:
        alone = library_explainer("resnet18", (name,), placement).explain(frames)
        np.testing.assert_array_equal(alone.maps[name], together.maps[name])
    exact = library_explainer("resnet18", ("gradcam",)).explain(frames)
    assert relative_error(together.maps["gradcam"], exact.maps["gradcam"]) <= 1e-4


def test_pytorch_grad_cams_convention_follows_from_raw_maps() -> None:
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    explainer, frames = library_explainer("resnet18", ("gradcam",)), noise(3)
    raw = explainer.explain(frames)
    network = copy.deepcopy(explainer.source.module).requires_grad_(True)
    with GradCAM(network, [network.layer4]) as peer:
        targets = [ClassifierOutputTarget(int(t)) for t in raw.targets[:, 0]]
        views = peer(normalized(frames, explainer.source), targets)
    for view, one in zip(views, raw.maps["gradcam"][:, 0], strict=True):
        np.testing.assert_allclose(view, reference.pytorch_grad_cam_view(one, 64), atol=1e-4)


def test_torch_cams_convention_follows_from_raw_maps() -> None:
    from torchcam.methods import GradCAM

    explainer, frames = library_explainer("resnet18", ("gradcam",)), noise(3)
    raw = explainer.explain(frames)
    network = copy.deepcopy(explainer.source.module).requires_grad_(True)
    with GradCAM(network, "layer4") as peer:
        scores = network(normalized(frames, explainer.source))
        (views,) = peer([int(t) for t in raw.targets[:, 0]], scores)
    for view, one in zip(views, raw.maps["gradcam"][:, 0], strict=True):
        np.testing.assert_allclose(view, reference.torch_cam_view(one), atol=1e-4)


def same(a: Explanation, b: Explanation) -> None:
    np.testing.assert_array_equal(a.targets, b.targets)
    np.testing.assert_array_equal(a.prediction_class[:, 0], b.prediction_class[:, 0])
    np.testing.assert_allclose(a.prediction_score, b.prediction_score, atol=1e-6)
    for name, maps in a.maps.items():
        assert relative_error(maps, b.maps[name]) <= 1e-5, name


def part(e: Explanation, rows: list[int]) -> Explanation:
    maps = {name: m[rows] for name, m in e.maps.items()}
    return Explanation(e.prediction_class[rows], e.prediction_score[rows], e.targets[rows], maps)


@pytest.mark.parametrize(
    ("backend", "methods"), [("torch", ("gradcam",)), ("openvino", ("gradcam",)), ("torch", ("gradcam", "gradient"))]
)
def test_a_map_does_not_depend_on_its_company(backend: str, methods: tuple[str, ...]) -> None:
    explainer, frames = library_explainer("test_resnet", methods, Placement(backend, "fp32")), noise(5)
    everyone = explainer.explain(frames)
    for n in range(5):
        same(explainer.explain(frames[n : n + 1]), part(everyone, [n]))
    same(explainer.explain(frames[::-1]), part(everyone, [4, 3, 2, 1, 0]))
    stranger = np.concatenate([np.full_like(frames[:1], 255), frames[2:3], frames[:1] * 0])
    same(part(explainer.explain(stranger), [1]), part(everyone, [2]))


@pytest.mark.parametrize("backend", ["torch", "openvino"])
@pytest.mark.parametrize("batch", [5, *rare(1, 4)])
def test_a_map_does_not_depend_on_the_batch_size(batch: int, backend: str) -> None:
    methods, frames, placement = ("gradcam",), noise(5), Placement(backend, "fp32")
    wanted = library_explainer("test_resnet", methods, placement).explain(frames)
    source, layer = library_source("test_resnet"), library_split("test_resnet").layers[0]
    same(
        Explainer(source, [layer], find_methods(methods), Target("predicted"), batch, placement).explain(frames), wanted
    )


@pytest.mark.parametrize(
    ("placement", "methods"),
    [
        (FP32, ("gradcam", "gradient")),
        pytest.param(Placement("torch", "bf16"), ("gradient",), marks=pytest.mark.slow),
        (Placement("torch", "bf16", streams=3), ("gradcam",)),
        (Placement("openvino", "fp32", streams=3), ("gradcam",)),
    ],
)
def test_several_threads_may_use_one_explainer(placement: Placement, methods: tuple[str, ...]) -> None:
    explainer = library_explainer("test_resnet", methods, placement, target=Target("predicted", 2))
    batches = [noise(3, seed=seed) for seed in range(6)]
    alone = [explainer.explain(frames) for frames in batches]
    with ThreadPoolExecutor(3) as pool:
        for got, wanted in zip(pool.map(explainer.explain, batches * 3), alone * 3, strict=True):
            same(got, wanted)


def test_results_are_the_callers_own() -> None:
    explainer = library_explainer("test_resnet", ("gradcam",), Placement("openvino", "fp32"))
    first = explainer.explain(noise(2))
    kept = copy.deepcopy(first)
    explainer.explain(noise(2, seed=9))
    same(first, kept)


def test_frames_that_cannot_be_written_are_explained() -> None:
    frames = noise(4)[::2]
    wanted = library_explainer("test_resnet", ("gradcam",)).explain(frames.copy())
    frames.setflags(write=False)
    for backend in ("torch", "openvino"):
        same(library_explainer("test_resnet", ("gradcam",), Placement(backend)).explain(frames), wanted)


def test_shapes_types_and_order_of_an_explanation() -> None:
    explainer = library_explainer("test_resnet", ("gradient", "gradcam"), target=Target("predicted", 3))
    explanation = explainer.explain(noise(5))
    shapes = {name: m.shape[1:] for name, m in explanation.maps.items()}
    assert shapes == {"gradient": (3, 64, 64), "gradcam": (3, 2, 2)}
    assert explanation.prediction_class.shape == explanation.prediction_score.shape == (5, 5)
    assert (explanation.prediction_class.dtype, explanation.prediction_score.dtype) == (np.int32, np.float32)
    assert (explanation.targets.dtype, explanation.maps["gradcam"].dtype) == (np.int32, np.float32)
    np.testing.assert_array_equal(explanation.targets, explanation.prediction_class[:, :3])
    assert (np.diff(explanation.prediction_score, axis=1) <= 0).all()
    with torch.no_grad():
        scores = explainer.source.module(normalized(noise(5), explainer.source)).softmax(1)
    np.testing.assert_allclose(explanation.prediction_score, scores.topk(5).values, atol=1e-6)


def test_fewer_than_five_classes_leave_places_empty() -> None:
    explanation = own_explainer(Tiny(classes=3), 8, 3).explain(noise(3, 8))
    assert (explanation.prediction_class[:, 3:] == -1).all()
    assert (explanation.prediction_score[:, 3:] == 0).all()
    assert sorted(explanation.prediction_class[0, :3]) == [0, 1, 2]
    np.testing.assert_allclose(explanation.prediction_score.sum(1), 1, rtol=1e-5)


def test_labels_choose_each_frames_class() -> None:
    target = Target("label", label_index=(4, 2))
    explanation = own_explainer(Tiny(), 8, 7, target=target).explain(noise(3, 8), np.array([1, 0, 1]))
    assert explanation.targets[:, 0].tolist() == [2, 4, 2]


class Fragile(Tiny):
    """Fails on bright frames, in the middle of its forward pass."""

    def forward(self, x: Tensor) -> Tensor:
        features = self.act(self.norm(self.conv(x)))
        if float(x.detach().mean()) > 0.9:
            raise ArithmeticError("too bright")
        return self.fc(features.mean((2, 3)))


def state(network: nn.Module) -> list[object]:
    return [
        [m.training for m in network.modules()],
        [(p.requires_grad, p.grad is None, p.data_ptr(), p._version) for p in network.parameters()],
        [(b.data_ptr(), b._version) for b in network.buffers()],
        [len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) for m in network.modules()],
        torch.get_num_threads(),
        torch.is_grad_enabled(),
        torch.get_rng_state().tolist(),
        np.random.get_state()[1].tolist(),
    ]


@pytest.mark.parametrize("layer", [None, "conv"])
@pytest.mark.parametrize("placement", [FP32, Placement("torch", "bf16"), Placement("openvino", "fp32")])
def test_nothing_of_the_users_changes(placement: Placement, layer: str | None) -> None:
    network = Tiny().train().requires_grad_(True)
    network.fc.eval()
    before = state(network)
    methods = ("gradcam",) if placement.backend == "openvino" else ("gradcam", "gradient")
    own_explainer(network, 8, 7, methods, placement=placement, layer=layer).explain(noise(3, 8))
    assert state(network) == before


def test_nothing_of_the_users_changes_when_their_network_fails() -> None:
    network = Fragile()
    explainer = own_explainer(network, 8, 7)
    assert explainer.split.trunk is None
    before = state(network), state(explainer.network.whole)
    explainer.explain(noise(2, 8))
    with pytest.raises(ArithmeticError, match="too bright"):
        explainer.explain(np.full((2, 8, 8, 3), 255, np.uint8))
    assert (state(network), state(explainer.network.whole)) == before
    explainer.explain(noise(2, 8))


def test_nothing_of_the_users_changes_when_a_formula_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Tiny()
    before = state(network)
    explainer = own_explainer(network, 8, 7, ("gradient",))

    def fail(*_: object) -> Tensor:
        raise ArithmeticError("no formula")

    monkeypatch.setattr(Gradient, "formula", fail)
    with pytest.raises(ArithmeticError, match="no formula"):
        explainer.explain(noise(2, 8))
    assert state(network) == before


@pytest.mark.parametrize("methods", [("gradcam",), ("gradcam", "gradient")])
def test_a_network_in_train_mode_is_explained_as_in_eval_mode(methods: tuple[str, ...]) -> None:
    wanted = own_explainer(Tiny(), 8, 7, methods).explain(noise(3, 8))
    same(own_explainer(Tiny().train().requires_grad_(True), 8, 7, methods).explain(noise(3, 8)), wanted)


class Twice(Tiny):
    """Uses one module twice, so hooks see it twice; its ReLU works in place."""

    def __init__(self) -> None:
        super().__init__()
        self.act = nn.ReLU(inplace=True)
        self.same = nn.Conv2d(6, 6, 1)
        self.eval().requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        features = self.act(self.norm(self.conv(x)))
        return self.fc(self.act(self.same(self.act(self.same(features)))).mean((2, 3)))


def test_a_module_used_twice_is_explained_and_finite() -> None:
    torch.manual_seed(0)
    explanation = own_explainer(Twice(), 8, 7).explain(noise(3, 8))
    assert all(np.isfinite(m).all() for m in explanation.maps.values())


@pytest.mark.parametrize("methods", [("gradcam",), ("gradcam", "gradient")])
@pytest.mark.parametrize("placement", [FP32, Placement("torch", "bf16"), Placement("openvino", "fp32")])
def test_damaged_and_silent_networks_are_explained_without_a_crash(
    methods: tuple[str, ...], placement: Placement
) -> None:
    if placement.backend == "openvino" and "gradient" in methods:
        methods = ("gradcam",)
    damaged, silent = Tiny(), Tiny()
    damaged.conv.weight[0, 0, 0, 0] = float("nan")
    silent.norm.bias.fill_(-1e4)
    broken = own_explainer(damaged, 8, 7, methods, placement=placement).explain(noise(3, 8))
    assert any(not np.isfinite(m).all() for m in broken.maps.values())
    layer = choose_layer(silent, 8)
    assert layer.clean
    quiet = own_explainer(silent, 8, 7, methods, placement=placement, layer="act").explain(noise(3, 8))
    assert all((m == 0).all() for m in quiet.maps.values())
    assert own_source(silent, 8, 7).module is silent
