"""The forward process x_t = alpha(t) x0 + sigma(t) epsilon, and what a network may predict of it."""

import math
from typing import Literal

import torch
from torch import Tensor

Prediction = Literal["x0", "epsilon", "v"]

_SMALLEST = 1e-4
"""Divisors below this are taken for zero; cos and sin reach it at a distance of 6e-5 from the ends of [0, 1]."""


def alpha(t: Tensor) -> Tensor:
    """How much of the signal is left at time t: 1 at t = 0, 0 at t = 1.

    Args:
        t: times in [0, 1], of any shape.

    Returns:
        In [0, 1], of the shape of `t`.

    Source: Nichol and Dhariwal 2021, eq. 17, with offset s = 0, the form of Salimans and Ho 2022, section 2.
    """
    return torch.cos(0.5 * math.pi * t.double()).clamp(0.0, 1.0).to(t.dtype)


def sigma(t: Tensor) -> Tensor:
    """How much noise there is at time t: alpha^2 + sigma^2 = 1.

    Args:
        t: times in [0, 1], of any shape.

    Returns:
        In [0, 1], of the shape of `t`.

    Source: Salimans and Ho 2022, section 2 (variance preserving).
    """
    return torch.sin(0.5 * math.pi * t.double()).clamp(0.0, 1.0).to(t.dtype)


def shifted(t: Tensor, shift: float) -> Tensor:
    """Times in the same order, crowded towards the noisy end where `shift` is above 1.

    What is coarser than a pixel is decided there: noise hides it less.

    Args:
        t: times in [0, 1], of any shape.
        shift: above 0; 1 changes nothing.

    Returns:
        Times in [0, 1], of the shape of `t`; 0 and 1 stay.

    Source: Esser et al. 2024, eq. 23.
    """
    return shift * t / (1.0 + (shift - 1.0) * t)


def add_noise(x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """The noisy state x_t.

    Args:
        x0: (b, ...) data, standardised.
        noise: (b, ...) standard normal.
        t: (b,) times in [0, 1].

    Returns:
        alpha x0 + sigma noise, of the shape of `x0`.

    Source: Ho et al. 2020, eq. 4.
    """
    return _per_sample(alpha(t), x0) * x0 + _per_sample(sigma(t), x0) * noise


def to_x0(output: Tensor, noisy: Tensor, t: Tensor, kind: Prediction) -> Tensor:
    """The estimate of x0 that a network's output stands for; finite at every t.

    At t = 1 epsilon says nothing of x0 and the result is 0, the mean of standardised data: a one-step estimate
    needs x0 or v.

    Args:
        output: (b, ...) the network's output.
        noisy: (b, ...) x_t.
        t: (b,) times in [0, 1].
        kind: what the network predicts.

    Returns:
        Of the shape of `noisy`.

    Source: Salimans and Ho 2022, appendix D: v = alpha epsilon - sigma x0, x0 = alpha x_t - sigma v.
    """
    a, s = _per_sample(alpha(t), noisy), _per_sample(sigma(t), noisy)
    if kind == "x0":
        return output
    if kind == "epsilon":
        return (noisy - s * output) * _pseudo_inverse(a)
    return a * noisy - s * output


def training_target(x0: Tensor, noise: Tensor, t: Tensor, kind: Prediction) -> Tensor:
    """What the network is trained to say, from the noise itself: exact at both ends.

    The loss is the plain mean square of output - target. In terms of the error of x0 this weighs time t with 1
    (x0), alpha^2 / sigma^2 (epsilon) or 1 + alpha^2 / sigma^2 (v): only x0 and v learn from t = 1.

    Args:
        x0: (b, ...) data, standardised.
        noise: (b, ...) the standard normal noise that `add_noise` was given.
        t: (b,) times in [0, 1].
        kind: what the network is to predict.

    Returns:
        Of the shape of `x0`.

    Source: Salimans and Ho 2022, section 4 (weights) and appendix D (v).
    """
    if kind == "x0":
        return x0
    if kind == "epsilon":
        return noise
    return _per_sample(alpha(t), x0) * noise - _per_sample(sigma(t), x0) * x0


def _per_sample(values: Tensor, like: Tensor) -> Tensor:
    """Shape (b,) values so that they multiply (b, ...) tensors of the same type."""
    return values.to(like.dtype).reshape(-1, *[1] * (like.ndim - 1))


def _pseudo_inverse(divisor: Tensor) -> Tensor:
    """1 / divisor, and 0 where the divisor is 0."""
    return torch.where(divisor < _SMALLEST, 0.0, 1.0 / divisor.clamp_min(_SMALLEST))
