import torch
from torch import Tensor

from ctinterp_dagster.physics import variational
from ctinterp_dagster.physics.operator import ThickeningOperator


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 50


def penalty(volume: Tensor, z_weight: float) -> Tensor:
    """Sum of sqrt(|D x|^2 + edge^2), differences beyond the far faces being zero."""
    square = torch.full_like(volume, variational.EDGE_HU**2)
    for axis, weight in enumerate((z_weight, 1.0, 1.0)):
        beyond = torch.zeros_like(volume.narrow(axis, 0, 1))
        square = square + (weight * torch.cat([volume.diff(dim=axis), beyond], dim=axis)).square()
    return square.sqrt().sum()


def test_slope_is_the_gradient_of_the_huber_total_variation() -> None:
    volume = noise(7, 5, 6).requires_grad_()
    (expected,) = torch.autograd.grad(penalty(volume, 0.6), volume)
    slab = variational._slab(volume.detach(), 0, 7)
    torch.testing.assert_close(variational._slope(slab, 0.6), expected)


def test_slope_does_not_depend_on_the_slabs() -> None:
    volume = noise(9, 5, 6)
    whole = variational._slope(variational._slab(volume, 0, 9), 1.3)
    parts = [variational._slope(variational._slab(volume, s, min(s + 4, 9)), 1.3) for s in (0, 4, 8)]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=0, atol=0)


def test_total_variation_falls_below_that_of_the_projected_cubic() -> None:
    operator = ThickeningOperator.from_factor(40, 5, "gaussian")
    step = torch.where(torch.arange(40)[:, None, None] + torch.arange(12) > 25, 300.0, 0.0).expand(40, 12, 12)
    thick = operator.forward(step.contiguous())
    start = variational.cubic_projected(thick, operator)
    assert penalty(variational.tv_projected(thick, operator, 1.0), 1.0) < 0.95 * penalty(start, 1.0)
