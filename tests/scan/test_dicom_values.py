"""DICOM values: HU by the standard whatever the encoding, and nothing of a library on the terminal."""

import logging
import re
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEGExtended12Bit,
    RLELossless,
)

from ctinterp_dagster.errors import GeometryError, UnreadableScanError, WrongUnitsError
from ctinterp_dagster.scan.io import find_scans, limits, read_scan
from ctinterp_dagster.scan.padding import OUTSIDE_HU

from .seeds import seed

Series = Callable[..., Path]


@pytest.mark.parametrize("signed", [0, 1])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless])
def test_monochrome1_is_a_matter_of_display_and_not_of_hu(series: Series, syntax: pydicom.uid.UID, signed: int) -> None:
    def edit(_: int, dataset: FileDataset) -> None:
        if syntax != dataset.file_meta.TransferSyntaxUID:
            dataset.compress(syntax)

    tags = {"PhotometricInterpretation": "MONOCHROME1", "PixelRepresentation": signed}
    volume = read_scan(series(edit=edit, **tags)).volume
    assert volume.hu[:, 0, 3].tolist() == [100 * k + 3 - 1024 for k in range(6)]


@pytest.mark.parametrize("name", ["DICOM, JPEG", "DICOM, JPEG 2000", "DICOM, RLE", "DICOM, implicit"])
def test_compressed_monochrome1_has_the_hu_of_the_same_pixels_in_monochrome2(tmp_path: Path, name: str) -> None:
    for kind in ("MONOCHROME2", "MONOCHROME1"):
        (tmp_path / kind).mkdir()
        for file, content in seed(name).items():
            (tmp_path / kind / file).write_bytes(content.replace(b"MONOCHROME2", kind.encode()))
    one, two = (read_scan(tmp_path / kind).volume.hu for kind in ("MONOCHROME1", "MONOCHROME2"))
    np.testing.assert_array_equal(one, two)
    assert two[:, 0, 1].tolist() == [300 * k + 1 - 1024 for k in range(4)]


@pytest.mark.parametrize("signed", [0, 1])
def test_bits_above_those_stored_are_no_part_of_the_value(series: Series, signed: int) -> None:
    def edit(k: int, dataset: FileDataset) -> None:
        raw = np.arange(48) + 100 * k - (60 if signed else 0)
        dataset.PixelData = ((raw & 0x0FFF) | 0x5000).astype(np.uint16).tobytes()

    volume = read_scan(series(edit=edit, BitsStored=12, HighBit=11, PixelRepresentation=signed)).volume
    assert volume.hu[:, 0, 0].tolist() == [100 * k - (60 if signed else 0) - 1024 for k in range(6)]


@pytest.mark.parametrize("signed", [0, 1])
def test_bits_above_those_stored_are_told_unless_an_overlay_is_there(series: Series, signed: int) -> None:
    def edit(k: int, dataset: FileDataset) -> None:
        raw = np.arange(48) + 100 * k
        dataset.PixelData = np.where(raw == 100, raw | 0x5000, raw).astype(np.uint16).tobytes()

    tags = {"BitsStored": 12, "HighBit": 11, "PixelRepresentation": signed}
    (said,) = read_scan(series(edit=edit, **tags)).warnings
    assert said.startswith("1 pixels hold bits above BitsStored, the first in '005.dcm': these are left out")

    def overlaid(k: int, dataset: FileDataset) -> None:
        edit(k, dataset)
        dataset.add_new((0x6000, 0x0100), "US", 16)

    assert read_scan(series(name="overlaid", edit=overlaid, **tags)).warnings == ()


def test_signed_values_whose_upper_bits_are_zero_are_read_in_silence(series: Series) -> None:
    def edit(k: int, dataset: FileDataset) -> None:
        dataset.PixelData = ((np.arange(48) + 100 * k - 60) & 0x0FFF).astype(np.uint16).tobytes()

    scan = read_scan(series(edit=edit, BitsStored=12, HighBit=11, PixelRepresentation=1))
    assert scan.volume.hu[:, 0, 0].tolist() == [100 * k - 60 - 1024 for k in range(6)]
    assert scan.warnings == ()


