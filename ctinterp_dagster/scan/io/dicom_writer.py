"""DICOM series out: one CT image a slice, derived from the series that was read."""

import hashlib
import os
import shutil
import uuid
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.config import RAISE
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian
from pydicom.valuerep import DSfloat, validate_value

from ctinterp_dagster.errors import IntensityError, UnreadableScanError
from ctinterp_dagster.scan.io.archive import unpacked
from ctinterp_dagster.scan.io.dicom import BROKEN, read_header
from ctinterp_dagster.scan.io.source import Scan
from ctinterp_dagster.scan.volume import Volume

INTERCEPT_HU = -1024
NUMBER_OFFSET = 1000  # the new series' number lies this far above the source's
# Whole modules that a derived image shares with its source: patient and clinical trial.
SHARED_GROUPS = (0x0010, 0x0012)
SHARED = [
    "SpecificCharacterSet", "TimezoneOffsetFromUTC", "StudyInstanceUID", "StudyDate", "StudyTime", "StudyID",
    "StudyDescription", "AccessionNumber", "IssuerOfAccessionNumberSequence", "ReferringPhysicianName",
    "ProcedureCodeSequence", "FrameOfReferenceUID", "PositionReferenceIndicator", "PatientPosition",
    "BodyPartExamined", "Laterality", "ProtocolName", "AcquisitionNumber", "AcquisitionDate", "AcquisitionTime", "KVP",
    "ConvolutionKernel", "ReconstructionDiameter", "ContrastBolusAgent", "ContrastBolusRoute", "BurnedInAnnotation",
    "LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod", "WindowCenter",
    "WindowWidth",
]  # fmt: skip
# Type 2: must be there, may be empty.
PRESENT = [
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID",
    "AccessionNumber", "ReferringPhysicianName", "PositionReferenceIndicator", "PatientPosition", "KVP",
    "AcquisitionNumber", "SeriesNumber",
]  # fmt: skip
# Paired body parts, of which (or of an unknown one) Laterality must be there, if empty. Source: DICOM PS3.16, annex L.
PAIRED = {
    "ANKLE", "ARM", "BREAST", "CLAVICLE", "EAR", "ELBOW", "EXTREMITY", "EYE", "FEMUR", "FINGER", "FOOT", "HAND", "HIP",
    "HUMERUS", "KNEE", "LEG", "ORBIT", "SCAPULA", "SHOULDER", "THIGH", "THUMB", "TOE", "WRIST",
}  # fmt: skip
SCANNER = ["Manufacturer", "ManufacturerModelName", "StationName", "DeviceSerialNumber", "SoftwareVersions"]


@dataclass(frozen=True)
class Origin:
    """What a derived series takes from its source.

    Attributes:
        header: the first slice's data set without pixels; empty for a source that is not DICOM.
        images: (SOPClassUID, SOPInstanceUID) of every image that was used, in sorted order of files.
    """

    header: Dataset
    images: tuple[tuple[str, str], ...]


@contextmanager
def _source_files(scan: Scan) -> Iterator[Sequence[Path]]:
    found = scan.found
    if found is None or found.kind != "dicom":
        yield ()
        return
    with unpacked(found.archive) if found.archive else nullcontext(Path()) as folder:
        yield [folder / file for file in found.files]


def _origin(scan: Scan) -> Origin:
    """Read the source's headers again: they are kept nowhere in between.

    Raises:
        UnreadableScanError: the source is no longer what it was.
    """
    header, images = Dataset(), []
    with _source_files(scan) as files, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # malformed tags of the source are its own
        for file in files:
            if read_header(file).is_companion:
                continue
            try:
                dataset = pydicom.dcmread(file, stop_before_pixels=True, force=True)
                images.append((str(dataset.SOPClassUID), str(dataset.SOPInstanceUID)))
                header = header or _shared(dataset)
            except BROKEN as error:
                raise UnreadableScanError(
                    f"{file.name} cannot be read again for its patient and study: {error}; export it again"
                ) from error
    return Origin(header, tuple(images))


def _is_valid(element: DataElement) -> bool:
    """Whether a value may stand in a new file; sloppy de-identification leaves UIDs and times that may not."""
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
    return True


def _shared(source: Dataset) -> Dataset:
    """The attributes that stay, without private, empty and invalid ones."""
    out = Dataset()
    keywords = {*SHARED, *SCANNER, "SeriesNumber", "SeriesDescription"}
    for element in source:
        kept = element.tag.group in SHARED_GROUPS or element.keyword in keywords
        if kept and not element.is_private and not element.is_empty and _is_valid(element):
            out.add(element)
    return out


