"""The champion: what is known of it, who challenged it, and the way back."""

import subprocess
import sys
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from ctinterp_dagster.champion import Challenger, Registry, card
from ctinterp_dagster.errors import MissingInputError
from ctinterp_dagster.layout import Layout


@click.group
def command() -> None:
    """Show the champion and every challenger; go back to an earlier one."""


@command.command
def show() -> None:
    """Print the champion's card: figures, decision, hashes, commit."""
    click.echo(card(*_champion()))


@command.command("list")
def list_() -> None:
    """List every model that was judged, in the order of judgement."""
    registry = _judged()
    champion = registry.champion
    table = Table("number", "judged", "model", "PSNR dB", "decision", "against", "scans", "")
    for c in registry.challengers:
        decision = "promoted" if c.decision.promoted else "refused"
        mark = "champion" if champion and c.model_hash == champion.model_hash else ""
        remark = f"rolled back: {c.rolled_back}" if c.rolled_back else mark
        against = (c.against or "")[: len(c.name)]
        table.add_row(
            str(c.number), registry.judged_on(c), c.name, scores_of(c), decision, against, str(len(c.seen)), remark
        )
    Console(width=120).print(table)


@command.command
@click.option("--reason", required=True, help="why; it is kept, and said whenever the model is refused")
@click.option("--to", default="", help="hash of the champion to go back to; the one before this one if not given")
def rollback(reason: str, to: str) -> None:
    """Make an earlier champion the champion again, and tell DVC.

    The pointer moves in one step. The model that was the champion is not promoted again by itself. Then DVC runs the
    promote stage, so that decision, dvc.lock and `dvc status` say the same.
    """
    target = Registry(Layout(Path()).promote).roll_back(reason, to)
    click.echo(f"the champion is {target.name} (number {target.number})")
    _tell_dvc()


@command.command(short_help="Have no champion: the next model is the first.")
@click.option("--reason", required=True, help="why; it is kept, and said whenever the model is refused")
def reset(reason: str) -> None:
    """Have no champion any more, and tell DVC: the next model is judged as the first.

    A champion that was trained on other scans, such as the built-in phantoms, needs no reset: no model is compared
    with it.
    """
    Registry(Layout(Path()).promote).reset(reason)
    click.echo("there is no champion; the next model that `dvc repro` judges is the first")
    _tell_dvc()


def _judged() -> Registry:
    """The models that were judged, one or more.

    Returns:
        The registry of this folder.

    Raises:
        MissingInputError: none was.
    """
    registry = Registry(Layout(Path()).promote)
    if not registry.challengers:
        raise MissingInputError(
            "no model was judged here: run `dvc repro` in the project's root, the folder of dvc.yaml"
        )
    return registry


def scores_of(challenger: Challenger) -> str:
    """Mean PSNR by task."""
    return "\n".join(f"{name} {task.psnr_db:.2f}" for name, task in sorted(challenger.metrics.tasks.items()))


def _tell_dvc() -> None:
    """Have DVC run the promote stage.

    Raises:
        click.ClickException: it failed.
    """
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "--quiet", "--single-item", "promote"], check=False
    )
    if done.returncode:
        raise click.ClickException(
            "the pointer has moved, but DVC could not record it: run `dvc repro --single-item promote`"
        )
    click.echo("next: commit dvc.lock and reports/promote, and `dvc push` if there is a remote")


def _champion() -> tuple[Challenger, str]:
    """The champion and the commit of its tag.

    Returns:
        Its record, and the hash or `not tagged`.

    Raises:
        MissingInputError: there is no champion yet.
    """
    champion = Registry(Layout(Path()).promote).champion
    if champion is None:
        raise MissingInputError("there is no champion yet: run `dvc repro`")
    found = subprocess.run(  # noqa: S603 (no shell; the name is hexadecimal)
        ["git", "rev-list", "-1", f"champion-{champion.name}"],  # noqa: S607 (the user's own git)
        capture_output=True,
        text=True,
        check=False,
    )
    return champion, found.stdout.strip() or "not tagged"
