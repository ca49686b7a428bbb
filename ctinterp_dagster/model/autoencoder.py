"""MAISI's autoencoder: the tensor names of NVIDIA's published checkpoint, and the function of MONAI's implementation.

Source: Guo et al. 2024, "MAISI: Medical AI for Synthetic Imaging" (arXiv 2409.11169), section 3.1; MONAI's
`AutoencoderKlMaisi`, which is the oracle of the tests. Groups of names such as `.conv.conv` are MONAI's wrappers.
"""

import json
import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from ctinterp_dagster.errors import CheckpointError, ParamsError
from ctinterp_dagster.model.blocks import ResidualUnit
from ctinterp_dagster.model.device import out_of_memory
from ctinterp_dagster.model.fast_layers import fast_layer
from ctinterp_dagster.model.slabs import Budget, Field, Shape, in_slabs, predicted_peak_gib
from ctinterp_dagster.model.weights import LoadStatistics, load_weights, read_metadata, save_weights

LATENT_STRIDE = 4  # voxels a latent voxel covers along each axis: two halvings
EPSILON = 1e-6
BLOCK = 16  # channels of a block of oneDNN's kernels with AVX-512
LEVELS = 3
ARCHITECTURE = "ctinterp_autoencoder"  # the key of the metadata of a safetensors file
LOG_VARIANCE_RANGE = (-30.0, 20.0)
Volume = TypeVar("Volume", Tensor, Field)


class Posterior(NamedTuple):
    """The Gaussian that the encoder makes of a volume: `mean, log_variance = autoencoder.encode(x)`.

    Attributes:
        mean: (batch, latent channel, z/4, y/4, x/4).
        log_variance: the same shape, clamped to [-30, 20].

    Source: Kingma & Welling 2014, equations 9-10.
    """

    mean: Tensor
    log_variance: Tensor

    def sample(self, generator: torch.Generator) -> Tensor:
        """Draw a latent: mean + exp(log_variance / 2) noise; the noise is drawn on the generator's device."""
        noise = torch.randn(self.mean.shape, generator=generator, device=generator.device, dtype=self.mean.dtype)
        return self.mean + torch.exp(self.log_variance / 2) * noise.to(self.mean.device)


