import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from ctinterp_dagster.errors import EvaluationError
from ctinterp_dagster.evaluation.metrics import (
    Truth,
    end_slices,
    mae_by_position,
    psnr_db,
    score,
    slice_mse,
    ssim_axial,
    ssim_volume,
)
from ctinterp_dagster.evaluation.tissue import body_mask, interiors, noise_along_z_hu, quiet_tissue
from ctinterp_dagster.scan.volume import FloatArray
from ctinterp_dagster.scan.window import MAISI, RPLHR, SOFT_TISSUE

FACTOR = 3


def block(depth: int = 24, side: int = 32, noise_hu: float = 12.0, seed: int = 0) -> FloatArray:
    """A body of muscle in air, with white noise."""
    hu = np.full((depth, side, side), -1000, np.float32)
    hu[:, 5:-5, 5:-5] = 40
    noise = np.random.default_rng(seed).normal(0, noise_hu, hu.shape)
    return (hu + noise).astype(np.float32)


@pytest.fixture(scope="module")
def truth() -> Truth:
    return Truth.of(block(), factor=FACTOR)


@pytest.fixture(scope="module")
def estimate(truth: Truth) -> FloatArray:
    return truth.hu + np.random.default_rng(1).normal(3, 20, truth.hu.shape).astype(np.float32)


def test_psnr_is_that_of_scikit_image_on_clipped_values(truth: Truth, estimate: FloatArray) -> None:
    scores = score(estimate, truth, residual_hu=0.1)
    kept = slice(FACTOR, -FACTOR)
    for window, got in [
        (MAISI, scores.psnr_db),
        (SOFT_TISSUE, scores.psnr_soft_db),
        (RPLHR, scores.psnr_rplhr_db),
    ]:
        a, b = (window.clip(v[kept].astype(np.float64)) for v in (truth.hu, estimate))
        assert got == pytest.approx(peak_signal_noise_ratio(a, b, data_range=window.width_hu), abs=1e-4)
    a, b = (MAISI.clip(v.astype(np.float64)) for v in (truth.hu, estimate))
    assert scores.psnr_all_db == pytest.approx(peak_signal_noise_ratio(a, b, data_range=2000), abs=1e-4)


def test_psnr_of_a_known_error_is_the_value_from_the_formula() -> None:
    assert psnr_db(400.0, MAISI) == pytest.approx(40.0)
    assert psnr_db(400.0, SOFT_TISSUE) == pytest.approx(20 * np.log10(20))


def test_slab_by_slab_3d_ssim_is_that_of_the_whole_volume() -> None:
    a, b = block(depth=45, seed=2), block(depth=45, seed=3)
    whole = structural_similarity(*((MAISI.clip(v) + 1000) / 2000 for v in (a, b)), data_range=1.0)
    assert ssim_volume(a, b, MAISI) == pytest.approx(whole, abs=1e-6)


def test_axial_ssim_uses_an_11_pixel_gaussian_window() -> None:
    a, b = block(depth=1, side=11, seed=2)[0], block(depth=1, side=11, seed=3)[0]
    kernel = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
    weights = np.outer(kernel, kernel) / kernel.sum() ** 2
    x, y = ((MAISI.clip(v) + 1000) / 2000 for v in (a, b))
    mx, my = (weights * x).sum(), (weights * y).sum()
    vx, vy, vxy = ((weights * p * q).sum() - m for p, q, m in ((x, x, mx**2), (y, y, my**2), (x, y, mx * my)))
    expected = (2 * mx * my + 1e-4) * (2 * vxy + 9e-4) / ((mx**2 + my**2 + 1e-4) * (vx + vy + 9e-4))
    assert ssim_axial(a[None], b[None], MAISI) == pytest.approx(expected, abs=1e-5)


def test_end_slices_do_not_touch_the_headline(truth: Truth, estimate: FloatArray) -> None:
    spoilt = estimate.copy()
    spoilt[:FACTOR] += 500
    spoilt[-FACTOR:] -= 500
    clean, dirty = score(estimate, truth, residual_hu=0.0), score(spoilt, truth, residual_hu=0.0)
    changed = {name for name, value in clean.row().items() if value != dirty.row()[name]}
    assert changed == {"psnr_all_db", "noise_ratio"}


