"""What PSNR does not tell of a run: width of edges, what is lost and invented, error by tissue and noise, its ranking.

Measured on a cube of each test case, whose structures and noise are added before it is thickened.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ctinterp_dagster.evaluation.metrics import end_slices
from ctinterp_dagster.evaluation.planting import (
    LUNG,
    SOFT,
    Planted,
    Structure,
    around,
    candidates,
    is_apart,
    paint,
    rod_edges,
    rods,
    tissue_around,
)
from ctinterp_dagster.evaluation.resolution import edge_spread, resolution
from ctinterp_dagster.evaluation.structures import blob_response, noisy, ranking, regions, tissue_errors, unmatched
from ctinterp_dagster.physics.measurement import Measurement, Method
from ctinterp_dagster.scan.volume import FloatArray, Volume

SIDE_MM = 100.0
ROD_CONTRASTS_HU = (50.0, 200.0, 800.0)
BALLS_MM, BALL_HU, BALL_TISSUE_MM = (2.0, 4.0, 8.0), 200.0, 6.0
BALL_ENDS_MM, BALL_BETWEEN_MM = (17.0, 11.0, 11.0), (15.0, 11.0, 11.0)
ROOM_MM = 2.0  # around a ball
NOISE_HU = (0.0, 25.0, 50.0)
BLOB_MM, BLOB_HU = 3.0, 100.0
WORST = 0.1  # of the voxels
TRUTH = "truth"


@dataclass(frozen=True)
class MeasuredValue:
    """One number of one method.

    Attributes:
        method: its name; `truth` for the thin scan itself.
        measure: `width_mm` of an edge along z (full width at half maximum); of planted balls the share of contrast
            that is `kept`, and the share of which not half is kept (`lost_balls`); `invented`, the share of blobs that
            the truth lacks; `lost`, the share of the truth's that are missing; `error_hu`, the mean of |error|;
            `ranking`, the area under the ROC curve of the standard deviation for the worst tenth of the voxels.
        at: contrast, diameter, tissue and noise, with their unit.
        value: the number.
        count: of how many rods, balls, blobs or voxels.
    """

    method: str
    measure: str
    at: str
    value: float
    count: int


EVIDENCE_COLUMNS = ("case", *(field.name for field in fields(MeasuredValue)))


@dataclass(frozen=True)
class Trial:
    """Methods, and how the thin slices are thickened that they are to give back.

    Attributes:
        thicken: gives the measurement of a thin scan, such as `simulated` with a factor and a profile.
        methods: by name.
    """

    thicken: Callable[[Volume], Measurement]
    methods: Mapping[str, Method]

    def on(self, thin: Volume) -> dict[str, FloatArray]:
        """The truth, as `TRUTH`, and the estimate of each method, (z, y, x) HU on the truth's grid by name."""
        measurement = self.thicken(thin)
        estimates = {name: method(measurement).mean.hu for name, method in self.methods.items()}
        return {TRUTH: measurement.known.hu, **estimates}


