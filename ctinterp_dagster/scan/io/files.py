"""Volume files: NIfTI with nibabel; MetaImage and NRRD with SimpleITK."""

import math
import struct
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt
import SimpleITK
from nibabel.filebasedimages import ImageFileError
from nibabel.openers import Opener
from nibabel.spatialimages import HeaderDataError

from ctinterp_dagster.errors import GeometryError, IntensityError, NotCtError, TooFewSlicesError, UnreadableScanError
from ctinterp_dagster.scan.io.limits import refuse_size
from ctinterp_dagster.scan.io.text_header import data_files
from ctinterp_dagster.scan.volume import FloatArray, Volume

NIFTI_SUFFIXES = (".nii", ".nii.gz")
ITK_SUFFIXES = (".mha", ".mhd", ".nrrd", ".nhdr")
WRITABLE_SUFFIXES = (*NIFTI_SUFFIXES, ".mha", ".nrrd")
NIFTI_KINDS = (nib.Nifti1Image, nib.Nifti2Image)
RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0])
GZIP_HEADER = bytes([0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 4, 255])  # deflate, no time, fastest, unknown system
GZIP_BLOCK = 4 << 20
UNITS_MM = {"mm": 1.0, "unknown": 1.0, "meter": 1e3, "micron": 1e-3}
# A file whose voxels are this much longer along one axis than along both others was cut into slices along it.
COARSE_AXIS = 1.5

Array = npt.NDArray[np.float64]


def _slice_axis(spacing_xyz_mm: Array, direction: Array) -> int:
    """The through-plane axis of a file that does not name it: the one much coarser than both others, else head-feet."""
    coarse = int(np.argmax(spacing_xyz_mm))
    others = np.delete(spacing_xyz_mm, coarse)
    if spacing_xyz_mm[coarse] >= COARSE_AXIS * others.max():
        return coarse
    return int(np.argmax(np.abs(direction[2])))


def placed(values_xyz: FloatArray, steps_mm: Array, origin_mm: Array) -> Volume:
    """A volume from file axes, the slice axis brought to z; no axis is flipped.

    Args:
        values_xyz: values in the file's axis order.
        steps_mm: (3, 3), columns are the LPS steps from voxel to voxel along the file's axes.
        origin_mm: LPS position of the first voxel.
    """
    spacing = np.linalg.norm(steps_mm, axis=0)
    if not np.isfinite(steps_mm).all() or not np.isfinite(origin_mm).all() or spacing.min() <= 0:
        raise GeometryError(
            f"voxel steps {steps_mm.tolist()} and origin {origin_mm.tolist()} mm do not place the file in space: "
            "expected finite numbers and positive spacing"
        )
    direction = steps_mm / spacing
    axis = _slice_axis(spacing, direction)
    order = [k for k in range(3) if k != axis] + [axis]
    z, y, x = (float(spacing[k]) for k in reversed(order))
    return Volume(
        hu=np.ascontiguousarray(values_xyz.transpose(order[::-1]), dtype=np.float32),
        spacing_mm=(z, y, x),
        origin_mm=(float(origin_mm[0]), float(origin_mm[1]), float(origin_mm[2])),
        direction=np.ascontiguousarray(direction[:, order]),
    )


def _refuse_shape(shape: tuple[int, ...]) -> None:
    """Refuse what is not one volume; axes of length 1 beyond the third are allowed."""
    if len(shape) < 3:
        raise TooFewSlicesError(f"the file holds an image of shape {shape}: expected a volume of three axes")
    if min(shape) < 1:
        raise UnreadableScanError(f"the file holds an image of shape {shape}: expected voxels; make it again")
    if any(n != 1 for n in shape[3:]):
        raise NotCtError(f"the file holds {shape[3:]} volumes of {shape[:3]}: expected one; split the file")


def _stored_bytes(shape: Sequence[int], itemsize: int) -> int:
    """What the voxels take in memory: as they are in the file, or as float32 where that is more."""
    return math.prod(shape) * max(itemsize, 4)


def _nifti_image(file: Path) -> nib.Nifti1Image:
    """A NIfTI-1 or NIfTI-2 image of as many bytes as its header has voxels, however far its file unpacks."""
    with Opener(str(file)) as opened:
        head = opened.read(max(kind.header_class.sizeof_hdr for kind in NIFTI_KINDS))
        kind = next((kind for kind in NIFTI_KINDS if kind.header_class.may_contain_header(head)), None)
        if kind is None:
            raise UnreadableScanError("no readable NIfTI file: no NIfTI header; make it again")
        header = kind.header_class(head[: kind.header_class.sizeof_hdr], check=False)
        shape, dtype, offset = header.get_data_shape(), header.get_data_dtype(), int(header["vox_offset"])
        if dtype.kind not in "iuf":
            raise UnreadableScanError(f"values are of type {dtype}: expected real numbers")
        _refuse_shape(shape)
        refuse_size("the file", file.stat().st_size, max(offset, 0) + _stored_bytes(shape, dtype.itemsize))
        size = max(offset, len(head)) + math.prod(shape) * dtype.itemsize
        return kind.from_bytes(head + opened.read(size - len(head) + 1))  # one more: gzip's checksum is at the end


