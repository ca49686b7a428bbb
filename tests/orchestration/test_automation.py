"""What runs by itself: new scans, the schedule, the commit, the checks before promotion, the record of a failure."""

import os
import shutil
from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path

import dagster as dg
import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from ctinterp_dagster.champion import Challenger, Registry
from ctinterp_dagster.decision import Decision, Metrics, Rule
from ctinterp_dagster.errors import MissingInputError
from ctinterp_dagster.layout import Layout
from ctinterp_dagster.orchestration import gate, scans
from ctinterp_dagster.orchestration.dvc import DvcProject
from ctinterp_dagster.orchestration.gate import build_gate_checks
from ctinterp_dagster.orchestration.publish import build_published, commit_to
from ctinterp_dagster.orchestration.scans import PARTITIONS, SCAN, build_scan_sensor, thumbnail
from ctinterp_dagster.orchestration.settings import Publish, Scans
from ctinterp_dagster.records import write_csv, write_json
from tests.orchestration.conftest import INGEST

Shell = Callable[..., str]


@dg.op
def nothing() -> None: ...


@dg.job
def a_job() -> None:
    nothing()


def volume(path: Path, *, value: float = 40.0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    hu = np.full((30, 20, 10), -1000, np.int16)
    hu[0:15] = value  # the patient's right: x points to the left
    nib.save(nib.Nifti1Image(hu, np.diag([-2.0, -2.0, 5.0, 1.0])), path)


def ingested(layout: Layout, cases: dict[str, str], refused: dict[str, str] | None = None) -> None:
    """What ingest leaves of cases, with their versions, and of scans in quarantine, with their reasons."""
    for case in cases:
        volume(layout.ingest / "volumes" / f"{case}.nii")
    rows = [{"case": case, "patient": case, "split": "train"} for case in cases]
    write_csv(layout.ingest / "cases.csv", rows, ["case", "patient", "split"])
    bad = [{"scan": scan, "reason": reason, "message": f"{scan}: {reason}"} for scan, reason in (refused or {}).items()]
    write_csv(layout.ingest / "quarantine.csv", bad, ["scan", "reason", "message"])
    write_json(layout.ingest / "manifest.json", {case: {"outputs": {"x": version}} for case, version in cases.items()})


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


def look(
    project: DvcProject, instance: dg.DagsterInstance, cursor: str | None = None, settle_s: float = 0
) -> dg.SensorResult:
    sensor = build_scan_sensor(project, a_job, Scans(settle_s=settle_s, interval_s=30))
    result = sensor(dg.build_sensor_context(instance=instance, cursor=cursor))
    assert isinstance(result, dg.SensorResult)
    return result


def test_a_new_scan_asks_for_one_run_and_no_second_one(dropped: DvcProject, instance: dg.DagsterInstance) -> None:
    first = look(dropped, instance)
    assert len(first.run_requests) == 1
    assert look(dropped, instance, first.cursor).run_requests == []


def test_a_batch_of_scans_asks_for_one_run(dropped: DvcProject, instance: dg.DagsterInstance) -> None:
    first = look(dropped, instance)
    for name in "bcd":
        (dropped.root / "data" / "raw" / f"{name}.nii").write_text(name)
    assert len(look(dropped, instance, first.cursor).run_requests) == 1


def test_files_that_are_still_written_are_waited_for(dropped: DvcProject, instance: dg.DagsterInstance) -> None:
    early = look(dropped, instance, settle_s=60)
    assert early.run_requests == []
    assert "s ago: waiting until" in early.skip_reason.skip_message
    assert len(look(dropped, instance, early.cursor).run_requests) == 1


def test_a_copy_that_is_not_finished_is_no_scan(dropped: DvcProject, instance: dg.DagsterInstance) -> None:
    first = look(dropped, instance)
    (dropped.root / "data" / "raw" / ".partial-b.nii").write_text("half")
    assert look(dropped, instance, first.cursor).run_requests == []


def test_a_lost_cursor_asks_dvc_what_was_done(dropped: DvcProject, instance: dg.DagsterInstance, shell: Shell) -> None:
    key = look(dropped, instance).run_requests[0].run_key
    assert look(dropped, instance).run_requests[0].run_key == key  # Dagster starts a run key once
    shell(dropped.root, "dvc", "repro", "-q")
    assert look(dropped, instance).run_requests == []


def test_scans_whose_run_failed_ask_for_one_more_each_hour_until_ingest_has_read_them(
    dropped: DvcProject, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, shell: Shell
) -> None:
    first = look(dropped, instance)
    keys = {first.run_requests[0].run_key}
    for number in (1, 2):
        run = instance.create_run_for_job(a_job, status=dg.DagsterRunStatus.STARTED)
        instance.report_run_failed(run)
        monkeypatch.setattr(scans, "RETRY_S", 3600)
        told = look(dropped, instance, first.cursor).skip_reason.skip_message
        assert told.startswith(f"failure: {run.run_id[:8]}; one more run in ")
        monkeypatch.setattr(scans, "RETRY_S", 0)
        keys |= {request.run_key for request in look(dropped, instance, first.cursor).run_requests}
        assert len(keys) == number + 1
    shell(dropped.root, "dvc", "repro", "-q")
    assert look(dropped, instance, first.cursor).run_requests == []


def test_a_scan_that_is_removed_and_comes_back_is_taken_in_again(
    dropped: DvcProject, instance: dg.DagsterInstance, shell: Shell
) -> None:
    raw, keys, cursor = dropped.root / "data" / "raw", [], None
    (dropped.root / "keep.nii").write_text("b")
    os.utime(dropped.root / "keep.nii", (0, 0))
    shell(dropped.root, "dvc", "repro", "-q")
    for _ in range(2):
        for source, target in ((dropped.root / "keep.nii", raw / "b.nii"), (raw / "b.nii", dropped.root / "keep.nii")):
            source.rename(target)
            result = look(dropped, instance, cursor)
            cursor = result.cursor
            keys += [request.run_key for request in result.run_requests]
            shell(dropped.root, "dvc", "repro", "-q")
    assert len(set(keys)) == 4


def test_every_scan_is_a_partition_with_verdict_picture_and_reason(
    dropped: DvcProject, instance: dg.DagsterInstance
) -> None:
    ingested(Layout(dropped.root), {"a": "1"}, {"cut.nii.gz": "unreadable"})
    result = look(dropped, instance)
    by_scan = {event.partition: event.metadata for event in result.asset_events}
    assert by_scan["a"]["verdict"].value == "fit"
    assert by_scan["a"]["split"].value == "train"
    assert by_scan["a"]["thumbnail"].value.startswith("![a](data:image/png;base64,")
    assert by_scan["cut.nii.gz"]["reason"].value == "unreadable"
    assert by_scan["cut.nii.gz"]["message"].value == "cut.nii.gz: unreadable"
    assert {event.asset_key for event in result.asset_events} == {SCAN}
    assert result.dynamic_partitions_requests == [PARTITIONS.build_add_request(["a", "cut.nii.gz"])]
    assert look(dropped, instance, result.cursor).asset_events == []


def test_only_scans_whose_verdict_changed_are_recorded_and_removed_ones_vanish(
    dropped: DvcProject, instance: dg.DagsterInstance
) -> None:
    layout = Layout(dropped.root)
    ingested(layout, {"a": "1", "b": "1", "c": "1"})
    cursor = look(dropped, instance).cursor
    ingested(layout, {"a": "1", "b": "2"})
    result = look(dropped, instance, cursor)
    assert [event.partition for event in result.asset_events] == ["b"]
    assert result.dynamic_partitions_requests == [
        PARTITIONS.build_add_request(["b"]),
        PARTITIONS.build_delete_request(["c"]),
    ]


def test_more_scans_than_a_batch_come_in_several_looks(
    dropped: DvcProject, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scans, "PARTITIONS_A_LOOK", 2)
    ingested(Layout(dropped.root), dict.fromkeys("abcde", "1"))
    cursor, told = None, []
    for _ in range(4):
        result = look(dropped, instance, cursor)
        cursor = result.cursor
        told.append([event.partition for event in result.asset_events])
    assert told == [["a", "b"], ["c", "d"], ["e"], []]


def test_a_thumbnail_shows_the_patient_as_a_radiologist_does(tmp_path: Path) -> None:
    volume(tmp_path / "a.nii")
    (tmp_path / "a.png").write_bytes(thumbnail(tmp_path / "a.nii"))
    picture = np.asarray(Image.open(tmp_path / "a.png"))
    assert picture.shape == (112, 168 + 134)  # 60 x 40 mm axial, 60 x 50 mm coronal
    # The bright half is the patient's right: it stands on the left.
    assert picture[56, 20] == 127
    assert picture[56, 150] == 0


def test_a_patient_in_two_splits_fails_a_check_that_blocks(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    (leak, *_) = build_gate_checks(layout)
    rows = [{"case": c, "patient": p, "split": s} for c, p, s in (("a", "1", "train"), ("b", "2", "test"))]
    write_csv(layout.ingest / "cases.csv", rows, ["case", "patient", "split"])
    assert leak().passed
    write_csv(layout.ingest / "cases.csv", [*rows, {"case": "c", "patient": "1", "split": "test"}], list(rows[0]))
    assert not leak().passed
    assert next(iter(leak.check_specs)).blocking


def checked(root: Path, instance: dg.DagsterInstance, *findings: dict[str, str]) -> dict[str, dg.AssetCheckEvaluation]:
    """Dagster's checks of a decision with these findings."""
    write_json(
        Layout(root).report("promote") / "decision.json", {"promoted": False, "findings": findings, "challenger": "1"}
    )
    (*_, checks) = build_gate_checks(Layout(root))
    result = dg.materialize(
        [dg.AssetSpec("promote"), checks], instance=instance, selection=dg.AssetSelection.checks(checks)
    )
    return {check.check_name: check for check in result.get_asset_check_evaluations()}


FINE = {"rule": "residual", "verdict": "pass", "text": "box-x5: fine"}


def test_scans_in_quarantine_are_counted_by_reason_and_warned_of(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    (_, quarantine, _) = build_gate_checks(layout)
    ingested(layout, {"a": "1"})
    assert quarantine().passed
    ingested(layout, {"a": "1"}, {"b": "truncated", "c": "truncated"})
    told = quarantine()
    assert (told.passed, told.severity, told.description) == (
        False,
        dg.AssetCheckSeverity.WARN,
        "1 fit, 2 in quarantine",
    )
    assert told.metadata["truncated"].value == 2


def test_the_asset_of_data_raw_tells_dvc_which_scans_there_are(
    tmp_path: Path, instance: dg.DagsterInstance, shell: Shell
) -> None:
    root = tmp_path / "project"
    (root / "data" / "raw").mkdir(parents=True)
    shell(root, "git", "init", "-q")
    shell(root, "dvc", "init", "-q")
    (root / "dvc.yaml").write_text(INGEST)
    asset = scans.build_raw(DvcProject.at(root))

    def metadata() -> dict[str, object]:
        result = dg.materialize([asset], instance=instance)
        (event,) = result.get_asset_materialization_events()
        return {name: value.value for name, value in event.materialization.metadata.items()}

    assert metadata()["files"] == 0
    assert not (root / "data" / "raw.dvc").exists()
    (root / "data" / "raw" / "a.nii").write_text("a")
    told = metadata()
    assert (told["files"], told["tracked files"]) == (1, 1)
    assert "A  data/raw.dvc" in shell(root, "git", "status", "--porcelain")


def test_the_findings_of_the_gate_are_checks_of_promote(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    checks = checked(tmp_path, instance, FINE, {"rule": "champion", "verdict": "fail", "text": "box-x5: worse"})
    assert set(checks) == set(Rule)
    assert {name for name, check in checks.items() if not check.passed} == {"champion"}
    assert (checks["champion"].description, checks["champion"].severity.value) == ("box-x5: worse", "WARN")


def test_a_rule_that_is_added_is_a_check_and_an_unknown_one_an_error(
    tmp_path: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    blurred = {"rule": "sharpness", "verdict": "fail", "text": "box-x5: blurred"}
    with pytest.raises(MissingInputError, match=r"of another version \(findings\.1\.rule: "):
        checked(tmp_path, instance, FINE, blurred)
    more = StrEnum("Rule", [(rule.name, rule.value) for rule in Rule] + [("SHARPNESS", "sharpness")])
    for rule in more:
        rule.asks = f"asks for {rule}"
    monkeypatch.setattr(gate, "Rule", more)
    (*_, checks) = build_gate_checks(Layout(tmp_path))
    assert {spec.name: spec.description for spec in checks.check_specs}["sharpness"] == "asks for sharpness"


def promoted(root: Path) -> Challenger:
    judged = Challenger(
        model_hash="ab" * 32,
        number=0,
        against=None,
        decision=Decision(promoted=True, findings=(), challenger="ab" * 32),
        metrics=Metrics("ab" * 32, "t", {}, shared_patients=0),
        seen={},
        data={},
        rolled_back="",
    )
    registry = Registry(Layout(root).promote)
    model = registry.files(judged.model_hash) / "model.safetensors"
    model.parent.mkdir(parents=True)
    model.write_bytes(b"weights")
    registry.record(judged)
    registry.point_at(judged.model_hash)
    write_json(Layout(root).report("promote") / "decision.json", judged.decision)
    return judged


def test_a_retraining_ends_in_a_commit_and_a_tag_and_leaves_the_checkout_alone(
    toy: DvcProject, instance: dg.DagsterInstance, shell: Shell
) -> None:
    champion = promoted(toy.root)
    (toy.root / "params.yaml").write_text("prepare: {factor: 7}\nfit: {rate: 0.5, tolerance: 0.00001}\n")
    before = [shell(toy.root, "git", *words) for words in (("status", "--short"), ("rev-parse", "HEAD"))]
    published = build_published(toy.root, Publish(branch="retrain", tag=True, push=False))
    for _ in range(2):  # the second changes nothing
        result = dg.materialize([published], instance=instance)
        metadata = result.asset_materializations_for_node("published")[0].metadata
        assert metadata["tag"].value == f"champion-{champion.name}"
        assert shell(toy.root, "git", "log", "--format=%s", "retrain").splitlines() == [
            f"retrain: challenger {champion.name} promoted",
            "toy: run",
            "toy: begin",
        ]
    assert [shell(toy.root, "git", *words) for words in (("status", "--short"), ("rev-parse", "HEAD"))] == before
    assert "factor: 7" in shell(toy.root, "git", "show", f"champion-{champion.name}:params.yaml")
    assert "decision.json" in shell(toy.root, "git", "ls-tree", "-r", "--name-only", "retrain", "reports")
    assert f"# Model {champion.name}" in shell(toy.root, "git", "tag", "-l", "--format=%(contents)", "champion-*")


def test_a_commit_to_the_branch_that_is_checked_out_leaves_nothing_changed(toy: DvcProject, shell: Shell) -> None:
    promoted(toy.root)
    shutil.rmtree(toy.root / "data" / "promote")
    (toy.root / "params.yaml").write_text("prepare: {factor: 7}\n")
    commit = commit_to(toy.root, shell(toy.root, "git", "rev-parse", "--abbrev-ref", "HEAD").strip(), "a message")
    assert shell(toy.root, "git", "rev-parse", "HEAD").strip() == commit
    assert shell(toy.root, "git", "status", "--short") == ""


def test_a_branch_that_went_its_own_way_is_merged(toy: DvcProject, shell: Shell) -> None:
    promoted(toy.root)
    for number, both in ((1, False), (2, True)):
        (toy.root / "params.yaml").write_text(f"prepare: {{factor: {number}}}\n")
        if both:
            shell(toy.root, "git", "commit", "-qm", "by hand", "--allow-empty")
        commit_to(toy.root, "retrain", f"number {number}")
    parents = shell(toy.root, "git", "log", "-1", "--format=%P", "retrain").split()
    assert len(parents) == 2
    assert parents[1] == shell(toy.root, "git", "rev-parse", "HEAD").strip()


def test_the_data_of_a_published_model_are_pushed_where_a_remote_is_set(
    toy: DvcProject, instance: dg.DagsterInstance, shell: Shell, tmp_path: Path
) -> None:
    promoted(toy.root)
    shell(toy.root, "dvc", "remote", "add", "-d", "store", str(tmp_path / "store"))
    dg.materialize([build_published(toy.root, Publish(branch="retrain", tag=True, push=True))], instance=instance)
    assert len([path for path in (tmp_path / "store").rglob("*") if path.is_file()]) >= 3
