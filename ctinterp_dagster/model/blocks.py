"""What the networks are made of, whatever they do."""

import itertools
import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from ctinterp_dagster.errors import ParamsError

TIME_FEATURES = 64


class ResidualUnit(nn.Module):
    """A block of any network, as large as what a training computes again on the way back, or compiles."""


def pixel_norm(x: Tensor) -> Tensor:
    """Scale each voxel's channel vector to unit mean square; looks at no other voxel.

    Group norm would see the whole patch, and a network trained on patches would behave differently on a volume.

    Args:
        x: (b, channel, ...).

    Returns:
        The same shape and type.

    Source: Karras et al. 2018, section 4.2; computed as in Karras et al. 2024 (EDM2), eq. 30.
    """
    norm: Tensor = torch.linalg.vector_norm(x, dim=1, keepdim=True, dtype=torch.float32)
    return x / (norm / math.sqrt(x.shape[1]) + 1e-4).to(x.dtype)


def activated(x: Tensor) -> Tensor:
    """Norm over the channels, then SiLU, of (b, channels, z, y, x); what a block convolves."""
    return silu(pixel_norm(x))


def silu(fresh: Tensor) -> Tensor:
    """SiLU of a tensor of any shape that nobody else reads: in its place unless gradients are asked for."""
    return functional.silu(fresh, inplace=not torch.is_grad_enabled())


def time_features(t: Tensor) -> Tensor:
    """Sines and cosines of t (b,) in [0, 1] at octaves of half a turn to 1000 turns.

    Args:
        t: (b,) times in [0, 1].

    Returns:
        (b, 64), sines first.

    Source: Vaswani et al. 2017, section 3.5, as Ho et al. 2020 use it for time.
    """
    frequencies = torch.logspace(math.log10(0.5), 3.0, TIME_FEATURES // 2, dtype=torch.float32, device=t.device)
    phase = 2.0 * math.pi * t.float()[:, None] * frequencies
    return torch.cat([phase.sin(), phase.cos()], dim=1)


def zero_init(module: nn.Module) -> None:
    """Set all weights to zero, so that a residual branch starts as the identity and a network by adding nothing."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)


def check_widths(network: str, where: str, widths: Mapping[str, int | tuple[int, ...]]) -> None:
    """Refuse a network with less than one channel, block or level.

    Args:
        network: what it is, for the message.
        where: the sections of params.yaml that say its widths.
        widths: its numbers of channels and blocks by name, and a tuple of one for each level.

    Raises:
        ParamsError: a number is not positive, or a tuple is empty.
    """
    levels = [width if isinstance(width, tuple) else (width,) for width in widths.values()]
    if not all(levels) or min(itertools.chain(*levels)) < 1:
        got = ", ".join(f"{name}={width}" for name, width in widths.items())
        raise ParamsError(f"{network} needs positive widths, got {got}: correct {where}")
