"""Results out: DICOM that a PACS takes, and files that say no more than they are to."""

import gzip
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK
from pydicom.dataset import FileDataset
from pydicom.uid import CTImageStorage

from ctinterp_dagster.errors import IntensityError, MissingInputError, ParamsError
from ctinterp_dagster.physics.operator import thin_grid
from ctinterp_dagster.scan.io import Scan, check_output, read_scan, write_result
from ctinterp_dagster.scan.io.output import Quantity
from ctinterp_dagster.scan.volume import Volume

from .conftest import dicom_errors, enhanced_ct, plain_volume

Series = Callable[..., Path]
SAID = "ctinterp 0.1.0, model released, 5 mm to 1 mm"
SOURCE = {
    "PatientName": "Doe^Jane", "PatientID": "MRN-77", "PatientBirthDate": "19600102", "PatientSex": "F",
    "StudyInstanceUID": "1.2.840.77.1", "StudyDate": "20200304", "StudyTime": "101112", "StudyID": "S1",
    "SeriesDate": "20200304", "SeriesTime": "101500",
    "AccessionNumber": "A1", "ReferringPhysicianName": "Roe^R", "FrameOfReferenceUID": "1.2.840.77.2",
    "PositionReferenceIndicator": "XY", "SeriesInstanceUID": "1.2.840.77.3", "SeriesDescription": "Thick 5.0",
    "Manufacturer": "ACME", "ManufacturerModelName": "Spiral 9", "PatientPosition": "HFS", "KVP": "120",
    "BodyPartExamined": "CHEST", "WindowCenter": "40", "WindowWidth": "400",
}  # fmt: skip


def _thin(thick: Volume, spacing_mm: float) -> Volume:
    count, first_mm = thin_grid(thick.depth, thick.spacing_mm[0], spacing_mm)
    hu = np.random.default_rng(3).integers(-1024, 3071, (count, *thick.hu.shape[1:])).astype(np.float32)
    return thick.with_slices(hu, first_mm / thick.spacing_mm[0], spacing_mm)


def no_scan(volume: Volume) -> Scan:
    return Scan(volume, "", None, "", "CT", "nifti", burned_in_annotation=False)


def corners(volume: Volume) -> np.ndarray:
    """The eight outer corners of the volume, mm, whatever the order of its axes."""
    sides = [(-0.5, n - 0.5) for n in volume.hu.shape]
    return np.array(sorted(tuple(volume.point_mm(corner).round(6)) for corner in product(*sides)))


def points_mm(volume: Volume) -> np.ndarray:
    """(z, y, x, 3) centres of all voxels."""
    zyx = np.moveaxis(np.indices(volume.hu.shape), 0, -1)
    return volume.origin_mm + zyx[..., ::-1] * volume.spacing_mm[::-1] @ volume.direction.T


class Derived(NamedTuple):
    """A folder of DICOM, the scan that it was made of, and what was written."""

    folder: Path
    scan: Scan
    thin: Volume

    @property
    def slices(self) -> list[FileDataset]:
        return [pydicom.dcmread(file) for file in sorted(self.folder.iterdir())]


def _derived(series: Series, tmp_path: Path, **tags: object) -> Derived:
    scan = read_scan(series(n=4, step=5.0, **(SOURCE | tags)))
    thin = _thin(scan.volume, 1.0)
    write_result(thin, tmp_path / "thin", scan, SAID)
    return Derived(tmp_path / "thin", scan, thin)


@pytest.fixture
def derived(series: Series, tmp_path: Path) -> Derived:
    return _derived(series, tmp_path)


def test_a_derived_series_stays_with_its_patient_study_and_frame_of_reference(derived: Derived) -> None:
    slices = derived.slices
    for keyword in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyDate",
                    "AccessionNumber", "FrameOfReferenceUID", "PositionReferenceIndicator", "KVP"):  # fmt: skip
        assert {str(each[keyword].value) for each in slices} == {SOURCE[keyword]}
    assert {(each.SeriesDate, each.SeriesTime) for each in slices} == {("20200304", "101500")}


