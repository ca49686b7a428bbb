"""The released latent diffusion, made again from thin training scans; run by hand, an hour on one core.

    python -m benchmarks.latent_release latent.safetensors --train lidc0314.nii.gz --train fumpe034.nii.gz ...

One after the other: the convolutions of an autoencoder of MAISI's family, fitted as a linear network; a mixing of its
latent's channels; the autoencoder itself, which begins as that network; two rounds of training of its decoder; the
denoiser in its latent. The encoder stays linear. Each step prints its figures, of training crops.

Everything is drawn from one seed. But each training lasts so many CPU seconds, as it did for the released file: how
many steps these are, and so the weights, depends on the machine. One thread is used.
"""

import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

import click
import torch
from torch import Tensor, nn

from benchmarks.latent_start import LATENT_CHANNELS, WIDTHS, LinearPath, as_autoencoder, begin, folded, mix
from ctinterp_dagster.errors import ScanError
from ctinterp_dagster.latent.conditioning import Conditions, Encode, conditions_of
from ctinterp_dagster.latent.diffusion import LatentDiffusion, ModelConfig
from ctinterp_dagster.model.autoencoder import LATENT_STRIDE, MaisiAutoencoder
from ctinterp_dagster.model.autoencoder.unit_range import volume_to_unit
from ctinterp_dagster.model.ema import Ema
from ctinterp_dagster.model.forward_process import add_noise, training_target
from ctinterp_dagster.params import ProfileName
from ctinterp_dagster.physics.operator import ThickeningOperator
from ctinterp_dagster.scan.io import read_scan
from ctinterp_dagster.training.batches import seeded
from ctinterp_dagster.training.random_crops import integer, window

Choice = TypeVar("Choice")
SEED = 0
SMALLEST_VOXELS = 72  # of a training scan along each axis
ISOTROPIC_RATIO = 1.5  # of slice to pixel spacing, at most: such a scan may be cut across
START_CROPS, MIXING_CROPS, START_ZYX = 24, 16, (48, 48, 48)
LINEAR_BATCH, LINEAR_ZYX, LINEAR_RATE, LINEAR_EDGE = 2, (40, 40, 40), 2e-3, 4
DECODER_ZYX, DECODED, DECODER_EDGE = (60, 56, 56), 8, 4  # voxels, latent voxels a side, voxels
DECODER_FACTORS: tuple[int, ...] = (5, 5, 4, 3)
DECODER_PROFILES: tuple[ProfileName, ...] = ("box", "gaussian")
DECODER_RATES = (5e-4, 5e-4)  # of the two rounds
DENOISER_ZYX, DENOISED_ZYX = (60, 72, 72), (12, 16, 16)  # voxels, latent voxels
DENOISER_WIDTHS, DENOISER_RATE, DENOISER_BATCH, AT_NOISE = (64, 128, 192), 1e-3, 4, 0.75
DENOISER_FACTORS: tuple[int, ...] = (5, 5, 5, 5, 5, 5, 4, 4, 3, 3, 2)
DENOISER_PROFILES: tuple[ProfileName, ...] = ("box", "box", "box", "gaussian", "gaussian", "triangle")
SCALE_DRAWS, TARGET_DRAWS = 24, 48
FIGURES_OF = 100  # the last steps of a training, whose figures are averaged


class Thin(NamedTuple):
    """A training scan: (z, y, x) HU, and whether its slices are about as near as its pixels."""

    hu: Tensor
    isotropic: bool


class Learned(NamedTuple):
    """A batch: its loss, and figures of it, (n,), to be averaged."""

    loss: Tensor
    figures: Tensor


def read_thin(path: Path) -> Thin:
    """A training scan of a file.

    Args:
        path: of a thin-slice scan.

    Returns:
        The scan in 16 bits a voxel.

    Raises:
        ScanError: it is too small to be cropped.
    """
    volume = read_scan(path).volume
    if min(volume.hu.shape) < SMALLEST_VOXELS:
        raise ScanError(
            f"{path} has {volume.hu.shape} voxels (z, y, x): expected at least {SMALLEST_VOXELS} along each axis, of "
            "which training crops are cut; leave it out"
        )
    isotropic = volume.spacing_mm[0] <= ISOTROPIC_RATIO * volume.spacing_mm[1]
    return Thin(torch.from_numpy(volume.hu).to(torch.int16), isotropic)


