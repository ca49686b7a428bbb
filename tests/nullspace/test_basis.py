from dataclasses import replace

import numpy as np
import pytest
import torch

from ctinterp_dagster.nullspace.basis import FEATURES, MODES, NullSpace
from ctinterp_dagster.physics.interpolators import cubic_projected
from ctinterp_dagster.physics.operator import ThickeningOperator, apply_along_z, thin_grid
from ctinterp_dagster.physics.profile import Profile

CASES = [(factor, profile) for factor in (2, 3, 4, 5) for profile in ("box", "gaussian", "triangle")]


def space(factor: int, profile: Profile, n_thick: int = 9) -> NullSpace:
    return NullSpace(ThickeningOperator.from_factor(factor * n_thick, factor, profile))


@pytest.mark.parametrize(("factor", "profile"), CASES)
def test_base_and_coefficients_together_are_the_volume(factor: int, profile: Profile) -> None:
    here = space(factor, profile)
    thin = torch.randn(9 * factor, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    base = here.base(here.operator.forward(thin))
    coefficients = apply_along_z(here.analysis, thin - base).unflatten(0, (MODES, 9))
    restored = base + here.expand(coefficients)
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
    cosines = space(5, "box").cosines.reshape(45, MODES, 9)[:, :4].reshape(45, -1)
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


def on_grid(distance_mm: float, target_mm: float, profile: Profile = "box", n_thick: int = 12) -> NullSpace:
    count, first = thin_grid(n_thick, distance_mm, target_mm)
    return NullSpace(
        ThickeningOperator.from_geometry(
            n_thick=n_thick, thick_spacing_mm=distance_mm, thick_thickness_mm=distance_mm, n_thin=count,
            thin_spacing_mm=target_mm, thin_thickness_mm=target_mm, first_thin_offset_mm=first, profile=profile,
        )
    )  # fmt: skip


@pytest.mark.parametrize(
    ("distance_mm", "target_mm", "factor"),
    [
        (1.2, 1, 2),
        (2.5, 1, 3),
        (3.13, 1, 4),
        (3.5, 1, 4),
        (5, 0.8, 7),
        (10, 1, 10),
        (10, 0.5, 10),
        (4.9999995, 1, 5),
        (5.0000005, 1, 5),
    ],
)
def test_the_networks_see_every_grid_as_one_of_a_whole_factor(
    distance_mm: float, target_mm: float, factor: int
) -> None:
    here, whole = on_grid(distance_mm, target_mm), on_grid(distance_mm, distance_mm / factor)
    thick = 100 * torch.randn(12, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(here.features(thick), whole.features(thick), rtol=0, atol=1e-9)
    told = [space.geometry((distance_mm, 0.7, 0.7)) for space in (here, whole)]
    assert torch.equal(*told)
    assert float(told[0][2]) == pytest.approx(min(factor, 5) / 5)
    assert float(told[0][-1]) == pytest.approx((factor - min(factor, 5)) / 5)


def test_beyond_five_a_network_of_nine_cosines_is_told_what_the_released_one_is_and_the_rest_apart() -> None:
    operator = ThickeningOperator.from_factor(40, 10)
    released, more = (NullSpace(operator, modes).geometry((5.0, 0.7, 0.7)) for modes in (4, 9))
    assert torch.equal(more[:3], released[:3])
    assert (float(released[-1]), float(more[-1])) == (0.0, 1.0)


def test_a_thin_slice_of_any_grid_is_the_mean_of_what_the_networks_say_of_its_extent() -> None:
    here = on_grid(2.5, 1.0)
    assert here.operator.n_thin == 30
    parts = (here.operator.means_of(here.operator.divided(300)) @ _sampled(300)).reshape(30, MODES, 12)
    kept = here.cosines.reshape(30, MODES, 12)
    for m in (1, 2):
        np.testing.assert_allclose(kept[:, m - 1], parts[:, m - 1] / np.sinc(m / 6), atol=1e-3)
    assert not kept[:, 2:].any()


def _sampled(count: int) -> np.ndarray:
    """Cosines 1 to 4 of 12 cells at the centres of `count` slices each, (12 count, 4 * 12)."""
    t = (np.arange(count) + 0.5) / count
    waves = np.sqrt(2) * np.cos(np.pi * np.arange(1, MODES + 1)[:, None] * t)
    return np.einsum("mt,kl->ktml", waves, np.eye(12)).reshape(12 * count, MODES * 12)


@pytest.mark.parametrize("target_mm", [2.0, 1.3, 1.0, 0.8, 0.4])
@pytest.mark.parametrize("profile", ["box", "gaussian", "triangle"])
def test_on_any_grid_the_measurement_stays(target_mm: float, profile: Profile) -> None:
    here = on_grid(2.5, target_mm, profile)
    thick = torch.randn(12, 2, 2, dtype=torch.float64)
    thin = here.base(thick) + here.expand(torch.randn(MODES, 12, 2, 2, dtype=torch.float64))
    torch.testing.assert_close(here.operator.forward(thin), thick, rtol=0, atol=1e-9)


def test_a_network_is_told_what_the_profile_lets_through() -> None:
    """Of a box, sinc f; of a triangle of the same width, its square; of a Gaussian, a Gaussian."""
    frequencies = np.array([0.5, 1.0, 1.5, 2.0])
    sigma = 1 / np.sqrt(8 * np.log(2))
    expected: dict[Profile, np.ndarray] = {
        "box": np.sinc(frequencies),
        "triangle": np.sinc(frequencies) ** 2,
        "gaussian": np.exp(-2 * (np.pi * frequencies * sigma) ** 2),
    }
    for profile, transfer in expected.items():
        fine = NullSpace(ThickeningOperator.from_factor(9 * 60, 60, profile), modes=59)
        told = fine.geometry((5.0, 0.7, 0.7))[3:-1]
        np.testing.assert_allclose(told, transfer, atol=0.03)  # a Gaussian ends one width off
