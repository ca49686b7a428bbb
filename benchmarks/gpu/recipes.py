"""What is trained on a borrowed GPU, on what, and how."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from benchmarks.gpu.subjects import AUGMENTATION, LOSS, expectation_of
from ctinterp_dagster.latent.conditioning import conditions_of
from ctinterp_dagster.latent.diffusion import LatentDiffusion, ModelConfig
from ctinterp_dagster.latent.objective import DenoisingObjective
from ctinterp_dagster.latent.patches import LatentPair, LatentPatches, PatchSettings
from ctinterp_dagster.model.autoencoder import MaisiAutoencoder, load_autoencoder
from ctinterp_dagster.model.autoencoder.unit_range import volume_to_unit
from ctinterp_dagster.model.autoencoder.weights import save_weights
from ctinterp_dagster.model.device import pick_device
from ctinterp_dagster.model.files import save_model
from ctinterp_dagster.nullspace.basis import FEATURES, GEOMETRY, MODES
from ctinterp_dagster.nullspace.diffusion import (
    Expectation,
    ExpectationConfig,
    NullSpaceConfig,
    NullSpaceDiffusion,
    narrower,
)
from ctinterp_dagster.nullspace.objective import ExpectationObjective, NoisySlabs, NullSpaceObjective
from ctinterp_dagster.nullspace.slab_settings import SlabSettings
from ctinterp_dagster.nullspace.slabs import ThickSlabs
from ctinterp_dagster.physics.operator import ThickeningOperator
from ctinterp_dagster.training.autoencoder import ReconstructionObjective, VolumeCrops
from ctinterp_dagster.training.device_volumes import ThinVolume
from ctinterp_dagster.training.loop import Batch, Batches, LoopSettings, seeded

PILOT = 125  # steps from which the pace is taken
FACTOR, ENCODING_GIB = 5, 24.0  # of a latent diffusion
SETTINGS = LoopSettings(
    steps=PILOT,
    batch_size=8,
    accumulation=1,
    learning_rate=1.5e-3,
    warmup_steps=200,
    clip_norm=1.0,
    ema_decay=0.999,
    mixed_precision="bf16",
    gradient_checkpointing=False,
    compile=True,
    checkpoint_every=10**9,
    validate_every=10**9,
    seed=2026,
    device="auto",
)


@dataclass(frozen=True)
class Training:
    """What is trained on what.

    Attributes:
        objective: a module whose `forward(*batch)` is its loss.
        batches: where batches come from.
        validation: fixed batches of other patients.
        settings: of the loop; the steps follow from the pace.
        save: writes the weights in 16 bits.
    """

    objective: nn.Module
    batches: Batches
    validation: Sequence[Batch]
    settings: LoopSettings
    save: Callable[[Path], None]


def fixed(batches: Batches, count: int) -> list[Batch]:
    """Batches that are always the same."""
    return [batches.batch(batches.plan(seeded(2026, index))) for index in range(count)]


def slabs(volumes: Sequence[ThinVolume], batch_size: int, size_zyx: tuple[int, int, int]) -> ThickSlabs:
    """Slabs that vary in all that they can."""
    return ThickSlabs(volumes, SlabSettings(size_zyx, AUGMENTATION), batch_size)


@dataclass(frozen=True)
class Weights:
    """Where weights are.

    Attributes:
        out: of what this run trains.
        start: of what an earlier one did; None begins afresh.
    """

    out: Path
    start: Path | None = None

    def first(self, name: str) -> Path | None:
        """The weights that a training of this name begins with."""
        path = self.start and self.start / f"{name}.safetensors"
        return path if path and path.exists() else None

    def newest(self, name: str) -> Path | None:
        """The weights of this name to build on."""
        path = self.out / f"{name}.safetensors"
        return path if path.exists() else self.first(name)


@dataclass(frozen=True)
class Given:
    """What a training is made of.

    Attributes:
        train: the volumes.
        val: those of other patients.
        weights: where weights are.
        settings: of the loop.
        channels: width of each level; empty for the usual ones.
    """

    train: Sequence[ThinVolume]
    val: Sequence[ThinVolume]
    weights: Weights
    settings: LoopSettings
    channels: Sequence[int] = ()


def begun(network: nn.Module, path: Path | None, prefix: str = "") -> None:
    """Fill a network from the tensors of a file whose names begin so, if there is one."""
    if path:
        tensors = load_file(path).items()
        network.load_state_dict(
            {name.removeprefix(prefix): t.float() for name, t in tensors if name.startswith(prefix)}
        )


def expectation(given: Given) -> Training:
    """The networks of mean and spread; those of a start are as wide as they are there, and keep their second pass."""
    start, widths = given.weights.first("expectation"), tuple(given.channels) or (64, 128, 192)
    fresh = ExpectationConfig(FEATURES, MODES, widths, 1, narrower(widths), GEOMETRY, mirror=False)
    network = expectation_of(start) if start else Expectation(fresh)
    size = (8, 96, 96)
    return Training(
        ExpectationObjective(network, LOSS),
        slabs(given.train, given.settings.batch_size, size),
        fixed(slabs(given.val, given.settings.batch_size, size), 4),
        given.settings,
        lambda path: save_model(network, "expectation", network.config, path, torch.float16),
    )


def denoiser(given: Given) -> Training:
    """The diffusion around the newest expectation."""
    known = expectation_of(given.weights.newest("expectation") or given.weights.out / "expectation.safetensors")
    model = NullSpaceDiffusion(NullSpaceConfig(known.config, tuple(given.channels) or (32, 64, 96), 1, "x0"))
    model.expectation = known
    begun(model.denoiser, given.weights.first("denoiser"))
    size = (8, 64, 64)
    return Training(
        NullSpaceObjective(model),
        NoisySlabs(slabs(given.train, given.settings.batch_size, size), MODES),
        fixed(NoisySlabs(slabs(given.val, given.settings.batch_size, size), MODES), 4),
        given.settings,
        lambda path: save_model(model.denoiser, "denoiser", model.config, path, torch.float16),
    )


def autoencoder(given: Given) -> Training:
    """An autoencoder of the MAISI family."""
    *widths, latent = tuple(given.channels) or (32, 64, 128, 8)
    network = MaisiAutoencoder(widths, latent_channels=latent, norm_groups=16)
    begun(network, given.weights.first("autoencoder"))
    crop = (64, 64, 64)
    about = {"ctinterp_autoencoder": json.dumps(asdict(network.architecture), sort_keys=True)}

    def save(path: Path) -> None:
        half = MaisiAutoencoder(widths, latent_channels=latent, norm_groups=16).half()
        half.load_state_dict(network.state_dict())
        save_weights(half, path, about)

    return Training(
        ReconstructionObjective(network, 1e-7),
        VolumeCrops(given.train, crop, given.settings.batch_size, latent),
        fixed(VolumeCrops(given.val, crop, given.settings.batch_size, latent), 4),
        given.settings,
        save,
    )


def latent(given: Given) -> Training:
    """The diffusion in the latents of the newest autoencoder; without one of noise, which costs as much."""
    widths, blocks = tuple(given.channels) or (64, 96, 128), 2
    path = given.weights.newest("autoencoder")
    autoencoder = load_autoencoder(path) if path else MaisiAutoencoder((16, 16, 16), norm_groups=16)
    of, device = autoencoder.architecture, pick_device(given.settings.device)
    cases = [*encoded(given.train, autoencoder.to(device))] if path else noise(of.latent_channels)
    unseen = [*encoded(given.val, autoencoder)] if path else noise(of.latent_channels)
    scale = 1 / float(torch.cat([case.thin.flatten() for case in cases]).std())
    residual_std = float(torch.cat([(case.thin - case.base).flatten() for case in cases]).std())
    fine, middle, coarse = of.channels
    model = LatentDiffusion(
        ModelConfig(
            (fine, middle, coarse), of.norm_groups, of.latent_channels, widths, blocks, "v", "residual",
            "encoded_interpolation", scale, 1 / (residual_std * scale),
        )
    )  # fmt: skip
    model.autoencoder = autoencoder.cpu()
    begun(model.denoiser, given.weights.first("latent"), "denoiser.")

    def patches(of_split: Sequence[Encoded]) -> LatentPatches:
        pairs = [LatentPair(it.base * scale, (it.thin - it.base) / residual_std, it.case) for it in of_split]
        return LatentPatches(pairs, PatchSettings((16, 24, 24), (1, 2), 0.25), given.settings.batch_size)

    return Training(
        DenoisingObjective(model.denoiser, "v"),
        patches(cases),
        fixed(patches(unseen), 4),
        given.settings,
        lambda path: model.save(path, torch.float16),
    )


@dataclass(frozen=True)
class Encoded:
    """Raw latents of a volume and of its thick slices' interpolation, (channel, z/4, y/4, x/4) on the CPU."""

    thin: Tensor
    base: Tensor
    case: str