def test_a_way_to_pack_pixels_that_is_not_read_is_named(series: Series) -> None:
    def edit(_: int, dataset: FileDataset) -> None:
        dataset.PixelData = encapsulate([b"none"])
        dataset.file_meta.TransferSyntaxUID = HTJ2KLossless

    with pytest.raises(
        UnreadableScanError, match=r"cannot be decoded \(High-Throughput JPEG 2000 .*again, uncompressed"
    ):
        read_scan(series(edit=edit))


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless])
@pytest.mark.parametrize("signed", [0, 1])
def test_values_that_are_stored_in_the_upper_bits_are_brought_down(
    series: Series, signed: int, syntax: pydicom.uid.UID
) -> None:
    def edit(k: int, dataset: FileDataset) -> None:
        raw = np.arange(48) + 100 * k - (60 if signed else 0)
        dataset.PixelData = (raw << 4).astype(np.uint16).tobytes()
        if syntax != dataset.file_meta.TransferSyntaxUID:
            dataset.compress(syntax)

    scan = read_scan(series(edit=edit, BitsStored=12, HighBit=15, PixelRepresentation=signed))
    assert scan.volume.hu[:, 0, 0].tolist() == [100 * k - (60 if signed else 0) - 1024 for k in range(6)]
    assert scan.warnings == ()


def test_a_high_bit_that_the_values_contradict_is_refused(series: Series) -> None:
    with pytest.raises(UnreadableScanError, match="HighBit is 15, and there are values in the lowest 4 bits"):
        read_scan(series(BitsStored=12, HighBit=15))


def _framed(value: int) -> Callable[[int, FileDataset], None]:
    def edit(k: int, dataset: FileDataset) -> None:
        raw = np.arange(48, dtype=np.int16).reshape(6, 8) + 100 * k
        raw[:2], raw[4, 4] = value, value
        dataset.PixelData, dataset.PixelPaddingValue = raw.tobytes(), value

    return edit


@pytest.mark.parametrize("value", [4095, 1024, 524])
def test_padding_that_may_be_tissue_is_marked_where_it_reaches_the_edge_and_told(series: Series, value: int) -> None:
    scan = read_scan(series(edit=_framed(value)))
    assert (scan.volume.hu[:, :2] == OUTSIDE_HU).all()
    assert (scan.volume.hu[:, 4, 4] == value - 1024).all()
    said = f"padded with {value - 1024} HU (PixelPaddingValue), which may be tissue: -2000 HU stand there now"
    assert scan.warnings == (said,)


@pytest.mark.parametrize("value", [0, -2000])
def test_padding_of_air_or_below_stays_as_it_is(series: Series, value: int) -> None:
    scan = read_scan(series(edit=_framed(value)))
    assert (scan.volume.hu[:, :2] == value - 1024).all()
    assert scan.warnings == ()


def test_a_value_of_padding_that_does_not_fill_the_edge_is_a_value_as_any_other(series: Series) -> None:
    scan = read_scan(series(PixelPaddingValue=100))
    assert scan.volume.hu[1, 0, 0] == 100 - 1024
    assert scan.warnings == ()


@pytest.mark.parametrize("kept", [0, 24])
def test_a_slice_whose_end_was_never_written_is_told(series: Series, kept: int) -> None:
    def edit(k: int, dataset: FileDataset) -> None:
        if k == 2:
            dataset.PixelData = dataset.PixelData[: 2 * kept] + bytes(2 * (48 - kept))

    (said,) = read_scan(series(edit=edit)).warnings
    assert said.startswith(f"'004.dcm' ends in {48 - kept} pixels of one value (-1024 HU), its neighbours do not")


