"""Whose a DICOM result is: patients and studies are kept, never mixed, and results never share a name."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pydicom
import pytest
import SimpleITK
from pydicom.dataset import FileDataset

from ctinterp_dagster.errors import IntensityError, ParamsError
from ctinterp_dagster.scan.io import check_output, read_scan, write_result
from ctinterp_dagster.scan.io.output import Quantity

from .conftest import dicom_errors

Series = Callable[..., Path]
STUDY = {"StudyInstanceUID": "1.2.840.7.1", "FrameOfReferenceUID": "1.2.840.7.2"}


@pytest.fixture(autouse=True)
def sloppy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sources with values that DICOM does not allow can be made."""
    monkeypatch.setattr(pydicom.config.settings, "reading_validation_mode", pydicom.config.IGNORE)
    monkeypatch.setattr(pydicom.config.settings, "writing_validation_mode", pydicom.config.IGNORE)


def _result(source: Path, name: str, quantity: Quantity = "mean") -> FileDataset:
    scan = read_scan(source)
    out = source.parent / name
    check_output(out, scan=scan)
    write_result(scan.volume, out, scan, "ctinterp", quantity=quantity)
    return pydicom.dcmread(min(out.iterdir()))


def _errors(dataset: FileDataset) -> list[str]:
    return dicom_errors(dataset.filename) if shutil.which("dciodvfy") else []


def _blank(_: int, dataset: FileDataset) -> None:
    dataset.SOPClassUID = dataset.SOPInstanceUID = ""
    dataset.SeriesInstanceUID = dataset.StudyInstanceUID = dataset.FrameOfReferenceUID = ""


def test_patients_with_blank_uids_get_studies_of_their_own_and_mean_and_std_one(series: Series) -> None:
    """The values, their place and the patient tell scans apart: each alone is enough."""
    first = series(name="one", edit=_blank)
    others = [
        series(name="values", edit=lambda k, d: (_blank(k, d), setattr(d, "RescaleIntercept", -1000))[0]),
        series(name="patient", edit=_blank, PatientID="p2"),
        series(name="place", edit=_blank, PixelSpacing=[0.7, 0.8]),
    ]
    mean, std = _result(first, "mean"), _result(first, "std", "std")
    made = [mean, *(_result(source, f"{source.name}-out") for source in others)]
    for keyword in ("StudyInstanceUID", "FrameOfReferenceUID", "SeriesInstanceUID", "SOPInstanceUID"):
        assert len({dataset[keyword].value for dataset in made}) == len(made)
    assert (std.StudyInstanceUID, std.FrameOfReferenceUID) == (mean.StudyInstanceUID, mean.FrameOfReferenceUID)
    assert "SourceImageSequence" not in mean, "an image without a UID cannot be named"
    assert [_errors(dataset) for dataset in (mean, std)] == [[], []]


def test_a_source_without_a_class_is_a_ct(series: Series) -> None:
    def edit(_: int, dataset: FileDataset) -> None:
        del dataset.SOPClassUID

    made = _result(series(edit=edit), "out")
    assert {item.ReferencedSOPClassUID.name for item in made.SourceImageSequence} == {"CT Image Storage"}
    assert _errors(made) == []


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("StudyInstanceUID", "1.2.0840.1"),
        ("FrameOfReferenceUID", "1.2.00.1"),
        ("PatientID", "A" * 70),
        ("PatientID", "A\tB"),
        ("PatientName", "B" * 70),
        ("IssuerOfPatientID", "C" * 70),
        ("AccessionNumber", "20200304-000123456"),
        ("StudyID", "D" * 20),
    ],
)
def test_an_identifier_that_breaks_a_rule_goes_out_as_it_came(series: Series, keyword: str, value: str) -> None:
    source = series(**(STUDY | {keyword: value}))
    made = _result(source, "out")
    assert str(made[keyword].value) == value
    image = SimpleITK.ReadImage(str(made.filename))  # GDCM, as PACS have it
    assert image.GetMetaData(f"{made[keyword].tag.group:04x}|{made[keyword].tag.element:04x}").rstrip() == value
    assert read_scan(source.parent / "out").patient == str(made.PatientID)


@pytest.mark.filterwarnings("ignore:Unknown encoding")
@pytest.mark.parametrize("said", ["ISO_IR 192", "ISO_IR 100", "ISO-IR-100", "          "])
def test_the_bytes_of_a_name_stay_whatever_is_said_of_their_letters(series: Series, said: str) -> None:
    source = series(SpecificCharacterSet="ISO_IR 192", PatientName="M\u00fcller")
    for file in source.iterdir():
        file.write_bytes(file.read_bytes().replace(b"ISO_IR 192", said.encode()))
    made = _result(source, "out")
    assert b"M\xc3\xbcller" in Path(made.filename).read_bytes()
    assert str(made.get("SpecificCharacterSet") or "") == said.strip()


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        ({"StudyInstanceUID": "1.2.840.abc"}, r"StudyInstanceUID \(0020,000D\) is '1.2.840.abc'"),
        ({"StudyInstanceUID": "1." + "2" * 63}, r"expected up to 64 digits and dots"),
        ({"FrameOfReferenceUID": "1.2,3"}, r"FrameOfReferenceUID \(0020,0052\) is '1.2,3'"),
    ],
)
def test_an_identifier_that_no_reader_finds_is_refused_before_the_work(
    series: Series, tags: dict[str, str], said: str
) -> None:
    source = series(**tags)
    scan = read_scan(source)
    with pytest.raises(ParamsError, match=rf"^series-0004: .*{said}.*mend the source, or write a volume file"):
        check_output(source.parent / "out", scan=scan)
    assert check_output(source.parent / "out.nii.gz", scan=scan) == ()


