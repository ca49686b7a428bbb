"""Which scans a path holds, and reading one of them."""

import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Literal

from ctinterp_dagster.errors import (
    DeviationError,
    MissingInputError,
    MixedSeriesError,
    NotCtError,
    ScanError,
    TruncatedScanError,
    UnreadableScanError,
)
from ctinterp_dagster.scan.io.cache import HeaderCache
from ctinterp_dagster.scan.io.dicom import DicomFile, is_beside, read_header
from ctinterp_dagster.scan.io.dicom_series import check_series, read_series
from ctinterp_dagster.scan.io.found_scan import Found, Place, Scan
from ctinterp_dagster.scan.io.grid import Grid
from ctinterp_dagster.scan.io.series_groups import have_own_uids, in_series
from ctinterp_dagster.scan.io.series_parts import incomplete, scans_of, without_copies
from ctinterp_dagster.scan.io.volume_files import ITK_SUFFIXES, NIFTI_SUFFIXES, read_itk, read_nifti
from ctinterp_dagster.scan.io.zipped import inner_archives, is_archive, unpacked

DICOM_SUFFIXES = (".dcm", ".ima", ".dicom")
CACHED = re.compile(r"/files/md5/[0-9a-f]{2}/[0-9a-f]{30}$")  # where DVC keeps a file
DICOMDIR_CLASS = "1.2.840.10008.1.3.10"
MOST_TOLD = 9  # scans in a message
OWN_UIDS = (  # of files that `have_own_uids`
    "each file has a SeriesInstanceUID of its own: they are taken for one series, as patient, study, number, "
    "description and grid are the same; if they are not one, give the images of one alone"
)
# How gzip, nibabel and SimpleITK say that a file ends too early.
ENDS_EARLY = re.compile(r"end-of-stream|Expected \d+ bytes, got|fread got only")


def _looks_like_dicom(file: Path) -> bool:
    """DICM after a preamble of 128 bytes; in files without one an element of group 0008, or group 0002's length."""
    with file.open("rb") as handle:
        head = handle.read(132)
    return head[128:] == b"DICM" or head[:2] == b"\x08\x00" or head[:8] == b"\x02\x00\x00\x00UL\x04\x00"


def _kind(file: Path) -> Literal["dicom", "nifti", "itk", "zip", "archive", "other"]:
    name = file.name.lower()
    if name.endswith(NIFTI_SUFFIXES):
        return "nifti"
    if name.endswith(ITK_SUFFIXES):
        return "itk"
    if name.endswith(".zip"):
        return "zip"
    if is_archive(name):
        return "other" if name.endswith(".pack.gz") else "archive"  # Java's packed code: a viewer beside scans
    return "dicom" if name.endswith(DICOM_SUFFIXES) or _looks_like_dicom(file) else "other"


def may_hold_a_scan(file: Path) -> bool:
    """Whether its name or its first bytes are those of a format that is read; no more is looked at.

    Args:
        file: exists.

    Returns:
        False of archives, which are opened elsewhere.
    """
    return _kind(file) not in {"archive", "other"}


def _visible_files(folder: Path) -> Iterable[Path]:
    """Every file and link below a folder in sorted order, without hidden ones and what macOS adds to archives."""
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if (path.is_file() or path.is_symlink()) and not any(p.startswith(".") or p == "__MACOSX" for p in parts):
            yield path


def _leads_away(file: Path, root: Path) -> bool:
    """Whether a path is a link to nothing, to a folder, or out of the searched one; no such link is followed.

    DVC's links into its cache are: it names files by their content, so what they hold was added here.

    Args:
        file: a path below `root`.
        root: the searched folder.

    Returns:
        False of what is no link.
    """
    if not file.is_symlink():
        return False
    target = file.resolve()
    return not (file.is_file() and (target.is_relative_to(root.resolve()) or CACHED.search(target.as_posix())))


def _located(name: str, error: ScanError) -> ScanError:
    located = type(error)(f"{name}: {error}")
    located.__cause__ = error
    return located


def _unreadable(name: str, files: Sequence[Path], error: ScanError) -> Found:
    return Found(name, "unreadable", tuple(files), refusal=_located(name, error))


