"""What `ctinterp interpolate` writes, records and says of one scan."""

import io
import json
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from ctinterp_dagster.evaluation.preview import before_after
from ctinterp_dagster.interpolation import thicken
from ctinterp_dagster.scan.io import read_scan

from .conftest import run


@dataclass(frozen=True)
class Run:
    """What `ctinterp interpolate` was given, wrote and said."""

    thick: Path
    thin: Path
    std: Path
    preview: Path
    record: dict[str, Any]
    out: list[str]
    err: list[str]


@pytest.fixture(scope="module")
def restored(scans: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder, thick = tmp_path_factory.mktemp("restored"), scans / "thick.nii.gz"
    thin, std, record, preview = (folder / name for name in ("thin.nii.gz", "std.nii.gz", "r.json", "look.png"))
    options = ["--model", model, "--spacing", 1, "--std", std, "--json", record, "--steps", 2, "--samples", 2]
    options += ["--profile", "box", "--preview", preview, "--force"]
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        assert run(patch, "interpolate", thick, "-o", thin, *options) == 0
    said = out.getvalue().splitlines(), err.getvalue().splitlines()
    return Run(thick, thin, std, preview, json.loads(record.read_text()), *said)


def test_interpolate_writes_a_thin_volume_in_its_place(restored: Run, scans: Path) -> None:
    made, truth = nib.load(restored.thin), nib.load(scans / "thin.nii.gz")
    assert made.shape == truth.shape
    np.testing.assert_allclose(made.affine, truth.affine, atol=1e-3)
    assert (int(made.header["sform_code"]), int(made.header["qform_code"])) == (1, 1)


def test_what_interpolate_writes_is_the_measured_scan_when_it_is_thickened_again(restored: Run) -> None:
    thick = read_scan(restored.thick).volume
    np.testing.assert_allclose(thicken(read_scan(restored.thin).volume, 5, "box").hu, thick.hu, atol=0.5)
    assert restored.record["residual_hu"] < 0.5
    assert read_scan(restored.std).volume.hu.min() >= 0
    assert restored.preview.read_bytes() == before_after(thick, read_scan(restored.thin).volume)


def test_every_line_on_stderr_is_a_warning_that_the_record_has_too(restored: Run) -> None:
    assert [f"warning: {sentence}" for sentence in restored.record["warnings"]] == restored.err
    assert any("was not measured: 2.85 mm a pixel (measured: 0.45 to 1)" in line for line in restored.err)


def test_the_record_of_interpolate_says_what_was_made_of_what_and_how(restored: Run, model: Path) -> None:
    row = restored.record
    assert (row["input"], row["output"], row["std"]) == tuple(map(str, (restored.thick, restored.thin, restored.std)))
    assert row["model_sha256"] == sha256(model.read_bytes()).hexdigest()
    assert (row["sampler"], row["steps"], row["samples"], row["date"][-6:]) == ("adams", 2, 2, "+00:00")


def test_the_last_line_of_interpolate_is_the_command_that_shows_the_result(restored: Run) -> None:
    assert restored.out[-1] == f"look at it: ctinterp view {restored.thick} {restored.thin} {restored.std}"


WEIGHTS = "offset_mm,weight\n-4,0\n0,2\n4,0\n"


OF_FILE = {
    "profile_file": "weights.csv", "profile_file_sha256": sha256(WEIGHTS.encode()).hexdigest(),
    "profile_offsets_mm": [-4, 0, 4], "profile_weights": [0, 2, 0],
}  # fmt: skip


def by_profile(monkeypatch: pytest.MonkeyPatch, thick: Path, *profile: object) -> dict[str, Any]:
    """The record of `interpolate` by a classical method; `thin.nii` and `weights.csv` lie in this folder."""
    Path("weights.csv").write_text(WEIGHTS)
    words = ["interpolate", thick, "--method", "cubic_projected", "--json", "r.json", "--force", "-o", "thin.nii"]
    assert run(monkeypatch, *words, *profile) == 0
    row: dict[str, Any] = json.loads(Path("r.json").read_text())
    return row


@pytest.mark.parametrize(
    ("profile", "expected"),
    [
        ([], ("gaussian", 4.5, "guessed")),
        (["--profile", "weights.csv"], ("sampled", 4.0, "told")),
        (["--profile", "triangle", "--thickness", 4.0], ("triangle", 4.0, "told")),
        (["--profile", "trapezoid:0.5"], ("trapezoid:0.5", 5.0, "told")),
    ],
)
def test_the_profile_that_was_used_is_shown_and_recorded(
    monkeypatch: pytest.MonkeyPatch,
    scans: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    profile: list[str],
    expected: tuple[str, float, str],
) -> None:
    monkeypatch.chdir(tmp_path)
    row = by_profile(monkeypatch, scans / "thick.nii.gz", *profile)
    shape, width_mm, confidence = expected
    assert (row["profile"], round(row["profile_fwhm_mm"], 2), row["profile_confidence"]) == expected
    assert (row["input_thickness_tagged_mm"], row["input_thickness_used_mm"]) == (None, row["profile_fwhm_mm"])
    of_file = OF_FILE if shape == "sampled" else dict.fromkeys(OF_FILE)
    assert {name: row.get(name) for name in OF_FILE} == of_file
    shown = capsys.readouterr()
    assert f"slice profile: {shape}, {width_mm:g} mm wide, {confidence} (" in shown.out
    assert ("warning: the slice profile is not known" in shown.err) == (confidence == "guessed")


def test_weights_of_a_file_restore_as_the_shape_that_they_sample(
    monkeypatch: pytest.MonkeyPatch, scans: Path, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    made = []
    for profile in (("weights.csv",), ("triangle", "--thickness", 4.0), ("trapezoid:0.5",)):
        by_profile(monkeypatch, scans / "thick.nii.gz", "--profile", *profile)
        made.append(read_scan(Path("thin.nii")).volume.hu)
    np.testing.assert_allclose(made[0], made[1], atol=0.01)
    assert np.abs(made[0] - made[2]).max() > 1
