"""Thick and thin series of one scan: the thin one is the truth that the thick one is restored to."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:  # the readers of files need libraries that pairs do not
    from ctinterp_dagster.scan.io.found_scan import Found, Place

LEAST_RATIO = 1.99  # thick over thin slice distance
LEAST_SHARED = 6  # thick slices within the thin series: metrics leave out one at each end


def partners(found: Iterable["Found"], *, max_thin_mm: float) -> dict[str, str]:
    """The names of thick series, each with the name of the thin series that is its truth.

    Partners share patient, frame of reference, orientation and pixel grid. Of several thin series the one of the same
    kernel is taken, of these the finest.

    Args:
        found: what `find_scans` found; only DICOM series that are not refused can be partners.
        max_thin_mm: slices further apart are thick.

    Returns:
        Names of thin series by those of thick ones that have a truth.
    """
    placed = [(f.name, f.place) for f in found if f.place and f.place.patient and f.place.frame_of_reference]
    thin = [(name, place) for name, place in placed if place.spacing_mm[0] <= max_thin_mm]
    chosen = {}
    for name, place in placed:
        if place.spacing_mm[0] > max_thin_mm:
            truths = [(t.kernel != place.kernel, t.spacing_mm[0], other) for other, t in thin if _belong(place, t)]
            if truths:
                chosen[name] = min(truths)[2]
    return chosen


def _belong(thick: "Place", thin: "Place") -> bool:
    if (thick.patient, thick.frame_of_reference, thick.size[1:]) != (
        thin.patient, thin.frame_of_reference, thin.size[1:],
    ):  # fmt: skip
        return False
    if not np.allclose([*thick.axes, *thick.spacing_mm[1:]], [*thin.axes, *thin.spacing_mm[1:]], rtol=0, atol=1e-3):
        return False
    row, column, normal = np.reshape(thick.axes, (3, 3))
    between = np.subtract(thin.origin_mm, thick.origin_mm)
    if max(abs(between @ row), abs(between @ column)) > 0.1 * min(thick.spacing_mm[1:]):
        return False
    step, fine = thick.spacing_mm[0], thin.spacing_mm[0]
    low = max(-step / 2, between @ normal - fine / 2)
    high = min((thick.size[0] - 0.5) * step, between @ normal + (thin.size[0] - 0.5) * fine)
    return bool(step >= LEAST_RATIO * fine and high - low >= LEAST_SHARED * step)
