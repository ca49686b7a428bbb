"""A training that begins with the weights of an older model."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ctinterp_dagster.errors import ParamsError
from ctinterp_dagster.interpolation import RELEASED
from ctinterp_dagster.model.files import read_model, save_model
from ctinterp_dagster.nullspace.basis import FEATURES, GEOMETRY, MODES
from ctinterp_dagster.nullspace.diffusion import Expectation, ExpectationConfig, NullSpaceConfig, NullSpaceDiffusion
from ctinterp_dagster.pipeline.trainings.warm_start import average_with, load_part, must_predict


@pytest.fixture(scope="module")
def config() -> ExpectationConfig:
    """What trainings make now, at the widths of the released model."""
    old = NullSpaceDiffusion.of(read_model(RELEASED)).config.expectation
    return replace(old, features=FEATURES, modes=MODES, geometry=GEOMETRY)


def test_it_may_know_fewer_cosines(config: ExpectationConfig) -> None:
    network = Expectation(config)
    load_part(network, "expectation", RELEASED, config)
    released = NullSpaceDiffusion.of(read_model(RELEASED)).expectation
    assert torch.equal(network.mean.conv_out.weight[:4], released.mean.conv_out.weight)
    assert not network.mean.conv_out.weight[4:].any()
    torch.nn.init.ones_(network.mean.conv_out.weight)
    average_with(network, "expectation", RELEASED, config, 0.25)
    torch.testing.assert_close(network.mean.conv_out.weight[:4], 0.75 + 0.25 * released.mean.conv_out.weight)


def test_it_has_the_same_widths(config: ExpectationConfig) -> None:
    other = replace(config, channels=(8, 8, 8))
    with pytest.raises(ParamsError, match="has another expectation than the parameters ask for: give its widths"):
        load_part(Expectation(other), "expectation", RELEASED, other)


def test_it_may_be_a_part_that_a_borrowed_gpu_trained(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = ExpectationConfig(FEATURES, MODES, (8, 8), 1, (8, 8), GEOMETRY, mirror=False)
    model = NullSpaceDiffusion(NullSpaceConfig(config, (8, 8), 1, "x0"))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    save_model(model.expectation, "expectation", config, tmp_path / "expectation.safetensors", torch.float16)
    save_model(model.denoiser, "denoiser", model.config, tmp_path / "denoiser.safetensors", torch.float16)
    fresh = NullSpaceDiffusion(model.config)
    for part in ("expectation", "denoiser"):
        load_part(getattr(fresh, part), part, tmp_path / f"{part}.safetensors", config)
    must_predict("x0", tmp_path / "denoiser.safetensors")
    for ours, theirs in zip(fresh.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)
