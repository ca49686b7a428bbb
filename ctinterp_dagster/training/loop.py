"""The training loop, the same for the autoencoder and the denoiser; Accelerate spreads it over devices and machines."""

import copy
import hashlib
import math
import os
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

from ctinterp_dagster.errors import TrainingError
from ctinterp_dagster.model.ema import Ema
from ctinterp_dagster.training.accelerator import accelerator_for, channels_last, memory_told, repeatable
from ctinterp_dagster.training.batches import Batch, Batches, Plan, seeded
from ctinterp_dagster.training.checkpoint import TrainingState, whole, whole_weights
from ctinterp_dagster.training.recompute import compiled, recomputed

BETAS = (0.9, 0.99)
"""Decay of AdamW's moments. Source: Loshchilov and Hutter 2019, algorithm 2; 0.99 as Karras et al. 2024 (EDM2).
No parameter, as no training ever had others (docs/decisions/0010-what-the-trainings-share.md)."""
WEIGHT_DECAY = 0.01  # of AdamW, as torch has it
FETCHED_TOGETHER = 25  # steps of a GPU whose losses are fetched at once: it waits for each fetch
PLANNERS = 8  # threads that plan batches for a GPU, at most


@dataclass(frozen=True)
class LoopSettings:
    """How to optimise.

    Attributes:
        steps: optimizer steps in all.
        batch_size: samples a process draws at once.
        accumulation: batches summed before a step.
        learning_rate: peak of the schedule.
        warmup_steps: steps of linear rise before the cosine descent to 0.
        clip_norm: largest norm of the gradient.
        ema_decay: decay of the running mean of the weights.
        mixed_precision: no, bf16, or fp16 (GPU only).
        gradient_checkpointing: compute the inside of each residual block again on the way back, and keep none of it.
        compile: have torch compile the residual blocks; on a GPU only.
        checkpoint_every: steps between checkpoints.
        validate_every: steps between validations.
        seed: of all chance; batch i depends on (seed, i) only.
        device: auto, cpu or cuda.
    """

    steps: int
    batch_size: int
    accumulation: int
    learning_rate: float
    warmup_steps: int
    clip_norm: float
    ema_decay: float
    mixed_precision: Literal["no", "bf16", "fp16"]
    gradient_checkpointing: bool
    compile: bool
    checkpoint_every: int
    validate_every: int
    seed: int
    device: Literal["auto", "cpu", "cuda"]


@dataclass(frozen=True)
class StepRecord:
    """One row of the history.

    Attributes:
        step: optimizer steps done, from 1.
        loss: mean over the step's batches and all processes.
        learning_rate: that the step used.
        grad_norm: before clipping.
        val_loss: of the averaged weights on the validation batches, None between validations.
    """

    step: int
    loss: float
    learning_rate: float
    grad_norm: float
    val_loss: float | None


def run_loop(
    objective: nn.Module,
    batches: Batches[Any],
    settings: LoopSettings,
    *,
    validation: Sequence[Batch] = (),
    checkpoint: Path | None = None,
    on_step: Callable[[StepRecord], None] = lambda _: None,
) -> list[StepRecord]:
    """Train a module whose `forward(*batch)` is its loss, in place; it ends with the averaged weights.

    A run that was stopped, and is called again with the same arguments, ends with the same weights to the bit as one
    that was not. Two processes draw what one process with twice the accumulation draws.

    Args:
        objective: module with scalar output.
        batches: where batches come from.
        settings: how to optimise.
        validation: fixed batches.
        checkpoint: file to resume from, if it exists, and to write; the caller removes it. None to do neither.
        on_step: told of every step, in the main process.

    Returns:
        The history, a record a step, from the first step even after a resume.

    Raises:
        TrainingError: the device cannot do what is asked, the checkpoint is of another run, or a loss is not finite.
        CheckpointError: the checkpoint cannot be read.
    """
    accelerator = accelerator_for(settings.device, settings.mixed_precision, settings.accumulation)
    # FSDP leaves each process a part of every weight: it is given a copy.
    trained = copy.deepcopy(objective) if accelerator.is_fsdp2 else objective
    gpu = accelerator.device.type != "cpu"
    with (
        repeatable(trained, gpu=gpu),
        recomputed(trained, asked=settings.gradient_checkpointing),
        compiled(trained, asked=settings.compile and gpu),
        memory_told(settings.batch_size),
    ):
        state, parallel = _prepared(trained, accelerator, settings)
        identity = _identity(trained, batches, settings, accelerator.num_processes)
        rows = state.load(checkpoint, identity) if checkpoint and checkpoint.exists() else []
        history = [StepRecord(**row) for row in rows]
        with closing(_steps(state, parallel, batches, len(history), validation, settings)) as steps:
            for records, saves in steps:
                history += records
                if checkpoint and saves:
                    state.save(checkpoint, identity, [asdict(record) for record in history])
                for record in records if accelerator.is_main_process else ():
                    on_step(record)
        accelerator.wait_for_everyone()
        state.ema.copy_to(trained)
        accelerator.unwrap_model(parallel, keep_fp32_wrapper=False)
        if trained is not objective:
            objective.to(accelerator.device).load_state_dict(whole_weights(trained))
    return history


