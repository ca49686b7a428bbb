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

_RATIO = INPUT.from_hu(COEFFICIENT.hu)


def coefficient_to_input(values: Values) -> Values:
    """Values in the unit of coefficients, of any shape, in that of inputs; `input_to_coefficient` is the way back."""
    return values * _RATIO


def input_to_coefficient(values: Values) -> Values:
    """Values in the unit of inputs, of any shape, in that of coefficients; `coefficient_to_input` is the way back."""
    return values / _RATIO
