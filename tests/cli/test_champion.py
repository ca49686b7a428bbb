"""The champion on the command line."""

import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner

from ctinterp_dagster.champion import Challenger, Registry
from ctinterp_dagster.cli import champion
from ctinterp_dagster.cli.champion import command
from ctinterp_dagster.decision import Decision, Finding, Metrics, Rule, TaskMetrics
from ctinterp_dagster.errors import MissingInputError
from ctinterp_dagster.layout import Layout

TASK = TaskMetrics({"a": 30.0, "b": 31.0}, residual_hu=0.01, baseline="cubic", baseline_psnr_db=29.0)


@pytest.fixture
def two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """A project with a champion and the one before it."""
    monkeypatch.chdir(tmp_path)
    registry = Registry(Layout(tmp_path).promote)
    for number, digit in enumerate("ab"):
        hash_ = digit * 64
        (registry.files(hash_)).mkdir(parents=True)
        (registry.files(hash_) / "model.safetensors").write_text(digit)
        finding = Finding(Rule.TASKS, "pass", "measured on box-x5")
        registry.record(
            Challenger(
                model_hash=hash_,
                number=number,
                against="a" * 64 if number else None,
                decision=Decision(promoted=True, findings=(finding,), challenger=hash_),
                metrics=Metrics(hash_, "t" * 64, {"box-x5": TASK}, shared_patients=0),
                seen={"s1": "1", "s2": "1"},
                data={"scores": "c" * 64},
                rolled_back="",
            )
        )
        registry.point_at(hash_)
    return registry


def test_the_card_has_figures_decision_hashes_and_commit(two: Registry) -> None:
    shown = CliRunner().invoke(command, ["show"]).output
    assert f"# Model {'b' * 16}" in shown
    assert "2 scans; commit `not tagged`" in shown
    assert "| box-x5 | 2 | 30.50 | cubic | 29.00 | 0.010 |" in shown
    assert "- pass: measured on box-x5" in shown
    assert f"| test set | `{'t' * 64}` |" in shown


def test_rollback_moves_the_pointer_and_lets_dvc_record_it(two: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    called = []

    def dvc(words: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        called.append(words[3:])
        return subprocess.CompletedProcess(words, 0)

    monkeypatch.setattr(champion.subprocess, "run", dvc)
    result = CliRunner().invoke(command, ["rollback", "--reason", "blurs vessels"])
    assert result.exit_code == 0
    assert f"the champion is {'a' * 16} (number 0)" in result.output
    assert two.champion.model_hash == "a" * 64
    assert called == [["--wait-for-lock", "repro", "--quiet", "--single-item", "promote"]]
    listed = CliRunner().invoke(command, ["list"]).output
    assert "rolled back: blurs" in listed
    assert f"{datetime.now(UTC):%Y-%m-%d}" in listed
    assert "box-x5 30.50" in listed


def test_a_rollback_that_dvc_cannot_record_says_what_to_do(two: Registry) -> None:
    result = CliRunner().invoke(command, ["rollback", "--reason", "no project here"])
    assert result.exit_code == 1
    assert "run `dvc repro --single-item promote`" in result.output


def test_without_a_champion_there_is_nothing_to_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(command, ["show"])
    assert isinstance(result.exception, MissingInputError)
