"""`ctinterp interpolate` of many scans."""

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import nibabel as nib
import numpy as np
import pytest

from ctinterp_dagster.cli.actions import batch
from ctinterp_dagster.cli.actions.naming import items_of
from ctinterp_dagster.interpolation import Interpolator, thicken
from ctinterp_dagster.scan.io import read_scan, write_volume
from ctinterp_dagster.scan.volume import Volume
from tests.cli.conftest import run
from tests.phantoms import phantom
from tests.scan.conftest import ct_slice

QUICK = ["--method", "cubic_projected", "--force"]


def thick(seed: int) -> Volume:
    return thicken(phantom(seed, shape_zyx=(40, 24, 24), spacing_mm=(1.0, 4.0, 4.0), noise_hu=10.0), 5, "box")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Two thick scans of one file name, one that is thin, one that is no whole file."""
    folder = tmp_path / "tree"
    for seed, name in enumerate(("A/ct.nii.gz", "B/ct.nii.gz")):
        (folder / name).parent.mkdir(parents=True)
        write_volume(thick(seed), folder / name)
    write_volume(phantom(3, (20, 24, 24), (1.0, 4.0, 4.0), 10.0), folder / "thin.nii.gz")
    (folder / "bad.nii.gz").write_bytes((folder / "A" / "ct.nii.gz").read_bytes()[:900])
    return folder


def made(out: Path) -> list[str]:
    return sorted(file.relative_to(out).as_posix() for file in out.rglob("*") if file.is_file())


def test_every_thick_scan_of_a_tree_is_restored_and_one_that_fails_ends_no_other(
    monkeypatch: pytest.MonkeyPatch, tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, log = tmp_path / "out", tmp_path / "log.jsonl"
    assert run(monkeypatch, "interpolate", tree, "--all", "-o", out, "--json", log, *QUICK) == 1
    assert made(out) == ["A/ct.json", "A/ct.nii.gz", "B/ct.json", "B/ct.nii.gz"]
    shown = capsys.readouterr()
    lines = [line for line in shown.out.splitlines() if line.split()[0] in ("done", "skipped", "failed")]
    assert [line.split(":")[0].split()[:2] for line in lines] == [
        ["done", "A/ct"], ["done", "B/ct"], ["failed", "bad"], ["skipped", "thin"],
    ]  # fmt: skip
    assert max(map(len, lines)) <= 80
    assert shown.out.splitlines()[-1] == "2 done, 1 skipped, 1 failed"
    assert "failed: bad.nii.gz: no readable NIfTI file" in shown.err
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    assert [row["verdict"] for row in rows] == ["done", "done", "failed", "skipped"]
    assert rows[0]["input"] == str(tree / "A" / "ct.nii.gz")
    assert rows[0]["residual_hu"] < 0.05
    for name in ("A", "B"):
        given, result = read_scan(tree / name / "ct.nii.gz").volume, read_scan(out / name / "ct.nii.gz").volume
        assert np.abs(result.hu.mean() - given.hu.mean()) < 1


def test_a_series_of_stretches_is_headed_by_all_of_them(tmp_path: Path) -> None:
    for k, z in enumerate([0.0, 2.5, 5.0, 7.5, 11.25, 16.25, 21.25]):
        tags = {"SliceThickness": 2.5 if k < 4 else 5.0, "SeriesDescription": "Head"}
        ct_slice((0.0, 0.0, z), **tags).save_as(tmp_path / f"{k}.dcm", enforce_file_format=True)
    (item,) = items_of([tmp_path])
    assert item.title == "Head, 4 slices every 2.5 mm and 3 slices every 5 mm"


Again = Callable[..., int]


@pytest.fixture
def again(monkeypatch: pytest.MonkeyPatch, tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Again:
    """Runs the command that restored both thick scans once more, with other options if some are given."""
    (tree / "bad.nii.gz").unlink()
    (tree / "thin.nii.gz").unlink()

    def command(*options: object) -> int:
        words = ["interpolate", tree, "--all", "-o", tmp_path / "out", "--method", "cubic_projected"]
        return run(monkeypatch, *words, *options)

    assert command() == 0
    capsys.readouterr()
    return command


def last_line(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().out.splitlines()[-1]


def test_what_is_done_is_skipped_and_not_even_read(
    monkeypatch: pytest.MonkeyPatch, again: Again, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(batch, "read_scan", lambda _: pytest.fail("read"))
    assert again() == 0
    assert last_line(capsys) == "0 done, 2 skipped, 0 failed"


def test_a_result_that_is_missing_is_made_again_and_no_other(
    again: Again, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = (tmp_path / "out" / name / "ct.nii.gz" for name in "AB")
    before = other.stat().st_mtime_ns
    one.unlink()
    assert again() == 0
    assert last_line(capsys) == "1 done, 1 skipped, 0 failed"
    assert (one.exists(), other.stat().st_mtime_ns) == (True, before)


def test_results_of_other_options_are_replaced_by_force_alone(
    again: Again, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert again("--spacing", 2.5) == 1
    shown = capsys.readouterr()
    refused = "was made of another scan or by other options: choose another --output"
    assert [" ".join(text.split()).count(refused) for text in shown] == [2, 2]
    assert again("--spacing", 2.5, "--force") == 0
    assert read_scan(tmp_path / "out" / "A" / "ct.nii.gz").volume.spacing_mm[0] == 2.5


def test_a_scan_that_changed_is_restored_again(again: Again, tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_volume(thick(7), tree / "A" / "ct.nii.gz")
    assert again("--force") == 0
    assert last_line(capsys) == "1 done, 1 skipped, 0 failed"


def test_a_run_that_was_interrupted_goes_on_where_it_was(
    monkeypatch: pytest.MonkeyPatch, tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tree / "bad.nii.gz").unlink()
    out, log = tmp_path / "out", tmp_path / "log.jsonl"
    words = ["interpolate", tree, "--all", "-o", out, "--method", "cubic_projected", "--json", log]
    work = batch.Restoration.restore

    def interrupted(self: batch.Restoration, scans: object, outputs: batch.Outputs, name: str) -> object:
        if "/B/" in name:
            outputs.thin.write_bytes(b"half")
            raise KeyboardInterrupt
        return work(self, scans, outputs, name)  # type: ignore[arg-type]

    monkeypatch.setattr(batch.Restoration, "restore", interrupted)
    assert run(monkeypatch, *words) == 130
    left = "1 done, 0 skipped, 0 failed, 2 left: the same command goes on with them"
    assert capsys.readouterr().out.splitlines()[-1] == left
    monkeypatch.setattr(batch.Restoration, "restore", work)
    assert run(monkeypatch, *words) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "1 done, 2 skipped, 0 failed"
    assert read_scan(out / "B" / "ct.nii.gz").volume.depth == 40
    verdicts = [json.loads(line)["verdict"] for line in log.read_text().splitlines()]
    assert verdicts == ["done", "skipped", "done", "skipped"]


def test_two_runs_of_the_same_command_share_the_scans(
    monkeypatch: pytest.MonkeyPatch, tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("bad", "thin"):
        (tree / f"{name}.nii.gz").unlink()
    out, command = tmp_path / "out", "from ctinterp_dagster.cli import main; main()"
    words = ["interpolate", str(tree), "--all", "-o", str(out), "--method", "cubic_projected"]
    work = batch.Restoration.restore

    def beside_another(self: batch.Restoration, scans: object, outputs: batch.Outputs, name: str) -> object:
        monkeypatch.setattr(batch.Restoration, "restore", work)
        other = subprocess.run([sys.executable, "-c", command, *words], text=True, capture_output=True, check=True)
        assert "skipped A/ct\n        another run is at it\n" in other.stdout
        assert other.stdout.splitlines()[-1] == "1 done, 1 skipped, 0 failed"
        return work(self, scans, outputs, name)  # type: ignore[arg-type]

    monkeypatch.setattr(batch.Restoration, "restore", beside_another)
    assert run(monkeypatch, *words) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "1 done, 1 skipped, 0 failed"
    assert made(out) == ["A/ct.json", "A/ct.nii.gz", "B/ct.json", "B/ct.nii.gz"]


def test_inputs_on_two_drives_are_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch, tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A stand-in for Windows."""
    monkeypatch.setattr(os.path, "commonpath", Mock(side_effect=ValueError("Paths don't have the same drive")))
    assert run(monkeypatch, "interpolate", tree / "A", tree / "B", "-o", tmp_path / "out", *QUICK) == 1
    assert "don't have the same drive): run once for each drive" in capsys.readouterr().err