def test_position_errors_are_those_of_slices_modulo_the_factor(truth: Truth) -> None:
    wrong = truth.hu + 1.0
    wrong[1::FACTOR] += 10
    scores = score(wrong, truth, residual_hu=0.0)
    assert scores.mae_by_position_hu[1] > 5 * scores.mae_by_position_hu[0]
    assert scores.mae_by_position_hu[0] == pytest.approx(scores.mae_by_position_hu[2], rel=0.05)
    assert scores.mae_body_hu == pytest.approx(1 + 10 / 3, abs=1e-3)


@pytest.mark.parametrize("factor", [1.2, 2.5, 3.13, 3.5, 6.25])
def test_an_error_that_is_symmetric_in_the_thick_slice_is_so_by_position(factor: float) -> None:
    index = np.arange(1, 2000)
    phase = ((index + 0.5) / factor) % 1
    error = np.abs(phase - 0.5)
    parts = mae_by_position(error, factor, first=1)
    assert len(parts) == np.ceil(factor)
    assert parts == pytest.approx(parts[::-1], rel=0.01)
    assert sum(parts) / len(parts) == pytest.approx(error.mean(), rel=0.01)
    lopsided = mae_by_position(phase, factor, first=1)
    assert lopsided[-1] > lopsided[0]


def test_a_factor_that_is_not_whole_drops_the_slices_of_one_thick_slice() -> None:
    truth = Truth.of(block(), factor=2.5)
    assert truth.kept == slice(3, 21)
    spoilt = block(seed=9)
    spoilt[:3] += 500
    spoilt[-3:] -= 500
    clean, dirty = (score(hu, truth, residual_hu=0.0) for hu in (block(seed=9), spoilt))
    assert dirty.psnr_db == clean.psnr_db
    assert dirty.mae_by_position_hu == clean.mae_by_position_hu


def test_a_shift_of_one_tissue_shows_in_that_tissue_only(truth: Truth) -> None:
    moved = np.where(truth.hu > -29, truth.hu + 7, truth.hu).astype(np.float32)
    scores = score(moved, truth, residual_hu=0.0)
    assert scores.shift_muscle_hu == pytest.approx(7, abs=1e-4)
    assert scores.shift_air_hu == 0
    assert scores.shift_bone_hu is None


def test_an_estimate_without_noise_is_not_shifted(truth: Truth) -> None:
    scores = score(block(noise_hu=0.0), truth, residual_hu=0.0)
    assert scores.shift_air_hu == pytest.approx(0, abs=0.5)
    assert scores.shift_muscle_hu == pytest.approx(0, abs=0.5)


def test_edges_belong_to_no_tissue() -> None:
    hu = block(noise_hu=0.0)
    inside = interiors(hu, end_slices(FACTOR), None)
    assert not (inside["air"] | inside["muscle"])[:, 2:8, 8:-8].any()
    assert inside["muscle"][:, 8:-8, 8:-8].all()


@settings(max_examples=10)
@given(sigma=st.floats(2, 25), seed=st.integers(0, 1000))
def test_white_noise_along_z_is_measured_within_a_tenth(sigma: float, seed: int) -> None:
    hu = block(depth=24, noise_hu=sigma, seed=seed)
    assert noise_along_z_hu(hu, quiet_tissue(hu)) == pytest.approx(sigma, rel=0.1)


def test_a_slope_along_z_is_not_noise() -> None:
    hu = np.broadcast_to(np.linspace(0, 60, 24)[:, None, None], (24, 32, 32)).astype(np.float32)
    noisy = hu + np.random.default_rng(0).normal(0, 10, hu.shape).astype(np.float32)
    assert noise_along_z_hu(noisy, quiet_tissue(noisy)) == pytest.approx(10, rel=0.1)


def test_no_method_that_knows_only_the_group_means_passes_the_noise_floor() -> None:
    hu = np.random.default_rng(0).normal(40, 10, (40, 48, 48)).astype(np.float32)
    truth = Truth.of(hu, factor=5)
    best = np.repeat(hu.reshape(8, 5, 48, 48).mean(axis=1), 5, axis=0)
    assert score(best, truth, residual_hu=0.0).psnr_db == pytest.approx(truth.noise_floor_db, abs=0.3)


