"""Where a training from scratch begins: weights with which an autoencoder of MAISI's family is a linear one.

The encoder takes principal components of 2x2x2 voxels, and the latent is principal components of 2x2x2 of those. In the
decoder each doubling is followed by the least squares estimate of what was there, from 3x3x3 neighbours. All residual
branches are silent. A group norm would take from each scan its own mean and spread: two constant channels of opposite
sign, large against all others, decide the spread, and a channel with the negative sum of the signals keeps the mean at
zero. Only weights are special, and the training that follows changes all of them.

Source: Jolliffe 2002, chapter 2 (principal components); Zhang et al. 2019 (Fixup), section 3 (residual branches that
begin with zero).
"""

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from ctinterp_dagster.errors import ParamsError
from ctinterp_dagster.model.autoencoder.layers import LocalConv, ResidualBlock, VolumeNorm
from ctinterp_dagster.model.autoencoder.network import MaisiAutoencoder
from ctinterp_dagster.model.blocks import zero_init

WATER = 0.5  # of unit range; taken off at first, so that the zeros around a volume are water and not air
CARRIER = 64.0  # of the constant channels; a latent has unit spread
OF_A_NORM = 3  # channels beside the signals: their negative sum and two constants
LOG_VARIANCE = -8.0  # of the latent: noise of 2 % of its spread
RIDGE = 1e-5  # of the mean square of what least squares estimates from


@torch.no_grad()
def begin_linear(autoencoder: MaisiAutoencoder, crops: Tensor) -> None:
    """Make an autoencoder a linear one that is fitted to crops.

    Args:
        autoencoder: with one group a norm, on the CPU; changed in place.
        crops: (b, 1, z, y, x) in unit range, sizes multiples of 4.

    Raises:
        ParamsError: a level has too few channels, or a norm has several groups.
    """
    (fine, middle, coarse), latent = autoencoder.architecture.channels, autoencoder.latent_channels
    needed = latent + OF_A_NORM
    if fine < 1 + OF_A_NORM or min(middle, coarse) < needed or autoencoder.architecture.norm_groups != 1:
        raise ParamsError(
            f"a linear start needs widths of at least ({1 + OF_A_NORM}, {needed}, {needed}) with {latent} latent "
            f"channels and one group a norm, got {autoencoder.architecture}: widen autoencoder.channels"
        )
    for block in autoencoder.modules():
        if isinstance(block, ResidualBlock):
            zero_init(block.conv2)
    about_water = crops - WATER
    kernels = principal_components(about_water, min(8, fine))
    bands = functional.conv3d(about_water, kernels, stride=2)
    code_kernels = principal_components(bands, latent)
    code_kernels /= functional.conv3d(bands, code_kernels, stride=2).square().mean().sqrt().clamp_min(1e-6)
    code = functional.conv3d(bands, code_kernels, stride=2)
    _set_encoder(autoencoder, kernels, code_kernels)
    _set_decoder(autoencoder, about_water, bands, code)


def _set_encoder(autoencoder: MaisiAutoencoder, kernels: Tensor, code_kernels: Tensor) -> None:
    blocks, latent = _blocks(autoencoder.encoder), len(code_kernels)
    _put(blocks[0], _centre(1), -WATER)
    _put(blocks[3], functional.pad(kernels, (0, 1) * 3))
    _pass_on(blocks[4], len(kernels))
    _put_alone(blocks[6], functional.pad(_balanced(code_kernels), (0, 1) * 3))
    _pass_on(blocks[7], latent + 1)
    _carry(blocks[8], blocks[9], latent)
    _put(blocks[10], _centre(latent), read=latent + OF_A_NORM)
    _put(autoencoder.quant_conv_mu, _identity(latent))
    _put(autoencoder.quant_conv_log_sigma, torch.zeros(latent, latent, 1, 1, 1), LOG_VARIANCE)


def _set_decoder(autoencoder: MaisiAutoencoder, about_water: Tensor, bands: Tensor, code: Tensor) -> None:
    blocks = _blocks(autoencoder.decoder)
    _put(autoencoder.post_quant_conv, _identity(code.shape[1]))
    _put(blocks[0], _centre(code.shape[1]))
    doubled = functional.interpolate(code, scale_factor=2.0, mode="trilinear")
    kernels, bias = least_squares(doubled, bands)
    _put(blocks[3], kernels, bias)
    _pass_on(blocks[4], bands.shape[1])
    estimate = functional.conv3d(doubled, kernels, bias, padding=1)
    kernels, bias = least_squares(functional.interpolate(estimate, scale_factor=2.0, mode="trilinear"), about_water)
    _put_alone(blocks[6], _balanced(kernels), _balanced(bias))
    _pass_on(blocks[7], 2)
    _carry(blocks[8], blocks[9], 1)
    _put(blocks[10], _centre(1), WATER, read=1 + OF_A_NORM)


