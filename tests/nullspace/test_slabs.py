from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from ctinterp_dagster.errors import ParamsError, TrainingError
from ctinterp_dagster.nullspace.basis import FEATURES, MODES
from ctinterp_dagster.nullspace.diffusion import Expectation, ExpectationConfig, NullSpaceConfig, NullSpaceDiffusion
from ctinterp_dagster.nullspace.objective import (
    ExpectationObjective,
    LossWeights,
    NoisySlabs,
    NullSpaceObjective,
    loss_by_time,
    true_coefficients,
)
from ctinterp_dagster.nullspace.slab_settings import space
from ctinterp_dagster.nullspace.slabs import ORDERS, ThickSlabs, sharpened
from ctinterp_dagster.nullspace.units import coefficient_to_input
from ctinterp_dagster.training.batches import Batches, seeded
from ctinterp_dagster.training.device_volumes import ResidentVolumes, ThinVolume, stacked
from tests.nullspace.slabs_of import plain, varied

SLAB = varied((3, 16, 16), 10.0)
TINY = ExpectationConfig(FEATURES, MODES, (8, 8, 8), 1, (8, 8, 8))


def volume(depth: int = 20) -> ThinVolume:
    hu = torch.randint(-900, 900, (depth, 24, 20), generator=torch.Generator().manual_seed(0), dtype=torch.int16)
    return ThinVolume(hu, (1.0, 0.7, 0.7))


def drawn(batches: Batches[Any], *keys: int) -> Any:
    return batches.batch(batches.plan(seeded(*keys)))


