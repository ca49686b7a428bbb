"""Interpolation along z from the centres of the thick slices to any positions.

Each method is a matrix of weights, so that it costs one product, is differentiable and runs on any device.
Positions are in units of thick slice indices: 0 is the centre of the first thick slice, 1 that of the next. Beyond the
first and last centre, where the outer thin slices of the outer groups lie, nearest and linear hold the last value, and
the cubic spline continues into its mirror image, as ITK does.
"""

import numpy as np
from scipy.ndimage import map_coordinates
from torch import Tensor

from ctinterp_dagster.physics.operator import ThickeningOperator, apply_along_z
from ctinterp_dagster.scan.volume import DoubleArray


def spline_weights(n_thick: int, positions: DoubleArray, order: int) -> DoubleArray:
    """Weights of an interpolating B-spline with mirror ends: its response to a 1 in each thick slice in turn.

    Args:
        n_thick: number of thick slices.
        positions: (n,) float64, in units of thick slice indices.
        order: of the spline, 1 or 3.

    Returns:
        (n, n_thick) float64.
    """
    if n_thick == 1:
        return np.ones((len(positions), 1))
    held = np.clip(positions, 0, n_thick - 1) if order < 2 else positions
    responses = [map_coordinates(one, [held], order=order, mode="mirror") for one in np.eye(n_thick)]
    return np.stack(responses, axis=1)


def nearest(thick: Tensor, positions: DoubleArray) -> Tensor:
    """The value of the nearest thick slice; halfway, that of the upper one.

    Args:
        thick: (..., n_thick, y, x).
        positions: (n,) float64, in units of thick slice indices.

    Returns:
        (..., n, y, x).
    """
    n_thick = thick.shape[-3]
    index = np.clip(np.floor(positions + 0.5).astype(int), 0, n_thick - 1)
    return apply_along_z(np.eye(n_thick)[index], thick)


def linear(thick: Tensor, positions: DoubleArray) -> Tensor:
    """Linear interpolation between neighbouring thick slices.

    Args:
        thick: (..., n_thick, y, x).
        positions: (n,) float64, in units of thick slice indices.

    Returns:
        (..., n, y, x) in the units of `thick`.
    """
    return apply_along_z(spline_weights(thick.shape[-3], positions, order=1), thick)


def cubic(thick: Tensor, positions: DoubleArray) -> Tensor:
    """Interpolating cubic B-spline with mirror ends, equal to SimpleITK's.

    Args:
        thick: (..., n_thick, y, x).
        positions: (n,) float64, in units of thick slice indices.

    Returns:
        (..., n, y, x) in the units of `thick`.

    Source: Unser 1999, Splines: a perfect fit for signal and image processing, IEEE Signal Process. Mag. 16(6).
    """
    return apply_along_z(spline_weights(thick.shape[-3], positions, order=3), thick)


def cubic_projected(thick: Tensor, operator: ThickeningOperator) -> Tensor:
    """The cubic B-spline on the operator's thin slices, made to explain the thick ones exactly.

    Args:
        thick: (..., n_thick, y, x).
        operator: what turned thin into thick.

    Returns:
        (..., n_thin, y, x).
    """
    return operator.project(cubic(thick, operator.thin_positions), thick)
