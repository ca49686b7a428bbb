"""Pairs of latents, and the random patches of them that the denoiser is trained on."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from ctinterp_dagster.errors import ParamsError, TrainingError
from ctinterp_dagster.training.batches import Plan, seeded
from ctinterp_dagster.training.random_crops import at_least, integer, tensors_hash, window


@dataclass(frozen=True)
class LatentPair:
    """What the denoiser is shown of a case, and what it should say.

    Attributes:
        condition: (condition channel, z, y, x), standardised.
        target: (latent channel, z, y, x), standardised, on the same grid.
        case: its id.
    """

    condition: Tensor
    target: Tensor
    case: str = ""

    def __post_init__(self) -> None:
        """Refuse latents on different grids.

        Raises:
            TrainingError: the two differ in size or are not (channel, z, y, x).
        """
        if self.condition.ndim != 4 or self.target.ndim != 4 or self.condition.shape[1:] != self.target.shape[1:]:
            raise TrainingError(
                f"condition and target must be (channel, z, y, x) on one grid, got {tuple(self.condition.shape)} and "
                f"{tuple(self.target.shape)}: run the stage encode again"
            )


@dataclass(frozen=True)
class PatchSettings:
    """What a training patch is.

    Attributes:
        zyx: size in latent voxels; a shorter case is replicated at its far end.
        flip_axes: axes (0 = z, 1 = y, 2 = x) along which a patch is mirrored half of the time. A latent is not
            mirrored where its image is (MAISI pads strided convolutions at one end), so this is an approximation.
        one_step_share: share of samples at t = 1, where a one-step estimate is made; the others are uniform in t.
    """

    zyx: tuple[int, int, int]
    flip_axes: tuple[int, ...]
    one_step_share: float

    def __post_init__(self) -> None:
        """Refuse what is no patch.

        Raises:
            ParamsError: a size below 1, an axis beyond 2, or a share outside [0, 1].
        """
        if min(self.zyx) < 1 or not set(self.flip_axes) <= {0, 1, 2} or not 0.0 <= self.one_step_share <= 1.0:
            raise ParamsError(
                f"a patch has sizes >= 1, flip axes among 0, 1, 2 and a share in [0, 1], got {self}: correct the "
                "section latent"
            )


class LatentBatch(NamedTuple):
    """Patches with noise and times.

    Attributes:
        condition: (b, condition channel, z, y, x), standardised.
        target: (b, latent channel, z, y, x), standardised.
        noise: like target, standard normal.
        t: (b,) in [0, 1].
    """

    condition: Tensor
    target: Tensor
    noise: Tensor
    t: Tensor


class LatentPatches:
    """Random patches with noise and times."""

    def __init__(self, pairs: Sequence[LatentPair], patch: PatchSettings, batch_size: int) -> None:
        """Hold the cases in memory; each is drawn equally often.

        Args:
            pairs: one a case.
            patch: what a patch is.
            batch_size: patches a batch.

        Raises:
            TrainingError: there are no cases.
        """
        if not pairs:
            raise TrainingError("there is no case to train on: check the splits in cases.csv")
        self.patch = patch
        self.batch_size = batch_size
        self.pairs = [
            replace(p, condition=at_least(p.condition, patch.zyx), target=at_least(p.target, patch.zyx)) for p in pairs
        ]

    def plan(self, generator: torch.Generator) -> Plan[LatentBatch]:
        """Draw the patches, noise and times of one batch.

        Args:
            generator: on the CPU; all chance is its.

        Returns:
            Tensors (b, channel, *patch.zyx), and t (b,) in [0, 1].
        """
        patches = [self._draw_pair(generator) for _ in range(self.batch_size)]
        target = torch.stack([pair.target for pair in patches])
        noise = torch.randn(target.shape, generator=generator)
        share, t = torch.rand(2, self.batch_size, generator=generator)
        t = torch.where(share < self.patch.one_step_share, 1.0, t)
        condition = torch.stack([pair.condition for pair in patches])
        return Plan(tuple(pair.case for pair in patches), LatentBatch(condition, target, noise, t))

    def batch(self, plan: Plan[LatentBatch]) -> LatentBatch:
        """What the plan holds already: patches of latents are small."""
        return plan.parts

    def fixed(self, count: int, seed: int) -> list[LatentBatch]:
        """Batches that are always the same, with t on a grid from 1 / n to 1, for validation."""
        times = torch.linspace(0.0, 1.0, count * self.batch_size + 1)[1:].reshape(count, self.batch_size)
        return [self.plan(seeded(seed, index)).parts._replace(t=t) for index, t in enumerate(times)]

    def fingerprint(self) -> str:
        """A hash of the patch settings and of every latent."""
        return tensors_hash(repr(self.patch), [t for pair in self.pairs for t in (pair.condition, pair.target)])

    def _draw_pair(self, generator: torch.Generator) -> LatentPair:
        pair = self.pairs[integer(len(self.pairs), generator)]
        z, y, x = window(pair.target.shape[1:], self.patch.zyx, generator)
        flips = [axis + 1 for axis in self.patch.flip_axes if integer(2, generator)]
        condition, target = (latent[:, z, y, x].flip(flips) for latent in (pair.condition, pair.target))
        return replace(pair, condition=condition, target=target)
