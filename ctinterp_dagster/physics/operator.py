"""The model of the scanner: thick slices y = A x of thin slices x."""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from scipy.linalg import cho_factor, cho_solve
from torch import Tensor

from ctinterp_dagster.errors import ParamsError
from ctinterp_dagster.physics.profile import Profile, slice_weights

FloatArray = npt.NDArray[np.float64]
MAX_CONDITION = 1e6  # of A A^T: beyond it an exact solution amplifies noise a thousandfold


def apply_along_z(matrix: FloatArray, volume: Tensor) -> Tensor:
    """The product of a matrix with the z axis of a volume, on the volume's device and in its precision.

    Args:
        matrix: (m, n).
        volume: (..., n, y, x).

    Returns:
        (..., m, y, x). Beside it nothing of the volume's size is allocated when the volume is contiguous.

    Raises:
        ParamsError: the volume has another number of slices.
    """
    if volume.ndim < 3 or volume.shape[-3] != matrix.shape[1]:
        raise ParamsError(f"expected a volume (..., {matrix.shape[1]}, y, x), got shape {tuple(volume.shape)}")
    weights = torch.from_numpy(matrix).to(device=volume.device, dtype=volume.dtype)
    return torch.matmul(weights, volume.flatten(-2)).unflatten(-1, volume.shape[-2:])


# Files keep spacings in float32 (NIfTI): an extent short of a whole slice by this part of one holds that slice.
PART_OF_A_SLICE = 1e-3


def slices_to_keep(n_thin: int, factor: float) -> int:
    """How many of the first thin slices reach into the thick slices of `factor` that they fill."""
    return slices_within(int((n_thin + PART_OF_A_SLICE) / factor), factor)


def slices_within(n_thick: int, factor: float) -> int:
    """How many thin slices reach into contiguous thick ones of `factor`; the last may do so in part."""
    return math.ceil(n_thick * factor - PART_OF_A_SLICE)


def thin_grid(n_thick: int, thick_spacing_mm: float, thin_spacing_mm: float) -> tuple[int, float]:
    """The thin grid that fills the extent of a thick one, n_thick * spacing, and shares its middle.

    Returns:
        Number of thin slices, and the position in mm of the first one's centre relative to the first thick one's.
    """
    n_thin = int(n_thick * thick_spacing_mm / thin_spacing_mm + PART_OF_A_SLICE)
    return n_thin, ((n_thick - 1) * thick_spacing_mm - (n_thin - 1) * thin_spacing_mm) / 2


