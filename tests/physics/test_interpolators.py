import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from torch import Tensor

from ctinterp_dagster.physics.interpolators import cubic, cubic_projected, linear, nearest
from ctinterp_dagster.physics.operator import ThickeningOperator
from ctinterp_dagster.scan.volume import DoubleArray

POSITIONS = ThickeningOperator.from_factor(40, 5).thin_positions


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 500


def by_simpleitk(thick: Tensor, positions: DoubleArray, interpolator: int) -> Tensor:
    grid = sitk.Image(thick.shape[2], thick.shape[1], len(positions), sitk.sitkFloat64)
    grid.SetSpacing((1.0, 1.0, float(positions[1] - positions[0])))
    grid.SetOrigin((0.0, 0.0, float(positions[0])))
    image = sitk.GetImageFromArray(thick.numpy())
    return torch.from_numpy(sitk.GetArrayFromImage(sitk.Resample(image, grid, sitk.Transform(), interpolator)))


def test_cubic_equals_the_b_spline_of_simpleitk_to_the_outermost_thin_slices() -> None:
    thick = noise(8, 6, 7)
    expected = by_simpleitk(thick, POSITIONS, sitk.sitkBSpline)
    torch.testing.assert_close(cubic(thick, POSITIONS), expected, rtol=0, atol=1e-3)


def test_linear_equals_that_of_simpleitk() -> None:
    thick = noise(8, 6, 7)
    expected = by_simpleitk(thick, POSITIONS, sitk.sitkLinear)
    torch.testing.assert_close(linear(thick, POSITIONS), expected)


def test_nearest_repeats_each_thick_slice_over_its_group() -> None:
    thick = noise(8, 2, 2)
    torch.testing.assert_close(nearest(thick, POSITIONS), thick.repeat_interleave(5, dim=0))


def test_nearest_takes_the_upper_slice_halfway_and_holds_the_ends() -> None:
    thick = torch.tensor([1.0, 2.0, 3.0]).reshape(3, 1, 1)
    assert nearest(thick, np.array([-3.0, 0.5, 1.5, 9.0])).flatten().tolist() == [1.0, 2.0, 3.0, 3.0]


@pytest.mark.parametrize("method", [nearest, linear, cubic])
def test_thick_slices_are_kept_at_their_own_centres(method) -> None:  # noqa: ANN001
    thick = noise(6, 3, 3)
    torch.testing.assert_close(method(thick, np.arange(6.0)), thick)


@pytest.mark.parametrize("method", [nearest, linear, cubic])
@pytest.mark.parametrize("n_thick", [1, 2, 5])
def test_a_constant_stays_constant_at_any_position(method, n_thick: int) -> None:  # noqa: ANN001
    thin = method(torch.full((n_thick, 2, 2), 40.0), np.linspace(-0.5, n_thick - 0.5, 13))
    torch.testing.assert_close(thin, torch.full((13, 2, 2), 40.0))


def test_linear_keeps_a_ramp_between_the_outer_centres_and_holds_it_beyond() -> None:
    ramp = torch.arange(4.0).reshape(4, 1, 1) * 100
    values = linear(ramp, np.array([-0.4, 0.3, 2.75, 3.4])).flatten()
    torch.testing.assert_close(values, torch.tensor([0.0, 30.0, 275.0, 300.0]))


def test_cubic_is_nearer_to_a_smooth_curve_than_linear() -> None:
    thick = torch.sin(torch.arange(20.0, dtype=torch.float64)).reshape(20, 1, 1)
    positions = np.linspace(3, 16, 60)
    truth = torch.from_numpy(np.sin(positions)).reshape(60, 1, 1)
    errors = [(method(thick, positions) - truth).abs().max() for method in (cubic, linear)]
    assert errors[0] < 0.1 * errors[1]


@pytest.mark.parametrize("profile", ["box", "gaussian"])
def test_projected_cubic_explains_the_thick_slices(profile) -> None:  # noqa: ANN001
    operator = ThickeningOperator.from_factor(40, 5, profile)
    thick = noise(8, 4, 4)
    torch.testing.assert_close(operator.forward(cubic_projected(thick, operator)), thick)
