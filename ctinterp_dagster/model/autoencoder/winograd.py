"""Convolutions of width 3 with a quarter of the multiplications: Winograd's F(4x4, 3x3) in plane, plain taps along z.

A tile of 6x6 voxels gives 4x4 outputs. Tiles and kernels are transformed to 36 points, where the convolution in plane
is a product; the three taps along z are three matrix products that add up. All of it is batched matrix products and
copies, which torch has everywhere. Volumes are `channels_last_3d` in memory.

Source: Lavin & Gray 2016 (arXiv 1509.09308), section 4.1; Barabasz et al. 2020 (arXiv 1803.10986) on the points.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

TILE = 4  # outputs along each axis of a tile
SPAN = 6  # inputs along each axis of a tile
POINTS = (0.0, 0.625, -0.625, 1.5, -1.5)  # and infinity; half the rounding error of the customary 0, 1, -1, 2, -2
BATCH = 512  # tiles that are transformed together: 5 MiB of 64 channels, so that they stay in the cache
MAX_ROWS = 16  # output rows along z that share a transformed tile


@dataclass(frozen=True)
class Matrices:
    """Of tiles (6x6), kernels (6x3) and outputs (4x6), float64: output = A ((G kernel) * (B tile))."""

    tile: Tensor
    kernel: Tensor
    output: Tensor


@cache
def matrices() -> Matrices:
    """The Toom-Cook transforms of `POINTS`: a product of polynomials as their values at six points.

    Source: Barabasz et al. 2020, section 3.
    """
    tile, kernel, output = (
        torch.zeros(rows, columns, dtype=torch.float64) for rows, columns in ((6, 6), (6, 3), (4, 6))
    )
    for j, point in enumerate(POINTS):
        others = [other for other in POINTS if other != point]
        tile[j, :5] = _polynomial(others)
        kernel[j] = torch.tensor([point**k for k in range(3)]) / prod(point - other for other in others)
        output[:, j] = torch.tensor([point**k for k in range(TILE)])
    tile[5], kernel[5, 2], output[3, 5] = _polynomial(POINTS), 1.0, 1.0
    return Matrices(tile, kernel, output)


def _polynomial(roots: Sequence[float]) -> Tensor:
    """Coefficients of the product of (x - root), the constant first."""
    coefficients = torch.ones(1, dtype=torch.float64)
    for root in roots:
        coefficients = functional.pad(coefficients, (1, 0)) - root * functional.pad(coefficients, (0, 1))
    return coefficients


def transform_kernel(weight: Tensor) -> Tensor:
    """(out, in, 3, 3, 3) to (36, 3, in, out)."""
    out, into = weight.shape[:2]
    matrix = torch.kron(matrices().kernel, matrices().kernel).to(weight.dtype)
    taps = weight.permute(3, 4, 2, 1, 0).reshape(9, 3 * into * out)
    return torch.mm(matrix, taps).view(SPAN * SPAN, 3, into, out)


def kernel_numbers(into: int, out: int) -> int:
    """How many numbers `transform_kernel` makes: 4 times those of the weight."""
    return SPAN * SPAN * 3 * into * out


@dataclass(frozen=True)
class _Block:
    """Outputs that are computed together: rows [z, z_end), and tiles [y, y_end) and [x, x_end)."""

    z: int
    z_end: int
    y: int
    y_end: int
    x: int
    x_end: int

    @property
    def tiles(self) -> "_Tiles":
        """How many there are."""
        return _Tiles(self.z_end - self.z, self.y_end - self.y, self.x_end - self.x)


class _Tiles(NamedTuple):
    """Output rows, and tiles along y and x."""

    rows: int
    tall: int
    wide: int


def _block_tiles(rows: int, tall: int, wide: int) -> _Tiles:
    """Output rows and tiles (y, x) of a block in a volume of that many rows and tiles."""
    deep = min(rows, MAX_ROWS)
    together = max(1, BATCH // (deep + 2))
    along_x = min(wide, together)
    return _Tiles(deep, max(1, min(tall, together // along_x)), along_x)


def _blocks(rows: int, tall: int, wide: int) -> Iterator[_Block]:
    deep, high, broad = _block_tiles(rows, tall, wide)
    for z, y, x in product(range(0, rows, deep), range(0, tall, high), range(0, wide, broad)):
        yield _Block(z, min(z + deep, rows), y, min(y + high, tall), x, min(x + broad, wide))


def scratch_numbers(rows: int, height: int, width: int, into: int, out: int) -> int:
    """How many numbers `convolve` holds beside its input and output; more rows take no more than `MAX_ROWS` do."""
    deep, high, broad = _block_tiles(rows, -(-height // TILE), -(-width // TILE))
    padded = (deep + 2) * (TILE * high + 2) * (TILE * broad + 2) * into
    return 2 * SPAN * SPAN * (deep + 2) * high * broad * max(into, out) + padded


def convolve(x: Tensor, kernel: Tensor, bias: Tensor, before: int, after: int) -> Tensor:
    """A 3x3x3 convolution with zeros around the plane.

    Args:
        x: (batch, in, z, y, x) float32 on the CPU.
        kernel: from `transform_kernel`.
        bias: (out,).
        before: rows of zeros before the first row.
        after: rows of zeros after the last one.

    Returns:
        (batch, out, z + before + after - 2, y, x), channels last in memory.
    """
    batch, into, depth, height, width = x.shape
    tall, wide, rows, out = -(-height // TILE), -(-width // TILE), depth + before + after - 2, kernel.shape[3]
    result = x.new_empty(batch, rows, TILE * tall, TILE * wide, out)
    deep, high, broad = _block_tiles(rows, tall, wide)
    # Two buffers for all blocks: memory that was handed back is dear to get again.
    numbers = SPAN * SPAN * (deep + 2) * high * broad * max(into, out)
    buffers = x.new_empty(numbers), x.new_empty(numbers)
    for source, target in zip(x.permute(0, 2, 3, 4, 1), result, strict=True):
        for block in _blocks(rows, tall, wide):
            points = _to_points(_padded(source, block, before), block, buffers)
            sums = _multiplied(points, kernel, _front(buffers[1], SPAN * SPAN, prod(block.tiles), out))
            values = _from_points(sums, buffers)
            _put(values, bias, target, block)
    volume = result.permute(0, 4, 1, 2, 3)
    whole = (TILE * tall, TILE * wide) == (height, width)
    return volume if whole else volume[..., :height, :width].contiguous(memory_format=torch.channels_last_3d)


def _front(buffer: Tensor, *shape: int) -> Tensor:
    return buffer[: prod(shape)].view(shape)


def _padded(source: Tensor, block: _Block, before: int) -> Tensor:
    """The inputs of a block from a volume (z, y, x, channel), zeros where there are none."""
    windows = (
        (block.z - before, block.z_end - before + 2),
        (TILE * block.y - 1, TILE * block.y_end + 1),
        (TILE * block.x - 1, TILE * block.x_end + 1),
    )
    there = tuple(slice(max(first, 0), min(last, n)) for (first, last), n in zip(windows, source.shape, strict=False))
    lacking = [(max(-first, 0), max(last - n, 0)) for (first, last), n in zip(windows, source.shape, strict=False)]
    part = source[there]
    if any(map(any, lacking)) or part.stride(3) != 1:
        return functional.pad(part, (0, 0, *lacking[2], *lacking[1], *lacking[0])).contiguous()
    return part


def _to_points(padded: Tensor, block: _Block, buffers: tuple[Tensor, Tensor]) -> Tensor:
    """The transformed tiles (36, rows, tiles, channel), in the first buffer."""
    channels = padded.shape[3]
    rows, high, broad = block.tiles
    row, line, voxel, _ = padded.stride()
    shape = (SPAN, SPAN, rows + 2, high, broad, channels)
    strides = (line, voxel, row, TILE * line, TILE * voxel, 1)
    overlapping = padded.as_strided(shape, strides, padded.storage_offset())
    tiles = _front(buffers[0], *shape).copy_(overlapping)
    matrix = matrices().tile.to(padded.dtype)
    half = torch.mm(matrix, tiles.view(SPAN, -1), out=_front(buffers[1], SPAN, tiles.numel() // SPAN))
    points = _front(buffers[0], SPAN, SPAN, tiles.numel() // SPAN**2)
    torch.bmm(matrix.expand(SPAN, -1, -1), half.view_as(points), out=points)
    return points.view(SPAN * SPAN, rows + 2, high * broad, channels)


def _multiplied(points: Tensor, kernel: Tensor, sums: Tensor) -> Tensor:
    """At each point the sum over the taps along z: (36, row and tile, out)."""
    for tap in range(3):
        rows = points[:, tap : tap + points.shape[1] - 2].flatten(1, 2)
        torch.baddbmm(sums, rows, kernel[:, tap], beta=float(tap > 0), out=sums)
    return sums


def _from_points(sums: Tensor, buffers: tuple[Tensor, Tensor]) -> Tensor:
    """The outputs of each tile, (4, 4, row and tile and out)."""
    matrix, each = matrices().output.to(sums.dtype), sums.numel() // SPAN**2
    half = torch.mm(matrix, sums.view(SPAN, -1), out=_front(buffers[0], TILE, SPAN * each))
    values = _front(buffers[1], TILE, TILE, each)
    return torch.bmm(matrix.expand(TILE, -1, -1), half.view(TILE, SPAN, each), out=values)


def _put(values: Tensor, bias: Tensor, target: Tensor, block: _Block) -> None:
    """Add the bias and write the tiles to their places in (z, y, x, out)."""
    rows, high, broad = block.tiles
    place = target[block.z : block.z_end, TILE * block.y : TILE * block.y_end, TILE * block.x : TILE * block.x_end]
    place = place.view(rows, high, TILE, broad, TILE, -1).permute(2, 4, 0, 1, 3, 5)
    torch.add(values.view(place.shape), bias, out=place)
