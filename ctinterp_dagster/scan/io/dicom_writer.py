"""DICOM series out: one CT image a slice, derived from the series that was read."""

import os
import shutil
import warnings
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian
from pydicom.valuerep import DSfloat

from ctinterp_dagster.errors import IntensityError
from ctinterp_dagster.scan.io.derived_series import SCANNER, Origin, SourceImage, read_origin, uid_of
from ctinterp_dagster.scan.io.found_scan import Scan
from ctinterp_dagster.scan.io.multiframe import multiframe
from ctinterp_dagster.scan.volume import FloatArray, Volume

Quantity = Literal["mean", "std", "sample", "classical"]
# Derived pixel contrast, the fourth value of ImageType. Source: DICOM PS3.3 C.8.16.1.4.
CONTRAST = {"std": "STD_DEVIATION"}
# Of networks' results some content, the detail between slices, is "made artificially rather than being a faithful
# representation of acquired data" (Synthetic Data, 0008,001C); that of classical methods is computed of the scan alone.
NOT_SYNTHETIC = {"classical"}
SPREAD_WINDOW_HU = (50, 100)  # centre and width for a standard deviation
NEIGHBOURS = 2  # thick slices on either side of the nearest one, of which a thin slice is made
INTERCEPT_HU = -1024
NUMBERS = 9999  # of the results of one source, drawn by their content; a SeriesNumber is below 2**31
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


