"""What an autoencoder lets through: a row of the evaluation beside that of the denoiser in its latent space."""

import torch
from torch import Tensor

from ctinterp_dagster.model.autoencoder import MaisiAutoencoder
from ctinterp_dagster.model.autoencoder.unit_range import unit_to_volume, volume_to_unit
from ctinterp_dagster.scan.window import MAISI


@torch.inference_mode()
def autoencoder_ceiling(autoencoder: MaisiAutoencoder, thin_hu: Tensor, memory_gib: float) -> Tensor:
    """The truth encoded and decoded: what plain decoding of a perfect latent gives.

    HU outside of [-1000, 1000] are lost, as they are to whoever decodes a latent alone.

    Args:
        autoencoder: on the device that computes.
        thin_hu: (z, y, x) HU.
        memory_gib: bound of activations, GiB.

    Returns:
        (z, y, x) HU on the CPU.
    """
    device = next(autoencoder.parameters()).device
    latent = autoencoder.encode(volume_to_unit(thin_hu.to(device)), memory_gib).mean
    size_zyx = (thin_hu.shape[0], thin_hu.shape[1], thin_hu.shape[2])
    return MAISI.clip(unit_to_volume(autoencoder.decode(latent, size_zyx, memory_gib))).cpu()
