from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ctinterp_dagster.errors import CheckpointError, CtinterpError, GeometryError, MissingInputError, ParamsError
from ctinterp_dagster.interpolation import Interpolator, Measurement, Settings, load_checkpoint, operator_for, thicken
from ctinterp_dagster.interpolation.interpolator import RELEASED
from ctinterp_dagster.interpolation.restorers import RESTORERS
from ctinterp_dagster.latent.conditioning import conditions_of
from ctinterp_dagster.latent.diffusion import LatentDiffusion
from ctinterp_dagster.model.device import pick_device, why_no_gpu
from ctinterp_dagster.model.files import save_model
from ctinterp_dagster.model.sampler import Diffusion
from ctinterp_dagster.nullspace.diffusion import NullSpaceDiffusion
from ctinterp_dagster.nullspace.restorer import NullSpaceRestorer
from ctinterp_dagster.physics.interpolators import cubic_projected
from ctinterp_dagster.physics.operator import ThickeningOperator
from ctinterp_dagster.physics.recognition import recognise
from ctinterp_dagster.scan.volume import Volume
from tests.phantoms import phantom

QUICK = Settings(steps=2, samples=2, memory_gib=1.0)


@pytest.fixture(scope="module")
def thin() -> Volume:
    return phantom(7, shape_zyx=(40, 32, 36), spacing_mm=(1.0, 10.0, 9.0), noise_hu=10.0)


@pytest.fixture(scope="module")
def thick(thin: Volume) -> Volume:
    return thicken(thin, 5, "box")


def test_thick_slices_are_means_centred_on_their_groups(thin: Volume, thick: Volume) -> None:
    assert thick.hu.shape == (8, 32, 36)
    np.testing.assert_allclose(thick.hu[3], thin.hu[15:20].mean(0), atol=0.01)
    np.testing.assert_allclose(thick.point_mm((3, 0, 0)), thin.point_mm((17, 0, 0)), atol=1e-9)


@pytest.mark.parametrize("profile", ["box", "gaussian"])
def test_the_estimate_thickened_again_is_the_measurement(thin: Volume, any_model: Diffusion, profile: str) -> None:
    thick = thicken(thin, 5, profile)  # type: ignore[arg-type]
    operator = ThickeningOperator.from_factor(40, 5, profile)  # type: ignore[arg-type]
    result = Interpolator(any_model, "cpu").restore(Measurement(thick, operator), QUICK)
    np.testing.assert_allclose(thicken(result.mean, 5, profile).hu, thick.hu, atol=0.1)  # type: ignore[arg-type]
    assert result.residual_hu < 0.05


def test_the_estimate_lies_where_the_thin_scan_lay(thin: Volume, thick: Volume, any_model: Diffusion) -> None:
    result = Interpolator(any_model, "cpu").restore(Measurement(thick, operator_for(8, 5.0, 5.0, 1.0, "box")), QUICK)
    assert result.mean.spacing_mm == pytest.approx(thin.spacing_mm)
    np.testing.assert_allclose(result.mean.point_mm((39, 31, 35)), thin.point_mm((39, 31, 35)), atol=1e-6)


def test_any_spacing_covers_the_extent_of_the_thick_scan(thick: Volume, any_model: Diffusion) -> None:
    result = Interpolator(any_model, "cpu").restore(Measurement(thick, operator_for(8, 5.0, 5.0, 1.6, "box")), QUICK)
    assert result.mean.hu.shape == (25, 32, 36)
    first = result.mean.point_mm((-0.5, 0, 0))
    np.testing.assert_allclose(first, thick.point_mm((-0.5, 0, 0)), atol=1e-6)
    assert result.residual_hu < 0.05


