"""Training of the null-space model: first what to expect, then the diffusion around it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from ctinterp_dagster.model.forward_process import add_noise, training_target
from ctinterp_dagster.nullspace.diffusion import (
    Expectation,
    NullSpaceDiffusion,
    denoiser_inputs,
    random_times,
    standardised,
)
from ctinterp_dagster.nullspace.slabs import SlabBatch, SlabParts, ThickSlabs
from ctinterp_dagster.nullspace.units import INPUT, coefficient_to_input, input_to_coefficient
from ctinterp_dagster.scan.window import MAISI, SOFT_TISSUE
from ctinterp_dagster.training.batches import Plan, seeded

# The windows that are reported, in the unit of inputs.
WIDE_WINDOW, SOFT_WINDOW = (
    (INPUT.from_hu(window.low_hu), INPUT.from_hu(window.high_hu)) for window in (MAISI, SOFT_TISSUE)
)
SHOWN_TIMES = tuple(n / 10 for n in range(1, 10))


@dataclass(frozen=True)
class LossWeights:
    """Weights of the parts of the expectation's loss, errors in units of 1000 HU.

    Attributes:
        wide: mean square error in [-1000, 1000] HU.
        soft_tissue: mean square error in the soft-tissue window.
        absolute: mean absolute error.
        spread: negative log likelihood of the spread.
    """

    wide: float
    soft_tissue: float
    absolute: float
    spread: float


class ExpectationObjective(nn.Module):
    """Mean square error in the windows that are reported, a little L1, and the likelihood of the spread.

    Errors count a voxel of the thin volume, clipped to the window as in evaluation; the soft-tissue window, whose mean
    square error is a fifth, weighs as much: it follows what the wide one learns (docs/experiments.md, entry 8).

    Source: the spread by Gaussian negative log likelihood around a mean that it does not move, Nix and
        Weigend 1994, eq. 4.
    """

    def __init__(self, network: Expectation, weights: LossWeights) -> None:
        super().__init__()
        self.network, self.weights = network, weights

    def forward(self, *tensors: Tensor) -> Tensor:
        """The loss of a `SlabBatch`: the sum of the weighted parts."""
        batch = SlabBatch(*tensors)
        base, truth = batch.base, batch.truth
        mean, log_spread = (part.float() for part in self.network(batch.features, batch.geometry))
        with torch.autocast(base.device.type, enabled=False):
            added = coefficient_to_input(batch.basis @ mean.flatten(1, 2).flatten(2))
            estimate = base + added.unflatten(2, base.shape[2:])
            real = batch.basis.abs().sum(dim=2) > 0  # thin slices that exist
            share = real.numel() / real.sum()
            wide = (estimate.clamp(*WIDE_WINDOW) - truth.clamp(*WIDE_WINDOW)).square().mean()
            soft = (estimate.clamp(*SOFT_WINDOW) - truth.clamp(*SOFT_WINDOW)).square().mean()
            absolute = (estimate - truth).abs().mean()
            true, known = true_coefficients(base, truth, batch.analysis, mean.shape[1])
            z = (true - mean.detach()) / log_spread.exp()
            likelihood = ((log_spread + 0.5 * z.square()) * known).sum() / known.expand_as(z).sum()
            weights = self.weights
            fit = weights.wide * wide + weights.soft_tissue * soft + weights.absolute * absolute
            loss: Tensor = share * fit + weights.spread * likelihood
            return loss


class TrueCoefficients(NamedTuple):
    """The target of the networks.

    Attributes:
        values: (b, modes, z, y, x) in units of 100 HU.
        known: 0 and 1, which of them exist, (b, modes, z, 1, 1).
    """

    values: Tensor
    known: Tensor


def true_coefficients(base: Tensor, truth: Tensor, analysis: Tensor, modes: int) -> TrueCoefficients:
    """The coefficients that restore the truth.

    Args:
        base: (b, n, y, x), up(y) in units of 1000 HU.
        truth: the same shape and unit.
        analysis: (b, modes z, n), B^+.
        modes: coefficients a thick voxel.

    Returns:
        Coefficients of thin slices that exist; 0 of others.

    Source: least squares by the pseudo-inverse, Penrose 1956, On best approximate solutions of linear matrix
        equations.
    """
    flat = input_to_coefficient(analysis @ (truth - base).flatten(2))
    coefficients = flat.unflatten(1, (modes, -1)).unflatten(3, base.shape[2:])
    known = (analysis.abs().sum(dim=2) > 0).unflatten(1, (modes, -1))[..., None, None]
    return TrueCoefficients(coefficients, known.to(flat.dtype))


class Untrained:
    """A model that a module uses and does not train: none of the module's parameters, state or average."""

    def __init__(self, model: NullSpaceDiffusion) -> None:
        self._model = model

    def on(self, device: torch.device) -> NullSpaceDiffusion:
        """The model, moved to a device."""
        return self._model.to(device)


