import numpy as np
import pytest

from ctinterp_dagster.errors import ParamsError
from ctinterp_dagster.physics.acquisition import Acquisition, Tags
from ctinterp_dagster.physics.profile import Profile, SampledProfile, Trapezoid
from ctinterp_dagster.physics.recognition import (
    BELL,
    BOX,
    UNKNOWN,
    Shape,
    bell_share,
    expected_correlation,
    recognise,
)
from tests.physics.test_thickness import Stack, stack

WEIGHTS = SampledProfile((-4.0, 0.0, 4.0), (0.0, 1.0, 0.0))


@pytest.mark.parametrize("profile", ["box", "triangle", "gaussian"])
@pytest.mark.parametrize("width", [1.0, 1.25, 1.5, 2.0])
def test_a_box_is_told_from_a_bell_by_the_noise_of_slices_that_touch_or_overlap(profile: Profile, width: float) -> None:
    for seed in range(3):
        found = recognise(stack(width, profile, slices=60, seed=seed), 2.0, Acquisition(tags=Tags(2 * width)))
        shape, part = BOX if profile == "box" else BELL
        assert (found.profile, found.thickness_mm, found.confidence) == (shape, part * 2 * width, "measured")
        assert not found.warnings
        assert "noise of neighbouring slices correlates" in found.reason


def test_tags_that_say_a_helical_scan_do_not_make_a_bell_of_a_box() -> None:
    found = recognise(stack(1, "box", slices=30), 2.0, Acquisition(tags=Tags(helical=True)))
    assert (found.profile, found.confidence) == ("box", "measured")


def test_anatomy_that_may_pass_for_noise_makes_no_bell_of_an_axial_scan() -> None:
    found = recognise(stack(1, "triangle", slices=30), 2.0, Acquisition(tags=Tags(helical=False)))
    assert (found.profile, found.confidence) == (UNKNOWN[0], "guessed")


SILENT = {
    "lung": stack(1) - 900,
    "no noise": stack(1, noise_hu=0.2),
    "three slices": stack(1)[:3],
    "gaps": stack(0.8, "triangle", slices=60),
    "between box and bell": stack(1, Trapezoid(0.55), slices=16),
}


@pytest.mark.parametrize(("helical", "shape"), [(True, BELL), (False, BOX), (None, UNKNOWN)])
@pytest.mark.parametrize("hu", SILENT.values(), ids=SILENT)
def test_where_noise_cannot_tell_the_tags_do_and_else_the_shape_that_loses_least_is_told(
    hu: Stack, shape: Shape, *, helical: bool | None
) -> None:
    thickness_mm = 1.6 if hu is SILENT["gaps"] else 2.0
    found = recognise(hu, 2.0, Acquisition(tags=Tags(thickness_mm, helical)))
    assert (found.profile, found.thickness_mm) == (shape[0], shape[1] * thickness_mm)
    assert found.confidence == ("guessed" if helical is None else "tagged")
    assert len(found.warnings) == (helical is None)
    for said in found.warnings:
        assert said.startswith("the slice profile is not known (tags say nothing of the scan, ")
        assert said.endswith(f"{shape[0]}, {found.thickness_mm:.3g} mm wide, is used; give --profile")


def test_what_the_user_tells_is_believed() -> None:
    hu = stack(1, "triangle", slices=16)
    found = recognise(hu, 2.0, Acquisition("box", tags=Tags(2.0, helical=True)))
    assert (found.profile, found.thickness_mm, found.confidence, found.noise) == ("box", 2.0, "told", None)
    assert recognise(hu, 2.0, Acquisition("box", 2.2)).thickness_mm == pytest.approx(2.2)
    assert recognise(hu, 2.0, Acquisition(WEIGHTS, tags=Tags(2.0))).thickness_mm == pytest.approx(4.0, abs=0.01)
    with pytest.raises(ParamsError, match=r"told as 2 mm, and the weights of the profile are 4 mm wide: give one"):
        Acquisition(WEIGHTS, 2.0)


