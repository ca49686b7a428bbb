"""What hospitals hand over: a hundred scans with thirty bad ones, real pairs, and names that must not get out."""

import gzip
import json
import logging
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from pydicom.dataset import FileDataset
from pydicom.uid import generate_uid

from ctinterp_dagster.cli.main import main
from ctinterp_dagster.errors import ScanError
from ctinterp_dagster.latent.diffusion import LatentDiffusion
from ctinterp_dagster.layout import Layout
from ctinterp_dagster.nullspace.diffusion import NullSpaceDiffusion
from ctinterp_dagster.orchestration.scans import read_verdicts
from ctinterp_dagster.pipeline import evaluate, generate, ingest, thicken
from ctinterp_dagster.records import read_csv, read_json
from ctinterp_dagster.scan.identity import key_file, load_key, pseudonym
from ctinterp_dagster.scan.io import read_scan, write_volume
from ctinterp_dagster.scan.volume import FloatArray, Volume
from tests.conftest import smoke_params
from tests.phantoms import phantom
from tests.pipeline.conftest import run_all
from tests.scan.conftest import ct_slice

THIN = phantom("hospital", (8, 24, 24), (1.5, 10.0, 10.0), 10.0)
TALL = phantom("tall", (36, 24, 24), (1.0, 10.0, 10.0), 10.0)
Edit = Callable[[int, FileDataset], None]


@pytest.fixture(autouse=True)
def _one_patient_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest, "assert_splits", lambda _: None)


def write_dicom(
    folder: Path, hu: FloatArray, step_mm: float, *, first_mm: float = 0.0, edit: Edit | None = None, **tags: Any
) -> None:
    folder.mkdir(parents=True)
    values = {"SeriesInstanceUID": generate_uid(), "PixelSpacing": [10.0, 10.0]} | tags
    for k, plane in enumerate(np.rint(hu).clip(-1024, 3071).astype(np.int16) + 1024):
        image = ct_slice((0.0, 0.0, first_mm + step_mm * k), size=plane.shape, **values)
        image.PixelData = plane.astype(np.int16).tobytes()
        if edit:
            edit(k, image)
        image.save_as(folder / f"{k:02d}.dcm", enforce_file_format=True)


def changed(k: int, **tags: Any) -> Edit:
    """An edit of one slice."""

    def edit(i: int, image: FileDataset) -> None:
        if i == k:
            for keyword, value in tags.items():
                setattr(image, keyword, value)

    return edit


def turned(slices: Sequence[int]) -> Edit:
    """An edit of the orientation of some slices."""
    edits = {k: changed(k, ImageOrientationPatient=[1, 0, 0, 0, 0.9, 0.43589]) for k in slices}
    return lambda k, image: edits[k](k, image) if k in edits else None


