"""What the pixels of a DICOM series tell of images that are not what the scanner made."""

from collections.abc import Sequence

import numpy as np

from ctinterp_dagster.errors import WrongUnitsError
from ctinterp_dagster.scan.io.plane import Plane, named
from ctinterp_dagster.scan.volume import FloatArray

JUMP_HU = 200.0
LONGER = 0.05  # of a plane, by which its constant end exceeds those of its neighbours


def _constant_end(plane: FloatArray) -> int:
    """How many of the last pixels of a plane (y, x), row by row, have one value."""
    differs = plane.ravel()[::-1] != plane.flat[-1]
    return int(differs.argmax()) if differs.any() else differs.size


def cut_off(hu: FloatArray, planes: Sequence[Plane]) -> tuple[str, ...]:
    """Planes that end in pixels of one value where their neighbours do not: files whose end was never written.

    Args:
        hu: (z, y, x) HU, before any padding is filled.
        planes: z, in the same order.

    Returns:
        A sentence a plane.
    """
    ends = np.array([_constant_end(plane) for plane in hu])
    beside = np.maximum(np.append(ends[1:], ends[-2]), np.insert(ends[:-1], 0, ends[1]))
    return tuple(
        f"{named(planes[k], planes[k])[0]!r} ends in {ends[k]} pixels of one value ({hu[k].flat[-1]:g} HU), its "
        "neighbours do not: it may have been cut off; look at it, or export it again"
        for k in np.flatnonzero(ends > beside + LONGER * hu[0].size).tolist()
    )


def refuse_jumps(hu: FloatArray, planes: Sequence[Plane]) -> None:
    """Refuse planes whose rescale is another than that of the plane before, and whose values change with it.

    Args:
        hu: (z, y, x) HU.
        planes: z, in the same order.

    Raises:
        WrongUnitsError: half of the pixels change by over 200 HU, all the same way: one of the two is not in HU.
    """
    for k in range(1, len(hu)):
        if planes[k].rescale == planes[k - 1].rescale or abs(jump := float(np.median(hu[k] - hu[k - 1]))) < JUMP_HU:
            continue
        one, other = named(planes[k - 1], planes[k])
        raise WrongUnitsError(
            f"RescaleSlope and RescaleIntercept change from {planes[k - 1].rescale} to {planes[k].rescale} between "
            f"{one!r} and {other!r}, and values by {jump:g} HU with them: expected HU in all; export the series again"
        )


def repeated(hu: FloatArray, planes: Sequence[Plane]) -> tuple[str, ...]:
    """Neighbouring planes with the same pixels, which a scanner's noise rules out.

    Args:
        hu: (z, y, x) HU.
        planes: z, in the same order.

    Returns:
        One sentence of all, or none.
    """
    same = [k for k in range(1, len(hu)) if np.ptp(hu[k]) > 0 and np.array_equal(hu[k], hu[k - 1])]
    if not same:
        return ()
    one, other = named(planes[same[0] - 1], planes[same[0]])
    said = (
        f"{len(same)} of {len(hu)} slices have the pixels of the slice before, the first two {one!r} and {other!r}: "
        "they were copied, and the scan is thicker than it says; give the original"
    )
    return (said,)
