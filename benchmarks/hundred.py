"""Many series by one `ctinterp interpolate --all`, killed twice on its way, and the memory of few and of many.

`python -m benchmarks.hundred --count 100`. Series are noise-free crops of phantoms, half NIfTI and half DICOM; every
tenth is broken. A run is killed when a third and when two thirds of the results are there.
"""

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import numpy as np

from ctinterp_dagster.records import read_json
from ctinterp_dagster.scan.io import read_scan, write_result, write_volume
from ctinterp_dagster.scan.phantom import phantom
from ctinterp_dagster.scan.volume import Volume

FACTOR, SLICES, PIXELS = 5, 12, 64
BROKEN = 10  # every so many-th


def write_series(folder: Path, number: int) -> None:
    """Write one thick series; a broken one is a file that ends early."""
    thin = phantom(number, shape_zyx=(SLICES * FACTOR, PIXELS, PIXELS), spacing_mm=(1.0, 3.0, 3.0), noise_hu=10.0)
    hu = np.rint(thin.hu.reshape(SLICES, FACTOR, PIXELS, PIXELS).mean(axis=1))
    file = folder / f"{number:03d}.nii.gz"
    write_volume(Volume(hu, (float(FACTOR), 3.0, 3.0), thin.origin_mm, thin.direction), file)
    if number % BROKEN == BROKEN - 1:
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    elif number % 2:
        scan = read_scan(file)
        write_result(scan.volume, folder / f"{number:03d}", scan, "benchmark", as_dicom=True)
        file.unlink()


def start(source: Path, out: Path, method: str) -> "subprocess.Popen[str]":
    """The command over all series."""
    code = "from ctinterp_dagster.cli import main; main()"
    words = ["interpolate", source, "--all", "-o", out, "--method", method]
    command = [sys.executable, "-c", code, *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def finished(out: Path) -> dict[Path, int]:
    """The results that are whole, each with the time it was written."""
    records = [path for path in out.rglob("[!.]*.json") if read_json(path)["finished"]]
    return {path: path.stat().st_mtime_ns for path in records}


def last_line(process: "subprocess.Popen[str]") -> str:
    """What the command ends with."""
    return process.communicate()[0].splitlines()[-1]


def peak_mib() -> float:
    """The most memory that any command so far has held."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


@click.command
@click.option("--count", default=100, show_default=True, help="series")
@click.option("--method", default="cubic_projected", show_default=True)
def main(count: int, method: str) -> None:
    """Print what became of the series, and the memory."""
    with tempfile.TemporaryDirectory() as folder:
        few, many, out = (Path(folder) / name for name in ("few", "many", "out"))
        for number in range(count):
            for place in (many, few) if number < count // 10 else (many,):
                place.mkdir(exist_ok=True)
                write_series(place, number)
        click.echo(
            f"{count // 10} series: {last_line(start(few, Path(folder) / 'short', method))}, {peak_mib():.0f} MiB"
        )
        before: dict[Path, int] = {}
        for part in (1, 2):
            process = start(many, out, method)
            while len(finished(out)) < part * count // 3:
                time.sleep(0.1)
            process.kill()
            process.communicate()
            before |= finished(out)
            click.echo(f"killed with {len(before)} results")
        click.echo(f"{count} series: {last_line(start(many, out, method))}, {peak_mib():.0f} MiB")
        after = finished(out)
        again = sum(after.get(path) != written for path, written in before.items())
        half = [path for path in out.rglob("*") if path.name.startswith(".")]
        click.echo(f"{len(after)} results, {again} made twice, {len(half)} half-written")
        click.echo(f"once more: {last_line(start(many, out, method))}")


if __name__ == "__main__":
    main()
