"""The network that is learned: a conditional 3D U-Net in latent space, local in all that it does."""

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from ctinterp_dagster.model.blocks import (
    TIME_FEATURES,
    ResidualUnit,
    check_widths,
    pixel_norm,
    time_features,
    zero_init,
)
from ctinterp_dagster.model.tiles import Reach

LIVE_TENSORS = 14
"""Tensors of the finest level's width that a forward pass holds at its peak; 9 to 13 measured in float32 on a CPU."""


class Block(ResidualUnit):
    """Residual block: a 3x3x3 and a 1x1x1 convolution, modulated by time (FiLM).

    One wide convolution a block keeps the receptive field, and with it the halo of tiles, small.

    Source: He et al. 2016, fig. 4e (pre-activation); Perez et al. 2018, eq. 2 (FiLM).
    """

    def __init__(self, channels: int, time_channels: int) -> None:
        super().__init__()
        self.film = nn.Linear(time_channels, 2 * channels)
        self.wide = nn.Conv3d(channels, channels, 3, padding=1)
        self.narrow = nn.Conv3d(channels, channels, 1)
        zero_init(self.narrow)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """(b, channels, z, y, x) and (b, time_channels) -> (b, channels, z, y, x)."""
        scale, shift = self.film(time)[:, :, None, None, None].chunk(2, dim=1)
        h = functional.silu(torch.addcmul(shift, pixel_norm(x), 1.0 + scale))
        change: Tensor = self.narrow(functional.silu(self.wide(h)))
        return x + change


class Level(nn.ModuleList):
    """Blocks in a row at one resolution."""

    def __init__(self, channels: int, time_channels: int, blocks: int) -> None:
        super().__init__(Block(channels, time_channels) for _ in range(blocks))

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """(b, channels, z, y, x) and (b, time_channels) -> (b, channels, z, y, x)."""
        for block in self:
            x = block(x, time)
        return x


class Denoiser(nn.Module):
    """Conditional 3D U-Net: what it says of a noisy latent, given a condition of the same size.

    Any size works: inputs are padded by replication at the far end of each axis to a multiple of 2^(levels - 1),
    and the output is cropped. An untrained network answers 0.

    Args:
        latent_channels: channels of the noisy latent and of the output.
        condition_channels: channels of the condition.
        channels: width of each level; each level halves the resolution of the one above along every axis.
        blocks: residual blocks a level, on the way down and again on the way up.

    Raises:
        ParamsError: a width, a channel count or the number of blocks is not positive.

    Source: Ho et al. 2020, appendix B (U-Net with time); Saharia et al. 2023 (SR3), section 2 (concatenated condition).
    """

    def __init__(
        self, latent_channels: int, condition_channels: int, channels: Sequence[int] = (32, 64, 128), blocks: int = 2
    ) -> None:
        super().__init__()
        check_widths(
            "a denoiser",
            "the section latent",
            {
                "latent_channels": latent_channels,
                "condition_channels": condition_channels,
                "channels": tuple(channels),
                "blocks": blocks,
            },
        )
        time = 4 * channels[0]
        self.multiple = 2 ** (len(channels) - 1)
        self.reach = Reach((_halo(len(channels), blocks),) * 3, (self.multiple,) * 3, 4 * channels[0] * LIVE_TENSORS)
        self.time = nn.Sequential(nn.Linear(TIME_FEATURES, time), nn.SiLU(), nn.Linear(time, time), nn.SiLU())
        self.conv_in = nn.Conv3d(latent_channels + condition_channels, channels[0], 3, padding=1)
        pairs = list(itertools.pairwise(channels))
        self.encode = nn.ModuleList(Level(width, time, blocks) for width in channels[:-1])
        self.down = nn.ModuleList(nn.Conv3d(fine, coarse, 2, stride=2) for fine, coarse in pairs)
        self.bottom = Level(channels[-1], time, 2 * blocks)
        self.up = nn.ModuleList(nn.Conv3d(coarse, fine, 1) for fine, coarse in pairs)
        self.decode = nn.ModuleList(Level(width, time, blocks) for width in channels[:-1])
        self.conv_out = nn.Conv3d(channels[0], latent_channels, 3, padding=1)
        zero_init(self.conv_out)

    def forward(self, noisy: Tensor, condition: Tensor, t: Tensor) -> Tensor:
        """Predict x0, epsilon or v, as trained.

        Args:
            noisy: (b, latent_channels, z, y, x) x_t.
            condition: (b, condition_channels, z, y, x).
            t: (b,) times in [0, 1].

        Returns:
            (b, latent_channels, z, y, x).
        """
        size = noisy.shape[2:]
        missing = [-n % self.multiple for n in size]
        x = torch.cat([noisy, condition], dim=1)
        x = functional.pad(x, (0, missing[2], 0, missing[1], 0, missing[0]), mode="replicate")
        x = x.contiguous(memory_format=torch.channels_last_3d)  # twice as fast on a CPU
        time = self.time(time_features(t).to(noisy.dtype))
        x = self.conv_in(x)
        skips = []
        for level, down in zip(self.encode, self.down, strict=True):
            x = level(x, time)
            skips.append(x)
            x = down(x)
        x = self.bottom(x, time)
        for level, up, skip in zip(reversed(self.decode), reversed(self.up), reversed(skips), strict=True):
            x = level(skip + functional.interpolate(up(x), scale_factor=2.0, mode="nearest"), time)
        output: Tensor = self.conv_out(functional.silu(pixel_norm(x)))
        return output[:, :, : size[0], : size[1], : size[2]]


def _halo(levels: int, blocks: int) -> int:
    """How far, in latent voxels, an output voxel sees, rounded up to the network's multiple."""
    coarsest: int = 2 ** (levels - 1)
    reach: int = 2 + sum(2 * blocks * 2**level for level in range(levels)) + (coarsest - 1)
    return math.ceil(reach / coarsest) * coarsest
