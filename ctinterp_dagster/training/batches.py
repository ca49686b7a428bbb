"""Where training batches come from: all chance of a batch is drawn first, then the batch is made where it is used."""

from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch
from accelerate.utils import recursively_apply, send_to_device
from torch import Tensor

Parts = TypeVar("Parts", bound=tuple[Any, ...])
Batch = tuple[Tensor, ...]
"""A named tuple of the arguments of an objective's `forward`."""


@dataclass(frozen=True)
class Plan(Generic[Parts]):
    """All of a batch that chance decides, before it is made.

    Attributes:
        cases: that the batch is of.
        parts: what `Batches.batch` makes it of, a named tuple of tensors.
    """

    cases: tuple[str, ...]
    parts: Parts

    def to(self, device: torch.device) -> "Plan[Parts]":
        """The plan with its tensors on a device; a copy from pinned memory does not wait."""
        return Plan(self.cases, send_to_device(self.parts, device, non_blocking=True))

    def pinned(self) -> "Plan[Parts]":
        """In memory from which a GPU copies beside its other work."""
        return Plan(self.cases, recursively_apply(Tensor.pin_memory, self.parts))


class Batches(Protocol[Parts]):
    """Where training batches come from."""

    def plan(self, generator: torch.Generator) -> Plan[Parts]:
        """The chance of one batch, on the CPU, all of it from the generator."""

    def batch(self, plan: Plan[Parts]) -> Batch:
        """The batch of a plan, on the device where the plan is."""

    def fingerprint(self) -> str:
        """A hash of the data, by which a checkpoint knows its own run."""


def seeded(*keys: int) -> torch.Generator:
    """A CPU generator for a tuple of keys; different tuples give unrelated streams.

    Args:
        *keys: integers from 0.

    Returns:
        A new generator.

    Source: NumPy's SeedSequence (O'Neill 2015).
    """
    return torch.Generator().manual_seed(
        int(np.random.SeedSequence(keys).generate_state(1, np.uint64)[0] >> np.uint64(1))
    )
