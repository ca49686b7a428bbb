"""How to sample."""

from dataclasses import dataclass
from typing import Literal

import torch

from ctinterp_dagster.model.sampler import Sampler

MixedPrecision = Literal["no", "bf16"]


@dataclass(frozen=True)
class Settings:
    """How to sample.

    Attributes:
        sampler: adams, ddim or ddpm, see `model.sampler.sample`.
        steps: network evaluations a sample.
        samples: how many to draw for the standard deviation; 0 for the mean alone, which needs none.
        seed: of the first sample; the next ones count up from it.
        memory_gib: bound of the networks' working memory.
        mixed_precision: bf16 has the networks multiply in bfloat16, which only processors with instructions for it do
            fast; what explains the measurement is in float32 all the same.
        mirror: True has the null-space model look at the scan and at its mirror image for the mean; False is one pass,
            the plain regression that tables compare with.
    """

    sampler: Sampler = "adams"
    steps: int = 8
    samples: int = 0
    seed: int = 0
    memory_gib: float = 3.0
    mixed_precision: MixedPrecision = "no"
    mirror: bool = True

    def autocast(self, device: torch.device) -> torch.autocast:
        """The context in which the networks run."""
        return torch.autocast(device.type, torch.bfloat16, enabled=self.mixed_precision == "bf16")
