"""DICOM series: read rightly, or refused for the right reason."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, JPEG2000Lossless, RLELossless

from ctinterp_dagster.errors import (
    DerivedError,
    DuplicateSlicesError,
    GeometryError,
    MissingSlicesError,
    MixedOrientationError,
    MixedSeriesError,
    NotCtError,
    SecondaryCaptureError,
    TooFewSlicesError,
    TruncatedScanError,
    UnevenSpacingError,
    UnreadableScanError,
    WrongUnitsError,
)
from ctinterp_dagster.scan.io import find_scans, read_scan, read_stretches

from .conftest import ct_slice, rotation

Series = Callable[..., Path]


def _set(**tags: object) -> Callable[[int, FileDataset], None]:
    def edit(_: int, dataset: FileDataset) -> None:
        for keyword, value in tags.items():
            setattr(dataset, keyword, value)

    return edit


def _only(k: int, **tags: object) -> Callable[[int, FileDataset], None]:
    return lambda i, dataset: _set(**tags)(i, dataset) if i == k else None


def test_slices_are_sorted_by_position_and_not_by_file_name(series: Series) -> None:
    scan = read_scan(series(n=6, step=2.0))
    assert scan.volume.hu[:, 0, 0].tolist() == [100.0 * k - 1024 for k in range(6)]
    assert scan.volume.spacing_mm == pytest.approx((2.0, 0.7, 0.9))
    assert scan.volume.origin_mm == (-10.0, 20.0, 100.0)
    np.testing.assert_array_equal(scan.volume.direction, np.eye(3))
    assert (scan.patient, scan.thickness_mm, scan.kernel, scan.modality, scan.kind) == (
        "p1",
        5.0,
        "B30f",
        "CT",
        "dicom",
    )
    assert not scan.burned_in_annotation


def test_spacing_is_measured_on_positions_and_not_taken_from_the_thickness(series: Series) -> None:
    scan = read_scan(series(step=1.25, SliceThickness=5.0, SpacingBetweenSlices=5.0))
    assert scan.volume.spacing_mm[0] == pytest.approx(1.25)
    assert scan.thickness_mm == 5.0


def test_an_oblique_series_keeps_every_voxel_in_its_place(series: Series) -> None:
    turn = rotation(12, 7, -20)

    def tilt_head(k: int, dataset: FileDataset) -> None:
        dataset.ImageOrientationPatient = [round(v, 9) for v in (*turn[:, 0], *turn[:, 1])]
        dataset.ImagePositionPatient = [round(v, 6) for v in np.array([5, -8, 30]) + 3.0 * k * turn[:, 2]]

    volume = read_scan(series(edit=tilt_head)).volume
    corner = np.array([5, -8, 30]) + turn @ np.array([7 * 0.9, 5 * 0.7, 5 * 3.0])
    np.testing.assert_allclose(volume.point_mm((5, 5, 7)), corner, atol=1e-3)
    assert volume.hu[5, 5, 7] == 500 + 47 - 1024


def test_a_series_from_head_to_feet_has_its_normal_down(series: Series) -> None:
    """Columns that run to the front turn the normal: the array's z must follow it, values and all."""
    volume = read_scan(series(edit=_set(ImageOrientationPatient=[1, 0, 0, 0, -1, 0]))).volume
    assert volume.direction[:, 2].tolist() == [0, 0, -1]
    assert volume.origin_mm[2] == 110.0
    assert volume.hu[0, 0, 0] == 500 - 1024


@pytest.mark.parametrize("representation", [0, 1])
@pytest.mark.parametrize(("slope", "intercept"), [(1, -1024), (0.5, -1000.25), (2, 3), (1, 0)])
def test_hu_is_slope_times_raw_plus_intercept_exactly(
    series: Series, slope: float, intercept: float, representation: int
) -> None:
    folder = series(RescaleSlope=slope, RescaleIntercept=intercept, PixelRepresentation=representation)
    raw = np.stack([pydicom.dcmread(f).pixel_array.astype(float) for f in sorted(folder.iterdir(), reverse=True)])
    np.testing.assert_array_equal(read_scan(folder).volume.hu, (raw * slope + intercept).astype(np.float32))


def test_each_slice_comes_to_hu_by_its_own_rescale(series: Series) -> None:
    volume = read_scan(series(edit=lambda k, d: _set(RescaleSlope=1 + k / 32, RescaleIntercept=-1000 - k)(k, d))).volume
    assert volume.hu[:, 0, 1].tolist() == [(100 * k + 1) * (1 + k / 32) - 1000 - k for k in range(6)]


@pytest.mark.parametrize("suffix", ["", ".dcm", ".IMA", ".0001"])
def test_file_names_and_extensions_do_not_matter(series: Series, suffix: str) -> None:
    assert read_scan(series(suffix=suffix)).volume.depth == 6


