"""What the best linear autoencoder of blocks keeps, which an autoencoder that is trained has to beat; run by hand.

    python -m benchmarks.linear_autoencoder val1.nii.gz val2.nii.gz --train thin1.nii.gz --train thin2.nii.gz

For each size of block and number of latent channels the principal components of blocks of the training volumes; on
each scan's crop in the middle, factor 5, box, PSNR in [-1000, 1000] / [-160, 240] dB: of the autoencoder alone, and
what residual decoding with the true latent gains over its base. Prints a table in Markdown.

Source: Baldi and Hornik 1989 (the best linear autoencoder is the principal components).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import click
import torch
from torch import Tensor

from benchmarks.conditioning import CROP_ZYX, FACTOR, middle, psnr_db
from ctinterp_dagster.physics.interpolators import cubic_projected
from ctinterp_dagster.physics.operator import ThickeningOperator
from ctinterp_dagster.scan.io import read_scan
from ctinterp_dagster.scan.window import MAISI, SOFT_TISSUE
from ctinterp_dagster.training.batches import seeded
from ctinterp_dagster.training.random_crops import window

BLOCKS_ZYX = {(4, 4, 4): (2, 4, 8, 16, 32), (2, 2, 2): (1, 2, 4), (1, 4, 4): (1, 2, 4, 8)}
CROPS = 6  # of each training volume


def to_blocks(hu: Tensor, block_zyx: tuple[int, int, int]) -> Tensor:
    """(z, y, x) to (z/a, y/b, x/c, a b c)."""
    (a, b, c), (z, y, x) = block_zyx, hu.shape
    return hu.reshape(z // a, a, y // b, b, x // c, c).permute(0, 2, 4, 1, 3, 5).flatten(3)


def from_blocks(blocks: Tensor, block_zyx: tuple[int, int, int]) -> Tensor:
    """The inverse of `to_blocks`."""
    z, y, x = (n * size for n, size in zip(blocks.shape, block_zyx, strict=False))
    return blocks.unflatten(3, block_zyx).permute(0, 3, 1, 4, 2, 5).reshape(z, y, x)


@dataclass(frozen=True)
class LinearAutoencoder:
    """A latent of the first principal components of blocks.

    Attributes:
        block_zyx: the stride, voxels.
        mean: (voxels of a block,) HU.
        basis: (voxels of a block, latent channel), orthonormal.
    """

    block_zyx: tuple[int, int, int]
    mean: Tensor
    basis: Tensor

    @classmethod
    def fit(cls, volumes_hu: Sequence[Tensor], block_zyx: tuple[int, int, int]) -> "LinearAutoencoder":
        """All components of (z, y, x) HU whose sizes are multiples of the block, the strongest first."""
        blocks = [to_blocks(MAISI.clip(hu), block_zyx).flatten(0, 2).double() for hu in volumes_hu]
        count = sum(len(block) for block in blocks)
        mean = sum((block.sum(0) for block in blocks), torch.zeros(1)) / count
        scatter = sum(((block - mean).T @ (block - mean) for block in blocks), torch.zeros(1))
        return cls(block_zyx, mean.float(), torch.linalg.eigh(scatter).eigenvectors.flip(1).float())

    def first(self, channels: int) -> "LinearAutoencoder":
        """With so many latent channels: the least mean square error that a linear one has on what it was fitted to."""
        return replace(self, basis=self.basis[:, :channels])

    def through(self, hu: Tensor) -> Tensor:
        """(z, y, x) HU encoded and decoded, clipped to [-1000, 1000] before and after."""
        about = to_blocks(MAISI.clip(hu), self.block_zyx) - self.mean
        return MAISI.clip(from_blocks(self.mean + about @ self.basis @ self.basis.T, self.block_zyx))


def training_crops(volumes_hu: Sequence[Tensor]) -> list[Tensor]:
    """Crops at random of each volume, (z, y, x) HU, always the same."""
    generator = seeded(0)
    cuts = [(hu, window(hu.shape, CROP_ZYX, generator)) for hu in volumes_hu for _ in range(CROPS)]
    return [hu[tuple(cut)] for hu, cut in cuts]


def cells(autoencoder: LinearAutoencoder, thin_hu: Tensor) -> str:
    """The autoencoder alone, and the gain of residual decoding with the true latent over its base."""
    operator = ThickeningOperator.from_factor(len(thin_hu), FACTOR, "box")
    thick_hu = operator.forward(thin_hu)
    base_hu = cubic_projected(thick_hu, operator)
    alone = autoencoder.through(thin_hu)
    ceiling = operator.project(base_hu + alone - autoencoder.through(base_hu), thick_hu)
    windows = MAISI, SOFT_TISSUE
    kept = [f"{psnr_db(alone, thin_hu, window_hu):.2f}" for window_hu in windows]
    gains = [psnr_db(ceiling, thin_hu, window_hu) - psnr_db(base_hu, thin_hu, window_hu) for window_hu in windows]
    return f"{' / '.join(kept)}; {' / '.join(f'{gain:+.2f}' for gain in gains)}"


@click.command
@click.argument("scans", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--train", "trained_on", multiple=True, required=True, type=click.Path(path_type=Path))
@torch.inference_mode()
def main(scans: tuple[Path, ...], trained_on: tuple[Path, ...]) -> None:
    """Fit on the volumes of --train, judge on SCANS."""
    crops = training_crops([torch.from_numpy(read_scan(path).volume.hu) for path in trained_on])
    judged = [middle(torch.from_numpy(read_scan(path).volume.hu)) for path in scans]
    print(f"| block, channels | {' | '.join(path.name.partition('.')[0] for path in scans)} |")
    print("|---" * (len(scans) + 1) + "|")
    for block_zyx, numbers in BLOCKS_ZYX.items():
        whole = LinearAutoencoder.fit(crops, block_zyx)
        for channels in numbers:
            row = " | ".join(cells(whole.first(channels), hu) for hu in judged)
            print(f"| {'x'.join(map(str, block_zyx))}, {channels} | {row} |", flush=True)


if __name__ == "__main__":
    main()