def test_the_noise_floor_is_absent_without_noise_or_soft_tissue() -> None:
    assert Truth.of(block(noise_hu=0), factor=FACTOR).noise_floor_db is None
    bone = np.where(block() > -500, 800, -1000).astype(np.float32)
    scores = score(np.zeros_like(bone), Truth.of(bone, factor=FACTOR), residual_hu=0.0)
    assert (scores.noise_floor_db, scores.noise_ratio) == (None, None)


def test_noise_ratio_is_one_for_equal_noise_and_falls_with_smoothing(truth: Truth) -> None:
    other = score(block(seed=9), truth, residual_hu=0.0)
    smooth = score(block(noise_hu=3, seed=9), truth, residual_hu=0.0)
    assert other.noise_ratio == pytest.approx(1, abs=0.1)
    assert smooth.noise_ratio == pytest.approx(0.25, abs=0.05)


def test_the_body_takes_in_the_lungs_and_leaves_out_the_table() -> None:
    hu = np.full((1, 64, 64), -1000, np.float32)
    hu[:, 10:50, 10:54] = 40
    hu[:, 20:30, 20:30] = -850
    hu[:, 58:60, 4:60] = 0
    body = body_mask(hu)[0]
    assert body[25, 25]
    assert body[10:50, 12:52].mean() > 0.97
    assert not body[58:60].any()


@pytest.mark.parametrize(
    ("shape", "match"),
    [
        ((12, 32, 32), r"shape \(12, 32, 32\) is too small at factor 3"),
        ((24, 10, 32), "too small"),
        ((24, 32), "too small"),
    ],
)
def test_a_truth_that_is_too_small_is_refused(shape: tuple[int, ...], match: str) -> None:
    with pytest.raises(EvaluationError, match=match):
        Truth.of(np.zeros(shape, np.float32), factor=FACTOR)


def test_impossible_inputs_are_refused(truth: Truth, estimate: FloatArray) -> None:
    broken = estimate.copy()
    broken[4, 4, 4] = np.nan
    with pytest.raises(EvaluationError, match="the estimate has 1 of 24576 values that are not finite"):
        score(broken, truth, residual_hu=0.0)
    with pytest.raises(EvaluationError, match=r"estimate has shape \(23, 32, 32\)"):
        score(estimate[1:], truth, residual_hu=0.0)
    with pytest.raises(EvaluationError, match="PSNR is infinite"):
        score(truth.hu, truth, residual_hu=0.0)
    with pytest.raises(EvaluationError, match=r"residual .* got nan"):
        score(estimate, truth, residual_hu=float("nan"))
    with pytest.raises(EvaluationError, match="no body"):
        Truth.of(np.full((24, 32, 32), -1000, np.float32), factor=FACTOR)
    with pytest.raises(EvaluationError, match="factor must be more than 1 thin slice a thick one, got 1"):
        Truth.of(truth.hu, factor=1)


def test_a_row_has_every_number_but_the_position_errors(truth: Truth, estimate: FloatArray) -> None:
    row = score(estimate, truth, residual_hu=0.25).row()
    assert row["residual_hu"] == 0.25
    assert "mae_by_position_hu" not in row
    assert len(row) == 16


def test_slice_mse_clips_to_the_window() -> None:
    a, b = np.full((2, 4, 4), -2000, np.float32), np.full((2, 4, 4), -990, np.float32)
    assert slice_mse(a, b, MAISI).tolist() == [100.0, 100.0]


def test_a_window_changes_no_bit_of_what_two_numbers_gave(truth: Truth, estimate: FloatArray) -> None:
    low, high = -160.0, 240.0
    clipped = [np.clip(values, low, high) for values in (estimate, truth.hu)]
    mse = [np.mean((a - b) ** 2, dtype=np.float64) for a, b in zip(*clipped, strict=True)]
    assert slice_mse(estimate, truth.hu, SOFT_TISSUE).tolist() == mse
    assert psnr_db(mse[0], SOFT_TISSUE) == float(10 * np.log10((high - low) ** 2 / mse[0]))
    a, b = (np.asarray((values - low) / (high - low), dtype=np.float32) for values in clipped)
    whole = structural_similarity(a[:22], b[:22], data_range=1.0, win_size=7)
    assert ssim_volume(estimate[:22], truth.hu[:22], SOFT_TISSUE) == whole
