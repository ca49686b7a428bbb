"""`ctinterp scans add --layout`: each public data set as it lies, and what is bad in one."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from click.testing import CliRunner

from ctinterp_dagster.cli.main import group
from ctinterp_dagster.cli.options.datasets import DATA_SET_NAMES, DATA_SETS
from ctinterp_dagster.layout import Layout
from ctinterp_dagster.pipeline import ingest
from ctinterp_dagster.records import read_csv
from ctinterp_dagster.scan.io import read_scan, write_volume
from ctinterp_dagster.scan.volume import Volume
from ctinterp_dagster.scan.window import RPLHR
from tests.conftest import smoke_params
from tests.phantoms import phantom
from tests.pipeline.test_hospital import write_dicom

SPLIT = {"min_slices": 8}


def thin(seed: int, step_mm: float = 1.0) -> Volume:
    return phantom(seed, shape_zyx=(24, 32, 32), spacing_mm=(step_mm, 2.5, 2.5), noise_hu=10.0)


def file(path: Path, volume: Volume) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_volume(volume.with_hu(np.rint(volume.hu)), path)


def unit(path: Path, volume: Volume) -> None:
    """As RPLHR-CT's files are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_volume(volume.with_hu(RPLHR.to_unit(RPLHR.clip(volume.hu)).astype(np.float32)), path)


def lay(name: str, folder: Path) -> dict[str, str]:
    """Two scans as a data set has them; the patients by the file in scans.csv."""
    return {f"{name}/{place}": patient for patient, place in (lay_dicom if name in DICOM else lay_files)(name, folder)}


DICOM = {
    "lidc-idri": ("LIDC-IDRI-0001/01-01-2000/3.000000", "LIDC-IDRI-0002/01-01-2000/4.000000"),
    "covid-ct-md": ("COVID-19 Cases/P001", "Cap Cases/cap002"),
    "cq500": ("CQ500CT0 CQ500CT0/Unknown Study/CT PLAIN THIN", "CQ500CT14 CQ500CT14/Unknown Study/CT 0.625mm"),
}
PATIENTS = {
    "lidc-idri": ("LIDC-IDRI-0001", "LIDC-IDRI-0002"), "covid-ct-md": ("P001", "cap002"),
    "cq500": ("CQ500CT0", "CQ500CT14"),
}  # fmt: skip


def lay_dicom(name: str, folder: Path) -> Iterator[tuple[str, str]]:
    for seed, (patient, place) in enumerate(zip(PATIENTS[name], DICOM[name], strict=True)):
        write_dicom(folder / place, thin(seed).hu, 1.0)
        yield patient, f"{place}/series-0004"


def lay_files(name: str, folder: Path) -> Iterator[tuple[str, str]]:
    for n, split in ((1, "train"), (2, "test")):
        if name == "luna16":
            file(folder / f"{n}.mha", thin(n))
            (folder / "subset0").mkdir(exist_ok=True)
            sitk.WriteImage(sitk.ReadImage(folder / f"{n}.mha"), folder / "subset0" / f"1.3.6.{n}.mhd")
            yield f"1.3.6.{n}", f"subset0/1.3.6.{n}.nii.gz"
        elif name == "totalsegmentator":
            file(folder / f"s000{n}" / "ct.nii.gz", thin(n))
            file(folder / f"s000{n}" / "segmentations" / "liver.nii.gz", thin(n + 5))
            yield f"s000{n}", f"s000{n}/ct.nii.gz"
        else:
            for side, volume in (("1mm", thin(n)), ("5mm", thin(n, 5.0))):
                unit(folder / split / side / f"CT{n}.nii.gz", volume)
            yield f"CT{n}", f"{split}/1mm/CT{n}.nii.gz"


def add(monkeypatch: pytest.MonkeyPatch, layout: Layout, name: str, folder: Path) -> tuple[int, str]:
    smoke_params(layout.root, ingest=SPLIT)
    monkeypatch.chdir(layout.root)
    done = CliRunner().invoke(group, ["scans", "add", "--layout", name, str(folder)])
    return done.exit_code, done.output + str(done.exception or "")


@pytest.mark.parametrize("name", DATA_SET_NAMES)
def test_a_data_set_is_added_with_its_patients_licence_and_citation(
    name: str, monkeypatch: pytest.MonkeyPatch, layout: Layout, tmp_path: Path
) -> None:
    places = lay(name, tmp_path / "set")
    for added in (2, 0):
        code, out = add(monkeypatch, layout, name, tmp_path / "set")
        assert (code, f"{added} added" in out) == (0, True), out
    rows = {row["file"]: row for row in read_csv(layout.raw / "scans.csv")}
    assert {file: row["patient"] for file, row in rows.items()} == places
    row = next(it for it in DATA_SETS if it.name == name)
    assert {(it["licence"], it["citation"]) for it in rows.values()} == {(row.licence, row.citation)}
    if name == "rplhr-ct":
        assert [it["split"] for it in rows.values()] == ["test", "train"]
    ingest.run(smoke_params(layout.root, ingest=SPLIT), layout)
    assert {it["patient"] for it in read_csv(layout.ingest / "cases.csv")} == set(places.values())
    assert len(read_csv(layout.ingest / "sources.csv")) == 2


