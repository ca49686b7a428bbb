"""The scores of published papers, against their definitions computed another way."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from ctinterp_dagster.errors import EvaluationError, GeometryError
from ctinterp_dagster.evaluation.protocols import decimation, rplhr
from ctinterp_dagster.physics.acquisition import Acquisition
from ctinterp_dagster.physics.baselines import METHODS
from ctinterp_dagster.scan.volume import Volume

RNG = np.random.default_rng(0)


def scan(shape: tuple[int, int, int], spacing_z_mm: float = 1.0, z_mm: float = 0.0, pixel_mm: float = 0.8) -> Volume:
    """Smooth anatomy with noise, in HU, tissue and air."""
    coarse = torch.from_numpy(RNG.normal(size=(1, 1, *(n // 4 + 2 for n in shape))).astype(np.float32))
    smooth = functional.interpolate(coarse, size=shape, mode="trilinear")[0, 0].numpy()
    hu = (600 * smooth - 200 + RNG.normal(0, 20, shape)).astype(np.float32)
    return Volume(hu, (spacing_z_mm, pixel_mm, pixel_mm), (0.0, 0.0, z_mm), np.eye(3))


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    """Of values in [0, 1], as both programs have it."""
    return 20 * math.log10(1 / math.sqrt(np.mean((one.astype(np.float64) - other) ** 2)))


def ssim(one: np.ndarray, other: np.ndarray) -> float:
    """Wang et al. 2004 by convolution with an 11 x 11 Gaussian and zeros outside, mean over all pixels."""
    at = torch.arange(11, dtype=torch.float64) - 5
    line = torch.exp(-(at**2) / (2 * 1.5**2))
    window = (line[:, None] * line / line.sum() ** 2)[None, None]
    x, y = (torch.from_numpy(np.ascontiguousarray(image, np.float64))[None, None] for image in (one, other))

    def mean(image: torch.Tensor) -> torch.Tensor:
        return functional.conv2d(image, window, padding=5)

    mx, my = mean(x), mean(y)
    vx, vy, vxy = mean(x * x) - mx**2, mean(y * y) - my**2, mean(x * y) - mx * my
    c1, c2 = 0.01**2, 0.03**2
    return float(((2 * mx * my + c1) * (2 * vxy + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))).mean())


def test_rplhr_scores_are_those_of_its_paper() -> None:
    thin = scan((61, 40, 36))
    thick = thin.with_slices(scan((13, 40, 36)).hu, 0, 5.0)
    trial = rplhr(thick, thin)
    restored = METHODS["cubic"](trial.measurement).mean.hu
    unit = [(np.clip(hu, -1024, 2048) + 1024) / 3072 for hu in (restored[2:63], thin.hu)]
    one, other = (values[5:-5] for values in unit)
    scores = trial.score(restored)
    assert scores["psnr_db"] == pytest.approx(psnr(one, other), abs=1e-4)
    assert scores["ssim_axial"] == pytest.approx(
        np.mean([ssim(a, b) for a, b in zip(one, other, strict=True)]), abs=1e-4
    )
    assert set(scores) == {"psnr_db", "ssim_axial"}


@pytest.mark.parametrize("shape", [(19, 263, 20), (20, 20, 261)])
@pytest.mark.parametrize("factor", [2, 3])
def test_decimation_scores_are_those_of_i3net(shape: tuple[int, int, int], factor: int) -> None:
    thin = scan(shape)
    trial = decimation(thin, factor)
    restored = METHODS["linear"](trial.measurement).mean.hu
    hu = np.clip(thin.hu, -1024, None)
    truth = np.clip(hu - hu.min(), 0, 4095)
    last = len(truth) - (len(truth) - 1) % factor
    y, x = (max(0, n // 2 - 128) for n in truth.shape[1:])
    truth = truth[:last, y : y + 256, x : x + 256] / 4095
    estimate = np.clip((restored - hu.min()) / 4095, 0, 1)
    np.testing.assert_allclose(estimate[::factor], truth[::factor], atol=1e-5)  # what was kept is given
    one, other = (values[factor:-factor] for values in (estimate, truth))
    scores = trial.score(restored)
    assert scores["psnr_db"] == pytest.approx(psnr(one, other), abs=1e-4)
    for axis, plane in enumerate(("axial", "coronal", "sagittal")):
        images = zip(np.moveaxis(one, axis, 0), np.moveaxis(other, axis, 0), strict=True)
        assert scores[f"ssim_{plane}"] == pytest.approx(np.mean([ssim(a, b) for a, b in images]), abs=1e-4)


def test_a_perfect_method_meets_the_truth_of_a_pair_wherever_it_begins() -> None:
    thin = scan((62, 20, 20), z_mm=0.0)
    for shift in (0, 2, 4):
        centres = np.arange(shift, 62, 5)
        thick = thin.with_slices(thin.hu[centres], shift, 5.0)
        trial = rplhr(thick, thin, Acquisition("box"))
        restored = METHODS["linear"](trial.measurement).mean.hu[trial.first :]
        found = [k for k in range(len(trial.truth_hu)) if np.array_equal(trial.truth_hu[k], thin.hu[centres[1]])]
        np.testing.assert_allclose(restored[found[0]], thin.hu[centres[1]], atol=1e-3)


@pytest.mark.parametrize(
    ("thick", "message"),
    [
        (scan((13, 40, 30), 5.0), "one field of view"),
        (scan((13, 40, 36), 4.0), "expected 5 thin slices a thick one"),
        (scan((13, 40, 36), 5.0, z_mm=0.5), "its middle on a thin slice"),
    ],
)
def test_a_pair_that_is_not_laid_as_in_rplhr_is_refused(thick: Volume, message: str) -> None:
    with pytest.raises(GeometryError, match=message):
        rplhr(thick, scan((61, 40, 36)))


def test_a_scan_of_which_nothing_is_left_is_refused() -> None:
    with pytest.raises(EvaluationError, match="more than 8 slices"):
        decimation(scan((8, 20, 20)), 4)
