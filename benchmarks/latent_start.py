"""The linear network that the released latent diffusion begins with; used by `benchmarks.latent_release`.

It is what is left of an autoencoder of MAISI's family whose residual branches are silent and whose norms do nothing:
the convolutions of the path and trilinear doublings. As in `model/autoencoder/linear_start.py`, but all channels carry
signals, and the convolutions are fitted jointly before the autoencoder takes them.
"""

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from ctinterp_dagster.latent.conditioning import SPREAD, Encode, voxels_as_channels
from ctinterp_dagster.model.autoencoder import LATENT_STRIDE, MaisiAutoencoder
from ctinterp_dagster.model.autoencoder.layers import LocalConv, ResidualBlock, VolumeNorm
from ctinterp_dagster.model.autoencoder.linear_start import LOG_VARIANCE, WATER, least_squares, principal_components
from ctinterp_dagster.model.blocks import zero_init

WIDTHS, LATENT_CHANNELS, BANDS = (16, 24, 48), 8, 8
ENCODER_CARRIER, DECODER_CARRIER = 64.0, 16.0  # of the constant channels that decide the spread of a norm
LAST_SIGNALS = 12  # what the last convolution of the decoder is made of; with three more channels 16 suffice
MIXING_SIDE = 9  # latent voxels, in whose middle a single one is decoded
REACH = 2  # latent voxels: how far the encoder sees


class LinearPath(nn.Module):
    """The path of an autoencoder, with zeros around as there."""

    def __init__(self) -> None:
        """Random weights."""
        super().__init__()
        fine, middle, coarse = WIDTHS
        self.first = nn.Conv3d(1, fine, 3, padding=1)
        self.halve_fine = nn.Conv3d(fine, fine, 3, 2)
        self.widen = nn.Conv3d(fine, middle, 1)
        self.halve_middle = nn.Conv3d(middle, middle, 3, 2)
        self.code = nn.Conv3d(middle, LATENT_CHANNELS, 3, padding=1)
        self.quant = nn.Conv3d(LATENT_CHANNELS, LATENT_CHANNELS, 1)
        self.post_quant = nn.Conv3d(LATENT_CHANNELS, LATENT_CHANNELS, 1)
        self.decode_first = nn.Conv3d(LATENT_CHANNELS, coarse, 3, padding=1)
        self.double_coarse = nn.Conv3d(coarse, middle, 3, padding=1)
        self.double_middle = nn.Conv3d(middle, fine, 3, padding=1)
        self.last = nn.Conv3d(fine, 1, 3, padding=1)

    def encode(self, unit: Tensor) -> Tensor:
        """(b, 1, z, y, x) in unit range, sizes multiples of 4, to (b, latent channel, z/4, y/4, x/4)."""
        half: Tensor = self.widen(self.halve_fine(functional.pad(self.first(unit), (0, 1) * 3)))
        latent: Tensor = self.quant(self.code(self.halve_middle(functional.pad(half, (0, 1) * 3))))
        return latent

    def decode(self, latent: Tensor) -> Tensor:
        """The way back."""
        half = self.double_coarse(doubled(self.decode_first(self.post_quant(latent))))
        unit: Tensor = self.last(self.double_middle(doubled(half)))
        return unit


def doubled(x: Tensor) -> Tensor:
    """(b, channel, z, y, x) at twice the resolution, trilinear."""
    return functional.interpolate(x, scale_factor=2.0, mode="trilinear")


def put(layer: nn.Module, kernels: Tensor, bias: Tensor | float = 0.0) -> None:
    """Set the first channels that a convolution, wrapped or not, makes, from its first channels; others stay."""
    convolution = next(module for module in layer.modules() if isinstance(module, nn.Conv3d))
    made, channels = kernels.shape[:2]
    convolution.weight[:made] = 0.0
    convolution.weight[:made, :channels] = kernels
    cast("Tensor", convolution.bias)[:made] = bias


def identity(channels: int) -> Tensor:
    """A 1x1x1 convolution that changes nothing."""
    return torch.eye(channels)[:, :, None, None, None]


def centre(channels: int) -> Tensor:
    """A 3x3x3 convolution that changes nothing."""
    return functional.pad(identity(channels), (1,) * 6)