def write_bad(folder: Path) -> dict[str, str]:
    """A scan of every kind that is refused; the reason by name."""
    hu = THIN.hu
    dicom: dict[str, dict[str, Any]] = {
        "missing_slices": {},
        "truncated": {},
        "duplicate_slices": {"edit": changed(4, ImagePositionPatient=[0, 0, 4.5])},
        "uneven_spacing": {"edit": changed(4, ImagePositionPatient=[0, 0, 6.5])},
        "gantry_tilt": {"edit": turned(range(8))},
        "geometry": {"edit": changed(4, ImagePositionPatient=None)},
        "mixed_orientation": {"edit": turned([2, 3])},
        "mixed_series": {"edit": changed(4, PatientID="other")},
        "secondary_capture": {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"},
        "derived": {"ImageType": ["DERIVED", "SECONDARY", "MPR"]},
        "wrong_units": {"RescaleSlope": None},
        "not_ct": {"Modality": "MR"},
    }
    for reason, changes in dicom.items():
        write_dicom(folder / reason, hu, 1.5, **changes)
    (folder / "missing_slices" / "03.dcm").unlink()
    cut = folder / "truncated" / "03.dcm"
    cut.write_bytes(cut.read_bytes()[:-7])
    files = {
        "not_finite": THIN.with_hu(np.where(hu > 300, np.nan, hu).astype(np.float32)),
        "clipped": THIN.with_hu(hu.clip(-160, 240)),
        "too_thick": Volume(hu, (5.0, 10.0, 10.0), THIN.origin_mm, THIN.direction),
    }
    for reason, volume in files.items():
        affine = np.diag([*volume.spacing_mm[::-1], 1.0])
        nib.Nifti1Image(volume.hu.transpose(2, 1, 0), affine).to_filename(folder / f"{reason}.nii")
    parts = ["-part-1", "-part-2"]  # stretches of even slices
    named = {
        f"{folder.name}/{reason}/series-0004{k}": reason
        for reason in dicom
        for k in (parts if reason == "missing_slices" else [""])
    }
    return named | {f"{folder.name}/{reason}.nii": reason for reason in files}


def test_of_a_hundred_and_two_scans_the_bad_ones_are_quarantined_with_their_reasons(layout: Layout) -> None:
    for number in range(60):
        write_volume(THIN.with_hu(THIN.hu + number), layout.raw / f"{number}.nii")
    for number in range(10):
        write_dicom(layout.raw / f"series{number}", THIN.hu[::-1] + number, 1.5, PatientID=f"p{number}")
    expected = write_bad(layout.raw / "a") | write_bad(layout.raw / "b")
    result = ingest.run(smoke_params(layout.root, ingest={"min_slices": 8}), layout)
    assert (result["cases"], result["quarantined"]) == (70, 32)
    rows = read_csv(layout.ingest / "quarantine.csv")
    key = load_key()
    assert {row["scan"]: row["reason"] for row in rows} == {pseudonym(n, key, "s"): r for n, r in expected.items()}
    assert len({row["reason"] for row in rows}) == 15
    with pytest.raises(ScanError, match=r"32 of 102 scans are in quarantine, ingest\.strict expects none"):
        ingest.run(smoke_params(layout.root, ingest={"min_slices": 8, "strict": True}), layout)


def test_the_same_voxels_in_another_format_are_taken_once_and_the_other_is_told(layout: Layout) -> None:
    hu = np.rint(THIN.hu).astype(np.float32)
    write_dicom(layout.raw / "zoe", hu, 1.5, PatientID="zoe")
    write_volume(THIN.with_hu(hu), layout.raw / "listed.nii")
    ras = Volume(hu[:, ::-1, ::-1].copy(), THIN.spacing_mm, (0.0, 0.0, 0.0), np.diag([-1.0, -1.0, 1.0]))
    write_volume(ras, layout.raw / "ras.mha")
    write_volume(THIN.with_hu(hu + 1), layout.raw / "other.nii")
    (layout.raw / "scans.csv").write_text("file,patient,split\nlisted.nii,anna,test\n")
    result = ingest.run(smoke_params(layout.root, ingest={"min_slices": 8}), layout)
    assert (result["cases"], result["quarantined"]) == (2, 2)
    rows = read_csv(layout.ingest / "quarantine.csv")
    key = load_key()
    assert {row["scan"] for row in rows} == {pseudonym(name, key, "s") for name in ("zoe/series-0004", "ras.mha")}
    assert {row["reason"] for row in rows} == {"duplicate"}
    assert all("the same voxels as listed, " in row["message"] for row in rows)
    assert ingest.run(smoke_params(layout.root, ingest={"min_slices": 8}), layout) == result


def test_the_thick_partner_of_a_series_that_is_there_twice_stays_its_partner(paired: Layout) -> None:
    write_dicom(paired.raw / "again", TALL.hu, 1.0, PatientID="anna", FrameOfReferenceUID="1.2.77")
    result = ingest.run(smoke_params(paired.root, ingest=EVERYBODY), paired)
    assert (result["cases"], result["pairs"], result["quarantined"]) == (1, 1, 1)


def test_padding_and_links_to_nothing_leave_the_other_scans_as_they_are(layout: Layout) -> None:
    hu = THIN.hu.copy()
    hu[:, :, :3] = -3024
    write_volume(THIN.with_hu(hu), layout.raw / "padded.nii")
    (layout.raw / "gone.nii").symlink_to("/nowhere/gone.nii")
    result = ingest.run(smoke_params(layout.root, ingest={"min_slices": 8}), layout)
    assert (result["cases"], result["quarantined"]) == (1, 1)
    (row,) = read_csv(layout.ingest / "quarantine.csv")
    assert row["reason"] == "unreadable"
    (case,) = read_csv(layout.ingest / "cases.csv")
    kept = read_scan(layout.ingest / "volumes" / f"{case['case']}.nii").volume.hu
    np.testing.assert_allclose(kept[:, :, 2], hu[:, :, 3], atol=0.5)


def test_computed_images_are_interpolated_but_never_thin_truth(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_dicom(layout.raw / "ours", THIN.hu, 1.5, ImageType=["DERIVED", "SECONDARY", "AXIAL"])
    monkeypatch.setattr("sys.argv", ["ctinterp", "scans", "check", str(layout.raw), "--json"])
    with pytest.raises(SystemExit):
        main()
    (verdict,) = json.loads(capsys.readouterr().out)
    assert verdict["verdict"] == "fit"
    assert "derived images: to interpolate, no thin truth" in verdict["remark"]
    with pytest.raises(ScanError, match="ImageType says DERIVED"):
        ingest.run(smoke_params(layout.root, ingest={"min_slices": 8}), layout)


@pytest.fixture
def paired(layout: Layout) -> Layout:
    """A thin series of 36 mm, and a thick one of the same scan that begins 2 mm above it."""
    same = {"PatientID": "anna", "FrameOfReferenceUID": "1.2.77"}
    write_dicom(layout.raw / "thin", TALL.hu, 1.0, **same)
    thick = TALL.hu[2:32].reshape(6, 5, 24, 24).mean(axis=1)
    write_dicom(layout.raw / "thick", thick, 5.0, first_mm=4.0, **same)
    return layout


EVERYBODY = {"split": {"val_fraction": 0.0, "test_fraction": 0.999999}}


def test_the_thick_partner_of_a_thin_series_is_no_case_and_no_refusal(paired: Layout) -> None:
    result = ingest.run(smoke_params(paired.root, ingest=EVERYBODY), paired)
    assert (result["cases"], result["pairs"], result["quarantined"]) == (1, 1, 0)
    (pair,) = read_csv(paired.ingest / "pairs.csv")
    key = load_key()
    names = [pseudonym(f"{word}/series-0004", key, "s") for word in ("thick", "thin")]
    assert [pair["case"], pair["thin"]] == names
    assert read_scan(paired.ingest / "thick" / f"{pair['case']}.nii").volume.depth == 6


@pytest.mark.parametrize(
    "tags", [{"FrameOfReferenceUID": "1.2.78"}, {"PatientID": "bert"}, {"PixelSpacing": [9.0, 9.0]}]
)
def test_series_of_another_patient_frame_or_pixel_grid_are_no_pair(layout: Layout, tags: dict[str, Any]) -> None:
    same = {"PatientID": "anna", "FrameOfReferenceUID": "1.2.77"}
    write_dicom(layout.raw / "thin", TALL.hu, 1.0, **same)
    write_dicom(layout.raw / "thick", TALL.hu[::6], 6.0, **same | tags)
    result = ingest.run(smoke_params(layout.root, ingest=EVERYBODY), layout)
    assert (result["cases"], result["pairs"], result["quarantined"]) == (1, 0, 1)
    (row,) = read_csv(layout.ingest / "quarantine.csv")
    assert row["reason"] == "too_thick"


def test_a_real_pair_is_restored_on_the_grid_of_its_truth_and_scored(
    paired: Layout, tiny_model: LatentDiffusion, tiny_nullspace: NullSpaceDiffusion, caplog: pytest.LogCaptureFixture
) -> None:
    tasks = [{"factor": 5, "profile": "box"}]
    params = smoke_params(paired.root, ingest=EVERYBODY, thicken={"tasks": tasks}, evaluate={"baselines": ["linear"]})
    for name, model in {"latent": tiny_model, "train": tiny_nullspace}.items():
        paired.trained(name).parent.mkdir(parents=True)
        model.save(paired.trained(name))
    paired.autoencoder.mkdir()
    tiny_model.autoencoder.save(paired.autoencoder / "autoencoder.safetensors")
    for stage in (ingest, thicken):
        stage.run(params, paired)
    with caplog.at_level(logging.INFO):
        generate.run(params, paired)
    assert len([line for line in caplog.messages if line.startswith("pair=") and "profile=" in line]) == 1
    evaluate.run(params, paired)
    rows = [r for r in read_csv(paired.report("evaluate") / "per_case.csv") if r["profile"] == "real"]
    assert [row["method"] for row in rows] == ["linear", "autoencoder_ceiling", "latent", "model", "regression"]
    assert {(row["case"], row["factor"]) for row in rows} == {(pseudonym("thick/series-0004", load_key(), "s"), "5")}
    made = read_scan(paired.generate / "train" / "real" / f"{rows[0]['case']}.nii").volume
    assert (made.depth, made.origin_mm[2], made.spacing_mm[0]) == pytest.approx((30, 2.0, 1.0))
    by_method = {row["method"]: row for row in rows}
    assert float(by_method["linear"]["psnr_db"]) > 20
    assert float(by_method["model"]["residual_hu"]) < 0.5
    assert set(read_json(paired.report("evaluate") / "judged.json")) == {"box-x5"}  # real ones are shown, not judged
    assert generate.run(params, paired)["made"] == 0


SECRETS = {
    "PatientName": "Zwiebel^Planted", "PatientID": "planted-4711", "AccessionNumber": "PLANTED815", "InstitutionName":
    "Planted Hospital", "ReferringPhysicianName": "Planted^Doctor", "StudyDescription": "planted study",
    "PatientBirthDate": "19471108", "OtherPatientNames": "Zwiebel^Maiden", "SeriesDescription": "planted series",
    "StationName": "PLANTEDCT",
}  # fmt: skip
TELLING = (b"planted", b"zwiebel", b"19471108")


def told(text: bytes) -> list[bytes]:
    return [word for word in TELLING if word in text.lower()]


def test_no_identifier_gets_out_of_data_raw(
    layout: Layout,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Tags, folders, files, members of archives: in no file, name of a file, or line of the log that ingest leaves."""
    caplog.set_level(logging.DEBUG)
    folder = layout.raw / "Zwiebel Planted"
    write_dicom(folder / "fit", THIN.hu, 1.5, **SECRETS, BurnedInAnnotation="YES")
    write_dicom(folder / "gap", THIN.hu, 1.5, **SECRETS | {"PatientID": "planted-2"})
    for file in sorted((folder / "gap").iterdir()):
        file.rename(file.with_name(f"zwiebel-{file.name}"))
    (folder / "gap" / "zwiebel-03.dcm").unlink()
    image = nib.Nifti1Image(np.rint(THIN.hu).astype(np.int16).transpose(2, 1, 0), np.diag([10.0, 10.0, 1.5, 1.0]))
    image.header["descrip"], image.header["aux_file"], image.header["db_name"] = "Zwiebel", "planted.txt", "planted"
    image.header["intent_name"] = "planted"
    image.to_filename(layout.raw / "zwiebel.nii")
    whole = (layout.raw / "zwiebel.nii").read_bytes()
    (layout.raw / "zwiebel-cut.nii").write_bytes(whole[:-100])
    (layout.raw / "zwiebel-none.nii").write_bytes(b"no scan of Zwiebel at all")
    with zipfile.ZipFile(layout.raw / "planted.zip", "w") as archive:
        archive.writestr("zwiebel/cut.nii", whole[:-100])
    with zipfile.ZipFile(layout.raw / "planted-2.zip", "w") as archive:
        archive.writestr("../zwiebel.nii", whole)
    assert ingest.run(smoke_params(layout.root, ingest={"min_slices": 8}), layout)["cases"] == 2
    left = [p for p in layout.root.rglob("*") if p.is_file() and layout.raw not in p.parents]
    assert len(left) >= 7
    assert {p.name: told(p.read_bytes() + p.as_posix().split("data/")[-1].encode()) for p in left} == {
        p.name: [] for p in left
    }
    assert told(caplog.text.encode()) == []
    assert "burned-in annotation" in caplog.text
    reasons = {r["reason"]: r["message"] for r in read_csv(layout.ingest / "quarantine.csv")}
    assert set(reasons) == {"missing_slices", "truncated", "unreadable"}
    assert reasons["missing_slices"].startswith("1 slice(s) missing between another place and file 1")
    assert told(repr(read_verdicts(layout)).encode()) == []  # what Dagster shows of each scan
    monkeypatch.chdir(layout.root)
    monkeypatch.setattr("sys.argv", ["ctinterp", "scans", "list"])
    with pytest.raises(SystemExit):
        main()
    assert "quarantined: Zwiebel Planted/gap/series-0004-part-1: missing_slices" in capsys.readouterr().out


@pytest.mark.slow
def test_no_identifier_gets_into_anything_that_a_whole_run_makes(
    layout: Layout, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    key_file().write_bytes(bytes(32))  # the split goes by the keyed hash: this key gives each split a patient
    for number in range(6):
        made = phantom(number, (40, 48, 48), (1.0, 7.0, 7.0), 12.0)
        secrets = SECRETS | {"PatientID": f"planted-{number}"}
        write_dicom(layout.raw / f"Zwiebel Planted {number}", made.hu, 1.0, **secrets)
    params = smoke_params(layout.root, ingest={"split": {"val_fraction": 0.3, "test_fraction": 0.3}})
    run_all(layout, params)
    left = [p for p in layout.root.rglob("*") if p.is_file() and layout.raw not in p.parents]
    assert any(p.name == "index.html" for p in left)
    found = {p.name: told(p.read_bytes() + p.relative_to(layout.root).as_posix().encode()) for p in left}
    assert {name: words for name, words in found.items() if words} == {}
    assert told(caplog.text.encode()) == []


def test_commands_tell_the_description_of_a_series_and_no_tag_of_the_patient(
    tmp_path: Path,
    tiny_nullspace: NullSpaceDiffusion,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_dicom(tmp_path / "thick", THIN.hu, 5.0, **SECRETS | {"SeriesDescription": "Thorax 5.0"})
    tiny_nullspace.save(tmp_path / "m.safetensors")
    made, record = tmp_path / "thin.nii.gz", tmp_path / "r.json"
    write_volume(phantom(3, (20, 24, 24), (1.0, 10.0, 10.0), 10.0), tmp_path / "held_out.nii")
    for words in (
        ["scans", "check", tmp_path / "thick", "--json"],
        ["scans", "check", tmp_path / "thick"],
        ["interpolate", tmp_path / "thick", "-o", made, "--model", tmp_path / "m.safetensors", "--json", record],
        [
            "evaluate",
            tmp_path / "held_out.nii",
            "--factor",
            2,
            "--methods",
            "linear",
            "--json",
            tmp_path / "scores.json",
        ],
    ):
        monkeypatch.setattr("sys.argv", ["ctinterp", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code in (0, None)
        shown = capsys.readouterr()
        assert told(f"{shown.out}{shown.err}".encode()) == []
    assert told(gzip.decompress(made.read_bytes())) == []
    assert told(record.read_bytes() + (tmp_path / "scores.json").read_bytes()) == []