def test_a_full_disk_ends_the_run_and_one_that_cannot_be_read_does_not(
    monkeypatch: pytest.MonkeyPatch, tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["interpolate", tree, "--all", "-o", tmp_path / "out", "--method", "cubic_projected"]
    for number, told in (
        (errno.ENOSPC, "0 failed, 4 left: the same"),
        (errno.EACCES, "1 skipped, 3 failed"),
    ):
        error = OSError(number, os.strerror(number))
        monkeypatch.setattr(batch.Restoration, "restore", Mock(side_effect=error))
        assert run(monkeypatch, *words) == 1
        assert told in capsys.readouterr().out.splitlines()[-1]


def test_the_model_is_loaded_once(
    monkeypatch: pytest.MonkeyPatch, tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loaded = []
    init = Interpolator.__init__
    monkeypatch.setattr(Interpolator, "__init__", lambda self, *given: (loaded.append(1), init(self, *given))[1])
    scans = [tree / "A" / "ct.nii.gz", tree / "B" / "ct.nii.gz"]
    assert run(monkeypatch, "interpolate", *scans, "-o", tmp_path / "out", "--force") == 0
    assert (len(loaded), made(tmp_path / "out")[1]) == (1, "A/ct.nii.gz")


def test_a_pattern_names_the_results_and_names_that_meet_get_a_number(
    monkeypatch: pytest.MonkeyPatch, tree: Path, tmp_path: Path
) -> None:
    words = ["interpolate", tree / "A", tree / "B", "-o", tmp_path / "out", "--name", "{name}_thin.mha", *QUICK]
    assert run(monkeypatch, *words, "--preview", "{path}.png") == 0
    assert made(tmp_path / "out") == [
        "A/ct.png", "B/ct-2.png", "ct_thin-2.json", "ct_thin-2.mha", "ct_thin.json", "ct_thin.mha",
    ]  # fmt: skip
    words = ["interpolate", tree / "A", tree / "B", "-o", tmp_path / "pictures", "--preview", "{name}.png", *QUICK]
    assert run(monkeypatch, *words) == 0
    assert {"ct.png", "ct-2.png", "A/ct.nii.gz", "B/ct-2.nii.gz"} < set(made(tmp_path / "pictures"))


def test_a_map_of_each_scan_comes_along_in_its_own_type_and_is_no_scan(
    monkeypatch: pytest.MonkeyPatch, tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("A", "B"):
        scan = read_scan(tree / name / "ct.nii.gz").volume
        air = np.where(scan.hu < -500, 300, 0).astype(np.float32)
        write_volume(scan.with_hu(air), tree / name / "ct_seg.nii.gz", np.uint16)
    out = tmp_path / "out"
    words = ["interpolate", tree, "--all", "-o", out, *QUICK, "--label", "{path}_seg.nii.gz", "{path}_air.nii"]
    assert run(monkeypatch, *words) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "2 done, 1 skipped, 1 failed"
    image, thin = nib.load(out / "A" / "ct_air.nii"), nib.load(out / "A" / "ct.nii.gz")
    assert (image.get_data_dtype(), image.shape) == (np.uint16, thin.shape)
    np.testing.assert_array_equal(image.affine, thin.affine)
    assert set(np.unique(image.dataobj)) == {0, 300}
    (tree / "B" / "ct_seg.nii.gz").unlink()
    (out / "B" / "ct_air.nii").unlink()
    assert run(monkeypatch, *words) == 1
    assert "expected a label map on the grid of the scan" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--name", "thin.nii.gz"],
            "is to name a file of each scan below --output: give it with one or more of {date}",
        ),
        (["--name", "{patient}.nii.gz"], "is to name a file of each scan"),
        (["--name", "../{path}"], "is to name a file of each scan"),
        (["--name", "{path"], "is no pattern"),
        (["--all", "--preview", "look.png"], "--preview look.png is to name a file of each scan"),
        (["--all", "--series", "4"], "--series chooses one scan"),
        (["--name", "{path}.jpg"], "has no known ending"),
    ],
)
def test_a_pattern_that_would_lose_results_is_refused(
    words: list[str], message: str, monkeypatch: pytest.MonkeyPatch, tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tree.parent / "out"
    assert run(monkeypatch, "interpolate", tree, "-o", out, *words, "--method", "cubic_projected") in (1, 2)
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_results_never_lie_among_the_inputs(
    monkeypatch: pytest.MonkeyPatch, tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for out in (tree / "out", tree, tree.parent):
        assert run(monkeypatch, "interpolate", tree, "--all", "-o", out, *QUICK) == 1
        assert "is or touches the input" in capsys.readouterr().err