def haar() -> Tensor:
    """(8, 1, 2, 2, 2): mean and differences of 2x2x2 voxels, orthonormal."""
    pair = torch.tensor([[1.0, 1.0], [1.0, -1.0]]) / math.sqrt(2.0)
    return torch.einsum("ai,bj,ck->abcijk", pair, pair, pair).reshape(BANDS, 1, 2, 2, 2)


@torch.no_grad()
def begin(path: LinearPath, crops: Tensor) -> None:
    """Bands of 2x2x2 voxels, principal components of 2x2x2 of these, least squares on the way back.

    Args:
        path: changed in place; channels that carry nothing yet are random, so that the joint fit can use them.
        crops: (b, 1, z, y, x) in unit range, sizes multiples of 4.
    """
    for parameter in path.parameters():
        parameter.zero_() if parameter.ndim == 1 else parameter.normal_(0.0, 0.5 / math.sqrt(parameter[0].numel()))
    about_water = crops - WATER
    bands = functional.conv3d(about_water, haar(), stride=2)
    components = principal_components(bands - bands.mean((0, 2, 3, 4), keepdim=True), WIDTHS[1])
    put(path.first, centre(1), -WATER)
    put(path.halve_fine, functional.pad(haar(), (0, 1) * 3))
    put(path.widen, identity(BANDS))
    put(path.halve_middle, functional.pad(components, (0, 1) * 3))
    put(path.code, centre(LATENT_CHANNELS))
    put(path.quant, identity(LATENT_CHANNELS))
    put(path.post_quant, identity(LATENT_CHANNELS))
    put(path.decode_first, centre(LATENT_CHANNELS))
    put(path.last, centre(1), WATER)
    coarse = doubled(path.encode(crops))
    kernels, bias = least_squares(coarse, bands)
    put(path.double_coarse, kernels, bias)
    fine = doubled(functional.conv3d(coarse, kernels, bias, padding=1))
    put(path.double_middle, *least_squares(fine, about_water))


@torch.no_grad()
def mix(path: LinearPath, crops: Tensor, generator: torch.Generator) -> float:
    """Mix the channels of the latent so that the square of a difference is that of the volumes: z' = G^1/2 z.

    G is the mean of J^T J of the decoder; the latent's mean becomes zero.

    Args:
        path: changed in place; it decodes what it encodes as before.
        crops: (b, 1, z, y, x) in unit range, of which the mean is taken.
        generator: of white noise, to see.

    Returns:
        The energy that white noise in the latent has in the volume, over its energy in the latent: 1 is meant.
    """
    channels, middle = LATENT_CHANNELS, MIXING_SIDE // 2
    single = torch.zeros(channels, channels, *[MIXING_SIDE] * 3)
    single[range(channels), range(channels), middle, middle, middle] = 1.0
    responses = (path.decode(single) - path.decode(torch.zeros_like(single[:1]))).flatten(1).double()
    energies, vectors = torch.linalg.eigh(responses @ responses.T)
    root = (vectors * energies.sqrt()) @ vectors.T
    quant, post_quant = path.quant.weight[:, :, 0, 0, 0], path.post_quant.weight[:, :, 0, 0, 0]
    bias, post_bias = cast("Tensor", path.quant.bias), cast("Tensor", path.post_quant.bias)
    quant.copy_(root @ quant.double())
    bias.copy_(root @ bias.double())
    post_quant.copy_(post_quant.double() @ torch.linalg.inv(root))
    latent = path.encode(crops)
    mean = latent.mean((0, 2, 3, 4))
    post_bias += post_quant @ mean
    bias -= mean
    latent -= mean[:, None, None, None]
    noise = 0.05 * torch.randn(latent.shape, generator=generator)
    inner = (..., *[slice(8, -8)] * 3)
    change = (path.decode(latent + noise) - path.decode(latent))[inner]
    voxels = LATENT_STRIDE**3 / channels  # a latent number stands for
    return float(change.square().mean() * voxels / noise.square().mean())


@torch.no_grad()
def as_autoencoder(path: LinearPath) -> MaisiAutoencoder:
    """An autoencoder that encodes and decodes as the path does, within what float32 lets its norms pass on."""
    autoencoder = MaisiAutoencoder(WIDTHS, LATENT_CHANNELS, norm_groups=1)
    for block in autoencoder.modules():
        if isinstance(block, ResidualBlock):
            zero_init(block.conv2)
    _set_encoder(autoencoder, path)
    _set_decoder(autoencoder, path)
    return autoencoder


