"""Thin grids and thick ones."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ctinterp_dagster.errors import GeometryError, ParamsError
from ctinterp_dagster.physics.operator import ThickeningOperator, slices_to_keep, thin_grid
from ctinterp_dagster.physics.profile import Profile
from ctinterp_dagster.scan.pairs import LEAST_SHARED
from ctinterp_dagster.scan.volume import Volume


def thicken(thin: Volume, factor: float, profile: Profile) -> Volume:
    """What a scan with `factor` times thicker slices would have seen, from the outer face of the first slice on.

    Slices at the far end that do not fill a thick one are left out.

    Raises:
        ParamsError: the factor is not above 1, or there is no whole thick slice.
    """
    kept = slices_to_keep(thin.depth, factor)
    if not kept:
        raise ParamsError(
            f"{thin.depth} slices of {thin.spacing_mm[0]:g} mm do not fill one thick slice, {factor:g} times as thick: "
            "give a taller volume or a smaller factor"
        )
    operator = ThickeningOperator.from_factor(kept, factor, profile)
    hu = operator.forward(torch.from_numpy(thin.hu[:kept])).numpy()
    return thin.with_slices(hu, (factor - 1) / 2, thin.spacing_mm[0] * factor)


def operator_for(
    depth: int,
    spacing_mm: float,
    thickness_mm: float,
    target_mm: float,
    profile: Profile,
    thin_thickness_mm: float | None = None,
) -> ThickeningOperator:
    """The operator between a thick grid and a thin one that covers the same extent.

    Args:
        depth: number of thick slices.
        spacing_mm: their distance.
        thickness_mm: full width at half maximum of their profile; more than the distance where they overlap.
        target_mm: distance of the thin slices. Where it does not divide the extent, as many slices as fit are
            centred on it.
        profile: slice profile.
        thin_thickness_mm: full width at half maximum of the thin slices' profile; their distance where None, more
            where they are to overlap.

    Raises:
        ParamsError: the target is not finer than the scan, or the thin slices are not as thick as their distance and
            thinner than the scan's.
    """
    if not 0 < target_mm < spacing_mm:
        raise ParamsError(
            f"the target spacing must be finer than the scan's {spacing_mm:g} mm, got {target_mm:g} mm: "
            "give --spacing or --factor"
        )
    if thin_thickness_mm is not None and not target_mm <= thin_thickness_mm < thickness_mm:
        raise ParamsError(
            f"the thin slices must be at least as thick as their distance, {target_mm:g} mm, and thinner than the "
            f"scan's {thickness_mm:g} mm, got {thin_thickness_mm:g} mm: change --thin-thickness or the spacing"
        )
    count, first = thin_grid(depth, spacing_mm, target_mm)
    return ThickeningOperator.from_geometry(
        n_thick=depth,
        thick_spacing_mm=spacing_mm,
        thick_thickness_mm=thickness_mm,
        n_thin=count,
        thin_spacing_mm=target_mm,
        thin_thickness_mm=thin_thickness_mm or target_mm,
        first_thin_offset_mm=first,
        profile=profile,
    )


@dataclass(frozen=True)
class Aligned:
    """A thick and a thin scan of one body, cut to what both cover.

    Attributes:
        thick: the slices that lie within the thin scan.
        thin: the truth; its slices lie within the thick ones.
        operator: relates the thin grid, where it is, to the thick one.
        factor: thin slices a thick one; of real scans rounded to thousandths, as files round what they keep.
    """

    thick: Volume
    thin: Volume
    operator: ThickeningOperator
    factor: float


def aligned(thick: Volume, thin: Volume, thickness_mm: float | None, profile: Profile = "gaussian") -> Aligned:
    """Cut two scans to their common extent along z, by positions in mm; nothing is resampled.

    Args:
        thick: the thick scan.
        thin: the thin scan, on the same pixel grid.
        thickness_mm: full width at half maximum of the thick slices' profile; None takes their distance.
        profile: its shape; real scanners are nearest to a Gaussian.

    Raises:
        GeometryError: the pixel grids differ, or the scans share fewer than 6 thick slices.
        ParamsError: the thin slices are not finer, or the thick ones overlap too much.
    """
    between_mm = thick.direction.T @ np.subtract(thin.origin_mm, thick.origin_mm)
    shift_mm = float(np.abs(between_mm[:2]).max())
    grids = [[*v.hu.shape[1:], *v.spacing_mm[1:], *v.direction.ravel().round(6).tolist()] for v in (thick, thin)]
    same = np.allclose(grids[0], grids[1], rtol=0, atol=1e-3)
    if not same or shift_mm > 0.1 * min(thick.spacing_mm[1:]):
        raise GeometryError(
            f"the pixel grids differ: {grids[0]} against {grids[1]} (size, spacing in mm, axes), shifted by "
            f"{shift_mm:.3f} mm: expected one; give reconstructions of one scan with the same field of view"
        )
    step, fine = thick.spacing_mm[0], thin.spacing_mm[0]
    ends_mm = (between_mm[2] - fine / 2, between_mm[2] + (thin.depth - 0.5) * fine)
    edge = 0.01 * fine  # positions are rounded
    centres = np.arange(thick.depth) * step
    within = np.flatnonzero((centres - step / 2 >= ends_mm[0] - edge) & (centres + step / 2 <= ends_mm[1] + edge))
    if within.size < LEAST_SHARED:
        raise GeometryError(
            f"the thin scan reaches from {ends_mm[0]:.1f} to {ends_mm[1]:.1f} mm along the thick one's axis, which "
            f"reaches from {-step / 2:.1f} to {centres[-1] + step / 2:.1f} mm: expected to share "
            f"{LEAST_SHARED} thick slices, got {within.size}"
        )
    first, last = int(within[0]), int(within[-1])
    places = between_mm[2] + np.arange(thin.depth) * fine
    inside = np.flatnonzero((places > centres[first] - step / 2) & (places < centres[last] + step / 2))
    cut = thick.with_slices(thick.hu[first : last + 1], first, step)
    truth = thin.with_slices(thin.hu[inside[0] : inside[-1] + 1], int(inside[0]), fine)
    operator = ThickeningOperator.from_geometry(
        n_thick=cut.depth,
        thick_spacing_mm=step,
        thick_thickness_mm=thickness_mm or step,
        n_thin=truth.depth,
        thin_spacing_mm=fine,
        thin_thickness_mm=fine,
        first_thin_offset_mm=float(places[inside[0]] - centres[first]),
        profile=profile,
    )
    return Aligned(cut, truth, operator, round(step / fine, 3))


def thin_volume(thick: Volume, operator: ThickeningOperator, hu: Tensor) -> Volume:
    """Values on the operator's thin grid, in the place of the thick volume."""
    positions = operator.thin_positions
    spacing_mm = float(positions[1] - positions[0]) * thick.spacing_mm[0]
    return thick.with_slices(hu.cpu().numpy(), float(positions[0]), spacing_mm)
