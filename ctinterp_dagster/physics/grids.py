"""Thin grids and thick ones."""

import torch
from torch import Tensor

from ctinterp_dagster.errors import ParamsError
from ctinterp_dagster.physics.operator import ThickeningOperator, slices_to_keep, thin_grid
from ctinterp_dagster.physics.profile import Profile
from ctinterp_dagster.scan.volume import Volume


def thicken(thin: Volume, factor: float, profile: Profile) -> Volume:
    """What a scan with `factor` times thicker slices would have seen, from the outer face of the first slice on.

    Slices at the far end that do not fill a thick one are left out.

    Args:
        thin: (z, y, x) HU, slices that touch.
        factor: thin slices to a thick one, above 1.
        profile: of the thick slices.

    Returns:
        (k, y, x) HU, each slice in the place of those that it covers.

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

    Returns:
        The operator, (n, y, x) to (depth, y, x), whose thin grid covers no more than the thick one.

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


def thin_volume(thick: Volume, operator: ThickeningOperator, hu: Tensor) -> Volume:
    """Values (n, y, x) HU on the operator's thin grid, in the place of the thick volume.

    Args:
        thick: in whose place it lies.
        operator: from the thin grid to the slices of `thick`.
        hu: (n, y, x) HU, on any device.

    Returns:
        The volume on the CPU, with the spacing of the thin grid.
    """
    positions = operator.thin_positions
    spacing_mm = float(positions[1] - positions[0]) * thick.spacing_mm[0]
    return thick.with_slices(hu.cpu().numpy(), float(positions[0]), spacing_mm)
