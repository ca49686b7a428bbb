"""Scans that were damaged, or made to harm: refused, each in its own words."""

import copy
import os
import struct
import subprocess
import sys
import tracemalloc
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from pydicom.dataset import Dataset

from ctinterp_dagster.errors import UnreadableScanError
from ctinterp_dagster.scan.io import find_scans, read_scan, write_volume
from ctinterp_dagster.scan.volume import Volume

from ..conftest import ROOT  # noqa: TID252 - a package of tests
from .seeds import SEEDS, seed

Series = Callable[..., Path]


def test_damaged_scans_are_read_or_refused_and_neither_crash_nor_hang_nor_grow() -> None:
    inputs = 10 * len(SEEDS)
    run = subprocess.run(
        [sys.executable, "-m", "tests.scan.fuzz", "--inputs", str(inputs), "--seed", "1"],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (run.returncode, run.stdout.splitlines()[0]) == (0, f"{inputs} inputs, 0 found"), run.stdout + run.stderr
    header, *rows = run.stdout.splitlines()[2:]
    read = header.split().index("read")
    counts = [[int(n) for n in row.split()[-len(header.split()) :]] for row in rows]
    assert len(counts) == len(SEEDS)
    assert sum(row[read] for row in counts) > 10  # damage that does no harm
    assert all(sum(row) - row[read] > 2 for row in counts)


def _nested(series: Series, depth: int, *, lengths: bool) -> Path:
    """A series in which one file has sequences in sequences, with or without their lengths."""
    folder = series()
    file = folder / "003.dcm"
    whole = file.read_bytes()
    at = whole.index(struct.pack("<HH2s", 0x7FE0, 0x0010, b"OW"))
    sizes = [20 * k if lengths else 0xFFFFFFFF for k in reversed(range(depth))]
    ends = b"" if lengths else struct.pack("<HHIHHI", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0)
    head = b"".join(
        struct.pack("<HH2sHI", 0x0040, 0xA730, b"SQ", 0, min(size + 8, 0xFFFFFFFF))
        + struct.pack("<HHI", 0xFFFE, 0xE000, size)
        for size in sizes
    )
    file.write_bytes(whole[:at] + head + ends * depth + whole[at:])
    return folder


@pytest.mark.parametrize("lengths", [True, False])
def test_sequences_in_sequences_are_read_to_a_sane_depth(series: Series, lengths: bool) -> None:  # noqa: FBT001
    assert read_scan(_nested(series, 64, lengths=lengths)).volume.depth == 6


@pytest.mark.parametrize("depth", [65, 60_000])
def test_deep_sequences_with_lengths_are_refused(series: Series, depth: int) -> None:
    with pytest.raises(UnreadableScanError, match=r"003\.dcm has more than 64 levels of sequences in sequences"):
        read_scan(_nested(series, depth, lengths=True))


def test_deep_sequences_without_lengths_are_unreadable(series: Series) -> None:
    refused = {found.name: found.refusal for found in find_scans(_nested(series, 60_000, lengths=False))}
    assert isinstance(refused["003.dcm"], UnreadableScanError)
    assert "003.dcm is no readable DICOM file: maximum recursion depth exceeded" in str(refused["003.dcm"])


@pytest.mark.parametrize("tags", [{"Rows": 65535, "Columns": 65535}, {"NumberOfFrames": "2147483647"}])
def test_a_dicom_header_that_claims_more_than_its_file_can_hold_is_refused(
    series: Series, tags: dict[str, object]
) -> None:
    def edit(k: int, dataset: Dataset) -> None:
        for keyword, value in tags.items():
            setattr(dataset, keyword, value)

    found = find_scans(series(edit=edit))
    assert all("would grow from" in str(f.refusal) for f in found)
    with pytest.raises(UnreadableScanError, match=r"001\.dcm would grow from \d+ to \d+ bytes: expected at most"):
        read_scan(found[0])


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_nifti_header_that_claims_more_than_its_file_can_hold_is_refused(tmp_path: Path, suffix: str) -> None:
    header = nib.Nifti1Header()
    header.set_data_dtype(np.int16)
    header["sizeof_hdr"], header["magic"], header["vox_offset"], header["sform_code"] = 348, b"n+1", 352, 1
    header["dim"] = [3, 32767, 32767, 32767, 1, 1, 1, 1]
    header["srow_x"], header["srow_y"], header["srow_z"] = np.eye(4)[:3]
    with nib.openers.Opener(str(tmp_path / f"v{suffix}"), "wb") as opened:
        opened.write(header.binaryblock + bytes(4) + bytes(4096))
    with pytest.raises(UnreadableScanError, match=r"the file would grow from \d+ to 140\d+ bytes"):
        read_scan(tmp_path / f"v{suffix}")


@pytest.mark.parametrize(
    ("suffix", "size", "huge"),
    [(".mha", b"DimSize = 9 7 5", b"DimSize = 90000 70000 50000"), (".nrrd", b"sizes: 9 7 5", b"sizes: 90000 70000 5")],
)
def test_a_text_header_that_claims_more_than_its_file_can_hold_is_refused(
    oblique: Volume, tmp_path: Path, suffix: str, size: bytes, huge: bytes
) -> None:
    path = tmp_path / f"v{suffix}"
    write_volume(oblique, path)
    path.write_bytes(path.read_bytes().replace(size, huge))
    with pytest.raises(UnreadableScanError, match=r"the file would grow from \d+ to \d+ bytes: expected at most"):
        read_scan(path)


def test_a_header_that_claims_no_voxels_is_refused(oblique: Volume, tmp_path: Path) -> None:
    write_volume(oblique, tmp_path / "v.mha")
    (tmp_path / "v.mha").write_bytes((tmp_path / "v.mha").read_bytes().replace(b"= 9 7 5", b"= 9 0 5"))
    with pytest.raises(UnreadableScanError, match=r"v\.mha: "):
        read_scan(tmp_path / "v.mha")


META = "ObjectType = Image\nNDims = 3\nDimSize = 9 7 5\nElementSpacing = 1 1 1\nElementType = MET_SHORT\n"
NRRD = (
    "NRRD0004\ntype: short\ndimension: 3\nspace: left-posterior-superior\nsizes: 9 7 5\n"
    "space directions: (1,0,0) (0,1,0) (0,0,1)\nspace origin: (0,0,0)\nencoding: raw\nendian: little\n"
)


@pytest.mark.parametrize("place", ["/etc/hostname", "../secret.raw", "sub/../../secret.raw", "link.raw"])
@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("v.mhd", f"{META}ElementDataFile = {{}}\n"),
        ("v.mha", f"{META}ElementDataFile = {{}}\n"),
        ("w.mhd", f"{META}ElementDataFile = LIST 2\nnone.raw\n{{}}\n"),
        ("v.nhdr", f"{NRRD}data file: {{}}\n"),
        ("v.nrrd", f"{NRRD}data file: {{}}\n"),
    ],
)
def test_a_header_cannot_have_files_read_outside_of_its_folder(
    tmp_path: Path, name: str, header: str, place: str
) -> None:
    (tmp_path / "secret.raw").write_bytes(bytes(2 * 9 * 7 * 5))
    folder = tmp_path / "scan"
    folder.mkdir()
    (folder / "link.raw").symlink_to(tmp_path / "secret.raw")
    (folder / name).write_text(header.format(place))
    with pytest.raises(UnreadableScanError, match="the header names a data file outside of its own folder"):
        read_scan(folder / name)


