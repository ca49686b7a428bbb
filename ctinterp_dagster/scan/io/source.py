"""What a path holds, and what reading it gives."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ctinterp_dagster.errors import ScanError
from ctinterp_dagster.scan.volume import Volume

Kind = Literal["dicom", "nifti", "itk", "unreadable"]


@dataclass(frozen=True)
class Place:
    """Whose a DICOM series is and where it lies, by its headers. Identifies a person: it must not reach an output.

    Attributes:
        patient: PatientID (0010,0020), or its pseudonym where headers are kept.
        frame_of_reference: FrameOfReferenceUID (0020,0052); positions of series that share it can be compared.
        kernel: ConvolutionKernel (0018,1210).
        size: slices, rows, columns.
        spacing_mm: (z, y, x).
        origin_mm: LPS position of the first voxel.
        axes: LPS directions of a row, a column and the normal, one after the other.
    """

    patient: str
    frame_of_reference: str
    kernel: str
    size: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    origin_mm: tuple[float, float, float]
    axes: tuple[float, ...]


@dataclass(frozen=True)
class Found:
    """One scan that a path holds, not yet read.

    Attributes:
        name: the scan's place below the searched path, with forward slashes; `series-<SeriesNumber>` ends the name
            of a DICOM series. It depends on nothing but names and headers.
        kind: which reader reads it.
        files: its files in sorted order; relative to the archive's top if the scan lies in an archive.
        archive: the zip file that holds it.
        refusal: why it will not be read, where the headers already tell.
        uid: SeriesInstanceUID (0020,000E) of a DICOM series, else empty.
        place: whose it is and where it lies, of a DICOM series that is not refused.
    """

    name: str
    kind: Kind
    files: tuple[Path, ...]
    archive: Path | None = None
    refusal: ScanError | None = None
    uid: str = ""
    place: Place | None = None

    def without_names(self, error: ScanError) -> ScanError:
        """A refusal of it without the names of folders and files: its k-th file is called `file k`.

        Names that an archive holds stand in quotes, and go with them.
        """
        plain: BaseException = error
        while isinstance(plain.__cause__, ScanError):  # `find_scans` puts the scan's place before the message
            plain = plain.__cause__
        said = str(plain)
        for number, file in sorted(enumerate(self.files, 1), key=lambda item: -len(item[1].name)):
            for name in (str(file), file.name):
                said = said.replace(name, f"file {number}")
        if self.archive or self.kind == "unreadable":
            said = re.sub(r"'[^']*'", "a member", said)
        return type(error)(said)


@dataclass(frozen=True)
class Scan:
    """A scan that was read.

    Attributes:
        volume: the values in HU and their place in space; axial unless `check_volume` says otherwise.
        patient: PatientID (0010,0020); empty for formats that do not carry it. Identifies a person: it must not
            reach an output.
        thickness_mm: SliceThickness (0018,0050), the width of the slice profile, which is not the slice spacing;
            None where it is absent or differs between slices.
        kernel: ConvolutionKernel (0018,1210); empty where absent.
        modality: Modality (0008,0060), "CT" for formats that do not carry it.
        kind: the format that it was read from.
        burned_in_annotation: BurnedInAnnotation (0028,0301) is YES: the pixels may show who the patient is.
        derived: ImageType (0008,0008) is DERIVED: computed from other images, as the results of ctinterp are.
        found: where it was read from, for a writer that needs the source's headers again. Not for outputs: file names
            may name a person.
    """

    volume: Volume
    patient: str
    thickness_mm: float | None
    kernel: str
    modality: str
    kind: Kind
    burned_in_annotation: bool
    derived: bool = False
    found: Found | None = None
