"""Slice sensitivity profiles: how much each thin slice weighs in a thick one."""

import math
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from ctinterp_dagster.errors import ParamsError
from ctinterp_dagster.scan.volume import DoubleArray

SIGMA_PER_FWHM = 1.0 / math.sqrt(8.0 * math.log(2.0))
ROUNDING = 1e-9  # positions closer than this part of a slice are the same


@dataclass(frozen=True)
class SampledProfile:
    """A profile measured at distances from the slice centre, linear between them and zero outside.

    Attributes:
        offsets_mm: increasing distances from the centre of the thick slice.
        weights: the profile there; the scale is free, the sum is made 1.
        file: name of the file that it is from; empty where it is from none.
        sha256: of that file.
    """

    offsets_mm: tuple[float, ...]
    weights: tuple[float, ...]
    file: str = field(default="", compare=False, repr=False)
    sha256: str = field(default="", compare=False, repr=False)

    def __post_init__(self) -> None:
        """Refuse what is not a profile.

        Raises:
            ParamsError: the lengths differ, the offsets do not increase, or the weights have no positive finite sum.
        """
        if len(self.offsets_mm) != len(self.weights):
            raise ParamsError(
                f"a profile has {len(self.offsets_mm)} offsets but {len(self.weights)} weights: "
                "give one weight an offset"
            )
        if len(self.offsets_mm) < 2 or not np.all(np.diff(self.offsets_mm) > 0):
            raise ParamsError(
                f"the offsets of a profile must be two or more and increase, got {self.offsets_mm} mm: "
                "sort them, each once"
            )
        if not (math.isfinite(sum(self.weights)) and sum(self.weights) > 0):
            raise ParamsError(
                f"the weights of a profile must have a positive finite sum, got {self.weights}: mend them"
            )

    @property
    def fwhm_mm(self) -> float:
        """Full width at half maximum; of several peaks, that of all together."""
        offsets_mm = np.linspace(self.offsets_mm[0], self.offsets_mm[-1], 10_001)
        values = np.interp(offsets_mm, self.offsets_mm, self.weights)
        return float(np.ptp(offsets_mm[values >= values.max() / 2]))

    @property
    def record(self) -> dict[str, object]:
        """What a record of a run says of it, beside its name."""
        return {
            "profile_file": self.file,
            "profile_file_sha256": self.sha256,
            "profile_offsets_mm": self.offsets_mm,
            "profile_weights": self.weights,
        }

    def __str__(self) -> str:
        """Its name in messages and records."""
        return "sampled"


@dataclass(frozen=True)
class Trapezoid:
    """A flat top between two ramps.

    Attributes:
        ramp: length of a ramp over the full width at half maximum, above 0 to 1; 1 is the triangle.
    """

    ramp: float

    def __post_init__(self) -> None:
        """Refuse a ramp that does not fit.

        Raises:
            ParamsError: the ramp is not above 0 and at most 1.
        """
        if not 0 < self.ramp <= 1:
            raise ParamsError(f"the ramp of a trapezoid is {self.ramp:g} of its width: expected above 0, at most 1")

    def __str__(self) -> str:
        """Its name in messages and records, which `--profile` takes."""
        return f"trapezoid:{self.ramp:g}"


Profile = Literal["box", "gaussian", "triangle"] | Trapezoid | SampledProfile


def profile_named(name: str) -> Profile:
    """A shape by its name: box, gaussian, triangle, or trapezoid:RAMP.

    Args:
        name: RAMP is a number.

    Returns:
        The name itself, or a `Trapezoid`.

    Raises:
        ParamsError: there is none of this name.
    """
    shape, _, ramp = name.partition(":")
    try:
        return Trapezoid(float(ramp)) if shape == "trapezoid" else _NAMED[name]
    except (ValueError, KeyError) as error:
        names = ", ".join(_NAMED)
        raise ParamsError(f"there is no slice profile {name!r}: expected {names}, or trapezoid:RAMP") from error


_NAMED: dict[str, Profile] = {"box": "box", "gaussian": "gaussian", "triangle": "triangle"}


