"""Builders of scans: nothing is downloaded."""

import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, ExplicitVRLittleEndian

from ctinterp_dagster.scan.io import find_scans, read_scan
from ctinterp_dagster.scan.volume import Volume

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


# Faults of Debian's dciodvfy. It is of 2022, Synthetic Data of a later edition of the standard; and it looks for no
# references in ConversionSourceAttributesSequence (PS3.3 C.7.6.16.2.22), for which C.12.2 wants the series listed.
FAULTS = (
    "Attribute with an even group number is not a recognized standard attribute - (0x0008,0x001c)",
    "ReferencedSeriesSequence present but Instance does not reference Instances - attribute <ReferencedSeriesSequence>",
)


def dicom_errors(file: Path | str) -> list[str]:
    """What dciodvfy finds wrong."""
    said = subprocess.run(["dciodvfy", str(file)], capture_output=True, text=True, check=False)
    return [
        line
        for line in said.stderr.splitlines()
        if line.startswith("Error") and not any(fault in line for fault in FAULTS)
    ]


def rotation(x_deg: float, y_deg: float, z_deg: float) -> np.ndarray:
    """Rotation about x, then y, then z."""
    out = np.eye(3)
    for axis, degrees in enumerate((x_deg, y_deg, z_deg)):
        c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        turn = np.eye(3)
        i, j = [(1, 2), (2, 0), (0, 1)][axis]
        turn[i, i] = turn[j, j] = c
        turn[i, j], turn[j, i] = -s, s
        out = turn @ out
    return out


@pytest.fixture
def oblique() -> Volume:
    """5 x 7 x 9 voxels, all different, oblique, with non-square pixels and an off-centre origin."""
    hu = np.arange(5 * 7 * 9, dtype=np.float32).reshape(5, 7, 9) - 150
    return Volume(hu, (5.0, 0.7, 0.9), (-123.4567, 210.9876, -1233.5432), rotation(14, -9, 21))


def plain_volume(hu: np.ndarray, **changes: Any) -> Volume:
    place = {"spacing_mm": (1.0, 0.8, 0.8), "origin_mm": (0.0, 0.0, 0.0), "direction": np.eye(3)} | changes
    return Volume(hu.astype(np.float32), **place)


def ct_slice(position: Sequence[float], value: int = 0, **tags: Any) -> FileDataset:
    """One CT image of 6 x 8 pixels whose raw values count up from `value`."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    rows, columns = tags.pop("size", (6, 8))
    raw = (np.arange(rows * columns, dtype=np.int16) + value).reshape(rows, columns)
    values = {
        "SOPClassUID": CTImageStorage, "SOPInstanceUID": meta.MediaStorageSOPInstanceUID, "Modality": "CT",
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"], "PatientID": "p1", "SeriesInstanceUID": "1.2.3",
        "SeriesNumber": 4, "SliceThickness": 5.0, "ConvolutionKernel": "B30f", "ImagePositionPatient": list(position),
        "ImageOrientationPatient": list(AXIAL), "PixelSpacing": [0.7, 0.9], "Rows": rows, "Columns": columns,
        "RescaleSlope": 1, "RescaleIntercept": -1024, "SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 16, "BitsStored": 16, "HighBit": 15, "PixelRepresentation": 1, "PixelData": raw.tobytes(),
    }  # fmt: skip
    for keyword, content in (values | tags).items():
        if content is not None:
            setattr(dataset, keyword, content)
    return dataset


@pytest.fixture
def series(tmp_path: Path) -> Callable[..., Path]:
    """Write a series of slices along z; `edit` changes the k-th dataset. File names run against the positions."""

    def write(
        *,
        n: int = 6,
        step: float = 2.0,
        name: str = "scan",
        suffix: str = ".dcm",
        edit: Callable[[int, FileDataset], None] | None = None,
        **tags: Any,
    ) -> Path:
        folder = tmp_path / name
        folder.mkdir(parents=True, exist_ok=True)
        for k in range(n):
            dataset = ct_slice((-10.0, 20.0, 100.0 + step * k), value=100 * k, **tags)
            if edit is not None:
                edit(k, dataset)
            dataset.save_as(folder / f"{n - k:03d}{suffix}", enforce_file_format=True)
        return folder

    return write


def enhanced_ct(depths_mm: Sequence[float], rescales: Sequence[tuple[float, float]]) -> FileDataset:
    """A multi-frame CT; frame k lies at depths_mm[k] and counts up from 100 k."""
    first = ct_slice((0, 0, 0))
    first.file_meta.MediaStorageSOPClassUID = EnhancedCTImageStorage
    first.SOPClassUID = EnhancedCTImageStorage
    for keyword in (
        "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope", "RescaleIntercept",
        "SliceThickness", "ConvolutionKernel",
    ):  # fmt: skip
        delattr(first, keyword)
    plane, measures = Dataset(), Dataset()
    plane.ImageOrientationPatient = list(AXIAL)
    measures.PixelSpacing, measures.SliceThickness = [0.7, 0.9], 3.0
    shared = Dataset()
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [plane], [measures]
    first.SharedFunctionalGroupsSequence = [shared]
    frames, pixels = [], []
    for k, (depth, (slope, intercept)) in enumerate(zip(depths_mm, rescales, strict=True)):
        position, transform, frame = Dataset(), Dataset(), Dataset()
        position.ImagePositionPatient = [-10, 20, depth]
        transform.RescaleSlope, transform.RescaleIntercept, transform.RescaleType = slope, intercept, "HU"
        frame.PlanePositionSequence, frame.PixelValueTransformationSequence = [position], [transform]
        frames.append(frame)
        pixels.append(np.arange(48, dtype=np.int16) + 100 * k)
    first.PerFrameFunctionalGroupsSequence = frames
    first.NumberOfFrames = len(frames)
    first.PixelData = np.concatenate(pixels).tobytes()
    return first


def slices_at(depths: list[float], **marks: list[object]) -> Callable[[int, FileDataset], None]:
    """The k-th slice at the k-th depth, with the k-th value of each attribute."""

    def edit(k: int, dataset: FileDataset) -> None:
        dataset.ImagePositionPatient = [-10, 20, depths[k]]
        for keyword, values in marks.items():
            setattr(dataset, keyword, values[k])

    return edit


def first_values(folder: Path) -> dict[str, list[float]]:
    """The first voxel's stored value of each slice, by scan; slice k was written with 100 k."""
    return {f.name: [float(v) + 1024 for v in read_scan(f).volume.hu[:, 0, 0]] for f in find_scans(folder)}
