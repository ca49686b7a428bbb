import re

import numpy as np
import numpy.typing as npt
import pytest
from scipy.ndimage import gaussian_filter, zoom

from ctinterp_dagster.physics.noise import shared_noise
from ctinterp_dagster.physics.profile import Profile, slice_weights
from ctinterp_dagster.physics.thickness import box_correlation, gaussian_width, judge_thickness

FINE = 4  # fine slices a slice distance
Stack = npt.NDArray[np.float32]


def stack(width: float, profile: Profile = "box", *, slices: int = 16, noise_hu: float = 20.0, seed: int = 0) -> Stack:
    """Slices `width` distances thick of slowly changing tissue, an edge, a tilted rod, and noise as CT has it."""
    generator = np.random.default_rng(seed)
    depth = int((slices + 2 * width + 1) * FINE)
    fine = gaussian_filter(generator.normal(size=(depth, 64, 64)), (0, 0.8, 0.8))
    fine *= noise_hu * np.sqrt(width * FINE) / fine.std()
    z, y, x = np.indices(fine.shape)
    fine += 40 + 20 * np.sin(z / FINE / 9) + 8 * np.sin(y / 20)
    fine[np.hypot(y - 15, x - 15 - z / FINE) < 5] += 400
    fine[..., 52:] -= 900
    thin_at = np.arange(depth) - (depth - 1) / 2
    thick_at = (np.arange(slices) - (slices - 1) / 2) * FINE
    weights = slice_weights(
        profile,
        thin_at - thick_at[:, None],
        thin_spacing_mm=1.0,
        thin_thickness_mm=1.0,
        thick_thickness_mm=width * FINE,
    )
    return np.tensordot(weights / weights.sum(axis=1, keepdims=True), fine, 1).astype(np.float32)


@pytest.mark.parametrize("profile", ["box", "triangle", "gaussian"])
@pytest.mark.parametrize("claimed_mm", [5.0, 10.0])
def test_an_old_tag_on_touching_slices_is_told_and_not_believed(profile: Profile, claimed_mm: float) -> None:
    told = judge_thickness(stack(1, profile), 2.0, claimed_mm)
    assert told.thickness_mm == 2.0
    assert told.warning is not None
    assert told.warning.startswith(f"SliceThickness says {claimed_mm:g} mm but the slices, every 2 mm, overlap less")
    assert told.warning.endswith(f"2 mm is used, give --thickness {claimed_mm:g} to insist")
    assert "\n" not in told.warning


@pytest.mark.parametrize("profile", ["box", "triangle", "gaussian"])
@pytest.mark.parametrize("width", [1.25, 1.5, 2.0, 3.0, 5.0])
def test_slices_that_overlap_as_claimed_are_believed(profile: Profile, width: float) -> None:
    for slices in (10, 30):
        told = judge_thickness(stack(width, profile, slices=slices), 2.0, 2 * width)
        assert told.thickness_mm == 2 * width
        assert told.warning is None


def test_slices_that_overlap_less_than_claimed_keep_the_thickness_that_they_have() -> None:
    told = judge_thickness(stack(2, "gaussian", slices=40), 1.0, 5.0)
    assert told.thickness_mm == pytest.approx(2.0, abs=0.3)


def test_a_stack_resampled_to_finer_slices_has_the_thickness_of_the_old_ones() -> None:
    resampled = zoom(stack(1, slices=20), (2.5, 1, 1), order=1)
    assert judge_thickness(resampled, 2.0, 5.0).warning is None


def test_without_a_tag_the_overlap_of_the_stack_is_found_and_told() -> None:
    told = judge_thickness(stack(2, "gaussian", slices=30), 1.5, None)
    assert told.thickness_mm == 1.5
    assert told.warning is not None
    assert told.warning.startswith("no SliceThickness is told and the slices, every 1.5 mm, overlap")
    (measured_mm,) = re.findall(r"1.5 mm is used, give --thickness ([\d.]+) if that is so$", told.warning)
    assert float(measured_mm) == pytest.approx(3.0, abs=0.4)


@pytest.mark.parametrize("profile", ["box", "triangle"])
def test_without_a_tag_touching_slices_are_as_thick_as_they_are_apart(profile: Profile) -> None:
    told = judge_thickness(stack(1, profile, slices=30), 1.5, None)
    assert (told.thickness_mm, told.warning) == (1.5, None)


@pytest.mark.parametrize("claimed_mm", [1.0, 2.0, 2.2])
def test_a_claim_that_no_noise_could_contradict_is_left(claimed_mm: float) -> None:
    told = judge_thickness(stack(1), 2.0, claimed_mm)
    assert (told.thickness_mm, told.warning) == (claimed_mm, None)


@pytest.mark.parametrize(
    "hu",
    [
        stack(1)[:3],
        stack(1)[:, :16, :16],
        stack(1) - 900,
        stack(1, noise_hu=0.2),
        np.full((16, 64, 64), 40, np.int16),
        np.broadcast_to(np.arange(16.0)[:, None, None], (16, 64, 64)),
    ],
    ids=["three slices", "a small picture", "lung", "no noise", "one value", "one value a slice"],
)
def test_a_stack_that_cannot_tell_leaves_the_claim(hu: Stack) -> None:
    told = judge_thickness(hu, 2.0, 5.0)
    assert (told.thickness_mm, told.warning) == (5.0, None)


def test_rounding_to_whole_hu_accuses_no_quiet_overlapping_stack() -> None:
    quiet = np.rint(stack(3, "box", noise_hu=1.2, slices=60)).astype(np.int16)
    assert judge_thickness(quiet, 1.0, 3.0).warning is None


def test_integers_give_what_floats_give() -> None:
    whole = np.rint(stack(2))
    assert shared_noise(whole.astype(np.int16)) == shared_noise(whole)


@pytest.mark.parametrize(("profile", "expected"), [("box", 0.0), ("triangle", 0.25), ("gaussian", 0.25)])
def test_noise_of_touching_slices_correlates_as_their_profiles_overlap(profile: Profile, expected: float) -> None:
    noise = shared_noise(stack(1, profile, slices=60))
    assert noise is not None
    assert noise.correlation == pytest.approx(expected, abs=0.05)


def test_the_standard_error_is_how_far_the_correlation_scatters() -> None:
    measured = [shared_noise(stack(1, slices=12, seed=seed)) for seed in range(12)]
    found = [noise for noise in measured if noise is not None]
    assert len(found) == 12
    errors = [noise.standard_error for noise in found]
    assert np.std([noise.correlation for noise in found]) == pytest.approx(np.mean(errors), rel=0.6)


def test_the_least_noise_that_a_box_shares_is_its_overlap() -> None:
    assert box_correlation(1.0, 3) == 0
    assert box_correlation(2.5, 3) == pytest.approx(0.6)
    assert box_correlation(5.0, 5) == pytest.approx(0.8)


def test_a_gaussian_as_wide_as_the_distance_shares_a_quarter() -> None:
    assert gaussian_width(0.25, 3) == pytest.approx(1.0, abs=0.01)
    assert gaussian_width(1.0, 3) == 3.0
