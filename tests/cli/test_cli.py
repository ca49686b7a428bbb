import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch

from ctinterp_dagster.cli.options.model_option import LATENT
from ctinterp_dagster.interpolation import interpolator
from ctinterp_dagster.model import quantized
from ctinterp_dagster.scan.io import read_scan, write_volume
from ctinterp_dagster.scan.volume import Volume

from .conftest import run


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("offset_mm,weight\n0,1\n1\n", "could not convert string to float"),
        ("offset_mm,weight\n0,1\n1,-2\n", "positive finite sum"),
        ("offset_mm,weight\n0,1\n1,nan\n", "positive finite sum"),
        ("offset_mm,weight\n0,1\n", "two or more and increase"),
        ("z,w\n0,1\n1,2\n", "'offset_mm'"),
        ("", "two or more and increase"),
    ],
)
def test_a_file_of_weights_that_is_no_profile_gets_one_line(
    table: str, message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = tmp_path / "weights.csv"
    weights.write_text(table)
    assert run(monkeypatch, "interpolate", "a.nii", "-o", tmp_path / "o.nii", "--profile", weights) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {weights} is no slice profile: ")
    assert message in line
    assert line.endswith("give numbers in columns of the names offset_mm, weight")


def sampled(monkeypatch: pytest.MonkeyPatch, scans: Path, out: Path, *words: object) -> Path:
    """The folder of two samples of a scan, in which a run that drew more had left one."""
    draws = out.with_name(f"{out.name}-draws")
    draws.mkdir()
    (draws / "sample-02.nii.gz").touch()
    options = ["--factor", 5, "--profile", "box", "--steps", 2, "--samples", 2, "--draws", draws, "--force"]
    assert run(monkeypatch, "interpolate", scans / "thick.nii.gz", "-o", out, *options, *words) == 0
    return draws


def test_thin_slices_that_overlap_are_smoother_and_say_their_thickness(
    monkeypatch: pytest.MonkeyPatch, scans: Path, tmp_path: Path
) -> None:
    made = tmp_path / "overlapping"
    options = ["--thin-thickness", 1.5, "--json", tmp_path / "r.json"]
    folders = [sampled(monkeypatch, scans, tmp_path / "touching"), sampled(monkeypatch, scans, made, *options)]
    touching, overlapping = (np.diff(read_scan(draws / "sample-00").volume.hu, axis=0) for draws in folders)
    assert np.square(overlapping).mean() < 0.9 * np.square(touching).mean()
    record = json.loads((tmp_path / "r.json").read_text())
    assert record["residual_hu"] < 0.01
    assert record["output_thickness_mm"] == read_scan(made).thickness_mm == 1.5
    assert read_scan(made).volume.spacing_mm[0] == 1.0


def test_samples_of_a_run_that_drew_more_do_not_stay(
    monkeypatch: pytest.MonkeyPatch, scans: Path, model: Path, tmp_path: Path
) -> None:
    draws = sampled(monkeypatch, scans, tmp_path / "thin", "--model", model)
    assert sorted(file.name for file in draws.iterdir()) == ["sample-00", "sample-01"]


@pytest.mark.parametrize("thickness_mm", [0.9, 5.0])
def test_thin_slices_with_gaps_or_as_thick_as_the_scan_s_are_refused(
    monkeypatch: pytest.MonkeyPatch,
    scans: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    thickness_mm: float,
) -> None:
    words = ["--factor", 5, "--profile", "box", "--thin-thickness", thickness_mm, "--force"]
    assert run(monkeypatch, "interpolate", scans / "thick.nii.gz", "-o", tmp_path / "no.nii", *words) == 1
    expected = "must be at least as thick as their distance, 1 mm, and thinner than the scan's 5 mm"
    assert expected in capsys.readouterr().err


def test_mean_deviation_and_samples_are_series_of_one_study(
    monkeypatch: pytest.MonkeyPatch, scans: Path, model: Path, tmp_path: Path
) -> None:
    words = ["interpolate", scans / "thick.nii.gz", "--profile", "box", "--steps", 2, "--samples", 2, "--force"]
    words += ["--model", model, "--std", tmp_path / "std", "--draws", tmp_path / "draws"]
    assert run(monkeypatch, *words, "-o", tmp_path / "mean", "--multiframe") == 0
    folders = [tmp_path / name for name in ("mean", "std", "draws/sample-00", "draws/sample-01")]
    files = [list(folder.iterdir()) for folder in folders]
    assert [len(own) for own in files] == [1, 1, 1, 1], "frames of one file each"
    headers = [pydicom.dcmread(own[0]) for own in files]
    assert len({d.StudyInstanceUID for d in headers}) == 1
    for keyword in ("SeriesInstanceUID", "SOPInstanceUID", "SeriesNumber", "SeriesDescription"):
        assert len({str(d[keyword].value) for d in headers}) == 4
    assert [d.SeriesDescription.split()[-2] for d in headers] == ["mean", "std", "sample", "sample"]
    assert [d.SyntheticData for d in headers] == ["YES"] * 4


def test_a_classical_method_is_named_in_dicom_and_multiframe_is_dicom(
    monkeypatch: pytest.MonkeyPatch, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["interpolate", scans / "thick.nii.gz", "--profile", "box", "--method", "cubic_projected", "--force"]
    assert run(monkeypatch, *words, "-o", tmp_path / "thin") == 0
    made = pydicom.dcmread(min((tmp_path / "thin").iterdir()))
    assert (made.SyntheticData, made.SeriesDescription.split()[-2]) == ("NO", "classical")
    assert made.DerivationDescription.endswith(", cubic_projected")
    assert run(monkeypatch, *words, "-o", tmp_path / "thin.nii", "--multiframe") == 2
    said = f"--multiframe is DICOM: give a new folder, or --format dicom, not {tmp_path / 'thin.nii'}"
    assert said in capsys.readouterr().err


def test_bf16_reaches_the_networks(monkeypatch: pytest.MonkeyPatch, scans: Path, model: Path, tmp_path: Path) -> None:
    made, scored = [], []
    for precision in ("no", "bf16"):
        output, record = tmp_path / f"{precision}.nii", tmp_path / f"{precision}.json"
        words = ["--model", model, "--mixed-precision", precision]
        assert run(monkeypatch, "interpolate", scans / "thick.nii.gz", "-o", output, *words, "--force") == 0
        words += ["--methods", "model", "--json", record]
        assert run(monkeypatch, "evaluate", scans / "thin.nii.gz", *words) == 0
        made.append(read_scan(output).volume.hu)
        scored.append(json.loads(record.read_text())[0]["psnr_db"])
    assert not np.array_equal(*made)
    assert 0 < abs(scored[1] - scored[0]) < 0.2


@pytest.mark.parametrize("taken", ["int8", "no"])
def test_the_fastest_precision_is_the_default_and_on_record(
    monkeypatch: pytest.MonkeyPatch, scans: Path, tmp_path: Path, taken: str
) -> None:
    if taken == "int8" and not quantized.is_exact():
        pytest.skip("this processor has no products of eight bits")
    monkeypatch.setattr(quantized, "is_exact", lambda: taken == "int8")
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    output, record = tmp_path / "thin.nii", tmp_path / "thin.json"
    words = ["interpolate", scans / "thick.nii.gz", "-o", output, "--json", record, "--force"]
    assert run(monkeypatch, *words) == 0
    row = json.loads(record.read_text())
    assert row["mixed_precision"] == taken
    assert {"sampler", "steps", "seed"}.isdisjoint(row)  # of samples, which were not drawn


def test_eight_bits_need_a_processor_that_has_them(
    monkeypatch: pytest.MonkeyPatch, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(interpolator, "is_exact", lambda: False)
    words = ["interpolate", scans / "thick.nii.gz", "-o", tmp_path / "thin.nii", "--mixed-precision", "int8"]
    assert run(monkeypatch, *words) == 1
    assert "mixed_precision int8 is for CPUs with AVX512-VNNI, AVX-VNNI or AMX" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["interpolate", "none.nii.gz", "-o", "out.nii.gz"], 1, "error: none.nii.gz does not exist"),
        (["interpolate", "a.nii", "-o", "out.jpg"], 1, "error: out.jpg has no known ending"),
        (["interpolate", "a.nii", "-o", "nowhere/out.nii"], 1, "error: the folder nowhere does not exist"),
        (
            ["interpolate", "a.nii", "-o", "o.nii", "--spacing", "1", "--factor", "5"],
            2,
            "--spacing or --factor, not both",
        ),
        (["interpolate", "a.nii"], 2, "Missing option '-o'"),
        (["evaluate", "a.nii", "--methods", "magic"], 2, "'magic' is not one of"),
        (["evaluate", "a.nii", "a.nii"], 2, "a scan is given twice"),
        (["evaluate"], 2, "give THIN volumes, --pair THICK THIN or --pairs FOLDER"),
        (["evaluate", "a.nii", "--factor", "1"], 2, "1.0 is not in the range x>1"),
        (["evaluate", "--pair", "a.nii", "b.nii", "--spacing", "1"], 2, "--spacing is for THIN volumes"),
        (["evaluate", "--pair", "a.nii", "b.nii", "--factor", "5"], 2, "--factor is for THIN volumes"),
        (["evaluate", "--pair", "a.nii", "b.nii", "--thin-thickness", "2"], 2, "--thin-thickness is for THIN volumes"),
        (
            ["evaluate", "a.nii", "--profile", "auto"],
            2,
            "THIN is thickened with a named profile: give --profile box or another",
        ),
        (["interpolate", "a.nii", "-o", "o.nii", "--profile", "sinc"], 2, "'sinc' is none of auto|box|gaussian|tri"),
        (
            ["interpolate", "a.nii", "-o", "o.nii", "--profile", "trapezoid:2"],
            2,
            "no ramp above 0 and at most 1, as in",
        ),
        (
            ["interpolate", "a.nii", "-o", "o.nii", "--profile", "no.csv"],
            1,
            "error: no.csv does not exist: give a table",
        ),
        (["interpolate", "a.nii", "-o", "o.nii", "--profile", "gauss"], 2, "did you mean 'gaussian'?"),
        (["interpolate", "a.nii", "-o", "o.nii", "--spacing", "5mm"], 2, "'5mm' is no number: write it with a point"),
        (["interpolate", "a.nii", "-o", "o.nii", "--factor", "2,5"], 2, "'2,5' is no number: write it with a point"),
        (["interpolate", "a.nii", "-o", "o.nii", "--thickness", "nan"], 2, "'nan' is no finite number"),
        (["view", "a.nii", "b.nii", "--html", "look.txt"], 2, "give a name that ends in .html, not look.txt"),
        (["pacs", "list", "--date", "2026-01-31"], 2, "--date 2026-01-31 is no date: write 20260131"),
        (["pacs", "list", "--date", "20260101-"], 1, "error: pacs.yaml is missing"),
        (["pacs", "restore", "1.2.3", "--spacing", "5mm"], 2, "'5mm' is no number"),
        (["scans", "list"], 1, "error: params.yaml is not here"),
        (["dance"], 2, "No such command 'dance'"),
        (["preset", "cpu"], 1, "error: params.yaml is not here"),
        (["scans", "add", "a.nii"], 1, "error: params.yaml is not here"),
        (["scans", "check", "nothing"], 1, "error: nothing does not exist"),
        (["scans", "check", "x" * 300], 1, f"error: File name too long ({'x' * 300}): give another path"),
        (["champion", "list"], 1, "error: no model was judged here: run `dvc repro`"),
    ],
)
def test_mistakes_get_one_line_and_the_right_exit_code(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    code: int,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, *words) == code
    shown = capsys.readouterr().err
    assert message in shown
    assert "Traceback" not in shown