def cube(shape: Sequence[int], spacing_mm: Sequence[float]) -> tuple[slice, ...]:
    """The middle 100 mm of a volume, a slice along each axis, whole where it is smaller.

    Args:
        shape: of the volume, (z, y, x).
        spacing_mm: distance of voxels along (z, y, x).

    Returns:
        Slices for z, y and x.
    """
    sides = [min(size, round(SIDE_MM / step)) for size, step in zip(shape, spacing_mm, strict=True)]
    return tuple(slice((size - side) // 2, (size - side) // 2 + side) for size, side in zip(shape, sides, strict=True))


def findings(thin: Volume, trial: Trial) -> Iterator[MeasuredValue]:
    """What every method makes of a thin scan, of the scan with rods, with balls, and with more noise.

    Args:
        thin: the scan, of which five thick scans are made and restored.
        trial: the methods, and how it is thickened.

    Yields:
        A number a method, measure and place: errors in HU, widths in mm, counts and shares.

    Raises:
        ParamsError: the scan is coarser than the setting asks for.
    """
    bare = trial.on(thin)
    for noise in NOISE_HU:
        noise_of = bare if noise == 0 else trial.on(thin.with_hu(noisy(thin.hu, noise)))
        for name in trial.methods:
            for tissue, (error, voxels) in tissue_errors(noise_of[name], bare[TRUTH], thin.spacing_mm).items():
                yield MeasuredValue(name, "error_hu", f"{tissue}, +{noise:g} HU", error, voxels)
    yield from _blobs(bare, thin.spacing_mm)
    yield from _widths(thin, trial, bare)
    yield from _balls(thin, trial, bare)


def _blobs(volumes: Mapping[str, FloatArray], spacing_mm: tuple[float, ...]) -> Iterator[MeasuredValue]:
    """Bright blobs of 3 mm that one of estimate and truth has, and the other has not half of."""
    where = regions(volumes[TRUTH], spacing_mm)
    inside = where[LUNG] | where[SOFT]
    responses = {name: blob_response(hu, spacing_mm, BLOB_MM) for name, hu in volumes.items()}
    truth = responses.pop(TRUTH)
    for name, response in responses.items():
        for measure, pair in {"invented": (response, truth), "lost": (truth, response)}.items():
            own = unmatched(*pair, BLOB_HU, spacing_mm).within(inside)
            if found := int(own.found.sum()):
                yield MeasuredValue(name, measure, f"{BLOB_HU:g} HU", int(own.unmatched.sum()) / found, found)


def _widths(thin: Volume, trial: Trial, bare: Mapping[str, FloatArray]) -> Iterator[MeasuredValue]:
    """Widths of the faces of rods, in what the rods add to the truth and to an estimate."""
    planted = rods(thin, ROD_CONTRASTS_HU)
    if not any(planted.places_mm.values()):
        return
    made = trial.on(planted.scan)
    for contrast, places in planted.places_mm.items():
        if places:
            edges = rod_edges(places, thin.spacing_mm, contrast)
            for name, hu in made.items():
                width_mm = resolution(edge_spread(hu - bare[name], thin.spacing_mm[0], edges)).width_mm
                yield MeasuredValue(name, "width_mm", f"{contrast:g} HU", width_mm, len(places))


def balls(thin: Volume) -> Planted:
    """Balls of 200 HU in lung and soft tissue, each diameter that fills a pixel as often, and their places in mm."""
    sizes = [size for size in BALLS_MM if size >= max(thin.spacing_mm[1:])]
    chosen: Planted = []
    if not sizes:
        return chosen
    where, rng = tissue_around(thin.hu, thin.spacing_mm, BALL_TISSUE_MM), np.random.default_rng(0)
    for place in candidates(thin, where[LUNG] | where[SOFT], BALL_ENDS_MM, rng, rng.random(3)):
        if is_apart(place, (other for _, other in chosen), BALL_BETWEEN_MM):
            chosen.append((Structure("", "ball", sizes[len(chosen) % len(sizes)], BALL_HU), place))
    return chosen


def share_kept(estimate: FloatArray, truth: FloatArray) -> float:
    """The contrast of a structure in an estimate over that in the truth, by least squares.

    Args:
        estimate: (z, y, x) HU, what the structure adds to the estimate.
        truth: the same shape, what it adds to the truth.

    Returns:
        1 where all of it is kept, 0 where nothing is; below 0 where it is turned round.
    """
    return float((estimate * truth).sum() / np.square(truth).sum())


def _balls(thin: Volume, trial: Trial, bare: Mapping[str, FloatArray]) -> Iterator[MeasuredValue]:
    """How much of planted balls is kept, and how many are not half as strong as they were."""
    chosen = balls(thin)
    if not chosen:
        return
    scan = thin.with_hu(thin.hu.copy())
    for structure, place in chosen:
        paint(scan, place, structure)
    made = trial.on(scan)
    added = {name: hu - bare[name] for name, hu in made.items()}
    for name in trial.methods:
        for size in BALLS_MM:
            shares = []
            for structure, place in chosen:
                if structure.size_mm == size:
                    cut = around(added[TRUTH].shape, thin.spacing_mm, place, structure.reach_mm + ROOM_MM)
                    shares.append(share_kept(added[name][cut], added[TRUTH][cut]))
            if shares:
                yield MeasuredValue(name, "kept", f"{size:g} mm", float(np.mean(shares)), len(shares))
                yield MeasuredValue(
                    name, "lost_balls", f"{size:g} mm", float(np.mean(np.less(shares, 0.5))), len(shares)
                )


def ranked(method: str, std_hu: FloatArray, error_hu: FloatArray, factor: float) -> MeasuredValue | None:
    """How well a standard deviation finds the worst tenth of the voxels by |error|; None where all err alike.

    Args:
        method: whose it is.
        std_hu: (z, y, x).
        error_hu: (z, y, x), of the estimate.
        factor: thin slices a thick one; as many are left out at each end.

    Returns:
        The area under the ROC curve of the standard deviation: 0.5 by chance, at most 1.
    """
    kept = slice(end_slices(factor), -end_slices(factor))
    error = np.abs(error_hu[kept])
    area = ranking(std_hu[kept].ravel(), (error >= np.quantile(error, 1 - WORST)).ravel())
    return None if area is None else MeasuredValue(method, "ranking", f"worst {WORST:.0%}", area, error.size)


def row(case: str, finding: MeasuredValue) -> dict[str, Any]:
    """A line of `evidence.csv`, by column.

    Args:
        case: its id.
        finding: a number of it.

    Returns:
        A value for each of `EVIDENCE_COLUMNS`.
    """
    return dict(zip(EVIDENCE_COLUMNS, (case, *astuple(finding)), strict=True))


Summary = dict[str, dict[str, float]]
"""Means by measure, by what it is measured at."""


def summary(rows: pd.DataFrame) -> Summary:
    """By measure, by what it is measured at: the mean over the cases of one method, weighted by counts.

    Args:
        rows: of one method, with the columns `EVIDENCE_COLUMNS`.

    Returns:
        Means by measure, then by place of measuring, in the order of the rows.
    """
    return {
        str(measure): {str(at): pooled(lines).mean for at, lines in group.groupby("at", sort=False)}
        for measure, group in rows.groupby("measure", sort=False)
    }


class Pooled(NamedTuple):
    """A mean weighted by counts, and their total."""

    mean: float
    total: int


def pooled(lines: pd.DataFrame) -> Pooled:
    """The mean of lines of one method, measure and place of measuring, weighted by their counts.

    Args:
        lines: with the columns `value` and `count`, the counts above 0.

    Returns:
        The weighted mean, and the sum of the counts.
    """
    count = int(lines["count"].sum())
    return Pooled(float((lines["value"] * lines["count"]).sum() / count), count)
