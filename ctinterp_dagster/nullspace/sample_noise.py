"""The noise that samples lack: thick slices tell how much thin ones have."""

import numpy as np
from torch import Tensor

from ctinterp_dagster.physics.noise import BODY_TISSUE_HU, FLATTEST, RealArray, shared_noise
from ctinterp_dagster.physics.operator import ThickeningOperator

NEIGHBOUR_CORRELATION = 0.25  # correlation of thin slices that touch and have a bell for a profile; entry 28
MOST = 4.0  # times the variance that samples have
LOOKED_AT = 16  # slices


def noise_gain(operator: ThickeningOperator) -> float:
    """Variance of the noise of thin slices over that of the thick slices that are made of them.

    Args:
        operator: (n, y, x) to (k, y, x).

    Returns:
        A ratio of variances, above 0.

    Source: with S the covariance of thin slices, that of thick ones is A S A^T; Papoulis 1991, Probability, Random
        Variables, and Stochastic Processes, 3rd ed., section 10-2.
    """
    touching = np.eye(operator.n_thin)
    touching += NEIGHBOUR_CORRELATION * (np.eye(operator.n_thin, k=1) + np.eye(operator.n_thin, k=-1))
    covariance = operator.overlap @ touching @ operator.overlap.T
    thick = operator.matrix @ covariance @ operator.matrix.T
    return float(np.diag(covariance).mean() / np.diag(thick).mean())


def missing_variance(
    thick_hu: RealArray, operator: ThickeningOperator, mean_hu: Tensor, sample_hu: Tensor, variance_hu2: Tensor
) -> float:
    """Variance in HU^2 that a sample lacks in flat tissue, against what the noise of the thick slices tells.

    With n the noise in flat tissue, high-passed in the plane, the variance of the sample about the mean is too low by
    the factor q = (gain n_thick^2 - n_mean^2) / (n_sample^2 - n_mean^2), taken as 1 to 4; q - 1 of what the model
    expects there is missing.

    Args:
        thick_hu: (k, y, x) HU.
        operator: (n, y, x) to (k, y, x).
        mean_hu: (n, y, x) HU, the expected volume.
        sample_hu: (n, y, x) HU, a sample about it.
        variance_hu2: (n, y, x) HU^2, of samples as the model expects it.

    Returns:
        HU^2; 0 where there is too little flat tissue with noise.

    Source: variances of independent noise add, so that those of sample and missing noise make the thick slices' times
        the gain; docs/experiments.md, entry 28.
    """
    expected_hu = mean_hu.cpu().numpy()
    found = [shared_noise(hu) for hu in (thick_hu, expected_hu, sample_hu.cpu().numpy())]
    if not all(found):
        return 0.0
    thick, mean, sample = (own.noise_hu**2 for own in found if own)
    every = -(-len(expected_hu) // LOOKED_AT)
    low, high = BODY_TISSUE_HU
    tissue = (expected_hu[::every] > low) & (expected_hu[::every] < high)
    if sample <= mean or not tissue.any():
        return 0.0
    factor = np.clip((noise_gain(operator) * thick - mean) / (sample - mean), 1.0, MOST)
    return float((factor - 1) * np.quantile(variance_hu2[::every].cpu().numpy()[tissue], FLATTEST))
