"""Resolution along z, noise, values and the calibration of the standard deviation, as a physicist measures them.

    python -m benchmarks.physics records.json THIN ...           thin scans that are thickened to 5 mm
    python -m benchmarks.physics records.json --pair THICK THIN  a real pair; its own profile is found
    python -m benchmarks.physics records.json                    the tables alone

THIN,MM for slices that overlap. Adds what records.json lacks. docs/evidence.md has the tables.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter, label, maximum_filter1d, uniform_filter

from benchmarks.evidence import MODEL, ORDER, EvidenceFile, contestants, table, thickened, thin_scan, usual
from benchmarks.grids import cropped
from ctinterp_dagster.evaluation.evidence_tables import Table
from ctinterp_dagster.evaluation.planting import BONE, LUNG, SOFT, rod_edges, rods
from ctinterp_dagster.evaluation.resolution import edge_spread, resolution
from ctinterp_dagster.interpolation import Interpolator, Measurement, load_checkpoint, paired
from ctinterp_dagster.scan.io import read_scan
from ctinterp_dagster.scan.volume import DoubleArray, FloatArray, Volume

PLATEAU_MM = (6.0, 10.0)  # from an edge, where both sides are flat
CONTRASTS_HU = (50.0, 200.0, 800.0)
ROI_MM = (20.0, 16.0, 16.0)
FLAT_HU = 12.0  # standard deviation of a block once noise is smoothed away
MOST_ROIS = 40
FEWEST_EDGES = 1000
END_MM = 5.0


def natural_edges(truth: FloatArray, spacing_mm: tuple[float, ...]) -> dict[str, DoubleArray]:
    """Columns in which a face lies across z between flat sides 400 HU apart; it lies where the truth is halfway."""
    step = spacing_mm[0]
    near, far = (round(mm / step) for mm in PLATEAU_MM)
    smooth = gaussian_filter(truth, [1.0 / s for s in spacing_mm])
    slopes = [np.abs(slope) for slope in np.gradient(smooth, *spacing_mm)]
    steep = slopes[0] > 40
    steep &= (slopes[0] > 4 * np.hypot(slopes[1], slopes[2])) & (
        slopes[0] == maximum_filter1d(slopes[0], 2 * far + 1, axis=0)
    )
    z, y, x = (index.astype(int) for index in np.nonzero(steep))
    kept = (z >= far + 1) & (z < len(truth) - far - 1)
    z, y, x = z[kept], y[kept], x[kept]
    sides = [np.stack([truth[z + sign * k, y, x] for k in range(near, far + 1)]) for sign in (-1, 1)]
    low, high = (side.mean(axis=0) for side in sides)
    flat = np.maximum(*(side.std(axis=0) for side in sides)) < 0.06 * np.abs(high - low)
    flat &= np.abs(high - low) > 400
    z, y, x, low, high = (values[flat] for values in (z, y, x, low, high))
    around = np.stack([(truth[z + k, y, x] - low) / (high - low) for k in range(-near, near + 1)])
    above = around > 0.5
    first = np.argmax(above, axis=0)
    before, after = (np.take_along_axis(around, first[None] - k, 0)[0] for k in (1, 0))
    at = (z - near + first - 1 + (0.5 - before) / (after - before)) * step
    once = (np.diff(above.astype(int), axis=0) != 0).sum(axis=0) == 1
    values = {"y": y, "x": x, "at_mm": at, "low": low, "high": high}
    return {name: np.asarray(value[once & (first > 0)], float) for name, value in values.items()}


def flat_regions(truth: FloatArray, spacing_mm: tuple[float, ...]) -> list[tuple[slice, ...]]:
    """The flattest blocks of soft tissue, 20 mm along z and 16 mm wide, that do not overlap."""
    size = [round(mm / step) for mm, step in zip(ROI_MM, spacing_mm, strict=True)]
    smooth = gaussian_filter(truth, [2.0 / step for step in spacing_mm])
    mean = uniform_filter(smooth, size)
    rough = uniform_filter(np.square(smooth), size) - np.square(mean)
    rough[(mean < -200) | (mean > 300) | (rough > FLAT_HU**2)] = np.inf
    chosen: list[tuple[slice, ...]] = []
    order = np.argsort(rough, axis=None)[:200_000:20]
    for index in order[np.isfinite(rough.ravel()[order])]:
        middle = np.array(np.unravel_index(index, rough.shape))
        start = middle - np.array(size) // 2
        block = tuple(slice(a, a + n) for a, n in zip(start, size, strict=True))
        fits = all(a.start >= 0 and a.stop <= n for a, n in zip(block, truth.shape, strict=True))
        if fits and all(
            any(abs(a.start - b.start) >= n for a, b, n in zip(block, other, size, strict=True)) for other in chosen
        ):
            chosen.append(block)
        if len(chosen) == MOST_ROIS:
            break
    return chosen


def noise_power(blocks: DoubleArray, spacing_mm: tuple[float, ...]) -> dict[str, float]:
    """Standard deviation, and the mean frequencies of the noise power spectrum along z and in plane, 1/mm.

    Args:
        blocks: (n, z, y, x) HU; a polynomial of second order is taken off each.
        spacing_mm: of voxels.

    Returns:
        HU and 1/mm by name.

    Source: Samei et al. 2019, AAPM TG-233, Med. Phys. 46(11), section on noise: f_av, and the detrending.
    """
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in blocks.shape[1:]), indexing="ij")
    z, y, x = (axis.ravel() for axis in axes)
    trend = np.stack([np.ones_like(z), z, y, x, z * y, z * x, y * x, z**2, y**2, x**2], axis=1)
    flat = blocks.reshape(len(blocks), -1).T.astype(float)
    noise = flat - trend @ np.linalg.lstsq(trend, flat, rcond=None)[0]
    power = np.mean(np.abs(np.fft.fftn(noise.T.reshape(blocks.shape), axes=(1, 2, 3))) ** 2, axis=0)
    fz, fy, fx = (np.abs(np.fft.fftfreq(n, step)) for n, step in zip(power.shape, spacing_mm, strict=True))
    plane = np.hypot(fy[:, None], fx[None])
    return {
        "noise_hu": float(noise.std()),
        "noise_z": float((power.sum(axis=(1, 2)) * fz).sum() / power.sum()),
        "noise_plane": float((power.sum(axis=0) * plane).sum() / power.sum()),
    }


def inserts(truth: FloatArray, spacing_mm: tuple[float, ...]) -> list[npt.NDArray[np.bool_]]:
    """The inside of the largest things of one value above -500 HU, at least 4 mm (z) and 2 mm from their edges."""
    size = [2 * round(mm / step) + 1 for mm, step in zip((4.0, 2.0, 2.0), spacing_mm, strict=True)]
    mean = uniform_filter(truth, size)
    even = uniform_filter(np.square(truth), size) - np.square(mean) < 30**2
    parts, count = label(even & (mean > -500))
    sizes = np.bincount(parts.ravel(), minlength=count + 1)
    sizes[0] = 0
    largest = np.argsort(sizes)[::-1][:8]
    return [parts == index for index in largest if sizes[index] > 300]


def calibration(estimate: FloatArray, std: FloatArray, truth: FloatArray) -> dict[str, list[float]]:
    """By tissue: voxels, share of the truth within 1.645 deviations (0.9 is honest), rms error and rms deviation.

    A tissue is told by the estimate, which is all that a user has.

    Args:
        estimate: (z, y, x) HU.
        std: its standard deviation, HU.
        truth: the same shape, HU.

    Returns:
        Four numbers by tissue.
    """
    ranges = {"air": (-1100, -900), LUNG: (-900, -700), "edges": (-700, -200), SOFT: (-200, 150), BONE: (250, 4000)}
    values = {}
    for name, (low, high) in ranges.items():
        inside = (estimate > low) & (estimate < high)
        if inside.sum() >= 1000:
            error, spread = np.abs(estimate[inside] - truth[inside]), std[inside]
            rms = [float(np.sqrt(np.square(part, dtype=float).mean())) for part in (error, spread)]
            values[name] = [int(inside.sum()), float((error <= 1.645 * spread).mean()), *rms]
    return values


def measured(measurement: Measurement, model: Interpolator) -> dict[str, Any]:
    """What one measurement tells of every method: a record, without the rods."""
    truth, spacing = measurement.known.hu, measurement.known.spacing_mm
    estimate = model.restore(measurement, usual(model, samples=2))
    assert estimate.std is not None
    volumes = {"truth": truth} | {
        name: estimate.mean.hu if name == "model" else method(measurement).mean.hu
        for name, method in contestants(model).items()
    }
    edges, blocks = natural_edges(truth, spacing), flat_regions(truth, spacing)
    solid = inserts(truth, spacing)
    ends = round(END_MM / spacing[0])
    inner = slice(ends, -ends)
    methods = {}
    for name, hu in volumes.items():
        row: dict[str, Any] = {"inserts_hu": [float(hu[inside].mean()) for inside in solid]}
        if len(edges["y"]) >= FEWEST_EDGES:
            row |= dict(zip(("width_mm", "half"), resolution(edge_spread(hu, spacing[0], edges)), strict=True))
        if blocks:
            row |= noise_power(np.stack([hu[block] for block in blocks]), spacing)
        methods[name] = row
    spread = calibration(estimate.mean.hu[inner], estimate.std.hu[inner], truth[inner])
    return {
        "shape": truth.shape, "spacing_mm": spacing, "edges": len(edges["y"]), "blocks": len(blocks),
        "methods": methods, "calibration": spread, "profile": str(measurement.operator.profile),
    }  # fmt: skip


def rod_records(thin: Volume, thickness_mm: float | None, model: Interpolator) -> dict[str, Any]:
    """Width and half transfer of every method at the faces of rods, by contrast: what the rods add to the estimate."""
    twin = thickened(thin, thickness_mm)
    methods = contestants(model)
    bare = {"truth": twin.known.hu, **{name: method(twin).mean.hu for name, method in methods.items()}}
    records: dict[str, Any] = {}
    for contrast in CONTRASTS_HU:
        scan, by_contrast = rods(thin, (contrast,))
        places = by_contrast[contrast]
        measurement = thickened(scan, thickness_mm)
        spacing = measurement.known.spacing_mm
        edges = rod_edges(places, spacing, contrast)
        made = {"truth": measurement.known.hu, **{name: it(measurement).mean.hu for name, it in methods.items()}}
        records[f"{contrast:g}"] = {"rods": len(places)} | {
            name: resolution(edge_spread(hu - bare[name], spacing[0], edges)) for name, hu in made.items()
        }
    return records


def resolution_table(records: list[dict[str, Any]]) -> Table:
    """Width and half transfer by contrast, means over the scans with rods."""
    rods_of = [record["rods"] for record in records if "rods" in record]
    lines = []
    for method in ORDER:
        means = [np.mean([scan[f"{hu:g}"][method] for scan in rods_of], axis=0) for hu in CONTRASTS_HU]
        lines.append([method, *(f"{width:.1f} mm, {half:.3f}" for width, half in means)])
    title = "Faces of planted rods: full width at half maximum, frequency (1/mm) at which the transfer is a half"
    return table(["method", *(f"{hu:g} HU" for hu in CONTRASTS_HU)], lines, title)


def method_table(
    title: str, records: list[dict[str, Any]], cell: Callable[[dict[str, Any], dict[str, Any]], str]
) -> Table:
    """Methods down, scans across; a cell is made of the method's row and the truth's."""
    lines = [
        [name, *(cell(record["methods"][name], record["methods"]["truth"]) for record in records)] for name in ORDER
    ]
    return table(["method", *(record["case"] for record in records)], lines, title)


def noise_cell(row: dict[str, Any], _: dict[str, Any]) -> str:
    """Deviation and mean frequencies."""
    if "noise_hu" not in row:
        return "-"
    return f"{row['noise_hu']:.1f} HU, {row['noise_z']:.2f}, {row['noise_plane']:.2f}"


def insert_cell(row: dict[str, Any], truth: dict[str, Any]) -> str:
    """Mean and largest |difference| of the mean values."""
    off = np.abs(np.subtract(row["inserts_hu"], truth["inserts_hu"]))
    return f"{off.mean():.1f}, {off.max():.1f} ({len(off)})"


def calibration_table(records: list[dict[str, Any]]) -> Table:
    """Tissues down, scans across: coverage; root mean square error over deviation."""
    tissues = dict.fromkeys(name for record in records for name in record["calibration"])

    def cell(values: list[float] | None) -> str:
        return "-" if values is None else f"{values[1]:.3f}, {values[2]:.0f} / {values[3]:.0f}"

    lines = [[name, *(cell(record["calibration"].get(name)) for record in records)] for name in tissues]
    title = (
        "Calibration by the estimate's tissue: share of the truth within 1.645 deviations, rms error / deviation, HU"
    )
    return table(["tissue", *(record["case"] for record in records)], lines, title)


def tables(records: list[dict[str, Any]]) -> Iterator[Table]:
    """All that was measured."""
    yield resolution_table(records)
    for record in records:
        if "width_mm" in record["methods"]["truth"]:
            rows = ((name, record["methods"][name]) for name in ORDER)
            yield table(
                ["method", "width, half transfer"],
                [[name, f"{row['width_mm']:.1f} mm, {row['half']:.3f}"] for name, row in rows],
                f"Edges of {record['case']} ({record['edges']} columns; profile {record['profile']})",
            )
    yield method_table("Noise in flat blocks: deviation, mean frequency along z, in plane (1/mm)", records, noise_cell)
    yield method_table("Even insides: mean, largest error of their mean, HU (how many)", records, insert_cell)
    yield calibration_table(records)


@click.command
@click.argument("records", type=click.Path(path_type=Path))
@click.argument("scans", nargs=-1, metavar="THIN")
@click.option("--pair", nargs=2, type=click.Path(path_type=Path), help="a real thick and thin scan")
@click.option("--side", default=128, help="pixels of the middle of each slice, 0 for all")
@MODEL
def main(records: Path, scans: tuple[str, ...], pair: tuple[Path, Path] | None, side: int, model_file: Path) -> None:
    """Measure what RECORDS lacks, and print the tables of all."""
    file = EvidenceFile(records, model_file)
    model = load_checkpoint(model_file, "cpu")
    new: list[dict[str, Any]] = []
    for argument in scans:
        case, thin, thickness_mm = thin_scan(argument, side)
        new.append({"case": case, "side": side, **measured(thickened(thin, thickness_mm), model)})
        new[-1]["rods"] = rod_records(thin, thickness_mm, model)
    if pair:
        thick, thin = (cropped(read_scan(path).volume, side) for path in pair)
        new.append({"case": "pair", "side": side, **measured(paired(thick, thin), model)})
    if new:
        measured_now = {record["case"] for record in new}
        file.records = [other for other in file.records if other["case"] not in measured_now] + new
        file.save(tables(file.records))
    print(*tables(file.records), sep="\n\n")


if __name__ == "__main__":
    main()
