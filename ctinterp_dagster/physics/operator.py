"""The model of the scanner: thick slices y = A x of thin slices x."""

import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from scipy.linalg import cho_factor, cho_solve
from torch import Tensor

from ctinterp_dagster.errors import ParamsError
from ctinterp_dagster.physics.profile import Profile, slice_weights
from ctinterp_dagster.scan.volume import DoubleArray

MAX_OVERLAP = 2.01  # thickness over distance: above 2 a box has zeros among the frequencies that the slices sample
MAX_CONDITION = 1e6  # of A A^T: beyond it an exact solution amplifies noise a thousandfold
LEAST_EIGENVALUE = 0.05  # of A A^T, over the largest: below it a regularised inverse takes it for that


def apply_along_z(matrix: DoubleArray, volume: Tensor) -> Tensor:
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
    product: Tensor = torch.matmul(weights, volume.flatten(-2)).unflatten(-1, volume.shape[-2:])
    return product


# Files keep spacings in float32 (NIfTI): an extent short of a whole slice by this part of one holds that slice.
PART_OF_A_SLICE = 1e-3
PART_OF_A_FACTOR = 1e-2  # a factor this little above a whole one is that one


def slices_to_keep(n_thin: int, factor: float) -> int:
    """How many of the first thin slices reach into the thick slices of `factor` that they fill."""
    return slices_within(int((n_thin + PART_OF_A_SLICE) / factor), factor)


def slices_within(n_thick: int, factor: float) -> int:
    """How many thin slices reach into contiguous thick ones of `factor`; the last may do so in part."""
    return math.ceil(n_thick * factor - PART_OF_A_SLICE)


def thin_grid(n_thick: int, thick_spacing_mm: float, thin_spacing_mm: float) -> tuple[int, float]:
    """The thin grid that fills the extent of a thick one, n_thick * spacing, and shares its middle.

    Args:
        n_thick: number of thick slices.
        thick_spacing_mm: distance of their centres.
        thin_spacing_mm: distance of the thin ones' centres.

    Returns:
        Number of thin slices, and the position in mm of the first one's centre relative to the first thick one's.
    """
    n_thin = int(n_thick * thick_spacing_mm / thin_spacing_mm + PART_OF_A_SLICE)
    return n_thin, ((n_thick - 1) * thick_spacing_mm - (n_thin - 1) * thin_spacing_mm) / 2


