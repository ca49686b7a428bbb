"""Error by tissue and by dose: noise is added to thin scans before they are thickened, the truth is without it.

python -m benchmarks.dose records.json THIN ...    adds the scans that records.json lacks; THIN,MM where slices
                                                   overlap; without THIN the table alone
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
from scipy.ndimage import gaussian_filter, uniform_filter

from benchmarks.evidence import best_classical, contestants, table, thickened, thin_scan
from ctinterp_dagster.interpolation import load_checkpoint
from ctinterp_dagster.records import read_json, write_json
from ctinterp_dagster.scan.volume import FloatArray, Volume

NOISE_HU = (0, 25, 50)
GRAIN_PIXELS = 0.8  # sigma of the kernel that noise in a plane is filtered with
TISSUES_HU = {
    "air and lung": (-1100, -700),
    "edges of lung": (-700, -200),
    "soft tissue": (-200, 150),
    "bone": (250, 4000),
}
AROUND_MM, END_MM = 2.0, 5.0
FEWEST_PATIENTS = 3


def noisy(thin: Volume, noise_hu: float) -> Volume:
    """A scan with more noise, Gaussian, of a grain in plane, every slice its own."""
    white = np.random.default_rng(0).standard_normal(thin.hu.shape, np.float32)
    grained = gaussian_filter(white, (0, GRAIN_PIXELS, GRAIN_PIXELS))
    return thin.with_hu(thin.hu + np.float32(noise_hu) * grained / grained.std())


def tissue_errors(estimate: FloatArray, truth: FloatArray, spacing_mm: tuple[float, ...]) -> dict[str, float]:
    """Mean |error| in HU by tissue, which the mean of the truth over 2 mm tells; without the end slices."""
    ends = round(END_MM / spacing_mm[0])
    size = [max(1, round(AROUND_MM / step)) for step in spacing_mm]
    around, error = (values[ends:-ends] for values in (uniform_filter(truth, size), np.abs(estimate - truth)))
    inside = {name: (around > low) & (around < high) for name, (low, high) in TISSUES_HU.items()}
    return {name: float(error[where].mean()) for name, where in inside.items() if where.sum() >= 1000}


def measured(argument: str, side: int) -> Iterator[dict[str, Any]]:
    """A record a noise and method."""
    case, thin, thickness_mm = thin_scan(argument, side)
    known = thickened(thin, thickness_mm).known
    methods = contestants(load_checkpoint(device="cpu"))
    for noise in NOISE_HU:
        measurement = thickened(noisy(thin, noise), thickness_mm)
        for name, method in methods.items():
            errors = tissue_errors(method(measurement).mean.hu, known.hu, known.spacing_mm)
            yield {"case": case, "side": side, "noise_hu": noise, "method": name, **errors}


def by_tissue(records: list[dict[str, Any]]) -> str:
    """Tissues and scans down, noise across: thick slices, the best classical method of the cell, the model."""
    rows = pd.DataFrame(records).set_index(["case", "noise_hu", "method"]).sort_index()
    lines = []
    for tissue in TISSUES_HU:
        for case in dict.fromkeys(rows.index.get_level_values("case")):
            cells = []
            for noise in NOISE_HU:
                values = {str(name): float(value) for name, value in rows.loc[(case, noise), tissue].items()}
                best = best_classical(values, higher_is_better=False)
                cells.append(" / ".join(f"{values[name]:.1f}" for name in ("nearest", best, "model")))
            lines.append([f"{tissue}, {case}", *cells])
    cases = rows.index.get_level_values("case").nunique()
    few = f"{cases} scans: one patient or phantom behind each number, fewer than {FEWEST_PATIENTS}"
    return few + "\n\n" + table(["mean error, HU", *(f"+ {noise} HU" for noise in NOISE_HU)], lines)


@click.command
@click.argument("records", type=click.Path(path_type=Path))
@click.argument("scans", nargs=-1, metavar="THIN")
@click.option("--side", default=96, help="pixels of the middle of each slice, 0 for all")
def main(records: Path, scans: tuple[str, ...], side: int) -> None:
    """Measure what RECORDS lacks, and print the table of all."""
    known = read_json(records) if records.exists() else []
    for argument in scans:
        known += list(measured(argument, side))
        write_json(records, known)
    print(by_tissue(known))


if __name__ == "__main__":
    main()
