from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ctinterp_dagster.errors import ParamsError
from ctinterp_dagster.physics.interpolators import cubic_projected, linear
from ctinterp_dagster.physics.operator import (
    ThickeningOperator,
    apply_along_z,
    slices_to_keep,
    slices_within,
    thin_grid,
)
from ctinterp_dagster.physics.profile import Profile, SampledProfile

PROFILES = ("box", "gaussian", "triangle", SampledProfile((-3.0, -1.0, 0.0, 2.0, 4.0), (0.0, 0.5, 1.0, 0.4, 0.0)))
profiles = st.sampled_from(PROFILES)


def geometry(**changes: Any) -> ThickeningOperator:
    """1.25 mm slices from 5 mm ones, 20 of them."""
    values: dict[str, Any] = {
        "n_thick": 20,
        "thick_spacing_mm": 5.0,
        "thick_thickness_mm": 5.0,
        "n_thin": 80,
        "thin_spacing_mm": 1.25,
        "thin_thickness_mm": 1.25,
        "first_thin_offset_mm": -1.875,
        "profile": "gaussian",
    }
    return ThickeningOperator.from_geometry(**(values | changes))


def regrid(thick_mm: float, thin_mm: float, *, thickness_mm: float, profile: Profile) -> ThickeningOperator:
    """An operator whose thin slices fill the extent of the thick ones."""
    n_thin, first_mm = thin_grid(12, thick_mm, thin_mm)
    return geometry(
        n_thick=12,
        thick_spacing_mm=thick_mm,
        thick_thickness_mm=thickness_mm,
        n_thin=n_thin,
        thin_spacing_mm=thin_mm,
        thin_thickness_mm=thin_mm,
        first_thin_offset_mm=first_mm,
        profile=profile,
    )


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype) * 500


GEOMETRIES = {
    "0.8 from 3 mm": lambda p: regrid(3.0, 0.8, thickness_mm=3.0, profile=p),
    "1.25 from 5 mm": lambda p: regrid(5.0, 1.25, thickness_mm=5.0, profile=p),
    "overlapping": lambda p: regrid(4.0, 1.0, thickness_mm=5.0, profile=p),
    "gapped": lambda p: regrid(7.0, 1.0, thickness_mm=5.0, profile=p),
    "factor 5": lambda p: ThickeningOperator.from_factor(60, 5, p),
    "factor 2": lambda p: ThickeningOperator.from_factor(60, 2, p),
}
everywhere = pytest.mark.parametrize("operator", [make(p) for make in GEOMETRIES.values() for p in PROFILES])


@everywhere
def test_thickening_and_its_transpose_are_adjoint(operator: ThickeningOperator) -> None:
    thin, thick = noise(operator.n_thin, 3, 4), noise(operator.n_thick, 3, 4, seed=1)
    left, right = (
        (operator.forward(thin) * thick).sum(),
        (thin * apply_along_z(np.ascontiguousarray(operator.matrix.T), thick)).sum(),
    )
    assert abs(left - right) <= 1e-12 * thin.norm() * thick.norm()


@everywhere
def test_thickening_the_pseudo_inverse_gives_back_the_thick_slices(operator: ThickeningOperator) -> None:
    thick = noise(operator.n_thick, 2, 2)
    torch.testing.assert_close(operator.forward(operator.pseudo_inverse(thick)), thick, rtol=1e-9, atol=1e-8)


@everywhere
def test_pseudo_inverse_is_that_of_penrose(operator: ThickeningOperator) -> None:
    np.testing.assert_allclose(operator.pseudo_inverse_matrix, np.linalg.pinv(operator.matrix), atol=1e-8)


@everywhere
def test_projection_explains_the_thick_slices_and_changes_nothing_the_second_time(operator: ThickeningOperator) -> None:
    thin, thick = noise(operator.n_thin, 2, 3), noise(operator.n_thick, 2, 3, seed=1)
    once = operator.project(thin, thick)
    torch.testing.assert_close(operator.forward(once), thick, rtol=1e-9, atol=1e-8)
    torch.testing.assert_close(operator.project(once, thick), once, rtol=1e-9, atol=1e-7)


@everywhere
def test_a_constant_stays_constant(operator: ThickeningOperator) -> None:
    thick = operator.forward(torch.full((operator.n_thin, 1, 1), -1000.0, dtype=torch.float64))
    torch.testing.assert_close(thick, torch.full_like(thick, -1000.0))


@settings(max_examples=40)
@given(n_thick=st.integers(2, 12), factor=st.integers(2, 6), profile=profiles, seed=st.integers(0, 99))
def test_projection_never_moves_away_from_a_volume_that_explains_the_thick_slices(
    n_thick: int, factor: int, profile: Profile, seed: int
) -> None:
    operator = ThickeningOperator.from_factor(n_thick * factor, factor, profile)
    truth, guess = noise(n_thick * factor, 2, 2, seed=seed), noise(n_thick * factor, 2, 2, seed=seed + 100)
    projected = operator.project(guess, operator.forward(truth))
    assert (projected - truth).norm() <= (guess - truth).norm() * (1 + 1e-9)


