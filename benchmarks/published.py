"""The scores of `evaluate --protocol` beside those of the papers' own programs, on the same arrays.

    python -m benchmarks.published RPLHR-CT I3Net --pair THICK THIN --thin THIN

RPLHR-CT and I3Net are clones of github.com/smilenaxx/RPLHR-CT and github.com/eeeric-code/I3Net. Of their scoring files
the functions and classes are run, and nothing else. Prints every score of `cubic`, on the pair and a crop of THIN.
"""

import ast
import math
from copy import deepcopy
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from torch.autograd import Variable
from torch.nn import functional

from benchmarks.evidence import table
from benchmarks.grids import cropped
from ctinterp_dagster.evaluation.protocols import DECIMATION_LOW_HU, DECIMATION_WIDTH_HU, Trial, decimation, rplhr
from ctinterp_dagster.physics.baselines import METHODS
from ctinterp_dagster.scan.io import read_scan
from ctinterp_dagster.scan.window import RPLHR

FACTORS = (2, 3)
SIDE, SLICES = 300, 60


def functions(path: Path) -> dict[str, Any]:
    """The functions and classes of a program, by name, without what it imports or does."""
    tree = ast.parse(path.read_text())
    tree.body = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    space: dict[str, Any] = {
        "np": np, "torch": torch, "F": functional, "Variable": Variable, "deepcopy": deepcopy, "math": math,
        "exp": math.exp,
    }  # fmt: skip
    exec(compile(tree, path, "exec"), space)  # noqa: S102 the papers' scores are what is asked for
    return space


def by_rplhr(program: dict[str, Any], trial: Trial, estimate_hu: np.ndarray) -> dict[str, float]:
    """PSNR and SSIM as `code/test.py` of RPLHR-CT has them."""
    truth = trial.truth_hu
    one, other = (
        RPLHR.to_unit(RPLHR.clip(hu)).astype(np.float32)[5:-5]
        for hu in (estimate_hu[trial.first :][: len(truth)], truth)
    )
    ssim = [program["cal_ssim"](b, a) for a, b in zip(one, other, strict=True)]
    return {"psnr_db": program["cal_psnr"](one, other), "ssim_axial": float(np.mean(ssim))}


def by_i3net(program: dict[str, Any], trial: Trial, estimate_hu: np.ndarray, low_hu: float) -> dict[str, float]:
    """PSNR and SSIM as `test.py` of I3Net has them, of (h, w, s)."""
    cut = slice(trial.factor, -trial.factor)
    truth = np.clip(np.clip(trial.truth_hu, DECIMATION_LOW_HU, None) - low_hu, 0, DECIMATION_WIDTH_HU).astype("uint16")
    unit = (truth / DECIMATION_WIDTH_HU, np.clip((estimate_hu - low_hu) / DECIMATION_WIDTH_HU, 0, 1))
    one, other = (torch.from_numpy(np.moveaxis(hu.astype(np.float32), 0, 2).copy())[..., cut] for hu in unit)
    planes = {"axial": 2, "coronal": 0, "sagittal": 1}
    return {"psnr_db": program["calc_psnr"](other, one).item()} | {
        f"ssim_{plane}": float(
            np.mean([program["calc_ssim"](a, b) for a, b in zip(one.unbind(n), other.unbind(n), strict=True)])
        )
        for plane, n in planes.items()
    }


@click.command
@click.argument("clones", nargs=2, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--pair", nargs=2, required=True, type=click.Path(exists=True, path_type=Path), help="thick and thin")
@click.option("--thin", "thin_file", required=True, type=click.Path(exists=True, path_type=Path))
def main(clones: tuple[Path, Path], pair: tuple[Path, Path], thin_file: Path) -> None:
    """Compare."""
    theirs, other = functions(clones[0] / "code/utils/non_model.py"), functions(clones[1] / "util_evaluation.py")
    thick, thin = (read_scan(path).volume for path in pair)
    trial = rplhr(thick, thin)
    estimate = METHODS["cubic"](trial.measurement).mean.hu
    compared = [("rplhr", trial.score(estimate), by_rplhr(theirs, trial, estimate))]
    scan = cropped(read_scan(thin_file).volume, SIDE)
    scan = scan.with_slices(scan.hu[:SLICES], 0, scan.spacing_mm[0])
    for factor in FACTORS:
        trial = decimation(scan, factor)
        estimate = METHODS["cubic"](trial.measurement).mean.hu
        low_hu = max(float(scan.hu.min()), DECIMATION_LOW_HU)
        scores = by_i3net(other, trial, estimate, low_hu)
        compared.append((f"decimation x{factor}", trial.score(estimate), scores))
    rows = [
        (name, score, f"{value:.6f}", f"{their[score]:.6f}", f"{abs(value - their[score]):.0e}")
        for name, own, their in compared
        for score, value in own.items()
    ]
    click.echo(table(("protocol", "score", "here", "published", "apart"), rows))


if __name__ == "__main__":
    main()