def one_of(choices: Sequence[Choice], generator: torch.Generator) -> Choice:
    """One at random; what is named twice is drawn twice as often."""
    return choices[integer(len(choices), generator)]


def crop(hu: Tensor, size_zyx: tuple[int, int, int], generator: torch.Generator) -> Tensor:
    """A crop at random, (z, y, x) HU, mirrored or not along each axis."""
    cut = hu[tuple(window(hu.shape, size_zyx, generator))].float()
    return cut.flip([axis for axis in range(3) if integer(2, generator)])


def unit_crops(scans: list[Thin], count: int, size_zyx: tuple[int, int, int], generator: torch.Generator) -> Tensor:
    """Crops at random of random scans, (count, 1, z, y, x) in unit range."""
    drawn = [crop(one_of(scans, generator).hu, size_zyx, generator) for _ in range(count)]
    return torch.cat([volume_to_unit(hu) for hu in drawn])


def steps_of(seconds: float) -> Iterator[tuple[int, float]]:
    """The steps of a training, at least one, and the part of its CPU seconds that is spent before each."""
    begun = time.process_time()
    for step in itertools.count():
        spent = (time.process_time() - begun) / seconds
        if spent >= 1.0:
            return
        yield step, spent


def train(
    name: str,
    optimizer: torch.optim.Optimizer,
    batch: Callable[[], Learned],
    *,
    seconds: float,
    warm_steps: int,
    after: Callable[[], None] = lambda: None,
) -> Tensor:
    """Descend for so many CPU seconds; the rate rises for some steps and falls along a cosine.

    Args:
        name: of the training, for its line.
        optimizer: with one group; its rate is the highest.
        batch: draws one and learns of it.
        seconds: of the CPU.
        warm_steps: until the rate is at its highest.
        after: called after each step.

    Returns:
        The figures, the mean of the last steps.
    """
    (group,) = optimizer.param_groups
    highest, figures = group["lr"], []
    for step, spent in steps_of(seconds):
        group["lr"] = highest * min(1.0, (step + 1) / warm_steps) * (0.5 + 0.5 * math.cos(math.pi * spent))
        learned = batch()
        optimizer.zero_grad()
        learned.loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(group["params"], 1.0)
        optimizer.step()
        after()
        figures.append(learned.figures.detach())
    print(f"training={name} steps={len(figures)} cpu_s={seconds:g}", flush=True)
    return torch.stack(figures[-FIGURES_OF:]).mean(0)


def decibels(mean_square: Tensor) -> str:
    """PSNR of a mean square error in unit range, dB."""
    return f"{float(-10 * mean_square.log10()):.2f}"


def linear_path(scans: list[Thin], seconds: float) -> LinearPath:
    """All convolutions of the path, begun with principal components and least squares, then fitted jointly."""
    path, generator = LinearPath(), seeded(SEED, 0)
    begin(path, unit_crops(scans, START_CROPS, START_ZYX, generator))
    inner = (..., *[slice(LINEAR_EDGE, -LINEAR_EDGE)] * 3)

    def batch() -> Learned:
        unit = unit_crops(scans, LINEAR_BATCH, LINEAR_ZYX, generator)
        error = (path.decode(path.encode(unit)) - unit).square()
        kept = error[inner].mean()
        return Learned(kept + 0.05 * error.mean(), kept)

    optimizer = torch.optim.Adam(path.parameters(), LINEAR_RATE, betas=(0.9, 0.99))
    kept = train("linear", optimizer, batch, seconds=seconds, warm_steps=20)
    white = mix(path, unit_crops(scans, MIXING_CROPS, START_ZYX, generator), generator)
    print(f"linear alone_db={decibels(kept)} decoded_over_latent_energy={white:.3f}", flush=True)
    return path.requires_grad_(requires_grad=False)


