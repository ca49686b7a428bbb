"""What a latent diffusion is shown of a thick scan, in training and after."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ctinterp_dagster.model.autoencoder import LATENT_STRIDE
from ctinterp_dagster.model.autoencoder.unit_range import volume_to_unit
from ctinterp_dagster.physics.interpolators import cubic_projected, linear
from ctinterp_dagster.physics.operator import ThickeningOperator

if TYPE_CHECKING:
    from ctinterp_dagster.latent.diffusion import Conditioning

Encode = Callable[[Tensor], Tensor]
AROUND, SPREAD = 0.5, 0.25  # of voxels in unit range, about: what standardises them
USUAL_FACTOR = 5  # which a thick slice's thickness is told in


@dataclass(frozen=True)
class Conditions:
    """What is known of the thin volume before anything is drawn.

    Attributes:
        base_hu: (z, y, x) projected cubic interpolation.
        base: (1, channel, z/4, y/4, x/4) its scaled latent.
        condition: (1, condition channel, z/4, y/4, x/4), what the denoiser is shown.
    """

    base_hu: Tensor
    base: Tensor
    condition: Tensor


def conditions_of(thick_hu: Tensor, operator: ThickeningOperator, encode: Encode, kind: "Conditioning") -> Conditions:
    """Interpolate a thick scan and encode it.

    Args:
        thick_hu: (k, y, x) HU.
        operator: relates the thin grid to the thick one.
        encode: (1, 1, z, y, x) in unit range to scaled latents.
        kind: `encoded_interpolation` shows the denoiser E(up(y)); `interpolated_latent` shows it E(y), resized
            linearly along z with the centres of latent voxels aligned; `interpolated_voxels` E(up(y)), the voxels of
            up(y), which the latent does not hold, and where a latent slice lies in the thick ones.

    Returns:
        The interpolation, (z, y, x) HU, its latent, (1, channel, z/4, y/4, x/4), scaled, and the condition.
    """
    base_hu = cubic_projected(thick_hu, operator)
    base = encode(volume_to_unit(base_hu))
    if kind == "encoded_interpolation":
        return Conditions(base_hu, base, base)
    if kind == "interpolated_voxels":
        places = places_in_thick(operator, base.shape[2]).to(base)[None, :, :, None, None]
        parts = base, voxels_as_channels(volume_to_unit(base_hu)), places.expand(-1, -1, -1, *base.shape[3:])
        return Conditions(base_hu, base, torch.cat(parts, dim=1))
    thick_latent = encode(volume_to_unit(thick_hu))
    middle = (LATENT_STRIDE - 1) / 2
    thin_centres = np.arange(base.shape[2]) * LATENT_STRIDE + middle
    thick_centres = np.interp(thin_centres, np.arange(len(operator.thin_positions)), operator.thin_positions)
    condition = linear(thick_latent, (thick_centres - middle) / LATENT_STRIDE)
    return Conditions(base_hu, base, condition)


def voxels_as_channels(unit: Tensor) -> Tensor:
    """The voxels that each latent voxel covers, standardised.

    Args:
        unit: (1, 1, z, y, x) in unit range; it is padded with air to multiples of 4, as the autoencoder does.

    Returns:
        (1, 64, ceil(z/4), ceil(y/4), ceil(x/4)), z before y before x.

    Source: Shi et al. 2016 (arXiv 1609.05158), equation 4, the other way round.
    """
    n = LATENT_STRIDE
    missing = [extent for size in reversed(unit.shape[2:]) for extent in (0, -size % n)]
    blocks = functional.pad(unit, missing).unfold(2, n, n).unfold(3, n, n).unfold(4, n, n)
    return (blocks[:, 0].flatten(4).movedim(4, 1) - AROUND) / SPREAD


def places_in_thick(operator: ThickeningOperator, depth: int) -> Tensor:
    """Where latent slices lie in the thick ones, and what these are.

    Args:
        operator: relates the thin grid to the thick one.
        depth: of the latent.

    Returns:
        (4, depth): cosine and sine of the place, a turn a thick slice; the distance of thin slices in fifths of that
        of thick ones; the sum of the squared weights of a thick slice over that of a box which fills the distance.
    """
    middles = np.arange(depth) * LATENT_STRIDE + (LATENT_STRIDE - 1) / 2
    turns = 2 * np.pi * np.interp(middles, np.arange(operator.n_thin), operator.thin_positions)
    peak = np.square(operator.matrix[operator.n_thick // 2]).sum() / operator.thin_distance
    told = np.cos(turns), np.sin(turns), USUAL_FACTOR * operator.thin_distance, peak
    return torch.from_numpy(np.stack([np.broadcast_to(each, depth) for each in told])).float()
