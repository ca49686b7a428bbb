"""DICOM series: headers with pydicom, and what they say of a scan."""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    ImplicitVRLittleEndian,
    LegacyConvertedEnhancedCTImageStorage,
)

from ctinterp_dagster.errors import (
    GeometryError,
    UnreadableScanError,
)
from ctinterp_dagster.scan.io.helical import KEYWORDS, is_helical
from ctinterp_dagster.scan.io.limits import refuse_inflation, refuse_size
from ctinterp_dagster.scan.io.pixels import BROKEN
from ctinterp_dagster.scan.io.plane import MARKS, Plane

SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
CT_CLASSES = {CTImageStorage, EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage}
PERSON = ("PatientName", "PatientBirthDate")
TAGS = [
    "SOPClassUID", "SOPInstanceUID", "ImageType", "Modality", "PatientID", "StudyInstanceUID", "SeriesInstanceUID",
    "SeriesNumber", "SeriesDescription", "SeriesDate", "InstanceNumber", "ImagesInAcquisition",
    "NumberOfSeriesRelatedInstances", "InConcatenationTotalNumber", "SliceThickness", "ConvolutionKernel",
    "FrameOfReferenceUID", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns",
    "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated", "NumberOfFrames", "RescaleSlope",
    "RescaleIntercept", "RescaleType", "ModalityLUTSequence", "BurnedInAnnotation", "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence", *PERSON,
    *(keyword for keywords in MARKS.values() for keyword in keywords), *KEYWORDS,
]  # fmt: skip


@dataclass(frozen=True)
class DicomFile:
    """The header of one DICOM file, as far as reading a scan needs it.

    Attributes:
        file: where it is.
        instance: SOPInstanceUID (0008,0018).
        study: StudyInstanceUID (0020,000D).
        series: SeriesInstanceUID (0020,000E).
        number: SeriesNumber (0020,0011), 0 where absent.
        title: SeriesDescription (0008,103E) and SeriesDate (0008,0021). May name a person.
        patient: PatientID (0010,0020).
        person: PatientName (0010,0010) and PatientBirthDate (0010,0030), where PatientID is blank; else empty.
        counted: InstanceNumber (0020,0013), 0 where absent.
        expected: ImagesInAcquisition (0020,1002) or NumberOfSeriesRelatedInstances (0020,1209), 0 where absent.
        concatenated: InConcatenationTotalNumber (0020,9163), of how many files one image consists, 0 where absent.
        frames: NumberOfFrames (0028,0008), 1 where absent.
        photometric: PhotometricInterpretation (0028,0004).
        modality: Modality (0008,0060).
        image_type: ImageType (0008,0008), and the words that FrameType (0008,9007) of its planes adds.
        sop_class: SOPClassUID (0008,0016).
        kernel: ConvolutionKernel (0018,1210).
        helical: whether the table moved during a turn; None where no tag tells.
        rescale_types: the distinct RescaleType (0028,1054) of its planes, HU where absent as DICOM has it for CT;
            MODALITY LUT where a table takes the place of the rescale.
        burned_in: BurnedInAnnotation (0028,0301) is YES.
        frame_of_reference: FrameOfReferenceUID (0020,0052).
        missing_bytes: how many bytes of uncompressed pixels the file lacks at its end.
        planes: its image planes, without localizers where others are among them; empty for objects without a place in
            space (reports, dose sheets).
    """

    file: Path
    instance: str
    study: str
    series: str
    number: int
    title: tuple[str, str]
    patient: str
    person: str
    counted: int
    expected: int
    concatenated: int
    frames: int
    photometric: str
    modality: str
    image_type: tuple[str, ...]
    sop_class: str
    kernel: str
    helical: bool | None
    rescale_types: frozenset[str]
    burned_in: bool
    frame_of_reference: str
    missing_bytes: int
    planes: tuple[Plane, ...]

    @property
    def owner(self) -> str:
        """Whose it is, as far as its header tells. Identifies a person."""
        return self.patient or self.person

    @property
    def is_captured(self) -> bool:
        """Whether it is a picture of a screen."""
        return self.sop_class == SECONDARY_CAPTURE or self.sop_class.startswith(f"{SECONDARY_CAPTURE}.")

    @property
    def is_companion(self) -> bool:
        """Whether it lies beside slices without being one: a localizer, a screen capture, a report."""
        is_ct = self.planes or self.sop_class in CT_CLASSES
        return not is_ct or self.is_captured or "LOCALIZER" in self.image_type


