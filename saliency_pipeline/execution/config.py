"""Settings of the workers of a command."""

from __future__ import annotations

from dataclasses import dataclass

from saliency_pipeline.errors import OptionError
from saliency_pipeline.settings import check_settings, setting

ENGINES = ("loky", "dask", "ray")


@dataclass(frozen=True)
class Workers:
    """Who does the work of a command.

    Raises:
        OptionError: an address for workers of this machine.
    """

    engine: str = setting(
        "loky", "loky: processes of this machine; dask, ray: a cluster that shares the folders.", choices=ENGINES
    )
    address: str | None = setting(
        None,
        "Address of the cluster's scheduler, such as tcp://10.0.0.1:8786.",
        default_text="a scheduler on this machine",
    )

    def __post_init__(self) -> None:
        check_settings(self)
        if self.address is not None and self.engine == "loky":
            raise OptionError(f"--address {self.address}: loky works on this machine alone; use --engine dask or ray")