class LocalConv(nn.Conv3d):
    """A convolution of width 1 or 3 along which a volume can be streamed.

    With stride 2 one zero is padded at the far end of each axis, as MAISI does, not one on both sides.
    """

    kernel_numbers = 0

    def __init__(self, in_channels: int, out_channels: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__(in_channels, out_channels, kernel, stride)

    def forward(self, x: Volume) -> Volume:
        """Convolve a tensor (batch, channel, z, y, x) or, lazily, a field."""
        if isinstance(x, Field):
            return x.through(fast_layer(self) or self)
        return self.rows(x, 0, x.shape[2] // self.stride[0], x.shape[2])

    def output_shape(self, shape: Shape) -> Shape:
        """See `LocalLayer`."""
        batch, _, depth, height, width = shape
        stride = self.stride[0]
        return batch, self.out_channels, depth // stride, height // stride, width // stride

    def source_rows(self, start: int, stop: int) -> tuple[int, int]:
        """See `LocalLayer`."""
        if self.stride[0] == 2:
            return 2 * start, 2 * stop + 1
        reach = self.kernel_size[0] // 2
        return start - reach, stop + reach

    def rows(self, x: Tensor, start: int, stop: int, depth: int) -> Tensor:
        """See `LocalLayer`."""
        first, last = self.source_rows(start, stop)
        before, after = max(-first, 0), max(last - depth, 0)
        if self.stride[0] == 2:
            return self._convolve(functional.pad(x, (0, 1, 0, 1, before, after)), [0, 0, 0])
        reach = self.kernel_size[0] // 2
        if before == after:
            return self._convolve(x, [before, reach, reach])
        return self._convolve(functional.pad(x, (0, 0, 0, 0, before, after)), [0, reach, reach])

    def scratch_numbers(self, shape: Shape, rows: int) -> int:
        """See `LocalLayer`; input and output again, which kernels reorder into blocks of 16 channels."""
        batch, _, _, height, width = shape
        first, last = self.source_rows(0, rows)
        output = self.output_shape(shape)
        into, out = (-(-channels // BLOCK) * BLOCK for channels in (self.in_channels, self.out_channels))
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

        Source: ATen/native/Convolution.cpp, `use_mkldnn`: batch x channels x z x y at most 20480.
        """
        plain = x.device.type == "cpu" and x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
        return plain and self.kernel_size[0] == 3 and self.in_channels > 1 and torch.backends.mkldnn.is_available()


class Doubling(nn.Module):
    """Trilinear upsampling by two along each axis, ends of the axes not aligned: weights 3/4 and 1/4."""

    kernel_numbers = 0

    def forward(self, x: Volume) -> Volume:
        """Double a tensor (batch, channel, z, y, x) or, lazily, a field."""
        return x.through(self) if isinstance(x, Field) else self.rows(x, 0, 2 * x.shape[2], x.shape[2])

    def output_shape(self, shape: Shape) -> Shape:
        """See `LocalLayer`."""
        batch, channels, depth, height, width = shape
        return batch, channels, 2 * depth, 2 * height, 2 * width

    def source_rows(self, start: int, stop: int) -> tuple[int, int]:
        """See `LocalLayer`; output row j lies at source position (j - 1/2) / 2."""
        return (start - 1) // 2, stop // 2 + 1

    def rows(self, x: Tensor, start: int, stop: int, depth: int) -> Tensor:
        """See `LocalLayer`."""
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

    def scratch_numbers(self, shape: Shape, rows: int) -> int:  # noqa: ARG002 (one row at a time)
        """See `LocalLayer`."""
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

    def forward(self, x: Volume) -> Volume:
        """Normalise a tensor (batch, channel, z, y, x), or a field after a pass over it."""
        if isinstance(x, Field):
            return x.normalised(self, silu=self.silu)
        if not torch.is_grad_enabled():  # the fused norm loses all digits where a group is constant, as in air
            whole = Field(x, Budget(math.inf), x.element_size())
            return whole.normalised(self, silu=self.silu).read(0, whole.depth)
        normalised = super().forward(x)
        return functional.silu(normalised) if self.silu else normalised


def _named(layer: nn.Module, depth: int) -> nn.Module:
    """The layer under `depth` levels that are called `conv`, as in the checkpoint."""
    for _ in range(depth):
        layer = nn.Sequential(OrderedDict(conv=layer))
    return layer


class ResidualBlock(ResidualUnit):
    """Norm, SiLU, convolution, twice; added to the input, whose channels a convolution of width 1 adapts."""

    def __init__(self, in_channels: int, out_channels: int, groups: int) -> None:
        super().__init__()
        self.norm1 = VolumeNorm(groups, in_channels, silu=True)
        self.conv1 = _named(LocalConv(in_channels, out_channels), 2)
        self.norm2 = VolumeNorm(groups, out_channels, silu=True)
        self.conv2 = _named(LocalConv(out_channels, out_channels), 2)
        same = in_channels == out_channels
        self.nin_shortcut = nn.Identity() if same else _named(LocalConv(in_channels, out_channels, kernel=1), 2)

    def forward(self, x: Volume) -> Volume:
        """A tensor (batch, channel, z, y, x) or a field, with `out_channels`."""
        h = self.conv1(self.norm1(x))
        h = self.conv2(self.norm2(h))
        return cast("Volume", h + self.nin_shortcut(x))


def _encoder(channels: Sequence[int], latent_channels: int, groups: int) -> nn.Module:
    width = channels[0]
    blocks = [_named(LocalConv(1, width), 2)]
    for level, out in enumerate(channels):
        if level > 0:
            blocks.append(_named(LocalConv(width, width, stride=2), 3))
        blocks += [ResidualBlock(width, out, groups), ResidualBlock(out, out, groups)]
        width = out
    blocks += [VolumeNorm(groups, width, silu=False), _named(LocalConv(width, latent_channels), 2)]
    return nn.Sequential(OrderedDict(blocks=nn.Sequential(*blocks)))


def _decoder(channels: Sequence[int], latent_channels: int, groups: int) -> nn.Module:
    width = channels[-1]
    blocks = [_named(LocalConv(latent_channels, width), 2)]
    for level, out in enumerate(reversed(channels)):
        if level > 0:
            blocks.append(nn.Sequential(OrderedDict(doubling=Doubling(), conv=_named(LocalConv(width, width), 2))))
        blocks += [ResidualBlock(width, out, groups), ResidualBlock(out, out, groups)]
        width = out
    blocks += [VolumeNorm(groups, width, silu=False), _named(LocalConv(width, 1), 2)]
    return nn.Sequential(OrderedDict(blocks=nn.Sequential(*blocks)))


@dataclass(frozen=True)
class Architecture:
    """What the shapes of the tensors do not all say; the defaults are MAISI's.

    Attributes:
        channels: widths of the three levels.
        latent_channels: channels of the latent.
        norm_groups: groups of every group norm.
    """

    channels: tuple[int, ...] = (64, 128, 256)
    latent_channels: int = 4
    norm_groups: int = 32


class MaisiAutoencoder(nn.Module):
    """A volume in unit range to a latent 4x smaller along each axis, and back.

    Unit range: HU [-1000, 1000] as [0, 1], so air is 0. Sizes that are not multiples of 4 are padded with air at the
    far end of each axis; `decode` crops to the size that it is given.

    Args:
        channels: widths of the three levels; MAISI's are (64, 128, 256).
        latent_channels: channels of the latent.
        norm_groups: groups of every group norm; divides every width.

    Raises:
        ParamsError: the widths are not three positive multiples of `norm_groups`, or `latent_channels` is not positive.
    """

    def __init__(
        self, channels: Sequence[int] = (64, 128, 256), latent_channels: int = 4, norm_groups: int = 32
    ) -> None:
        super().__init__()
        _check_widths(channels, latent_channels, norm_groups)
        self.architecture = Architecture(tuple(channels), latent_channels, norm_groups)
        self.latent_channels = latent_channels
        self.encoder = _encoder(channels, latent_channels, norm_groups)
        self.decoder = _decoder(channels, latent_channels, norm_groups)
        self.quant_conv_mu = _named(LocalConv(latent_channels, latent_channels, kernel=1), 1)
        self.quant_conv_log_sigma = _named(LocalConv(latent_channels, latent_channels, kernel=1), 1)
        self.post_quant_conv = _named(LocalConv(latent_channels, latent_channels, kernel=1), 1)

    def encode(self, x: Tensor, memory_gib: float | None = None) -> Posterior:
        """The latent of a volume.

        Args:
            x: (batch, 1, z, y, x) in unit range.
            memory_gib: bound on the memory of activations; the volume is then read in slabs, without gradients, with
                the same result. None for the whole at once.

        Returns:
            The posterior, each part (batch, latent channel, ceil(z/4), ceil(y/4), ceil(x/4)).

        Raises:
            ParamsError: `x` has another shape, or the memory does not suffice (found before anything is computed).
        """
        if x.dim() != 5 or x.shape[1] != 1:
            raise ParamsError(f"a volume of shape {tuple(x.shape)} cannot be encoded: expected (batch, 1, z, y, x)")
        padding = [extent for size in reversed(x.shape[2:]) for extent in (0, -size % LATENT_STRIDE)]
        h = self._run(self.encoder, functional.pad(x, padding), memory_gib)
        return Posterior(self.quant_conv_mu(h), self.quant_conv_log_sigma(h).clamp(*LOG_VARIANCE_RANGE))

    def decode(
        self, z: Tensor, size_zyx: tuple[int, int, int] | None = None, memory_gib: float | None = None
    ) -> Tensor:
        """The volume of a latent.

        Args:
            z: (batch, latent channel, z, y, x), not standardised.
            size_zyx: the size of the volume that was encoded; None for 4 times the latent's.
            memory_gib: as for `encode`.

        Returns:
            (batch, 1, *size_zyx) in unit range; not clipped.

        Raises:
            ParamsError: shapes do not fit, or the memory does not suffice.
        """
        if z.dim() != 5 or z.shape[1] != self.latent_channels:
            raise ParamsError(
                f"a latent of shape {tuple(z.shape)} cannot be decoded: "
                f"expected (batch, {self.latent_channels}, z, y, x)"
            )
        depth, height, width = size_zyx or tuple(LATENT_STRIDE * size for size in z.shape[2:])
        if tuple(-(-size // LATENT_STRIDE) for size in (depth, height, width)) != tuple(z.shape[2:]):
            raise ParamsError(
                f"size_zyx={size_zyx} does not fit a latent of {tuple(z.shape[2:])}: "
                f"expected sizes above {LATENT_STRIDE}(n - 1), up to {LATENT_STRIDE}n"
            )
        volume = self._run(self.decoder, self.post_quant_conv(z), memory_gib)
        return volume[:, :, :depth, :height, :width]

    def forward(self, x: Tensor, generator: torch.Generator) -> tuple[Tensor, Posterior]:
        """Encode, draw one latent, decode: what training differentiates; (reconstruction, posterior)."""
        posterior = self.encode(x)
        size_zyx = x.shape[2], x.shape[3], x.shape[4]
        return self.decode(posterior.sample(generator), size_zyx), posterior

    def _run(self, network: nn.Module, x: Tensor, memory_gib: float | None) -> Tensor:
        if memory_gib is None and (torch.is_grad_enabled() or self.training):
            return cast("Tensor", network(x))
        budget = Budget(math.inf if memory_gib is None else memory_gib)
        with out_of_memory(ParamsError, f"give less than memory_gib={budget.memory_gib:g}"):
            return in_slabs(network, x, budget)

    def predicted_peaks_gib(self, size_zyx: tuple[int, int, int], memory_gib: float) -> tuple[float, float]:
        """The memory of activations that `encode` and `decode` take for one volume; computes nothing.

        Raises:
            ParamsError: the memory does not suffice.
        """
        latent = [-(-size // LATENT_STRIDE) for size in size_zyx]
        volume = torch.empty(1, 1, *(LATENT_STRIDE * size for size in latent), device="meta")
        z = torch.empty(1, self.latent_channels, *latent, device="meta")
        budget = Budget(memory_gib)
        return predicted_peak_gib(self.encoder, volume, budget), predicted_peak_gib(self.decoder, z, budget)

    def load_pretrained_weights(self, path: Path | str, *, strict: bool = True) -> LoadStatistics:
        """Read weights, MAISI's `autoencoder.pt` or any file with the same names; see `weights.load_weights`."""
        return load_weights(self, Path(path), strict=strict)

    def save(self, path: Path) -> None:
        """Write safetensors with the published names, and the architecture as metadata for `load_autoencoder`."""
        save_weights(self, path, {ARCHITECTURE: json.dumps(asdict(self.architecture), sort_keys=True)})


def load_autoencoder(path: Path | str) -> MaisiAutoencoder:
    """An autoencoder from a file of weights, on the CPU, for inference.

    Args:
        path: what `MaisiAutoencoder.save` wrote, or any file of MAISI's 130 tensors.

    Raises:
        MissingInputError: the file is not there.
        CheckpointError: the file is refused, as by `weights.load_weights`.
    """
    recorded = read_metadata(Path(path)).get(ARCHITECTURE)
    try:
        architecture = Architecture(**json.loads(recorded)) if recorded else Architecture()
        autoencoder = MaisiAutoencoder(**asdict(architecture))
    except (ValueError, TypeError, ParamsError) as error:
        raise CheckpointError(
            f"{path} says that its architecture is {recorded:.200}: expected widths, latent channels and groups "
            "as `MaisiAutoencoder.save` writes them"
        ) from error
    autoencoder.load_pretrained_weights(path)
    return autoencoder.eval().requires_grad_(requires_grad=False)


def _check_widths(channels: Sequence[int], latent_channels: int, norm_groups: int) -> None:
    if len(channels) != LEVELS:
        raise ParamsError(f"autoencoder channels {tuple(channels)}: expected {LEVELS} widths, one a level")
    if norm_groups < 1 or any(width < 1 or width % norm_groups for width in channels):
        raise ParamsError(
            f"autoencoder channels {tuple(channels)}: expected multiples of norm_groups={norm_groups}; change either"
        )
    if latent_channels < 1:
        raise ParamsError(f"latent_channels={latent_channels}: expected at least 1")