def is_beside(files: Sequence[DicomFile]) -> bool:
    """Whether a series lies beside slices and has none: companions, or one CT image without a place (a dose page)."""
    return all(f.is_companion for f in files) or (len(files) == files[0].frames == 1 and not files[0].planes)


def _values(dataset: Dataset, keyword: str) -> tuple[str, ...]:
    value = dataset.get(keyword)
    if value is None:
        return ()
    items = value if isinstance(value, pydicom.multival.MultiValue | list | tuple) else [value]
    return tuple(str(item).strip() for item in items)


def _text(dataset: Dataset, keyword: str) -> str:
    return "\\".join(_values(dataset, keyword))


def _whole(dataset: Dataset, keyword: str, absent: int = 0) -> int:
    return int((*_numbers(dataset, keyword), absent)[0])


def _numbers(dataset: Dataset, keyword: str) -> tuple[float, ...]:
    try:
        return tuple(float(v) for v in _values(dataset, keyword) if v)
    except ValueError as error:
        raise UnreadableScanError(f"{keyword} is {_text(dataset, keyword)!r}, expected numbers: {error}") from error


def _frame_groups(dataset: Dataset) -> list[Dataset]:
    """Per frame, the attributes that its functional groups or the file itself give (DICOM PS3.3 C.7.6.16), flat."""
    if "PerFrameFunctionalGroupsSequence" not in dataset:
        return [dataset]
    flat = []
    for own in dataset.PerFrameFunctionalGroupsSequence:
        frame = Dataset()
        for groups in (*dataset.get("SharedFunctionalGroupsSequence", []), own):
            for element in groups:
                if element.VR == "SQ" and len(element.value):
                    frame.update(element.value[0])
        flat.append(frame)
    return flat or [dataset]


def _plane(dataset: Dataset, whole: Dataset, file: Path, frame: int, size: tuple[int, int]) -> Plane | None:
    """One frame's place and values, by its own attributes; what it does not say, the `whole` file does.

    Args:
        dataset: the attributes of the frame.
        whole: those of its file.
        file: where it lies.
        frame: its index in the file, from 0.
        size: rows and columns.

    Returns:
        The plane; None where position, orientation or pixel spacing is missing.

    Raises:
        GeometryError: they do not place the frame in space.
    """
    position = _numbers(dataset, "ImagePositionPatient")
    orientation = _numbers(dataset, "ImageOrientationPatient")
    pixel = _numbers(dataset, "PixelSpacing")
    if (len(position), len(orientation), len(pixel)) != (3, 6, 2):
        return None
    numbers = (*position, *orientation, *pixel)
    axes = np.reshape(orientation, (2, 3))
    if not np.isfinite(numbers).all() or min(pixel) <= 0 or not np.allclose(axes @ axes.T, np.eye(2), atol=2e-2):
        raise GeometryError(
            f"position {position}, orientation {orientation}, pixel spacing {pixel} mm do not place the image: "
            "expected finite numbers, unit vectors at right angles and a positive spacing; export it again"
        )
    told_mm = (*_numbers(dataset, "SliceThickness"), *_numbers(whole, "SliceThickness"))
    thickness = next((mm for mm in told_mm if 0 < mm < math.inf), None)  # 0 stands for not known
    marks = tuple("".join(_text(dataset, k) or _text(whole, k) for k in keywords) for keywords in MARKS.values())
    return Plane(file, frame, position, orientation, pixel, size, thickness, _rescale(dataset), marks)


def _rescale(dataset: Dataset) -> tuple[float, float] | None:
    slope, intercept = _numbers(dataset, "RescaleSlope"), _numbers(dataset, "RescaleIntercept")
    usable = slope and intercept and slope[0] and np.isfinite([slope[0], intercept[0]]).all()
    return (slope[0], intercept[0]) if usable else None


def _rescale_type(dataset: Dataset) -> str:
    return "MODALITY LUT" if "ModalityLUTSequence" in dataset else _text(dataset, "RescaleType").upper() or "HU"


