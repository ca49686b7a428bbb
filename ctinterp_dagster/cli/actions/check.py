"""What a path holds, and whether each scan is fit."""

import json
import shutil
import textwrap
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from ctinterp_dagster.cli.options.interpolate import THIN_MM
from ctinterp_dagster.errors import MissingInputError, ScanError
from ctinterp_dagster.physics.acquisition import Acquisition, Tags
from ctinterp_dagster.physics.recognition import recognise
from ctinterp_dagster.scan.checks import MIN_SLICES, check_volume
from ctinterp_dagster.scan.io import Found, Scan, find_scans, read_scan
from ctinterp_dagster.scan.padding import find_padding


@dataclass(frozen=True)
class CheckedScan:
    """What `check` says of one scan; `verdict` is "fit" or the reason of the refusal."""

    scan: str
    verdict: str
    shape_zyx: tuple[int, ...] | None
    spacing_mm: tuple[float, ...] | None
    thickness_mm: float | None
    kernel: str
    profile: str
    remark: str
    description: str
    date: str
    series_uid: str


def run(path: Path, *, as_json: bool, strict: bool) -> None:
    """Print what each scan below a path is, as it is read; JSON when all are.

    Args:
        path: a file, a zip or a folder.
        as_json: print data instead of lines.
        strict: exit 1 where a scan is not fit.

    Raises:
        MissingInputError: there is none.
        Exit: 1, where one is refused and none may be.
    """
    checked = []
    for found in find_scans(path):
        checked.append(check_scan(found))
        if not as_json:
            click.echo("\n".join(described(checked[-1])))
    if as_json:
        click.echo(json.dumps([asdict(scan) for scan in checked], indent=2))
    if not checked:
        raise MissingInputError(f"{path} holds no scan: expected DICOM, NIfTI, MHA, NRRD or a zip of DICOM")
    if strict and not all(scan.verdict == "fit" for scan in checked):
        raise click.exceptions.Exit(1)


def described(scan: CheckedScan) -> Iterator[str]:
    """A scan in lines that fit the terminal: its verdict, and below it what is known."""
    yield f"{scan.scan}: {scan.verdict}"
    size = " x ".join(map(str, scan.shape_zyx or ()))
    spacing = ", ".join(f"{mm:.4g}" for mm in scan.spacing_mm or ())
    known = {
        "": " ".join(filter(None, (scan.description, scan.date))),
        "slices x rows x columns": size,
        "spacing mm (z, y, x)": spacing,
        "thickness mm": f"{scan.thickness_mm:g}" if scan.thickness_mm else "",
        "kernel": scan.kernel,
        "profile": scan.profile,
        "remark": scan.remark,
    }
    width = shutil.get_terminal_size().columns
    for name, value in known.items():
        text = f"{name}: {value}" if name else value
        yield from textwrap.wrap(text if value else "", width, initial_indent="  ", subsequent_indent="    ")


def check_scan(found: Found) -> CheckedScan:
    """Read a scan and say what it is.

    Args:
        found: in a file or folder.

    Returns:
        What it is, or the reason why it cannot be used.
    """
    try:
        scan = read_scan(found)
    except ScanError as error:
        return CheckedScan(
            found.label, error.reason, None, None, None, "", "", str(error), found.description, found.date, found.uid
        )
    word, remarks = "fit", [found.owner, remark_on(scan.thickness_mm, scan.volume.spacing_mm[0]), *scan.warnings]
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
    remark = "; ".join(filter(None, remarks))
    return CheckedScan(
        scan=found.label,
        verdict=word,
        shape_zyx=volume.hu.shape,
        spacing_mm=volume.spacing_mm,
        thickness_mm=scan.thickness_mm,
        kernel=scan.kernel,
        profile=profile_of(scan) if word == "fit" else "",
        remark=remark,
        description=found.description,
        date=found.date,
        series_uid=found.uid,
    )


def profile_of(scan: Scan) -> str:
    """What `interpolate` takes for the slice profile, and why; empty for slices that it does not make thinner."""
    distance_mm = scan.volume.spacing_mm[0]
    if distance_mm <= THIN_MM:
        return ""
    return str(recognise(scan.volume.hu, distance_mm, Acquisition(tags=Tags.of(scan)), thin_mm=THIN_MM))


def remark_on(thickness_mm: float | None, spacing_mm: float) -> str:
    """Overlap or gap of slices in words; empty where the thickness is unknown, or is the distance to within 1 %."""
    if thickness_mm is None or abs(thickness_mm - spacing_mm) <= 0.01 * spacing_mm:
        return ""
    kind = "overlapping slices" if thickness_mm > spacing_mm else "gaps between slices"
    return f"{kind}: {thickness_mm:g} mm thick every {spacing_mm:g} mm"
