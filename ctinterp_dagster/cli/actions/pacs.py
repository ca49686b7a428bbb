"""What the commands on a PACS do."""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

import click

from ctinterp_dagster.errors import MissingInputError, PacsError, ParamsError
from ctinterp_dagster.pacs import Archive, Images, PacsSettings, Query, Series, connect, load_pacs
from ctinterp_dagster.pacs.transfer import fetch as fetch_series
from ctinterp_dagster.pacs.transfer import header
from ctinterp_dagster.pacs.transfer import send as send_series
from ctinterp_dagster.pacs.watch import RefusedError, Watch
from ctinterp_dagster.pacs.watch_state import WatchState
from ctinterp_dagster.scan.identity import load_key, pseudonym


def list_series(config: Path, *, server: str | None, query: Query, least_mm: float, as_json: bool) -> None:
    """Print the series that match and whose slices are thick enough.

    Args:
        config: pacs.yaml.
        server: its name in pacs.yaml; None where there is one alone.
        query: what is looked for.
        least_mm: the least SliceThickness in mm; series that do not say theirs are printed.
        as_json: print an object a series.

    Raises:
        PacsError: the archive does not answer as it should.
    """
    archive = _archive(load_pacs(config), server)
    listed = [(series, archive.images(series)) for series in archive.find(query)]
    found = [(series, own) for series, own in listed if own.thickness_mm is None or own.thickness_mm >= least_mm]
    if not found:
        undated = "; studies without a date are listed by --date none, --patient or --study" if query.asked_date else ""
        click.echo(f"no CT series matches{undated}", err=True)
    for series, images in found:
        if as_json:
            extent = {"thickness_mm": images.thickness_mm, "images": len(images.uids)}
            click.echo(json.dumps(asdict(series) | extent))
            continue
        thickness = f"{images.thickness_mm:g} mm" if images.thickness_mm else "thickness unknown"
        click.echo(f"{series.uid}\n  {series.date}  patient {series.patient}  {series.description!r}  number "
                   f"{series.number}  {len(images.uids)} images  {thickness}")  # fmt: skip


def fetch(config: Path, *, uid: str, output: Path | None, server: str | None, study: str) -> None:
    """Fetch a series.

    Args:
        config: pacs.yaml.
        uid: SeriesInstanceUID.
        output: a new folder; None adds the series to data/raw.
        server: its name in pacs.yaml; None where there is one alone.
        study: StudyInstanceUID, or empty.

    Raises:
        ParamsError: the folder exists.
        MissingInputError: the archive does not list the series.
        PacsError: the archive does not answer as it should.
    """
    if output and output.exists():
        raise ParamsError(f"{output} exists: expected a new folder")
    archive = _archive(load_pacs(config), server)
    series, images = _series(archive, uid, study)
    if output:
        fetch_series(archive, series, images, output)
        click.echo(f"{output}: {len(images.uids)} images")
        return
    with tempfile.TemporaryDirectory(prefix="ctinterp-") as folder:
        into = Path(folder) / pseudonym(uid, load_key(), "s")
        fetch_series(archive, series, images, into)
        _add(into)
    click.echo("data/raw: it holds the series")


def restore(config: Path, *, uid: str, options: Sequence[str], server: str | None, study: str) -> None:
    """Fetch a series, restore it, and send the result into its study.

    Args:
        config: pacs.yaml.
        uid: SeriesInstanceUID.
        options: of `ctinterp interpolate`.
        server: its name in pacs.yaml; None where there is one alone.
        study: StudyInstanceUID, or empty.

    Raises:
        MissingInputError: the archive does not list the series.
        RefusedError: the series cannot be restored.
        PacsError: the archive does not answer as it should.
    """
    archive = _archive(load_pacs(config), server)
    series, images = _series(archive, uid, study)
    with tempfile.TemporaryDirectory(prefix="ctinterp-") as folder:
        thick, thin = Path(folder) / "thick", Path(folder) / "thin"
        fetch_series(archive, series, images, thick)
        click.echo(f"restoring {len(images.uids)} images", err=True)
        _interpolate(thick, thin, options, shown=True)
        _send(archive, thin)