def learning_rate_at(step: int, settings: LoopSettings) -> float:
    """Linear warm-up, then half a cosine down to 0 after the last step; torch's schedulers give other last bits.

    Args:
        step: from 0, below `settings.steps`.
        settings: of the loop.

    Returns:
        A rate from 0 to `settings.learning_rate`.

    Source: Loshchilov and Hutter 2017 (SGDR), eq. 5, without restarts; warm-up as Goyal et al. 2017, section 2.2.
    """
    if step < settings.warmup_steps:
        return settings.learning_rate * (step + 1) / settings.warmup_steps
    progress = (step - settings.warmup_steps) / max(1, settings.steps - settings.warmup_steps)
    return settings.learning_rate * 0.5 * (1.0 + math.cos(math.pi * progress))


def _prepared(
    objective: nn.Module, accelerator: Accelerator, settings: LoopSettings
) -> tuple[TrainingState, nn.Module]:
    """What changes in a training, and the module that spreads the objective over processes."""
    gpu = accelerator.device.type != "cpu"
    if gpu:
        objective.to(accelerator.device)
    if gpu and not accelerator.is_fsdp2:  # which refuses weights that are not contiguous
        channels_last(objective)
    optimizer = torch.optim.AdamW(
        objective.parameters(), lr=settings.learning_rate, betas=BETAS, weight_decay=WEIGHT_DECAY, fused=gpu
    )
    parallel, optimizer = accelerator.prepare(objective, optimizer)
    objective.train()
    return TrainingState(accelerator, objective, optimizer, Ema(objective, settings.ema_decay)), parallel


