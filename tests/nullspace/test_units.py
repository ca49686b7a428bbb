"""The units in which networks see HU and give coefficients."""

import pytest
import torch

from ctinterp_dagster.nullspace.units import COEFFICIENT, INPUT, Unit


@pytest.mark.parametrize("unit", [INPUT, COEFFICIENT])
def test_hu_in_a_unit_and_back_are_the_same_hu(unit: Unit) -> None:
    hu = torch.tensor([[-1024.0, 0.0, 37.5], [240.0, 1000.0, 3071.0]])
    torch.testing.assert_close(unit.to_hu(unit.from_hu(hu)), hu)
    assert unit.from_hu(torch.tensor(unit.hu)) == 1
