"""What a derived DICOM series takes from its source: patient, study, frame of reference, and the images it names."""

import hashlib
import re
import uuid
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.config import RAISE
from pydicom.datadict import keyword_for_tag, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.uid import UID, CTImageStorage
from pydicom.valuerep import validate_value

from ctinterp_dagster.errors import ParamsError, UnreadableScanError
from ctinterp_dagster.scan.io.dicom import read_header
from ctinterp_dagster.scan.io.found_scan import Scan
from ctinterp_dagster.scan.io.pixels import BROKEN
from ctinterp_dagster.scan.io.zipped import unpacked

# By these a PACS finds patient, study and order. They go out as they came, whatever rule of DICOM they break, because
# another value, or none, would be another patient or study. Readers compare them as text.
IDENTITY = [
    "SpecificCharacterSet", "PatientName", "PatientID", "IssuerOfPatientID", "StudyInstanceUID", "StudyID",
    "AccessionNumber", "FrameOfReferenceUID",
]  # fmt: skip
# One of a series; others may be written differently from image to image.
ONE_OF_A_SERIES = ["StudyInstanceUID", "FrameOfReferenceUID"]
# What stands in place of a UID that was taken out ("n", "REMOVED") is that of many patients; it has no digit.
PLACEHOLDER = re.compile(r"\D*")
UID_CHARACTERS = re.compile(r"[0-9.]{1,64}")  # what readers take for a UID; a part may begin with 0
# Whole modules that a derived image shares with its source: patient and clinical trial.
SHARED_GROUPS = (0x0010, 0x0012)
SHARED = {
    *IDENTITY, "TimezoneOffsetFromUTC", "StudyDate", "StudyTime", "StudyDescription", "IssuerOfAccessionNumberSequence",
    "SeriesDate", "SeriesTime", "ReferringPhysicianName", "ProcedureCodeSequence", "PositionReferenceIndicator",
    "PatientPosition", "BodyPartExamined", "Laterality", "ProtocolName", "AcquisitionNumber", "AcquisitionDate",
    "AcquisitionTime", "KVP", "ConvolutionKernel", "ReconstructionDiameter", "ContrastBolusAgent", "ContrastBolusRoute",
    "BurnedInAnnotation", "LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod",
    "WindowCenter", "WindowWidth", "SeriesNumber", "SeriesDescription",
}  # fmt: skip
SCANNER = ["Manufacturer", "ManufacturerModelName", "StationName", "DeviceSerialNumber", "SoftwareVersions"]


@dataclass(frozen=True, order=True)
class SourceImage:
    """An image plane that was used.

    Attributes:
        sop_class: SOPClassUID (0008,0016) of its file.
        instance: SOPInstanceUID (0008,0018) of its file; empty where it cannot be named.
        number: InstanceNumber (0020,0013), 0 where absent.
        frame: its index in a multi-frame file, else 0.
        frames: NumberOfFrames (0028,0008).
        position_mm: ImagePositionPatient (0020,0032), LPS.
    """

    sop_class: str
    instance: str
    number: int
    frame: int
    frames: int
    position_mm: tuple[float, ...]


