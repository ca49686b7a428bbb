"""The loss of an autoencoder of the MAISI family, the crops of volumes that it learns from, and what it keeps."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ctinterp_dagster.errors import ParamsError, TrainingError
from ctinterp_dagster.model.autoencoder import LATENT_STRIDE, MaisiAutoencoder
from ctinterp_dagster.model.autoencoder.unit_range import unit_to_volume, volume_to_unit
from ctinterp_dagster.scan.window import MAISI, SOFT_TISSUE, Window
from ctinterp_dagster.training.batches import Plan, seeded
from ctinterp_dagster.training.device_volumes import AS_STORED, Boxes, ResidentVolumes, ThinVolume, stacked
from ctinterp_dagster.training.random_crops import at_least, integer, tensors_hash

_ACTIVE_NATS = 0.01


class ReconstructionObjective(nn.Module):
    """L1 of the values and of their differences to the next voxel, plus the KL divergence of the latent.

    L1 of differences keeps edges that L1 alone lets blur; it stands where MAISI has a perceptual network.

    Source: Rombach et al. 2022, appendix G (L1 and a slight KL); Mathieu et al. 2016, eq. 6 (gradient difference).
    """

    def __init__(self, autoencoder: MaisiAutoencoder, kl_weight: float) -> None:
        super().__init__()
        self.autoencoder = autoencoder
        self.kl_weight = kl_weight

    def forward(self, crop: Tensor, noise: Tensor) -> Tensor:
        """The loss of crops (b, 1, z, y, x) in unit range, with the latent's noise (b, c, z/4, y/4, x/4)."""
        posterior = self.autoencoder.encode(crop)
        mean, log_variance = posterior.mean.float(), posterior.log_variance.float()
        latent = mean + (0.5 * log_variance).exp() * noise
        error = self.autoencoder.decode(latent, (crop.shape[2], crop.shape[3], crop.shape[4])).float() - crop
        loss = error.abs().mean() + sum(error.diff(dim=axis).abs().mean() for axis in (2, 3, 4))
        return loss + self.kl_weight * _divergence(mean, log_variance).sum() / len(crop)


class CropParts(NamedTuple):
    """What a batch of crops is made of: where they lie, and the noise of their latents."""

    boxes: Boxes
    noise: Tensor


class CropBatch(NamedTuple):
    """Crops (b, 1, z, y, x) in unit range, and standard normal noise (b, latent channel, z/4, y/4, x/4)."""

    crop: Tensor
    noise: Tensor


