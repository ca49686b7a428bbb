"""What the trainings share: settings, resumable runs, and curves as DVC plots."""

import hashlib
import json
import logging
import math
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from accelerate import PartialState
from rich.console import Console
from torch import nn

from ctinterp_dagster import telemetry
from ctinterp_dagster.errors import ParamsError
from ctinterp_dagster.import_closure import code_version
from ctinterp_dagster.layout import Layout
from ctinterp_dagster.params import Base, Loop, Optimisation, Section
from ctinterp_dagster.pipeline.common.cases import read_cases
from ctinterp_dagster.records import file_hash, write_csv, write_json
from ctinterp_dagster.scan.io import read_scan, stored_hu
from ctinterp_dagster.scan.split import Split
from ctinterp_dagster.training.batches import Batch, Batches
from ctinterp_dagster.training.device_volumes import ThinVolume
from ctinterp_dagster.training.loop import LoopSettings, StepRecord, run_loop
from ctinterp_dagster.training.progress_bar import progress_bar

logger = logging.getLogger(__name__)

LOG_EVERY = 20  # steps a line
LOG_EVERY_S = 20.0  # or seconds, where steps take longer

Data = TypeVar("Data")
Fixed_co = TypeVar("Fixed_co", bound=Batch, covariant=True)


class Repeatable(Protocol[Fixed_co]):
    """A source of batches that are the same each time."""

    def fixed(self, count: int, seed: int) -> Sequence[Fixed_co]:
        """So many batches; the same seed gives the same ones."""


def loop_settings(section: Optimisation, batch_size: int, loop: Loop, base: Base) -> LoopSettings:
    """How a training optimises, from three sections of params.yaml.

    Args:
        section: its own: steps, learning rate, warm-up, decay of the average.
        batch_size: samples a process draws at once.
        loop: what the trainings have in common.
        base: what all stages have in common: seed and device.

    Returns:
        The settings of the loop.
    """
    return LoopSettings(
        **section.model_dump(include=set(Optimisation.model_fields)),
        **loop.model_dump(exclude={"launcher"}),
        batch_size=batch_size,
        compile=True,
        validate_every=loop.checkpoint_every,
        seed=base.seed,
        device=base.device,
    )


def identity(module: Path, sections: Sequence[Section], files: Sequence[Path], but: Collection[str] = ()) -> str:
    """What names a training's checkpoint: another one's code, parameters or data give another name.

    Args:
        module: the stage's; all code that it imports counts.
        sections: the parameters that it reads.
        files: what it reads, or what has the hashes of that.
        but: parameters of the sections that change nothing of it.

    Returns:
        16 hexadecimal digits.
    """
    record = [
        code_version(module),
        [s.model_dump(exclude=set(but)) for s in sections],
        [file_hash(path) for path in files],
    ]
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:16]


@contextmanager
def resumable(folder: Path, name: str) -> Iterator[Path]:
    """Yield the checkpoint file of this very run in a folder that outlives interruptions.

    Those of other trainings are removed; this one's too, once the block has ended well.

    Args:
        folder: the stage's.
        name: the training's `identity`.
    """
    path = folder / f"resume-{name}.pt"
    if is_main_process():
        folder.mkdir(parents=True, exist_ok=True)
        for other in folder.glob("resume-*.pt"):
            if other != path:
                other.unlink()
    if path.exists():
        logger.info("training=%s resuming checkpoint=%s", folder.name, path.name)
    yield path
    if is_main_process():
        path.unlink(missing_ok=True)


@contextmanager
def step_log(label: str, steps: int) -> Iterator[Callable[[StepRecord], None]]:
    """Yield the callback of a training: a bar on a terminal, elsewhere lines, both with its label.

    A line comes every 20 steps, every 20 s and at validations. Dagster is shown the same numbers, with the remaining
    time by the pace since the block began.
    """
    start, first = time.monotonic(), 0
    last = start

    def log(record: StepRecord) -> None:
        nonlocal first, last
        first = first or record.step  # a resumed training begins in the middle
        now = time.monotonic()
        due = record.step % LOG_EVERY == 0 or now - last >= LOG_EVERY_S
        if due or record.step == steps or record.val_loss is not None:
            last = now
            val = {} if record.val_loss is None else {"val_loss": record.val_loss}
            left_s = (now - start) / (record.step - first + 1) * (steps - record.step)
            telemetry.show(step=record.step, steps=steps, loss=record.loss, eta_s=round(left_s), **val)
            tail = "".join(f" {name}={value:.5f}" for name, value in val.items())
            tail += f" eta_s={left_s:.0f}" if record.step < steps else ""
            logger.info("training=%s step=%d/%d loss=%.5f%s", label, record.step, steps, record.loss, tail)

    console = Console()
    if not console.is_terminal:
        yield log
        return
    with progress_bar(label, steps, console) as move:
        yield move


