"""Resolution along z, noise, values and the calibration of the standard deviation, as a physicist measures them.

    python -m benchmarks.physics records.json THIN ...           thin scans that are thickened to 5 mm
    python -m benchmarks.physics records.json --pair THICK THIN  a real pair; its own profile is found
    python -m benchmarks.physics records.json                    the tables alone

THIN,MM for slices that overlap. Adds what records.json lacks. docs/evidence.md has the tables.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter, label, maximum_filter1d, uniform_filter
from scipy.optimize import curve_fit
from scipy.special import ndtr

from benchmarks.evidence import BONE, LUNG, ORDER, SOFT, contestants, table, thickened, thin_scan, tissue_around
from benchmarks.grids import cropped
from ctinterp_dagster.interpolation import Interpolator, Measurement, Settings, load_checkpoint, paired
from ctinterp_dagster.records import read_json, write_json
from ctinterp_dagster.scan.io import read_scan
from ctinterp_dagster.scan.volume import FloatArray, Volume

Numbers = npt.NDArray[np.float64]
BIN_MM, REACH_MM = 0.25, 12.0
PLATEAU_MM = (6.0, 10.0)  # from an edge, where both sides are flat
CONTRASTS_HU = (50, 200, 800)
ROD_MM, ROD_HEIGHT_MM, TILT = 7.0, 24.0, 0.5  # radius; height; how far the faces rise, mm a mm
EDGE_MM = 0.5  # sigma of a rod's faces
ROI_MM = (20.0, 16.0, 16.0)
FLAT_HU = 12.0  # standard deviation of a block once noise is smoothed away
MOST_ROIS = 40
FEWEST_EDGES = 1000
END_MM = 5.0


def edge_spread(hu: FloatArray, step_mm: float, edges: Mapping[str, Numbers]) -> Numbers:
    """Mean edge spread function over columns along z, in bins of 0.25 mm from -12 to 12 mm; 0 below, 1 above.

    Args:
        hu: (z, y, x).
        step_mm: distance of slices.
        edges: y, x: columns; at_mm: where the edge lies, from the first slice's centre; low, high: HU on either side.

    Source: Richard et al. 2012, Med. Phys. 39(7): the task transfer function of an edge, over-sampled by its tilt.
    """
    columns = (hu[:, edges["y"].astype(int), edges["x"].astype(int)] - edges["low"]) / (edges["high"] - edges["low"])
    from_edge = np.arange(len(hu))[:, None] * step_mm - edges["at_mm"]
    bins = np.floor((from_edge + REACH_MM) / BIN_MM).astype(int)
    count = round(2 * REACH_MM / BIN_MM)
    inside = (bins >= 0) & (bins < count)
    sums, samples = (np.bincount(bins[inside], weights, count) for weights in (columns[inside], None))
    filled = samples > 0
    return np.interp(np.arange(count), np.flatnonzero(filled), sums[filled] / samples[filled])


def resolution(spread: Numbers) -> tuple[float, float]:
    """Full width at half maximum of the Gaussian line spread that fits best, mm; where the transfer is a half, 1/mm.

    The second is of the measured line spread, without a model.
    """
    at = (np.arange(len(spread)) + 0.5) * BIN_MM - REACH_MM
    (_, sigma), _ = curve_fit(lambda z, middle, width: ndtr((z - middle) / width), at, spread, p0=(0.0, 2.0))
    line = np.diff(spread)
    padded = np.zeros(4096)
    padded[: len(line)] = line
    transfer = np.abs(np.fft.rfft(padded)) / abs(line.sum())
    frequencies = np.fft.rfftfreq(len(padded), BIN_MM)
    below = int(np.argmax(transfer < 0.5))
    share = (transfer[below - 1] - 0.5) / (transfer[below - 1] - transfer[below])
    return float(2 * np.sqrt(2 * np.log(2)) * abs(sigma)), float(frequencies[below - 1] + share * frequencies[1])


def natural_edges(truth: FloatArray, spacing_mm: tuple[float, ...]) -> dict[str, Numbers]:
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


def rods(thin: Volume, contrast_hu: float) -> tuple[Volume, list[Numbers]]:
    """A scan with upright rods of soft tissue or lung whose faces are tilted, and the places of their middles, mm."""
    where = tissue_around(thin.hu, thin.spacing_mm, ROD_MM)
    middle = np.logical_or(where[LUNG], where[SOFT])
    size_mm = np.array(thin.hu.shape) * thin.spacing_mm
    places = (np.argwhere(middle) + 0.5) * thin.spacing_mm
    ends = np.array([ROD_HEIGHT_MM / 2 + 12, ROD_MM + 3, ROD_MM + 3])
    places = np.random.default_rng(0).permutation(places[((places > ends) & (places < size_mm - ends)).all(axis=1)])
    chosen: list[Numbers] = []
    between = np.array([ROD_HEIGHT_MM + 20, 4 * ROD_MM, 4 * ROD_MM])
    for place in places[:3000]:
        if all((np.abs(place - other) > between).any() for other in chosen):
            chosen.append(place)
    scan = thin.with_hu(thin.hu.copy())
    z, y, x = ((np.arange(n) + 0.5) * step for n, step in zip(thin.hu.shape, thin.spacing_mm, strict=True))
    parts = ((np.arange(5) + 0.5) / 5 - 0.5) * thin.spacing_mm[0]
    for place in chosen:
        across = ndtr((ROD_MM - np.hypot((y - place[1])[:, None], (x - place[2])[None])) / EDGE_MM)
        rise = TILT * (x - place[2])
        heights = (z - place[0])[:, None, None] + parts[None, :, None] - rise[None, None]
        along = (ndtr((ROD_HEIGHT_MM / 2 - np.abs(heights)) / EDGE_MM)).mean(axis=1)
        scan.hu[:] += (contrast_hu * along[:, None, :] * across[None]).astype(np.float32)
    return scan, chosen


def rod_edges(places_mm: list[Numbers], spacing_mm: tuple[float, ...], contrast_hu: float) -> dict[str, Numbers]:
    """Both faces of the rods, 5 mm around their axes, for `edge_spread` of what the rods add to a volume."""
    rows = []
    for place in places_mm:
        reach = [int(5 / step) for step in spacing_mm[1:]]
        middle = [int(mm / step) for mm, step in zip(place[1:], spacing_mm[1:], strict=True)]
        y, x = (np.arange(m - r, m + r + 1) for m, r in zip(middle, reach, strict=True))
        y, x = (grid.ravel() for grid in np.meshgrid(y, x, indexing="ij"))
        rise = TILT * ((x + 0.5) * spacing_mm[2] - place[2])
        for side in (-1, 1):
            at = place[0] + side * ROD_HEIGHT_MM / 2 + rise - spacing_mm[0] / 2
            ends = (0.0, contrast_hu) if side < 0 else (contrast_hu, 0.0)
            rows.append([y, x, at, *(np.full(len(y), end) for end in ends)])
    joined = (np.concatenate(parts) for parts in zip(*rows, strict=True))
    return dict(zip(("y", "x", "at_mm", "low", "high"), joined, strict=True))


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


def noise_power(blocks: Numbers, spacing_mm: tuple[float, ...]) -> dict[str, float]:
    """Standard deviation, and the mean frequencies of the noise power spectrum along z and in plane, 1/mm.

    Args:
        blocks: (n, z, y, x) HU; a polynomial of second order is taken off each.
        spacing_mm: of voxels.

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
    estimate = model(measurement, Settings(samples=2, mixed_precision="bf16"))
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
        scan, places = rods(thin, contrast)
        measurement = thickened(scan, thickness_mm)
        spacing = measurement.known.spacing_mm
        edges = rod_edges(places, spacing, contrast)
        made = {"truth": measurement.known.hu, **{name: it(measurement).mean.hu for name, it in methods.items()}}
        records[str(contrast)] = {"rods": len(places)} | {
            name: resolution(edge_spread(hu - bare[name], spacing[0], edges)) for name, hu in made.items()
        }
    return records


