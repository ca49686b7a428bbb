from dataclasses import replace

import numpy as np
import pytest
import torch

from ctinterp_dagster.physics.interpolators import cubic_projected
from ctinterp_dagster.physics.nullspace import FEATURES, MODES, NullSpace
from ctinterp_dagster.physics.operator import ThickeningOperator, thin_grid
from ctinterp_dagster.physics.profile import Profile

CASES = [(factor, profile) for factor in (2, 3, 4, 5) for profile in ("box", "gaussian", "triangle")]


def space(factor: int, profile: Profile, n_thick: int = 9) -> NullSpace:
    return NullSpace(ThickeningOperator.from_factor(factor * n_thick, factor, profile))


@pytest.mark.parametrize(("factor", "profile"), CASES)
def test_base_and_coefficients_together_are_the_volume(factor: int, profile: Profile) -> None:
    here = space(factor, profile)
    thin = torch.randn(9 * factor, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    base = here.base(here.operator.forward(thin))
    restored = base + here.expand(here.coefficients(thin - base))
    torch.testing.assert_close(restored, thin, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("factor", "profile"), CASES)
def test_whatever_the_coefficients_the_measurement_stays(factor: int, profile: Profile) -> None:
    here = space(factor, profile)
    added = here.expand(torch.randn(MODES, 9, 3, 4, dtype=torch.float64))
    assert float(added.abs().max()) > 1
    assert float(here.operator.forward(added).abs().max()) < 1e-12


def test_variances_of_coefficients_become_those_of_the_volume() -> None:
    here = space(5, "gaussian")
    deviation = torch.rand(MODES, 9, 1, 1, dtype=torch.float64)
    drawn = here.expand(deviation * torch.randn(MODES, 9, 200, 200, dtype=torch.float64))
    expected = here.expand_variance(deviation.square())
    torch.testing.assert_close(drawn.var((1, 2)), expected[:, 0, 0], rtol=0.05, atol=0)


def test_the_base_is_the_projected_cubic_spline() -> None:
    here = space(5, "gaussian")
    thick = torch.randn(9, 3, 4, dtype=torch.float64)
    torch.testing.assert_close(here.base(thick), cubic_projected(thick, here.operator), rtol=0, atol=1e-12)


def test_cosines_are_orthonormal_under_the_box_profile() -> None:
    cosines = space(5, "box").cosines
    np.testing.assert_allclose(cosines.T @ cosines, 5 * np.eye(cosines.shape[1]), atol=1e-12)


def test_cosines_that_a_smaller_factor_cannot_show_are_zero() -> None:
    waves = space(3, "box").basis.reshape(27, MODES, 9)
    assert np.abs(waves[:, :2]).max() > 1
    assert np.abs(waves[:, 2:]).max() == 0


def test_a_spacing_that_does_not_divide_the_extent_keeps_the_measurement() -> None:
    count, first = thin_grid(10, 5.0, 0.8)
    operator = ThickeningOperator.from_geometry(
        n_thick=10, thick_spacing_mm=5.0, thick_thickness_mm=5.0, n_thin=count, thin_spacing_mm=0.8,
        thin_thickness_mm=0.8, first_thin_offset_mm=first, profile="gaussian",
    )  # fmt: skip
    here = NullSpace(operator)
    assert float(operator.forward(here.expand(torch.randn(MODES, 10, 2, 2))).abs().max()) < 1e-5


def overlapping(thickness: float) -> NullSpace:
    touching = ThickeningOperator.from_factor(45, 5, "box")
    return NullSpace(replace(touching, thin_thickness=thickness))


def test_slices_that_overlap_keep_the_measurement_and_are_means_of_slices_that_touch() -> None:
    here, plain = overlapping(1.5), space(5, "box")
    thick = torch.randn(9, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    coefficients = torch.randn(MODES, 9, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    thin = here.base(thick) + here.expand(coefficients)
    torch.testing.assert_close(here.operator.forward(thin), thick, rtol=0, atol=1e-10)
    np.testing.assert_allclose(here.operator.overlap[20, 18:23], np.array([0, 0.25, 1, 0.25, 0]) / 1.5, atol=1e-12)
    np.testing.assert_allclose(here.operator.overlap.sum(axis=1), 1.0)
    steps = [
        float(volume.diff(dim=0).square().mean()) for volume in (here.expand(coefficients), plain.expand(coefficients))
    ]
    assert steps[0] < 0.6 * steps[1], "what is drawn is smoother along z"


def test_slices_that_touch_or_leave_gaps_are_as_they_were() -> None:
    plain = space(5, "box")
    for thickness in (0.5, 1.0):
        here = overlapping(thickness)
        assert np.array_equal(here.operator.overlap, np.eye(45))
        assert np.array_equal(here.basis, plain.basis)
        assert np.array_equal(here.upsampling, plain.upsampling)


def test_features_show_the_neighbours_in_two_windows_and_the_base() -> None:
    here = space(5, "box")
    thick = torch.arange(9.0)[:, None, None].expand(9, 2, 2) * 100
    features = here.features(thick)
    assert features.shape == (FEATURES, 9, 2, 2)
    torch.testing.assert_close(features[:5, 4, 0, 0], torch.tensor([0.2, 0.3, 0.4, 0.5, 0.6]))
    torch.testing.assert_close(features[:5, 0, 0, 0], torch.tensor([0.0, 0.0, 0.0, 0.1, 0.2]))
    torch.testing.assert_close(features[5:10, 4, 0, 0], torch.tensor([0.8, 1.0, 1.0, 1.0, 1.0]))
    ramp = here.cosines.reshape(45, MODES, 9)[:, 0, 4] @ here.base(thick)[:, 0, 0].double().numpy() / 5 / 1000
    assert float(features[10, 4, 0, 0]) == pytest.approx(ramp, rel=1e-5)