@dataclass(frozen=True, eq=False)
class ThickeningOperator:
    """A linear map from thin to thick slices, its adjoint, and its exact inverse on the measured part.

    Volumes are (..., z, y, x), float32 or float64, on any device; gradients pass through every method.

    Attributes:
        matrix: A, (n_thick, n_thin) float64. Each row sums to 1, so that HU stay HU. Where a profile reaches beyond
            the thin grid the outer weights are dropped and the rest scaled up: nothing is known of the anatomy there.
        thin_positions: (n_thin,) float64, centres of the thin slices in units of thick slice indices.
        thin_thickness: full width at half maximum of the thin slices' own profile in units of their distance; they
            overlap where it is above 1.

    Source: y_k = sum_i w(z_i - c_k) x_i, Greenspan 2009, Super-resolution in medical imaging, Computer Journal 52(1).
    """

    matrix: FloatArray
    thin_positions: FloatArray
    thin_thickness: float = 1.0

    @classmethod
    def from_factor(cls, n_thin: int, factor: float, profile: Profile = "box") -> "ThickeningOperator":
        """Contiguous thick slices of `factor` contiguous thin ones; slice k is centred at factor k + (factor - 1) / 2.

        The first begins at the outer face of thin slice 0. Where the factor is not whole a thin slice may lie in two
        thick ones, in each by its part. Lengths are in units of the thin spacing: a `SampledProfile` has its offsets in
        thin slices.

        Raises:
            ParamsError: the factor is not above 1, or the thin slices are not those that fill whole thick ones.
        """
        if not 1 < factor < math.inf:
            raise ParamsError(f"the factor between thin and thick slices is {factor:g}, expected more than 1")
        keep = slices_to_keep(n_thin, factor)
        if n_thin != keep or n_thin == 0:
            raise ParamsError(
                f"{n_thin} thin slices do not fill groups of {factor:g}: keep the first {keep} (`slices_to_keep`)"
            )
        return cls.from_geometry(
            n_thick=int((n_thin + PART_OF_A_SLICE) / factor),
            thick_spacing_mm=factor,
            thick_thickness_mm=factor,
            n_thin=n_thin,
            thin_spacing_mm=1.0,
            thin_thickness_mm=1.0,
            first_thin_offset_mm=-(factor - 1) / 2,
            profile=profile,
        )

    @classmethod
    def from_geometry(
        cls,
        *,
        n_thick: int,
        thick_spacing_mm: float,
        thick_thickness_mm: float,
        n_thin: int,
        thin_spacing_mm: float,
        thin_thickness_mm: float,
        first_thin_offset_mm: float,
        profile: Profile,
    ) -> "ThickeningOperator":
        """Any two grids along one axis: spacings that do not divide each other, overlapping or gapped thick slices.

        Args:
            n_thick: number of thick slices.
            thick_spacing_mm: distance of their centres.
            thick_thickness_mm: FWHM of their profile; above the spacing they overlap, below it there are gaps.
            n_thin: number of thin slices.
            thin_spacing_mm: distance of their centres.
            thin_thickness_mm: FWHM of their own profile.
            first_thin_offset_mm: centre of thin slice 0 relative to that of thick slice 0.
            profile: the thick slices' profile.

        Raises:
            ParamsError: a length is not positive, a thick slice sees no thin one, or the thick slices overlap so much
                that no thin volume on this grid explains them all.
        """
        lengths_mm = (thick_spacing_mm, thick_thickness_mm, thin_spacing_mm, thin_thickness_mm)
        if min(n_thick, n_thin) < 1 or not all(np.isfinite(v) and v > 0 for v in lengths_mm):
            raise ParamsError(
                f"slice counts, spacings and thicknesses must be positive, got {n_thick} thick and {n_thin} thin "
                f"slices, and {lengths_mm} mm (thick spacing and thickness, thin spacing and thickness)"
            )
        thin_mm = first_thin_offset_mm + thin_spacing_mm * np.arange(n_thin, dtype=np.float64)
        weights = slice_weights(
            profile,
            thin_mm - thick_spacing_mm * np.arange(n_thick)[:, None],
            thin_spacing_mm=thin_spacing_mm,
            thin_thickness_mm=thin_thickness_mm,
            thick_thickness_mm=thick_thickness_mm,
        )
        sums = weights.sum(axis=1, keepdims=True)
        if not np.all(sums > 0):
            raise ParamsError(
                f"thick slice {int(np.argmin(sums))} of {n_thick} sees none of the {n_thin} thin slices: the thin grid "
                f"from {thin_mm[0]:g} to {thin_mm[-1]:g} mm must cover it (`thin_grid`)"
            )
        return cls(weights / sums, thin_mm / thick_spacing_mm, thin_thickness_mm / thin_spacing_mm)

    def __post_init__(self) -> None:
        """Refuse an operator that cannot be inverted on its range.

        Raises:
            ParamsError: A A^T is singular, or nearly so.
        """
        condition = np.linalg.cond(self.matrix @ self.matrix.T)
        if not condition < MAX_CONDITION:
            raise ParamsError(
                f"{self.n_thick} thick slices overlap too much to be told apart on {self.n_thin} thin ones (condition "
                f"{condition:.2g} of A A^T, expected below {MAX_CONDITION:g}): use every second slice, or a finer grid"
            )

    @property
    def n_thick(self) -> int:
        """Number of thick slices."""
        return int(self.matrix.shape[0])

    @property
    def n_thin(self) -> int:
        """Number of thin slices."""
        return int(self.matrix.shape[1])

    @cached_property
    def pseudo_inverse_matrix(self) -> FloatArray:
        """A^+ = A^T (A A^T)^-1, (n_thin, n_thick) float64, solved once.

        Profiles wider than the increment make A A^T banded, and A^+ couples neighbouring thick slices.

        Source: Penrose 1955; the right inverse of a matrix of full row rank.
        """
        gram = cho_factor(self.matrix @ self.matrix.T)
        return np.ascontiguousarray(cho_solve(gram, self.matrix).T)

    @cached_property
    def overlap(self) -> FloatArray:
        """(n_thin, n_thin): thin slices as means of slices that touch; the identity where they touch themselves."""
        index = np.arange(self.n_thin, dtype=np.float64)
        weights = slice_weights(
            "box",
            index - index[:, None],
            thin_spacing_mm=1.0,
            thin_thickness_mm=1.0,
            thick_thickness_mm=max(1.0, self.thin_thickness),
        )
        return weights / weights.sum(axis=1, keepdims=True)

    @cached_property
    def touching(self) -> "ThickeningOperator":
        """What thick slices are of thin ones that touch, where those of this operator overlap."""
        return ThickeningOperator(self.matrix @ self.overlap, self.thin_positions)

    def forward(self, thin: Tensor) -> Tensor:
        """Thick slices A x: (..., n_thin, y, x) to (..., n_thick, y, x), in the units of x."""
        return apply_along_z(self.matrix, thin)

    def adjoint(self, thick: Tensor) -> Tensor:
        """A^T y: (..., n_thick, y, x) to (..., n_thin, y, x). <A x, y> = <x, A^T y>."""
        return apply_along_z(np.ascontiguousarray(self.matrix.T), thick)

    def pseudo_inverse(self, thick: Tensor) -> Tensor:
        """A^+ y, the smallest thin volume that explains y: (..., n_thick, y, x) to (..., n_thin, y, x)."""
        return apply_along_z(self.pseudo_inverse_matrix, thick)

    def project(self, thin: Tensor, thick: Tensor) -> Tensor:
        """The thin volume nearest to `thin` that explains `thick` exactly: x + A^+ (y - A x).

        Args:
            thin: x, (..., n_thin, y, x).
            thick: y, (..., n_thick, y, x), of the same units.

        Source: Wang et al. 2023, Zero-shot image restoration using denoising diffusion null-space model, eq. 11.
        """
        return self.pseudo_inverse(thick - self.forward(thin)).add_(thin)
