"""What headers of volume files say beside the values: units, spaces, and words that contradict each other."""

import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK

from ctinterp_dagster.errors import CtinterpError, GeometryError, NotCtError, UnreadableScanError, WrongUnitsError
from ctinterp_dagster.scan.io import Scan, read_scan, write_volume
from ctinterp_dagster.scan.io.images import itk_image, volume_of
from ctinterp_dagster.scan.volume import Volume

RAW = np.arange(60, dtype="<i2")
PLACED = "space directions: (1,0,0) (0,2,0) (0,0,3)\nspace origin: (10,20,30)\n"
PLACED_IN_TIME = "space directions: (1,0,0,0) (0,2,0,0) (0,0,3,0) (0,0,0,1)\nspace origin: (10,20,30,0)\n"


def _nrrd(tmp_path: Path, fields: str) -> Path:
    sizes = "3 4 5 1" if PLACED_IN_TIME in fields else "3 4 5"
    head = f"NRRD0005\ntype: short\ndimension: {len(sizes.split())}\nsizes: {sizes}\nendian: little\nencoding: raw\n"
    (tmp_path / "v.nrrd").write_bytes(f"{head}{fields}\n".encode() + RAW.tobytes())
    return tmp_path / "v.nrrd"


def _mha(tmp_path: Path, fields: str, size: str = "ElementSpacing = 1 2 3\n") -> Path:
    head = "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\n"
    tail = "DimSize = 3 4 5\nElementType = MET_SHORT\nElementDataFile = LOCAL\n"
    (tmp_path / "v.mha").write_bytes(f"{head}{size}{fields}{tail}".encode() + RAW.tobytes())
    return tmp_path / "v.mha"


def _last_mm(volume: Volume) -> list[float]:
    """Where the last voxel of the values lies: LPS, mm."""
    assert volume.hu[-1, -1, -1] == RAW[-1]
    return [float(v) for v in volume.point_mm((volume.depth - 1, volume.hu.shape[1] - 1, volume.hu.shape[2] - 1))]


@pytest.mark.parametrize("time", ["", "-time"])
@pytest.mark.parametrize(
    ("space", "last_mm"),
    [
        ("left-posterior-superior", [12, 26, 42]),
        ("right-anterior-superior", [-12, -26, 42]),
        ("left-anterior-superior", [12, -26, 42]),
    ],
)
def test_each_nrrd_space_of_the_patient_is_brought_to_lps(
    tmp_path: Path, space: str, last_mm: list[float], time: str
) -> None:
    for name in (space + time, "".join(word[0] for word in space.split("-")).upper() + time[1:2].upper()):
        path = _nrrd(tmp_path, f"space: {name}\n{PLACED_IN_TIME if time else PLACED}")
        assert _last_mm(read_scan(path).volume) == pytest.approx(last_mm)
        assert _last_mm(volume_of(SimpleITK.ReadImage(path))) == pytest.approx(last_mm), "the Python API agrees"


@pytest.mark.parametrize("space", ["scanner-xyz", "3D-left-handed", "3D-right-handed", "scanner-xyz-time"])
def test_a_nrrd_space_that_is_not_of_the_patient_is_refused(tmp_path: Path, space: str) -> None:
    path = _nrrd(tmp_path, f"space: {space}\n{PLACED_IN_TIME if 'time' in space else PLACED}")
    with pytest.raises(GeometryError, match=rf"v\.nrrd: the NRRD header names the `space` '{space}': expected RAS"):
        read_scan(path)
    with pytest.raises(GeometryError, match=space):
        volume_of(SimpleITK.ReadImage(path))


@pytest.mark.parametrize(("unit", "mm"), [("cm", 10), ("um", 1e-3), ("mm", 1), ("m", 1e3), ("", 1)])
def test_units_of_text_headers_are_applied(tmp_path: Path, unit: str, mm: float) -> None:
    words = " ".join([f'"{unit}"'] * 3)
    nrrd = read_scan(_nrrd(tmp_path, f"space: LPS\nspace units: {words}\n{PLACED}")).volume
    assert _last_mm(nrrd) == pytest.approx([12 * mm, 26 * mm, 42 * mm])
    mha = read_scan(_mha(tmp_path, f"Offset = 10 20 30\nDistanceUnits = {unit or '?'}\n")).volume
    assert _last_mm(mha) == pytest.approx([12 * mm, 26 * mm, 42 * mm])
    assert mha.spacing_mm == pytest.approx((3 * mm, 2 * mm, mm))


