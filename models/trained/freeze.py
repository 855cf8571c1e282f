"""Freezing of the first layers of a network."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from torch import nn

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.models.probe import layers_in_order, own_random_state
from saliency_pipeline.models.source.build import head_tensors
from saliency_pipeline.models.source.registry import find_source
from saliency_pipeline.models.trained.stem import STEM, find_stem, stages
from saliency_pipeline.models.trained.two_branch import NetworkSpec

ALL = "features"


def freeze(network: nn.Module, spec: NetworkSpec, until: str) -> tuple[str, ...]:
    """Freeze the backbone's layers up to and including one; the saliency branch is never frozen.

    Args:
        network: from `build_network(spec)`; the frozen parameters no longer require gradients.
        spec: its specification.
        until: `stem`, a stage such as `layer2` or `blocks.3`, any other module, or `features` for all but the head.

    Returns:
        Names of the frozen layers in the network, which must stay in eval mode, so that statistics of norms are frozen
        too.

    Raises:
        SalpipeError: no such module.
    """
    backbone = network.get_submodule("backbone")
    library, bare = find_source(spec.backbone)
    if spec.fusion == "input":
        raise SalpipeError(f"--freeze {until}: would freeze the fourth channel of --fusion input too; leave out either")
    names = list(dict.fromkeys(step.name for step in layers_in_order(backbone, spec.size)))
    order = set(names)
    if until == ALL:
        with own_random_state():
            head = {name.rpartition(".")[0] for name in head_tensors(library, bare)}
        frozen = [name for name in names if name not in head]
    else:
        end = find_stem(spec.backbone, backbone, spec.size).layers[-1] if until == STEM else until
        inside = [i for i, name in enumerate(names) if name == end or name.startswith(f"{end}.")]
        if not inside:
            names_of_stages = stages(backbone)
            near = difflib.get_close_matches(until, names_of_stages, n=4, cutoff=0.3) or names_of_stages[:8]
            raise SalpipeError(
                f"--freeze {until}: no layer of {spec.backbone}; there are stem, {ALL}, {', '.join(near)}"
            )
        frozen = names[: inside[-1] + 1]
    kept = [name for name in names if name not in set(frozen)]
    for name, parameter in backbone.named_parameters():
        # a parameter may belong to a block (ConvNeXt's layer scale): it is frozen with the last layer of that block
        owner = name.rpartition(".")[0]
        if owner in order:
            stays = owner in frozen
        else:
            stays = not any(layer.startswith(f"{owner}." if owner else "") for layer in kept)
        if stays:
            parameter.requires_grad_(False)
    return tuple(f"backbone.{name}" for name in frozen)


def training_mode(network: nn.Module, frozen: Iterable[str]) -> None:
    """Set training mode, except for the layers that `freeze` returned."""
    network.train()
    for name in frozen:
        network.get_submodule(name).eval()
