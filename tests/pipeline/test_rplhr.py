"""A folder as RPLHR-CT lays it: scored by its protocol, and a model trained on it."""

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from ctinterp_dagster.cli.actions import evaluate
from ctinterp_dagster.cli.main import group
from ctinterp_dagster.layout import Layout
from ctinterp_dagster.pipeline import expect, ingest, train
from ctinterp_dagster.pipeline.common.cases import read_cases, read_sources
from ctinterp_dagster.records import read_json
from ctinterp_dagster.scan.io import write_volume
from ctinterp_dagster.scan.window import RPLHR
from tests.conftest import smoke_params
from tests.phantoms import phantom


def pair(folder: Path, name: str, seed: int) -> None:
    """A thin scan, and the mean of five slices about every fifth of them; values in [0, 1]."""
    made = phantom(seed, shape_zyx=(80, 48, 48), spacing_mm=(1.0, 2.5, 2.5), noise_hu=10.0)
    thin = made.with_slices(made.hu[2:78], 0, 1.0)
    means = np.stack([made.hu[k : k + 5].mean(axis=0) for k in range(0, 76, 5)])
    for side, volume in (("1mm", thin), ("5mm", thin.with_slices(means, 0, 5.0))):
        (folder / side).mkdir(parents=True, exist_ok=True)
        unit = RPLHR.to_unit(RPLHR.clip(volume.hu)).astype(np.float32)
        write_volume(volume.with_hu(unit), folder / side / f"{name}.nii.gz")


@pytest.fixture(scope="module")
def rplhr_ct(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rplhr")
    for number, split in enumerate(("train", "train", "val", "test", "test")):
        pair(folder / split, f"CT{number:08d}", number)
    return folder


def run(*words: object) -> tuple[int, str]:
    done = CliRunner().invoke(group, [str(word) for word in words])
    return done.exit_code, done.output + str(done.exception or "")


def test_a_folder_of_pairs_is_scored_by_the_protocol_of_its_paper_and_goes_on(
    rplhr_ct: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("evaluate", "--protocol", "rplhr", "--pairs", rplhr_ct / "test", "--json", tmp_path / "scores.json")
    code, out = run(*words, "--methods", "linear")
    assert code == 0, out
    assert "rplhr x5: 2 scans of 2 patients" in out
    first = read_json(tmp_path / "scores.json")
    assert [(row["patient"], row["protocol"]) for row in first] == [("CT00000003", "rplhr"), ("CT00000004", "rplhr")]
    monkeypatch.setattr(evaluate, "CLASSICAL", {**evaluate.CLASSICAL, "linear": None})  # known, and not called again
    assert run(*words, "--methods", "linear,cubic")[0] == 0
    rows = read_json(tmp_path / "scores.json")
    assert [row for row in rows if row["method"] == "linear"] == first
    assert {row["method"] for row in rows} == {"linear", "cubic"}


KILLED = """
import json, os, signal, sys
from pathlib import Path
from ctinterp_dagster.cli.actions import evaluate  # loaded once
from ctinterp_dagster.cli.main import group

replace = Path.replace

def replace_or_die(path, target):
    left[0] -= 1
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return replace(path, target)

Path.replace = replace_or_die
for left in [4], [2]:
    child = os.fork()
    if not child:
        group(sys.argv[1:])
    ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(-ended, len(json.loads(Path(sys.argv[-1]).read_text())))
"""


def test_what_is_killed_goes_on_and_nothing_is_lost_or_doubled(rplhr_ct: Path, tmp_path: Path) -> None:
    """Killed as the fourth record is put in its place, and again, while going on, as the second is."""
    words = ("evaluate", "--protocol", "rplhr", "--pairs", rplhr_ct / "test", "--methods", "nearest,linear", "--json")
    assert run(*words, tmp_path / "whole.json")[0] == 0
    whole, record = read_json(tmp_path / "whole.json"), tmp_path / "killed.json"
    command = [str(word) for word in (sys.executable, "-c", KILLED, *words, record)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    kept = f"{signal.SIGKILL:d} 3\n"
    assert done.stdout == kept * 2, done.stderr
    assert run(*words, record)[0] == 0
    cost = ("seconds", "peak_rss_mib")
    rows = [[{k: v for k, v in row.items() if k not in cost} for row in rows] for rows in (whole, read_json(record))]
    assert rows[0] == rows[1]
    assert len(rows[0]) == 4


def test_decimated_scans_are_scored_in_three_planes(rplhr_ct: Path, tmp_path: Path) -> None:
    thin = phantom(9, shape_zyx=(24, 48, 48), spacing_mm=(1.0, 2.5, 2.5), noise_hu=10.0)
    write_volume(thin, tmp_path / "thin.nii.gz")
    record = tmp_path / "scores.json"
    code, out = run(
        "evaluate", "--protocol", "decimation", tmp_path / "thin.nii.gz", "--methods", "cubic", "--json", record
    )
    assert code == 0, out
    (row,) = read_json(record)
    assert row["factor"] == 2
    assert all(0.5 < row[f"ssim_{plane}"] <= 1 for plane in ("axial", "coronal", "sagittal"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--protocol", "rplhr", "a.nii"], "rplhr scores real pairs"),
        (["--protocol", "decimation", "a.nii", "--factor", "2.5"], "every n-th slice, got --factor 2.5"),
        (["--protocol", "decimation", "a.nii", "--profile", "box"], "takes THIN volumes and --factor: leave"),
        (["--protocol", "decimation", "--pair", "a.nii", "b.nii"], "takes THIN volumes and --factor: leave"),
    ],
)
def test_options_that_a_protocol_does_not_have_are_refused(words: list[str], message: str) -> None:
    code, out = run("evaluate", *words)
    assert (code, message in out) == (2, True), out


def test_a_folder_that_holds_no_pairs_says_what_is_missing(rplhr_ct: Path, tmp_path: Path) -> None:
    assert "give one of test, train, val below it" in run("evaluate", "--pairs", rplhr_ct)[1]
    pair(tmp_path, "CT1", 0)
    (tmp_path / "1mm" / "CT2.nii.gz").touch()
    assert f"{tmp_path / '5mm'} lacks the partner of CT2.nii.gz: add it" in run("evaluate", "--pairs", tmp_path)[1]


def test_a_model_is_trained_on_the_folder_and_scored_on_its_test_pairs(
    rplhr_ct: Path, layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = smoke_params(layout.root)
    monkeypatch.chdir(layout.root)
    code, out = run("scans", "add", "--layout", "rplhr-ct", rplhr_ct)
    assert (code, "5 added" in out) == (0, True), out
    for stage in (ingest, expect, train):
        stage.run(params, layout)
    cases = {case.patient: case.split for case in read_cases(layout)}
    assert cases == {f"CT{number:08d}": split for number, split in enumerate(("train", "train", "val", "test", "test"))}
    (source,) = read_sources(layout, "train")
    assert "Yu et al. 2022" in source
    record = tmp_path / "scores.json"
    words = ("evaluate", "--protocol", "rplhr", "--pairs", rplhr_ct / "test", "--methods", "linear,model")
    code, out = run(*words, "--model", layout.trained("train"), "--json", record)
    assert code == 0, out
    assert [(row["patient"], row["method"]) for row in read_json(record)] == [
        (patient, method) for patient in ("CT00000003", "CT00000004") for method in ("linear", "model")
    ]