def test_the_unit_of_a_metaimage_is_applied_in_memory_too(tmp_path: Path) -> None:
    volume = volume_of(SimpleITK.ReadImage(_mha(tmp_path, "DistanceUnits = cm\n")))
    assert volume.spacing_mm == pytest.approx((30, 20, 10))


@pytest.mark.parametrize(
    ("kind", "fields", "error", "said"),
    [
        ("nrrd", f'space: LPS\nspace units: "in" "in" "in"\n{PLACED}', GeometryError, "distances are in 'in'"),
        ("nrrd", f'space: LPS\nspace units: "mm" "mm" "cm"\n{PLACED}', GeometryError, "`space units` are cm, mm"),
        ("nrrd", "space: LPS\n", GeometryError, "no space directions of all axes"),
        ("nrrd", "space: LPS\nspace directions: (1,0,0) (0,2,0) none\n", GeometryError, "no space directions of all"),
        ("nrrd", f"space: LPS\n{PLACED}old min: -1000\nold max: 3000\n", WrongUnitsError, "'old min' -1000"),
        ("mha", "DistanceUnits = inch\n", GeometryError, "distances are in 'inch'"),
        ("mha", "ElementToIntensityFunctionSlope = 2\n", WrongUnitsError, "the stored numbers are not the values"),
        ("mha", "ElementToIntensityFunctionOffset = -1024\n", WrongUnitsError, "stored numbers are not the values"),
        ("mha", "Modality = MET_MOD_MR\n", NotCtError, "the modality is 'MET_MOD_MR'"),
        ("mha", "transformmatrix = 0 1 0 1 0 0 0 0 1\n", GeometryError, "'transformmatrix': MetaImage spells"),
    ],
)
def test_what_itk_passes_over_in_silence_is_refused(
    tmp_path: Path, kind: str, fields: str, error: type[CtinterpError], said: str
) -> None:
    path = _nrrd(tmp_path, fields) if kind == "nrrd" else _mha(tmp_path, fields)
    with pytest.raises(error, match=rf"^v\.{kind}: .*{said}"):
        read_scan(path)


def test_a_metaimage_without_a_voxel_size_is_refused_and_one_with_elementsize_is_not(tmp_path: Path) -> None:
    with pytest.raises(GeometryError, match="gives no ElementSpacing"):
        read_scan(_mha(tmp_path, "", size=""))
    assert read_scan(_mha(tmp_path, "", size="ElementSize = 1 2 3\n")).volume.spacing_mm == (3, 2, 1)
    both = _mha(tmp_path, "ElementSize = 1 2 9\nElementToIntensityFunctionSlope = 1\nModality = MET_MOD_CT\n")
    assert read_scan(both).volume.spacing_mm == (3, 2, 1), "ElementSize is how wide a voxel is, not how far the next"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ("AnatomicalOrientation = RAI\n", ()),
        ("AnatomicalOrientation = LPS\n", ()),
        ("AnatomicalOrientation = ???\n", ()),
        ("CenterOfRotation = 1 2 3\n", ()),
        ("AnatomicalOrientation = LAI\n", ("AnatomicalOrientation is LAI",)),
        ("AnatomicalOrientation = ASL\n", ("AnatomicalOrientation is ASL",)),
        ("TransformMatrix = 0 1 0 -1 0 0 0 0 1\nCenterOfRotation = 1 2 3\n", ("CenterOfRotation is 1 2 3",)),
        ("TransformMatrix = 0 1 0 -1 0 0 0 0 1\nCenterOfRotation = 0 0 0\nAnatomicalOrientation = ALI\n", ()),
    ],
)
def test_metaimage_words_against_its_matrix_are_told(tmp_path: Path, fields: str, said: tuple[str, ...]) -> None:
    told = read_scan(_mha(tmp_path, fields)).warnings
    assert len(told) == len(said)
    assert all(word in sentence for word, sentence in zip(said, told, strict=True))


def test_files_that_itk_writes_are_not_warned_of(oblique: Volume, tmp_path: Path) -> None:
    write_volume(oblique, tmp_path / "v.mha")
    write_volume(oblique, tmp_path / "v.nii")
    assert read_scan(tmp_path / "v.mha").warnings == read_scan(tmp_path / "v.nii").warnings == ()


