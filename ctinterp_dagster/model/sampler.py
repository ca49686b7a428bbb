"""From noise to data: DDPM, DDIM, and DDIM's equation solved to second order."""

import itertools
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, get_args

import torch
from torch import Tensor

from ctinterp_dagster.errors import ParamsError
from ctinterp_dagster.model.files import StoredModel
from ctinterp_dagster.model.forward_process import alpha, shifted, sigma

Sampler = Literal["adams", "ddim", "ddpm"]
Step = Callable[[Tensor, Tensor, float, float], Tensor]
"""The state, the estimate of x0, the angle that they belong to, and the next angle; gives the state there."""
USUAL_STEPS = 8


class Diffusion(StoredModel):
    """A stored model that draws samples."""

    @property
    def usual_steps(self) -> int:
        """Network evaluations that a sample takes unless others are asked for."""
        return USUAL_STEPS


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
        sampler: `ddim`, `adams` (Adams-Bashforth) or `ddpm`; the first two are deterministic given their first noise.
        shift: times are equally spaced from 1 down to 1 / steps, then shifted by this.
        device: where `predict_x0` wants its arguments.

    Returns:
        (len(seeds), *shape) float32.

    Raises:
        ParamsError: no steps, no seeds, or no such sampler.
    """
    if sampler not in get_args(Sampler):
        raise ParamsError(f"sampler {sampler}: expected one of {', '.join(get_args(Sampler))}")
    if steps < 1 or not seeds:
        raise ParamsError(
            f"a sampler needs steps >= 1 and at least one seed, got steps={steps}, {len(seeds)} seeds: correct the "
            "sampling parameters"
        )
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def noise() -> Tensor:
        return torch.stack([torch.randn(*shape, generator=generator) for generator in generators]).to(device)

    steps_by: dict[Sampler, Step] = {"adams": AdamsBashforth(), "ddim": ddim, "ddpm": partial(ddpm, noise=noise)}
    return solved(predict_x0, noise(), steps_by[sampler], steps=steps, shift=shift)


def solved(
    predict_x0: Callable[[Tensor, Tensor], Tensor], noise: Tensor, step: Step, *, steps: int, shift: float
) -> Tensor:
    """What becomes of some noise.

    Args:
        predict_x0: estimates x0 (b, ...) from x_t (b, ...) and t (b,).
        noise: (b, ...), standard normal.
        step: from one time to the next.
        steps: number of evaluations of `predict_x0`.
        shift: times are equally spaced from 1 down to 1 / steps, then shifted by this.

    Returns:
        The estimate of x0 at the last time, (b, ...).
    """
    x = noise

    def x0_at(t: Tensor) -> Tensor:
        return predict_x0(x, t.float().expand(len(x)).to(x.device))

    times = shifted(torch.linspace(1.0, 0.0, steps + 1, dtype=torch.float64), shift)[:-1]
    for t, after in itertools.pairwise(times):
        x = step(x, x0_at(t), angle(t), angle(after))
    return x0_at(times[-1])


def angle(t: Tensor) -> float:
    """The angle phi of a time, one number: alpha = cos phi is the signal's share, sigma = sin phi the noise's.

    Args:
        t: one time in [0, 1].

    Returns:
        Radians, from 0 at t = 0 to pi / 2 at t = 1.

    Source: Salimans and Ho 2022, appendix D.
    """
    return math.atan2(float(sigma(t)), float(alpha(t)))


def ddim(x: Tensor, x0: Tensor, phi: float, after: float, fresh: float = 0.0) -> Tensor:
    """The state at the angle `after`, with x0 and the noise that is in x; less where fresh noise is to be added.

    Args:
        x: the state, of any shape.
        x0: what the network takes for the clean sample, the same shape.
        phi: the angle of the state, above `after`.
        after: the angle of the result, in radians from 0.
        fresh: standard deviation of the noise that is to be added.

    Returns:
        Of the shape of `x`; fresh noise is not in it yet.

    Source: Song, Meng and Ermon 2021, eq. 12 without its last term, whose sigma_t is `fresh`.
    """
    kept = math.sqrt(max(0.0, math.sin(after) ** 2 - fresh**2))
    return math.cos(after) * x0 + kept * (x - math.cos(phi) * x0) / math.sin(phi)


def ddpm(x: Tensor, x0: Tensor, phi: float, after: float, noise: Callable[[], Tensor]) -> Tensor:
    """The ancestral step: as much fresh noise as the forward process added between the two.

    Args:
        x: the state, of any shape.
        x0: what the network takes for the clean sample, the same shape.
        phi: the angle of the state, above `after`.
        after: the angle of the result, in radians from 0.
        noise: draws standard normal noise of the shape of x.

    Returns:
        Of the shape of `x`, with its fresh noise.

    Source: Song, Meng and Ermon 2021, eq. 12 and 16 with eta = 1.
    """
    ratio = math.cos(phi) / math.cos(after)
    fresh = math.sin(after) / math.sin(phi) * math.sqrt(max(0.0, 1.0 - ratio**2))
    return ddim(x, x0, phi, after, fresh) + fresh * noise()


class AdamsBashforth:
    """DDIM's differential equation, dx / dphi = v, with the slopes of two steps, which may be unequal.

    Source: Salimans and Ho 2022, appendix D (v); Hairer, Norsett and Wanner 1993, section III.5.
    """

    def __init__(self) -> None:
        """No step was made: the first is Euler's."""
        self._last: tuple[Tensor, float] | None = None

    def __call__(self, x: Tensor, x0: Tensor, phi: float, after: float) -> Tensor:
        """The state at the angle `after`.

        Args:
            x: the state at `phi`, of any shape.
            x0: the estimate there, like `x`.
            phi: angle in radians, from pi / 2 (noise) down.
            after: the next one, below `phi`.

        Returns:
            Of the shape of `x`.
        """
        v = (math.cos(phi) * x - x0) / math.sin(phi)
        turn = phi - after
        slope, last = self._last or (v, turn)
        self._last = v, turn
        return x - turn * (v + turn / (2.0 * last) * (v - slope))
