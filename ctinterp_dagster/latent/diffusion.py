"""The whole model: an autoencoder, a denoiser in its latent space, and what ties them together."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ctinterp_dagster.latent.denoiser import Denoiser
from ctinterp_dagster.model.autoencoder import LATENT_STRIDE, MaisiAutoencoder
from ctinterp_dagster.model.forward_process import Prediction, to_x0
from ctinterp_dagster.model.sampler import Diffusion, Sampler, sample
from ctinterp_dagster.model.tiles import tiled

Target = Literal["residual", "latent"]
Conditioning = Literal["encoded_interpolation", "interpolated_latent", "interpolated_voxels"]


@dataclass(frozen=True)
class ModelConfig:
    """All that is needed to rebuild a model from its tensors.

    Attributes:
        autoencoder_channels: width of the autoencoder's three levels.
        norm_groups: groups of the autoencoder's group norms.
        latent_channels: channels of the latent.
        denoiser_channels: width of the denoiser's three levels.
        denoiser_blocks: residual blocks a level of the denoiser.
        prediction: what the denoiser predicts.
        target: what is denoised: the thin latent minus the latent of the interpolated volume, or the thin latent.
        conditioning: how the thick scan is shown to the denoiser.
        scale_factor: 1 / standard deviation of the training latents (latent diffusion's scale factor).
        target_scale: 1 / standard deviation of the denoised target, in units of scaled latents.

    Source: Rombach et al. 2022, section 4.3.2 and appendix G (scale factor of a latent).
    """

    autoencoder_channels: tuple[int, int, int]
    norm_groups: int
    latent_channels: int
    denoiser_channels: tuple[int, int, int]
    denoiser_blocks: int
    prediction: Prediction
    target: Target
    conditioning: Conditioning
    scale_factor: float
    target_scale: float

    @property
    def condition_channels(self) -> int:
        """What the denoiser is shown: a latent, and with `interpolated_voxels` 4^3 voxels and 4 numbers of a place."""
        return self.latent_channels + (LATENT_STRIDE**3 + 4 if self.conditioning == "interpolated_voxels" else 0)

    def scale(self, latent: Tensor) -> Tensor:
        """A latent of the autoencoder, of any shape, scaled; `unscale` is the way back."""
        return latent * self.scale_factor

    def unscale(self, latent: Tensor) -> Tensor:
        """A scaled latent, of any shape, as the autoencoder has it; `scale` is the way back."""
        return latent / self.scale_factor

    def scale_condition(self, condition: Tensor) -> Tensor:
        """A condition (..., channel, z, y, x) whose latent, the first channels, is scaled."""
        latent, rest = condition.tensor_split([self.latent_channels], dim=-4)
        return torch.cat([self.scale(latent), rest], dim=-4)

    def to_target(self, latent: Tensor) -> Tensor:
        """A scaled latent or residual, of any shape, of standard deviation 1; `from_target` is the way back."""
        return latent * self.target_scale

    def from_target(self, drawn: Tensor) -> Tensor:
        """What was drawn, of any shape, as a scaled latent or residual; `to_target` is the way back."""
        return drawn / self.target_scale


class LatentDiffusion(Diffusion):
    """Latents of thin volumes, drawn given the latent of the thick one.

    The latents that go in and out are scaled by `scale_factor`, shape (batch, latent channel, z/4, y/4, x/4).
    """

    kind = "latent_diffusion"
    configuration = ModelConfig
    config: ModelConfig

    def __init__(self, config: ModelConfig) -> None:
        """Build the model with random weights."""
        super().__init__(config)
        self.autoencoder = MaisiAutoencoder(
            channels=config.autoencoder_channels,
            latent_channels=config.latent_channels,
            norm_groups=config.norm_groups,
        )
        self.denoiser = Denoiser(
            latent_channels=config.latent_channels,
            condition_channels=config.condition_channels,
            channels=config.denoiser_channels,
            blocks=config.denoiser_blocks,
        )

    def encode(self, unit: Tensor, memory_gib: float | None = None) -> Tensor:
        """The mean latent of a volume.

        Args:
            unit: (batch, 1, z, y, x) in unit range.
            memory_gib: bound on activations; None for the whole at once.

        Returns:
            (batch, channel, ceil(z/4), ceil(y/4), ceil(x/4)), scaled.

        Raises:
            ParamsError: the memory does not suffice.
        """
        return self.config.scale(self.autoencoder.encode(unit, memory_gib=memory_gib).mean)

    def decode(self, latent: Tensor, size_zyx: tuple[int, int, int], memory_gib: float | None = None) -> Tensor:
        """The volume of a latent.

        Args:
            latent: (batch, channel, z/4, y/4, x/4), scaled.
            size_zyx: of the volume, to which padding is cropped.
            memory_gib: bound on activations; None for the whole at once.

        Returns:
            (batch, 1, *size_zyx) in unit range.

        Raises:
            ParamsError: the memory does not suffice, or the size is not that of the latent.
        """
        return self.autoencoder.decode(self.config.unscale(latent), size_zyx, memory_gib=memory_gib)

    def sample(
        self,
        *,
        condition: Tensor,
        base: Tensor,
        steps: int,
        seeds: Sequence[int],
        sampler: Sampler,
        memory_gib: float,
    ) -> Tensor:
        """Draw one thin latent a seed.

        Args:
            condition: (1, condition channel, z, y, x), what the denoiser sees of the thick scan.
            base: (1, channel, z, y, x), the latent of the interpolated volume, to which a residual is added.
            steps: network evaluations a sample.
            seeds: one a sample.
            sampler: `ddim`, `adams` or `ddpm`; only the last draws new noise at each step.
            memory_gib: bound of the denoiser's activations, kept by working in tiles.

        Returns:
            (len(seeds), channel, z, y, x), scaled latents.

        Raises:
            ParamsError: the memory does not suffice, or there is no such sampler.
        """
        channels, reach = self.config.latent_channels, self.denoiser.reach

        def predict_x0(noisy: Tensor, t: Tensor) -> Tensor:
            x = torch.cat([noisy, condition.expand(noisy.shape[0], -1, -1, -1, -1)], dim=1)
            output = tiled(
                lambda part: self.denoiser(*part.tensor_split([channels], 1), t), x, channels, reach, memory_gib
            )
            return to_x0(output, noisy, t, self.config.prediction)

        drawn = sample(predict_x0, tuple(base.shape[1:]), steps=steps, seeds=seeds, sampler=sampler, device=base.device)
        drawn = self.config.from_target(drawn)
        return base + drawn if self.config.target == "residual" else drawn