@pytest.mark.parametrize(("target_mm", "thin_mm"), [(2.0, None), (1.6, 2.4)])
def test_every_model_gives_thin_slices_of_any_grid_that_touch_or_overlap(
    target_mm: float, thin_mm: float | None, thick: Volume, any_model: Diffusion
) -> None:
    operator = operator_for(8, 5.0, 5.0, target_mm, "box", thin_mm)
    drawn: list[torch.Tensor] = []
    result = Interpolator(any_model, "cpu").restore(
        Measurement(thick, operator), QUICK, on_sample=lambda _, sample: drawn.append(sample)
    )
    assert result.std is not None
    assert result.std.hu.shape == result.mean.hu.shape == (operator.n_thin, 32, 36)
    for volume in (torch.from_numpy(result.mean.hu), *drawn):
        torch.testing.assert_close(operator.forward(volume), torch.from_numpy(thick.hu), rtol=0, atol=0.1)


def test_a_silent_denoiser_leaves_the_projected_cubic(thick: Volume, tiny_model: LatentDiffusion) -> None:
    silent = LatentDiffusion(tiny_model.config)
    silent.load_state_dict(tiny_model.state_dict())
    torch.nn.init.zeros_(silent.denoiser.conv_out.weight)
    operator = ThickeningOperator.from_factor(40, 5, "box")
    mean = torch.from_numpy(Interpolator(silent, "cpu").restore(Measurement(thick, operator)).mean.hu)
    expected = cubic_projected(torch.from_numpy(thick.hu), operator)
    torch.testing.assert_close(mean, expected, atol=0.05, rtol=0)


def test_one_seed_gives_the_same_bytes_and_another_gives_others(thick: Volume, any_model: Diffusion) -> None:
    interpolator = Interpolator(any_model, "cpu")
    operator = ThickeningOperator.from_factor(40, 5, "box")
    first, again, other = (
        interpolator.restore(Measurement(thick, operator), replace(QUICK, seed=seed)) for seed in (1, 1, 5)
    )
    assert first.std is not None
    assert again.std is not None
    assert other.std is not None
    assert first.mean.hu.tobytes() == again.mean.hu.tobytes()
    assert first.std.hu.tobytes() == again.std.hu.tobytes()
    assert not np.array_equal(first.std.hu, other.std.hu)


def test_each_sample_explains_the_scan_and_tells_of_the_deviation(thick: Volume, any_model: Diffusion) -> None:
    drawn: list[torch.Tensor] = []
    operator = ThickeningOperator.from_factor(40, 5, "gaussian")
    result = Interpolator(any_model, "cpu").restore(
        Measurement(thick, operator), QUICK, on_sample=lambda _, sample: drawn.append(sample)
    )
    assert len(drawn) == 2
    for sample in drawn:
        torch.testing.assert_close(operator.forward(sample), torch.from_numpy(thick.hu), atol=0.05, rtol=0)
    squares = sum((sample - torch.from_numpy(result.mean.hu)).square() for sample in drawn)
    assert result.std is not None
    prior, worth = torch.zeros(()), 0
    if isinstance(any_model, NullSpaceDiffusion):
        restorer = NullSpaceRestorer(any_model, Measurement(thick, operator), QUICK)
        prior, worth = restorer.prior()
        assert float(prior.min()) > 0
    variance = (squares + worth * prior) / (2 + worth)
    torch.testing.assert_close(torch.from_numpy(result.std.hu), variance.sqrt(), atol=0.01, rtol=1e-4)


def test_noise_that_samples_lack_is_added_to_them_and_to_the_deviation(
    thick: Volume, tiny_nullspace: NullSpaceDiffusion, monkeypatch: pytest.MonkeyPatch
) -> None:
    measurement = Measurement(thick, ThickeningOperator.from_factor(40, 5, "box"))
    found: list[tuple[float, torch.Tensor, np.ndarray, np.ndarray]] = []
    for missing_hu2 in (0.0, 900.0):
        monkeypatch.setattr("ctinterp_dagster.nullspace.restorer.missing_variance", lambda *_, hu2=missing_hu2: hu2)
        restorer = NullSpaceRestorer(tiny_nullspace, measurement, QUICK)
        sample = next(restorer.draws())
        torch.testing.assert_close(measurement.operator.forward(sample), measurement.thick_hu, atol=1e-3, rtol=0)
        estimate = Interpolator(tiny_nullspace, "cpu").restore(measurement, QUICK)
        assert estimate.added_noise_hu == pytest.approx(missing_hu2**0.5)
        assert estimate.std is not None
        far = float((sample - restorer.mean()).abs().mean())
        found.append((far, restorer.prior()[0], estimate.mean.hu, estimate.std.hu))
    (near, prior, mean, narrow), (far, wider, same, wide) = found
    assert float((wider - prior).mean()) == pytest.approx(900.0, rel=1e-3)
    assert far > near
    assert wide.mean() > narrow.mean()
    np.testing.assert_array_equal(mean, same)