def _common_folder(files: Sequence[DicomFile], root: Path) -> str:
    folder = Path(os.path.commonpath([f.file.parent for f in files])).relative_to(root).as_posix()
    return "" if folder == "." else f"{folder}/"


def _series(name: str, files: Sequence[DicomFile], remarks: tuple[str, ...]) -> Iterator[Found]:
    """The scans of one series without copies: mostly one."""
    parts = scans_of(files)
    for number, part in enumerate(parts, start=1):
        own = name if len(parts) == 1 else f"{name}-part-{number}"
        refusal = place = None
        try:
            place = _place(check_series(part.files), part.files)
        except ScanError as error:
            refusal = _located(own, error)
        frames = tuple(tuple(p.frame for p in f.planes) for f in part.files) if len(parts) > 1 else ()
        found = _found(own, part.files, refusal, place, frames, (*remarks, *part.remarks, *incomplete(files)))
        yield replace(found, whole=name if part.joined else "", uneven=part.uneven)


def _found(
    name: str,
    files: Sequence[DicomFile],
    refusal: ScanError | None,
    place: Place | None = None,
    frames: tuple[tuple[int, ...], ...] = (),
    warnings: tuple[str, ...] = (),
) -> Found:
    first = next((f for f in files if not f.is_companion), files[0])
    return Found(
        name, "dicom", tuple(f.file for f in files), None, refusal, first.series, place, frames,
        *first.title, first.number, warnings=warnings,
    )  # fmt: skip


def _place(grid: Grid, files: Sequence[DicomFile]) -> Place:
    first = next(f for f in files if f.planes and not f.is_companion)
    size = (len(grid.planes), *grid.planes[0].size)
    axes = tuple(float(v) for v in grid.direction.T.ravel())
    return Place(first.patient, first.frame_of_reference, first.kernel, size, grid.spacing_mm, grid.origin_mm, axes)


def _dicom_scans(files: Sequence[Path], root: Path, read: Callable[[Path], DicomFile]) -> list[Found]:
    """One entry a series, wherever its files lie; companions without slices only where their folder has no series."""
    found, headers = list[Found](), list[DicomFile]()
    for file in files:
        try:
            header = read(file)
        except ScanError as error:
            found.append(_unreadable(file.relative_to(root).as_posix(), [file], error))
        else:
            if header.sop_class != DICOMDIR_CLASS:
                headers.append(header)
    groups = in_series(headers)
    folders = {f.file.parent for group in groups if not is_beside(group) for f in group if not f.is_companion}
    names: dict[str, int] = defaultdict(int)
    for group in groups:
        if is_beside(group) and all(f.file.parent in folders for f in group):
            continue
        refusal: ScanError | None = None
        try:
            kept, copies = without_copies(group)
        except ScanError as error:
            kept, copies, refusal = group, (), error
        own_uids = (OWN_UIDS,) if have_own_uids(group) else ()
        name = f"{_common_folder(kept, root)}series-{kept[0].number:04d}"
        names[name] += 1
        name = name if names[name] == 1 else f"{name}-{names[name]}"
        found.extend(
            [_found(name, group, _located(name, refusal))] if refusal else _series(name, kept, (*own_uids, *copies))
        )
    return found


def _with_owners(found: Sequence[Found]) -> list[Found]:
    """Scans of more than one patient are told apart by a number and a file; nobody's name is shown."""
    patients = list(dict.fromkeys(f.place.patient for f in found if f.place))
    if len(patients) < 2:
        return list(found)
    return [
        replace(f, owner=f"patient {patients.index(f.place.patient) + 1} of {len(patients)}, {f.files[0].name!r}")
        if f.place
        else f
        for f in found
    ]


def _zip_scans(archive: Path, name: str) -> list[Found]:
    try:
        with unpacked(archive) as folder:
            found = _folder_scans(list(_visible_files(folder)), folder)
            inner = inner_archives(archive)
            named = f"{len(inner)} archive(s) inside, such as {inner[0]!r}" if inner else ""
            if not found:
                raise UnreadableScanError(
                    f"the archive holds no scan but {named}: unpack it first, and give what it holds"
                    if inner
                    else "the archive holds no scan: expected DICOM, NIfTI, MetaImage or NRRD"
                )
            remarks = (f"{named}, passed over: unpack what holds a scan",) if inner else ()
            return [_within(f, name, archive, folder, remarks) for f in found]
    except ScanError as error:
        return [_unreadable(name, [archive], error)]


