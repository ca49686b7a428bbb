"""Structures that an estimate has and the truth lacks, or lost; and whether the standard deviation warns of errors."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ctinterp_dagster.evaluation.structures import blob_response, ranking, regions, unmatched, without_ends
from ctinterp_dagster.physics.measurement import Measurement
from ctinterp_dagster.scan.volume import FloatArray

SIZES_MM = (3.0, 6.0)
LEAST_HU = (50.0, 100.0, 200.0)
WORST = 0.1  # of the voxels


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


def thick_contrast(measurement: Measurement) -> FloatArray:
    """Largest difference of a thick slice from its neighbours, on the thin grid: a warning that needs no model."""
    steps = np.abs(np.diff(measurement.thick.hu, axis=0, prepend=measurement.thick.hu[:1]))
    largest = np.maximum(steps, np.concatenate([steps[1:], steps[-1:]]))
    nearest = np.clip(np.round(measurement.operator.thin_positions).astype(int), 0, len(largest) - 1)
    return np.asarray(largest[nearest])


def warned(measurement: Measurement, volumes: Mapping[str, FloatArray]) -> dict[str, Any]:
    """How well the standard deviation, and the thick slices alone, rank the errors of the model.

    Of all voxels the worst tenth by |error|; of structures of 3 mm and 50 HU those that the truth lacks.

    Args:
        measurement: with its truth.
        volumes: (z, y, x) HU by name.

    Returns:
        Counts, areas under ROC curves and shares by name.
    """
    spacing, truth = measurement.known.spacing_mm, volumes["truth"]
    inside = np.logical_or(*regions(truth, spacing).values())
    whole = without_ends(truth, spacing)
    error = np.abs(volumes["model"] - truth)
    worst = error[whole] >= np.quantile(error[whole], 1 - WORST)
    pair = [blob_response(volumes[name], spacing, SIZES_MM[0]) for name in ("model", "truth")]
    found, invented = unmatched(*pair, LEAST_HU[0], spacing).within(inside)
    record: dict[str, Any] = {"voxels": int(worst.size), "found": int(found.sum()), "invented": int(invented.sum())}
    for name, score in {"std": volumes["std"], "thick": thick_contrast(measurement)}.items():
        kept = score[whole] < np.quantile(score[whole], 1 - WORST)
        record |= {
            f"{name}_area_voxels": ranking(score[whole], worst),
            f"{name}_area_invented": ranking(score[found], invented[found]),
            f"{name}_error_left": float(error[whole][kept].mean() / error[whole].mean()),
        }
    return record | {"best_error_left": float(error[whole][~worst].mean() / error[whole].mean())}
