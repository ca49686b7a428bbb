"""The units in which networks see HU and give coefficients."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Unit:
    """So many HU as 1.

    Attributes:
        hu: of the unit, above 0.
    """

    hu: float

    def from_hu(self, hu: Tensor) -> Tensor:
        """HU of any shape, as float, in this unit; `to_hu` is the way back."""
        return hu / self.hu

    def to_hu(self, values: Tensor) -> Tensor:
        """Values of any shape in this unit, in HU."""
        return values * self.hu


INPUT = Unit(1000.0)
"""Of what networks see and losses measure."""

COEFFICIENT = Unit(100.0)
"""Of the coefficients that networks give."""
