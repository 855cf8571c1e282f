"""Matching of a file of weights with a network: names, prefixes, shapes and values."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.models.source.weights import State, WeightsFile, short
from saliency_pipeline.text import plural, shown

_AVERAGED = {"ema", "averaged", "swa"}
_MOST_PREFIXES = 16
# a classifier of two layers, each with weights and biases
_MOST_JOINED = 4
# what thop counts, in every part of a network
_COUNTS = {"total_ops", "total_params"}
_WRAPPED = re.compile(r"(?<=\.)(?:_orig_mod|_checkpoint_wrapped_module|_fsdp_wrapped_module)\.")


@dataclass(frozen=True, eq=False)
class Choice:
    """A file's tensors under names that a network may have.

    Attributes:
        file: the file.
        where: name of the state dict.
        prefix: prefix that is removed from the names.
        state: the tensors.
        left_out: names of tensors without that prefix, or of no part of the network.
        joined: names of tensors without that prefix that were used nevertheless: a classifier beside its backbone.
    """

    file: WeightsFile
    where: str
    prefix: str
    state: State
    left_out: tuple[str, ...] = ()
    joined: tuple[str, ...] = ()

    @property
    def averaged(self) -> bool:
        """True if the weights are averaged over training."""
        return bool(_AVERAGED & set(re.split(r"[^a-z]+", f"{self.where} {self.prefix}".lower())))

    def without_foreign(self, network: nn.Module) -> Choice:
        """The same without tensors of no part of the network, and with a classifier that is stored beside it.

        Tensors in the network's own parts are kept: they distinguish a deeper network's weights.
        """
        own = network.state_dict()
        parts = {name.partition(".")[0] for name in own}
        foreign = tuple(
            name
            for name in self.state
            if name not in own and (name.partition(".")[0] not in parts or name.rpartition(".")[2] in _COUNTS)
        )
        missing = [name for name in own if name not in self.state and not name.endswith(".num_batches_tracked")]
        beside = {
            name: matches[0]
            for name in missing[:_MOST_JOINED]
            if len(matches := [other for other in self.left_out if f".{other}".endswith(f".{name}")]) == 1
        }
        # all or none, and at most two layers: a network is not assembled from pieces
        if not missing or len(beside) < len(missing):
            beside = {}
        stored = self.file.states[self.where]
        return replace(
            self,
            state={name: value for name, value in self.state.items() if name not in foreign}
            | {name: unwrapped(stored)[other] for name, other in beside.items()},
            left_out=tuple(name for name in (*self.left_out, *foreign) if name not in beside.values()),
            joined=tuple(beside.values()),
        )

    def notes(self, others: list[Choice]) -> tuple[str, ...]:
        """Notes on differences from a plain state dict, one sentence per kind."""
        notes = []
        if states := [where for where in self.file.states if where != self.where]:
            notes.append(f"weights taken from '{short(self.where)}'; it also holds {first_names(states)}")
        if self.prefix:
            notes.append(f"prefix '{short(self.prefix)}' removed from the names of {plural(len(self.state), 'tensor')}")
        if self.joined:
            tensors = plural(len(self.joined), "tensor")
            notes.append(f"{tensors} beside that prefix used as well ({first_names(self.joined)})")
        if wrapped := [key for key in self.file.states[self.where] if _WRAPPED.search(key)]:
            tensors = plural(len(wrapped), "tensor")
            notes.append(f"wrappers removed from the names of {tensors} ({first_names(wrapped, 1)})")
        beside = [other.prefix for other in others if other.where == self.where]
        if prefixes := [f"'{prefix}'" if prefix else "no prefix" for prefix in beside]:
            notes.append(f"those under {first_names(prefixes)} fit as well and were not used")
        if self.left_out:
            tensors = plural(len(self.left_out), "tensor")
            notes.append(f"ignored {tensors} of other names ({first_names(self.left_out)})")
        if count := sum(self.file.classes.values()):
            notes.append(f"{plural(count, 'object')} beside the weights not read ({first_names([*self.file.classes])})")
        return tuple(f"{shown(self.file.path.name)}: {note}" for note in notes)


def choices(file: WeightsFile, network: nn.Module) -> Iterator[Choice]:
    """Every state dict of a file, unchanged and without prefixes before the names of the network."""
    anchor = next(iter(network.state_dict()), "")
    for where, stored in file.states.items():
        state = unwrapped(stored)
        yield Choice(file, where, "", state)
        for prefix in _prefixes(state, anchor)[:_MOST_PREFIXES]:
            under = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
            others = tuple(name for name in state if not name.startswith(prefix))
            yield Choice(file, where, prefix, under, others)


def unwrapped(state: State) -> State:
    """A state dict without the wrappers of torch.compile, activation checkpointing and FSDP in its names."""
    names = {name: _WRAPPED.sub("", name) for name in state}
    return {names[name]: value for name, value in state.items()} if len(set(names.values())) == len(names) else state


def _prefixes(state: State, anchor: str) -> list[str]:
    """Prefixes of the network's first name wherever it occurs, and common prefixes of all names."""
    prefixes = [name.removesuffix(anchor) for name in state if name.endswith(f".{anchor}")]
    first, last = min(state, default=""), max(state, default="")
    common = 0
    while (dot := first.find(".", common)) > 0 and last.startswith(first[: dot + 1]):
        common = dot + 1
        prefixes.append(first[:common])
    return list(dict.fromkeys(prefixes))


