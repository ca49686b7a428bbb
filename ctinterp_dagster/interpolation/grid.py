"""Thin grids and thick ones."""

import torch

from ctinterp_dagster.errors import ParamsError
from ctinterp_dagster.params import Profile
from ctinterp_dagster.physics.operator import ThickeningOperator, thin_grid
from ctinterp_dagster.scan.volume import Volume


def thicken(thin: Volume, factor: int, profile: Profile) -> Volume:
    """What a scan with `factor` times thicker slices would have seen.

    Slices at the far end that do not fill a group are left out.
    """
    kept = thin.depth // factor * factor
    operator = ThickeningOperator.from_factor(kept, factor, profile)
    hu = operator.forward(torch.from_numpy(thin.hu[:kept])).numpy()
    return thin.with_slices(hu, (factor - 1) / 2, thin.spacing_mm[0] * factor)


def operator_for(
    depth: int, spacing_mm: float, thickness_mm: float, target_mm: float, profile: Profile
) -> ThickeningOperator:
    """The operator between a thick grid and a thin one that covers the same extent.

    Args:
        depth: number of thick slices.
        spacing_mm: their distance.
        thickness_mm: full width at half maximum of their profile; more than the distance where they overlap.
        target_mm: distance of the thin slices. Where it does not divide the extent, as many slices as fit are
            centred on it.
        profile: slice profile.

    Raises:
        ParamsError: the target is not finer than the scan.
    """
    if not 0 < target_mm < spacing_mm:
        raise ParamsError(
            f"the target spacing must be finer than the scan's {spacing_mm:g} mm, got {target_mm:g} mm: "
            "give --spacing or --factor"
        )
    count, first = thin_grid(depth, spacing_mm, target_mm)
    return ThickeningOperator.from_geometry(
        n_thick=depth,
        thick_spacing_mm=spacing_mm,
        thick_thickness_mm=thickness_mm,
        n_thin=count,
        thin_spacing_mm=target_mm,
        thin_thickness_mm=target_mm,
        first_thin_offset_mm=first,
        profile=profile,
    )
