"""Labels brought along: Dice of bone and lung on thin slices, from labels of the thick ones.

    python -m benchmarks.labels thin1.nii.gz thin2.nii.gz --factor 5

Each scan is thickened; thick and thin voxels are labelled by the same thresholds. The labels of the thick scan are
brought to the thin grid by four methods and compared with those of the thin scan.
"""

import argparse
from pathlib import Path

import numpy as np
import torch

from ctinterp_dagster.interpolation import load_checkpoint, simulated
from ctinterp_dagster.physics.interpolators import linear, nearest
from ctinterp_dagster.scan.io import read_scan
from ctinterp_dagster.scan.padding import without_padding
from ctinterp_dagster.scan.thin_labels import thin_labels
from ctinterp_dagster.scan.volume import Volume

BONE_HU, LUNG_HU = 300.0, -500.0
CROP = 96  # pixels on either side of the middle


def labelled(hu: np.ndarray) -> np.ndarray:
    """1 for bone, 2 for lung and air, 0 for the rest."""
    return np.where(hu > BONE_HU, 1, np.where(hu < LUNG_HU, 2, 0)).astype(np.uint8)


def dice(one: np.ndarray, other: np.ndarray, label: int) -> float:
    """Twice the shared voxels over all."""
    a, b = one == label, other == label
    return 2 * float((a & b).sum()) / float(a.sum() + b.sum())


def soft_argmax(labels: np.ndarray, positions: np.ndarray, count: int) -> np.ndarray:
    """The label of the greatest share, shares interpolated linearly along z."""
    shares = [linear(torch.from_numpy((labels == k).astype(np.float32)), positions) for k in range(count)]
    return torch.stack(shares).argmax(0).numpy()


def middle(scan: Volume) -> Volume:
    """The middle of the plane, to be quick."""
    rows, columns = (slice(max(0, n // 2 - CROP), n // 2 + CROP) for n in scan.hu.shape[1:])
    return Volume(np.ascontiguousarray(scan.hu[:, rows, columns]), scan.spacing_mm, scan.origin_mm, scan.direction)


def main() -> None:
    """Print a row a scan and method."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scans", nargs="+", type=Path)
    parser.add_argument("--factor", type=float, default=5.0)
    arguments = parser.parse_args()
    model = load_checkpoint()
    print(f"{'scan':24} {'method':16} {'bone':>7} {'lung':>7}")
    for path in arguments.scans:
        thin = middle(without_padding(read_scan(path).volume)[0])
        measurement = simulated(thin, arguments.factor, "box")
        truth, thick = labelled(measurement.known.hu), labelled(measurement.thick.hu)
        positions = measurement.operator.thin_positions
        estimate = model.restore(measurement).mean.hu
        between = linear(measurement.thick_hu, positions).numpy()
        made = {
            "nearest": nearest(torch.from_numpy(thick.astype(np.float32)), positions).numpy(),
            "linear": soft_argmax(thick, positions, 3),
            "edges of linear": thin_labels(thick, measurement.thick, between, positions),
            "edges of model": thin_labels(thick, measurement.thick, estimate, positions),
        }
        for name, labels in made.items():
            print(f"{path.name[:24]:24} {name:16} {dice(labels, truth, 1):7.4f} {dice(labels, truth, 2):7.4f}")


if __name__ == "__main__":
    main()
