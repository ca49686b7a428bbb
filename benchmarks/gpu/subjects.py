"""Networks with weights that do something, synthetic scans, and training batches, for `benchmarks.gpu`."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ctinterp_dagster.interpolation import RELEASED, Interpolator
from ctinterp_dagster.latent.denoiser import Denoiser
from ctinterp_dagster.latent.objective import DenoisingObjective
from ctinterp_dagster.latent.patches import LatentPair, LatentPatches, PatchSettings
from ctinterp_dagster.model.autoencoder import MaisiAutoencoder
from ctinterp_dagster.model.files import read_model
from ctinterp_dagster.nullspace.basis import FEATURES, GEOMETRY, MODES
from ctinterp_dagster.nullspace.diffusion import Expectation, ExpectationConfig, NullSpaceConfig, NullSpaceDiffusion
from ctinterp_dagster.nullspace.objective import ExpectationObjective, LossWeights, NoisySlabs, NullSpaceObjective
from ctinterp_dagster.nullspace.slab_settings import Augmentation, SlabSettings
from ctinterp_dagster.nullspace.slabs import ThickSlabs
from ctinterp_dagster.physics.measurement import Measurement
from ctinterp_dagster.physics.operator import ThickeningOperator
from ctinterp_dagster.physics.profile import Trapezoid
from ctinterp_dagster.scan.volume import Volume
from ctinterp_dagster.training.autoencoder import ReconstructionObjective, VolumeCrops
from ctinterp_dagster.training.device_volumes import ThinVolume
from ctinterp_dagster.training.loop import Batch, Batches, seeded

FACTOR = 5
SPACING_MM = (5.0, 0.7, 0.7)
LOSS = LossWeights(wide=30.0, soft_tissue=30.0, absolute=0.2, spread=0.01)
AUGMENTATION = Augmentation(
    factors=(*7 * (5,), 2, 3, 3, 4, 4, 6, 7, 8, 9, 10),
    profiles=(*4 * ("box",), *2 * ("gaussian",), *2 * ("triangle",), Trapezoid(0.2), Trapezoid(0.5)),
    widths=(*6 * (1.0,), 0.65, 0.8, 0.9, 0.9, 1.1, 1.2, 1.5, 2.0),
    anisotropy=1.5,
    one_in=3,
    sharpness=(-0.7, 1.5),
    magnification=1.5,
    zoom=2.36,
    noise_hu=60.0,
)


def released() -> NullSpaceDiffusion:
    """The released model; configurations are not checked, which needs a library that the machine may lack."""
    file = read_model(RELEASED)
    config = tuples(file.config)
    model = NullSpaceDiffusion(
        NullSpaceConfig(**config | {"expectation": ExpectationConfig(**tuples(config["expectation"]))})
    )
    file.fill(model)
    return model.eval()


def expectation_of(path: Path) -> Expectation:
    """An expectation that was saved by itself."""
    file = read_model(path)
    network = Expectation(ExpectationConfig(**tuples(file.config)))
    file.fill(network)
    return network.eval()


def tuples(config: Mapping[str, Any]) -> dict[str, Any]:
    """The lists of a configuration, which has been JSON, as tuples."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in config.items()}


def alive(network: nn.Module, seed: int = 0) -> nn.Module:
    """Give silent layers small random weights, so that every layer shows in the output."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            if not parameter.any():
                parameter.normal_(0.0, 0.05, generator=generator)
    return network


def nullspace(*, small: bool) -> NullSpaceDiffusion:
    """A null-space model as trainings make it, with random weights."""
    torch.manual_seed(0)
    widths = (8, 16) if small else (64, 128, 192)
    expectation = ExpectationConfig(FEATURES, MODES, widths, 1, widths[:1] * len(widths), GEOMETRY, mirror=False)
    model = NullSpaceDiffusion(NullSpaceConfig(expectation, widths, 1, "x0"))
    alive(model)
    return model


def autoencoder(*, small: bool) -> MaisiAutoencoder:
    """MAISI's autoencoder with random weights, at its own width or narrow."""
    torch.manual_seed(0)
    network = MaisiAutoencoder((16, 16, 32), norm_groups=8) if small else MaisiAutoencoder()
    alive(network)
    return network.eval().requires_grad_(requires_grad=False)


def denoiser(*, small: bool) -> Denoiser:
    """A latent denoiser with random weights."""
    torch.manual_seed(0)
    network = Denoiser(4, 4, (8, 16) if small else (32, 64, 128), 1)
    alive(network)
    return network.eval()


