"""What a latent diffusion is shown of a thick scan, in training and after."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from ctinterp_dagster.model.autoencoder import LATENT_STRIDE
from ctinterp_dagster.physics.interpolators import cubic_projected, linear
from ctinterp_dagster.physics.operator import ThickeningOperator
from ctinterp_dagster.scan.window import MAISI

if TYPE_CHECKING:
    from ctinterp_dagster.latent.diffusion import Conditioning

Encode = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Conditions:
    """What is known of the thin volume before anything is drawn.

    Attributes:
        base_hu: (z, y, x) projected cubic interpolation.
        base: (1, channel, z/4, y/4, x/4) its scaled latent.
        condition: the same shape, what the denoiser is shown.
    """

    base_hu: Tensor
    base: Tensor
    condition: Tensor


def to_unit(hu: Tensor) -> Tensor:
    """HU as the autoencoder's unit range: [-1000, 1000] HU as [0, 1], clipped.

    Residual decoding adds to a base that was never clipped, so HU outside [-1000, 1000] survive.

    Args:
        hu: (z, y, x) HU.

    Returns:
        (1, 1, z, y, x).
    """
    return MAISI.to_unit(MAISI.clip(hu))[None, None]


def conditions_of(thick_hu: Tensor, operator: ThickeningOperator, encode: Encode, kind: "Conditioning") -> Conditions:
    """Interpolate a thick scan and encode it.

    Args:
        thick_hu: (k, y, x) HU.
        operator: relates the thin grid to the thick one.
        encode: (1, 1, z, y, x) in unit range to scaled latents.
        kind: `encoded_interpolation` shows the denoiser E(up(y)); `interpolated_latent` shows it E(y), resized
            linearly along z with the centres of latent voxels aligned.

    Returns:
        The interpolation, (z, y, x) HU, and its latent and the condition, (1, channel, z/4, y/4, x/4), scaled.
    """
    base_hu = cubic_projected(thick_hu, operator)
    base = encode(to_unit(base_hu))
    if kind == "encoded_interpolation":
        return Conditions(base_hu, base, base)
    thick_latent = encode(to_unit(thick_hu))
    middle = (LATENT_STRIDE - 1) / 2
    thin_centres = np.arange(base.shape[2]) * LATENT_STRIDE + middle
    thick_centres = np.interp(thin_centres, np.arange(len(operator.thin_positions)), operator.thin_positions)
    condition = linear(thick_latent, (thick_centres - middle) / LATENT_STRIDE)
    return Conditions(base_hu, base, condition)
