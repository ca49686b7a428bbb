"""One result out, in the format that its name asks for, over nothing that is there."""

import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations
from pathlib import Path

from ctinterp_dagster.errors import MissingInputError, ParamsError
from ctinterp_dagster.records import whole_file
from ctinterp_dagster.scan.io.derived_series import read_origin
from ctinterp_dagster.scan.io.dicom_writer import Quantity, refuse_range, write_series
from ctinterp_dagster.scan.io.found_scan import Scan
from ctinterp_dagster.scan.io.text_header import read_text_header
from ctinterp_dagster.scan.io.volume_files import ITK_SUFFIXES, WRITABLE_SUFFIXES, write_volume
from ctinterp_dagster.scan.volume import Volume


def is_series(output: Path, *, as_dicom: bool = False) -> bool:
    """Whether an output is a folder of DICOM: asked for, a folder that exists, or a name without an ending."""
    return as_dicom or output.is_dir() or not output.suffix


def input_files(source: Path) -> Iterator[Path]:
    """The files of an input: all in a folder, and the data files that a header names."""
    if source.is_dir():
        yield from source.rglob("*")
        return
    yield source
    if source.name.lower().endswith(ITK_SUFFIXES):
        yield from read_text_header(source).parts


def _is_one_of(output: Path, files: Iterable[Path]) -> bool:
    """Whether an output is one of some files by any name: a link, a hard link, other case where that is the same."""
    return output.exists() and any(file.exists() and output.samefile(file) for file in files)


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


def check_overwriting(source: Path | str, outputs: Sequence[Path | str], *, force: bool = False) -> None:
    """Refuse, before the work, outputs that would replace the input, each other, or what is there.

    Args:
        source: the input; nothing in a folder of it is written to either.
        outputs: each file and folder that a run writes.
        force: whether another file or folder that exists may be written to.

    Raises:
        ParamsError: an output is the input or one of its files, lies in its folder or around it; two outputs are one or
            lie in each other; or one exists, is no empty folder, and `force` does not allow it.
        MissingInputError: there is no input.
    """
    source = Path(source)
    if not source.exists():
        raise MissingInputError(f"{source} does not exist: expected a scan file or a folder of scans")
    places = [(Path(output), Path(output).resolve()) for output in outputs]
    for output, place in places:
        inside = any(parent.exists() and parent.samefile(source) for parent in (place, *place.parents))
        if inside or source.resolve().is_relative_to(place) or _is_one_of(output, input_files(source)):
            raise ParamsError(f"{output} is or touches the input {source}: expected another place; choose one outside")
        if os.path.lexists(output) and not force and not _is_empty_folder(output):
            raise ParamsError(f"{output} exists: expected a new name; choose one, or replace it with --force")
    folded = [(output, Path(str(place).casefold())) for output, place in places]
    for (output, one), (other, two) in combinations(folded, 2):
        if one.is_relative_to(two) or two.is_relative_to(one):
            raise ParamsError(f"{output} and {other} are one place, or in each other: expected places of their own")


def check_folder(output: Path) -> None:
    """Refuse an output whose folder cannot take it.

    Args:
        output: a file or folder that is to be written.

    Raises:
        MissingInputError: the folder does not exist.
        ParamsError: it cannot be written to.
    """
    if not output.absolute().parent.is_dir():
        raise MissingInputError(f"the folder {output.parent} does not exist: make it first")
    if not os.access(output.absolute().parent, os.W_OK):
        raise ParamsError(f"the folder {output.parent} cannot be written to: get the permission, or choose another")


def check_output(output: Path | str, *, as_dicom: bool = False, scan: Scan | None = None) -> tuple[str, ...]:
    """Refuse before the work what could not be written after it.

    Args:
        output: `.nii.gz`, `.nii`, `.mha`, `.nrrd`, or a folder for DICOM.
        as_dicom: DICOM is to be written, whatever the folder is called.
        scan: the source, once it is read: whether its patient, study and values can stand in DICOM.

    Returns:
        What a DICOM result gets anew because the source has none, a sentence each.

    Raises:
        ParamsError: the name has an ending that is not known, one that contradicts `as_dicom`, or is a folder in use;
            or its parent cannot be written to; or the source's patient or study cannot be kept.
        MissingInputError: the folder that is to hold it does not exist.
        IntensityError: values of the source that DICOM does not hold.
        UnreadableScanError: the source's headers cannot be read again.
    """
    output = Path(output)
    known = output.name.lower().endswith(WRITABLE_SUFFIXES)
    if as_dicom and known:
        raise ParamsError(f"{output} names a volume file, but the format is DICOM: expected the name of a folder")
    if not is_series(output, as_dicom=as_dicom) and not known:
        raise ParamsError(
            f"{output} has no known ending: expected {', '.join(WRITABLE_SUFFIXES)}, or a folder name without "
            "an ending for DICOM"
        )
    check_folder(output)
    if is_series(output, as_dicom=as_dicom) and output.exists():
        if not output.is_dir():
            raise ParamsError(f"{output} is a file: expected a new or empty folder for the DICOM series")
        if any(output.iterdir()):
            raise ParamsError(f"the folder {output} is not empty: expected a new one for the DICOM series")
    if scan is None or not is_series(output, as_dicom=as_dicom):
        return ()
    refuse_range(scan.volume.hu)
    return read_origin(scan).remarks


def write_result(
    volume: Volume,
    output: Path | str,
    scan: Scan,
    description: str,
    *,
    thickness_mm: float | None = None,
    as_dicom: bool = False,
    as_multiframe: bool = False,
    quantity: Quantity = "mean",
) -> None:
    """Write what was made of a scan: a volume file, or a DICOM series beside the source's in its study.

    Args:
        volume: what to write.
        output: `.nii.gz`, `.nii`, `.mha`, `.nrrd`, or a folder for DICOM.
        scan: the source, as `read_scan` gave it.
        description: software, model and version, for DerivationDescription (0008,2111).
        thickness_mm: SliceThickness (0018,0050); the slices' distance where None.
        as_dicom: write DICOM whatever the folder is called.
        as_multiframe: write DICOM as one multi-frame file in the folder; needs highdicom.
        quantity: what the values are, for the headers of a DICOM series; a standard deviation is in HU.

    Raises:
        ParamsError: the output's name cannot be written to, or is a file of the source; or the source's patient or
            study cannot be kept.
        MissingInputError: the folder that is to hold it does not exist.
        IntensityError: a value is not finite, or out of the format's range.
    """
    output = Path(output)
    check_output(output, as_dicom=as_dicom)
    if scan.found and _is_one_of(output, [scan.found.archive] if scan.found.archive else scan.found.files):
        raise ParamsError(f"{output} is the source: expected another name; a result never replaces its scan")
    if is_series(output, as_dicom=as_dicom):
        write_series(volume, output, scan, description, thickness_mm, quantity, as_multiframe=as_multiframe)
    else:
        with whole_file(output) as partial:
            write_volume(volume, partial)