def send(config: Path, *, folder: Path, server: str | None) -> None:
    """Send a result.

    Args:
        config: pacs.yaml.
        folder: with the DICOM files of one result.
        server: its name in pacs.yaml; None where there is one alone.

    Raises:
        ParamsError: the folder holds something else.
        PacsError: the archive does not answer as it should.
    """
    _send(_archive(load_pacs(config), server), folder)


def _send(archive: Archive, folder: Path) -> None:
    count = send_series(archive, folder)
    result = header(next(folder.glob("*.dcm")))
    click.echo(f"{count} images sent: series {result.SeriesNumber}, {result.SeriesDescription!r}")


def watch(
    config: Path, *, state: Path, once: bool, again: bool, check_options: Callable[[Sequence[str]], object]
) -> None:
    """Look at an archive, once or until the process is ended.

    Args:
        config: pacs.yaml, with a section `watch`.
        state: folder of what was done.
        once: end after one look.
        again: take again what was refused.
        check_options: raises `UsageError` where words are no options of `interpolate`.

    Raises:
        MissingInputError: there is no such section.
        UsageError: its options of `interpolate` are wrong.
    """
    settings = load_pacs(config)
    rule = settings.watch
    if rule is None:
        raise MissingInputError("pacs.yaml has no section watch: docs/howto/pacs.md shows one")
    check_options(rule.interpolate)
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    kept = WatchState.open(state / "state.sqlite")
    if again:
        kept.forget_refused()
    one = Watch(
        archive=_archive(settings, rule.source),
        rule=rule,
        state=kept,
        folder=state / "series",
        restore=lambda thick, thin: _interpolate(thick, thin, rule.interpolate),
        add=_add,
        tell=lambda line: click.echo(f"{datetime.now().astimezone():%Y-%m-%d %H:%M:%S} {line}"),
        key=load_key(),
    )
    one.tell(f"looking at {rule.source} every {rule.interval_s:g} s")
    one.look()
    while not once:
        time.sleep(rule.interval_s)
        one.look()


def _archive(settings: PacsSettings, server: str | None) -> Archive:
    return connect(*settings.server(server))


def _series(archive: Archive, uid: str, study: str) -> tuple[Series, Images]:
    found = archive.find(Query(series=uid, study=study))
    if len(found) != 1:
        raise MissingInputError(
            f"the archive lists {len(found) or 'no'} CT series {uid}: see `ctinterp pacs list`, or give its --study too"
        )
    return found[0], archive.images(found[0])


def _interpolate(thick: Path, thin: Path, options: Sequence[str], *, shown: bool = False) -> None:
    """Restore by the command itself, in a process that gives its memory back."""
    _ctinterp("interpolate", str(thick), *options, "-o", str(thin), "--format", "dicom", shown=shown)


def _add(folder: Path) -> None:
    _ctinterp("scans", "add", str(folder))


def _ctinterp(*arguments: str, shown: bool = False) -> None:
    """Run a command; what it refuses is refused here, in its words unless these are shown as they come.

    Args:
        *arguments: the command and its words.
        shown: print its errors as they come.

    Raises:
        RefusedError: it refused.
        PacsError: it was ended from outside, so that it may be tried again.
    """
    code = "from ctinterp_dagster.cli import main; main()"
    command = [sys.executable, "-c", code, *arguments]
    ended = subprocess.run(  # noqa: S603 (our own command, without a shell)
        command, stdout=subprocess.DEVNULL, stderr=None if shown else subprocess.PIPE, text=True, check=False
    )
    if ended.returncode < 0:
        raise PacsError(f"{arguments[0]} was ended by signal {-ended.returncode}: is there memory enough?")
    if ended.returncode:
        reasons = (ended.stderr or "").strip().splitlines() or [f"{arguments[0]} failed: its reason stands above"]
        raise RefusedError(reasons[-1].removeprefix("error: "))
