"""Backends that run the trunk, from uint8 frames to float32 activations: PyTorch, torch.compile and OpenVINO."""

from __future__ import annotations

import copy
import importlib.util
import io
import sys
import threading
import warnings
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, fx, nn

from saliency_pipeline.cache import cached
from saliency_pipeline.devices import computes_bf16
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.models.preprocessing import Preprocessing
from saliency_pipeline.saliency.engine.rounding import rounded_to_bf16
from saliency_pipeline.text import one_line

BACKENDS = ("torch", "compile", "openvino")
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True)
class Placement:
    """Backend, precision and device of a computation.

    Attributes:
        backend: `torch`, `compile` or `openvino`.
        precision: `fp32` or `bf16` for the trunk's weights and activations.
        device: `cpu`, `cuda` or `cuda:N`.
        streams: batches computed at the same time, on the CPU with one thread each.
    """

    backend: str = "torch"
    precision: str = "fp32"
    device: str = "cpu"
    streams: int = 1


class Trunk(Protocol):
    """Runs the network up to the explained layer, or a part of that; called from several threads at once."""

    def __call__(self, frames: np.ndarray | Tensor) -> Tensor:
        """Frames (N, S, S, 3) uint8 RGB, N a multiple of the batch size, to activations (N, ...) float32.

        A tensor of frames is on the device already. Parts that start within the network read (N, C, h, w) float32.
        """


def make_trunk(
    graph: fx.GraphModule,
    preprocessing: Preprocessing,
    batch: int,
    placement: Placement,
    cache_key: tuple[str, ...] = (),
    inputs: tuple[int, int, int] | None = None,
) -> Trunk:
    """The trunk `graph` on the backend of `placement`.

    Args:
        graph: normalized (N, 3, S, S) to the layer's output.
        preprocessing: how frames are normalized, and their size S.
        batch: N.
        placement: backend, precision, device and streams.
        cache_key: determines the graph's content; under it OpenVINO's compiled model is cached. Empty: not cached.
        inputs: (C, h, w) of the activations that the graph starts from, instead of frames.

    Raises:
        SalpipeError: where the backend is not installed or cannot run on the device.
    """
    if placement.backend == "openvino":
        if not openvino_installed():
            raise SalpipeError("--backend openvino: not installed; run pip install 'saliency-pipeline[openvino]'")
        if placement.device != "cpu":
            raise SalpipeError(f"--backend openvino runs on the CPU, not on {placement.device}; use --backend torch")
        try:
            return OpenVinoTrunk(graph, preprocessing, batch, placement, cache_key, inputs)
        except Exception as error:  # an unsupported operator, a missing kernel, no memory
            raise cannot_run(placement, error) from error
    return TorchTrunk(graph, preprocessing, batch, placement, inputs)


def computes_bf16_in(backend: str, device: str) -> bool:
    """Return whether a backend computes in bf16 on a device, without emulation or fp32 instead."""
    if not computes_bf16(device):
        return False
    return backend != "openvino" or "BF16" in import_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def cannot_run(placement: Placement, error: Exception) -> SalpipeError:
    """The error for a backend that fails on a network."""
    reason = one_line(error)
    return SalpipeError(f"--backend {placement.backend}: cannot run this network ({reason}); use --backend torch")


def openvino_installed() -> bool:
    """Return whether OpenVINO is installed."""
    return importlib.util.find_spec("openvino") is not None


class Normalize:
    """Frames (N, S, S, 3) uint8 to (N, 3, S, S) in channels_last order: (frame / 255 - mean) / std."""

    def __init__(self, preprocessing: Preprocessing, device: str = "cpu", dtype: torch.dtype = torch.float32) -> None:
        self.dtype = dtype
        self.device = torch.device(device)
        self.scale, self.shift = (values.to(self.device) for values in preprocessing.scale_and_shift(255))

    def __call__(self, frames: np.ndarray | Tensor) -> Tensor:
        """Normalize on the device; the frames' own memory is only read, and a tensor is on the device already."""
        if isinstance(frames, Tensor):
            raw = frames
        else:
            # torch reads no memory that may not be written, such as a file mapped for reading.
            raw = torch.from_numpy(np.require(frames, requirements="W"))
            if self.device.type == "cuda":
                raw = raw.pin_memory().to(self.device, non_blocking=True)
        values = torch.addcmul(self.shift, raw.float(), self.scale)
        return values.to(self.dtype).permute(0, 3, 1, 2)


class TorchTrunk:
    """The trunk in PyTorch: folded, channels_last, in fp32 or bf16, optionally compiled."""

    def __init__(
        self,
        graph: fx.GraphModule,
        preprocessing: Preprocessing,
        batch: int,
        placement: Placement,
        inputs: tuple[int, int, int] | None = None,
    ) -> None:
        dtype = PRECISIONS[placement.precision]
        module = placed(rounded_to_bf16(graph) if placement.precision == "bf16" else graph, placement.device, dtype)
        reuse_buffers(module)
        self.prepare: Any = Normalize(preprocessing, placement.device, dtype)
        if inputs:
            self.prepare = lambda values: torch.as_tensor(values).to(dtype, memory_format=torch.channels_last)
        # Freezing makes the weights constants, so that they are laid out for the kernels once.
        self.run: Any = torch.compile(module, options={"freezing": True}) if placement.backend == "compile" else module
        self.batch, self.placement, self.has_run = batch, placement, placement.backend == "torch"

    def __call__(self, frames: np.ndarray | Tensor) -> Tensor:
        """Frames (N, S, S, 3) uint8 to the layer's output, float32."""
        with torch.inference_mode():
            parts = [self._batch(frames[i : i + self.batch]).float() for i in range(0, len(frames), self.batch)]
            return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _batch(self, frames: np.ndarray | Tensor) -> Tensor:
        try:
            activations: Tensor = self.run(self.prepare(frames))
        except Exception as error:
            # Compiling happens in the first call, and needs a C++ compiler for one.
            if self.has_run:
                raise
            raise cannot_run(self.placement, error) from error
        self.has_run = True
        return activations


