"""Volumes from and to the images of SimpleITK and nibabel, in memory as in files: all that is known of their axes."""

import warnings
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.analyze import AnalyzeHeader
from nibabel.spatialimages import HeaderDataError

from ctinterp_dagster.errors import GeometryError, NotCtError, TooFewSlicesError, UnreadableScanError
from ctinterp_dagster.scan.io.itk import direction_of, is_itk, simple_itk
from ctinterp_dagster.scan.volume import DoubleArray, FloatArray, RemarkedVolume, Volume

Image = Any
"""SimpleITK.Image or a nibabel SpatialImage; neither library has types."""

_X_Y_REVERSED = np.diag([-1.0, -1.0, 1.0])  # RAS and LPS differ in the direction of x and y
# Words of NIfTI, MetaImage and NRRD for a unit of length. Without a unit all programs take millimetres.
UNITS_MM = {
    "": 1.0, "?": 1.0, "unknown": 1.0, "mm": 1.0, "millimeter": 1.0, "millimetre": 1.0, "cm": 10.0, "centimeter": 10.0,
    "centimetre": 10.0, "m": 1e3, "meter": 1e3, "metre": 1e3, "um": 1e-3, "micron": 1e-3, "micrometer": 1e-3,
    "micrometre": 1e-3,
}  # fmt: skip
# Signs that bring a NRRD space to LPS. ITK brings RAS and LAS there itself, and renames them, but not those with time.
SPACES = {
    "left-posterior-superior": (1, 1, 1), "left-posterior-superior-time": (1, 1, 1),
    "right-anterior-superior-time": (-1, -1, 1), "left-anterior-superior-time": (1, -1, 1),
}  # fmt: skip
# A file whose voxels are this much longer along one axis than along both others was cut into slices along it.
COARSE_AXIS = 1.5
APART_MM = 0.1  # two ways to say where a voxel lies may differ by so much


def _slice_axis(spacing_xyz_mm: DoubleArray, direction: DoubleArray) -> int:
    """The through-plane axis of a file that does not name it: the one much coarser than both others, else head-feet."""
    coarse = int(np.argmax(spacing_xyz_mm))
    others = np.delete(spacing_xyz_mm, coarse)
    if spacing_xyz_mm[coarse] >= COARSE_AXIS * others.max():
        return coarse
    return int(np.argmax(np.abs(direction[2])))


def placed(values_xyz: FloatArray, affine: DoubleArray) -> Volume:
    """A volume from an image's axes, the slice axis brought to z; no axis is flipped. `affine_of` is the way back.

    Args:
        values_xyz: values in the image's axis order.
        affine: (3, 4), from voxel indices (x, y, z, 1) to LPS, mm.

    Returns:
        (z, y, x) HU in its place, spacing in mm, LPS.

    Raises:
        GeometryError: the affine is not that of a grid.
    """
    axes = _axes_of(affine)
    return Volume(
        hu=np.ascontiguousarray(values_xyz.transpose(axes.order[::-1]), dtype=np.float32),
        spacing_mm=axes.spacing_mm,
        origin_mm=(float(affine[0, 3]), float(affine[1, 3]), float(affine[2, 3])),
        direction=axes.direction,
    )


class _Axes(NamedTuple):
    """Which of an image's axes is the volume's x, y and z; spacing (z, y, x) in mm; direction of x, y and z, (3, 3)."""

    order: list[int]
    spacing_mm: tuple[float, float, float]
    direction: DoubleArray


def _axes_of(affine: DoubleArray) -> _Axes:
    """The axes of an image.

    Args:
        affine: (3, 4), from voxel indices (x, y, z, 1) to LPS, mm.

    Returns:
        Order of the axes, spacing in mm (z, y, x), and unit vectors.

    Raises:
        GeometryError: the affine is not finite, or a spacing not positive.
    """
    spacing = np.linalg.norm(affine[:, :3], axis=0)
    if not np.isfinite(affine).all() or spacing.min() <= 0:
        raise GeometryError(
            f"the affine {affine.tolist()} mm does not place the image in space: expected finite numbers and positive "
            "spacing; make the file again"
        )
    direction = affine[:, :3] / spacing
    axis = _slice_axis(spacing, direction)
    order = [k for k in range(3) if k != axis] + [axis]
    z, y, x = (float(spacing[k]) for k in reversed(order))
    return _Axes(order, (z, y, x), np.ascontiguousarray(direction[:, order]))


class StoredHu(NamedTuple):
    """Where a `.nii` file has its voxels, int16 in whole HU.

    Attributes:
        offset: bytes before the first.
        shape: of the file's axes, the slowest first.
        axes: which of these are the volume's z, y and x.
        spacing_mm: (z, y, x).
    """

    offset: int
    shape: tuple[int, int, int]
    axes: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]


def stored_hu(path: Path) -> StoredHu | None:
    """Where a `.nii` file that `write_volume` wrote has its voxels; None where it has fractions of HU."""
    image = nib.load(path)
    if image.get_data_dtype() != np.int16:
        return None
    order, spacing_mm, _ = _axes_of(_lps_affine(image))
    x, y, z = image.shape
    return StoredHu(image.dataobj.offset, (z, y, x), (2 - order[2], 2 - order[1], 2 - order[0]), spacing_mm)