def test_a_derived_series_has_uids_of_its_own_and_an_instance_number_a_slice(derived: Derived) -> None:
    slices = derived.slices
    (uid,) = {each.SeriesInstanceUID for each in slices}
    assert uid.startswith("2.25.")
    assert len({each.SOPInstanceUID for each in slices}) == len(slices) == derived.thin.depth == 20
    assert all(each.file_meta.MediaStorageSOPInstanceUID == each.SOPInstanceUID for each in slices)
    assert [each.InstanceNumber for each in slices] == list(range(1, 21))


def test_a_derived_series_says_that_it_is_and_of_what(derived: Derived) -> None:
    first = derived.slices[0]
    assert list(first.ImageType) == ["DERIVED", "SECONDARY", "AXIAL", "RESAMPLED"]
    assert (first.DerivationDescription, first.SeriesNumber % 1000) == (SAID, 4)
    assert first.SeriesDescription == f"Thick 5.0 20 x 1 mm ctinterp mean {first.SeriesNumber // 1000}"
    assert (first.SyntheticData, first.DerivationCodeSequence[0].CodeValue) == ("YES", "113085")


def test_a_derived_series_names_the_scanner_and_the_program(derived: Derived) -> None:
    first = derived.slices[0]
    scanner, algorithm = first.ContributingEquipmentSequence
    assert (first.Manufacturer, scanner.Manufacturer, algorithm.Manufacturer) == ("ctinterp", "ACME", "ctinterp")
    purpose = algorithm.PurposeOfReferenceCodeSequence[0].CodeValue
    assert (algorithm.ContributionDescription, purpose) == (SAID, "109102")


def test_a_derived_slice_is_a_ct_image_of_16_bits_in_its_place(derived: Derived) -> None:
    slices = derived.slices
    first = slices[0]
    assert (first.SOPClassUID, first.Modality) == (CTImageStorage, "CT")
    assert (first.SliceThickness, first.SpacingBetweenSlices) == (1.0, 1.0)
    assert (first.RescaleSlope, first.RescaleIntercept, first.RescaleType) == (1, -1024, "HU")
    assert (first.BitsAllocated, first.BitsStored, first.HighBit, first.PixelRepresentation) == (16, 16, 15, 1)
    assert (list(first.PixelSpacing), list(first.ImageOrientationPatient)) == ([0.7, 0.9], [1, 0, 0, 0, 1, 0])
    for k, dataset in enumerate(slices):
        np.testing.assert_allclose(dataset.ImagePositionPatient, derived.thin.point_mm((k, 0, 0)), atol=1e-6)


def test_a_derived_slice_names_the_thick_slices_around_it(derived: Derived, tmp_path: Path) -> None:
    thick = {str(d.SOPInstanceUID): d for d in map(pydicom.dcmread, (tmp_path / "scan").iterdir())}
    slices = derived.slices
    for made in (slices[0], slices[-1]):
        named = [thick[item.ReferencedSOPInstanceUID] for item in made.SourceImageSequence]
        away_mm = [abs(d.ImagePositionPatient[2] - made.ImagePositionPatient[2]) for d in named]
        assert len(named) == 3
        assert max(away_mm) < 2.5 * 5, "the nearest thick slice, and two more on the side where there are some"


def test_hu_come_back_to_the_integer_through_simpleitk_and_pydicom(series: Series, tmp_path: Path) -> None:
    folder, _, thin = _derived(series, tmp_path)
    files = SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder))
    image = SimpleITK.ReadImage(files)
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(image), thin.hu)
    np.testing.assert_allclose(image.GetOrigin(), thin.origin_mm, atol=1e-3)
    np.testing.assert_allclose(image.GetSpacing()[::-1], thin.spacing_mm, atol=1e-6)
    for k, file in enumerate(sorted(folder.iterdir())):
        dataset = pydicom.dcmread(file)
        hu = dataset.pixel_array * dataset.RescaleSlope + dataset.RescaleIntercept
        np.testing.assert_array_equal(hu, thin.hu[k])


