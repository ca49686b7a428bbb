"""The resolved project as DVC sees it."""

import hashlib
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from ruamel.yaml import YAML

from ctinterp_dagster.orchestration.dvc import DvcIndex, DvcProject, DvcProjectError, project

Edit = Callable[[DvcProject, str, str, str], None]
Shell = Callable[..., str]
Status = Callable[[DvcProject], set[str]]


def test_foreach_is_resolved_and_stages_come_sorted(toy: DvcProject) -> None:
    assert list(toy.read().stages) == ["fit@a", "fit@b", "prepare", "score"]


def test_a_stage_knows_who_makes_what_it_reads(toy: DvcProject) -> None:
    stages = toy.read().stages
    assert stages["score"].makers == ("fit@a", "fit@b")
    assert stages["fit@a"].makers == ("prepare",)
    assert stages["prepare"].makers == ()
    assert [source.path for source in stages["prepare"].sources] == ["data/raw.csv"]


def test_a_stage_that_never_ran_has_no_versions(fresh: DvcProject) -> None:
    stage = fresh.read().stages["prepare"]
    assert (stage.lock, stage.data_version, stage.locked_code_version) == (None, None, None)
    assert stage.changed


def test_code_versions_are_those_of_the_lock_after_a_run(toy: DvcProject) -> None:
    for stage in toy.read().stages.values():
        assert stage.code_version == stage.locked_code_version
        assert not stage.changed


EDITS = {
    "a parameter": ("params.yaml", "rate: 0.5", "rate: 0.25"),
    "a small float": ("params.yaml", "0.00001", "0.00002"),
    "a float written otherwise": ("params.yaml", "factor: 2", "factor: 2.0"),
    "a comment in the parameters": ("params.yaml", "fit:", "# nothing\nfit:"),
    "a command": ("dvc.yaml", "cmd: python score.py", "cmd: python  score.py"),
    "a description": ("dvc.yaml", "Doubles", "Multiplies"),
    "a code dependency": ("fit.py", "import json", "import json  # the same"),
    "a new dependency": ("dvc.yaml", "deps: [score.py,", "deps: [fit.py, score.py,"),
    "a removed dependency": ("dvc.yaml", "deps: [score.py, models/a.json,", "deps: [score.py,"),
    "a removed parameter": ("dvc.yaml", "params: [fit]", "params: [fit.rate]"),
    "a new output": ("dvc.yaml", "outs: [data/prepared.csv]", "outs: [data/prepared.csv, data/raw2.csv]"),
    "a source": ("data/raw.csv", "3", "4"),
    "an output": ("data/prepared.csv", "6", "7"),
    "a metric": ("scores/metrics.json", "mean", "median"),
    "a frozen stage": ("dvc.yaml", "cmd: python prepare.py", "frozen: true\n    cmd: python prepare.py"),
    "a stage that always runs": ("dvc.yaml", "cmd: python score.py", "always_changed: true\n    cmd: python score.py"),
}


@pytest.mark.parametrize("what", EDITS)
def test_changed_is_what_dvc_status_says_after_an_edit_of(
    what: str, toy: DvcProject, edit: Edit, dvc_changed: Status
) -> None:
    edit(toy, *EDITS[what])
    assert {stage.target for stage in toy.read().stages.values() if stage.changed} == dvc_changed(toy)


def test_changed_is_what_dvc_status_says_after_a_file_was_removed(toy: DvcProject, dvc_changed: Status) -> None:
    for file in ("models/a.json", "fit.py", "data/raw.csv"):
        (toy.root / file).unlink()
    assert {stage.target for stage in toy.read().stages.values() if stage.changed} == dvc_changed(toy)


def test_pushing_to_a_version_aware_remote_moves_no_version(toy: DvcProject, edit: Edit, shell: Shell) -> None:
    edit(toy, "dvc.yaml", "outs: [data/prepared.csv]", "outs: [data/prepared.csv, data/parts]")
    edit(
        toy,
        "prepare.py",
        "import pathlib",
        "import pathlib; parts = pathlib.Path('data/parts')\n"
        "parts.mkdir(); (parts / 'b').write_text('b'); (parts / 'a').write_text('a')\nimport pathlib",
    )
    shell(toy.root, "dvc", "repro", "-q", "prepare")
    before = toy.read().stages["prepare"]
    lock = yaml.safe_load((toy.root / "dvc.lock").read_text())
    for out in lock["stages"]["prepare"]["outs"]:  # as `dvc push` writes it
        cloud = {"store": {"etag": "etag", "version_id": "version"}}
        if out["path"] == "data/parts":
            out["files"] = [
                {"relpath": name, "md5": hashlib.md5(name.encode()).hexdigest(), "size": 1, "cloud": cloud}
                for name in "ab"
            ]
            for field in ("md5", "size", "nfiles"):
                del out[field]
        else:
            out["cloud"] = cloud
    (toy.root / "dvc.lock").write_text(yaml.safe_dump(lock))
    os.utime(toy.root / "dvc.lock", (0, 0))
    after = toy.read().stages["prepare"]
    assert after.data_version == before.data_version
    assert after.lock == before.lock


