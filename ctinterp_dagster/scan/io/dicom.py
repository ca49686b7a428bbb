"""DICOM series: headers with pydicom, pixels with GDCM through SimpleITK."""

import math
import re
import struct
import warnings
import zlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    ImplicitVRLittleEndian,
    LegacyConvertedEnhancedCTImageStorage,
)

from ctinterp_dagster.errors import (
    DerivedError,
    GeometryError,
    MixedRescaleError,
    MixedSeriesError,
    NotCtError,
    SecondaryCaptureError,
    TruncatedScanError,
    UnreadableScanError,
    WrongUnitsError,
)
from ctinterp_dagster.scan.io.grid import Grid, Plane, regular_grid, without_scout
from ctinterp_dagster.scan.io.limits import refuse_depth, refuse_segments, refuse_size
from ctinterp_dagster.scan.io.source import Scan
from ctinterp_dagster.scan.volume import FloatArray, Volume

SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
CT_CLASSES = {CTImageStorage, EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage}
# Words in ImageType (0008,0008) of CT images that are no slices as reconstructed: maps, projections, reformats.
COMPUTED = re.compile(
    r"(?<![A-Z])(PERFUSION|RCBF|RCBV|MTT|TTP|MIP|MAX_IP|MINIP|MIN_IP|MAXIMUM|MINIMUM|C?MPR|REFORMATTED)(?![A-Z])"
)
# RescaleType (0028,1054): US (unspecified) and misspelt "Houndsfield Unit" are what some scanners write for HU.
HU_TYPES = {"HU", "US", "HOUNSFIELD UNIT", "HOUNSFIELD UNITS", "HOUNDSFIELD UNIT", "HOUNSFIELD"}
# What pydicom and the conversion of its values raise on bytes that are not what they should be.
BROKEN = (
    BytesLengthException, InvalidDicomError, EOFError, OSError, AttributeError, KeyError, NotImplementedError,
    OverflowError, TypeError, MemoryError, RecursionError,
    ValueError, struct.error, zlib.error,
)  # fmt: skip
TAGS = [
    "SOPClassUID", "ImageType", "Modality", "PatientID", "SeriesInstanceUID", "SeriesNumber", "SliceThickness",
    "ConvolutionKernel", "FrameOfReferenceUID", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing",
    "Rows", "Columns", "SamplesPerPixel", "BitsAllocated", "NumberOfFrames", "RescaleSlope", "RescaleIntercept",
    "RescaleType", "BurnedInAnnotation", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
]  # fmt: skip


@dataclass(frozen=True)
class DicomFile:
    """The header of one DICOM file, as far as reading a scan needs it.

    Attributes:
        file: where it is.
        series: SeriesInstanceUID (0020,000E).
        number: SeriesNumber (0020,0011), 0 where absent.
        patient: PatientID (0010,0020).
        modality: Modality (0008,0060).
        image_type: ImageType (0008,0008).
        sop_class: SOPClassUID (0008,0016).
        thickness_mm: SliceThickness (0018,0050).
        kernel: ConvolutionKernel (0018,1210).
        rescales: the distinct (RescaleSlope, RescaleIntercept) of its planes, None where a plane has none.
        rescale_type: RescaleType (0028,1054), HU where absent as DICOM has it for CT.
        burned_in: BurnedInAnnotation (0028,0301) is YES.
        frame_of_reference: FrameOfReferenceUID (0020,0052).
        missing_bytes: how many bytes of uncompressed pixels the file lacks at its end.
        planes: its image planes; empty for objects without a place in space (reports, dose sheets).
    """

    file: Path
    series: str
    number: int
    patient: str
    modality: str
    image_type: tuple[str, ...]
    sop_class: str
    thickness_mm: float | None
    kernel: str
    rescales: frozenset[tuple[float, float] | None]
    rescale_type: str
    burned_in: bool
    frame_of_reference: str
    missing_bytes: int
    planes: tuple[Plane, ...]

    @property
    def is_captured(self) -> bool:
        """Whether it is a picture of a screen."""
        return self.sop_class == SECONDARY_CAPTURE or self.sop_class.startswith(f"{SECONDARY_CAPTURE}.")

    @property
    def is_companion(self) -> bool:
        """Whether it lies beside slices without being one: a localizer, a screen capture, a report."""
        no_image = not self.planes and self.sop_class not in CT_CLASSES
        return no_image or self.is_captured or "LOCALIZER" in self.image_type


