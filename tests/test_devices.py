"""What a device can compute, and what it is called: by instructions, since virtual machines share one name."""

import os
import subprocess
import sys

import pytest
import torch

from saliency_pipeline.devices import capabilities, computes_bf16, device_name


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