def _within(found: Found, name: str, archive: Path, folder: Path, remarks: tuple[str, ...]) -> Found:
    """A scan of a folder, as one of the archive that was unpacked there."""
    packed = replace(
        found,
        name=f"{name}/{found.name}",
        files=tuple(file.relative_to(folder) for file in found.files),
        archive=archive,
        whole=f"{name}/{found.whole}" if found.whole else "",
        warnings=(*found.warnings, *remarks),
    )
    cause = found.refusal and found.refusal.__cause__
    return replace(packed, refusal=_located(packed.label, cause)) if isinstance(cause, ScanError) else packed


def _folder_scans(files: Sequence[Path], root: Path, read: Callable[[Path], DicomFile] = read_header) -> list[Found]:
    found = []
    kinds = {file: _kind(file) for file in files}
    for file, kind in kinds.items():
        name = file.relative_to(root).as_posix()
        if kind in {"nifti", "itk"}:
            found.append(Found(name, kind, (file,)))
        elif kind == "zip":
            found.extend(_zip_scans(file, name))
        elif kind == "archive":
            error = UnreadableScanError(f"{file.suffix} archives are not read: unpack it, or make it a zip")
            found.append(_unreadable(name, [file], error))
    found.extend(_dicom_scans([f for f, kind in kinds.items() if kind == "dicom"], root, read))
    return sorted(found, key=lambda f: f.name)


def _without_strays(folder: Path, read: Callable[[Path], DicomFile]) -> list[Found]:
    """The scans of a folder, and each link that leads out of it as one that cannot be read.

    Args:
        folder: searched to any depth.
        read: gives the header of a DICOM file.

    Returns:
        Scans sorted by name, refused ones among them.

    Raises:
        UnreadableScanError: folders are nested too deep.
    """
    try:
        files = list(_visible_files(folder))
    except RecursionError as deep:
        raise UnreadableScanError(f"folders of {folder.name} are nested too deep: move the scans up") from deep
    links = [file for file in files if _leads_away(file, folder)]
    error = UnreadableScanError("a link out of the folder, to a folder or to nothing is not followed: copy the files")
    refused = [_unreadable(link.relative_to(folder).as_posix(), [link], error) for link in links]
    scans = _folder_scans([file for file in files if file not in links], folder, read)
    return sorted((*refused, *scans), key=lambda f: f.name)


def find_scans(path: Path | str, *, keep_headers: bool = False) -> list[Found]:
    """List the scans that a path holds, reading headers only.

    A path is a volume file, a zip archive, one DICOM file, or a folder of any of these, nested as deep as it may be.
    A DICOM series is one scan even if its files are spread over folders. Files that are no scans (text, viewers) are
    passed over; localizers, dose sheets and reports too, unless nothing else is in their folder. Links are followed to
    files of the same folder only.

    Args:
        path: where to look.
        keep_headers: keep what the headers below a folder say, so that only new files are read the next time.

    Returns:
        The scans, sorted by name; one that cannot be read has the error that says why.

    Raises:
        MissingInputError: there is nothing at the path.
        UnreadableScanError: its folders lie a thousand deep.
    """
    path = Path(path)
    if path.is_dir():
        cache = HeaderCache(path) if keep_headers else None
        found = _without_strays(path, cache.read if cache else read_header)
        if cache:
            cache.save()
        return _with_owners(found)
    if not path.is_file():
        raise MissingInputError(f"{path} does not exist: expected a scan file or a folder of scans")
    found = _folder_scans([path], path.parent)
    error = UnreadableScanError("no known format: expected DICOM, NIfTI, MetaImage, NRRD or a zip of them")
    return _with_owners(found) or [_unreadable(path.name, [path], error)]


