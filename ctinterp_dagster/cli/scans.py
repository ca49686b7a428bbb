"""Scans into data/raw, and what is known of them."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from ctinterp_dagster.errors import MissingInputError, ParamsError, ScanError
from ctinterp_dagster.layout import Layout
from ctinterp_dagster.records import read_csv, write_csv
from ctinterp_dagster.scan.checks import check_volume
from ctinterp_dagster.scan.identity import load_key, pseudonym
from ctinterp_dagster.scan.io import Found, find_scans, read_scan

COLUMNS = ["file", "patient", "split"]
MIN_SLICES = 3  # what can be interpolated at all; ingest asks for more


@dataclass(frozen=True)
class Verdict:
    """What `check` says of one scan; `verdict` is "fit" or the reason of the refusal."""

    scan: str
    verdict: str
    shape_zyx: tuple[int, ...] | None
    spacing_mm: tuple[float, ...] | None
    thickness_mm: float | None
    kernel: str
    remark: str
    series_uid: str


@click.group
def command() -> None:
    """Add, list and check scans."""


@command.command
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
def add(paths: tuple[Path, ...]) -> None:
    """Copy scans (files, or folders of DICOM) into data/raw.

    Where an `index.jsonl` or `scans.csv` beside a scan names its patient and split (`use` or `split`: train, val,
    test), both are kept in data/raw/scans.csv.
    """
    layout = Layout(Path())
    if not layout.params.exists():
        raise MissingInputError("params.yaml is not here: run in the project's root, the folder of dvc.yaml")
    for path in paths:
        if not path.exists():
            raise MissingInputError(f"{path} does not exist: expected a scan file or a folder of scans")
    rows = {row["file"]: row for row in table_of(layout.raw / "scans.csv")}
    added = 0
    for path in paths:
        target = layout.raw / path.name
        if path.name in ("index.jsonl", "scans.csv"):
            continue
        if target.exists():
            click.echo(f"{path.name} is in data/raw already")
        else:
            copy_whole(path, target)
            added += 1
        rows |= {row["file"]: row for row in given_for(path)}
    if rows:
        write_csv(layout.raw / "scans.csv", [rows[name] for name in sorted(rows)], COLUMNS)
    click.echo(
        f"{added} added to data/raw, {len(rows)} of them with patient and split; next: ctinterp preset cpu, dvc repro"
    )


def copy_whole(source: Path, target: Path) -> None:
    """Copy a file or folder so that an interrupted copy is never taken for a scan."""
    partial = target.with_name(f".partial-{target.name}")
    shutil.rmtree(partial, ignore_errors=True)
    if source.is_dir():
        shutil.copytree(source, partial, symlinks=True)  # what a link leads to stays out
    else:
        shutil.copyfile(source, partial)
    partial.replace(target)


def table_of(path: Path) -> list[dict[str, str]]:
    """The rows of a scans.csv, none where there is no file."""
    return read_csv(path) if path.exists() else []


def given_for(path: Path) -> Iterator[dict[str, str]]:
    """What the tables beside a scan, or inside a folder, say of it."""
    folder = path if path.is_dir() else path.parent
    prefix = f"{path.name}/" if path.is_dir() else ""
    listed = table_of(folder / "scans.csv")
    index = folder / "index.jsonl"
    if index.exists():
        try:
            listed += [json.loads(line) for line in index.read_text(encoding="utf-8").splitlines() if line.strip()]
        except json.JSONDecodeError as error:
            raise ParamsError(f"{index} has a line that is not JSON: {error}") from error
    for row in listed:
        if path.is_dir() or row.get("file") == path.name:
            if not isinstance(row.get("file"), str):
                continue
            split = row.get("split") or row.get("use") or ""
            yield {"file": prefix + row["file"], "patient": row.get("patient") or row["file"], "split": split}


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
            "scan", "verdict", "slices x rows x columns", "spacing mm (z, y, x)", "thickness mm", "kernel", "remark"
        )
        for v in verdicts:
            table.add_row(
                v.scan,
                v.verdict,
                " x ".join(map(str, v.shape_zyx)) if v.shape_zyx else "",
                ", ".join(f"{s:.4g}" for s in v.spacing_mm) if v.spacing_mm else "",
                f"{v.thickness_mm:g}" if v.thickness_mm else "",
                v.kernel,
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
        return Verdict(found.name, error.reason, None, None, None, "", str(error), found.uid)
    word, remarks = "fit", [remark_on(scan.thickness_mm, scan.volume.spacing_mm[0])]
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
        found.name, word, volume.hu.shape, volume.spacing_mm, scan.thickness_mm, scan.kernel, said, found.uid
    )


def remark_on(thickness_mm: float | None, spacing_mm: float) -> str:
    """Overlap or gap in words."""
    if thickness_mm is None or abs(thickness_mm - spacing_mm) <= 0.01 * spacing_mm:
        return ""
    kind = "overlapping slices" if thickness_mm > spacing_mm else "gaps between slices"
    return f"{kind}: {thickness_mm:g} mm thick every {spacing_mm:g} mm"
