"""Whether a volume is an axial CT in HU."""

import numpy as np

from ctinterp_dagster.errors import (
    ClippedError,
    ConstantError,
    DerivedError,
    GeometryError,
    NotFiniteError,
    TooFewSlicesError,
    WrongUnitsError,
)
from ctinterp_dagster.scan.volume import FloatArray, Volume

# The widest range that scanners write: Siemens' extended CT scale. Padding
# outside of the field (-2000, -3024) lies in it; 16-bit padding (-32768) and unscaled numbers (65535) do not.
RANGE_HU = (-10240.0, 30710.0)
# Air, lung or bowel gas; and tissue. Every CT of a patient or of a phantom has both, even cropped to the body.
AIR_HU = (-1200.0, -500.0)
TISSUE_HU = (-200.0, 300.0)
LEAST_SHARE = 1e-4
# Values cut off at a window pile up at its ends. Scanners cut off too, at the ends of their scale: air at -1024 or
# -1000 HU, metal at 3071. Between these no two in a thousand voxels share the lowest or the highest value.
WINDOW_HU = (-900.0, 1000.0)
LEAST_WINDOW_HU = 50.0
PILE_SHARE = 2e-3
SLICE_SPACING_MM = (0.1, 20.0)
PIXEL_SPACING_MM = (0.05, 10.0)


def _share(hu: FloatArray, between_hu: tuple[float, float]) -> float:
    low, high = between_hu
    return float(np.count_nonzero((hu >= low) & (hu <= high))) / hu.size


def _check_intensity(hu: FloatArray) -> None:
    if not np.isfinite(hu).all():
        raise NotFiniteError(
            f"{np.count_nonzero(~np.isfinite(hu))} of {hu.size} voxels are NaN or infinite: expected finite HU; "
            "set them to -1024, or give the original"
        )
    low, high = float(hu.min()), float(hu.max())
    if low == high:
        raise ConstantError(f"every voxel is {low:g}: expected an image; export the scan again")
    if low < RANGE_HU[0] or high > RANGE_HU[1]:
        raise WrongUnitsError(
            f"values run from {low:g} to {high:g}: expected HU within {RANGE_HU}; rescale them, or set padding to -1024"
        )
    _check_window(hu, low, high)
    for what, between_hu in (("air", AIR_HU), ("tissue", TISSUE_HU)):
        share = _share(hu, between_hu)
        if share < LEAST_SHARE:
            raise WrongUnitsError(
                f"{share:.4%} of the voxels lie in {between_hu} HU ({what}), expected at least {LEAST_SHARE:.2%}; "
                f"values run from {low:g} to {high:g}: not HU (scaled, raw or masked); give the original"
            )


def _check_window(hu: FloatArray, low: float, high: float) -> None:
    if low >= 0 or high - low < LEAST_WINDOW_HU:  # not HU at all: the shares of air and tissue tell
        return
    for value in (low, high):
        share = _share(hu, (value, value))
        if WINDOW_HU[0] < value < WINDOW_HU[1] and share > PILE_SHARE:
            raise ClippedError(
                f"{share:.2%} of the voxels are {value:g}, and none lies beyond: values were cut off at a display "
                f"window, expected at most {PILE_SHARE:.1%} at either end; give the original"
            )


def _check_geometry(volume: Volume) -> None:
    facing = volume.direction[:, 2]
    if abs(facing[2]) < np.abs(facing).max():
        raise DerivedError(
            f"slices face {facing.round(3).tolist()} (LPS), a sagittal or coronal reformat: expected axial slices; "
            "give the series as it was acquired"
        )
    for what, spacing, (low, high) in (
        ("slice", volume.spacing_mm[0], SLICE_SPACING_MM),
        ("row", volume.spacing_mm[1], PIXEL_SPACING_MM),
        ("column", volume.spacing_mm[2], PIXEL_SPACING_MM),
    ):
        if not low <= spacing <= high:
            raise GeometryError(f"{what} spacing is {spacing:g} mm: expected {low} to {high}; check the file's units")


def check_volume(volume: Volume, *, min_slices: int) -> None:
    """Refuse what is not an axial CT of a body in HU.

    Values are taken for HU if all lie in [-10240, 30710] and at least 1 voxel in 10,000 is air (-1200 to -500) and 1
    in 10,000 is tissue (-200 to 300). This refuses images scaled to [0, 1] or [0, 255], raw values without the
    intercept (with or without -2000 padding), soft-tissue windows, and brains cut out of their head. Nothing is
    clipped here: padding below and metal above the range of `window.STORED` pass, and ingest clips them to it.

    Raises:
        TooFewSlicesError: fewer than `min_slices` slices.
        NotFiniteError: a voxel is NaN or infinite.
        ConstantError: all voxels are equal.
        ClippedError: over 0.2 % of the voxels have the lowest or the highest value, which lies in (-900, 1000) HU.
        WrongUnitsError: out of range, or not HU.
        DerivedError: sagittal or coronal slices.
        GeometryError: spacing that no scanner has (0.1 to 20 mm between slices, 0.05 to 10 mm between pixels).
    """
    if volume.depth < min_slices:
        raise TooFewSlicesError(
            f"the volume has {volume.depth} slices: expected at least {min_slices}; give the whole series"
        )
    _check_geometry(volume)
    _check_intensity(volume.hu)
