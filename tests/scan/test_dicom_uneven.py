"""One DICOM series whose slices are uneven: stretches, missing slices, mixed thicknesses."""

from collections.abc import Callable
from pathlib import Path

import pytest

from ctinterp_dagster.errors import (
    MissingSlicesError,
    MixedSeriesError,
    MixedThicknessError,
    UnevenSpacingError,
)
from ctinterp_dagster.scan.io import find_scans, read_scan, read_stretches

from .conftest import first_values, slices_at

Series = Callable[..., Path]

HEAD = [0, 2.5, 5, 7.5, 10, 13.75, 18.75, 23.75]  # slices of 2.5 mm, then of 5 mm, edge to edge


def test_two_slice_distances_as_tagged_are_two_scans(series: Series) -> None:
    folder = series(n=8, edit=slices_at(HEAD, SliceThickness=[2.5] * 5 + [5.0] * 3))
    assert first_values(folder) == {
        "series-0004-part-1": [0, 100, 200, 300, 400],
        "series-0004-part-2": [500, 600, 700],
    }
    scan = read_scan(folder, "series-0004-part-2")
    assert (scan.volume.spacing_mm[0], scan.thickness_mm) == (5.0, 5.0)
    place, change = scan.warnings
    assert place == "stretch 2 of 2, from '003.dcm' to '001.dcm', every 5 mm"
    said = "the slice distance changes from 2.5 to 5 mm and SliceThickness from 2.5 to 5 mm"
    assert change == f"{said} between '004.dcm' and '003.dcm'"


@pytest.mark.parametrize("depths", [[0, 2.5, 5, 7.5, 10, 15, 20, 25], [0, 2, 4, 6, 9, 12, 15, 18]])
def test_two_slice_distances_without_a_tag_are_named(series: Series, depths: list[float]) -> None:
    said = f"changes from {depths[1]:g} to {depths[7] - depths[6]:g} mm between '00[45]\\.dcm' and '00[34]\\.dcm'"
    with pytest.raises(UnevenSpacingError, match=said):
        read_scan(series(n=8, edit=slices_at(depths)))


LACKS_TWO = [0, 2, 4, 6, 12, 14, 16, 18]


def test_a_series_that_lacks_slices_is_two_stretches_that_are_read_in_order(series: Series) -> None:
    folder = series(n=8, edit=slices_at(LACKS_TWO))
    assert [f.refusal for f in find_scans(folder)] == [None, None]
    assert [scan.volume.hu[0, 0, 0] + 1024 for scan in read_stretches(folder)] == [0, 400]
    assert [scan.volume.hu[0, 0, 0] + 1024 for scan in read_stretches(folder, "series-0004-part-2")] == [400]
    with pytest.raises(
        MissingSlicesError, match=r"2 slice\(s\) missing.* or choose a stretch: series-0004-part-1, series"
    ):
        read_scan(folder)


@pytest.mark.parametrize(
    ("depths", "said"),
    [
        ([0, 2, 4, 6, 14, 16, 18, 20], [["3 slice(s) missing between '005.dcm' and '004.dcm'"]] * 2),
        ([0, 6, 8, 10, 12, 14, 16, 18], [["2 slice(s) missing between '008.dcm' and '007.dcm'"], []]),
        (
            [0, 2, 4, 8, 10, 12, 20, 22, 24],
            [
                ["1 slice(s) missing between '007.dcm' and '006.dcm'"],
                [
                    "1 slice(s) missing between '007.dcm' and '006.dcm'",
                    "3 slice(s) missing between '004.dcm' and '003.dcm'",
                ],
                ["3 slice(s) missing between '004.dcm' and '003.dcm'"],
            ],
        ),
        ([0, 2, 4, 6, 9, 11, 13, 15], [["a step of 3 mm between '005.dcm' and '004.dcm'"]] * 2),
    ],
)
def test_stretches_tell_how_many_slices_are_missing_and_where(
    series: Series, depths: list[float], said: list[list[str]]
) -> None:
    found = find_scans(series(n=len(depths), edit=slices_at(depths)))
    assert [list(part.warnings[1:]) for part in found] == said


