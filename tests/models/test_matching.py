"""Weights fitted to a network: values that are no weights, names with more or less in them than the network's."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.models import build
from saliency_pipeline.models.build import from_file
from saliency_pipeline.models.initialise import initialise
from saliency_pipeline.models.registry import find_source
from saliency_pipeline.models.trained import load_trained, write_trained
from saliency_pipeline.models.two_branch import NetworkSpec, build_network

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
    name = "vit_tiny_patch16_224"
    state = build.untrained(name, *find_source(name)).state_dict()
    # under a name of the authors'
    state["module.pos_embed"] = state.pop("pos_embed") * float("nan")
    save_file(state, tmp_path / "w")
    with pytest.raises(SalpipeError, match="pos_embed holds NaN|does not fit"):
        from_file(name, *find_source(name), tmp_path / "w")


def test_a_run_with_values_that_are_not_finite_is_refused(tmp_path: Path) -> None:
    spec = NetworkSpec(TINY, ("a", "b"), 64, "baseline")
    network = build_network(spec)
    initialise(network, spec, "scratch")
    with torch.no_grad():
        network.state_dict()["backbone.fc.bias"][0] = float("nan")
    write_trained(tmp_path / "best.safetensors", network, spec, {})
    with pytest.raises(SalpipeError, match=r"best\.safetensors: backbone\.fc\.bias holds NaN"):
        load_trained(tmp_path)
