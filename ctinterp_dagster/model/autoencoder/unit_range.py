"""HU to what an autoencoder sees, and back."""

from torch import Tensor

from ctinterp_dagster.scan.window import MAISI


def volume_to_unit(hu: Tensor) -> Tensor:
    """[-1000, 1000] HU as [0, 1], clipped; `unit_to_volume` is the way back.

    Residual decoding adds to a base that was never clipped, so HU outside [-1000, 1000] survive.

    Args:
        hu: (z, y, x) HU.

    Returns:
        (1, 1, z, y, x).
    """
    return MAISI.to_unit(MAISI.clip(hu))[None, None]


def unit_to_volume(unit: Tensor) -> Tensor:
    """What was decoded as HU; nothing is clipped.

    Args:
        unit: (1, 1, z, y, x) in unit range.

    Returns:
        (z, y, x) HU.
    """
    return MAISI.from_unit(unit[0, 0])