def known(hu: Tensor, operator: ThickeningOperator, encode: Encode) -> tuple[Conditions, Tensor]:
    """What a thick scan shows of a thin crop (z, y, x) HU, and its latent less that of the base."""
    shown = conditions_of(operator.forward(hu), operator, encode, "interpolated_voxels")
    return shown, encode(volume_to_unit(hu)) - shown.base


def decoder_batch(
    autoencoder: MaisiAutoencoder, scans: list[Thin], encode: Encode, generator: torch.Generator
) -> Learned:
    """The truth, the base and their difference, decoded; figures: square error of the first and of the last, truth."""
    hu = crop(one_of(scans, generator).hu, DECODER_ZYX, generator)
    factor, profile = one_of(DECODER_FACTORS, generator), one_of(DECODER_PROFILES, generator)
    operator = ThickeningOperator.from_factor(len(hu), factor, profile)
    shown, residual = known(hu.contiguous(), operator, encode)
    coarse = window(residual.shape[2:], [DECODED] * 3, generator)
    fine = [slice(LATENT_STRIDE * at.start, LATENT_STRIDE * at.stop) for at in coarse]
    wanted = torch.cat([volume_to_unit(each[tuple(fine)]) for each in (hu, shown.base_hu)])
    latents = torch.cat([shown.base + residual, shown.base])[(..., *coarse)]
    with torch.autocast("cpu", torch.bfloat16):
        decoded = autoencoder.decode(latents)
    weight = torch.full(wanted.shape[2:], 0.25)
    weight[(slice(DECODER_EDGE, -DECODER_EDGE),) * 3] = 1.0
    weight /= weight.mean()
    truth, base = decoded.float() - wanted
    parts = [(weight * each.square()).mean() for each in (truth, base, truth - base, wanted[0] - wanted[1])]
    return Learned(100 * (parts[0] + 0.3 * parts[1] + parts[2]), torch.stack([parts[0], parts[2], parts[3]]))


def train_decoder(
    autoencoder: MaisiAutoencoder, scans: list[Thin], encode: Encode, rounds_s: tuple[float, float]
) -> None:
    """Open the branches of the decoder, in rounds that each begin with the average of the last; the encoder stays."""
    learns = [p for name, p in autoencoder.named_parameters() if name.startswith(("decoder", "post"))]
    autoencoder.train()
    for number, (seconds, rate) in enumerate(zip(rounds_s, DECODER_RATES, strict=True), start=1):
        ema, optimizer = Ema(autoencoder, 0.995), torch.optim.Adam(learns, rate, betas=(0.9, 0.99))
        batch = partial(decoder_batch, autoencoder, scans, encode, seeded(SEED, 1, number))
        after = partial(ema.update, autoencoder)
        alone, left, whole = train(f"decoder_{number}", optimizer, batch, seconds=seconds, warm_steps=50, after=after)
        ema.copy_to(autoencoder)
        print(f"decoder round={number} alone_db={decibels(alone)} residual_left={float(left / whole):.3f}", flush=True)
    autoencoder.eval()


