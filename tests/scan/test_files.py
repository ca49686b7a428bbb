"""Volume files keep values and place."""

import gzip
import zlib
from itertools import product
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ctinterp_dagster.errors import (
    GeometryError,
    IntensityError,
    NotCtError,
    TooFewSlicesError,
    UnreadableScanError,
)
from ctinterp_dagster.scan.io import read_scan, write_volume
from ctinterp_dagster.scan.io.images import affine_of, lps_of_ras, placed, ras_of_lps
from ctinterp_dagster.scan.io.volume_files import gzipped
from ctinterp_dagster.scan.volume import Volume

from .conftest import rotation

SUFFIXES = (".nii", ".nii.gz", ".mha", ".nrrd")
MIRRORS = ((1, 1, 1), (-1, 1, 1), (1, -1, 1), (1, 1, -1), (-1, -1, 1))


def assert_same_place(got: Volume, expected: Volume) -> None:
    assert got.hu.shape == expected.hu.shape
    z, y, x = (n - 1 for n in expected.hu.shape)
    for corner in product((0, z), (0, y), (0, x)):
        np.testing.assert_allclose(got.point_mm(corner), expected.point_mm(corner), atol=1e-3)
    np.testing.assert_allclose(got.spacing_mm, expected.spacing_mm, rtol=1e-6)


@pytest.mark.parametrize("mirror", MIRRORS)
@pytest.mark.parametrize(("first", "second"), list(product(SUFFIXES, SUFFIXES)))
def test_every_pair_of_formats_keeps_geometry_and_values(
    oblique: Volume, tmp_path: Path, first: str, second: str, mirror: tuple[int, int, int]
) -> None:
    volume = Volume(oblique.hu, oblique.spacing_mm, oblique.origin_mm, oblique.direction * np.array(mirror))
    write_volume(volume, tmp_path / f"a{first}")
    write_volume(read_scan(tmp_path / f"a{first}").volume, tmp_path / f"b{second}")
    got = read_scan(tmp_path / f"b{second}").volume
    assert_same_place(got, volume)
    np.testing.assert_array_equal(got.hu, volume.hu)
    assert got.hu.dtype == np.float32


@pytest.mark.parametrize("suffix", SUFFIXES)
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    angles=st.tuples(*[st.floats(-40, 40)] * 3),
    origin=st.tuples(*[st.floats(-2000, 2000)] * 3),
    spacing=st.tuples(st.floats(0.3, 10), st.floats(0.3, 1.2), st.floats(0.3, 1.2)),
    mirrored=st.booleans(),
)
def test_any_axial_place_survives_a_file(
    tmp_path: Path,
    suffix: str,
    angles: tuple[float, float, float],
    origin: tuple[float, float, float],
    spacing: tuple[float, float, float],
    mirrored: bool,  # noqa: FBT001 (hypothesis passes it)
) -> None:
    direction = rotation(angles[0] / 2, angles[1] / 2, angles[2]) * np.array([-1.0 if mirrored else 1.0, 1, 1])
    if max(spacing[1:]) >= 1.5 * max(spacing[0], min(spacing[1:])):
        spacing = (max(spacing), *spacing[1:])
    volume = Volume(np.zeros((4, 5, 6), np.float32), spacing, origin, direction)
    write_volume(volume, tmp_path / f"v{suffix}")
    assert_same_place(read_scan(tmp_path / f"v{suffix}").volume, volume)


def test_lps_and_ras_are_inverses_that_turn_left_and_front_around(oblique: Volume) -> None:
    lps = affine_of(oblique)
    np.testing.assert_array_equal(lps_of_ras(ras_of_lps(lps)), lps)
    np.testing.assert_array_equal(ras_of_lps(lps_of_ras(lps)), lps)
    point = oblique.point_mm((3, 2, 1))
    assert ras_of_lps(lps) @ [1, 2, 3, 1] == pytest.approx([-point[0], -point[1], point[2]])


def test_an_affine_and_the_volume_that_it_places_are_inverses(oblique: Volume) -> None:
    again = placed(oblique.hu.transpose(2, 1, 0), affine_of(oblique))
    assert_same_place(again, oblique)
    np.testing.assert_array_equal(again.hu, oblique.hu)
    np.testing.assert_allclose(affine_of(again), affine_of(oblique), rtol=1e-14)


def test_simpleitk_and_nibabel_agree_on_the_place_of_a_written_nifti(oblique: Volume, tmp_path: Path) -> None:
    write_volume(oblique, tmp_path / "v.nii.gz")
    image = SimpleITK.ReadImage(str(tmp_path / "v.nii.gz"))
    np.testing.assert_allclose(image.TransformIndexToPhysicalPoint((8, 6, 4)), oblique.point_mm((4, 6, 8)), atol=1e-3)
    header = nib.load(tmp_path / "v.nii.gz").header
    assert (int(header["sform_code"]), int(header["qform_code"])) == (1, 1)
    np.testing.assert_allclose(header.get_qform(), header.get_sform(), atol=1e-3)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_same_volume_gives_the_same_bytes(oblique: Volume, tmp_path: Path, suffix: str) -> None:
    for name in ("a", "b"):
        write_volume(oblique, tmp_path / f"{name}{suffix}")
    assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


