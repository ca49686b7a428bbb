"""Structures that an estimate has and the truth lacks, or lost; which voxels are of which tissue; what ranks errors."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter, maximum_filter, uniform_filter
from scipy.stats import mannwhitneyu

from ctinterp_dagster.evaluation.planting import LUNG, SOFT, WITHIN_HU
from ctinterp_dagster.evaluation.tissue import BoolArray
from ctinterp_dagster.scan.volume import FloatArray

WIDER = 1.6  # the second sigma of a difference of Gaussians over the first, close to a Laplacian
TOLERANCE_MM = 2.5  # half a thick slice of 5 mm
AROUND_MM, LUNG_HU = 15.0, -600.0
END_MM = 5.0
REGIONS_HU = {
    "air and lung": (-1100, -700),
    "edges of lung": (-700, -200),
    "soft tissue": (-200, 150),
    "bone": (250, 4000),
}
TISSUE_MM = 2.0
FEWEST_VOXELS = 1000


def blob_response(hu: FloatArray, spacing_mm: tuple[float, ...], size_mm: float) -> FloatArray:
    """Difference of Gaussians with which a bright ball answers its contrast at its centre.

    Args:
        hu: (z, y, x) HU.
        spacing_mm: distance of voxels along (z, y, x).
        size_mm: diameter of the ball.

    Returns:
        (z, y, x) HU.

    Source: Lowe 2004, Int. J. Comput. Vis. 60(2), section 3; a ball answers most at sigma = radius / sqrt(3).
    """
    sigma_mm = size_mm / 2 / np.sqrt(3)
    sigmas = [[width * sigma_mm / step for step in spacing_mm] for width in (1.0, WIDER)]
    grid = np.linspace(0, 8 * WIDER * sigma_mm, 4000)
    shell = 4 * np.pi * grid**2 * (grid[1] - grid[0])
    inside = grid <= size_mm / 2
    ball = [
        float((shell * np.exp(-(grid**2) / 2 / s**2) / (2 * np.pi * s**2) ** 1.5)[inside].sum())
        for s in (sigma_mm, WIDER * sigma_mm)
    ]
    narrow, wide = (gaussian_filter(hu, sigma) for sigma in sigmas)
    response: FloatArray = (narrow - wide) / (ball[0] - ball[1])
    return response


def blob_peaks(response: FloatArray, least_hu: float, spacing_mm: tuple[float, ...]) -> BoolArray:
    """Where a response is strong, and the greatest within `TOLERANCE_MM`.

    Args:
        response: (z, y, x) HU, of `blob_response`.
        least_hu: that a peak has.
        spacing_mm: distance of voxels along (z, y, x).

    Returns:
        (z, y, x).
    """
    greatest: BoolArray = response == _greatest(response, spacing_mm)
    return (response >= least_hu) & greatest


class BlobPeaks(NamedTuple):
    """Where a response has peaks, (z, y, x), and which of them another response lacks."""

    found: BoolArray
    unmatched: BoolArray

    def within(self, region: BoolArray) -> "BlobPeaks":
        """Those in a region (z, y, x)."""
        return BlobPeaks(self.found & region, self.unmatched & region)


def unmatched(found: FloatArray, other: FloatArray, least_hu: float, spacing_mm: tuple[float, ...]) -> BlobPeaks:
    """The peaks of one response, and those of them near which the other one has not even half of `least_hu`.

    Args:
        found: (z, y, x) HU, whose peaks are looked at.
        other: the same shape.
        least_hu: that a peak has.
        spacing_mm: distance of voxels along (z, y, x).

    Returns:
        Both (z, y, x).
    """
    here = blob_peaks(found, least_hu, spacing_mm)
    return BlobPeaks(here, here & (_greatest(other, spacing_mm) < least_hu / 2))


def _greatest(response: FloatArray, spacing_mm: tuple[float, ...]) -> FloatArray:
    size = [2 * round(TOLERANCE_MM / step) + 1 for step in spacing_mm]
    greatest: FloatArray = maximum_filter(response, size, mode="nearest")
    return greatest


def regions(truth_hu: FloatArray, spacing_mm: tuple[float, ...]) -> dict[str, BoolArray]:
    """Lung and soft tissue by the mean of the cube around a voxel, without the end slices.

    Crops lie within the body: a mask of the body would leave out lung that a crop cuts.

    Args:
        truth_hu: (z, y, x) HU.
        spacing_mm: distance of voxels along (z, y, x).

    Returns:
        (z, y, x) by the name of the tissue.
    """
    mean = uniform_filter(truth_hu, [round(AROUND_MM / step) for step in spacing_mm], mode="nearest")
    kept = without_ends(truth_hu, spacing_mm)
    return {LUNG: kept & (mean < LUNG_HU), SOFT: kept & (mean > -100) & (mean < WITHIN_HU[SOFT][1])}


def without_ends(hu: FloatArray, spacing_mm: tuple[float, ...]) -> BoolArray:
    """All voxels (z, y, x) but those of the slices within 5 mm of the ends."""
    ends = round(END_MM / spacing_mm[0])
    kept = np.zeros(hu.shape, bool)
    kept[ends : len(hu) - ends] = True
    return kept


def tissue_errors(
    estimate: FloatArray, truth: FloatArray, spacing_mm: tuple[float, ...]
) -> dict[str, tuple[float, int]]:
    """Mean |error| in HU and number of voxels by tissue, without the end slices.

    The tissue is told by the mean of the truth over 2 mm: by single values one would choose by their noise.

    Args:
        estimate: (z, y, x) HU.
        truth: the same shape.
        spacing_mm: distance of voxels along (z, y, x).

    Returns:
        (mean |error| in HU, voxels) by tissue; without tissues of fewer than 1000 voxels.
    """
    ends = round(END_MM / spacing_mm[0])
    size = [max(1, round(TISSUE_MM / step)) for step in spacing_mm]
    around, error = (values[ends:-ends] for values in (uniform_filter(truth, size), np.abs(estimate - truth)))
    inside = {name: (around > low) & (around < high) for name, (low, high) in REGIONS_HU.items()}
    counts = {name: int(where.sum()) for name, where in inside.items()}
    return {name: (float(error[inside[name]].mean()), n) for name, n in counts.items() if n >= FEWEST_VOXELS}


def noisy(hu: FloatArray, noise_hu: float) -> FloatArray:
    """A scan with more noise: Gaussian, of a grain of 0.8 pixels in plane, every slice its own.

    Args:
        hu: (z, y, x) HU.
        noise_hu: standard deviation of the noise.

    Returns:
        (z, y, x) HU; the noise is the same for the same shape.
    """
    white = np.random.default_rng(0).standard_normal(hu.shape, np.float32)
    grained = gaussian_filter(white, (0, 0.8, 0.8))
    result: FloatArray = hu + np.float32(noise_hu) * grained / grained.std()
    return result


def ranking(score: npt.NDArray[Any], bad: BoolArray) -> float | None:
    """Area under the ROC curve of a score for what is bad.

    Args:
        score: any shape; more is to mean worse.
        bad: the same shape.

    Returns:
        0 to 1, 0.5 by chance; None where nothing is bad, or all.
    """
    if bad.all() or not bad.any():
        return None
    return float(mannwhitneyu(score[bad], score[~bad]).statistic) / (float(bad.sum()) * float((~bad).sum()))
