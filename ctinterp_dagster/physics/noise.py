"""The noise that neighbouring slices share: how far their profiles overlap, told by the stack itself."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter, minimum_filter, uniform_filter

RealArray = npt.NDArray[np.floating | np.integer]

BODY_TISSUE_HU = (-150.0, 250.0)  # fat to contrast-filled blood: no lung, no bone, no air that is clipped
BORDER_HU = 150.0  # a voxel further outside of that is no noise
HIGH_PASS = 0.7  # sigma in pixels; anatomy that stays the same over some slices is gone, half of the noise is left
SMOOTH = 3.0  # sigma in pixels, at which anatomy is looked at
RIM = 4  # pixels around a flat one that must be tissue as well
FLATTEST = 0.25  # of the tissue of each window
OUTLIER = 4.5  # standard deviations
TILE_PIXELS = 16  # pixels: tiles of this size are taken as independent
LEAST_PIXELS, LEAST_TILES = 200, 8
LEAST_HIGH_PASSED_HU = 0.4  # noise; whole HU say nothing about less
MOST_VOXELS = 16_000_000
# Rounding to whole HU adds 1/12 HU^2 to each voxel, of which the high-pass leaves 1 - 2 g(0) + |g|^2.
ROUNDING_HU2 = (1 - 1 / (np.pi * HIGH_PASS**2) + 1 / (4 * np.pi * HIGH_PASS**2)) / 12


@dataclass(frozen=True)
class SharedNoise:
    """Correlation of the noise of neighbouring slices in flat tissue.

    Attributes:
        correlation: of slices one apart, 1 - g_1 / g_lags with g_k half the mean squared difference of slices k apart.
            It is (r_1 - r_lags) / (1 - r_lags) of plain correlations r: what anatomy adds to all lags alike drops out;
            the rest of it makes the value too high, never too low.
        standard_error: of the correlation, from its scatter over tiles.
        noise_hu: standard deviation of the high-passed noise, HU.
        lags: the lag at which noise is taken as new.
        semivariogram: (lags,) g_1 to g_lags, in units of g_lags.
        scatter: (lags, lags) covariance of the above as sums over tiles vary.
    """

    correlation: float
    standard_error: float
    noise_hu: float
    lags: int
    semivariogram: npt.NDArray[np.float64] = field(compare=False, repr=False)
    scatter: npt.NDArray[np.float64] = field(compare=False, repr=False)


def _tiles(window: npt.NDArray[np.float32]) -> npt.NDArray[np.float64] | None:
    """Sums over tiles of flat tissue: pixels, noise squared, g_1 to g_lags.

    Args:
        window: (lags + 1, y, x) HU.

    Returns:
        (2 + lags, tiles); None without flat tissue.
    """
    fine = window - gaussian_filter(window, (0, HIGH_PASS, HIGH_PASS))
    smooth = gaussian_filter(window, (0, SMOOTH, SMOOTH))
    low, high = BODY_TISSUE_HU
    tissue = (smooth > low) & (smooth < high) & (window > low - BORDER_HU) & (window < high + BORDER_HU)
    tissue = minimum_filter(tissue.all(axis=0) & (np.ptp(window, axis=0) > 0), 2 * RIM + 1, mode="constant")
    energy = uniform_filter(np.square(fine).mean(axis=0), 2 * RIM + 1)
    if tissue.sum() < LEAST_PIXELS or np.median(energy[tissue]) < LEAST_HIGH_PASSED_HU**2:
        return None
    slope = np.hypot(*np.gradient(smooth.mean(axis=0)))
    rough = sum(m / np.median(m[tissue]) for m in (energy, slope, np.ptp(smooth, axis=0)))
    y, x = np.nonzero(tissue & (rough <= np.quantile(rough[tissue], FLATTEST)))
    noise = fine[:, y, x]
    noise -= noise.mean(axis=1, keepdims=True)
    usual = np.abs(noise).max(axis=0) < OUTLIER * noise.std()
    noise, y, x = noise[:, usual], y[usual], x[usual]
    _, tile = np.unique(y // TILE_PIXELS * window.shape[2] + x // TILE_PIXELS, return_inverse=True)
    rounding = ROUNDING_HU2 if np.array_equal(window, np.rint(window)) else 0.0
    terms = [np.square(noise), *(np.square(noise[k:] - noise[:-k]) / 2 for k in range(1, len(noise)))]
    return np.stack([np.bincount(tile), *(np.bincount(tile, t.mean(axis=0) - rounding) for t in terms)])


def shared_noise(hu: RealArray, lags: int = 3) -> SharedNoise | None:
    """Measure the noise that neighbouring slices share; a box profile of touching slices gives 0, a triangle 0.25.

    Args:
        hu: (z, y, x) HU.
        lags: slices this far apart are taken to share no noise, 2 or more.

    Returns:
        None where fewer slices than that, or too little flat tissue with noise, allow no answer.

    Source: the semivariogram, Matheron 1963, Principles of geostatistics, Economic Geology 58(8); the standard error of
        a ratio of sums, Cochran 1977, Sampling Techniques, eq. 2.46 (here over tiles).
    """
    length = lags + 1
    if len(hu) < length:
        return None
    count = min(-(-len(hu) // length), max(1, MOST_VOXELS // (length * hu.shape[1] * hu.shape[2])))
    starts = np.unique(np.linspace(0, len(hu) - length, count).astype(int))
    found = [_tiles(np.asarray(hu[start : start + length], np.float32)) for start in starts]
    measured = [sums for sums in found if sums is not None]
    if not measured:
        return None
    sums = np.concatenate(measured, axis=1)
    pixels, squares, *variogram = sums.sum(axis=1)
    if sums.shape[1] < LEAST_TILES or (far := variogram[-1]) <= 0:
        return None
    near, tiles = variogram[0] / far, sums[2:] / far
    error = np.sqrt(np.square(tiles[0] - near * tiles[-1]).sum())
    noise_hu = float(np.sqrt(squares / pixels))
    return SharedNoise(float(1 - near), float(error), noise_hu, lags, np.array(variogram) / far, tiles @ tiles.T)
