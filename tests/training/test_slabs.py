import pytest
import torch

from ctinterp_dagster.errors import ParamsError, TrainingError
from ctinterp_dagster.model.nullspace import Expectation, ExpectationConfig, NullSpaceConfig, NullSpaceDiffusion
from ctinterp_dagster.physics.nullspace import FEATURES, MODES
from ctinterp_dagster.training.loop import seeded
from ctinterp_dagster.training.nullspace import (
    SCALE,
    ExpectationObjective,
    NoisySlabs,
    NullSpaceObjective,
    loss_by_time,
    true_coefficients,
)
from ctinterp_dagster.training.slabs import SlabSettings, ThickSlabs, ThinVolume, sharpened

SLAB = SlabSettings((3, 16, 16), vary=True, noise_hu=10.0)
TINY = ExpectationConfig(FEATURES, MODES, (8, 8, 8), 1, (8, 8, 8))


def volume(depth: int = 20) -> ThinVolume:
    hu = torch.randint(-900, 900, (depth, 24, 20), generator=torch.Generator().manual_seed(0), dtype=torch.int16)
    return ThinVolume(hu, (1.0, 0.7, 0.7))


def test_the_true_coefficients_of_every_slab_restore_the_truth() -> None:
    slabs = ThickSlabs([volume()], SLAB, 2)
    for index in range(12):
        _, _, base, truth, basis, analysis = slabs.draw(seeded(1, index))
        coefficients, _ = true_coefficients(base, truth, analysis, MODES)
        restored = base + SCALE * (basis @ coefficients.flatten(1, 2).flatten(2)).unflatten(2, base.shape[2:])
        torch.testing.assert_close(restored, truth, rtol=0, atol=2e-5)


def test_a_batch_depends_on_its_generator_only() -> None:
    slabs = ThickSlabs([volume()], SLAB, 2)
    first, again, other = (slabs.draw(seeded(seed)) for seed in (5, 5, 6))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[3], other[3])


def test_the_right_expectation_costs_less_than_none() -> None:
    slabs = ThickSlabs([volume()], SlabSettings((3, 16, 16), vary=False, noise_hu=0.0), 1)
    batch = slabs.draw(seeded(0))
    objective = ExpectationObjective(Expectation(TINY))
    nothing = float(objective(*batch).detach())
    true, _ = true_coefficients(batch[2], batch[3], batch[5], MODES)
    objective.network.forward = lambda *_: (true, torch.zeros_like(true))  # type: ignore[method-assign]
    assert float(objective(*batch)) < 0.01 * nothing


def test_the_diffusion_trains_the_denoiser_and_leaves_the_expectation() -> None:
    torch.manual_seed(0)
    model = NullSpaceDiffusion(NullSpaceConfig(TINY, (8, 8, 8), 1, "v"))
    objective = NullSpaceObjective(model)
    objective(*NoisySlabs(ThickSlabs([volume()], SLAB, 2), MODES).draw(seeded(0))).backward()
    assert model.denoiser.leave.weight.grad is not None
    assert all(p.grad is None for p in model.expectation.parameters())
    assert {name.split(".")[0] for name, _ in objective.named_parameters()} == {"denoiser"}


def test_an_untrained_denoiser_knows_nothing_at_any_level_of_noise() -> None:
    torch.manual_seed(0)
    model = NullSpaceDiffusion(NullSpaceConfig(TINY, (8, 8, 8), 1, "x0"))
    batches = NoisySlabs(ThickSlabs([volume()], SLAB, 2), MODES).fixed(2, seed=0)
    rows = loss_by_time(NullSpaceObjective(model), batches)
    assert [row["t"] for row in rows] == [pytest.approx(n / 10) for n in range(1, 10)]
    assert len({row["loss"] for row in rows}) == 1  # it answers 0: the loss is the data's own variance


def test_volumes_are_drawn_as_often_as_their_weights_say() -> None:
    common, rare = (ThinVolume(torch.full((20, 16, 16), value, dtype=torch.int16), (1, 1, 1), weight)
                    for value, weight in ((0, 3.0), (500, 1.0)))  # fmt: skip
    slabs = ThickSlabs([common, rare], SlabSettings((3, 16, 16), vary=False, noise_hu=0.0), 4)
    drawn = torch.cat([slabs.draw(seeded(0, index))[3].mean((1, 2, 3)) for index in range(100)])
    assert 0.19 < float((drawn > 0.1).float().mean()) < 0.31


def test_slabs_are_cut_across_every_axis_of_isotropic_volumes_only() -> None:
    z = torch.arange(20)[:, None, None].expand(20, 20, 20).to(torch.int16) * 40
    settings = SlabSettings((2, 10, 10), vary=True, noise_hu=0.0)
    for spacing, axes in (((1.0, 0.7, 0.7), {1, 2, 3}), ((2.0, 0.7, 0.7), {1})):
        slabs, changing = ThickSlabs([ThinVolume(z, spacing)], settings, 1), set()
        for index in range(40):
            truth = slabs.draw(seeded(0, index))[3][0]
            steps = [float(truth.narrow(axis, 0, 4).diff(dim=axis).abs().mean()) for axis in range(3)]
            changing.add(1 + max(range(3), key=steps.__getitem__))
        assert changing == axes
    turned = ThinVolume(z, (1.0, 0.7, 0.8)).along(2)
    assert turned.spacing_mm == (0.8, 1.0, 0.7)
    assert torch.equal(turned.hu, z.permute(2, 0, 1))


def test_a_kernel_is_sharpened_and_softened_in_the_plane() -> None:
    thin = torch.zeros(2, 5, 5)
    thin[0, 2, 2] = 16.0
    assert torch.equal(sharpened(thin, 0.0), thin)
    assert sharpened(thin, -1.0)[0, 1:4, 1:4].tolist() == [[1, 2, 1], [2, 4, 2], [1, 2, 1]]
    assert float(sharpened(thin, 1.0)[0, 2, 2]) == 28.0
    assert float(sharpened(thin, 1.0)[1].abs().max()) == 0.0
    assert torch.equal(sharpened(torch.ones(1, 4, 4), 1.5), torch.ones(1, 4, 4))  # the edges too


def test_what_cannot_be_trained_on_is_refused() -> None:
    with pytest.raises(TrainingError, match="no volume to train on"):
        ThickSlabs([], SLAB, 1)
    with pytest.raises(ParamsError, match=r"smaller than a slab of \(15, 16, 16\)"):
        ThickSlabs([volume(14)], SLAB, 1)


def test_training_times_crowd_towards_the_noise_as_the_samplers_do() -> None:
    slabs = NoisySlabs(ThickSlabs([volume()], SlabSettings((3, 4, 4), vary=False, noise_hu=0.0), 64), MODES)
    times = torch.cat([batch[-1] for batch in slabs.fixed(40, seed=0)])
    middle = 2.0 * 0.5 / (1.0 + (2.0 - 1.0) * 0.5)  # Esser et al. 2024, eq. 23, with a shift of 2
    assert float((times > middle).float().mean()) == pytest.approx(0.5, abs=0.03)
    assert 0 <= float(times.min()) < 0.02
    assert 0.98 < float(times.max()) <= 1