def test_values_that_jump_where_the_rescale_changes_are_refused_with_both_files(series: Series) -> None:
    def edit(k: int, dataset: FileDataset) -> None:
        dataset.RescaleIntercept = -1024 if k < 3 else 0

    said = (
        r"change from \(1.0, -1024.0\) to \(1.0, 0.0\) between '004.dcm' and '003.dcm', and values by 1124 HU with them"
    )
    with pytest.raises(WrongUnitsError, match=said):
        read_scan(series(edit=edit))


def test_float_pixel_data_are_read(series: Series) -> None:
    def edit(k: int, dataset: FileDataset) -> None:
        dataset.FloatPixelData = (np.arange(48, dtype=np.float32) + 100 * k + 0.5).tobytes()
        dataset.BitsAllocated = 32
        for keyword in ("PixelData", "BitsStored", "HighBit", "PixelRepresentation"):
            delattr(dataset, keyword)

    assert read_scan(series(edit=edit)).volume.hu[:, 0, 0].tolist() == [100 * k + 0.5 - 1024 for k in range(6)]


def test_slices_that_all_end_in_one_value_are_no_cut_files(series: Series) -> None:
    def edit(_: int, dataset: FileDataset) -> None:
        dataset.PixelData = dataset.PixelData[:48] + bytes(48)

    assert read_scan(series(edit=edit)).warnings == ()


def test_slices_with_the_pixels_of_the_slice_before_are_told(series: Series) -> None:
    def edit(k: int, dataset: FileDataset) -> None:
        dataset.PixelData = (np.arange(48, dtype=np.int16) + 100 * (k // 2)).tobytes()

    (said,) = read_scan(series(edit=edit)).warnings
    assert said.startswith("3 of 6 slices have the pixels of the slice before, the first two '006.dcm' and '005.dcm'")


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        ({"ModalityLUTSequence": [Dataset()]}, "of type MODALITY LUT: expected RescaleSlope"),
        ({"RescaleSlope": 0}, r"has rescale \[None\]"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "is 'PALETTE COLOR', colours: expected MONOCHROME2"),
    ],
)
def test_values_that_are_not_stored_values_with_a_rescale_are_refused(
    series: Series, tags: dict[str, object], said: str
) -> None:
    with pytest.raises(WrongUnitsError, match=rf"00\d\.dcm.*{said}"):
        read_scan(series(**tags))


@pytest.mark.parametrize("told_mm", [0, -5, None])
def test_a_slice_thickness_that_is_not_positive_is_none(series: Series, told_mm: float | None) -> None:
    assert read_scan(series(SliceThickness=told_mm)).thickness_mm is None


@pytest.mark.parametrize("told_mm", [1e30, 1e-3])
def test_a_slice_thickness_that_no_slice_can_have_is_unknown_and_told(series: Series, told_mm: float) -> None:
    def edit(k: int, dataset: FileDataset) -> None:
        dataset.SliceThickness = told_mm if k > 3 else 5

    scan = read_scan(series(edit=edit))
    assert (scan.thickness_mm, scan.each_thickness_mm) == (5.0, ())
    said = rf"SliceThickness is {re.escape(f'{told_mm:g}')} mm in '00\d\.dcm' \(2 slice\(s\) .*expected 0\.1 to 50 mm"
    assert re.search(said, scan.warnings[0])
    whole = read_scan(series(SliceThickness=told_mm))
    assert (whole.thickness_mm, len(whole.warnings)) == (None, 1)


@pytest.mark.parametrize("n", [1, 3])
def test_frames_without_a_place_of_each_are_refused(series: Series, n: int) -> None:
    def edit(_: int, dataset: FileDataset) -> None:
        dataset.NumberOfFrames = 4
        dataset.PixelData = dataset.PixelData * 4

    with pytest.raises(GeometryError, match=r"00\d\.dcm holds 4 frames and not one place for each"):
        read_scan(series(n=n, edit=edit))