@pytest.mark.parametrize("profile", ["box", "gaussian", "triangle"])
def test_projection_in_single_precision_is_exact_to_a_twentieth_of_a_hu_at_depth_1000(profile: Profile) -> None:
    operator = ThickeningOperator.from_factor(1000, 5, profile)
    truth = noise(1000, 4, 4, dtype=torch.float32).clamp(-1024, 3071)
    thick = operator.forward(truth)
    residual_hu = operator.forward(operator.project(torch.zeros_like(truth), thick)) - thick
    assert residual_hu.abs().max() < 0.05


@pytest.mark.parametrize("profile", ["box", "gaussian", "triangle"])
@pytest.mark.parametrize("factor", [2, 3, 4, 5])
def test_thick_slices_are_centred_on_their_groups(profile: Profile, factor: int) -> None:
    matrix = ThickeningOperator.from_factor(10 * factor, factor, profile).matrix
    centres = matrix @ np.arange(10 * factor)
    expected = factor * np.arange(10) + (factor - 1) / 2
    np.testing.assert_allclose(centres[2:-2], expected[2:-2], atol=1e-9)


def test_box_of_an_integer_factor_is_the_mean_of_each_group() -> None:
    thin = noise(20, 3, 3)
    expected = thin.reshape(4, 5, 3, 3).mean(1)
    torch.testing.assert_close(ThickeningOperator.from_factor(20, 5).forward(thin), expected)


def test_thin_positions_put_the_centre_of_each_group_on_its_thick_slice() -> None:
    positions = ThickeningOperator.from_factor(15, 5).thin_positions
    np.testing.assert_allclose(positions[[2, 7, 12]], [0, 1, 2], atol=1e-12)
    np.testing.assert_allclose(positions[:2], [-0.4, -0.2])


def test_thin_positions_of_any_grid_are_millimetres_over_thick_spacing() -> None:
    expected = (-1.875 + 1.25 * np.arange(80)) / 5
    np.testing.assert_allclose(geometry().thin_positions, expected)


def test_gaussian_projection_couples_neighbouring_slices_and_box_does_not() -> None:
    impulse = torch.zeros(6, 1, 1, dtype=torch.float64)
    impulse[3] = 1
    box = ThickeningOperator.from_factor(30, 5, "box").pseudo_inverse(impulse).flatten()
    gaussian = ThickeningOperator.from_factor(30, 5, "gaussian").pseudo_inverse(impulse).flatten()
    assert torch.count_nonzero(box[:15]) == 0
    assert gaussian[12].abs() > 0.01


def test_volumes_may_have_batch_and_channel_axes_and_need_not_be_contiguous() -> None:
    operator = ThickeningOperator.from_factor(10, 5, "gaussian")
    thin = noise(2, 3, 10, 4, 5)
    expected = torch.stack([torch.stack([operator.forward(c) for c in b]) for b in thin])
    torch.testing.assert_close(operator.forward(thin), expected)
    turned = thin.transpose(-1, -2)
    torch.testing.assert_close(operator.forward(turned), expected.transpose(-1, -2))


def test_gradients_pass_through_the_projection() -> None:
    operator = ThickeningOperator.from_factor(10, 5, "gaussian")
    thin, thick = noise(10, 1, 2).requires_grad_(), noise(2, 1, 2, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(operator.project, (thin, thick))


def test_thin_grid_fills_the_extent_of_the_thick_one() -> None:
    assert thin_grid(50, 5.0, 1.0) == (250, -2.0)
    n_thin, first_mm = thin_grid(10, 3.0, 0.8)
    assert n_thin == 37
    assert first_mm == pytest.approx(27.0 - (first_mm + 36 * 0.8))


def test_thin_slices_beyond_whole_groups_are_refused_with_the_number_to_keep() -> None:
    assert slices_to_keep(23, 5) == 20
    with pytest.raises(ParamsError, match="23 thin slices do not fill groups of 5: keep the first 20"):
        ThickeningOperator.from_factor(23, 5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"thin_spacing_mm": 0.0}, "must be positive"),
        ({"thick_spacing_mm": float("nan")}, "must be positive"),
        ({"n_thin": 0}, "must be positive"),
        ({"n_thin": 60}, r"thick slice 1\d of 20 sees none of the 60 thin slices"),
    ],
)
def test_impossible_geometry_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ParamsError, match=message):
        geometry(**changes)


@pytest.mark.parametrize("factor", [1, 0.5, float("nan"), float("inf")])
def test_a_factor_that_does_not_thicken_is_refused(factor: float) -> None:
    with pytest.raises(ParamsError, match="expected more than 1"):
        ThickeningOperator.from_factor(10, factor)


