"""The units in which networks see HU and give coefficients."""

from dataclasses import dataclass
from typing import TypeVar

from torch import Tensor

Values = TypeVar("Values", float, Tensor)


@dataclass(frozen=True)
class Unit:
    """So many HU as 1.

    Attributes:
        hu: of the unit, above 0.
    """

    hu: float

    def from_hu(self, hu: Values) -> Values:
        """HU, a number or a tensor of any shape, in this unit; `to_hu` is the way back."""
        return hu / self.hu

    def to_hu(self, values: Values) -> Values:
        """Values in this unit, a number or a tensor of any shape, in HU."""
        return values * self.hu

    def variance_from_hu2(self, hu2: float) -> float:
        """A variance in HU squared, in this unit squared."""
        return hu2 / self.hu**2


INPUT = Unit(1000.0)
"""Of what networks see and losses measure."""

COEFFICIENT = Unit(100.0)
"""Of the coefficients that networks give."""
