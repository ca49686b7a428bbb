"""The layers of MAISI's autoencoder; each takes a whole tensor, or a `Field` that is read a few rows at a time."""

import math
from collections import OrderedDict
from typing import TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from ctinterp_dagster.model.autoencoder.bounded_memory import Budget, Field, TensorShape
from ctinterp_dagster.model.autoencoder.fast_layers import fast_layer
from ctinterp_dagster.model.blocks import ResidualUnit

EPSILON = 1e-6
KERNEL_BLOCK = 16  # channels of a block of oneDNN's kernels with AVX-512
Activations = TypeVar("Activations", Tensor, Field)


class LocalConv(nn.Conv3d):
    """A convolution of width 1 or 3 along which a volume can be streamed.

    With stride 2 one zero is padded at the far end of each axis, as MAISI does, not one on both sides.
    """

    kernel_numbers = 0

    def __init__(self, in_channels: int, out_channels: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__(in_channels, out_channels, kernel, stride)

    def forward(self, x: Activations) -> Activations:
        """Convolve a tensor (batch, channel, z, y, x) or, lazily, a field."""
        if isinstance(x, Field):
            return x.through(fast_layer(self) or self)
        return self.rows(x, 0, x.shape[2] // self.stride[0], x.shape[2])

    def output_shape(self, shape: TensorShape) -> TensorShape:
        """The shape (batch, channel, z, y, x) of the result, from that of the source."""
        batch, _, depth, height, width = shape
        stride = self.stride[0]
        return batch, self.out_channels, depth // stride, height // stride, width // stride

    def source_rows(self, start: int, stop: int) -> tuple[int, int]:
        """The first source row that output rows [start, stop) need, and the one past the last; may lie outside."""
        if self.stride[0] == 2:
            return 2 * start, 2 * stop + 1
        reach = self.kernel_size[0] // 2
        return start - reach, stop + reach

    def rows(self, x: Tensor, start: int, stop: int, depth: int) -> Tensor:
        """Output rows [start, stop), (b, out, rows, y, x), of a source of `depth` rows; x are those that they need."""
        first, last = self.source_rows(start, stop)
        before, after = max(-first, 0), max(last - depth, 0)
        if self.stride[0] == 2:
            return self._convolve(functional.pad(x, (0, 1, 0, 1, before, after)), [0, 0, 0])
        reach = self.kernel_size[0] // 2
        if before == after:
            return self._convolve(x, [before, reach, reach])
        return self._convolve(functional.pad(x, (0, 0, 0, 0, before, after)), [0, reach, reach])

    def scratch_numbers(self, shape: TensorShape, rows: int) -> int:
        """Numbers held beside input and output while rows of the output are computed.

        Input and output again, which kernels reorder into blocks of 16 channels.

        Args:
            shape: of the input, (batch, in, z, y, x).
            rows: of the output, computed together.

        Returns:
            How many numbers, of all the batch.
        """
        batch, _, _, height, width = shape
        first, last = self.source_rows(0, rows)
        output = self.output_shape(shape)
        into, out = (-(-channels // KERNEL_BLOCK) * KERNEL_BLOCK for channels in (self.in_channels, self.out_channels))
        return batch * (into * (last - first) * height * width + out * rows * output[3] * output[4])

    def _convolve(self, x: Tensor, padding: list[int]) -> Tensor:
        if self._has_onednn(x):
            return torch.mkldnn_convolution(x, self.weight, self.bias, padding, self.stride, self.dilation, self.groups)
        result = functional.conv3d(x, self.weight, self.bias, self.stride, padding)
        # Tensor cores want channels last; the group norms of a training would turn it back.
        channels_last = x.is_cuda and not torch.is_grad_enabled()
        return result.contiguous(memory_format=torch.channels_last_3d) if channels_last else result

    def _has_onednn(self, x: Tensor) -> bool:
        """Whether to call oneDNN by name: torch leaves it aside for small inputs, where it is 4-15 times faster.

        Args:
            x: (batch, channel, z, y, x).

        Returns:
            False of other types, devices and sizes of kernels.

        Source: ATen/native/Convolution.cpp, `use_mkldnn`: batch x channels x z x y at most 20480.
        """
        plain = x.device.type == "cpu" and x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
        return plain and self.kernel_size[0] == 3 and self.in_channels > 1 and torch.backends.mkldnn.is_available()


class Doubling(nn.Module):
    """Trilinear upsampling by two along each axis, ends of the axes not aligned: weights 3/4 and 1/4."""

    kernel_numbers = 0

    def forward(self, x: Activations) -> Activations:
        """Double a tensor (batch, channel, z, y, x) or, lazily, a field."""
        return x.through(self) if isinstance(x, Field) else self.rows(x, 0, 2 * x.shape[2], x.shape[2])

    def output_shape(self, shape: TensorShape) -> TensorShape:
        """The shape (batch, channel, z, y, x) of the result, from that of the source."""
        batch, channels, depth, height, width = shape
        return batch, channels, 2 * depth, 2 * height, 2 * width

    def source_rows(self, start: int, stop: int) -> tuple[int, int]:
        """The first source row that output rows need, and the one past the last.

        Output row j lies at source position (j - 1/2) / 2.

        Args:
            start: the first output row.
            stop: the one past the last.

        Returns:
            First row and one past the last, which may lie outside.
        """
        return (start - 1) // 2, stop // 2 + 1

    def rows(self, x: Tensor, start: int, stop: int, depth: int) -> Tensor:
        """Output rows [start, stop), (b, channel, rows, 2 y, 2 x), of `depth` rows; x are those that they need."""
        if torch.is_grad_enabled():
            first = 2 * max(self.source_rows(start, stop)[0], 0)
            return functional.interpolate(x, scale_factor=2.0, mode="trilinear")[:, :, start - first : stop - first]
        before = max(self.source_rows(start, stop)[0], 0)
        batch, channels, _, height, width = x.shape
        kind = torch.channels_last_3d
        shape = batch, channels, stop - start, 2 * height, 2 * width
        doubled = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=kind)
        for row in range(start, stop):
            near, far = row // 2, min(max(row // 2 + (1 if row % 2 else -1), 0), depth - 1)
            plane = torch.lerp(x[:, :, near - before], x[:, :, far - before], 0.25)
            tall = _doubled_along(plane, 2, plane.new_empty(batch, 2 * height, width, channels).permute(0, 3, 1, 2))
            _doubled_along(tall, 3, doubled[:, :, row - start])
        return doubled

    def scratch_numbers(self, shape: TensorShape, rows: int) -> int:  # noqa: ARG002 (one row at a time)
        """Numbers held beside input, (batch, in, z, y, x), and output while `rows` rows of it are computed."""
        batch, channels, _, height, width = shape
        return 3 * batch * channels * height * width


def _doubled_along(x: Tensor, axis: int, out: Tensor) -> Tensor:
    """Double an axis into `out`: 3/4 of the near voxel and 1/4 of the next; at the ends there is none."""
    size = x.shape[axis]
    even, odd = (out[(slice(None),) * axis + (slice(k, None, 2),)] for k in (0, 1))
    low, high = x.narrow(axis, 0, size - 1), x.narrow(axis, 1, size - 1)
    torch.lerp(high, low, 0.25, out=even.narrow(axis, 1, size - 1))
    torch.lerp(low, high, 0.25, out=odd.narrow(axis, 0, size - 1))
    even.select(axis, 0).copy_(x.select(axis, 0))
    odd.select(axis, -1).copy_(x.select(axis, -1))
    return out


class VolumeNorm(nn.GroupNorm):
    """Group norm with the statistics of the whole volume, and the SiLU that follows it inside residual blocks."""

    def __init__(self, groups: int, channels: int, *, silu: bool) -> None:
        super().__init__(groups, channels, EPSILON)
        self.silu = silu

    def forward(self, x: Activations) -> Activations:
        """Normalise a tensor (batch, channel, z, y, x), or a field after a pass over it."""
        if isinstance(x, Field):
            return x.normalised(self, silu=self.silu)
        if not torch.is_grad_enabled():  # the fused norm loses all digits where a group is constant, as in air
            whole = Field(x, Budget(math.inf), x.element_size())
            return whole.normalised(self, silu=self.silu).read(0, whole.depth)
        normalised = super().forward(x)
        return functional.silu(normalised) if self.silu else normalised


def named(layer: nn.Module, depth: int) -> nn.Module:
    """The layer under `depth` levels that are called `conv`, as in the checkpoint."""
    for _ in range(depth):
        layer = nn.Sequential(OrderedDict(conv=layer))
    return layer


class ResidualBlock(ResidualUnit):
    """Norm, SiLU, convolution, twice; added to the input, whose channels a convolution of width 1 adapts."""

    def __init__(self, in_channels: int, out_channels: int, groups: int) -> None:
        super().__init__()
        self.norm1 = VolumeNorm(groups, in_channels, silu=True)
        self.conv1 = named(LocalConv(in_channels, out_channels), 2)
        self.norm2 = VolumeNorm(groups, out_channels, silu=True)
        self.conv2 = named(LocalConv(out_channels, out_channels), 2)
        same = in_channels == out_channels
        self.nin_shortcut = nn.Identity() if same else named(LocalConv(in_channels, out_channels, kernel=1), 2)

    def forward(self, x: Activations) -> Activations:
        """A tensor (batch, channel, z, y, x) or a field, with `out_channels`."""
        h = self.conv1(self.norm1(x))
        h = self.conv2(self.norm2(h))
        return cast("Activations", h + self.nin_shortcut(x))
