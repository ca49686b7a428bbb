"""A thick scan that is fit to be restored, on the grid that is asked for: what every way in shares."""

from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from ctinterp_dagster.errors import ParamsError
from ctinterp_dagster.interpolation.grid import operator_for, thin_volume
from ctinterp_dagster.interpolation.interpolator import Interpolation
from ctinterp_dagster.physics.operator import ThickeningOperator
from ctinterp_dagster.physics.profile import Profile
from ctinterp_dagster.physics.thickness import judge_thickness
from ctinterp_dagster.scan.checks import MIN_SLICES, SLICE_SPACING_MM, check_volume
from ctinterp_dagster.scan.padding import Padding, without_padding
from ctinterp_dagster.scan.volume import Volume

MEASURED = {
    "thin slices a thick one": (1.2, 12.0),
    "mm from thin slice to thin slice": (0.6, 2.0),
    "slice thickness over slice distance": (0.8, 1.5),
    "mm a pixel": (0.45, 1.0),
}
"""What the model and the classical methods were measured on (released/README.md); elsewhere nobody knows."""


@dataclass(frozen=True)
class Measurement:
    """Thick slices and how the thin ones that are asked for relate to them.

    Attributes:
        thick: the scan, its padding filled.
        operator: from the thin grid to the thick one.
        thickness_mm: full width at half maximum of the thick slices that the operator takes.
        padding: what was filled; None where there is none.
        warnings: what a user should know, a sentence each.
    """

    thick: Volume
    operator: ThickeningOperator
    thickness_mm: float
    padding: Padding | None
    warnings: tuple[str, ...]

    def thin(self, hu: Tensor) -> Volume:
        """Thin slices (z, y, x) HU in their place in space, padded as the thick ones are."""
        return self._filled(thin_volume(self.thick, self.operator, hu), self.padding)

    def padded(self, result: Interpolation) -> Interpolation:
        """An estimate of it, padded as the scan is; the standard deviation is 0 there."""
        if self.padding is None:
            return result
        silent = replace(self.padding, hu=np.zeros_like(self.padding.hu))
        std = result.std and self._filled(result.std, silent)
        return replace(result, thin=self._filled(result.thin, self.padding), std=std)

    def _filled(self, volume: Volume, padding: Padding | None) -> Volume:
        return volume.with_hu(padding.put_back(volume.hu, self.operator.thin_positions)) if padding else volume


def measure(
    scan: Volume,
    target_mm: float,
    profile: Profile,
    *,
    claimed_mm: float | None = None,
    thickness_mm: float | None = None,
    thin_thickness_mm: float | None = None,
    force: bool = False,
    name: str = "",
) -> Measurement:
    """Check a thick scan before anything is computed, and relate it to the grid that is asked for.

    Args:
        scan: as it was read.
        target_mm: distance of the thin slices.
        profile: of the thick slices.
        claimed_mm: the thickness that tags tell; not believed where the stack contradicts it.
        thickness_mm: the thickness that the user tells, which is believed; None where he does not.
        thin_thickness_mm: of the thin slices, where they overlap.
        force: see `check_volume`.
        name: of the file or folder, for messages.

    Raises:
        ScanError: see `check_volume`.
        ParamsError: see `operator_for`; also thin slices closer than any scanner's, which would fill the memory.
    """
    if target_mm < SLICE_SPACING_MM[0]:
        raise ParamsError(
            f"{name}: the thin slices would be {target_mm:g} mm apart: expected at least {SLICE_SPACING_MM[0]:g} mm; "
            "change --spacing or --factor"
        )
    forced = check_volume(scan, min_slices=MIN_SLICES, force=force, name=name)
    thick, padding = without_padding(scan)
    distance_mm = thick.spacing_mm[0]
    judged = None if thickness_mm else judge_thickness(thick.hu, distance_mm, claimed_mm)
    used_mm = thickness_mm or (judged.thickness_mm if judged else distance_mm)
    operator = operator_for(thick.depth, distance_mm, used_mm, target_mm, profile, thin_thickness_mm)
    outside = (
        f"padded with {padding.value_hu:g} HU outside of the field of view: it comes back as it is" if padding else None
    )
    told = (outside, judged.warning if judged else None, _nearly(operator), _unmeasured(operator, thick))
    return Measurement(thick, operator, used_mm, padding, (*forced, *filter(None, told)))


def _nearly(operator: ThickeningOperator) -> str | None:
    if not operator.is_regularised:
        return None
    return (
        f"slices {operator.thick_thickness_mm:g} mm thick every {operator.thick_spacing_mm:g} mm overlap too much to "
        "be undone exactly: the thin slices give them back only nearly"
    )


def _unmeasured(operator: ThickeningOperator, thick: Volume) -> str | None:
    """One line where a run is outside of what was measured."""
    distance = operator.thick_spacing_mm
    values = dict(
        zip(
            MEASURED,
            (
                1 / operator.thin_distance,
                operator.thin_distance * distance,
                operator.thick_thickness_mm / distance,
                (thick.spacing_mm[1] + thick.spacing_mm[2]) / 2,
            ),
            strict=True,
        )
    )
    outside = [
        f"{value:.3g} {what} (measured: {MEASURED[what][0]:g} to {MEASURED[what][1]:g})"
        for what, value in values.items()
        if not 0.99 * MEASURED[what][0] <= value <= 1.01 * MEASURED[what][1]
    ]
    return f"how good a result is here was not measured: {', '.join(outside)}" if outside else None