def _set_encoder(autoencoder: MaisiAutoencoder, path: LinearPath) -> None:
    blocks, signals = _blocks(autoencoder.encoder), WIDTHS[1]
    _take(blocks[0], path.first)
    _take(blocks[3], path.halve_fine)
    _take(cast("ResidualBlock", blocks[4]).nin_shortcut, path.widen)
    _take(blocks[6], path.halve_middle)
    _carry(blocks[7:10], identity(signals), ENCODER_CARRIER)
    _take(blocks[10], path.code)
    _take(autoencoder.quant_conv_mu, path.quant)
    put(autoencoder.quant_conv_log_sigma, torch.zeros(LATENT_CHANNELS, LATENT_CHANNELS, 1, 1, 1), LOG_VARIANCE)


def _set_decoder(autoencoder: MaisiAutoencoder, path: LinearPath) -> None:
    """The last convolution is taken as signals that matter most, so that three channels are left for the norm."""
    blocks = _blocks(autoencoder.decoder)
    _take(autoencoder.post_quant_conv, path.post_quant)
    _take(blocks[0], path.decode_first)
    _take(blocks[3], path.double_coarse)
    shortcut = cast("ResidualBlock", blocks[4]).nin_shortcut
    zero_init(next(module for module in shortcut.modules() if isinstance(module, LocalConv)))
    put(shortcut, identity(WIDTHS[1]))
    _take(blocks[6], path.double_middle)
    into, strengths, out = torch.linalg.svd(path.last.weight[0].flatten(1), full_matrices=False)
    _carry(blocks[7:10], into[:, :LAST_SIGNALS].T[:, :, None, None, None], DECODER_CARRIER)
    kernels = (strengths[:, None] * out)[:LAST_SIGNALS].reshape(1, LAST_SIGNALS, 3, 3, 3)
    put(blocks[10], kernels, cast("Tensor", path.last.bias))


def _carry(layers: nn.Sequential, signals: Tensor, carrier: float) -> None:
    """Have two blocks and the norm behind them pass on signals (n, channel, 1, 1, 1) of the channels unchanged."""
    count, (widen, block, norm) = len(signals), layers
    shortcut = cast("ResidualBlock", widen).nin_shortcut
    zero_init(next(module for module in shortcut.modules() if isinstance(module, LocalConv)))
    put(shortcut, torch.cat([signals, -signals.sum(0, keepdim=True)]))
    second = next(m for m in cast("ResidualBlock", block).conv2.modules() if isinstance(m, LocalConv))
    cast("Tensor", second.bias)[count + 1 : count + 3] = torch.tensor([carrier, -carrier])
    weight = cast("VolumeNorm", norm).weight
    zero_init(norm)
    weight[:count] = carrier * math.sqrt(2.0 / len(weight))  # the spread of the whole group


def _blocks(half: nn.Module) -> nn.Sequential:
    return cast("nn.Sequential", half.get_submodule("blocks"))


def _take(layer: nn.Module, convolution: nn.Conv3d) -> None:
    put(layer, convolution.weight, cast("Tensor", convolution.bias))


@torch.no_grad()
def folded(path: LinearPath) -> Encode:
    """The encoder as one convolution of blocks of 4x4x4 voxels, exact away from the ends.

    Args:
        path: not to be changed any more.

    Returns:
        What takes (1, 1, z, y, x) in unit range to (1, latent channel, z/4, y/4, x/4).
    """
    side, width = 4 * REACH + 1, 2 * REACH + 1
    water = torch.full((1, 1, *[side * LATENT_STRIDE] * 3), WATER)
    inner = (..., *[slice(REACH, REACH + width)] * 3)
    middle = side // 2
    bias = path.encode(water)[0, :, middle, middle, middle]
    kernels = torch.zeros(LATENT_CHANNELS, LATENT_STRIDE**3, *[width] * 3)
    for number in range(LATENT_STRIDE**3):
        z, y, x = (middle * LATENT_STRIDE + at for at in (number // 16, number // 4 % 4, number % 4))
        impulse = water.clone()
        impulse[0, 0, z, y, x] += 1.0
        response = path.encode(impulse)[0] - bias[:, None, None, None]
        kernels[:, number] = response[inner].flip(1, 2, 3)

    def encode(unit: Tensor) -> Tensor:
        return functional.conv3d(SPREAD * voxels_as_channels(unit), kernels, bias, padding=REACH)

    return encode