@contextmanager
def train(
    objective: nn.Module,
    batches: Batches[Any],
    validation: Sequence[Batch],
    settings: LoopSettings,
    *,
    folder: Path,
    name: str,
) -> Iterator[list[StepRecord]]:
    """Train an objective's weights in place.

    The block is to write the results in the first process: once it has ended well, the checkpoint is removed.

    Args:
        objective: module whose output is the loss.
        batches: where batches come from.
        validation: always the same batches, as `fixed_batches` makes them; none where there is no patient for it.
        settings: how to optimise.
        folder: the stage's, where the checkpoint lies meanwhile.
        name: the training's `identity`.

    Yields:
        The history: a record a step.

    Raises:
        TrainingError: the device cannot do what is asked, the checkpoint is of another run, or a loss is not finite.
        CheckpointError: the checkpoint cannot be read.
    """
    if not validation:
        logger.warning("training=%s has no val_loss: no patient is in val (ingest says what to do)", folder.name)
    with resumable(folder, name) as checkpoint, step_log(folder.name, settings.steps) as on_step:
        yield run_loop(objective, batches, settings, validation=validation, checkpoint=checkpoint, on_step=on_step)


def fixed_batches(
    make: Callable[[Sequence[Data]], Repeatable[Fixed_co]], unseen: Sequence[Data], samples: int, settings: LoopSettings
) -> Sequence[Fixed_co]:
    """Batches that are always the same, for validation.

    Args:
        make: makes the source of batches of volumes, or of what else there is of each case.
        unseen: those of patients on whom nothing is trained.
        samples: how many samples to take, one batch at least.
        settings: how large batches are, and the seed.

    Returns:
        Batches; empty where `unseen` is.
    """
    return make(unseen).fixed(max(1, samples // settings.batch_size), settings.seed) if unseen else []


def is_main_process() -> bool:
    """Whether this process writes the results: the only one, or the first of those that a launcher started."""
    return bool(PartialState().is_main_process)


def write_curve(path: Path, history: Sequence[StepRecord]) -> None:
    """Write the history as CSV: one row a step; `val_loss` is empty between validations."""
    rows = [{k: "" if v is None else v for k, v in asdict(record).items()} for record in history]
    write_csv(path, rows, [field.name for field in fields(StepRecord)])


def write_reports(
    reports: Path, history: Sequence[StepRecord], metrics: Mapping[str, float], trained: nn.Module
) -> None:
    """Write the curve of a training, and its metrics with the number of parameters that were trained.

    Args:
        reports: the stage's folder.
        history: a record a step.
        metrics: by name.
        trained: what was trained.
    """
    write_curve(reports / "curve.csv", history)
    write_json(reports / "metrics.json", {**metrics, "parameters": sum(p.numel() for p in trained.parameters())})


def final_losses(history: Sequence[StepRecord]) -> dict[str, float]:
    """The metrics of a training: mean loss of its last tenth, and the last validation loss where there is one."""
    if not history:
        return {}
    tail = [record.loss for record in history[-max(1, len(history) // 10) :]]
    validated = [record.val_loss for record in history if record.val_loss is not None]
    return {"loss": sum(tail) / len(tail), **({"val_loss": validated[-1]} if validated else {})}


def thin_volumes(layout: Layout, split: Split, weights: Mapping[str, float] | None = None) -> list[ThinVolume]:
    """The thin volumes of a split.

    Those with whole HU stay in their files, and pages of them are in memory while they are used.

    Args:
        layout: where things are.
        split: the split.
        weights: by shell pattern of a case, how often it is drawn; the first that fits counts, 1 where none does.

    Returns:
        Volumes in the order of the cases; empty if no case is in the split.

    Raises:
        ParamsError: a pattern fits no case of the split.
    """
    weights, cases = weights or {}, [case for case in read_cases(layout) if case.split == split]
    idle = [pattern for pattern in weights if not any(fnmatchcase(case.case, pattern) for case in cases)]
    if idle:
        raise ParamsError(
            f"expect.weights: {idle[0]} fits no {split} case: expected one of {', '.join(c.case for c in cases[:9])}"
        )
    volumes = []
    for case in cases:
        weight = next((w for pattern, w in weights.items() if fnmatchcase(case.case, pattern)), 1.0)
        volumes.append(training_volume(case.thin(layout), weight, case.case))
    return volumes


def training_volume(path: Path, weight: float, case: str) -> ThinVolume:
    """A volume that ingest wrote, in whole HU; its file is mapped and not held open, for there may be thousands.

    Args:
        path: of the file.
        weight: how often it is drawn beside the others, 1 is once.
        case: its name.

    Returns:
        (z, y, x) int16 HU, with spacing, weight and name.

    Raises:
        ScanError: the file cannot be read.
    """
    if stored := stored_hu(path):
        words = torch.from_file(
            str(path), shared=False, size=stored.offset // 2 + math.prod(stored.shape), dtype=torch.int16
        )
        hu = words[stored.offset // 2 :].reshape(stored.shape).permute(stored.axes).contiguous()
        return ThinVolume(hu, stored.spacing_mm, weight, case)
    thin = read_scan(path).volume
    return ThinVolume(torch.from_numpy(thin.hu).round().to(torch.int16), thin.spacing_mm, weight, case)
