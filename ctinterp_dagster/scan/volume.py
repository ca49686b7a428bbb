"""The one representation of a CT scan that every other room works on."""

import hashlib
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ctinterp_dagster.errors import DerivedError, GeometryError

FloatArray = npt.NDArray[np.float32]
"""HU."""

DoubleArray = npt.NDArray[np.float64]
"""Matrices, directions, positions: what is computed of a grid."""


@dataclass(frozen=True)
class Volume:
    """A CT volume with its place in space.

    Attributes:
        hu: (z, y, x) float32, Hounsfield units. z is the slice axis.
        spacing_mm: distance of voxel centres along (z, y, x), positive.
        origin_mm: patient coordinates (LPS, as DICOM has them) of the centre of voxel (0, 0, 0).
        direction: (3, 3); columns are the unit vectors in LPS of the array's x, y and z axes, in this order,
            which is the order of SimpleITK's direction matrix.

    Source: DICOM PS3.3 C.7.6.2 (image plane: position, orientation, pixel spacing).
    """

    hu: FloatArray
    spacing_mm: tuple[float, float, float]
    origin_mm: tuple[float, float, float]
    direction: DoubleArray

    def __post_init__(self) -> None:
        """Refuse what could not be placed in space.

        Raises:
            GeometryError: the array has not three axes, or no pixels, or spacing or direction are not those of a grid.
        """
        if self.hu.ndim != 3 or 0 in self.hu.shape[1:]:
            raise GeometryError(
                f"a volume has pixels along 3 axes (z, y, x), got shape {self.hu.shape}: give one scan with slices"
            )
        if len(self.spacing_mm) != 3 or not all(np.isfinite(s) and s > 0 for s in self.spacing_mm):
            raise GeometryError(
                f"voxel spacing must be three positive numbers, got {self.spacing_mm} mm (z, y, x): mend it in the file"
            )
        if not np.allclose(self.direction.T @ self.direction, np.eye(3), atol=1e-3):
            raise GeometryError(
                f"the axes of a volume must be orthonormal, got {self.direction.round(4).tolist()} (sheared): of a "
                "scan with tilted gantry give the DICOM series"
            )

    @property
    def depth(self) -> int:
        """Number of slices."""
        return int(self.hu.shape[0])

    def point_mm(self, index_zyx: tuple[float, float, float]) -> DoubleArray:
        """Patient coordinates.

        Args:
            index_zyx: of a voxel, from 0; may be fractional, and lie outside.

        Returns:
            (3,) mm, LPS.

        Source: DICOM PS3.3 C.7.6.2.1.1, equation C.7.6.2.1-1.
        """
        xyz = np.array(index_zyx[::-1], dtype=np.float64) * np.array(self.spacing_mm[::-1], dtype=np.float64)
        return np.asarray(self.origin_mm, dtype=np.float64) + self.direction @ xyz

    def with_hu(self, hu: FloatArray) -> "Volume":
        """The same place in space with other values of the same shape.

        Args:
            hu: (z, y, x).

        Returns:
            A new volume that shares the array.

        Raises:
            GeometryError: the shape is another one.
        """
        if hu.shape != self.hu.shape:
            raise GeometryError(f"expected values of shape {self.hu.shape}, got {hu.shape}")
        return replace(self, hu=hu)

    def with_slices(self, hu: FloatArray, first_index: float, spacing_z_mm: float) -> "Volume":
        """The same in-plane grid with other slices.

        Args:
            hu: (z', y, x) values on the new slices.
            first_index: where the first new slice's centre lies, in slice indices of this volume (may be fractional).
            spacing_z_mm: distance of the new slices' centres.

        Returns:
            The volume; its origin is the first new slice's centre.

        Raises:
            GeometryError: `spacing_z_mm` is not positive.
        """
        origin = self.point_mm((first_index, 0.0, 0.0))
        return Volume(
            hu,
            (spacing_z_mm, *self.spacing_mm[1:]),
            (float(origin[0]), float(origin[1]), float(origin[2])),
            self.direction,
        )


class RemarkedVolume(NamedTuple):
    """A volume that was read or straightened.

    Attributes:
        volume: it.
        remarks: what its user should know: what its header says twice or wrongly, or what was done to it.
    """

    volume: Volume
    remarks: tuple[str, ...]


def refuse_reformat(normal: DoubleArray) -> None:
    """Refuse slices that are not axial.

    Args:
        normal: (3,), what the slices face, LPS.

    Raises:
        DerivedError: they face along x or y.
    """
    if abs(normal[2]) < np.abs(normal).max():
        raise DerivedError(
            f"slices face {normal.round(3).tolist()} (LPS), a sagittal or coronal reformat: expected axial slices, "
            "which face along z; give the series as it was acquired"
        )


def voxel_hash(volume: Volume) -> str:
    """A hash of the values in whole HU, in the order of patient axes: the same for a scan in any format."""
    order = np.abs(volume.direction).argmax(axis=0)  # of the axes x, y, z
    flips = np.sign(volume.direction[order, range(3)]).astype(int)
    hu = volume.hu[:: flips[2], :: flips[1], :: flips[0]].transpose(2 - order[::-1])
    values = np.ascontiguousarray(np.rint(hu).astype(np.int16))
    return hashlib.sha256(repr(values.shape).encode() + values.tobytes()).hexdigest()
