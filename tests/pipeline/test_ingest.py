"""What ingest makes of the scans in data/raw."""

import numpy as np
import pytest

from ctinterp_dagster.errors import MissingInputError, TooFewSlicesError, TrainingError
from ctinterp_dagster.layout import Layout
from ctinterp_dagster.pipeline import ingest
from ctinterp_dagster.pipeline.common.cases import read_sources
from ctinterp_dagster.records import read_csv
from ctinterp_dagster.scan.identity import load_key, pseudonym
from ctinterp_dagster.scan.io import read_scan, write_volume
from tests.conftest import smoke_params
from tests.phantoms import phantom


def scan_id(name: str) -> str:
    """What ingest calls a scan that no table lists."""
    return pseudonym(name, load_key(), "s")


@pytest.fixture
def five_scans(layout: Layout) -> Layout:
    """Three thin scans, of which the table lists two, one that was cut off, and a thick one; judged by ingest."""
    for number in range(3):
        made = phantom(number, shape_zyx=(24, 48, 48), spacing_mm=(1.5, 2.5, 2.5), noise_hu=10.0)
        write_volume(made, layout.raw / f"scan{number}.nii.gz")
    whole = (layout.raw / "scan1.nii.gz").read_bytes()
    (layout.raw / "cut.nii.gz").write_bytes(whole[: len(whole) // 2])
    thick = phantom(9, shape_zyx=(24, 48, 48), spacing_mm=(5.0, 2.5, 2.5), noise_hu=10.0)
    write_volume(thick, layout.raw / "thick.nii.gz")
    (layout.raw / "scans.csv").write_text(
        "file,patient,split,licence,citation\nscan0.nii.gz,anna,test,,\nscan1.nii.gz,bert,train,CC BY 4.0,A et al.\n"
    )
    result = ingest.run(smoke_params(layout.root), layout)
    assert (result["cases"], result["quarantined"]) == (3, 2)
    return layout


def test_a_bad_scan_is_quarantined_with_its_reason_and_the_others_go_on(five_scans: Layout) -> None:
    reasons = {r["scan"]: r["reason"] for r in read_csv(five_scans.ingest / "quarantine.csv")}
    assert reasons == {scan_id("cut.nii.gz"): "truncated", scan_id("thick.nii.gz"): "too_thick"}
    kept = read_scan(five_scans.ingest / "volumes" / "scan1.nii").volume
    given = read_scan(five_scans.raw / "scan1.nii.gz").volume
    np.testing.assert_array_equal(kept.hu, given.hu)
    np.testing.assert_allclose(kept.point_mm((23, 47, 47)), given.point_mm((23, 47, 47)), atol=1e-3)


def test_patient_split_and_licence_are_those_of_the_table_and_an_unlisted_scan_is_its_own_patient(
    five_scans: Layout,
) -> None:
    cases, unlisted = read_csv(five_scans.ingest / "cases.csv"), scan_id("scan2.nii.gz")
    assert {(c["case"], c["patient"]) for c in cases} == {("scan0", "anna"), ("scan1", "bert"), (unlisted, unlisted)}
    assert {c["case"]: c["split"] for c in cases} | {unlisted: ""} == {"scan0": "test", "scan1": "train", unlisted: ""}
    sources = read_csv(five_scans.ingest / "sources.csv")
    assert sources == [{"case": "scan1", "licence": "CC BY 4.0", "citation": "A et al."}]
    of_split = [read_sources(five_scans, split) for split in ("train", "test")]
    assert of_split == [{"CC BY 4.0: A et al.": 1}, {}]


def test_a_scan_that_was_removed_is_no_case_any_more(five_scans: Layout) -> None:
    (five_scans.raw / "scan2.nii.gz").unlink()
    assert ingest.run(smoke_params(five_scans.root), five_scans)["cases"] == 2
    assert not (five_scans.ingest / "volumes" / f"{scan_id('scan2.nii.gz')}.nii").exists()


def test_a_scan_that_scans_csv_names_and_data_raw_does_not_hold_is_told(
    layout: Layout, caplog: pytest.LogCaptureFixture
) -> None:
    for number, name in enumerate(("here", "there")):
        made = phantom(number, shape_zyx=(24, 48, 48), spacing_mm=(1.5, 2.5, 2.5), noise_hu=10.0)
        write_volume(made, layout.raw / f"{name}.nii")
    (layout.raw / "became-a-folder.nii").mkdir()
    (layout.raw / "scans.csv").write_text(
        "file,patient,split\nhere.nii,a,train\nthere.nii,b,test\nlost.nii,c,train\nbecame-a-folder.nii,d,val\n"
    )
    assert ingest.run(smoke_params(layout.root), layout)["cases"] == 2
    assert "scans.csv names 2 scans that data/raw does not hold, became-a-folder.nii first" in caplog.text


def test_when_no_scan_is_fit_the_first_reason_is_the_error(layout: Layout) -> None:
    write_volume(phantom(1, shape_zyx=(8, 48, 48), spacing_mm=(1.5, 2.5, 2.5), noise_hu=10.0), layout.raw / "a.nii")
    with pytest.raises(TooFewSlicesError, match="8 slices"):
        ingest.run(smoke_params(layout.root), layout)


@pytest.mark.parametrize(("count", "refused"), [(1, True), (2, False), (3, False)])
def test_too_few_patients_are_told_before_anything_is_trained(
    layout: Layout, caplog: pytest.LogCaptureFixture, count: int, *, refused: bool
) -> None:
    for number in range(count):
        made = phantom(number, shape_zyx=(24, 48, 48), spacing_mm=(1.5, 2.5, 2.5), noise_hu=10.0)
        write_volume(made, layout.raw / f"{number}.nii")
    if refused:
        with pytest.raises(TrainingError, match=r"none of the 1 patients is in .*ctinterp scans add"):
            ingest.run(smoke_params(layout.root), layout)
    else:
        ingest.run(smoke_params(layout.root), layout)
    assert len(read_csv(layout.ingest / "cases.csv")) == count
    assert ("no patient is in val, so that no training has a val_loss" in caplog.text) == (count < 3)


def test_an_empty_project_without_phantoms_says_what_to_do(layout: Layout) -> None:
    with pytest.raises(MissingInputError, match="ctinterp scans add"):
        ingest.run(smoke_params(layout.root, ingest={"phantom": {"patients": 0}}), layout)
