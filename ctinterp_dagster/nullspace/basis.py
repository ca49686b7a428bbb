"""What the thick slices leave open: volumes of the null space of A, as a few coefficients a thick voxel.

x = up(y) + B c, where up(y) explains the measurement and A B = 0, so that consistency holds by construction. Inside the
cell of a thick slice a volume is written in cosines, which are orthonormal on `factor` equidistant thin slices and
have no mean: for the box profile they span the null space exactly, for other profiles and grids they are projected.

The networks know whole factors, from 2 to one more than their cosines, and see each measurement as if its cells were
divided in one of them. What they say of a cell is a function along z; a thin slice of any grid is its mean.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ctinterp_dagster.nullspace.units import INPUT
from ctinterp_dagster.physics.interpolators import spline_weights
from ctinterp_dagster.physics.operator import ThickeningOperator, apply_along_z
from ctinterp_dagster.scan.volume import DoubleArray
from ctinterp_dagster.scan.window import SOFT_TISSUE

# What the networks are shown, which a model's file has to fit (docs/decisions/0010-what-the-trainings-share.md).
MODES = 9  # cosines a cell of a new model: all that ten thin slices a thick one leave open
CONTEXT = 2  # thick slices on either side that the features of a cell show
TRANSFER = (0.5, 1.0, 1.5, 2.0)  # cycles a slice distance: where the networks are told how the profile transfers
KNOWN_FACTOR = 5  # the largest whole factor that releases up to 0.7 know
GEOMETRY = 4 + len(TRANSFER)  # numbers of the grid and the profile that condition a network


def feature_count(modes: int) -> int:
    """Channels of what a network of so many cosines is shown: thick slices twice, and the cosines of up(y)."""
    return 2 * (2 * CONTEXT + 1) + modes


FEATURES = feature_count(MODES)


@dataclass(frozen=True, eq=False)
class NullSpace:
    """The null space of a thickening operator in coefficients, and what a network is shown of the measurement.

    Volumes are (..., n_thin, y, x), coefficients (..., modes, n_thick, y, x) in the units of the volume. Where there
    are no more than m thin slices a thick one, cosine m and those above it are 0.

    Thin slices that overlap are means of slices that touch: those have the coefficients, so that noise is drawn as the
    networks know it, and is smoothed as a scanner smooths it.

    Attributes:
        operator: relates thin and thick slices.
        modes: cosines a cell, as many as the networks know.
    """

    operator: ThickeningOperator
    modes: int = MODES

    @cached_property
    def factor(self) -> int:
        """Thin slices a cell as the networks see it: the whole factor at or above the grid's, `modes` + 1 at most."""
        return min(self.operator.whole_factor, self.modes + 1)

    @cached_property
    def cells(self) -> ThickeningOperator:
        """The operator of the grid that the networks see."""
        return self.operator.divided(self.factor)

    @cached_property
    def cosines(self) -> DoubleArray:
        """(n_thin, modes * n_thick): means of the cells' cosines over the thin slices.

        Cosine m of a cell is sqrt(2) cos(pi m t), 0 <= t < 1, scaled so that its means over `factor` slices are the
        values at their centres, and 0 for m of `factor` and above.

        Source: Rao and Yip 1990, Discrete cosine transform, DCT-II without its constant.
        """
        return _cosines(self.operator, self.factor, self.modes)

    @cached_property
    def basis(self) -> DoubleArray:
        """B, (n_thin, modes * n_thick): the cosines without what the scanner would have seen of them; A B = 0."""
        a, inverse = self.operator.touching.matrix, self.operator.touching.pseudo_inverse_matrix
        return np.ascontiguousarray(self.operator.overlap @ (self.cosines - inverse @ (a @ self.cosines)))

    @cached_property
    def analysis(self) -> DoubleArray:
        """B^+, (modes * n_thick, n_thin)."""
        return np.asarray(np.linalg.pinv(self.basis, rcond=1e-6), dtype=np.float64)

    @cached_property
    def upsampling(self) -> DoubleArray:
        """up, (n_thin, n_thick): the projected cubic B-spline as one matrix, equal to `cubic_projected`.

        Of thin slices that overlap: the mean of those that touch.
        """
        return np.ascontiguousarray(self.operator.overlap @ _upsampling(self.operator.touching))

    def base(self, thick: Tensor) -> Tensor:
        """up(y): (..., n_thick, y, x) to (..., n_thin, y, x)."""
        return apply_along_z(self.upsampling, thick)

    def expand(self, coefficients: Tensor) -> Tensor:
        """B c: (..., modes, n_thick, y, x) to (..., n_thin, y, x), which thickens to 0."""
        return apply_along_z(self.basis, coefficients.flatten(-4, -3))

    def expand_variance(self, variance: Tensor) -> Tensor:
        """Variance of B c for uncorrelated c: (..., modes, n_thick, y, x) to (..., n_thin, y, x), units squared."""
        return apply_along_z(self.basis**2, variance.flatten(-4, -3))

    def features(self, thick: Tensor) -> Tensor:
        """What a network is shown: (..., n_thick, y, x) HU to (..., features, n_thick, y, x) without unit."""
        return network_features(thick, torch.from_numpy(self.cosines_of_base).to(thick.device, thick.dtype))

    def geometry(self, thick_mm: Sequence[float]) -> Tensor:
        """Numbers of the grid and the profile that condition a network.

        Natural log of slice distance over 5 mm and of pixel size over 0.7 mm, `factor` over 5 and at most 1, what the
        profile lets through of cosines about the slice centre of 0.5, 1, 1.5 and 2 cycles a slice distance, and how
        much `factor` is above 5, over 5. The first three condition releases up to 0.7: a network that goes on from
        it begins at any factor as it is.

        Args:
            thick_mm: distance of the thick volume's voxels along (z, y, x).

        Returns:
            (GEOMETRY,) float32 on the CPU.
        """
        pixel_mm = (thick_mm[1] + thick_mm[2]) / 2
        known = min(self.factor, KNOWN_FACTOR)
        grid = math.log(thick_mm[0] / 5.0), math.log(pixel_mm / 0.7), known / 5.0
        return torch.tensor([*grid, *self.transfer, (self.factor - known) / 5.0], dtype=torch.float32)

    @cached_property
    def transfer(self) -> tuple[float, ...]:
        """The profile's transfer function at `TRANSFER`, of the thick slice in the middle."""
        middle = self.cells.n_thick // 2
        offsets = self.cells.thin_positions - middle
        return tuple(float(self.cells.matrix[middle] @ np.cos(2 * np.pi * f * offsets)) for f in TRANSFER)

    @cached_property
    def cosines_of_base(self) -> DoubleArray:
        """(modes * n_thick, n_thick): thick slices to the cosines of up(y) in each cell."""
        cosines = _cosines(self.cells, self.factor, self.modes)
        return np.ascontiguousarray(cosines.T @ _upsampling(self.cells) / self.factor)