def principal_components(x: Tensor, count: int) -> Tensor:
    """The kernels that keep most of the square of 2x2x2 voxels, the strongest first.

    Args:
        x: (b, channels, z, y, x), sizes even.
        count: how many, at most 8 a channel.

    Returns:
        (count, channels, 2, 2, 2), orthonormal, none of a negative sum.
    """
    channels = x.shape[1]
    blocks = x.unfold(2, 2, 2).unfold(3, 2, 2).unfold(4, 2, 2).movedim(1, 4).reshape(-1, channels * 8).double()
    vectors = torch.linalg.eigh(blocks.T @ blocks).eigenvectors.flip(1)[:, :count].T
    signs = torch.where(vectors.sum(1, keepdim=True) < 0, -1.0, 1.0)
    kernels: Tensor = (vectors * signs).to(x.dtype).reshape(count, channels, 2, 2, 2)
    return kernels


def least_squares(sources: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """The 3x3x3 convolution of sources that comes nearest to targets, away from the ends.

    Args:
        sources: (b, in, z, y, x).
        targets: (b, out, z, y, x).

    Returns:
        Kernels (out, in, 3, 3, 3) and bias (out,).
    """
    channels, size = sources.shape[1], sources.shape[1] * 27 + 1
    gram = torch.zeros(size, size, dtype=torch.float64)
    moment = torch.zeros(size, targets.shape[1], dtype=torch.float64)
    for source, target in zip(sources, targets[:, :, 1:-1, 1:-1, 1:-1], strict=True):
        for z in range(target.shape[1]):  # slice by slice: the neighbours take 27 times the memory
            around = source[:, z : z + 3].unfold(2, 3, 1).unfold(3, 3, 1).permute(2, 3, 0, 1, 4, 5)
            row = functional.pad(around.reshape(-1, size - 1), (0, 1), value=1.0).double()
            gram += row.T @ row
            moment += row.T @ target[:, z].flatten(1).T.double()
    gram.diagonal().add_(RIDGE * gram.diagonal().mean())
    solution = torch.linalg.solve(gram, moment).T.to(sources.dtype)
    return solution[:, :-1].reshape(-1, channels, 3, 3, 3), solution[:, -1]


def _blocks(half: nn.Module) -> nn.Sequential:
    return cast("nn.Sequential", half.get_submodule("blocks"))


def _convolution(layer: nn.Module) -> LocalConv:
    """The one convolution of a wrapped layer."""
    return next(module for module in layer.modules() if isinstance(module, LocalConv))


def _put(layer: nn.Module, kernels: Tensor, bias: Tensor | float = 0.0, read: int | None = None) -> None:
    """Set the first channels that a layer makes, of its first `read` channels, None for all; others stay random."""
    convolution, (made, channels) = _convolution(layer), kernels.shape[:2]
    convolution.weight[:made, :read] = 0.0
    convolution.weight[:made, :channels] = kernels
    cast("Tensor", convolution.bias)[:made] = bias


def _put_alone(layer: nn.Module, kernels: Tensor, bias: Tensor | float = 0.0) -> None:
    """Set the first channels that a layer makes, and the others to zero."""
    zero_init(_convolution(layer))
    _put(layer, kernels, bias)


def _pass_on(block: nn.Module, channels: int) -> None:
    """Have a residual block that changes the width pass on its first channels alone."""
    shortcut = cast("ResidualBlock", block).nin_shortcut
    if not isinstance(shortcut, nn.Identity):
        _put_alone(shortcut, _identity(channels))


def _carry(block: nn.Module, norm: nn.Module, signals: int) -> None:
    """Have a block and the norm behind it pass on the first channels, which their negative sum follows, unchanged."""
    constants = _convolution(cast("ResidualBlock", block).conv2).bias
    assert constants is not None
    constants[signals + 1], constants[signals + 2] = CARRIER, -CARRIER
    weight = cast("VolumeNorm", norm).weight
    weight.fill_(CARRIER * math.sqrt(2.0 / len(weight)))  # the spread of the whole group
    weight[signals : signals + OF_A_NORM] = 0.0


def _balanced(rows: Tensor) -> Tensor:
    """(n, ...) with the negative sum of all as one more."""
    return torch.cat([rows, -rows.sum(0, keepdim=True)])


def _identity(channels: int) -> Tensor:
    return torch.eye(channels)[:, :, None, None, None]


def _centre(channels: int) -> Tensor:
    return functional.pad(_identity(channels), (1,) * 6)