def test_bf16_changes_little_and_nothing_of_what_explains_the_scan(thick: Volume, any_model: Diffusion) -> None:
    interpolator, operator = Interpolator(any_model, "cpu"), ThickeningOperator.from_factor(40, 5, "box")
    exact, quick = (
        interpolator.restore(Measurement(thick, operator), replace(QUICK, mixed_precision=it)) for it in ("no", "bf16")
    )
    assert exact.std is not None
    assert quick.std is not None
    base = cubic_projected(torch.from_numpy(thick.hu), operator).numpy()
    detail, error = exact.mean.hu - base, quick.mean.hu - exact.mean.hu
    assert 0 < np.linalg.norm(error) < 0.15 * np.linalg.norm(detail)  # a difference of two decodings, in a latent
    assert 0 < np.linalg.norm(quick.std.hu - exact.std.hu) < 0.15 * np.linalg.norm(exact.std.hu)
    assert quick.residual_hu < 0.05


def test_without_samples_there_is_a_mean_and_no_deviation(thick: Volume, any_model: Diffusion) -> None:
    operator = ThickeningOperator.from_factor(40, 5, "box")
    assert Interpolator(any_model, "cpu").restore(Measurement(thick, operator), Settings()).std is None


def test_memory_changes_nothing(thick: Volume, any_model: Diffusion) -> None:
    interpolator = Interpolator(any_model, "cpu")
    operator = ThickeningOperator.from_factor(40, 5, "box")
    whole, tiled = (
        interpolator.restore(Measurement(thick, operator), replace(QUICK, memory_gib=gib)) for gib in (4.0, 0.01)
    )
    np.testing.assert_allclose(whole.mean.hu, tiled.mean.hu, atol=0.05)


THICK_HU = 100 * torch.randn(50, 8, 8, generator=torch.Generator().manual_seed(0))


def assert_the_guides_call_gives_five_thin_slices_a_thick_one(checkpoint: Path | str) -> None:
    interpolator = load_checkpoint(checkpoint, "cpu")
    with pytest.warns(UserWarning, match="the slice profile is not known.*; give profile$"):
        thin_hu = interpolator.generate(THICK_HU, sampler="ddim", num_inference_steps=50, target_depth=250)
    assert thin_hu.shape == (250, 8, 8)
    found = recognise(THICK_HU.numpy(), 1.0, thin_mm=0.2)
    again = operator_for(50, 1.0, found.thickness_mm, 0.2, found.profile).forward(thin_hu)
    torch.testing.assert_close(again, THICK_HU, atol=0.01, rtol=0)


def test_the_guides_call_with_a_checkpoint_of_either_kind(tmp_path: Path, any_model: Diffusion) -> None:
    any_model.save(tmp_path / "model.safetensors")
    assert_the_guides_call_gives_five_thin_slices_a_thick_one(tmp_path / "model.safetensors")


@pytest.mark.slow
@pytest.mark.parametrize("model", [RELEASED, "latent"])
def test_the_guides_call_with_a_released_model(model: Path | str) -> None:
    assert_the_guides_call_gives_five_thin_slices_a_thick_one(model)


def test_generate_takes_any_depth_and_an_array_and_each_seed_is_another_sample(any_model: Diffusion) -> None:
    interpolator = Interpolator(any_model, "cpu")
    tensor, array, other = (
        interpolator.generate(hu, num_inference_steps=2, target_depth=25, profile="box", seed=seed)
        for hu, seed in ((THICK_HU[:10], 0), (THICK_HU[:10].numpy(), 0), (THICK_HU[:10], 1))
    )
    assert tensor.shape == (25, 8, 8)
    assert torch.equal(tensor, array)
    assert float((tensor - other).abs().max()) > 0.1