def _code(value: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "DCM", meaning
    return item


def _equipment(header: Dataset, description: str) -> list[Dataset]:
    """The scanner, taken out of the header, and the algorithm: the CT image has no other place for either."""
    scanner, algorithm = Dataset(), Dataset()
    for keyword in SCANNER:
        if keyword in header:
            scanner.add(header[keyword])
            del header[keyword]
    scanner.PurposeOfReferenceCodeSequence = [_code("109101", "Acquisition Equipment")]
    algorithm.Manufacturer = algorithm.ManufacturerModelName = "ctinterp"
    algorithm.SoftwareVersions, algorithm.ContributionDescription = version("ctinterp"), description
    algorithm.PurposeOfReferenceCodeSequence = [_code("109102", "Processing Equipment")]
    return [scanner, algorithm] if "Manufacturer" in scanner else [algorithm]


def _derivation(quantity: Quantity) -> list[Dataset]:
    """The codes of how the voxels were made.

    Args:
        quantity: what the voxels are.

    Returns:
        One code or two, as items of a sequence.

    Source: DICOM PS3.16, CID 7203 (image derivation).
    """
    resampled = _code("113085", "Spatial resampling")
    return [resampled, _code("113061", "Standard Deviation")] if quantity == "std" else [resampled]


def _sources(images: Iterable[SourceImage]) -> list[Dataset]:
    """The images that can be named, one item a file."""
    items: dict[str, Dataset] = {}
    for image in images:
        if not image.instance:
            continue
        item = items.setdefault(image.instance, Dataset())
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = image.sop_class, image.instance
        item.PurposeOfReferenceCodeSequence = [_code("121322", "Source image for image processing operation")]
        if image.frames > 1:
            item.ReferencedFrameNumber = [*np.atleast_1d(item.get("ReferencedFrameNumber", [])), image.frame + 1]
    return list(items.values())


def _nearest(volume: Volume, origin: Origin) -> Iterator[list[SourceImage]]:
    """Of each slice of a result, the images next to it, sorted."""
    normal = volume.direction[:, 2]
    depths_mm = origin.depths_mm(normal)
    order = np.argsort(depths_mm, kind="stable")
    for k in range(volume.depth):
        distance_mm = np.abs(depths_mm[order] - volume.point_mm((k, 0, 0)) @ normal)
        nearest = int(distance_mm.argmin()) if len(order) else 0
        yield [origin.images[i] for i in sorted(order[max(0, nearest - NEIGHBOURS) : nearest + NEIGHBOURS + 1])]


def _decimal(value: float) -> DSfloat:
    return DSfloat(float(value), auto_format=True)


def _template(
    volume: Volume, origin: Origin, source: bytes, series: UID, quantity: Quantity, description: str
) -> Dataset:
    """The attributes that all slices share.

    Args:
        volume: the result, its place in mm.
        origin: attributes of the source.
        source: digest of the source, of which UIDs are made.
        series: SeriesInstanceUID of the result.
        quantity: what the voxels are.
        description: how they were made, 1024 characters at most.

    Returns:
        A data set without pixels and positions.

    Source: DICOM PS3.3 A.3 (CT image IOD), C.7.6.1 and C.12.1.
    """
    out = Dataset()
    out.update(origin.header)
    equipment = _equipment(out, description)
    for keyword in PRESENT:
        if keyword not in out:
            setattr(out, keyword, None)
    for keyword in ("StudyInstanceUID", "FrameOfReferenceUID"):
        if not out.get(keyword):
            setattr(out, keyword, uid_of(keyword.encode(), source))
    if out.get("BodyPartExamined") in {None, *PAIRED} and "Laterality" not in out:
        out.Laterality = None
    if ("WindowCenter" in out) != ("WindowWidth" in out):
        out.pop("WindowCenter", None)
        out.pop("WindowWidth", None)
    if quantity == "std":
        out.WindowCenter, out.WindowWidth = SPREAD_WINDOW_HU
    spacing_mm = volume.spacing_mm
    number = 1 + int(series.rpartition(".")[2]) % NUMBERS
    title = f"{volume.depth} x {spacing_mm[0]:.3g} mm ctinterp {quantity} {number}"
    named = str(out.get("SeriesDescription", ""))[: 63 - len(title)]
    values = {
        "SOPClassUID": CTImageStorage, "Modality": "CT",
        "ImageType": ["DERIVED", "SECONDARY", "AXIAL", CONTRAST.get(quantity, "RESAMPLED")],
        "SyntheticData": "NO" if quantity in NOT_SYNTHETIC else "YES", "DerivationDescription": description,
        "DerivationCodeSequence": _derivation(quantity), "ContributingEquipmentSequence": equipment,
        "SeriesInstanceUID": series, "SeriesNumber": 1000 * number + int(out.SeriesNumber or 0) % 1000,
        "SeriesDescription": f"{named} {title}".strip(),
        "Manufacturer": "ctinterp", "ManufacturerModelName": "ctinterp", "SoftwareVersions": version("ctinterp"),
        "ImageOrientationPatient": [_decimal(v) for v in volume.direction[:, :2].T.ravel()],
        "PixelSpacing": [_decimal(v) for v in spacing_mm[1:]], "SpacingBetweenSlices": _decimal(spacing_mm[0]),
        "Rows": volume.hu.shape[1], "Columns": volume.hu.shape[2],
        "SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2", "BitsAllocated": 16, "BitsStored": 16,
        "HighBit": 15, "PixelRepresentation": 1, "RescaleSlope": 1, "RescaleIntercept": INTERCEPT_HU,
        "RescaleType": "US" if quantity == "std" else "HU",  # 0 of a standard deviation is not water
    }  # fmt: skip
    for keyword, value in values.items():
        setattr(out, keyword, value)
    return out


def refuse_range(hu: FloatArray) -> None:
    """Refuse values, of any shape, that a CT image does not hold.

    Args:
        hu: HU, of any shape.

    Raises:
        IntensityError: a value is not finite, or out of 16 bits.
    """
    low, high = float(hu.min()), float(hu.max())
    if not np.isfinite([low, high]).all():
        raise IntensityError("a volume to write as DICOM holds NaN or infinity: expected finite HU; fill them first")
    limits = np.iinfo(np.int16)
    if round(low) - INTERCEPT_HU < limits.min or round(high) - INTERCEPT_HU > limits.max:
        raise IntensityError(
            f"values run from {low:g} to {high:g} HU: DICOM holds {limits.min + INTERCEPT_HU} to "
            f"{limits.max + INTERCEPT_HU}; write NIfTI, or clip the scan"
        )


def _raw(hu: FloatArray) -> npt.NDArray[np.int16]:
    """(z, y, x) stored values: HU rounded to integers, less the intercept."""
    refuse_range(hu)
    return (np.rint(hu) - INTERCEPT_HU).astype("<i2")


def write_series(
    volume: Volume,
    folder: Path,
    scan: Scan,
    description: str,
    thickness_mm: float | None = None,
    quantity: Quantity = "mean",
    *,
    as_multiframe: bool = False,
) -> None:
    """Write a volume as a DICOM series of CT images in a folder of its own, `IM00001.dcm` and on.

    Patient, study and frame of reference are the source's; series and instance UIDs are new, and the same for the same
    result. A source that is not DICOM gives an empty patient and a study of its own. Values are rounded to whole HU.
    The folder appears only when it is whole.

    Args:
        volume: what to write.
        folder: where; it must not exist or be empty.
        scan: the source, as `read_scan` gave it.
        description: DerivationDescription (0008,2111): software, model, version; no identifiers.
        thickness_mm: SliceThickness (0018,0050); the slices' distance where None.
        quantity: what the values are: a network's posterior mean, its standard deviation, a sample, or what a
            classical method gives. Name, ImageType, window and RescaleType follow.
        as_multiframe: write one Legacy Converted Enhanced CT file instead; needs highdicom.

    Raises:
        IntensityError: a value is not finite, or out of 16 bits.
        UnreadableScanError: the source's headers cannot be read again.
        ParamsError: the source's patient or study cannot be kept.

    Source: DICOM PS3.3 A.3 (CT image), C.7.6.1.1.2 (image type), C.12.1.1.5 (contributing equipment).
    """
    raw = _raw(volume.hu)
    origin = read_origin(scan)
    source = origin.digest(scan)
    thickness_mm = thickness_mm or volume.spacing_mm[0]
    facts = repr((description, quantity, thickness_mm, volume.spacing_mm, volume.origin_mm, volume.direction.tolist()))
    series = uid_of(source, facts.encode(), raw.tobytes())
    template = _template(volume, origin, source, series, quantity, description[:1024])
    template.SliceThickness = _decimal(thickness_mm)
    slices = _slices(template, volume, origin, raw)
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.with_name(f".partial-{os.getpid()}-{folder.name}")
    partial.mkdir()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # identifiers that break a rule are the source's own
            if as_multiframe:
                slices = iter([multiframe(list(slices), scan.found.uid if scan.found else "")])
            for dataset in slices:
                dataset.save_as(partial / f"IM{dataset.InstanceNumber:05d}.dcm", enforce_file_format=True)
        if folder.exists():
            folder.rmdir()  # an empty folder, which Windows does not replace
        partial.replace(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _slices(template: Dataset, volume: Volume, origin: Origin, raw: npt.NDArray[np.int16]) -> Iterator[Dataset]:
    """The images of a series in the order of the volume, numbered in the direction of the source."""
    numbers = range(1, volume.depth + 1)
    numbers = numbers[::-1] if origin.counts_down(volume.direction[:, 2]) else numbers
    for k, (number, slice_, images) in enumerate(zip(numbers, raw, _nearest(volume, origin), strict=True)):
        out, meta = Dataset(), FileMetaDataset()
        out.update(template)
        out.SOPInstanceUID = uid_of(template.SeriesInstanceUID.encode(), str(k).encode())
        out.InstanceNumber, out.PixelData = number, slice_.tobytes()
        out.ImagePositionPatient = [_decimal(v) for v in volume.point_mm((k, 0, 0))]
        if sources := _sources(images):
            out.SourceImageSequence = sources
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, out.SOPInstanceUID
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        out.file_meta = meta
        yield out
