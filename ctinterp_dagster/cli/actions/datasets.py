"""The scans of a public data set that are fit for thin truth into data/raw, and their rows into scans.csv."""

import re
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from ctinterp_dagster.cli.actions.protocols import in_hu
from ctinterp_dagster.cli.options.datasets import DataSet, dataset
from ctinterp_dagster.cli.raw_folder import Added, Addition, refusals
from ctinterp_dagster.errors import GeometryError, MissingInputError, ScanError, TooThickError, UnreadableScanError
from ctinterp_dagster.layout import Layout
from ctinterp_dagster.params import Ingest, load_params
from ctinterp_dagster.pipeline.ingest import check_thin, read_thin
from ctinterp_dagster.scan.io import find_scans, read_scan, write_volume

TableRow = dict[str, str]


def of_data_set(name: str, folder: Path, held: Added, rows: dict[str, TableRow], layout: Layout) -> Iterator[Addition]:
    """Add every scan of a data set that is fit for thin truth, with patient, split, licence and citation.

    Args:
        name: of the data set.
        folder: where it lies.
        held: data/raw.
        rows: of scans.csv, by file.
        layout: where things are.

    Yields:
        What became of each scan; the line of one that is too thick begins with `left out`.

    Raises:
        MissingInputError: nothing below the folder lies as the data set does.
    """
    row, section = dataset(name), load_params(layout.params).ingest
    scans = list(places(row, folder))
    if not scans:
        raise MissingInputError(f"{folder} holds nothing that lies as {name} does: expected {row.lies} ({row.stated})")
    for place, groups in scans:
        try:
            yield from add_scan(row, folder, place, groups, held, rows, section)
        except ScanError as error:
            yield Addition([why(place, error)])


def places(row: DataSet, folder: Path) -> Iterator[tuple[str, TableRow]]:
    """The place of each scan below the folder, with patient and split."""
    for path in sorted(folder.rglob("[!.]*")):
        place = path.relative_to(folder).as_posix()
        found = re.fullmatch(row.scans, place)
        is_scan = any(inside.is_file() for inside in path.iterdir()) if row.dicom and path.is_dir() else path.is_file()
        if found and is_scan and path.is_dir() == row.dicom:
            yield place, found.groupdict()


def add_scan(
    row: DataSet, folder: Path, place: str, groups: TableRow, held: Added, rows: dict[str, TableRow], section: Ingest
) -> Iterator[Addition]:
    """Add one scan of a data set to data/raw, in HU, and its patient and split to the table.

    Args:
        row: the data set.
        folder: where it lies.
        place: of the scan, relative to the folder.
        groups: what the place tells: `patient`, maybe `split`.
        held: data/raw.
        rows: of scans.csv, by file; those of the scan are put in.
        section: of ingest, with the limits of thin truth.

    Yields:
        What is refused of it, then whether it was added.

    Raises:
        UnreadableScanError: data/raw has another scan of that name.
        ScanError: why it is not fit.
    """
    path, name = folder / place, f"{row.name}/{place}"
    with tempfile.TemporaryDirectory() as scratch:
        if row.partner:
            check_partner(path, path.parents[2] / row.partner.format(**groups))
        if row.rewritten:
            name = f"{name.removesuffix('.mhd').removesuffix('.nii.gz')}.nii.gz"
            path = rewritten(row, path, Path(scratch) / Path(name).name)
        for error in refusals(path):
            raise error
        fit, bad = fit_scans(path, section)
        yield Addition([why(place, error) for error in bad])
        if not fit:
            return
        known = held.name_of(path)
        if known is None and not held.is_free(name, path):
            raise UnreadableScanError(f"data/raw has another {name}: rename that, and add this again")
        if known is None:
            held.add(path, name)
        of_scan = {"patient": groups["patient"], "split": groups.get("split", ""), "licence": row.licence}
        for scan in fit:
            file = known or name if path.is_file() else f"{known or name}/{scan}"
            rows.setdefault(file, {"file": file, **of_scan, "citation": row.citation})
        already = [f"{place} is in data/raw already, as {known}: nothing added"] if known else []
        yield Addition(already, added=known is None)


def fit_scans(path: Path, section: Ingest) -> tuple[list[str], list[ScanError]]:
    """The names of the scans of a file or folder that are fit for thin truth, and why the others are not.

    Args:
        path: of the file or folder.
        section: the parameters of ingest, which say what is thin.

    Returns:
        Names of fit scans, and an error for each of the others.
    """
    fit, bad = [], list[ScanError]()
    for found in find_scans(path):
        try:
            if found.place:
                check_thin(found.place.spacing_mm[0], section)
            if error := found.refusal or found.uneven:
                raise error
            read_thin(found, section)
        except ScanError as error:
            named = path.is_file() or str(error).startswith(found.name)
            bad.append(error if named else type(error)(f"{found.name}: {error}"))
        else:
            fit.append(found.name)
    return fit, bad


def why(place: str, error: ScanError) -> str:
    """Thick scans are left out; whatever has another reason is refused."""
    return f"{'left out' if isinstance(error, TooThickError) else 'refused'}: {place}: {error}"


def check_partner(thin: Path, thick: Path) -> None:
    """Refuse a thin scan without its thick partner, or with one of another field of view.

    Args:
        thin: a file or folder.
        thick: a file.

    Raises:
        UnreadableScanError: there is no such file.
        GeometryError: the images differ.
    """
    if not thick.is_file():
        raise UnreadableScanError(f"its thick partner {thick} is missing: get it, and add the scan again")
    one, other = (read_scan(path).volume for path in (thin, thick))
    if one.hu.shape[1:] != other.hu.shape[1:] or not np.allclose(
        one.spacing_mm[1:], other.spacing_mm[1:], rtol=0, atol=1e-3
    ):
        raise GeometryError(
            f"its images have {one.hu.shape[1:]} pixels of {one.spacing_mm[1:]} mm, those of {thick.name} in "
            f"{thick.parent.name} {other.hu.shape[1:]} of {other.spacing_mm[1:]} mm: expected one field of view"
        )


def rewritten(row: DataSet, path: Path, target: Path) -> Path:
    """Write a scan as one file, in HU; values of [0, 1] become whole HU.

    Args:
        row: the data set, which tells whether its values are of [0, 1].
        path: of the scan.
        target: the file, whose ending is the format.

    Returns:
        The target.

    Raises:
        ScanError: the scan cannot be read.
    """
    scan = read_scan(path)
    if row.in_unit:
        scan = in_hu(scan)
        scan = replace(scan, volume=scan.volume.with_hu(np.rint(scan.volume.hu)))
    write_volume(scan.volume, target)
    return target
