"""What a reader does with a scan: volumes of nodules, surfaces of bone and lung, thin vessels; 5 mm slices restored.

    python -m benchmarks.tasks records.json THIN ...                         adds the scans that records.json lacks
    python -m benchmarks.tasks records.json THIN --at Z,Y,X,MM --at ...      nodules that a scan has: index, diameter

THIN,MM for slices that overlap; without THIN the tables alone. docs/evidence.md has them.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
from scipy.ndimage import binary_dilation, distance_transform_edt, label, zoom
from scipy.spatial import cKDTree
from skimage.filters import sato
from skimage.measure import marching_cubes
from skimage.morphology import skeletonize

from benchmarks.evidence import MODEL, EvidenceFile, contestants, table, thickened, thin_scan
from ctinterp_dagster.evaluation.evidence_tables import Table
from ctinterp_dagster.evaluation.planting import (
    LUNG,
    Planted,
    Structure,
    candidates,
    is_apart,
    paint,
    tissue_around,
)  # fmt: skip
from ctinterp_dagster.evaluation.statistics import bootstrap_mean
from ctinterp_dagster.evaluation.structures import regions
from ctinterp_dagster.evaluation.tissue import BoolArray
from ctinterp_dagster.interpolation import Measurement, Method, load_checkpoint
from ctinterp_dagster.scan.volume import DoubleArray, FloatArray, Volume

NODULES_MM, SHOWN_MM = (4, 6, 8, 10, 12), (4, 6, 10)
SOLID_HU, NODULE_HU = 20.0, -400.0  # of a nodule; the threshold of its volume
AROUND_NODULE_MM = 3.0
APART_MM = (25.0, 20.0, 20.0)
SURFACES = {"bone": 300.0, "lung": -500.0}
VERTICES = 20_000
VESSEL_MM = (0.7, 1.0, 1.4)  # sigmas of ridges: vessels of about 1.5 to 3 mm
VESSEL_SHARE, FALSE_SHARE, NEAR_MM = 0.03, 0.01, 2.0
END_MM = 5.0
AROUND_PIXELS = 32
VESSELS, PLANTED, OWN = "vessels", "nodules that were planted", "nodules of the scan"


def volume_mm3(hu: FloatArray, spacing_mm: tuple[float, ...], centre_mm: DoubleArray, diameter_mm: float) -> float:
    """Volume of what is above -400 HU and connected, within the nodule's radius and 3 mm of its place; 0 for nothing.

    Args:
        hu: (z, y, x).
        spacing_mm: of voxels.
        centre_mm: from the outer corner of the first voxel.
        diameter_mm: of the nodule.

    Returns:
        mm^3; 0 where nothing is that bright.
    """
    reach = diameter_mm / 2 + AROUND_NODULE_MM
    axes = [(np.arange(n) + 0.5) * step - mm for n, step, mm in zip(hu.shape, spacing_mm, centre_mm, strict=True)]
    cut = tuple(slice(*np.flatnonzero(np.abs(axis) <= reach)[[0, -1]] + (0, 1)) for axis in axes)
    z, y, x = (axis[part] for axis, part in zip(axes, cut, strict=True))
    from_centre = np.sqrt((z**2)[:, None, None] + (y**2)[:, None] + x**2)
    parts, _ = label((hu[cut] > NODULE_HU) & (from_centre <= reach))
    inside = parts[(from_centre <= diameter_mm / 4 + 0.5) & (parts > 0)]
    if not inside.size:
        return 0.0
    return float((parts == np.bincount(inside).argmax()).sum() * np.prod(spacing_mm))


def nodules(thin: Volume) -> Planted:
    """Solid balls in lung, every size as often, and their places in mm from the outer corner."""
    rng = np.random.default_rng(0)
    inside = tissue_around(thin.hu, thin.spacing_mm, 14.0)[LUNG]
    chosen: Planted = []
    for place in candidates(thin, inside, (17.0, 17.0, 17.0), rng, rng.random(3)):
        if is_apart(place, (other for _, other in chosen), APART_MM):
            size = NODULES_MM[len(chosen) % len(NODULES_MM)]
            index = tuple((place / thin.spacing_mm).astype(int))
            chosen.append((Structure(LUNG, "ball", size, SOLID_HU - float(np.median(_around(thin.hu, index)))), place))
    return chosen


def _around(hu: FloatArray, index: tuple[int, ...]) -> FloatArray:
    return hu[tuple(slice(max(0, i - 3), i + 4) for i in index)]


def surface_distance(
    hu: FloatArray, truth: FloatArray, spacing_mm: tuple[float, ...], least_hu: float
) -> dict[str, float]:
    """Mean and 95 % distance in mm between the surfaces at a threshold, both ways, without the end slices."""
    ends = round(END_MM / spacing_mm[0])
    whole = [marching_cubes(of[ends:-ends], least_hu, spacing=spacing_mm)[0] for of in (hu, truth)]
    distances = np.concatenate(
        [
            cKDTree(other).query(np.random.default_rng(0).permutation(own)[:VERTICES])[0]
            for own, other in (whole, whole[::-1])
        ]
    )
    return {"mean_mm": float(distances.mean()), "far_mm": float(np.quantile(distances, 0.95))}


def isotropic(hu: FloatArray, spacing_mm: tuple[float, ...], order: int = 1) -> FloatArray:
    """The same on voxels of 1 mm."""
    return zoom(hu, spacing_mm, order=order, grid_mode=True, mode="nearest")


def vesselness(hu: FloatArray, spacing_mm: tuple[float, ...]) -> FloatArray:
    """Response of bright ridges on voxels of 1 mm. Source: Sato et al. 1998, Med. Image Anal. 2(2)."""
    return sato(isotropic(hu, spacing_mm), sigmas=VESSEL_MM, black_ridges=False)


def vessel_recall(estimate: FloatArray, truth: FloatArray, lung: BoolArray) -> float:
    """Share of the true centre lines within 1 mm of a ridge, at the threshold at which 1 % of lung is falsely ridge.

    True vessels are the 3 % of lung with the greatest response in the truth; false is what is over 2 mm from them.

    Args:
        estimate: response (z, y, x).
        truth: the same of the truth.
        lung: where.

    Returns:
        0 to 1.
    """
    vessels = lung & (truth >= np.quantile(truth[lung], 1 - VESSEL_SHARE))
    lines = skeletonize(vessels) & lung
    elsewhere = lung & (distance_transform_edt(~vessels) > NEAR_MM)
    allowed = FALSE_SHARE * lung.sum() / elsewhere.sum()
    found = lung & (estimate > np.quantile(estimate[elsewhere], 1 - allowed))
    return float(binary_dilation(found)[lines].mean())


def restored(measurement: Measurement, methods: Mapping[str, Method]) -> dict[str, FloatArray]:
    """The truth and all estimates, HU by name."""
    return {"truth": measurement.known.hu, **{name: it(measurement).mean.hu for name, it in methods.items()}}


def measured(thin: Volume, thickness_mm: float | None, methods: Mapping[str, Method]) -> Iterator[dict[str, Any]]:
    """A record a task and method of one scan."""
    measurement = thickened(thin, thickness_mm)
    spacing, volumes = measurement.known.spacing_mm, restored(measurement, methods)
    truth = volumes["truth"]
    lung = isotropic(regions(truth, spacing)[LUNG].astype(np.float32), spacing, 0) > 0
    ridges = vesselness(truth, spacing)
    for name, hu in volumes.items():
        yield {"task": VESSELS, "method": name, "recall": vessel_recall(vesselness(hu, spacing), ridges, lung)}
        for surface, least_hu in SURFACES.items():
            yield {"task": surface, "method": name, **surface_distance(hu, truth, spacing, least_hu)}
    planted, chosen = thin.with_hu(thin.hu.copy()), nodules(thin)
    for structure, place in chosen:
        paint(planted, place, structure)
    yield from sized(restored(thickened(planted, thickness_mm), methods), spacing, chosen, PLANTED)


def sized(
    volumes: Mapping[str, FloatArray], spacing_mm: tuple[float, ...], chosen: Planted, task: str
) -> Iterator[dict[str, Any]]:
    """A record a nodule and method: its volume."""
    for number, (structure, place) in enumerate(chosen):
        for name, hu in volumes.items():
            value = volume_mm3(hu, spacing_mm, place, structure.size_mm)
            yield {"task": task, "method": name, "nodule": number, "size_mm": structure.size_mm, "mm3": value}


def own_nodules(thin: Volume, at: list[list[float]], methods: Mapping[str, Method]) -> Iterator[dict[str, Any]]:
    """The volumes of nodules that a scan has, each restored in a crop of 64x64 pixels around it."""
    for number, (z, y, x, diameter) in enumerate(at):
        rows, columns = (slice(max(0, int(i) - AROUND_PIXELS), int(i) + AROUND_PIXELS) for i in (y, x))
        crop = replace(thin, hu=np.ascontiguousarray(thin.hu[:, rows, columns]))
        place = np.array([z + 0.5, y - rows.start + 0.5, x - columns.start + 0.5]) * thin.spacing_mm
        measurement = thickened(crop)
        chosen = [(Structure(LUNG, "ball", diameter, 0.0), place)]
        for record in sized(
            restored(measurement, methods), measurement.known.spacing_mm, chosen, "nodules of the scan"
        ):
            yield record | {"nodule": number}


def vessels(rows: pd.DataFrame) -> Table:
    """Share of the true centre lines that is found, methods down, scans across; the mean over the scans."""
    recall = rows.pivot_table("recall", "method", "case", sort=False)
    lines = [[name, *(f"{x:.3f}" for x in line), with_interval(line, ".3f")] for name, line in recall.iterrows()]
    return table(["method", *recall.columns, "mean of scans"], lines, "Thin vessels in lung: share found of the true")


def surfaces(rows: pd.DataFrame) -> Table:
    """Mean and 95 % distance, mm, methods down, scans across; the mean over the scans and its 95 % interval."""
    task, cases = rows["task"].iloc[0], list(dict.fromkeys(rows["case"]))
    lines = []
    for method, group in rows.groupby("method", sort=False):
        here = group.set_index("case")
        cells = (f"{here.loc[case, 'mean_mm']:.2f}, {here.loc[case, 'far_mm']:.2f}" for case in cases)
        lines.append([method, *cells, with_interval(here["mean_mm"], ".2f")])
    return table(
        ["method", *cases, "mean of scans"], lines, f"Surface of {task}: mean, 95 % distance to the true one, mm"
    )


def with_interval(values: pd.Series, form: str) -> str:
    """A mean and its 95 % bootstrap interval, none of a single value."""
    interval = bootstrap_mean(values.to_numpy(float), seed=0)
    if interval.low is None:
        return format(interval.mean, form)
    return f"{interval.mean:{form}} ({interval.low:{form}} to {interval.high:{form}})"


def planted_volumes(rows: pd.DataFrame) -> Table:
    """Bias and spread of the volume in % of what the same ruler gives in the truth; methods down, sizes across.

    The bias has its 95 % bootstrap interval over the nodules.

    Args:
        rows: a nodule, method and volume each.

    Returns:
        The table.
    """
    truth = rows[rows["method"] == "truth"].set_index(["case", "nodule"])["mm3"]
    joined = rows.join(truth.rename("true_mm3"), on=["case", "nodule"])
    joined["off"] = 100 * (joined["mm3"] / joined["true_mm3"] - 1)
    by_size = joined.groupby(["method", "size_mm"])["off"]
    cells = {key: f"{with_interval(off, '+.0f')}, {off.std():.0f} %" for key, off in by_size}
    lines = [[name, *(cells[name, size] for size in SHOWN_MM)] for name in dict.fromkeys(rows["method"])]
    title = (
        f"Volume of planted nodules: bias (95 % interval over nodules), spread; {by_size.size().min()} or more a size"
    )
    return table(["method", *(f"{size} mm" for size in SHOWN_MM)], lines, title)


def own_volumes(rows: pd.DataFrame) -> Table:
    """mm3, methods down, nodules across."""
    values = rows.set_index(["method", "nodule"])["mm3"]
    numbers = sorted({int(k) for k in rows["nodule"]})
    lines = [[name, *(f"{values[name, k]:.0f}" for k in numbers)] for name in dict.fromkeys(rows["method"])]
    return table(["method", *(f"nodule {k}" for k in numbers)], lines, "Nodules of the scan: volume, mm3")


def tables(records: list[dict[str, Any]]) -> Iterator[Table]:
    """All that was measured."""
    rows = pd.DataFrame(records)
    for task, group in rows.groupby("task", sort=False):
        if task == PLANTED:
            yield planted_volumes(group)
        elif task == OWN:
            yield own_volumes(group)
        elif task == VESSELS:
            yield vessels(group)
        else:
            yield surfaces(group)


@click.command
@click.argument("records", type=click.Path(path_type=Path))
@click.argument("scans", nargs=-1, metavar="THIN")
@click.option("--at", multiple=True, help="Z,Y,X,MM: a nodule of the scan, in place of the other tasks")
@click.option("--side", default=128, help="pixels of the middle of each slice, 0 for all")
@MODEL
def main(records: Path, scans: tuple[str, ...], at: tuple[str, ...], side: int, model_file: Path) -> None:
    """Measure what RECORDS lacks, and print the tables of all."""
    file = EvidenceFile(records, model_file)
    methods = contestants(load_checkpoint(model_file, "cpu"))
    for argument in scans:
        case, thin, thickness_mm = thin_scan(argument, 0 if at else side)
        places = [[float(number) for number in place.split(",")] for place in at]
        made = own_nodules(thin, places, methods) if at else measured(thin, thickness_mm, methods)
        file.records += [{"case": case, "side": side, **record} for record in made]
        file.save(tables(file.records))
    print(*tables(file.records), sep="\n\n")


if __name__ == "__main__":
    main()
