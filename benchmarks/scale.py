"""What 100, 10,000 and 1,000,000 scans take: constants measured, the rest arithmetic; the tables of docs/scale.md.

`python benchmarks/scale.py [--repeat N]`: CPU seconds, so that other work on the machine does not count.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from ctinterp_dagster.interpolation import Settings, load_checkpoint, thicken
from ctinterp_dagster.physics.baselines import METHODS
from ctinterp_dagster.physics.measurement import contiguous
from ctinterp_dagster.records import CaseFolder
from ctinterp_dagster.scan.checks import check_volume
from ctinterp_dagster.scan.io import read_scan, write_volume
from ctinterp_dagster.scan.phantom import phantom

FACTOR = 5
SHAPE_ZYX = (60, 128, 128)  # measured on this, scaled by voxels to a clinical scan
SCAN_VOXELS = 250 * 512 * 512
SCANS = (100, 10_000, 1_000_000)
# What is assumed, not measured. Prices are list prices of large clouds, to the nearest round number.
CPU_HOUR_USD = 0.04
GB_MONTH_USD = 0.023
CORES = 64
DISK_GB_S = 0.5  # of a shared file system, which every stage reads and writes
MEASURED_CASES = (200, 400)


@dataclass(frozen=True)
class Part:
    """One kind of work on a scan: CPU seconds a million voxels, bytes a voxel that stay, bytes a voxel that move."""

    name: str
    cpu_s: float
    kept: float
    moved: float


def cpu_seconds(action: Callable[[], object], repeat: int) -> float:
    """CPU seconds of an action, the least of several."""
    seconds = []
    for _ in range(repeat):
        start = time.process_time()
        action()
        seconds.append(time.process_time() - start)
    return min(seconds)


def measure(folder: Path, repeat: int) -> list[Part]:
    """The parts of the way of one scan; each is measured on a phantom."""
    thin = phantom(1, shape_zyx=SHAPE_ZYX, spacing_mm=(1.0, 2.5, 2.5), noise_hu=12.0)
    thick = thicken(thin, FACTOR, "box")
    measurement = contiguous(thick, FACTOR, "box")
    interpolator = load_checkpoint(device="cpu")
    settings = Settings(mixed_precision=interpolator.precision("auto"))  # as the command has it
    write_volume(thin, folder / "raw.nii.gz")

    def ingest() -> None:
        read = read_scan(folder / "raw.nii.gz").volume
        check_volume(read, min_slices=20)
        write_volume(read, folder / "ingest.nii")

    def synthesise() -> None:
        write_volume(thicken(read_scan(folder / "ingest.nii").volume, FACTOR, "box"), folder / "thick.nii")

    mega = SHAPE_ZYX[0] * SHAPE_ZYX[1] * SHAPE_ZYX[2] / 1e6
    work: list[tuple[str, Callable[[], object], float, float]] = [
        ("ingest (gunzip, check, write)", ingest, 2, 3),
        ("thicken, one profile", synthesise, 2 / FACTOR, 2 + 2 / FACTOR),
        ("interpolate with the released model", lambda: interpolator.restore(measurement, settings), 4, 4 + 2 / FACTOR),
        ("best classical method (registration)", lambda: METHODS["registration_projected"](measurement), 4, 4.4),
    ]
    return [Part(name, cpu_seconds(action, repeat) / mega, kept, moved) for name, action, kept, moved in work]


def bookkeeping(folder: Path, cases: int) -> float:
    """CPU milliseconds of CaseFolder a case, in a folder of so many cases."""
    source = folder / "source"
    source.write_bytes(b"voxels")
    made = CaseFolder(folder / f"cases-{cases}", {})
    start = time.process_time()
    for number in range(cases):
        made.make(f"case-{number}", [source], [f"{number}.nii"], lambda paths: paths[0].write_bytes(b"x") and None)
    made.keep_only(f"case-{number}" for number in range(cases))
    return (time.process_time() - start) / cases * 1e3


def time_of(hours: float) -> str:
    """Hours in the unit that reads best."""
    return f"{hours * 60:.0f} min" if hours < 1 else f"{hours:,.0f} h" if hours < 72 else f"{hours / 24:,.0f} days"


def show(parts: list[Part], cases_ms: list[float]) -> None:
    """Print the constants, and what follows from them."""
    print("| part | CPU s a Mvoxel | CPU s a scan | GB kept | GB moved |\n|---|---|---|---|---|")
    mega, giga = SCAN_VOXELS / 1e6, SCAN_VOXELS / 1e9
    for part in parts:
        row = (part.cpu_s, part.cpu_s * mega, part.kept * giga, part.moved * giga)
        print(f"| {part.name} | " + " | ".join(f"{value:.3g}" for value in row) + " |")
    pairs = zip(MEASURED_CASES, cases_ms, strict=True)
    print("\nbookkeeping a case: " + ", ".join(f"{ms:.2f} CPU ms among {count}" for count, ms in pairs))
    print(f"\n| part | scans | CPU hours | on 2 cores | on {CORES} cores | USD computing | TB kept | USD a month "
          f"| h at {DISK_GB_S} GB/s |\n|---|---|---|---|---|---|---|---|---|")  # fmt: skip
    for part in parts:
        for scans in SCANS:
            hours, kept_gb = part.cpu_s * mega * scans / 3600, part.kept * giga * scans
            cells = (
                part.name, f"{scans:,}", f"{hours:,.1f}", time_of(hours / 2), time_of(hours / CORES),
                f"{hours * CPU_HOUR_USD:,.2f}", f"{kept_gb / 1000:,.2f}", f"{kept_gb * GB_MONTH_USD:,.0f}",
                f"{part.moved * giga * scans / DISK_GB_S / 3600:,.1f}",
            )  # fmt: skip
            print("| " + " | ".join(cells) + " |")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        show(measure(folder, arguments.repeat), [bookkeeping(folder, cases) for cases in MEASURED_CASES])


if __name__ == "__main__":
    main()