@pytest.mark.parametrize("scale", [1e30, 1e-3])
def test_a_thickness_that_no_slice_can_have_is_refused_whoever_tells_it(scale: float) -> None:
    expected = r"mm thick: expected 0\.1 to 50 mm; change "
    with pytest.raises(ParamsError, match=f"{expected}--thickness"):
        Acquisition(thickness_mm=5 * scale)
    with pytest.raises(ParamsError, match=f"{expected}the offsets of its weights"):
        Acquisition(SampledProfile((-4 * scale, 0.0, 4 * scale), (0.0, 1.0, 0.0)))


def test_slices_far_thinner_than_their_distance_share_no_noise() -> None:
    hu = stack(1, "triangle", slices=60)
    for known in (Acquisition(tags=Tags(0.1)), Acquisition(thickness_mm=0.1)):
        assert recognise(hu, 20.0, known).profile == UNKNOWN[0]


@pytest.mark.parametrize("helical", [True, None])
def test_slices_no_thicker_than_the_thin_ones_are_a_box(*, helical: bool | None) -> None:
    tags = Tags(1.0, helical)  # 1 mm every 10 mm
    for thin_mm, shape in ((1.0, "box"), (0.8, "gaussian")):
        assert recognise(SILENT["lung"], 10.0, Acquisition(tags=tags), thin_mm=thin_mm).profile == shape


def test_a_record_has_the_choice_its_reason_and_its_number() -> None:
    found = recognise(stack(1, "triangle", slices=30), 2.0)
    assert found.noise is not None
    assert found.record == {
        "profile": str(BELL[0]),
        "profile_fwhm_mm": 2.0 * BELL[1],
        "profile_confidence": "measured",
        "profile_reason": found.reason,
        "profile_correlation": found.noise.correlation,
        "profile_standard_error": found.noise.standard_error,
    }


@pytest.mark.parametrize(
    ("shape", "width", "expected"),
    [
        (("box", 1.0), 1.0, 0.0),
        (("box", 1.0), 2.0, 0.5),
        ((Trapezoid(0.5), 1.0), 1.0, 0.10),
        (("triangle", 0.9), 1.0, 0.18),
        (("triangle", 1.0), 1.0, 0.25),
        (("gaussian", 1.0), 1.0, 0.23),
        ((Trapezoid(1.0), 1.0), 1.0, 0.25),
    ],
)
def test_noise_is_shared_as_the_profiles_overlap(shape: Shape, width: float, expected: float) -> None:
    assert expected_correlation(shape, width, 3) == pytest.approx(expected, abs=0.015)


def test_the_noise_of_a_simulated_stack_correlates_as_expected() -> None:
    hu = stack(1.5, Trapezoid(0.5), slices=60)
    found = recognise(hu, 2.0, Acquisition(tags=Tags(3.0)))
    assert found.noise is not None
    expected = expected_correlation((Trapezoid(0.5), 1.0), 1.5, found.noise.lags)
    assert found.noise.correlation == pytest.approx(expected, abs=0.05)
    assert np.isfinite(found.noise.standard_error)


@pytest.mark.parametrize("profile", ["box", "gaussian"])
@pytest.mark.parametrize("width", [1.0, 1.5])
def test_fine_anatomy_that_changes_along_the_scan_is_no_bell_of_a_box_and_hides_no_bell(
    profile: Profile, width: float
) -> None:
    hu = stack(width, profile, slices=60)
    step_hu = 0.3 * float(np.std(hu[1:] - hu[:-1]))
    anatomy = np.random.default_rng(1).normal(0, step_hu, hu.shape).cumsum(axis=0)
    found = recognise(np.rint(hu + anatomy).astype(np.float32), 2.0, Acquisition(tags=Tags(2 * width)))
    assert found.noise is not None
    plain = bell_share(found.noise, width, anatomy=False)
    assert plain is not None
    assert plain.is_high
    assert found.confidence == ("guessed" if profile == "box" else "measured")
