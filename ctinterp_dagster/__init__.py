"""ctinterp: thick-slice CT to thin-slice CT by conditional 3D diffusion."""

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ctinterp_dagster.interpolation.api import interpolate

__all__ = ["interpolate"]

LOADED_NS = time.time_ns()
"""When this process began to load the package (epoch, ns): code that is written later is not what it runs."""


def __getattr__(name: str) -> Any:
    """Import the API when it is used, so that Dagster's definitions and `--help` do not wait for torch.

    Args:
        name: of the attribute; `interpolate` is the only one.

    Returns:
        The function of the API.

    Raises:
        AttributeError: it is another name.
    """
    if name != "interpolate":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from ctinterp_dagster.interpolation.api import interpolate  # noqa: PLC0415 (see above)

    return interpolate
