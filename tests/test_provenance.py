import subprocess
from pathlib import Path

import pytest

from ctinterp_dagster.provenance import _caches, _processor, provenance


def git(root: Path, *words: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    done = subprocess.run(["git", *identity, *words], cwd=root, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_a_record_names_the_commit_and_whether_files_differ_from_it(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    (tmp_path / "dvc.lock").write_text("a")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "begin")
    clean = provenance(tmp_path, "cpu")
    assert (clean["commit"], clean["dirty"]) == (git(tmp_path, "rev-parse", "HEAD"), False)
    assert clean["lock_sha256"] == "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"
    (tmp_path / "dvc.lock").write_text("b")
    changed = provenance(tmp_path, "cpu")
    assert changed["dirty"] is True
    assert changed["lock_sha256"] != clean["lock_sha256"]


def test_outside_of_a_checkout_there_is_no_commit_and_the_rest_is_said(tmp_path: Path) -> None:
    record = provenance(tmp_path, "cuda")
    assert (record["commit"], record["dirty"], record["lock_sha256"]) == (None, False, None)
    assert record["packages"]["torch"].startswith("2.13.0")
    assert record["hardware"]["device"] == "cuda"
    assert record["hardware"]["memory_gib"] > 0


def test_a_machine_that_hides_its_processor_is_known_by_its_architecture(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: Some CPU\n")
    assert _processor(tmp_path / "cpuinfo") == "Some CPU"
    assert _processor(tmp_path / "nowhere") != ""


def test_a_record_says_what_decides_the_order_of_sums(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, words in {"index0": ("1", "Data", "48K"), "index1": ("1", "Instruction", "32K")}.items():
        (tmp_path / name).mkdir()
        for file, word in zip(("level", "type", "size"), words, strict=True):
            (tmp_path / name / file).write_text(f"{word}\n")
    (tmp_path / "index2").mkdir()  # of a machine that does not tell
    assert _caches(tmp_path) == {"1 Data": "48K", "1 Instruction": "32K"}
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert provenance(tmp_path, "cpu")["hardware"]["instruction_sets"]["ONEDNN_MAX_CPU_ISA"] == "AVX2"
