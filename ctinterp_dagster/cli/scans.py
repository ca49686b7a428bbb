"""Scans into data/raw, and what is known of them."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from ctinterp_dagster.cli import prerequisites
from ctinterp_dagster.cli.options.datasets import DATA_SET_NAMES
from ctinterp_dagster.cli.raw_folder import TABLES, Added, Addition, add_one, table_of
from ctinterp_dagster.layout import Layout
from ctinterp_dagster.records import write_csv
from ctinterp_dagster.tracking import listing, track

TABLE_COLUMNS = ["file", "patient", "split"]
SOURCE = ["licence", "citation"]


@click.group
def command() -> None:
    """Add, list and check scans."""


@command.command(short_help="Copy scans into data/raw, and tell DVC.")
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path))
@click.option("--layout", "data_set", type=click.Choice(DATA_SET_NAMES),
              help="PATHS is the folder of a public data set; patients and licence are its own")  # fmt: skip
def add(paths: tuple[Path, ...], data_set: str | None) -> None:
    """Copy scans (files, or folders of DICOM) into data/raw, and tell DVC.

    A scan whose bytes are there is not copied again. Without PATHS it tells DVC of what was put into data/raw, or
    taken out of it, by hand.

    A name that is taken, or given twice, gets its folder's name before it: A/ct.nii.gz. What cannot be copied, or
    is no scan by its name and first bytes, is named and makes the exit code 1; the others are added all the same.

    An `index.jsonl` or `scans.csv` beside a scan may name its patient and its split (column `use` or `split`: train,
    val or test). Both are kept in data/raw/scans.csv.

    With --layout only thin scans are copied, whose slices are at most ingest.max_spacing_mm apart. Thick ones are
    named and left out. What cannot be used is named, and makes the exit code 1.
    """
    layout = prerequisites.project()
    prerequisites.option(not data_set or len(paths) == 1, "--layout takes one folder, that of the data set")
    rows = {row["file"]: row for row in table_of(layout.raw / "scans.csv")}
    layout.raw.mkdir(parents=True, exist_ok=True)
    held, done, refused = Added(layout.raw), 0, 0
    if data_set:
        from ctinterp_dagster.cli.actions.datasets import of_data_set

        scans = of_data_set(data_set, paths[0], held, rows, layout)
    else:
        scans = of_paths(paths, held, rows)
    for addition in scans:
        done += addition.added
        for line in addition.lines:
            refused += (bad := line.startswith("refused"))
            click.echo(line, err=bad)
    if rows:
        columns = [name for name in SOURCE if any(name in row for row in rows.values())]
        write_csv(layout.raw / "scans.csv", [rows[name] for name in sorted(rows)], [*TABLE_COLUMNS, *columns])
    before = record(layout)
    track(layout)
    here = listing(layout.raw)
    then = "; next: `git commit` data/raw.dvc, which DVC wrote, then `dvc repro`" if record(layout) != before else ""
    click.echo(f"{done} added to data/raw, which holds {here.files} files; scans.csv lists {len(rows)}{then}")
    if refused:
        click.echo(f"{refused} refused", err=True)
        click.get_current_context().exit(1)


def record(layout: Layout) -> bytes:
    """The bytes of data/raw.dvc, none where no scan was ever added."""
    path = layout.raw.with_suffix(".dvc")
    return path.read_bytes() if path.exists() else b""


def of_paths(paths: Sequence[Path], held: Added, rows: dict[str, dict[str, str]]) -> Iterator[Addition]:
    """Add files and folders."""
    scans = [path for path in paths if path.name not in TABLES]
    names = Counter(path.name for path in scans)
    for path in scans:
        yield add_one(path, held, rows, alone=names[path.name] == 1)


@command.command("list", short_help="List cases and refused scans.")
def list_() -> None:
    """List what ingest made of data/raw: each case with its split and file, and each refused scan with its reason.

    The file behind a pseudonym is found from your key and data/raw. It is written nowhere.
    """
    from ctinterp_dagster.cli.actions.listing import run

    run()


@command.command(short_help="Describe every scan below a path.")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="print JSON, one object a scan")
@click.option("--strict", is_flag=True, help="exit 1 if a scan is refused")
def check(path: Path, *, as_json: bool, strict: bool) -> None:
    """Describe every scan below PATH: is it a regular CT volume, and if not, what is wrong?"""
    from ctinterp_dagster.cli.actions.check import run

    run(path, as_json=as_json, strict=strict)
