"""Time and memory of `ctinterp interpolate` and of the classical methods on one scan, side by side; run by hand.

    python benchmarks/interpolate.py thin.nii.gz
    python benchmarks/interpolate.py thin.nii.gz --size 40 256 256 --size 20 256 256 --samples 1 --steps 2 --steps 4
    python benchmarks/interpolate.py thin.nii.gz --against CHECKOUT --only model

A thick scan of each SIZE (z y x) is tiled from a real one, mirrored at the joints, so that it has real texture at any
size. Each method is a process of its own, from the file that is read to the file that is written: seconds are wall
and CPU seconds of the whole process, memory is its peak. With --against each method of another checkout of this
repository follows at once. Prints a table in Markdown.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
import torch

from ctinterp_dagster.interpolation import Settings, load_checkpoint, thicken
from ctinterp_dagster.nullspace.restorer import NullSpaceRestorer
from ctinterp_dagster.physics.measurement import contiguous
from ctinterp_dagster.scan.io import read_scan, write_volume

HERE = Path(__file__).parent.parent
FACTOR = 5
CLASSICAL = """
import sys
from pathlib import Path
from ctinterp_dagster.physics.baselines import METHODS
from ctinterp_dagster.physics.measurement import contiguous
from ctinterp_dagster.scan.io import read_scan, write_volume
measurement = contiguous(read_scan(Path(sys.argv[2])).volume, 5, "box")
write_volume(METHODS[sys.argv[1]](measurement).mean, Path(sys.argv[3]))
"""
B_SPLINE = """
import sys, SimpleITK as sitk
thick = sitk.ReadImage(sys.argv[1])
size, spacing = list(thick.GetSize()), list(thick.GetSpacing())
first = thick.TransformContinuousIndexToPhysicalPoint((0, 0, -0.4))
size[2], spacing[2] = size[2] * 5, spacing[2] / 5
thin = sitk.Resample(thick, size, sitk.Transform(), sitk.sitkBSpline, first, spacing, thick.GetDirection())
sitk.WriteImage(thin, sys.argv[2])
"""


def tiled(source_hu: np.ndarray, size_zyx: tuple[int, int, int]) -> np.ndarray:
    """A volume of any size from another: cropped, or mirrored again and again."""
    widths = [(0, max(0, want - have)) for want, have in zip(size_zyx, source_hu.shape, strict=True)]
    z, y, x = size_zyx
    return np.ascontiguousarray(np.pad(source_hu, widths, mode="symmetric")[:z, :y, :x])


def runs(thick: Path, out: Path, steps: tuple[int, ...], samples: int) -> Iterator[tuple[str, list[str]]]:
    """Names and command lines."""
    yield "SimpleITK's B-spline", [sys.executable, "-c", B_SPLINE, str(thick), str(out)]
    for method in ("cubic", "registration_projected"):
        yield method, [sys.executable, "-c", CLASSICAL, method, str(thick), str(out)]
    model = ["ctinterp", "interpolate", str(thick), "-o", str(out), "--factor", str(FACTOR)]
    yield "model, the estimate (one step)", model
    for precision in ("no", "bf16"):
        yield f"the same with --mixed-precision {precision}", [*model, "--mixed-precision", precision]
    for count in steps if samples else ():
        std = ["--std", str(out.with_name("std.nii.gz")), "--samples", str(samples), "--steps", str(count)]
        yield f"model, and {samples} samples of {count} steps", [*model, *std]


def shares(given: Path, out: Path) -> None:
    """Print where the seconds of the estimate go: networks, matrices along z, files."""
    seconds = dict.fromkeys(("networks", "matrices along z", "files"), 0.0)

    @contextmanager
    def spent(what: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        seconds[what] += time.perf_counter() - start

    with spent("files"):
        measurement = contiguous(read_scan(given).volume, FACTOR, "box")
    model = load_checkpoint(device="cpu").model
    expect = model.expectation.expect

    def timed(*given: Any, **how: Any) -> Any:
        with spent("networks"):
            return expect(*given, **how)

    model.expectation.expect = timed
    with spent("matrices along z"), torch.inference_mode():
        estimate = measurement.estimate(NullSpaceRestorer(model, measurement, Settings()).mean())
    seconds["matrices along z"] -= seconds["networks"]
    with spent("files"):
        write_volume(estimate.mean, out)
    print(f"the estimate in one process: {', '.join(f'{what} {s:.1f} s' for what, s in seconds.items())}", flush=True)


class Cost(NamedTuple):
    """Wall seconds, CPU seconds and peak resident GiB of a process."""

    wall_s: float
    cpu_s: float
    peak_gib: float


def measured(command: list[str], checkout: Path) -> Cost:
    """What a process costs that runs the package of a checkout.

    Args:
        command: the program and its arguments.
        checkout: the folder that holds the package.

    Returns:
        Seconds on the clock, CPU seconds and peak GiB.

    Raises:
        SystemExit: the process failed.
    """
    start = time.perf_counter()
    environment = os.environ | {"PYTHONPATH": str(checkout)}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{command} ended with status {status}")
    return Cost(time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 2**20)


@click.command
@click.argument("scan", type=click.Path(path_type=Path, exists=True))
@click.option("--size", "sizes", nargs=3, type=int, multiple=True, default=[(40, 256, 256), (50, 512, 512)])
@click.option("--samples", default=0, help="samples for the standard deviation")
@click.option("--steps", multiple=True, type=int, default=[4], help="steps of a sample")
@click.option("--against", type=click.Path(path_type=Path, exists=True), help="another checkout")
@click.option("--only", default="", help="methods whose name begins so")
def main(
    scan: Path,
    sizes: list[tuple[int, int, int]],
    samples: int,
    steps: tuple[int, ...],
    against: Path | None,
    only: str,
) -> None:
    """Measure on SCAN, a thin one."""
    checkouts = {"": HERE} | ({f", of {against.name}": against.resolve()} if against else {})
    thick = thicken(read_scan(scan).volume, FACTOR, "box")
    print("| thick scan | method | seconds | CPU seconds | microseconds a thin voxel | peak GiB |\n" + "|---" * 6 + "|")
    with tempfile.TemporaryDirectory() as folder:
        given, out = Path(folder) / "thick.nii.gz", Path(folder) / "thin.nii.gz"
        for size in sizes:
            write_volume(replace(thick, hu=tiled(thick.hu, size)), given)
            chosen = [run for run in runs(given, out, steps, samples) if run[0].startswith(only)]
            for (name, command), (whose, checkout) in product(chosen, checkouts.items()):
                cost = measured(command, checkout)
                for made in set(Path(folder).iterdir()) - {given}:
                    made.unlink()
                cells = "x".join(map(str, size)), name + whose, f"{cost.wall_s:.1f}", f"{cost.cpu_s:.1f}"
                rate = cost.wall_s / (FACTOR * np.prod(size)) * 1e6
                print(f"| {' | '.join(cells)} | {rate:.2f} | {cost.peak_gib:.2f} |", flush=True)
            shares(given, out)


if __name__ == "__main__":
    main()
