"""Random slabs of thin volumes, thickened on the fly: what the null-space networks learn from.

All chance is drawn on the CPU into a `Plan`, some numbers a slab. The slabs themselves are cut, turned, resampled,
thickened and noised on the device, all slabs of a batch at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from ctinterp_dagster.errors import ParamsError, TrainingError
from ctinterp_dagster.nullspace.basis import network_features
from ctinterp_dagster.nullspace.slab_settings import SlabGrid, SlabMatrices, SlabSettings, grids, matrices_of, space
from ctinterp_dagster.nullspace.units import INPUT
from ctinterp_dagster.training.batches import Plan, seeded
from ctinterp_dagster.training.device_volumes import (
    AS_STORED,
    AxisOrder,
    Box,
    Boxes,
    ResidentVolumes,
    ThinVolume,
    stacked,
)
from ctinterp_dagster.training.random_crops import integer, tensors_hash, uniform

# The form of the augmentation, whose extent stands in params.yaml (docs/decisions/0010-what-the-trainings-share.md).
SOFT_NOISE = 1.6  # what the mean of 2x2 pixels of white noise is multiplied by: it stays 0.8 times as strong
NOISE_POWER = 2  # of the share of the strongest noise, from 0 to 1: little is more likely
CUBIC = -0.5  # of Keys' cubic convolution
ORDERS = (AS_STORED, AxisOrder(1, 0, 2), AxisOrder(2, 0, 1))


@cache
def resampling(n: int, zoom: float) -> Tensor:
    """The matrix of n pixels to n that are `zoom` times smaller, from the first ones on, by cubic convolution.

    Args:
        n: pixels along an axis.
        zoom: pixels out for each one in, above 0.

    Returns:
        (n, n), whose rows sum to 1.

    Source: Keys 1981, eq. 4, with a = -1/2.
    """
    at = torch.arange(n) / zoom
    near = at.floor().long()
    matrix = torch.zeros(n, n)
    for tap in range(-1, 3):
        d = (at - near - tap).abs()
        inner = (CUBIC + 2) * d**3 - (CUBIC + 3) * d**2 + 1
        outer = CUBIC * (d**3 - 5 * d**2 + 8 * d - 4)
        weight = torch.where(d <= 1, inner, torch.where(d < 2, outer, 0.0))
        matrix.scatter_add_(1, (near + tap).clamp(0, n - 1)[:, None], weight[:, None])
    return matrix


@dataclass(frozen=True)
class _Slab:
    """What was chosen of one slab."""

    case: str
    box: Box
    grid: SlabGrid
    thick_mm: tuple[float, float, float]
    sharpness: float
    zoom: float
    noise: Tensor | None


class SlabParts(NamedTuple):
    """What a batch of slabs is made of.

    Attributes:
        boxes: where the thin slabs lie.
        zoom_y: (b, y, y), resamples rows.
        zoom_x: (b, x, x), resamples columns.
        sharpness: (b,), the share of the finest in-plane detail that is added, or below 0 taken away.
        noisy: (m,), which slabs have noise.
        noise: (m, n, y, x) HU.
        geometry: (b, GEOMETRY).
        matrices: of the batch.
    """

    boxes: Boxes
    zoom_y: Tensor
    zoom_x: Tensor
    sharpness: Tensor
    noisy: Tensor
    noise: Tensor
    geometry: Tensor
    matrices: SlabMatrices


class SlabBatch(NamedTuple):
    """Slabs of z thick slices, and of n thin ones at most, with zeros beyond those of smaller factors.

    Attributes:
        features: (b, FEATURES, z, y, x), what the networks see.
        geometry: (b, GEOMETRY).
        base: (b, n, y, x), in units of 1000 HU.
        truth: (b, n, y, x), in units of 1000 HU.
        basis: (b, n, MODES z).
        analysis: (b, MODES z, n).
    """

    features: Tensor
    geometry: Tensor
    base: Tensor
    truth: Tensor
    basis: Tensor
    analysis: Tensor


class ThickSlabs:
    """Random slabs."""

    def __init__(self, volumes: Sequence[ThinVolume], slab: SlabSettings, batch_size: int) -> None:
        """Hold the volumes; each is drawn as often as its weight says.

        Args:
            volumes: the training's.
            slab: what a slab is.
            batch_size: slabs a batch.

        Raises:
            TrainingError: there are no volumes.
            ParamsError: a volume is smaller than a slab.
        """
        if not volumes:
            raise TrainingError("there is no volume to train on: check the splits in cases.csv")
        needed = (slab.zyx[0] * slab.augmentation.factors[0], *slab.zyx[1:])
        for volume in volumes:
            if any(n < least for n, least in zip(volume.hu.shape, needed, strict=True)):
                raise ParamsError(
                    f"a volume of {tuple(volume.hu.shape)} is smaller than a slab of {needed} thin voxels: "
                    "lower slab_zyx"
                )
        self.volumes, self.slab, self.batch_size = volumes, slab, batch_size
        self._resident = ResidentVolumes(volumes)
        self._weights = torch.tensor([volume.weight for volume in volumes])

    def plan(self, generator: torch.Generator) -> Plan[SlabParts]:
        """The chance of one batch, and the matrices that it takes, on the CPU."""
        slabs = [self._choose(generator) for _ in range(self.batch_size)]
        n_thin = max(slab.box.depth for slab in slabs)
        depth, height, width = self.slab.zyx
        matrices = [matrices_of(depth, slab.grid).padded(n_thin) for slab in slabs]
        noise = [slab.noise is not None for slab in slabs]
        parts = SlabParts(
            boxes=stacked([slab.box for slab in slabs]),
            zoom_y=torch.stack([resampling(height, slab.zoom) for slab in slabs]),
            zoom_x=torch.stack([resampling(width, slab.zoom) for slab in slabs]),
            sharpness=torch.tensor([slab.sharpness for slab in slabs]),
            noisy=torch.tensor(noise).nonzero()[:, 0],
            noise=_padded([slab.noise for slab in slabs if slab.noise is not None], (n_thin, height, width)),
            geometry=torch.stack([space(depth, slab.grid).geometry(slab.thick_mm) for slab in slabs]),
            matrices=SlabMatrices(*map(torch.stack, zip(*matrices, strict=True))),
        )
        return Plan(tuple(slab.case for slab in slabs), parts)

    def batch(self, plan: Plan[SlabParts]) -> SlabBatch:
        """The slabs of a plan, on the device where the plan is."""
        parts, matrices = plan.parts, plan.parts.matrices
        thin = self._resident.cut(parts.boxes, (matrices.basis.shape[1], *self.slab.zyx[1:]))
        thin = parts.zoom_y[:, None] @ thin @ parts.zoom_x[:, None].mT
        thin = sharpened(thin, parts.sharpness)
        thin.index_add_(0, parts.noisy, parts.noise)
        thick = (matrices.operator @ thin.flatten(2)).unflatten(2, thin.shape[2:])
        base = (matrices.upsampling @ thick.flatten(2)).unflatten(2, thin.shape[2:])
        features = network_features(thick, matrices.cosines)
        units = INPUT.from_hu(base), INPUT.from_hu(thin)
        return SlabBatch(features, parts.geometry, *units, matrices.basis, matrices.analysis)

    def fixed(self, count: int, seed: int) -> list[SlabBatch]:
        """Batches that are always the same, for validation."""
        return [self.batch(self.plan(seeded(seed, index))) for index in range(count)]

    def fingerprint(self) -> str:
        """A hash of the settings, and of every volume's shape and middle slice: ten thousand are not read whole."""
        about = [(v.hu.shape, v.spacing_mm, v.weight, v.thin_thickness) for v in self.volumes]
        return tensors_hash(repr((self.slab, about)), [v.hu[len(v.hu) // 2] for v in self.volumes])

    def _choose(self, generator: torch.Generator) -> _Slab:
        index = int(torch.multinomial(self._weights, 1, generator=generator))
        volume, (depth, height, width) = self.volumes[index], self.slab.zyx
        about = self.slab.augmentation
        order = self._order(volume, generator)
        overlap = 1.0 if order.z else volume.thin_thickness
        possible = grids(about, overlap, volume.hu.shape[order.z] // depth)
        grid = possible[integer(len(possible), generator)]
        size = about.magnification ** uniform(-1.0, 1.0, generator) if self._seldom(generator) else 1.0
        zoom = about.zooms[integer(len(about.zooms), generator)] if self._seldom(generator) else 1.0
        sharpness = uniform(*about.sharpness, generator) if self._seldom(generator) else 0.0
        box = self._resident.random_box(index, order, (depth * grid.factor, height, width), generator)
        noisy = about.noise_hu and self._seldom(generator)
        z, y, x = (volume.spacing_mm[n] for n in order)
        return _Slab(
            volume.case,
            box,
            grid,
            (size * z * grid.factor, size * y / zoom, size * x / zoom),
            sharpness,
            zoom,
            self._noise((box.depth, height, width), generator) if noisy else None,
        )

    def _seldom(self, generator: torch.Generator) -> bool:
        """Whether one of the changes is made."""
        one_in = self.slab.augmentation.one_in
        return one_in > 0 and integer(one_in, generator) == 0

    def _order(self, volume: ThinVolume, generator: torch.Generator) -> AxisOrder:
        """Which axis of the volume is z of the slab, y and x; another only where spacings and size allow it."""
        depth, height, width = self.slab.zyx
        turned = ORDERS[integer(3, generator)]
        shape = [volume.hu.shape[n] for n in turned]
        needed = (depth * self.slab.augmentation.factors[0], height, width)
        fits = all(n >= least for n, least in zip(shape, needed, strict=True))
        isotropic = max(volume.spacing_mm) < self.slab.augmentation.anisotropy * min(volume.spacing_mm)
        return turned if fits and isotropic else AS_STORED

    def _noise(self, shape: tuple[int, int, int], generator: torch.Generator) -> Tensor:
        """Noise that is white along z and, in the plane, white or of a softer kernel; little of it is more likely."""
        noise = torch.randn(shape, generator=generator)
        soft_kernel = integer(2, generator) == 1
        if soft_kernel:
            noise = SOFT_NOISE * functional.avg_pool2d(noise[None], 2, stride=1, padding=1)[0, :, :-1, :-1]
        return noise * self.slab.augmentation.noise_hu * uniform(0.0, 1.0, generator) ** NOISE_POWER


def _padded(slabs: Sequence[Tensor], size: tuple[int, int, int]) -> Tensor:
    """(b, *size) with zeros beyond the slices of each."""
    whole = torch.zeros(len(slabs), *size)
    for place, slab in zip(whole, slabs, strict=True):
        place[: len(slab)] = slab
    return whole


def sharpened(thin: Tensor, amount: Tensor) -> Tensor:
    """Add this share of the in-plane detail that a binomial filter of 3x3 pixels removes; below 0 takes it away.

    Args:
        thin: (b, z, y, x).
        amount: (b,); -1 leaves the filtered slices.

    Returns:
        (b, z, y, x), in the unit of `thin`.
    """
    padded = functional.pad(thin, (1, 1, 1, 1), mode="replicate")
    soft = functional.avg_pool2d(functional.avg_pool2d(padded, 2, stride=1), 2, stride=1)
    return thin + amount[:, None, None, None] * (thin - soft)
