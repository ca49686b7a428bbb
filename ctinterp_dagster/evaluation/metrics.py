"""How far one estimate is from the truth, with every intensity window and every dropped slice stated."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
from skimage.metrics import structural_similarity

from ctinterp_dagster.errors import EvaluationError
from ctinterp_dagster.evaluation.tissue import BoolArray, body_mask, interiors, noise_along_z_hu, quiet_tissue
from ctinterp_dagster.scan.volume import FloatArray
from ctinterp_dagster.scan.window import BODY_ABOVE_HU, MAISI, RPLHR, SOFT_TISSUE, Window

SSIM_SIDE = 11  # pixels: a Gaussian of sigma 1.5 cut at 3.5 sigma
SSIM_SIDE_3D = 7  # voxels: scikit-image's default window
SLAB = 16  # slices of 3D SSIM at a time, so that memory does not grow with depth


@dataclass(frozen=True)
class Scores:
    """All metrics of one method on one case.

    PSNR, SSIM and MAE clip both volumes to a window first: [-1000, 1000] HU unless the name says otherwise
    (rplhr: [-1024, 2048], soft: [-160, 240]). Everything but `psnr_all_db` and `residual_hu` leaves out the first and
    last slices, where a method extrapolates: as many as reach into one thick slice (`end_slices`).

    Attributes:
        psnr_db: from the MSE of the volume, dB.
        psnr_all_db: the same over all slices.
        psnr_rplhr_db: in the window of the RPLHR-CT papers.
        psnr_soft_db: in the soft-tissue window.
        ssim: mean over axial slices, 11x11 Gaussian window of sigma 1.5.
        ssim_soft: the same in the soft-tissue window.
        ssim_3d: 7x7x7 uniform window.
        mae_hu: mean absolute error.
        mae_body_hu: the same inside `body_mask`.
        residual_hu: mean |A x - y|: what is left when the estimate is thickened again.
        noise_floor_db: PSNR of an estimate that is perfect but for noise; None where noise along z cannot be measured.
        noise_ratio: noise along z of the estimate over that of the truth; below 1 is smoother than a real thin scan.
        shift_air_hu: mean of estimate - truth where air is alone, not clipped; None where there is none.
        shift_fat_hu: the same for fat.
        shift_muscle_hu: the same for muscle.
        shift_bone_hu: the same for bone.
        mae_by_position_hu: MAE by position in the thick slice, from its lower face to its upper one.
    """

    psnr_db: float
    psnr_all_db: float
    psnr_rplhr_db: float
    psnr_soft_db: float
    ssim: float
    ssim_soft: float
    ssim_3d: float
    mae_hu: float
    mae_body_hu: float
    residual_hu: float
    noise_floor_db: float | None
    noise_ratio: float | None
    shift_air_hu: float | None
    shift_fat_hu: float | None
    shift_muscle_hu: float | None
    shift_bone_hu: float | None
    mae_by_position_hu: tuple[float, ...]

    def row(self) -> dict[str, float | None]:
        """The numbers of a line of `per_case.csv`: all but `mae_by_position_hu`."""
        names = [field.name for field in fields(self) if field.name != "mae_by_position_hu"]
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class Truth:
    """A thin volume and what is derived from it once, for every method that is scored against it.

    Attributes:
        hu: (z, y, x) HU.
        factor: thin slices a thick one, not always whole.
        body: (z, y, x), where the patient is (`tissue.body_mask`).
        quiet: (z - 3, y, x), homogeneous soft tissue (`tissue.quiet_tissue`).
        interior: by tissue (z, y, x), where it is alone (`tissue.interiors`).
        noise_hu: standard deviation of the noise along z, HU; None where it cannot be estimated.
    """

    hu: FloatArray
    factor: float
    body: BoolArray
    quiet: BoolArray
    interior: Mapping[str, BoolArray]
    noise_hu: float | None

    @classmethod
    def of(cls, hu: FloatArray, *, factor: float) -> "Truth":
        """Check a thin volume and measure its body and its noise.

        Args:
            hu: (z, y, x) HU; thick slice k is centred on thin index factor * k + (factor - 1) / 2.
            factor: thin slices a thick one, above 1.

        Returns:
            The volume with its body, its homogeneous tissue and its noise, HU.

        Raises:
            EvaluationError: what `check_size` refuses, values that are not finite, or no body.
        """
        check_size(hu.shape, factor)
        _check_finite(hu, "the truth")
        body, quiet, ends = body_mask(hu), quiet_tissue(hu), end_slices(factor)
        if not body[ends:-ends].any():
            raise EvaluationError(
                f"the truth has no body: nothing above {BODY_ABOVE_HU:g} HU is wider than 5 pixels between the end "
                "slices; check that the values are HU"
            )
        noise_hu = noise_along_z_hu(hu, quiet)
        return cls(hu, factor, body, quiet, interiors(hu, ends, noise_hu), noise_hu)

    @property
    def kept(self) -> slice:
        """The slices of the headline: all but those at each end."""
        ends = end_slices(self.factor)
        return slice(ends, self.hu.shape[0] - ends)

    @property
    def noise_floor_db(self) -> float | None:
        """PSNR of the best possible estimate: MSE = (1 - 1/f) sigma^2, the noise that a thick slice averages away.

        It takes the noise as white along z and as strong everywhere as in soft tissue, so it is an estimate.

        Source: the variance of f independent values about their mean, or what a projection on n / f of n leaves.
        """
        if self.noise_hu is None:
            return None
        return psnr_db((1 - 1 / self.factor) * self.noise_hu**2, MAISI)


def end_slices(factor: float) -> int:
    """How many slices are dropped at each end: those that reach into one thick slice."""
    return math.ceil(factor)


def check_size(shape: tuple[int, ...], factor: float) -> None:
    """Refuse a truth of which too little is left without its end slices.

    Args:
        shape: (z, y, x).
        factor: thin slices a thick one.

    Raises:
        EvaluationError: too few slices or pixels, or a factor that is not above 1.
    """
    if not factor > 1:
        raise EvaluationError(f"factor must be more than 1 thin slice a thick one, got {factor:g}")
    ends = end_slices(factor)
    least = (2 * ends + max(ends, SSIM_SIDE_3D), SSIM_SIDE, SSIM_SIDE)
    if len(shape) != 3 or any(size < need for size, need in zip(shape, least, strict=True)):
        raise EvaluationError(
            f"a truth of shape {shape} is too small at factor {factor:g}: expected at least {least} (z, y, x), "
            f"{ends} slices are dropped at each end; use a taller volume"
        )


def score(estimate_hu: FloatArray, truth: Truth, *, residual_hu: float) -> Scores:
    """Every metric of one estimate.

    Args:
        estimate_hu: (z, y, x) HU on the grid of the truth.
        truth: the thin volume and what is derived from it.
        residual_hu: mean |A x - y| of this estimate, HU, from the operator that made the thick volume.

    Returns:
        PSNR in dB, SSIM, errors in HU and noise; None for what this truth does not show.

    Raises:
        EvaluationError: shapes differ, a value is not finite, or the estimate equals the truth in a window.
    """
    check_estimate(estimate_hu, truth)
    if not (np.isfinite(residual_hu) and residual_hu >= 0):
        raise EvaluationError(
            f"the residual |A x - y| must be finite and not negative, got {residual_hu} HU: mend the method"
        )
    kept, mse = truth.kept, slice_mse(estimate_hu, truth.hu, MAISI)
    estimate, target = estimate_hu[kept], truth.hu[kept]
    error = np.abs(MAISI.clip(estimate) - MAISI.clip(target))
    by_slice = error.mean(axis=(1, 2), dtype=np.float64)
    shifts = {name: _shift(estimate, target, inside[kept]) for name, inside in truth.interior.items()}
    return Scores(
        psnr_db=psnr_db(mse[kept].mean(), MAISI),
        psnr_all_db=psnr_db(mse.mean(), MAISI),
        psnr_rplhr_db=psnr_db(slice_mse(estimate, target, RPLHR).mean(), RPLHR),
        psnr_soft_db=psnr_db(slice_mse(estimate, target, SOFT_TISSUE).mean(), SOFT_TISSUE),
        ssim=ssim_axial(estimate, target, MAISI),
        ssim_soft=ssim_axial(estimate, target, SOFT_TISSUE),
        ssim_3d=ssim_volume(estimate, target, MAISI),
        mae_hu=float(by_slice.mean()),
        mae_body_hu=float(error[truth.body[kept]].mean(dtype=np.float64)),
        residual_hu=float(residual_hu),
        noise_floor_db=truth.noise_floor_db,
        noise_ratio=noise_ratio(estimate_hu, truth),
        shift_air_hu=shifts["air"],
        shift_fat_hu=shifts["fat"],
        shift_muscle_hu=shifts["muscle"],
        shift_bone_hu=shifts["bone"],
        mae_by_position_hu=mae_by_position(by_slice, truth.factor, kept.start),
    )


def mae_by_position(error_hu: npt.NDArray[np.float64], factor: float, first: int) -> tuple[float, ...]:
    """Mean error in each of ceil(factor) equal parts of the thick slices, from their lower face to their upper one.

    A thin slice counts in each part by its share of it: where the factor is whole, part p is the slices with
    i mod factor = p; where it is not, an error that is symmetric about the middle of the thick slice stays so.

    Args:
        error_hu: (n,) of each thin slice.
        factor: thin slices a thick one.
        first: index of the first of these slices; thick slice 0 begins at the lower face of thin slice 0.

    Returns:
        Means in HU, one a part.
    """
    parts, end = math.ceil(factor), first + len(error_hu)
    faces = np.clip(np.arange((math.ceil(end / factor) * parts) + 1) * (factor / parts), first, end)
    integral = np.interp(faces, np.arange(first, end + 1), np.concatenate([[0.0], np.cumsum(error_hu)]))
    sums, lengths = np.diff(integral), np.diff(faces)
    return tuple(float(sums[p::parts].sum() / lengths[p::parts].sum()) for p in range(parts))


def check_estimate(estimate_hu: FloatArray, truth: Truth) -> None:
    """Refuse an estimate that cannot be compared with the truth.

    Args:
        estimate_hu: (z, y, x) HU.
        truth: what it is compared with.

    Raises:
        EvaluationError: shapes differ or a value is not finite.
    """
    if estimate_hu.shape != truth.hu.shape:
        raise EvaluationError(
            f"the estimate has shape {estimate_hu.shape} and the truth {truth.hu.shape} (z, y, x): interpolate onto "
            "the truth's grid"
        )
    _check_finite(estimate_hu, "the estimate")


def _check_finite(hu: FloatArray, what: str) -> None:
    bad = sum(int(np.count_nonzero(~np.isfinite(plane))) for plane in hu)
    if bad:
        raise EvaluationError(
            f"{what} has {bad} of {hu.size} values that are not finite, which no metric is defined for: "
            "mend the method or the file"
        )


def slice_mse(estimate_hu: FloatArray, truth_hu: FloatArray, window: Window) -> npt.NDArray[np.float64]:
    """Mean squared error of each slice, (z,) in HU^2, of values clipped to the window."""
    pairs = zip(estimate_hu, truth_hu, strict=True)
    return np.array([np.mean((window.clip(a) - window.clip(b)) ** 2, dtype=np.float64) for a, b in pairs])


def psnr_db(mse_hu2: float, window: Window) -> float:
    """Peak signal-to-noise ratio 10 log10((high - low)^2 / MSE), dB.

    Args:
        mse_hu2: mean square error in HU^2, above 0.
        window: to which the values were clipped.

    Returns:
        dB; any finite number.

    Raises:
        EvaluationError: the MSE is 0: the ratio is infinite, and no record holds that.

    Source: the peak is the width of the window, as in Yu et al. 2022 (RPLHR-CT), who divide by it first.
    """
    if mse_hu2 <= 0:
        raise EvaluationError(
            f"PSNR is infinite, the volumes are equal in [{window.low_hu:g}, {window.high_hu:g}] HU: "
            "was the truth given twice?"
        )
    return float(10 * np.log10(window.width_hu**2 / mse_hu2))


def _unit(hu: FloatArray, window: Window) -> FloatArray:
    return np.asarray((window.clip(hu) - window.low_hu) / window.width_hu, dtype=np.float32)


def ssim_axial(estimate_hu: FloatArray, truth_hu: FloatArray, window: Window) -> float:
    """Mean over slices of the SSIM with an 11x11 Gaussian window of sigma 1.5 pixels.

    Args:
        estimate_hu: (z, y, x) HU.
        truth_hu: the same shape.
        window: to which values are clipped, and whose units they are compared in.

    Returns:
        At most 1, where both are equal.

    Source: Wang et al. 2004, eq. 13, K1 = 0.01, K2 = 0.03; scikit-image leaves out a border of 5 pixels.
    """
    values = [
        structural_similarity(
            _unit(a, window),
            _unit(b, window),
            data_range=1.0,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        for a, b in zip(estimate_hu, truth_hu, strict=True)
    ]
    return float(np.mean(values))


def ssim_volume(estimate_hu: FloatArray, truth_hu: FloatArray, window: Window) -> float:
    """scikit-image's SSIM of whole volumes, computed by slabs, with a uniform window of 7x7x7.

    Args:
        estimate_hu: (z, y, x) HU.
        truth_hu: of the same shape.
        window: to which both are clipped, and whose width is the range of values.

    Returns:
        At most 1, where both are equal.

    Source: Wang et al. 2004, eq. 13, with sample covariances and without a border of 3 voxels, as scikit-image has it.
    """
    total, count = 0.0, 0
    for inner, outer in _slabs(estimate_hu.shape[0]):
        mean = structural_similarity(
            _unit(estimate_hu[outer], window), _unit(truth_hu[outer], window), data_range=1.0, win_size=SSIM_SIDE_3D
        )
        total, count = total + float(mean) * inner, count + inner
    return total / count


def _slabs(depth: int) -> Iterator[tuple[int, slice]]:
    halo = SSIM_SIDE_3D // 2
    for start in range(halo, depth - halo, SLAB):
        stop = min(start + SLAB, depth - halo)
        yield stop - start, slice(start - halo, stop + halo)


def noise_ratio(hu: FloatArray, truth: Truth) -> float | None:
    """Noise along z over that of the truth.

    Args:
        hu: (z, y, x) HU, of the shape of the truth.
        truth: with its quiet tissue and its noise.

    Returns:
        A ratio from 0, of a smooth volume, up; None where the truth has no noise.
    """
    return None if truth.noise_hu is None else (noise_along_z_hu(hu, truth.quiet) or 0.0) / truth.noise_hu


def _shift(estimate_hu: FloatArray, truth_hu: FloatArray, inside: BoolArray) -> float | None:
    if not inside.any():
        return None
    return float((estimate_hu[inside] - truth_hu[inside]).mean(dtype=np.float64))
