"""What the thick slices leave open: volumes of the null space of A, as a few coefficients a thick voxel.

x = up(y) + B c, where up(y) explains the measurement and A B = 0, so that consistency holds by construction. Inside the
cell of a thick slice a volume is written in cosines, which are orthonormal on `factor` equidistant thin slices and
have no mean: for the box profile they span the null space exactly, for other profiles and grids they are projected.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ctinterp_dagster.physics.interpolators import spline_weights
from ctinterp_dagster.physics.operator import ThickeningOperator, apply_along_z

FloatArray = npt.NDArray[np.float64]
MODES = 4  # cosines a cell: all that five thin slices a thick one leave open
CONTEXT = 2  # thick slices on either side that the features of a cell show
SOFT_HU = (40.0, 200.0)  # centre and half width of the soft-tissue window
FEATURES = 2 * (2 * CONTEXT + 1) + MODES


@dataclass(frozen=True, eq=False)
class NullSpace:
    """The null space of a thickening operator in coefficients, and what a network is shown of the measurement.

    Volumes are (..., n_thin, y, x), coefficients (..., MODES, n_thick, y, x) in the units of the volume. Where there
    are no more than m thin slices a thick one, cosine m and those above it are 0.

    Thin slices that overlap are means of slices that touch: those have the coefficients, so that noise is drawn as the
    networks know it, and is smoothed as a scanner smooths it.

    Attributes:
        operator: relates thin and thick slices.
    """

    operator: ThickeningOperator

    @property
    def slices_per_cell(self) -> float:
        """Thin slices a thick one, not always an integer."""
        positions = self.operator.thin_positions
        return 1.0 / float(positions[1] - positions[0]) if len(positions) > 1 else 1.0

    @cached_property
    def cosines(self) -> FloatArray:
        """(n_thin, MODES * n_thick): cosine m of the cell in which a thin slice lies, sqrt(2) cos(pi m t), 0 <= t < 1.

        Source: Rao and Yip 1990, Discrete cosine transform, DCT-II without its constant.
        """
        positions, n_thick = self.operator.thin_positions, self.operator.n_thick
        cell = np.clip(np.floor(positions + 0.5), 0, n_thick - 1).astype(int)
        waves = np.zeros((len(positions), MODES, n_thick))
        rows = np.arange(len(positions))
        for m in range(1, MODES + 1):
            if m < self.slices_per_cell - 1e-6:
                waves[rows, m - 1, cell] = np.sqrt(2) * np.cos(np.pi * m * (positions - cell + 0.5))
        return waves.reshape(len(positions), -1)

    @cached_property
    def basis(self) -> FloatArray:
        """B, (n_thin, MODES * n_thick): the cosines without what the scanner would have seen of them; A B = 0."""
        a, inverse = self.operator.touching.matrix, self.operator.touching.pseudo_inverse_matrix
        return np.ascontiguousarray(self.operator.overlap @ (self.cosines - inverse @ (a @ self.cosines)))

    @cached_property
    def analysis(self) -> FloatArray:
        """B^+, (MODES * n_thick, n_thin)."""
        return np.asarray(np.linalg.pinv(self.basis, rcond=1e-6), dtype=np.float64)

    @cached_property
    def upsampling(self) -> FloatArray:
        """up, (n_thin, n_thick): the projected cubic B-spline as one matrix, equal to `cubic_projected`.

        Of thin slices that overlap: the mean of those that touch.
        """
        return np.ascontiguousarray(self.operator.overlap @ self._touching_upsampling)

    @cached_property
    def _touching_upsampling(self) -> FloatArray:
        cubic = spline_weights(self.operator.n_thick, self.operator.thin_positions, order=3)
        a, inverse = self.operator.touching.matrix, self.operator.touching.pseudo_inverse_matrix
        return cubic + inverse @ (np.eye(len(a)) - a @ cubic)

    def base(self, thick: Tensor) -> Tensor:
        """up(y): (..., n_thick, y, x) to (..., n_thin, y, x)."""
        return apply_along_z(self.upsampling, thick)

    def expand(self, coefficients: Tensor) -> Tensor:
        """B c: (..., MODES, n_thick, y, x) to (..., n_thin, y, x), which thickens to 0."""
        return apply_along_z(self.basis, coefficients.flatten(-4, -3))

    def expand_variance(self, variance: Tensor) -> Tensor:
        """Variance of B c for uncorrelated c: (..., MODES, n_thick, y, x) to (..., n_thin, y, x), units squared."""
        return apply_along_z(self.basis**2, variance.flatten(-4, -3))

    def coefficients(self, thin: Tensor) -> Tensor:
        """B^+ x: (..., n_thin, y, x) to (..., MODES, n_thick, y, x); what is not in the null space does not count."""
        return apply_along_z(self.analysis, thin).unflatten(-3, (MODES, self.operator.n_thick))

    def features(self, thick: Tensor) -> Tensor:
        """What a network is shown: (..., n_thick, y, x) HU to (..., FEATURES, n_thick, y, x) without unit.

        The thick slices k - 2 to k + 2 in units of 1000 HU and, clipped, in the soft-tissue window; and the cosines
        of up(y) in cell k in units of 1000 HU, which tell the profile and the grid.
        """
        n_thick = self.operator.n_thick
        index = np.clip(np.arange(n_thick) + np.arange(-CONTEXT, CONTEXT + 1)[:, None], 0, n_thick - 1)
        near = thick[..., torch.from_numpy(index).to(thick.device), :, :]
        soft = ((near - SOFT_HU[0]) / SOFT_HU[1]).clamp_(-1.0, 1.0)
        waves = apply_along_z(self._waves_of_base, thick).unflatten(-3, (MODES, n_thick))
        return torch.cat([near / 1000.0, soft, waves / 1000.0], dim=-4)

    def geometry(self, thick_mm: Sequence[float]) -> Tensor:
        """What a network is told of the grid, (3,): log of slice distance and of pixel size, thin slices a thick one.

        Args:
            thick_mm: spacing of the thick volume, (z, y, x).
        """
        pixel_mm = (thick_mm[1] + thick_mm[2]) / 2
        numbers = math.log(thick_mm[0] / 5.0), math.log(pixel_mm / 0.7), self.slices_per_cell / 5.0
        return torch.tensor(numbers, dtype=torch.float32)

    @cached_property
    def _waves_of_base(self) -> FloatArray:
        return np.ascontiguousarray(self.cosines.T @ self._touching_upsampling / self.slices_per_cell)
