"""Trainings for as many seconds as a borrowed GPU is there: the weights of every minute, and the curve.

    python -m benchmarks.gpu.train KIT OUT expectation:300 denoiser:60   # each for so many seconds, one after the other
    python -m benchmarks.gpu.train KIT OUT autoencoder:120 latent:60 --start OLD

The section `training` of `benchmarks.gpu` takes the pace of all of them.

With `--start` each goes on from the weights of its name in that folder, an expectation as wide as it is there. A
denoiser is trained around OUT's expectation.safetensors, a latent diffusion in the latents of OUT's
autoencoder.safetensors, or else OLD's.

KIT is a folder that `benchmarks.kit` wrote. The number of steps follows from the pace of the first ones, so that the
learning rate ends at 0 when the seconds do.
"""

import csv
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import click
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.gpu.recipes import PILOT, SETTINGS, TRAININGS, USUAL, Given, Training, Weights
from benchmarks.packed_volumes import read_kit
from ctinterp_dagster.model.ema import Ema
from ctinterp_dagster.training.loop import StepRecord, run_loop, seeded

WARM = 50  # steps before the pace is taken: compiling, and the fastest kernels looked for


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
@click.option("--start", type=click.Path(path_type=Path), help="folder of weights to go on from")
@click.option("--compile/--no-compile", "compiles", default=False, show_default=True)
def main(
    kit: Path,
    out: Path,
    names: Sequence[str],
    batch: int | None,
    rate: float | None,
    channels: str,
    start: Path | None,
    *,
    compiles: bool,
) -> None:
    """Train."""
    began = time.perf_counter()
    out.mkdir(parents=True, exist_ok=True)
    train, val = read_kit(kit)
    widths = [int(width) for width in channels.split(",")] if channels else []
    print(f"{len(train)} + {len(val)} volumes read, {time.perf_counter() - began:.1f} s", flush=True)
    for name, _, seconds in (each.partition(":") for each in names):
        began = time.perf_counter()
        torch.manual_seed(SETTINGS.seed)
        usual_batch, usual_rate = USUAL[name]
        settings = replace(
            SETTINGS, batch_size=batch or usual_batch, learning_rate=rate or usual_rate, compile=compiles
        )
        training = TRAININGS[name](Given(train, val, Weights(out, start), settings, widths))
        timed(training, name, out, float(seconds) - (time.perf_counter() - began))


if __name__ == "__main__":
    main()
