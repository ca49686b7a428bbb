"""The picture of the README: one held-out scan, thickened by 5 and restored, against the truth.

usage: python benchmarks/picture.py lidc0002.nii.gz docs/images/estimate.png
"""

from pathlib import Path

import click

from ctinterp_dagster.evaluation.figures import Look, Voxel, views
from ctinterp_dagster.interpolation import load_checkpoint, thicken
from ctinterp_dagster.physics.baselines import METHODS
from ctinterp_dagster.physics.measurement import synthetic
from ctinterp_dagster.scan.io import read_scan
from ctinterp_dagster.scan.window import Window

FACTOR = 5
TITLES = {"nearest": "thick slices", "cubic": "cubic", "registration_projected": "registration + projection"}


@click.command
@click.argument("scan", type=click.Path(path_type=Path, exists=True))
@click.argument("picture", type=click.Path(path_type=Path))
@click.option("--point", nargs=3, type=float, default=(0.5, 0.5, 0.5), help="where the planes meet, shares of z y x")
@click.option("--window", nargs=2, type=float, default=(-1000, 400), help="black and white in HU")
def main(scan: Path, picture: Path, point: tuple[float, float, float], window: tuple[float, float]) -> None:
    """Draw the planes of SCAN, a thin one, into PICTURE, a PNG."""
    truth = read_scan(scan).volume
    pair = synthetic(truth, thicken(truth, FACTOR, "box"), FACTOR, "box")
    thin = pair.known
    estimates = {title: METHODS[name](pair).mean.hu for name, title in TITLES.items()}
    estimates["ctinterp"] = load_checkpoint().restore(pair).mean.hu
    z, y, x = (round(share * (size - 1)) for share, size in zip(point, thin.hu.shape, strict=True))
    look = Look(Window("shown", *window), 140.0, Voxel(z, y, x))
    picture.write_bytes(views(estimates, thin.hu, spacing_mm=thin.spacing_mm, look=look))


if __name__ == "__main__":
    main()
