from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from ctinterp_dagster.errors import CheckpointError
from ctinterp_dagster.interpolation import RELEASED, Settings
from ctinterp_dagster.model.files import read_model, save_model
from ctinterp_dagster.model.quantized import Peaks, is_exact
from ctinterp_dagster.nullspace import basis
from ctinterp_dagster.nullspace.basis import FEATURES, MODES, NullSpace
from ctinterp_dagster.nullspace.diffusion import (
    Expectation,
    ExpectationConfig,
    NullSpaceConfig,
    NullSpaceDiffusion,
    denoiser_inputs,
    standardised,
    widened,
)
from ctinterp_dagster.nullspace.restorer import NullSpaceRestorer
from ctinterp_dagster.nullspace.unet import SliceBlock, SliceUNet
from ctinterp_dagster.physics.measurement import contiguous
from ctinterp_dagster.physics.operator import ThickeningOperator
from ctinterp_dagster.scan.volume import Volume

CONFIG = ExpectationConfig(features=6, modes=2, channels=(8, 8, 8), blocks=1, spread_channels=(8, 8, 8))
GEOMETRY = torch.tensor([[0.0, 0.1, 1.0]])


@pytest.fixture
def model() -> NullSpaceDiffusion:
    torch.manual_seed(0)
    made = NullSpaceDiffusion(NullSpaceConfig(CONFIG, (8, 8, 8), 1, "v")).eval()
    for network in (made.expectation.mean, made.expectation.spread, made.denoiser):
        torch.nn.init.normal_(network.conv_out.weight, std=0.1)
    return made


def expected_of(model: NullSpaceDiffusion, features: Tensor, geometry: Tensor = GEOMETRY) -> tuple[Tensor, Tensor]:
    """Mean and log spread."""
    mean = model.expectation.expect(features, geometry, None)
    return mean, model.expectation.spread_about(mean, features, geometry, None)


def test_an_untrained_expectation_expects_nothing_and_a_spread_of_a_unit() -> None:
    mean, log_spread = Expectation(CONFIG)(torch.randn(1, 6, 4, 12, 14), GEOMETRY)
    assert mean.shape == log_spread.shape == (1, 2, 4, 12, 14)
    assert float(mean.detach().abs().max()) == float(log_spread.detach().abs().max()) == 0


def test_no_gradient_of_the_spread_reaches_the_mean(model: NullSpaceDiffusion) -> None:
    _, log_spread = model.expectation(torch.randn(1, 6, 4, 8, 8), GEOMETRY)
    log_spread.square().sum().backward()
    assert all(p.grad is None for p in model.expectation.mean.parameters())
    assert any(p.grad is not None for p in model.expectation.spread.parameters())


def test_a_sample_depends_on_its_seed_and_on_nothing_else(model: NullSpaceDiffusion) -> None:
    features = torch.randn(1, 6, 4, 12, 12, generator=torch.Generator().manual_seed(1))
    expected = expected_of(model, features)
    first, again, other = (
        model.draw(features, GEOMETRY, expected, steps=2, seed=seed, sampler="adams", memory_gib=None)
        for seed in (3, 3, 4)
    )
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)
    assert first.shape == (1, 2, 4, 12, 12)


def test_the_mirror_image_of_a_scan_has_the_mirror_image_of_its_mean_in_tiles_too(model: NullSpaceDiffusion) -> None:
    torch.nn.init.normal_(model.expectation.mean.conv_out.weight, std=0.5)
    features = torch.randn(1, 6, 4, 12, 90, generator=torch.Generator().manual_seed(1))
    whole = model.expectation.expect(features, GEOMETRY, None)
    tiles = model.expectation.expect(features, GEOMETRY, 0.0017)  # tiles of 4 columns
    torch.testing.assert_close(tiles, whole)
    even = features[..., :88]
    mean = model.expectation.expect(even, GEOMETRY, None)
    mirrored = model.expectation.expect(even.flip(-1), GEOMETRY, None).flip(-1)
    torch.testing.assert_close(mirrored, mean)
    alone = model.expectation(even, GEOMETRY)[0]
    assert not torch.allclose(alone, mean, atol=1e-3)
    torch.testing.assert_close(model.expectation.expect(even, GEOMETRY, None, mirror=False), alone)


