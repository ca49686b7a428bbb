"""The thin volume of least total variation among those that explain the thick slices exactly."""

import torch
from torch import Tensor
from torch.nn.functional import pad

from ctinterp_dagster.physics.interpolators import cubic_projected
from ctinterp_dagster.physics.operator import ThickeningOperator

EDGE_HU = 15.0  # gradients below it count as noise (quadratic), above it as edges (linear)
STEP_HU = 2.0  # length of a step where the gradient of the penalty is 1
MOMENTUM = 0.9
ITERATIONS = 60
SLAB = 16  # slices whose gradient is in memory at once


def _slope(slab: Tensor, z_weight: float) -> Tensor:
    """Gradient of the Huber-TV penalty at the inner slices of a slab.

    The penalty is the sum of sqrt(|D x|^2 + EDGE_HU^2), D the forward differences, zero at the far faces.

    Args:
        slab: (s + 2, y, x) HU.
        z_weight: of differences along z beside those in the plane.

    Returns:
        (s, y, x).
    """
    lower = slab[:-1]
    dz = (slab[1:] - lower) * z_weight
    dy = pad(lower.diff(dim=1), (0, 0, 0, 1))
    dx = pad(lower.diff(dim=2), (0, 1))
    scale = dz.square().addcmul_(dy, dy).addcmul_(dx, dx).add_(EDGE_HU**2).rsqrt_()
    dz.mul_(scale)
    dy, dx = dy.mul_(scale)[1:], dx.mul_(scale)[1:]
    slope = (dz[:-1] - dz[1:]).mul_(z_weight).sub_(dy).sub_(dx)
    slope[:, 1:] += dy[:, :-1]
    slope[:, :, 1:] += dx[:, :, :-1]
    return slope


def _slab(volume: Tensor, start: int, stop: int) -> Tensor:
    """Slices start - 1 to stop of a volume, the outermost slice standing in for the one beyond an end."""
    index = torch.arange(start - 1, stop + 1, device=volume.device).clamp_(0, volume.shape[0] - 1)
    return volume.index_select(0, index)


def tv_projected(thick: Tensor, operator: ThickeningOperator, aspect: float) -> Tensor:
    """Minimise 3D Huber total variation over the thin volumes with A x = y, from the projected cubic spline.

    A fixed number of steps of gradient descent with momentum, each followed by the exact projection; beside the result
    it holds two volumes and a few slabs of slices.

    Args:
        thick: y, (n_thick, y, x) HU.
        operator: what turned thin into thick.
        aspect: thin spacing over in-plane spacing; differences along z are divided by it.

    Returns:
        (n_thin, y, x) HU.

    Source: Rudin, Osher and Fatemi 1992 (total variation); Charbonnier et al. 1997 (sqrt(d^2 + eps^2) for its corner);
        Polyak 1964 (momentum).
    """
    thin = cubic_projected(thick, operator)
    velocity = torch.zeros_like(thin)
    for _ in range(ITERATIONS):
        for start in range(0, operator.n_thin, SLAB):
            stop = min(start + SLAB, operator.n_thin)
            velocity[start:stop].mul_(MOMENTUM).sub_(_slope(_slab(thin, start, stop), 1 / aspect), alpha=STEP_HU)
        thin = operator.project(thin.add_(velocity), thick)
    return thin
