"""Ways to put what the networks say of a cell on a grid of any factor: docs/experiments.md, entry 15.

python benchmarks/any_grid.py THIN.nii.gz [FACTOR ...]
"""

import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ctinterp_dagster.interpolation import load_checkpoint
from ctinterp_dagster.nullspace.basis import NullSpace
from ctinterp_dagster.nullspace.units import COEFFICIENT
from ctinterp_dagster.physics.interpolators import cubic_projected
from ctinterp_dagster.physics.operator import ThickeningOperator, slices_to_keep
from ctinterp_dagster.physics.registration import registration_projected
from ctinterp_dagster.scan.io import read_scan
from ctinterp_dagster.scan.volume import DoubleArray

FACTORS = (1.5, 2.5, 3.13, 6.25)
CROP = 112  # pixels


@dataclass(frozen=True, eq=False)
class OfFactor(NullSpace):
    """The networks see this whole factor, whatever the grid is."""

    seen: int = 5

    @cached_property
    def factor(self) -> int:
        """`seen`."""
        return self.seen


@dataclass(frozen=True, eq=False)
class Sampled(OfFactor):
    """Cosines at the centres of the thin slices, not their means over them."""

    @cached_property
    def cosines(self) -> DoubleArray:
        """(n_thin, modes * n_thick)."""
        positions, n_thick = self.operator.thin_positions, self.operator.n_thick
        cell = np.clip(np.floor(positions + 0.5), 0, n_thick - 1).astype(int)
        waves = np.zeros((len(positions), self.modes, n_thick))
        for m in range(1, min(self.modes + 1, int(np.ceil(1 / self.operator.thin_distance - 1e-6)))):
            waves[np.arange(len(positions)), m - 1, cell] = np.sqrt(2) * np.cos(np.pi * m * (positions - cell + 0.5))
        return waves.reshape(len(positions), -1)


@torch.inference_mode()
def main() -> None:
    """Print MAE in HU a factor and a way."""
    scan = read_scan(Path(sys.argv[1])).volume
    network = load_checkpoint(device="cpu").model.expectation
    rows, columns = ((n - CROP) // 2 for n in scan.hu.shape[1:])
    hu = torch.from_numpy(scan.hu[:, rows : rows + CROP, columns : columns + CROP].copy())

    def expected(space: NullSpace, thick: Tensor, thick_mm: tuple[float, float, float]) -> Tensor:
        said = network.expect(space.features(thick)[None], space.geometry(thick_mm)[None], 3.0, mirror=False)
        return space.base(thick) + space.expand(COEFFICIENT.to_hu(said[0]))

    for factor in map(float, sys.argv[2:] or FACTORS):
        truth = hu[: slices_to_keep(len(hu), factor)]
        operator = ThickeningOperator.from_factor(len(truth), factor)
        thick, thick_mm = operator.forward(truth), (scan.spacing_mm[0] * factor, *scan.spacing_mm[1:])
        made = {way.__name__: way(thick, operator) for way in (cubic_projected, registration_projected)}
        for seen in sorted({min(5, max(2, n)) for n in (int(factor), operator.whole_factor, 5)}):
            for way in (Sampled, OfFactor):
                made[f"{way.__name__} {seen}"] = expected(way(operator, network.config.modes, seen), thick, thick_mm)
        end = operator.whole_factor
        mae = {name: float((volume - truth)[end:-end].abs().mean()) for name, volume in made.items()}
        print(f"{factor:g}: " + ", ".join(f"{name} {value:.2f}" for name, value in mae.items()), flush=True)


if __name__ == "__main__":
    main()