def _lps_affine(image: Image) -> DoubleArray:
    """(3, 4) from voxel indices (x, y, z, 1) of an image of nibabel to LPS, in the image's unit of length."""
    return lps_of_ras(np.asarray(image.affine, dtype=np.float64)[:3])


def lps_of_ras(affine: DoubleArray) -> DoubleArray:
    """An affine to RAS as one to LPS; `ras_of_lps` is the way back.

    Args:
        affine: (3, 4), in any unit of length.

    Returns:
        The affine to LPS, in the same unit.

    Source: NIfTI-1.1, section 3D image orientation (+x is right); DICOM PS3.3 C.7.6.2.1.1 (+x is left).
    """
    return np.asarray(_X_Y_REVERSED @ affine)


def ras_of_lps(affine: DoubleArray) -> DoubleArray:
    """An affine to LPS, (3, 4) in any unit of length, as one to RAS; `lps_of_ras` is the way back."""
    return np.asarray(_X_Y_REVERSED @ affine)


def affine_of(volume: Volume) -> DoubleArray:
    """(3, 4) from voxel indices (x, y, z, 1) of a volume to LPS, mm."""
    return np.column_stack([volume.direction * np.array(volume.spacing_mm[::-1]), volume.origin_mm])


def refuse_shape(shape: tuple[int, ...]) -> None:
    """Refuse what is not one volume; axes of length 1 beyond the third are allowed.

    Args:
        shape: of the image, voxels along each axis.

    Raises:
        TooFewSlicesError: too few axes.
        UnreadableScanError: no voxels.
        NotCtError: several volumes.
    """
    if len(shape) < 3:
        raise TooFewSlicesError(f"the image is of shape {shape}: expected a volume of three axes")
    if min(shape) < 1:
        raise UnreadableScanError(f"the image is of shape {shape}: expected voxels; make it again")
    if any(n != 1 for n in shape[3:]):
        raise NotCtError(f"the image holds {shape[3:]} volumes of {shape[:3]}: expected one; split the image")


def unit_mm(word: str) -> float:
    """The millimetres of a unit of length.

    Args:
        word: such as `mm`, in any case; a plural is understood.

    Returns:
        mm, above 0.

    Raises:
        GeometryError: the word is none.
    """
    unit = UNITS_MM.get(word.strip().lower().removesuffix("s"))
    if unit is None:
        raise GeometryError(f"distances are in {word!r}: expected one of {', '.join(filter(None, UNITS_MM))}")
    return unit


def _nifti_unit_mm(header: nib.Nifti1Header) -> float:
    try:
        return unit_mm(header.get_xyzt_units()[0])
    except KeyError as error:
        raise UnreadableScanError(
            f"no readable NIfTI image: xyzt_units is {int(header['xyzt_units'])}, no unit of length; make it again"
        ) from error


def _apart_mm(one: DoubleArray, other: DoubleArray, shape: tuple[int, ...]) -> float:
    """The farthest that two affines place a voxel of a volume apart."""
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in shape[:3]], [1])).reshape(4, -1)
    return float(np.linalg.norm((one[:3] - other[:3]) @ corners, axis=0).max())


def _nifti_remarks(header: nib.Nifti1Header, shape: tuple[int, ...], unit: float) -> tuple[str, ...]:
    """What a NIfTI header says in two ways of which only one is believed, and what else speaks against HU."""
    remarks = []
    sform, sizes_mm = header.get_sform(), np.abs(header["pixdim"][1:4]) * unit
    if header["sform_code"] > 0 and header["qform_code"] > 0:
        try:
            apart = _apart_mm(sform, header.get_qform(), shape) * unit
        except (HeaderDataError, ValueError):
            apart = np.inf
        if not apart <= APART_MM:
            remarks.append(f"sform and qform place voxels up to {apart:.1f} mm apart: the sform is taken")
    elif header["sform_code"] > 0:
        steps_mm = np.linalg.norm(sform[:3, :3], axis=0) * unit
        if not (np.abs(steps_mm - sizes_mm) * shape[:3]).max() <= APART_MM:
            remarks.append(
                f"pixdim says voxels of {sizes_mm.round(4).tolist()} mm (x, y, z), the sform "
                f"{steps_mm.round(4).tolist()}: the sform is taken"
            )
    if header["intent_code"]:
        remarks.append(f"the intent is {header.get_intent()[0]!r}: values may not be HU")
    return tuple(remarks)


