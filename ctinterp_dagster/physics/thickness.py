"""Whether a stack can have the slice thickness that its tags claim."""

import math
from dataclasses import dataclass

import numpy as np

from ctinterp_dagster.physics.noise import RealArray, SharedNoise, shared_noise

TOUCHING = 0.45  # touching slices share less: real scanners up to 0.34, docs/experiments.md entry 14
CORRELATION_MARGIN, SURE = 0.05, 3.0  # of a correlation; standard errors
LEAST_LAGS, MOST_LAGS = 3, 8


@dataclass(frozen=True)
class Thickness:
    """The slice thickness to be used, and what the stack says of the claim.

    Attributes:
        thickness_mm: to be used: the claim; where it is contradicted what the stack says, at least the slice distance;
            where it is absent the slice distance.
        warning: one sentence for the user, where the slices share less noise than any as thick as claimed would, or
            overlap without a claim; None else.
        noise: the evidence; None where it cannot be measured or is not needed.
    """

    thickness_mm: float
    warning: str | None = None
    noise: SharedNoise | None = None


def box_correlation(width: float, lags: int) -> float:
    """The least noise that neighbours share, as `SharedNoise.correlation`.

    A box of T every d shares the part 1 - k d / T with the slice k further on; every other profile of the same full
    width at half maximum that a scanner has reaches further and shares more.

    Args:
        width: slice thickness over slice distance, above 0.
        lags: slices this far apart are taken to share no noise, 2 or more.

    Returns:
        0 to 1.

    Source: the autocorrelation of a box is a triangle, Bracewell 2000, The Fourier Transform and Its Applications,
        chapter 3.
    """
    near, far = (max(0.0, 1 - k / width) for k in (1, lags))
    return (near - far) / (1 - far)


def gaussian_width(correlation: float, lags: int) -> float:
    """Full width at half maximum, in slice distances, of the Gaussian profile whose neighbours share this much noise.

    A box would have to be wider to share as much, and to undo it would sharpen more.

    Args:
        correlation: (r_1 - r_lags) / (1 - r_lags) of the correlations r_k of the noise of slices k apart.
        lags: slices this far apart are taken to share no noise; the width is 0.2 to `lags`.

    Returns:
        Slice distances, 0.2 to `lags`.

    Source: the autocorrelation of a Gaussian is one sqrt(2) times as wide, Bracewell 2000, The Fourier Transform and
        Its Applications, chapter 3.
    """
    width = np.linspace(0.2, lags, 1000)
    near, far = (np.exp(-2 * math.log(2) * (k / width) ** 2) for k in (1, lags))
    return float(np.interp(correlation, (near - far) / (1 - far), width))


def lags_for(width: float, slices: int) -> int:
    """How far apart slices share no noise if each is `width` slice distances thick.

    Args:
        width: slice thickness over slice distance.
        slices: of the stack; 3 where it has fewer than 12.

    Returns:
        3 to 8.
    """
    return min(max(LEAST_LAGS, math.ceil(width)), MOST_LAGS, max(LEAST_LAGS, slices // 3))


def verdict(noise: SharedNoise | None, distance_mm: float, claimed_mm: float | None) -> Thickness:
    """Hold a claimed slice thickness against noise that was measured; `judge_thickness` measures it as well.

    A claim is contradicted where the slices share less noise than a box of that width, by more than 3 standard errors
    and 0.05. Without a claim slices overlap where they share more than touching ones of real scanners do.

    Args:
        noise: measured with `lags_for` the claim; None where the stack is too small or too quiet.
        distance_mm: of the slices' centres.
        claimed_mm: SliceThickness; None where nothing claims one.

    Returns:
        The thickness to be used, mm, and a warning where the noise contradicts the claim.
    """
    if noise is None:
        return Thickness(claimed_mm or distance_mm)
    doubt = SURE * noise.standard_error
    overlap = noise.correlation - doubt > TOUCHING
    measured_mm = distance_mm * max(1.0, gaussian_width(noise.correlation, noise.lags) if overlap else 1.0)
    evidence = f"noise of neighbouring slices correlates {noise.correlation:.2f} +- {noise.standard_error:.2f}"
    if claimed_mm is None:
        warning = (
            f"no SliceThickness is told and the slices, every {distance_mm:g} mm, overlap ({evidence}, touching slices "
            f"stay below {TOUCHING:g}): {distance_mm:g} mm is used, give --thickness {measured_mm:.3g} if that is so"
        )
        return Thickness(distance_mm, warning=warning if overlap else None, noise=noise)
    expected = box_correlation(claimed_mm / distance_mm, noise.lags)
    if expected - max(noise.correlation, 0.0) < CORRELATION_MARGIN + doubt:
        return Thickness(claimed_mm, noise=noise)
    warning = (
        f"SliceThickness says {claimed_mm:g} mm but the slices, every {distance_mm:g} mm, overlap less ({evidence}, at "
        f"least {expected:.2f} expected): {measured_mm:.3g} mm is used, give --thickness {claimed_mm:g} to insist"
    )
    return Thickness(measured_mm, warning=warning, noise=noise)


def judge_thickness(hu: RealArray, distance_mm: float, claimed_mm: float | None) -> Thickness:
    """Whether a stack can have the slice thickness that is claimed, and which one to use.

    Only a claim of overlap can be contradicted: noise that slices share may come of a filter as well, and a gap
    leaves no trace. Anatomy that is taken for noise makes slices look overlapped, so that it hides a wrong claim and
    never accuses a right one.

    Args:
        hu: (z, y, x) thick slices, HU.
        distance_mm: of the slices.
        claimed_mm: SliceThickness; None where nothing claims one.

    Returns:
        The thickness to use in mm, with the noise that was measured, and a warning where the claim is not believed.
    """
    width = (claimed_mm or distance_mm) / distance_mm
    if claimed_mm is not None and box_correlation(width, LEAST_LAGS) < CORRELATION_MARGIN:
        return Thickness(claimed_mm)
    return verdict(shared_noise(hu, lags_for(width, len(hu))), distance_mm, claimed_mm)
