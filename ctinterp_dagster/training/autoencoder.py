"""Training of a narrow autoencoder of the MAISI family from scratch, on crops of volumes."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from ctinterp_dagster.errors import ParamsError, TrainingError
from ctinterp_dagster.model.autoencoder import MaisiAutoencoder
from ctinterp_dagster.training.loop import Batch, LoopSettings, StepRecord, run_loop, seeded
from ctinterp_dagster.training.patches import at_least, integer, tensors_hash, window

_STRIDE = 4  # voxels a latent voxel covers along each axis
_VALIDATION_CROPS = 8


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
        return loss + self.kl_weight * 0.5 * (mean.square() + log_variance.exp() - 1.0 - log_variance).sum() / len(crop)


class VolumeCrops:
    """Random crops, mirrored at random along each axis, with the noise of their latents, as (crop, noise)."""

    def __init__(
        self, volumes: Sequence[Tensor], crop_zyx: tuple[int, int, int], batch_size: int, latent_channels: int
    ) -> None:
        """Hold volumes (z, y, x) in unit range; each is drawn equally often, a short one is replicated at its end.

        Raises:
            TrainingError: there are no volumes.
            ParamsError: the crop is not a multiple of 4.
        """
        if not volumes:
            raise TrainingError("there is no volume to train on: check the splits in cases.csv")
        if min(crop_zyx) < 1 or any(n % _STRIDE for n in crop_zyx):
            raise ParamsError(f"patch_zyx must be multiples of {_STRIDE}, got {crop_zyx}: correct section autoencoder")
        self.crop_zyx = crop_zyx
        self.batch_size = batch_size
        self.latent_channels = latent_channels
        self.volumes = [at_least(volume[None], crop_zyx) for volume in volumes]

    def draw(self, generator: torch.Generator) -> Batch:
        """One batch: crops (b, 1, z, y, x) and standard normal noise (b, latent channel, z/4, y/4, x/4)."""
        crops = torch.stack([self._draw_crop(generator) for _ in range(self.batch_size)])
        latent = [n // _STRIDE for n in self.crop_zyx]
        return crops, torch.randn(self.batch_size, self.latent_channels, *latent, generator=generator)

    def fingerprint(self) -> str:
        """A hash of the crop's size and of every volume."""
        return tensors_hash(repr(self.crop_zyx), self.volumes)

    def _draw_crop(self, generator: torch.Generator) -> Tensor:
        volume = self.volumes[integer(len(self.volumes), generator)]
        z, y, x = window(volume.shape[1:], self.crop_zyx, generator)
        return volume[:, z, y, x].flip([axis for axis in (1, 2, 3) if integer(2, generator)])


def train_autoencoder(
    autoencoder: MaisiAutoencoder,
    train: Sequence[Tensor],
    validation: Sequence[Tensor],
    *,
    crop_zyx: tuple[int, int, int],
    kl_weight: float,
    settings: LoopSettings,
    checkpoint: Path | None = None,
    on_step: Callable[[StepRecord], None] = lambda _: None,
) -> list[StepRecord]:
    """Train an autoencoder in place; it ends with the averaged weights.

    Args:
        autoencoder: the network.
        train: volumes (z, y, x) in unit range to learn from.
        validation: other patients' volumes, may be empty; 8 fixed crops of them give `val_loss`.
        crop_zyx: size of a training crop, multiples of 4.
        kl_weight: weight of the KL divergence, summed over a sample's latent (MAISI: 1e-7).
        settings: how to optimise.
        checkpoint: file to resume from and to write, as in `run_loop`.
        on_step: told of every step.

    Returns:
        A record a step.

    Raises:
        TrainingError: as `run_loop`, or no training volumes.
        ParamsError: the crop is not a multiple of 4.
    """

    def crops(volumes: Sequence[Tensor]) -> VolumeCrops:
        return VolumeCrops(volumes, crop_zyx, settings.batch_size, autoencoder.latent_channels)

    fixed: list[Batch] = []
    if validation:
        count = max(1, _VALIDATION_CROPS // settings.batch_size)
        fixed = [crops(validation).draw(seeded(settings.seed, index)) for index in range(count)]
    return run_loop(
        ReconstructionObjective(autoencoder, kl_weight),
        crops(train),
        settings,
        validation=fixed,
        checkpoint=checkpoint,
        on_step=on_step,
    )