@pytest.mark.skipif(shutil.which("dcm2niix") is None, reason="needs Debian's dcm2niix")
@pytest.mark.parametrize("maker", ["ACME", "Philips"])  # which dcm2niix takes for the maker of the result, too
@pytest.mark.parametrize("as_multiframe", [False, True])
def test_dcm2niix_finds_every_value_in_its_place(
    series: Series,
    tmp_path: Path,
    maker: str,
    as_multiframe: bool,  # noqa: FBT001 - a case
) -> None:
    folder, scan, thin = _derived(series, tmp_path, Manufacturer=maker)
    if as_multiframe:
        folder = tmp_path / "frames"
        write_result(thin, folder, scan, SAID, as_multiframe=True)
    subprocess.run(["dcm2niix", "-z", "n", "-o", str(tmp_path), str(folder)], capture_output=True, check=True)
    (converted,) = tmp_path.glob("*.nii")
    back = read_scan(converted).volume
    index = np.linalg.solve(thin.direction * thin.spacing_mm[::-1], (points_mm(back) - thin.origin_mm)[..., None])
    np.testing.assert_allclose(index, np.rint(index), atol=1e-3)
    x, y, z = np.moveaxis(np.rint(index[..., 0]).astype(int), -1, 0)
    np.testing.assert_array_equal(back.hu, thin.hu[z, y, x])


def test_the_same_result_is_the_same_series_and_another_is_not(series: Series, tmp_path: Path) -> None:
    folder, scan, thin = _derived(series, tmp_path)
    write_result(thin, tmp_path / "again", scan, SAID)
    write_result(thin.with_hu(thin.hu + 1), tmp_path / "other", scan, SAID)
    first, again, other = (sorted((tmp_path / n).iterdir())[3] for n in ("thin", "again", "other"))
    assert first.read_bytes() == again.read_bytes()
    assert pydicom.dcmread(first).SeriesInstanceUID != pydicom.dcmread(other).SeriesInstanceUID
    assert folder == first.parent


def test_localizers_and_private_or_broken_values_stay_behind(series: Series, tmp_path: Path) -> None:
    def edit(k: int, dataset: FileDataset) -> None:
        dataset.add_new(0x00090010, "LO", "ACME SECRET")
        dataset.add_new(0x00091001, "LO", "Doe private")
        if k == 0:
            dataset.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]

    scan = read_scan(series(n=5, edit=edit, **(SOURCE | {"PatientSex": "_", "BodyPartExamined": None})))
    write_result(scan.volume, tmp_path / "out", scan, SAID)
    dataset = pydicom.dcmread(next((tmp_path / "out").iterdir()))
    assert len(dataset.SourceImageSequence) == 4
    assert not any(element.tag.is_private for element in dataset)
    assert dataset.PatientSex is None or dataset.PatientSex == ""


def test_a_source_in_an_archive_is_read_again_at_the_end(series: Series, tmp_path: Path) -> None:
    shutil.make_archive(str(tmp_path / "packed"), "zip", series(**SOURCE))
    scan = read_scan(tmp_path / "packed.zip")
    write_result(scan.volume, tmp_path / "out", scan, SAID)
    assert read_scan(tmp_path / "out").patient == "MRN-77"


def test_frames_of_a_multiframe_source_are_named_by_number(tmp_path: Path) -> None:
    source = enhanced_ct([100 + 5 * k for k in range(6)], [(1, -1024)] * 6)
    source.save_as(tmp_path / "enhanced.dcm", enforce_file_format=True)
    scan = read_scan(tmp_path / "enhanced.dcm")
    write_result(_thin(scan.volume, 1.0), tmp_path / "out", scan, SAID)
    first, *_, last = (pydicom.dcmread(file) for file in sorted((tmp_path / "out").iterdir()))
    for made, frames in ((first, [1, 2, 3]), (last, [4, 5, 6])):
        (item,) = made.SourceImageSequence
        assert (item.ReferencedSOPInstanceUID, item.ReferencedFrameNumber) == (source.SOPInstanceUID, frames)