@contextmanager
def _plans(
    batches: Batches[Any], step: int, accelerator: Accelerator, settings: LoopSettings
) -> Iterator[Iterator[Plan[Any]]]:
    """This process's plans from a step on, on its device; for a GPU they are drawn beside its work."""
    first, last = step * settings.accumulation, settings.steps * settings.accumulation
    indices = (n * accelerator.num_processes + accelerator.process_index for n in range(first, last))
    if accelerator.device.type == "cpu":
        yield (batches.plan(seeded(settings.seed, index)) for index in indices)
        return
    planners = max(1, min(PLANNERS, (os.cpu_count() or 2) // 2))

    def ahead() -> Iterator[Plan[Any]]:
        waiting = deque[Future[Plan[Any]]]()
        for index in indices:
            waiting.append(pool.submit(lambda n: batches.plan(seeded(settings.seed, n)).pinned(), index))
            if len(waiting) > 2 * planners:
                yield waiting.popleft().result().to(accelerator.device)
        while waiting:
            yield waiting.popleft().result().to(accelerator.device)

    with ThreadPoolExecutor(planners) as pool:
        try:
            yield ahead()
        finally:
            pool.shutdown(cancel_futures=True)


@dataclass(frozen=True)
class _Step:
    """A step whose numbers may still be on their way."""

    step: int
    rate: float
    loss: Tensor
    norm: Tensor
    cases: frozenset[str]
    skipped: bool


def _steps(
    state: TrainingState,
    parallel: nn.Module,
    batches: Batches[Any],
    first: int,
    validation: Sequence[Batch],
    settings: LoopSettings,
) -> Generator[tuple[list[StepRecord], bool]]:
    """Train from a step on to the last; the records of steps as they are known, and whether to save after them."""
    gpu, pending = state.accelerator.device.type != "cpu", list[_Step]()
    with _plans(batches, first, state.accelerator, settings) as plans:
        for step in range(first, settings.steps):
            pending.append(_take_step(state, parallel, batches, plans, step, settings))
            state.ema.update(state.objective)
            done, last = step + 1, step + 1 == settings.steps
            validates = bool(validation) and (last or done % settings.validate_every == 0)
            saves = last or done % settings.checkpoint_every == 0
            if validates or saves or not gpu or len(pending) == FETCHED_TOGETHER:
                records = _settled(pending, state.accelerator)
                pending.clear()
                if validates:
                    records[-1] = replace(records[-1], val_loss=_validate(state, validation))
                yield records, saves


def _take_step(
    state: TrainingState,
    parallel: nn.Module,
    batches: Batches[Any],
    plans: Iterator[Plan[Any]],
    step: int,
    settings: LoopSettings,
) -> _Step:
    accelerator, optimizer = state.accelerator, state.optimizer
    rate = learning_rate_at(step, settings)
    for group in optimizer.param_groups:
        group["lr"] = rate
    losses, norm, cases = [], torch.tensor(0.0), set[str]()
    for _ in range(settings.accumulation):
        plan = next(plans)
        cases.update(plan.cases)
        with accelerator.accumulate(parallel):
            with accelerator.autocast():  # which Accelerate leaves to FSDP, where there is one
                loss = parallel(*batches.batch(plan))
            losses.append(loss.detach().float())
            accelerator.backward(loss)
            if accelerator.sync_gradients:
                norm = whole(accelerator.clip_grad_norm_(parallel.parameters(), settings.clip_norm))
            optimizer.step()
            optimizer.zero_grad()
    mean = torch.stack(losses).mean()
    return _Step(step, rate, mean, norm, frozenset(cases), accelerator.optimizer_step_was_skipped)


def _settled(pending: Sequence[_Step], accelerator: Accelerator) -> list[StepRecord]:
    """The records of steps; it waits for them.

    Args:
        pending: steps whose losses may not be computed yet.
        accelerator: reduces over the processes.

    Returns:
        A record a step, in their order.

    Raises:
        TrainingError: a loss or a gradient is not finite.
    """
    losses = accelerator.reduce(torch.stack([step.loss for step in pending]), reduction="mean").tolist()
    norms = torch.stack([step.norm.float() for step in pending]).tolist()
    for step, loss, norm in zip(pending, losses, norms, strict=True):
        if not math.isfinite(loss) or not (math.isfinite(norm) or step.skipped):
            raise TrainingError(
                f"training diverged at step {step.step + 1}, on {', '.join(sorted(step.cases))}: loss {loss}, gradient "
                f"norm {norm}, expected finite numbers: look at these cases, lower learning_rate or clip_norm, or use "
                "mixed_precision no; the last checkpoint is as it was"
            )
    return [
        StepRecord(step.step + 1, loss, step.rate, norm, None)
        for step, loss, norm in zip(pending, losses, norms, strict=True)
    ]


def _validate(state: TrainingState, validation: Sequence[Batch]) -> float:
    """Mean loss of the averaged weights; every process computes all of it, so that all agree without talking."""
    with state.ema.swapped_in(state.objective), state.accelerator.autocast(), torch.compiler.set_stance("force_eager"):
        loss = mean_loss(state.objective, validation)
        for module in state.objective.modules():
            if isinstance(module, FSDPModule):
                module.reshard()  # a way there without a way back leaves the weights whole
    return loss


@torch.no_grad()
def mean_loss(objective: nn.Module, batches: Sequence[Batch]) -> float:
    """Mean loss over batches, each of one weight, in float64.

    Args:
        objective: gives the loss of a batch's tensors.
        batches: moved to the device of the objective one by one.

    Returns:
        A number.
    """
    device = next(objective.parameters()).device
    losses = [objective(*send_to_device(batch, device)) for batch in batches]
    return float(torch.stack(losses).double().mean())


def _identity(objective: nn.Module, batches: Batches[Any], settings: LoopSettings, processes: int) -> str:
    shapes = [(name, tuple(tensor.shape)) for name, tensor in objective.state_dict().items()]
    return hashlib.sha256(repr((settings, processes, shapes, batches.fingerprint())).encode()).hexdigest()
