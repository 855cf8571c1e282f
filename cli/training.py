"""Options of how a network is trained, which `train` and `compare` share, each written once."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

import click

from saliency_pipeline.cli.options import device_option, seed_option

AUGMENTATIONS = ("crop", "flip", "color", "none")

_NETWORK = (
    click.option(
        "--backbone", default="efficientnet_lite0", show_default=True, help="What is fine-tuned; see 'salpipe models'."
    ),
    click.option(
        "--weights",
        default="default",
        show_default=True,
        metavar="default|PATH",
        help="The backbone's, for --init half.",
    ),
    click.option(
        "--from", "start", metavar="RUN", help="The run, or file of a trained network, that --init full begins with."
    ),
    click.option(
        "--fuse-at",
        default="stem",
        show_default=True,
        metavar="stem|NAME",
        help="Where: after the stem or a stage of the backbone, such as layer2.",
    ),
    click.option("--alpha", type=float, default=1.0, show_default=True, help="Weight of the skip of multiply-skip."),
    click.option("--learn-alpha", is_flag=True, help="Train that weight too."),
    click.option("--method", metavar="NAME", help="Whose maps modulate.  [default: the first that the shards hold]"),
    click.option(
        "--map-target", type=int, default=0, show_default=True, metavar="N", help="Which of an image's maps, from 0."
    ),
    click.option(
        "--normalize",
        type=click.Choice(["minmax", "max", "p99", "none"]),
        default="minmax",
        show_default=True,
        help="How every map is brought into [0, 1]; none leaves raw values.",
    ),
    click.option(
        "--augment",
        type=click.Choice(AUGMENTATIONS),
        multiple=True,
        default=("crop", "flip"),
        show_default=True,
        help="Drawn for every training image, for image and map alike; give it again for several.",
    ),
)

_SPLITTING = (
    click.option(
        "--group-by",
        metavar="REGEX|FILE|level:N",
        help="Keep images of one person, scene or patient together in folds: what REGEX matches in their keys, the "
        "groups of a table FILE of keys and groups, or the N-th folder of their keys.",
    ),
    click.option(
        "--search-duplicates/--no-search-duplicates",
        default=True,
        show_default=True,
        help="Search for near duplicates among the frames, where the shards do not name them, and keep them together "
        "in folds.",
    ),
    click.option(
        "--allow-leaks",
        multiple=True,
        metavar="NAME",
        help="Accept a leak that is refused otherwise: label-maps, source-images or start-images; comparisons have no "
        "verdict then.",
    ),
)

_LEARNING = (
    click.option("--epochs", type=int, default=50, show_default=True, help="May be raised later to go on."),
    click.option(
        "--batch-size", type=int, default=16, show_default=True, help="Images a step, of all processes together."
    ),
    click.option("--optimizer", type=click.Choice(["sgd", "adamw"]), default="sgd", show_default=True),
    click.option("--momentum", type=float, default=0.9, show_default=True, help="Of SGD."),
    click.option("--weight-decay", type=float, default=0.0, show_default=True, help="Not for biases and norms."),
    click.option(
        "--schedule",
        type=click.Choice(["constant", "cosine", "step"]),
        default="constant",
        show_default=True,
        help="How the learning rate falls.",
    ),
    click.option("--warmup", type=float, default=0.0, show_default=True, metavar="EPOCHS", help="Linear rise to --lr."),
    click.option("--step-epochs", type=int, default=15, show_default=True, help="Of --schedule step: epochs a step."),
    click.option("--gamma", type=float, default=0.1, show_default=True, help="Of --schedule step: factor of a step."),
    click.option("--label-smoothing", type=float, default=0.0, show_default=True),
    click.option("--clip", type=float, metavar="NORM", help="Largest norm of the gradient."),
    click.option(
        "--class-weights",
        type=click.Choice(["none", "balanced"]),
        default="none",
        show_default=True,
        help="balanced weighs classes by the inverse of their frequency.",
    ),
    click.option(
        "--freeze",
        metavar="stem|NAME|features",
        help="Keep the backbone up to a stage as it is; features: train the head (and the branch) alone.",
    ),
    click.option(
        "--patience", type=int, metavar="EPOCHS", help="Stop after so many epochs without a better validation."
    ),
    click.option(
        "--precision",
        type=click.Choice(["auto", "fp32", "bf16"]),
        default="auto",
        show_default=True,
        help="auto measures and takes bf16 where it is faster and keeps the gradient.",
    ),
    device_option,
)


def _rates(text: Any) -> tuple[float, ...]:
    """The numbers of a text with commas between them."""
    return text if isinstance(text, tuple) else tuple(float(number) for number in str(text).split(","))


_RATE = click.option("--lr", type=float, default=1e-4, show_default=True, help="Highest learning rate.")
_RATES = click.option(
    "--lr",
    "lrs",
    type=_rates,
    metavar="LR,LR",
    default="1e-4",
    show_default=True,
    help="Highest learning rate. Of several, with commas between them, each arm, budget and pair gets the best on an "
    "inner split of its training images.",
)


def network_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What the network reads, how its branches meet, how folds are made; delivered as fields of `TrainConfig`."""
    return _with((*_NETWORK, *_SPLITTING), command)


def learning_options(seed: str, *, several_rates: bool = False) -> Callable[[Any], Any]:
    """How it learns; delivered under the names of `TrainConfig`'s fields.

    Args:
        seed: what `--seed` decides.
        several_rates: whether `--lr` takes several numbers, delivered as the tuple `lrs`.
    """
    rate = _RATES if several_rates else _RATE
    return lambda command: _with((*_LEARNING[:3], rate, *_LEARNING[3:], seed_option(seed)), command)


def augmentations(given: tuple[str, ...]) -> tuple[str, ...]:
    """What `--augment` means: `none` is none of them, and twice is once."""
    if "none" in given and len(given) > 1:
        raise click.UsageError("--augment none: leave out the others")
    return () if given == ("none",) else tuple(dict.fromkeys(given))


def _with(options: tuple[Callable[[Any], Any], ...], command: Callable[..., Any]) -> Callable[..., Any]:
    # a decorator that comes first is applied last
    return reduce(lambda decorated, option: option(decorated), reversed(options), command)
