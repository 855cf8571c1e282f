"""Settings of `salpipe assess`."""

from __future__ import annotations

from dataclasses import dataclass

from saliency_pipeline.settings import SEEDS, check_settings, documented, setting


@documented
@dataclass(frozen=True)
class AssessConfig:
    """Settings that decide what is measured.

    Raises:
        OptionError: naming the option that is out of range.
    """

    methods: tuple[str, ...] = setting(
        (),
        "Assess maps of this method, named with or without its parameters. May be repeated; random, center-prior and "
        "edges are always assessed too.",
        option="method",
        metavar="NAME",
        default_text="all that are stored",
    )
    metrics: tuple[str, ...] = setting(
        (),
        "Metric with its parameters. May be repeated.",
        option="metric",
        metavar="NAME[:key=value,...]",
        default_text="all but infidelity",
    )
    images: int = setting(
        200,
        "Images for metrics that need the network, sampled by a hash of their keys; metrics of maps alone take all.",
        range=(1, 1 << 30),
        metavar="N",
    )
    explained: int = setting(
        50,
        "Images, the first of these, for metrics that explain changed frames or networks, which takes many maps each.",
        range=(1, 1 << 30),
        option="explained-images",
        metavar="N",
    )
    seed: int = setting(0, "Random seed of the sample.", range=SEEDS)

    def __post_init__(self) -> None:
        check_settings(self)
