import math

import numpy as np
import pytest
import torch
from torch import Tensor

from ctinterp_dagster.physics.baselines import METHODS
from ctinterp_dagster.physics.measurement import Measurement
from ctinterp_dagster.physics.operator import ThickeningOperator
from ctinterp_dagster.physics.profile import Profile
from ctinterp_dagster.scan.volume import Volume

FACTOR = 5
PROJECTED = ("cubic_projected", "tv_projected", "registration_projected")
both_profiles = pytest.mark.parametrize("profile", ["box", "gaussian"])


def slanted_rod(n_thin: int = 30, size: int = 36) -> Tensor:
    """A rod of 300 HU in tissue of 50 HU in air that moves by 0.6 pixels a thin slice in plane."""
    z, y, x = torch.meshgrid(torch.arange(n_thin), torch.arange(size), torch.arange(size), indexing="ij")
    body = ((y - size / 2).square() + (x - size / 2).square()).sqrt()
    rod = ((y - size / 2).square() + (x - 9 - 0.6 * z).square()).sqrt()
    return -1000 + 1050 * torch.sigmoid(16 - body) + 250 * torch.sigmoid(2 * (4 - rod))


def psnr_db(estimate: Tensor, truth: Tensor) -> float:
    inner = slice(FACTOR, -FACTOR)
    return 10 * math.log10(2000**2 / float((estimate - truth)[inner].square().mean()))


def restored(name: str, thick: Tensor, operator: ThickeningOperator, aspect: float = 1.0) -> Tensor:
    pixel_mm = 1.0 / aspect
    spacing_mm = (1.0 / operator.thin_distance, pixel_mm, pixel_mm)
    volume = Volume(thick.numpy(), spacing_mm, (0.0, 0.0, 0.0), np.eye(3))
    estimate = METHODS[name](Measurement(volume, operator))
    assert estimate.std is None
    assert estimate.mean.spacing_mm == pytest.approx((1.0, pixel_mm, pixel_mm))
    thin = torch.from_numpy(estimate.mean.hu)
    assert estimate.residual_hu == float((operator.forward(thin) - thick).abs().mean())
    return thin


def test_the_table_has_the_six_methods_of_the_protocol() -> None:
    expected = ["nearest", "linear", "cubic", "cubic_projected", "tv_projected", "registration_projected"]
    assert list(METHODS) == expected


@both_profiles
@pytest.mark.parametrize("name", list(METHODS))
def test_every_method_keeps_shape_precision_and_a_constant(name: str, profile: Profile) -> None:
    operator = ThickeningOperator.from_factor(15, FACTOR, profile)
    thin = restored(name, torch.full((3, 17, 19), -1000.0), operator, 1.5)
    torch.testing.assert_close(thin, torch.full((15, 17, 19), -1000.0))


@both_profiles
@pytest.mark.parametrize("name", PROJECTED)
def test_projected_methods_explain_the_thick_slices(name: str, profile: Profile) -> None:
    operator = ThickeningOperator.from_factor(30, FACTOR, profile)
    thick = operator.forward(slanted_rod())
    assert (operator.forward(restored(name, thick, operator, 1.5)) - thick).abs().max() < 0.05


@both_profiles
def test_methods_rank_on_a_slanted_rod_as_they_do_on_patients(profile: Profile) -> None:
    operator = ThickeningOperator.from_factor(30, FACTOR, profile)
    truth = slanted_rod()
    thick = operator.forward(truth)
    score = {name: psnr_db(restored(name, thick, operator), truth) for name in METHODS}
    assert score["nearest"] < score["linear"] < score["cubic"] < score["cubic_projected"]
    assert score["tv_projected"] > score["cubic_projected"] + 0.2
    assert score["registration_projected"] > score["cubic_projected"] + 1.0


@pytest.mark.parametrize("name", list(METHODS))
def test_every_method_gives_the_same_bits_twice(name: str) -> None:
    operator = ThickeningOperator.from_factor(30, FACTOR, "gaussian")
    thick = operator.forward(slanted_rod())
    assert torch.equal(restored(name, thick, operator), restored(name, thick, operator))


@pytest.mark.parametrize("name", PROJECTED)
def test_a_single_thick_slice_is_spread_over_its_group(name: str) -> None:
    operator = ThickeningOperator.from_factor(FACTOR, FACTOR)
    thick = operator.forward(slanted_rod(FACTOR))
    thin = restored(name, thick, operator)
    torch.testing.assert_close(thin.mean(0, keepdim=True), thick, rtol=0, atol=0.01)
