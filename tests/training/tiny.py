"""A tiny denoising run, for the tests and for the processes that they start."""

import hashlib
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from accelerate import PartialState
from torch import nn

from ctinterp_dagster.latent.denoiser import Denoiser
from ctinterp_dagster.latent.objective import DenoisingObjective
from ctinterp_dagster.latent.patches import LatentPair, LatentPatches, PatchSettings
from ctinterp_dagster.training.loop import LoopSettings, StepRecord, run_loop

SETTINGS = LoopSettings(
    steps=6,
    batch_size=2,
    accumulation=1,
    learning_rate=2e-3,
    warmup_steps=2,
    clip_norm=1.0,
    ema_decay=0.9,
    mixed_precision="no",
    gradient_checkpointing=False,
    compile=False,
    checkpoint_every=2,
    validate_every=3,
    seed=7,
    device="cpu",
)
PATCH = PatchSettings((6, 6, 6), (1, 2), 0.25)


def cases(count: int, seed: int) -> list[LatentPair]:
    """Targets that are half of their condition plus noise."""
    generator = torch.Generator().manual_seed(seed)
    conditions = [torch.randn(2, 6, 8, 8, generator=generator) for _ in range(count)]
    return [LatentPair(c, 0.5 * c + 0.1 * torch.randn(c.shape, generator=generator)) for c in conditions]


def train(
    checkpoint: Path | None = None, on_step: Callable[[StepRecord], None] = lambda _: None, **changes: object
) -> tuple[Denoiser, list[StepRecord]]:
    torch.manual_seed(0)
    denoiser = Denoiser(2, 2, channels=(4, 8), blocks=1)
    settings = replace(SETTINGS, **changes)
    train, val = (LatentPatches(pairs, PATCH, settings.batch_size) for pairs in (cases(3, seed=1), cases(1, seed=2)))
    history = run_loop(
        DenoisingObjective(denoiser, "v"),
        train,
        settings,
        validation=val.fixed(32 // settings.batch_size, settings.seed),
        checkpoint=checkpoint,
        on_step=on_step,
    )
    return denoiser, history


def weights_hash(module: nn.Module) -> str:
    return hashlib.sha256(b"".join(p.detach().numpy().tobytes() for p in module.parameters())).hexdigest()


if __name__ == "__main__":
    torch.set_num_threads(1)
    trained, rows = train(steps=3)
    state = PartialState()
    Path(sys.argv[1], f"rank{state.process_index}").write_text(
        f"{state.num_processes} {weights_hash(trained)} {rows[-1].loss!r} {rows[-1].val_loss!r}"
    )
    if state.is_main_process:
        torch.save(trained.state_dict(), Path(sys.argv[1], "weights.pt"))
    state.destroy_process_group()