@dataclass(frozen=True)
class Origin:
    """What a derived series takes from its source.

    Attributes:
        header: the first slice's data set without pixels; empty for a source that is not DICOM.
        images: every image plane that was used, sorted.
        remarks: what the series gets anew because a DICOM source has none, a sentence each.
    """

    header: Dataset
    images: tuple[SourceImage, ...]
    remarks: tuple[str, ...] = ()

    def digest(self, scan: Scan) -> bytes:
        """The source in 16 bytes: whose it is, its images, and its values and their place, as UIDs may be blank."""
        volume = scan.volume
        place = (volume.spacing_mm, volume.origin_mm, volume.direction.tolist())
        identity = repr(([str(self.header.get(keyword)) for keyword in IDENTITY], self.images, place))
        return digest_of(identity.encode(), volume.hu.tobytes())

    def depths_mm(self, normal: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Where the images lie along a direction, in the order of the source.

        Args:
            normal: (3,) unit vector, LPS.

        Returns:
            (images,) mm.
        """
        return np.array([image.position_mm for image in self.images]).reshape(-1, 3) @ normal

    def counts_down(self, normal: npt.NDArray[np.float64]) -> bool:
        """Whether the source numbers its images against a direction (3,)."""
        order = np.unique([10**6 * image.number + image.frame for image in self.images], return_inverse=True)[1]
        return len(order) > 1 and float(np.cov(order, self.depths_mm(normal))[0, 1]) < 0


def digest_of(*parts: bytes) -> bytes:
    """16 bytes that the parts determine."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(hashlib.blake2b(part).digest())
    return digest.digest()


def uid_of(*parts: bytes) -> UID:
    """A UID below 2.25 that the parts determine, so that the same result is the same object."""
    return UID(f"2.25.{uuid.UUID(bytes=digest_of(*parts), version=5).int}")


@contextmanager
def _source_files(scan: Scan) -> Iterator[Sequence[Path]]:
    found = scan.found
    if found is None or found.kind != "dicom":
        yield ()
        return
    with unpacked(found.archive) if found.archive else nullcontext(Path()) as folder:
        yield [folder / file for file in found.files]


def read_origin(scan: Scan) -> Origin:
    """Read the source's headers again: they are kept nowhere in between.

    Args:
        scan: what a result is made of; a source that is not DICOM gives an empty origin.

    Returns:
        What a derived series takes from them, its image planes sorted.

    Raises:
        UnreadableScanError: the source is no longer what it was.
        ParamsError: its patient or study cannot stand in a new file as it stands there.
    """
    shared = Dataset()
    headers: list[dict[str, str]] = []
    images: list[SourceImage] = []
    with _source_files(scan) as files, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # malformed tags of the source are its own
        for k, file in enumerate(files):
            header = read_header(file)
            if header.is_companion:
                continue
            try:
                dataset = pydicom.dcmread(file, stop_before_pixels=True, force=True)
                shared = shared if headers else _shared(dataset)
                headers.append({keyword: str(dataset.get(keyword) or "") for keyword in ONE_OF_A_SERIES})
                sop_class, instance = _named(dataset)
                used = scan.found.frames[k] if scan.found and scan.found.frames else range(header.frames)
                images += [
                    SourceImage(sop_class, instance, header.counted, plane.frame, header.frames, plane.position_mm)
                    for plane in header.planes
                    if plane.frame in used
                ]
            except BROKEN as error:
                raise UnreadableScanError(
                    f"{file.name} cannot be read again for its patient and study: {error}; export it again"
                ) from error
    for keyword in ONE_OF_A_SERIES:
        if len(values := {header[keyword] for header in headers}) > 1:
            _refuse(scan, keyword, f"has {len(values)} values in the series, expected one")
    for keyword in IDENTITY:
        value = str(shared.get(keyword) or "")
        if keyword.endswith("UID") and value and not UID_CHARACTERS.fullmatch(value):
            _refuse(scan, keyword, f"is {value[:80]!r}, expected up to 64 digits and dots")
        if "\ufffd" in value:
            _refuse(scan, keyword, f"has bytes that its character set {shared.get('SpecificCharacterSet')} has not")
    remarks = [
        f"the source names no {keyword}, but {headers[0][keyword]!r}: the result gets a new one"
        for keyword in ONE_OF_A_SERIES
        if headers and keyword not in shared
    ]
    return Origin(shared, tuple(sorted(images)), tuple(remarks))


def _named(dataset: pydicom.FileDataset) -> tuple[str, str]:
    """SOPClassUID and SOPInstanceUID of an image; without a class, the file's, else a CT image."""
    sop_class = dataset.get("SOPClassUID") or dataset.file_meta.get("MediaStorageSOPClassUID") or CTImageStorage
    instance = str(dataset.get("SOPInstanceUID") or "")
    return str(sop_class), instance if UID_CHARACTERS.fullmatch(instance) else ""


def _refuse(scan: Scan, keyword: str, what: str) -> NoReturn:
    name = f"{keyword} {pydicom.tag.Tag(tag_for_keyword(keyword) or 0)}"
    raise ParamsError(
        f"{scan.found.name if scan.found else 'the source'}: {name} {what}: a DICOM result would not be found with its "
        "patient and study; mend the source, or write a volume file, such as .nii.gz"
    )


def _is_valid(element: DataElement) -> bool:
    """Whether a value may stand in a new file; sloppy de-identification leaves codes and times that may not."""
    if element.keyword == "PatientSex":
        return element.value in {"M", "F", "O"}
    if element.VR == "SQ":
        return True
    values = element.value if element.VM > 1 else [element.value]
    try:
        for value in values:
            validate_value(element.VR, str(value), RAISE)
    except ValueError:
        return False
    return "\ufffd" not in str(element.value)


def _shared(source: Dataset) -> Dataset:
    """The attributes that stay, without private, empty and invalid ones."""
    out = Dataset()
    for tag in source.keys():  # noqa: SIM118 - a data set's iterator decodes the elements that are not wanted, too
        keyword = keyword_for_tag(tag)
        if not (tag.group in SHARED_GROUPS or keyword in SHARED or keyword in SCANNER):
            continue
        element = source[tag]
        if keyword in ONE_OF_A_SERIES and PLACEHOLDER.fullmatch(str(element.value)):
            continue
        if not element.is_empty and (keyword in IDENTITY or _is_valid(element)):
            out.add(element)
    out.remove_private_tags()
    return out
