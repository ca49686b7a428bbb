import copy

import pytest
import torch

from ctinterp_dagster.errors import ParamsError
from ctinterp_dagster.nullspace.basis import FEATURES, MODES
from ctinterp_dagster.nullspace.diffusion import (
    ExpectationConfig,
    NullSpaceConfig,
    NullSpaceDiffusion,
    denoiser_inputs,
)
from ctinterp_dagster.nullspace.distillation import BEGIN_SCALE, BEGIN_TIME, DistillationObjective, with_one_step
from ctinterp_dagster.nullspace.objective import NoisyBatch, NoisySlabs
from ctinterp_dagster.nullspace.slabs import ThickSlabs
from ctinterp_dagster.training.batches import seeded
from ctinterp_dagster.training.device_volumes import ThinVolume
from tests.nullspace.slabs_of import plain

GEOMETRY = torch.tensor([[0.0, 0.1, 1.0]])


@pytest.fixture
def model() -> NullSpaceDiffusion:
    torch.manual_seed(0)
    expectation = ExpectationConfig(FEATURES, MODES, (8, 8, 8), 1, (8, 8, 8))
    made = NullSpaceDiffusion(NullSpaceConfig(expectation, (8, 8, 8), 1, "x0")).eval()
    for network in (made.expectation.mean, made.expectation.spread, made.denoiser):
        torch.nn.init.normal_(network.conv_out.weight, std=0.2)
    for name, weight in made.denoiser.named_parameters():
        if name.endswith(("film.weight", "space.weight")):  # zero while untrained: the time would tell nothing
            torch.nn.init.normal_(weight, std=0.2)
    return made


def batch() -> NoisyBatch:
    thin = 200 * torch.randn(40, 24, 24, generator=torch.Generator().manual_seed(0))
    slabs = NoisySlabs(ThickSlabs([ThinVolume(thin.to(torch.int16), (1.0, 0.7, 0.7))], plain((3, 16, 16)), 2), MODES)
    return slabs.batch(slabs.plan(seeded(0)))


def drawn(model: NullSpaceDiffusion, features: torch.Tensor, *, steps: int, seed: int = 0) -> torch.Tensor:
    mean = model.expectation.expect(features, GEOMETRY, None)
    expected = mean, model.expectation.spread_about(mean, features, GEOMETRY, None)
    return model.draw(features, GEOMETRY, expected, steps=steps, seed=seed, sampler="adams", memory_gib=None)


def test_the_network_for_one_step_begins_as_the_denoiser_at_one_time(model: NullSpaceDiffusion) -> None:
    features = torch.randn(1, FEATURES, 3, 12, 16)
    noise, mean, log_spread = torch.randn(3, 1, MODES, 3, 12, 16)
    inputs = denoiser_inputs(features, mean, log_spread)
    grown = with_one_step(model)
    assert grown.one_step
    begun = grown.one_step(torch.cat([noise, inputs], dim=1), GEOMETRY)
    at_a_time = model.denoise(noise, inputs, GEOMETRY, torch.tensor([BEGIN_TIME]))
    torch.testing.assert_close(begun, BEGIN_SCALE * at_a_time, atol=1e-4, rtol=1e-4)
    assert float(at_a_time.detach().std()) > 0.05


def test_a_sample_in_one_step_is_what_the_network_for_it_says_and_in_more_what_the_denoiser_does(
    model: NullSpaceDiffusion,
) -> None:
    grown, features = with_one_step(model), torch.randn(1, FEATURES, 3, 12, 16)
    assert (model.usual_steps, grown.usual_steps) == (8, 1)
    assert torch.equal(drawn(grown, features, steps=2), drawn(model, features, steps=2))
    one, again, other = (drawn(grown, features, steps=1, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(one, again)
    assert float((one - other).detach().abs().mean()) > 0.01
    assert not torch.allclose(one, drawn(model, features, steps=1))


def test_training_brings_one_step_nearer_to_eight_and_leaves_all_else(model: NullSpaceDiffusion) -> None:
    grown = with_one_step(model)
    before = copy.deepcopy(model.state_dict())
    objective, slabs = DistillationObjective(grown), batch()
    optimizer = torch.optim.Adam(objective.parameters(), lr=0.003)
    losses = []
    for _ in range(12):
        loss = objective(*slabs)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_the_loss_is_how_far_a_sample_in_one_step_lies_from_that_of_the_same_noise_in_eight(
    model: NullSpaceDiffusion,
) -> None:
    grown, slabs = with_one_step(model), batch()
    seed, features, geometry = 5, slabs.features[:1], slabs.geometry[:1]
    noise = torch.randn(slabs.noise[0].shape, generator=torch.Generator().manual_seed(seed))[None]
    loss = DistillationObjective(grown)(*(part[:1] for part in slabs._replace(noise=noise)))
    with torch.no_grad():
        mean, log_spread = grown.expectation(features, geometry)
        one, eight = (
            grown.draw(features, geometry, (mean, log_spread), steps=steps, seed=seed, sampler="adams", memory_gib=None)
            for steps in (1, 8)
        )
    assert loss.item() == pytest.approx(((one - eight) / log_spread.exp()).square().mean().item(), rel=1e-4)
    assert loss.item() > 0.001


def test_a_denoiser_that_predicts_v_is_not_distilled(model: NullSpaceDiffusion) -> None:
    expectation = model.config.expectation
    with pytest.raises(ParamsError, match="predicts v: one that predicts x0 can be distilled"):
        with_one_step(NullSpaceDiffusion(NullSpaceConfig(expectation, (8, 8, 8), 1, "v")))