@pytest.mark.parametrize("strategy", [zlib.Z_DEFAULT_STRATEGY, zlib.Z_HUFFMAN_ONLY])
@pytest.mark.parametrize("size", [0, 1, 1000, 4 << 20, (4 << 20) + 1, 9_000_000])
def test_gzip_of_many_blocks_is_one_member_that_every_reader_takes(size: int, strategy: int, tmp_path: Path) -> None:
    data = np.random.default_rng(0).integers(0, 40, size, dtype=np.uint8).tobytes()
    packed = gzipped(data, strategy)
    assert packed == gzipped(data, strategy)
    stream = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    assert stream.decompress(packed) == data, "checksum and length are right, and it is one member"
    assert stream.eof
    assert stream.unused_data == b""
    (tmp_path / "f.gz").write_bytes(packed)
    with gzip.open(tmp_path / "f.gz") as opened:
        assert opened.read() == data
    assert len(packed) < 0.9 * size + 100


def test_gzip_carries_no_time(oblique: Volume, tmp_path: Path) -> None:
    write_volume(oblique, tmp_path / "v.nii.gz")
    assert (tmp_path / "v.nii.gz").read_bytes()[4:8] == bytes(4)


@pytest.mark.parametrize(("shift", "dtype"), [(0.0, np.int16), (0.25, np.float32), (40000.0, np.float32)])
def test_whole_values_are_stored_in_16_bits_and_others_as_floats(
    oblique: Volume, tmp_path: Path, shift: float, dtype: type
) -> None:
    volume = oblique.with_hu(oblique.hu + np.float32(shift))
    write_volume(volume, tmp_path / "v.nii")
    assert nib.load(tmp_path / "v.nii").get_data_dtype() == dtype
    np.testing.assert_array_equal(read_scan(tmp_path / "v.nii").volume.hu, volume.hu)


def test_a_volume_with_nan_is_not_written(oblique: Volume, tmp_path: Path) -> None:
    with pytest.raises(IntensityError, match="NaN or infinity"):
        write_volume(oblique.with_hu(np.full_like(oblique.hu, np.nan)), tmp_path / "v.nii")
    assert not (tmp_path / "v.nii").exists()


def test_an_unknown_suffix_is_not_written(oblique: Volume, tmp_path: Path) -> None:
    with pytest.raises(UnreadableScanError, match=r"cannot write v\.png: expected a name that ends in \.nii"):
        write_volume(oblique, tmp_path / "v.png")


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0), (2, 1, 0), (0, 2, 1)])
def test_the_slice_axis_of_a_file_comes_to_z_wherever_the_file_has_it(
    oblique: Volume, tmp_path: Path, order: tuple[int, int, int]
) -> None:
    write_volume(oblique, tmp_path / "v.nii")
    image = nib.load(tmp_path / "v.nii")
    columns = [*order, 3]
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj).transpose(order), image.affine[:, columns]), tmp_path / "w.nii")
    got = read_scan(tmp_path / "w.nii").volume
    assert got.spacing_mm[0] == pytest.approx(5.0)
    assert got.depth == 5
    for index in product((0, 4), (0, 6), (0, 8)):
        place = oblique.point_mm(index)
        step = np.linalg.solve(got.direction * np.array(got.spacing_mm[::-1]), place - np.array(got.origin_mm))
        x, y, z = np.rint(step).astype(int)
        np.testing.assert_allclose(step, (x, y, z), atol=1e-3)
        assert got.hu[z, y, x] == oblique.hu[index]


def test_nifti_scaling_is_applied(oblique: Volume, tmp_path: Path) -> None:
    write_volume(oblique, tmp_path / "v.nii")
    raw = bytearray((tmp_path / "v.nii").read_bytes())
    raw[112:120] = np.array([0.5, -1000.0], "<f4").tobytes()  # scl_slope, scl_inter
    (tmp_path / "v.nii").write_bytes(raw)
    np.testing.assert_array_equal(read_scan(tmp_path / "v.nii").volume.hu, oblique.hu * 0.5 - 1000)


def test_nifti_in_metres_is_read_in_millimetres(oblique: Volume, tmp_path: Path) -> None:
    write_volume(oblique, tmp_path / "v.nii")
    image = nib.load(tmp_path / "v.nii")
    scaled = nib.Nifti1Image(np.asarray(image.dataobj), np.diag([1e-3, 1e-3, 1e-3, 1]) @ image.affine)
    scaled.header.set_xyzt_units("meter")
    nib.save(scaled, tmp_path / "w.nii")
    assert_same_place(read_scan(tmp_path / "w.nii").volume, oblique)


