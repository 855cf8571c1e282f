"""Where a network's first weights come from: nowhere, a pretrained backbone, or a network trained before."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.models.probe import own_random_state
from saliency_pipeline.models.source.build import from_file, head_tensors, pretrained
from saliency_pipeline.models.source.matching import fill
from saliency_pipeline.models.source.registry import find_source
from saliency_pipeline.models.trained.choices import INITS
from saliency_pipeline.models.trained.fusion import ZeroConv
from saliency_pipeline.models.trained.trained import Trained
from saliency_pipeline.models.trained.two_branch import NetworkSpec

_PREFIX = "backbone."


@dataclass(frozen=True)
class InitReport:
    """What became of every tensor.

    Attributes:
        how: `scratch`, `half` or `full`.
        origin: what was loaded: a backbone and its weights, or a checkpoint; empty for `scratch`.
        loaded: tensors of the network that were read.
        xavier: weights that were drawn, Xavier-uniform, at least in part; their biases are 0. Norms that were not
            loaded are as they are built.
        left_out: tensors of the origin that the network has no use for: its head.
    """

    how: str
    origin: str
    loaded: tuple[str, ...]
    xavier: tuple[str, ...]
    left_out: tuple[str, ...]

    def __str__(self) -> str:
        drawn = f"{len(self.xavier)} drawn ({_first(self.xavier)})" if self.xavier else "none drawn"
        if not self.origin:
            return f"init {self.how}: {drawn}"
        left = f", {len(self.left_out)} of it left out ({_first(self.left_out)})" if self.left_out else ""
        return f"init {self.how}: {len(self.loaded)} tensors of {self.origin} loaded{left}, {drawn}"


def initialize(
    network: nn.Module,
    spec: NetworkSpec,
    how: str,
    *,
    weights: str = "default",
    checkpoint: Trained | None = None,
    seed: int = 0,
) -> InitReport:
    """Give a network its first weights.

    What is drawn depends on the seed and the tensor's name alone, so that two networks that share a tensor (a head,
    say) begin with the same one.

    Args:
        network: from `build_network(spec)`; changed in place.
        spec: what it is.
        how: `scratch`: every convolution and linear layer Xavier-uniform (Glorot & Bengio 2010), biases 0.
            `half`: the backbone, which is the RGB branch, pretrained but for its head; all else as in `scratch`. For
            a baseline that is plain transfer. `full`: everything but the head from `checkpoint`.
        weights: of the backbone for `half`, as `load_source` takes them: `default` or a file.
        checkpoint: for `full`, a trained network of the same kind.
        seed: of what is drawn.

    Returns:
        What was loaded, drawn and left out.

    Raises:
        SalpipeError: an unknown initialization, no such weights, or a checkpoint that does not fit; nothing is ever
            loaded in part.
    """
    drawn = _draw(network, seed)
    if how == "scratch":
        return InitReport(how, "", (), drawn, ())
    library, bare = find_source(spec.backbone)
    with own_random_state():
        head = {_PREFIX + name for name in head_tensors(library, bare)}
    if how == "half":
        with own_random_state():
            source, notes = _pretrained(spec, library, bare, weights)
        named = "embedded weights" if library == "embedded" and weights == "default" else f"weights '{weights}'"
        origin = f"{spec.backbone} ({'; '.join((named, *notes))})"
        given = {_PREFIX + name: value for name, value in source.state_dict().items()}
    elif how == "full":
        if checkpoint is None:
            raise SalpipeError("--init full needs --from RUN, a run or checkpoint that was trained before")
        _same_kind(spec, checkpoint)
        origin, given = str(checkpoint.path), checkpoint.network.state_dict()
    else:
        raise SalpipeError(f"--init {how}: unknown; choose from {', '.join(INITS)}")
    return _load(network, InitReport(how, origin, (), drawn, ()), given, head)


def _load(network: nn.Module, begun: InitReport, given: dict[str, Tensor], head: set[str]) -> InitReport:
    """Copy what fits; every tensor that the network and the origin share but the head must."""
    own = network.state_dict()
    loaded, partly, left_out = {}, {}, []
    for name, value in given.items():
        if name in head:
            left_out.append(name)
        elif name in own and own[name].shape == value.shape:
            loaded[name] = value
        elif name in own and _is_fourth_channel(own[name], value):
            partly[name] = torch.cat([value, own[name][:, 3:]], 1)
        else:
            why = f"{list(value.shape)} instead of {list(own[name].shape)}" if name in own else "unknown to it"
            raise SalpipeError(
                f"{begun.origin}: does not fit the network: {name} is {why}; give the run's own backbone"
            )
    missing = [name for name in own if name not in given and name.startswith(_PREFIX) and name not in head]
    if begun.how == "full":
        missing = [name for name in own if name not in given and name not in head]
    if missing:
        raise SalpipeError(f"{begun.origin}: lacks {len(missing)} of the network's tensors ({_first(missing)})")
    fill(network, loaded | partly, begun.origin)
    xavier = tuple(name for name in begun.xavier if name not in loaded)
    return InitReport(begun.how, begun.origin, (*loaded, *partly), xavier, tuple(left_out))


def _is_fourth_channel(own: Tensor, value: Tensor) -> bool:
    """Whether the network's convolution takes RGB and a map, and the origin's RGB alone."""
    return own.ndim == 4 and (own.shape[1], value.shape[1]) == (4, 3) and own[:, :3].shape == value.shape


def _pretrained(spec: NetworkSpec, library: str, bare: str, weights: str) -> tuple[nn.Module, tuple[str, ...]]:
    if weights == "none":
        raise SalpipeError("--init half needs pretrained weights; use --weights default, a file, or --init scratch")
    if weights == "default":
        return pretrained(spec.backbone, library, bare)[0], ()
    return from_file(spec.backbone, library, bare, Path(weights))


def _same_kind(spec: NetworkSpec, checkpoint: Trained) -> None:
    ours, theirs = asdict(spec), asdict(checkpoint.spec)
    names = (
        ["backbone", "arch"] if spec.arch == "baseline" else ["backbone", "arch", "fusion", "fuse_at", "learn_alpha"]
    )
    differing = [f"{name} {theirs[name]} -> {ours[name]}" for name in names if ours[name] != theirs[name]]
    if differing:
        raise SalpipeError(f"--from {checkpoint.path}: a network of another kind ({'; '.join(differing)})")


def _draw(network: nn.Module, seed: int) -> tuple[str, ...]:
    """Xavier-uniform weights and zero biases for every convolution and linear layer but zero convolutions; names of the
    weights.
    """
    names = []
    for prefix, module in network.named_modules():
        if isinstance(module, nn.Linear | nn.modules.conv._ConvNd) and not isinstance(module, ZeroConv):
            name = f"{prefix}.weight"
            digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
            nn.init.xavier_uniform_(module.weight, generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
            names.append(name)
    return tuple(names)


def _first(names: tuple[str, ...] | list[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")
