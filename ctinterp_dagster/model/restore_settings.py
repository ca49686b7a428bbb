"""How to sample, and what a processor is quickest in."""

from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from ctinterp_dagster.errors import ParamsError
from ctinterp_dagster.model import quantized
from ctinterp_dagster.model.sampler import Sampler

MixedPrecision = Literal["no", "bf16", "int8"]
Precision = MixedPrecision | Literal["auto"]


@dataclass(frozen=True)
class Settings:
    """How to sample.

    Attributes:
        sampler: adams (second order), ddim, or ddpm, which alone draws new noise at each step.
        steps: network evaluations a sample; None for as many as the model takes, 8 or, where it can, 1.
        samples: how many to draw for the standard deviation; 0 for the mean alone, which needs none.
        seed: of the first sample; the next ones count up from it.
        memory_gib: bound of the networks' working memory.
        mixed_precision: bf16 has the networks multiply in bfloat16, and int8 the blocks of the null-space model's
            networks in eight bits, all else in bfloat16; only processors with instructions for it do that fast. What
            explains the measurement is in float32 all the same.
        mirror: True has the null-space model look at the scan and at its mirror image for the mean; False is one pass,
            the plain regression that tables compare with.
    """

    sampler: Sampler = "adams"
    steps: int | None = None
    samples: int = 0
    seed: int = 0
    memory_gib: float = 3.0
    mixed_precision: MixedPrecision = "no"
    mirror: bool = True

    def __post_init__(self) -> None:
        """Refuse what no network computes in, and seeds that torch does not take.

        Raises:
            ParamsError: there is no such precision, or the seed has more than 63 bits.
        """
        if self.mixed_precision not in get_args(MixedPrecision):
            raise ParamsError(f"mixed_precision is {self.mixed_precision!r}: expected no, bf16, int8 or auto")
        if not abs(self.seed) + self.samples < 2**63:
            raise ParamsError(f"the seed is {self.seed}: expected a whole number of at most 63 bits")

    def autocast(self, device: torch.device) -> torch.autocast:
        """The context in which the networks run."""
        return torch.autocast(device.type, torch.bfloat16, enabled=self.mixed_precision != "no")


class Prior(NamedTuple):
    """What is known of the variance before samples tell of it.

    Attributes:
        variance: (z, y, x) HU squared.
        samples: how many samples it is worth.
    """

    variance: Tensor
    samples: int


def quickest_precision(device: torch.device) -> MixedPrecision:
    """What the networks of the null-space model compute fastest in on a device; docs/performance.md has its loss."""
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "no"
    if quantized.is_exact():
        return "int8"
    known = torch.cpu.get_capabilities()
    return "bf16" if known.get("avx512_bf16") or known.get("amx_bf16") else "no"
