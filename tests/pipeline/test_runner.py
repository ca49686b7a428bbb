import errno
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
import yaml

from ctinterp_dagster.errors import MovedInputError
from ctinterp_dagster.layout import Layout
from ctinterp_dagster.params import Params
from ctinterp_dagster.pipeline.common import runner
from ctinterp_dagster.pipeline.common.runner import alone, run_stage
from ctinterp_dagster.records import CaseFolder
from tests.conftest import ROOT, smoke_params


def in_project(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    smoke_params(layout.root)
    monkeypatch.chdir(layout.root)
    monkeypatch.setattr(runner, "make_deterministic", lambda _: None)


def test_a_stage_leaves_its_provenance(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    in_project(layout, monkeypatch)

    def run(params: Params, layout: Layout) -> Mapping[str, float]:
        return {"cases": 1}

    run.__module__ = "ctinterp_dagster.pipeline.thicken"
    run_stage(run)
    record = json.loads((layout.report("thicken") / "provenance.json").read_text())
    assert record["hardware"]["device"] == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("hidden", [False, True])
def test_a_full_disk_ends_a_stage_with_one_line(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, *, hidden: bool
) -> None:
    in_project(layout, monkeypatch)

    def run(params: Params, layout: Layout) -> Mapping[str, float]:
        full = OSError(errno.ENOSPC, "No space left on device", "data/train/model.safetensors")
        if hidden:
            raise RuntimeError("unexpected pos 704 vs 598") from full
        raise full

    with pytest.raises(SystemExit, match="1"):
        run_stage(run)
    assert "error: No space left on device (data/train/model.safetensors)" in caplog.text


def test_an_error_that_nobody_expected_keeps_its_traceback(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    in_project(layout, monkeypatch)

    def run(params: Params, layout: Layout) -> Mapping[str, float]:
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes do not match"):
        run_stage(run)


def test_a_stage_runs_the_code_of_the_checkout_that_it_stands_in(tmp_path: Path) -> None:
    """Whatever other checkout the environment has installed."""
    other = tmp_path / "ctinterp_dagster" / "pipeline"
    (other / "common").mkdir(parents=True)
    (other.parent / "__init__.py").touch()
    (other / "thicken.py").write_text("run = 'code of this checkout'")
    (other / "common" / "runner.py").write_text("run_stage = print")
    (other / "common" / "cpu_instructions.py").write_text("limit_instructions = dict")
    (tmp_path / "stages").mkdir()
    shutil.copy(ROOT / "stages" / "thicken.py", tmp_path / "stages")
    command = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]["thicken"]["cmd"].split()[1:]
    variables = os.environ | {"PYTHONPATH": str(ROOT)}
    shown = subprocess.run(
        [sys.executable, *command], cwd=tmp_path, env=variables, capture_output=True, text=True, check=True
    ).stdout
    assert shown == "code of this checkout\n"


def test_a_stage_refuses_to_run_the_code_of_another_checkout(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    in_project(layout, monkeypatch)
    (layout.root / "ctinterp_dagster").mkdir()

    def run(params: Params, layout: Layout) -> Mapping[str, float]:
        raise AssertionError

    run.__module__ = "ctinterp_dagster.pipeline.thicken"
    with pytest.raises(SystemExit, match="1"):
        run_stage(run)
    (said,) = caplog.messages
    assert said.endswith("runs here, not the code of this checkout: run `python -m stages.thicken`")


def test_a_second_process_of_a_stage_waits_for_the_first(tmp_path: Path) -> None:
    order = []

    def second() -> None:
        with alone(Layout(tmp_path), "train"):
            order.append("second")

    other = threading.Thread(target=second)
    with alone(Layout(tmp_path), "train"):
        other.start()
        other.join(0.5)
        assert other.is_alive()
        order.append("first")
    other.join()
    assert order == ["first", "second"]


def test_the_processes_of_a_launcher_do_not_wait_for_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with alone(Layout(tmp_path), "train"):
        monkeypatch.setenv("RANK", "1")
        with alone(Layout(tmp_path), "train"):
            pass


STAGE = "stages: {thicken: {deps: [data/ingest, data/raw, code.py], params: [thicken]}}"


def edit_params(root: Path, section: str) -> None:
    values = yaml.safe_load((root / "params.yaml").read_text())
    values[section]["later"] = 1
    (root / "params.yaml").write_text(yaml.safe_dump(values))


def replace_by_the_same(path: Path) -> None:
    (path.parent / "other").write_bytes(path.read_bytes())
    (path.parent / "other").replace(path)


MOVES: dict[str, tuple[Callable[[Path], object], str]] = {
    "data that come": (lambda root: (root / "data/ingest/b.nii").write_text("b"), "data/ingest/b.nii"),
    "data that go": (lambda root: (root / "data/ingest/a.nii").unlink(), "data/ingest/a.nii"),
    "data that are replaced": (lambda root: replace_by_the_same(root / "data/ingest/a.nii"), "data/ingest/a.nii"),
    "a scan, whose name is not told": (lambda root: (root / "data/raw/anna.nii").write_text(""), "data/raw"),
    "code": (lambda root: (root / "code.py").write_text("1"), "code.py"),
    "parameters": (lambda root: edit_params(root, "thicken"), "params.yaml: thicken"),
}


@pytest.fixture
def project(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> Layout:
    """A project with data, code and parameters, which were there before the package was loaded."""
    in_project(layout, monkeypatch)
    layout.pipeline.write_text(STAGE)
    layout.ingest.mkdir()
    (layout.ingest / "a.nii").write_text("a")
    (layout.root / "code.py").write_text("0")
    monkeypatch.setattr(runner, "LOADED_NS", time.time_ns())
    return layout


@pytest.mark.parametrize("move", MOVES)
def test_a_stage_whose_inputs_move_fails_and_names_them(
    project: Layout, move: str, caplog: pytest.LogCaptureFixture
) -> None:
    act, named = MOVES[move]

    def run(params: Params, layout: Layout) -> Mapping[str, float]:
        act(project.root)
        return {}

    run.__module__ = "ctinterp_dagster.pipeline.thicken"
    with pytest.raises(SystemExit, match="1"):
        run_stage(run)
    assert caplog.messages == [
        f"error: {named} changed while thicken ran, which read what was there before: run `dvc repro` again"
    ]


def test_what_a_stage_does_not_read_may_change_meanwhile(project: Layout) -> None:
    def run(params: Params, layout: Layout) -> Mapping[str, float]:
        (project.root / "data" / "raw" / ".copying.nii").write_text("half")
        (project.root / "other.py").write_text("")
        edit_params(project.root, "train")
        return {}

    run.__module__ = "ctinterp_dagster.pipeline.thicken"
    run_stage(run)


def test_code_that_was_written_after_it_was_loaded_is_no_input(
    project: Layout, caplog: pytest.LogCaptureFixture
) -> None:
    time.sleep(0.02)  # a clock of files ticks every few milliseconds
    (project.root / "code.py").write_text("1")

    def run(params: Params, layout: Layout) -> Mapping[str, float]:
        raise AssertionError

    run.__module__ = "ctinterp_dagster.pipeline.thicken"
    with pytest.raises(SystemExit, match="1"):
        run_stage(run)
    assert "code.py changed while" in caplog.text


def test_cases_made_while_code_moved_are_made_again(project: Layout) -> None:
    """Their key may hold the code that came, and not the one that made them."""
    folder = CaseFolder(project.thicken, {})

    def run(params: Params, layout: Layout) -> Mapping[str, float]:
        folder.make("a", [], ["a.nii"], lambda paths: paths[0].write_text("made"))
        folder.keep_only(["a"])
        (project.root / "code.py").write_text("1")
        return {}

    run.__module__ = "ctinterp_dagster.pipeline.thicken"
    with pytest.raises(SystemExit, match="1"):
        run_stage(run)
    again = CaseFolder(project.thicken, {})  # as the next process has it
    assert again.make("a", [], ["a.nii"], lambda paths: paths[0].write_text("made"))


def test_a_case_whose_input_changes_while_it_is_made_is_not_kept(tmp_path: Path) -> None:
    folder, scan = CaseFolder(tmp_path / "made", {}), tmp_path / "scan"
    scan.write_text("a")

    def read_another(paths: list[Path]) -> None:
        scan.write_text("b")
        paths[0].write_text(scan.read_text())

    with pytest.raises(MovedInputError, match="what case is made of changed"):
        folder.make("case", [scan], ["out"], read_another)
    scan.write_text("a")
    assert folder.make("case", [scan], ["out"], lambda paths: paths[0].write_text("a"))
    assert (tmp_path / "made" / "out").read_text() == "a"


@pytest.mark.skipif(torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"), reason="needs AVX2")
def test_a_repeatable_stage_computes_with_avx2_whatever_the_processor_has() -> None:
    program = """if True:
        from ctinterp_dagster.pipeline.common.cpu_instructions import limit_instructions
        limit_instructions()
        import numpy
        import torch
        with torch.backends.mkldnn.verbose(1):
            torch.nn.functional.conv3d(torch.ones(1, 32, 8, 32, 32), torch.ones(32, 32, 3, 3, 3))
        print("numpy", numpy.show_config("dicts")["SIMD Extensions"]["found"])
        print(torch.backends.cpu.get_cpu_capability())
    """
    shown = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert shown.endswith("AVX2\n")
    assert "numpy" in shown
    assert not {"X86_V4", "AVX512_ICL", "AVX512_SPR"} & set(re.findall(r"\w+", shown.split("numpy")[1]))
    assert "avx512" not in shown.replace("onednn_verbose,info", "")