def test_a_name_that_cannot_be_read_is_refused_without_showing_it(series: Series) -> None:
    source = series(SpecificCharacterSet="ISO_IR 192", PatientName="M\u00fcller")
    for file in source.iterdir():
        file.write_bytes(file.read_bytes().replace(b"M\xc3\xbcller", b"M\xfc\xfcller"))
    with pytest.raises(ParamsError, match=r"PatientName \(0010,0010\) has bytes that its character set") as caught:
        check_output(source.parent / "out", scan=read_scan(source))
    assert "ller" not in str(caught.value)


def test_two_studies_in_one_series_are_refused(series: Series) -> None:
    source = series(edit=lambda k, d: setattr(d, "StudyInstanceUID", f"1.2.{k // 3}"))
    with pytest.raises(ParamsError, match=r"StudyInstanceUID .* has 2 values in the series, expected one"):
        check_output(source.parent / "out", scan=read_scan(source))


@pytest.mark.parametrize("value", ["n", "REMOVED", ""])
def test_a_placeholder_of_a_study_is_none_and_that_is_told(series: Series, value: str) -> None:
    source = series(StudyInstanceUID=value, FrameOfReferenceUID="1.2.3.4")
    told = check_output(source.parent / "out", scan=read_scan(source))
    assert told == (f"the source names no StudyInstanceUID, but {value!r}: the result gets a new one",)
    made = _result(source, "out")
    assert (made.StudyInstanceUID[:5], made.FrameOfReferenceUID, made.PatientID) == ("2.25.", "1.2.3.4", "p1")


def test_values_that_dicom_does_not_hold_are_refused_before_the_work(series: Series) -> None:
    source = series(RescaleSlope=100)
    scan = read_scan(source)
    with pytest.raises(IntensityError, match="values run from"):
        check_output(source.parent / "out", scan=scan)


def test_results_of_one_series_can_be_told_apart(series: Series) -> None:
    """Mean and standard deviation; what was made of 6 of 8 slices, and of all when they had come; another thickness."""
    early = series(n=6, **STUDY)
    mean, std = _result(early, "mean"), _result(early, "std", "std")
    shutil.rmtree(early)
    late = _result(series(n=8, **STUDY), "late")
    made = [mean, std, late]
    for keyword in ("SeriesInstanceUID", "SOPInstanceUID", "SeriesNumber", "SeriesDescription"):
        assert len({dataset[keyword].value for dataset in made}) == 3
    assert {dataset.SeriesNumber % 1000 for dataset in made} == {4}, "the source's"
    assert [d.SeriesDescription.rsplit(" ", 2)[1] for d in made] == ["mean", "std", "mean"]
    assert (std.ImageType[3], std.RescaleType) == ("STD_DEVIATION", "US")
    assert (std.WindowCenter, std.WindowWidth) == (50, 100), "the source's window shows values, not their spread"


def test_results_of_two_models_can_be_told_apart(series: Series) -> None:
    scan = read_scan(source := series(**STUDY))
    made = []
    for model in ("one", "two"):
        write_result(scan.volume, source.parent / model, scan, f"ctinterp, model {model}")
        made.append(pydicom.dcmread(min((source.parent / model).iterdir())))
    assert made[0].SeriesNumber != made[1].SeriesNumber
    assert made[0].SeriesDescription != made[1].SeriesDescription


@pytest.mark.parametrize("down", [False, True])
def test_instances_are_numbered_in_the_direction_of_the_source(series: Series, *, down: bool) -> None:
    source = series(edit=lambda k, d: setattr(d, "InstanceNumber", 6 - k if down else 1 + k))
    scan = read_scan(source)
    write_result(scan.volume, source.parent / "out", scan, "ctinterp")
    made = sorted(map(pydicom.dcmread, (source.parent / "out").iterdir()), key=lambda d: d.InstanceNumber)
    heights_mm = [d.ImagePositionPatient[2] for d in made]
    assert heights_mm == sorted(heights_mm, reverse=down)


def test_a_classical_result_is_no_synthetic_data(series: Series) -> None:
    assert _result(series(), "out", "classical").SyntheticData == "NO"


def test_the_largest_series_number_leaves_room_for_the_result(series: Series) -> None:
    assert 0 < _result(series(SeriesNumber=2**31 - 1), "out").SeriesNumber < 2**31
