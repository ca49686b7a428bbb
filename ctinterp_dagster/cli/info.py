"""What is installed and what it can use."""

import click

from ctinterp_dagster.cli.work import begin


@click.command
def command() -> None:
    """Show versions, devices and the released model."""
    begin("info")