def test_a_model_that_is_not_there_ends_the_run_before_the_scan_is_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.nii").touch()
    words = "interpolate", tmp_path / "a.nii", "-o", tmp_path / "o.nii", "--model", tmp_path / "no.safetensors"
    assert run(monkeypatch, *words) == 1
    assert "no.safetensors is missing: train a model" in capsys.readouterr().err
    assert run(monkeypatch, *words[:-1], "latnet") == 2
    assert interpolator.LATENT == LATENT
    assert "'latnet' is neither a file nor a released model: give a model's file, 'latent'" in capsys.readouterr().err


def test_a_thin_scan_is_not_taken_for_a_thick_one(
    monkeypatch: pytest.MonkeyPatch, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "interpolate", scans / "thin.nii.gz", "-o", tmp_path / "o.nii") == 1
    assert "must be finer than the scan's 1 mm" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["o.nii.gz", "o.nii", "o.mha", "o.nrrd", "series"])
def test_a_file_that_gets_too_large_is_told_in_one_line_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, scans: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str
) -> None:
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        words = "interpolate", scans / "thick.nii.gz", "-o", tmp_path / name, "--method", "cubic_projected"
        assert run(monkeypatch, *words) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert capfd.readouterr().err.splitlines()[-1].startswith("error: ")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_run_that_is_ended_removes_what_it_began(tmp_path: Path, name: str) -> None:
    script = f"""
import os, signal
signal.signal(signal.{name}, signal.SIG_DFL)  # nohup's children ignore SIGHUP
from pathlib import Path
from ctinterp_dagster.cli import main
from ctinterp_dagster.cli.actions import listing
from ctinterp_dagster.records import whole_file

def work() -> None:
    with whole_file(Path({str(tmp_path / "out")!r})) as partial:
        partial.touch()
        os.kill(os.getpid(), signal.{name})

listing.run = work
main()
"""
    ended = subprocess.run([sys.executable, "-c", script, "scans", "list"], check=False)
    assert ended.returncode == 128 + signal.Signals[name]
    assert not list(tmp_path.iterdir())