def resolution_table(records: list[dict[str, Any]]) -> str:
    """Width and half transfer by contrast, means over the scans with rods."""
    rods_of = [record["rods"] for record in records if "rods" in record]
    lines = []
    for method in ORDER:
        means = [np.mean([scan[str(hu)][method] for scan in rods_of], axis=0) for hu in CONTRASTS_HU]
        lines.append([method, *(f"{width:.1f} mm, {half:.3f}" for width, half in means)])
    return table(["planted rods", *(f"{hu} HU" for hu in CONTRASTS_HU)], lines)


def method_table(
    title: str, records: list[dict[str, Any]], cell: Callable[[dict[str, Any], dict[str, Any]], str]
) -> str:
    """Methods down, scans across; a cell is made of the method's row and the truth's."""
    lines = [
        [name, *(cell(record["methods"][name], record["methods"]["truth"]) for record in records)] for name in ORDER
    ]
    return table([title, *(record["case"] for record in records)], lines)


def noise_cell(row: dict[str, Any], _: dict[str, Any]) -> str:
    """Deviation and mean frequencies."""
    if "noise_hu" not in row:
        return "-"
    return f"{row['noise_hu']:.1f} HU, {row['noise_z']:.2f}, {row['noise_plane']:.2f}"


def insert_cell(row: dict[str, Any], truth: dict[str, Any]) -> str:
    """Mean and largest |difference| of the mean values."""
    off = np.abs(np.subtract(row["inserts_hu"], truth["inserts_hu"]))
    return f"{off.mean():.1f}, {off.max():.1f} ({len(off)})"


