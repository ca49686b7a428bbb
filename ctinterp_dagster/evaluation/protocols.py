"""How published papers score a restored scan: what they restore, which voxels count, and in which window.

Definitions are those of the papers' own programs, which were read and not copied: RPLHR-CT's
(github.com/smilenaxx/RPLHR-CT, commit dec3a78, `code/test.py`, `code/utils`), and I3Net's
(github.com/eeeric-code/I3Net, commit 30be7ba, `test.py`, `util_evaluation.py`, `data_prepare/step1_split.py`).
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from skimage.metrics import structural_similarity

from ctinterp_dagster.errors import EvaluationError, GeometryError
from ctinterp_dagster.evaluation.metrics import SSIM_SIDE, psnr_db, slice_mse
from ctinterp_dagster.physics.acquisition import UNTOLD, Acquisition
from ctinterp_dagster.physics.measurement import Measurement, measure
from ctinterp_dagster.physics.operator import ThickeningOperator
from ctinterp_dagster.scan.volume import FloatArray, Volume
from ctinterp_dagster.scan.window import RPLHR, Window

PlaneName = Literal["axial", "coronal", "sagittal"]

RPLHR_FACTOR = 5
RPLHR_ENDS = 5  # thin slices at each end
DECIMATION_PIXELS = 256  # of the middle of the image, along rows and columns
DECIMATION_LOW_HU, DECIMATION_WIDTH_HU = -1024.0, 4095.0
OFF_GRID = 0.1  # of a thin slice: positions in headers are rounded


@dataclass(frozen=True)
class Trial:
    """A thick scan to restore, and how the estimate is scored.

    Attributes:
        measurement: what a method is given; its operator's grid has the truth's slices, and may have more.
        truth_hu: (z, y, x).
        first: the slice of an estimate that is the truth's first.
        factor: thin slices a thick one.
        window: maps to [0, 1] before anything is computed.
        ends: slices of the truth that do not count, at each end.
        planes: of SSIM, each its own score.
    """

    measurement: Measurement
    truth_hu: FloatArray
    first: int
    factor: int
    window: Window
    ends: int
    planes: tuple[PlaneName, ...]

    def __post_init__(self) -> None:
        """Refuse a scan of which too little is left.

        Raises:
            EvaluationError: no slice is left between the ends, or an image is smaller than SSIM's window.
        """
        if self.truth_hu.shape[0] <= 2 * self.ends or min(self.truth_hu.shape[1:]) < SSIM_SIDE:
            raise EvaluationError(
                f"a truth of shape {self.truth_hu.shape} (z, y, x) is too small: expected more than {2 * self.ends} "
                f"slices of {SSIM_SIDE} x {SSIM_SIDE} pixels"
            )

    def score(self, estimate_hu: FloatArray) -> dict[str, float]:
        """`psnr_db` from the mean square error of all voxels that count, and `ssim_<plane>`, mean over its images.

        Args:
            estimate_hu: (z, y, x) on the grid of the measurement's operator.

        Returns:
            PSNR in dB and SSIM, at most 1, by name.

        Raises:
            EvaluationError: the estimate equals the truth, so that PSNR is infinite.
        """
        kept = slice(self.ends, len(self.truth_hu) - self.ends)
        truth = self.truth_hu[kept]
        estimate = estimate_hu[self.first :][: len(self.truth_hu)][kept]
        scores = {"psnr_db": psnr_db(slice_mse(estimate, truth, self.window).mean(), self.window)}
        for plane in self.planes:
            axis = ("axial", "coronal", "sagittal").index(plane)
            pairs = zip(np.moveaxis(estimate, axis, 0), np.moveaxis(truth, axis, 0), strict=True)
            scores[f"ssim_{plane}"] = float(np.mean([ssim_padded(a, b, self.window) for a, b in pairs]))
        return scores


def ssim_padded(estimate_hu: FloatArray, truth_hu: FloatArray, window: Window) -> float:
    """SSIM of two images with zeros around them, over all pixels.

    Args:
        estimate_hu: (y, x) HU.
        truth_hu: the same shape.
        window: to which values are clipped, and whose units they are compared in.

    Returns:
        A number of at most 1, which equal images have.

    Source: Wang et al. 2004, eq. 13, with an 11x11 Gaussian window of sigma 1.5 pixels, K1 = 0.01, K2 = 0.03 and a
        range of 1, as both programs have it; scikit-image leaves out the border of 5 pixels, which are the zeros.
    """
    one, other = (
        np.pad(window.to_unit(window.clip(hu)).astype(np.float64), SSIM_SIDE // 2) for hu in (estimate_hu, truth_hu)
    )
    return float(
        structural_similarity(one, other, data_range=1.0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False)
    )


def rplhr(thick: Volume, thin: Volume, acquisition: Acquisition = UNTOLD, *, name: str = "") -> Trial:
    """A pair of RPLHR-CT: 5 mm and 1 mm slices of one scan, of which thick slice k lies on thin slice 5 k.

    Five thin slices are dropped at each end. A method is given all thick slices, and restores all that they cover.

    Args:
        thick: the thick scan, HU.
        thin: the thin scan, HU, on the same pixel grid.
        acquisition: what user and tags say of the thick slices.
        name: of the scan, for messages.

    Returns:
        The trial, whose truth is the thin slices that the thick ones cover.

    Raises:
        GeometryError: the images differ in size, or the thin slices are not five to each thick one, in its middle.
        ScanError: the thick scan is no axial CT in HU.

    Source: Yu et al. 2022, MICCAI (arXiv 2206.06253), section 4.
    """
    if thick.hu.shape[1:] != thin.hu.shape[1:]:
        raise GeometryError(
            f"{name}: images of {thick.hu.shape[1:]} and {thin.hu.shape[1:]} pixels: expected one field of view"
        )
    fine_mm = thick.spacing_mm[0] / RPLHR_FACTOR
    middle = float((thick.direction.T @ np.subtract(thick.origin_mm, thin.origin_mm))[2]) / fine_mm
    on_slice = round(middle)
    if abs(thin.spacing_mm[0] - fine_mm) > OFF_GRID * fine_mm or abs(middle - on_slice) > OFF_GRID:
        raise GeometryError(
            f"{name}: thin slices every {thin.spacing_mm[0]:g} mm, thick ones every {thick.spacing_mm[0]:g} mm, the "
            f"first of these {middle:.2f} thin slices above the first of those: expected {RPLHR_FACTOR} thin slices a "
            "thick one, and its middle on a thin slice; leave out --protocol"
        )
    measurement = measure(thick, fine_mm, acquisition, name=name)
    first = RPLHR_FACTOR // 2 - on_slice
    covered = slice(max(0, -first), max(0, measurement.operator.n_thin - first))
    return Trial(
        measurement,
        thin.hu[covered],
        max(0, first),
        RPLHR_FACTOR,
        RPLHR,
        RPLHR_ENDS,
        ("axial",),
    )


def decimation(thin: Volume, factor: int) -> Trial:
    """Every `factor`-th slice of the middle 256 x 256 pixels of a scan, from which the others are restored.

    The slices at the far end beyond the last kept one are left out, `factor` more are dropped at each end; the kept
    slices count. The window is 4095 HU wide from the lowest value on, which is -1024 at least.

    Args:
        thin: the scan, HU.
        factor: 2 or more.

    Returns:
        The trial, whose truth is the whole scan in that window.

    Raises:
        EvaluationError: no slice is left between the ends, or a side of the images is below SSIM's 11 pixels.

    Source: Song et al. 2024, IEEE TMI 43(9) (I3Net, arXiv 2405.02857), section IV, after Peng et al. 2020, CVPR
        (SAINT), who score the restored slices alone, in a window of 4000 HU.
    """
    low_hu = max(float(thin.hu.min()), DECIMATION_LOW_HU)
    height, width = thin.hu.shape[1:]
    side_y, side_x = min(height, DECIMATION_PIXELS), min(width, DECIMATION_PIXELS)
    y, x = height // 2 - side_y // 2, width // 2 - side_x // 2
    count = (thin.depth - 1) // factor + 1
    whole = thin.with_slices(thin.hu[: (count - 1) * factor + 1, y : y + side_y, x : x + side_x], 0, thin.spacing_mm[0])
    operator = ThickeningOperator.from_geometry(
        n_thick=count,
        thick_spacing_mm=factor * thin.spacing_mm[0],
        thick_thickness_mm=thin.spacing_mm[0],
        n_thin=whole.depth,
        thin_spacing_mm=thin.spacing_mm[0],
        thin_thickness_mm=thin.spacing_mm[0],
        first_thin_offset_mm=0.0,
        profile="box",
    )
    kept = whole.with_slices(np.ascontiguousarray(whole.hu[::factor]), 0, factor * thin.spacing_mm[0])
    window = Window("decimation", low_hu, low_hu + DECIMATION_WIDTH_HU)
    planes: tuple[PlaneName, ...] = ("axial", "coronal", "sagittal")
    return Trial(Measurement(kept, operator), whole.hu, 0, factor, window, factor, planes)
