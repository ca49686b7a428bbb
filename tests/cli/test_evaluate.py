"""`ctinterp evaluate`."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ctinterp_dagster.cli.actions import evaluate
from ctinterp_dagster.cli.actions.evaluate import RECORD_FIELDS
from ctinterp_dagster.physics.measurement import Estimate, Measurement
from ctinterp_dagster.scan.io import read_scan, write_volume
from ctinterp_dagster.scan.volume import Volume
from tests.phantoms import phantom

from .conftest import run


def test_evaluate_writes_the_records_of_every_method(
    monkeypatch: pytest.MonkeyPatch, scans: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = tmp_path / "scores.json"
    words = ["--model", model, "--methods", "linear,cubic,cubic_projected,model", "--json", record]
    assert run(monkeypatch, "evaluate", scans / "thin.nii.gz", *words) == 0
    rows = json.loads(record.read_text())
    assert [row["method"] for row in rows] == ["linear", "cubic", "cubic_projected", "model"]
    labels = {"case", "method", "factor", "spacing_mm", "profile", "seconds", "peak_rss_mib", "made_of"}
    assert set(rows[0]) == labels | set(RECORD_FIELDS)
    assert {"psnr_db", "psnr_rplhr_db", "psnr_soft_db", "ssim", "ssim_3d", "mae_hu", "noise_floor_db"} <= set(rows[0])
    assert rows[0]["case"] == str(scans / "thin.nii.gz")
    assert rows[2]["residual_hu"] < 0.05 < rows[0]["residual_hu"]
    assert rows[1]["psnr_db"] > rows[0]["psnr_db"] > 20
    assert "cubic_projected" in capsys.readouterr().out


def test_an_evaluation_keeps_each_record_as_it_is_made_and_goes_on_from_there(
    monkeypatch: pytest.MonkeyPatch, scans: Path, tmp_path: Path
) -> None:
    record, other = tmp_path / "scores.json", tmp_path / "other.nii"
    thin = read_scan(scans / "thin.nii.gz").volume
    write_volume(thin.with_slices(thin.hu[5:], 5, thin.spacing_mm[0]), other)
    words = ["evaluate", scans / "thin.nii.gz", other, "--methods", "linear,cubic", "--json", record]
    made: list[str] = []
    cubic = evaluate.CLASSICAL["cubic"]

    def interrupted(measurement: Measurement) -> Estimate:
        made.append("cubic")
        if len(made) == 2:
            raise KeyboardInterrupt
        return cubic(measurement)

    monkeypatch.setattr(evaluate, "CLASSICAL", {**evaluate.CLASSICAL, "cubic": interrupted})
    assert run(monkeypatch, *words) == 130
    kept = json.loads(record.read_text())
    assert [row["method"] for row in kept] == ["linear", "cubic", "linear"]
    assert run(monkeypatch, *words) == 0
    assert len(made) == 3
    rows = json.loads(record.read_text())
    assert (rows[:3], len(rows)) == (kept, 4)
    assert run(monkeypatch, *words) == 0
    assert len(made) == 3
    assert run(monkeypatch, *words, "--factor", 4) == 0
    assert len(made) == 5


def test_scores_fit_a_terminal_of_80_columns(
    monkeypatch: pytest.MonkeyPatch, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(scans)
    monkeypatch.setenv("COLUMNS", "80")
    (tmp_path / "same.nii.gz").write_bytes((scans / "thin.nii.gz").read_bytes())
    words = ["thin.nii.gz", tmp_path / "same.nii.gz", "--methods", "registration_projected,cubic"]
    assert run(monkeypatch, "evaluate", *words) == 0
    shown = capsys.readouterr().out
    assert "thin.nii.gz: box-x5 to 1 mm" in shown
    rows = [line.split() for line in shown.splitlines() if line.strip().startswith("registration_projected")]
    assert [len(row) for row in rows] == [8, 8, 7, 7]


def test_the_regression_is_a_row_where_the_model_starts_from_one(
    monkeypatch: pytest.MonkeyPatch, scans: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = tmp_path / "scores.json"
    words = ["evaluate", scans / "thin.nii.gz", "--methods", "regression,model", "--json", record]
    assert run(monkeypatch, *words) == 0
    alone, both = json.loads(record.read_text())
    assert (alone["method"], both["method"]) == ("regression", "model")
    assert run(monkeypatch, *words, "--thin-thickness", 1.4) == 0
    other = json.loads(record.read_text())[1]
    assert other["residual_hu"] < 0.01
    assert other["psnr_db"] != both["psnr_db"]
    assert 0 < abs(both["psnr_db"] - alone["psnr_db"]) < 1, "the model sees the mirror image too"
    assert run(monkeypatch, *words, "--model", model) == 2
    assert "does not start from a regression" in capsys.readouterr().err


def test_a_scan_is_scored_on_a_coarser_grid_that_does_not_divide_the_thick_slices(
    monkeypatch: pytest.MonkeyPatch, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = tmp_path / "scores.json"
    words = ["evaluate", scans / "thin.nii.gz", "--methods", "cubic_projected", "--factor", 1.5, "--json", record]
    assert run(monkeypatch, *words, "--spacing", 2) == 0
    (row,) = json.loads(record.read_text())
    assert (row["factor"], row["spacing_mm"], row["profile"]) == (1.5, 2.0, "box")
    assert row["residual_hu"] < 0.05
    shown = capsys.readouterr()
    assert "box-x1.5" in shown.out
    assert shown.err == ""
    assert run(monkeypatch, *words, "--spacing", 1.25) == 0
    assert "slices of 1 mm do not fill 1.25 mm: those that do in part weigh by the part" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "refused", "message"),
    [
        (["--spacing", 4, "--factor", 2.5], "thin.nii.gz", "is too small at factor 2.5"),
        (["--spacing", 0.5], "taller.nii", "a slice every 1 mm, and none every 0.5 mm is known"),
        (["--factor", 2, "--thin-thickness", 2], "taller.nii", "thinner than the thick ones of 2 mm, got 2 mm"),
    ],
)
def test_a_grid_that_cannot_be_is_refused_before_any_scan_is_restored(
    monkeypatch: pytest.MonkeyPatch,
    scans: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[object],
    refused: str,
    message: str,
) -> None:
    taller = tmp_path / "taller.nii"
    write_volume(phantom(4, shape_zyx=(60, 16, 16), spacing_mm=(1.0, 8.0, 8.0), noise_hu=10.0), taller)
    monkeypatch.setattr(evaluate, "score_methods", lambda *_, **__: pytest.fail("computed"))
    assert run(monkeypatch, "evaluate", taller, scans / "thin.nii.gz", *options) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert f"{refused}: " in line
    assert message in line


def test_several_scans_are_summed_up_with_intervals_and_what_the_model_gains(
    monkeypatch: pytest.MonkeyPatch, scans: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    thin, other, record = read_scan(scans / "thin.nii.gz").volume, tmp_path / "thin.nii.gz", tmp_path / "scores.json"
    write_volume(thin.with_slices(thin.hu[5:], 5, thin.spacing_mm[0]), other)
    words = ["--model", model, "--methods", "linear,model", "--json", record]
    assert run(monkeypatch, "evaluate", scans / "thin.nii.gz", other, *words) == 0
    linear, model_row = ([row["psnr_db"] for row in json.loads(record.read_text())[n::2]] for n in (0, 1))
    gains = np.subtract(model_row, linear)
    out = capsys.readouterr().out
    assert "mean of 2 cases" in out  # the two share a file name, in different folders
    assert f"{np.mean(linear):.2f} ({min(linear):.2f}, {max(linear):.2f})" in out
    assert f"{gains.mean():.2f} ({gains.min():.2f}, {gains.max():.2f})" in out


@pytest.fixture
def pair(scans: Path, tmp_path: Path) -> list[Path]:
    """A thick scan and its thin one, which reaches beyond it, by which nothing may shift."""
    thick = read_scan(scans / "thick.nii.gz").volume
    write_volume(thick.with_slices(thick.hu[1:], 1, 5.0), tmp_path / "cut.nii.gz")
    return [tmp_path / "cut.nii.gz", scans / "thin.nii.gz"]


def scored(monkeypatch: pytest.MonkeyPatch, *words: object) -> list[dict[str, Any]]:
    """The records of `evaluate` of two methods."""
    options = ["--methods", "linear,cubic_projected", "--json", "scores.json"]
    assert run(monkeypatch, "evaluate", *words, *options) == 0
    rows: list[dict[str, Any]] = json.loads(Path("scores.json").read_text())
    return rows


def test_a_real_pair_is_scored_by_position(monkeypatch: pytest.MonkeyPatch, pair: list[Path], tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    rows = scored(monkeypatch, "--pair", *pair)
    assert [(r["case"], r["profile"], r["factor"], r["method"]) for r in rows] == [
        (str(pair[0]), "real", 5, "linear"),
        (str(pair[0]), "real", 5, "cubic_projected"),
    ]
    assert rows[1]["psnr_db"] > 20


def test_the_slice_profile_of_a_real_pair_is_found_shown_and_recorded(
    monkeypatch: pytest.MonkeyPatch, pair: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    row = scored(monkeypatch, "--pair", *pair)[0]
    found = row["profile_shape"], row["profile_fwhm_mm"], row["profile_confidence"]
    assert found == ("gaussian", 4.5, "guessed")
    shown = capsys.readouterr().err
    why = "(tags say nothing of the scan, there is too little flat tissue"
    assert f"cut.nii.gz: the slice profile is not known {why}" in shown
    assert "cut.nii.gz: slice profile: gaussian, 4.5 mm wide, guessed" in shown


def test_the_profile_that_a_pair_was_made_with_restores_it_better_than_a_guess(
    monkeypatch: pytest.MonkeyPatch, pair: list[Path], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    guessed, told = (scored(monkeypatch, "--pair", *pair, *words)[1] for words in ([], ["--profile", "box"]))
    assert (told["profile_confidence"], told["profile"]) == ("told", "real")
    assert told["psnr_db"] > guessed["psnr_db"]


def test_a_pair_of_other_pixels_is_refused(
    monkeypatch: pytest.MonkeyPatch, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    thick = read_scan(scans / "thick.nii.gz").volume
    other = Volume(thick.hu, (5.0, 2.9, 3.0), thick.origin_mm, thick.direction)
    write_volume(other, tmp_path / "other.nii.gz")
    assert run(monkeypatch, "evaluate", "--pair", tmp_path / "other.nii.gz", scans / "thin.nii.gz") == 1
    assert "the pixel grids differ" in capsys.readouterr().err


def test_a_pair_the_wrong_way_round_is_refused_as_such(
    monkeypatch: pytest.MonkeyPatch, scans: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    thin, thick = scans / "thin.nii.gz", scans / "thick.nii.gz"
    for protocol in ("ctinterp", "rplhr"):
        assert run(monkeypatch, "evaluate", "--pair", thin, thick, "--protocol", protocol) == 1
        said = capsys.readouterr().err
        assert "thin.nii.gz: the slices of THICK are 1 mm apart, those of THIN 5 mm" in said
        assert said.endswith("are the two swapped?\n")


def test_the_records_of_an_evaluation_never_replace_a_scan(
    monkeypatch: pytest.MonkeyPatch, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scan = tmp_path / "thin.nii.gz"
    scan.write_bytes((scans / "thin.nii.gz").read_bytes())
    assert run(monkeypatch, "evaluate", scan, "--json", scan) == 1
    assert "is or touches the input" in capsys.readouterr().err
    assert scan.read_bytes() == (scans / "thin.nii.gz").read_bytes()


@pytest.mark.parametrize("content", ["{bad", "{}{}", '{"patient": 1}', "[1]", '[{"file": "a.nii"}]', "3"])
def test_a_file_that_holds_no_scores_is_not_written_over(
    monkeypatch: pytest.MonkeyPatch, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str
) -> None:
    (tmp_path / "other.json").write_text(content)
    words = ["evaluate", scans / "thin.nii.gz", "--methods", "linear", "--json", tmp_path / "other.json"]
    assert run(monkeypatch, *words) == 1
    assert "other.json holds no scores of an earlier run: give --json another name" in capsys.readouterr().err
    assert (tmp_path / "other.json").read_text() == content
