"""What a slab of thick slices is thickened by, and how training varies that."""

import math
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from ctinterp_dagster.nullspace.basis import NullSpace
from ctinterp_dagster.physics.operator import ThickeningOperator
from ctinterp_dagster.physics.profile import Profile

# The form of the augmentation, whose extent stands in params.yaml (docs/decisions/0010-what-the-trainings-share.md).
ZOOM_STEP = 1.1  # pixels are made smaller by powers of it
THICKER = 1.25  # thick slices over thin ones, at least


class SlabGrid(NamedTuple):
    """What a slab is thickened by.

    Attributes:
        factor: thin slices a thick one.
        profile: of the thick slices.
        width: slice thickness over slice distance.
        thin_thickness: of the thin slices, over their distance.
    """

    factor: int
    profile: Profile
    width: float
    thin_thickness: float


@dataclass(frozen=True)
class Augmentation:
    """How slabs vary. What is listed several times is drawn as much more often.

    Attributes:
        factors: thin slices a thick one; volumes have to have enough slices for the first.
        profiles: slice profiles.
        widths: slice thickness over slice distance.
        anisotropy: largest spacing over the smallest up to which two thirds of the slabs are cut across y or x.
        one_in: each of the following is done to one slab in so many; 0 for none.
        sharpness: range of the unsharp masking that makes a softer or sharper reconstruction kernel.
        magnification: the scan passes for one up to so many times larger or smaller.
        zoom: pixels are made up to so many times smaller.
        noise_hu: largest standard deviation of noise that is added before thickening.
    """

    factors: tuple[int, ...]
    profiles: tuple[Profile, ...]
    widths: tuple[float, ...]
    anisotropy: float
    one_in: int
    sharpness: tuple[float, float]
    magnification: float
    zoom: float
    noise_hu: float

    @cached_property
    def zooms(self) -> tuple[float, ...]:
        """The powers of 1.1 up to `zoom`; 1 alone where there is none."""
        return tuple(ZOOM_STEP**n for n in range(1, 1 + int(math.log(self.zoom, ZOOM_STEP)))) or (1.0,)


@dataclass(frozen=True)
class SlabSettings:
    """What a training slab is.

    Attributes:
        zyx: size in thick slices and pixels.
        augmentation: how slabs vary.
    """

    zyx: tuple[int, int, int]
    augmentation: Augmentation


@cache
def space(n_thick: int, grid: SlabGrid) -> NullSpace:
    """The null space of a slab of `n_thick` thick slices, in units of its thin slices' distance."""
    factor = grid.factor
    return NullSpace(
        ThickeningOperator.from_geometry(
            n_thick=n_thick,
            thick_spacing_mm=factor,
            thick_thickness_mm=factor * grid.width,
            n_thin=n_thick * factor,
            thin_spacing_mm=1.0,
            thin_thickness_mm=grid.thin_thickness,
            first_thin_offset_mm=-(factor - 1) / 2,
            profile=grid.profile,
        )
    )


class SlabMatrices(NamedTuple):
    """Of a slab of z thick and n thin slices, or (b, ...) of a batch, zero beyond the thin slices of each.

    Attributes:
        operator: (z, n), A.
        cosines: (MODES z, z), the cosines of the base.
        upsampling: (n, z), the base.
        basis: (n, MODES z), B.
        analysis: (MODES z, n), B^+.
    """

    operator: Tensor
    cosines: Tensor
    upsampling: Tensor
    basis: Tensor
    analysis: Tensor

    def padded(self, n_thin: int) -> "SlabMatrices":
        """With zeros for thin slices that are not there."""
        missing = n_thin - len(self.basis)
        thin_columns, thin_rows = (0, missing), (0, 0, 0, missing)
        return SlabMatrices(
            functional.pad(self.operator, thin_columns),
            self.cosines,
            functional.pad(self.upsampling, thin_rows),
            functional.pad(self.basis, thin_rows),
            functional.pad(self.analysis, thin_columns),
        )


@cache
def matrices_of(n_thick: int, grid: SlabGrid) -> SlabMatrices:
    """The matrices of a slab of `n_thick` thick slices, float32 on the CPU; kept for the next slab of its kind."""
    here = space(n_thick, grid)
    parts = here.operator.matrix, here.cosines_of_base, here.upsampling, here.basis, here.analysis
    return SlabMatrices(*(torch.from_numpy(part).float() for part in parts))


@cache
def grids(augmentation: Augmentation, thin_thickness: float, most: int) -> list[SlabGrid]:
    """What a slab can be thickened by.

    Args:
        augmentation: what there is to choose from.
        thin_thickness: of the thin slices, over their distance; thick ones are a quarter thicker at least.
        most: largest factor for which there are enough slices.

    Returns:
        Every combination for which slices are many and thick enough.
    """
    return [
        SlabGrid(factor, profile, width, thin_thickness)
        for factor, profile, width in product(augmentation.factors, augmentation.profiles, augmentation.widths)
        if factor <= most and factor * width >= THICKER * thin_thickness
    ]