def calibration_table(records: list[dict[str, Any]]) -> str:
    """Tissues down, scans across: coverage; root mean square error over deviation."""
    tissues = dict.fromkeys(name for record in records for name in record["calibration"])

    def cell(values: list[float] | None) -> str:
        return "-" if values is None else f"{values[1]:.3f}, {values[2]:.0f} / {values[3]:.0f}"

    lines = [[name, *(cell(record["calibration"].get(name)) for record in records)] for name in tissues]
    return table(["tissue by the estimate", *(record["case"] for record in records)], lines)


@click.command
@click.argument("records", type=click.Path(path_type=Path))
@click.argument("scans", nargs=-1, metavar="THIN")
@click.option("--pair", nargs=2, type=click.Path(path_type=Path), help="a real thick and thin scan")
@click.option("--side", default=128, help="pixels of the middle of each slice, 0 for all")
def main(records: Path, scans: tuple[str, ...], pair: tuple[Path, Path] | None, side: int) -> None:
    """Measure what RECORDS lacks, and print the tables of all."""
    known = read_json(records) if records.exists() else []
    model = load_checkpoint(device="cpu")
    new: list[dict[str, Any]] = []
    for argument in scans:
        case, thin, thickness_mm = thin_scan(argument, side)
        new.append({"case": case, "side": side, **measured(thickened(thin, thickness_mm), model)})
        new[-1]["rods"] = rod_records(thin, thickness_mm, model)
    if pair:
        thick, thin = (cropped(read_scan(path).volume, side) for path in pair)
        new.append({"case": "pair", "side": side, **measured(paired(thick, thin), model)})
    known = [other for other in known if other["case"] not in {record["case"] for record in new}] + new
    write_json(records, known)
    print(resolution_table(known))
    print(*(f"{r['case']}: {r['edges']} columns, {r['blocks']} blocks, {r['profile']}" for r in known), sep="\n")
    for record in known:
        if "width_mm" in record["methods"]["truth"]:
            lines = [
                [name, f"{row['width_mm']:.1f} mm, {row['half']:.3f}"]
                for name, row in ((name, record["methods"][name]) for name in ORDER)
            ]
            print("", table([f"edges of {record['case']}", "width, half transfer"], lines), sep="\n")
    print("", method_table("noise: deviation, mean frequency along z, in plane", known, noise_cell), sep="\n")
    print("", method_table("inserts: mean, largest error HU (how many)", known, insert_cell), sep="\n")
    print("", calibration_table(known), sep="\n")


if __name__ == "__main__":
    main()