def phantom(size_zyx: tuple[int, int, int], seed: int = 0) -> Tensor:
    """(z, y, x) float32 HU: a body with organs, bones and air spaces at random places, soft edges and noise."""
    generator = torch.Generator().manual_seed(seed)
    z, y, x = (torch.linspace(-1.0, 1.0, n) for n in size_zyx)
    hu = torch.full(size_zyx, -1000.0)

    def paint(centre: Tensor, radii: Tensor, value: float) -> None:
        squares = [((axis - c) / r).square() for axis, c, r in zip((z, y, x), centre, radii, strict=True)]
        distance = (squares[0][:, None, None] + squares[1][:, None] + squares[2]).sqrt()
        inside = torch.sigmoid(40.0 * (1.0 - distance))
        hu.add_(inside * (value - hu))

    paint(torch.zeros(3), torch.tensor([3.0, 0.85, 0.9]), -90.0)
    paint(torch.zeros(3), torch.tensor([3.0, 0.75, 0.8]), 40.0)
    for value in (-850.0, -850.0, 60.0, 110.0, 300.0, 700.0, 250.0, -950.0, 150.0, 400.0):
        centre, radii = torch.rand(2, 3, generator=generator)
        paint(1.2 * centre - 0.6, 0.05 + 0.3 * radii, value)
    return hu + 10.0 * torch.randn(size_zyx, generator=generator)


def measured(thick_hu: Tensor, operator: ThickeningOperator, truth_hu: Tensor | None = None) -> Measurement:
    """Thick slices (z, y, x) HU, and thin ones, somewhere in space."""
    axes = (0.0, 0.0, 0.0), np.eye(3)
    truth = None if truth_hu is None else Volume(truth_hu.numpy(), (SPACING_MM[0] / FACTOR, *SPACING_MM[1:]), *axes)
    return Measurement(Volume(thick_hu.numpy(), SPACING_MM, *axes), operator, truth)


def scan(size_zyx: tuple[int, int, int]) -> Measurement:
    """A phantom of so many thick slices, 5 times as thick as those of the truth, and pixels."""
    truth = phantom((size_zyx[0] * FACTOR, *size_zyx[1:]))
    operator = ThickeningOperator.from_factor(len(truth), FACTOR)
    return measured(operator.forward(truth), operator, truth)


def interpolator(device: torch.device) -> Interpolator:
    """The released model on a device."""
    return Interpolator(released(), device.type)


def volumes(size_zyx: tuple[int, int, int], count: int) -> list[ThinVolume]:
    """Training volumes."""
    spacing_mm = (1.0, 0.8, 0.8)
    return [ThinVolume(phantom(size_zyx, seed).short(), spacing_mm, case=f"phantom-{seed}") for seed in range(count)]


def slabs(zyx: tuple[int, int, int], batch_size: int) -> ThickSlabs:
    """Training slabs of so many thick slices and pixels."""
    thin = (zyx[0] * FACTOR + 8, zyx[1] + 16, zyx[2] + 16)
    return ThickSlabs(volumes(thin, 2), SlabSettings(zyx, AUGMENTATION), batch_size)


def drawn(batches: Batches) -> Batch:
    """The first batch."""
    return batches.batch(batches.plan(seeded(0, 0)))


def trainings(*, small: bool) -> dict[str, Callable[[], tuple[nn.Module, Batch]]]:
    """Every objective with a batch on the CPU, made when called."""
    side, batch = (16, 1) if small else (64, 2)
    depth = 4 if small else 8

    def expectation() -> tuple[nn.Module, Batch]:
        return ExpectationObjective(nullspace(small=small).expectation, LOSS), drawn(slabs((depth, side, side), batch))

    def diffusion() -> tuple[nn.Module, Batch]:
        noisy = NoisySlabs(slabs((depth, side, side), batch), MODES)
        return NullSpaceObjective(nullspace(small=small)), drawn(noisy)

    def reconstruction() -> tuple[nn.Module, Batch]:
        crop = side if small else side // 2
        crops = VolumeCrops(volumes((2 * crop,) * 3, 1), (crop,) * 3, batch, 4)
        network = autoencoder(small=small).requires_grad_(requires_grad=True)
        return ReconstructionObjective(network, 1e-7), drawn(crops)

    def denoising() -> tuple[nn.Module, Batch]:
        generator = torch.Generator().manual_seed(0)
        condition, rest = torch.randn(2, 4, side, side, side, generator=generator)
        pairs = [LatentPair(condition, 0.5 * condition + 0.5 * rest)]
        patches = LatentPatches(pairs, PatchSettings((side // 2,) * 3, (1, 2), 0.25), batch)
        return DenoisingObjective(denoiser(small=small), "v"), drawn(patches)

    return {
        "expectation": expectation,
        "nullspace": diffusion,
        "reconstruction": reconstruction,
        "denoising": denoising,
    }


def smooth(size_zyx: tuple[int, int, int]) -> Tensor:
    """(1, 1, z, y, x) in unit range, quickly made at any size."""
    coarse = torch.rand(1, 1, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    return functional.interpolate(coarse, size=size_zyx, mode="trilinear")