def _values(dataset: Dataset, keyword: str) -> tuple[str, ...]:
    value = dataset.get(keyword)
    if value is None:
        return ()
    items = value if isinstance(value, pydicom.multival.MultiValue | list | tuple) else [value]
    return tuple(str(item).strip() for item in items)


def _text(dataset: Dataset, keyword: str) -> str:
    return "\\".join(_values(dataset, keyword))


def _numbers(dataset: Dataset, keyword: str) -> tuple[float, ...]:
    try:
        return tuple(float(v) for v in _values(dataset, keyword) if v)
    except ValueError as error:
        raise UnreadableScanError(f"{keyword} is {_text(dataset, keyword)!r}, expected numbers: {error}") from error


def _frame_groups(dataset: Dataset) -> list[Dataset]:
    """Per frame, one flat dataset of the attributes that its functional groups or the file itself give.

    Source: DICOM PS3.3 C.7.6.16 (multi-frame functional groups).
    """
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


def _plane(dataset: Dataset, file: Path, frame: int, size: tuple[int, int]) -> Plane | None:
    position = _numbers(dataset, "ImagePositionPatient")
    orientation = _numbers(dataset, "ImageOrientationPatient")
    pixel = _numbers(dataset, "PixelSpacing")
    if (len(position), len(orientation), len(pixel)) != (3, 6, 2):
        return None
    numbers = (*position, *orientation, *pixel)
    lengths = np.linalg.norm(np.reshape(orientation, (2, 3)), axis=1)
    if not np.isfinite(numbers).all() or min(pixel) <= 0 or not np.allclose(lengths, 1, atol=1e-2):
        raise GeometryError(
            f"position {position}, orientation {orientation}, pixel spacing {pixel} mm do not place the image: "
            "expected finite numbers, unit vectors and a positive spacing"
        )
    return Plane(file, frame, position, orientation, pixel, size)


def _rescale(dataset: Dataset) -> tuple[float, float] | None:
    slope, intercept = _numbers(dataset, "RescaleSlope"), _numbers(dataset, "RescaleIntercept")
    return (slope[0], intercept[0]) if slope and intercept else None