@pytest.mark.parametrize(("name", "header"), [("v.mhd", f"{META}ElementDataFile = "), ("v.nhdr", f"{NRRD}data file: ")])
def test_a_data_file_beside_its_header_is_read(tmp_path: Path, name: str, header: str) -> None:
    (tmp_path / "v.raw").write_bytes(np.arange(315, dtype="<i2").tobytes())
    (tmp_path / name).write_text(f"{header}v.raw\n")
    np.testing.assert_array_equal(read_scan(tmp_path / name).volume.hu.ravel(), np.arange(315))


@pytest.mark.parametrize("keep_headers", [False, True])
def test_links_that_lead_out_of_a_folder_are_refused_and_others_are_followed(
    series: Series, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, keep_headers: bool
) -> None:
    monkeypatch.setenv("CTINTERP_KEY_FILE", str(tmp_path / "key"))
    outside, folder = series(name="outside"), tmp_path / "folder"
    folder.mkdir()
    inside = series(name="folder/inside")
    (inside / "001.dcm").rename(folder / ".moved")
    (inside / "001.dcm").symlink_to(folder / ".moved")
    (folder / "file.dcm").symlink_to(outside / "001.dcm")
    cached = tmp_path / "cache/files/md5/0a" / ("f" * 30)  # as DVC links what it keeps
    cached.parent.mkdir(parents=True)
    (inside / "002.dcm").rename(cached)
    (inside / "002.dcm").symlink_to(cached)
    (folder / "all").symlink_to(outside, target_is_directory=True)
    (folder / "round").symlink_to(folder, target_is_directory=True)
    refused = {
        found.name: str(found.refusal) for found in find_scans(folder, keep_headers=keep_headers) if found.refusal
    }
    assert sorted(refused) == ["all", "file.dcm", "round"]
    assert read_scan(folder, "inside/series-0004").volume.depth == 6
    for name, said in refused.items():
        assert said == f"{name}: a link out of the folder, to a folder or to nothing is not followed: copy the files"


