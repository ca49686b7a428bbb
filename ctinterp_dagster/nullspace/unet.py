"""A U-Net for volumes of thick slices: it halves the plane and keeps the slices, which are few and far apart."""

import itertools
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial, reduce

import torch
from torch import Tensor, nn
from torch.nn import functional

from ctinterp_dagster.model.blocks import ResidualUnit, activated, check_widths, silu, zero_init
from ctinterp_dagster.model.quantized import Peaks, QuantizedConv, Quantizer, peaks
from ctinterp_dagster.model.tiles import Reach
from ctinterp_dagster.model.winograd import Voxels, convolve, suits, transform_kernel

LIVE_TENSORS = 30
"""Tensors of the finest level's width that `SliceUNet.stream` holds of a chunk, gaps of the heap included; measured."""
Through = Callable[[Iterable[nn.Module], Iterator[Tensor], Tensor], Iterator[Tensor]]
LEAST_CHUNK = 2  # slices of a chunk at least: of a single one torch makes convolutions that are 1.4 times slower


class PlaneConv(nn.Conv2d):
    """A 3x3 convolution of each slice by itself: on a CPU twice as fast as a 3D convolution of that shape."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(b, in_channels, z, y, x) to (b, out_channels, z, y, x)."""
        batch, channels, depth, height, width = x.shape
        planes = super().forward(x.transpose(1, 2).reshape(batch * depth, channels, height, width))
        return planes.reshape(batch, depth, -1, height, width).transpose(1, 2)