def placed(module: M, device: str, dtype: torch.dtype | None = None) -> M:
    """A copy of a network on another device, in eval mode, its convolution weights in channels_last."""
    module = copy.deepcopy(module).eval().to(device=device, dtype=dtype)
    # not with `to`, which fails on five-dimensional constants
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.ndim == 4:
            tensor.data = tensor.data.contiguous(memory_format=torch.channels_last)
    return module


def reuse_buffers(module: fx.GraphModule) -> None:
    """Let activation functions overwrite a convolution's or sum's result that nothing else reads; forward only."""
    aten = torch.ops.aten
    in_place = {
        aten.relu.default: aten.relu_.default,
        aten.hardtanh.default: aten.hardtanh_.default,
        aten.silu.default: aten.silu_.default,
        aten.hardswish.default: aten.hardswish_.default,
    }
    for node in module.graph.nodes:
        if node.target in in_place:
            source = node.args[0]
            if source.target in (aten.conv2d.default, aten.add.Tensor) and len(source.users) == 1:
                node.target = in_place[node.target]
    module.recompile()


class OpenVinoTrunk:
    """The trunk in OpenVINO on the CPU: each calling thread has its own request, each request one core."""

    def __init__(
        self,
        graph: fx.GraphModule,
        preprocessing: Preprocessing,
        batch: int,
        placement: Placement,
        cache_key: tuple[str, ...],
        inputs: tuple[int, int, int] | None = None,
    ) -> None:
        exact = placement.precision == "fp32"
        core = import_openvino().Core()
        # one thread per request: no waiting for others, and the same sums for every --jobs
        options = {
            "NUM_STREAMS": str(placement.streams),
            "INFERENCE_NUM_THREADS": str(placement.streams),
            "INFERENCE_PRECISION_HINT": "f32" if exact else "bf16",
            "ENABLE_CPU_PINNING": False,
        }

        def compile_model() -> Any:
            model = _converted(graph if exact else rounded_to_bf16(graph), preprocessing, batch, inputs)
            return core.compile_model(model, "CPU", options)

        self.compiled = cached(
            "openvino",
            (*cache_key, repr(options)) if cache_key else (),
            compile_model,
            lambda model: model.export_model().getvalue(),
            lambda data: core.import_model(io.BytesIO(data), "CPU", options),
        )
        self.batch, self.shape = batch, tuple(self.compiled.output(0).shape[1:])
        self.local = threading.local()

    def __call__(self, frames: np.ndarray | Tensor) -> Tensor:
        """Frames (N, S, S, 3) uint8 to the layer's output, float32."""
        if isinstance(frames, Tensor):
            frames = frames.numpy()
        if not hasattr(self.local, "request"):
            self.local.request = self.compiled.create_infer_request()
        tensor, request = import_openvino().Tensor, self.local.request
        activations = np.empty((len(frames), *self.shape), np.float32)
        for i in range(0, len(frames), self.batch):
            # It reads and writes our memory: nothing is copied.
            request.set_input_tensor(tensor(frames[i : i + self.batch], shared_memory=True))
            request.set_output_tensor(tensor(activations[i : i + self.batch], shared_memory=True))
            request.infer()
        return torch.from_numpy(activations)


def import_openvino() -> Any:
    """The openvino module. It would report its use over the network on import: salpipe reports nothing to anybody."""
    if "openvino" not in sys.modules and "openvino_telemetry" not in sys.modules:
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
        try:
            import openvino
        finally:
            del sys.modules["openvino_telemetry"]
    import openvino

    return openvino


def _converted(
    graph: fx.GraphModule, preprocessing: Preprocessing, batch: int, inputs: tuple[int, int, int] | None
) -> Any:
    """The trunk as an OpenVINO model that starts from uint8 frames (batch, S, S, 3), or from float32 activations."""
    ov = import_openvino()
    shape = (batch, *(inputs or (3, preprocessing.size, preprocessing.size)))
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        model = ov.convert_model(torch.export.export(graph, (torch.zeros(shape),), strict=False))
    # The converted network accepts batches of any size, but plans its memory again for every one.
    model.reshape(list(shape))
    steps = ov.preprocess.PrePostProcessor(model)
    if not inputs:
        steps.input().tensor().set_element_type(ov.Type.u8).set_layout(ov.Layout("NHWC"))
        steps.input().model().set_layout(ov.Layout("NCHW"))
        normalized = steps.input().preprocess().convert_element_type(ov.Type.f32)
        normalized.mean([255 * v for v in preprocessing.mean]).scale([255 * v for v in preprocessing.std])
    steps.output().tensor().set_element_type(ov.Type.f32)
    return steps.build()
