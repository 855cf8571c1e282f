"""Devices: capabilities and names; networks stay on one device, checked without a GPU."""

import os
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from saliency_pipeline.devices import capabilities, computes_bf16, device_name, threads_within_cores
from saliency_pipeline.models.preprocessing import Preprocessing
from saliency_pipeline.models.trained.choices import FUSIONS
from saliency_pipeline.models.trained.two_branch import NetworkSpec, build_network
from saliency_pipeline.saliency.engine.answers import Answers
from saliency_pipeline.saliency.engine.backends import TorchTrunk
from saliency_pipeline.saliency.targets import Target
from saliency_pipeline.training.data.inputs import Inputs
from tests.saliency.networks import library_explainer, noise


@pytest.mark.parametrize(
    ("usable", "machine", "avx512_bf16", "amx", "computes"),
    [
        (False, "x86_64", True, True, False),
        (True, "x86_64", False, False, False),
        (True, "x86_64", True, False, True),
        (True, "x86_64", False, True, True),
        (True, "aarch64", False, False, True),
    ],
)
def test_bf16_takes_instructions_that_one_dnn_may_use(
    usable: bool, machine: str, avx512_bf16: bool, amx: bool, computes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: usable)
    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512_bf16)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert computes_bf16("cpu") is computes
    assert (" bf16" in capabilities("cpu")) is computes


def test_a_limit_on_instructions_is_a_processor_without_them() -> None:
    code = "from saliency_pipeline.devices import capabilities; print(capabilities('cpu'))"
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}
    limited = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert "bf16" not in limited.stdout
    assert "AVX512" not in limited.stdout
    assert limited.stdout.strip().endswith("cores")


def test_the_name_says_what_the_processor_can_do() -> None:
    assert device_name("cpu").endswith(capabilities("cpu"))
    assert len(device_name(torch.device("cpu"))) > len(capabilities("cpu"))


def moved(module: nn.Module, mode: FakeTensorMode) -> nn.Module:
    """The module with tensors of the same shapes on a GPU that need not exist."""
    for part in module.modules():
        for named in (part._parameters, part._buffers):
            for name, tensor in named.items():
                if tensor is not None:
                    named[name] = mode.from_tensor(tensor).detach().to("cuda")
    return module


def test_tensors_of_two_devices_would_be_noticed() -> None:
    with FakeTensorMode() as mode, pytest.raises(RuntimeError, match="two devices"):
        moved(nn.Linear(3, 2), mode)(torch.zeros(1, 3))


@pytest.mark.parametrize(
    ("arch", "fusion"),
    [("baseline", "add"), *(("modulated", f) for f in FUSIONS), *(("learned", f) for f in FUSIONS if f != "input")],
)
def test_a_networks_forward_pass_stays_on_its_device(arch: str, fusion: str) -> None:
    network = build_network(NetworkSpec("test_resnet", ("a", "b"), 64, arch, fusion))
    with FakeTensorMode() as mode:
        inputs = Inputs(Preprocessing(64, (0.5,) * 3, (0.5,) * 3, "bilinear"), torch.device("cuda"))
        images = torch.addcmul(inputs.shift, torch.zeros(2, 3, 64, 64, device="cuda"), inputs.scale)
        logits = moved(network, mode)(images, torch.zeros(2, 1, 64, 64, device="cuda"))
    assert (logits.device.type, logits.shape) == ("cuda", (2, 2))


@pytest.mark.parametrize("target", [Target("fixed", index=3), Target("label", label_index=(5, 7))])
def test_the_engine_stays_on_its_device(target: Target) -> None:
    explainer = library_explainer("test_resnet", ("gradcam",), target=target)
    network, labels = explainer.network, torch.zeros(2, dtype=torch.int64)
    assert isinstance(network.trunk, TorchTrunk)
    with FakeTensorMode() as mode:
        trunk = moved(network.trunk.run, mode)
        network.weight, network.bias = (mode.from_tensor(t).to("cuda") for t in (network.weight, network.bias))
        network.trunk = lambda _: trunk(torch.zeros(2, 3, 64, 64, device="cuda"))
        ask = Answers(network, noise(2), ("a", "b"), mode.from_tensor(labels), target)
        result = explainer._explained(ask)
    assert {t.device.type for t in (result.logits, result.targets, *result.maps.values())} == {"cuda"}
    assert result.maps["gradcam"].shape == (2, 1, *explainer.layers[0].grid)


def test_threads_stay_within_the_cores_of_a_container(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        for cores, threads in ((1, 1), (8, 3)):
            monkeypatch.setattr("saliency_pipeline.devices.usable_cores", lambda cores=cores: cores)
            with threads_within_cores():
                assert torch.get_num_threads() == threads
            assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
