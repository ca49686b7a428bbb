"""Volume files: NIfTI with nibabel; MetaImage and NRRD with SimpleITK."""

import errno
import math
import os
import struct
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.filebasedimages import ImageFileError
from nibabel.openers import Opener
from nibabel.spatialimages import HeaderDataError

from ctinterp_dagster.errors import IntensityError, UnreadableScanError
from ctinterp_dagster.scan.io.images import itk_image, nifti_image, read_image, refuse_shape
from ctinterp_dagster.scan.io.itk import direction_of, simple_itk
from ctinterp_dagster.scan.io.limits import refuse_size
from ctinterp_dagster.scan.io.text_header import read_text_header
from ctinterp_dagster.scan.volume import FloatArray, RemarkedVolume, Volume

NIFTI_SUFFIXES = (".nii", ".nii.gz")
ITK_SUFFIXES = (".mha", ".mhd", ".nrrd", ".nhdr")
WRITABLE_SUFFIXES = (*NIFTI_SUFFIXES, ".mha", ".nrrd")
NIFTI_KINDS = (nib.Nifti1Image, nib.Nifti2Image)
GZIP_HEADER = bytes([0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 4, 255])  # deflate, no time, fastest, unknown system
GZIP_BLOCK = 4 << 20


def _stored_bytes(shape: Sequence[int], itemsize: int) -> int:
    """What the voxels take in memory: as they are in the file, or as float32 where that is more."""
    return math.prod(shape) * max(itemsize, 4)


def _nifti_image(file: Path) -> nib.Nifti1Image:
    """A NIfTI-1 or NIfTI-2 image of as many bytes as its header has voxels, however far its file unpacks.

    Args:
        file: packed or not.

    Returns:
        The image; its values are read.

    Raises:
        UnreadableScanError: no NIfTI header, or values that are no real numbers.
    """
    with Opener(str(file)) as opened:
        head = opened.read(max(kind.header_class.sizeof_hdr for kind in NIFTI_KINDS))
        kind = next((kind for kind in NIFTI_KINDS if kind.header_class.may_contain_header(head)), None)
        if kind is None:
            raise UnreadableScanError("no readable NIfTI file: no NIfTI header; make it again")
        header = kind.header_class(head[: kind.header_class.sizeof_hdr], check=False)
        shape, dtype, offset = header.get_data_shape(), header.get_data_dtype(), int(header["vox_offset"])
        if dtype.kind not in "iuf":
            raise UnreadableScanError(f"values are of type {dtype}: expected real numbers")
        refuse_shape(shape)
        refuse_size("the file", file.stat().st_size, max(offset, 0) + _stored_bytes(shape, dtype.itemsize))
        size = max(offset, len(head)) + math.prod(shape) * dtype.itemsize
        return kind.from_bytes(head + opened.read(size - len(head) + 1))  # one more: gzip's checksum is at the end


def read_nifti(file: Path) -> RemarkedVolume:
    """Read a NIfTI file, its scaling (scl_slope, scl_inter) and its unit of length applied.

    The sform is used where its code is set, else the qform. A file with neither is refused: its axes, and so left and
    right, would be a guess.

    Args:
        file: .nii or .nii.gz.

    Returns:
        The volume, and what its header says in two ways, or against HU.

    Raises:
        UnreadableScanError: truncated, corrupt, or not numbers.
        GeometryError: no sform or qform code, or an affine with shear.
        NotCtError: several volumes in the file.
        TooFewSlicesError: an image of two axes.
    """
    try:
        return read_image(_nifti_image(file))
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


class Picture(NamedTuple):
    """A plane as it is looked at.

    Attributes:
        hu: (rows, columns), from top to bottom and from left to right.
        pixel_mm: distance of rows, distance of columns.
    """

    hu: FloatArray
    pixel_mm: tuple[float, float]


