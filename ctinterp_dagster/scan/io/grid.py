"""From the planes of a DICOM series to one regular grid, or a reason why there is none."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ctinterp_dagster.errors import (
    DuplicateSlicesError,
    GantryTiltError,
    MissingSlicesError,
    MixedOrientationError,
    MixedSeriesError,
    TooFewSlicesError,
    UnevenSpacingError,
)

Array = npt.NDArray[np.float64]

# A slice's centre may lie this far from the regular grid: one hundredth of the slice distance, but not less than what
# rounding of positions to 0.1 mm brings.
GRID_TOLERANCE = 0.01
GRID_TOLERANCE_MM = 0.05
# 0.1 degree displaces the last slice of a 300 mm scan by 0.5 mm, less than a pixel.
TILT_TOLERANCE_DEG = 0.1
# Orientations that agree to this are one: DICOM's decimal strings are often rounded to 4 to 6 digits.
ORIENTATION_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Plane:
    """One image plane of a DICOM file.

    Attributes:
        file: where it is.
        frame: its index in a multi-frame file, else 0.
        position_mm: ImagePositionPatient (0020,0032), LPS.
        orientation: ImageOrientationPatient (0020,0037), direction of a row, then of a column.
        pixel_mm: PixelSpacing (0028,0030): distance of rows, distance of columns.
        size: Rows (0028,0010), Columns (0028,0011).
    """

    file: Path
    frame: int
    position_mm: tuple[float, ...]
    orientation: tuple[float, ...]
    pixel_mm: tuple[float, ...]
    size: tuple[int, int]


@dataclass(frozen=True)
class Grid:
    """A regular stack of planes.

    Attributes:
        planes: sorted along the slice normal.
        spacing_mm: (z, y, x); z is measured on the positions, never taken from a tag.
        origin_mm: LPS position of the first plane's first pixel.
        direction: (3, 3), columns are the directions of x, y and z.
    """

    planes: tuple[Plane, ...]
    spacing_mm: tuple[float, float, float]
    origin_mm: tuple[float, float, float]
    direction: Array


def _orientation_key(plane: Plane) -> tuple[float, ...]:
    return tuple(round(v / ORIENTATION_TOLERANCE / 5) for v in plane.orientation)


def without_scout(planes: Sequence[Plane]) -> list[Plane]:
    """Drop one plane that alone has an orientation which all the others do not: a localizer without the name."""
    orientations = Counter(_orientation_key(p) for p in planes)
    if len(orientations) != 2 or min(orientations.values()) > 1 or len(planes) < 3:
        return list(planes)
    common = orientations.most_common(1)[0][0]
    return [p for p in planes if _orientation_key(p) == common]


def _refuse_mixture(planes: Sequence[Plane]) -> None:
    first = planes[0]
    for plane in planes:
        for what, value, expected in (
            ("orientation", plane.orientation, first.orientation),
            ("pixel spacing", plane.pixel_mm, first.pixel_mm),
            ("rows and columns", plane.size, first.size),
        ):
            if not np.allclose(value, expected, rtol=0, atol=ORIENTATION_TOLERANCE):
                raise (MixedOrientationError if what == "orientation" else MixedSeriesError)(
                    f"{what} of {plane.file.name} is {value}, but {expected} in {first.file.name}: "
                    "a series must have one; separate the images"
                )


def _refuse_gaps(along_mm: Array, planes: Sequence[Plane]) -> None:
    """Refuse positions along the normal, sorted, that do not lie on a regular grid."""
    steps = np.diff(along_mm)
    usual = float(np.sort(steps)[(len(steps) - 1) // 2])
    tolerance = max(GRID_TOLERANCE * usual, GRID_TOLERANCE_MM)
    k = int(np.argmin(steps))
    if steps[k] < GRID_TOLERANCE_MM:
        raise DuplicateSlicesError(
            f"{planes[k].file.name} and {planes[k + 1].file.name} lie at the same place ({along_mm[k]:.2f} mm along "
            "the normal): expected one image a position; remove the copy, or separate the acquisitions"
        )
    grid = np.linspace(along_mm[0], along_mm[-1], len(along_mm))
    if np.abs(along_mm - grid).max() <= tolerance:
        return
    k = int(np.argmax(np.abs(steps - usual)))
    where = f"between {planes[k].file.name} and {planes[k + 1].file.name}"
    missing = round(float(steps[k]) / usual) - 1
    if missing >= 1 and abs(steps[k] - (missing + 1) * usual) <= 2 * tolerance:
        raise MissingSlicesError(
            f"{missing} slice(s) missing {where}: a step of {steps[k]:.3f} mm where the others are {usual:.3f} mm; "
            "export the series again, whole"
        )
    raise UnevenSpacingError(
        f"slices are unevenly spaced: steps from {steps.min():.3f} to {steps.max():.3f} mm, the oddest {where}; "
        f"expected {usual:.3f} mm to within {tolerance:.3f} mm; resample the scan or reconstruct it evenly"
    )


def _refuse_tilt(along_mm: Array, across_mm: Array, planes: Sequence[Plane]) -> None:
    """Refuse planes whose origins do not lie on one line along the normal. `across_mm`: (n, 3) off that line."""
    length = float(along_mm[-1] - along_mm[0])
    angle = math.degrees(math.atan2(float(np.linalg.norm(across_mm[-1])), length))
    if angle > TILT_TOLERANCE_DEG:
        raise GantryTiltError(
            f"slice positions run {angle:.2f} degrees off the slice normal: expected at most {TILT_TOLERANCE_DEG} "
            "(no gantry tilt); correct the tilt by resampling first (dcm2niix does)"
        )
    line = (along_mm - along_mm[0])[:, None] / length * across_mm[-1]
    shift = np.linalg.norm(across_mm - line, axis=1)
    allowed = max(0.1 * min(planes[0].pixel_mm), GRID_TOLERANCE_MM)
    if shift.max() > allowed:
        k = int(np.argmax(shift))
        raise MixedSeriesError(
            f"{planes[k].file.name} is shifted by {shift[k]:.2f} mm in its plane against the first slice: expected at "
            f"most {allowed:.2f} mm; the series mixes reconstructions, separate them"
        )


def regular_grid(planes: Sequence[Plane]) -> Grid:
    """Sort planes along their normal and place them on a grid.

    File names and instance numbers play no part. The normal is the cross product of the row and column directions.

    Raises:
        TooFewSlicesError: fewer than two planes.
        MixedSeriesError: planes differ in orientation, pixel spacing, size or in-plane position.
        SliceSpacingError: a slice is missing, doubled, or off the regular grid by more than 1 % of the slice distance
            (or 0.05 mm where that is more).
        GantryTiltError: the positions run off the normal by more than 0.1 degree.

    Source: DICOM PS3.3 C.7.6.2.1.1, equation C.7.6.2.1-1.
    """
    if len(planes) < 2:
        raise TooFewSlicesError(f"found {len(planes)} slice(s), expected at least 2: give the whole series")
    _refuse_mixture(planes)
    row = np.array(planes[0].orientation[:3])
    row /= np.linalg.norm(row)
    normal = np.cross(row, planes[0].orientation[3:])
    normal /= np.linalg.norm(normal)
    ordered = sorted(planes, key=lambda p: (float(normal @ p.position_mm), p.file, p.frame))
    offsets = np.array([p.position_mm for p in ordered]) - np.array(ordered[0].position_mm)
    along = offsets @ normal
    _refuse_gaps(along, ordered)
    _refuse_tilt(along, offsets - along[:, None] * normal, ordered)
    x, y, z = ordered[0].position_mm
    return Grid(
        planes=tuple(ordered),
        spacing_mm=(float(along[-1]) / (len(ordered) - 1), ordered[0].pixel_mm[0], ordered[0].pixel_mm[1]),
        origin_mm=(x, y, z),
        direction=np.stack([row, np.cross(normal, row), normal], axis=1),
    )
