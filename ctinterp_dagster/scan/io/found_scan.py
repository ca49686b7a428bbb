"""What a path holds, and what reading it gives."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ctinterp_dagster.errors import ScanError
from ctinterp_dagster.scan.volume import Volume

# What `repr` makes of a name.
QUOTED = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\"""")

FileKind = Literal["dicom", "nifti", "itk", "unreadable"]


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
        frames: the frames of each file that belong to it; empty where all do.
        description: SeriesDescription, for a user to choose by. May name a person: not for outputs.
        date: SeriesDate, as the description.
        number: SeriesNumber of a DICOM series.
        whole: the name of the scan that it is a stretch of, with others of the same name; else empty.
        uneven: of a stretch: why the whole is no regular stack, and no thin truth. May name files as warnings do.
        owner: of scans of several patients, which of them it is of, by a number, and its first file. Not for outputs.
        warnings: what a user should know of it and the headers already tell. May name files: `nameless` for outputs.
    """

    name: str
    kind: FileKind
    files: tuple[Path, ...]
    archive: Path | None = None
    refusal: ScanError | None = None
    uid: str = ""
    place: Place | None = None
    frames: tuple[tuple[int, ...], ...] = ()
    description: str = ""
    date: str = ""
    number: int | None = None
    whole: str = ""
    uneven: ScanError | None = None
    owner: str = ""
    warnings: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """What its user calls it: its name, in an archive without the folders, which a PACS names by the patient."""
        if self.archive is None:
            return self.name
        inside = self.name.rpartition("/")[2]
        return f"{self.archive.name}/{inside}"

    @property
    def names(self) -> set[str]:
        """By what a user may choose it among others; the last three of DICOM need not tell it from others."""
        number = "" if self.number is None else str(self.number)
        return {self.name, self.label, self.uid, self.description, self.date, number} - {""}

    @property
    def slices(self) -> str:
        """How many and how far apart, where the headers tell; else empty."""
        return f"{self.place.size[0]} slices every {self.place.spacing_mm[0]:.4g} mm" if self.place else ""

    @property
    def title(self) -> str:
        """Description, date, slices and their distance, owner, as far as the headers tell. May name a person."""
        return ", ".join(filter(None, (self.description, self.date, self.slices, self.owner)))

    def _without_files(self, said: str) -> str:
        """Words about it in which its k-th file is called `file k` and no folder of its files is named."""
        names = {}
        for number, file in enumerate(self.files, 1):
            names[str(file)] = f"file {number}"
            for k in range(len(file.parts)):
                tail = "/".join(file.parts[k:])
                names.setdefault(tail, f"file {number}")
                names.setdefault(repr(tail), f"file {number}")
        for folder in {folder for file in self.files for folder in file.parents}:
            for k in range(len(folder.parts)):
                names.setdefault(repr("/".join(folder.parts[k:])), "a folder")
        for name in sorted(names, key=len, reverse=True):
            said = said.replace(name, names[name])
        return QUOTED.sub("a member", said) if self.archive or self.kind == "unreadable" else said

    def without_names(self, error: ScanError) -> ScanError:
        """A refusal of it without the names of folders and files."""
        plain: BaseException = error
        while isinstance(plain.__cause__, ScanError):  # `find_scans` puts the scan's place before the message
            plain = plain.__cause__
        return type(error)(self._without_files(str(plain)))

    def nameless(self, warning: str) -> str:
        """A warning of it without the names of folders and files, its own and others; names stand in quotes."""
        return QUOTED.sub("another place", self._without_files(warning))


@dataclass(frozen=True)
class Scan:
    """A scan that was read.

    Attributes:
        volume: the values in HU and their place in space; axial unless `check_volume` says otherwise.
        patient: PatientID (0010,0020); empty for formats that do not carry it. Identifies a person: it must not
            reach an output.
        thickness_mm: SliceThickness (0018,0050), the width of the slice profile, which is not the slice spacing;
            None where it is absent, 0, or differs between slices.
        kernel: ConvolutionKernel (0018,1210); empty where absent.
        modality: Modality (0008,0060), "CT" for formats that do not carry it.
        kind: the format that it was read from.
        burned_in_annotation: BurnedInAnnotation (0028,0301) is YES: the pixels may show who the patient is.
        derived: ImageType (0008,0008) is DERIVED: computed from other images, as the results of ctinterp are.
        each_thickness_mm: SliceThickness of each slice, where all have it and it differs; else empty.
        helical: whether the table moved during a turn, by the tags; None where none tells.
        tilted: the gantry was tilted: slices were shifted in their planes onto a straight grid.
        warnings: what a user should know of a scan that is not refused, each in one line: told by every command that
            reads one. Readers of any format put theirs here. May name files: `found.nameless` for outputs.
        found: where it was read from, for a writer that needs the source's headers again. Not for outputs: file names
            may name a person.
    """

    volume: Volume
    patient: str
    thickness_mm: float | None
    kernel: str
    modality: str
    kind: FileKind
    burned_in_annotation: bool
    derived: bool = False
    each_thickness_mm: tuple[float, ...] = ()
    helical: bool | None = None
    tilted: bool = False
    warnings: tuple[str, ...] = ()
    found: Found | None = None
