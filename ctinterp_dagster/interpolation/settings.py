"""How to sample."""

from dataclasses import dataclass
from typing import Literal

import torch

MixedPrecision = Literal["no", "bf16"]
ETA = {"ddim": 0.0, "ddpm": 1.0}
"""How much fresh noise a step adds. Source: Song, Meng and Ermon 2021, eq. 16."""


@dataclass(frozen=True)
class Settings:
    """How to sample.

    Attributes:
        sampler: ddim or ddpm.
        steps: network evaluations a sample.
        samples: how many to draw for the standard deviation; 0 for the mean alone, which needs none.
        seed: of the first sample; the next ones count up from it.
        memory_gib: bound of the networks' working memory.
        mixed_precision: bf16 has the networks multiply in bfloat16, which only processors with instructions for it do
            fast; what explains the measurement is in float32 all the same.
    """

    sampler: Literal["ddim", "ddpm"] = "ddim"
    steps: int = 8
    samples: int = 0
    seed: int = 0
    memory_gib: float = 3.0
    mixed_precision: MixedPrecision = "no"

    def autocast(self, device: torch.device) -> torch.autocast:
        """The context in which the networks run."""
        return torch.autocast(device.type, torch.bfloat16, enabled=self.mixed_precision == "bf16")