def one_slab_by_hand(slabs: ThickSlabs, chosen: Any, thin: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """The parts of a slab by the operator, step by step, as the networks were trained up to release 0.6."""
    here = space(slabs.slab.zyx[0], chosen.grid)
    if chosen.zoom != 1:
        thin = torch.from_numpy(np.stack([keys_cubic(plane, chosen.zoom) for plane in thin.numpy()])).float()
    binomial = torch.tensor([1.0, 2.0, 1.0]) / 4
    near = functional.pad(thin[:, None], (1, 1, 1, 1), mode="replicate")
    soft = functional.conv2d(near, torch.outer(binomial, binomial)[None, None])[:, 0]
    thin = thin + chosen.sharpness * (thin - soft)
    thin = thin if chosen.noise is None else thin + chosen.noise
    thick = here.operator.forward(thin)
    return here.features(thick), here.geometry(chosen.thick_mm), here.base(thick) / 1000, thin / 1000


def keys_cubic(plane: np.ndarray, zoom: float) -> np.ndarray:
    """Keys' kernel in float64, pixel by pixel, edges replicated."""

    def kernel(d: float) -> float:
        d = abs(d)
        if d < 1:
            return 1.5 * d**3 - 2.5 * d**2 + 1
        return -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2 if d < 2 else 0.0

    padded = np.pad(plane.astype(float), 4, mode="edge")
    rows, columns = (np.arange(n) / zoom for n in plane.shape)
    tall = np.stack([sum(kernel(p - n) * padded[n + 4] for n in range(int(p) - 2, int(p) + 4)) for p in rows])
    return np.stack([sum(kernel(p - n) * tall[:, n + 4] for n in range(int(p) - 2, int(p) + 4)) for p in columns], 1)


@pytest.fixture(scope="module")
def mixed() -> ThickSlabs:
    """Batches of six slabs of thin slices that touch, and of some that overlap."""
    overlapping = ThinVolume(volume(60).hu, (1.0, 0.7, 0.7), thin_thickness=2.0)
    return ThickSlabs([volume(60), overlapping], varied((3, 16, 16), 30.0), 6)


def slabs_of(slabs: ThickSlabs, index: int) -> list[Any]:
    """Those that batch `index` has, before anything is made of them."""
    generator = seeded(3, index)
    return [slabs._choose(generator) for _ in range(6)]


def test_slabs_of_a_batch_are_those_that_the_operator_makes_one_by_one(mixed: ThickSlabs) -> None:
    for index in range(25):
        batch = drawn(mixed, 3, index)
        for n, slab in enumerate(slabs_of(mixed, index)):
            extent = slab.box.depth
            whole = mixed._resident.cut(stacked([slab.box]), (extent, 16, 16))[0]
            made = batch.features[n], batch.geometry[n], batch.base[n, :extent], batch.truth[n, :extent]
            for ours, theirs in zip(made, one_slab_by_hand(mixed, slab, whole), strict=True):
                torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def test_what_lies_beyond_the_slices_of_a_slab_is_zero(mixed: ThickSlabs) -> None:
    for index in range(5):
        batch = drawn(mixed, 3, index)
        for n, slab in enumerate(slabs_of(mixed, index)):
            beyond = slice(slab.box.depth, None)
            parts = batch.base[n, beyond], batch.truth[n, beyond], batch.basis[n, beyond], batch.analysis[n, :, beyond]
            assert not any(part.any() for part in parts)


def test_slabs_of_every_kind_are_drawn(mixed: ThickSlabs) -> None:
    slabs = [slab for index in range(25) for slab in slabs_of(mixed, index)]
    assert {slab.grid.factor for slab in slabs} == set(range(2, 11))
    profiles = {"box", "gaussian", "triangle", "trapezoid:0.2", "trapezoid:0.5"}
    assert {str(slab.grid.profile) for slab in slabs} == profiles
    assert {slab.grid.thin_thickness for slab in slabs} == {1.0, 2.0}
    changes = {(slab.zoom > 1, slab.noise is not None, slab.sharpness != 0) for slab in slabs}
    assert all({change[k] for change in changes} == {True, False} for k in range(3))


def test_boxes_lie_in_any_direction_of_their_volume() -> None:
    hu = torch.arange(4 * 5 * 6, dtype=torch.int16).reshape(4, 5, 6)
    before = torch.zeros(2, 2, 2, dtype=torch.int16)
    resident = ResidentVolumes([ThinVolume(before, (1, 1, 1)), ThinVolume(hu, (1, 1, 1))])
    ways = set()
    for index in range(400):
        order = ORDERS[index % 3]
        box = resident.random_box(1, order, (2, 3, 3), seeded(0, index))
        cut = resident.cut(stacked([box]), (2, 3, 3))[0]
        steps = [int(cut.diff(dim=axis).unique()) for axis in range(3)]
        assert sorted(map(abs, steps)) == [1, 6, 30]
        assert abs(steps[0]) == (30, 6, 1)[order.z]
        ways.add(tuple(steps))
    assert len(ways) == 3 * 2 * 8  # directions of z, transposed or not, mirrored along each axis


def test_the_true_coefficients_of_every_slab_restore_the_truth() -> None:
    slabs = ThickSlabs([volume()], SLAB, 2)
    for index in range(12):
        batch = drawn(slabs, 1, index)
        coefficients, _ = true_coefficients(batch.base, batch.truth, batch.analysis, MODES)
        added = (batch.basis @ coefficients.flatten(1, 2).flatten(2)).unflatten(2, batch.base.shape[2:])
        torch.testing.assert_close(batch.base + coefficient_to_input(added), batch.truth, rtol=0, atol=2e-5)


def test_a_batch_depends_on_its_generator_only() -> None:
    slabs = ThickSlabs([volume()], SLAB, 2)
    first, again, other = (drawn(slabs, seed) for seed in (5, 5, 6))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first.truth, other.truth)


def test_a_plan_on_another_device_has_its_names_still() -> None:
    plan = NoisySlabs(ThickSlabs([volume()], SLAB, 2), MODES).plan(seeded(0))
    moved = plan.to(torch.device("meta")).parts
    assert (moved.t.device.type, moved.slabs.boxes.first.device.type) == ("meta", "meta")
    assert moved.slabs.matrices.basis.shape == plan.parts.slabs.matrices.basis.shape