def _missing_bytes(dataset: Dataset, after_header: int) -> int:
    """How many bytes uncompressed pixels need beyond the `after_header` that follow the header.

    Source: DICOM PS3.3 C.7.6.3 (image pixel); PS3.5, 7.1 (the element's tag, VR and length take 8 or 12 bytes).
    """
    syntax = dataset.file_meta.get("TransferSyntaxUID", ImplicitVRLittleEndian)
    if syntax.is_compressed or "BitsAllocated" not in dataset:
        return 0
    tag = 8 if syntax.is_implicit_VR else 12
    sizes = [int(dataset.get(k) or 1) for k in ("Rows", "Columns", "SamplesPerPixel", "NumberOfFrames")]
    return max(0, math.prod(sizes) * int(dataset.BitsAllocated) // 8 + tag - after_header)


def _header(dataset: Dataset, file: Path, sop_class: str, missing_bytes: int) -> DicomFile:
    frames = _frame_groups(dataset)
    size = (int(dataset.get("Rows") or 0), int(dataset.get("Columns") or 0))
    count = max(len(frames), int((*_numbers(dataset, "NumberOfFrames"), 1)[0]))
    refuse_size(file.name, file.stat().st_size, 4 * count * size[0] * size[1])
    planes = [_plane(frame, file, k, size) for k, frame in enumerate(frames)]
    thickness = (*_numbers(dataset, "SliceThickness"), *_numbers(frames[0], "SliceThickness"))
    return DicomFile(
        file=file,
        series=_text(dataset, "SeriesInstanceUID"),
        number=int((*_numbers(dataset, "SeriesNumber"), 0)[0]),
        patient=_text(dataset, "PatientID"),
        modality=_text(dataset, "Modality"),
        image_type=_values(dataset, "ImageType"),
        sop_class=sop_class,
        thickness_mm=thickness[0] if thickness else None,
        kernel=_text(dataset, "ConvolutionKernel") or _text(frames[0], "ConvolutionKernel"),
        rescales=frozenset(_rescale(frame) for frame in frames),
        rescale_type=_text(frames[0], "RescaleType").upper() or "HU",
        burned_in=_text(dataset, "BurnedInAnnotation") == "YES",
        frame_of_reference=_text(dataset, "FrameOfReferenceUID"),
        missing_bytes=missing_bytes,
        planes=tuple(p for p in planes if p) if all(size) and all(planes) else (),
    )


def read_header(file: Path) -> DicomFile:
    """Read the header of one DICOM file, without its pixels.

    Raises:
        UnreadableScanError: the file is not DICOM, or broken before its pixels.
        GeometryError: the numbers that place it in space are impossible.
    """
    try:
        with warnings.catch_warnings(), file.open("rb") as handle:
            warnings.simplefilter("ignore")  # malformed private or textual tags do not matter here
            dataset = pydicom.dcmread(handle, stop_before_pixels=True, force=True, specific_tags=TAGS)
            sop_class = _text(dataset, "SOPClassUID") or _text(dataset.file_meta, "MediaStorageSOPClassUID")
            missing_bytes = _missing_bytes(dataset, file.stat().st_size - handle.tell())
            header = _header(dataset, file, sop_class, missing_bytes)
    except BROKEN as error:
        raise UnreadableScanError(f"{file.name} is no readable DICOM file: {error}; export it again") from error
    if not sop_class:
        raise UnreadableScanError(f"{file.name} is no readable DICOM file: it names no SOPClassUID; export it again")
    return header


def check_series(files: Sequence[DicomFile]) -> Grid:
    """Say from the headers alone whether one series is an axial CT in HU on a regular grid, which is returned.

    Raises:
        SecondaryCaptureError: nothing but pictures of a screen.
        NotCtError: no slice among the images, or another modality.
        DerivedError: a projection, a map or a reformat, by ImageType or by planes that are not axial.
        TruncatedScanError: a file is too short for its pixels.
        MixedSeriesError: several patients, sizes, orientations (MixedOrientationError) or rescales (MixedRescaleError).
        WrongUnitsError: no rescale to HU.
        GeometryError: a CT image without a place in space.
        SliceSpacingError, GantryTiltError, TooFewSlicesError: see `regular_grid`.
    """
    slices = [f for f in files if not f.is_companion]
    if not slices:
        kinds = ", ".join(sorted({"/".join(f.image_type) or f.modality for f in files}))
        if all(f.is_captured for f in files):
            raise SecondaryCaptureError(
                f"the {len(files)} file(s) are screen captures ({kinds}), expected CT images: give the axial series"
            )
        raise NotCtError(f"no CT slices among {len(files)} file(s), only {kinds}: give the axial series")
    for file in slices:
        _check_slice(file)
    if len({f.patient for f in slices}) > 1:
        raise MixedSeriesError("the series names more than one PatientID: expected one patient; separate the images")
    planes = without_scout([plane for f in slices for plane in f.planes])
    normal = np.cross(planes[0].orientation[:3], planes[0].orientation[3:])
    if abs(normal[2]) < np.abs(normal).max():
        raise DerivedError(
            f"planes face {normal.round(3).tolist()} (LPS), a sagittal or coronal reformat: expected axial slices, "
            "which face along z; give the series as it was acquired"
        )
    _check_rescale(slices)
    return regular_grid(planes)


def _check_slice(file: DicomFile) -> None:
    name = file.file.name
    if file.modality != "CT":
        raise NotCtError(f"Modality of {name} is {file.modality!r}, expected 'CT': give the CT series")
    if not file.planes:
        raise GeometryError(f"{name} has no position, orientation or size: expected all; export it again")
    if COMPUTED.search("\\".join(file.image_type)):
        raise DerivedError(
            f"ImageType of {name} is {'/'.join(file.image_type)}, a map, a projection or a reformat: expected slices "
            "as reconstructed; give the series as it was acquired"
        )
    if file.missing_bytes:
        raise TruncatedScanError(
            f"{name} is truncated: {file.missing_bytes} bytes of its pixels are missing; export it again"
        )


def _check_rescale(slices: Sequence[DicomFile]) -> None:
    for file in slices:
        if None in file.rescales or file.rescale_type not in HU_TYPES:
            raise WrongUnitsError(
                f"{file.file.name} has rescale {sorted(file.rescales, key=str)} of type {file.rescale_type!r}: "
                "expected RescaleSlope and RescaleIntercept to HU; export the series with them"
            )
        if len(seen := slices[0].rescales | file.rescales) > 1:
            raise MixedRescaleError(
                f"{file.file.name} brings a second (RescaleSlope, RescaleIntercept) into the series: expected one, got "
                f"{sorted(seen, key=str)}; separate the images"
            )


def _pixels(file: Path) -> FloatArray:
    """(frames, y, x) HU of one file; GDCM decodes it and applies slope and intercept, in float32."""
    reader = SimpleITK.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(file))
    reader.SetOutputPixelType(SimpleITK.sitkFloat32)
    try:
        refuse_depth(file)
        refuse_segments(file)
    except BROKEN as error:
        raise UnreadableScanError(f"{file.name} is no readable DICOM file: {error}; export it again") from error
    try:
        array: FloatArray = SimpleITK.GetArrayFromImage(reader.Execute())
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].rpartition("): ")[2]
        raise UnreadableScanError(
            f"pixels of {file.name} cannot be decoded ({reason}): truncated or a broken code stream; export it again"
        ) from error
    return array.reshape(-1, *array.shape[-2:])


