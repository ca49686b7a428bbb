"""What every way in shares: one check, the thickness that is used, padding, and a look at the result."""

from pathlib import Path

import numpy as np
import pytest

from ctinterp_dagster import interpolate
from ctinterp_dagster.cli.main import main
from ctinterp_dagster.errors import CtinterpError, DoubtfulResultError, ParamsError, WrongUnitsError
from ctinterp_dagster.interpolation import Interpolator, SelfCheck, Settings, load_checkpoint, measure, thicken
from ctinterp_dagster.nullspace import basis
from ctinterp_dagster.nullspace.basis import NullSpace
from ctinterp_dagster.physics import operator
from ctinterp_dagster.physics.acquisition import Acquisition, Tags
from ctinterp_dagster.physics.operator import ThickeningOperator
from ctinterp_dagster.scan.io import read_scan, write_volume
from ctinterp_dagster.scan.volume import Volume
from tests.phantoms import phantom

BOX = Acquisition("box")


@pytest.fixture(scope="module")
def model() -> Interpolator:
    return load_checkpoint(device="cpu")


@pytest.fixture(scope="module")
def thin() -> Volume:
    return phantom(3, shape_zyx=(60, 40, 40), spacing_mm=(1.0, 3.0, 3.0), noise_hu=15.0)


def interpolated(model: Interpolator, thick: Volume, acquisition: Acquisition = BOX) -> None:
    measurement = measure(thick, 1.0, acquisition)
    model.restore(measurement, Settings(mirror=False), on_mean=SelfCheck(measurement, force=False).check)


def sampled_cosines(thin_grid: ThickeningOperator, _factor: int, modes: int) -> np.ndarray:
    """Cosines at the centres of thin slices: what stood here when grids of other than whole factors had stripes."""
    positions, n_thick = thin_grid.thin_positions, thin_grid.n_thick
    cell = np.clip(np.floor(positions + 0.5), 0, n_thick - 1).astype(int)
    waves = np.zeros((len(positions), modes, n_thick))
    for m in range(1, modes + 1):
        if m < 1 / thin_grid.thin_distance - 1e-6:
            waves[np.arange(len(positions)), m - 1, cell] = np.sqrt(2) * np.cos(np.pi * m * (positions - cell + 0.5))
    return waves.reshape(len(positions), -1)


@pytest.mark.parametrize("factor", [2.5, 3.5, 6.25])
def test_stripes_of_a_grid_that_the_networks_do_not_know_are_seen(
    factor: float, thin: Volume, model: Interpolator, monkeypatch: pytest.MonkeyPatch
) -> None:
    thick = thicken(thin, factor, "box")
    interpolated(model, thick)
    monkeypatch.setattr(basis, "_cosines", sampled_cosines)
    monkeypatch.setattr(NullSpace, "factor", property(lambda self: 1 / self.operator.thin_distance))
    monkeypatch.setattr(NullSpace, "cells", property(lambda self: self.operator))
    with pytest.raises(DoubtfulResultError, match=r"try --method cubic_projected, .* or write it with --force"):
        interpolated(model, thick)


def test_a_thickness_that_the_stack_does_not_have_is_told_and_not_believed_or_seen_in_the_result(
    model: Interpolator,
) -> None:
    thin = phantom(3, shape_zyx=(60, 48, 48), spacing_mm=(1.0, 3.0, 3.0), noise_hu=15.0)  # enough noise to tell by
    thick = thicken(thin, 2, "box")
    believed = measure(thick, 1.0, Acquisition("box", tags=Tags(5.0)))
    assert believed.thickness_mm == 2.0
    assert "SliceThickness says 5 mm but the slices, every 2 mm, overlap less" in " ".join(believed.warnings)
    assert measure(thick, 1.0, Acquisition("box", 3.0, Tags(5.0))).thickness_mm == 3.0
    interpolated(model, thick, Acquisition("box", tags=Tags(5.0)))
    with pytest.raises(DoubtfulResultError, match="lie outside of what the thick slices allow"):
        interpolated(model, thick, Acquisition("box", 5.0))


def test_thin_slices_far_apart_need_no_profile_that_is_told(thin: Volume) -> None:
    sparse = Volume(thin.hu[::6], (10.0, 3.0, 3.0), thin.origin_mm, thin.direction)
    found = measure(sparse, 1.0, Acquisition(tags=Tags(1.0)))
    assert (found.operator.profile, found.thickness_mm) == ("box", 1.0)


def test_thin_slices_that_do_not_give_back_the_thick_ones_are_seen(thin: Volume, model: Interpolator) -> None:
    with pytest.raises(DoubtfulResultError, match="slices 50 mm thick made of it miss those measured by"):
        interpolated(model, thicken(thin, 2, "box"), Acquisition("box", 50.0))


def test_thin_slices_closer_than_those_of_any_scanner_are_refused_before_memory_is_spent(thin: Volume) -> None:
    with pytest.raises(ParamsError, match=r"a\.nii: the thin slices would be 1e-09 mm apart: expected at least 0.1 mm"):
        measure(thicken(thin, 2, "box"), 1e-9, name="a.nii")