def _missing_bytes(dataset: Dataset, after_header: int) -> int:
    """How many bytes uncompressed pixels need beyond the `after_header` that follow the header.

    Args:
        dataset: a header, read without pixels.
        after_header: bytes of the file behind it.

    Returns:
        0 or more; 0 where they are compressed.

    Source: DICOM PS3.3 C.7.6.3 (image pixel); PS3.5, 7.1 (the element's tag, VR and length take 8 or 12 bytes).
    """
    syntax = dataset.file_meta.get("TransferSyntaxUID", ImplicitVRLittleEndian)
    if syntax.is_compressed or syntax.is_deflated or "BitsAllocated" not in dataset:
        return 0
    tag = 8 if syntax.is_implicit_VR else 12
    sizes = [int(dataset.get(k) or 1) for k in ("Rows", "Columns", "SamplesPerPixel", "NumberOfFrames")]
    return max(0, math.prod(sizes) * int(dataset.BitsAllocated) // 8 + tag - after_header)


def _header(dataset: Dataset, file: Path, sop_class: str, missing_bytes: int) -> DicomFile:
    groups = _frame_groups(dataset)
    size = (_whole(dataset, "Rows"), _whole(dataset, "Columns"))
    frames = _whole(dataset, "NumberOfFrames", 1)
    refuse_size(file.name, file.stat().st_size, 4 * max(len(groups), frames) * size[0] * size[1])
    planes = [_plane(group, dataset, file, k, size) for k, group in enumerate(groups)]
    placed = all(size) and all(planes) and frames == len(planes)
    types = [_values(group, "FrameType") for group in groups]
    slices = [k for k, words in enumerate(types) if "LOCALIZER" not in words] or range(len(types))
    words = dict.fromkeys((*_values(dataset, "ImageType"), *(word for k in slices for word in types[k])))
    return DicomFile(
        file=file,
        instance=_text(dataset, "SOPInstanceUID"),
        study=_text(dataset, "StudyInstanceUID"),
        series=_text(dataset, "SeriesInstanceUID"),
        number=_whole(dataset, "SeriesNumber"),
        title=(_text(dataset, "SeriesDescription"), _text(dataset, "SeriesDate")),
        patient=(patient := _text(dataset, "PatientID")),
        person="" if patient else "\n".join(filter(None, map(partial(_text, dataset), PERSON))),
        counted=_whole(dataset, "InstanceNumber"),
        expected=max(_whole(dataset, "ImagesInAcquisition"), _whole(dataset, "NumberOfSeriesRelatedInstances")),
        concatenated=_whole(dataset, "InConcatenationTotalNumber"),
        frames=frames,
        photometric=_text(dataset, "PhotometricInterpretation") or "MONOCHROME2",
        modality=_text(dataset, "Modality"),
        image_type=tuple(words),
        sop_class=sop_class,
        kernel=_text(dataset, "ConvolutionKernel") or _text(groups[0], "ConvolutionKernel"),
        helical=is_helical(*(_text(dataset, k) or _text(groups[0], k) for k in KEYWORDS)),
        rescale_types=frozenset(_rescale_type(group) for group in groups),
        burned_in=_text(dataset, "BurnedInAnnotation") == "YES",
        frame_of_reference=_text(dataset, "FrameOfReferenceUID"),
        missing_bytes=missing_bytes,
        planes=tuple(p for k in slices if (p := planes[k])) if placed else (),
    )


def read_header(file: Path) -> DicomFile:
    """The header of one DICOM file, read without its pixels.

    Args:
        file: with or without a preamble.

    Returns:
        The header, with a plane for each frame.

    Raises:
        UnreadableScanError: the file is not DICOM, or broken before its pixels.
        GeometryError: the numbers that place it in space are impossible.
    """
    try:
        with warnings.catch_warnings(), file.open("rb") as handle:
            warnings.simplefilter("ignore")  # malformed private or textual tags do not matter here
            refuse_inflation(handle, file.name)
            dataset = pydicom.dcmread(handle, stop_before_pixels=True, force=True, specific_tags=TAGS)
            sop_class = _text(dataset, "SOPClassUID") or _text(dataset.file_meta, "MediaStorageSOPClassUID")
            missing_bytes = _missing_bytes(dataset, file.stat().st_size - handle.tell())
            header = _header(dataset, file, sop_class, missing_bytes)
    except BROKEN as error:
        raise UnreadableScanError(f"{file.name} is no readable DICOM file: {error}; export it again") from error
    if not sop_class:
        raise UnreadableScanError(f"{file.name} is no readable DICOM file: it names no SOPClassUID; export it again")
    return header
