"""Thick volume in, thin volume out: what the command line, the API and the generate stage share.

x_hat = P(up(y) + D(z_hat) - D(E(up(y)))), with up the projected cubic interpolation, E and D the autoencoder, z_hat
drawn by the diffusion model given E(up(y)), and P the projection on A x = y. The errors of the autoencoder cancel in
the difference, and a denoiser that adds nothing leaves the classical estimate.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ctinterp_dagster.errors import ParamsError
from ctinterp_dagster.model.latent_diffusion import Conditioning, LatentDiffusion, pick_device
from ctinterp_dagster.params import Profile
from ctinterp_dagster.physics.interpolators import cubic_projected, linear
from ctinterp_dagster.physics.operator import ThickeningOperator, thin_grid
from ctinterp_dagster.scan.volume import Volume
from ctinterp_dagster.scan.window import MAISI

RELEASED = Path(__file__).parent / "released" / "model.safetensors"
LATENT_STRIDE = 4  # voxels a latent voxel covers along each axis

Encode = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Settings:
    """How to sample.

    Attributes:
        sampler: ddim or ddpm.
        steps: network evaluations a sample.
        samples: how many to draw; their mean is the estimate.
        seed: of the first sample; the next ones count up from it.
        memory_gib: bound of the networks' working memory.
    """

    sampler: Literal["ddim", "ddpm"] = "ddim"
    steps: int = 4
    samples: int = 4
    seed: int = 0
    memory_gib: float = 3.0


@dataclass(frozen=True)
class Interpolation:
    """A thin estimate.

    Attributes:
        thin: the posterior mean on the thin grid, HU.
        std: the standard deviation over the samples on the same grid, HU; 0 for a single sample.
        residual_hu: mean |A x_hat - y|.
    """

    thin: Volume
    std: Volume
    residual_hu: float


@dataclass(frozen=True)
class Evidence:
    """What is known of the thin volume before anything is drawn.

    Attributes:
        base_hu: (z, y, x) projected cubic interpolation.
        base: (1, channel, z/4, y/4, x/4) its scaled latent.
        condition: the same shape, what the denoiser is shown.
    """

    base_hu: Tensor
    base: Tensor
    condition: Tensor


def thicken(thin: Volume, factor: int, profile: Profile) -> Volume:
    """What a scan with `factor` times thicker slices would have seen.

    Slices at the far end that do not fill a group are left out.
    """
    kept = thin.depth // factor * factor
    operator = ThickeningOperator.from_factor(kept, factor, profile)
    hu = operator.forward(torch.from_numpy(thin.hu[:kept])).numpy()
    return thin.with_slices(hu, (factor - 1) / 2, thin.spacing_mm[0] * factor)


def to_unit(hu: Tensor) -> Tensor:
    """(z, y, x) HU to the autoencoder's (1, 1, z, y, x) in [0, 1]; what lies outside the window comes back later.

    Residual decoding adds to a base that was never clipped, so HU outside [-1000, 1000] survive.
    """
    return MAISI.to_unit(MAISI.clip(hu))[None, None]


def gather_evidence(thick_hu: Tensor, operator: ThickeningOperator, encode: Encode, kind: Conditioning) -> Evidence:
    """Interpolate a thick scan and encode it.

    Args:
        thick_hu: (k, y, x) HU.
        operator: relates the thin grid to the thick one.
        encode: (1, 1, z, y, x) in unit range to scaled latents.
        kind: `encoded_interpolation` shows the denoiser E(up(y)); `interpolated_latent` shows it E(y), resized
            linearly along z with the centres of latent voxels aligned.
    """
    base_hu = cubic_projected(thick_hu, operator)
    base = encode(to_unit(base_hu))
    if kind == "encoded_interpolation":
        return Evidence(base_hu, base, base)
    thick_latent = encode(to_unit(thick_hu))
    middle = (LATENT_STRIDE - 1) / 2
    thin_centres = np.arange(base.shape[2]) * LATENT_STRIDE + middle
    thick_centres = np.interp(thin_centres, np.arange(len(operator.thin_positions)), operator.thin_positions)
    condition = linear(thick_latent, (thick_centres - middle) / LATENT_STRIDE)
    return Evidence(base_hu, base, condition)


class Interpolator:
    """A loaded model that turns thick volumes into thin ones."""

    def __init__(self, model: LatentDiffusion, device: str = "auto") -> None:
        """Move a model to a device (`auto`, `cpu`, `cuda`)."""
        self.device = pick_device(device)
        self.model = model.to(self.device).eval()

    @torch.inference_mode()
    def restore(
        self,
        thick_hu: Tensor,
        operator: ThickeningOperator,
        settings: Settings,
        on_sample: Callable[[int], None] = lambda _: None,
    ) -> tuple[Tensor, Tensor]:
        """Posterior mean and standard deviation of the thin volume, both (z, y, x) in HU on the CPU.

        Args:
            thick_hu: (k, y, x) float32.
            operator: relates the thin grid to the thick one.
            settings: how to sample.
            on_sample: told how many samples are done.
        """
        encode = partial(self.model.encode, memory_gib=settings.memory_gib)
        thick_hu = thick_hu.to(self.device)
        evidence = gather_evidence(thick_hu, operator, encode, self.model.config.conditioning)
        size = (evidence.base_hu.shape[0], evidence.base_hu.shape[1], evidence.base_hu.shape[2])
        decode = partial(self.model.decode, size_zyx=size, memory_gib=settings.memory_gib)
        decoded_base = decode(evidence.base)[0, 0]
        mean, squares = torch.zeros(size), torch.zeros(size)
        for index in range(settings.samples):
            latent = self.model.sample(
                condition=evidence.condition,
                base=evidence.base,
                steps=settings.steps,
                seeds=[settings.seed + index],
                eta={"ddim": 0.0, "ddpm": 1.0}[settings.sampler],
                memory_gib=settings.memory_gib,
            )
            detail_hu = (decode(latent)[0, 0] - decoded_base) * MAISI.width_hu
            drawn = operator.project(evidence.base_hu + detail_hu, thick_hu).cpu()
            change = drawn - mean  # Welford 1962: mean and variance in one pass
            mean += change / (index + 1)
            squares += change * (drawn - mean)
            on_sample(index + 1)
        return mean, (squares / max(settings.samples - 1, 1)).sqrt()

    def __call__(
        self,
        thick: Volume,
        operator: ThickeningOperator,
        settings: Settings,
        on_sample: Callable[[int], None] = lambda _: None,
    ) -> Interpolation:
        """A thick volume to a thin one, in its place in space."""
        thick_hu = torch.from_numpy(thick.hu)
        mean, std = self.restore(thick_hu, operator, settings, on_sample)
        positions = operator.thin_positions
        spacing = float(positions[1] - positions[0]) * thick.spacing_mm[0]
        thin = thick.with_slices(mean.numpy(), float(positions[0]), spacing)
        residual = float((operator.forward(mean) - thick_hu).abs().mean())
        return Interpolation(thin, thin.with_hu(std.numpy()), residual)

    def generate(
        self,
        thick_hu: Tensor,
        *,
        sampler: Literal["ddim", "ddpm"] = "ddim",
        num_inference_steps: int = 50,
        target_depth: int,
        profile: Profile = "box",
        seed: int = 0,
    ) -> Tensor:
        """One sample at any depth, e.g. (50, 512, 512) to (250, 512, 512), in HU.

        Raises:
            ParamsError: `target_depth` is less than the thick depth.
        """
        operator = operator_for(thick_hu.shape[0], 1.0, 1.0, thick_hu.shape[0] / target_depth, profile)
        settings = replace(Settings(), sampler=sampler, steps=num_inference_steps, samples=1, seed=seed)
        return self.restore(thick_hu, operator, settings)[0]


def operator_for(
    depth: int, spacing_mm: float, thickness_mm: float, target_mm: float, profile: Profile
) -> ThickeningOperator:
    """The operator between a thick grid and a thin one that covers the same extent.

    Args:
        depth: number of thick slices.
        spacing_mm: their distance.
        thickness_mm: full width at half maximum of their profile; more than the distance where they overlap.
        target_mm: distance of the thin slices. Where it does not divide the extent, the nearest number of slices is
            centred on it.
        profile: slice profile.

    Raises:
        ParamsError: the target is not finer than the scan.
    """
    if not 0 < target_mm < spacing_mm:
        raise ParamsError(
            f"the target spacing must be finer than the scan's {spacing_mm:g} mm, got {target_mm:g} mm: "
            "give --spacing or --factor"
        )
    count, first = thin_grid(depth, spacing_mm, target_mm)
    return ThickeningOperator.from_geometry(
        n_thick=depth,
        thick_spacing_mm=spacing_mm,
        thick_thickness_mm=thickness_mm,
        n_thin=count,
        thin_spacing_mm=target_mm,
        thin_thickness_mm=target_mm,
        first_thin_offset_mm=first,
        profile=profile,
    )


def load_checkpoint(path: Path = RELEASED, device: str = "auto") -> Interpolator:
    """Load a model file, the released one by default.

    Raises:
        MissingInputError: the file is not there.
        CheckpointError: it is not a ctinterp model.
    """
    return Interpolator(LatentDiffusion.load(path), device)