def test_stretches_beside_another_scan_are_chosen_by_the_name_of_the_whole(series: Series) -> None:
    series(name="raw/other", SeriesInstanceUID="1.2.9")
    raw = series(name="raw/gap", n=8, edit=slices_at(LACKS_TWO)).parent
    assert len(read_stretches(raw, "gap/series-0004")) == 2
    with pytest.raises(MixedSeriesError, match=r"none was chosen.*a stretch of 'gap/series-0004'"):
        read_stretches(raw)


@pytest.mark.parametrize("depths", [[0, 2, 5, 7, 10, 12, 15, 17], [0, 2, 4, 6, 6, 8, 10, 12]])
def test_positions_that_no_stretches_explain_are_refused(series: Series, depths: list[float]) -> None:
    (found,) = find_scans(series(n=8, edit=slices_at(depths)))
    assert found.refusal is not None
    assert found.refusal.reason in {"uneven_spacing", "duplicate_slices"}


def test_stretches_of_two_thicknesses_at_one_distance_are_told_apart(series: Series, tmp_path: Path) -> None:
    """Slices of 5 mm that touch, then slices of 7 mm that overlap."""
    folder = series(n=12, edit=slices_at([5.0 * k for k in range(12)], SliceThickness=[5.0] * 6 + [7.0] * 6))
    with pytest.raises(MixedThicknessError, match=r"SliceThickness changes from 5 to 7 mm between '007.*' and '006"):
        read_scan(folder)
    one, two = read_stretches(folder)
    assert (one.thickness_mm, two.thickness_mm) == (5.0, 7.0)
    assert one.warnings[1] == two.warnings[1] == "SliceThickness changes from 5 to 7 mm between '007.dcm' and '006.dcm'"


def test_thicknesses_that_differ_by_rounding_are_one(series: Series) -> None:
    thicknesses = [5.0, 4.99, 5.0, 5.0, 5.02, 5.0, 5.0, 4.98]
    assert len(first_values(series(n=8, edit=slices_at([5.0 * k for k in range(8)], SliceThickness=thicknesses)))) == 1


@pytest.mark.parametrize(
    ("tags", "each", "said"),
    [
        ([2, 3] * 4, (2, 3) * 4, "SliceThickness is 2 and 3 mm from slice to slice"),
        ([2, 2, 3, 2, 2, 2, 2, 5], (2, 2, 3, 2, 2, 2, 2, 5), "SliceThickness is 2, 3 and 5 mm from slice to slice"),
        (
            [2, 3, 2, None, 2, 3, 2, None],
            (),
            "SliceThickness is 2 and 3 mm from slice to slice, and absent from 2 slice(s): it is not believed",
        ),
    ],
)
def test_thicknesses_that_differ_from_slice_to_slice_are_one_scan_and_told(
    series: Series, tags: list[object], each: tuple[float, ...], said: str
) -> None:
    scan = read_scan(series(n=8, edit=slices_at([2.0 * k for k in range(8)], SliceThickness=tags)))
    assert (scan.volume.depth, scan.thickness_mm, scan.each_thickness_mm, scan.warnings) == (8, None, each, (said,))


@pytest.mark.parametrize("tags", [[5, None] * 4, [None] * 4 + [5] * 4, [5] * 7 + [None]])
def test_a_thickness_that_some_slices_lack_is_that_of_all(series: Series, tags: list[object]) -> None:
    scan = read_scan(series(n=8, edit=slices_at([5.0 * k for k in range(8)], SliceThickness=tags)))
    assert (scan.volume.depth, scan.thickness_mm, scan.warnings) == (8, 5.0, ())


def test_a_thickness_that_changes_where_some_slices_lack_it_is_of_two_stretches(series: Series) -> None:
    tags: list[object] = [5, 5, 5, None, None, 7, 7, 7]
    one, two = read_stretches(series(n=8, edit=slices_at([5.0 * k for k in range(8)], SliceThickness=tags)))
    assert [(one.volume.depth, one.thickness_mm), (two.volume.depth, two.thickness_mm)] == [(5, 5.0), (3, 7.0)]


def test_the_refusal_of_uneven_slices_names_their_thicknesses(series: Series) -> None:
    edit = slices_at([0, 2, 5, 7, 10, 12, 15, 17], SliceThickness=[2, 3] * 4)
    with pytest.raises(UnevenSpacingError, match=r"the oddest .*, and SliceThickness is 2 and 3 mm; expected"):
        read_scan(series(n=8, edit=edit))