def network_features(thick: Tensor, cosines_of_base: Tensor) -> Tensor:
    """What a network is shown of thick slices.

    The thick slices k - 2 to k + 2 in units of 1000 HU and, clipped, in the soft-tissue window; and the cosines
    of up(y) in cell k in units of 1000 HU, which tell the profile and the grid.

    Args:
        thick: (..., n_thick, y, x) HU.
        cosines_of_base: (..., modes * n_thick, n_thick), `NullSpace.cosines_of_base`, in the type of `thick`.

    Returns:
        (..., features, n_thick, y, x) without unit.
    """
    n_thick, device = thick.shape[-3], thick.device
    around = torch.arange(-CONTEXT, CONTEXT + 1, device=device)[:, None]
    near = (torch.arange(n_thick, device=device) + around).clamp_(0, n_thick - 1)
    wide, soft = INPUT.from_hu(thick), SOFT_TISSUE.to_symmetric(thick).clamp_(-1.0, 1.0)
    cosines = (
        torch.matmul(cosines_of_base, thick.flatten(-2)).unflatten(-2, (-1, n_thick)).unflatten(-1, thick.shape[-2:])
    )
    return torch.cat([wide[..., near, :, :], soft[..., near, :, :], INPUT.from_hu(cosines)], dim=-4)


def _cosines(operator: ThickeningOperator, factor: int, modes: int) -> DoubleArray:
    """`NullSpace.cosines`, (n_thin, modes * n_thick); of a slice that sticks out, the mean over what does not."""
    half, n_thick = operator.thin_distance / 2, operator.n_thick
    upper, lower = (operator.thin_positions[:, None] + side + 0.5 for side in (-half, half))
    inside = np.clip(lower, 0, n_thick) - np.clip(upper, 0, n_thick)
    cosines = np.zeros((len(inside), modes, n_thick))
    for m in range(1, factor):
        to, since = (np.sin(np.pi * m * np.clip(face - np.arange(n_thick), 0, 1)) for face in (lower, upper))
        cosines[:, m - 1] = np.sqrt(2) * (to - since) / (np.pi * m * np.sinc(m / (2 * factor)) * inside)
    return cosines.reshape(len(inside), -1)


def _upsampling(operator: ThickeningOperator) -> DoubleArray:
    """(n_thin, n_thick): the projected cubic B-spline as one matrix."""
    cubic = spline_weights(operator.n_thick, operator.thin_positions, order=3)
    return cubic + operator.pseudo_inverse_matrix @ (np.eye(operator.n_thick) - operator.matrix @ cubic)
