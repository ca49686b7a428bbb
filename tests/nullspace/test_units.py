"""The units in which networks see HU and give coefficients."""

import pytest
import torch

from ctinterp_dagster.nullspace.objective import SOFT_WINDOW, WIDE_WINDOW
from ctinterp_dagster.nullspace.units import (
    COEFFICIENT,
    INPUT,
    Unit,
    coefficient_to_input,
    input_to_coefficient,
)


@pytest.mark.parametrize("unit", [INPUT, COEFFICIENT])
def test_hu_in_a_unit_and_back_are_the_same_hu(unit: Unit) -> None:
    hu = torch.tensor([[-1024.0, 0.0, 37.5], [240.0, 1000.0, 3071.0]])
    torch.testing.assert_close(unit.to_hu(unit.from_hu(hu)), hu)
    assert unit.from_hu(torch.tensor(unit.hu)) == 1


@pytest.mark.parametrize("unit", [INPUT, COEFFICIENT])
def test_a_variance_is_in_the_unit_squared(unit: Unit) -> None:
    hu = torch.tensor([-1024.0, 0.0, 37.5], dtype=torch.float64)
    assert unit.variance_from_hu2(float(hu.var())) == pytest.approx(float(unit.from_hu(hu).var()), rel=1e-12)


def test_coefficients_in_the_unit_of_inputs_and_back_are_the_same() -> None:
    coefficients = torch.tensor([[-3.7, 0.0, 0.01], [1.0, 2.5, 12.0]])
    torch.testing.assert_close(input_to_coefficient(coefficient_to_input(coefficients)), coefficients)
    torch.testing.assert_close(INPUT.to_hu(coefficient_to_input(coefficients)), COEFFICIENT.to_hu(coefficients))


def test_the_windows_of_the_loss_are_in_units_of_1000_hu() -> None:
    assert (WIDE_WINDOW, SOFT_WINDOW) == ((-1.0, 1.0), (-0.16, 0.24))
