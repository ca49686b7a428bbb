"""The layers of the autoencoder as they run in float32 on a CPU: the same functions, computed faster.

Each stands for a convolution while a volume is streamed (`bounded_memory.Field`). Volumes are `channels_last_3d` in
memory.
`docs/performance.md` says what each is worth.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from ctinterp_dagster.model.autoencoder.bounded_memory import LocalLayer, TensorShape
from ctinterp_dagster.model.winograd import convolve, kernel_numbers, scratch_numbers, suits, transform_kernel

_TAPS = 27
_TOGETHER = 1 << 16  # voxels whose 27 neighbours are gathered at once: 7 MiB


def fast_layer(convolution: nn.Conv3d) -> LocalLayer | None:
    """The layer that computes a convolution faster in float32 on a CPU, None if there is none."""
    weight = convolution.weight
    # "meta" stands for the CPU when only the memory is asked for.
    plain = weight.device.type in ("cpu", "meta") and weight.dtype == torch.float32
    if not plain or torch.is_autocast_enabled("cpu") or convolution.stride[0] != 1:
        return None
    if convolution.kernel_size[0] == 1:
        return Pointwise(convolution)
    if convolution.in_channels == 1:
        return FromOneChannel(convolution)
    if convolution.out_channels == 1:
        return ToOneChannel(convolution)
    return Winograd(convolution) if suits(weight) else None


class _Fast:
    """What the layers have in common: stride 1 and zeros around the volume."""

    reach = 1
    kernel_numbers = 0

    def __init__(self, convolution: nn.Conv3d) -> None:
        self.convolution = convolution
        self.into, self.out = convolution.in_channels, convolution.out_channels
        assert convolution.bias is not None
        self.bias = convolution.bias

    def output_shape(self, shape: TensorShape) -> TensorShape:
        """The shape (batch, channel, z, y, x) of the result, from that of the source."""
        batch, _, *size_zyx = shape
        return batch, self.out, size_zyx[0], size_zyx[1], size_zyx[2]

    def source_rows(self, start: int, stop: int) -> tuple[int, int]:
        """The first source row that output rows [start, stop) need, and the one past the last; may lie outside."""
        return start - self.reach, stop + self.reach

    def lacking(self, start: int, stop: int, depth: int) -> tuple[int, int]:
        """How many of the source rows lie before and after the volume."""
        first, last = self.source_rows(start, stop)
        return max(-first, 0), max(last - depth, 0)


class Winograd(_Fast):
    """A convolution of width 3 between many channels."""

    def __init__(self, convolution: nn.Conv3d) -> None:
        super().__init__(convolution)
        self.kernel_numbers = kernel_numbers(self.into, self.out)
        self._kernel: Tensor | None = None

    def rows(self, x: Tensor, start: int, stop: int, depth: int) -> Tensor:
        """Output rows [start, stop), (b, out, rows, y, x), of a source of `depth` rows; x are those that they need."""
        if self._kernel is None:
            self._kernel = transform_kernel(self.convolution.weight)
        batch, _, _, height, width = x.shape
        result = x.new_empty(batch, stop - start, height, width, self.out)
        before, _ = self.lacking(start, stop, depth)
        for source, target in zip(x.permute(0, 2, 3, 4, 1), result, strict=True):
            convolve(source, self._kernel, target, lambda sums, _: sums.add_(self.bias), before=before)
        return result.permute(0, 4, 1, 2, 3)

    def scratch_numbers(self, shape: TensorShape, rows: int) -> int:
        """Numbers held beside input, (batch, in, z, y, x), and output while `rows` rows of it are computed."""
        return scratch_numbers(rows, shape[3], shape[4], self.into, self.out)


class Pointwise(_Fast):
    """A convolution of width 1: one matrix product."""

    reach = 0

    def rows(self, x: Tensor, start: int, stop: int, depth: int) -> Tensor:  # noqa: ARG002 (one protocol)
        """Output rows [start, stop), (b, out, rows, y, x), of a source of `depth` rows; x are those that they need."""
        batch, channels, *size_zyx = x.shape
        mixing = self.convolution.weight.view(self.out, channels).T
        mixed = torch.addmm(self.bias, x.permute(0, 2, 3, 4, 1).reshape(-1, channels), mixing)
        return mixed.view(batch, *size_zyx, self.out).permute(0, 4, 1, 2, 3)

    def scratch_numbers(self, shape: TensorShape, rows: int) -> int:  # noqa: ARG002 (one protocol)
        """Numbers held beside input, (batch, in, z, y, x), and output while `rows` rows of it are computed."""
        return 0


class FromOneChannel(_Fast):
    """A convolution of width 3 of one channel: the 27 neighbours of each voxel, and one matrix product."""

    def rows(self, x: Tensor, start: int, stop: int, depth: int) -> Tensor:
        """Output rows [start, stop), (b, out, rows, y, x), of a source of `depth` rows; x are those that they need."""
        padded = functional.pad(x[:, 0], (1, 1, 1, 1, *self.lacking(start, stop, depth))).contiguous()
        batch, _, _, height, width = x.shape
        result = x.new_empty(batch, stop - start, height * width, self.out)
        mixing = self.convolution.weight.view(self.out, _TAPS).T.contiguous()
        for volume, target in zip(padded, result, strict=True):
            row, line, _ = volume.stride()
            shape = (stop - start, height, width, 3, 3, 3)
            neighbours = volume.as_strided(shape, (row, line, 1, row, line, 1), volume.storage_offset())
            for z, z_end in _groups(stop - start, height * width):
                gathered = neighbours[z:z_end].reshape(-1, _TAPS)
                torch.addmm(self.bias, gathered, mixing, out=target[z:z_end].view(-1, self.out))
        return result.view(batch, stop - start, height, width, self.out).permute(0, 4, 1, 2, 3)

    def scratch_numbers(self, shape: TensorShape, rows: int) -> int:
        """Numbers held beside input, (batch, in, z, y, x), and output while `rows` rows of it are computed."""
        plane = shape[3] * shape[4]
        padded = shape[0] * (rows + 2) * (shape[3] + 2) * (shape[4] + 2)
        return padded + _TAPS * min(rows * plane, max(_TOGETHER, plane))


class ToOneChannel(_Fast):
    """A convolution of width 3 to one channel: one matrix product gives each voxel's 27 shares, which are added."""

    def rows(self, x: Tensor, start: int, stop: int, depth: int) -> Tensor:
        """Output rows [start, stop), (b, out, rows, y, x), of a source of `depth` rows; x are those that they need."""
        batch, channels, present, height, width = x.shape
        before, _ = self.lacking(start, stop, depth)
        # Zeros around the result take the shares that fall outside of the volume.
        around = x.new_zeros(batch, present + 2, height + 2, width + 2)
        weight = self.convolution.weight.view(channels, _TAPS).T.contiguous()
        for volume, target in zip(x.permute(0, 2, 3, 4, 1), around, strict=True):
            for z, z_end in _groups(present, height * width):
                shares = torch.mm(weight, volume[z:z_end].reshape(-1, channels).T)
                for tap, share in enumerate(shares.view(_TAPS, z_end - z, height, width)):
                    dz, dy, dx = 2 - tap // 9, 2 - tap // 3 % 3, 2 - tap % 3
                    target[z + dz : z_end + dz, dy : dy + height, dx : dx + width] += share
        first = 2 - before
        return (around[:, first : first + stop - start, 1:-1, 1:-1] + self.bias)[:, None]

    def scratch_numbers(self, shape: TensorShape, rows: int) -> int:
        """Numbers held beside input, (batch, in, z, y, x), and output while `rows` rows of it are computed."""
        plane = shape[3] * shape[4]
        around = shape[0] * (rows + 4) * (shape[3] + 2) * (shape[4] + 2)
        return around + _TAPS * min((rows + 2) * plane, max(_TOGETHER, plane))


def _groups(rows: int, plane: int) -> Iterator[tuple[int, int]]:
    """Ranges of rows of about `_TOGETHER` voxels."""
    step = max(1, _TOGETHER // plane)
    for start in range(0, rows, step):
        yield start, min(start + step, rows)
