"""One DICOM series that is several scans, or several that look like one; copies; and scans that are not all there."""

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileDataset

from ctinterp_dagster.errors import (
    DuplicateSlicesError,
    MixedSeriesError,
)
from ctinterp_dagster.scan.io import Found, find_scans, read_scan
from ctinterp_dagster.scan.io.found_scan import QUOTED
from ctinterp_dagster.scan.io.grid import regular_grid
from ctinterp_dagster.scan.io.plane import Plane

from .conftest import ct_slice, enhanced_ct, first_values, rotation, slices_at

Series = Callable[..., Path]

Edit = Callable[[int, FileDataset], None]


TWICE = [*range(0, 20, 5), *range(0, 20, 5)]  # two passes of four slices at the same places
MOVED = [*range(0, 20, 5), *(d + 2.5 for d in range(0, 20, 5))]
PARTS = {"series-0004-part-1": [0, 100, 200, 300], "series-0004-part-2": [400, 500, 600, 700]}
HALVES: list[object] = [1] * 4 + [2] * 4
TIMES: list[object] = ["101500.1", "101500.5", "101501", "101501.5", "102000", "102001", "102002", "102003"]


@pytest.mark.parametrize("depths", [TWICE, MOVED, [*TWICE[:4], *(d + 1.3 for d in TWICE[:4])]])
@pytest.mark.parametrize(
    "marks",
    [
        {"AcquisitionNumber": HALVES},
        {"TemporalPositionIdentifier": HALVES},
        {"TriggerTime": HALVES},
        {"AcquisitionTime": TIMES},
        {"KVP": HALVES},
        {"ConvolutionKernel": ["a"] * 4 + ["b"] * 4},
        {"FrameOfReferenceUID": ["1.2"] * 4 + ["1.3"] * 4},
    ],
)
def test_two_passes_of_one_series_are_two_scans(
    series: Series, depths: list[float], marks: dict[str, list[object]]
) -> None:
    folder = series(n=8, edit=slices_at(depths, **marks))
    assert first_values(folder) == PARTS
    with pytest.raises(MixedSeriesError, match=r"'series-0004-part-1' \(.*4 slices every 5 mm\); 'series-0004-part-2'"):
        read_scan(folder)
    scan = read_scan(folder, "series-0004-part-2")
    assert scan.volume.spacing_mm[0] == 5.0
    assert any("pass 2 of 2 in one series, told apart by" in said for said in scan.warnings)


@pytest.mark.parametrize("marks", [{"ContentTime": TIMES}, {"ImageType": [["A"]] * 4 + [["B"]] * 4}])
def test_times_of_reconstruction_and_image_types_tell_only_slices_at_one_place(
    series: Series, marks: dict[str, list[object]]
) -> None:
    assert first_values(series(n=8, name="twice", edit=slices_at(TWICE, **marks))) == PARTS
    assert len(first_values(series(n=8, name="moved", edit=slices_at(MOVED, **marks)))) == 1