@dataclass(frozen=True, eq=False)
class ThickeningOperator:
    """A linear map from thin to thick slices, and its inverse on the measured part.

    The inverse is exact, unless thick slices overlap so much that it would amplify what the profile does not explain
    (`is_regularised`).

    Volumes are (..., z, y, x), float32 or float64, on any device; gradients pass through every method.

    Attributes:
        matrix: A, (n_thick, n_thin) float64. Each row sums to 1, so that HU stay HU. Where a profile reaches beyond
            the thin grid the outer weights are dropped and the rest scaled up: nothing is known of the anatomy there.
        thin_positions: (n_thin,) float64, centres of the thin slices in units of thick slice indices.
        profile: of the thick slices.
        thick_spacing_mm: their distance, in the unit of lengths that the operator was made with.
        thick_thickness_mm: full width at half maximum of their profile, in the same unit.
        thin_thickness: full width at half maximum of the thin slices' own profile in units of their distance; they
            overlap where it is above 1.

    Source: y_k = sum_i w(z_i - c_k) x_i, Greenspan 2009, Super-resolution in medical imaging, Computer Journal 52(1).
    """

    matrix: DoubleArray
    thin_positions: DoubleArray
    profile: Profile
    thick_spacing_mm: float
    thick_thickness_mm: float
    thin_thickness: float = 1.0

    @classmethod
    def from_factor(cls, n_thin: int, factor: float, profile: Profile = "box") -> "ThickeningOperator":
        """Contiguous thick slices of `factor` contiguous thin ones; slice k is centred at factor k + (factor - 1) / 2.

        The first begins at the outer face of thin slice 0. Where the factor is not whole a thin slice may lie in two
        thick ones, in each by its part. Lengths are in units of the thin spacing.

        Args:
            n_thin: number of thin slices, as `slices_to_keep` gives it.
            factor: above 1.
            profile: of the thick slices; a `SampledProfile` has its offsets in thin slices.

        Returns:
            The operator, (n_thin, y, x) to (k, y, x), k as many whole thick slices as fit.

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

        Returns:
            The operator, (n_thin, y, x) to (n_thick, y, x), whose rows sum to 1.

        Raises:
            ParamsError: a length is not positive, or a thick slice sees no thin one.
        """
        lengths_mm = (thick_spacing_mm, thick_thickness_mm, thin_spacing_mm, thin_thickness_mm)
        if min(n_thick, n_thin) < 1 or not all(np.isfinite(v) and v > 0 for v in lengths_mm):
            raise ParamsError(
                f"slice counts, spacings and thicknesses must be positive, got {n_thick} thick and {n_thin} thin "
                f"slices, and {lengths_mm} mm (thick spacing and thickness, thin spacing and thickness): "
                "mend what is not"
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
        return cls(
            matrix=weights / sums,
            thin_positions=thin_mm / thick_spacing_mm,
            profile=profile,
            thick_spacing_mm=thick_spacing_mm,
            thick_thickness_mm=thick_thickness_mm,
            thin_thickness=thin_thickness_mm / thin_spacing_mm,
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
    def is_regularised(self) -> bool:
        """Whether A x = y is met only nearly: the thick slices are over twice as thick as their distance, or alike."""
        too_thick = self.thick_thickness_mm > MAX_OVERLAP * self.thick_spacing_mm
        return too_thick or not np.linalg.cond(self.matrix @ self.matrix.T) < MAX_CONDITION

    @cached_property
    def pseudo_inverse_matrix(self) -> DoubleArray:
        """A^+ = A^T (A A^T)^-1, (n_thin, n_thick) float64, solved once.

        Profiles wider than the increment make A A^T banded, and A^+ couples neighbouring thick slices. Regularised,
        the eigenvalues of A A^T are at least 0.05 of the largest.

        Source: Penrose 1955, the right inverse of a matrix of full row rank; Hansen 1998, Rank-Deficient and Discrete
            Ill-Posed Problems, section 4.2 (filter factors).
        """
        gram = self.matrix @ self.matrix.T
        if not self.is_regularised:
            return np.ascontiguousarray(cho_solve(cho_factor(gram), self.matrix).T)
        values, vectors = np.linalg.eigh(gram)
        held = np.maximum(values, LEAST_EIGENVALUE * values[-1])
        return np.ascontiguousarray(self.matrix.T @ (vectors / held) @ vectors.T)

    @cached_property
    def overlap(self) -> DoubleArray:
        """(n_thin, n_thin): thin slices as means of slices that touch; the identity where they touch themselves."""
        index = np.arange(self.n_thin, dtype=np.float64)
        weights = slice_weights(
            "box",
            index - index[:, None],
            thin_spacing_mm=1.0,
            thin_thickness_mm=1.0,
            thick_thickness_mm=max(1.0, self.thin_thickness),
        )
        return _of_sum_one(weights)

    @cached_property
    def touching(self) -> "ThickeningOperator":
        """What thick slices are of thin ones that touch, where those of this operator overlap."""
        return replace(self, matrix=self.matrix @ self.overlap, thin_thickness=1.0)

    @property
    def thin_distance(self) -> float:
        """Distance of the thin slices in units of that of the thick ones; 1 where there is only one."""
        return float(self.thin_positions[1] - self.thin_positions[0]) if self.n_thin > 1 else 1.0

    @property
    def whole_factor(self) -> int:
        """The whole number at or above that of thin slices to a thick one, 2 at least; spacings may be rounded."""
        return max(2, math.ceil(1.0 / self.thin_distance - PART_OF_A_FACTOR))

    def means_of(self, cells: "ThickeningOperator") -> DoubleArray:
        """(n_thin, n_cells): each thin slice as a mean of the touching ones of `divided`, by their parts in it."""
        weights = slice_weights(
            "box",
            cells.thin_positions - self.thin_positions[:, None],
            thin_spacing_mm=cells.thin_distance,
            thin_thickness_mm=cells.thin_distance,
            thick_thickness_mm=self.thin_distance * max(1.0, self.thin_thickness),
        )
        return _of_sum_one(weights)

    def divided(self, factor: int) -> "ThickeningOperator":
        """The same thick slices over thin ones that touch, `factor` of them in each thick slice's cell."""
        thin_mm = self.thick_spacing_mm / factor
        return ThickeningOperator.from_geometry(
            n_thick=self.n_thick,
            thick_spacing_mm=self.thick_spacing_mm,
            thick_thickness_mm=self.thick_thickness_mm,
            n_thin=self.n_thick * factor,
            thin_spacing_mm=thin_mm,
            thin_thickness_mm=thin_mm,
            first_thin_offset_mm=(thin_mm - self.thick_spacing_mm) / 2,
            profile=self.profile,
        )

    def forward(self, thin: Tensor) -> Tensor:
        """Thick slices A x: (..., n_thin, y, x) to (..., n_thick, y, x), in the units of x."""
        return apply_along_z(self.matrix, thin)

    def pseudo_inverse(self, thick: Tensor) -> Tensor:
        """A^+ y, the smallest thin volume that explains y: (..., n_thick, y, x) to (..., n_thin, y, x)."""
        return apply_along_z(self.pseudo_inverse_matrix, thick)

    def project(self, thin: Tensor, thick: Tensor) -> Tensor:
        """The thin volume nearest to `thin` that explains `thick`: x + A^+ (y - A x).

        Args:
            thin: x, (..., n_thin, y, x).
            thick: y, (..., n_thick, y, x), of the same units.

        Returns:
            (..., n_thin, y, x) in the same units.

        Source: Wang et al. 2023, Zero-shot image restoration using denoising diffusion null-space model, eq. 11.
        """
        return self.pseudo_inverse(thick - self.forward(thin)).add_(thin)


def _of_sum_one(weights: DoubleArray) -> DoubleArray:
    sums: DoubleArray = weights.sum(axis=1, keepdims=True)
    return weights / sums