def _choose(path: Path, series: str | None, found: Sequence[Found]) -> Found:
    if not found:
        raise MissingInputError(f"{path} holds no scan: expected DICOM, NIfTI, MetaImage, NRRD or a zip of them")
    chosen = _meant(found, series)
    if len(chosen) == 1:
        return chosen[0]
    meant = chosen or found
    uneven = meant[0].uneven
    if uneven and meant[0].whole and {f.whole for f in meant} == {meant[0].whole}:
        raise type(uneven)(f"{path}: {uneven}; or choose a stretch: {', '.join(f.name for f in meant)}")
    asked = "none was chosen" if series is None else f"{len(chosen) or 'none'} of them named {series!r}"
    listed = "; ".join(_described(f) for f in meant[:MOST_TOLD])
    more = f"; and {len(meant) - MOST_TOLD} more, see `ctinterp scans check`" if len(meant) > MOST_TOLD else ""
    every = ", or every one (interpolate --all)" if series is None else ""
    raise MixedSeriesError(f"{path} holds {len(found)} scan(s), {asked}: choose one (--series){every}: {listed}{more}")


def _meant(found: Sequence[Found], series: str | None) -> list[Found]:
    """Those of a name; without one all that are CT, since localizers and dose pages in other folders are no choice."""
    if series is None and len(found) > 1:
        return [f for f in found if not isinstance(f.refusal, NotCtError)]
    return [f for f in found if series is None or series in f.names]


def _described(found: Found) -> str:
    """A scan in words to choose it by."""
    refused = f"refused: {found.refusal.reason}" if found.refusal else ""
    stretch = f"a stretch of {found.whole!r}" if found.whole else ""
    details = ", ".join(filter(None, (found.title, refused, stretch)))
    return f"{found.label!r} ({details})" if details else repr(found.label)


def _read(found: Found, files: Sequence[Path], *, deviation: bool) -> Scan:
    if found.kind == "dicom":
        return read_series(files, found.frames, deviation=deviation)
    try:
        volume, remarks = read_nifti(files[0]) if found.kind == "nifti" else read_itk(files[0])
    except UnreadableScanError as error:
        if ENDS_EARLY.search(str(error)):
            raise TruncatedScanError(str(error)) from error
        raise
    return Scan(volume, "", None, "", "CT", found.kind, burned_in_annotation=False, warnings=remarks)


def read_scan(source: Found | Path | str, series: str | None = None, *, deviation: bool = False) -> Scan:
    """Read one scan.

    Args:
        source: what `find_scans` found, or a path that holds one scan.
        series: one of the scan's `names`, where the path holds several.
        deviation: take standard deviations too, of which DICOM tells that they are no scan.

    Returns:
        The volume in HU, (z, y, x), with what its headers tell and what is odd.

    Raises:
        MissingInputError: the path does not exist or holds no scan.
        MixedSeriesError: the path holds several scans and `series` names none of them.
        ScanError: the scan is refused; the subclass is the reason.
    """
    found = source if isinstance(source, Found) else _choose(Path(source), series, find_scans(source))
    if found.refusal is not None and not (deviation and isinstance(found.refusal, DeviationError)):
        raise found.refusal
    try:
        with unpacked(found.archive) if found.archive else nullcontext(Path()) as folder:
            scan = _read(found, [folder / file for file in found.files], deviation=deviation)
    except ScanError as error:
        located = _located(found.label, error)
        raise located from error
    return replace(scan, found=found, warnings=(*found.warnings, *scan.warnings))


def read_stretches(path: Path | str, series: str | None = None) -> tuple[Scan, ...]:
    """Read one scan, or the stretches of evenly spaced slices that one consists of.

    Args:
        path: what holds it.
        series: one of the scan's `names`, where the path holds several; a stretch by its own name is
            read alone.

    Returns:
        The scan, or its stretches in their order along the normal.

    Raises:
        MissingInputError: the path does not exist or holds no scan.
        MixedSeriesError: the path holds several scans and `series` names none of them.
        ScanError: the scan is refused; the subclass is the reason.
    """
    found = find_scans(path)
    named = [f for f in found if f.whole and (series is None or series in {f.whole, *f.names} - {f.name, f.label})]
    others = [f for f in _meant(found, series) if f.whole != named[0].whole] if named else found
    chosen = named if named and not others else [_choose(Path(path), series, found)]
    return tuple(read_scan(f) for f in chosen)
