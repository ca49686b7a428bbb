import errno
import json
import threading
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from ctinterp_dagster.layout import Layout
from ctinterp_dagster.params import Params
from ctinterp_dagster.pipeline import runner
from ctinterp_dagster.pipeline.runner import alone, run_stage
from tests.conftest import smoke_params


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
