"""How a person at a terminal sees how long a training has still to go."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ctinterp_dagster.training.loop import StepRecord


@contextmanager
def progress_bar(label: str, steps: int, console: Console) -> Iterator[Callable[[StepRecord], None]]:
    """Yield an `on_step` callback that moves a bar with loss and remaining time; silent where there is no terminal.

    Args:
        label: what is trained.
        steps: optimizer steps in all.
        console: where the bar is drawn.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(label, total=steps)

        def on_step(record: StepRecord) -> None:
            progress.update(task, completed=record.step, description=f"{label} loss={record.loss:.4f}")

        yield on_step
