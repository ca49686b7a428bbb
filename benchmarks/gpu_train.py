"""Trainings for as many seconds as a borrowed GPU is there: the weights of every minute, and the curve.

    python -m benchmarks.gpu_train KIT OUT expectation:300 denoiser:60   # each for so many seconds, one after the other
    python -m benchmarks.gpu_train KIT OUT autoencoder:120

The section `training` of `benchmarks.gpu` takes the pace of all of them.

A denoiser is trained around OUT/expectation.safetensors.

KIT is a folder that `benchmarks.kit` wrote. The number of steps follows from the pace of the first ones, so that the
learning rate ends at 0 when the seconds do.
"""

import csv
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import click
import torch
from safetensors.torch import save_file
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.gpu_subjects import expectation_of
from ctinterp_dagster.model.autoencoder import MaisiAutoencoder
from ctinterp_dagster.model.denoiser import Denoiser
from ctinterp_dagster.model.ema import Ema
from ctinterp_dagster.model.files import save_model
from ctinterp_dagster.model.nullspace import (
    Expectation,
    ExpectationConfig,
    NullSpaceConfig,
    NullSpaceDiffusion,
    narrower,
)
from ctinterp_dagster.model.weights import save_weights
from ctinterp_dagster.physics.nullspace import FEATURES, GEOMETRY, MODES
from ctinterp_dagster.training.autoencoder import ReconstructionObjective, VolumeCrops
from ctinterp_dagster.training.denoiser import DenoisingObjective
from ctinterp_dagster.training.kit import read_kit
from ctinterp_dagster.training.latents import LatentPair, LatentPatches, PatchSettings
from ctinterp_dagster.training.loop import Batch, Batches, LoopSettings, StepRecord, run_loop, seeded
from ctinterp_dagster.training.nullspace import ExpectationObjective, NoisySlabs, NullSpaceObjective
from ctinterp_dagster.training.resident import ThinVolume
from ctinterp_dagster.training.slabs import SlabSettings, ThickSlabs

WARM = 50  # steps before the pace is taken: compiling, and the fastest kernels looked for
PILOT = 125
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
    return ThickSlabs(volumes, SlabSettings(size_zyx, vary=True, noise_hu=60.0), batch_size)


def expectation(
    train: Sequence[ThinVolume], val: Sequence[ThinVolume], _out: Path, settings: LoopSettings, channels: Sequence[int]
) -> Training:
    """The networks of mean and spread."""
    widths = tuple(channels) or (64, 128, 192)
    network = Expectation(ExpectationConfig(FEATURES, MODES, widths, 1, narrower(widths), GEOMETRY, mirror=False))
    size = (8, 96, 96)
    return Training(
        ExpectationObjective(network),
        slabs(train, settings.batch_size, size),
        fixed(slabs(val, settings.batch_size, size), 4),
        settings,
        lambda path: save_model(network, "expectation", network.config, path, torch.float16),
    )


def denoiser(
    train: Sequence[ThinVolume], val: Sequence[ThinVolume], out: Path, settings: LoopSettings, channels: Sequence[int]
) -> Training:
    """The diffusion around an expectation that lies in `out`."""
    known = expectation_of(out / "expectation.safetensors")
    model = NullSpaceDiffusion(NullSpaceConfig(known.config, tuple(channels) or (32, 64, 96), 1, "x0"))
    model.expectation = known
    size = (8, 64, 64)
    return Training(
        NullSpaceObjective(model),
        NoisySlabs(slabs(train, settings.batch_size, size), MODES),
        fixed(NoisySlabs(slabs(val, settings.batch_size, size), MODES), 4),
        settings,
        lambda path: save_model(model.denoiser, "denoiser", model.config, path, torch.float16),
    )


def autoencoder(
    train: Sequence[ThinVolume], val: Sequence[ThinVolume], _out: Path, settings: LoopSettings, channels: Sequence[int]
) -> Training:
    """An autoencoder of the MAISI family."""
    *widths, latent = tuple(channels) or (32, 64, 128, 8)
    network = MaisiAutoencoder(widths, latent_channels=latent, norm_groups=16)
    crop = (64, 64, 64)
    about = {"ctinterp_autoencoder": json.dumps(asdict(network.architecture), sort_keys=True)}

    def save(path: Path) -> None:
        half = MaisiAutoencoder(widths, latent_channels=latent, norm_groups=16).half()
        half.load_state_dict(network.state_dict())
        save_weights(half, path, about)

    return Training(
        ReconstructionObjective(network, 1e-7),
        VolumeCrops(train, crop, settings.batch_size, latent),
        fixed(VolumeCrops(val, crop, settings.batch_size, latent), 4),
        settings,
        save,
    )


def latent(
    train: Sequence[ThinVolume], val: Sequence[ThinVolume], _out: Path, settings: LoopSettings, channels: Sequence[int]
) -> Training:
    """A denoiser of latents that are noise: the latents are the stage `encode`'s, and only the pace is of interest."""
    generator = torch.Generator().manual_seed(0)
    network = Denoiser(4, 4, tuple(channels) or (64, 96, 128), 2)
    pairs = [LatentPair(*torch.randn(2, 4, 32, 48, 48, generator=generator), volume.case) for volume in (*train, *val)]
    patches = LatentPatches(pairs, PatchSettings((16, 24, 24), (1, 2), 0.25), settings.batch_size)
    return Training(
        DenoisingObjective(network, "v"), patches, [], settings, lambda path: save_file(network.state_dict(), path)
    )