@pytest.mark.parametrize("suffix", ["mhd", "nhdr"])
@pytest.mark.parametrize("packed", [False, True])
def test_a_header_without_its_data_file_names_the_file(
    oblique: Volume, tmp_path: Path, suffix: str, *, packed: bool
) -> None:
    header = tmp_path / f"scan.{suffix}"
    SimpleITK.WriteImage(itk_image(oblique, oblique.hu), str(header), packed)
    (values,) = (file for file in tmp_path.iterdir() if file != header)
    read_scan(header)
    values.unlink()
    with pytest.raises(UnreadableScanError, match=rf"the values lie in '{re.escape(values.name)}', which is not there"):
        read_scan(header)


@pytest.mark.parametrize("absent", [0, 1])
def test_a_header_of_a_list_names_the_file_that_is_absent(tmp_path: Path, absent: int) -> None:
    header = tmp_path / "scan.mhd"
    sizes = "NDims = 3\nDimSize = 4 4 2\nElementSpacing = 1 1 2\nElementType = MET_SHORT\n"
    header.write_text(f"{sizes}ElementDataFile = LIST\n0.raw\n1.raw\n", encoding="utf-8")
    for k in range(2):
        (tmp_path / f"{k}.raw").write_bytes(bytes(32))
    assert read_scan(header).volume.hu.shape == (2, 4, 4)
    (tmp_path / f"{absent}.raw").unlink()
    with pytest.raises(UnreadableScanError, match=rf"the values lie in '{absent}\.raw', which is not there"):
        read_scan(header)


def _nifti(tmp_path: Path, sform: np.ndarray | None, qform: np.ndarray | None, **fields: object) -> Scan:
    image = nib.Nifti1Image(RAW.reshape(3, 4, 5), None)
    image.header["pixdim"][1:4] = (1, 2, 3)
    image.set_sform(sform, code=0 if sform is None else 1)
    image.set_qform(qform, code=0 if qform is None else 1)
    for name, value in fields.items():
        image.header[name] = value
    (tmp_path / "v.nii").write_bytes(image.to_bytes())
    return read_scan(tmp_path / "v.nii")


def test_forms_of_nifti_that_disagree_are_told_with_how_far(tmp_path: Path) -> None:
    sform = np.diag([1.0, 2, 3, 1])
    moved = sform.copy()
    moved[:3, 3] = (0, 6, 8)
    assert _nifti(tmp_path, sform, sform).warnings == ()
    assert _nifti(tmp_path, sform, sform + 0.05 * (moved > sform)).warnings == ()
    scan = _nifti(tmp_path, sform, moved)
    assert scan.warnings == ("sform and qform place voxels up to 10.0 mm apart: the sform is taken",)
    assert scan.volume.origin_mm == (0, 0, 0)
    (flipped,) = _nifti(tmp_path, sform, np.diag([-1.0, 2, 3, 1])).warnings
    assert "up to 4.0 mm apart" in flipped, "the last of three columns of 1 mm, left for right"
    _nifti(tmp_path, sform, moved)
    with pytest.warns(UserWarning, match=r"up to 10\.0 mm apart"):
        volume_of(nib.load(tmp_path / "v.nii"))


def test_a_form_that_is_not_in_force_says_nothing(tmp_path: Path) -> None:
    place = np.diag([1.0, 2, 3, 1])
    scan = _nifti(tmp_path, None, place, srow_x=[9, 9, 9, 9])
    assert (scan.volume.spacing_mm, scan.warnings) == ((3, 2, 1), ())


def test_voxel_sizes_of_nifti_that_are_not_the_sforms_are_told(tmp_path: Path) -> None:
    (said,) = _nifti(tmp_path, np.diag([1.0, 2, 3, 1]), None, pixdim=[1, 1, 2, 5, 0, 0, 0, 0]).warnings
    assert said == "pixdim says voxels of [1.0, 2.0, 5.0] mm (x, y, z), the sform [1.0, 2.0, 3.0]: the sform is taken"


def test_a_quaternion_that_is_none_is_told(tmp_path: Path) -> None:
    place = np.diag([1.0, 2, 3, 1])
    assert "inf mm apart" in _nifti(tmp_path, place, place, quatern_b=0.9, quatern_c=0.9).warnings[0]


def test_an_intent_of_nifti_is_told(tmp_path: Path) -> None:
    place = np.diag([1.0, 2, 3, 1])
    assert _nifti(tmp_path, place, None, intent_code=1002).warnings == ("the intent is 'label': values may not be HU",)


@pytest.mark.parametrize("slope", [0.0, np.nan])
def test_a_nifti_slope_of_nothing_scales_nothing(tmp_path: Path, slope: float) -> None:
    scan = _nifti(tmp_path, np.diag([1.0, 2, 3, 1]), None, scl_slope=slope, scl_inter=7)
    assert scan.volume.hu.max() == RAW[-1]
