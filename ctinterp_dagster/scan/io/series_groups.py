"""Which DICOM files are one series, where its SeriesInstanceUID does not say so."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from ctinterp_dagster.scan.io.dicom import DicomFile
from ctinterp_dagster.scan.io.grid import mixture
from ctinterp_dagster.scan.io.series_parts import LEAST_SLICES

if TYPE_CHECKING:
    from pathlib import Path


def in_series(files: Iterable[DicomFile]) -> list[list[DicomFile]]:
    """Files by series.

    One UID is one series wherever its files lie, but a UID that folders of different patients or studies use is one
    each. Where it is blank, folder, patient, study and series number tell series apart. Where each file has one of its
    own, as a faulty de-identification gives it, patient, study, number and description do.

    Args:
        files: headers of any DICOM files.

    Returns:
        Groups of one file or more, sorted by UID; every file is in one.
    """
    by_uid: dict[tuple[str, ...], list[DicomFile]] = defaultdict(list)
    for file in files:
        by_uid[(file.series,) if file.series else ("", str(file.file.parent), *_owner(file))].append(file)
    groups = [group for uid in sorted(by_uid) for group in _by_owner(by_uid[uid])]
    alone: dict[tuple[str, ...], list[DicomFile]] = defaultdict(list)
    for group in groups:
        if len(group) == 1 and group[0].frames == 1 and group[0].planes and not group[0].is_companion:
            folder = "" if group[0].study else str(group[0].file.parent)
            alone[(folder, *_owner(group[0]), *group[0].title)].append(group[0])
    joined = [group for group in alone.values() if have_own_uids(group)]
    taken = {id(file) for group in joined for file in group}
    return [*(group for group in groups if id(group[0]) not in taken), *joined]


def have_own_uids(files: Sequence[DicomFile]) -> bool:
    """Whether files could be slices of one series but for their SeriesInstanceUIDs, of which each has its own."""
    uids = {file.series for file in files}
    return LEAST_SLICES <= len(files) == len(uids) and not mixture([plane for file in files for plane in file.planes])


def _owner(file: DicomFile) -> tuple[str, ...]:
    """A key: the patient, study and series number."""
    return file.owner, file.study, str(file.number)


def _by_owner(files: Sequence[DicomFile]) -> list[list[DicomFile]]:
    """Files of one SeriesInstanceUID by patient and study, where each of their folders names one: a UID used twice."""
    owners: dict[tuple[str, str], list[DicomFile]] = defaultdict(list)
    folders: dict[Path, set[tuple[str, str]]] = defaultdict(set)
    for file in files:
        owners[file.owner, file.study].append(file)
        folders[file.file.parent].add((file.owner, file.study))
    return list(owners.values()) if all(len(named) == 1 for named in folders.values()) else [list(files)]
