"""Means and variances of volumes that come in pieces, exact wherever the pieces end."""

from collections.abc import Iterable, Iterator
from itertools import product

import torch
from torch import Tensor, nn

PART = 1 << 18  # numbers that are worked on together where a tensor does not fit in the cache: 1 MiB
GPU_PARTS = 32  # of them together on a GPU: enough to fill it, and little beside a slab


def in_parts(x: Tensor) -> Iterator[Tensor]:
    """Views of a tensor (batch, channel, z, y, x), parts of z and y: on a CPU such that they stay in its cache."""
    batch, channels, depth, height, width = x.shape
    lines = PART * (1 if x.device.type == "cpu" else GPU_PARTS) // (batch * channels * width)
    deep, high = max(1, lines // height), min(height, max(1, lines))
    for z, y in product(range(0, depth, deep), range(0, height, high)):
        yield x[:, :, z : z + deep, y : y + high]


def group_moments(slabs: Iterable[Tensor], norm: nn.GroupNorm, batch: int) -> tuple[Tensor, Tensor]:
    """Mean and variance of each group over a whole volume, spread over its channels.

    Each part of a slab gives its own mean and squares about it, which are joined in float64: nothing cancels, even
    where a channel is constant.

    Args:
        slabs: (batch, channel, rows, y, x), together the volume.
        norm: whose groups are meant.
        batch: volumes in the batch; without slabs, as in a dry run, all moments are 0.

    Returns:
        Mean and variance, (batch, channel) float64 each.

    Source: Chan, Golub and LeVeque 1983, equation 2.1.
    """
    channels, groups = norm.num_channels, norm.num_groups
    mean = torch.zeros(batch, channels, dtype=torch.float64, device=norm.weight.device)
    squares, count = torch.zeros_like(mean), 0
    for slab in slabs:
        for stored in in_parts(slab):
            part = stored.to(torch.promote_types(stored.dtype, torch.float32))
            own = part.mean((2, 3, 4), keepdim=True)
            about = part - own
            rest = about.mean((2, 3, 4)).double()  # what rounding left of it
            about_squares = about.square_().sum((2, 3, 4)).double()
            size = part.shape[2] * part.shape[3] * part.shape[4]
            step = own[:, :, 0, 0, 0].double() + rest - mean
            count += size
            mean += step * (size / count)
            squares += about_squares - size * rest.square() + step.square() * (size * (count - size) / count)
        del slab, stored, part  # or the slab would stay while the next one is computed
    grouped = mean.view(batch, groups, -1)
    group_mean = grouped.mean(-1, keepdim=True)
    variance = (squares.view(batch, groups, -1) / max(count, 1) + (grouped - group_mean).square()).mean(-1)
    each = channels // groups
    return group_mean[..., 0].repeat_interleave(each, -1), variance.repeat_interleave(each, -1)
