"""From noise to data: DDPM, DDIM, and DDIM's equation solved to second order."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from ctinterp_dagster.errors import ParamsError
from ctinterp_dagster.model.diffusion import alpha, shifted, sigma

Sampler = Literal["adams", "ddim", "ddpm"]


@torch.inference_mode()
def sample(
    predict_x0: Callable[[Tensor, Tensor], Tensor],
    shape: Sequence[int],
    *,
    steps: int,
    seeds: Sequence[int],
    sampler: Sampler = "adams",
    shift: float = 1.0,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Draw one sample a seed; sample i depends on seed i only, not on its neighbours in the batch.

    One step answers with predict_x0(noise, 1), which is the posterior mean for a perfect denoiser, because x_1 is
    pure noise. More steps give sharper samples of the posterior. In few steps DDIM and DDPM lose variance: of data
    of unit variance, eight steps of DDIM keep a deviation of cos(pi / 16)^8 = 0.86, of adams 0.98.

    Args:
        predict_x0: estimates x0 (b, *shape) from x_t (b, *shape) and t (b,).
        shape: shape of one sample, e.g. (channel, z, y, x).
        steps: number of evaluations of `predict_x0`.
        seeds: one a sample; all noise is drawn on the CPU.
        sampler: ddim and adams are deterministic given their first noise: ddim follows the arc from one time to the
            next, adams the same differential equation with two steps' slopes. ddpm is ancestral.
        shift: times are equally spaced from 1 down to 1 / steps, then shifted by this.
        device: where `predict_x0` wants its arguments.

    Returns:
        (len(seeds), *shape) float32.

    Raises:
        ParamsError: no steps or no seeds.

    Source: Song, Meng and Ermon 2021, eq. 12 (update) and eq. 16 (sigma of ddpm); Salimans and Ho 2022, appendix D
        (v is the slope of x over the angle); Hairer, Norsett and Wanner 1993, section III.5 (Adams-Bashforth with
        unequal steps).
    """
    if steps < 1 or not seeds:
        raise ParamsError(
            f"a sampler needs steps >= 1 and at least one seed, got steps={steps}, {len(seeds)} seeds: correct the "
            "sampling parameters"
        )
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def noise() -> Tensor:
        return torch.stack([torch.randn(*shape, generator=generator) for generator in generators]).to(device)

    times = shifted(torch.linspace(1.0, 0.0, steps + 1, dtype=torch.float64), shift)
    x, slope, last = noise(), None, 0.0
    for now, after in itertools.pairwise(times):
        x0 = predict_x0(x, now.float().expand(len(seeds)).to(device))
        if after == 0:
            return x0
        angle, goal = _angle(now), _angle(after)
        if sampler == "adams":
            v = (math.cos(angle) * x - x0) / math.sin(angle)
            turn = angle - goal
            x = x - turn * (v if slope is None else v + turn / (2.0 * last) * (v - slope))
            slope, last = v, turn
        else:
            x = _arc(x, x0, angle, goal, noise if sampler == "ddpm" else None)
    raise AssertionError("the last time is 0")


def _angle(t: Tensor) -> float:
    """Whose cosine is the share of the signal and whose sine that of the noise."""
    return math.atan2(float(sigma(t)), float(alpha(t)))


def _arc(x: Tensor, x0: Tensor, angle: float, goal: float, noise: Callable[[], Tensor] | None) -> Tensor:
    """X at another angle, x0 and the noise that it holds taken for true; or some of the noise drawn anew."""
    a, s, a_goal, s_goal = math.cos(angle), math.sin(angle), math.cos(goal), math.sin(goal)
    fresh = s_goal / s * max(0.0, 1.0 - (a / a_goal) ** 2) ** 0.5 if noise else 0.0
    x = a_goal * x0 + max(0.0, s_goal**2 - fresh**2) ** 0.5 * (x - a * x0) / s
    return x + fresh * noise() if noise else x