def test_the_right_expectation_costs_less_than_none() -> None:
    slabs = ThickSlabs([volume()], plain((3, 16, 16)), 1)
    batch = drawn(slabs, 0)
    objective = ExpectationObjective(Expectation(TINY), LossWeights(30.0, 30.0, 0.2, 0.01))
    nothing = float(objective(*batch).detach())
    true, _ = true_coefficients(batch.base, batch.truth, batch.analysis, MODES)
    objective.network.forward = lambda *_: (true, torch.zeros_like(true))  # type: ignore[method-assign]
    assert float(objective(*batch)) < 0.01 * nothing


def test_the_diffusion_trains_the_denoiser_and_leaves_the_expectation() -> None:
    torch.manual_seed(0)
    model = NullSpaceDiffusion(NullSpaceConfig(TINY, (8, 8, 8), 1, "v"))
    objective = NullSpaceObjective(model)
    objective(*drawn(NoisySlabs(ThickSlabs([volume()], SLAB, 2), MODES), 0)).backward()
    assert model.denoiser.conv_out.weight.grad is not None
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
    slabs = ThickSlabs([common, rare], plain((3, 16, 16)), 4)
    means = torch.cat([drawn(slabs, 0, index).truth.mean((1, 2, 3)) for index in range(100)])
    assert 0.19 < float((means > 0.1).float().mean()) < 0.31


def test_slabs_are_cut_across_every_axis_of_isotropic_volumes_only() -> None:
    z = torch.arange(20)[:, None, None].expand(20, 20, 20).to(torch.int16) * 40
    settings = varied((2, 10, 10), 0.0)
    for spacing, axes in (((1.0, 0.7, 0.7), {1, 2, 3}), ((2.0, 0.7, 0.7), {1})):
        slabs, changing = ThickSlabs([ThinVolume(z, spacing)], settings, 1), set()
        for index in range(40):
            truth = drawn(slabs, 0, index).truth[0]
            steps = [float(truth.narrow(axis, 0, 4).diff(dim=axis).abs().mean()) for axis in range(3)]
            changing.add(1 + max(range(3), key=steps.__getitem__))
        assert changing == axes


def test_a_kernel_is_sharpened_and_softened_in_the_plane() -> None:
    thin = torch.zeros(1, 2, 5, 5)
    thin[0, 0, 2, 2] = 16.0
    kept, softer, sharper = (sharpened(thin, torch.tensor([amount]))[0] for amount in (0.0, -1.0, 1.0))
    assert torch.equal(kept, thin[0])
    assert softer[0, 1:4, 1:4].tolist() == [[1, 2, 1], [2, 4, 2], [1, 2, 1]]
    assert float(sharper[0, 2, 2]) == 28.0
    assert float(sharper[1].abs().max()) == 0.0
    assert torch.equal(sharpened(torch.ones(1, 1, 4, 4), torch.tensor([1.5])), torch.ones(1, 1, 4, 4))  # the edges too


def test_what_cannot_be_trained_on_is_refused() -> None:
    with pytest.raises(TrainingError, match="no volume to train on"):
        ThickSlabs([], SLAB, 1)
    with pytest.raises(ParamsError, match=r"smaller than a slab of \(15, 16, 16\)"):
        ThickSlabs([volume(14)], SLAB, 1)


def test_training_times_crowd_towards_the_noise_as_the_samplers_do() -> None:
    slabs = NoisySlabs(ThickSlabs([volume()], plain((3, 4, 4)), 64), MODES)
    times = torch.cat([batch.t for batch in slabs.fixed(40, seed=0)])
    middle = 2.0 * 0.5 / (1.0 + (2.0 - 1.0) * 0.5)  # Esser et al. 2024, eq. 23, with a shift of 2
    assert float((times > middle).float().mean()) == pytest.approx(0.5, abs=0.03)
    assert 0 <= float(times.min()) < 0.02
    assert 0.98 < float(times.max()) <= 1
