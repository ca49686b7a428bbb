"""Stripes in lung and the error by position in the thick slice, on grids of any factor: docs/performance.md.

python benchmarks/stripes.py THIN.nii.gz [FACTOR ...]
"""

import math
import sys
from pathlib import Path

import numpy as np
from scipy.ndimage import binary_erosion

from ctinterp_dagster.evaluation.metrics import Truth, score
from ctinterp_dagster.interpolation import load_checkpoint
from ctinterp_dagster.physics.baselines import METHODS
from ctinterp_dagster.physics.measurement import simulated
from ctinterp_dagster.scan.io import read_scan
from ctinterp_dagster.scan.volume import FloatArray, Volume

FACTORS = (2.5, 3.5, 6.25)
LUNG_HU = (-950.0, -700.0)  # of the linear estimate
LEAST = 200  # voxels of lung in a slice
CROP, DEPTH = 224, 130


def cropped(scan: Volume) -> Volume:
    """The middle of the planes, the first slices."""
    y, x = (max(0, (n - CROP) // 2) for n in scan.hu.shape[1:])
    return Volume(scan.hu[:DEPTH, y : y + CROP, x : x + CROP].copy(), scan.spacing_mm, scan.origin_mm, scan.direction)


def slice_means(hu: FloatArray, lung: np.ndarray) -> FloatArray:
    """(n,) mean HU of lung in each slice that has enough of it."""
    return np.array([values[inside].mean() for values, inside in zip(hu, lung, strict=True) if inside.sum() > LEAST])


def main() -> None:
    """Print both a factor."""
    thin = cropped(read_scan(Path(sys.argv[1])).volume)
    model = load_checkpoint(device="cpu")
    for factor in map(float, sys.argv[2:] or FACTORS):
        measurement, end = simulated(thin, factor, "box"), math.ceil(factor)
        made, whole = model.restore(measurement).mean.hu, measurement.known.hu
        linear = METHODS["linear"](measurement).mean.hu[end:-end]
        lung = binary_erosion((linear > LUNG_HU[0]) & (linear < LUNG_HU[1]), np.ones((1, 3, 3)))
        ours, truth = (float(slice_means(hu[end:-end], lung).std()) for hu in (made, whole))
        errors = score(made, Truth.of(whole, factor=measurement.factor), residual_hu=0.0).mae_by_position_hu
        pairs = zip(errors, errors[::-1], strict=True)
        uneven = max(abs(a / b - 1) for a, b in pairs)
        print(
            f"{factor:g}: lung's slice means deviate {ours / truth:.3f} of the truth's, errors differ by {uneven:.1%}"
        )


if __name__ == "__main__":
    main()
