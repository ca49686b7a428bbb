"""Pixels finer than the scanner resolves: the networks see means of 2x2."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from ctinterp_dagster.interpolation import Interpolator, Measurement, Settings, thicken
from ctinterp_dagster.nullspace.diffusion import NullSpaceDiffusion
from ctinterp_dagster.nullspace.restorer import NullSpaceRestorer
from ctinterp_dagster.physics.interpolators import cubic_projected, spline_weights
from ctinterp_dagster.physics.operator import ThickeningOperator
from ctinterp_dagster.scan.volume import Volume
from tests.phantoms import phantom

QUICK = Settings(steps=2, samples=2, memory_gib=1.0)


@pytest.fixture(scope="module")
def thick() -> Volume:
    return thicken(phantom(7, shape_zyx=(40, 32, 36), spacing_mm=(1.0, 10.0, 9.0), noise_hu=10.0), 5, "box")


@pytest.fixture(scope="module")
def coarse(thick: Volume) -> Measurement:
    """A smooth scan."""
    smooth = thick.with_hu(gaussian_filter(thick.hu, (0, 0.7, 0.7)))
    return Measurement(smooth, ThickeningOperator.from_factor(40, 5, "box"))


@pytest.fixture(scope="module")
def fine(coarse: Measurement) -> Measurement:
    """The same with pixels of half the size, finer than it shows: the networks see means of 2x2."""
    thick = coarse.thick
    rows, columns = (
        torch.from_numpy(spline_weights(n, np.arange(2 * n - 1) / 2, order=3)).float() for n in thick.hu.shape[1:]
    )
    z_mm, y_mm, x_mm = thick.spacing_mm
    hu = (rows @ torch.from_numpy(thick.hu) @ columns.T).numpy()
    return Measurement(replace(thick, hu=hu, spacing_mm=(z_mm, y_mm / 2, x_mm / 2)), coarse.operator)


def test_of_pixels_finer_than_the_scan_shows_all_are_restored_and_thicken_to_it(
    fine: Measurement, tiny_nullspace: NullSpaceDiffusion
) -> None:
    assert fine.oversampling == 2
    drawn: list[torch.Tensor] = []
    model = Interpolator(tiny_nullspace, "cpu")
    estimate = model.restore(fine, QUICK, on_sample=lambda _, sample: drawn.append(sample))
    assert estimate.mean.hu.shape == (40, *fine.thick.hu.shape[1:])
    for restored in (torch.from_numpy(estimate.mean.hu), *drawn):
        torch.testing.assert_close(fine.operator.forward(restored), fine.thick_hu, atol=1e-3, rtol=0)


def test_of_pixels_finer_than_the_scan_shows_all_work_is_told(
    fine: Measurement, tiny_nullspace: NullSpaceDiffusion
) -> None:
    done: list[float] = []
    Interpolator(tiny_nullspace, "cpu").restore(fine, QUICK, on_part=done.append)
    assert done[-1] == pytest.approx(1.0)


def test_pixels_finer_than_the_scan_shows_are_restored_nearly_as_its_own_are(
    coarse: Measurement, fine: Measurement, tiny_nullspace: NullSpaceDiffusion
) -> None:
    seen, whole = (it.estimate(NullSpaceRestorer(tiny_nullspace, it, QUICK).mean()) for it in (fine, coarse))
    added = whole.mean.hu - cubic_projected(coarse.thick_hu, coarse.operator).numpy()
    missed = seen.mean.hu[:, ::2, ::2] - whole.mean.hu
    assert np.linalg.norm(missed) < 0.3 * np.linalg.norm(added)
