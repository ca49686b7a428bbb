"""What makes the released latent diffusion again: the linear start, and the whole in little."""

import copy
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from torch import Tensor
from torch.testing import assert_close

from benchmarks import latent_release
from benchmarks.latent_start import LinearPath, as_autoencoder, begin, folded, mix
from ctinterp_dagster.interpolation.interpolator import load_checkpoint
from ctinterp_dagster.model.autoencoder.unit_range import volume_to_unit
from ctinterp_dagster.physics.operator import ThickeningOperator
from ctinterp_dagster.scan.io import write_volume
from ctinterp_dagster.scan.volume import Volume
from tests.phantoms import phantom

INNER = (..., *[slice(8, -8)] * 3)


def scan(patient: int) -> Volume:
    return phantom(patient, shape_zyx=(72, 72, 72), spacing_mm=(1.0, 1.0, 1.0), noise_hu=10.0)


def crops() -> Tensor:
    """(2, 1, 32, 32, 32) in unit range."""
    unit = volume_to_unit(torch.from_numpy(scan(0).hu))[..., 20:52, 20:52, 4:68]
    return torch.cat(unit.split(32, dim=-1))


@pytest.fixture(scope="module")
def path() -> LinearPath:
    torch.manual_seed(0)
    begun = LinearPath()
    begin(begun, crops())
    return begun.requires_grad_(requires_grad=False)


def test_mixed_channels_decode_as_before_and_tell_the_energy_of_a_difference(path: LinearPath) -> None:
    path, volumes = copy.deepcopy(path), crops()
    before = path.decode(path.encode(volumes))
    energy = mix(path, volumes, torch.Generator().manual_seed(0))
    assert_close(path.decode(path.encode(volumes))[INNER], before[INNER], atol=1e-4, rtol=0.0)
    assert energy == pytest.approx(1.0, abs=0.1)
    assert_close(path.encode(volumes).mean((0, 2, 3, 4)), torch.zeros(8), atol=1e-4, rtol=0.0)


def test_the_autoencoder_begins_as_the_linear_path(path: LinearPath) -> None:
    autoencoder, volumes = as_autoencoder(path).eval(), crops()
    with torch.inference_mode():
        latent = autoencoder.encode(volumes).mean
        expected = path.encode(volumes)
        assert_close(latent, expected, atol=2e-3 * float(expected.abs().max()), rtol=0.0)
        assert_close(autoencoder.decode(latent), path.decode(latent), atol=2e-3, rtol=0.0)  # 4 HU


def test_the_folded_encoder_is_the_encoder_away_from_the_ends() -> None:
    torch.manual_seed(0)
    path, volume = LinearPath().requires_grad_(requires_grad=False), crops()[:1]
    inner = (..., *[slice(2, -2)] * 3)
    assert_close(folded(path)(volume)[inner], path.encode(volume)[inner], atol=1e-4, rtol=0.0)


@pytest.mark.slow
def test_a_file_that_is_made_in_a_few_steps_restores_a_scan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("START_CROPS", "MIXING_CROPS", "SCALE_DRAWS", "TARGET_DRAWS"):
        monkeypatch.setattr(latent_release, name, 1)
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)  # other tests in this process have theirs
    scans = [tmp_path / f"{patient}.nii.gz" for patient in (0, 1)]
    for patient, file in enumerate(scans):
        write_volume(scan(patient), file)
    out = tmp_path / "latent.safetensors"
    short = ["--linear-s", "0.2", "--decoder-s", "0.2", "0.2", "--denoiser-s", "0.2"]
    given = [str(out), *[word for file in scans for word in ("--train", str(file))], *short]
    done = CliRunner().invoke(latent_release.main, given, catch_exceptions=False)
    assert done.exit_code == 0
    thin = scan(2)
    operator = ThickeningOperator.from_factor(40, 5, "box")
    thick = operator.forward(torch.from_numpy(thin.hu[:40, :48, :48]))
    restored = load_checkpoint(out, "cpu").generate(thick, target_depth=40, profile="box", num_inference_steps=1)
    assert_close(operator.forward(restored), thick, atol=0.1, rtol=0.0)
