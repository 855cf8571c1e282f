"""Settings of `salpipe convert`."""

from __future__ import annotations

from dataclasses import dataclass

from saliency_pipeline.conversion import FORMATS
from saliency_pipeline.errors import OptionError
from saliency_pipeline.settings import check_settings, documented, setting

SPLITS = {"train": 0, "validation": 1, "test": 2}
"""Splits by name, with the values that shards store; the split of other images has an empty name."""


@documented
@dataclass(frozen=True)
class Chosen:
    """Images and methods of shards that are exported.

    Raises:
        OptionError: naming the option that is out of range.
    """

    splits: tuple[str, ...] = setting(
        (),
        "Export only images of this split. May be repeated.",
        choices=tuple(SPLITS),
        option="split",
        default_text="all images",
    )
    classes: tuple[str, ...] = setting(
        (),
        "Export only images of this class. May be repeated.",
        option="class",
        metavar="NAME",
        default_text="all images",
    )
    methods: tuple[str, ...] = setting(
        (),
        "Export only maps of this method, named with or without its parameters. May be repeated.",
        option="method",
        metavar="NAME",
        default_text="all that are stored",
    )

    def __post_init__(self) -> None:
        check_settings(self)


@documented
@dataclass(frozen=True)
class ConvertConfig(Chosen):
    """Settings of a conversion.

    Raises:
        OptionError: naming the option that is out of range.
    """

    to: str = setting(
        "webdataset",
        "Format: tar files of WebDataset, Parquet tables of Hugging Face datasets, or folders of PNG files.",
        choices=FORMATS,
    )
    maps_as: str = setting(
        "npy",
        "Files of maps (--to png): npy holds the raw values, png 16-bit gray values of maps without negative values.",
        choices=("npy", "png"),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.maps_as != "npy" and self.to != "png":
            raise OptionError(f"--maps-as {self.maps_as}: needs --to png; leave it out")
