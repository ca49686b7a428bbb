import numpy as np
import torch
from torch import Tensor

from ctinterp_dagster.physics.registration import _displacement, _image, _warp, registered


def disc(row: float, column: float, size: int = 64) -> Tensor:
    """A soft disc of 60 HU in air."""
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    return -1000 + 1060 * torch.sigmoid(12 - ((y - row).square() + (x - column).square()).sqrt())


def centre(slice_hu: Tensor) -> tuple[float, float]:
    mass = (slice_hu + 1000).double()
    y, x = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in slice_hu.shape), indexing="ij")
    return float((mass * y).sum() / mass.sum()), float((mass * x).sum() / mass.sum())


def test_warp_reads_the_slice_at_displaced_positions_row_first() -> None:
    shift = torch.tensor([2.0, -3.0]).reshape(1, 2, 1, 1).expand(1, 2, 64, 64)
    np.testing.assert_allclose(centre(_warp(disc(32, 32), shift)[0]), (30, 35), atol=1e-3)


def test_displacement_makes_the_moving_slice_look_like_the_fixed_one() -> None:
    fixed, moving = disc(30, 32), disc(33, 27)
    displacement = _displacement(_image(fixed), _image(moving))
    before, after = ((m - fixed).abs().mean() for m in (moving, _warp(moving, displacement[None])[0]))
    assert after < 0.1 * before


def test_a_disc_moves_along_its_way_and_keeps_its_shape() -> None:
    thick = torch.stack([disc(28, 26), disc(32, 34)])
    thin = registered(thick, np.array([0.0, 0.25, 0.5, 1.0]))
    np.testing.assert_allclose([centre(s) for s in thin], [(28, 26), (29, 28), (30, 30), (32, 34)], atol=0.3)
    blended = 0.5 * (thick[0] + thick[1])
    truth = disc(30, 30)
    assert (thin[2] - truth).abs().mean() < 0.3 * (blended - truth).abs().mean()


def test_order_of_the_slices_does_not_matter() -> None:
    thick = torch.stack([disc(28, 26), disc(32, 34), disc(33, 30)])
    positions = np.array([0.2, 0.7, 1.6])
    reverse = registered(thick.flip(0), 2 - positions)
    torch.testing.assert_close(registered(thick, positions), reverse, rtol=0, atol=0.1)


def test_beyond_the_outer_centres_the_outer_slices_are_held() -> None:
    thick = torch.stack([disc(28, 26), disc(32, 34)])
    outer = registered(thick, np.array([-0.4, 1.4]))
    torch.testing.assert_close(outer, thick, rtol=0, atol=0.01)


def test_it_runs_inside_of_inference_mode() -> None:
    thick, positions = torch.randn(3, 20, 20), np.arange(-0.4, 2.5, 0.2)
    with torch.inference_mode():
        inside = registered(1 * thick, positions)
    torch.testing.assert_close(inside, registered(thick, positions), rtol=0, atol=0)
