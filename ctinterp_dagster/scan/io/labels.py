"""Label maps on the grid of a scan, in and out of files."""

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

from ctinterp_dagster.errors import GeometryError, IntensityError, MissingInputError, UnreadableScanError
from ctinterp_dagster.scan.io.itk import simple_itk
from ctinterp_dagster.scan.io.volume_files import ITK_SUFFIXES, NIFTI_SUFFIXES, read_itk, read_nifti
from ctinterp_dagster.scan.volume import Volume

LARGEST = 2**24  # whole numbers up to it are exact in float32
SAME = 0.1  # of a voxel, by which the places of corners may differ


def read_labels(path: Path, scan: Volume) -> tuple[npt.NDArray[np.int32], np.dtype[Any]]:
    """A label map, its axes turned to those of the scan.

    Args:
        path: a NIfTI, MHA or NRRD file.
        scan: that it belongs to.

    Returns:
        Labels (z, y, x), and the type of the file's numbers.

    Raises:
        MissingInputError: the file is not there.
        UnreadableScanError: it is no such file.
        IntensityError: a value is not a whole number, or too large.
        GeometryError: it is not on the grid of the scan.
    """
    if not path.is_file():
        raise MissingInputError(f"{path} does not exist: expected a label map on the grid of the scan")
    name = path.name.lower()
    if name.endswith(NIFTI_SUFFIXES):
        (volume, _), dtype = read_nifti(path), nib.load(path).get_data_dtype()
    elif name.endswith(ITK_SUFFIXES):
        (volume, _), dtype = read_itk(path), _itk_dtype(path)
    else:
        endings = ", ".join((*NIFTI_SUFFIXES, *ITK_SUFFIXES))
        raise UnreadableScanError(f"{path} is no label map: expected {endings}")
    if not (np.isfinite(volume.hu).all() and (volume.hu == np.rint(volume.hu)).all()):
        raise IntensityError(f"{path} holds values that are not whole numbers: expected a label map")
    if np.abs(volume.hu).max() > LARGEST:
        raise IntensityError(f"{path} holds labels above {LARGEST}: number them anew from 1")
    return _turned(volume, scan, path).astype(np.int32), dtype


def _itk_dtype(path: Path) -> np.dtype[Any]:
    sitk = simple_itk()
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    voxel: npt.NDArray[Any] = sitk.GetArrayFromImage(sitk.Image([1, 1, 1], reader.GetPixelID()))
    return voxel.dtype


def _turned(labels: Volume, scan: Volume, path: Path) -> npt.NDArray[Any]:
    """Values with the axes that run against the scan's reversed, as other readers of DICOM have them.

    Args:
        labels: whole numbers.
        scan: on whose grid they should lie.
        path: of the labels, for messages.

    Returns:
        Values with the axes of the scan.

    Raises:
        GeometryError: the labels are on another grid.
    """
    along = np.diag(scan.direction.T @ labels.direction)[::-1]
    reversed_ = [axis for axis, cosine in enumerate(along) if cosine < 0]
    shape = labels.hu.shape
    corners = [np.array(corner) * (np.array(shape) - 1) for corner in ((0, 0, 0), (1, 1, 1), (1, 0, 0), (0, 1, 0))]
    same = shape == scan.hu.shape
    for corner in corners if same else ():
        turned = [n - 1 - c if axis in reversed_ else c for axis, (n, c) in enumerate(zip(shape, corner, strict=True))]
        apart_mm = np.abs(labels.point_mm(tuple(turned)) - scan.point_mm(tuple(corner))).max()
        same &= bool(apart_mm <= SAME * min(scan.spacing_mm))
    if not same:
        raise GeometryError(
            f"{path} has {_grid(labels)}, the scan {_grid(scan)}: expected labels on the grid of the scan"
        )
    return np.flip(labels.hu, tuple(reversed_))


def _grid(volume: Volume) -> str:
    size, spacing, origin = (
        f"({', '.join(f'{n:.6g}' for n in numbers)})"
        for numbers in (volume.hu.shape, volume.spacing_mm, volume.origin_mm)
    )
    return f"{size} voxels (z, y, x) every {spacing} mm, the first at {origin} mm (LPS)"
