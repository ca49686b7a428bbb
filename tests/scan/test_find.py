"""What a path holds, and archives that are not to be trusted."""

import stat
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ctinterp_dagster.errors import (
    MissingInputError,
    MissingSlicesError,
    MixedSeriesError,
    NotCtError,
    TruncatedScanError,
    UnreadableScanError,
)
from ctinterp_dagster.scan.identity import key_file, load_key, pseudonym
from ctinterp_dagster.scan.io import Found, find_scans, limits, read_scan, read_stretches, write_volume, zipped
from ctinterp_dagster.scan.io.dicom import read_header
from ctinterp_dagster.scan.volume import Volume
from tests.phantoms import phantom

from .conftest import ct_slice

Series = Callable[..., Path]


def _zipped(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, content in members.items():
            opened.writestr(name, content)
    return path


def _zipped_folder(path: Path, folder: Path) -> Path:
    return _zipped(path, {f"export/{f.name}": f.read_bytes() for f in sorted(folder.iterdir())})


def _refusal(path: Path) -> str:
    (found,) = find_scans(path)
    assert isinstance(found.refusal, UnreadableScanError)
    with pytest.raises(UnreadableScanError, match=found.name):
        read_scan(path)
    return str(found.refusal)


def test_a_nested_folder_lists_every_scan_by_name(series: Series, oblique: Volume, tmp_path: Path) -> None:
    series(name="raw/b/deep")
    series(name="raw/a", SeriesInstanceUID="1.2.5", SeriesNumber=7)
    raw = tmp_path / "raw"
    write_volume(oblique, raw / "c.nii.gz")
    write_volume(oblique, raw / "a" / "d.mha")
    _zipped_folder(raw / "e.zip", series(name="packed", SeriesInstanceUID="1.2.6"))
    (raw / ".gitignore").write_text("*\n")
    (raw / "scans.csv").write_text("name,patient\n")
    found = find_scans(raw)
    assert [(f.name, f.kind, len(f.files)) for f in found] == [
        ("a/d.mha", "itk", 1),
        ("a/series-0007", "dicom", 6),
        ("b/deep/series-0004", "dicom", 6),
        ("c.nii.gz", "nifti", 1),
        ("e.zip/export/series-0004", "dicom", 6),
    ]
    assert all(f.refusal is None for f in found)
    assert [read_scan(f).volume.depth for f in found] == [5, 6, 6, 5, 6]


def test_two_series_in_one_folder_are_two_scans(series: Series) -> None:
    folder = series(n=5)
    for file in list(folder.iterdir()):
        file.rename(folder / f"first-{file.name}")
    series(n=7, SeriesInstanceUID="1.2.9", PatientID="p2")
    assert [(f.name, len(f.files)) for f in find_scans(folder)] == [("series-0004", 5), ("series-0004-2", 7)]
    assert read_scan(folder, "series-0004-2").patient == "p2"
    listed = (
        r"'series-0004' \(5 slices every 2 mm, patient 1 of 2, 'first-001\.dcm'\); "
        r"'series-0004-2' \(7 slices every 2 mm, patient 2 of 2, '001\.dcm'\)$"
    )
    with pytest.raises(MixedSeriesError, match=rf"holds 2 scan.* none was chosen: choose .*: {listed}"):
        read_scan(folder)
    with pytest.raises(MixedSeriesError, match="none of them named 'series-0009'"):
        read_scan(folder, "series-0009")


def test_a_series_spread_over_folders_is_one_scan(series: Series) -> None:
    folder = series()
    (folder / "more").mkdir()
    (folder / "002.dcm").rename(folder / "more" / "002.dcm")
    assert [(f.name, len(f.files)) for f in find_scans(folder)] == [("series-0004", 6)]
    assert read_scan(folder).volume.hu[:, 0, 0].tolist() == [100.0 * k - 1024 for k in range(6)]


def test_a_refusal_is_known_before_the_pixels_are_read(series: Series) -> None:
    series(name="raw/good")
    folder = series(name="raw/bad", SeriesInstanceUID="1.2.5", SeriesNumber=5)
    (folder / "003.dcm").unlink()
    series(name="raw/scout", n=1, SeriesInstanceUID="1.2.8", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    reasons = {f.name: type(f.refusal) for f in find_scans(folder.parent)}
    assert reasons == {
        "bad/series-0005": MissingSlicesError,
        "good/series-0004": type(None),
        "scout/series-0004": NotCtError,
    }


def test_a_refused_scan_among_others_is_named_with_its_reason(series: Series) -> None:
    series(name="raw/good")
    (series(name="raw/bad", SeriesInstanceUID="1.2.5") / "003.dcm").unlink()
    with pytest.raises(MixedSeriesError, match=r"'bad/series-0004' \(refused: missing_slices\); 'good/series-0004'"):
        read_scan(series(name="raw/good").parent)


def test_identifiers_do_not_reach_names_and_messages(series: Series) -> None:
    folder = series(PatientID="SECRET", SeriesInstanceUID="9.8.7.6", Modality="PT")
    (found,) = find_scans(folder)
    assert "SECRET" not in f"{found.name} {found.refusal}"
    assert "9.8.7.6" not in f"{found.name} {found.refusal}"


def test_nothing_at_a_path_is_a_missing_input(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="nowhere does not exist"):
        find_scans(tmp_path / "nowhere")
    for read in (read_scan, read_stretches):
        with pytest.raises(MissingInputError, match="holds no scan"):
            read(tmp_path)


def test_very_many_scans_are_told_by_their_number(series: Series) -> None:
    for number in range(12):
        folder = series(name=f"s{number}", n=3, SeriesInstanceUID=f"1.2.{number}", SeriesNumber=number)
    with pytest.raises(MixedSeriesError, match=r"holds 12 .*s6/series-0006' .*; and 3 more, see `ctinterp scans check"):
        read_scan(folder.parent)


def test_a_file_of_no_known_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    assert _refusal(tmp_path / "notes.txt").startswith("notes.txt: no known format")
    assert find_scans(tmp_path) == []


@pytest.mark.parametrize("name", ["scan.7z", "scan.tar.gz", "scan.rar"])
def test_other_archives_are_refused_and_not_passed_over(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"whatever")
    assert "archives are not read: unpack it" in _refusal(tmp_path)


def test_a_scan_in_a_zip_is_read_and_nothing_is_left_behind(
    series: Series, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    folder = series()
    scan = read_scan(_zipped_folder(tmp_path / "s.zip", folder))
    np.testing.assert_array_equal(scan.volume.hu, read_scan(folder).volume.hu)
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize("name", ["../up.dcm", "/root.dcm", "a/../../up.dcm", "C:/up.dcm", "a\\..\\up.dcm"])
def test_names_that_lead_out_of_an_archive_are_refused(tmp_path: Path, name: str) -> None:
    assert "outside of the archive" in _refusal(_zipped(tmp_path / "s.zip", {name: b"x"}))


def test_links_in_an_archive_are_refused(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("link.dcm")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "s.zip", "w") as opened:
        opened.writestr(link, "/etc/hostname")
    assert "symbolic link" in _refusal(tmp_path / "s.zip")


@pytest.mark.parametrize("name", ["inner.zip", "inner.tar.gz", "INNER.7Z"])
def test_a_zip_of_nothing_but_archives_says_so(tmp_path: Path, name: str) -> None:
    said = _refusal(_zipped(tmp_path / "s.zip", {name: b"x", "readme.txt": b"x"}))
    assert f"holds no scan but 1 archive(s) inside, such as '{name}': unpack it first" in said


def test_a_compressed_nifti_is_not_taken_for_an_archive(oblique: Volume, tmp_path: Path) -> None:
    write_volume(oblique, tmp_path / "v.nii.gz")
    path = _zipped(tmp_path / "s.zip", {"v.nii.gz": (tmp_path / "v.nii.gz").read_bytes()})
    np.testing.assert_array_equal(read_scan(path).volume.hu, oblique.hu)


def test_an_encrypted_archive_is_refused(tmp_path: Path) -> None:
    path = _zipped(tmp_path / "s.zip", {"a.dcm": b"x" * 50})
    raw = bytearray(path.read_bytes())
    raw[raw.index(b"PK\x01\x02") + 8] |= 1
    raw[6] |= 1
    path.write_bytes(raw)
    assert "is encrypted" in _refusal(path)


def test_a_bomb_is_refused_by_its_ratio(tmp_path: Path) -> None:
    assert "would grow from" in _refusal(_zipped(tmp_path / "s.zip", {"a.dcm": bytes(20_000_000)}))


def test_too_large_an_archive_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_BYTES", 100)
    assert "would grow from" in _refusal(_zipped(tmp_path / "s.zip", {"a.dcm": b"0123456789" * 20}))


def test_too_many_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zipped, "MAX_FILES", 3)
    assert "holds 4 files, expected at most 3" in _refusal(_zipped(tmp_path / "s.zip", dict.fromkeys("abcd", b"x")))


def test_an_archive_that_lies_about_its_size_is_refused(tmp_path: Path) -> None:
    path = _zipped(tmp_path / "s.zip", {"a.dcm": bytes(range(256)) * 40})
    raw = bytearray(path.read_bytes())
    at = raw.index(b"PK\x01\x02") + 24
    raw[at : at + 4] = (100).to_bytes(4, "little")
    path.write_bytes(raw)
    assert "cannot be unpacked" in _refusal(path)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd"])
def test_a_truncated_volume_file_is_told_from_a_corrupt_one(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"v{suffix}"
    write_volume(phantom(1, (12, 32, 32), (2.0, 6.0, 6.0), 10.0), path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-40])
    with pytest.raises(TruncatedScanError, match=r"v\.\S+: no readable .*; make it again"):
        read_scan(path)
    path.write_bytes(b"no header" + whole)
    with pytest.raises(UnreadableScanError, match="no readable") as caught:
        read_scan(path)
    assert type(caught.value) is UnreadableScanError


@pytest.mark.parametrize("cut", [10, 100])
def test_a_truncated_archive_is_refused(series: Series, tmp_path: Path, cut: int) -> None:
    path = _zipped_folder(tmp_path / "s.zip", series())
    path.write_bytes(path.read_bytes()[:-cut])
    assert "cannot be unpacked" in _refusal(path)


def test_an_archive_without_scans_is_refused(tmp_path: Path) -> None:
    assert "holds no scan" in _refusal(_zipped(tmp_path / "s.zip", {"readme.txt": b"x"}))


def test_a_refusal_in_an_archive_names_archive_and_scan_and_no_folder(series: Series, tmp_path: Path) -> None:
    path = _zipped_folder(tmp_path / "s.zip", series(name="Doe^Jane", Modality="MR"))
    (found,) = find_scans(path)
    assert isinstance(found, Found)
    assert str(found.refusal).startswith("s.zip/series-0004: Modality")
    assert found.label == "s.zip/series-0004"
    assert isinstance(found.refusal, NotCtError)


def test_a_series_is_picked_by_its_uid(series: Series, tmp_path: Path) -> None:
    series(name="raw")
    series(name="raw/b", SeriesInstanceUID="1.2.5", SliceThickness=3.0)
    assert read_scan(tmp_path / "raw", series="1.2.5").thickness_mm == 3.0
    with pytest.raises(MixedSeriesError, match=r"none of them named '1\.2\.9'"):
        read_scan(tmp_path / "raw", series="1.2.9")


def test_a_series_is_picked_by_its_description_date_or_number_where_these_tell(series: Series, tmp_path: Path) -> None:
    series(name="raw", SeriesDescription="THORAX 5.0")
    series(name="raw/b", SeriesInstanceUID="1.2.5", SliceThickness=3.0, SeriesDescription="LUNG", SeriesNumber=7)
    assert read_scan(tmp_path / "raw", series="LUNG").thickness_mm == 3.0
    assert read_scan(tmp_path / "raw", series="7").thickness_mm == 3.0
    series(name="raw/c", SeriesInstanceUID="1.2.6", SeriesDescription="LUNG", SeriesDate="20240229")
    with pytest.raises(MixedSeriesError, match=r"2 of them named 'LUNG'.*20240229, 6 slices every"):
        read_scan(tmp_path / "raw", series="LUNG")
    assert read_scan(tmp_path / "raw", series="20240229").found.uid == "1.2.6"


def told(found: list[Found]) -> list[tuple[Found, str]]:
    """What can be compared: errors are equal to themselves only."""
    return [(replace(f, refusal=None), repr(f.refusal)) for f in found]


def test_kept_headers_give_the_same_and_only_changed_files_are_read(
    series: Series, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = series(FrameOfReferenceUID="1.2.77", PatientID="anna")
    series(name="scan/capture", n=1, SeriesInstanceUID="1.2.9", SOPClassUID="1.2.840.10008.5.1.4.1.1.7")
    (*others, plain), first = find_scans(folder), find_scans(folder, keep_headers=True)
    assert plain.place is not None
    patient = pseudonym("anna", load_key())
    assert told(first) == told([*others, replace(plain, place=replace(plain.place, patient=patient))])
    cache = key_file().with_name("headers.json")
    assert (cache.stat().st_mode & 0o777, "anna" in cache.read_text()) == (0o600, False)
    read: list[str] = []
    monkeypatch.setattr(
        "ctinterp_dagster.scan.io.cache.read_header", lambda file: read.append(file.name) or read_header(file)
    )
    assert (told(find_scans(folder, keep_headers=True)), read) == (told(first), [])
    ct_slice((-10.0, 20.0, 112.0), FrameOfReferenceUID="1.2.77", PatientID="anna").save_as(folder / "new.dcm")
    (*_, found) = find_scans(folder, keep_headers=True)
    assert (len(found.files), read) == (7, ["new.dcm"])
