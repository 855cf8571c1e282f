"""Matching of weights with a network: invalid values, missing and unexpected names."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.models.source import build
from saliency_pipeline.models.source.build import from_file
from saliency_pipeline.models.source.registry import find_source
from saliency_pipeline.models.trained.initialize import initialize
from saliency_pipeline.models.trained.trained import load_trained, write_trained
from saliency_pipeline.models.trained.two_branch import NetworkSpec, build_network

TINY = "test_resnet"
State = dict[str, Tensor]


@pytest.fixture(scope="module")
def fitted() -> State:
    return build.untrained(TINY, *find_source(TINY)).state_dict()


def load(path: Path, state: object) -> tuple[State, str]:
    """The weights that a network takes from a file of such content, and all notes."""
    torch.save(state, path)
    module, notes = from_file(TINY, *find_source(TINY), path)
    return module.state_dict(), "; ".join(notes)


def refused(path: Path, state: object) -> str:
    with pytest.raises(SalpipeError) as caught:
        load(path, state)
    return str(caught.value)


def same(left: State, right: State) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in right)


# ---- values -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1e300])
@pytest.mark.parametrize("name", ["fc.weight", "bn1.running_var"])
def test_values_that_are_not_finite_are_refused(tmp_path: Path, fitted: State, name: str, value: float) -> None:
    changed = fitted[name].double()
    changed.view(-1)[-1] = value
    message = refused(tmp_path / "w.pth", fitted | {name: changed})
    assert f"w.pth: {name} holds NaN or infinity; use weights from before" in message


@pytest.mark.parametrize("dtype", [torch.int8, torch.int64, torch.bool, torch.complex64])
def test_quantized_weights_are_refused(tmp_path: Path, fitted: State, dtype: torch.dtype) -> None:
    message = refused(tmp_path / "w.pth", fitted | {"conv1.0.weight": fitted["conv1.0.weight"].to(dtype)})
    assert f"conv1.0.weight is of {str(dtype).removeprefix('torch.')}, perhaps quantized" in message


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_any_floating_point_type_are_taken(tmp_path: Path, fitted: State, dtype: torch.dtype) -> None:
    cast = {name: value.to(dtype) if value.is_floating_point() else value for name, value in fitted.items()}
    assert load(tmp_path / "w.pth", cast)[0].keys() == fitted.keys()


def test_weights_in_a_layout_that_timm_converts_are_looked_at(tmp_path: Path) -> None:
    name = "test_convnext"
    state = build.untrained(name, *find_source(name)).state_dict()
    # the authors' names of some layers
    state = {key.replace("conv_dw", "dwconv"): value for key, value in state.items()}
    assert any("dwconv" in key for key in state)
    state["head.norm.weight"] = state["head.norm.weight"] * float("nan")
    save_file(state, tmp_path / "w")
    with pytest.raises(SalpipeError, match=r"head\.norm\.weight holds NaN"):
        from_file(name, *find_source(name), tmp_path / "w")


def test_a_run_with_values_that_are_not_finite_is_refused(tmp_path: Path) -> None:
    spec = NetworkSpec(TINY, ("a", "b"), 64, "baseline")
    network = build_network(spec)
    initialize(network, spec, "scratch")
    with torch.no_grad():
        network.state_dict()["backbone.fc.bias"][0] = float("nan")
    write_trained(tmp_path / "best.safetensors", network, spec, {})
    with pytest.raises(SalpipeError, match=r"best\.safetensors: backbone\.fc\.bias holds NaN"):
        load_trained(tmp_path)


# ---- names ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["", "model."])
@pytest.mark.parametrize("extra", ["total_ops", "conv1.total_params", "aux_head.weight", "criterion.weight"])
def test_tensors_of_no_part_of_the_network_are_left_out_and_noted(
    tmp_path: Path, fitted: State, prefix: str, extra: str
) -> None:
    state = {prefix + name: value for name, value in (fitted | {extra: torch.ones(1)}).items()}
    taken, notes = load(tmp_path / "w.pth", state)
    assert same(taken, fitted)
    assert f"ignored 1 tensor of other names ({extra})" in notes


def test_extra_tensors_within_a_networks_parts_tell_another_network(tmp_path: Path, fitted: State) -> None:
    message = refused(tmp_path / "w.pth", fitted | {"layer4.9.conv1.weight": torch.ones(1)})
    assert "1 unexpected: layer4.9.conv1.weight; pass the architecture of these weights to --model" in message


@pytest.mark.parametrize("head", ["", "head.", "module."])
@pytest.mark.parametrize("classes", [1000, 3])
def test_a_classifier_beside_its_backbone_is_used_and_noted(
    tmp_path: Path, fitted: State, head: str, classes: int
) -> None:
    state = {f"backbone.{name}": value for name, value in fitted.items() if not name.startswith("fc.")}
    state |= {f"{head}{name}": fitted[name][:classes] for name in ("fc.weight", "fc.bias")}
    taken, notes = load(tmp_path / "w.pth", state)
    assert torch.equal(taken["fc.weight"], fitted["fc.weight"][:classes])
    assert torch.equal(taken["conv1.0.weight"], fitted["conv1.0.weight"])
    assert f"2 tensors beside that prefix used as well ({head}fc.weight, {head}fc.bias)" in notes


def test_two_classifiers_beside_a_backbone_are_not_guessed_among(tmp_path: Path, fitted: State) -> None:
    state = {f"backbone.{name}": value for name, value in fitted.items() if not name.startswith("fc.")}
    state |= {f"{head}.{name}": fitted[name] for head in "ab" for name in ("fc.weight", "fc.bias")}
    assert "does not fit" in refused(tmp_path / "w.pth", state)


@pytest.mark.parametrize("wrapper", ["_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module"])
@pytest.mark.parametrize("prefix", ["", "model."])
def test_wrappers_within_names_are_removed_and_noted(tmp_path: Path, fitted: State, prefix: str, wrapper: str) -> None:
    state = {prefix + name.replace("layer4.", f"layer4.{wrapper}."): value for name, value in fitted.items()}
    count = sum(wrapper in name for name in state)
    taken, notes = load(tmp_path / "w.pth", state)
    assert same(taken, fitted)
    assert f"wrappers removed from the names of {count} tensors" in notes


@pytest.mark.parametrize(
    "nest",
    [
        lambda state: [state],
        lambda state: (state, 3),
        lambda state: {"checkpoint": [3, {"state_dict": state}]},
        lambda state: {"a": {"b": {"c": state}}},
    ],
    ids=["list", "tuple", "mixed", "three levels"],
)
def test_state_dicts_in_sequences_and_three_levels_deep_are_found(
    tmp_path: Path, fitted: State, nest: Callable[[State], object]
) -> None:
    assert same(load(tmp_path / "w.pth", nest(fitted))[0], fitted)


def test_two_state_dicts_in_a_list_are_not_guessed_among(tmp_path: Path, fitted: State) -> None:
    zeros = {name: value * 0 for name, value in fitted.items()}
    assert "holds no state dict" in refused(tmp_path / "w.pth", [fitted, zeros])
    assert "holds no state dict" in refused(tmp_path / "w.pth", [torch.ones(2), torch.ones(3)])


def test_a_long_pickle_has_a_remedy_that_helps(tmp_path: Path, fitted: State, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("saliency_pipeline.models.files.torch_files.MAX_PICKLE_BYTES", 1000)
    arrays = {name: value.numpy() for name, value in fitted.items()}
    assert "save tensors alone, best as .safetensors" in refused(tmp_path / "w.pth", arrays)
