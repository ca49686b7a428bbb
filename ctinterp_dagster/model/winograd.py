"""Convolutions of width 3 with a fraction of the multiplications: Winograd's F(6x6, 3x3) in plane, F(2, 3) along z.

A tile of 8x8 voxels gives 6x6 outputs, four rows give two. Tiles and kernels are transformed to 64 points, of a volume
to four times as many, where the convolution is a matrix product: 1.8 multiplications an output and channel in the
place of 9 in plane, 3.6 in the place of 27 in a volume. All of it is batched matrix products and copies, which torch
has everywhere. Voxels lie with their channels last in memory.

Source: Lavin & Gray 2016 (arXiv 1509.09308), section 4.1; Barabasz et al. 2020 (arXiv 1803.10986) on the points.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

TAPS = 3
TILE = 6  # outputs along each axis of a tile
SPAN = TILE + TAPS - 1  # inputs along each axis of a tile
POINTS = (0.0, 1.0, -1.0, 0.5, -0.5, 2.0, -2.0)  # and infinity
PAIR = 2  # output rows along z that four transformed rows give
ALONG_Z = ((1.0, 0.0, 0.0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0.0, 0.0, 1.0))  # of the three taps, F(2, 3)
LEAST_WIDTH = 32  # channels from which the transforms are worth it
PRODUCTS_TOGETHER = 96  # products a point that are made together, so that what is transformed stays in the cache
MAX_ROWS = 8  # output rows along z of a block

Voxels = tuple[slice, slice, slice]
"""Where a block lies in a volume (z, y, x)."""


@dataclass(frozen=True)
class Matrices:
    """Of tiles (8x8), kernels (8x3) and outputs (6x8), float64: output = A ((G kernel) * (B tile))."""

    tile: Tensor
    kernel: Tensor
    output: Tensor


@cache
def matrices() -> Matrices:
    """The Toom-Cook transforms of `POINTS`: a product of polynomials as their values at eight points.

    Returns:
        The transforms of a tile, of a kernel, and of the output.

    Source: Barabasz et al. 2020, section 3.
    """
    shapes = (SPAN, SPAN), (SPAN, TAPS), (TILE, SPAN)
    tile, kernel, output = (torch.zeros(shape, dtype=torch.float64) for shape in shapes)
    for j, point in enumerate(POINTS):
        others = [other for other in POINTS if other != point]
        tile[j, :-1] = _polynomial(others)
        kernel[j] = torch.tensor([point**k for k in range(TAPS)]) / prod(point - other for other in others)
        output[:, j] = torch.tensor([point**k for k in range(TILE)])
    tile[-1], kernel[-1, -1], output[-1, -1] = _polynomial(POINTS), 1.0, 1.0
    return Matrices(tile, kernel, output)


def _polynomial(roots: Sequence[float]) -> Tensor:
    """Coefficients of the product of (x - root), the constant first."""
    coefficients = torch.ones(1, dtype=torch.float64)
    for root in roots:
        coefficients = functional.pad(coefficients, (1, 0)) - root * functional.pad(coefficients, (0, 1))
    return coefficients


def suits(weight: Tensor) -> bool:
    """Whether a convolution is faster like this here: float32 on a CPU, between many channels.

    On MKL's branch COMPATIBLE (`limit_instructions`) it is not: products take twice as long there.

    Args:
        weight: (out, in, ...).

    Returns:
        False on a GPU, in autocast, and of few channels.
    """
    # "meta" stands for the CPU when only the memory is asked for.
    plain = weight.device.type in ("cpu", "meta") and weight.dtype == torch.float32
    quick = os.environ.get("MKL_CBWR") != "COMPATIBLE" and min(weight.shape[:2]) >= LEAST_WIDTH
    return plain and quick and not torch.is_autocast_enabled("cpu")


def transform_kernel(weight: Tensor) -> Tensor:
    """(out, in, 3, 3, 3) to (64, 4, in, out), and (out, in, 3, 3) to (64, 1, in, out)."""
    out, into, *taps = weight.shape
    along_z = torch.tensor(ALONG_Z if len(taps) == 3 else [[1.0]], dtype=torch.float64)
    matrix = torch.kron(torch.kron(matrices().kernel, matrices().kernel), along_z).to(weight)
    planes = weight.transpose(-1, -2).reshape(out, into, -1, TAPS**2).permute(3, 2, 1, 0).reshape(-1, into * out)
    return torch.mm(matrix, planes).view(SPAN * SPAN, -1, into, out)


def kernel_numbers(into: int, out: int) -> int:
    """How many numbers `transform_kernel` makes of a kernel of three taps along z: 9.5 times those of the weight."""
    return SPAN * SPAN * len(ALONG_Z) * into * out


class TileBlock(NamedTuple):
    """Outputs that are computed together: rows [z, z_end), and tiles [y, y_end) and [x, x_end)."""

    z: int
    z_end: int
    y: int
    y_end: int
    x: int
    x_end: int

    @property
    def voxels(self) -> Voxels:
        """Where its outputs lie; at the far ends they may stick out of the volume."""
        return (
            slice(self.z, self.z_end),
            slice(TILE * self.y, TILE * self.y_end),
            slice(TILE * self.x, TILE * self.x_end),
        )


class BlockSize(NamedTuple):
    """How many outputs are computed together: rows along z, and tiles along y and x."""

    rows: int
    tall: int
    wide: int


def _block_size(rows: int, height: int, width: int) -> BlockSize:
    """The largest block in a volume (z, y, x) that is computed at once."""
    deep, tall, wide = min(rows, MAX_ROWS), -(-height // TILE), -(-width // TILE)
    together = max(1, PAIR * PRODUCTS_TOGETHER // deep)
    along_x = min(wide, together)
    return BlockSize(deep, max(1, min(tall, together // along_x)), along_x)


def _blocks(rows: int, height: int, width: int) -> Iterator[TileBlock]:
    deep, high, broad = _block_size(rows, height, width)
    tall, wide = -(-height // TILE), -(-width // TILE)
    for z, y, x in product(range(0, rows, deep), range(0, tall, high), range(0, wide, broad)):
        yield TileBlock(z, min(z + deep, rows), y, min(y + high, tall), x, min(x + broad, wide))


def scratch_numbers(rows: int, height: int, width: int, into: int, out: int) -> int:
    """How many numbers a convolution of three taps along z holds beside its input and output.

    Args:
        rows: of the output, along z.
        height: of the plane.
        width: of the plane.
        into: input channels.
        out: output channels.

    Returns:
        Numbers, of as many bytes each as the type has.
    """
    deep, high, broad = _block_size(rows, height, width)
    entered = (3 * deep + 8) * (TILE * high + 2) * (TILE * broad + 2) * into
    return 2 * _buffer_numbers(deep, high, broad, max(into, out), volume=True) + entered


def _buffer_numbers(deep: int, high: int, broad: int, channels: int, *, volume: bool) -> int:
    rows = len(ALONG_Z) * -(-deep // PAIR) if volume else deep
    return SPAN * SPAN * rows * high * (broad + 1) * channels


def unchanged(voxels: Tensor) -> Tensor:
    """What enters `convolve`, (z, y, x, channels), as it is."""
    return voxels


def convolve(
    source: Tensor,
    kernel: Tensor,
    target: Tensor,
    finish: Callable[[Tensor, Voxels], Tensor],
    enter: Callable[[Tensor], Tensor] = unchanged,
    before: int = 0,
) -> None:
    """A convolution with zeros around the plane and around the rows, block by block.

    Args:
        source: (z, y, x, in) float32 on the CPU.
        kernel: from `transform_kernel`.
        target: (rows, y, x, out), where the result is written.
        finish: what is written of the sums (z, y, x, out) of a block, which it may change, and their place in the
            target.
        enter: what is convolved of the voxels (z, y, x, in) of a block, which look at no other voxel; 0 of 0.
        before: rows of zeros before the first of the source; those that are missing at the end are zeros as well.
    """
    into, out = kernel.shape[2:]
    rows, height, width, _ = target.shape
    volume = kernel.shape[1] > 1
    numbers = _buffer_numbers(*_block_size(rows, height, width), max(into, out), volume=volume)
    # Two buffers for all blocks: memory that was handed back is dear to get again.
    first, second = source.new_empty(numbers), source.new_empty(numbers)
    for block in _blocks(rows, height, width):
        voxels = enter(_padded(source, block, before, volume=volume))
        points = _to_points(_to_pairs(voxels) if volume else voxels, (first, second))
        points = points.view(SPAN * SPAN * kernel.shape[1], -1, into)
        products = torch.bmm(points, kernel.flatten(0, 1), out=_front(second, *points.shape[:2], out))
        if volume:
            values = _from_points(_from_pairs(products, first), (first, second))
        else:
            values = _from_points(products.view(SPAN * SPAN, 1, -1), (second, first))
        place = target[block.voxels]
        sums = _untiled(values, block, out)[: place.shape[0], : place.shape[1], : place.shape[2]]
        place.copy_(finish(sums, block.voxels))


def _front(buffer: Tensor, *shape: int) -> Tensor:
    return buffer[: prod(shape)].view(shape)


def _padded(source: Tensor, block: TileBlock, before: int, *, volume: bool) -> Tensor:
    """The inputs of a block from a volume (z, y, x, channel), zeros where there are none."""
    odd = (block.z_end - block.z) % PAIR if volume else 0
    around = 2 if volume else 0
    windows = (
        (block.z - before, block.z_end - before + around + odd),
        (TILE * block.y - 1, TILE * block.y_end + 1),
        (TILE * block.x - 1, TILE * block.x_end + 1),
    )
    there = tuple(slice(max(first, 0), min(last, n)) for (first, last), n in zip(windows, source.shape, strict=False))
    lacking = [(max(-first, 0), max(last - n, 0)) for (first, last), n in zip(windows, source.shape, strict=False)]
    part = source[there]
    if any(map(any, lacking)) or part.stride()[2:] != (part.shape[3], 1):
        return functional.pad(part, (0, 0, *lacking[2], *lacking[1], *lacking[0])).contiguous()
    return part


def _to_pairs(voxels: Tensor) -> Tensor:
    """(rows + 2, y, x, channel) to (4 * pairs, y, x, channel): four sums of rows that give two output rows each."""
    first, second, third, fourth = voxels[:-2:PAIR], voxels[1:-1:PAIR], voxels[2::PAIR], voxels[3::PAIR]
    pairs = voxels.new_empty(len(ALONG_Z), *first.shape)
    torch.sub(first, third, out=pairs[0])
    torch.add(second, third, out=pairs[1])
    torch.sub(third, second, out=pairs[2])
    torch.sub(fourth, second, out=pairs[3])
    return pairs.flatten(0, 1)


def _to_points(rows: Tensor, buffers: tuple[Tensor, Tensor]) -> Tensor:
    """The transformed tiles (8, 8, row and tile and channel), along x first, in the first buffer."""
    count, height, width, channels = rows.shape
    high, broad = (height - 2) // TILE, (width - 2) // TILE
    matrix = matrices().tile.to(rows.dtype)
    half = _front(buffers[0], high, count, SPAN, width * channels)
    for y, along_y in enumerate(half):
        lines = rows.as_strided(
            along_y.shape, (*rows.stride()[:2], 1), rows.storage_offset() + TILE * y * rows.stride(1)
        )
        torch.bmm(matrix.expand(count, -1, -1), lines, out=along_y)
    tile, row, point, _ = half.stride()
    shape, strides = (SPAN, SPAN, count, high, broad, channels), (channels, point, row, tile, TILE * channels, 1)
    tiles = _front(buffers[1], *shape).copy_(half.as_strided(shape, strides, half.storage_offset()))
    points = _front(buffers[0], SPAN, SPAN, tiles.numel() // SPAN**2)
    torch.mm(matrix, tiles.view(SPAN, -1), out=points.view(SPAN, -1))
    return points


def _from_pairs(products: Tensor, scratch: Tensor) -> Tensor:
    """(64 * 4, pair and tile, out) to (64, 2, pair and tile and out), in the scratch."""
    first, second, third, fourth = products.view(SPAN * SPAN, len(ALONG_Z), -1).unbind(1)
    sums = _front(scratch, SPAN * SPAN, PAIR, first.shape[1])
    upper, lower = sums.unbind(1)
    torch.add(second, third, out=upper).add_(first)
    torch.sub(second, third, out=lower).add_(fourth)
    return sums


def _from_points(sums: Tensor, buffers: tuple[Tensor, Tensor]) -> Tensor:
    """The outputs of each tile: (64, n, m) to (6, 6, n, m), both in the first buffer."""
    matrix, each = matrices().output.to(sums.dtype), sums.shape[1:].numel()
    half = torch.mm(matrix, sums.view(SPAN, -1), out=_front(buffers[1], TILE, SPAN * each))
    values = _front(buffers[0], TILE, TILE, each)
    torch.bmm(matrix.expand(TILE, -1, -1), half.view(TILE, SPAN, each), out=values)
    return values.view(TILE, TILE, *sums.shape[1:])


def _untiled(values: Tensor, block: TileBlock, out: int) -> Tensor:
    """(6, 6, n, row / n and tile and out), along x first, to (z, y, x, out)."""
    high, broad = block.y_end - block.y, block.x_end - block.x
    tiles = values.view(TILE, TILE, values.shape[2], -1, high, broad, out)
    return tiles.permute(3, 2, 4, 1, 5, 0, 6).reshape(-1, TILE * high, TILE * broad, out)
