"""Padding outside of the field of view: found, filled, given back."""

import numpy as np
import pytest
from scipy.ndimage import zoom

from ctinterp_dagster.scan.padding import find_padding, without_padding
from ctinterp_dagster.scan.volume import FloatArray
from tests.phantoms import phantom

from .conftest import plain_volume

CHEST = phantom("pad", (6, 48, 48), (2.0, 6.0, 6.0), 15.0).hu
RADIUS = np.hypot(*(np.mgrid[:48, :48] - 23.5))
OUTSIDE, WIDE = RADIUS > 25, RADIUS > 16


def padded(value_hu: float) -> FloatArray:
    hu = CHEST.copy()
    hu[:, OUTSIDE] = value_hu
    return hu


@pytest.mark.parametrize("value_hu", [-1500.0, -2000.0, -2048.0, -3024.0, -32768.0])
def test_padding_is_filled_from_the_plane_and_comes_back_as_it_was(value_hu: float) -> None:
    thick = plain_volume(padded(value_hu))
    filled, padding = without_padding(thick)
    assert padding is not None
    assert padding.value_hu == value_hu
    np.testing.assert_array_equal(filled.hu[:, ~OUTSIDE], thick.hu[:, ~OUTSIDE])
    assert filled.hu.min() >= CHEST.min()
    thin = np.repeat(filled.hu, 3, axis=0)
    back = padding.put_back(thin, (np.arange(18) - 1) / 3)
    assert (back[:, OUTSIDE] == value_hu).all()
    np.testing.assert_array_equal(back[:, ~OUTSIDE], thin[:, ~OUTSIDE])


def test_each_thin_slice_takes_the_padding_of_the_nearest_thick_one() -> None:
    hu = CHEST.copy()
    hu[:2, :, :10] = -2000
    hu[5] = -3024  # a whole slice, as a resampling leaves it
    filled, padding = without_padding(plain_volume(hu))
    assert padding is not None
    np.testing.assert_array_equal(filled.hu[5], filled.hu[4])
    back = padding.put_back(np.zeros((4, 48, 48), np.float32), [0.0, 1.4, 1.6, 4.6])
    assert [float((plane < -1200).mean()) for plane in back] == pytest.approx([10 / 48, 10 / 48, 0.0, 1.0])
    assert set(np.unique(back)) == {-3024, -2000, 0}


def test_values_that_a_resampling_mixed_at_the_rim_are_padding_too() -> None:
    hu = zoom(np.where(WIDE, -3024, CHEST).repeat(3, axis=1).repeat(3, axis=2), (1, 1.37, 1.37), order=3).astype(
        np.float32
    )
    filled, padding = without_padding(plain_volume(hu))
    assert padding is not None
    assert filled.hu.min() > -1200
    assert filled.hu[hu > -1200].tolist() == hu[hu > -1200].tolist()


def test_air_with_its_noise_and_streaks_are_not_padding() -> None:
    streaks = CHEST.copy()
    streaks[:, 20, :] = np.random.default_rng(0).normal(-1300, 100, (6, 48))
    for hu in (CHEST, CHEST - 100, CHEST.clip(-1024), streaks):
        volume = plain_volume(hu)
        assert find_padding(volume.hu) is None
        assert without_padding(volume) == (volume, None)
