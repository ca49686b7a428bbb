"""What a file may claim of itself before any memory is spent on it."""

from collections.abc import Iterator
from pathlib import Path

import pydicom
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.uid import RLELossless

from ctinterp_dagster.errors import UnreadableScanError

# A whole-body CT of 0.5 mm slices has 4,000 files and 2 GB; CT compresses by less than 20.
MAX_BYTES = 8 * 2**30
MAX_RATIO = 200
SMALL_BYTES = 1 << 16  # below it the ratio says little: a small file may be all header, or one value
# Standards need about 10 levels of sequences in sequences; GDCM and pydicom recurse, and die somewhere above 1,000.
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


def refuse_depth(file: Path) -> None:
    """Refuse a DICOM file whose sequences lie so deep in each other that a reader that recurses would die of it.

    Raises:
        UnreadableScanError: more than 64 levels.
    """
    level: list[Dataset] = [pydicom.dcmread(file, stop_before_pixels=True, force=True)]
    for left in reversed(range(MAX_DEPTH + 1)):
        level = list(_sequences(level, left))
        if not level:
            return
    raise UnreadableScanError(
        f"{file.name} has more than {MAX_DEPTH} levels of sequences in sequences: damaged, or made to harm; export it "
        "again"
    )


def refuse_segments(file: Path) -> None:
    """Refuse run-length coded pixels without a segment in one of their frames: GDCM divides by their number.

    Raises:
        UnreadableScanError: a frame has no segments.

    Source: DICOM PS3.5, annex G.5 (the header of a frame begins with the number of its segments).
    """
    dataset = pydicom.dcmread(file, force=True, defer_size=1024)  # pixels are read where they are asked for
    if dataset.file_meta.get("TransferSyntaxUID") != RLELossless or "PixelData" not in dataset:
        return
    frames = int(dataset.get("NumberOfFrames") or 1)
    for number, frame in enumerate(generate_frames(dataset["PixelData"].value, number_of_frames=frames), start=1):
        if not any(frame[:4]):
            raise UnreadableScanError(
                f"frame {number} of {file.name} has no segments of run-length coded pixels, expected one a byte of a "
                "pixel: damaged; export it again"
            )
