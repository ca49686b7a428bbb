"""Stored values of one DICOM file: pydicom reads plain and run-length coded pixels, GDCM (in SimpleITK) the others."""

import logging
import os
import struct
import tempfile
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
    SecondaryCaptureImageStorage,
)

from ctinterp_dagster.errors import UnreadableScanError
from ctinterp_dagster.scan.io.itk import simple_itk
from ctinterp_dagster.scan.io.limits import refuse_depth

PIXELS = [
    "SamplesPerPixel", "PhotometricInterpretation", "NumberOfFrames", "Rows", "Columns", "BitsAllocated", "BitsStored",
    "HighBit", "PixelRepresentation", "PixelData",
]  # fmt: skip
OVERLAYS = range(0x6000, 0x6020, 2)  # groups of overlay planes
# What pydicom and the conversion of its values raise on bytes that are not what they should be.
BROKEN = (
    BytesLengthException, InvalidDicomError, EOFError, OSError, AttributeError, KeyError, NotImplementedError,
    OverflowError, TypeError, MemoryError, RecursionError, ValueError, struct.error, zlib.error,
)  # fmt: skip
_SILENCE = threading.Lock()
logging.getLogger("pydicom").propagate = False  # what it says of a file, our errors say

StoredValues = npt.NDArray[Any]


class Stored(NamedTuple):
    """What one file stores.

    Attributes:
        values: (frames, y, x) stored values, before any rescale, never inverted.
        padding: PixelPaddingValue (0028,0120), the stored value where nothing was measured; None where absent.
        cut: pixels that hold bits above BitsStored (0028,0101), which are no part of the value, and no overlay there.
    """

    values: StoredValues
    padding: int | None
    cut: int


@contextmanager
def _silence() -> Iterator[None]:
    """Let nothing reach the process's standard error: GDCM's decoders write there, past Python and ITK's switches."""
    with _SILENCE, Path(os.devnull).open("wb") as nothing:
        kept = os.dup(2)
        os.dup2(nothing.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def _decoded(dataset: Dataset) -> StoredValues:
    """Code streams as GDCM decodes them, which is shown a file of nothing but them.

    With the whole header it would invert MONOCHROME1 before the rescale, and give all frames the rescale of the first.

    Args:
        dataset: with compressed pixels.

    Returns:
        (frames, y, x) integers.
    """
    bare = Dataset()
    for keyword in (keyword for keyword in PIXELS if keyword in dataset):
        bare.add(dataset[keyword])
    bare.SOPClassUID, bare.SOPInstanceUID = SecondaryCaptureImageStorage, "2.25.1"
    bare.file_meta = FileMetaDataset()
    bare.file_meta.TransferSyntaxUID = dataset.file_meta.TransferSyntaxUID
    reader = simple_itk().ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    with tempfile.NamedTemporaryFile(prefix="ctinterp-", suffix=".dcm") as file:
        bare.save_as(file, enforce_file_format=True)
        file.flush()
        reader.SetFileName(file.name)
        with _silence():
            values: npt.NDArray[Any] = simple_itk().GetArrayFromImage(reader.Execute())
    return values


def _plain(dataset: Dataset, *, little: bool) -> tuple[StoredValues, int]:
    """Pixels as pydicom decodes them, which takes the lowest bits whatever HighBit says; and how many were cut.

    Args:
        dataset: of a whole file.
        little: whether it is little endian.

    Returns:
        (frames, y, x) integers, or (y, x) of a single frame; and how many pixels were cut.

    Raises:
        ValueError: there are bits below those that HighBit and BitsStored name.

    Source: DICOM PS3.5, 8.1.1 (pixel data encoding), in whose older editions HighBit need not be BitsStored - 1.
    """
    if "PixelData" not in dataset:  # Float Pixel Data has no bits to be told of
        return dataset.pixel_array, 0
    high = dataset.get("HighBit", dataset.BitsStored - 1)
    low = max(0, high + 1 - dataset.BitsStored)
    dataset.BitsStored += low
    values: StoredValues = dataset.pixel_array
    if low and (values & (1 << low) - 1).any():
        raise ValueError(f"HighBit is {high}, and there are values in the lowest {low} bits")
    return values >> low, _cut(dataset, values, little=little)


def _cut(dataset: Dataset, values: StoredValues, *, little: bool) -> int:
    """How many pixels hold more bits than their values show, and no overlay that is kept there.

    Args:
        dataset: of a whole file.
        values: (frames, y, x) of it, or without frames.
        little: whether it is little endian.

    Returns:
        0 or more; 0 of code streams.

    Source: DICOM PS3.5 of 2004, 8.1.2 (overlays in unused bits).
    """
    allocated = dataset.BitsAllocated
    overlaid = any(dataset.get((group, 0x0100)) and dataset[group, 0x0100].value == allocated for group in OVERLAYS)
    if allocated != 16 or overlaid or dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        return 0
    raw = np.frombuffer(dataset.PixelData, np.dtype("<u2" if little else ">u2"), values.size)
    extended, filled = (
        values.ravel().astype(np.uint16),
        raw & (1 << dataset.BitsStored) - 1,
    )  # with the sign, with zeros
    return int(np.count_nonzero((raw != extended) & (raw != filled)))


def stored_values(dataset: Dataset) -> Stored:
    """What a data set of one sample a pixel stores.

    Args:
        dataset: of a whole file; its photometric interpretation is overwritten.

    Returns:
        (frames, y, x) integers, the value that tags name for padding, and how many pixels were cut.

    Raises:
        ValueError: its pixels cannot be decoded; or another of `BROKEN`.

    Source: DICOM PS3.3 C.7.6.3.1.2 (MONOCHROME1 is a matter of display), C.11.1 (the rescale is of stored values).
    """
    implicit, little = dataset.original_encoding
    plain = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian if little else ExplicitVRBigEndian
    syntax = dataset.file_meta.setdefault("TransferSyntaxUID", plain).value  # old files do not name theirs
    dataset.PhotometricInterpretation = "MONOCHROME2"
    try:
        decoded = syntax.is_encapsulated and syntax != RLELossless
        array, cut = (_decoded(dataset), 0) if decoded else _plain(dataset, little=little)
    except RuntimeError as error:
        raise ValueError(str(error).strip().splitlines()[-1].rpartition("): ")[2]) from error
    padding = dataset.get("PixelPaddingValue")
    return Stored(np.asarray(array).reshape(-1, *array.shape[-2:]), padding if isinstance(padding, int) else None, cut)


def read_stored(file: Path) -> Stored:
    """What one file stores.

    Args:
        file: DICOM, of one sample a pixel.

    Returns:
        (frames, y, x) integers, the value that tags name for padding, and how many pixels were cut.

    Raises:
        UnreadableScanError: they cannot be decoded.
    """
    form = "unknown form"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what breaks a rule is decoded; what cannot be is an error below
            dataset = pydicom.dcmread(file, force=True)
            form = str(dataset.file_meta.get("TransferSyntaxUID", UID("")).name) or form
            refuse_depth(dataset, file.name)
            return stored_values(dataset)
    except BROKEN as error:
        reason = " ".join(str(error).split())
        raise UnreadableScanError(
            f"pixels of {file.name} cannot be decoded ({form}: {reason}): truncated, a broken code stream, or "
            "packed in a way that is not read; export it again, uncompressed"
        ) from error
