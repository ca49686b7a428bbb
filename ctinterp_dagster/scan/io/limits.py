"""What a file may claim of itself before any memory is spent on it."""

import os
import zlib
from collections.abc import Iterator
from typing import BinaryIO

from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset, read_preamble
from pydicom.uid import DeflatedExplicitVRLittleEndian

from ctinterp_dagster.errors import UnreadableScanError

# A whole-body CT of 0.5 mm slices has 4,000 files and 2 GB; CT compresses by less than 20.
MAX_BYTES = 8 * 2**30
MAX_RATIO = 200
SMALL_BYTES = 1 << 16  # below it the ratio says little: a small file may be all header, or one value
META_BYTES = 4096  # group 0002, which names the transfer syntax, lies within
CHUNK_BYTES = 1 << 20
# Standards need about 10 levels of sequences in sequences; pydicom recurses, and dies somewhere above 1,000.
MAX_DEPTH = 64
ITEM = b"\xfe\xff\x00\xe0"  # (FFFE,E000) in little endian, which begins an item of a sequence


def refuse_size(name: str, packed: int, size: int) -> None:
    """Refuse a file that says that it holds more than it can.

    Args:
        name: what it is called.
        packed: its bytes on the disk.
        size: the bytes that its header declares.

    Raises:
        UnreadableScanError: more than 8 GiB, or than 200 times the file (or 64 KiB, where that is more).
    """
    if size > MAX_BYTES or size > MAX_RATIO * max(packed, SMALL_BYTES):
        raise UnreadableScanError(
            f"{name} would grow from {packed} to {size} bytes: expected at most {MAX_BYTES} and {MAX_RATIO} times; "
            "its header is damaged, or it is a bomb"
        )


def _sequences(level: list[Dataset], left: int) -> Iterator[Dataset]:
    """The items one level down, of sequences that can be deeper than the levels left: they hold that many items."""
    for dataset in level:
        for tag in list(dataset.keys()):
            element = dataset.get_item(tag)
            if isinstance(element, RawDataElement) and (element.value or b"").count(ITEM) < left:
                continue
            if dataset[tag].VR == "SQ":
                yield from dataset[tag].value


def refuse_depth(dataset: Dataset, name: str) -> None:
    """Refuse a DICOM file whose sequences lie so deep in each other that a reader that recurses would die of it.

    Args:
        dataset: of a whole file.
        name: of the file, for messages.

    Raises:
        UnreadableScanError: more than 64 levels.
    """
    level = [dataset]
    for left in reversed(range(MAX_DEPTH + 1)):
        level = list(_sequences(level, left))
        if not level:
            return
    raise UnreadableScanError(
        f"{name} has more than {MAX_DEPTH} levels of sequences in sequences: damaged, or made to harm; export it again"
    )


def refuse_inflation(handle: BinaryIO, name: str) -> None:
    """Refuse a deflated DICOM file that inflates to more than it can hold: pydicom inflates it whole.

    Args:
        handle: of DICOM, deflated or not; at its start, before and after.
        name: of the file, for messages.

    Raises:
        UnreadableScanError: more than 8 GiB, or than 200 times the file.
        zlib.error: its data set is not deflated.

    Source: DICOM PS3.5, A.5 (what follows group 0002 is deflated, without a header of its own).
    """
    if DeflatedExplicitVRLittleEndian.encode() in handle.read(META_BYTES):
        held, inflater, size = handle.seek(0, os.SEEK_END), zlib.decompressobj(-zlib.MAX_WBITS), 0
        handle.seek(0)
        read_preamble(handle, force=True)
        read_dataset(handle, is_implicit_VR=False, is_little_endian=True, stop_when=lambda tag, _, __: tag >> 16 != 2)
        while packed := inflater.unconsumed_tail or handle.read(CHUNK_BYTES):
            size += len(inflater.decompress(packed, CHUNK_BYTES))
            refuse_size(name, held, size)
    handle.seek(0)
