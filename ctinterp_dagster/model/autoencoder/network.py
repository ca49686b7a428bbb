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
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from ctinterp_dagster.errors import CheckpointError, ParamsError
from ctinterp_dagster.model.autoencoder.bounded_memory import Budget, in_slabs
from ctinterp_dagster.model.autoencoder.layers import Doubling, LocalConv, ResidualBlock, VolumeNorm, named
from ctinterp_dagster.model.autoencoder.weights import LoadStatistics, load_weights, read_metadata, save_weights
from ctinterp_dagster.model.device import out_of_memory

LATENT_STRIDE = 4  # voxels a latent voxel covers along each axis: two halvings
MEMORY_GIB = 8.0  # of activations, for stages that encode; the latents do not depend on it
NETWORK_LEVELS = 3
ARCHITECTURE = "ctinterp_autoencoder"  # the key of the metadata of a safetensors file
LOG_VARIANCE_RANGE = (-30.0, 20.0)


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
        """Draw a latent: mean + exp(log_variance / 2) noise.

        Args:
            generator: of the noise, which is drawn on its device.

        Returns:
            (b, c, z, y, x), as the mean.

        Source: Kingma and Welling 2014, section 2.4 (reparameterisation).
        """
        noise = torch.randn(self.mean.shape, generator=generator, device=generator.device, dtype=self.mean.dtype)
        return self.mean + torch.exp(self.log_variance / 2) * noise.to(self.mean.device)


def _encoder(channels: Sequence[int], latent_channels: int, groups: int) -> nn.Module:
    width = channels[0]
    blocks = [named(LocalConv(1, width), 2)]
    for level, out in enumerate(channels):
        if level > 0:
            blocks.append(named(LocalConv(width, width, stride=2), 3))
        blocks += [ResidualBlock(width, out, groups), ResidualBlock(out, out, groups)]
        width = out
    blocks += [VolumeNorm(groups, width, silu=False), named(LocalConv(width, latent_channels), 2)]
    return nn.Sequential(OrderedDict(blocks=nn.Sequential(*blocks)))


def _decoder(channels: Sequence[int], latent_channels: int, groups: int) -> nn.Module:
    width = channels[-1]
    blocks = [named(LocalConv(latent_channels, width), 2)]
    for level, out in enumerate(reversed(channels)):
        if level > 0:
            blocks.append(nn.Sequential(OrderedDict(doubling=Doubling(), conv=named(LocalConv(width, width), 2))))
        blocks += [ResidualBlock(width, out, groups), ResidualBlock(out, out, groups)]
        width = out
    blocks += [VolumeNorm(groups, width, silu=False), named(LocalConv(width, 1), 2)]
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
        self.quant_conv_mu = named(LocalConv(latent_channels, latent_channels, kernel=1), 1)
        self.quant_conv_log_sigma = named(LocalConv(latent_channels, latent_channels, kernel=1), 1)
        self.post_quant_conv = named(LocalConv(latent_channels, latent_channels, kernel=1), 1)

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
            memory_gib: bound on the memory of activations, GiB; the latent is then read in slabs, without gradients,
                with the same result. None for the whole at once.

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
        """Encode, draw one latent, decode: what training differentiates.

        Args:
            x: (batch, 1, z, y, x) in unit range, sizes of any length.
            generator: of the latent, on the device of x.

        Returns:
            The reconstruction, of the shape of x, and the posterior of its latent.
        """
        posterior = self.encode(x)
        size_zyx = x.shape[2], x.shape[3], x.shape[4]
        return self.decode(posterior.sample(generator), size_zyx), posterior

    def _run(self, network: nn.Module, x: Tensor, memory_gib: float | None) -> Tensor:
        if memory_gib is None and (torch.is_grad_enabled() or self.training):
            return cast("Tensor", network(x))
        budget = Budget(math.inf if memory_gib is None else memory_gib)
        with out_of_memory(ParamsError, f"give less than memory_gib={budget.memory_gib:g}"):
            return in_slabs(network, x, budget)

    def load_pretrained_weights(self, path: Path | str, *, strict: bool = True) -> LoadStatistics:
        """Read weights: MAISI's `autoencoder.pt`, or any file of safetensors or torch.save with the same names.

        Args:
            path: of the file.
            strict: refuse a file with missing or unexpected tensors; wrong shapes are always refused.

        Returns:
            How many tensors were loaded, missing and unexpected.

        Raises:
            MissingInputError: the file is not there.
            CheckpointError: the file is refused; the message says how many tensors are wrong, and names the first.
        """
        return load_weights(self, Path(path), strict=strict)

    def save(self, path: Path) -> None:
        """Write safetensors with the published names, and the architecture as metadata for `load_autoencoder`."""
        save_weights(self, path, {ARCHITECTURE: json.dumps(asdict(self.architecture), sort_keys=True)})


def load_autoencoder(path: Path | str) -> MaisiAutoencoder:
    """An autoencoder from a file of weights, on the CPU.

    Args:
        path: what `MaisiAutoencoder.save` wrote, or any file of MAISI's 130 tensors.

    Returns:
        The autoencoder in evaluation mode, no gradient wanted.

    Raises:
        MissingInputError: the file is not there.
        CheckpointError: the file is refused, as by `weights.load_weights`.
    """
    path = Path(path)
    recorded = read_metadata(path).get(ARCHITECTURE)
    try:
        architecture = Architecture(**json.loads(recorded)) if recorded else Architecture()
        with torch.device("meta"):  # no memory is spent on what the metadata alone claim
            autoencoder = MaisiAutoencoder(**asdict(architecture))
    except (ValueError, TypeError, RuntimeError, ParamsError) as error:
        raise CheckpointError(
            f"{path} says that its architecture is {recorded:.200}: expected widths, latent channels and groups "
            "as `MaisiAutoencoder.save` writes them"
        ) from error
    autoencoder.load_pretrained_weights(path)
    return autoencoder.eval().requires_grad_(requires_grad=False)


def _check_widths(channels: Sequence[int], latent_channels: int, norm_groups: int) -> None:
    if len(channels) != NETWORK_LEVELS:
        raise ParamsError(f"autoencoder channels {tuple(channels)}: expected {NETWORK_LEVELS} widths, one a level")
    if norm_groups < 1 or any(width < 1 or width % norm_groups for width in channels):
        raise ParamsError(
            f"autoencoder channels {tuple(channels)}: expected multiples of norm_groups={norm_groups}; change either"
        )
    if latent_channels < 1:
        raise ParamsError(f"latent_channels={latent_channels}: expected at least 1")