def read_series(files: Sequence[Path]) -> Scan:
    """Read one DICOM series.

    Raises:
        ScanError: see `check_series`; UnreadableScanError also where the pixels cannot be decoded.
    """
    headers = [read_header(f) for f in files]
    grid = check_series(headers)
    places: dict[Path, list[tuple[int, int]]] = defaultdict(list)
    for k, plane in enumerate(grid.planes):
        places[plane.file].append((k, plane.frame))
    hu = np.empty((len(grid.planes), *grid.planes[0].size), dtype=np.float32)
    for file, slots in places.items():
        frames = _pixels(file)
        if frames.shape[1:] != hu.shape[1:] or len(frames) <= max(frame for _, frame in slots):
            raise UnreadableScanError(
                f"{file.name} decodes to {frames.shape} (frames, rows, columns), its header says {len(slots)} of "
                f"{hu.shape[1:]}: export it again"
            )
        for k, frame in slots:
            hu[k] = frames[frame]
    used = [h for h in headers if h.file in places]
    thickness = {h.thickness_mm for h in used}
    return Scan(
        volume=Volume(hu, grid.spacing_mm, grid.origin_mm, grid.direction),
        patient=used[0].patient,
        thickness_mm=thickness.pop() if len(thickness) == 1 else None,
        kernel=used[0].kernel,
        modality=used[0].modality,
        kind="dicom",
        burned_in_annotation=any(h.burned_in for h in used),
        derived=any("DERIVED" in h.image_type for h in used),
    )
