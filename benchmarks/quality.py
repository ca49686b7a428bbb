"""What `ctinterp evaluate` does not tell of the released model: a real thick and thin pair, and samples.

usage: python benchmarks/quality.py pair THICK THIN      the real thin scan lies at factor k + (factor - 1) / 2
       python benchmarks/quality.py samples THIN ...     thickened by 5, box profile; 4 samples;
                                                         THIN,MM for slices of MM that overlap
"""

import sys
from pathlib import Path

import torch

from ctinterp_dagster.evaluation.metrics import Truth, psnr_db, score, slice_mse
from ctinterp_dagster.evaluation.statistics import calibrate
from ctinterp_dagster.interpolation import Measurement, Settings, load_checkpoint, operator_for, thicken
from ctinterp_dagster.physics.baselines import METHODS
from ctinterp_dagster.physics.measurement import synthetic
from ctinterp_dagster.scan.io import read_scan
from ctinterp_dagster.scan.window import MAISI, SOFT_TISSUE

PROFILES = ("box", "gaussian")
FACTOR = 5
LAGS = (1, 2, 4)


def pair(thick_path: Path, thin_path: Path) -> None:
    """PSNR of every method against the real thin scan, `factor` slices dropped at each end."""
    thick, thin = read_scan(thick_path).volume, read_scan(thin_path).volume
    factor = round(thick.spacing_mm[0] / thin.spacing_mm[0])
    for profile in PROFILES:
        operator = operator_for(thick.depth, *[thick.spacing_mm[0]] * 2, thin.spacing_mm[0], profile)
        measurement = Measurement(thick, operator, thin)
        for name, method in {**METHODS, "model": load_checkpoint().restore}.items():
            estimate = method(measurement).mean.hu[factor:-factor]
            truth = thin.hu[factor:-factor]
            values = [psnr_db(slice_mse(estimate, truth, window).mean(), window) for window in (MAISI, SOFT_TISSUE)]
            print(f"profile={profile} method={name} psnr_db={values[0]:.2f} psnr_soft_db={values[1]:.2f}", flush=True)


def samples(path: Path, thin_mm: str) -> None:
    """Coverage of the 90 % interval, its correlation with the error, how mean and sample differ from the truth."""
    thin = read_scan(path).volume
    thick = thicken(thin, FACTOR, "box")
    measurement = synthetic(thin, thick, FACTOR, "box", float(thin_mm) if thin_mm else None)
    drawn: list[torch.Tensor] = []
    settings = Settings(samples=4)
    estimate = load_checkpoint().restore(measurement, settings, on_sample=lambda _, hu: drawn.append(hu.cpu()))
    assert estimate.std is not None
    mean, truth = torch.from_numpy(estimate.mean.hu), Truth.of(measurement.known.hu, factor=FACTOR)
    spread = calibrate(estimate.mean.hu, estimate.std.hu, truth)
    print(f"{path.name} coverage_90={spread.coverage_90:.3f} correlation={spread.correlation:.2f}")
    estimates = {"mean": mean, "mean of samples": torch.stack(drawn).mean(0), "sample": drawn[0]}
    for name, hu in estimates.items():
        row = score(hu.numpy(), truth, residual_hu=0.0)
        shifts = {tissue: getattr(row, f"shift_{tissue}_hu") for tissue in ("air", "fat", "muscle", "bone")}
        print(f"  {name} psnr_db={row.psnr_db:.2f} noise_ratio={row.noise_ratio} shifts_hu={shifts}")
        print(f"  {name} mae_by_position_hu={[round(value, 1) for value in row.mae_by_position_hu]}", flush=True)
    hu, body = torch.from_numpy(truth.hu), torch.from_numpy(truth.body)
    for name, whole in {"truth": hu, "sample": drawn[0]}.items():
        print(f"  {name} rms_hu, correlation at {LAGS} pixels of what the mean lacks: {texture(whole - mean, body)}")


def texture(residual_hu: torch.Tensor, body: torch.Tensor) -> list[float]:
    """Of a residual (z, y, x) in the body: root mean square in HU, correlation of pixels LAGS apart along x."""
    inside = residual_hu * body
    power = inside.square().sum()
    correlations = [(inside[..., lag:] * inside[..., :-lag]).sum() / power for lag in LAGS]
    return [round(float(value), 3) for value in ((power / body.sum()).sqrt(), *correlations)]


if __name__ == "__main__":
    if sys.argv[1] == "pair":
        pair(Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        for scan in sys.argv[2:]:
            path, _, millimetres = scan.partition(",")
            samples(Path(path), millimetres)