def _nifti(tmp_path: Path, values: np.ndarray, affine: np.ndarray | None = None) -> Path:
    nib.save(nib.Nifti1Image(values, np.eye(4) if affine is None else affine), tmp_path / "v.nii")
    return tmp_path / "v.nii"


def test_one_frame_of_a_4d_nifti_is_a_volume_and_more_are_refused(tmp_path: Path) -> None:
    values = np.arange(120, dtype=np.int16).reshape(4, 5, 6, 1)
    assert read_scan(_nifti(tmp_path, values)).volume.hu.shape == (6, 5, 4)
    with pytest.raises(NotCtError, match=r"v\.nii: the image holds \(2,\) volumes of \(4, 5, 6\): expected one"):
        read_scan(_nifti(tmp_path, np.repeat(values, 2, axis=3)))


def test_a_flat_image_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TooFewSlicesError, match=r"image is of shape \(4, 5\)"):
        read_scan(_nifti(tmp_path, np.zeros((4, 5), np.int16)))


def test_a_nifti_without_a_place_is_refused(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.zeros((4, 5, 6), np.int16), None)
    nib.save(image, tmp_path / "v.nii")
    with pytest.raises(GeometryError, match="sform_code and qform_code are 0"):
        read_scan(tmp_path / "v.nii")


def test_a_nifti_with_shear_is_refused(tmp_path: Path) -> None:
    affine = np.eye(4)
    affine[1, 2] = 0.3
    with pytest.raises(GeometryError, match=r"v\.nii: the axes of .* orthonormal.* give the DICOM series"):
        read_scan(_nifti(tmp_path, np.zeros((4, 5, 6), np.int16), affine))


def test_colours_are_refused(tmp_path: Path) -> None:
    rgb = np.zeros((4, 5, 6), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    with pytest.raises(UnreadableScanError, match="expected real numbers"):
        read_scan(_nifti(tmp_path, rgb))
    SimpleITK.WriteImage(SimpleITK.Image([4, 5, 6], SimpleITK.sitkVectorUInt8, 3), str(tmp_path / "v.mha"))
    with pytest.raises(NotCtError, match="3 numbers a voxel"):
        read_scan(tmp_path / "v.mha")


def test_a_nrrd_without_a_space_is_refused(oblique: Volume, tmp_path: Path) -> None:
    header = b"NRRD0004\ntype: short\ndimension: 3\nsizes: 2 2 2\nendian: little\nencoding: raw\n\n"
    (tmp_path / "v.nrrd").write_bytes(header + bytes(16))
    with pytest.raises(GeometryError, match="names no `space`"):
        read_scan(tmp_path / "v.nrrd")


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("keep", [0, 30, 0.5])
def test_a_truncated_file_is_unreadable(oblique: Volume, tmp_path: Path, suffix: str, keep: float) -> None:
    path = tmp_path / f"v{suffix}"
    write_volume(oblique, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep * len(whole)) if keep < 1 else int(keep)])
    with pytest.raises(UnreadableScanError, match=r"^v\S+: no readable"):
        read_scan(path)


@pytest.mark.parametrize("name", ["none.nii", "none.nii.gz", "none.mha", "none.nrrd"])
def test_the_causes_of_a_refusal_come_to_an_end(name: str, tmp_path: Path) -> None:
    """Who looks for the first cause, as ingest does, would not come to an end itself."""
    (tmp_path / name).write_bytes(b"no scan at all")
    with pytest.raises(UnreadableScanError) as caught:
        read_scan(tmp_path / name)
    seen: list[BaseException] = []
    cause: BaseException | None = caught.value
    while cause:
        assert all(cause is not other for other in seen)
        seen.append(cause)
        cause = cause.__cause__


def test_a_corrupt_gzip_is_unreadable(oblique: Volume, tmp_path: Path) -> None:
    path = tmp_path / "v.nii.gz"
    write_volume(oblique, path)
    damaged = bytearray(path.read_bytes())
    damaged[-6] ^= 0xFF  # the checksum at the end
    path.write_bytes(damaged)
    with pytest.raises(UnreadableScanError, match="no readable NIfTI"):
        read_scan(path)


def test_an_unknown_unit_of_length_is_unreadable(oblique: Volume, tmp_path: Path) -> None:
    write_volume(oblique, tmp_path / "v.nii")
    raw = bytearray((tmp_path / "v.nii").read_bytes())
    raw[123] = 7  # xyzt_units
    (tmp_path / "v.nii").write_bytes(raw)
    with pytest.raises(UnreadableScanError, match="no readable NIfTI"):
        read_scan(tmp_path / "v.nii")