class VolumeCrops:
    """Random crops, mirrored at random along each axis, with the noise of their latents."""

    def __init__(
        self, volumes: Sequence[ThinVolume], crop_zyx: tuple[int, int, int], batch_size: int, latent_channels: int
    ) -> None:
        """Hold the volumes; each is drawn equally often.

        A short one is replicated at its far end.

        Args:
            volumes: the training's.
            crop_zyx: voxels of a crop, multiples of 4.
            batch_size: crops a batch.
            latent_channels: of the autoencoder.

        Raises:
            TrainingError: there are no volumes.
            ParamsError: the crop is not a multiple of 4.
        """
        if not volumes:
            raise TrainingError("there is no volume to train on: check the splits in cases.csv")
        if min(crop_zyx) < 1 or any(n % LATENT_STRIDE for n in crop_zyx):
            raise ParamsError(
                f"patch_zyx must be multiples of {LATENT_STRIDE}, got {crop_zyx}: correct section autoencoder"
            )
        self.crop_zyx = crop_zyx
        self.batch_size = batch_size
        self.latent_channels = latent_channels
        self.volumes = [replace(volume, hu=at_least(volume.hu[None], crop_zyx)[0]) for volume in volumes]
        self._resident = ResidentVolumes(self.volumes)

    def plan(self, generator: torch.Generator) -> Plan[CropParts]:
        """The chance of one batch: where the crops lie, and the noise of their latents."""
        indices = [integer(len(self.volumes), generator) for _ in range(self.batch_size)]
        boxes = [self._resident.random_box(index, AS_STORED, self.crop_zyx, generator) for index in indices]
        latent = [n // LATENT_STRIDE for n in self.crop_zyx]
        noise = torch.randn(self.batch_size, self.latent_channels, *latent, generator=generator)
        return Plan(tuple(self.volumes[index].case for index in indices), CropParts(stacked(boxes), noise))

    def batch(self, plan: Plan[CropParts]) -> CropBatch:
        """The crops of a plan, on the device where the plan is: (b, 1, z, y, x), [-1000, 1000] HU as [0, 1]."""
        crops = self._resident.cut(plan.parts.boxes, self.crop_zyx)
        return CropBatch(MAISI.to_unit(MAISI.clip(crops))[:, None], plan.parts.noise)

    def fixed(self, count: int, seed: int) -> list[CropBatch]:
        """Batches that are always the same, for validation."""
        return [self.batch(self.plan(seeded(seed, index))) for index in range(count)]

    def fingerprint(self) -> str:
        """A hash of the crop's size, and of every volume's shape and middle slice."""
        about = self.crop_zyx, [volume.hu.shape for volume in self.volumes]
        return tensors_hash(repr(about), [volume.hu[len(volume.hu) // 2] for volume in self.volumes])


@dataclass(frozen=True)
class Reconstruction:
    """What an autoencoder keeps of volumes: the mean latent decoded, without noise.

    Attributes:
        psnr_db: in [-1000, 1000] HU, from the mean square error over all voxels.
        psnr_soft_db: the same in [-160, 240] HU.
        active_channels: latent channels whose divergence from the prior is above 0.01 nats a latent voxel; fewer than
            there are means that the posterior has collapsed there.
        divergence_nats: the divergence a latent voxel, mean over all channels.

    Source: Burda et al. 2016 (arXiv 1509.00519), section 5.2, on units that a latent model leaves idle.
    """

    psnr_db: float
    psnr_soft_db: float
    active_channels: int
    divergence_nats: float


@torch.no_grad()
def measure_reconstruction(
    autoencoder: MaisiAutoencoder, volumes: Sequence[Tensor], memory_gib: float
) -> Reconstruction:
    """Encode and decode whole volumes, on the autoencoder's device.

    Args:
        autoencoder: in evaluation mode.
        volumes: (z, y, x) HU each.
        memory_gib: bound of activations, GiB.

    Returns:
        PSNR in two windows, dB, over all voxels, and what the latent channels are worth.

    Raises:
        TrainingError: there are no volumes.
    """
    if not volumes:
        raise TrainingError("there is no volume to measure the autoencoder on: check the splits in cases.csv")
    device = next(autoencoder.parameters()).device
    squares, voxels = {MAISI: 0.0, SOFT_TISSUE: 0.0}, 0
    divergences = []
    for volume in volumes:
        hu = volume.to(device).float()
        posterior = autoencoder.encode(volume_to_unit(hu), memory_gib)
        size_zyx = (hu.shape[0], hu.shape[1], hu.shape[2])
        decoded_hu = unit_to_volume(autoencoder.decode(posterior.mean, size_zyx, memory_gib))
        voxels += hu.numel()
        for window_hu in squares:
            error = window_hu.clip(decoded_hu).sub(window_hu.clip(hu))
            squares[window_hu] += float(error.double().square().sum())
        divergences.append(_divergence(posterior.mean.float(), posterior.log_variance.float()).mean((0, 2, 3, 4)))
    by_channel = torch.stack(divergences).mean(0)
    return Reconstruction(
        psnr_db=_psnr_db(squares[MAISI] / voxels, MAISI),
        psnr_soft_db=_psnr_db(squares[SOFT_TISSUE] / voxels, SOFT_TISSUE),
        active_channels=int((by_channel > _ACTIVE_NATS).sum()),
        divergence_nats=float(by_channel.mean()),
    )


def _divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Kullback-Leibler divergence from the standard normal, each latent number, nats."""
    return 0.5 * (mean.square() + log_variance.exp() - 1.0 - log_variance)


def _psnr_db(mean_square_hu: float, window_hu: Window) -> float:
    return 10 * math.log10(window_hu.width_hu**2 / mean_square_hu)
