"""The table that a run of the pipeline ends with."""

import click


@click.command
def command() -> None:
    """Print the metrics of the last pipeline run, the gate's decision and the path of the report."""
    from ctinterp_dagster.cli.actions.summary import run

    run()