class NullSpaceObjective(nn.Module):
    """Mean square error of what the denoiser predicts of the standardised coefficients; the expectation stays as it is.

    Source: Ho et al. 2020, eq. 14; weights over time as in `diffusion.training_target`.
    """

    def __init__(self, model: NullSpaceDiffusion) -> None:
        super().__init__()
        self.denoiser = model.denoiser
        self.model = Untrained(model)

    def forward(self, *tensors: Tensor) -> Tensor:
        """The loss of a `NoisyBatch`: the mean square over the coefficients that count."""
        batch = NoisyBatch(*tensors)
        return self.loss(self.clean(batch), batch.geometry, batch.noise, batch.t)

    @torch.no_grad()
    def clean(self, batch: "NoisyBatch") -> "Clean":
        """What the denoiser is to find of a batch, and what it sees of it beside the noise."""
        model = self.model.on(batch.features.device)
        mean, log_spread = (part.float() for part in model.expectation(batch.features, batch.geometry))
        with torch.autocast(batch.features.device.type, enabled=False):
            true, known = true_coefficients(batch.base, batch.truth, batch.analysis, mean.shape[1])
            e = standardised(true, mean, log_spread) * known
        return Clean(e, known, denoiser_inputs(batch.features, mean, log_spread))

    def loss(self, clean: "Clean", geometry: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """The loss at some noise.

        Args:
            clean: of a batch.
            geometry: (b, GEOMETRY), of each slab.
            noise: (b, modes, z, y, x), standard normal.
            t: (b,) in [0, 1].

        Returns:
            A number, the mean square over the coefficients that count.
        """
        model = self.model.on(noise.device)
        output = model.denoise(add_noise(clean.e, noise, t), clean.inputs, geometry, t)
        target = training_target(clean.e, noise, t, model.config.prediction)
        loss = functional.mse_loss(output.float(), target, reduction="none") * clean.known
        return loss.sum() / clean.known.expand_as(loss).sum()


class Clean(NamedTuple):
    """A batch without noise.

    Attributes:
        e: the standardised coefficients, (b, modes, z, y, x).
        known: 0 and 1, which of them count, (b, modes, z, 1, 1).
        inputs: what the denoiser sees beside the noisy ones, (b, features + 2 modes, z, y, x).
    """

    e: Tensor
    known: Tensor
    inputs: Tensor


@torch.no_grad()
def loss_by_time(objective: NullSpaceObjective, batches: Sequence["NoisyBatch"]) -> list[dict[str, float]]:
    """Mean loss at each of nine times: at which level of noise does the denoiser know something?

    Predicting nothing has a loss near 1 at every time, for v as for x0.

    Args:
        objective: of the trained model.
        batches: what `NoisySlabs.fixed` gives; their own times are not used.

    Returns:
        Nine rows of `t` and `loss`.
    """
    device = next(objective.parameters()).device
    losses = []
    for batch in batches:
        here = NoisyBatch(*(part.to(device) for part in batch))
        clean, times = objective.clean(here), (torch.full_like(here.t, time) for time in SHOWN_TIMES)
        at_times = [objective.loss(clean, here.geometry, here.noise, t) for t in times]
        losses.append(torch.stack(at_times).double())
    means = torch.stack(losses).mean(dim=0).tolist()
    return [{"t": t, "loss": loss} for t, loss in zip(SHOWN_TIMES, means, strict=True)]


class NoisyParts(NamedTuple):
    """What a batch of `NoisySlabs` is made of: slabs, noise (b, modes, z, y, x) and times (b,)."""

    slabs: SlabParts
    noise: Tensor
    t: Tensor


class NoisyBatch(NamedTuple):
    """Parts of `SlabBatch`, with standard normal noise (b, modes, z, y, x) and times (b,) in [0, 1]."""

    features: Tensor
    geometry: Tensor
    base: Tensor
    truth: Tensor
    analysis: Tensor
    noise: Tensor
    t: Tensor


class NoisySlabs:
    """What `ThickSlabs` makes, with noise and times."""

    def __init__(self, slabs: ThickSlabs, modes: int) -> None:
        self.slabs, self.modes = slabs, modes

    def plan(self, generator: torch.Generator) -> Plan[NoisyParts]:
        """The chance of one batch."""
        slabs = self.slabs.plan(generator)
        count = len(slabs.cases)
        noise = torch.randn(count, self.modes, *self.slabs.slab.zyx, generator=generator)
        return Plan(slabs.cases, NoisyParts(slabs.parts, noise, random_times(count, generator)))

    def batch(self, plan: Plan[NoisyParts]) -> NoisyBatch:
        """The batch of a plan, on the device where the plan is."""
        parts = plan.parts
        slabs = self.slabs.batch(Plan(plan.cases, parts.slabs))
        return NoisyBatch(slabs.features, slabs.geometry, slabs.base, slabs.truth, slabs.analysis, parts.noise, parts.t)

    def fixed(self, count: int, seed: int) -> list[NoisyBatch]:
        """Batches that are always the same, for validation."""
        return [self.batch(self.plan(seeded(seed, index))) for index in range(count)]

    def fingerprint(self) -> str:
        """A hash of the settings of the slabs, and of every volume's shape and middle slice."""
        return self.slabs.fingerprint()
