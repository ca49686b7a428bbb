"""A U-Net for volumes of thick slices: it halves the plane and keeps the slices, which are few and far apart."""

import itertools
import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from ctinterp_dagster.errors import ParamsError
from ctinterp_dagster.model.denoiser import pixel_norm, silence
from ctinterp_dagster.model.tiles import Reach

GEOMETRY = 3  # numbers that the network is told of the grid
LIVE_TENSORS = 7
"""Tensors of the finest level's width that a forward pass holds at its peak."""


class PlaneConv(nn.Conv2d):
    """A 3x3 convolution of each slice by itself: on a CPU twice as fast as a 3D convolution of that shape."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(b, in_channels, z, y, x) to (b, out_channels, z, y, x)."""
        batch, channels, depth, height, width = x.shape
        planes = super().forward(x.transpose(1, 2).reshape(batch * depth, channels, height, width))
        return planes.reshape(batch, depth, -1, height, width).transpose(1, 2)


class SliceBlock(nn.Module):
    """Residual block: a convolution in the plane, FiLM, and a convolution that sees the neighbouring slices.

    Source: He et al. 2016, fig. 4e (pre-activation); Perez et al. 2018, eq. 2 (FiLM).
    """

    def __init__(self, channels: int, told: int) -> None:
        super().__init__()
        self.film = nn.Linear(told, 2 * channels)
        self.plane = PlaneConv(channels, channels)
        self.space = nn.Conv3d(channels, channels, 3, padding=1)
        silence(self.film)
        silence(self.space)

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        """(b, channels, z, y, x) and (b, told) to (b, channels, z, y, x)."""
        scale, shift = self.film(told)[:, :, None, None, None].chunk(2, dim=1)
        h = self.plane(functional.silu(pixel_norm(x)))
        return x + self.space(functional.silu(torch.addcmul(shift, h, 1.0 + scale)))


class SliceUNet(nn.Module):
    """Features of thick voxels in, as many numbers as asked for out, on the same grid.

    Any size works: the plane is padded by replication at the far ends and cropped. An untrained network answers 0.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        channels: width of each level; each level halves the plane of the one above.
        blocks: residual blocks a level, on the way down and again on the way up; twice as many at the bottom.
        told: numbers that the network is told of a volume, beside its voxels.

    Raises:
        ParamsError: a width, a channel count or the number of blocks is not positive.

    Source: Ronneberger et al. 2015, fig. 1.
    """

    def __init__(self, in_channels: int, out_channels: int, channels: Sequence[int], blocks: int, told: int) -> None:
        super().__init__()
        if not channels or min(in_channels, out_channels, blocks, *channels) < 1:
            raise ParamsError(
                f"a network needs positive widths, got in_channels={in_channels}, out_channels={out_channels}, "
                f"channels={tuple(channels)}, blocks={blocks}: correct the sections expect and train"
            )
        pairs, width = list(itertools.pairwise(channels)), 64
        self.multiple = 2 ** (len(channels) - 1)
        self.reach = Reach(
            halo(len(channels), blocks), (1, self.multiple, self.multiple), 4 * channels[0] * LIVE_TENSORS
        )
        self.listen = nn.Sequential(nn.Linear(told, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.enter = PlaneConv(in_channels, channels[0])

        def level(channel: int, count: int) -> nn.ModuleList:
            return nn.ModuleList(SliceBlock(channel, width) for _ in range(count))

        self.encode = nn.ModuleList(level(channel, blocks) for channel in channels[:-1])
        self.down = nn.ModuleList(nn.Conv3d(fine, coarse, (1, 2, 2), stride=(1, 2, 2)) for fine, coarse in pairs)
        self.bottom = level(channels[-1], 2 * blocks)
        self.up = nn.ModuleList(nn.Conv3d(coarse, fine, 1) for fine, coarse in pairs)
        self.decode = nn.ModuleList(level(channel, blocks) for channel in channels[:-1])
        self.leave = PlaneConv(channels[0], out_channels)
        silence(self.leave)

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        """The output for every thick voxel.

        Args:
            x: (b, in_channels, z, y, x).
            told: (b, told).

        Returns:
            (b, out_channels, z, y, x).
        """
        height, width = x.shape[-2:]
        x = functional.pad(x, (0, -width % self.multiple, 0, -height % self.multiple, 0, 0), mode="replicate")
        x = self.enter(x.contiguous(memory_format=torch.channels_last_3d))
        heard, skips = self.listen(told), []
        for level, down in zip(self.encode, self.down, strict=True):
            x = through(level.children(), x, heard)
            skips.append(x)
            x = down(x)
        x = through(self.bottom, x, heard)
        for level, up, skip in zip(reversed(self.decode), reversed(self.up), reversed(skips), strict=True):
            x = through(level.children(), skip + functional.interpolate(up(x), scale_factor=(1.0, 2.0, 2.0)), heard)
        return self.leave(functional.silu(pixel_norm(x)))[..., :height, :width]

    def mirrored(self, x: Tensor, told: Tensor) -> Tensor:
        """The mean of what `forward` says of a volume and, mirrored back, of its mirror image along x.

        Source: Timofte, Rothe and Van Gool 2016 (enhanced prediction).
        """
        width = x.shape[-1]
        x = functional.pad(x, (0, -width % self.multiple, 0, 0, 0, 0), mode="replicate")
        return 0.5 * (self(x, told) + self(x.flip(-1), told).flip(-1))[..., :width]


def through(level: Iterable[nn.Module], x: Tensor, told: Tensor) -> Tensor:
    """Blocks in a row."""
    for block in level:
        x = block(x, told)
    return x


def halo(levels: int, blocks: int) -> tuple[int, int, int]:
    """How far an output voxel sees, (z, y, x): in the plane rounded up to the network's multiple."""
    coarsest = 2 ** (levels - 1)
    slices = 2 * blocks * levels
    pixels = 2 + sum(4 * blocks * 2**level for level in range(levels)) + (coarsest - 1)
    reach = math.ceil(pixels / coarsest) * coarsest
    return slices, reach, reach