def _assert_references_are_listed(dataset: pydicom.Dataset) -> None:
    """The instances that the frames refer to, in the list of the file. Source: DICOM PS3.3 C.12.2."""
    frames = [one.ConversionSourceAttributesSequence[0] for one in dataset.PerFrameFunctionalGroupsSequence]
    listed = [one for series in dataset.ReferencedSeriesSequence for one in series.ReferencedInstanceSequence]
    assert {one.ReferencedSOPInstanceUID for one in frames} == {one.ReferencedSOPInstanceUID for one in listed}


@pytest.mark.parametrize("quantity", ["mean", "std"])
def test_a_multiframe_file_comes_back_through_every_reader(series: Series, tmp_path: Path, quantity: Quantity) -> None:
    highdicom = pytest.importorskip("highdicom")
    scan = read_scan(series(n=4, step=5.0, edit=lambda k, d: setattr(d, "InstanceNumber", 4 - k), **SOURCE))
    thin = _thin(scan.volume, 1.0)
    for name in ("one", "again"):
        write_result(thin, tmp_path / name, scan, SAID, quantity=quantity, as_multiframe=True)
    file, again = tmp_path / "one" / "IM00001.dcm", tmp_path / "again" / "IM00001.dcm"
    assert file.read_bytes() == again.read_bytes()
    back = read_scan(file, deviation=quantity == "std").volume
    np.testing.assert_array_equal(back.hu, thin.hu)
    np.testing.assert_allclose(corners(back), corners(thin), atol=1e-3)
    dataset = pydicom.dcmread(file)
    np.testing.assert_array_equal(dataset.pixel_array - 1024, thin.hu[::-1])
    assert dataset.StudyInstanceUID == SOURCE["StudyInstanceUID"]
    assert dataset.ImageType[3] == ("STD_DEVIATION" if quantity == "std" else "RESAMPLED")
    assert f"ctinterp {quantity}" in dataset.SeriesDescription
    _assert_references_are_listed(dataset)
    image = SimpleITK.ReadImage(str(file))
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(image), thin.hu[::-1])
    np.testing.assert_allclose(image.GetOrigin(), thin.point_mm((thin.depth - 1, 0, 0)), atol=1e-3)
    np.testing.assert_array_equal(highdicom.imread(file).get_volume().array, thin.hu[::-1])
    if shutil.which("dciodvfy"):
        assert dicom_errors(file) == []


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="needs Debian's dicom3tools")
@pytest.mark.parametrize("part", ["CHEST", "BREAST", None])
@pytest.mark.parametrize("kind", ["dicom", "nifti"])
@pytest.mark.parametrize(
    ("quantity", "as_multiframe"), [("mean", False), ("mean", True), ("std", False), ("sample", False)]
)
def test_dciodvfy_finds_no_error(
    series: Series,
    tmp_path: Path,
    kind: str,
    part: str | None,
    quantity: Quantity,
    as_multiframe: bool,  # noqa: FBT001 - a case
) -> None:
    folder, scan, thin = _derived(series, tmp_path, BodyPartExamined=part)
    source = scan if kind == "dicom" else replace(scan, found=None, kind="nifti")
    folder = tmp_path / "new"
    write_result(thin, folder, source, SAID, quantity=quantity, as_multiframe=as_multiframe)
    for file in (min(folder.iterdir()), max(folder.iterdir())):
        assert dicom_errors(file) == []
    if as_multiframe:
        _assert_references_are_listed(pydicom.dcmread(file))


def test_values_that_16_bits_do_not_hold_are_refused_and_nothing_is_left(tmp_path: Path) -> None:
    for value, said in ((40000.0, "values run from -1000 to 40000 HU"), (np.nan, "holds NaN or infinity")):
        volume = plain_volume(np.full((2, 3, 4), -1000.0))
        volume.hu[1, 1, 1] = value
        with pytest.raises(IntensityError, match=said):
            write_result(volume, tmp_path / "out", no_scan(volume), SAID)
    assert list(tmp_path.iterdir()) == []


