import math

import pytest
import torch
from torch.testing import assert_close

from ctinterp_dagster.errors import ParamsError
from ctinterp_dagster.model.forward_process import alpha, shifted, sigma
from ctinterp_dagster.model.sampler import Sampler, sample

MEAN, STD = 1.5, 0.5
SAMPLERS = ("adams", "ddim", "ddpm")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Networks this small spend their time waiting for the second thread."""
    torch.set_num_threads(1)


def exact_denoiser(noisy: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """E[x0 | x_t] for x0 ~ N(MEAN, STD^2): the Gaussian posterior mean."""
    a, s = (f(t).reshape(-1, *[1] * (noisy.ndim - 1)) for f in (alpha, sigma))
    return MEAN + a * STD**2 / (a**2 * STD**2 + s**2) * (noisy - a * MEAN)


def moments(steps: int, sampler: Sampler, shift: float = 1.0) -> tuple[float, float]:
    drawn = sample(exact_denoiser, (10_000,), steps=steps, seeds=[0], sampler=sampler, shift=shift)
    return float(drawn.mean()), float(drawn.std())


@pytest.mark.parametrize("shift", [1.0, 2.0])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_samples_of_an_exact_gaussian_denoiser_have_its_moments(sampler: Sampler, shift: float) -> None:
    mean, std = moments(200, sampler, shift)
    assert mean == pytest.approx(MEAN, abs=0.02)
    assert std == pytest.approx(STD, abs=0.02)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_more_steps_come_nearer_to_the_exact_spread(sampler: Sampler) -> None:
    errors = [abs(moments(steps, sampler)[1] - STD) for steps in (2, 8, 64)]
    assert errors[0] > 2 * errors[1] > 4 * errors[2]


@pytest.mark.parametrize(("deviation", "kept"), [(1.0, 0.94), (2.0, 1.01), (5.0, 1.00)])
def test_eight_steps_of_adams_keep_a_deviation_that_ddim_loses(deviation: float, kept: float) -> None:
    def denoiser(noisy: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        a, s = alpha(t)[:, None], sigma(t)[:, None]
        return a * deviation**2 / (a**2 * deviation**2 + s**2) * noisy

    adams, ddim = (
        float(sample(denoiser, (10_000,), steps=8, seeds=[0], sampler=sampler, shift=2.0).std()) / deviation
        for sampler in ("adams", "ddim")
    )
    assert adams == pytest.approx(kept, abs=0.02)
    assert ddim < 0.87


def test_the_shift_keeps_the_ends_and_moves_the_middle_towards_the_noise() -> None:
    assert_close(shifted(torch.tensor([0.0, 0.5, 1.0]), 2.0), torch.tensor([0.0, 2 / 3, 1.0]))


def test_one_step_gives_the_posterior_mean_whatever_the_noise() -> None:
    for sampler in SAMPLERS:
        drawn = sample(exact_denoiser, (4, 5), steps=1, seeds=[1, 2, 3], sampler=sampler, shift=2.0)
        assert_close(drawn, torch.full((3, 4, 5), MEAN))


def test_ddim_turns_the_noise_by_the_angle_between_two_times() -> None:
    """Two steps by hand: with x0 known, DDIM moves along the arc from x_1 to x_(1/2) (Song 2021, eq. 12)."""
    seen = []

    def known(noisy: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        seen.append((noisy, float(t[0])))
        return torch.full_like(noisy, 2.0)

    sample(known, (6,), steps=2, seeds=[5], sampler="ddim")
    noise = torch.randn(6, generator=torch.Generator().manual_seed(5))[None]
    assert [t for _, t in seen] == [1.0, 0.5]
    assert_close(seen[0][0], noise)
    assert_close(seen[1][0], math.sqrt(0.5) * 2.0 + math.sqrt(0.5) * noise)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_samples_do_not_depend_on_their_neighbours_in_the_batch(sampler: Sampler) -> None:
    together = sample(exact_denoiser, (3, 4), steps=7, seeds=[10, 11, 12], sampler=sampler)
    alone = [sample(exact_denoiser, (3, 4), steps=7, seeds=[seed], sampler=sampler)[0] for seed in (10, 11, 12)]
    assert torch.equal(together, torch.stack(alone))


def test_seeds_repeat_their_samples_and_differ_from_each_other() -> None:
    first, second = (sample(exact_denoiser, (9,), steps=5, seeds=[3, 4], sampler="ddpm") for _ in range(2))
    assert torch.equal(first, second)
    assert (first[0] - first[1]).abs().min() > 1e-4


@pytest.mark.parametrize("bad", [{"steps": 0}, {"seeds": []}])
def test_impossible_sampling_parameters_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ParamsError, match="steps >= 1 and at least one seed"):
        sample(exact_denoiser, (2,), **{"steps": 1, "seeds": [0]} | bad)