def read_nifti(file: Path) -> Volume:
    """Read a NIfTI file, its scaling (scl_slope, scl_inter) applied.

    The sform is used where its code is set, else the qform. A file with neither is refused: its axes, and so left and
    right, would be a guess.

    Raises:
        UnreadableScanError: truncated, corrupt, or not numbers.
        GeometryError: no sform or qform code, or an affine with shear.
        NotCtError: several volumes in the file.
        TooFewSlicesError: an image of two axes.

    Source: NIfTI-1.1, section 3D image orientation, methods 2 and 3.
    """
    try:
        image = _nifti_image(file)
        unit = UNITS_MM[image.header.get_xyzt_units()[0]]
        values = image.get_fdata(dtype=np.float32, caching="unchanged")
    except (
        ImageFileError,
        HeaderDataError,
        EOFError,
        KeyError,
        MemoryError,
        OSError,
        OverflowError,
        ValueError,
        zlib.error,
    ) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UnreadableScanError(f"no readable NIfTI file: {reason}; make it again") from error
    header = image.header
    if not (header["sform_code"] > 0 or header["qform_code"] > 0):
        raise GeometryError("sform_code and qform_code are 0: expected one to be set, or left and right are unknown")
    affine = RAS_TO_LPS @ np.asarray(image.affine, dtype=np.float64)[:3] * unit
    return placed(values.reshape(image.shape[:3]), affine[:, :3], affine[:, 3])


def read_itk(file: Path) -> Volume:
    """Read a MetaImage or NRRD file.

    Raises:
        UnreadableScanError: truncated or corrupt.
        GeometryError: a NRRD file without a space, whose axes would be a guess.
        NotCtError: several volumes, or several numbers a voxel.
        TooFewSlicesError: an image of two axes.
    """
    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(file))
    try:
        packed = sum(part.stat().st_size for part in (file, *data_files(file)))
        reader.ReadImageInformation()
        _refuse_shape(reader.GetSize())
        refuse_size("the file", packed, _stored_bytes((*reader.GetSize(), reader.GetNumberOfComponents()), 8))
        image = reader.Execute()
    except (RuntimeError, OSError) as error:
        reason = str(error).strip().splitlines()[-1]
        raise UnreadableScanError(f"no readable {file.suffix} file: {reason}; make it again") from error
    if image.GetNumberOfComponentsPerPixel() > 1:
        raise NotCtError(f"the file holds {image.GetNumberOfComponentsPerPixel()} numbers a voxel: expected one (HU)")
    if file.suffix.lower() in (".nrrd", ".nhdr") and not image.HasMetaDataKey("NRRD_space"):
        raise GeometryError("the NRRD header names no `space`: expected one, or left and right are unknown")
    n = image.GetDimension()
    direction = np.reshape(image.GetDirection(), (n, n))[:3, :3]
    array = SimpleITK.GetArrayFromImage(image).astype(np.float32)
    values = array.reshape(array.shape[-3:]).transpose(2, 1, 0)
    return placed(values, direction * np.array(image.GetSpacing()[:3]), np.array(image.GetOrigin()[:3]))


def _stored(hu: FloatArray) -> npt.NDArray[np.int16] | FloatArray:
    """int16 where that loses nothing, else float32."""
    if not np.isfinite(hu).all():
        raise IntensityError("a volume to write holds NaN or infinity: expected finite HU")
    whole = hu.min() >= -32768 and hu.max() <= 32767 and bool((hu == np.rint(hu)).all())
    return hu.astype(np.int16) if whole else hu.astype(np.float32)


def _nifti_bytes(volume: Volume) -> bytes:
    affine = np.eye(4)
    affine[:3, :3] = RAS_TO_LPS @ volume.direction * np.array(volume.spacing_mm[::-1])
    affine[:3, 3] = RAS_TO_LPS @ np.array(volume.origin_mm)
    image = nib.Nifti1Image(_stored(volume.hu).transpose(2, 1, 0), affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=1)
    payload: bytes = image.to_bytes()
    return payload


def _write_itk(volume: Volume, path: Path) -> None:
    image = SimpleITK.GetImageFromArray(_stored(volume.hu))
    image.SetSpacing(volume.spacing_mm[::-1])
    image.SetOrigin(volume.origin_mm)
    image.SetDirection(volume.direction.ravel().tolist())
    SimpleITK.WriteImage(image, str(path), useCompression=False)


def gzipped(data: bytes) -> bytes:
    """One member of gzip, without time or name, whose blocks are deflated side by side on the machine's cores.

    The same data give the same bytes on any number of cores.

    Source: RFC 1952, section 2.3; RFC 1951, section 3.2.4 (an empty stored block ends each but the last on a byte).
    """
    starts = range(0, max(len(data), 1), GZIP_BLOCK)

    def deflated(start: int) -> bytes:
        stream = zlib.compressobj(level=1, wbits=-zlib.MAX_WBITS)
        block = stream.compress(memoryview(data)[start : start + GZIP_BLOCK])
        return block + stream.flush(zlib.Z_FINISH if start == starts[-1] else zlib.Z_SYNC_FLUSH)

    with ThreadPoolExecutor() as pool:
        blocks = list(pool.map(deflated, starts))
    return b"".join([GZIP_HEADER, *blocks, struct.pack("<II", zlib.crc32(data), len(data) % 2**32)])


def write_volume(volume: Volume, path: Path) -> None:
    """Write a volume as `.nii`, `.nii.gz`, `.mha` or `.nrrd`; the same volume gives the same bytes.

    Values are int16 if all are whole numbers in its range, else float32. A NIfTI file carries its place in space in
    both the sform and the qform, with code 1 (scanner). The file is not written in one step: see `whole_file`.

    Raises:
        UnreadableScanError: the suffix is not one of the four.
        IntensityError: a value is not finite.
    """
    name = path.name.lower()
    if name.endswith(".nii.gz"):
        path.write_bytes(gzipped(_nifti_bytes(volume)))
    elif name.endswith(".nii"):
        path.write_bytes(_nifti_bytes(volume))
    elif name.endswith((".mha", ".nrrd")):
        _write_itk(volume, path)
    else:
        raise UnreadableScanError(
            f"cannot write {path.name}: expected a name that ends in {', '.join(WRITABLE_SUFFIXES)}"
        )
