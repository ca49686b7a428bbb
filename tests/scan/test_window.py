"""Windows map HU to units and back."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ctinterp_dagster.scan.window import BONE, LUNG, MAISI, RPLHR, SOFT_TISSUE, STORED, Window

ALL = (MAISI, RPLHR, SOFT_TISSUE, LUNG, BONE, STORED)


@pytest.mark.parametrize("window", ALL, ids=lambda w: w.name)
@given(hu=st.floats(-5000, 5000))
def test_units_and_hu_are_inverse(window: Window, hu: float) -> None:
    values = np.array([hu])
    assert window.from_unit(window.to_unit(values))[0] == pytest.approx(hu, abs=1e-9)


@pytest.mark.parametrize("window", ALL, ids=lambda w: w.name)
def test_the_ends_of_a_window_are_0_and_1_and_the_clip_stops_there(window: Window) -> None:
    values = window.clip(np.array([-1e4, window.low_hu, window.high_hu, 1e5]))
    assert window.to_unit(values).tolist() == pytest.approx([0, 0, 1, 1])


def test_the_published_windows_are_those_of_the_papers() -> None:
    assert [(w.low_hu, w.high_hu, w.width_hu) for w in (MAISI, RPLHR, SOFT_TISSUE)] == [
        (-1000, 1000, 2000),
        (-1024, 2048, 3072),
        (-160, 240, 400),
    ]


@pytest.mark.parametrize("window", ALL, ids=lambda w: w.name)
@given(hu=st.floats(-5000, 5000))
def test_symmetric_units_run_from_minus_1_to_1_where_units_run_from_0_to_1(window: Window, hu: float) -> None:
    values = np.array([hu])
    assert window.to_symmetric(values)[0] == pytest.approx(2 * window.to_unit(values)[0] - 1, abs=1e-9)


def test_the_numbers_that_results_depend_on_are_exact() -> None:
    values = np.array([-160.0, 40.0, 90.0, 240.0], np.float32)
    assert SOFT_TISSUE.to_symmetric(values).tolist() == [-1.0, 0.0, 0.25, 1.0]


def test_arrays_and_tensors_give_the_same_numbers() -> None:
    values = np.linspace(-2000, 3000, 101, dtype=np.float32)
    tensor = torch.from_numpy(values)
    for function in (MAISI.clip, MAISI.to_unit, MAISI.from_unit, SOFT_TISSUE.to_symmetric):
        got = function(tensor)
        assert got.dtype == torch.float32
        np.testing.assert_array_equal(got.numpy(), function(values))
        assert function(values).dtype == np.float32
