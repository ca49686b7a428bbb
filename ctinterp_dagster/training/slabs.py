"""Random slabs of thin volumes, thickened on the fly: what the null-space networks learn from."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

from ctinterp_dagster.errors import ParamsError, TrainingError
from ctinterp_dagster.params import Profile
from ctinterp_dagster.physics.nullspace import NullSpace
from ctinterp_dagster.physics.operator import ThickeningOperator
from ctinterp_dagster.training.loop import Batch, seeded
from ctinterp_dagster.training.patches import integer, tensors_hash, uniform, window

FACTORS = (5, 5, 5, 5, 2, 3, 4, 5)  # each equally likely: factor 5 is the headline
PROFILES: tuple[Profile, ...] = ("box", "box", "gaussian", "triangle")
WIDTHS = (1.0, 1.0, 1.0, 0.8, 0.9, 1.1, 1.2)  # slice thickness over slice distance
LARGEST = max(FACTORS)
ISOTROPIC = 1.5  # largest spacing over the smallest at which a volume is also cut along y or x
SHARPNESS = (-0.7, 1.5)  # unsharp masking: a softer and a sharper reconstruction kernel
MAGNIFICATION = 1.5  # a scan is told to be up to this much larger or smaller than it is


@dataclass(frozen=True)
class ThinVolume:
    """A training volume.

    Attributes:
        hu: (z, y, x) int16 HU.
        spacing_mm: (z, y, x).
        weight: how often it is drawn, against the others.
        case: its id.
    """

    hu: Tensor
    spacing_mm: tuple[float, float, float]
    weight: float = 1.0
    case: str = ""

    def along(self, axis: int) -> "ThinVolume":
        """The volume with this axis first: slices that lie across another direction of the body."""
        order = (axis, *(other for other in range(3) if other != axis))
        z, y, x = (self.spacing_mm[n] for n in order)
        return replace(self, hu=self.hu.permute(order), spacing_mm=(z, y, x))


@dataclass(frozen=True)
class SlabSettings:
    """What a training slab is.

    Attributes:
        zyx: size in thick slices and pixels.
        vary: False thickens by factor 5 with the box profile only. True thickens by factors 2 to 5 and several
            profiles; in a third of the slabs each, isotropic volumes are cut across another axis, the kernel is
            softer or sharper, and the scan passes for a larger or smaller one.
        noise_hu: largest standard deviation of noise that is added to a third of the slabs before thickening.
    """

    zyx: tuple[int, int, int]
    vary: bool
    noise_hu: float


@cache
def space(n_thick: int, factor: int, profile: Profile, width: float) -> NullSpace:
    """The null space of a short slab; `width` is the slice thickness over the slice distance."""
    return NullSpace(
        ThickeningOperator.from_geometry(
            n_thick=n_thick,
            thick_spacing_mm=factor,
            thick_thickness_mm=factor * width,
            n_thin=n_thick * factor,
            thin_spacing_mm=1.0,
            thin_thickness_mm=1.0,
            first_thin_offset_mm=-(factor - 1) / 2,
            profile=profile,
        )
    )


class ThickSlabs:
    """Random slabs as (features, geometry, base, truth, basis, analysis).

    Base and truth are (b, 5 z, y, x) in units of 1000 HU, with zeros beyond the thin slices of smaller factors; basis
    is (b, 5 z, MODES z) and analysis (b, MODES z, 5 z), zero there too.
    """

    def __init__(self, volumes: Sequence[ThinVolume], slab: SlabSettings, batch_size: int) -> None:
        """Hold the volumes; each is drawn as often as its weight says.

        Raises:
            TrainingError: there are no volumes.
            ParamsError: a volume is smaller than a slab.
        """
        if not volumes:
            raise TrainingError("there is no volume to train on: check the splits in cases.csv")
        needed = (slab.zyx[0] * LARGEST, *slab.zyx[1:])
        for volume in volumes:
            if any(n < least for n, least in zip(volume.hu.shape, needed, strict=True)):
                raise ParamsError(
                    f"a volume of {tuple(volume.hu.shape)} is smaller than a slab of {needed} thin voxels: "
                    "lower slab_zyx"
                )
        self.volumes, self.slab, self.batch_size = volumes, slab, batch_size
        self.drawn: list[str] = []

    def draw(self, generator: torch.Generator) -> Batch:
        """One batch."""
        self.drawn = []
        return tuple(
            torch.stack(parts) for parts in zip(*(self._one(generator) for _ in range(self.batch_size)), strict=True)
        )

    def fixed(self, count: int, seed: int) -> list[Batch]:
        """Batches that are always the same, for validation."""
        return [self.draw(seeded(seed, index)) for index in range(count)]

    def fingerprint(self) -> str:
        """A hash of the settings and of every volume."""
        return tensors_hash(
            repr((self.slab, [(v.spacing_mm, v.weight) for v in self.volumes])), [v.hu for v in self.volumes]
        )

    def _one(self, generator: torch.Generator) -> tuple[Tensor, ...]:
        weights = torch.tensor([volume.weight for volume in self.volumes])
        volume = self.volumes[int(torch.multinomial(weights, 1, generator=generator))]
        self.drawn.append(volume.case)
        depth, height, width = self.slab.zyx
        size = 1.0
        factor, profile, thickness = 5, PROFILES[0], 1.0
        if self.slab.vary:
            factor = FACTORS[integer(len(FACTORS), generator)]
            profile = PROFILES[integer(len(PROFILES), generator)]
            thickness = WIDTHS[integer(len(WIDTHS), generator)]
            turned = volume.along(integer(3, generator))
            fits = all(n >= m for n, m in zip(turned.hu.shape, (depth * factor, height, width), strict=True))
            if fits and max(volume.spacing_mm) < ISOTROPIC * min(volume.spacing_mm):
                volume = turned
            size = MAGNIFICATION ** uniform(-1.0, 1.0, generator) if integer(3, generator) == 0 else 1.0
        z, y, x = window(volume.hu.shape, (depth * factor, height, width), generator)
        thin = volume.hu[z, y, x].float()
        thin = thin.flip([axis for axis in range(3) if integer(2, generator)])
        thin = thin.transpose(1, 2) if height == width and integer(2, generator) else thin
        if self.slab.vary and integer(3, generator) == 0:
            thin = sharpened(thin, uniform(*SHARPNESS, generator))
        if self.slab.noise_hu and integer(3, generator) == 0:
            thin = thin + self._noise(thin.shape, generator)
        here = space(depth, factor, profile, thickness)
        thick = here.operator.forward(thin)
        thick_mm = (volume.spacing_mm[0] * factor, *volume.spacing_mm[1:])
        told = here.geometry([size * mm for mm in thick_mm])
        padding = (LARGEST - factor) * depth
        basis, analysis = (torch.from_numpy(m).float() for m in (here.basis, here.analysis))
        return (
            here.features(thick),
            told,
            functional.pad(here.base(thick) / 1000, (0, 0, 0, 0, 0, padding)),
            functional.pad(thin / 1000, (0, 0, 0, 0, 0, padding)),
            functional.pad(basis, (0, 0, 0, padding)),
            functional.pad(analysis, (0, padding)),
        )

    def _noise(self, shape: torch.Size, generator: torch.Generator) -> Tensor:
        """Noise that is white along z and, in the plane, white or of a softer kernel."""
        noise = torch.randn(shape, generator=generator)
        if integer(2, generator):
            noise = 1.6 * functional.avg_pool2d(noise[None], 2, stride=1, padding=1)[0, :, :-1, :-1]
        return noise * uniform(0.0, self.slab.noise_hu, generator)


def sharpened(thin: Tensor, amount: float) -> Tensor:
    """Add this share of the in-plane detail that a binomial filter of 3x3 pixels removes; below 0 takes it away.

    Args:
        thin: (z, y, x).
        amount: -1 leaves the filtered slices.
    """
    binomial = torch.tensor([1.0, 2.0, 1.0]) / 4
    padded = functional.pad(thin[:, None], (1, 1, 1, 1), mode="replicate")
    soft = functional.conv2d(padded, torch.outer(binomial, binomial)[None, None])[:, 0]
    return thin + amount * (thin - soft)
