"""Options of how a data set is read and which of its images are taken, shared by all commands that read one."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import click

from saliency_pipeline.cli.options import setting_options, take_settings
from saliency_pipeline.datasets.layout import ReadOptions
from saliency_pipeline.subsets.selection import Selection


def selection_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of `ReadOptions` and `Selection`.

    They are delivered as `layout`, the layout's name or `auto`; `reading`, a `ReadOptions`; and `selection`, a
    `Selection`.
    """

    @wraps(command)
    def with_selection(**options: Any) -> Any:
        reading, selection = take_settings(ReadOptions, options), take_settings(Selection, options)
        return command(reading=reading, selection=selection, **options)

    layout = click.option(
        "--layout",
        default="auto",
        show_default=True,
        metavar="NAME",
        help="Layout of the data set; auto recognizes it by its files.",
    )
    return layout(setting_options(ReadOptions)(setting_options(Selection)(with_selection)))
