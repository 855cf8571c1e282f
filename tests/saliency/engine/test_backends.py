"""Backends: equal trunk outputs from uint8 frames, from any thread; failures in one line."""

import os
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import fx, nn

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.models.preprocessing import Preprocessing
from saliency_pipeline.saliency.engine import backends
from saliency_pipeline.saliency.engine.backends import (
    Normalize,
    Placement,
    import_openvino,
    make_trunk,
    placed,
    reuse_buffers,
)
from saliency_pipeline.saliency.engine.split import close
from tests import rare
from tests.saliency.networks import BATCH, library_source, library_split, noise, normalized

UNLIMITED = pytest.mark.skipif(
    "ONEDNN_MAX_CPU_ISA" in os.environ,
    reason="ONEDNN_MAX_CPU_ISA is set: OpenVINO then has no bf16 kernels that match the processor",
)
PREPROCESSING = Preprocessing(64, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "bicubic")


def test_normalizing_equals_the_obvious_way() -> None:
    source, frames = library_source("resnet18"), noise(2)
    assert source.preprocessing.mean == PREPROCESSING.mean
    got = Normalize(PREPROCESSING)(frames)
    torch.testing.assert_close(got, normalized(frames, source), rtol=0, atol=1e-6)
    assert got.is_contiguous(memory_format=torch.channels_last)
    assert Normalize(PREPROCESSING, dtype=torch.bfloat16)(frames).dtype == torch.bfloat16


def test_normalizing_reads_frames_that_cannot_be_written() -> None:
    frames = noise(2)
    before = frames.copy()
    frames.setflags(write=False)
    torch.testing.assert_close(Normalize(PREPROCESSING)(frames), Normalize(PREPROCESSING)(before))
    np.testing.assert_array_equal(frames, before)


@pytest.mark.parametrize("name", ["test_resnet", *rare("resnet18", "mobilenetv3_small_050", "convnext_atto")])
@pytest.mark.parametrize(
    ("backend", "precision", "tolerance"),
    [
        ("torch", "fp32", 1e-4),
        ("torch", "bf16", 0.1),
        ("openvino", "fp32", 1e-4),
        pytest.param("openvino", "bf16", 0.1, marks=UNLIMITED),
    ],
)
def test_every_back_end_gives_the_trunks_output(name: str, backend: str, precision: str, tolerance: float) -> None:
    source, split, frames = library_source(name), library_split(name), noise(BATCH)
    assert split.trunk is not None
    trunk = make_trunk(split.trunk, source.preprocessing, BATCH, Placement(backend, precision))
    output = trunk(frames)
    assert output.dtype == torch.float32
    with torch.no_grad():
        assert close(output, split.trunk(normalized(frames, source)), tolerance)


@pytest.mark.parametrize("backend", ["torch", "openvino"])
def test_a_trunk_called_from_several_threads_answers_each(backend: str) -> None:
    source, split = library_source("resnet18"), library_split("resnet18")
    assert split.trunk is not None
    trunk = make_trunk(split.trunk, source.preprocessing, BATCH, Placement(backend, "fp32", streams=2))
    batches = [noise(BATCH, seed=seed) for seed in range(8)]
    alone = [trunk(frames).clone() for frames in batches]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda frames: trunk(frames).clone(), batches * 4))
    for got, wanted in zip(together, alone * 4, strict=True):
        assert close(got, wanted, 1e-5)


@pytest.mark.slow
def test_compiling_changes_no_numbers() -> None:
    source, split, frames = library_source("test_resnet"), library_split("test_resnet"), noise(BATCH)
    assert split.trunk is not None
    trunk = make_trunk(split.trunk, source.preprocessing, BATCH, Placement("compile", "fp32"))
    with torch.no_grad():
        assert close(trunk(frames), split.trunk(normalized(frames, source)), 1e-4)


@pytest.mark.parametrize("backend", ["torch", pytest.param("openvino", marks=UNLIMITED)])
def test_a_trunks_own_weights_stay_as_they_are(backend: str) -> None:
    source, split = library_source("resnet18"), library_split("resnet18")
    assert split.trunk is not None
    before = {name: b.clone() for name, b in split.trunk.named_buffers()}
    code = split.trunk.code
    make_trunk(split.trunk, source.preprocessing, BATCH, Placement(backend, "bf16"))(noise(BATCH))
    assert split.trunk.code == code
    assert all(torch.equal(b, before[name]) and b.dtype == torch.float32 for name, b in split.trunk.named_buffers())


def test_a_placed_copy_lays_out_convolutions_only() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Linear(4, 2)).train()
    module.register_buffer("positions", torch.zeros(1, 2, 3, 4, 5))
    copied = placed(module, "cpu", torch.bfloat16)
    assert not copied.training
    assert copied[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert copied[1].weight.dtype == torch.bfloat16
    assert module.training
    assert module[0].weight.dtype == torch.float32
    assert module[0].weight.is_contiguous()


def test_buffers_are_reused_only_where_nothing_else_reads_them() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.conv(x)
            z = y.relu() + y
            return (z.relu() + x.relu()).relu()

    exported = torch.export.export(Two().eval(), (torch.zeros(1, 3, 4, 4),)).run_decompositions({}).module()
    module = fx.GraphModule(exported, exported.graph)
    pixels = torch.randn(1, 3, 4, 4)
    before, wanted = pixels.clone(), exported(pixels)
    reuse_buffers(module)
    with torch.inference_mode():
        assert torch.equal(module(pixels), wanted)
    assert torch.equal(pixels, before)
    assert [str(n.target) for n in module.graph.nodes].count("aten.relu_.default") == 2


def test_openvino_reports_nothing_when_it_is_imported() -> None:
    import_openvino()
    assert sys.modules.get("openvino_telemetry", "absent") is not None


@pytest.mark.parametrize(
    ("placement", "words"),
    [
        (Placement("openvino", "fp32", "cuda"), "runs on the CPU, not on cuda; use --backend torch"),
        (Placement("openvino", "fp32"), "cannot run this network"),
    ],
)
def test_an_unsupported_network_of_openvino_is_one_line(placement: Placement, words: str) -> None:
    class Bicubic(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.interpolate(x, size=(9, 9), mode="bicubic", antialias=True)

    exported = torch.export.export(Bicubic(), (torch.zeros(BATCH, 3, 64, 64),)).run_decompositions({}).module()
    with pytest.raises(SalpipeError, match=words) as caught:
        make_trunk(fx.GraphModule(exported, exported.graph), PREPROCESSING, BATCH, placement)
    assert "\n" not in str(caught.value)


def test_a_missing_openvino_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "openvino_installed", lambda: False)
    trunk = library_split("resnet18").trunk
    assert trunk is not None
    with pytest.raises(SalpipeError, match=r"pip install 'saliency-pipeline\[openvino\]'"):
        make_trunk(trunk, PREPROCESSING, BATCH, Placement("openvino"))


def test_a_failing_compiler_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> object:
        def run(_frames: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("no C++ compiler\nanywhere")

        return run

    monkeypatch.setattr(torch, "compile", fail)
    trunk = library_split("resnet18").trunk
    assert trunk is not None
    with pytest.raises(SalpipeError, match=r"--backend compile: cannot run .*no C.. compiler anywhere"):
        make_trunk(trunk, PREPROCESSING, BATCH, Placement("compile"))(noise(BATCH))