def test_a_thin_slice_in_two_thick_ones_counts_in_each_by_its_part() -> None:
    matrix = ThickeningOperator.from_factor(5, 2.5).matrix
    np.testing.assert_allclose(matrix, np.array([[2, 2, 1, 0, 0], [0, 0, 1, 2, 2]]) / 5, atol=1e-12)


@given(n_thin=st.integers(1, 400), factor=st.floats(1.05, 12.5))
def test_the_slices_to_keep_are_those_that_whole_thick_slices_reach(n_thin: int, factor: float) -> None:
    keep = slices_to_keep(n_thin, factor)
    assert keep == max(n for n in (slices_within(k, factor) for k in range(n_thin + 1)) if n <= n_thin)
    assert slices_to_keep(keep, factor) == keep


@pytest.mark.parametrize("profile", ["box", "gaussian", "triangle"])
@pytest.mark.parametrize("factor", [1.2, 2.5, 3.13, 6.25])
def test_thick_slices_of_any_factor_lie_side_by_side_from_the_outer_face_on(profile: Profile, factor: float) -> None:
    operator = ThickeningOperator.from_factor(slices_within(20, factor), factor, profile)
    assert operator.n_thick == 20
    centres = operator.matrix @ np.arange(operator.n_thin)
    expected = factor * np.arange(20) + (factor - 1) / 2
    np.testing.assert_allclose(centres[2:-2].mean(), expected[2:-2].mean(), atol=0.05)
    np.testing.assert_allclose(centres[2:-2], expected[2:-2], atol=0.26)


@pytest.mark.parametrize("factor", [2, 5])
def test_a_whole_factor_given_as_a_float_changes_no_bit(factor: int) -> None:
    whole, real = (ThickeningOperator.from_factor(6 * factor, f, "gaussian") for f in (factor, float(factor)))
    assert whole.matrix.tobytes() == real.matrix.tobytes()


def test_a_volume_of_another_depth_is_refused() -> None:
    with pytest.raises(ParamsError, match=r"expected a volume \(\.\.\., 10, y, x\), got shape \(11, 2, 2\)"):
        apply_along_z(np.ones((2, 10)), torch.zeros(11, 2, 2))


@pytest.mark.parametrize(("thickness", "distance"), [(5, 2), (6, 2), (9, 3), (10, 2)])
def test_heavy_overlap_is_regularised_and_never_worse_than_linear(thickness: int, distance: int) -> None:
    generator = torch.Generator().manual_seed(0)
    body = torch.nn.functional.avg_pool1d(1000 * torch.randn(64, 1, 260, generator=generator), 5, stride=1)[:, 0].T
    first = (thickness - distance) // 2 + 1
    n_thick = (len(body) - thickness) // distance - 1
    middle = first + (distance - 1) / 2 + distance * np.arange(n_thick)
    weights = np.clip(thickness / 2 + 0.5 - np.abs(np.arange(len(body)) - middle[:, None]), 0, 1)
    thick = (torch.from_numpy(weights / weights.sum(1, keepdims=True)).float() @ body).round()[..., None]
    truth = body[first : first + n_thick * distance, :, None]
    operator = ThickeningOperator.from_geometry(
        n_thick=n_thick, thick_spacing_mm=distance, thick_thickness_mm=thickness, n_thin=n_thick * distance,
        thin_spacing_mm=1.0, thin_thickness_mm=1.0, first_thin_offset_mm=-(distance - 1) / 2, profile="box",
    )  # fmt: skip
    assert operator.is_regularised
    errors = [
        float((estimate - truth).square().mean())
        for estimate in (cubic_projected(thick, operator), linear(thick, operator.thin_positions))
    ]
    assert errors[0] < errors[1]


@pytest.mark.parametrize("thickness_mm", [4.0, 5.0, 6.0, 10.0])
def test_overlap_of_up_to_two_distances_is_inverted_exactly(thickness_mm: float) -> None:
    operator = regrid(5.0, 1.0, thickness_mm=thickness_mm, profile="box")
    assert not operator.is_regularised
    thick = noise(operator.n_thick, 2, 2)
    torch.testing.assert_close(operator.forward(operator.pseudo_inverse(thick)), thick, rtol=0, atol=1e-8)


def test_the_same_thick_slices_are_divided_in_any_number_of_thin_ones() -> None:
    profile = SampledProfile((-5.0, 0.0, 5.0), (0.0, 1.0, 0.0))
    operator = regrid(5.0, 0.8, thickness_mm=5.0, profile=profile)
    expected = regrid(5.0, 1.0, thickness_mm=5.0, profile=profile)
    assert operator.whole_factor == 7
    np.testing.assert_allclose(operator.divided(5).matrix, expected.matrix, atol=1e-12)
    np.testing.assert_allclose(operator.divided(5).thin_positions, expected.thin_positions, atol=1e-12)
    np.testing.assert_allclose(expected.means_of(expected.divided(5)), np.eye(expected.n_thin), atol=1e-12)
