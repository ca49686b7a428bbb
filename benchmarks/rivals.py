"""What tuning would bring the classical methods: one setting changed at a time, PSNR against the truth.

    python -m benchmarks.rivals THIN ... [--side 128]      THIN,MM where slices overlap

The settings are those of `physics/variational.py` and `physics/registration.py`. To choose them by the truth favours
the rivals: a user does not have it.
"""

from types import ModuleType
from unittest import mock

import click

from benchmarks.evidence import contestants, table, thickened, thin_scan
from ctinterp_dagster.evaluation.metrics import psnr_db, slice_mse
from ctinterp_dagster.interpolation import Measurement, Method, load_checkpoint
from ctinterp_dagster.physics import registration, variational
from ctinterp_dagster.scan.window import MAISI, SOFT_TISSUE

TRIED: tuple[tuple[str, ModuleType, str, tuple[float, ...]], ...] = (
    ("tv_projected", variational, "EDGE_HU", (5.0, 15.0, 30.0, 60.0)),
    ("tv_projected", variational, "ITERATIONS", (20, 60, 180)),
    ("registration_projected", registration, "SMOOTHING_PIXELS", (1.0, 1.5, 2.5, 4.0)),
    ("registration_projected", registration, "ITERATIONS", (10, 20, 60)),
)


def scored(method: Method, it: Measurement) -> str:
    """PSNR of an estimate against the truth in the window of the networks and in that of soft tissue, dB."""
    assert it.truth is not None
    estimate, truth = method(it).mean.hu, it.truth.hu
    return " / ".join(f"{psnr_db(slice_mse(estimate, truth, w).mean(), w):.2f}" for w in (MAISI, SOFT_TISSUE))


@click.command(help=__doc__)
@click.argument("thin", nargs=-1, required=True)
@click.option("--side", default=128, help="Pixels of the middle that are scored; 0 for all.")
def main(thin: tuple[str, ...], side: int) -> None:
    """Print a row a setting and a column a scan."""
    scans = [thin_scan(argument, side) for argument in thin]
    cases = [thickened(scan, thickness_mm) for _, scan, thickness_mm in scans]
    methods = contestants(load_checkpoint())
    rows = []
    for name, module, setting, values in TRIED:
        for value in values:
            used = " (used)" if value == getattr(module, setting) else ""
            with mock.patch.object(module, setting, value):
                rows.append([f"{name}, {setting} {value:g}{used}", *(scored(methods[name], case) for case in cases)])
    rows.append(["model", *(scored(methods["model"], case) for case in cases)])
    click.echo(table(["method", *(name for name, _, _ in scans)], rows))


if __name__ == "__main__":
    main()
