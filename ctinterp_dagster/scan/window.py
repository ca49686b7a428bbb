"""Named ranges of HU."""

from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from ctinterp_dagster.scan.volume import FloatArray


class _Array(Protocol):
    """What NumPy arrays and torch tensors share, as far as windows need it."""

    def clip(self, low: float, high: float, /) -> Any: ...
    def __add__(self, other: float, /) -> Any: ...
    def __mul__(self, other: float, /) -> Any: ...
    def __truediv__(self, other: float, /) -> Any: ...


Values = TypeVar("Values", bound=_Array)


@dataclass(frozen=True)
class Window:
    """A range of HU and the affine map that takes it to [0, 1]. Works on NumPy arrays and torch tensors alike.

    Attributes:
        name: how tables call it.
        low_hu: maps to 0.
        high_hu: maps to 1.
    """

    name: str
    low_hu: float
    high_hu: float

    @property
    def width_hu(self) -> float:
        """The data range of metrics in this window, and what a difference of 1 unit is in HU."""
        return self.high_hu - self.low_hu

    @property
    def centre_hu(self) -> float:
        """The middle, which displays call the level."""
        return (self.low_hu + self.high_hu) / 2

    def to_symmetric(self, hu: Values) -> Values:
        """HU of any shape to -1 to 1 within the window, 0 at its centre; nothing is clipped."""
        symmetric: Values = (hu + -self.centre_hu) / (self.width_hu / 2)
        return symmetric

    def clip(self, hu: Values) -> Values:
        """HU of any shape, limited to [low_hu, high_hu]."""
        clipped: Values = hu.clip(self.low_hu, self.high_hu)
        return clipped

    def to_unit(self, hu: Values) -> Values:
        """HU of any shape to units of the window, 0 to 1 within; nothing is clipped, so that `from_unit` inverts it."""
        unit: Values = (hu + -self.low_hu) * (1.0 / self.width_hu)
        return unit

    def from_unit(self, unit: Values) -> Values:
        """Units of the window, of any shape, to HU; nothing is clipped."""
        hu: Values = unit * self.width_hu + self.low_hu
        return hu


MAISI = Window("maisi", -1000.0, 1000.0)
"""What NVIDIA's MAISI autoencoder was trained on, and what metrics clip to unless they say otherwise.

Source: Guo et al., 2024, arXiv 2409.11169.
"""

RPLHR = Window("rplhr", -1024.0, 2048.0)
"""The range in which papers on RPLHR-CT give PSNR. Source: Yu et al., 2022, arXiv 2206.06253."""

SOFT_TISSUE = Window("soft_tissue", -160.0, 240.0)
"""Organs: level 40, width 400."""

LUNG = Window("lung", -1350.0, 150.0)
"""For display: level -600, width 1500."""

BONE = Window("bone", -500.0, 1300.0)
"""For display: level 400, width 1800."""

BRAIN = Window("brain", 0.0, 80.0)
"""For display: level 40, width 80."""

STORED = Window("stored", -1024.0, 3071.0)
"""12 bits, the range of a CT without extended scale: below is padding outside of the field, above is metal."""

BODY_ABOVE_HU = -500.0
"""What is denser belongs to the body; air, lung and foam do not."""

LUNG_TISSUE_HU = (-950.0, -600.0)
LUNG_SHARE = 0.08
"""Of the voxels: foam around a head has less, a chest has more."""


def second_window(hu: FloatArray) -> Window:
    """What a scan is shown in beside soft tissue: lung where that is more than 8 % of the voxels, else bone.

    Args:
        hu: (z, y, x) HU.

    Returns:
        The window `LUNG` or `BONE`.
    """
    low, high = LUNG_TISSUE_HU
    return LUNG if ((hu > low) & (hu < high)).mean() > LUNG_SHARE else BONE
