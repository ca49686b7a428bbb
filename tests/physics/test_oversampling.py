import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from ctinterp_dagster.physics.oversampling import oversampling


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 20, shape)


def test_pixels_that_show_noise_of_every_frequency_are_taken_as_they_are() -> None:
    assert oversampling(noise(4, 64, 48)) == 1


@pytest.mark.parametrize(("sigma", "told"), [((1.5, 1.5), 2), ((1.5, 0), 1), ((0, 1.5), 1), ((0.7, 0.7), 1)])
def test_pixels_of_half_the_resolution_are_told(sigma: tuple[float, float], told: int) -> None:
    scan = gaussian_filter(20 * noise(4, 128, 96), (0, *sigma))
    assert oversampling(np.rint(scan).astype(np.float32)) == told


@pytest.mark.parametrize("side", [1, 2, 3, 4])
def test_what_shows_nothing_is_taken_as_it_is(side: int) -> None:
    assert oversampling(np.zeros((3, side, side))) == 1
    assert oversampling(noise(3, side, side)) == 1
