"""One image plane of a DICOM series, and what tells it from others."""

import os
from dataclasses import dataclass
from pathlib import Path

from ctinterp_dagster.scan.checks import SLICE_THICKNESS_MM

# What tells two scans of one series apart, by name; the attributes of which the name is said, put together. Those from
# LATE on tell only slices that lie at the same place: times of reconstruction, and what may change along one scan.
MARKS = {
    "AcquisitionNumber": ("AcquisitionNumber", "FrameAcquisitionNumber"),
    "TemporalPosition": ("TemporalPositionIdentifier", "TemporalPositionIndex"),
    "StackID": ("StackID",),
    "cardiac phase": ("NominalPercentageOfCardiacPhase",),
    "TriggerTime": ("TriggerTime",),
    "time of acquisition": ("AcquisitionDate", "AcquisitionTime"),
    "AcquisitionDateTime": ("AcquisitionDateTime",),
    "time of the frame": ("FrameAcquisitionDateTime",),
    "KVP": ("KVP",),
    "ConvolutionKernel": ("ConvolutionKernel",),
    "FrameOfReferenceUID": ("FrameOfReferenceUID",),
    "ContentTime": ("ContentDate", "ContentTime"),
    "ImageType": ("ImageType",),
    "SliceThickness": ("SliceThickness",),
}
LATE = list(MARKS).index("ContentTime")
# Of these one scan has one each; where it has more, that is told, with what may be wrong then.
SETTINGS = {
    "KVP": "HU may change there",
    "ConvolutionKernel": "sharpness and noise may change there",
    "FrameOfReferenceUID": "the positions may not be of one coordinate system",
}


@dataclass(frozen=True)
class Plane:
    """One image plane of a DICOM file.

    Attributes:
        file: where it is.
        frame: its index in a multi-frame file, else 0.
        position_mm: ImagePositionPatient (0020,0032), LPS.
        orientation: ImageOrientationPatient (0020,0037), direction of a row, then of a column.
        pixel_mm: PixelSpacing (0028,0030): distance of rows, distance of columns.
        size: Rows (0028,0010), Columns (0028,0011).
        tagged_mm: SliceThickness (0018,0050) as it stands; None where it is absent or not positive.
        rescale: RescaleSlope (0028,1053), RescaleIntercept (0028,1052); None where one is missing.
        marks: what may tell it from another plane at the same place, in the order of `MARKS`.
    """

    file: Path
    frame: int
    position_mm: tuple[float, ...]
    orientation: tuple[float, ...]
    pixel_mm: tuple[float, ...]
    size: tuple[int, int]
    tagged_mm: float | None = None
    rescale: tuple[float, float] | None = None
    marks: tuple[str, ...] = ()

    @property
    def thickness_mm(self) -> float | None:
        """SliceThickness; None where it is unknown, or is what no slice can have."""
        low, high = SLICE_THICKNESS_MM
        return self.tagged_mm if self.tagged_mm is not None and low <= self.tagged_mm <= high else None


def named(plane: Plane, other: Plane) -> tuple[str, str]:
    """The names of two planes' files, with as much of their folders as tells them apart."""
    parents = [plane.file.parent, other.file.parent]
    top = Path(os.path.commonpath(parents))
    one, two = (
        p.file.relative_to(top).as_posix() + (f" (frame {p.frame + 1})" if p.frame else "") for p in (plane, other)
    )
    return one, two