def test_old_files_without_a_preamble_are_read(series: Series) -> None:
    folder = series(suffix="")
    for file in folder.iterdir():
        dataset = pydicom.dcmread(file)
        bare = pydicom.Dataset({e.tag: e for e in dataset})
        bare.save_as(file, implicit_vr=True, little_endian=True)
    assert read_scan(folder).volume.hu[3, 0, 0] == 300 - 1024


@pytest.mark.parametrize("keyword", ["PatientName", "StudyDescription"])
def test_odd_text_does_not_matter(series: Series, keyword: str) -> None:
    assert (
        read_scan(series(edit=_set(**{keyword: "M\u00fcller^\u6f22"}, SpecificCharacterSet="ISO_IR 192"))).patient
        == "p1"
    )


@pytest.mark.parametrize("gone", [4, 6])
def test_a_missing_slice_is_named(series: Series, gone: int) -> None:
    folder = series(n=12)
    (folder / f"{gone:03d}.dcm").unlink()
    said = rf"1 slice\(s\) missing between '00{gone + 1}\.dcm' and '00{gone - 1}\.dcm': expected one"
    with pytest.raises(MissingSlicesError, match=said):
        read_scan(folder)


def test_a_doubled_slice_is_named(series: Series) -> None:
    folder = series()
    ct_slice((-10.0, 20.0, 106.0), value=7).save_as(folder / "other.dcm")
    with pytest.raises(DuplicateSlicesError, match=r"'003\.dcm' and 'other\.dcm' differ and lie at the same place"):
        read_scan(folder)


@pytest.mark.parametrize(("step", "shift"), [(2.0, 0.2), (5.0, 0.14), (0.5, 0.14), (20.0, 0.5)])
def test_a_slice_off_the_grid_by_more_than_the_tolerance_is_refused(series: Series, step: float, shift: float) -> None:
    with pytest.raises(UnevenSpacingError, match="unevenly spaced"):
        read_scan(series(step=step, edit=_only(3, ImagePositionPatient=[-10, 20, 100 + 3 * step + shift])))


@pytest.mark.parametrize(("step", "shift"), [(2.0, 0.04), (10.0, 0.09), (0.5, 0.04)])
def test_a_slice_off_the_grid_by_less_is_rounding(series: Series, step: float, shift: float) -> None:
    edit = _only(3, ImagePositionPatient=[-10, 20, 100 + 3 * step + shift])
    assert read_scan(series(step=step, edit=edit)).volume.spacing_mm[0] == pytest.approx(step, abs=shift / 5)


def test_a_gap_that_grows_slowly_is_refused_though_each_step_is_nearly_right(series: Series) -> None:
    with pytest.raises(UnevenSpacingError, match="unevenly spaced"):
        read_scan(series(n=30, edit=lambda k, d: _set(ImagePositionPatient=[0, 0, 2.0 * k + 0.0006 * k**2])(k, d)))


def test_a_slice_shifted_in_its_plane_is_refused(series: Series) -> None:
    with pytest.raises(MixedSeriesError, match=r"'003\.dcm' is shifted by 5\.00 mm in its plane"):
        read_scan(series(edit=_only(3, ImagePositionPatient=[-5, 20, 106])))


def test_two_slices_of_another_orientation_are_refused(series: Series) -> None:
    def edit(k: int, dataset: FileDataset) -> None:
        if k in (2, 3):
            dataset.ImageOrientationPatient = [1, 0, 0, 0, 0.9, 0.435889894]

    with pytest.raises(MixedOrientationError, match="orientation of"):
        read_scan(series(edit=edit))


def test_mixed_pixel_spacing_is_refused(series: Series) -> None:
    with pytest.raises(MixedSeriesError, match=r"pixel spacing of '003\.dcm' is \(0\.8, 0\.8\), but \(0\.7, 0\.9\)"):
        read_scan(series(edit=_only(3, PixelSpacing=[0.8, 0.8])))


def test_mixed_sizes_are_refused(series: Series) -> None:
    with pytest.raises(MixedSeriesError, match=r"rows and columns of '003\.dcm' is \(3, 16\)"):
        read_scan(series(edit=_only(3, Rows=3, Columns=16)))


def test_two_patients_in_one_series_are_refused_without_naming_them(series: Series) -> None:
    with pytest.raises(MixedSeriesError, match=r"more than one patient \(PatientID\)") as caught:
        read_scan(series(edit=_only(3, PatientID="secret")))
    assert "secret" not in str(caught.value)


def test_another_modality_is_refused(series: Series) -> None:
    with pytest.raises(NotCtError, match="is 'MR', expected 'CT'"):
        read_scan(series(Modality="MR"))


