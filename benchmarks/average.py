"""Averages of two models' weights on validation scans: which `expect.start_share` to take; run by hand.

    python benchmarks/average.py OLD NEW SCAN ... --share 0 --share 0.35 --share 1 --sharpen 1

OLD is a model file, whole or the expectation alone; NEW is what the stage `expect` wrote. Each scan is cropped in its
middle to at most 100x192x256 voxels, thickened by 5 (box) and restored; printed is PSNR in [-1000, 1000] and in
[-160, 240], without 5 slices at each end. `--sharpen` scores the scans too as a sharper kernel would have shown them.
"""

import copy
from pathlib import Path

import click
import torch
from torch import Tensor

from ctinterp_dagster.evaluation.metrics import psnr_db, slice_mse
from ctinterp_dagster.nullspace.basis import NullSpace
from ctinterp_dagster.nullspace.diffusion import Expectation
from ctinterp_dagster.nullspace.slabs import sharpened
from ctinterp_dagster.nullspace.units import COEFFICIENT
from ctinterp_dagster.physics.operator import ThickeningOperator
from ctinterp_dagster.pipeline.trainings.warm_start import average_with
from ctinterp_dagster.scan.io import read_scan
from ctinterp_dagster.scan.window import MAISI, SOFT_TISSUE

CROP, FACTOR = (100, 192, 256), 5


def middle(hu: Tensor) -> Tensor:
    """The middle of a volume."""
    first = [max(0, (n - size) // 2) for n, size in zip(hu.shape, CROP, strict=True)]
    z, y, x = (slice(start, start + size) for start, size in zip(first, CROP, strict=True))
    return hu[z, y, x][: hu[z].shape[0] // FACTOR * FACTOR]


@torch.inference_mode()
def psnr(network: Expectation, thin: Tensor, spacing_mm: tuple[float, float, float]) -> tuple[float, float]:
    """Of the expected thin volume, in both windows."""
    space = NullSpace(ThickeningOperator.from_factor(len(thin), FACTOR, "box"), network.config.modes)
    thick = space.operator.forward(thin)
    told = space.geometry((FACTOR * spacing_mm[0], *spacing_mm[1:]))
    mean = network.expect(space.features(thick)[None], told[None], 3.0)
    estimate = space.base(thick) + space.expand(COEFFICIENT.to_hu(mean[0]))
    inner = slice(FACTOR, -FACTOR)
    pair = estimate[inner].numpy(), thin[inner].numpy()
    wide, soft = (psnr_db(slice_mse(*pair, window).mean(), window) for window in (MAISI, SOFT_TISSUE))
    return wide, soft


@click.command
@click.argument("old", type=click.Path(path_type=Path))
@click.argument("new", type=click.Path(path_type=Path))
@click.argument("scans", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option("--share", "shares", type=float, multiple=True, default=[0.0, 0.2, 0.35, 0.5, 1.0])
@click.option("--sharpen", type=float, default=0.0, help="score each scan too with this much in-plane sharpening")
def main(old: Path, new: Path, scans: list[Path], shares: list[float], sharpen: float) -> None:
    """Score the averages."""
    trained = Expectation.load(new)
    for scan in scans:
        volume = read_scan(scan).volume
        thin = middle(torch.from_numpy(volume.hu).float())
        shown = {
            scan.name: thin,
            **({f"{scan.name} sharpened": sharpened(thin[None], torch.tensor([sharpen]))[0]} if sharpen else {}),
        }
        for name, hu in shown.items():
            for share in shares:
                network = copy.deepcopy(trained)
                average_with(network, "expectation", old, network.config, share)
                wide, soft = psnr(network, hu, volume.spacing_mm)
                print(f"{name} old_share={share:g} psnr_db={wide:.2f} psnr_soft_db={soft:.2f}", flush=True)


if __name__ == "__main__":
    main()
