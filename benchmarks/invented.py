"""Structures that an estimate has and the truth lacks, or lost; and whether the standard deviation warns of errors."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter, maximum_filter, uniform_filter
from scipy.stats import mannwhitneyu

from benchmarks.evidence import LUNG, SOFT, WITHIN_HU
from ctinterp_dagster.physics.measurement import Measurement
from ctinterp_dagster.scan.volume import FloatArray

BoolArray = npt.NDArray[np.bool_]
SIZES_MM = (3.0, 6.0)
LEAST_HU = (50.0, 100.0, 200.0)
WIDER = 1.6  # the second sigma of a difference of Gaussians over the first, close to a Laplacian
TOLERANCE_MM = 2.5  # half a thick slice
AROUND_MM, LUNG_HU = 15.0, -600.0
END_MM = 5.0
WORST = 0.1  # of the voxels


def blob_response(hu: FloatArray, spacing_mm: tuple[float, ...], size_mm: float) -> FloatArray:
    """Difference of Gaussians in HU, with which a bright ball of `size_mm` answers its contrast at its centre.

    Source: Lowe 2004, Int. J. Comput. Vis. 60(2), section 3; a ball answers most at sigma = radius / sqrt(3).
    """
    sigma_mm = size_mm / 2 / np.sqrt(3)
    sigmas = [[width * sigma_mm / step for step in spacing_mm] for width in (1.0, WIDER)]
    grid = np.linspace(0, 8 * WIDER * sigma_mm, 4000)
    shell = 4 * np.pi * grid**2 * (grid[1] - grid[0])
    inside = grid <= size_mm / 2
    ball = [
        float((shell * np.exp(-(grid**2) / 2 / s**2) / (2 * np.pi * s**2) ** 1.5)[inside].sum())
        for s in (sigma_mm, WIDER * sigma_mm)
    ]
    return (gaussian_filter(hu, sigmas[0]) - gaussian_filter(hu, sigmas[1])) / (ball[0] - ball[1])


def peaks(response: FloatArray, least_hu: float, spacing_mm: tuple[float, ...]) -> BoolArray:
    """Where a response is at least `least_hu` and the greatest within `TOLERANCE_MM`."""
    return (response >= least_hu) & (response == _greatest(response, spacing_mm))


def unmatched(
    found: FloatArray, other: FloatArray, least_hu: float, spacing_mm: tuple[float, ...]
) -> tuple[BoolArray, BoolArray]:
    """The peaks of one response, and those of them near which the other one has not even half of `least_hu`."""
    here = peaks(found, least_hu, spacing_mm)
    return here, here & (_greatest(other, spacing_mm) < least_hu / 2)


def _greatest(response: FloatArray, spacing_mm: tuple[float, ...]) -> FloatArray:
    return maximum_filter(response, [2 * round(TOLERANCE_MM / step) + 1 for step in spacing_mm], mode="nearest")


def regions(truth_hu: FloatArray, spacing_mm: tuple[float, ...]) -> dict[str, BoolArray]:
    """Lung and soft tissue by the mean of the cube around a voxel, without the end slices.

    Crops lie within the body: a mask of the body would leave out lung that a crop cuts.
    """
    mean = uniform_filter(truth_hu, [round(AROUND_MM / step) for step in spacing_mm], mode="nearest")
    ends = round(END_MM / spacing_mm[0])
    kept = np.zeros(mean.shape, bool)
    kept[ends:-ends] = True
    return {LUNG: kept & (mean < LUNG_HU), SOFT: kept & (mean > -100) & (mean < WITHIN_HU[SOFT][1])}


def counted(volumes: Mapping[str, FloatArray], spacing_mm: tuple[float, ...]) -> Iterator[dict[str, Any]]:
    """A record a region, size, threshold and method: structures that the truth lacks, and those of it that are lost."""
    where = regions(volumes["truth"], spacing_mm)
    for size in SIZES_MM:
        responses = {name: blob_response(hu, spacing_mm, size) for name, hu in volumes.items() if name != "std"}
        truth = responses.pop("truth")
        for name, response in responses.items():
            for least in LEAST_HU:
                (found, invented), (true, lost) = (
                    unmatched(*pair, least, spacing_mm) for pair in ((response, truth), (truth, response))
                )
                for region, inside in where.items():
                    yield {
                        "region": region, "size_mm": size, "least_hu": least, "method": name,
                        "litres": float(inside.sum() * np.prod(spacing_mm) / 1e6),
                        "found": int((found & inside).sum()), "invented": int((invented & inside).sum()),
                        "true": int((true & inside).sum()), "lost": int((lost & inside).sum()),
                    }  # fmt: skip


def ranking(score: npt.NDArray[Any], bad: BoolArray) -> float | None:
    """Area under the ROC curve of a score for what is bad; None where nothing is, or all."""
    if bad.all() or not bad.any():
        return None
    return float(mannwhitneyu(score[bad], score[~bad]).statistic) / (float(bad.sum()) * float((~bad).sum()))


def thick_contrast(measurement: Measurement) -> FloatArray:
    """Largest difference of a thick slice from its neighbours, on the thin grid: a warning that needs no model."""
    steps = np.abs(np.diff(measurement.thick.hu, axis=0, prepend=measurement.thick.hu[:1]))
    largest = np.maximum(steps, np.concatenate([steps[1:], steps[-1:]]))
    nearest = np.clip(np.round(measurement.operator.thin_positions).astype(int), 0, len(largest) - 1)
    return np.asarray(largest[nearest])


def warned(measurement: Measurement, volumes: Mapping[str, FloatArray]) -> dict[str, Any]:
    """How well the standard deviation, and the thick slices alone, rank the errors of the model.

    Of all voxels the worst tenth by |error|; of structures of 3 mm and 50 HU those that the truth lacks.
    """
    spacing, truth = measurement.known.spacing_mm, volumes["truth"]
    inside = np.logical_or(*regions(truth, spacing).values())
    ends = round(END_MM / spacing[0])
    whole = np.zeros(truth.shape, bool)
    whole[ends:-ends] = True
    error = np.abs(volumes["model"] - truth)
    worst = error[whole] >= np.quantile(error[whole], 1 - WORST)
    pair = [blob_response(volumes[name], spacing, SIZES_MM[0]) for name in ("model", "truth")]
    found, invented = (mask & inside for mask in unmatched(*pair, LEAST_HU[0], spacing))
    record: dict[str, Any] = {"voxels": int(worst.size), "found": int(found.sum()), "invented": int(invented.sum())}
    for name, score in {"std": volumes["std"], "thick": thick_contrast(measurement)}.items():
        kept = score[whole] < np.quantile(score[whole], 1 - WORST)
        record |= {
            f"{name}_area_voxels": ranking(score[whole], worst),
            f"{name}_area_invented": ranking(score[found], invented[found]),
            f"{name}_error_left": float(error[whole][kept].mean() / error[whole].mean()),
        }
    return record | {"best_error_left": float(error[whole][~worst].mean() / error[whole].mean())}
