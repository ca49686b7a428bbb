"""A local network applied tile by tile: the answer of the whole in bounded memory."""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ctinterp_dagster.errors import ParamsError


@dataclass(frozen=True)
class Reach:
    """What a network's answer at one voxel depends on, and what it costs.

    Attributes:
        halo: voxels on either side that an output voxel sees, (z, y, x).
        grid: tiles begin at multiples of it, (z, y, x): the stride of the coarsest level.
        bytes_per_voxel: working memory a voxel of the input.
    """

    halo: tuple[int, int, int]
    grid: tuple[int, int, int]
    bytes_per_voxel: int


@torch.inference_mode()
def tiled(
    network: Callable[[Tensor], Tensor], x: Tensor, out_channels: int, reach: Reach, memory_gib: float | None
) -> Tensor:
    """Apply a network in tiles that fit the memory; the answer is that of the whole, up to rounding.

    Each tile sees the halo around it, all that its answer depends on, and begins on the grid of the coarsest level, so
    there is no seam and nothing to blend.

    Args:
        network: (b, in_channels, z, y, x) to (b, out_channels, z, y, x), for any size.
        x: (b, in_channels, z, y, x).
        out_channels: channels of the answer.
        reach: of the network.
        memory_gib: bound of the network's working memory; None takes the whole at once.

    Returns:
        (b, out_channels, z, y, x).

    Raises:
        ParamsError: not even the smallest tile fits.
    """
    size = x.shape[2:]
    tile = list(size) if memory_gib is None else tile_that_fits(x.shape, reach, memory_gib)
    answer = x.new_empty(x.shape[0], out_channels, *size)
    for corner in itertools.product(*(range(0, n, step) for n, step in zip(size, tile, strict=True))):
        ends = list(zip(corner, tile, reach.halo, strict=True))
        first = [max(0, n - halo) for n, _, halo in ends]
        seen = [slice(a, n + step + halo) for a, (n, step, halo) in zip(first, ends, strict=True)]
        kept = [slice(n - a, n - a + step) for a, (n, step, _) in zip(first, ends, strict=True)]
        core = [slice(n, n + step) for n, step, _ in ends]
        answer[:, :, core[0], core[1], core[2]] = network(x[(slice(None), slice(None), *seen)])[
            :, :, kept[0], kept[1], kept[2]
        ]
    return answer


def tile_that_fits(shape: Sequence[int], reach: Reach, memory_gib: float) -> list[int]:
    """Halve the longest axis of the tile, on the network's grid, until a tile with its halo fits.

    Raises:
        ParamsError: not even the smallest tile fits.
    """
    batch, size = shape[0], shape[2:]
    whole = [math.ceil(n / grid) * grid for n, grid in zip(size, reach.grid, strict=True)]
    tile = list(whole)
    while True:
        seen = [min(step + 2 * halo, n) for step, halo, n in zip(tile, reach.halo, whole, strict=True)]
        needed_gib = batch * math.prod(seen) * reach.bytes_per_voxel / 2**30
        if needed_gib <= memory_gib:
            return tile
        excess = [step - grid for step, grid in zip(tile, reach.grid, strict=True)]
        longest = excess.index(max(excess))
        if excess[longest] == 0:
            raise ParamsError(
                f"the network needs {needed_gib:.2g} GiB for its smallest tile, got memory_gib={memory_gib}: raise it"
            )
        grid = reach.grid[longest]
        tile[longest] = math.ceil(tile[longest] / 2 / grid) * grid
