"""What is installed and what it can use."""

import click


@click.command
def command() -> None:
    """Show versions, devices and the released model."""
    from ctinterp_dagster.cli.actions.info import run

    run()
