"""Thick series from a PACS, and results to it: the options."""

import re
from collections.abc import Sequence
from pathlib import Path

import click

from ctinterp_dagster.cli import prerequisites
from ctinterp_dagster.cli.interpolate import command as interpolate
from ctinterp_dagster.cli.options.interpolate import Options
from ctinterp_dagster.cli.options.number import Number

SERVER = click.option("--server", help="which archive of pacs.yaml, where it has several")
STUDY = click.option("--study", default="", help="its StudyInstanceUID, which some archives need")


@click.group
@click.option("--config", type=click.Path(path_type=Path), default="pacs.yaml", show_default=True,
              help="addresses of the archives, and what a watch does")  # fmt: skip
@click.pass_context
def command(context: click.Context, *, config: Path) -> None:
    """Find thick series in a PACS, restore them, and send the results back.

    pacs.yaml says where the archives are; docs/howto/pacs.md shows one. User and password, or a token, are taken from
    the environment: CTINTERP_PACS_<SERVER>_USER and _PASSWORD, or _TOKEN.
    """
    context.obj = config


@command.command("list", short_help="List the CT series that match.")
@SERVER
@click.option("--patient", default="", help="PatientID")
@click.option("--study", default="", help="StudyInstanceUID")
@click.option("--date", default="", help="of the study: 20260131, 20260101-20260131, 20260101-; none of one without")
@click.option("--description", default="*", show_default=True, help="of the series, with * and ?")
@click.option(
    "--min-thickness", "least_mm", type=Number(min=0), default=0.0, help="least thickness of the slices in mm"
)
@click.option("--json", "as_json", is_flag=True, help="print JSON, one object a series")
@click.pass_obj
def list_(config: Path, /, *, server: str | None, least_mm: float, as_json: bool, **query: str) -> None:
    """List the CT series that match, with the UID that the other commands take.

    Give --patient, --study or --date: an archive may hold very many series.
    """
    limits = query["patient"] or query["study"] or query["date"]
    prerequisites.option(limits, "give --patient, --study or --date: an archive may hold very many series")
    date = re.fullmatch(r"none|(\d{8})?(-(\d{8})?)?", query["date"])
    prerequisites.option(
        date, f"--date {query['date']} is no date: write 20260131, 20260101-20260131, 20260101- or none"
    )
    from ctinterp_dagster.cli.actions import pacs
    from ctinterp_dagster.pacs import Query

    pacs.list_series(config, server=server, query=Query(**query), least_mm=least_mm, as_json=as_json)


@command.command(short_help="Fetch a series.")
@click.argument("uid", metavar="SERIES")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="a new folder for the images")
@click.option("--to-project", is_flag=True, help="add it to data/raw, as `scans add` does, instead")
@SERVER
@STUDY
@click.pass_obj
def fetch(config: Path, *, uid: str, output: Path | None, to_project: bool, server: str | None, study: str) -> None:
    """Fetch a series, named by its SeriesInstanceUID."""
    prerequisites.option((output is None) == to_project, "give -o or --to-project")
    from ctinterp_dagster.cli.actions import pacs

    pacs.fetch(config, uid=uid, output=output, server=server, study=study)


@command.command(short_help="Restore a series, into its study.", context_settings={"ignore_unknown_options": True})
@click.argument("uid", metavar="SERIES")
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
@SERVER
@STUDY
@click.pass_obj
def restore(config: Path, *, uid: str, options: tuple[str, ...], server: str | None, study: str) -> None:
    """Fetch a series, restore it, and send the result back into its study.

    OPTIONS are those of `ctinterp interpolate`, such as --spacing 1.
    """
    interpolate_options(options)
    from ctinterp_dagster.cli.actions import pacs

    pacs.restore(config, uid=uid, options=options, server=server, study=study)


@command.command(short_help="Send a result.")
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@SERVER
@click.pass_obj
def send(config: Path, *, folder: Path, server: str | None) -> None:
    """Send a DICOM result of `ctinterp interpolate`; images that the archive has are not sent again."""
    from ctinterp_dagster.cli.actions import pacs

    pacs.send(config, folder=folder, server=server)


@command.command(short_help="Restore new series as they come.")
@click.option("--state", type=click.Path(path_type=Path, file_okay=False), required=True,
              help="folder that remembers what was done, and holds series meanwhile; for this watch alone")  # fmt: skip
@click.option("--once", is_flag=True, help="look once, and end")
@click.option("--again", is_flag=True, help="try again what was refused")
@click.pass_obj
def watch(config: Path, *, state: Path, once: bool, again: bool) -> None:
    """Restore new series as they come, and send the results back, until it is ended.

    The section watch of pacs.yaml says which series. It may be ended at any moment, and started again with the same
    --state: nothing is sent twice, and nothing is lost.
    """
    from ctinterp_dagster.cli.actions import pacs

    pacs.watch(config, state=state, once=once, again=again, check_options=interpolate_options)


def interpolate_options(words: Sequence[str]) -> Options:
    """What `ctinterp interpolate` is given by these words.

    Args:
        words: options, without input and output.

    Returns:
        The options, checked as at the command line.

    Raises:
        UsageError: they are no options of it, or do not go together.
    """
    return Options(**interpolate.make_context("interpolate", ["in", *words, "-o", "out"]).params)