def test_one_step_of_a_model_without_a_network_for_it_gives_the_mean(tiny_nullspace: NullSpaceDiffusion) -> None:
    interpolator = Interpolator(tiny_nullspace, "cpu")
    first, second, sample = (
        interpolator.generate(THICK_HU[:10], num_inference_steps=steps, target_depth=25, profile="box", seed=seed)
        for steps, seed in ((1, 0), (1, 1), (None, 0))
    )
    assert torch.equal(first, second)
    assert float((sample - first).std()) > 0.1


def test_the_released_model_draws_a_sample_in_one_step_unless_more_are_asked_for() -> None:
    interpolator = load_checkpoint(device="cpu")
    usual, one, eight = (
        interpolator.generate(THICK_HU[:10], num_inference_steps=steps, target_depth=25, profile="box")
        for steps in (None, 1, 8)
    )
    assert torch.equal(usual, one)
    far, apart = (float((hu - one).std()) for hu in (eight, interpolator.generate(
        THICK_HU[:10], target_depth=25, profile="box", seed=1)))  # fmt: skip
    assert far < 0.5 * apart  # of the same noise nearly the same sample


def test_samples_in_one_step_need_a_network_for_it(thick: Volume, any_model: Diffusion) -> None:
    measurement = Measurement(thick, ThickeningOperator.from_factor(40, 5, "box"))
    with pytest.raises(ParamsError, match=r"steps is 1, and this model has no network .*: give 8, or at least 2"):
        Interpolator(any_model, "cpu").restore(measurement, Settings(steps=1, samples=2))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"target_depth": 50}, ParamsError, "target_depth=50: expected more than the 50 thick slices"),
        ({"sampler": "euler"}, ParamsError, "sampler euler: expected one of adams, ddim, ddpm"),
        ({"thick_hu": THICK_HU[None, None]}, GeometryError, r"3 axes \(z, y, x\), got shape \(1, 1, 50, 8, 8\)"),
    ],
)
def test_generate_refuses_what_it_cannot_do(
    tiny_nullspace: NullSpaceDiffusion, changes: dict[str, Any], error: type[CtinterpError], message: str
) -> None:
    call = {"thick_hu": THICK_HU, "num_inference_steps": 2, "target_depth": 250, "profile": "box"} | changes
    with pytest.raises(error, match=message):
        Interpolator(tiny_nullspace, "cpu").generate(**call)


def test_a_resized_thick_latent_is_aligned_with_the_thin_one() -> None:
    def encode(unit: torch.Tensor) -> torch.Tensor:  # a latent that says where along z it lies
        return torch.nn.functional.avg_pool3d(unit, 4)

    ramp = torch.linspace(-400, 400, 80)[:, None, None].expand(80, 8, 8).contiguous()
    operator = ThickeningOperator.from_factor(80, 5, "box")
    conditions = conditions_of(operator.forward(ramp), operator, encode, "interpolated_latent")
    inner = slice(4, 16)
    torch.testing.assert_close(conditions.condition[:, :, inner], conditions.base[:, :, inner], atol=2e-3, rtol=0)


def test_a_target_that_is_not_finer_is_refused() -> None:
    with pytest.raises(ParamsError, match=r"must be finer than the scan's 5 mm, got 5 mm"):
        operator_for(8, 5.0, 5.0, 5.0, "box")


def test_a_model_file_round_trips(tmp_path: Path, any_model: Diffusion) -> None:
    any_model.save(tmp_path / "m.safetensors")
    loaded = load_checkpoint(str(tmp_path / "m.safetensors"), "cpu").model
    assert loaded.config == any_model.config
    assert all(
        torch.equal(a, b) for a, b in zip(loaded.state_dict().values(), any_model.state_dict().values(), strict=True)
    )
    again = tmp_path / "again.safetensors"
    loaded.save(again)
    assert again.read_bytes() == (tmp_path / "m.safetensors").read_bytes()