@pytest.mark.parametrize("orientation", [[0, 1, 0, 0, 0, -1], [1, 0, 0, 0, 0, -1]], ids=["sagittal", "coronal"])
def test_reformats_in_other_planes_are_refused(series: Series, orientation: list[float]) -> None:
    normal = np.cross(orientation[:3], orientation[3:])

    def edit(k: int, dataset: FileDataset) -> None:
        dataset.ImageOrientationPatient = orientation
        dataset.ImagePositionPatient = list(2.0 * k * normal)

    with pytest.raises(DerivedError, match="a sagittal or coronal reformat"):
        read_scan(series(edit=edit))


def test_screen_captures_alone_are_refused(series: Series) -> None:
    with pytest.raises(SecondaryCaptureError, match=r"among 6 file\(s\), only screen captures: give the axial"):
        read_scan(series(SOPClassUID="1.2.840.10008.5.1.4.1.1.7"))


@pytest.mark.parametrize("tags", [{"RescaleSlope": None}, {"RescaleIntercept": None}, {"RescaleType": "Z_EFF"}])
def test_a_series_without_hu_is_refused(series: Series, tags: dict[str, str | None]) -> None:
    with pytest.raises(WrongUnitsError, match="expected RescaleSlope and RescaleIntercept to HU"):
        read_scan(series(**tags))


@pytest.mark.parametrize("unit", ["HU", "US", "Houndsfield Unit", None])
def test_the_ways_scanners_write_hu_are_known(series: Series, unit: str | None) -> None:
    assert read_scan(series(RescaleType=unit)).volume.depth == 6


def test_a_localizer_alone_is_refused(series: Series) -> None:
    with pytest.raises(NotCtError, match="no CT slices in space among 1 file"):
        read_scan(series(n=1, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]))


def test_one_slice_is_refused(series: Series) -> None:
    with pytest.raises(TooFewSlicesError, match=r"found 1 slice\(s\), expected at least 2"):
        read_scan(series(n=1))


