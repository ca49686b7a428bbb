"""How near to the thin latent each way of conditioning lies, and what the autoencoder lets through; run by hand.

    python benchmarks/conditioning.py data/autoencoder/autoencoder.safetensors thin1.nii.gz thin2.nii.gz

For each scan, a crop in the middle and each slice profile at factor 5: the relative error of the condition as an
estimate of the thin latent, alone and after the best scale and offset of each channel; and PSNR in [-1000, 1000] HU of
the base, of the autoencoder alone and of residual decoding with the true thin latent. Prints a table in Markdown.
"""

from functools import partial
from pathlib import Path

import click
import torch
from torch import Tensor

from ctinterp_dagster.latent.ceiling import autoencoder_ceiling
from ctinterp_dagster.latent.conditioning import conditions_of
from ctinterp_dagster.model.autoencoder import MaisiAutoencoder, load_autoencoder
from ctinterp_dagster.model.autoencoder.unit_range import volume_to_unit
from ctinterp_dagster.params import ProfileName
from ctinterp_dagster.physics.interpolators import cubic_projected
from ctinterp_dagster.physics.operator import ThickeningOperator
from ctinterp_dagster.scan.io import read_scan
from ctinterp_dagster.scan.window import MAISI, Window

FACTOR = 5
CROP_ZYX = (80, 96, 96)
MEMORY_GIB = 4.0


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

    Returns:
        (z, y, x) HU.
    """
    base_hu = cubic_projected(thick_hu, operator)
    through = [autoencoder_ceiling(autoencoder, hu, memory_gib) for hu in (thin_hu, base_hu)]
    return operator.project(base_hu + through[0] - through[1], thick_hu)


def middle(hu: Tensor) -> Tensor:
    """The crop in the middle."""
    starts = [(n - size) // 2 for n, size in zip(hu.shape, CROP_ZYX, strict=True)]
    z, y, x = (slice(start, start + size) for start, size in zip(starts, CROP_ZYX, strict=True))
    return hu[z, y, x].contiguous()


def relative_error(condition: Tensor, thin: Tensor) -> tuple[float, float]:
    """Norm of the error over that of the thin latent about its mean, alone and after a linear fit a channel."""
    spread = (thin - thin.mean((2, 3, 4), keepdim=True)).norm()
    centred = condition - condition.mean((2, 3, 4), keepdim=True)
    about = thin - thin.mean((2, 3, 4), keepdim=True)
    slope = (centred * about).sum((2, 3, 4), keepdim=True) / centred.square().sum((2, 3, 4), keepdim=True)
    return float((condition - thin).norm() / spread), float((slope * centred - about).norm() / spread)


def psnr_db(estimate_hu: Tensor, truth_hu: Tensor, window_hu: Window = MAISI) -> float:
    """In a window, the first and last `FACTOR` slices left out."""
    error = (window_hu.clip(estimate_hu) - window_hu.clip(truth_hu))[FACTOR:-FACTOR]
    return float(10 * torch.log10(window_hu.width_hu**2 / error.double().square().mean()))


def report(autoencoder: MaisiAutoencoder, name: str, thin_hu: Tensor, profile: ProfileName) -> None:
    """Print the rows of one scan and profile."""
    operator = ThickeningOperator.from_factor(thin_hu.shape[0], FACTOR, profile)
    thick_hu = operator.forward(thin_hu)

    def encode(unit: Tensor) -> Tensor:
        return autoencoder.encode(unit, memory_gib=MEMORY_GIB).mean

    thin = encode(volume_to_unit(thin_hu))
    gathered = partial(conditions_of, thick_hu, operator, encode)
    shown, resized = gathered("encoded_interpolation"), gathered("interpolated_latent")
    numbers = [*relative_error(shown.condition, thin), *relative_error(resized.condition, thin)]
    alone = autoencoder_ceiling(autoencoder, thin_hu, MEMORY_GIB)
    ceiling = residual_ceiling(autoencoder, thin_hu, thick_hu, operator, MEMORY_GIB)
    decibels = [psnr_db(estimate, thin_hu) for estimate in (shown.base_hu, alone, ceiling)]
    cells = [f"{n:.3f}" for n in numbers] + [f"{d:.2f}" for d in decibels]
    print(f"| {name} | {profile} | {' | '.join(cells)} |", flush=True)


@click.command
@click.argument("weights", type=click.Path(path_type=Path))
@click.argument("scans", nargs=-1, required=True, type=click.Path(path_type=Path))
@torch.inference_mode()
def main(weights: Path, scans: tuple[Path, ...]) -> None:
    """Compare on SCANS with the autoencoder of WEIGHTS."""
    autoencoder = load_autoencoder(weights)
    print("| scan | profile | E(up(y)) | fitted | E(y) resized | fitted | base dB | alone dB | ceiling dB |")
    print("|---|---|---|---|---|---|---|---|---|")
    for scan in scans:
        thin_hu = middle(torch.from_numpy(read_scan(scan).volume.hu))
        for profile in ("box", "gaussian"):
            report(autoencoder, scan.name.partition(".")[0], thin_hu, profile)


if __name__ == "__main__":
    main()
