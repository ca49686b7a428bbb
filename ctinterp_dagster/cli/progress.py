"""How long a command still takes: a bar at a terminal, lines elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

FIRST_S = 4.0  # until the first line, where there is no terminal
LATER = 2.0  # times as long until each further one, 60 s at most

ReportProgress = Callable[[float], None]
"""Takes the part that is done, 0 to 1."""


@contextmanager
def progress(doing: str) -> Iterator[ReportProgress]:
    """Yield what takes the part that is done; show percent and time left, from the mean speed so far.

    Args:
        doing: what the command does, as in "interpolating".
    """
    start = due = time.monotonic()
    due, pause = start + FIRST_S, FIRST_S
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:3.0f} %{task.fields[left]}"))
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True) as bar:
        task = bar.add_task(doing, total=1.0, left="")

        def report_progress(part: float) -> None:
            nonlocal due, pause
            now = time.monotonic()
            left = f", {duration((now - start) * (1 - part) / part)} left" if part else ""
            bar.update(task, completed=part, left=left)
            if bar.disable and now >= due and part < 1:
                click.echo(f"{doing}: {part:.0%} done{left}", err=True)
                pause = min(LATER * pause, 60.0)
                due = now + pause

        yield report_progress


def duration(seconds: float) -> str:
    """A time in words, such as 42 s, 3 min, 1 h 20 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
