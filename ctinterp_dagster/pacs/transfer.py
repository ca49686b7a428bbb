"""A series out of an archive and what was made of it into the archive, so that it can be done again after any end."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pydicom

from ctinterp_dagster.errors import PacsError, ParamsError
from ctinterp_dagster.pacs.archive import MAKER, Archive, Images, Series, series_of

Restore = Callable[[Path, Path], None]


def fetch(archive: Archive, series: Series, images: Images, folder: Path) -> None:
    """Fetch a series whole; the folder appears only then, and of one that comes in part nothing is left.

    Args:
        archive: where it is.
        series: which.
        images: what the archive lists of it.
        folder: a new one.

    Raises:
        PacsError: the archive gives fewer images than it lists, or more.
    """
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True, mode=0o700)
    try:
        archive.fetch(series, partial)
        if (count := sum(1 for _ in partial.iterdir())) != len(images.uids):
            raise PacsError(
                f"{count} images came of {len(images.uids)}: they are still arriving, or some cannot be read"
            )
        partial.replace(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def header(file: Path) -> pydicom.Dataset:
    """What says whose an image is, and what its series is called."""
    uids = ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"]
    words = ["Manufacturer", "SeriesNumber", "SeriesDescription", "SpecificCharacterSet"]
    return pydicom.dcmread(file, stop_before_pixels=True, specific_tags=[*uids, *words])


def is_own(file: Path) -> bool:
    """Whether an image is a result of ctinterp."""
    return str(header(file).get("Manufacturer") or "") == MAKER


def send(archive: Archive, folder: Path) -> int:
    """Send a result, but for what the archive has of it, and see that it is there.

    Args:
        archive: the PACS.
        folder: a DICOM result of ctinterp.

    Returns:
        How many images were sent.

    Raises:
        ParamsError: the folder holds something else than one result.
        PacsError: the archive does not list all of them afterwards.
    """
    files = {str(header(file).SOPInstanceUID): file for file in sorted(folder.glob("*.dcm"))}
    if not files or not all(map(is_own, files.values())):
        raise ParamsError(f"{folder} is no DICOM result of ctinterp: nothing else is sent; make one with interpolate")
    result = series_of(header(next(iter(files.values()))))
    missing = files.keys() - archive.images(result).uids
    archive.send([file for uid, file in files.items() if uid in missing])
    if lost := files.keys() - archive.images(result).uids:
        raise PacsError(
            f"the archive lists {len(files) - len(lost)} of {len(files)} images: it dropped the others: look at its log"
        )
    return len(missing)
