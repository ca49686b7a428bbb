"""From the planes of a DICOM series to one regular grid, or a reason why there is none."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ctinterp_dagster.errors import (
    DuplicateSlicesError,
    GantryTiltError,
    MissingSlicesError,
    MixedOrientationError,
    MixedSeriesError,
    TooFewSlicesError,
    UnevenSpacingError,
)
from ctinterp_dagster.scan.io.plane import Plane, named
from ctinterp_dagster.scan.volume import DoubleArray, FloatArray, Volume

# A slice's centre may lie this far from the regular grid that fits best: one hundredth of the slice distance, but not
# less than what rounding each coordinate to 0.1 mm brings.
GRID_TOLERANCE = 0.01
ROUNDING_MM = 0.05
# 0.1 degree displaces the last slice of a 300 mm scan by 0.5 mm, less than a pixel.
TILT_TOLERANCE_DEG = 0.1
TILT_ROUNDING_MM = 4 * ROUNDING_MM  # of a slice and of those at the ends, each along three axes
MOST_TILT_DEG = 35.0  # gantries tilt by 30
THICKNESS_TOLERANCE = 0.02  # relative: what scanners round to
# Orientations that agree to this are one: DICOM's decimal strings are often rounded to 4 to 6 digits.
ORIENTATION_TOLERANCE = 1e-3
LOCALIZER_TURN = 0.1  # in a component of its orientation, 6 degrees: no slice is turned so far against its series


@dataclass(frozen=True)
class Grid:
    """A regular stack of planes, sheared where the gantry is tilted.

    Attributes:
        planes: sorted along the slice normal.
        spacing_mm: (z, y, x); z is that of the regular grid that fits the positions best, never taken from a tag.
        origin_mm: LPS position of the first plane's first pixel, on that grid.
        direction: (3, 3), columns are the directions of x, y and z.
        shift: pixels along y and x by which each plane lies further than the one before; zeros unless the gantry is
            tilted.
    """

    planes: tuple[Plane, ...]
    spacing_mm: tuple[float, float, float]
    origin_mm: tuple[float, float, float]
    direction: DoubleArray
    shift: tuple[float, float]

    def volume(self, hu: FloatArray) -> Volume:
        """Values of its planes, (z, y, x) HU, as if it were not sheared."""
        return Volume(hu, self.spacing_mm, self.origin_mm, self.direction)

    @property
    def thickness_mm(self) -> float | None:
        """SliceThickness (0018,0050) of the planes that have it; None where none has, or where it differs."""
        known_mm = thicknesses_mm(self.planes)
        return known_mm[0] if len(known_mm) == 1 else None

    @property
    def each_thickness_mm(self) -> tuple[float, ...]:
        """SliceThickness of each plane, where all have it and it differs; else empty."""
        each = tuple(p.thickness_mm for p in self.planes if p.thickness_mm is not None)
        return each if len(each) == len(self.planes) and len(thicknesses_mm(self.planes)) > 1 else ()


def as_thick(one_mm: float, other_mm: float) -> bool:
    """Whether two values of SliceThickness are the same, but for rounding."""
    return math.isclose(one_mm, other_mm, rel_tol=THICKNESS_TOLERANCE)


def thicknesses_mm(planes: Sequence[Plane]) -> list[float]:
    """The values of SliceThickness that differ, the commonest first; an absent one is unknown, and none."""
    found: list[float] = []
    for own_mm, _ in Counter(p.thickness_mm for p in planes if p.thickness_mm is not None).most_common():
        if not any(as_thick(own_mm, other_mm) for other_mm in found):
            found.append(own_mm)
    return found


def without_scout(planes: Sequence[Plane]) -> list[Plane]:
    """Drop one plane that alone has an orientation which all the others do not: a localizer without the name."""
    if len(planes) < 3:
        return list(planes)
    orientations = np.array([p.orientation for p in planes])
    turned = np.abs(orientations - np.median(orientations, axis=0)).max(axis=1) > LOCALIZER_TURN
    return [p for p, away in zip(planes, turned, strict=True) if not away] if turned.sum() == 1 else list(planes)


def mixture(planes: Sequence[Plane]) -> MixedSeriesError | None:
    """Why planes are not of one stack: another orientation, pixel spacing or size.

    Args:
        planes: at least one.

    Returns:
        The error to raise; None where they are of one stack.
    """
    for what, values in (
        ("orientation", [p.orientation for p in planes]),
        ("pixel spacing", [p.pixel_mm for p in planes]),
        ("rows and columns", [p.size for p in planes]),
    ):
        differs = np.abs(np.subtract(values, values[0])).max(axis=1) > ORIENTATION_TOLERANCE
        if differs.any():
            k = int(np.argmax(differs))
            other, one = named(planes[k], planes[0])
            return (MixedOrientationError if what == "orientation" else MixedSeriesError)(
                f"{what} of {other!r} is {values[k]}, but {values[0]} in {one!r}: a series must have one; separate the "
                "images"
            )
    return None


class Stack(NamedTuple):
    """Planes sorted along their normal.

    Attributes:
        planes: n of them.
        along_mm: (n,), how far each lies along the normal from the first.
        across_mm: (n, 3), how far each lies off the normal through the first.
        direction: (3, 3), columns are the directions of x, y and z.
    """

    planes: list[Plane]
    along_mm: DoubleArray
    across_mm: DoubleArray
    direction: DoubleArray


def along_normal(planes: Sequence[Plane]) -> Stack:
    """The planes sorted along their normal, and their places along it and off it.

    Args:
        planes: n of one orientation, in any order.

    Returns:
        Sorted planes, (n,) mm along the normal and (n, 3) mm off it.

    Source: DICOM PS3.3 C.7.6.2.1.1, equation C.7.6.2.1-1.
    """
    row = np.array(planes[0].orientation[:3])
    row /= np.linalg.norm(row)
    normal = np.cross(row, planes[0].orientation[3:])
    normal /= np.linalg.norm(normal)
    ordered = sorted(planes, key=lambda p: (float(normal @ p.position_mm), p.file, p.frame))
    offsets = np.array([p.position_mm for p in ordered]) - np.array(ordered[0].position_mm)
    along = offsets @ normal
    direction = np.stack([row, np.cross(normal, row), normal], axis=1)
    return Stack(ordered, along, offsets - along[:, None] * normal, direction)


def rounding_mm(normal: DoubleArray) -> float:
    """How far along the normal (3,) a position may lie from where it was, once it is rounded to 0.1 mm."""
    return ROUNDING_MM * float(np.abs(normal).sum()) + 1e-6


def usual_step(along_mm: DoubleArray) -> float:
    """The distance of neighbours in mm, gaps left out, of sorted positions (n,)."""
    steps = np.diff(along_mm)
    return float(steps[steps < 1.5 * np.median(steps)].mean())


def deviation_mm(along_mm: DoubleArray) -> float:
    """The largest distance of sorted positions (n,) from the regular grid that makes it smallest (Chebyshev's line)."""
    index = np.arange(len(along_mm))
    low, high = float(np.diff(along_mm).min()), float(np.diff(along_mm).max())
    for _ in range(60):  # the width is convex in the step: thirds are cut off until nothing is left
        third = (high - low) / 3
        one, two = np.ptp(along_mm - (low + third) * index), np.ptp(along_mm - (high - third) * index)
        low, high = (low, high - third) if one <= two else (low + third, high)
    return float(np.ptp(along_mm - low * index)) / 2


def is_regular(along_mm: DoubleArray, rounding: float) -> bool:
    """Whether sorted positions (n,) in mm lie on a regular grid, each at a place of its own.

    Args:
        along_mm: (n,) mm along the normal, sorted.
        rounding: mm along the normal that rounding may have moved one.

    Returns:
        False also where two share a place.
    """
    steps = np.diff(along_mm)
    return bool(steps.min() > ROUNDING_MM) and deviation_mm(along_mm) <= max(
        GRID_TOLERANCE * usual_step(along_mm), rounding
    )


def as_even(one_mm: float, other_mm: float, rounding: float) -> bool:
    """Whether two slice distances in mm are the same, but for what rounding moves a slice, mm."""
    return abs(one_mm - other_mm) <= 2 * max(GRID_TOLERANCE * one_mm, rounding)


def missing_between(step_mm: float, usual_mm: float, rounding: float) -> int:
    """How many slices are missing in a step from one slice to the next.

    Args:
        step_mm: from one slice to the next.
        usual_mm: the distance of the others, above 0.
        rounding: mm along the normal that rounding may have moved a slice.

    Returns:
        0 where the step is no multiple of the usual one, and where nothing is missing.
    """
    missing = max(0, round(step_mm / usual_mm) - 1)
    return missing if abs(step_mm - (missing + 1) * usual_mm) <= 2 * max(GRID_TOLERANCE * usual_mm, rounding) else 0


def _mixed(planes: Sequence[Plane]) -> str:
    """SliceThickness in words where it differs, to be put behind what is uneven."""
    known_mm = thicknesses_mm(planes)
    return f", and SliceThickness is {listed_mm(known_mm)}" if len(known_mm) > 1 else ""


def listed_mm(values_mm: Sequence[float]) -> str:
    """Lengths in words, in increasing order."""
    *others, last = (f"{mm:.4g}" for mm in sorted(values_mm))
    return f"{', '.join(others)} and {last} mm" if others else f"{last} mm"


def _refuse_gaps(along_mm: DoubleArray, planes: Sequence[Plane], rounding: float) -> None:
    """Refuse positions along the normal, sorted, that do not lie on a regular grid.

    Args:
        along_mm: (n,) mm along the normal, sorted.
        planes: n, in the same order.
        rounding: mm along the normal that rounding may have moved one.

    Raises:
        DuplicateSlicesError: two lie at the same place.
        MissingSlicesError: one step is a multiple of the others.
        UnevenSpacingError: any other step.
    """
    steps = np.diff(along_mm)
    k = int(np.argmin(steps))
    if steps[k] <= ROUNDING_MM:
        one, other = named(planes[k], planes[k + 1])
        raise DuplicateSlicesError(
            f"{one!r} and {other!r} differ and lie at the same place ({along_mm[k]:.2f} mm along the normal), and no "
            "acquisition number, time or phase tells two scans: expected one image a position; give one folder, or "
            "separate the images"
        )
    if is_regular(along_mm, rounding):
        return
    usual = usual_step(along_mm)
    tolerance = max(GRID_TOLERANCE * usual, rounding)
    k = int(np.argmax(np.abs(steps - usual)))
    one, other = named(planes[k], planes[k + 1])
    where = f"between {one!r} and {other!r}"
    if missing := missing_between(float(steps[k]), usual, rounding):
        raise MissingSlicesError(
            f"{missing} slice(s) missing {where}: a step of {steps[k]:.3f} mm where the others are {usual:.3f} mm"
            f"{_mixed(planes)}; export the series again, whole"
        )
    raise UnevenSpacingError(
        f"slices are unevenly spaced: steps from {steps.min():.3f} to {steps.max():.3f} mm, the oddest {where}"
        f"{_mixed(planes)}; expected {usual:.3f} mm to within {tolerance:.3f} mm; resample the scan or reconstruct it "
        "evenly"
    )


def _refuse_shifts(across_mm: DoubleArray, line_mm: DoubleArray, planes: Sequence[Plane]) -> None:
    """Refuse planes that lie off their line in their own plane.

    Args:
        across_mm: (n, 2) mm along x and y.
        line_mm: (n, 2) mm, where they should lie.
        planes: n, in the same order.

    Raises:
        MixedSeriesError: one lies too far off.
    """
    off = np.linalg.norm(across_mm - line_mm, axis=1)
    allowed = max(0.1 * min(planes[0].pixel_mm), TILT_ROUNDING_MM)
    if off.max() > allowed:
        k = int(np.argmax(off))
        shifted, _ = named(planes[k], planes[0])
        raise MixedSeriesError(
            f"{shifted!r} is shifted by {off[k]:.2f} mm in its plane against the others: expected at most "
            f"{allowed:.2f} mm; the series mixes reconstructions, separate them"
        )


def _tilt_of(along_mm: DoubleArray, across_mm: DoubleArray, planes: Sequence[Plane]) -> DoubleArray:
    """Where planes lie in their own plane: along x and y of the first one, and from each to the next.

    Zeros where the gantry is straight.

    Args:
        along_mm: (n,) mm along the normal, from 0.
        across_mm: (n, 2) mm along x and y.
        planes: n, in the same order.

    Returns:
        (2, 2) mm; zeros where the gantry is straight.

    Raises:
        GantryTiltError: the angle is more than any gantry has.
    """
    length, drift = float(along_mm[-1]), float(np.linalg.norm(across_mm[-1]))
    if drift <= max(math.tan(math.radians(TILT_TOLERANCE_DEG)) * length, TILT_ROUNDING_MM):
        _refuse_shifts(across_mm, along_mm[:, None] / length * across_mm[-1], planes)
        return np.zeros((2, 2))
    angle = math.degrees(math.atan2(drift, length))
    if angle > MOST_TILT_DEG:
        raise GantryTiltError(
            f"slice positions run {angle:.2f} degrees off the slice normal: expected at most {MOST_TILT_DEG:g}, more "
            "than any gantry tilts; export the series again"
        )
    index = np.arange(len(along_mm))
    line = np.polynomial.polynomial.polyfit(index, across_mm, 1)
    _refuse_shifts(across_mm, line[0] + index[:, None] * line[1], planes)
    return np.asarray(line, dtype=np.float64)


def regular_grid(planes: Sequence[Plane]) -> Grid:
    """Sort planes along their normal and place them on the regular grid that fits best (least squares).

    File names and instance numbers play no part. The normal is the cross product of the row and column directions.
    Where positions run off it by more than 0.1 degree the gantry was tilted.

    Args:
        planes: of one series, in any order.

    Returns:
        The planes sorted, with spacing, origin (LPS, mm) and direction of the grid.

    Raises:
        TooFewSlicesError: fewer than two planes.
        MixedSeriesError: planes differ in orientation, pixel spacing, size or in-plane position.
        SliceSpacingError: a slice is missing, doubled, or off every regular grid by more than 1 % of the slice distance
            (or by what rounding to 0.1 mm brings, where that is more).
        GantryTiltError: the positions run off the normal by more than 35 degrees.
    """
    if len(planes) < 2:
        raise TooFewSlicesError(f"found {len(planes)} slice(s), expected at least 2: give the whole series")
    if mixed := mixture(planes):
        raise mixed
    ordered, along, across, direction = along_normal(planes)
    _refuse_gaps(along, ordered, rounding_mm(direction[:, 2]))
    first_mm, drift_mm = _tilt_of(along, across @ direction[:, :2], ordered)
    start, step = np.polynomial.polynomial.polyfit(np.arange(len(along)), along, 1)
    x, y, z = np.add(ordered[0].position_mm, direction @ np.round([*first_mm, start], 6)).tolist()
    rows_mm, columns_mm = ordered[0].pixel_mm
    return Grid(
        planes=tuple(ordered),
        spacing_mm=(round(float(step), 7), rows_mm, columns_mm),
        origin_mm=(x, y, z),
        direction=direction,
        shift=(float(drift_mm[1]) / rows_mm, float(drift_mm[0]) / columns_mm),
    )
