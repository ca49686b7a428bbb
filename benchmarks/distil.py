"""A network that draws samples in one evaluation, for a null-space model that has none; run by hand.

    python -m benchmarks.distil MODEL OUT SCAN ... --steps 1000

MODEL is a whole null-space model whose denoiser predicts x0, SCAN a thin training scan. OUT is that model with the
network for one step, which learns what the denoiser makes of the same noise in eight. Slabs are those of
`expect` in --params. A run that was stopped goes on where it was.
"""

from pathlib import Path

import click
import torch

from ctinterp_dagster.nullspace.diffusion import NullSpaceDiffusion
from ctinterp_dagster.nullspace.distillation import DistillationObjective, with_one_step
from ctinterp_dagster.nullspace.objective import NoisySlabs
from ctinterp_dagster.nullspace.slabs import ThickSlabs
from ctinterp_dagster.params import load_params
from ctinterp_dagster.pipeline.common.warm_start import slab_settings
from ctinterp_dagster.scan.io import read_scan
from ctinterp_dagster.training.device_volumes import ThinVolume
from ctinterp_dagster.training.loop import LoopSettings, StepRecord, run_loop


def told(record: StepRecord) -> None:
    """Print every tenth step."""
    if record.step % 10 == 0:
        print(f"step={record.step} loss={record.loss:.4f}", flush=True)


@click.command
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.argument("scans", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option("--params", type=click.Path(path_type=Path), default=Path("ctinterp_dagster/released/params.yaml"))
@click.option("--steps", default=1000, help="optimiser steps")
@click.option("--learning-rate", default=6e-4, help="peak of AdamW's learning rate")
def main(model: Path, out: Path, scans: list[Path], params: Path, steps: int, learning_rate: float) -> None:
    """Distil MODEL on SCANS."""
    given = load_params(params)
    torch.manual_seed(given.base.seed)
    torch.set_num_threads(given.base.threads)
    thin = [read_scan(scan).volume for scan in scans]
    volumes = [ThinVolume(torch.from_numpy(volume.hu).round().to(torch.int16), volume.spacing_mm) for volume in thin]
    grown = with_one_step(NullSpaceDiffusion.load(model))
    slabs = ThickSlabs(volumes, slab_settings(given.expect), given.expect.batch_size)
    settings = LoopSettings(
        steps=steps,
        batch_size=given.expect.batch_size,
        learning_rate=learning_rate,
        warmup_steps=50,
        ema_decay=0.995,
        **given.loop.model_dump(exclude={"launcher"}),
        compile=True,
        validate_every=steps,
        seed=given.base.seed,
        device=given.base.device,
    )
    batches = NoisySlabs(slabs, grown.config.expectation.modes)
    checkpoint = out.with_suffix(".resume.pt")
    run_loop(DistillationObjective(grown), batches, settings, checkpoint=checkpoint, on_step=told)
    grown.save(out, torch.float16)
    checkpoint.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
