"""Files whose SeriesInstanceUIDs do not tell which of them are one series."""

from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom.dataset import FileDataset

from ctinterp_dagster.errors import MissingSlicesError, MixedSeriesError, TooFewSlicesError
from ctinterp_dagster.scan.io import find_scans, read_scan

Series = Callable[..., Path]
OWN = "each file has a SeriesInstanceUID of its own: they are taken for one series"


def _own_uid(k: int, dataset: FileDataset) -> None:
    dataset.SeriesInstanceUID = f"1.2.3.{k}"


def test_slices_with_a_series_uid_each_are_one_scan_and_that_is_told(series: Series) -> None:
    whole = read_scan(series(name="whole", StudyInstanceUID="1.7"))
    folder = series(edit=_own_uid, StudyInstanceUID="1.7")
    (folder / "apart").mkdir()
    (folder / "003.dcm").rename(folder / "apart" / "003.dcm")
    scan = read_scan(folder)
    assert (scan.volume.hu == whole.volume.hu).all()
    assert scan.warnings[0].startswith(OWN)
    assert whole.warnings == ()


@pytest.mark.parametrize(
    "differs",
    [{"PatientID": "p2"}, {"StudyInstanceUID": "1.8"}, {"SeriesNumber": 9}, {"SeriesDescription": "lung"},
     {"PixelSpacing": [0.6, 0.6]}],
    ids=lambda tags: next(iter(tags)),
)  # fmt: skip
def test_slices_of_which_something_else_differs_too_are_none(series: Series, differs: dict[str, object]) -> None:
    def edit(k: int, dataset: FileDataset) -> None:
        _own_uid(k, dataset)
        for keyword, value in differs.items() if k % 2 else ():
            setattr(dataset, keyword, value)

    found = find_scans(series(n=4, edit=edit, StudyInstanceUID="1.7"))
    assert [type(one.refusal) for one in found] == [TooFewSlicesError] * 4


def test_two_images_and_a_missing_slice_are_no_scan(series: Series) -> None:
    assert len(find_scans(series(name="two", n=2, edit=_own_uid))) == 2
    folder = series(edit=_own_uid)
    (folder / "003.dcm").unlink()
    assert isinstance(find_scans(folder)[0].uneven or find_scans(folder)[0].refusal, MissingSlicesError)


@pytest.mark.parametrize(
    "tags", [{"PatientName": "Doe^John"}, {"PatientBirthDate": "19500101"}], ids=["name", "birth date"]
)
def test_patients_without_an_id_are_not_mixed(series: Series, tags: dict[str, str]) -> None:
    """The second one's slices lie among the first one's, in one folder."""
    person = {"PatientID": "", "PatientName": "Doe^Jane", "PatientBirthDate": "19700101"}

    def edit(k: int, dataset: FileDataset) -> None:
        for keyword, value in (person | tags if k % 2 else person).items():
            setattr(dataset, keyword, value)

    assert [len(one.files) for one in find_scans(series(edit=edit, SeriesInstanceUID=""))] == [3, 3]
    with pytest.raises(MixedSeriesError, match=r"more than one patient \(PatientName and PatientBirthDate") as caught:
        read_scan(series(edit=edit, SeriesInstanceUID="1.2.3"))
    assert "Doe" not in str(caught.value)