def test_values_of_rplhr_ct_are_in_whole_hu_and_in_their_place(
    monkeypatch: pytest.MonkeyPatch, layout: Layout, tmp_path: Path
) -> None:
    lay("rplhr-ct", tmp_path / "set")
    assert add(monkeypatch, layout, "rplhr-ct", tmp_path / "set")[0] == 0
    kept = read_scan(layout.raw / "rplhr-ct" / "train" / "1mm" / "CT1.nii.gz").volume
    truth = thin(1)
    np.testing.assert_array_equal(kept.hu, np.rint(RPLHR.clip(truth.hu)))
    np.testing.assert_allclose(kept.point_mm((3, 4, 5)), truth.point_mm((3, 4, 5)), atol=1e-3)


def test_what_is_bad_is_told_by_its_file_and_the_others_are_added(
    monkeypatch: pytest.MonkeyPatch, layout: Layout, tmp_path: Path
) -> None:
    folder = tmp_path / "set"
    lay("rplhr-ct", folder)
    unit(folder / "train" / "1mm" / "alone.nii.gz", thin(3))
    unit(folder / "train" / "1mm" / "wide.nii.gz", thin(4))
    wide = thin(4, 5.0)
    unit(folder / "train" / "5mm" / "wide.nii.gz", Volume(wide.hu, (5.0, 3.0, 3.0), wide.origin_mm, wide.direction))
    for side, volume in (("1mm", thin(5)), ("5mm", thin(5, 5.0))):
        file(folder / "train" / side / "raw.nii.gz", volume.with_hu(volume.hu + 1024))
    code, out = add(monkeypatch, layout, "rplhr-ct", folder)
    assert (code, "2 added" in out, "3 refused" in out) == (1, True, True), out
    lines = [line for line in out.splitlines() if line.startswith("refused: ")]
    for name, words in (("alone", "partner"), ("wide", "expected one field of view"), ("raw", "expected HU")):
        (line,) = [it for it in lines if f"train/1mm/{name}.nii.gz" in it]
        assert words in line


def test_thick_scans_are_told_and_left_out(monkeypatch: pytest.MonkeyPatch, layout: Layout, tmp_path: Path) -> None:
    places = lay("totalsegmentator", tmp_path / "set")
    file(tmp_path / "set" / "s0009" / "ct.nii.gz", thin(9, 5.0))
    code, out = add(monkeypatch, layout, "totalsegmentator", tmp_path / "set")
    assert (code, "2 added" in out) == (0, True), out
    assert "left out: s0009/ct.nii.gz: " in out
    assert len(read_csv(layout.raw / "scans.csv")) == len(places)


def test_a_thick_series_is_left_out_whatever_else_keeps_it_from_being_truth(
    monkeypatch: pytest.MonkeyPatch, layout: Layout, tmp_path: Path
) -> None:
    lay("lidc-idri", tmp_path / "set")
    place = tmp_path / "set" / "LIDC-IDRI-0003" / "01-01-2000"
    write_dicom(place / "tilted", thin(3).hu, 5.0, edit=lambda k, image: image.ImagePositionPatient.__setitem__(1, k))
    hu = thin(4).hu
    write_dicom(place / "uneven", hu[:12], 5.0, SeriesInstanceUID="1.2.9")
    write_dicom(place / "rest", hu[12:], 8.0, first_mm=63.0, SeriesInstanceUID="1.2.9")
    for file in (place / "rest").iterdir():
        file.rename(place / "uneven" / f"rest-{file.name}")
    (place / "rest").rmdir()
    code, out = add(monkeypatch, layout, "lidc-idri", tmp_path / "set")
    assert (code, out.count("left out: "), "refused" in out) == (0, 3, False), out


def test_scans_of_one_folder_are_told_apart(monkeypatch: pytest.MonkeyPatch, layout: Layout, tmp_path: Path) -> None:
    folder = tmp_path / "set" / "CQ500CT1 CQ500CT1" / "Unknown Study"
    write_dicom(folder / "both", thin(1).hu, 1.0)
    write_dicom(folder / "thick", thin(2).hu, 5.0, SeriesNumber=7)
    for path in (folder / "thick").iterdir():
        path.rename(folder / "both" / f"thick-{path.name}")
    code, out = add(monkeypatch, layout, "cq500", tmp_path / "set")
    assert (code, "1 added" in out) == (0, True), out
    assert "left out: CQ500CT1 CQ500CT1/Unknown Study/both: series-0007: " in out
    assert [row["file"] for row in read_csv(layout.raw / "scans.csv")] == [
        "cq500/CQ500CT1 CQ500CT1/Unknown Study/both/series-0004"
    ]


def test_a_folder_that_lies_otherwise_says_what_is_expected(
    monkeypatch: pytest.MonkeyPatch, layout: Layout, tmp_path: Path
) -> None:
    code, out = add(monkeypatch, layout, "luna16", tmp_path)
    assert (code, "expected subset0/SERIESUID.mhd" in out) == (1, True), out