@pytest.mark.parametrize("same_series", [True, False])
@pytest.mark.parametrize(
    "tags",
    [
        {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"], "ImageOrientationPatient": [0, 1, 0, 0, 0, -1]},
        {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"},
        {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7.4", "ImagePositionPatient": None, "PixelSpacing": None},
        {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.67", "ImageOrientationPatient": None},
    ],
    ids=["localizer", "capture", "dose sheet", "report"],
)
def test_companions_of_the_slices_are_dropped(series: Series, tags: dict[str, object], same_series: bool) -> None:  # noqa: FBT001
    folder = series()
    uid = "1.2.3" if same_series else "1.2.4"
    ct_slice((0, 0, 0), size=(5, 4), SeriesInstanceUID=uid, **tags).save_as(folder / "aside.dcm")
    assert [f.name for f in find_scans(folder)] == ["series-0004"]
    assert read_scan(folder).volume.depth == 6


DOSE_PAGE = {"SeriesInstanceUID": "1.2.4", "SeriesNumber": 501, "ImagePositionPatient": None, "PixelSpacing": None}


@pytest.mark.parametrize("place", ["aside.dcm", "501/aside.dcm"])
def test_a_dose_page_of_the_ct_class_is_no_choice(series: Series, place: str) -> None:
    folder = series()
    (folder / place).parent.mkdir(exist_ok=True)
    ct_slice((0, 0, 0), size=(5, 4), **DOSE_PAGE).save_as(folder / place)
    assert (read_scan(folder).volume.depth, len(read_stretches(folder))) == (6, 1)
    with pytest.raises(NotCtError, match="no CT slices in space among 1 file"):
        read_scan(folder / place)


def test_a_dose_page_between_two_series_is_not_offered(series: Series) -> None:
    folder = series()
    ct_slice((0, 0, 0), size=(5, 4), **DOSE_PAGE).save_as(folder / "page.dcm")
    for k in range(6):
        tags = {"SeriesInstanceUID": "1.2.5", "SeriesNumber": 5}
        ct_slice((0, 0, 5.0 * k), size=(5, 4), **tags).save_as(folder / f"other-{k}.dcm")
    with pytest.raises(MixedSeriesError, match=r"holds 2 scan\(s\), none was chosen.*'series-0004'.*'series-0005'"):
        read_scan(folder)


def test_a_lone_image_of_another_orientation_is_dropped(series: Series) -> None:
    folder = series()
    ct_slice((0, 0, 0), ImageOrientationPatient=[0, 1, 0, 0, 0, -1]).save_as(folder / "scout.dcm")
    assert read_scan(folder).volume.depth == 6


@pytest.mark.parametrize("odd", [2, 5])
@pytest.mark.parametrize("angle", [0.0025, 0.0075])
def test_a_slice_whose_orientation_is_rounded_another_way_is_a_slice(series: Series, angle: float, odd: int) -> None:
    def edit(k: int, dataset: FileDataset) -> None:
        own = angle + (1e-6 if k == odd else -1e-6)
        dataset.ImageOrientationPatient = [1, round(own, 8), 0, round(-own, 8), 1, 0]

    assert read_scan(series(edit=edit)).volume.depth == 6


def test_rows_and_columns_that_stand_askew_are_refused(series: Series) -> None:
    folder = series(ImageOrientationPatient=[1, 0, 0, 0.6, 0.8, 0])
    assert all(type(f.refusal) is GeometryError and "at right angles" in str(f.refusal) for f in find_scans(folder))


def test_thickness_that_differs_between_slices_is_none(series: Series) -> None:
    assert read_scan(series(edit=_only(2, SliceThickness=3.0))).thickness_mm is None


def test_burned_in_annotation_is_flagged(series: Series) -> None:
    assert read_scan(series(edit=_only(2, BurnedInAnnotation="YES"))).burned_in_annotation


@pytest.mark.parametrize("cut", [1, 20, 90])
def test_truncated_pixels_are_found_without_reading_them(series: Series, cut: int) -> None:
    folder = series()
    whole = (folder / "003.dcm").read_bytes()
    (folder / "003.dcm").write_bytes(whole[:-cut])
    (found,) = find_scans(folder)
    assert type(found.refusal) is TruncatedScanError
    with pytest.raises(TruncatedScanError, match=r"series-0004: 003\.dcm is truncated: \d+ bytes of its pixels are"):
        read_scan(folder)


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, RLELossless])
def test_a_broken_code_stream_is_unreadable(series: Series, syntax: UID) -> None:
    folder = series()
    dataset = pydicom.dcmread(folder / "003.dcm")
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.PixelData = encapsulate([b"no code stream at all " * 4])
    dataset.save_as(folder / "003.dcm")
    with pytest.raises(UnreadableScanError, match=r"series-0004: pixels of 003\.dcm cannot be decoded"):
        read_scan(folder)


def test_a_file_that_only_claims_to_be_dicom_is_reported(series: Series) -> None:
    folder = series()
    (folder / "broken.dcm").write_bytes(b"\x08\x00 this is no DICOM")
    refused = {f.name: f.refusal for f in find_scans(folder) if f.refusal}
    assert list(refused) == ["broken.dcm"]
    assert isinstance(refused["broken.dcm"], UnreadableScanError)


def test_numbers_that_are_none_are_unreadable(series: Series) -> None:
    folder = series()
    file = folder / "003.dcm"
    file.write_bytes(file.read_bytes().replace(b"-10.0\\20.0", b"-10.0\\2x.0"))
    assert any(isinstance(f.refusal, UnreadableScanError) for f in find_scans(folder))


def test_a_ct_image_without_a_place_is_refused_and_not_passed_over(series: Series) -> None:
    with pytest.raises(GeometryError, match=r"001\.dcm has no position, orientation or size"):
        read_scan(series(edit=lambda k, d: d.pop("ImagePositionPatient") if k == 5 else None))


def test_a_file_cut_in_its_header_is_not_passed_over(series: Series) -> None:
    folder = series()
    whole = (folder / "001.dcm").read_bytes()
    (folder / "001.dcm").write_bytes(whole[:600])
    assert any(f.refusal for f in find_scans(folder))


def test_a_dicomdir_is_no_scan(series: Series) -> None:
    folder = series()
    directory = ct_slice((0, 0, 0))
    directory.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.1.3.10"
    pydicom.FileDataset("", {}, file_meta=directory.file_meta, preamble=b"\0" * 128).save_as(folder / "DICOMDIR")
    assert [f.name for f in find_scans(folder)] == ["series-0004"]
    assert read_scan(folder).volume.depth == 6


def test_impossible_pixel_spacing_is_refused(series: Series) -> None:
    with pytest.raises(GeometryError, match="do not place the image"):
        read_scan(series(n=1, PixelSpacing=[0.0, 0.9]) / "001.dcm")


@pytest.mark.parametrize("seed", range(40))
def test_damaged_headers_are_read_or_refused_and_never_crash(series: Series, seed: int) -> None:
    folder = series(n=3)
    rng = np.random.default_rng(seed)
    damaged = bytearray((folder / "002.dcm").read_bytes())
    for at in rng.integers(132, len(damaged) - 96, 4):
        damaged[at] = rng.integers(256)
    (folder / "002.dcm").write_bytes(damaged)
    assert find_scans(folder)
