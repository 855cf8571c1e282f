"""Settings of `salpipe convert`, and the default cut of masks."""

from __future__ import annotations

from dataclasses import dataclass

from saliency_pipeline.datasets.export_file import KINDS
from saliency_pipeline.errors import OptionError
from saliency_pipeline.images.record import SPLITS
from saliency_pipeline.settings import check_settings, documented, setting

CUT = "threshold=0.4"
"""The default of `salpipe show --cut`."""


@documented
@dataclass(frozen=True)
class ConvertConfig:
    """Settings of a conversion.

    Raises:
        OptionError: naming the option that is out of range.
    """

    splits: tuple[str, ...] = setting(
        (),
        "Export only images of this split. May be repeated.",
        choices=tuple(filter(None, SPLITS)),
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
    to: str = setting(
        "webdataset",
        "Format: tar files of WebDataset, Parquet tables of Hugging Face datasets, or folders of PNG files.",
        choices=KINDS,
    )
    maps_as: str = setting(
        "npy",
        "Files of maps (--to png): npy holds the raw values, png 16-bit gray values of maps without negative values.",
        choices=("npy", "png"),
    )

    def __post_init__(self) -> None:
        check_settings(self)
        if self.maps_as != "npy" and self.to != "png":
            raise OptionError(f"--maps-as {self.maps_as}: needs --to png; leave it out")
