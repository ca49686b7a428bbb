import numpy as np
import pytest
import torch

from ctinterp_dagster.nullspace.sample_noise import NEIGHBOUR_CORRELATION, missing_variance, noise_gain
from ctinterp_dagster.physics.operator import ThickeningOperator

OPERATOR = ThickeningOperator.from_factor(60, 5, "box")
NOISE_HU = 20.0


def volumes(tissue_hu: float, part: float) -> tuple[np.ndarray, torch.Tensor, torch.Tensor]:
    """Thick slices of noise as the scanner leaves it, their mean, and a sample with a part of what that lacks."""
    n = OPERATOR.n_thin
    shared = np.eye(n) + NEIGHBOUR_CORRELATION * (np.eye(n, k=1) + np.eye(n, k=-1))
    white = np.random.default_rng(0).normal(0, NOISE_HU, (n, 64 * 64))
    thin = torch.from_numpy(tissue_hu + np.linalg.cholesky(shared) @ white).reshape(n, 64, 64).float()
    thick = OPERATOR.forward(thin)
    mean = OPERATOR.pseudo_inverse(thick)
    return thick.numpy(), mean, mean + part * (thin - mean)


def test_a_mean_of_slices_that_share_noise_keeps_more_of_it() -> None:
    assert noise_gain(OPERATOR) == pytest.approx(5 / (1 + 2 * NEIGHBOUR_CORRELATION * 4 / 5), rel=0.01)


@pytest.mark.parametrize("part", [0.6, 0.8])
def test_what_a_sample_lacks_of_the_noise_is_told_by_the_thick_slices(part: float) -> None:
    thick, mean, sample = volumes(40.0, part)
    lacking = NOISE_HU**2 * (1 - 1 / noise_gain(OPERATOR)) * (1 - part**2)
    told = missing_variance(thick, OPERATOR, mean, sample, torch.full_like(mean, float((sample - mean).var())))
    assert told == pytest.approx(lacking, rel=0.15)


def test_a_sample_of_little_noise_is_given_four_times_its_variance() -> None:
    thick, mean, sample = volumes(40.0, 0.35)
    told = missing_variance(thick, OPERATOR, mean, sample, torch.full_like(mean, float((sample - mean).var())))
    assert told == pytest.approx(3 * float((sample - mean).var()), rel=0.25)


def test_enough_noise_and_no_tissue_are_left_alone() -> None:
    for tissue_hu, part in ((40.0, 1.2), (-900.0, 0.5)):
        thick, mean, sample = volumes(tissue_hu, part)
        assert missing_variance(thick, OPERATOR, mean, sample, torch.ones_like(mean)) == 0.0
