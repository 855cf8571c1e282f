"""Modified backward passes on networks that trap other libraries: equal to slow twins, sums, shared passes."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.saliency.capability import check_capable
from saliency_pipeline.saliency.engine import answers
from saliency_pipeline.saliency.engine.backends import Placement
from saliency_pipeline.saliency.engine.layers import choose_layer
from saliency_pipeline.saliency.explainer import Explanation
from saliency_pipeline.saliency.methods.registry import find_methods
from saliency_pipeline.saliency.targets import Target
from tests.saliency.networks import BATCH, Tiny, noise, normalized, own_explainer, own_source, relative_error
from tests.saliency.traps import CLASSES, KINDS, SIZE, Trap, guided_twin, rescale_twin

FRAMES = noise(BATCH, SIZE, seed=4)
TARGET = 3


def explained(network: nn.Module, *methods: str, target: Target | None = None) -> Explanation:
    own = Target("fixed", index=TARGET) if target is None else target
    return own_explainer(network, SIZE, CLASSES, methods, own, layer="last").explain(FRAMES)


def pixels_of(network: nn.Module) -> Tensor:
    return normalized(FRAMES, own_source(network, SIZE, CLASSES))


@pytest.mark.parametrize("rule", ["guided", "deconvnet"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_relu_is_guided(kind: str, rule: str) -> None:
    network = Trap(kind)
    maps = explained(network, f"guided-backprop:rule={rule}").maps[f"guided-backprop:rule={rule}"]
    twin = guided_twin(network, pixels_of(network), TARGET, rule == "deconvnet").abs().amax(1)
    assert twin.max() > 0
    assert relative_error(maps[:, 0], twin.numpy()) < 1e-5


def test_the_guided_map_differs_from_the_gradient() -> None:
    network = Trap("relu6")
    maps = explained(network, "guided-backprop", "gradient").maps
    assert relative_error(maps["guided-backprop:rule=guided"][:, 0], maps["gradient"][:, 0]) > 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_guided_gradcam_is_a_product(kind: str) -> None:
    maps = explained(Trap(kind), "guided-gradcam", "guided-backprop", "gradcam").maps
    coarse = torch.from_numpy(maps["gradcam"])
    fine = torch.nn.functional.interpolate(coarse, (SIZE, SIZE), mode="bilinear").numpy()
    np.testing.assert_allclose(maps["guided-gradcam"], maps["guided-backprop:rule=guided"] * fine, rtol=1e-5)


@pytest.mark.parametrize("baseline", ["mean", "black", "blur"])
@pytest.mark.parametrize("kind", KINDS)
def test_deeplift_is_the_twins_and_sums_to_the_difference(kind: str, baseline: str) -> None:
    network, name = Trap(kind), f"deeplift:baseline={baseline}"
    explanation = explained(network, name)
    maps, pixels = explanation.maps[name], pixels_of(network)
    baselines = torch.zeros_like(pixels) if baseline == "mean" else -torch.ones_like(pixels)
    if baseline != "blur":
        twin = rescale_twin(network, pixels, baselines, TARGET).sum(1)
        assert relative_error(maps[:, 0], twin.numpy()) < 1e-4
        change = (network(pixels) - network(baselines))[:, TARGET]
        np.testing.assert_allclose(maps.sum((1, 2, 3)), change, rtol=1e-4, atol=1e-5)
    assert np.abs(explanation.residuals[name]).max() < 1e-5


@pytest.mark.parametrize(
    "activation", [nn.SiLU(), nn.GELU(), nn.Hardswish(), nn.ELU(), nn.Tanh(), nn.LeakyReLU(0.1), nn.Softplus()]
)
def test_deeplift_sums_with_other_activations(activation: nn.Module) -> None:
    network = Trap("modules")
    network.act = network.other = activation
    explanation = explained(network, "deeplift")
    (maps,), (residuals,) = explanation.maps.values(), explanation.residuals.values()
    assert np.abs(residuals).max() < 1e-5 * np.abs(maps).sum((1, 2, 3)).max()


@pytest.mark.parametrize("rule", ["epsilon-plus-flat", "epsilon-gamma-box"])
@pytest.mark.parametrize("kind", KINDS)
def test_lrp_conserves_relevance_without_biases(kind: str, rule: str) -> None:
    network, name = Trap(kind, bias=False), f"lrp:rule={rule}"
    explanation = explained(network, name, target=Target("predicted", 2))
    logits = network(pixels_of(network)).gather(1, torch.as_tensor(explanation.targets).long()).numpy()
    np.testing.assert_allclose(explanation.maps[name].sum((2, 3)), logits, rtol=1e-3)
    assert np.abs(explanation.residuals[name]).max() < 1e-3 * np.abs(logits).max()


def test_the_residual_of_lrp_is_what_biases_absorb() -> None:
    network = Trap("modules")
    network.fc.bias.data.fill_(0.5)
    explanation = explained(network, "lrp")
    (maps,), (residuals,) = explanation.maps.values(), explanation.residuals.values()
    score = network(pixels_of(network))[:, TARGET].numpy()
    np.testing.assert_allclose(residuals[:, 0], maps.sum((1, 2, 3)) - score, atol=1e-6)
    assert np.abs(residuals).min() > 0.01


ALL = ("guided-backprop", "guided-backprop:rule=deconvnet", "guided-gradcam", "deeplift", "lrp")
ALL += ("deeplift:baseline=blur", "lrp:rule=epsilon-gamma-box")


@pytest.mark.parametrize("kind", ["residual", "pooling", "relu6"])
def test_maps_depend_neither_on_neighbors_nor_on_other_targets_and_methods(kind: str) -> None:
    network, frames = Trap(kind), noise(3, SIZE, seed=5)
    several = own_explainer(network, SIZE, CLASSES, ALL, Target("predicted", 3), layer="last").explain(frames)
    for n in range(3):
        alone = own_explainer(network, SIZE, CLASSES, ALL, Target("predicted", 3), layer="last").explain(frames[n:][:1])
        for name, maps in several.maps.items():
            np.testing.assert_array_equal(alone.maps[name][0], maps[n])
    for rank in range(3):
        target = Target("fixed", index=int(several.targets[0, rank]))
        for method in find_methods(ALL):
            one = own_explainer(network, SIZE, CLASSES, (method.canonical,), target, layer="last").explain(frames)
            np.testing.assert_array_equal(one.maps[method.canonical][0, 0], several.maps[method.canonical][0, rank])


def test_equal_tables_and_all_targets_share_one_forward_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    class Counted(answers.Record):
        def __init__(self, *arguments: object) -> None:
            made.append(arguments[2])
            super().__init__(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(answers, "Record", Counted)
    explained(Trap("residual"), *ALL, target=Target("predicted", 3))
    assert len(made) == 6


def test_predictions_come_from_the_same_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Trap("residual")
    want = explained(network, "gradcam")
    explainer = own_explainer(network, SIZE, CLASSES, ("guided-backprop",), layer="last")
    monkeypatch.setattr(explainer.network, "trunk", lambda _: pytest.fail("another forward pass"))
    got = explainer.explain(FRAMES)
    np.testing.assert_allclose(got.prediction_score, want.prediction_score, rtol=1e-5)


def test_bf16_changes_no_map() -> None:
    methods, target, maps = ("guided-backprop", "deeplift", "lrp"), Target("fixed", index=TARGET), []
    for precision in ("fp32", "bf16"):
        placement = Placement("torch", precision)
        explainer = own_explainer(Trap("residual"), SIZE, CLASSES, methods, target, placement=placement, layer="last")
        maps.append(explainer.explain(FRAMES).maps)
    for name, values in maps[0].items():
        np.testing.assert_array_equal(maps[1][name], values)


class Attention(Tiny):
    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.norm(self.conv(x)))
        return self.fc((x.flatten(2).softmax(2) @ x.flatten(2).transpose(1, 2)).mean(2))


def refusal(network: nn.Module, method: str) -> str | None:
    # networks with the same weights have one place in the cache unless their code is unknown
    source = dataclasses.replace(own_source(network, SIZE, 7), code_sha256="")
    methods = find_methods([method])
    try:
        check_capable(source, methods, [choose_layer(network, SIZE, "act")], BATCH)
    except SalpipeError as error:
        return str(error)
    return None


@pytest.mark.parametrize("method", ["guided-backprop", "guided-gradcam"])
@pytest.mark.parametrize(
    ("activation", "name"), [(nn.SiLU(), "silu"), (nn.GELU(), "gelu"), (nn.Hardswish(), "hardswish")]
)
def test_activations_that_are_no_relu_cannot_be_guided(method: str, activation: nn.Module, name: str) -> None:
    network = Tiny()
    network.act = activation
    message = refusal(network, method)
    assert message is not None
    assert message.startswith(f"--method {method}")
    assert f": tiny has aten.{name}, for which there is no rule; use gradient or another method" in message
    assert refusal(network, "deeplift") is None
    assert refusal(network, "lrp") is None


@pytest.mark.parametrize("method", ["deeplift", "lrp"])
def test_an_operator_without_a_rule_is_named(method: str) -> None:
    message = refusal(Attention(), method)
    assert message is not None
    assert "tiny has aten.softmax, for which there is no rule" in message
    with pytest.raises(SalpipeError, match=r"has aten\.softmax, which has no rule"):
        own_explainer(Attention(), SIZE, 7, (method,), layer="act").explain(FRAMES)


def test_a_network_that_cannot_be_exported_is_refused() -> None:
    class Deciding(Tiny):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * (2 if x.sum() > 1e9 else 1)

    message = refusal(Deciding(), "guided-backprop")
    assert message == "--method guided-backprop:rule=guided: tiny cannot be exported; use another method"
