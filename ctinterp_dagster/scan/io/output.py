"""One result out, in the format that its name asks for."""

from pathlib import Path

from ctinterp_dagster.errors import MissingInputError, ParamsError
from ctinterp_dagster.records import whole_file
from ctinterp_dagster.scan.io.dicom_writer import write_series
from ctinterp_dagster.scan.io.files import WRITABLE_SUFFIXES, write_volume
from ctinterp_dagster.scan.io.source import Scan
from ctinterp_dagster.scan.volume import Volume


def is_series(output: Path, *, as_dicom: bool = False) -> bool:
    """Whether an output is a folder of DICOM: asked for, a folder that exists, or a name without an ending."""
    return as_dicom or output.is_dir() or not output.suffix


def check_output(output: Path, *, as_dicom: bool = False) -> None:
    """Refuse before the work what could not be written after it.

    Raises:
        ParamsError: the name has an ending that is not known, one that contradicts `as_dicom`, or is a folder in use.
        MissingInputError: the folder to write to does not exist.
    """
    known = output.name.lower().endswith(WRITABLE_SUFFIXES)
    if as_dicom and known:
        raise ParamsError(f"{output.name} names a volume file, but the format is DICOM: expected the name of a folder")
    if not is_series(output, as_dicom=as_dicom) and not known:
        raise ParamsError(
            f"{output.name} has no known ending: expected {', '.join(WRITABLE_SUFFIXES)}, or a folder name without "
            "an ending for DICOM"
        )
    if not output.absolute().parent.is_dir():
        raise MissingInputError(f"the folder {output.parent} does not exist: make it first")
    if is_series(output, as_dicom=as_dicom) and output.exists():
        if not output.is_dir():
            raise ParamsError(f"{output.name} is a file: expected a new or empty folder for the DICOM series")
        if any(output.iterdir()):
            raise ParamsError(f"the folder {output.name} is not empty: expected a new one for the DICOM series")


def write_result(
    volume: Volume,
    output: Path,
    scan: Scan,
    description: str,
    *,
    thickness_mm: float | None = None,
    as_dicom: bool = False,
) -> None:
    """Write what was made of a scan: a volume file, or a DICOM series beside the source's in its study.

    Args:
        volume: what to write.
        output: `.nii.gz`, `.nii`, `.mha`, `.nrrd`, or a folder for DICOM.
        scan: the source, as `read_scan` gave it.
        description: software, model and version, for DerivationDescription (0008,2111).
        thickness_mm: SliceThickness (0018,0050); the slices' distance where None.
        as_dicom: write DICOM whatever the folder is called.

    Raises:
        ParamsError, MissingInputError: see `check_output`.
        IntensityError: a value is not finite, or out of the format's range.
    """
    check_output(output, as_dicom=as_dicom)
    if is_series(output, as_dicom=as_dicom):
        write_series(volume, output, scan, description, thickness_mm)
    else:
        with whole_file(output) as partial:
            write_volume(volume, partial)