def _from_nibabel(image: Image) -> RemarkedVolume:
    refuse_shape(image.shape)
    if image.get_data_dtype().kind not in "iuf":
        raise NotCtError(f"values are of type {image.get_data_dtype()}: expected real numbers (HU)")
    header, unit, remarks = image.header, 1.0, tuple[str, ...]()
    if isinstance(header, nib.Nifti1Header):
        if not (header["sform_code"] > 0 or header["qform_code"] > 0):
            raise GeometryError(
                "sform_code and qform_code are 0: expected one to be set, or left and right are unknown; set the code "
                "of the form that is right"
            )
        unit = _nifti_unit_mm(header)
        remarks = _nifti_remarks(header, image.shape, unit)
    elif isinstance(header, AnalyzeHeader):
        raise GeometryError("an Analyze image does not say what is left and right: expected NIfTI; convert it")
    volume = placed(np.asarray(image.dataobj, dtype=np.float32).reshape(image.shape[:3]), _lps_affine(image) * unit)
    return RemarkedVolume(volume, remarks)


def _from_itk(image: Image, unit: float) -> Volume:
    refuse_shape(image.GetSize())
    if image.GetNumberOfComponentsPerPixel() > 1:
        raise NotCtError(f"the image holds {image.GetNumberOfComponentsPerPixel()} numbers a voxel: expected one (HU)")
    array = simple_itk().GetArrayViewFromImage(image)
    if array.dtype.kind not in "iuf":
        raise NotCtError(f"values are of type {array.dtype}: expected real numbers (HU)")
    entries = {key: image.GetMetaData(key) for key in image.GetMetaDataKeys()}
    space = entries.get(
        "NRRD_space", "" if entries.get("ITK_InputFilterName") == "NrrdImageIO" else "left-posterior-superior"
    )
    if space not in SPACES:
        raise GeometryError(
            f"the NRRD header names the `space` {space!r}: expected RAS, LAS or LPS, or left and right are unknown; "
            "write the one that is right into it"
        )
    if "ITK_VoxelUnits" in entries:  # of MetaImage; ITK hands it on and applies it nowhere
        unit = unit_mm(entries["ITK_VoxelUnits"])
    steps = direction_of(image) * np.array(image.GetSpacing()[:3])
    affine = np.column_stack([steps, image.GetOrigin()[:3]]) * unit
    values = array.astype(np.float32).reshape(array.shape[-3:]).transpose(2, 1, 0)
    return placed(values, np.diag(np.array(SPACES[space], dtype=np.float64)) @ affine)


def read_image(image: Image, unit: float = 1.0) -> RemarkedVolume:
    """The volume of an image in HU, and what its header says that a user should know.

    The slice axis is brought to z, no axis is flipped. Units of length become millimetres.

    Args:
        image: SimpleITK's or nibabel's.
        unit: millimetres of an image of SimpleITK that names no unit itself.

    Returns:
        (z, y, x) HU in its place, and sentences.

    Raises:
        NotCtError: the image is not one volume with one real number a voxel.
        TooFewSlicesError: it has fewer than three axes.
        GeometryError: its axes do not place it in a patient.
        UnreadableScanError: an unknown unit, or no voxels.

    Source: NIfTI-1.1, section 3D image orientation, methods 2 and 3; NRRD, section 5 (space and orientation).
    """
    if is_itk(image):
        return RemarkedVolume(_from_itk(image, unit), ())
    if not isinstance(image, nib.spatialimages.SpatialImage):
        raise NotCtError(
            f"got a {type(image).__name__}: expected an image of SimpleITK or nibabel, an array or a tensor, or a path"
        )
    return _from_nibabel(image)


def volume_of(image: Image) -> Volume:
    """The volume of an image in HU; the slice axis is brought to z, no axis is flipped. What is odd is warned of.

    The sform of NIfTI is used where its code is set, else the qform. Units of length become millimetres.

    Args:
        image: of nibabel or SimpleITK.

    Returns:
        (z, y, x) HU in its place, LPS.

    Raises:
        NotCtError: the image is not one volume with one real number a voxel.
        TooFewSlicesError: it has fewer than three axes.
        GeometryError: its axes do not place it in a patient: no sform or qform code, an Analyze image, a NRRD space
            that is not anatomical, shear.
        UnreadableScanError: an unknown unit, or no voxels.
    """
    volume, remarks = read_image(image)
    for remark in remarks:
        warnings.warn(remark, stacklevel=2)
    return volume


def nifti_image(volume: Volume, values: npt.NDArray[Any]) -> nib.Nifti1Image:
    """Values (z, y, x) in the place of a volume, in sform and qform with code 1 (scanner)."""
    affine = np.vstack([ras_of_lps(affine_of(volume)), [0, 0, 0, 1]])
    image = nib.Nifti1Image(values.transpose(2, 1, 0), affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=1)
    return image


def itk_image(volume: Volume, values: npt.NDArray[Any]) -> Image:
    """Values (z, y, x) in the place of a volume."""
    image = simple_itk().GetImageFromArray(values)
    image.SetSpacing(volume.spacing_mm[::-1])
    image.SetOrigin(volume.origin_mm)
    image.SetDirection(volume.direction.ravel().tolist())
    return image


def image_of(volume: Volume, like: Image) -> Image:
    """A float32 image of the same library as `like`: SimpleITK's, or nibabel's Nifti1Image with sform and qform."""
    return (itk_image if is_itk(like) else nifti_image)(volume, volume.hu)