@pytest.mark.parametrize("syntax", [DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian])
def test_other_plain_syntaxes_give_the_same_hu(series: Series, syntax: pydicom.uid.UID) -> None:
    expected = read_scan(series()).volume.hu

    def edit(_: int, dataset: FileDataset) -> None:
        dataset.file_meta.TransferSyntaxUID = syntax
        if syntax == ExplicitVRBigEndian:
            dataset.PixelData = np.frombuffer(dataset.PixelData, np.int16).astype(">i2").tobytes()
            dataset.set_original_encoding(False, False)  # noqa: FBT003 - positional only

    np.testing.assert_array_equal(read_scan(series(name="other", edit=edit)).volume.hu, expected)


def test_a_deflated_file_cut_short_is_unreadable(series: Series) -> None:
    folder = series(edit=lambda _, d: setattr(d.file_meta, "TransferSyntaxUID", DeflatedExplicitVRLittleEndian))
    (folder / "003.dcm").write_bytes((folder / "003.dcm").read_bytes()[:-40])
    (refused,) = (f for f in find_scans(folder) if f.name == "003.dcm")
    assert isinstance(refused.refusal, UnreadableScanError)


def test_a_deflated_file_is_not_inflated_without_end(series: Series, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = series(n=1, edit=lambda _, d: setattr(d.file_meta, "TransferSyntaxUID", DeflatedExplicitVRLittleEndian))
    (file,) = folder.iterdir()
    whole = file.read_bytes()
    meta = 132 + 12 + int.from_bytes(whole[140:144], "little")
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    inside = zlib.decompress(whole[meta:], -zlib.MAX_WBITS)
    file.write_bytes(whole[:meta] + packer.compress(inside + bytes(40 << 20)) + packer.flush())
    monkeypatch.setattr(
        "ctinterp_dagster.scan.io.dicom.pydicom.dcmread", lambda *_, **__: pytest.fail("it was inflated whole")
    )
    (found,) = find_scans(folder)
    assert re.search(r"would grow from \d+ to \d+ bytes", str(found.refusal))
    assert limits.SMALL_BYTES * limits.MAX_RATIO < 40 << 20


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_files_that_begin_with_group_0002_and_have_no_ending_are_found(series: Series, syntax: pydicom.uid.UID) -> None:
    folder = series(suffix="", edit=lambda _, d: setattr(d.file_meta, "TransferSyntaxUID", syntax))
    for file in folder.iterdir():
        file.write_bytes(file.read_bytes()[132:])
    assert read_scan(folder).volume.hu[:, 0, 0].tolist() == [100.0 * k - 1024 for k in range(6)]


# JPEG, extended sequential with 12 bits: 6 x 8 pixels of 2048. Source: ITU-T T.81, annexes B and F.
TABLE = bytes([0xFF, 0xC4, 0, 20]) + b"%c\1" + bytes(16)
JPEG_12 = b"".join(
    [
        bytes([0xFF, 0xD8, 0xFF, 0xDB, 0, 67, 0, *[1] * 64, 0xFF, 0xC1, 0, 11, 12, 0, 6, 0, 8, 1, 1, 0x11, 0]),
        TABLE % 0, TABLE % 16, bytes([0xFF, 0xDA, 0, 8, 1, 1, 0, 0, 63, 0, 0x3F, 0xFF, 0xD9]),
    ]
)  # fmt: skip


def test_what_libraries_say_of_a_file_stays_off_the_terminal(
    series: Series, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """GDCM's codec says four lines a slice, and pydicom that a UID is none."""

    def edit(_: int, dataset: FileDataset) -> None:
        dataset.file_meta.TransferSyntaxUID = JPEGExtended12Bit
        dataset.PixelData = encapsulate([JPEG_12])
        dataset["StudyInstanceUID"] = DataElement(0x0020000D, "UI", "a.2.3", validation_mode=0)

    folder = series(edit=edit, BitsStored=12, HighBit=11, PixelRepresentation=0)
    monkeypatch.setattr(logging.getLogger(), "handlers", [logging.StreamHandler()])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        volume = read_scan(folder).volume
    assert (capfd.readouterr().err, np.unique(volume.hu).tolist()) == ("", [2048 - 1024])