def test_what_is_no_model_is_refused(tmp_path: Path, any_model: Diffusion) -> None:
    any_model.save(tmp_path / "m.safetensors")
    whole = (tmp_path / "m.safetensors").read_bytes()
    (tmp_path / "half.safetensors").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "pickle.safetensors").write_bytes(b"\x80\x04cos\nsystem\n.")
    with pytest.raises(MissingInputError, match=r"none\.safetensors is missing"):
        load_checkpoint(tmp_path / "none.safetensors")
    for name in ("half", "pickle"):
        with pytest.raises(CheckpointError, match="is not a whole safetensors file"):
            load_checkpoint(tmp_path / f"{name}.safetensors")


@pytest.mark.parametrize("width", [1 << 16, 1 << 61])
def test_widths_that_a_models_tensors_do_not_have_are_refused_before_it_is_built(
    tmp_path: Path, tiny_model: LatentDiffusion, width: int
) -> None:
    claimed = replace(tiny_model.config, denoiser_channels=(width,) * 3)
    save_model(torch.nn.Linear(1, 1), tiny_model.kind, claimed, tmp_path / "m.safetensors")
    with pytest.raises(CheckpointError, match=r"does not fit its own configuration|of no possible network"):
        load_checkpoint(tmp_path / "m.safetensors")


def test_a_gpu_that_is_not_there_is_an_error_that_says_so() -> None:
    if torch.cuda.is_available():
        assert pick_device("cuda").type == "cuda"
        return
    with pytest.raises(ParamsError, match=r"device cuda is not there: .*; .*, or use device cpu"):
        pick_device("cuda")


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ("Found no NVIDIA driver on your system. Please check", "no NVIDIA driver; install it"),
        ("The NVIDIA driver on your system is too old (found version 11040)", "too old for CUDA 13.0; update it"),
        ("No CUDA GPUs are available", "No CUDA GPUs are available; look at nvidia-smi"),
    ],
)
def test_why_there_is_no_gpu(told: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise RuntimeError(told)

    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "init", fail)
    assert said in why_no_gpu()
    monkeypatch.setattr(torch.version, "cuda", None)
    assert "was built without CUDA; install its build for CUDA" in why_no_gpu()


def test_a_gpu_with_too_little_memory_is_an_error_that_names_memory_gib(
    thick: Volume, any_model: Diffusion, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB. GPU 0 has 8 GiB. Of that\nmore")

    monkeypatch.setitem(RESTORERS, any_model.kind, full)
    operator = operator_for(thick.depth, thick.spacing_mm[0], thick.spacing_mm[0], 1.0, "box")
    with pytest.raises(ParamsError, match=r"lower memory_gib, which is 3, .*\(Tried to allocate 9 GiB. GPU 0 has 8"):
        Interpolator(any_model, "cpu").restore(Measurement(thick, operator))


@pytest.mark.parametrize("samples", [0, 2])
def test_the_part_that_is_done_grows_to_the_whole(
    thick: Volume, tiny_nullspace: NullSpaceDiffusion, samples: int
) -> None:
    told: list[float] = []
    measurement = Measurement(thick, operator_for(8, 5.0, 5.0, 1.0, "box"))
    Interpolator(tiny_nullspace, "cpu").restore(measurement, replace(QUICK, samples=samples), on_part=told.append)
    assert told == sorted(told)
    assert told[-1] == pytest.approx(1.0)
    assert len(told) >= 2 + samples * QUICK.steps


def test_of_a_latent_diffusion_each_sample_is_a_part_that_is_done(thick: Volume, tiny_model: LatentDiffusion) -> None:
    told: list[float] = []
    measurement = Measurement(thick, operator_for(8, 5.0, 5.0, 1.0, "box"))
    Interpolator(tiny_model, "cpu").restore(measurement, QUICK, on_part=told.append)
    assert told == [0.5, 1.0]


def test_a_folder_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="is a folder and no model file"):
        load_checkpoint(str(tmp_path))