def noise(channels: int) -> list[Encoded]:
    """Latents of nothing."""
    generator = torch.Generator().manual_seed(0)
    return [Encoded(*torch.randn(2, channels, 32, 48, 48, generator=generator), "noise")]


@torch.no_grad()
def encoded(volumes: Sequence[ThinVolume], autoencoder: MaisiAutoencoder) -> Iterator[Encoded]:
    """Every volume at factor 5, box and Gaussian; slices that overlap are taken as they are."""
    device = next(autoencoder.parameters()).device

    def encode(unit: Tensor) -> Tensor:
        return autoencoder.encode(unit, ENCODING_GIB).mean

    for volume in volumes:
        thin_hu = volume.hu.to(device).float()
        for profile in ("box", "gaussian"):
            operator = ThickeningOperator.from_factor(len(thin_hu) // FACTOR * FACTOR, FACTOR, profile)
            thin_hu = thin_hu[: operator.n_thin]
            base = conditions_of(operator.forward(thin_hu), operator, encode, "encoded_interpolation").base
            yield Encoded(encode(volume_to_unit(thin_hu))[0].float().cpu(), base[0].float().cpu(), volume.case)


TRAININGS = {"expectation": expectation, "denoiser": denoiser, "autoencoder": autoencoder, "latent": latent}
USUAL = {"expectation": (12, 1.2e-3), "denoiser": (16, 1.0e-3), "autoencoder": (4, 1.0e-3), "latent": (8, 5.0e-4)}
"""Slabs or crops a step, and the peak of the learning rate."""