def test_the_lock_and_the_parameters_of_all_stages_are_parsed_once(
    toy: DvcProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed, really = Counter[str](), YAML.load

    def parse(self: YAML, text: str) -> Any:
        parsed[hashlib.md5(text.encode()).hexdigest()] += 1
        return really(self, text)

    monkeypatch.setattr(YAML, "load", parse)
    toy.read()
    counts = {
        name: parsed[hashlib.md5((toy.root / name).read_bytes()).hexdigest()] for name in ("dvc.lock", "params.yaml")
    }
    assert counts == {"dvc.lock": 1, "params.yaml": 2}  # of which one for the templates of dvc.yaml


def test_a_source_says_its_size(toy: DvcProject) -> None:
    source = toy.read().sources["data/raw.csv"]
    assert (source.size, source.files) == (6, None)


def test_a_second_dvc_yaml_with_a_working_directory_is_read(toy: DvcProject) -> None:
    (toy.root / "extra").mkdir()
    (toy.root / "extra" / "dvc.yaml").write_text(
        "vars: [{name: plus}]\n"
        "stages:\n"
        "  sum:\n"
        "    wdir: ..\n"
        "    matrix: {kind: [x, y], size: [0.1]}\n"
        "    cmd: echo ${name}-${item.kind} > extra/${item.kind}.txt\n"
        "    deps: [scores/metrics.json]\n"
        "    outs: ['extra/${item.kind}.txt']\n"
    )
    stage = toy.read().stages["extra/dvc.yaml:sum@x-0.1"]
    assert stage.command == "echo plus-x > extra/x.txt"
    assert stage.makers == ("score",)
    assert [out.path for out in stage.outputs] == ["extra/x.txt"]


def test_a_dependency_named_in_sources_is_data_and_not_code(toy: DvcProject, edit: Edit) -> None:
    edit(toy, "dvc.yaml", "group: data,", "group: data, sources: [prepare.py],")
    assert {source.path for source in toy.read().stages["prepare"].sources} == {"data/raw.csv", "prepare.py"}


def test_an_empty_lock_is_read_again_until_it_is_written(toy: DvcProject, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = toy.root / "dvc.lock"
    whole = lock.read_text()
    lock.write_text("")
    os.utime(lock, (0, 0))
    monkeypatch.setattr(project.time, "sleep", lambda _: lock.write_text(whole))
    assert not any(stage.changed for stage in toy.read().stages.values())


def test_a_lock_that_is_written_while_it_is_read_is_read_again(
    toy: DvcProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = toy.root / "dvc.lock"
    whole = lock.read_text()
    lock.write_text(whole[: whole.index("  score:")])  # readable, and one stage short
    os.utime(lock, (0, 0))
    reads = []

    def read(root: Path) -> DvcIndex:
        reads.append(project_read(root))
        lock.write_text(whole) if len(reads) == 1 else os.utime(lock, (0, 0))
        return reads[-1]

    project_read = project.read_index
    monkeypatch.setattr(project, "read_index", read)
    assert not any(stage.changed for stage in toy.read().stages.values())
    assert [stage.changed for stage in reads[0].stages.values()] == [False, False, False, True]


def test_a_broken_dvc_yaml_is_refused_with_the_reason(toy: DvcProject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(project, "_FIRST_WAIT_S", 0)
    (toy.root / "dvc.yaml").write_text("stages: {train: {cmd: [}}\n")
    with pytest.raises(DvcProjectError, match=r"cannot be read: .*dvc\.yaml"):
        toy.read()


def test_a_folder_outside_any_project_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DvcProjectError, match=r"no DVC project at .*: run `dvc init`"):
        DvcProject.at(tmp_path)