class SliceBlock(ResidualUnit):
    """Residual block: a convolution in the plane, FiLM, and a convolution that sees the neighbouring slices.

    Source: He et al. 2016, fig. 4e (pre-activation); Perez et al. 2018, eq. 2 (FiLM).
    """

    def __init__(self, channels: int, embedding_channels: int) -> None:
        super().__init__()
        self.film = nn.Linear(embedding_channels, 2 * channels)
        self.plane = PlaneConv(channels, channels)
        self.space = nn.Conv3d(channels, channels, 3, padding=1)
        zero_init(self.film)
        zero_init(self.space)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """(b, channels, z, y, x) and (b, embedding_channels) to (b, channels, z, y, x)."""
        change: Tensor = self.space(self.in_plane(x, embedding))
        return change.add_(x)

    def stream(self, chunks: Iterator[Tensor], embedding: Tensor, peaks: Peaks | None = None) -> Iterator[Tensor]:
        """`forward` of a volume that comes in chunks of slices, chunk by chunk; it reads one chunk ahead.

        Args:
            chunks: (b, channels, z, y, x) each; their memory may come back with the results.
            embedding: (b, embedding_channels).
            peaks: of `SliceUNet.peaks`, to compute the convolutions in eight bits; None for floating point.

        Yields:
            Chunks of the shapes that came.
        """
        layers = self._layers(embedding, peaks)
        waiting = deque[tuple[Tensor, Tensor]]()
        for x in chunks:
            near = layers.in_plane(x)
            if waiting:
                share_ends(waiting[0][1], near)
            waiting.append((x, near))
            if len(waiting) == 2:
                yield layers.in_space(*waiting.popleft())
        yield layers.in_space(*waiting.popleft())

    def _layers(self, embedding: Tensor, peaks: Peaks | None) -> "_Layers":
        if peaks:
            return _QuantizedLayers(self, embedding, peaks)
        fast = suits(self.space.weight) and not torch.is_grad_enabled()
        return _FastLayers(self, embedding) if fast else _Layers(self, embedding)

    def modulation(self, embedding: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and shift of FiLM, both (b, channels, 1, 1, 1)."""
        scale, shift = self.film(embedding)[:, :, None, None, None].chunk(2, dim=1)
        return 1.0 + scale, shift

    def in_plane(self, x: Tensor, embedding: Tensor) -> Tensor:
        """What `space` convolves, (b, channels, z, y, x), of x of that shape and (b, embedding_channels)."""
        scale, shift = self.modulation(embedding)
        h = self.plane(activated(x))
        return silu(torch.addcmul(shift, h, scale))


class _Layers:
    """The two convolutions of a block that streams; what lies between them has room for a slice at either end."""

    def __init__(self, block: SliceBlock, embedding: Tensor) -> None:
        self.block, self.embedding = block, embedding

    def in_plane(self, x: Tensor) -> Tensor:
        """(b, channels, z, y, x) to (b, channels, z + 2, y, x), zeros in the room."""
        return functional.pad(self.block.in_plane(x, self.embedding), (0, 0, 0, 0, 1, 1))

    def in_space(self, x: Tensor, near: Tensor) -> Tensor:
        """The block's result, of the shape of x."""
        space = self.block.space
        return functional.conv3d(near, space.weight, space.bias, padding=(0, 1, 1)).add_(x)


class _FastLayers(_Layers):
    """The same by Winograd; norms, activations and sums are made block by block, in the cache."""

    def __init__(self, block: SliceBlock, embedding: Tensor) -> None:
        super().__init__(block, embedding)
        self.plane, self.space = (transform_kernel(layer.weight) for layer in (block.plane, block.space))
        assert block.plane.bias is not None
        assert block.space.bias is not None
        scale, shift = (part.flatten(1) for part in block.modulation(embedding))
        self.film = torch.stack([scale, torch.addcmul(shift, block.plane.bias, scale)], dim=1)
        self.bias = block.space.bias

    def in_plane(self, x: Tensor) -> Tensor:
        """(b, channels, z, y, x) to (b, channels, z + 2, y, x), zeros in the room."""
        volumes = x.permute(0, 2, 3, 4, 1)
        batch, depth, *plane_and_channels = volumes.shape
        near = x.new_empty(batch, depth + 2, *plane_and_channels)
        near[:, 0], near[:, -1] = 0.0, 0.0
        for source, target, (scale, shift) in zip(volumes, near, self.film.expand(batch, -1, -1), strict=True):
            convolve(source, self.plane, target[1:-1], partial(_modulated, scale, shift), _activated_voxels)
        return near.permute(0, 4, 1, 2, 3)

    def in_space(self, x: Tensor, near: Tensor) -> Tensor:
        """The block's result, written over x (b, channels, z, y, x); `near` is what `in_plane` gave."""
        for source, target in zip(near.permute(0, 2, 3, 4, 1), x.permute(0, 2, 3, 4, 1), strict=True):
            convolve(source, self.space, target, partial(_added, self.bias, target))
        return x


class _QuantizedLayers(_Layers):
    """The same in eight bits, of a single volume."""

    def __init__(self, block: SliceBlock, embedding: Tensor, peaks: Peaks) -> None:
        super().__init__(block, embedding)
        plane, space = block.plane, block.space
        assert plane.bias is not None
        assert space.bias is not None
        (scale,), (shift,) = (part.flatten(1) for part in block.modulation(embedding))
        self.near = Quantizer.up_to(peaks[space])
        bias = torch.addcmul(shift, plane.bias, scale)
        self.plane = QuantizedConv(plane.weight * scale[:, None, None, None], bias, Quantizer.up_to(peaks[plane]))
        self.space = QuantizedConv(space.weight, space.bias, self.near)

    def in_plane(self, x: Tensor) -> Tensor:
        """(1, channels, z, y, x) to uint8 (1, channels, z + 2, y, x), the number of 0 in the room."""
        convolved = self.plane.silu(self.plane.entering.activated(x), self.near).permute(0, 2, 3, 1)
        near = convolved.new_empty(1, len(convolved) + 2, *convolved.shape[1:])
        near[0, 0], near[0, 1:-1], near[0, -1] = self.near.zero, convolved, self.near.zero
        return near.permute(0, 4, 1, 2, 3)

    def in_space(self, x: Tensor, near: Tensor) -> Tensor:
        """The block's result (1, channels, z, y, x); `near` is what `in_plane` gave."""
        return self.space(near, x.dtype).add_(x)


def _quantized_end(plane: QuantizedConv, x: Tensor) -> Tensor:
    return plane(plane.entering.activated(x), torch.float32).transpose(0, 1)[None]


def _activated_voxels(voxels: Tensor) -> Tensor:
    """`activated` of (z, y, x, channels)."""
    return activated(voxels.movedim(-1, 1)).movedim(1, -1)


def _modulated(scale: Tensor, shift: Tensor, sums: Tensor, _: Voxels) -> Tensor:
    return silu(torch.addcmul(shift, sums, scale, out=sums))


def _added(bias: Tensor, x: Tensor, sums: Tensor, place: Voxels) -> Tensor:
    return sums.add_(bias).add_(x[place])


class SliceUNet(nn.Module):
    """Features of thick voxels in, as many numbers as asked for out, on the same grid.

    Any size works: the plane is padded by replication at the far ends and cropped. An untrained network answers 0.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        channels: width of each level; each level halves the plane of the one above.
        blocks: residual blocks a level, on the way down and again on the way up; twice as many at the bottom.
        condition_size: numbers that condition the network on a volume, beside its voxels.

    Raises:
        ParamsError: a width, a channel count or the number of blocks is not positive.

    Source: Ronneberger et al. 2015, fig. 1.
    """

    def __init__(
        self, in_channels: int, out_channels: int, channels: Sequence[int], blocks: int, condition_size: int
    ) -> None:
        super().__init__()
        check_widths(
            "a network",
            "the sections expect and train",
            {
                "in_channels": in_channels,
                "out_channels": out_channels,
                "channels": tuple(channels),
                "blocks": blocks,
            },
        )
        pairs, width = list(itertools.pairwise(channels)), 64
        self.multiple = 2 ** (len(channels) - 1)
        near, grid = halo(len(channels), blocks), self.multiple
        self.reach = Reach((0, near, near), (LEAST_CHUNK, grid, grid), 4 * channels[0] * LIVE_TENSORS)
        self.embed = nn.Sequential(nn.Linear(condition_size, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.conv_in = PlaneConv(in_channels, channels[0])

        def level(channel: int, count: int) -> nn.ModuleList:
            return nn.ModuleList(SliceBlock(channel, width) for _ in range(count))

        self.encode = nn.ModuleList(level(channel, blocks) for channel in channels[:-1])
        self.down = nn.ModuleList(nn.Conv3d(fine, coarse, (1, 2, 2), stride=(1, 2, 2)) for fine, coarse in pairs)
        self.bottom = level(channels[-1], 2 * blocks)
        self.up = nn.ModuleList(nn.Conv3d(coarse, fine, 1) for fine, coarse in pairs)
        self.decode = nn.ModuleList(level(channel, blocks) for channel in channels[:-1])
        self.conv_out = PlaneConv(channels[0], out_channels)
        zero_init(self.conv_out)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """The output for every thick voxel.

        Args:
            x: (b, in_channels, z, y, x).
            condition: (b, condition_size).

        Returns:
            (b, out_channels, z, y, x).
        """
        return next(self._walk(iter([x]), condition, unstreamed, self._end))

    def stream(self, chunks: Iterator[Tensor], condition: Tensor, peaks: Peaks | None = None) -> Iterator[Tensor]:
        """`forward` of a volume that comes in chunks of slices, chunk by chunk; nothing is computed twice.

        Each block reads a chunk ahead; what skips to a later level waits for it, so that about LIVE_TENSORS of the
        finest level are held for a chunk.

        Args:
            chunks: (b, in_channels, z, y, x) each.
            condition: (b, condition_size).
            peaks: of `SliceUNet.peaks`, to compute the convolutions in eight bits; None for floating point.

        Returns:
            Chunks (b, out_channels, z, y, x).
        """
        end = self._end
        if peaks:
            assert self.conv_out.bias is not None
            entering = Quantizer.up_to(peaks[self.conv_out])
            end = partial(_quantized_end, QuantizedConv(self.conv_out.weight, self.conv_out.bias, entering))
        return self._walk(chunks, condition, partial(streamed, peaks=peaks), end)

    def peaks(self, x: Tensor, condition: Tensor, guide: int = 0) -> Peaks:
        """The greatest activations before the convolutions that `stream` computes in eight bits.

        Args:
            x: (1, in_channels, z, y, x).
            condition: (1, condition_size).
            guide: the channel that tells where x varies most; one without noise.

        Returns:
            A number for each convolution.
        """
        blocks = [block for block in self.modules() if isinstance(block, SliceBlock)]
        layers = [layer for block in blocks for layer in (block.plane, block.space)]
        return peaks(self, [*layers, self.conv_out], x, condition, guide)

    def _walk(
        self, chunks: Iterator[Tensor], condition: Tensor, through: Through, end: Callable[[Tensor], Tensor]
    ) -> Iterator[Tensor]:
        embedding, skips = self.embed(condition), list[deque[Tensor]]()
        first = next(chunks)
        height, width = first.shape[-2:]
        x: Iterator[Tensor] = map(self._enter, itertools.chain([first], chunks))
        for level, down in zip(self.encode, self.down, strict=True):
            skips.append(deque())
            x = map(down, remembered(through(level.children(), x, embedding), skips[-1]))
        x = through(self.bottom, x, embedding)
        for level, up, skip in zip(reversed(self.decode), reversed(self.up), reversed(skips), strict=True):
            x = through(level.children(), map(partial(joined, up, skip), x), embedding)
        for chunk in x:
            yield end(chunk)[..., :height, :width]

    def mirrored(self, chunks: Iterator[Tensor], condition: Tensor, peaks: Peaks | None = None) -> Iterator[Tensor]:
        """What `stream` gives of the mirror image along x, mirrored back: chunks of the same shapes."""
        first = next(chunks)
        width = first.shape[-1]
        padding = (0, -width % self.multiple, 0, 0, 0, 0)
        images = (functional.pad(x, padding, mode="replicate").flip(-1) for x in itertools.chain([first], chunks))
        return (output.flip(-1)[..., :width] for output in self.stream(images, condition, peaks))

    def _end(self, x: Tensor) -> Tensor:
        output: Tensor = self.conv_out(activated(x))
        return output

    def _enter(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        missing = -width % self.multiple, -height % self.multiple
        if any(missing):
            x = functional.pad(x, (0, missing[0], 0, missing[1], 0, 0), mode="replicate")
        features: Tensor = self.conv_in(x.contiguous(memory_format=torch.channels_last_3d))
        return features


def streamed(
    level: Iterable[nn.Module], chunks: Iterator[Tensor], embedding: Tensor, peaks: Peaks | None
) -> Iterator[Tensor]:
    """Pass chunks through the blocks of a level, each of which sees the slices of the chunks beside its own.

    Args:
        level: blocks of one width.
        chunks: (b, channels, z, y, x) each.
        embedding: (b, embedding_channels).
        peaks: of `SliceUNet.peaks`, to compute the convolutions in eight bits; None for floating point.

    Returns:
        Chunks of the shapes that came.
    """
    for block in level:
        assert isinstance(block, SliceBlock)
        chunks = block.stream(chunks, embedding, peaks)
    return chunks


def unstreamed(level: Iterable[nn.Module], chunks: Iterator[Tensor], embedding: Tensor) -> Iterator[Tensor]:
    """Pass each chunk (b, channels, z, y, x) through the blocks of a level by itself."""
    blocks = tuple(level)
    return (reduce(lambda x, block: block(x, embedding), blocks, chunk) for chunk in chunks)


def share_ends(near: Tensor, following: Tensor) -> None:
    """Put the neighbouring slice of each into the room that the other has for it at its end, (b, channels, z, y, x)."""
    near[:, :, -1] = following[:, :, 1]
    following[:, :, 0] = near[:, :, -2]


def remembered(x: Iterator[Tensor], skip: deque[Tensor]) -> Iterator[Tensor]:
    """The chunks (b, channels, z, y, x), each of which waits in `skip` as well."""
    for chunk in x:
        skip.append(chunk)
        yield chunk


def joined(up: nn.Module, skip: deque[Tensor], coarse: Tensor) -> Tensor:
    """The input of a level on the way up.

    Args:
        up: convolution to the level's channels.
        skip: chunks (b, channels, z, 2 y, 2 x) of the way down; the oldest is taken, and its memory not changed.
        coarse: (b, coarser channels, z, y, x).

    Returns:
        (b, channels, z, 2 y, 2 x): `up(coarse)`, doubled in the plane, plus the chunk; channels last in memory.
    """
    assert isinstance(up, nn.Conv3d)
    mixed = functional.linear(coarse.movedim(1, -1), up.weight.flatten(1), up.bias).movedim(-1, 1)
    return functional.interpolate(mixed, scale_factor=(1.0, 2.0, 2.0)).add_(skip.popleft())


def halo(levels: int, blocks: int) -> int:
    """How far an output voxel sees in the plane, rounded up to the network's multiple."""
    coarsest: int = 2 ** (levels - 1)
    pixels: int = 2 + sum(4 * blocks * 2**level for level in range(levels)) + (coarsest - 1)
    return math.ceil(pixels / coarsest) * coarsest