@pytest.mark.parametrize(
    ("keyword", "values", "said"),
    [
        ("KVP", [120, 80], "HU may change there"),
        ("ConvolutionKernel", ["B30f", "B70f"], "sharpness and noise may change there"),
        ("FrameOfReferenceUID", ["1.2", "1.3"], "the positions may not be of one coordinate system"),
    ],
)
def test_a_setting_that_changes_along_one_scan_is_told_with_the_files_between_which(
    series: Series, keyword: str, values: list[object], said: str
) -> None:
    def edit(k: int, dataset: FileDataset) -> None:
        setattr(dataset, keyword, values[k // 3] if k != 1 else "")

    scan = read_scan(series(edit=edit))
    (told,) = [warning for warning in scan.warnings if keyword in warning]
    assert told == f"{keyword} has 2 values along the scan and changes first between '004.dcm' and '003.dcm': {said}"


def test_slices_at_one_place_whose_times_alone_differ_are_refused_with_both_files(series: Series) -> None:
    folder = series(edit=slices_at([0.0] * 6, ContentTime=TIMES[:6]))
    with pytest.raises(DuplicateSlicesError, match=r"'001.dcm' and '002.dcm' differ and lie at the same place"):
        read_scan(folder)


def test_a_pass_of_one_slice_takes_no_other_with_it(series: Series) -> None:
    folder = series(n=8, edit=slices_at([*range(0, 35, 5), 10], AcquisitionNumber=[1] * 7 + [2]))
    scans = find_scans(folder)
    assert [scan.refusal and scan.refusal.reason for scan in scans] == [None, "too_few_slices"]


def test_passes_whose_pixel_spacing_differs_by_rounding_are_two_scans(series: Series) -> None:
    def edit(k: int, dataset: FileDataset) -> None:
        slices_at(TWICE, AcquisitionNumber=HALVES)(k, dataset)
        dataset.PixelSpacing = [0.70501, 0.9] if k == 2 else [0.70499, 0.9]

    assert first_values(series(n=8, edit=edit)) == PARTS


def test_a_table_that_goes_back_and_forth_makes_a_scan_each_way(series: Series) -> None:
    times: list[object] = [f"1015{k:02d}" for k in range(8)]
    assert first_values(series(n=8, edit=slices_at([0, 5, 10, 15, 15, 10, 5, 0], AcquisitionTime=times))) == {
        "series-0004-part-1": [0, 100, 200, 300],
        "series-0004-part-2": [700, 600, 500, 400],
    }


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("keyword", ["AcquisitionNumber", "AcquisitionTime", "TriggerTime"])
@pytest.mark.parametrize("labels", [[1, 1, 1, 1, 2, 2, 2, 2], [1, 1, 2, 2, 3, 3, 4, 4], [1, 2, 3, 4, 5, 6, 7, 8]])
def test_a_scan_of_slabs_is_one_scan(series: Series, labels: list[int], keyword: str, order: int) -> None:
    marks: list[object] = [str(100000 + label) for label in labels[::order]]
    assert len(first_values(series(n=8, edit=slices_at([5.0 * k for k in range(8)], **{keyword: marks})))) == 1


def test_two_passes_of_slabs_are_two_scans(series: Series) -> None:
    assert first_values(series(n=8, edit=slices_at(MOVED, AcquisitionNumber=[1, 1, 2, 2, 3, 3, 4, 4]))) == PARTS


def test_slabs_that_reach_into_each_other_are_one_scan(series: Series) -> None:
    """A heart, slab by slab: the border slices come from either."""
    edit = slices_at([5.0 * k for k in range(8)], AcquisitionNumber=[1, 1, 1, 2, 1, 2, 2, 2])
    assert len(first_values(series(n=8, edit=edit))) == 1


def test_a_pass_that_lacks_a_slice_does_not_take_the_other_with_it(series: Series) -> None:
    edit = slices_at([0, 5, 10, 15, 0, 5, 15, 20], AcquisitionNumber=HALVES)
    refused = {f.name: f.refusal and f.refusal.reason for f in find_scans(series(n=8, edit=edit))}
    assert refused == {"series-0004-part-1": None, "series-0004-part-2": "missing_slices"}


def test_phases_that_nothing_tells_apart_are_refused_with_both_files(series: Series) -> None:
    with pytest.raises(
        DuplicateSlicesError, match=r"'004\.dcm' and '008\.dcm' .* no acquisition number, time or phase"
    ):
        read_scan(series(n=8, edit=slices_at(TWICE)))


@pytest.mark.parametrize("keyword", ["TemporalPositionIndex", "FrameAcquisitionNumber", "StackID"])
def test_frames_of_one_file_at_the_same_places_are_a_scan_each(tmp_path: Path, keyword: str) -> None:
    dataset = enhanced_ct([0, 3, 6, 0, 3, 6], [(1, -1024)] * 3 + [(2, -1000)] * 3)
    for k, frame in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        content = Dataset()
        setattr(content, keyword, str(k // 3 + 1) if keyword == "StackID" else k // 3 + 1)
        frame.FrameContentSequence = [content]
    dataset.save_as(tmp_path / "enhanced.dcm", enforce_file_format=True)
    one, two = (read_scan(f).volume.hu[:, 0, 0].tolist() for f in find_scans(tmp_path))
    assert one == [100 * k - 1024 for k in range(3)]
    assert two == [2 * 100 * k - 1000 for k in range(3, 6)]


def test_a_multi_frame_ct_in_several_files_is_one_scan(tmp_path: Path) -> None:
    for k, depths in enumerate(([6.0, 0.0], [3.0, 9.0])):
        dataset = enhanced_ct(depths, [(1, -1024)] * 2)
        dataset.ConcatenationUID, dataset.InConcatenationNumber, dataset.InstanceNumber = "1.2.7", k + 1, k + 7
        dataset.PixelData = (np.frombuffer(dataset.PixelData, np.int16) + k).tobytes()
        dataset.save_as(tmp_path / f"{k}.dcm", enforce_file_format=True)
    scan = read_scan(tmp_path)
    assert (scan.volume.hu[:, 0, 0].tolist(), scan.warnings) == ([100 - 1024, 1 - 1024, -1024, 101 - 1024], ())


@pytest.mark.parametrize("step", [0.5, 0.625, 0.75, 0.9766, 1.25, 2.5, 3.3333, 5.0])
@pytest.mark.parametrize("angles", [(0, 0, 0), (0, 0, 13), (9, -6, 20)], ids=str)
def test_positions_rounded_to_a_tenth_of_a_millimetre_lie_on_the_grid_that_fits_best(
    step: float, angles: tuple[float, float, float]
) -> None:
    turn = rotation(*angles)
    orientation = tuple(round(v, 6) for v in (*turn[:, 0], *turn[:, 1]))
    rng = np.random.default_rng(1)
    for n in (4, 10, 60):
        for start in rng.uniform(-300, 300, (5, 3)):
            places = [tuple((start + step * k * turn[:, 2]).round(1).tolist()) for k in range(n)]
            grid = regular_grid(
                [Plane(Path(f"{k}"), 0, p, orientation, (0.7, 0.7), (6, 8)) for k, p in enumerate(places)]
            )
            assert grid.spacing_mm[0] == pytest.approx(step, abs=0.2 / n)
            np.testing.assert_allclose(grid.origin_mm, start, atol=0.12)


def _blank(series: Series, name: str, **tags: object) -> Path:
    return series(name=name, **({"SeriesInstanceUID": "", "StudyInstanceUID": ""} | tags))


@pytest.mark.parametrize("uid", ["", None])
@pytest.mark.parametrize("tags", [{"PatientID": "p2"}, {"SeriesNumber": 9}, {"StudyInstanceUID": "1.2.8"}, {}])
def test_scans_of_blank_uids_are_never_merged(series: Series, tags: dict[str, object], uid: str | None) -> None:
    """The second one's slices lie between those of the first."""
    _blank(series, "raw/a", SeriesInstanceUID=uid)
    _blank(series, "raw/b", SeriesInstanceUID=uid, edit=slices_at([101.0 + 2 * k for k in range(6)]), **tags)
    found = find_scans(Path(_blank(series, "raw/a", SeriesInstanceUID=uid)).parent)
    assert [(f.name.split("/")[0], len(f.files), f.refusal) for f in found] == [("a", 6, None), ("b", 6, None)]
    assert read_scan(found[1]).volume.origin_mm[2] == 101.0


def test_one_series_uid_of_two_patients_in_two_folders_is_two_scans(series: Series) -> None:
    series(name="raw/a")
    series(name="raw/b", PatientID="p2")
    found = find_scans(series(name="raw/a").parent)
    assert [(f.name, read_scan(f).patient) for f in found] == [("a/series-0004", "p1"), ("b/series-0004", "p2")]


def _copied(folder: Path, *to: str) -> None:
    for file in list(folder.iterdir()):
        for name in to:
            (folder.parent / name).mkdir(exist_ok=True)
            (folder.parent / name / file.name).write_bytes(file.read_bytes())


def test_a_series_copied_into_another_folder_is_one_scan_and_told(series: Series) -> None:
    folder = series(name="raw/export 1")
    _copied(folder, "O'Brien")
    (found,) = find_scans(folder.parent)
    assert (found.name, len(found.files)) == ("O'Brien/series-0004", 6)
    (said,) = read_scan(found).warnings
    assert said == "6 file(s) in 'export 1' are copies, byte for byte, of those in \"O'Brien\", and passed over"
    assert found.nameless(said) == said.replace("'export 1'", "another place").replace('"O\'Brien"', "a folder")


def test_copies_that_differ_are_refused_with_both_folders_and_files(series: Series) -> None:
    folder = series(name="raw/anna")
    _copied(folder, "other")
    ct_slice((-10.0, 20.0, 100.0)).save_as(folder / "006.dcm")
    file = folder.parent / "other" / "003.dcm"
    file.write_bytes(file.read_bytes()[:-2] + b"\1\1")
    (found,) = find_scans(folder.parent)
    with pytest.raises(DuplicateSlicesError, match=r"'anna/003\.dcm' and 'other/003\.dcm' are one image .* and differ"):
        read_scan(found)
    assert found.refusal is not None
    said = str(found.without_names(found.refusal))
    assert said.startswith("file 3 and file 9 are one image")
    assert "anna" not in said


def test_a_copy_of_one_slice_beside_it_harms_nothing(series: Series) -> None:
    folder = series()
    (folder / "003 (1).dcm").write_bytes((folder / "003.dcm").read_bytes())
    scan = read_scan(folder)
    assert scan.volume.depth == 6
    assert scan.warnings == ("1 file(s) are copies, byte for byte, of others in the same folder, and passed over",)


@pytest.mark.parametrize(
    ("kept", "said"),
    [
        (range(12), None),
        (range(8, 20), "images are numbered up to 20, and 8 of these numbers are absent"),
        (range(0, 20, 2), "images are numbered up to 19, and 9 of these numbers are absent"),
    ],
)
def test_a_series_of_which_slices_are_absent_is_told_where_its_numbers_tell(
    series: Series, kept: range, said: str | None
) -> None:
    numbers: list[object] = [k + 1 for k in kept]
    folder = series(n=len(kept), edit=slices_at([2.0 * k for k in kept], InstanceNumber=numbers))
    warnings = read_scan(folder).warnings
    assert warnings == (() if said is None else (f"{said}: still arriving, or exported in part",))


@pytest.mark.parametrize("keyword", ["ImagesInAcquisition", "NumberOfSeriesRelatedInstances"])
def test_a_series_with_fewer_slices_than_its_headers_count_is_told(series: Series, keyword: str) -> None:
    assert read_scan(series(**{keyword: 6})).warnings == ()
    assert read_scan(series(name="part", **{keyword: 20})).warnings == (
        "6 images of 20 that its headers count: still arriving, or exported in part",
    )


def test_scans_are_offered_by_description_date_and_slices_and_these_reach_no_output(series: Series) -> None:
    folder = series(name="raw/a", SeriesDescription="Thorax MULLER", SeriesDate="20260102")
    series(name="raw/b", SeriesInstanceUID="1.2.9", SeriesDescription="Kopf")
    with pytest.raises(MixedSeriesError) as caught:
        read_scan(folder.parent)
    assert "'a/series-0004' (Thorax MULLER, 20260102, 6 slices every 2 mm); 'b/series-0004' (Kopf, 6 " in str(
        caught.value
    )
    (folder / "003.dcm").unlink()
    (found,) = (f for f in find_scans(folder.parent, keep_headers=True) if f.refusal)
    assert found.refusal is not None
    assert "MULLER" not in f"{found.title} {found.refusal} {found.without_names(found.refusal)}"


def test_no_folder_of_a_refused_scan_is_left_in_its_message() -> None:
    found = Found("x", "dicom", (Path("/raw/O'Brien, Anna/1/IM1.dcm"), Path("/raw/O'Brien, Anna/2/IM1.dcm")))
    error = DuplicateSlicesError("'1/IM1.dcm' and \"O'Brien, Anna/2/IM1.dcm\" differ, \"O'Brien, Anna\" has both")
    assert str(found.without_names(error)) == "file 1 and file 2 differ, a folder has both"
    assert QUOTED.sub("", repr("O'Brien") + repr('a "b"') + repr("c'\"d")) == ""


def test_a_zip_that_windows_packed_isfirst_values(series: Series, tmp_path: Path) -> None:
    folder = series()
    with zipfile.ZipFile(tmp_path / "s.zip", "w") as opened:
        opened.writestr("PA1\\", b"")
        for file in folder.iterdir():
            opened.writestr(f"PA1\\ST1\\{file.name}", file.read_bytes())
    (found,) = find_scans(tmp_path / "s.zip")
    assert found.name == "s.zip/PA1/ST1/series-0004"
    np.testing.assert_array_equal(read_scan(found).volume.hu, read_scan(folder).volume.hu)


def test_a_patient_cd_with_its_viewer_is_read_and_the_archives_told(series: Series, tmp_path: Path) -> None:
    folder = series(name="cd/DICOM")
    for name in ("weasis.jar.pack.gz", "viewer.exe", "autorun.inf"):
        (folder.parent / name).write_bytes(b"MZ whatever")
    assert [f.name for f in find_scans(folder.parent)] == ["DICOM/series-0004"]
    with zipfile.ZipFile(tmp_path / "s.zip", "w") as opened:
        opened.writestr("inner.zip", b"x")
        for file in folder.parent.rglob("*.*"):
            opened.writestr(file.relative_to(folder.parent).as_posix(), file.read_bytes())
    scan = read_scan(tmp_path / "s.zip")
    assert scan.volume.depth == 6
    assert scan.warnings == ("2 archive(s) inside, such as 'inner.zip', passed over: unpack what holds a scan",)