@pytest.mark.parametrize(
    ("name", "old", "new", "said"),
    [
        ("v.mha", b"NDims = 3", b"NDims = 4294967295", "'4294967295' axes, expected 1 to 5"),
        ("v.mha", b"TransformMatrix = ", b"TransformMatrix = 1e308 ", "10 numbers in 'transformmatrix' for 3 axes"),
        ("v.mha", b"0.90000000000000002 ", b"1e308 ", "'1e308' in 'elementspacing', expected a number"),
        ("v.mha", b"0.90000000000000002 ", b"nan ", "'nan' in 'elementspacing', expected a number"),
        ("v.mha", b"LOCAL\n", b"LOCAL\1\2", "bytes that are no text"),
        ("v.mha", b"ElementDataFile", b"E", r"no end within \d+ bytes"),
        ("v.nrrd", b"sizes: 9 7 5", b"sizes: 9 7 5" + 90 * b" 5", "93 numbers in 'sizes' for 3 axes"),
        ("v.nrrd", b"space: left", b"space: left" + 600 * b"t", "a line of more than 500 characters"),
        ("v.nrrd", b"space origin: (", b"space origin: (\0", "bytes that are no text"),
    ],
)
def test_text_headers_that_itk_does_not_survive_are_refused_before_it_sees_them(
    oblique: Volume, tmp_path: Path, name: str, old: bytes, new: bytes, said: str
) -> None:
    write_volume(oblique, tmp_path / name)
    whole = (tmp_path / name).read_bytes()
    assert old in whole
    (tmp_path / name).write_bytes(whole.replace(old, new))
    with pytest.raises(UnreadableScanError, match=f"no readable file: its header has {said}"):
        read_scan(tmp_path / name)


def test_what_nrrd_writes_for_no_number_is_read(tmp_path: Path) -> None:
    header = NRRD.replace("encoding", "thicknesses: nan NaN 2\nencoding")
    (tmp_path / "v.nrrd").write_bytes(header.encode() + b"\n" + np.arange(315, dtype="<i2").tobytes())
    np.testing.assert_array_equal(read_scan(tmp_path / "v.nrrd").volume.hu.ravel(), np.arange(315))


def _bomb(head: bytes, size: int) -> bytes:
    """A gzip stream that begins with `head` and unpacks to that many zeros more."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    return packer.compress(head) + b"".join(packer.compress(bytes(1 << 20)) for _ in range(size >> 20)) + packer.flush()


@pytest.mark.parametrize(("offset", "extension"), [(30_000_000, 16), (400, 30_000_000)])
def test_a_nifti_extension_is_not_unpacked_without_end(tmp_path: Path, offset: int, extension: int) -> None:
    header = nib.Nifti1Header()
    header.set_data_shape((4, 5, 6))
    header["magic"], header["vox_offset"], header["sform_code"] = b"n+1", offset, 1
    header["srow_x"], header["srow_y"], header["srow_z"] = np.eye(4)[:3]
    head = header.binaryblock + b"\1\0\0\0" + np.array([extension, 6], "<i4").tobytes()
    (tmp_path / "v.nii.gz").write_bytes(_bomb(head, 32 << 20))
    tracemalloc.start()
    with pytest.raises(UnreadableScanError, match=r"the file would grow from|no readable NIfTI file"):
        read_scan(tmp_path / "v.nii.gz")
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()


def test_packed_voxels_of_a_nrrd_are_not_unpacked_to_their_end(tmp_path: Path) -> None:
    header = NRRD.replace("encoding: raw", "encoding: gzip\nbyte skip: -1")
    (tmp_path / "v.nrrd").write_bytes(header.encode() + b"\n" + _bomb(b"", 1 << 20))
    with pytest.raises(UnreadableScanError, match="a byte skip of -1 in packed voxels, expected 0 or more"):
        read_scan(tmp_path / "v.nrrd")


def test_an_archive_whose_members_overlap_is_held_to_its_own_size(tmp_path: Path) -> None:
    """One compressed member that a thousand entries of the directory share."""
    path = tmp_path / "s.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("0000", bytes(range(256)) * 400)
        first = opened.infolist()[0]
        for k in range(1, 1000):
            twin = copy.copy(first)
            twin.filename = f"{k:04d}"
            opened.filelist.append(twin)
    (found,) = find_scans(path)
    assert "the archive would grow from" in str(found.refusal)


@pytest.mark.parametrize(
    ("names", "said"), [(["a/" * 900 + "x.dcm"], "lies 901 folders deep"), (["x", "x"], "same name")]
)
def test_names_of_an_archive_that_harm_are_refused(tmp_path: Path, names: list[str], said: str) -> None:
    with warnings.catch_warnings(), zipfile.ZipFile(tmp_path / "s.zip", "w") as opened:
        warnings.simplefilter("ignore")  # of the name that is there already
        for name in names:
            opened.writestr(name, b"x")
    (found,) = find_scans(tmp_path / "s.zip")
    assert said in str(found.refusal)


def test_folders_a_thousand_deep_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "rglob", lambda *_: (_ for _ in ()).throw(RecursionError))  # removing real ones recurses
    with pytest.raises(UnreadableScanError, match="are nested too deep: move the scans up"):
        find_scans(tmp_path)


def test_run_length_coded_pixels_without_segments_are_refused(tmp_path: Path) -> None:
    for name, content in seed("DICOM, RLE").items():
        whole = content.replace(b"\2\0\0\0\x40\0\0\0", b"\0\0\0\0\x40\0\0\0")
        assert whole != content
        (tmp_path / name).write_bytes(whole)
    with pytest.raises(UnreadableScanError, match=r"cannot be decoded \(.*RLE segments .* \(0 vs\. 2 segments\)"):
        read_scan(tmp_path)
