"""A local network applied tile by tile: the answer of the whole in bounded memory."""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache

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

    @property
    def work(self) -> float:
        """About what an answer costs a voxel, for comparing networks: the square of their width."""
        return float(self.bytes_per_voxel) ** 2


WATCHER: ContextVar[Callable[[float], None]] = ContextVar("WATCHER", default=lambda _: None)


@contextmanager
def watched(on_work: Callable[[float], None]) -> Iterator[None]:
    """Within the block, tell of the work of `swept`: voxels times `Reach.work`, half of it as a chunk goes in."""
    before = WATCHER.set(on_work)
    try:
        yield
    finally:
        WATCHER.reset(before)


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
    tile = tuple(size) if memory_gib is None else tile_that_fits(tuple(x.shape), reach, memory_gib)
    return _in_tiles(network, x, out_channels, reach, tile)


@torch.inference_mode()
def swept(
    network: Callable[[Iterator[Tensor]], Iterator[Tensor]],
    x: Tensor,
    out_channels: int,
    reach: Reach,
    memory_gib: float | None,
) -> Tensor:
    """Apply a network that streams along z, in tiles of the plane where the whole plane does not fit.

    Args:
        network: chunks of slices (b, in_channels, n, y, x), one after the other, to chunks (b, out_channels, n, y, x).
        x: (b, in_channels, z, y, x).
        out_channels: channels of the answer.
        reach: of the network; its halo is 0 along z, and its memory is that of a chunk.
        memory_gib: bound of the network's working memory; None makes one chunk of the whole.

    Returns:
        (b, out_channels, z, y, x).

    Raises:
        ParamsError: not even one slice of the smallest tile fits.
    """
    depth = x.shape[2]
    tile = tuple(x.shape[2:]) if memory_gib is None else tile_that_fits(tuple(x.shape), reach, memory_gib)

    tiles = math.prod(math.ceil(n / step) for n, step in zip(x.shape[3:], tile[1:], strict=True))
    slice_voxels = x.shape[3] * x.shape[4] / tiles

    def half_done(chunk: Tensor) -> None:
        WATCHER.get()(reach.work * chunk.shape[2] * slice_voxels / 2)

    def entering(chunks: Iterable[Tensor]) -> Iterator[Tensor]:
        for chunk in chunks:  # each block keeps one back, so that the first comes out when many have gone in
            yield chunk
            half_done(chunk)

    def whole_depth(part: Tensor) -> Tensor:
        output = part.new_empty(part.shape[0], out_channels, *part.shape[2:])
        chunks = network(entering(part.split(tile[0], dim=2)))
        for chunk, place in zip(chunks, output.split(tile[0], dim=2), strict=True):
            place.copy_(chunk)
            half_done(place)
        return output

    return _in_tiles(whole_depth, x, out_channels, reach, (depth, *tile[1:]))


def _in_tiles(
    network: Callable[[Tensor], Tensor], x: Tensor, out_channels: int, reach: Reach, tile: tuple[int, ...]
) -> Tensor:
    size = x.shape[2:]
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


@cache
def tile_that_fits(shape: tuple[int, ...], reach: Reach, memory_gib: float) -> tuple[int, ...]:
    """The tile that fits with its halo and for which the tiles see the fewest voxels in all.

    Args:
        shape: (b, channels, z, y, x) of the input.
        reach: of the network.
        memory_gib: bound of its working memory, GiB.

    Returns:
        (z, y, x), without the halo.

    Raises:
        ParamsError: not even the smallest tile fits.
    """
    axes = [_steps(n, grid, halo) for n, grid, halo in zip(shape[2:], reach.grid, reach.halo, strict=True)]
    bytes_per_voxel = shape[0] * reach.bytes_per_voxel
    bound = memory_gib * 2**30 / bytes_per_voxel
    fitting = [tile for tile in itertools.product(*axes) if math.prod(axis.largest for axis in tile) <= bound]
    if not fitting:
        smallest_gib = math.prod(axis[-1].largest for axis in axes) * bytes_per_voxel / 2**30
        raise ParamsError(
            f"the network needs {smallest_gib:.2g} GiB for its smallest tile, got memory_gib={memory_gib}: raise it"
        )
    return tuple(axis.step for axis in min(fitting, key=lambda tile: math.prod(axis.seen for axis in tile)))


@dataclass(frozen=True)
class _Step:
    """Tiles along one axis: how far apart, the voxels that the largest sees, and those that all see together."""

    step: int
    largest: int
    seen: int


def _steps(n: int, grid: int, halo: int) -> list[_Step]:
    """Every useful size of a tile along an axis of n voxels, the largest first."""
    counts = range(1, math.ceil(n / grid) + 1)
    steps = []
    for step in dict.fromkeys(math.ceil(n / count / grid) * grid for count in counts):
        seen = [min(first + step + halo, n) - max(first - halo, 0) for first in range(0, n, step)]
        steps.append(_Step(step, max(seen), sum(seen)))
    return steps
