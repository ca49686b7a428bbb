"""Thick series from a PACS, and results to it."""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

import click

from ctinterp_dagster.errors import MissingInputError, PacsError, ParamsError
from ctinterp_dagster.pacs import Archive, Images, Query, Series, Settings, connect, load_pacs
from ctinterp_dagster.pacs.state import State
from ctinterp_dagster.pacs.watch import RefusedError, Watch
from ctinterp_dagster.pacs.work import fetch as fetch_series
from ctinterp_dagster.pacs.work import send as send_series
from ctinterp_dagster.scan.identity import load_key

SERVER = click.option("--server", help="which one of pacs.yaml, where it has several")
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


@command.command("list")
@SERVER
@click.option("--patient", default="", help="PatientID")
@click.option("--study", default="", help="StudyInstanceUID")
@click.option("--date", default="", help="of the study: 20260131, 20260101-20260131, 20260101-")
@click.option("--description", default="*", show_default=True, help="of the series, with * and ?")
@click.option("--min-thickness", "least_mm", type=click.FloatRange(min=0), default=0.0, help="mm of a slice")
@click.option("--json", "as_json", is_flag=True, help="print JSON, one object a series")
@click.pass_obj
def list_(
    config: Path,
    *,
    server: str | None,
    patient: str,
    study: str,
    date: str,
    description: str,
    least_mm: float,
    as_json: bool,
) -> None:
    """List the CT series that match, with the UID by which the other commands take one."""
    if not (patient or study or date):
        raise click.UsageError("give --patient, --study or --date: an archive may hold very many series")
    archive = _archive(load_pacs(config), server)
    query = Query(patient=patient, study=study, date=date, description=description)
    found = [(series, archive.images(series)) for series in archive.find(query)]
    shown = [(s, images) for s, images in found if images.thickness_mm is None or images.thickness_mm >= least_mm]
    for series, images in shown:
        if as_json:
            told = {"thickness_mm": images.thickness_mm, "images": len(images.uids)}
            click.echo(json.dumps(asdict(series) | told))
            continue
        thickness = f"{images.thickness_mm:g} mm" if images.thickness_mm else "thickness unknown"
        click.echo(f"{series.uid}\n  {series.date}  patient {series.patient}  {series.description!r}  number "
                   f"{series.number}  {len(images.uids)} images  {thickness}")  # fmt: skip


@command.command
@click.argument("uid", metavar="SERIES")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="a new folder for the images")
@click.option("--to-project", is_flag=True, help="add it to data/raw, as `scans add` does, instead")
@SERVER
@STUDY
@click.pass_obj
def fetch(config: Path, *, uid: str, output: Path | None, to_project: bool, server: str | None, study: str) -> None:
    """Fetch a series, named by its SeriesInstanceUID."""
    if (output is None) != to_project:
        raise click.UsageError("give -o or --to-project")
    if output and output.exists():
        raise ParamsError(f"{output} exists: expected a new folder")
    archive = _archive(load_pacs(config), server)
    series, images = _series(archive, uid, study)
    if output:
        fetch_series(archive, series, images, output)
        click.echo(f"{output}: {len(images.uids)} images")
        return
    with tempfile.TemporaryDirectory(prefix="ctinterp-") as folder:
        series_folder = Path(folder) / f"series-{uid.rpartition('.')[2]}"
        fetch_series(archive, series, images, series_folder)
        _add(series_folder)
    click.echo(f"data/raw: {len(images.uids)} images more")


@command.command(context_settings={"ignore_unknown_options": True})
@click.argument("uid", metavar="SERIES")
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
@SERVER
@STUDY
@click.pass_obj
def restore(config: Path, *, uid: str, options: Sequence[str], server: str | None, study: str) -> None:
    """Fetch a series, restore it, and send the result back into its study.

    OPTIONS are those of `ctinterp interpolate`, such as --spacing 1.
    """
    archive = _archive(load_pacs(config), server)
    series, images = _series(archive, uid, study)
    with tempfile.TemporaryDirectory(prefix="ctinterp-") as folder:
        thick, thin = Path(folder) / "thick", Path(folder) / "thin"
        fetch_series(archive, series, images, thick)
        _interpolate(thick, thin, options)
        count = send_series(archive, thin)
    click.echo(f"{count} images sent")


@command.command
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@SERVER
@click.pass_obj
def send(config: Path, *, folder: Path, server: str | None) -> None:
    """Send a DICOM result of `ctinterp interpolate`; what the archive has already is not sent again."""
    count = send_series(_archive(load_pacs(config), server), folder)
    click.echo(f"{count} images sent")


@command.command
@click.option("--state", type=click.Path(path_type=Path, file_okay=False), required=True,
              help="folder that remembers what was done, and holds series meanwhile; for this watch alone")  # fmt: skip
@click.option("--once", is_flag=True, help="look once, and end")
@click.option("--again", is_flag=True, help="take again what was refused")
@click.pass_obj
def watch(config: Path, *, state: Path, once: bool, again: bool) -> None:
    """Restore the new series that the rule of pacs.yaml takes, and send the results back, until it is ended.

    It may be ended at any moment, and started again with the same state: nothing is sent twice, and nothing lost.
    """
    settings = load_pacs(config)
    rule = settings.watch
    if rule is None:
        raise MissingInputError(f"{config} has no section watch: docs/howto/pacs.md shows one")
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    kept = State.open(state / "state.sqlite")
    if again:
        kept.forget_refused()
    one = Watch(
        archive=_archive(settings, rule.source),
        rule=rule,
        state=kept,
        folder=state / "series",
        restore=lambda thick, thin: _interpolate(thick, thin, rule.interpolate),
        add=_add,
        tell=lambda said: click.echo(f"{datetime.now().astimezone():%Y-%m-%d %H:%M:%S} {said}"),
        key=load_key(),
    )
    one.tell(f"looking at {rule.source} every {rule.interval_s:g} s")
    one.look()
    while not once:
        time.sleep(rule.interval_s)
        one.look()


def _archive(settings: Settings, server: str | None) -> Archive:
    return connect(*settings.server(server))


def _series(archive: Archive, uid: str, study: str) -> tuple[Series, Images]:
    found = archive.find(Query(series=uid, study=study))
    if len(found) != 1:
        raise MissingInputError(
            f"the archive lists {len(found) or 'no'} CT series {uid}: see `ctinterp pacs list`, or give its --study too"
        )
    return found[0], archive.images(found[0])


def _interpolate(thick: Path, thin: Path, options: Sequence[str]) -> None:
    """Restore by the command itself, in a process that gives its memory back."""
    _ctinterp("interpolate", str(thick), *options, "-o", str(thin), "--format", "dicom")


def _add(folder: Path) -> None:
    _ctinterp("scans", "add", str(folder))


def _ctinterp(*arguments: str) -> None:
    """Run a command; what it refuses is refused here, in its words, and what it says beside is shown on a terminal."""
    code = "from ctinterp_dagster.cli import main; main()"
    command = [sys.executable, "-c", code, *arguments]
    ended = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)  # noqa: S603
    said = ended.stderr.strip().splitlines()
    if ended.returncode < 0:
        raise PacsError(f"{arguments[0]} was ended by signal {-ended.returncode}: is there memory enough?")
    if ended.returncode:
        raise RefusedError((said or [f"{arguments[0]} failed"])[-1].removeprefix("error: "))
    if sys.stderr.isatty():
        click.echo(ended.stderr, err=True, nl=False)
