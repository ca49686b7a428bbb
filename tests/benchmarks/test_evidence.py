import json
from pathlib import Path

import pytest
from click import ClickException

from benchmarks.evidence import EvidenceFile, table
from ctinterp_dagster.decision import read_record
from ctinterp_dagster.evaluation.evidence_tables import Measured
from ctinterp_dagster.records import file_hash


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"weights")
    return path


def test_a_file_of_evidence_says_which_commands_measured_it_and_names_no_folder(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for scan in ("a", "b", "b"):
        monkeypatch.setattr(
            "sys.argv", ["/here/benchmarks/dose.py", "reports/evidence/dose.json", f"/secret/{scan}.nii"]
        )
        file = EvidenceFile(tmp_path / "dose.json", model)
        file.records = [*(it for it in file.records if it["case"] != scan), {"case": scan}]
        file.save([table(["case"], [[it["case"]] for it in file.records], "Cases")])
    kept = read_record(Measured, tmp_path / "dose.json")
    assert [run.command for run in kept.runs] == [
        f"python -m benchmarks.dose dose.json {scan}.nii" for scan in ("a", "b")
    ]
    assert {run.model for run in kept.runs} == {file_hash(model)}
    assert str(kept.tables[0]) == "Cases\n\n| case |\n| --- |\n| a |\n| b |"
    assert "secret" not in (tmp_path / "dose.json").read_text()
    assert json.loads((tmp_path / "dose.json").read_text())["records"] == [{"case": "a"}, {"case": "b"}]


def test_records_of_two_models_are_not_mixed(tmp_path: Path, model: Path) -> None:
    EvidenceFile(tmp_path / "dose.json", model).save([])
    model.write_bytes(b"other weights")
    with pytest.raises(ClickException, match=r"another model than model\.safetensors: give another file"):
        EvidenceFile(tmp_path / "dose.json", model)