@dataclass(frozen=True)
class Mismatch:
    """Differences of a file of weights from a network: names that one of them lacks, and shapes (network, file)."""

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    shapes: dict[str, tuple[tuple[int, ...], tuple[int, ...]]]

    def __len__(self) -> int:
        return len(self.missing) + len(self.unexpected) + len(self.shapes)

    def __str__(self) -> str:
        shapes = [f"{key} {list(theirs)} instead of {list(ours)}" for key, (ours, theirs) in self.shapes.items()]
        kinds = (("wrong shape", shapes), ("missing", self.missing), ("unexpected", self.unexpected))
        return "; ".join(f"{len(keys)} {kind}: {first_names(keys)}" for kind, keys in kinds if keys)

    def class_count(self, classes: int) -> int | None:
        """The file's number of classes if nothing else differs from a network of `classes`, else None."""
        if self.missing or self.unexpected or not self.shapes:
            return None
        counts = {
            theirs[0] if ours and theirs and ours[0] == classes and ours[1:] == theirs[1:] else None
            for ours, theirs in self.shapes.values()
        }
        return counts.pop() if len(counts) == 1 else None


def compare(module: nn.Module, state: Mapping[str, Tensor] | State) -> Mismatch:
    """Compare a network's state dict with a file's, by name and shape.

    BatchNorm's `num_batches_tracked` may be missing: older files lack it and nothing in eval mode reads it.
    """
    # the extra state of a user's module stays as it is
    own = {key: value for key, value in module.state_dict().items() if isinstance(value, Tensor)}
    return Mismatch(
        missing=tuple(key for key in own if key not in state and not key.endswith(".num_batches_tracked")),
        unexpected=tuple(key for key in state if key not in own),
        shapes={
            key: (tuple(value.shape), tuple(state[key].shape))
            for key, value in own.items()
            if key in state and tuple(state[key].shape) != tuple(value.shape)
        },
    )


def fill(module: nn.Module, state: Mapping[str, Tensor], origin: object) -> None:
    """Copy the tensors of a state dict of equal names and shapes into a network.

    Raises:
        SalpipeError: as `require_values`; `origin` names the source of the tensors.
    """
    own = module.state_dict()
    require_values(origin, state, own)
    # updated in place: modules read the version of their layout from the dict's metadata
    own.update(state)
    module.load_state_dict(own, strict=True)


def require_values(origin: object, state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    """Check that weights are finite floating-point values, in one pass.

    Raises:
        SalpipeError: naming the first tensor that is not.
    """
    for name, value in state.items():
        if value.is_floating_point():
            # in float32, as the network has them; a buffer that masks may hold infinity
            if not _is_finite(value.float()) and not name.endswith("mask"):
                raise SalpipeError(
                    f"{origin}: {short(name)} holds NaN or infinity; use weights from before training diverged"
                )
        elif own[name].is_floating_point() if name in own else name.endswith((".weight", ".bias")):
            kind = str(value.dtype).removeprefix("torch.")
            raise SalpipeError(
                f"{origin}: {short(name)} is of {kind}, perhaps quantized; give weights of floating-point values"
            )


def _is_finite(values: Tensor) -> bool:
    # unlike isfinite().all() this takes no memory; aminmax propagates NaN
    return not values.numel() or all(map(torch.isfinite, torch.aminmax(values)))


def first_names(names: tuple[str, ...] | list[str], most: int = 3) -> str:
    """The first of some names, printable, for a message."""
    return ", ".join(short(name) for name in names[:most]) + (", …" if len(names) > most else "")