def gaussian_blur_fwhm_mm(thick_thickness_mm: float, thin_thickness_mm: float) -> float:
    """FWHM of the Gaussian that turns slices of the thin thickness into slices of the thick one.

    Args:
        thick_thickness_mm: FWHM of the thick slices.
        thin_thickness_mm: FWHM of the thin slices, above 0.

    Returns:
        mm, above 0.

    Raises:
        ParamsError: the thick slice is not thicker than the thin one.

    Source: variances of convolved Gaussians add, so FWHM = sqrt(T_thick^2 - T_thin^2); Zhao et al. 2021 (SMORE),
        IEEE Trans. Med. Imaging 40(3), relative blur of two slice profiles.
    """
    if not thick_thickness_mm > thin_thickness_mm > 0:
        raise ParamsError(
            f"a gaussian profile needs thick slices thicker than the thin ones, got {thick_thickness_mm} mm and "
            f"{thin_thickness_mm} mm: give a thinner target or another profile"
        )
    return math.sqrt(thick_thickness_mm**2 - thin_thickness_mm**2)


def _box(offsets_mm: DoubleArray, thin_spacing_mm: float, thick_thickness_mm: float) -> DoubleArray:
    """Length of each thin cell [offset -+ spacing / 2] inside the slab [-+ thickness / 2], in mm."""
    upper = np.minimum(offsets_mm + thin_spacing_mm / 2, thick_thickness_mm / 2)
    lower = np.maximum(offsets_mm - thin_spacing_mm / 2, -thick_thickness_mm / 2)
    overlap = np.maximum(upper - lower, 0.0)
    return np.where(overlap > ROUNDING * thin_spacing_mm, overlap, 0.0)


def _gaussian(offsets_mm: DoubleArray, fwhm_mm: float, thick_thickness_mm: float) -> DoubleArray:
    """A Gaussian that ends one slice thickness from the centre."""
    bell = np.exp(-0.5 * (offsets_mm / (fwhm_mm * SIGMA_PER_FWHM)) ** 2)
    return np.where(np.abs(offsets_mm) < thick_thickness_mm * (1 - ROUNDING), bell, 0.0)


def _trapezoid(offsets_mm: DoubleArray, ramp: float, thick_thickness_mm: float) -> DoubleArray:
    """1 on the top, falling to 0 over the ramp; half of each ramp lies within the full width at half maximum."""
    foot_mm, ramp_mm = thick_thickness_mm * (1 + ramp) / 2, thick_thickness_mm * ramp
    return np.clip((foot_mm - np.abs(offsets_mm)) / ramp_mm, 0.0, 1.0)


def slice_weights(
    profile: Profile,
    offsets_mm: DoubleArray,
    *,
    thin_spacing_mm: float,
    thin_thickness_mm: float,
    thick_thickness_mm: float,
) -> DoubleArray:
    """Weights, not yet normalised, of thin slices in a thick slice.

    - ``box``: the length of each thin cell inside the slab of the thick thickness; nearly what axial scans do.
    - ``gaussian``: FWHM sqrt(T_thick^2 - T_thin^2), ended at T_thick from the centre; what helical scans do. On a
      phantom reconstructed at 1 and at 5 mm the profile vanishes there, and ending it halves the error of the
      simulated thick slices.
    - ``triangle``: FWHM of the thick thickness; what helical scans do with linear interpolation between turns.
    - a `Trapezoid`: FWHM of the thick thickness; between the box and the triangle.
    - a `SampledProfile`: as measured.

    Args:
        profile: one of the above.
        offsets_mm: distances of the thin centres from the thick centre, any shape.
        thin_spacing_mm: distance of the thin centres.
        thin_thickness_mm: FWHM of the thin slices' own profile; only the Gaussian uses it (a slab averaged over
            slices that are thinner keeps its FWHM).
        thick_thickness_mm: FWHM of the thick slice's profile.

    Returns:
        Of the shape of `offsets_mm`, from 0 up.

    Raises:
        ParamsError: the profile is unknown, or a Gaussian is asked for slices that are not thicker.

    Source: Kalender 2011, Computed Tomography, 3rd ed., section 4.2 (slice sensitivity profiles).
    """
    if isinstance(profile, SampledProfile):
        return np.interp(offsets_mm, profile.offsets_mm, profile.weights, left=0.0, right=0.0)
    if isinstance(profile, Trapezoid):
        return _trapezoid(offsets_mm, profile.ramp, thick_thickness_mm)
    if profile == "box":
        return _box(offsets_mm, thin_spacing_mm, thick_thickness_mm)
    if profile == "gaussian":
        fwhm_mm = gaussian_blur_fwhm_mm(thick_thickness_mm, thin_thickness_mm)
        return _gaussian(offsets_mm, fwhm_mm, thick_thickness_mm)
    if profile == "triangle":
        return _trapezoid(offsets_mm, 1.0, thick_thickness_mm)
    raise ParamsError(
        f"the slice profile is {profile!r}, expected box, gaussian, triangle, a Trapezoid or a SampledProfile"
    )