def denoiser_draw(scans: list[Thin], encode: Encode, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The condition of a crop, (1, channel, 12, 16, 16), and its residual latent, both not scaled."""
    scan = one_of(scans, generator)
    hu = scan.hu
    if scan.isotropic and integer(3, generator) == 0:
        hu = hu.transpose(0, 1 + integer(2, generator))
    factor, profile = one_of(DENOISER_FACTORS, generator), one_of(DENOISER_PROFILES, generator)
    operator = ThickeningOperator.from_factor(DENOISER_ZYX[0], factor, profile)
    hu = crop(hu, DENOISER_ZYX, generator)
    if integer(2, generator):
        hu = hu.transpose(1, 2)
    shown, residual = known(hu.contiguous(), operator, encode)
    first = integer(4, generator), 1, 1
    inner = (..., *[slice(at, at + size) for at, size in zip(first, DENOISED_ZYX, strict=True)])
    return shown.condition[inner], residual[inner]


def denoiser_batch(
    model: LatentDiffusion, draw: Callable[[], tuple[Tensor, Tensor]], noises: torch.Generator
) -> Learned:
    """Most of a batch at t = 1; figures: the sum of their losses, and their number."""
    conditions, residuals = (torch.cat(parts) for parts in zip(*[draw() for _ in range(DENOISER_BATCH)], strict=True))
    config = model.config
    target = config.to_target(config.scale(residuals))
    noise = torch.randn(target.shape, generator=noises)
    chance, t = torch.rand(2, DENOISER_BATCH, generator=noises)
    t = torch.where(chance < AT_NOISE, 1.0, t)
    with torch.autocast("cpu", torch.bfloat16):
        output = model.denoiser(add_noise(target, noise, t), config.scale_condition(conditions), t)
    losses = (output.float() - training_target(target, noise, t, config.prediction)).square().mean((1, 2, 3, 4))
    return Learned(losses.mean(), torch.stack([losses[t == 1].sum(), (t == 1).sum()]))


def train_denoiser(autoencoder: MaisiAutoencoder, scans: list[Thin], encode: Encode, seconds: float) -> LatentDiffusion:
    """The whole model, whose scales are those of training crops, with the average of the denoiser's weights."""
    generator = seeded(SEED, 2)
    draw = partial(denoiser_draw, scans, encode, generator)
    latents = torch.stack([draw()[0][:, :LATENT_CHANNELS].std() for _ in range(SCALE_DRAWS)])
    residuals = torch.stack([draw()[1].std() for _ in range(TARGET_DRAWS)])
    scale = float(1 / latents.mean())
    model = LatentDiffusion(
        ModelConfig(
            autoencoder_channels=WIDTHS,
            norm_groups=1,
            latent_channels=LATENT_CHANNELS,
            denoiser_channels=DENOISER_WIDTHS,
            denoiser_blocks=1,
            prediction="v",
            target="residual",
            conditioning="interpolated_voxels",
            scale_factor=scale,
            target_scale=float(1 / residuals.square().mean().sqrt()) / scale,
        )
    )
    model.autoencoder = autoencoder
    denoiser = model.denoiser.train()
    optimizer = torch.optim.AdamW(denoiser.parameters(), DENOISER_RATE, betas=(0.9, 0.99), weight_decay=0.01)
    ema = Ema(denoiser, 0.998)
    batch, after = partial(denoiser_batch, model, draw, generator), partial(ema.update, denoiser)
    total, count = train("denoiser", optimizer, batch, seconds=seconds, warm_steps=60, after=after)
    ema.copy_to(denoiser)
    told = f"scale_factor={scale:.4f} target_scale={model.config.target_scale:.4f}"
    print(f"denoiser {told} loss_at_noise={float(total / count):.3f}", flush=True)
    return model


@click.command
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--train", "trained_on", multiple=True, required=True, type=click.Path(path_type=Path))
@click.option("--linear-s", default=240.0, show_default=True, help="CPU seconds")
@click.option("--decoder-s", nargs=2, type=float, default=(300.0, 880.0), show_default=True, help="of the two rounds")
@click.option("--denoiser-s", default=1950.0, show_default=True)
def main(
    out: Path, trained_on: tuple[Path, ...], linear_s: float, decoder_s: tuple[float, float], denoiser_s: float
) -> None:
    """Train on the scans of --train and write OUT, which `load_checkpoint` reads."""
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    scans = [read_thin(path) for path in trained_on]
    path = linear_path(scans, linear_s)
    autoencoder = as_autoencoder(path)
    encode = folded(path)
    train_decoder(autoencoder, scans, encode, decoder_s)
    model = train_denoiser(autoencoder, scans, encode, denoiser_s)
    model.save(out, torch.float16)
    numbers = sum(parameter.numel() for parameter in model.parameters())
    print(f"wrote={out} parameters={numbers} mib={out.stat().st_size / 2**20:.1f}", flush=True)


if __name__ == "__main__":
    main()
