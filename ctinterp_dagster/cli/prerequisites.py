"""What a command needs before it begins."""

from pathlib import Path

import click

from ctinterp_dagster.errors import MissingInputError
from ctinterp_dagster.layout import Layout


def option(given: object, advice: str) -> None:
    """Refuse a command that was given nothing.

    Args:
        given: what the command was given; empty counts as nothing.
        advice: the message.

    Raises:
        UsageError: `given` is false, with the advice.
    """
    if not given:
        raise click.UsageError(advice)


def project() -> Layout:
    """The project in the current folder.

    Returns:
        Its places, relative to the current folder.

    Raises:
        MissingInputError: there is none.
    """
    layout = Layout(Path())
    if not layout.params.exists():
        raise MissingInputError("params.yaml is not here: run in the project's root, the folder of dvc.yaml")
    return layout