def test_what_an_exact_inverse_makes_of_heavy_overlap_is_seen(
    thin: Volume, model: Interpolator, monkeypatch: pytest.MonkeyPatch
) -> None:
    hu = np.stack([thin.hu[k : k + 10].mean(0) for k in range(0, 50, 2)]).round()
    thick = Volume(hu, (2.0, 3.0, 3.0), thin.origin_mm, thin.direction)
    assert "give them back only nearly" in " ".join(measure(thick, 1.0, Acquisition("box", 10.0)).warnings)
    interpolated(model, thick, Acquisition("box", 10.0))
    monkeypatch.setattr(operator, "LEAST_EIGENVALUE", 1e-9)
    with pytest.raises(DoubtfulResultError, match="lie outside"):
        interpolated(model, thick, Acquisition("box", 10.0))


def test_two_passes_taken_for_one_stack_are_seen(thin: Volume, model: Interpolator) -> None:
    hu = np.stack([np.roll(thin.hu[k : k + 4].mean(0), 2 * (k % 4), axis=0) for k in range(0, 56, 2)])
    thick = Volume(hu, (2.0, 3.0, 3.0), thin.origin_mm, thin.direction)
    with pytest.raises(DoubtfulResultError, match="lie outside"):
        interpolated(model, thick, Acquisition("box", 4.0))


def test_nothing_right_is_doubted(thin: Volume, model: Interpolator) -> None:
    for factor in (1.2, 3.13, 5):
        interpolated(model, thicken(thin, factor, "gaussian"))


def test_every_way_in_refuses_what_is_no_hu_with_the_same_words(
    thin: Volume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    thick = thicken(thin, 5, "box")
    write_volume(thick.with_hu(thick.hu + 1024), Path("shifted.nii"))
    said = []
    for words in (
        ["interpolate", "shifted.nii", "-o", "made.nii"],
        ["evaluate", "shifted.nii"],
        ["evaluate", "--pair", "shifted.nii", "shifted.nii"],
        ["scans", "check", "shifted.nii", "--json"],
    ):
        monkeypatch.setattr("sys.argv", ["ctinterp", *words])
        with pytest.raises(SystemExit) as stop:
            main()
        assert (stop.value.code or 0) == (0 if words[0] == "scans" else 1)
        told = capsys.readouterr()
        said.append((told.err + told.out).partition("expected HU")[2].split(";")[0])
    with pytest.raises(WrongUnitsError) as refused:
        interpolate(thick.hu + 1024, spacing_mm=thick.spacing_mm)
    said.append(str(refused.value).partition("expected HU")[2].split(";")[0])
    assert len(set(said)) == 1
    assert "looks like HU + 1024" in said[0]
    assert not Path("made.nii").exists()


def test_a_classical_method_is_offered_and_explains_the_scan(
    thin: Volume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    thick = thicken(thin, 2.5, "box")
    write_volume(thick, Path("thick.nii"))
    made = {}
    for method in ("cubic_projected", "tv_projected", "registration_projected"):
        words = ["ctinterp", "interpolate", "thick.nii", "-o", f"{method}.nii", "--method", method, "--profile", "box"]
        monkeypatch.setattr("sys.argv", words)
        _run()
        made[method] = read_scan(Path(f"{method}.nii")).volume
        np.testing.assert_allclose(thicken(made[method], 2.5, "box").hu, thick.hu, atol=0.6)
    assert len({volume.hu.tobytes() for volume in made.values()}) == 3


def _run() -> None:
    try:
        main()
    except SystemExit as stop:
        assert not stop.code  # noqa: PT017 - the exit of a command that worked


def test_padding_comes_back_as_it_was_and_harms_nothing(thin: Volume, model: Interpolator) -> None:
    thick = thicken(thin, 5, "box")
    y, x = np.indices(thick.hu.shape[1:]) - 23.5
    outside = np.hypot(y, x) > 21
    padded = thick.with_hu(np.where(outside, np.float32(-3024), thick.hu))
    measurement = measure(padded, 1.0, BOX)
    result = measurement.padded(model.restore(measurement, Settings(samples=2, steps=2)))
    assert (result.mean.hu[:, outside] == -3024).all()
    assert result.std is not None
    assert not result.std.hu[:, outside].any()
    assert result.mean.hu[:, ~outside].min() > -1300
    plain = measure(thick, 1.0, BOX)
    there = model.restore(plain).mean.hu
    rim = (np.hypot(y, x) > 18) & ~outside
    assert np.abs(result.mean.hu - there)[:, rim].mean() < 10


def test_a_doubtful_result_is_written_with_force_only(
    thin: Volume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_volume(thicken(thin, 2, "box"), Path("thick.nii"))
    words = ["ctinterp", "interpolate", "thick.nii", "-o", "made.nii", "--thickness", "5"]
    monkeypatch.setattr("sys.argv", words)
    with pytest.raises(SystemExit) as stop:
        main()
    assert (stop.value.code, Path("made.nii").exists()) == (1, False)
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: the result cannot be right and is not written: ")
    monkeypatch.setattr("sys.argv", [*words, "--force"])
    _run()
    assert Path("made.nii").exists()
    assert "lie outside of what the thick slices allow" in capsys.readouterr().err


def test_an_api_result_that_is_doubtful_is_an_error_or_a_warning(thin: Volume) -> None:
    thick = thicken(thin, 2, "box")
    with pytest.raises(CtinterpError, match="cannot be right"):
        interpolate(thick.hu, spacing_mm=thick.spacing_mm, thickness_mm=5.0)
