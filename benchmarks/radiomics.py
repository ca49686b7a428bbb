"""Are radiomic features of a restored scan those of the thin one? Lin's concordance over places in lung, by method.

    python -m benchmarks.radiomics records.json THIN ...    adds the scans that records.json lacks; THIN,MM where slices
                                                            overlap; without THIN the table alone

Features of spheres of 16 mm by MIRP, which keeps to the IBSI: `pip install '.[radiomics]'`. Shape is left out: the
spheres are the same for all methods.
"""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
import numpy.typing as npt
import pandas as pd

from benchmarks.evidence import MODEL, EvidenceFile, contestants, table, thickened, thin_scan
from benchmarks.tasks import isotropic
from ctinterp_dagster.evaluation.evidence_tables import Table
from ctinterp_dagster.evaluation.planting import LUNG, tissue_around
from ctinterp_dagster.interpolation import Interpolator, load_checkpoint
from ctinterp_dagster.scan.volume import DoubleArray, FloatArray

FAMILIES = ["statistics", "intensity_histogram", "glcm", "glrlm", "glszm", "ngtdm"]
BIN_HU, LEAST_HU = 25.0, -1100.0
DIAMETER_MM, APART_MM = 16, 17
SHOWN = ("truth", "nearest", "linear", "cubic_projected", "registration_projected", "model")
GOOD, DRAWS = 0.85, 1000


def concordance(one: DoubleArray, other: DoubleArray) -> DoubleArray:
    """Lin's concordance correlation coefficient of columns (places, features), (features,); NaN for constant ones.

    Args:
        one: (places, features).
        other: the same shape.

    Returns:
        (features,), at most 1; NaN for constant ones.

    Source: Lin 1989, Biometrics 45(1), equation 1.1 with moments over n.
    """
    covariance = ((one - one.mean(axis=0)) * (other - other.mean(axis=0))).mean(axis=0)
    apart = one.var(axis=0) + other.var(axis=0) + np.square(one.mean(axis=0) - other.mean(axis=0))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(apart > 0, 2 * covariance / apart, np.nan)


class Share(NamedTuple):
    """A share, 0 to 1, and its 95 % interval."""

    share: float
    low: float
    high: float


def share_good(one: DoubleArray, other: DoubleArray) -> Share:
    """Share of the features with a concordance of 0.85 or more; the interval is of a bootstrap over the places."""
    rng = np.random.default_rng(0)
    drawn = [rng.integers(0, len(one), len(one)) for _ in range(DRAWS)]

    def share(rows: npt.NDArray[np.integer[Any]]) -> float:
        values = concordance(one[rows], other[rows])
        return float((values[np.isfinite(values)] >= GOOD).mean())

    low, high = np.quantile([share(rows) for rows in drawn], [0.025, 0.975])
    return Share(share(np.arange(len(one))), float(low), float(high))


def places(hu: FloatArray, count: int) -> list[tuple[slice, ...]]:
    """Cubes around places in lung that do not overlap, of a volume with voxels of 1 mm."""
    half = DIAMETER_MM // 2
    where = np.argwhere(tissue_around(hu, (1.0, 1.0, 1.0), DIAMETER_MM)[LUNG])
    inside = ((where >= half + 5) & (where < np.array(hu.shape) - half - 5)).all(axis=1)
    chosen: list[DoubleArray] = []
    for place in np.random.default_rng(0).permutation(where[inside]):
        if all(np.abs(place - other).max() >= APART_MM for other in chosen):
            chosen.append(place)
        if len(chosen) == count:
            break
    return [tuple(slice(int(k) - half - 2, int(k) + half + 3) for k in place) for place in chosen]


def features(hu: FloatArray) -> dict[str, float]:
    """By name, of the sphere in the middle of a cube with voxels of 1 mm."""
    from mirp import extract_features  # noqa: PLC0415 the rest of the module does without

    z, y, x = (np.arange(n) - (n - 1) / 2 for n in hu.shape)
    ball = (z**2)[:, None, None] + (y**2)[:, None] + x**2 <= (DIAMETER_MM / 2) ** 2
    (row,) = extract_features(
        image=hu.astype(np.float32), mask=ball.astype(np.uint8), image_modality="ct", base_feature_families=FAMILIES,
        base_discretisation_method="fixed_bin_size", base_discretisation_bin_width=BIN_HU,
        resegmentation_intensity_range=[LEAST_HU, 3000.0],
    )  # fmt: skip
    kept = [name for name in row.columns if not name.startswith(("image_", "sample_"))]
    return {name: float(row[name].iloc[0]) for name in kept}


def measured(argument: str, side: int, count: int, model: Interpolator) -> Iterator[dict[str, Any]]:
    """A record a place and method."""
    case, thin, thickness_mm = thin_scan(argument, side)
    measurement = thickened(thin, thickness_mm)
    methods, spacing = contestants(model), measurement.known.spacing_mm
    volumes = {
        name: isotropic(measurement.known.hu if name == "truth" else methods[name](measurement).mean.hu, spacing)
        for name in SHOWN
    }
    for number, cut in enumerate(places(volumes["truth"], count)):
        for name, hu in volumes.items():
            yield {"case": case, "place": number, "method": name, "features": features(hu[cut])}


def shares(records: list[dict[str, Any]]) -> Table:
    """The table: methods down."""
    rows = pd.DataFrame([record["features"] for record in records])
    labels = pd.DataFrame([{name: record[name] for name in ("case", "place", "method")} for record in records])
    by_method = {name: rows[labels["method"] == name].to_numpy(float) for name in dict.fromkeys(labels["method"])}
    truth = by_method.pop("truth")
    lines = []
    for name, values in by_method.items():
        share, low, high = share_good(values, truth)
        lines.append([name, f"{share:.2f} ({low:.2f}, {high:.2f})", f"{np.nanmedian(concordance(values, truth)):.2f}"])
    title = f"{truth.shape[1]} features, {len(truth)} places in {labels['case'].nunique()} scans"
    return table(["method", f"share with concordance >= {GOOD}", "median"], lines, title)


@click.command
@click.argument("records", type=click.Path(path_type=Path))
@click.argument("scans", nargs=-1, metavar="THIN")
@click.option("--side", default=96, help="pixels of the middle of each slice, 0 for all")
@click.option("--places", "count", default=10, help="spheres a scan")
@MODEL
def main(records: Path, scans: tuple[str, ...], side: int, count: int, model_file: Path) -> None:
    """Measure what RECORDS lacks, and print the table of all.

    Raises:
        ClickException: MIRP is not installed.
    """
    if scans and find_spec("mirp") is None:
        raise click.ClickException("MIRP is not installed: pip install '.[radiomics]'")
    file = EvidenceFile(records, model_file)
    model = load_checkpoint(model_file, "cpu")
    for argument in scans:
        file.records += list(measured(argument, side, count, model))
        file.save([shares(file.records)])
    print(shares(file.records))


if __name__ == "__main__":
    main()
