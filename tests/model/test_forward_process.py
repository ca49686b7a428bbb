import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from ctinterp_dagster.model.forward_process import Prediction, add_noise, alpha, sigma, to_x0, training_target

KINDS: tuple[Prediction, ...] = ("x0", "epsilon", "v")


def draw(*, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x0, noise = torch.randn(2, 3, 2, 4, 5, 6, generator=generator, dtype=torch.float64)
    return x0, noise


def test_the_ends_of_time_are_pure_signal_and_pure_noise_exactly() -> None:
    t = torch.tensor([0.0, 1.0])
    assert_close(alpha(t), torch.tensor([1.0, 0.0]), rtol=0, atol=1e-15)
    assert_close(sigma(t), torch.tensor([0.0, 1.0]), rtol=0, atol=0)


@given(st.floats(0.0, 1.0))
def test_variance_is_preserved_at_every_time(time: float) -> None:
    t = torch.tensor([time], dtype=torch.float64)
    assert_close(alpha(t) ** 2 + sigma(t) ** 2, torch.ones(1, dtype=torch.float64))


def test_the_signal_fades_as_nichol_and_dhariwal_s_cosine() -> None:
    t = torch.linspace(0, 1, 11, dtype=torch.float64)
    assert_close(alpha(t) ** 2, (1 + torch.cos(torch.pi * t)) / 2, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("kind", KINDS)
@given(time=st.floats(1e-3, 1.0 - 1e-3))
def test_a_network_that_hits_its_target_has_recovered_the_data(kind: Prediction, time: float) -> None:
    x0, noise = draw()
    t = torch.full((3,), time, dtype=torch.float64)
    noisy = add_noise(x0, noise, t)
    assert_close(to_x0(training_target(x0, noise, t, kind), noisy, t, kind), x0)


@pytest.mark.parametrize("kind", ["x0", "v"])
def test_x0_and_v_recover_the_data_at_both_ends(kind: Prediction) -> None:
    x0, noise = draw()
    t = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
    assert_close(to_x0(training_target(x0, noise, t, kind), add_noise(x0, noise, t), t, kind), x0)


def test_epsilon_says_nothing_of_the_data_at_pure_noise() -> None:
    x0, noise = draw()
    t = torch.ones(3, dtype=torch.float64)
    assert_close(to_x0(noise + 0.3, add_noise(x0, noise, t), t, "epsilon"), torch.zeros_like(x0))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_conversions_are_finite_at_both_ends(kind: Prediction, dtype: torch.dtype) -> None:
    x0, noise = (tensor.to(dtype) for tensor in draw())
    t = torch.tensor([0.0, 1e-7, 1.0])
    noisy = add_noise(x0, noise, t)
    assert torch.isfinite(to_x0(noise, noisy, t, kind)).all()
    assert to_x0(noise, noisy, t, kind).dtype == dtype
