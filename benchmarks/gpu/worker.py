"""A training of the expectation that a launcher starts, for `benchmarks/gpu/torchrun.py`; it may kill itself."""

import os
import signal
from pathlib import Path

import click
import torch
from accelerate.state import AcceleratorState
from torch import Tensor

from benchmarks.gpu.subjects import LOSS, slabs
from ctinterp_dagster.nullspace.basis import FEATURES, GEOMETRY, MODES
from ctinterp_dagster.nullspace.diffusion import Expectation, ExpectationConfig
from ctinterp_dagster.nullspace.objective import ExpectationObjective
from ctinterp_dagster.training.loop import LoopSettings, StepRecord, run_loop


class Strict(ExpectationObjective):
    """The same objective, for which torch takes algorithms that repeat their bits where it has them."""

    def forward(self, *batch: Tensor) -> Tensor:
        """See `ExpectationObjective.forward`."""
        torch.use_deterministic_algorithms(mode=True, warn_only=True)
        torch.backends.cudnn.benchmark = False
        return super().forward(*batch)


def settings(device: str, *, small: bool) -> LoopSettings:
    """A short training with two checkpoints on the way."""
    return LoopSettings(
        steps=6 if small else 40,
        batch_size=1 if small else 4,
        accumulation=1,
        learning_rate=1e-3,
        warmup_steps=2,
        clip_norm=1.0,
        ema_decay=0.9,
        mixed_precision="no" if device == "cpu" else "bf16",
        gradient_checkpointing=False,
        compile=False,
        checkpoint_every=2 if small else 10,
        validate_every=1000,
        seed=0,
        device="cpu" if device == "cpu" else "cuda",
    )


@click.command
@click.option("--folder", type=click.Path(path_type=Path), required=True, help="of checkpoint and weights")
@click.option("--device", required=True)
@click.option("--small", is_flag=True)
@click.option("--strict", is_flag=True, help="with deterministic algorithms")
@click.option("--die-at", default=0, help="step at which the process kills itself; 0 for never")
def main(folder: Path, device: str, die_at: int, *, small: bool, strict: bool) -> None:
    """Train, and write the weights."""

    def on_step(record: StepRecord) -> None:
        if record.step == die_at:
            os.kill(os.getpid(), signal.SIGKILL)

    torch.manual_seed(0)
    channels = (8, 16) if small else (48, 96)
    network = Expectation(ExpectationConfig(FEATURES, MODES, channels, 1, channels, GEOMETRY))
    batches = slabs((4, 16, 16) if small else (8, 64, 64), 1 if small else 4)
    objective = (Strict if strict else ExpectationObjective)(network, LOSS)
    run_loop(objective, batches, settings(device, small=small), checkpoint=folder / "resume.pt", on_step=on_step)
    whole = {name: t.full_tensor() if hasattr(t, "full_tensor") else t for name, t in network.state_dict().items()}
    torch.save({name: t.cpu() for name, t in whole.items()}, folder / "weights.pt")
    state = AcceleratorState()
    (folder / "how.txt").write_text(f"{state.distributed_type.value}, {state.backend}", encoding="utf-8")
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
