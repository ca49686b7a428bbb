"""Multi-frame CT: each frame in its place, by its own rescale, or refused for the right reason."""

from pathlib import Path

import pytest
from pydicom.dataset import Dataset, FileDataset

from ctinterp_dagster.errors import DerivedError, GeometryError, MixedOrientationError, NotCtError
from ctinterp_dagster.scan.io import read_scan
from ctinterp_dagster.scan.io.derived_series import read_origin

from .conftest import enhanced_ct


def test_a_multi_frame_ct_is_sorted_by_position_and_rescaled(tmp_path: Path) -> None:
    file = tmp_path / "enhanced.dcm"
    enhanced_ct([6.0, 0.0, 3.0, 9.0], [(0.5, -1000.25)] * 4).save_as(file, enforce_file_format=True)
    scan = read_scan(file)
    assert scan.volume.hu[:, 0, 3].tolist() == [(100 * k + 3) * 0.5 - 1000.25 for k in (1, 2, 0, 3)]
    assert scan.volume.spacing_mm == pytest.approx((3.0, 0.7, 0.9))
    assert scan.volume.origin_mm == (-10.0, 20.0, 0.0)
    assert scan.thickness_mm == 3.0


def test_each_frame_of_a_multi_frame_ct_comes_to_hu_by_its_own_rescale(tmp_path: Path) -> None:
    file = tmp_path / "enhanced.dcm"
    enhanced_ct([3.0, 0.0, 6.0], [(1, -1024), (1.5, -1000), (0.5, -950)]).save_as(file, enforce_file_format=True)
    assert read_scan(file).volume.hu[:, 0, 0].tolist() == [100 * 1.5 - 1000, -1024, 200 * 0.5 - 950]


def test_a_multi_frame_ct_whose_frames_are_not_all_there_is_refused(tmp_path: Path) -> None:
    dataset = enhanced_ct([0.0, 3.0, 6.0], [(1, -1024)] * 3)
    dataset.NumberOfFrames = 2
    dataset.save_as(tmp_path / "enhanced.dcm", enforce_file_format=True)
    with pytest.raises(GeometryError, match=r"enhanced\.dcm holds 2 frames and not one place for each"):
        read_scan(tmp_path / "enhanced.dcm")


@pytest.mark.parametrize(
    ("there", "said"), [(2, ()), (1, ("1 file(s) of 2 that are one image (InConcatenationTotalNumber)",))]
)
def test_files_of_one_image_that_are_not_all_there_are_told(tmp_path: Path, there: int, said: tuple[str, ...]) -> None:
    for k in range(there):
        part = enhanced_ct([9.0 * k, 9.0 * k + 3, 9.0 * k + 6], [(1, -1024)] * 3)
        part.InConcatenationTotalNumber = 2
        part.save_as(tmp_path / f"{k}.dcm", enforce_file_format=True)
    scan = read_scan(tmp_path)
    assert (scan.volume.depth, scan.warnings) == (3 * there, said)


def test_a_frame_that_does_not_fit_is_named(tmp_path: Path) -> None:
    ct = enhanced_ct([3.0 * k for k in range(4)], [(1, -1024)] * 4)
    ct.PerFrameFunctionalGroupsSequence[2].PlaneOrientationSequence = [Dataset()]
    ct.PerFrameFunctionalGroupsSequence[2].PlaneOrientationSequence[0].ImageOrientationPatient = [
        1,
        0,
        0,
        0,
        0.995,
        0.0999,
    ]
    ct.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    with pytest.raises(
        MixedOrientationError, match=r"orientation of 'a\.dcm \(frame 3\)' is .* in 'a\.dcm': a series must"
    ):
        read_scan(tmp_path)


def _typed(*words: str) -> FileDataset:
    """A multi-frame CT with a FrameType for each frame, of which the file itself says only that they are mixed."""
    ct = enhanced_ct([2.5 * k for k in range(len(words))], [(1, -1024)] * len(words))
    ct.ImageType = ["ORIGINAL", "PRIMARY", "MIXED", "MIXED"]
    for frame, word in zip(ct.PerFrameFunctionalGroupsSequence, words, strict=True):
        kind = Dataset()
        kind.FrameType = ["ORIGINAL", "PRIMARY", *word.split()]
        frame.CTImageFrameTypeSequence = [kind]
    return ct


def test_localizers_among_the_frames_of_a_multi_frame_ct_are_dropped(tmp_path: Path) -> None:
    _typed("LOCALIZER NONE", *["VOLUME NONE"] * 4).save_as(tmp_path / "a.dcm")
    scan = read_scan(tmp_path)
    assert scan.volume.hu[:, 0, 0].tolist() == [-924.0, -824.0, -724.0, -624.0]
    assert [image.frame for image in read_origin(scan).images] == [1, 2, 3, 4]


def test_a_multi_frame_ct_of_localizers_alone_is_no_scan(tmp_path: Path) -> None:
    _typed(*["LOCALIZER NONE"] * 3).save_as(tmp_path / "a.dcm")
    with pytest.raises(NotCtError, match="no CT slices in space among 1 file"):
        read_scan(tmp_path)


def test_a_multi_frame_ct_with_projections_among_its_frames_is_refused(tmp_path: Path) -> None:
    _typed("VOLUME NONE", "VOLUME MAX_IP", "VOLUME NONE").save_as(tmp_path / "a.dcm")
    with pytest.raises(DerivedError, match=r"a\.dcm is ORIGINAL/PRIMARY/MIXED/VOLUME/NONE/MAX_IP, a map"):
        read_scan(tmp_path)


def test_a_multi_frame_ct_without_frames_is_refused(tmp_path: Path) -> None:
    dataset = enhanced_ct([0.0, 3.0], [(1, -1024)] * 2)
    dataset.PerFrameFunctionalGroupsSequence = []
    dataset.save_as(tmp_path / "enhanced.dcm", enforce_file_format=True)
    with pytest.raises(GeometryError, match=r"enhanced\.dcm holds 2 frames and not one place for each"):
        read_scan(tmp_path / "enhanced.dcm")
