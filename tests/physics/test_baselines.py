import math

import pytest
import torch
from torch import Tensor

from ctinterp_dagster.physics.baselines import METHODS
from ctinterp_dagster.physics.operator import ThickeningOperator
from ctinterp_dagster.physics.profile import Profile

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


def test_the_table_has_the_six_methods_of_the_protocol() -> None:
    expected = ["nearest", "linear", "cubic", "cubic_projected", "tv_projected", "registration_projected"]
    assert list(METHODS) == expected


@both_profiles
@pytest.mark.parametrize("name", list(METHODS))
def test_every_method_keeps_shape_precision_and_a_constant(name: str, profile: Profile) -> None:
    operator = ThickeningOperator.from_factor(15, FACTOR, profile)
    thin = METHODS[name](torch.full((3, 17, 19), -1000.0), operator, 1.5)
    torch.testing.assert_close(thin, torch.full((15, 17, 19), -1000.0))


@both_profiles
@pytest.mark.parametrize("name", PROJECTED)
def test_projected_methods_explain_the_thick_slices(name: str, profile: Profile) -> None:
    operator = ThickeningOperator.from_factor(30, FACTOR, profile)
    thick = operator.forward(slanted_rod())
    assert (operator.forward(METHODS[name](thick, operator, 1.5)) - thick).abs().max() < 0.05


@both_profiles
def test_methods_rank_on_a_slanted_rod_as_they_do_on_patients(profile: Profile) -> None:
    operator = ThickeningOperator.from_factor(30, FACTOR, profile)
    truth = slanted_rod()
    thick = operator.forward(truth)
    score = {name: psnr_db(method(thick, operator, 1.0), truth) for name, method in METHODS.items()}
    assert score["nearest"] < score["linear"] < score["cubic"] < score["cubic_projected"]
    assert score["tv_projected"] > score["cubic_projected"] + 0.2
    assert score["registration_projected"] > score["cubic_projected"] + 1.0


@pytest.mark.parametrize("name", list(METHODS))
def test_every_method_gives_the_same_bits_twice(name: str) -> None:
    operator = ThickeningOperator.from_factor(30, FACTOR, "gaussian")
    thick = operator.forward(slanted_rod())
    assert torch.equal(METHODS[name](thick, operator, 1.0), METHODS[name](thick, operator, 1.0))


@pytest.mark.parametrize("name", PROJECTED)
def test_a_single_thick_slice_is_spread_over_its_group(name: str) -> None:
    operator = ThickeningOperator.from_factor(FACTOR, FACTOR)
    thick = operator.forward(slanted_rod(FACTOR))
    thin = METHODS[name](thick, operator, 1.0)
    torch.testing.assert_close(thin.mean(0, keepdim=True), thick, rtol=0, atol=0.01)