TRAININGS = {"expectation": expectation, "denoiser": denoiser, "autoencoder": autoencoder, "latent": latent}
USUAL = {"expectation": (8, 1.3e-3), "denoiser": (16, 1.0e-3), "autoencoder": (4, 1.0e-3), "latent": (8, 5.0e-4)}
"""Slabs or crops a step, and the peak of the learning rate."""


class Pace:
    """Steps a second of a run, without its first ones."""

    def __init__(self) -> None:
        self.times: list[tuple[int, float]] = []

    def __call__(self, record: StepRecord) -> None:
        """Note the time of a step."""
        self.times.append((record.step, time.perf_counter()))

    @property
    def steps_s(self) -> float:
        """Steps a second from step WARM, or the first that is known, to the last."""
        first = next((n for n in self.times if n[0] >= WARM), self.times[0])
        last = self.times[-1]
        return (last[0] - first[0]) / max(1e-9, last[1] - first[1])


def paced(training: Training, steps: int) -> tuple[float, float]:
    """Steps a second, and peak GiB on the device; the weights are as before."""
    before = {name: tensor.clone() for name, tensor in training.objective.state_dict().items()}
    pace = Pace()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    run_loop(training.objective, training.batches, replace(training.settings, steps=steps), on_step=pace)
    training.objective.load_state_dict(before)
    return pace.steps_s, (torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0) / 2**30


def step_tflop(training: Training) -> float:
    """Floating-point operations of one step, in 10^12, as torch counts them."""
    device = next(training.objective.parameters()).device
    plan = training.batches.plan(seeded(0)).to(device)
    with FlopCounterMode(display=False) as counter, torch.autocast(device.type, torch.bfloat16):
        training.objective(*training.batches.batch(plan)).backward()
    training.objective.zero_grad()
    return counter.get_total_flops() / 1e12


def timed(training: Training, name: str, out: Path, seconds: float, pilot: int = PILOT) -> list[StepRecord]:
    """Train for so long; write the averaged weights every minute and at the end, and the curve."""
    start = time.perf_counter()
    pace, peak_gib = paced(training, pilot)
    steps = max(1, int((seconds - (time.perf_counter() - start)) * pace))
    every = max(1, min(int(60 * pace), steps))
    spent_s = time.perf_counter() - start
    print(f"{name}: {pace:.2f} steps/s, {peak_gib:.1f} GiB, {steps} steps from second {spent_s:.0f}", flush=True)
    history: list[StepRecord] = []
    checkpoint = out / "resume" / f"{name}.pt"
    checkpoint.parent.mkdir(exist_ok=True)
    checkpoint.unlink(missing_ok=True)  # of a training that was as many steps as another pace gave

    def keep(record: StepRecord) -> None:
        history.append(record)
        if record.val_loss is not None or record.step == steps:
            print(f"{name}: step {record.step} loss {record.loss:.5f} val {record.val_loss}", flush=True)
        if record.step % every == 0 and record.step < steps:
            state = torch.load(checkpoint, map_location="cpu", weights_only=True)
            ema = Ema(training.objective, 0.0)
            ema.load_state_dict(state["ema"])
            with ema.swapped_in(training.objective):
                training.save(out / f"{name}-{record.step}.safetensors")
            write_curve(out / f"{name}.csv", history)

    settings = replace(training.settings, steps=steps, checkpoint_every=every, validate_every=max(1, steps // 12))
    run_loop(
        training.objective,
        training.batches,
        settings,
        validation=training.validation,
        checkpoint=checkpoint,
        on_step=keep,
    )
    training.save(out / f"{name}.safetensors")
    write_curve(out / f"{name}.csv", history)
    print(f"{name}: {steps} steps in {time.perf_counter() - start:.0f} s", flush=True)
    return history


def write_curve(path: Path, history: Sequence[StepRecord]) -> None:
    """Every tenth step, and those that were validated."""
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["step", "loss", "learning_rate", "grad_norm", "val_loss"])
        for row in history:
            if row.step % 10 == 0 or row.val_loss is not None:
                table.writerow([row.step, row.loss, row.learning_rate, row.grad_norm, row.val_loss])


@click.command
@click.argument("kit", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.argument("names", nargs=-1, required=True, metavar="NAME:SECONDS...")
@click.option("--batch", type=int, help="slabs or crops a step, instead of what is usual for each")
@click.option("--rate", type=float, help="peak of the learning rate, instead of what is usual for each")
@click.option("--channels", default="", help="widths, by commas; an autoencoder's end with its latent channels")
@click.option("--compile/--no-compile", "compiles", default=False, show_default=True)
def main(
    kit: Path,
    out: Path,
    names: Sequence[str],
    batch: int | None,
    rate: float | None,
    channels: str,
    *,
    compiles: bool,
) -> None:
    """Train."""
    start = time.perf_counter()
    out.mkdir(parents=True, exist_ok=True)
    train, val = read_kit(kit)
    widths = [int(width) for width in channels.split(",")] if channels else []
    print(f"{len(train)} + {len(val)} volumes read, {time.perf_counter() - start:.1f} s", flush=True)
    for name, _, seconds in (each.partition(":") for each in names):
        start = time.perf_counter()
        torch.manual_seed(SETTINGS.seed)
        usual_batch, usual_rate = USUAL[name]
        settings = replace(
            SETTINGS, batch_size=batch or usual_batch, learning_rate=rate or usual_rate, compile=compiles
        )
        training = TRAININGS[name](train, val, out, settings, widths)
        timed(training, name, out, float(seconds) - (time.perf_counter() - start))


if __name__ == "__main__":
    main()
