"""Scans into data/raw, and what is known of them."""

import json
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from ctinterp_dagster.cli.adding import TABLES, Added, add_one, table_of
from ctinterp_dagster.errors import MissingInputError, ScanError
from ctinterp_dagster.layout import Layout
from ctinterp_dagster.physics.recognition import Tags, recognise
from ctinterp_dagster.records import read_csv, write_csv
from ctinterp_dagster.scan.checks import MIN_SLICES, check_volume
from ctinterp_dagster.scan.identity import load_key, pseudonym
from ctinterp_dagster.scan.io import Found, Scan, find_scans, read_scan
from ctinterp_dagster.scan.padding import find_padding
from ctinterp_dagster.tracking import listing, track

COLUMNS = ["file", "patient", "split"]
THIN_MM = 1.0  # slice distance that interpolate gives unless it is told another


@dataclass(frozen=True)
class Verdict:
    """What `check` says of one scan; `verdict` is "fit" or the reason of the refusal."""

    scan: str
    verdict: str
    shape_zyx: tuple[int, ...] | None
    spacing_mm: tuple[float, ...] | None
    thickness_mm: float | None
    kernel: str
    profile: str
    remark: str
    series_uid: str


@click.group
def command() -> None:
    """Add, list and check scans."""


@command.command
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path))
def add(paths: tuple[Path, ...]) -> None:
    """Copy scans (files, or folders of DICOM) into data/raw, and tell DVC; the same bytes are copied once.

    Without PATHS it tells DVC of what was put into data/raw, or taken out of it, by hand.

    A name that is taken, or given twice, gets its folder's name before it: A/ct.nii.gz. What cannot be copied is named
    and makes the exit code 1; the others are added all the same.

    Where an `index.jsonl` or `scans.csv` beside a scan names its patient and split (`use` or `split`: train, val,
    test), both are kept in data/raw/scans.csv.
    """
    layout = Layout(Path())
    if not layout.params.exists():
        raise MissingInputError("params.yaml is not here: run in the project's root, the folder of dvc.yaml")
    rows = {row["file"]: row for row in table_of(layout.raw / "scans.csv")}
    layout.raw.mkdir(parents=True, exist_ok=True)
    held, done, refused = Added(layout.raw), 0, 0
    scans = [path for path in paths if path.name not in TABLES]
    names = Counter(path.name for path in scans)
    for path in scans:
        new, told = add_one(path, held, rows, alone=names[path.name] == 1)
        done += new
        for line in told:
            refused += (bad := line.startswith("refused"))
            click.echo(line, err=bad)
    if rows:
        write_csv(layout.raw / "scans.csv", [rows[name] for name in sorted(rows)], COLUMNS)
    track(layout)
    here = listing(layout.raw)
    click.echo(
        f"{done} added to data/raw, which holds {here.files} files; scans.csv lists {len(rows)}; next: "
        "`git commit` data/raw.dvc, which DVC wrote, then `dvc repro`"
    )
    if refused:
        click.echo(f"{refused} refused", err=True)
        raise click.exceptions.Exit(1)


@command.command("list")
def list_() -> None:
    """List what ingest made of data/raw: cases with split and place, and the quarantine with reasons.

    The places of scans that scans.csv does not list are known to whoever has the key and data/raw, and in no file.
    """
    layout, key = Layout(Path()), load_key()
    places = {pseudonym(found.name, key, "s"): found.name for found in find_scans(layout.raw, keep_headers=True)}
    table = Table("case", "patient", "split", "in data/raw")
    for row in read_csv(layout.ingest / "cases.csv"):
        table.add_row(row["case"], row["patient"], row["split"], places.get(row["case"], ""))
    console = Console(width=140)
    console.print(table)
    for row in table_of(layout.ingest / "pairs.csv"):
        console.print(f"thick partner: {places.get(row['case'], row['case'])} of {row['thin']}", markup=False)
    for row in read_csv(layout.ingest / "quarantine.csv"):
        said = f"quarantined: {places.get(row['scan'], row['scan'])}: {row['reason']}: {row['message']}"
        console.print(said, markup=False, highlight=False)


@command.command
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="print JSON, one object a scan")
@click.option("--strict", is_flag=True, help="exit 1 if a scan is refused")
def check(path: Path, *, as_json: bool, strict: bool) -> None:
    """Describe every scan below PATH: is it a regular CT volume, and if not, what is wrong?"""
    verdicts = [verdict_on(found) for found in find_scans(path)]
    if as_json:
        click.echo(json.dumps([asdict(verdict) for verdict in verdicts], indent=2))
    else:
        table = Table(
            "scan",
            "verdict",
            "slices x rows x columns",
            "spacing mm (z, y, x)",
            "thickness mm",
            "kernel",
            "profile",
            "remark",
        )
        for v in verdicts:
            table.add_row(
                v.scan,
                v.verdict,
                " x ".join(map(str, v.shape_zyx)) if v.shape_zyx else "",
                ", ".join(f"{s:.4g}" for s in v.spacing_mm) if v.spacing_mm else "",
                f"{v.thickness_mm:g}" if v.thickness_mm else "",
                v.kernel,
                v.profile,
                v.remark,
            )
        Console(width=160).print(table)
    if not verdicts:
        raise MissingInputError(f"{path} holds no scan: expected DICOM, NIfTI, MHA, NRRD or a zip of DICOM")
    if strict and not all(verdict.verdict == "fit" for verdict in verdicts):
        raise click.exceptions.Exit(1)


def verdict_on(found: Found) -> Verdict:
    """Read a scan and say what it is."""
    try:
        scan = read_scan(found)
    except ScanError as error:
        return Verdict(found.name, error.reason, None, None, None, "", "", str(error), found.uid)
    word, remarks = "fit", [remark_on(scan.thickness_mm, scan.volume.spacing_mm[0]), *scan.warnings]
    if padding := find_padding(scan.volume.hu):
        remarks.append(f"padded with {padding.value_hu:g} outside of the field of view: comes back as it is")
    if scan.burned_in_annotation:
        remarks.append("burned-in annotation: the pixels may show who the patient is")
    if scan.derived:
        remarks.append("derived images: to interpolate, no thin truth")
    try:
        check_volume(scan.volume, min_slices=MIN_SLICES)
    except ScanError as error:
        word, remarks = error.reason, [str(error), *remarks]
    volume = scan.volume
    said = "; ".join(filter(None, remarks))
    return Verdict(
        scan=found.name,
        verdict=word,
        shape_zyx=volume.hu.shape,
        spacing_mm=volume.spacing_mm,
        thickness_mm=scan.thickness_mm,
        kernel=scan.kernel,
        profile=profile_of(scan) if word == "fit" else "",
        remark=said,
        series_uid=found.uid,
    )


def profile_of(scan: Scan) -> str:
    """What `interpolate` takes for the slice profile, and why; empty for slices that it does not make thinner."""
    distance_mm = scan.volume.spacing_mm[0]
    if distance_mm <= THIN_MM:
        return ""
    tags = Tags(scan.thickness_mm, scan.helical)
    return str(recognise(scan.volume.hu, distance_mm, tags=tags, thin_mm=THIN_MM))


def remark_on(thickness_mm: float | None, spacing_mm: float) -> str:
    """Overlap or gap in words."""
    if thickness_mm is None or abs(thickness_mm - spacing_mm) <= 0.01 * spacing_mm:
        return ""
    kind = "overlapping slices" if thickness_mm > spacing_mm else "gaps between slices"
    return f"{kind}: {thickness_mm:g} mm thick every {spacing_mm:g} mm"
