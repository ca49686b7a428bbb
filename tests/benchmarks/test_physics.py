import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, gaussian_filter1d

from benchmarks.physics import calibration, flat_regions, inserts, natural_edges, noise_power
from ctinterp_dagster.evaluation.planting import rod_edges, rods
from ctinterp_dagster.evaluation.resolution import edge_spread, resolution
from ctinterp_dagster.scan.volume import FloatArray, Volume

SPACING = (1.0, 0.8, 0.7)


def step_volume(sigma_mm: float) -> FloatArray:
    """A face across z, tilted, between -800 and 200 HU, with a Gaussian line spread."""
    z, y, x = np.meshgrid(*(np.arange(n) for n in (60, 50, 50)), indexing="ij")
    fine = np.where(z + 0.05 * y + 0.03 * x > 31.9, 200.0, -800.0)
    return gaussian_filter1d(fine, sigma_mm / SPACING[0], axis=0).astype(np.float32)


@pytest.mark.parametrize("sigma_mm", [1.0, 2.1])
def test_the_width_and_half_transfer_of_a_gaussian_are_found_at_natural_edges(sigma_mm: float) -> None:
    sharp, blurred = step_volume(0.5), step_volume(sigma_mm)
    edges = natural_edges(sharp, SPACING)
    assert len(edges["y"]) > 1000
    width, half = resolution(edge_spread(blurred, SPACING[0], edges))
    true = np.hypot(sigma_mm, 0.289 * SPACING[0])  # the face is on the grid: a step as wide as a voxel
    assert width == pytest.approx(2.355 * true, rel=0.06)
    assert half == pytest.approx(np.sqrt(np.log(2) / 2) / np.pi / true, rel=0.06)


def test_rods_tell_the_width_that_slices_of_5_mm_have() -> None:
    thin = Volume(np.full((150, 100, 100), 40, np.float32), SPACING, (0.0, 0.0, 0.0), np.eye(3))
    scan, by_contrast = rods(thin, (200,))
    places = by_contrast[200]
    assert len(places) >= 4
    added = scan.hu - thin.hu
    assert added.max() == pytest.approx(200, abs=0.5)
    edges = rod_edges(places, SPACING, 200)
    moving = np.stack([added[max(0, k - 2) : k + 3].mean(axis=0) for k in range(len(added))])
    width = resolution(edge_spread(moving, SPACING[0], edges))[0]
    assert resolution(edge_spread(added, SPACING[0], edges))[0] == pytest.approx(1.5, abs=0.2)
    assert width == pytest.approx(2.355 * np.hypot(5 / np.sqrt(12), 0.6), rel=0.1)


def test_the_spectrum_of_white_and_of_smooth_noise() -> None:
    white = np.random.default_rng(0).normal(0, 20, (10, 20, 20, 20))
    flat = noise_power(white + np.linspace(0, 100, 20), SPACING)
    assert flat["noise_hu"] == pytest.approx(20, rel=0.02)
    assert flat["noise_z"] == pytest.approx(0.25 / SPACING[0], rel=0.04)
    smooth = noise_power(gaussian_filter(white, (0, 1, 0, 0)), SPACING)
    assert smooth["noise_z"] < 0.65 * flat["noise_z"]
    assert smooth["noise_plane"] == pytest.approx(flat["noise_plane"], rel=0.06)


def test_flat_blocks_and_inserts_hold_no_edge() -> None:
    hu = np.full((60, 80, 80), 30, np.float32)
    hu[:, :40] = -900
    hu[20:45, 45:70, 20:60] = 130
    hu += np.random.default_rng(1).normal(0, 5, hu.shape).astype(np.float32)
    blocks = flat_regions(hu, SPACING)
    assert blocks
    assert all(hu[block].std() < 20 for block in blocks)
    values = sorted(float(hu[inside].mean()) for inside in inserts(hu, SPACING))
    assert values == pytest.approx([30, 130], abs=0.5)


def test_an_honest_deviation_covers_nine_tenths() -> None:
    rng = np.random.default_rng(2)
    estimate = np.full((12, 60, 60), 50, np.float32)
    truth = estimate + rng.normal(0, 20, estimate.shape).astype(np.float32)
    for told, covered in {20.0: 0.9, 10.0: 0.589}.items():
        values = calibration(estimate, np.full_like(estimate, told), truth)["soft tissue"]
        assert values[1:] == pytest.approx([covered, 20, told], abs=0.4)
        assert values[1] == pytest.approx(covered, abs=0.01)