def _code(value: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "DCM", meaning
    return item


def _scanner(header: Dataset) -> list[Dataset]:
    """The scanner as contributing equipment: the series' own equipment is this software."""
    item = Dataset()
    for keyword in SCANNER:
        if keyword in header:
            item.add(header[keyword])
            del header[keyword]
    if "Manufacturer" not in item:
        return []
    item.PurposeOfReferenceCodeSequence = [_code("109101", "Acquisition Equipment")]
    return [item]


def _sources(origin: Origin) -> list[Dataset]:
    items = []
    for sop_class, instance in origin.images:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, instance
        item.PurposeOfReferenceCodeSequence = [_code("121322", "Source image for image processing operation")]
        items.append(item)
    return items


def _uid(*parts: bytes) -> UID:
    """A UID below 2.25 that the parts determine, so that the same result is the same object."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(hashlib.blake2b(part).digest())
    return UID(f"2.25.{uuid.UUID(bytes=digest.digest(), version=5).int}")


def _decimal(value: float) -> DSfloat:
    return DSfloat(float(value), auto_format=True)


def _template(volume: Volume, origin: Origin, description: str, series: UID, thickness_mm: float | None) -> Dataset:
    """The attributes that all slices share. Source: DICOM PS3.3 A.3 (CT image IOD), C.7.6.1 and C.12.1."""
    out = Dataset()
    out.update(origin.header)
    equipment = _scanner(out)
    for keyword in PRESENT:
        if keyword not in out:
            setattr(out, keyword, None)
    if not out.get("StudyInstanceUID"):
        out.StudyInstanceUID = _uid(b"study", repr(origin.images).encode() if origin.images else series.encode())
    if not out.get("FrameOfReferenceUID"):
        out.FrameOfReferenceUID = _uid(b"frame", repr(origin.images).encode() if origin.images else series.encode())
    if out.get("BodyPartExamined") in {None, *PAIRED} and "Laterality" not in out:
        out.Laterality = None
    if ("WindowCenter" in out) != ("WindowWidth" in out):
        out.pop("WindowCenter", None)
        out.pop("WindowWidth", None)
    spacing_mm = volume.spacing_mm
    title = f"{spacing_mm[0]:.3g} mm ctinterp"
    named = str(out.get("SeriesDescription", ""))[: 63 - len(title)]
    values = {
        "SOPClassUID": CTImageStorage, "Modality": "CT", "ImageType": ["DERIVED", "SECONDARY", "AXIAL"],
        "SeriesInstanceUID": series, "SeriesNumber": int(out.SeriesNumber or 0) + NUMBER_OFFSET,
        "SeriesDescription": f"{named} {title}".strip(), "DerivationDescription": description[:1024],
        "Manufacturer": "ctinterp", "ManufacturerModelName": "ctinterp", "SoftwareVersions": version("ctinterp"),
        "ImageOrientationPatient": [_decimal(v) for v in volume.direction[:, :2].T.ravel()],
        "PixelSpacing": [_decimal(v) for v in spacing_mm[1:]], "SpacingBetweenSlices": _decimal(spacing_mm[0]),
        "SliceThickness": _decimal(thickness_mm or spacing_mm[0]),
        "Rows": volume.hu.shape[1], "Columns": volume.hu.shape[2],
        "SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2", "BitsAllocated": 16, "BitsStored": 16,
        "HighBit": 15, "PixelRepresentation": 1, "RescaleSlope": 1, "RescaleIntercept": INTERCEPT_HU,
        "RescaleType": "HU",
    }  # fmt: skip
    for keyword, value in values.items():
        setattr(out, keyword, value)
    if equipment:
        out.ContributingEquipmentSequence = equipment
    if origin.images:
        out.SourceImageSequence = _sources(origin)
    return out


def _raw(volume: Volume) -> npt.NDArray[np.int16]:
    """(z, y, x) stored values: HU rounded to integers, less the intercept."""
    if not np.isfinite(volume.hu).all():
        raise IntensityError("a volume to write holds NaN or infinity: expected finite HU")
    raw = np.rint(volume.hu) - INTERCEPT_HU
    low, high = float(raw.min()) + INTERCEPT_HU, float(raw.max()) + INTERCEPT_HU
    limits = np.iinfo(np.int16)
    if raw.min() < limits.min or raw.max() > limits.max:
        raise IntensityError(
            f"values run from {low:g} to {high:g} HU: DICOM holds {limits.min + INTERCEPT_HU} to "
            f"{limits.max + INTERCEPT_HU}; write NIfTI, or clip the scan"
        )
    return raw.astype("<i2")


def write_series(volume: Volume, folder: Path, scan: Scan, description: str, thickness_mm: float | None = None) -> None:
    """Write a volume as a DICOM series of CT images in a folder of its own, `IM00001.dcm` and on.

    Patient, study and frame of reference are the source's; series and instance UIDs are new, and the same for the same
    result. A source that is not DICOM gives an empty patient and a new study. Values are rounded to whole HU. The
    folder appears only when it is whole.

    Args:
        volume: what to write.
        folder: where; it must not exist or be empty.
        scan: the source, as `read_scan` gave it.
        description: DerivationDescription (0008,2111): software, model, version; no identifiers.
        thickness_mm: SliceThickness (0018,0050); the slices' distance where None.

    Raises:
        IntensityError: a value is not finite, or out of 16 bits.
        UnreadableScanError: the source's headers cannot be read again.

    Source: DICOM PS3.3 A.3 (CT image), C.7.6.1.1.2 (image type), C.12.1.1.5 (contributing equipment).
    """
    raw = _raw(volume)
    origin = _origin(scan)
    place = repr((volume.spacing_mm, volume.origin_mm, volume.direction.tolist())).encode()
    series = _uid(repr(origin.images).encode(), description.encode(), place, raw.tobytes())
    dataset = _template(volume, origin, description, series, thickness_mm)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = CTImageStorage, ExplicitVRLittleEndian
    dataset.file_meta = meta
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.with_name(f".partial-{os.getpid()}-{folder.name}")
    partial.mkdir()
    try:
        for k, slice_ in enumerate(raw):
            dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID = _uid(series.encode(), str(k).encode())
            dataset.InstanceNumber = k + 1
            dataset.ImagePositionPatient = [_decimal(v) for v in volume.point_mm((k, 0, 0))]
            dataset.PixelData = slice_.tobytes()
            dataset.save_as(partial / f"IM{k + 1:05d}.dcm", enforce_file_format=True)
        partial.replace(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
