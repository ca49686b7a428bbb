"""Convolutions after SiLU in eight bits: activations 0 to 255, weights -127 to 127, sums in 32 bits.

An activation a is stored as q with a = scale (q - zero). It comes out of SiLU, so that its least value is known; its
greatest is looked up in a few windows of the volume, and the rare values above it are taken for that.

Source: Jacob et al. 2018 (arXiv 1712.05877), eq. 1 and section 2.2; Krishnamoorthi 2018 (arXiv 1806.08342), section
3.1.2, on a scale for each output channel of the weights.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ctinterp_dagster.model.blocks import activated

LEAST = -0.2785  # of SiLU
LEVELS = 255
WEIGHT_LEVELS = 127
WINDOW = (2, 64, 64)  # voxels (z, y, x) of a window
PEAK_WINDOWS = 4
ROUNDED_TOGETHER = 400_000  # activations that are made 8 bits together, in the cache

Peaks = Mapping[nn.Module, float]
"""The greatest activation before each convolution."""


@dataclass(frozen=True)
class Quantizer:
    """How activations from `LEAST` to a peak become whole numbers.

    Attributes:
        scale: of a step.
        zero: the number that stands for 0.
    """

    scale: float
    zero: int

    @classmethod
    def up_to(cls, peak: float) -> "Quantizer":
        """The quantizer of activations from the least that SiLU gives up to a peak."""
        scale = max(peak - LEAST, 1e-3) / LEVELS
        return cls(scale, round(-LEAST / scale))

    def activated(self, x: Tensor) -> Tensor:
        """The numbers of `blocks.activated`, made row by row in the cache.

        Args:
            x: (1, channels, z, y, x), channels last in memory.

        Returns:
            Slices (z, channels, y, x), uint8.
        """
        slices = x[0].transpose(0, 1)
        levels = torch.empty_like(slices, dtype=torch.uint8)
        rows = max(1, ROUNDED_TOGETHER // (x.shape[1] * x.shape[4]))
        for source, target in zip(slices.split(1), levels.split(1), strict=True):
            for some, out in zip(source.split(rows, dim=2), target.split(rows, dim=2), strict=True):
                self.write(activated(some.float()), out)
        return levels

    def write(self, activations: Tensor, out: Tensor) -> None:
        """Write the numbers of float32 activations, which it changes, into uint8 of the same shape."""
        levels = activations.mul_(1.0 / self.scale).add_(self.zero + 0.5).clamp_(0.0, LEVELS)
        out.copy_(levels.to(torch.int16))  # on the way to uint8 torch is five times as fast with it as without


class QuantizedConv:
    """A convolution of width 3 and of uint8 activations; zeros around the plane, none around the slices.

    Args:
        weight: (out, in, 3, 3), or (out, in, 3, 3, 3) float32.
        bias: (out,) float32.
        entering: of the activations that come in.
    """

    def __init__(self, weight: Tensor, bias: Tensor, entering: Quantizer) -> None:
        self.bias, self.entering = bias, entering
        self.volume = weight.dim() == 5
        self.padding = [0, 1, 1] if self.volume else [1, 1]
        self.one = [1] * len(self.padding)
        scale = weight.abs().amax(tuple(range(1, weight.dim()))).clamp_min(1e-12) / WEIGHT_LEVELS
        levels = (weight / scale.view(-1, *[1] * (weight.dim() - 1))).round().to(torch.int8)
        self.scale, self.zero = scale, torch.zeros(len(scale), dtype=torch.int32)
        self.weight = torch.ops.onednn.qconv_prepack(
            levels, scale, entering.scale, entering.zero, self.one, self.padding, self.one, 1
        )

    def __call__(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """The sums in floating point.

        Args:
            x: (b, in, [z,] y, x) uint8, channels last in memory.
            dtype: float32 or bfloat16.

        Returns:
            (b, out, [z - 2,] y, x) of `dtype`.
        """
        return self._convolved(x, 1.0, 0, dtype, "none")

    def silu(self, x: Tensor, leaving: Quantizer) -> Tensor:
        """SiLU of the sums of slices (b, in, y, x), uint8 as they come."""
        return self._convolved(x, leaving.scale, leaving.zero, torch.uint8, "swish")

    def _convolved(self, x: Tensor, scale: float, zero: int, dtype: torch.dtype, then: str) -> Tensor:
        convolve = torch.ops.onednn.qconv_pointwise if self.volume else torch.ops.onednn.qconv2d_pointwise
        shape = (self.one, self.padding, self.one, 1)
        weight = (self.weight, self.scale, self.zero, self.bias)
        after = (then, [1.0] if then == "swish" else [], "")
        result: Tensor = convolve(
            x, self.entering.scale, self.entering.zero, *weight, *shape, scale, zero, dtype, *after
        )
        return result


@cache
def is_exact() -> bool:
    """Whether this processor has instructions for products of eight bits, and torch uses them without overflow."""
    known = torch.cpu.get_capabilities()
    if not any(known.get(name) for name in ("avx512_vnni", "avx_vnni", "amx_int8")):
        return False
    width = 64
    layer = QuantizedConv(torch.full((width, width, 3, 3), 1.0), torch.zeros(width), Quantizer(1.0, 0))
    greatest = torch.full((1, width, 3, 3), LEVELS, dtype=torch.uint8).contiguous(memory_format=torch.channels_last)
    return abs(layer(greatest, torch.float32)[0, 0, 1, 1].item() / (LEVELS * width * 9) - 1.0) < 1e-5


@torch.inference_mode()
def peaks(network: nn.Module, layers: Sequence[nn.Module], x: Tensor, condition: Tensor, guide: int = 0) -> Peaks:
    """The greatest activation before each layer in the windows in which one channel varies most.

    Args:
        network: of x and condition.
        layers: convolutions of the network.
        x: (1, channels, z, y, x).
        condition: (1, numbers).
        guide: that channel of x.

    Returns:
        A number for each layer.
    """
    found: dict[nn.Module, float] = {}

    def note(layer: nn.Module, given: tuple[Tensor]) -> None:
        found[layer] = given[0].max().item()

    windows = _busiest(x, guide)
    with ExitStack() as hooks:
        for layer in layers:
            hooks.enter_context(layer.register_forward_pre_hook(note))
        network(windows, condition.expand(len(windows), -1))
    return found


def _busiest(x: Tensor, guide: int) -> Tensor:
    """The windows (windows, channels, z, y, x) of a volume (1, channels, z, y, x), by the variance of a channel."""
    size = [min(n, most) for n, most in zip(x.shape[2:], WINDOW, strict=True)]
    channel = x[:, guide, None]
    variance = functional.avg_pool3d(channel.square(), size) - functional.avg_pool3d(channel, size).square()
    places = variance.flatten().topk(min(PEAK_WINDOWS, variance.numel())).indices
    corners = zip(*np.unravel_index(places.numpy(), variance.shape[2:]), strict=True)
    return torch.cat(
        [
            x[:, :, z * size[0] :, y * size[1] :, x_ * size[2] :][:, :, : size[0], : size[1], : size[2]]
            for z, y, x_ in corners
        ]
    )
