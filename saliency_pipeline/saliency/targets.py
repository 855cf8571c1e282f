"""Targets: the classes of the source model that maps explain."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from saliency_pipeline.errors import OptionError, SalpipeError


@dataclass(frozen=True)
class Target:
    """The classes explained for each image.

    Attributes:
        kind: `predicted` (the highest logits), `label` (the data set's own class) or `fixed` (one class for all).
        count: T, number of explained classes per image.
        index: the class of a `fixed` target.
        label_index: for `label`, the source class of each data set class.
    """

    kind: Literal["predicted", "label", "fixed"]
    count: int = 1
    index: int = -1
    label_index: tuple[int, ...] = ()

    def classes(self, logits: Tensor, labels: Tensor | None = None) -> Tensor:
        """The explained classes (N, T) int64 for logits (N, classes) and, for `label`, the data set labels (N,)."""
        if self.kind == "predicted":
            return top_classes(logits, self.count)
        if self.kind == "fixed":
            return torch.full((len(logits), 1), self.index, device=logits.device)
        if labels is None:
            raise SalpipeError("--target label needs the images' labels; use --target predicted")
        table = torch.tensor(self.label_index, device=logits.device)
        return table[labels.to(logits.device)].unsqueeze(1)


def top_classes(logits: Tensor, count: int) -> Tensor:
    """The `count` classes (N, count) int64 of the highest logits, among equal ones the lowest class first."""
    if count < logits.shape[1]:
        # Selecting costs a tenth of sorting, but leaves it to the device which of equal logits it takes.
        values, classes = logits.topk(count + 1, dim=1)
        if bool((values[:, :-1] > values[:, 1:]).all()):
            return classes[:, :count]
    return logits.sort(dim=1, descending=True, stable=True).indices[:, :count]


def summed_scores(logits: Tensor, targets: Tensor) -> Iterator[Tensor]:
    """For each of the T explained classes (N, T) the sum of their logits over frames, to be differentiated.

    No logit depends on another frame, so that the gradient of the sum has those of all frames.
    """
    for target in targets.unbind(1):
        with torch.enable_grad():
            total = logits.gather(1, target[:, None]).sum()
        yield total  # outside, as the caller's own operations are not to be recorded


def check_target(text: str) -> None:
    """Check the value of `--target`, as far as possible without images and source model.

    Raises:
        OptionError: a K that is no number from 1 on, or nothing at all.
    """
    if not text.strip() or (text.startswith("top:") and not re.fullmatch(r"top:0*[1-9][0-9]{0,8}", text)):
        raise OptionError(f"--target {text}: use predicted, label, top:K with K from 1 on, or a class")


def parse_target(
    text: str,
    classes: int,
    class_index: Callable[[str], int],
    data_classes: Sequence[str] = (),
    unlabeled: int = 0,
    class_named: Callable[[str], int] | None = None,
) -> Target:
    """Read `predicted`, `label`, `top:K`, a class index or a class name.

    Args:
        text: value of `--target`.
        classes: number of classes of the source model.
        class_index: resolves an index, a WordNet id or a name to a class, or raises SalpipeError.
        data_classes: class names of the data set, for `label`.
        unlabeled: number of images without a label, for `label`.
        class_named: resolves a WordNet id or a name alone, for `label`: a data set's numbers are not the source
            model's indices. `class_index` where it is None.

    Raises:
        SalpipeError: for anything else, or where the data set's classes are not the source model's.
    """
    if text == "predicted":
        return Target("predicted")
    if match := re.fullmatch(r"top:(\d+)", text):
        count = int(match[1])
        if not 1 <= count <= classes:
            raise SalpipeError(f"--target {text}: the source model has {classes} classes; use top:1 to top:{classes}")
        return Target("predicted", count)
    if text != "label":
        try:
            return Target("fixed", index=class_index(text))
        except SalpipeError as error:
            raise SalpipeError(f"--target: {error}") from None
    remedy = "use --target predicted, top:K or a class name"
    if not data_classes or unlabeled:
        problem = f"{unlabeled} images have no label" if data_classes else "the images have no labels"
        raise SalpipeError(f"--target label: {problem}; {remedy}")
    try:
        return Target("label", label_index=tuple(map(class_named or class_index, data_classes)))
    except SalpipeError as error:
        raise SalpipeError(
            f"--target label: the data set's classes are not the source model's ({error}); {remedy}"
        ) from None
