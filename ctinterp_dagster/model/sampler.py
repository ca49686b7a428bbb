"""From noise to data: DDIM and DDPM on one page."""

import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ctinterp_dagster.errors import ParamsError
from ctinterp_dagster.model.diffusion import alpha, sigma


@torch.inference_mode()
def sample(
    predict_x0: Callable[[Tensor, Tensor], Tensor],
    shape: Sequence[int],
    *,
    steps: int,
    seeds: Sequence[int],
    eta: float = 0.0,
    consistency: Callable[[Tensor], Tensor] | None = None,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Draw one sample a seed; sample i depends on seed i only, not on its neighbours in the batch.

    One step answers with predict_x0(noise, 1), which is the posterior mean for a perfect denoiser, because x_1 is
    pure noise. More steps give sharper samples of the posterior.

    Args:
        predict_x0: estimates x0 (b, *shape) from x_t (b, *shape) and t (b,).
        shape: shape of one sample, e.g. (channel, z, y, x).
        steps: number of evaluations of `predict_x0`, at equally spaced t from 1 down to 1 / steps.
        seeds: one a sample; all noise is drawn on the CPU.
        eta: 0 is DDIM (deterministic given its first noise), 1 is DDPM (ancestral), between is between.
        consistency: applied to each estimate of x0, e.g. a projection on what was measured.
        device: where `predict_x0` wants its arguments.

    Returns:
        (len(seeds), *shape) float32.

    Raises:
        ParamsError: no steps, no seeds, or eta outside [0, 1].

    Source: Song, Meng and Ermon 2021, eq. 12 (update) and eq. 16 (eta); Ho et al. 2020, eq. 7 (eta = 1).
    """
    if steps < 1 or not seeds or not 0.0 <= eta <= 1.0:
        raise ParamsError(
            f"a sampler needs steps >= 1, at least one seed and eta in [0, 1], got steps={steps}, "
            f"{len(seeds)} seeds, eta={eta}: correct the sampling parameters"
        )
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def noise() -> Tensor:
        return torch.stack([torch.randn(*shape, generator=generator) for generator in generators]).to(device)

    times = torch.linspace(1.0, 0.0, steps + 1, dtype=torch.float64)
    x = noise()
    for now, after in itertools.pairwise(times):
        x0 = predict_x0(x, now.float().expand(len(seeds)).to(device))
        x0 = consistency(x0) if consistency else x0
        if after == 0:
            return x0
        a, s, a_next, s_next = (float(value) for value in (alpha(now), sigma(now), alpha(after), sigma(after)))
        fresh = eta * (s_next / s) * max(0.0, 1.0 - (a / a_next) ** 2) ** 0.5
        x = a_next * x0 + max(0.0, s_next**2 - fresh**2) ** 0.5 * (x - a * x0) / s
        if fresh > 0:
            x = x + fresh * noise()
    raise AssertionError("the last time is 0")