def test_check_says_what_a_scan_is(
    monkeypatch: pytest.MonkeyPatch, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "scans", "check", scans / "thick.nii.gz", "--json") == 0
    verdict = json.loads(capsys.readouterr().out)[0]
    assert (verdict["verdict"], verdict["shape_zyx"]) == ("fit", [8, 40, 44])
    assert verdict["spacing_mm"] == pytest.approx([5.0, 2.9, 2.8])
    assert verdict["profile"].startswith("gaussian, 4.5 mm wide, guessed (tags say nothing of the scan, there is too")
    assert run(monkeypatch, "scans", "check", scans / "thin.nii.gz", "--json") == 0
    assert json.loads(capsys.readouterr().out)[0]["profile"] == ""  # nothing to make thinner
    (tmp_path / "bad.nii.gz").write_bytes((scans / "thick.nii.gz").read_bytes()[:500])
    assert run(monkeypatch, "scans", "check", tmp_path / "bad.nii.gz") == 0
    assert "truncated" in capsys.readouterr().out


def test_a_name_that_the_terminal_cannot_write_ends_no_command(tmp_path: Path) -> None:
    name = tmp_path / "\N{CYRILLIC SMALL LETTER A}.txt"
    name.touch()
    words = [sys.executable, "-c", "from ctinterp_dagster.cli import main; main()", "scans", "check", name]
    variables = os.environ | {"PYTHONIOENCODING": "cp1252", "PYTHONPATH": str(Path(__file__).parents[2])}
    shown = subprocess.run(words, env=variables, capture_output=True, check=True).stdout
    assert shown.startswith(rb"\u0430.txt: unreadable")


def test_check_gives_the_geometry_of_what_it_refuses(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_volume(Volume(np.zeros((4, 5, 6), np.float32), (5.0, 1.0, 1.0), (0, 0, 0), np.eye(3)), tmp_path / "flat.nii")
    assert run(monkeypatch, "scans", "check", tmp_path / "flat.nii", "--json", "--strict") == 1
    verdict = json.loads(capsys.readouterr().out)[0]
    assert (verdict["verdict"], verdict["shape_zyx"]) == ("constant", [4, 5, 6])
    assert "every voxel is 0" in verdict["remark"]


def test_a_mistyped_command_gets_the_nearest_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "interpolat", "x") == 2
    assert "did you mean 'interpolate'?" in capsys.readouterr().err
    assert run(monkeypatch, "zzz") == 2
