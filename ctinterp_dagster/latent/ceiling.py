"""What an autoencoder lets through: rows of the evaluation that no denoiser in its latent space can pass."""

import torch
from torch import Tensor

from ctinterp_dagster.latent.evidence import to_unit
from ctinterp_dagster.model.autoencoder import MaisiAutoencoder
from ctinterp_dagster.physics.interpolators import cubic_projected
from ctinterp_dagster.physics.operator import ThickeningOperator
from ctinterp_dagster.scan.window import MAISI


@torch.inference_mode()
def autoencoder_ceiling(autoencoder: MaisiAutoencoder, thin_hu: Tensor, memory_gib: float) -> Tensor:
    """The truth encoded and decoded, (z, y, x) HU on the CPU: what plain decoding of a perfect latent gives.

    HU outside of [-1000, 1000] are lost, as they are to whoever decodes a latent alone.
    """
    device = next(autoencoder.parameters()).device
    latent = autoencoder.encode(to_unit(thin_hu.to(device)), memory_gib).mean
    size_zyx = (thin_hu.shape[0], thin_hu.shape[1], thin_hu.shape[2])
    return MAISI.clip(MAISI.from_unit(autoencoder.decode(latent, size_zyx, memory_gib)[0, 0])).cpu()


@torch.inference_mode()
def residual_ceiling(
    autoencoder: MaisiAutoencoder, thin_hu: Tensor, thick_hu: Tensor, operator: ThickeningOperator, memory_gib: float
) -> Tensor:
    """Residual decoding with the true thin latent, (z, y, x) HU: P(up(y) + D(E(x)) - D(E(up(y)))).

    Args:
        autoencoder: E and D.
        thin_hu: (z, y, x), the truth.
        thick_hu: (k, y, x), what `operator` made of it.
        operator: relates the two grids.
        memory_gib: bound of the autoencoder's activations.
    """
    base_hu = cubic_projected(thick_hu, operator)
    through = [autoencoder_ceiling(autoencoder, hu, memory_gib) for hu in (thin_hu, base_hu)]
    return operator.project(base_hu + through[0] - through[1], thick_hu)
