"""What random crops of volumes and latents are made with."""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional


def integer(below: int, generator: torch.Generator) -> int:
    """A random integer in [0, below)."""
    return int(torch.randint(below, (), generator=generator))


def uniform(low: float, high: float, generator: torch.Generator) -> float:
    """A random number in [low, high), drawn from the generator on the CPU."""
    return low + (high - low) * float(torch.rand((), generator=generator))


def window(size: Sequence[int], patch: Sequence[int], generator: torch.Generator) -> list[slice]:
    """A random window inside a grid.

    Args:
        size: of the grid, any number of axes.
        patch: of the window, at most the grid's.
        generator: on the CPU; one draw an axis.

    Returns:
        Slices, one an axis.
    """
    firsts = [integer(n - p + 1, generator) for n, p in zip(size, patch, strict=True)]
    return [slice(first, first + p) for first, p in zip(firsts, patch, strict=True)]


def at_least(tensor: Tensor, size_zyx: Sequence[int]) -> Tensor:
    """A (channel, z, y, x) tensor of at least this size: the far end of a shorter axis is replicated."""
    z, y, x = (max(0, wanted - n) for wanted, n in zip(size_zyx, tensor.shape[1:], strict=True))
    return functional.pad(tensor, (0, x, 0, y, 0, z), mode="replicate") if z or y or x else tensor


def tensors_hash(settings: str, tensors: Sequence[Tensor]) -> str:
    """SHA-256 in hexadecimal of settings and of tensors with their shapes, whatever their order in memory.

    Args:
        settings: any text, hashed as UTF-8.
        tensors: on the CPU, of types that NumPy knows.

    Returns:
        64 digits.
    """
    digest = hashlib.sha256(settings.encode())
    for tensor in tensors:
        digest.update(repr(tuple(tensor.shape)).encode())
        digest.update(tensor.contiguous().numpy().data)
    return digest.hexdigest()
