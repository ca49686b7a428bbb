import numpy as np
import pytest

from ctinterp_dagster.errors import ParamsError
from ctinterp_dagster.physics.profile import Profile, SampledProfile, gaussian_blur_fwhm_mm, slice_weights
from ctinterp_dagster.scan.volume import DoubleArray

# Least-squares weights of eleven 1 mm slices that give the 5 mm slice, on a phantom reconstructed at both.
MEASURED = np.array([0.0, 0.022, 0.067, 0.128, 0.181, 0.203, 0.179, 0.128, 0.067, 0.023, 0.001])
OFFSETS_MM = np.arange(-5.0, 6.0)


def weights(profile: Profile, offsets_mm: DoubleArray = OFFSETS_MM) -> DoubleArray:
    raw = slice_weights(profile, offsets_mm, thin_spacing_mm=1, thin_thickness_mm=1, thick_thickness_mm=5)
    return raw / raw.sum()


def test_gaussian_weights_match_the_profile_measured_on_a_scanner() -> None:
    assert np.abs(weights("gaussian") - MEASURED).max() < 0.01


def test_no_other_profile_matches_the_measured_one() -> None:
    assert np.abs(weights("box") - MEASURED).max() > 0.05
    assert np.abs(weights("triangle") - MEASURED).max() > 0.015


def test_gaussian_blur_from_one_to_five_millimetres_has_a_width_of_4_90() -> None:
    assert gaussian_blur_fwhm_mm(5.0, 1.0) == pytest.approx(4.899, abs=1e-3)


def test_gaussian_is_at_half_its_height_at_half_its_width() -> None:
    half_mm = gaussian_blur_fwhm_mm(5.0, 1.0) / 2
    centre, edge = weights("gaussian", np.array([0.0, half_mm]))
    assert edge / centre == pytest.approx(0.5)


def test_gaussian_refuses_slices_that_are_not_thicker() -> None:
    with pytest.raises(ParamsError, match=r"thicker than the thin ones, got 1\.0 mm and 1\.25 mm"):
        gaussian_blur_fwhm_mm(1.0, 1.25)


def test_box_weights_at_a_ratio_that_is_no_integer_are_overlap_lengths() -> None:
    offsets_mm = np.array([-1.6, -0.8, 0.0, 0.8, 1.6])
    raw = slice_weights("box", offsets_mm, thin_spacing_mm=0.8, thin_thickness_mm=0.8, thick_thickness_mm=3.0)
    np.testing.assert_allclose(raw, [0.3, 0.8, 0.8, 0.8, 0.3])


def test_triangle_has_the_full_width_at_half_maximum_of_the_thick_slice() -> None:
    centre, edge = slice_weights(
        "triangle", np.array([0.0, 2.5]), thin_spacing_mm=1, thin_thickness_mm=1, thick_thickness_mm=5
    )
    assert (centre, edge) == (1.0, 0.5)


def test_sampled_profile_is_linear_between_its_samples_and_zero_outside() -> None:
    profile = SampledProfile((-2.0, 0.0, 2.0), (0.0, 4.0, 0.0))
    expected = [0.0, 0.0, 2.0, 4.0, 1.0, 0.0]
    raw = slice_weights(
        profile,
        np.array([-3.0, -2.0, -1.0, 0.0, 1.5, 9.0]),
        thin_spacing_mm=1,
        thin_thickness_mm=1,
        thick_thickness_mm=5,
    )
    np.testing.assert_allclose(raw, expected)


@pytest.mark.parametrize(
    ("offsets_mm", "values", "message"),
    [
        ((0.0, 1.0), (1.0,), "2 offsets but 1 weights"),
        ((1.0, 0.0), (1.0, 1.0), "two or more and increase"),
        ((0.0,), (1.0,), "two or more and increase"),
        ((0.0, 1.0), (1.0, -1.0), "positive finite sum"),
        ((0.0, 1.0), (1.0, float("nan")), "positive finite sum"),
    ],
)
def test_sampled_profile_refuses_what_is_no_profile(
    offsets_mm: tuple[float, ...], values: tuple[float, ...], message: str
) -> None:
    with pytest.raises(ParamsError, match=message):
        SampledProfile(offsets_mm, values)


def test_unknown_profile_is_refused_by_name() -> None:
    with pytest.raises(ParamsError, match=r"'sinc', expected box, gaussian, triangle"):
        weights("sinc")  # type: ignore[arg-type]