def test_what_is_left_is_measured_in_spreads_and_limited() -> None:
    e = standardised(torch.tensor([3.0, 100.0]), torch.tensor([1.0, 1.0]), torch.log(torch.tensor([2.0, 2.0])))
    torch.testing.assert_close(e, torch.tensor([1.0, 6.0]))


def test_a_file_gives_the_model_back(model: NullSpaceDiffusion, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    model.save(path)
    loaded = NullSpaceDiffusion.of(read_model(path))
    assert loaded.config == model.config
    assert all(
        torch.equal(a, b) for a, b in zip(loaded.state_dict().values(), model.state_dict().values(), strict=True)
    )


def test_a_file_with_a_number_that_is_not_finite_is_refused(model: NullSpaceDiffusion, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    model.denoiser.conv_out.bias.data[0] = float("nan")
    model.save(path)
    with pytest.raises(CheckpointError, match=r"1 tensors are .*not finite \(denoiser\.conv_out\.bias\)"):
        NullSpaceDiffusion.of(read_model(path))


def test_a_network_that_is_told_other_numbers_of_the_geometry_is_refused(
    model: NullSpaceDiffusion, tmp_path: Path
) -> None:
    config = replace(model.config, expectation=replace(CONFIG, geometry=7))
    save_model(model, model.kind, config, tmp_path / "model.safetensors")
    with pytest.raises(
        CheckpointError,
        match=r"7 numbers of geometry, known are 3 and 8: was it made by a newer ctinterp\?\): train it again",
    ):
        NullSpaceDiffusion.load(tmp_path / "model.safetensors")


def test_a_sample_lies_as_many_spreads_from_the_mean_as_the_denoiser_says() -> None:
    torch.manual_seed(0)
    model = NullSpaceDiffusion(NullSpaceConfig(CONFIG, (8, 8, 8), 1, "x0")).eval()
    torch.nn.init.normal_(model.expectation.spread.conv_out.weight, std=0.5)
    torch.nn.init.constant_(model.denoiser.conv_out.bias, 2.0)  # whatever its input, e = 2
    features = torch.randn(1, 6, 4, 8, 8)
    mean, log_spread = expected_of(model, features)
    assert float(log_spread.std()) > 0.1
    drawn = model.draw(features, GEOMETRY, (mean, log_spread), steps=3, seed=0, sampler="ddim", memory_gib=None)
    torch.testing.assert_close(drawn, mean + 2.0 * log_spread.exp())


@pytest.mark.parametrize(("factor", "profile"), [(5, "gaussian"), (2.5, "box")])
def test_the_released_weights_in_a_network_that_knows_more_cosines_give_the_same(factor: float, profile: str) -> None:
    file = read_model(RELEASED)
    model = NullSpaceDiffusion.of(file)
    old = model.config.expectation
    new = replace(old, features=FEATURES, modes=MODES, geometry=basis.GEOMETRY)
    grown = NullSpaceDiffusion(replace(model.config, expectation=new)).eval()
    grown.load_state_dict(widened(file.tensors, old, new))
    operator = ThickeningOperator.from_factor(30, factor, profile)
    thick = 200 * torch.randn(operator.n_thick, 16, 20, generator=torch.Generator().manual_seed(0))
    given = []
    for network in (model, grown):
        space = NullSpace(operator, network.config.expectation.modes)
        features, geometry = space.features(thick)[None], space.geometry((factor, 0.7, 0.7))[None]
        expected = expected_of(network, features, geometry)
        noisy = torch.zeros(1, network.config.expectation.modes, *features.shape[2:])
        noisy[:, :4] = torch.randn(1, 4, *features.shape[2:], generator=torch.Generator().manual_seed(1))
        output = network.denoise(noisy, denoiser_inputs(features, *expected), geometry, torch.tensor([0.5]))
        given.append((space.expand(expected[0][0]), space.expand(expected[1][0]), output[:, :4]))
    for ours, theirs in zip(*given, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)
    assert float(given[0][0].abs().max()) > 0.1


@pytest.mark.skipif(not is_exact(), reason="this processor has no products of eight bits")
def test_the_mean_in_eight_bits_is_near_that_in_floating_point_and_knows_no_chunks() -> None:
    torch.manual_seed(0)
    expectation = Expectation(replace(CONFIG, channels=(32, 32, 32))).eval()
    for name, weight in expectation.mean.named_parameters():
        if not weight.any() and "bias" not in name:
            torch.nn.init.normal_(weight, std=0.05 if "space" in name else 0.1)
    features = torch.randn(1, 6, 9, 40, 44)
    exact = expectation.expect(features, GEOMETRY, None)
    near = expectation.expect(features, GEOMETRY, None, quantized=True)
    assert not torch.equal(near, exact)
    assert (near - exact).square().mean() < 1e-3 * exact.square().mean()
    chunks = expectation.expect(features, GEOMETRY, 0.02, quantized=True)
    assert expectation.mean.reach.bytes_per_voxel * features[0, 0].numel() > 0.02 * 2**30  # so that there are chunks
    lost = (near - exact).square().mean()
    assert (chunks - near).square().mean() < 0.2 * lost  # a sum that is rounded otherwise becomes another step


@pytest.mark.skipif(not is_exact(), reason="this processor has no products of eight bits")
@torch.inference_mode()
def test_eight_bits_make_sums_neither_larger_nor_smaller_whatever_type_comes_in() -> None:
    torch.manual_seed(0)
    block, embedding = SliceBlock(32, 8), torch.zeros(1, 8)
    for layer in (block.plane, block.space):
        layer.weight.copy_(10.0 * torch.rand_like(layer.weight) / layer.weight[0].numel())
    x = torch.randn(1, 32, 4, 24, 24)
    peaks = {block.plane: 4.0, block.space: 2.0}
    exact = next(block.stream(iter([x.clone()]), embedding)) - x
    for dtype in (torch.float32, torch.bfloat16):
        (near,) = block.stream(iter([x.to(dtype, copy=True)]), embedding, peaks)
        assert (near.float() - x).mean().item() == pytest.approx(exact.mean().item(), rel=0.005)


@pytest.mark.skipif(not is_exact(), reason="this processor has no products of eight bits")
@pytest.mark.parametrize("steps", [1, 3])
def test_a_sample_in_eight_bits_is_near_that_in_floating_point_and_neither_rougher_nor_smoother(steps: int) -> None:
    model = NullSpaceDiffusion.of(read_model(RELEASED)).eval()
    space = NullSpace(ThickeningOperator.from_factor(30, 5, "box"), model.config.expectation.modes)
    thick = 200 * torch.randn(6, 48, 48, generator=torch.Generator().manual_seed(0))
    features, geometry = space.features(thick)[None], space.geometry((5.0, 0.7, 0.7))[None]
    mean = model.expectation.expect(features, geometry, None)
    log_spread, log_spread_near = (
        model.expectation.spread_about(mean, features, geometry, None, quantized=quantized)
        for quantized in (False, True)
    )
    assert 0.0 < (log_spread_near - log_spread).abs().mean() < 0.02
    exact, near = (
        model.draw(
            features, geometry, (mean, log_spread), steps=steps, seed=0, sampler="adams", memory_gib=None,
            quantized=quantized,
        )
        - mean
        for quantized in (False, True)
    )  # fmt: skip
    assert 0.0 < (near - exact).square().mean() < 1e-3 * exact.square().mean()
    assert near.std().item() == pytest.approx(exact.std().item(), rel=0.005)


@pytest.mark.skipif(not is_exact(), reason="this processor has no products of eight bits")
@torch.inference_mode()
def test_peaks_are_looked_up_once_a_network_and_for_a_sample_at_each_level_of_noise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, asked = NullSpaceDiffusion.of(read_model(RELEASED)).eval(), list[tuple[SliceUNet, dict[str, int]]]()
    look_up = SliceUNet.peaks

    def noted(network: SliceUNet, *given: Tensor, **how: int) -> Peaks:
        asked.append((network, how))
        return look_up(network, *given, **how)

    monkeypatch.setattr(SliceUNet, "peaks", noted)
    thick = Volume(np.zeros((4, 16, 16), np.float32), (5.0, 0.7, 0.7), (0.0, 0.0, 0.0), np.eye(3))
    settings = Settings(samples=1, steps=3, mixed_precision="int8")
    restorer = NullSpaceRestorer(model, contiguous(thick, 5, "box"), settings)
    restorer.prior()
    list(restorer.draws())
    without_noise = {"guide": model.config.expectation.modes}
    networks = (model.expectation.mean, {}), (model.expectation.spread, {})
    assert asked == [*networks, *[(model.denoiser, without_noise)] * 3]