def middle_planes(file: Path) -> list[Picture]:
    """The middle axial and coronal planes of a NIfTI volume of ours, as a radiologist looks at them.

    The patient's right is on the left, the front or the head on top. Only the two planes are read.

    Args:
        file: what `write_volume` wrote.

    Returns:
        The axial plane, then the coronal one.
    """
    image = nib.load(file)
    _, y, z = (size // 2 for size in image.shape)
    pictures = []
    for slab in (image.slicer[:, :, z : z + 1], image.slicer[:, y : y + 1]):
        upright = nib.as_closest_canonical(slab)  # to the right, the front and the head
        columns_mm, rows_mm = (mm for n, mm in zip(upright.shape, upright.header.get_zooms(), strict=True) if n > 1)
        hu = np.asarray(upright.dataobj, np.float32).squeeze()[::-1, ::-1].T
        pictures.append(Picture(hu, (float(rows_mm), float(columns_mm))))
    return pictures


def read_itk(file: Path) -> RemarkedVolume:
    """Read a MetaImage or NRRD file, its unit of length applied.

    Args:
        file: .mha, .mhd, .nrrd or .nhdr.

    Returns:
        The volume, and what its header says that is not believed.

    Raises:
        UnreadableScanError: truncated or corrupt.
        GeometryError: voxels without a size, an unknown unit, a NRRD file without a space of the patient.
        NotCtError: several volumes, several numbers a voxel, or another modality.
        WrongUnitsError: the header says that the voxels are not the values.
        TooFewSlicesError: an image of two axes.
    """
    reader = simple_itk().ImageFileReader()
    reader.SetFileName(str(file))
    try:
        header = read_text_header(file)
        packed = sum(part.stat().st_size for part in (file, *header.parts))
        reader.ReadImageInformation()
        refuse_shape(reader.GetSize())
        refuse_size("the file", packed, _stored_bytes((*reader.GetSize(), reader.GetNumberOfComponents()), 8))
        header.refuse_unapplied(reader.GetMetaDataKeys())
        image = reader.Execute()
    except (RuntimeError, OSError) as error:
        reason = str(error).strip().splitlines()[-1]
        raise UnreadableScanError(f"no readable {file.suffix} file: {reason}; make it again") from error
    volume, remarks = read_image(image, header.unit_mm())
    return RemarkedVolume(volume, (*remarks, *header.remarks(direction_of(image))))


def _stored(hu: FloatArray, dtype: npt.DTypeLike | None) -> npt.NDArray[Any]:
    """The type that is told, else int16 where that loses nothing, else float32.

    Args:
        hu: HU, of any shape.
        dtype: None to choose.

    Returns:
        The same values in the type that was chosen.

    Raises:
        IntensityError: a value is not finite.
    """
    if not np.isfinite(hu).all():
        raise IntensityError("a volume to write holds NaN or infinity: expected finite HU")
    if dtype is not None:
        return hu.astype(dtype)
    whole = hu.min() >= -32768 and hu.max() <= 32767 and bool((hu == np.rint(hu)).all())
    return hu.astype(np.int16) if whole else hu.astype(np.float32)


def gzipped(data: bytes, strategy: int = zlib.Z_DEFAULT_STRATEGY) -> bytes:
    """One member of gzip, without time or name, whose blocks are deflated side by side on the machine's cores.

    The same data give the same bytes on any number of cores. isal would take a fifth of the time, but its bytes depend
    on the kind of processor.

    Args:
        data: of any length.
        strategy: of zlib; `Z_HUFFMAN_ONLY` looks for no repetition.

    Returns:
        A member of gzip.

    Source: RFC 1952, section 2.3; RFC 1951, section 3.2.4 (an empty stored block ends each but the last on a byte).
    """
    starts = range(0, max(len(data), 1), GZIP_BLOCK)

    def deflated(start: int) -> bytes:
        stream = zlib.compressobj(level=1, wbits=-zlib.MAX_WBITS, strategy=strategy)
        block = stream.compress(memoryview(data)[start : start + GZIP_BLOCK])
        return block + stream.flush(zlib.Z_FINISH if start == starts[-1] else zlib.Z_SYNC_FLUSH)

    with ThreadPoolExecutor() as pool:
        blocks = list(pool.map(deflated, starts))
    return b"".join([GZIP_HEADER, *blocks, struct.pack("<II", zlib.crc32(data), len(data) % 2**32)])


def nifti_bytes(volume: Volume, dtype: npt.DTypeLike | None = None) -> bytes:
    """What `write_volume` writes into a `.nii.gz`.

    Floating-point HU hardly repeat: codes alone take two fifths of the time of a search, and as many bytes.

    Args:
        volume: HU.
        dtype: of the stored values; None to choose.

    Returns:
        A whole packed file.
    """
    stored = _stored(volume.hu, dtype)
    strategy = zlib.Z_HUFFMAN_ONLY if stored.dtype.kind == "f" else zlib.Z_DEFAULT_STRATEGY
    return gzipped(nifti_image(volume, stored).to_bytes(), strategy)


def write_volume(volume: Volume, path: Path | str, dtype: npt.DTypeLike | None = None) -> None:
    """Write a volume as `.nii`, `.nii.gz`, `.mha` or `.nrrd`; the same volume gives the same bytes.

    A NIfTI file carries its place in space in both the sform and the qform, with code 1 (scanner). A run that ends
    meanwhile leaves part of a file: write within `whole_file` where that matters.

    Args:
        volume: (z, y, x) HU.
        path: whose ending is the format.
        dtype: of the values in the file; None for int16 if all are whole numbers in its range, else float32.

    Raises:
        UnreadableScanError: the suffix is not one of the four.
        IntensityError: a value is not finite.
        OSError: the disk is full, or refuses.
    """
    path = Path(path)
    name = path.name.lower()
    if name.endswith(".nii.gz"):
        path.write_bytes(nifti_bytes(volume, dtype))
    elif name.endswith(".nii"):
        path.write_bytes(nifti_image(volume, _stored(volume.hu, dtype)).to_bytes())
    elif name.endswith((".mha", ".nrrd")):
        image = itk_image(volume, _stored(volume.hu, dtype))
        try:
            simple_itk().WriteImage(image, str(path), useCompression=False)
        except RuntimeError as error:  # all that ITK says of a full disk
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path)) from error
    else:
        raise UnreadableScanError(
            f"cannot write {path.name}: expected a name that ends in {', '.join(WRITABLE_SUFFIXES)}"
        )