SECRET = b"Doe^Jane"


def _named_sources(series: Series, tmp_path: Path) -> Iterator[Path]:
    """A scan in every format that says who the patient is wherever the format has room for it."""
    text = {"PatientName": SECRET.decode(), "PatientComments": SECRET.decode(), "StudyDescription": SECRET.decode()}
    yield series(n=4, step=5.0, name=SECRET.decode(), **(SOURCE | text))
    scan = read_scan(tmp_path / SECRET.decode())
    path = tmp_path / f"{SECRET.decode()}.nii"
    write_result(scan.volume, path, scan, SAID)
    image = nib.Nifti1Image.from_bytes(path.read_bytes())
    for name in ("descrip", "aux_file", "intent_name", "db_name"):
        image.header[name] = SECRET
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", SECRET))
    nib.save(image, path)
    yield path
    for suffix in (".mha", ".nrrd"):
        itk = SimpleITK.GetImageFromArray(scan.volume.hu)
        for name in ("0010|0010", "PatientName", "Comment", "ITK_FileNotes"):
            itk.SetMetaData(name, SECRET.decode())
        SimpleITK.WriteImage(itk, str(tmp_path / f"named{suffix}"))
        yield tmp_path / f"named{suffix}"


@pytest.mark.parametrize("target", ["t.nii", "t.nii.gz", "t.mha", "t.nrrd"])
def test_no_volume_file_says_who_the_patient_is(series: Series, tmp_path: Path, target: str) -> None:
    for source in _named_sources(series, tmp_path):
        files = source.iterdir() if source.is_dir() else [source]
        assert all(SECRET in file.read_bytes() for file in files)
        scan = read_scan(source)
        write_result(scan.volume, tmp_path / target, scan, SAID)
        raw = (tmp_path / target).read_bytes()
        content = gzip.decompress(raw) if target.endswith(".gz") else raw
        for word in (SECRET, b"Doe", b"MRN-77", b"1.2.840.77", b"ACME", b"19600102", b"Thick 5.0"):
            assert word not in content + raw
        if ".nii" in target:
            header = nib.load(tmp_path / target).header
            assert {bytes(header[name].item()) for name in ("descrip", "aux_file", "intent_name", "db_name")} == {b""}
            assert list(header.extensions) == []


@pytest.mark.parametrize(
    ("name", "as_dicom", "error", "said"),
    [
        ("out.jpg", False, ParamsError, "out.jpg has no known ending"),
        ("out.nii.gz", True, ParamsError, "names a volume file, but the format is DICOM"),
        ("none/out.nii", False, MissingInputError, "the folder .*none does not exist"),
        ("full", False, ParamsError, "the folder .*full is not empty"),
        ("file", False, ParamsError, "file is a file"),
    ],
)
def test_an_output_that_cannot_be_is_refused_before_the_work(
    tmp_path: Path,
    name: str,
    as_dicom: bool,  # noqa: FBT001 - a case
    error: type[Exception],
    said: str,
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a").write_text("")
    (tmp_path / "file").write_text("")
    with pytest.raises(error, match=said):
        check_output(tmp_path / name, as_dicom=as_dicom)


def test_the_folder_that_one_stands_in_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_text("")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ParamsError, match=r"the folder \. is not empty"):
        check_output(".")


def test_a_folder_that_cannot_be_written_to_is_refused_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    for name in ("thin.nii.gz", "thin"):
        with pytest.raises(ParamsError, match="cannot be written to: get the permission"):
            check_output(tmp_path / name)


def test_a_folder_with_a_dot_in_its_name_is_dicom_where_that_is_asked(tmp_path: Path) -> None:
    check_output(tmp_path / "out.v2", as_dicom=True)
    check_output(tmp_path / "out")
    check_output(tmp_path)
