"""What the commands behind docs/evidence.md share: scans as measurements of 5 mm, who restores them, and tables."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.ndimage import uniform_filter

from benchmarks.grids import cropped
from ctinterp_dagster.interpolation import Interpolator, Measurement, Method, Settings, load_checkpoint, simulated
from ctinterp_dagster.methods import Role, names
from ctinterp_dagster.physics.baselines import METHODS
from ctinterp_dagster.scan.io import read_scan
from ctinterp_dagster.scan.volume import FloatArray, Volume

THICK_MM, FINEST_MM = 5.0, 1.0
LUNG, SOFT, BONE = "lung", "soft tissue", "bone"
CONTRASTS_HU = {LUNG: (100, 200, 800), SOFT: (20, 100, 800), BONE: (-200, -400, -800)}
"""Of what is planted."""
WITHIN_HU = {LUNG: (-1020.0, -700.0, 120.0), SOFT: (-20.0, 120.0, 60.0), BONE: (250.0, 3000.0, 500.0)}
"""Of a tissue: least and greatest mean, greatest standard deviation around a place. The phantom's lungs are of air."""

BoolArray = npt.NDArray[np.bool_]


ORDER = ("truth", *METHODS, "model")
"""Of the lines of a table."""


def thin_scan(argument: str, side: int = 0) -> tuple[str, Volume, float | None]:
    """Name, volume and told thickness of `THIN` or `THIN,MM`; the middle `side` pixels, all for 0."""
    path, _, thickness = argument.partition(",")
    scan = cropped(read_scan(Path(path)).volume, side)
    return Path(path).name.split(".")[0], scan, float(thickness) if thickness else None


def thickened(thin: Volume, thickness_mm: float | None = None) -> Measurement:
    """The 5 mm slices (box) of a thin scan, whose truth has slices of 1 mm, or of its own distance where that is more.

    Args:
        thin: the scan.
        thickness_mm: of its slices, where they overlap.
    """
    truth_mm = max(FINEST_MM, thin.spacing_mm[0])
    return simulated(thin, THICK_MM / truth_mm, "box", truth_mm, thickness_mm)


def contestants(model: Interpolator | None = None) -> dict[str, Method]:
    """All classical methods and the released model; `nearest` shows the thick slices as they are."""
    return {**METHODS, "model": (model or load_checkpoint(device="cpu")).by(Settings())}


def best_classical(values: Mapping[str, float], *, higher_is_better: bool = True) -> str:
    """The rival with the best value, of those that interpolate: the thick slices themselves are not among them."""
    rivals = [name for name in names(Role.RIVAL) if name != "nearest" and name in values]
    return (max if higher_is_better else min)(rivals, key=lambda name: values[name])


def table(header: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """A Markdown table."""
    head = list(header)
    return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in (head, ["---"] * len(head), *rows))


def tissue_around(hu: FloatArray, spacing_mm: tuple[float, ...], around_mm: float) -> dict[str, BoolArray]:
    """Where a tissue is alone in the cube around a voxel, (z, y, x) by tissue: see `WITHIN_HU`."""
    size = [max(1, round(around_mm / step)) for step in spacing_mm]
    mean = uniform_filter(hu, size, mode="nearest")
    deviation = np.sqrt(np.maximum(uniform_filter(np.square(hu), size, mode="nearest") - np.square(mean), 0))
    return {name: (mean > low) & (mean < high) & (deviation < most) for name, (low, high, most) in WITHIN_HU.items()}
